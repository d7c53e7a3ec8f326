/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright The Sealane Authors */
#pragma once
#include "flow.h"
#include "maps.h"
#include "packet.h"
#include "rewrite.h"

/*
 * Services, for pods: what a pod sends to a cluster address goes to a backend,
 * chosen with the first packet, and what comes back is from the cluster address
 * again. What is not in these maps (a service without backends, SCTP to another
 * port, which would need another CRC) is the stack's, where kube-proxy has it.
 */
struct service {
	__u32 backends; /* how many there are in sl_backends */
	__u32 affinity; /* seconds a client keeps its backend; 0: does not */
	__u32 revision; /* another one whenever backends change */
};

struct backend_key {
	struct frontend frontend;
	__u32 index;
};

struct backend {
	struct addr addr;
	__be16 port;
	__u16 pad;
};

/* A connection of a pod with a service, in its direction. */
struct request {
	struct addr client;
	struct frontend frontend;
	__be16 port; /* the client's */
	__u16 pad;
};

struct choice {
	struct backend backend;
	__u32 revision; /* of the service when it was chosen */
	__u32 seen; /* seconds since boot */
};

struct client {
	struct frontend frontend;
	struct addr addr;
};

struct {
	__uint(type, MAP_HASH);
	__type(key, struct frontend);
	__type(value, struct service);
	__uint(max_entries, 65536);
	__uint(map_flags, F_NO_PREALLOC);
	__uint(pinning, PIN_BY_NAME);
} sl_services SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__type(key, struct backend_key);
	__type(value, struct backend);
	__uint(max_entries, 524288);
	__uint(map_flags, F_NO_PREALLOC);
	__uint(pinning, PIN_BY_NAME);
} sl_backends SEC(".maps");

struct {
	__uint(type, MAP_LRU_HASH);
	__type(key, struct request);
	__type(value, struct choice);
	__uint(max_entries, 131072);
	__uint(pinning, PIN_BY_NAME);
} sl_ct_services SEC(".maps");

struct {
	__uint(type, MAP_LRU_HASH);
	__type(key, struct client);
	__type(value, struct choice);
	__uint(max_entries, 65536);
	__uint(pinning, PIN_BY_NAME);
} sl_affinities SEC(".maps");

static __always_inline __u32 mix(__u32 h, __u32 word)
{
	h = (h ^ word) * 0x85ebca6b; /* the constants of MurmurHash3's finalizer */
	return h ^ (h >> 13);
}

/*
 * The same number for the same connection, or the same client where it is to keep its backend: what chose once chooses
 * alike while the backends are the same. So whoever fills the maps of choices takes nobody's connection away.
 */
static __always_inline __u32 lot(const struct request *r, int whole_client)
{
	__u32 h = mix(r->frontend.proto, r->frontend.port);

#pragma unroll
	for (int i = 0; i < 4; i++)
		h = mix(mix(h, r->client.w[i]), r->frontend.addr.w[i]);
	if (!whole_client)
		h = mix(h, r->port);
	h *= 0xc2b2ae35;
	return h ^ (h >> 16);
}

static __always_inline int choose(const struct request *r, const struct service *s, struct choice *c)
{
	struct backend_key key = { .frontend = r->frontend };
	struct client client = {};
	struct choice *kept = 0;
	struct backend *b;

	c->revision = s->revision;
	c->seen = now_seconds();
	if (s->affinity) {
		client.frontend = r->frontend;
		client.addr = r->client;
		kept = bpf_map_lookup_elem(&sl_affinities, &client);
		if (kept && c->seen - kept->seen <= s->affinity) {
			kept->seen = c->seen;
			c->backend = kept->backend;
			return 0;
		}
	}
	/* A client whose time is over is to get another backend, as kube-proxy's does. */
	key.index = (kept ? bpf_get_prandom_u32() : lot(r, s->affinity != 0)) % s->backends;
	b = bpf_map_lookup_elem(&sl_backends, &key);
	if (!b)
		return -1;
	c->backend = *b;
	if (s->affinity)
		bpf_map_update_elem(&sl_affinities, &client, c, UPDATE_ANY);
	return 0;
}

/* May this packet go where the connection's earlier ones went? s is null where the service has no backend any more. */
static __always_inline int goes_on(const struct packet *p, const struct service *s, const struct choice *c)
{
	if (p->proto != IPPROTO_TCP) /* who takes a backend away forgets its choices */
		return s && now_seconds() - c->seen <= OTHER_LIFE;
	return !p->syn || (s && c->revision == s->revision);
}

/* Does the stack have this connection with a service? It had its first packet, when there was no backend here. */
static __always_inline int is_of_stack(const struct packet *p)
{
	struct flow f = {};

	flow_key(p, &f);
	return flow_find(&f) != 0;
}

/*
 * A packet of a pod to a service goes to a backend: 1, with what was asked for
 * in *asked; 0: it is none, or the stack's; -1: the kernel could not rewrite it.
 * A TCP connection outlives the service, or the readiness of its last backend, which
 * may still serve it while it ends.
 */
__global int to_backend(struct __sk_buff *skb, struct packet *p, struct addr *gateway, struct frontend *asked)
{
	struct request r = {};
	struct choice c = {}, *made;
	struct service *s;
	__u32 now;

	if (!p || !gateway || !asked)
		return -1;
	r.frontend.addr = p->dst;
	r.frontend.port = p->ports.dst;
	r.frontend.proto = p->proto;
	*asked = r.frontend;
	s = bpf_map_lookup_elem(&sl_services, &r.frontend);
	if (s && !s->backends)
		s = 0;
	if (!s && p->proto != IPPROTO_TCP)
		return 0;
	r.client = p->src;
	r.port = p->ports.src;
	made = bpf_map_lookup_elem(&sl_ct_services, &r);
	if (made && goes_on(p, s, made)) {
		now = now_seconds();
		if (made->seen != now)
			made->seen = now;
		c.backend = made->backend;
	} else if (!s) {
		if (made && p->syn) /* whoever answers now, it is not that backend */
			bpf_map_delete_elem(&sl_ct_services, &r);
		return 0;
	} else {
		if (p->later || (p->proto == IPPROTO_TCP && !p->syn && is_of_stack(p)) || choose(&r, s, &c))
			return 0;
		bpf_map_update_elem(&sl_ct_services, &r, &c, UPDATE_ANY);
	}
	if (rewrite_dst(skb, p, &c.backend.addr, c.backend.port))
		return -1;
	if (same_addr(&p->dst, &p->src)) /* the pod itself, which would not answer itself by its device */
		return rewrite_src(skb, p, gateway, p->ports.src) ? -1 : 1;
	return 1;
}

/*
 * What comes from the backend is from the service; an ICMP error quotes what the
 * pod, self, has sent, also where that went out under another address.
 */
__global int to_frontend(struct __sk_buff *skb, struct packet *p, struct addr *self, struct addr *frontend, __u32 port)
{
	struct packet quoted = {};

	if (!p || !self || !frontend)
		return -1;
	if (!p->error)
		return rewrite_src(skb, p, frontend, port);
	if (parse_quoted(skb, p, &quoted) || rewrite_quoted_dst(skb, p, &quoted, frontend, port))
		return -1;
	if (!same_addr(&quoted.src, self) && rewrite_quoted_src(skb, p, &quoted, self))
		return -1;
	if (same_addr(&p->src, &quoted.dst))
		return rewrite_addr(skb, p, END_SRC, &p->src, frontend);
	return 0;
}

/* A packet for a pod that had asked a service: does the asker's end get it? */
static __always_inline int from_frontend(struct __sk_buff *skb, struct packet *p, const struct track *t)
{
	struct addr frontend, self = p->dst;

	if (!t->state || !t->state->frontend_port)
		return 0;
	if (p->error ? t->sender != t->state->origin : t->sender == t->state->origin)
		return 0;
	frontend = t->state->frontend;
	return to_frontend(skb, p, &self, &frontend, t->state->frontend_port);
}
