/* The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): what a balancer says of its client before the client's first byte.
 *
 * A pure parser that takes bytes as they come and never one that is the client's. Only TCP over IPv4 and IPv6 is taken; TLVs are skipped. It guesses nothing: whether
 * a header must be there is for the caller to know, and its time limit, too.
 *
 * Owner: embedded; all zeros to begin. Thread: one. */
#ifndef WEIR_DATAPLANE_NET_PROXY_H
#define WEIR_DATAPLANE_NET_PROXY_H

#include "spool/base/span.h"

enum { PROXY_V1_MAX = 107 /* with CRLF */ };

enum proxy_result {
	PROXY_MORE,   /* all input used */
	PROXY_CLIENT, /* complete: ip and port are the client's */
	PROXY_LOCAL,  /* complete: the balancer speaks for itself (LOCAL, UNKNOWN, AF_UNSPEC): a health check */
	PROXY_BAD,    /* p->why says what is wrong; nothing that follows can be understood */
};

struct proxy {
	uint8_t ip[16]; /* IPv4 as ::ffff:a.b.c.d */
	uint16_t port;
	const char *why; /* PROXY_BAD; a static text */
	/* the rest is the parser's own */
	uint16_t skip;   /* version 2: octets behind the addresses that are still to come */
	uint8_t n;
	char head[PROXY_V1_MAX];
};

/* *ret_used: how many bytes of the input are the header's. */
enum proxy_result proxy_take(struct proxy *p, struct span in, size_t *ret_used);

#endif
