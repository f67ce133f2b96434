/* Whom a delivery connection may talk to, and with what TLS: gathers the facts (MTA-STS of the domain, TLSA of the host), has policy/tls_policy.h decide,
 * carries the decision out at STARTTLS, and counts how it went.
 *
 * Owner: embedded in a connection of conns.c. Thread: one. */
#ifndef WEIR_DATAPLANE_PEER_H
#define WEIR_DATAPLANE_PEER_H

#include "dataplane/lookup/tlsa.h"
#include "dataplane/outbound.h"
#include "dataplane/policy/tls_policy.h"
#include "dataplane/smtp/client.h"

/* What was waited for is there: ask again. */
typedef void peer_fn(void *ctx);

struct peer {
	struct worker *w;
	struct config *cfg;
	const struct dest *dest;
	peer_fn *fn;
	void *ctx;
	struct sts_query *sts_query;
	struct sts_answer *sts;      /* of the domain; NULL: not asked for */
	struct dns_query *tlsa_query;
	struct dns_answer *tlsa_answer;
	struct tlsa_set tlsa;
	bool tlsa_done;              /* of this host */
	bool secure;                 /* its name is */
	bool counted;                /* of this connection */
	uint16_t port;
	uint8_t ip[16];
	struct tls_decision decision;
	const char *host;            /* conns.c's */
	char base[256];              /* TLSA base domain (RFC 7672 2.2.3) */
};

void peer_init(struct peer *p, struct worker *w, struct config *cfg, const struct dest *d, peer_fn *fn, void *ctx);
void peer_done(struct peer *p);
/* Facts about the destination. ST_OK: all there; ST_AGAIN: fn will be called. */
enum status peer_domain(struct peer *p);
/* Facts about one host of it, and the decision. secure: the way from the domain to its name is (MX). addr: its addresses; NULL: it is one itself. host stays the caller's. */
enum status peer_host(struct peer *p, const char *host, uint16_t port, bool secure, const struct dns_answer *addr);
/* A connection to this address is there: what its session is told about TLS. */
enum client_tls peer_connected(struct peer *p, const uint8_t ip[16], bool no_tls);
void peer_start_tls(struct peer *p, struct net_conn *conn);
/* How it went: once a connection. failed says what to tell the sender. */
void peer_tls_on(struct peer *p, struct net_conn *conn);
void peer_tls_failed(struct peer *p, struct net_conn *conn, struct reply *ret);
/* The session goes on, or ended, without TLS. */
void peer_tls_missing(struct peer *p, struct net_conn *conn);
/* What is said of an answer from this host in the log. */
struct remote peer_remote(const struct peer *p, const struct net_conn *conn);

#endif
