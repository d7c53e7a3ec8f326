/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright The Sealane Authors */
#pragma once
#include "uapi.h"

/*
 * All maps, shared by every program and pinned, so that a daemon that restarts
 * finds forwarding as it left it.
 *
 * Every address is 16 bytes; IPv4 is written as ::ffff:a.b.c.d (RFC 4291,
 * 2.5.5.2), so that one map and one line of code serve both families.
 */
struct addr {
	__be32 w[4];
};

/* A pod of this node, found by its address. */
struct endpoint {
	__u32 ifindex; /* host side of its device */
	__u8 mac[6]; /* pod side */
	__u16 pad;
};

/* What an address range is to this node; the Go side has the same numbers. */
enum forward_kind {
	FORWARD_NONE = 0,
	FORWARD_POD_REMOTE = 1, /* pods of a peer, by ifindex */
	FORWARD_NODE_REMOTE = 2, /* an address of a peer, by ifindex */
	FORWARD_NODE_LOCAL = 3, /* an address of this node */
	FORWARD_POD_LOCAL = 4, /* this node's pods: look in sl_endpoints */
	FORWARD_CLUSTER = 5, /* cluster address without a lane: refuse */
};

struct forward {
	__u32 ifindex; /* the lane's device; 0: no lane */
	__u8 kind; /* enum forward_kind */
	__u8 l2; /* 1: the lane carries Ethernet (VXLAN) */
	__u16 pad;
	struct addr remote; /* outer destination, for VXLAN */
};

struct prefix {
	__u32 len; /* bits, of 128 */
	struct addr addr;
};

/* A flow, the same key in both directions: the lower (address, port) first. */
struct flow {
	struct addr low, high;
	__be16 low_port, high_port;
	__u8 proto;
	__u8 pad[3];
};

/* What a pod asks a service for. */
struct frontend {
	struct addr addr;
	__be16 port;
	__u8 proto;
	__u8 pad;
};

enum flow_class {
	FLOW_NONE = 0, /* unknown, or a pod has begun it with a node, which has not answered */
	FLOW_FAST = 1, /* forwarded by these programs, both ways */
	FLOW_STACK = 2, /* netfilter has translated it: must go back the same way */
};

/* Who has sent the first packet of a flow. */
enum flow_origin {
	ORIGIN_UNKNOWN = 0, /* it was under way when it was first seen */
	ORIGIN_LOW = 1,
	ORIGIN_HIGH = 2,
};

struct flow_state {
	__u32 seen; /* seconds since boot */
	__u32 generation; /* of the policy tables that last allowed it */
	struct addr frontend; /* the service address that was asked for; zero: none */
	__be16 frontend_port;
	__u8 class; /* enum flow_class */
	__u8 origin; /* enum flow_origin */
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

/* The newest packet that the leak guard stopped, for the report. */
struct leak {
	struct addr src, dst;
	__u32 ifindex;
	__u32 reason;
};

struct {
	__uint(type, MAP_HASH);
	__type(key, struct addr);
	__type(value, struct endpoint);
	__uint(max_entries, 4096);
	__uint(pinning, PIN_BY_NAME);
} sl_endpoints SEC(".maps");

struct {
	__uint(type, MAP_LPM_TRIE);
	__type(key, struct prefix);
	__type(value, struct forward);
	__uint(max_entries, 65536);
	__uint(map_flags, F_NO_PREALLOC);
	__uint(pinning, PIN_BY_NAME);
} sl_forwards SEC(".maps");

struct {
	__uint(type, MAP_LRU_HASH);
	__type(key, struct flow);
	__type(value, struct flow_state);
	__uint(max_entries, 262144);
	__uint(pinning, PIN_BY_NAME);
} sl_flows SEC(".maps");

/* Who began a TCP connection, where policy allows it from that end alone: outlives the entry in sl_flows. */
struct {
	__uint(type, MAP_LRU_HASH);
	__type(key, struct flow);
	__type(value, __u32); /* enum flow_origin */
	__uint(max_entries, 262144);
	__uint(pinning, PIN_BY_NAME);
} sl_origins SEC(".maps");

struct {
	__uint(type, MAP_ARRAY);
	__type(key, __u32);
	__type(value, struct leak);
	__uint(max_entries, 1);
	__uint(pinning, PIN_BY_NAME);
} sl_leaks SEC(".maps");

static __always_inline int same_addr(const struct addr *a, const struct addr *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

static __always_inline struct forward *forward_of(const struct addr *a)
{
	struct prefix k = { .len = 128, .addr = *a };

	return bpf_map_lookup_elem(&sl_forwards, &k);
}

static __always_inline struct endpoint *endpoint_of(const struct addr *a)
{
	return bpf_map_lookup_elem(&sl_endpoints, a);
}
