/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright The Sealane Authors */
#pragma once
#include "count.h"
#include "maps.h"
#include "packet.h"

/*
 * NetworkPolicy. The maps are the Go side's policy.Tables, one map for each
 * table; what they mean is written there. Every decision is made once for a
 * flow, and once more for each generation of the tables.
 */

/* What keeps a pod of this node: rule sets; 0 where no policy selects it. */
struct endpoint_policy {
	__u64 egress, ingress;
	__u64 dry_run_egress, dry_run_ingress; /* as if dry-run policies were in force */
};

/* Sets of ports: 0 none, ALL_PORTS, or what is in sl_ports. */
struct rule_set {
	__u64 any; /* for every peer */
	__u64 pods; /* for every pod with an identity */
};

#define ALL_PORTS 1

struct rule {
	__u64 set, peer; /* an identity or the class of an address */
};

struct port_key {
	__u32 len; /* bits, of 96 */
	__u32 set[2]; /* the set's number; not one field, so that nothing is padded */
	__u8 proto;
	__u8 port[2]; /* the higher byte first */
	__u8 pad;
};

struct policy_state {
	__u32 generation; /* of the policy tables; from 1 */
	__u32 watched; /* 1: somebody reads the verdicts */
};

enum verdict_kind {
	VERDICT_ALLOWED = 1,
	VERDICT_DENIED = 2,
	VERDICT_DRY_RUN_DENIED = 3, /* passes, and would not if dry-run policies were in force */
};

/* What was decided of a flow, in the direction in which it began. */
struct verdict {
	__u64 time; /* nanoseconds since boot */
	struct addr src, dst;
	struct addr frontend; /* the service that was asked for; zero: none */
	__be16 src_port, dst_port, frontend_port;
	__u8 proto;
	__u8 kind; /* enum verdict_kind */
	__u8 reason; /* enum drop_reason; of VERDICT_DRY_RUN_DENIED: what it would have been */
	__u8 pad[3];
	__u32 lost; /* verdicts of this processor that found no room since the last one that did */
};

struct {
	__uint(type, MAP_HASH);
	__type(key, struct addr);
	__type(value, __u64);
	__uint(max_entries, 262144);
	__uint(map_flags, F_NO_PREALLOC);
	__uint(pinning, PIN_BY_NAME);
} sl_identities SEC(".maps");

struct {
	__uint(type, MAP_LPM_TRIE);
	__type(key, struct prefix);
	__type(value, __u64);
	__uint(max_entries, 65536);
	__uint(map_flags, F_NO_PREALLOC);
	__uint(pinning, PIN_BY_NAME);
} sl_blocks SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__type(key, struct addr);
	__type(value, struct endpoint_policy);
	__uint(max_entries, 4096);
	__uint(pinning, PIN_BY_NAME);
} sl_ep_policies SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__type(key, __u64);
	__type(value, struct rule_set);
	__uint(max_entries, 16384);
	__uint(map_flags, F_NO_PREALLOC);
	__uint(pinning, PIN_BY_NAME);
} sl_rule_sets SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__type(key, struct rule);
	__type(value, __u64);
	__uint(max_entries, 1048576);
	__uint(map_flags, F_NO_PREALLOC);
	__uint(pinning, PIN_BY_NAME);
} sl_rules SEC(".maps");

struct {
	__uint(type, MAP_LPM_TRIE);
	__type(key, struct port_key);
	__type(value, __u32);
	__uint(max_entries, 262144);
	__uint(map_flags, F_NO_PREALLOC);
	__uint(pinning, PIN_BY_NAME);
} sl_ports SEC(".maps");

struct {
	__uint(type, MAP_ARRAY);
	__type(key, __u32);
	__type(value, struct policy_state);
	__uint(max_entries, 1);
	__uint(pinning, PIN_BY_NAME);
} sl_policy_state SEC(".maps");

struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct counter);
	__uint(max_entries, 32);
	__uint(pinning, PIN_BY_NAME);
} sl_dry_run SEC(".maps");

struct {
	__uint(type, MAP_RINGBUF);
	__uint(max_entries, 1048576);
	__uint(pinning, PIN_BY_NAME);
} sl_verdicts SEC(".maps");

struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
	__uint(pinning, PIN_BY_NAME);
} sl_verdict_lost SEC(".maps");

static __always_inline int in_ports(__u64 set, __u32 proto, __be16 port)
{
	struct port_key k = { .len = 88, .proto = proto };

	if (set <= ALL_PORTS)
		return set == ALL_PORTS;
	__builtin_memcpy(k.set, &set, sizeof(set));
	__builtin_memcpy(k.port, &port, sizeof(port));
	return bpf_map_lookup_elem(&sl_ports, &k) != 0;
}

static __always_inline int by_rule(__u64 set, __u64 peer, __u32 proto, __be16 port)
{
	struct rule r = { .set = set, .peer = peer };
	__u64 *allowed = bpf_map_lookup_elem(&sl_rules, &r);

	return allowed && in_ports(*allowed, proto, port);
}

/* Does the rule set allow this peer, at this port of the destination? */
__global int permits(__u64 set, const struct addr *peer, __u32 proto, __u32 port)
{
	struct rule_set *s = bpf_map_lookup_elem(&sl_rule_sets, &set);
	struct prefix k = { .len = 128 };
	__u64 *id;

	if (!s || !peer)
		return 0;
	k.addr = *peer; /* before Linux 6.8 a key has to be on the function's own stack */
	if (in_ports(s->any, proto, port))
		return 1;
	id = bpf_map_lookup_elem(&sl_identities, &k.addr);
	if (id && (in_ports(s->pods, proto, port) || by_rule(set, *id, proto, port)))
		return 1;
	id = bpf_map_lookup_elem(&sl_blocks, &k);
	return id && by_rule(set, *id, proto, port);
}

static __always_inline int is_own_node(const struct addr *a)
{
	struct forward *f = forward_of(a);

	return f && f->kind == FORWARD_NODE_LOCAL;
}

/* Is this a pod of the cluster that the tables do not know (yet)? */
static __always_inline int is_stranger(const struct addr *a)
{
	struct forward *f = forward_of(a);

	if (!f || f->kind == FORWARD_NODE_LOCAL || f->kind == FORWARD_NODE_REMOTE)
		return 0;
	return !bpf_map_lookup_elem(&sl_identities, a);
}

#define DRY_RUN_EGRESS 0x100
#define DRY_RUN_INGRESS 0x200

/*
 * What policy says of a flow that *from begins with *to: 0 or the reason to
 * drop it, and what dry-run policies would add. This node judges for its own
 * pods only; the other end's node judges for the other end. What this node has
 * forwarded is not its own, whatever the source says that it was given on the way.
 */
__global int judge_new(const struct addr *from, const struct addr *to, __u32 proto, __u32 port, __u32 forwarded)
{
	struct addr own[2] = {}, *src = &own[0], *dst = &own[1];
	struct endpoint_policy *policy;
	int dry_run = 0;

	if (!from || !to)
		return DROP_POLICY_UNKNOWN;
	*src = *from; /* see permits */
	*dst = *to;
	if (same_addr(src, dst)) /* no policy keeps a pod from itself */
		return 0;
	policy = bpf_map_lookup_elem(&sl_ep_policies, src);
	if (!policy && endpoint_of(src))
		return DROP_POLICY_UNKNOWN;
	if (policy && (policy->egress | policy->dry_run_egress) && !is_own_node(dst)) {
		if (policy->egress && !permits(policy->egress, dst, proto, port))
			return is_stranger(dst) ? DROP_POLICY_PEER : DROP_POLICY_EGRESS;
		if (policy->dry_run_egress && policy->dry_run_egress != policy->egress && !permits(policy->dry_run_egress, dst, proto, port))
			dry_run |= DRY_RUN_EGRESS;
	}
	policy = bpf_map_lookup_elem(&sl_ep_policies, dst);
	if (!policy && endpoint_of(dst))
		return DROP_POLICY_UNKNOWN;
	if (policy && (policy->ingress | policy->dry_run_ingress) && (forwarded || !is_own_node(src))) {
		if (policy->ingress && !permits(policy->ingress, src, proto, port))
			return is_stranger(src) ? DROP_POLICY_PEER : DROP_POLICY_INGRESS;
		if (policy->dry_run_ingress && policy->dry_run_ingress != policy->ingress && !permits(policy->dry_run_ingress, src, proto, port))
			dry_run |= DRY_RUN_INGRESS;
	}
	return dry_run;
}
