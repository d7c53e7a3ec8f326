/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright The Sealane Authors */
#pragma once
#include "uapi.h"
#include "maps.h"

#define ETH_HLEN 14
#define ETH_P_IP 0x0800
#define ETH_P_ARP 0x0806
#define ETH_P_IPV6 0x86DD

enum { IPPROTO_HOPOPTS = 0, IPPROTO_ICMP = 1, IPPROTO_TCP = 6, IPPROTO_UDP = 17, IPPROTO_ROUTING = 43,
       IPPROTO_FRAGMENT = 44, IPPROTO_AH = 51, IPPROTO_ICMPV6 = 58, IPPROTO_DSTOPTS = 60, IPPROTO_SCTP = 132 };

/* More extension headers than this in one packet are refused as malformed. */
#define MAX_EXTENSIONS 6

struct ethhdr {
	__u8 dst[6], src[6];
	__be16 proto;
};

struct iphdr {
	__u8 vhl, tos;
	__be16 len, id, frag;
	__u8 ttl, proto;
	__u16 check;
	__be32 src, dst;
};

struct ip6hdr {
	__be32 flow;
	__be16 len;
	__u8 next, hops;
	struct addr src, dst;
};

struct ports {
	__be16 src, dst;
};

/* What the programs need to know of a packet. */
struct packet {
	struct addr src, dst;
	struct ports ports; /* echo: the identifier twice, so that both directions agree */
	__u32 l3, l4; /* offsets of the headers */
	__u32 end; /* offset behind the packet; what follows is padding, which its receiver never sees */
	__u32 id; /* of a fragment: which datagram it is part of */
	__u8 proto;
	__u8 v4; /* 1: IPv4 */
	__u8 ttl;
	__u8 syn; /* TCP's first packet: SYN without ACK */
	__u8 fragment; /* any fragment: the stack puts it together */
	__u8 later; /* a fragment without ports in it */
	__u8 second; /* a fragment that begins 8 bytes into the datagram */
	__u8 error; /* ICMP error: flow is that of the packet it quotes */
};

static __always_inline void map_v4(struct addr *a, __be32 v4)
{
	a->w[0] = 0;
	a->w[1] = 0;
	a->w[2] = bpf_htonl(0xffff);
	a->w[3] = v4;
}

static __always_inline int is_multicast(const struct packet *p)
{
	const __u8 *d = (const __u8 *)&p->dst;

	if (p->v4)
		return (d[12] & 0xf0) == 0xe0 || p->dst.w[3] == 0xffffffff;
	return d[0] == 0xff;
}

/* Link-local or unspecified: a source that may not leave its link (RFC 4291, 2.5.6). */
static __always_inline int is_link_local(const struct packet *p)
{
	const __u8 *s = (const __u8 *)&p->src;

	if (p->v4)
		return 0;
	return (s[0] == 0xfe && (s[1] & 0xc0) == 0x80) || (p->src.w[0] | p->src.w[1] | p->src.w[2] | p->src.w[3]) == 0;
}

/*
 * Reads n bytes of the packet. A frame may be longer than the packet in it: behind its end stand bytes of the sender's
 * choice, which the stack cuts off, so that a decision by them would be one about another packet.
 */
static __always_inline int read(struct __sk_buff *skb, const struct packet *p, __u32 at, void *to, __u32 n)
{
	return at + n > p->end || bpf_skb_load_bytes(skb, at, to, n) ? -1 : 0;
}

/*
 * Notes where a packet of len bytes ends; -1: not all of it is there. The length is 0 where many segments in one buffer
 * are too long for the field (BIG TCP), and those come without padding.
 */
static __always_inline int set_end(struct __sk_buff *skb, struct packet *p, __u32 len, int jumbo)
{
	p->end = jumbo && skb->gso_size ? skb->len : p->l3 + len;
	return p->end > skb->len ? -1 : 0;
}

/* Is the destination a loopback address (RFC 1122, 3.2.1.3; RFC 4291, 2.5.3)? */
static __always_inline int is_loopback(const struct packet *p)
{
	if (p->v4)
		return ((const __u8 *)&p->dst)[12] == 127;
	return (p->dst.w[0] | p->dst.w[1] | p->dst.w[2]) == 0 && p->dst.w[3] == bpf_htonl(1);
}

static __always_inline int parse_v4(struct __sk_buff *skb, struct packet *p, int quoted)
{
	struct iphdr h;

	if (bpf_skb_load_bytes(skb, p->l3, &h, sizeof(h)))
		return -1;
	if ((h.vhl >> 4) != 4 || (h.vhl & 15) < 5)
		return -1;
	if (!quoted && set_end(skb, p, bpf_ntohs(h.len), !h.len))
		return -1;
	p->v4 = 1;
	map_v4(&p->src, h.src);
	map_v4(&p->dst, h.dst);
	p->proto = h.proto;
	p->ttl = h.ttl;
	p->later = (h.frag & bpf_htons(0x1fff)) != 0;
	p->fragment = (h.frag & bpf_htons(0x3fff)) != 0;
	p->second = (h.frag & bpf_htons(0x1fff)) == bpf_htons(1);
	p->id = h.id;
	p->l4 = p->l3 + (h.vhl & 15) * 4;
	return p->l4 > p->end ? -1 : 0;
}

/* Is it an IPv4 address to the maps? None such is on a wire (RFC 4038, 4.2). */
static __always_inline int is_mapped(const struct addr *a)
{
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == bpf_htonl(0xffff);
}

/* Steps over the extension headers (RFC 8200, 4.1) to the upper layer. */
static __always_inline int parse_v6(struct __sk_buff *skb, struct packet *p)
{
	struct ip6hdr h;
	__u8 ext[4];

	if (bpf_skb_load_bytes(skb, p->l3, &h, sizeof(h)))
		return -1;
	if (((__u8 *)&h)[0] >> 4 != 6 || is_mapped(&h.src) || is_mapped(&h.dst))
		return -1;
	if (set_end(skb, p, sizeof(h) + bpf_ntohs(h.len), !h.len && h.next == IPPROTO_HOPOPTS))
		return -1;
	p->src = h.src;
	p->dst = h.dst;
	p->proto = h.next;
	p->ttl = h.hops;
	p->l4 = p->l3 + sizeof(h);
#pragma unroll
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		if (p->proto != IPPROTO_HOPOPTS && p->proto != IPPROTO_ROUTING && p->proto != IPPROTO_FRAGMENT &&
		    p->proto != IPPROTO_DSTOPTS && p->proto != IPPROTO_AH)
			return 0;
		if (p->later) /* what follows is not a header */
			return 0;
		if (read(skb, p, p->l4, ext, sizeof(ext)))
			return -1;
		if (p->proto == IPPROTO_FRAGMENT) {
			p->fragment = 1;
			p->later = ext[2] != 0 || (ext[3] & 0xf8) != 0;
			p->second = ext[2] == 0 && (ext[3] & 0xf8) == 8;
			if (read(skb, p, p->l4 + 4, &p->id, sizeof(p->id)))
				return -1;
			p->l4 += 8;
		} else if (p->proto == IPPROTO_AH) {
			p->l4 += (ext[1] + 2) * 4;
		} else {
			p->l4 += (ext[1] + 1) * 8;
		}
		p->proto = ext[0];
	}
	return -1;
}

static __always_inline int has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP;
}

/*
 * An ICMP error belongs to the flow of the packet that it quotes. Source and
 * destination of *f are those of the quoted packet; the order does not matter.
 */
__global int parse_quoted(struct __sk_buff *skb, const struct packet *p, struct packet *quoted)
{
	if (!p || !quoted)
		return -1;
	quoted->l3 = p->l4 + 8;
	quoted->end = p->end; /* an error quotes a beginning only, which is shorter than it says */
	if (p->v4) {
		if (quoted->l3 + sizeof(struct iphdr) > p->end || parse_v4(skb, quoted, 1))
			return -1;
	} else {
		struct ip6hdr h;

		if (read(skb, p, quoted->l3, &h, sizeof(h)))
			return -1;
		quoted->src = h.src;
		quoted->dst = h.dst;
		quoted->proto = h.next;
		quoted->l4 = quoted->l3 + sizeof(h);
	}
	if (has_ports(quoted->proto) && !quoted->later)
		return read(skb, p, quoted->l4, &quoted->ports, sizeof(quoted->ports));
	if (quoted->proto == IPPROTO_ICMP || quoted->proto == IPPROTO_ICMPV6) {
		if (read(skb, p, quoted->l4 + 4, &quoted->ports.src, 2))
			return -1;
		quoted->ports.dst = quoted->ports.src;
	}
	return 0;
}

static __always_inline int parse_icmp(struct __sk_buff *skb, struct packet *p)
{
	__u8 h[8];

	if (read(skb, p, p->l4, h, sizeof(h)))
		return -1;
	if (p->proto == IPPROTO_ICMP)
		p->error = h[0] == 3 || h[0] == 4 || h[0] == 5 || h[0] == 11 || h[0] == 12;
	else
		p->error = h[0] < 128;
	p->ports.src = p->ports.dst = *(__be16 *)&h[4];
	return 0;
}

/* The ports of a datagram, for its later fragments. */
struct datagram {
	struct addr src, dst;
	__u32 id;
	__u8 proto;
	__u8 pad[3];
};

struct {
	__uint(type, MAP_LRU_HASH);
	__type(key, struct datagram);
	__type(value, struct ports);
	__uint(max_entries, 8192);
	__uint(pinning, PIN_BY_NAME);
} sl_datagrams SEC(".maps");

static __always_inline void datagram_of(const struct packet *p, struct datagram *d)
{
	d->src = p->src;
	d->dst = p->dst;
	d->id = p->id;
	d->proto = p->proto;
}

/*
 * The first fragment speaks for all. One whose first has not been seen has no
 * ports: it belongs to no known flow, and passes where every port would.
 */
static __always_inline void find_ports(struct packet *p)
{
	struct datagram d = {};
	struct ports *first;

	datagram_of(p, &d);
	first = bpf_map_lookup_elem(&sl_datagrams, &d);
	if (first)
		p->ports = *first;
}

/*
 * Notes the ports of a datagram of *src whose first fragment passes, as they were written: *asked is the service that
 * the packet was for before it was translated, or null. Who may not send the packet has no say in what becomes of
 * another's fragments.
 */
__global int share_ports(const struct packet *p, const struct addr *src, const struct frontend *asked)
{
	struct datagram d = {};
	struct ports ports;

	if (!p || !src || p->later)
		return 0;
	datagram_of(p, &d);
	d.src = *src;
	ports = p->ports;
	if (asked) {
		d.dst = asked->addr;
		ports.dst = asked->port;
	}
	return bpf_map_update_elem(&sl_datagrams, &d, &ports, UPDATE_ANY);
}

/* The smallest header of TCP; a first fragment has to hold it, so that none can hide the flags (RFC 1858, RFC 3128). */
#define TCP_HLEN 20

static __always_inline int parse_upper(struct __sk_buff *skb, struct packet *p)
{
	__u8 flags;

	if (p->later)
		return p->second && p->proto == IPPROTO_TCP ? -1 : 0;
	if (p->proto == (p->v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return parse_icmp(skb, p);
	if (!has_ports(p->proto))
		return 0;
	if (read(skb, p, p->l4, &p->ports, sizeof(p->ports)))
		return -1;
	if (p->proto == IPPROTO_TCP) {
		if (p->l4 + TCP_HLEN > p->end || read(skb, p, p->l4 + 13, &flags, 1))
			return -1;
		p->syn = (flags & 0x12) == 0x02;
	}
	return 0;
}

/* Reads the headers of *skb, whose network header is at offset l2; -1: malformed. */
__global int parse(struct __sk_buff *skb, __u32 l2, struct packet *p)
{
	if (!p)
		return -1;
	p->l3 = l2;
	if (skb->protocol == bpf_htons(ETH_P_IP) ? parse_v4(skb, p, 0) : parse_v6(skb, p))
		return -1;
	if (parse_upper(skb, p))
		return -1;
	if (p->later)
		find_ports(p);
	return 0;
}

static __always_inline int is_ip(const struct __sk_buff *skb)
{
	return skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6);
}

/* A redirect is a hop: the stack would have counted it too. */
static __always_inline int decrement_ttl(struct __sk_buff *skb, const struct packet *p)
{
	__u8 ttl = p->ttl - 1;

	if (!p->v4) /* no checksum in the header that makes up for it in the one that a device gave */
		return bpf_skb_store_bytes(skb, p->l3 + 7, &ttl, 1, RECOMPUTE_CSUM);
	/* The checksum covers 16-bit words; TTL is the first byte of its word. */
	if (bpf_l3_csum_replace(skb, p->l3 + 10, p->ttl, ttl, 2))
		return -1;
	return bpf_skb_store_bytes(skb, p->l3 + 8, &ttl, 1, 0);
}
