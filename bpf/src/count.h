/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright The Sealane Authors */
#pragma once
#include "maps.h"

/*
 * Why a packet was dropped. One list for eBPF, metrics and the CLI: the Go side
 * (reason.go) has the same numbers, and a test compares the two. Numbers are
 * never reused, since counters outlive the daemon.
 */
enum drop_reason {
	DROP_NONE = 0,
	DROP_MALFORMED = 1, /* header cut short or inconsistent */
	DROP_SPOOFED_SOURCE = 2, /* a pod sent from an address that is not its own */
	DROP_LINK_LOCAL = 3, /* link-local or unspecified source: never leaves a pod */
	DROP_MULTICAST = 4, /* multicast and broadcast are not carried */
	DROP_PROTOCOL = 5, /* neither IPv4 nor IPv6, or tagged for a VLAN */
	DROP_NO_LANE = 6, /* the peer has no lane (yet): refused, never sent in clear */
	DROP_NO_ENDPOINT = 7, /* no pod here has this address */
	DROP_LANE_SOURCE = 8, /* came out of a lane from an address that is not the peer's */
	DROP_LANE_DESTINATION = 9, /* came out of a lane for an address that is not here */
	DROP_LEAK_EGRESS = 10, /* a pod's address in clear on its way out of the node */
	DROP_LEAK_INGRESS = 11, /* a pod's address in clear on its way in */
	DROP_HELPER = 12, /* the kernel could not rewrite the packet (memory) */
	DROP_POLICY_EGRESS = 13, /* the sender's NetworkPolicies do not allow it */
	DROP_POLICY_INGRESS = 14, /* the receiver's NetworkPolicies do not allow it */
	DROP_POLICY_UNKNOWN = 15, /* a pod of this node whose policies are not known yet */
	DROP_POLICY_PEER = 16, /* policy would have to know the other pod, and does not yet */
	DROP_NODE_PORT = 17, /* a pod speaks to a port by which nodes speak to each other */
	DROP_LOOPBACK = 18, /* a loopback address: no packet with one leaves its host */
};

/* Which way a packet of a pod took; the Go side has the same numbers. */
enum path {
	PATH_LOCAL = 0, /* pod to pod on this node */
	PATH_LANE_OUT = 1, /* pod into a lane */
	PATH_LANE_IN = 2, /* lane into a pod */
	PATH_STACK_OUT = 3, /* pod to the host's stack */
	PATH_STACK_IN = 4, /* the host's stack to a pod */
};

struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__type(key, enum drop_reason);
	__type(value, struct counter);
	__uint(max_entries, 32);
	__uint(pinning, PIN_BY_NAME);
} sl_drops SEC(".maps");

struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__type(key, enum path);
	__type(value, struct counter);
	__uint(max_entries, 8);
	__uint(pinning, PIN_BY_NAME);
} sl_paths SEC(".maps");

static __always_inline void add(struct counter *c, struct __sk_buff *skb)
{
	if (c) {
		c->packets++; /* per CPU, and softirqs do not interrupt one another */
		c->bytes += skb->len;
	}
}

static __always_inline void count_drop(struct __sk_buff *skb, enum drop_reason reason)
{
	add(bpf_map_lookup_elem(&sl_drops, &reason), skb);
}

static __always_inline int drop(struct __sk_buff *skb, enum drop_reason reason)
{
	count_drop(skb, reason);
	return TC_SHOT;
}

static __always_inline int pass(struct __sk_buff *skb, enum path path)
{
	add(bpf_map_lookup_elem(&sl_paths, &path), skb);
	return TC_OK;
}
