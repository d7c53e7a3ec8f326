// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The Sealane Authors
//go:build ignore

/*
 * The leak guard, on both directions of every device that leads out of the
 * node: no packet with a pod's address passes in the clear. It is the last line
 * and knows nothing of routes, policy or keys; what it stops is a fault
 * elsewhere, and is reported.
 */
#include "count.h"
#include "maps.h"
#include "packet.h"

static __always_inline int is_pod(const struct addr *a)
{
	struct forward *f = forward_of(a);

	return f && (f->kind == FORWARD_POD_REMOTE || f->kind == FORWARD_POD_LOCAL || f->kind == FORWARD_CLUSTER);
}

static __always_inline int addresses(struct __sk_buff *skb, __u32 l2, struct packet *p)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		__be32 a[2];

		if (bpf_skb_load_bytes(skb, l2 + 12, a, sizeof(a)))
			return -1;
		map_v4(&p->src, a[0]);
		map_v4(&p->dst, a[1]);
		return 0;
	}
	return bpf_skb_load_bytes(skb, l2 + 8, &p->src, 2 * sizeof(struct addr));
}

static __always_inline int stop_leaks(struct __sk_buff *skb, __u32 l2, enum drop_reason reason)
{
	struct packet p = {};
	struct leak l = {};
	__u32 zero = 0;

	if (!is_ip(skb))
		return TC_NEXT;
	if (addresses(skb, l2, &p))
		return drop(skb, DROP_MALFORMED);
	if (!is_pod(&p.src) && !is_pod(&p.dst))
		return TC_NEXT;
	l.src = p.src;
	l.dst = p.dst;
	l.ifindex = skb->ifindex;
	l.reason = reason;
	bpf_map_update_elem(&sl_leaks, &zero, &l, UPDATE_ANY);
	return drop(skb, reason);
}

SEC("tc")
int uplink_ingress_l2(struct __sk_buff *skb)
{
	return stop_leaks(skb, ETH_HLEN, DROP_LEAK_INGRESS);
}

SEC("tc")
int uplink_egress_l2(struct __sk_buff *skb)
{
	return stop_leaks(skb, ETH_HLEN, DROP_LEAK_EGRESS);
}

SEC("tc")
int uplink_ingress_l3(struct __sk_buff *skb)
{
	return stop_leaks(skb, 0, DROP_LEAK_INGRESS);
}

SEC("tc")
int uplink_egress_l3(struct __sk_buff *skb)
{
	return stop_leaks(skb, 0, DROP_LEAK_EGRESS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
