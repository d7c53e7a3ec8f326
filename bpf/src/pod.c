// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The Sealane Authors
//go:build ignore

/* The two programs on the host side of a pod's device. */
#include "count.h"
#include "deliver.h"
#include "flow.h"
#include "maps.h"
#include "packet.h"

static __always_inline int into_lane(struct __sk_buff *skb, struct packet *p, const struct forward *f)
{
	static const __u8 lane_mac[6] = LANE_MAC;
	struct forward to = *f;

	if (decrement_ttl(skb, p))
		return drop(skb, DROP_HELPER);
	if (to.l2 && (write_ether(skb, p, lane_mac) || set_tunnel(skb, &to)))
		return drop(skb, DROP_HELPER);
	skb->mark = FAST_MARK;
	pass(skb, PATH_LANE_OUT);
	return bpf_redirect(to.ifindex, 0);
}

/* Ingress of the host side: a packet leaves the pod. */
SEC("tc")
int pod_egress(struct __sk_buff *skb)
{
	struct packet p = {};
	struct endpoint *from, *to;
	struct forward *f;

	if (!is_ip(skb)) {
		if (skb->protocol == bpf_htons(ETH_P_ARP))
			return TC_OK; /* answered or ignored by the stack; cannot leave the node */
		return drop(skb, DROP_PROTOCOL);
	}
	if (parse(skb, ETH_HLEN, &p))
		return drop(skb, DROP_MALFORMED);
	from = endpoint_of(&p.src);
	if (!from || from->ifindex != skb->ifindex)
		return drop(skb, is_link_local(&p) ? DROP_LINK_LOCAL : DROP_SPOOFED_SOURCE);
	if (is_multicast(&p))
		return drop(skb, DROP_MULTICAST);
	f = forward_of(&p.dst);
	if (!f || f->kind == FORWARD_NODE_LOCAL)
		return pass(skb, PATH_STACK_OUT);
	if (f->kind == FORWARD_POD_LOCAL) {
		to = endpoint_of(&p.dst);
		if (!to) { /* the stack has an unreachable route, and says so to the pod */
			count_drop(skb, DROP_NO_ENDPOINT);
			return TC_OK;
		}
		if (takes_fast_path(skb, &p))
			return deliver(skb, &p, to, PATH_LOCAL);
		return pass(skb, PATH_STACK_OUT);
	}
	if (f->kind == FORWARD_CLUSTER || !f->ifindex) {
		count_drop(skb, DROP_NO_LANE);
		return TC_OK; /* likewise: refused at once beats silence */
	}
	/*
	 * What a pod begins with a node passes this host's connection tracking, as
	 * whoever looks there expects (host ports, kube-proxy); what the node began
	 * has come the short way and goes back so.
	 */
	if (f->kind == FORWARD_NODE_REMOTE ? stays_on_fast_path(skb, &p) : takes_fast_path(skb, &p))
		return into_lane(skb, &p, f);
	if (f->kind == FORWARD_NODE_REMOTE && answers_node(&p))
		skb->mark |= ANSWER_MARK;
	return pass(skb, PATH_STACK_OUT);
}

/* Egress of the host side: a packet comes from the host's stack. */
SEC("tc")
int pod_ingress(struct __sk_buff *skb)
{
	struct packet p = {};
	struct forward *f;

	if (!is_ip(skb))
		return TC_OK;
	if (parse(skb, ETH_HLEN, &p))
		return drop(skb, DROP_MALFORMED);
	f = forward_of(&p.src);
	/* What goes to the node itself always goes by the stack: nothing to remember. */
	if (!f || f->kind != FORWARD_NODE_LOCAL)
		came_by_stack(&p);
	return pass(skb, PATH_STACK_IN);
}

char _license[] SEC("license") = "Dual BSD/GPL";
