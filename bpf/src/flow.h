/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright The Sealane Authors */
#pragma once
#include "maps.h"
#include "packet.h"

/*
 * Connection tracking: which way a flow goes. A flow that netfilter has
 * translated (a service, a host port) must come back through netfilter; all
 * others take the short way. So every flow has a class, given by the first
 * packet that is seen of it, and a TCP SYN gives it anew.
 *
 * An entry that is lost (the map is an LRU) does no harm to TCP: a packet in
 * the middle of an unknown connection goes to the stack, which can do both.
 * Of other flows an answer may then go the wrong way, until the next packet in
 * the first direction sets that right.
 */

/* Seconds an idle entry is believed. UDP: longer than netfilter's 120 s. */
#define TCP_LIFE 21600
#define OTHER_LIFE 180

static __always_inline __u32 now_seconds(void)
{
	return bpf_ktime_get_coarse_ns() / 1000000000ULL;
}

static __always_inline int source_is_low(const struct packet *p)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		if (p->src.w[i] < p->dst.w[i])
			return 1;
		if (p->src.w[i] > p->dst.w[i])
			return 0;
	}
	return p->ports.src <= p->ports.dst;
}

static __always_inline void flow_key(const struct packet *p, struct flow *f)
{
	f->proto = p->proto;
	if (source_is_low(p)) {
		f->low = p->src;
		f->high = p->dst;
		f->low_port = p->ports.src;
		f->high_port = p->ports.dst;
	} else {
		f->low = p->dst;
		f->high = p->src;
		f->low_port = p->ports.dst;
		f->high_port = p->ports.src;
	}
}

static __always_inline __u8 flow_find(struct flow *f)
{
	__u32 now = now_seconds(), life = f->proto == IPPROTO_TCP ? TCP_LIFE : OTHER_LIFE;
	struct flow_state *s = bpf_map_lookup_elem(&flows, f);

	if (!s || now - s->seen > life)
		return FLOW_NONE;
	if (s->seen != now) /* at most one write a second keeps the cache line shared */
		s->seen = now;
	return s->class;
}

static __always_inline void flow_set(struct flow *f, __u8 class)
{
	struct flow_state s = { .seen = now_seconds(), .class = class };

	bpf_map_update_elem(&flows, f, &s, UPDATE_ANY);
}

/* The class of the packet that an ICMP error quotes; errors make no entry. */
static __always_inline __u8 flow_of_error(struct __sk_buff *skb, struct packet *p)
{
	struct packet quoted = {};
	struct flow f = {};

	if (parse_quoted(skb, p, &quoted))
		return FLOW_NONE;
	flow_key(&quoted, &f);
	return flow_find(&f);
}

/* May this packet, that is for a pod, take the short way? Notes new flows. */
static __always_inline int takes_fast_path(struct __sk_buff *skb, struct packet *p)
{
	struct flow f = {};
	__u8 class;

	if (p->fragment || p->ttl <= 1)
		return 0; /* reassembly, and the ICMP error, are the stack's */
	if (p->error)
		return flow_of_error(skb, p) != FLOW_STACK;
	flow_key(p, &f);
	class = flow_find(&f);
	if (p->syn ? class == FLOW_FAST : class != FLOW_NONE)
		return class == FLOW_FAST;
	if (p->proto == IPPROTO_TCP && !p->syn)
		return 0;
	flow_set(&f, FLOW_FAST);
	return 1;
}

/* Is this packet part of a flow that goes the short way already? Notes nothing. */
static __always_inline int stays_on_fast_path(struct __sk_buff *skb, struct packet *p)
{
	struct flow f = {};

	if (p->fragment || p->ttl <= 1 || p->syn)
		return 0;
	if (p->error)
		return flow_of_error(skb, p) == FLOW_FAST;
	flow_key(p, &f);
	return flow_find(&f) == FLOW_FAST;
}

/*
 * Does this packet, that the stack gets, go on with what a node began with a pod
 * on the short way? Connection tracking has not seen that beginning, and would
 * translate the packet as one. A fragment knows by its ports, so that the first
 * speaks for the datagram.
 */
static __always_inline int answers_node(const struct packet *p)
{
	struct flow f = {};
	__u8 class;

	if (p->error || p->later || p->syn)
		return 0;
	flow_key(p, &f);
	class = flow_find(&f);
	return class == FLOW_FAST || (class == FLOW_NONE && p->proto == IPPROTO_TCP);
}

/* The stack has sent this packet to a pod: its replies go by the stack too. */
static __always_inline void came_by_stack(struct packet *p)
{
	struct flow f = {};
	__u8 class;

	if (p->later || p->error)
		return;
	flow_key(p, &f);
	class = flow_find(&f);
	if (class == FLOW_FAST && (p->syn || (p->proto != IPPROTO_TCP && !p->fragment)))
		class = FLOW_NONE; /* TCP made anew; or the entry was lost, and an answer has made it wrongly */
	if (class == FLOW_NONE)
		flow_set(&f, FLOW_STACK);
}
