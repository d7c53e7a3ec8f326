/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright The Sealane Authors */
#pragma once
#include "count.h"
#include "packet.h"

/*
 * A packet that these programs put into a lane carries this mark for the
 * moment between the redirect and lane_egress, which takes it off; a packet
 * without it came by the stack. A pod cannot forge it: veth clears marks.
 */
#define FAST_MARK 0x5ea1fa57

/*
 * Bits of marks that our rules of netfilter know (overlay/hostnet): a pod's
 * answer to a node, not to be translated; a packet that this host forwards, and
 * that is no answer; an answer that has to go into a lane.
 */
#define ANSWER_MARK 0x80000000
#define FORWARDED_MARK 0x40000000
#define LANE_MARK 0x20000000

#define VNI 5154

/* A pod's next hop, 169.254.1.1: the Go side gives it to every pod. */
#define GATEWAY_V4 0xa9fe0101
/* The host side's fixed address; the Go side sets it on every device. */
#define HOST_MAC { 0xee, 0xee, 0xee, 0x5e, 0xa1, 0x01 }
/* All VXLAN devices have this address, so that no neighbour is ever asked for. */
#define VXLAN_MAC { 0x0e, 0x5e, 0xa1, 0x00, 0x00, 0x01 }

static __always_inline int write_ether(struct __sk_buff *skb, const struct packet *p, const __u8 *dst)
{
	struct ethhdr eth = { .src = HOST_MAC };

	__builtin_memcpy(eth.dst, dst, 6);
	eth.proto = p->v4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	return bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0);
}

/*
 * Into a pod of this node, straight to the inner end of its device. A packet
 * from a device without link layer gets an Ethernet header first: without it,
 * packet sockets in the pod would read the IP header as one.
 */
static __always_inline int deliver(struct __sk_buff *skb, struct packet *p, const struct endpoint *ep, enum path path)
{
	struct endpoint to = *ep; /* the map's memory may change under us */

	if (decrement_ttl(skb, p))
		return drop(skb, DROP_HELPER);
	if (p->l3 == 0 && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return drop(skb, DROP_HELPER);
	if (write_ether(skb, p, to.mac))
		return drop(skb, DROP_HELPER);
	pass(skb, path);
	return bpf_redirect_peer(to.ifindex, 0);
}

static __always_inline int set_tunnel(struct __sk_buff *skb, const struct forward *f)
{
	struct bpf_tunnel_key key = { .tunnel_id = VNI, .tunnel_ttl = 64 };
	__u64 flags = ZERO_CSUM_TX;

	if (f->remote.w[0] == 0 && f->remote.w[1] == 0 && f->remote.w[2] == bpf_htonl(0xffff)) {
		key.remote_ipv4 = bpf_htonl(f->remote.w[3]);
	} else {
		flags = TUNINFO_IPV6;
		__builtin_memcpy(key.remote_ipv6, &f->remote, sizeof(f->remote));
	}
	return bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags);
}
