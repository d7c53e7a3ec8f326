/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright The Sealane Authors */
#pragma once
#include "maps.h"
#include "packet.h"
#include "policy.h"

/*
 * Connection tracking: which way a flow goes, who began it, whether policy
 * allows it, and which service was asked for. A flow that netfilter has
 * translated (a service, a host port) must come back through netfilter; all
 * others take the short way. So every flow has a class, given by the first
 * packet that is seen of it, and a TCP SYN gives it anew.
 *
 * An entry that is lost (the map is an LRU) does no harm to TCP: a packet in
 * the middle of an unknown connection goes to the stack, which can do both.
 * Of other flows an answer may then go the wrong way, until the next packet in
 * the first direction sets that right.
 */

/* Seconds an idle entry is believed: TCP as long as netfilter's 5 days, UDP longer than its 120 s. */
#define TCP_LIFE 432000
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

/* The live entry of a flow, or null. */
static __always_inline struct flow_state *flow_find(struct flow *f)
{
	__u32 now = now_seconds(), life = f->proto == IPPROTO_TCP ? TCP_LIFE : OTHER_LIFE;
	struct flow_state *s = bpf_map_lookup_elem(&sl_flows, f);

	if (!s || now - s->seen > life)
		return 0;
	if (s->seen != now) /* at most one write a second keeps the cache line shared */
		s->seen = now;
	return s;
}

/* What these programs need to know of the flow that a packet belongs to. */
struct track {
	struct flow flow;
	struct flow_state *state; /* null: unknown */
	__u32 generation; /* of the policy tables, read before they were asked */
	__u8 sender; /* enum flow_origin: which end has sent the packet */
	__u8 origin; /* enum flow_origin: which end began the flow, as far as is known */
	__u8 forwarded; /* the packet is of somebody else, also where this node's address is its source */
};

static __always_inline __u8 class_of(const struct track *t)
{
	return t->state ? t->state->class : FLOW_NONE;
}

/*
 * The flow of a packet, or of the packet that an ICMP error quotes; -1: the
 * quotation cannot be read, or is not of what the error's receiver has sent: else
 * anybody's errors, with anything in them, would pass as part of an allowed flow.
 * Errors belong to the flow and make no entry.
 */
static __always_inline int track(struct __sk_buff *skb, const struct packet *p, struct track *t)
{
	if (p->error) {
		struct packet quoted = {};

		if (parse_quoted(skb, p, &quoted) || !same_addr(&quoted.src, &p->dst))
			return -1;
		flow_key(&quoted, &t->flow);
		t->sender = source_is_low(&quoted) ? ORIGIN_LOW : ORIGIN_HIGH;
	} else {
		flow_key(p, &t->flow);
		t->sender = source_is_low(p) ? ORIGIN_LOW : ORIGIN_HIGH;
	}
	t->state = flow_find(&t->flow);
	if (t->state && !p->syn)
		t->origin = t->state->origin;
	else if (!p->error && (p->syn || p->proto != IPPROTO_TCP))
		t->origin = t->sender;
	return 0;
}

static __always_inline int judge_from(const struct track *t, __u8 origin)
{
	if (origin == ORIGIN_LOW)
		return judge_new(&t->flow.low, &t->flow.high, t->flow.proto, t->flow.high_port, t->forwarded);
	return judge_new(&t->flow.high, &t->flow.low, t->flow.proto, t->flow.low_port, t->forwarded);
}

/* For the Go side, too, which learns the type's layout by this function. */
__global int emit(const struct verdict *v)
{
	return v ? bpf_ringbuf_output(&sl_verdicts, (void *)v, sizeof(*v), 0) : -1;
}

static __always_inline void report(const struct track *t, const struct frontend *asked, int judged)
{
	__u32 zero = 0, *missed = bpf_map_lookup_elem(&sl_verdict_lost, &zero);
	struct verdict v = { .time = bpf_ktime_get_ns(), .proto = t->flow.proto, .reason = judged & 0xff };

	v.kind = v.reason ? VERDICT_DENIED : VERDICT_ALLOWED;
	if (!v.reason && judged) {
		v.kind = VERDICT_DRY_RUN_DENIED;
		v.reason = judged & DRY_RUN_EGRESS ? DROP_POLICY_EGRESS : DROP_POLICY_INGRESS;
	}
	if (t->origin == ORIGIN_HIGH || (t->origin == ORIGIN_UNKNOWN && t->sender == ORIGIN_HIGH)) {
		v.src = t->flow.high;
		v.dst = t->flow.low;
		v.src_port = t->flow.high_port;
		v.dst_port = t->flow.low_port;
	} else {
		v.src = t->flow.low;
		v.dst = t->flow.high;
		v.src_port = t->flow.low_port;
		v.dst_port = t->flow.high_port;
	}
	if (asked) {
		v.frontend = asked->addr;
		v.frontend_port = asked->port;
	}
	if (!missed)
		return;
	v.lost = *missed;
	*missed = emit(&v) ? v.lost + 1 : 0;
}

static __always_inline void flow_set(struct track *t, __u8 class, const struct frontend *asked)
{
	struct flow_state s = { .seen = now_seconds(), .generation = t->generation, .class = class, .origin = t->origin };

	if (asked) {
		s.frontend = asked->addr;
		s.frontend_port = asked->port;
	}
	bpf_map_update_elem(&sl_flows, &t->flow, &s, UPDATE_ANY);
}

/*
 * Seconds since boot until which a connection that was under way when it was first seen passes if either end might have
 * begun it. Set when the programs are loaded and find no flows of an earlier daemon: nobody can know better then.
 */
const volatile __u32 lenient_until = 0;

/*
 * Which end began a flow that is not known (any more)? A TCP connection is remembered apart, or is taken for its sender's
 * own; an ICMP error tells its receiver something new. Anything else would be a way past a policy that is closed in one
 * direction alone.
 */
static __always_inline __u8 who_began(const struct packet *p, struct track *t)
{
	__u32 *known = bpf_map_lookup_elem(&sl_origins, &t->flow);

	if (known)
		return *known;
	if (now_seconds() < lenient_until)
		return ORIGIN_UNKNOWN;
	if (!p->error)
		return t->sender;
	return t->sender == ORIGIN_LOW ? ORIGIN_HIGH : ORIGIN_LOW;
}

/*
 * A TCP connection that policy allows from one end alone: remembers which, so that the other's packets pass when its
 * entry is lost; and where it is lost already, makes an entry again.
 */
static __always_inline void remember_origin(const struct packet *p, struct track *t)
{
	__u32 origin = t->origin;

	if (p->proto != IPPROTO_TCP || p->error || origin == ORIGIN_UNKNOWN || (t->state && !p->syn))
		return;
	if (!(judge_from(t, origin == ORIGIN_LOW ? ORIGIN_HIGH : ORIGIN_LOW) & 0xff))
		return;
	bpf_map_update_elem(&sl_origins, &t->flow, &origin, UPDATE_ANY);
	if (!p->syn)
		flow_set(t, FLOW_NONE, 0);
}

/*
 * What policy says of the packet's flow: 0 or the reason to drop the packet. A
 * flow is judged when it begins and whenever the tables have changed since.
 */
static __always_inline int judge(struct __sk_buff *skb, const struct packet *p, struct track *t, const struct frontend *asked)
{
	__u32 zero = 0, direction;
	struct policy_state *now = bpf_map_lookup_elem(&sl_policy_state, &zero);
	int judged;

	if (!now)
		return DROP_POLICY_UNKNOWN;
	t->generation = now->generation;
	if (t->state && t->state->generation == t->generation && t->state->origin == t->origin)
		return 0;
	if (t->origin == ORIGIN_UNKNOWN)
		t->origin = who_began(p, t);
	judged = judge_from(t, t->origin == ORIGIN_UNKNOWN ? ORIGIN_LOW : t->origin);
	if (t->origin == ORIGIN_UNKNOWN && (judged & 0xff)) {
		judged = judge_from(t, ORIGIN_HIGH);
	} else if ((judged & 0xff) && t->origin != t->sender && p->proto != IPPROTO_TCP && !p->error) {
		/* Nothing says where one flow ends and another begins: this may be its first packet. */
		judged = judge_from(t, t->sender);
		t->origin = t->sender;
		if (!(judged & 0xff) && t->state)
			t->state->origin = t->origin;
	}
	if (judged & ~0xff) {
		direction = judged & DRY_RUN_EGRESS ? DROP_POLICY_EGRESS : DROP_POLICY_INGRESS;
		add(bpf_map_lookup_elem(&sl_dry_run, &direction), skb);
	}
	if (now->watched && (judged || !t->state))
		report(t, asked, judged);
	if (judged & 0xff)
		return judged & 0xff;
	if (t->state && t->state->origin == t->origin)
		t->state->generation = t->generation;
	remember_origin(p, t);
	return 0;
}

/* Has the flow's entry to be made, or made anew, with this packet? */
static __always_inline int begins(const struct packet *p, const struct track *t, __u8 class, const struct frontend *asked)
{
	if (p->error || p->ttl <= 1) /* the ICMP error for the latter is the stack's */
		return 0;
	if (!t->state) /* a service knows its connections apart from this map */
		return p->proto != IPPROTO_TCP || p->syn || asked;
	if (asked)
		return t->state->frontend_port != asked->port || !same_addr(&t->state->frontend, &asked->addr) ||
		       (p->syn && t->state->class != class);
	if (p->syn)
		return t->state->class != class || t->state->frontend_port || t->state->origin != t->origin;
	if (p->proto == IPPROTO_TCP)
		return 0;
	/* By the same ports, and without the service now: the answer is not the service's. */
	if (t->state->frontend_port && t->sender == t->state->origin)
		return 1;
	return t->state->class == FLOW_NONE && class != FLOW_NONE;
}

/*
 * May this packet, that is for a pod, take the short way? Notes new flows;
 * *asked is the service that it was translated from, or null.
 */
static __always_inline int takes_fast_path(const struct packet *p, struct track *t, const struct frontend *asked)
{
	if (begins(p, t, FLOW_FAST, asked)) {
		flow_set(t, FLOW_FAST, asked);
		return !p->fragment; /* reassembly is the stack's */
	}
	if (p->fragment || p->ttl <= 1)
		return 0;
	if (p->error)
		return class_of(t) != FLOW_STACK;
	return class_of(t) == FLOW_FAST;
}

/* Is this packet part of a flow that goes the short way already? Notes nothing. */
static __always_inline int stays_on_fast_path(const struct packet *p, const struct track *t)
{
	return !p->fragment && p->ttl > 1 && !p->syn && class_of(t) == FLOW_FAST;
}

/*
 * Does this packet, that the stack gets, go on with what a node began with a pod
 * on the short way? Connection tracking has not seen that beginning, and would
 * translate the packet as one. A fragment knows by its ports, so that the first
 * speaks for the datagram.
 */
static __always_inline int answers_node(const struct packet *p, const struct track *t)
{
	if (p->error || p->later || p->syn)
		return 0;
	if (class_of(t) == FLOW_FAST)
		return 1;
	return p->proto == IPPROTO_TCP && (!t->state || (class_of(t) == FLOW_NONE && t->state->origin != t->sender));
}

/* The stack has sent this packet to a pod: its replies go by the stack too. */
static __always_inline void came_by_stack(const struct packet *p, struct track *t)
{
	if (p->later || p->error)
		return;
	/* TCP made anew; or the entry was lost, and an answer has made it wrongly */
	if (class_of(t) == FLOW_FAST && !(p->syn || (p->proto != IPPROTO_TCP && !p->fragment)))
		return;
	if (class_of(t) == FLOW_STACK && !(p->syn && t->state->origin != t->origin))
		return;
	if (t->state && !p->syn)
		t->state->class = FLOW_STACK;
	else
		flow_set(t, FLOW_STACK, 0);
}
