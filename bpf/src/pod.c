// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The Sealane Authors
//go:build ignore

/* The two programs on the host side of a pod's device. */
#include "count.h"
#include "deliver.h"
#include "flow.h"
#include "maps.h"
#include "packet.h"
#include "policy.h"
#include "service.h"

static __always_inline int into_lane(struct __sk_buff *skb, struct packet *p, const struct forward *f)
{
	static const __u8 vxlan_mac[6] = VXLAN_MAC;
	struct forward to = *f;

	if (decrement_ttl(skb, p))
		return drop(skb, DROP_HELPER);
	if (to.l2 && (write_ether(skb, p, vxlan_mac) || set_tunnel(skb, &to)))
		return drop(skb, DROP_HELPER);
	skb->mark = FAST_MARK;
	pass(skb, PATH_LANE_OUT);
	return bpf_redirect(to.ifindex, 0);
}

/*
 * Whom a pod meets when a service leads back to it: its next hop, or for IPv6,
 * where a link-local peer would be answered from a link-local address, one of a
 * unique local range (RFC 4193) that nobody has.
 */
static __always_inline void gateway_of(const struct packet *p, struct addr *gateway)
{
	if (p->v4) {
		map_v4(gateway, bpf_htonl(GATEWAY_V4));
		return;
	}
	gateway->w[0] = bpf_htonl(0xfd5ea1a1); /* fd5e:a1a1:5ea1::1 */
	gateway->w[1] = bpf_htonl(0x5ea10000);
	gateway->w[2] = 0;
	gateway->w[3] = bpf_htonl(1);
}

/* What a pod answers itself goes back through the service that it had asked. */
static __always_inline int back_to_itself(struct __sk_buff *skb, struct packet *p, const struct endpoint *self, const struct track *t)
{
	struct addr frontend, own = p->src;
	__be16 port;

	if (!t->state || !t->state->frontend_port)
		return drop(skb, DROP_NO_ENDPOINT);
	frontend = t->state->frontend;
	port = t->state->frontend_port;
	if (rewrite_dst(skb, p, &own, p->ports.dst) || to_frontend(skb, p, &own, &frontend, port))
		return drop(skb, DROP_HELPER);
	return deliver(skb, p, self, PATH_LOCAL);
}

/* On to wherever the destination is; the packet's flow is known and allowed. */
static __always_inline int forward(struct __sk_buff *skb, struct packet *p, const struct forward *f, struct track *t,
				   const struct frontend *asked)
{
	struct endpoint *to;

	if (!f || f->kind == FORWARD_NODE_LOCAL) {
		if (begins(p, t, FLOW_STACK, asked) && (!f || asked))
			flow_set(t, FLOW_STACK, asked);
		return pass(skb, PATH_STACK_OUT);
	}
	if (f->kind == FORWARD_POD_LOCAL) {
		to = endpoint_of(&p->dst);
		if (!to) { /* the stack has an unreachable route, and says so to the pod */
			count_drop(skb, DROP_NO_ENDPOINT);
			return TC_OK;
		}
		if (!takes_fast_path(p, t, asked))
			return pass(skb, PATH_STACK_OUT);
		if (from_frontend(skb, p, t))
			return drop(skb, DROP_HELPER);
		return deliver(skb, p, to, PATH_LOCAL);
	}
	if (f->kind == FORWARD_CLUSTER || !f->ifindex) {
		count_drop(skb, DROP_NO_LANE);
		return TC_OK; /* likewise: refused at once beats silence */
	}
	if (f->kind == FORWARD_POD_REMOTE) {
		if (takes_fast_path(p, t, asked))
			return into_lane(skb, p, f);
		return pass(skb, PATH_STACK_OUT);
	}
	/*
	 * What a pod begins with a node passes this host's connection tracking, as
	 * whoever looks there expects (host ports, kube-proxy); what the node began
	 * has come the short way and goes back so.
	 */
	if (!asked && stays_on_fast_path(p, t))
		return into_lane(skb, p, f);
	if (!asked && answers_node(p, t))
		skb->mark |= ANSWER_MARK;
	else if (begins(p, t, asked ? FLOW_STACK : FLOW_NONE, asked)) /* the node may yet speak to the pod itself, the short way */
		flow_set(t, asked ? FLOW_STACK : FLOW_NONE, asked);
	return pass(skb, PATH_STACK_OUT);
}

/*
 * The ports by which nodes speak to each other: lanes, the exchange of preshared keys, VXLAN. Set when the programs are
 * loaded; protocol 0: none. Pods have nothing to say to them, at whatever address: their packets would come with the
 * node's own address, and be counted against it.
 */
#define NODE_PORTS 8
const volatile struct {
	__u16 first, last;
	__u32 proto;
} node_ports[NODE_PORTS] = {};

static __always_inline int is_node_port(const struct packet *p)
{
	__u16 port = bpf_ntohs(p->ports.dst);

#pragma unroll
	for (int i = 0; i < NODE_PORTS; i++) {
		if (node_ports[i].proto == p->proto && port >= node_ports[i].first && port <= node_ports[i].last)
			return 1;
	}
	return 0;
}

static __always_inline int is_of_pods(const struct forward *f)
{
	return f && (f->kind == FORWARD_POD_LOCAL || f->kind == FORWARD_POD_REMOTE || f->kind == FORWARD_CLUSTER);
}

/* Ingress of the host side: a packet leaves the pod. */
SEC("tc")
int pod_egress(struct __sk_buff *skb)
{
	struct frontend service = {}, *asked = 0;
	struct packet p = {};
	struct track t = {};
	struct endpoint *from;
	struct addr gateway = {};
	struct forward *f;
	int reason, translated;

	/* ARP, too: a pod knows its next hop, and all that it asks would fill the node's table of neighbours. */
	if (!is_ip(skb) || skb->vlan_present)
		return drop(skb, DROP_PROTOCOL);
	if (parse(skb, ETH_HLEN, &p))
		return drop(skb, DROP_MALFORMED);
	from = endpoint_of(&p.src);
	if (!from || from->ifindex != skb->ifindex)
		return drop(skb, is_link_local(&p) ? DROP_LINK_LOCAL : DROP_SPOOFED_SOURCE);
	if (is_multicast(&p))
		return drop(skb, DROP_MULTICAST);
	if (is_loopback(&p))
		return drop(skb, DROP_LOOPBACK);
	f = forward_of(&p.dst);
	if (!f) {
		gateway_of(&p, &gateway);
		if (same_addr(&p.dst, &gateway)) {
			if (track(skb, &p, &t))
				return drop(skb, DROP_MALFORMED);
			if (p.fragment)
				share_ports(&p, &p.src, 0);
			return back_to_itself(skb, &p, from, &t);
		}
		translated = p.error ? 0 : to_backend(skb, &p, &gateway, &service);
		if (translated < 0)
			return drop(skb, DROP_HELPER);
		if (translated) {
			asked = &service;
			f = forward_of(&p.dst);
		}
	}
	if (!is_of_pods(f) && !p.error && is_node_port(&p))
		return drop(skb, DROP_NODE_PORT);
	if (track(skb, &p, &t))
		return drop(skb, DROP_MALFORMED);
	if (p.error && !same_addr(&p.src, &t.flow.low) && !same_addr(&p.src, &t.flow.high))
		return drop(skb, DROP_MALFORMED); /* a pod is no router: it has no say in the flows of others */
	if (asked)
		t.origin = t.sender;
	if (asked && same_addr(&p.src, &gateway)) { /* to itself: no policy forbids that */
		if (p.fragment)
			share_ports(&p, &p.dst, asked);
		if (begins(&p, &t, FLOW_FAST, asked))
			flow_set(&t, FLOW_FAST, asked);
		return deliver(skb, &p, from, PATH_LOCAL);
	}
	if (!f || f->kind != FORWARD_NODE_LOCAL) {
		reason = judge(skb, &p, &t, asked);
		if (reason)
			return drop(skb, reason);
	}
	if (p.fragment)
		share_ports(&p, &p.src, asked);
	return forward(skb, &p, f, &t, asked);
}

/* Egress of the host side: a packet comes from the host's stack. */
SEC("tc")
int pod_ingress(struct __sk_buff *skb)
{
	struct packet p = {};
	struct track t = {};
	int reason;

	if (!is_ip(skb))
		return TC_OK;
	if (parse(skb, ETH_HLEN, &p) || track(skb, &p, &t))
		return drop(skb, DROP_MALFORMED);
	/*
	 * The node itself is always let in, and what goes to it always goes by the stack: nothing to remember. But
	 * kube-proxy gives the node's address to whoever comes by a NodePort, and lets anybody in by that.
	 */
	t.forwarded = !!(skb->mark & FORWARDED_MARK);
	if (t.forwarded || !is_own_node(&p.src)) {
		reason = judge(skb, &p, &t, 0);
		if (reason)
			return drop(skb, reason);
		came_by_stack(&p, &t);
	}
	if (p.fragment)
		share_ports(&p, &p.src, 0);
	if (from_frontend(skb, &p, &t))
		return drop(skb, DROP_HELPER);
	return pass(skb, PATH_STACK_IN);
}

char _license[] SEC("license") = "Dual BSD/GPL";
