/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright The Sealane Authors */
#pragma once
#include "packet.h"

/* Which end of a packet: its offsets within the headers. */
enum end { END_SRC, END_DST };

/* Where the checksum of the upper layer is, or 0 where it covers no addresses. */
static __always_inline __u32 checksum_of(const struct packet *p)
{
	if (p->later)
		return 0;
	if (p->proto == IPPROTO_TCP)
		return p->l4 + 16;
	if (p->proto == IPPROTO_UDP)
		return p->l4 + 6;
	if (p->proto == IPPROTO_ICMPV6)
		return p->l4 + 2;
	return 0;
}

/*
 * Checksums that a device has computed over the whole packet (CHECKSUM_COMPLETE)
 * stay right: IPv4's own header checksum makes up for its addresses, so that
 * their bytes are stored as they are; IPv6 has none, so theirs are accounted
 * for, as the pseudo header is in the upper layer's.
 */
static __always_inline int rewrite_addr(struct __sk_buff *skb, const struct packet *p, enum end end, struct addr *from, struct addr *to)
{
	__u32 check = checksum_of(p), flags = PSEUDO_HEADER | (p->proto == IPPROTO_UDP ? MANGLED_ZERO : 0);
	__s64 diff;

	if (p->v4) {
		if (check && bpf_l4_csum_replace(skb, check, from->w[3], to->w[3], flags | 4))
			return -1;
		if (bpf_l3_csum_replace(skb, p->l3 + 10, from->w[3], to->w[3], 4))
			return -1;
		return bpf_skb_store_bytes(skb, p->l3 + (end == END_SRC ? 12 : 16), &to->w[3], 4, 0);
	}
	diff = bpf_csum_diff(from->w, sizeof(*from), to->w, sizeof(*to), 0);
	if (diff < 0 || (check && bpf_l4_csum_replace(skb, check, 0, diff, flags)))
		return -1;
	return bpf_skb_store_bytes(skb, p->l3 + (end == END_SRC ? 8 : 24), to, sizeof(*to), RECOMPUTE_CSUM);
}

static __always_inline int rewrite_port(struct __sk_buff *skb, const struct packet *p, enum end end, __be16 from, __be16 to)
{
	__u32 check = checksum_of(p);

	if (from == to || p->later)
		return 0;
	if (check && bpf_l4_csum_replace(skb, check, from, to, 2 | (p->proto == IPPROTO_UDP ? MANGLED_ZERO : 0)))
		return -1;
	return bpf_skb_store_bytes(skb, p->l4 + (end == END_SRC ? 0 : 2), &to, 2, 0);
}

/* Gives the packet another source; what *p says of it follows. */
__global int rewrite_src(struct __sk_buff *skb, struct packet *p, struct addr *addr, __u32 port)
{
	if (!p || !addr)
		return -1;
	if (rewrite_addr(skb, p, END_SRC, &p->src, addr) || rewrite_port(skb, p, END_SRC, p->ports.src, port))
		return -1;
	p->src = *addr;
	p->ports.src = port;
	return 0;
}

/* Gives the packet another destination; what *p says of it follows. */
__global int rewrite_dst(struct __sk_buff *skb, struct packet *p, struct addr *addr, __u32 port)
{
	if (!p || !addr)
		return -1;
	if (rewrite_addr(skb, p, END_DST, &p->dst, addr) || rewrite_port(skb, p, END_DST, p->ports.dst, port))
		return -1;
	p->dst = *addr;
	p->ports.dst = port;
	return 0;
}

/*
 * Gives the packet that an ICMP error quotes another end. A change
 * of the address in a quoted IPv4 header is made up for by that header's own
 * checksum; all else changes the checksum of the error.
 */
static __always_inline int rewrite_quoted(struct __sk_buff *skb, const struct packet *p, struct packet *quoted, enum end end, struct addr *addr, __be16 port)
{
	struct addr *from = end == END_SRC ? &quoted->src : &quoted->dst;
	__be16 old = end == END_SRC ? quoted->ports.src : quoted->ports.dst;
	__s64 diff;

	if (p->v4) {
		if (bpf_l3_csum_replace(skb, quoted->l3 + 10, from->w[3], addr->w[3], 4) ||
		    bpf_skb_store_bytes(skb, quoted->l3 + (end == END_SRC ? 12 : 16), &addr->w[3], 4, 0))
			return -1;
	} else {
		diff = bpf_csum_diff(from->w, sizeof(*addr), addr->w, sizeof(*addr), 0);
		if (diff < 0 || bpf_l4_csum_replace(skb, p->l4 + 2, 0, diff, 0) ||
		    bpf_skb_store_bytes(skb, quoted->l3 + (end == END_SRC ? 8 : 24), addr, sizeof(*addr), 0))
			return -1;
	}
	if (quoted->later || old == port)
		return 0;
	if (bpf_l4_csum_replace(skb, p->l4 + 2, old, port, 2))
		return -1;
	return bpf_skb_store_bytes(skb, quoted->l4 + (end == END_SRC ? 0 : 2), &port, 2, 0);
}

__global int rewrite_quoted_dst(struct __sk_buff *skb, const struct packet *p, struct packet *quoted, struct addr *addr, __u32 port)
{
	return p && quoted && addr ? rewrite_quoted(skb, p, quoted, END_DST, addr, port) : -1;
}

__global int rewrite_quoted_src(struct __sk_buff *skb, const struct packet *p, struct packet *quoted, struct addr *addr)
{
	return p && quoted && addr ? rewrite_quoted(skb, p, quoted, END_SRC, addr, quoted->ports.src) : -1;
}
