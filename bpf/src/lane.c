// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The Sealane Authors
//go:build ignore

/* The programs on tunnel devices: _l3 for WireGuard, _l2 for VXLAN. */
#include "count.h"
#include "deliver.h"
#include "flow.h"
#include "maps.h"
#include "packet.h"
#include "policy.h"
#include "service.h"

/*
 * WireGuard has checked the source against the peer's AllowedIPs; VXLAN checks
 * nothing, so the outer source must be the node that the inner one belongs to.
 */
static __always_inline int from_its_peer(struct __sk_buff *skb, const struct forward *f)
{
	struct bpf_tunnel_key key = {};

	if (!f || (f->kind != FORWARD_POD_REMOTE && f->kind != FORWARD_NODE_REMOTE))
		return 0;
	if (!f->l2)
		return 1;
	if (f->remote.w[0] == 0 && f->remote.w[1] == 0 && f->remote.w[2] == bpf_htonl(0xffff))
		return !bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0) && key.tunnel_id == VNI &&
		       key.remote_ipv4 == bpf_htonl(f->remote.w[3]);
	return !bpf_skb_get_tunnel_key(skb, &key, sizeof(key), TUNINFO_IPV6) && key.tunnel_id == VNI &&
	       key.remote_ipv6[0] == f->remote.w[0] && key.remote_ipv6[1] == f->remote.w[1] &&
	       key.remote_ipv6[2] == f->remote.w[2] && key.remote_ipv6[3] == f->remote.w[3];
}

static __always_inline int lane_ingress(struct __sk_buff *skb, __u32 l2)
{
	struct packet p = {};
	struct track t = {};
	struct endpoint *to;
	struct forward *f;
	int reason;

	if (!is_ip(skb))
		return drop(skb, DROP_PROTOCOL);
	if (parse(skb, l2, &p))
		return drop(skb, DROP_MALFORMED);
	f = forward_of(&p.src);
	if (!from_its_peer(skb, f))
		return drop(skb, DROP_LANE_SOURCE);
	to = endpoint_of(&p.dst);
	if (to) {
		if (track(skb, &p, &t))
			return drop(skb, DROP_MALFORMED);
		reason = judge(skb, &p, &t, 0);
		if (reason)
			return drop(skb, reason);
		if (p.fragment)
			share_ports(&p, &p.src, 0);
		if (!takes_fast_path(&p, &t, 0))
			return TC_OK;
		if (from_frontend(skb, &p, &t))
			return drop(skb, DROP_HELPER);
		return deliver(skb, &p, to, PATH_LANE_IN);
	}
	f = forward_of(&p.dst);
	if (f && f->kind == FORWARD_NODE_LOCAL)
		return TC_OK;
	if (f && f->kind == FORWARD_POD_LOCAL)
		return drop(skb, DROP_NO_ENDPOINT);
	return drop(skb, DROP_LANE_DESTINATION);
}

static __always_inline int lane_egress(struct __sk_buff *skb, __u32 l2)
{
	static const __u8 vxlan_mac[6] = VXLAN_MAC;
	struct packet p = {};
	struct track t = {};
	struct forward *f;
	int reason;

	if (skb->mark == FAST_MARK) {
		skb->mark = 0;
		return TC_OK;
	}
	/* VXLAN routes its outer packet by the inner one's mark: back into the lane. */
	skb->mark &= ~(LANE_MARK | FORWARDED_MARK | ANSWER_MARK);
	if (!is_ip(skb))
		return drop(skb, DROP_PROTOCOL);
	if (parse(skb, l2, &p))
		return drop(skb, DROP_MALFORMED);
	if (l2) {
		f = forward_of(&p.dst);
		if (!f || (f->kind != FORWARD_POD_REMOTE && f->kind != FORWARD_NODE_REMOTE))
			return drop(skb, DROP_NO_LANE);
		/* The stack wrote this device's own address as source, which the
		 * receiving VXLAN device, having the same, would take for a loop. */
		if (set_tunnel(skb, f) || write_ether(skb, &p, vxlan_mac))
			return drop(skb, DROP_HELPER);
	}
	if (is_own_node(&p.src))
		return TC_OK;
	if (track(skb, &p, &t))
		return drop(skb, DROP_MALFORMED);
	reason = judge(skb, &p, &t, 0);
	if (reason)
		return drop(skb, reason);
	if (p.fragment)
		share_ports(&p, &p.src, 0);
	came_by_stack(&p, &t);
	return TC_OK;
}

SEC("tc")
int lane_ingress_l3(struct __sk_buff *skb)
{
	return lane_ingress(skb, 0);
}

SEC("tc")
int lane_ingress_l2(struct __sk_buff *skb)
{
	return lane_ingress(skb, ETH_HLEN);
}

SEC("tc")
int lane_egress_l3(struct __sk_buff *skb)
{
	return lane_egress(skb, 0);
}

SEC("tc")
int lane_egress_l2(struct __sk_buff *skb)
{
	return lane_egress(skb, ETH_HLEN);
}

char _license[] SEC("license") = "Dual BSD/GPL";
