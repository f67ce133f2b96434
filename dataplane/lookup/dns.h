/* DNS for the data plane: MX, addresses, names of addresses, TXT and TLSA, asynchronous on the worker's loop (c-ares), with a cache that keeps to TTLs.
 *
 * DNS is hostile (P15): answers are bounded (CNAME chain 8, MX 100 records of which the best 20 are used), SERVFAIL and time-outs are always temporary,
 * NXDOMAIN and no data are permanent.
 *
 * An answer is given by calling the query's function, from inside uring_wait or dns_turn, never from inside dns_mx/dns_addr; unless it is in the cache: then the call itself returns ST_OK with it.
 *
 * Owner: dns owns queries until answered or cancelled; answers are counted (dns_answer_release). Thread: one. */
#ifndef WEIR_DATAPLANE_LOOKUP_DNS_H
#define WEIR_DATAPLANE_LOOKUP_DNS_H

#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/base/uring.h"

struct dns;
struct dns_query;

enum dns_result {
	DNS_FOUND,
	DNS_NXDOMAIN, /* the name does not exist */
	DNS_NODATA,   /* it exists, but has no such record */
	DNS_NULL_MX,  /* RFC 7505 */
	DNS_TEMPFAIL, /* SERVFAIL, time-out, refused, garbage: try again later */
};

struct dns_mx_host {
	char name[256];   /* look-up form */
	uint16_t preference;
};
struct dns_answer {
	uint32_t refs;
	enum dns_result result;
	char text[96];    /* for logs and replies when not FOUND: "no MX or address record", "server failure" ... */
	bool implicit_mx;        /* there is no MX record: mx[0] is the domain itself, which may have an address or not (RFC 5321 5.1) */
	uint32_t nmx;
	struct dns_mx_host *mx;  /* by preference, equal ones shuffled at each answer taken from the network */
	uint32_t naddr;
	bool secure;             /* the resolver has validated all of it (AD), and is one that we believe */
	char *canonical;         /* of addresses: the name at the end of the CNAMEs; NULL: the name itself */
	uint32_t nrr;
	struct span *rr;         /* of TXT and TLSA: the data of each record; of PTR: host names in look-up form, NUL behind each */
	uint8_t (*addr)[16];     /* IPv4 as ::ffff:a.b.c.d; IPv6 and IPv4 interleaved, IPv6 first when the node has it */
};

typedef void dns_fn(void *ctx, struct dns_answer *answer);

struct dns_config {
	const char *servers;   /* "192.0.2.53:5353,[2001:db8::1]:53"; NULL or "": /etc/resolv.conf */
	uint64_t timeout_ns;   /* of a whole query, all tries */
	uint32_t cache_max;    /* entries */
	bool validates;        /* the servers validate DNSSEC and their AD bit is believed */
};

enum status dns_new(struct uring *u, const struct dns_config *cfg, struct dns **ret);
/* Cancels all queries without calling them. */
void dns_free(struct dns *d);
/* The mail exchangers of a domain (look-up form). No MX record but an address: FOUND with the domain itself at preference 0 (implicit MX).
 * ST_OK: *ret_answer is there now (release it). ST_AGAIN: fn will be called; *ret_query may be used to cancel. */
enum status dns_mx(struct dns *d, struct span domain, dns_fn *fn, void *ctx, struct dns_answer **ret_answer, struct dns_query **ret_query);
/* AAAA and A of a host name. */
enum status dns_addr(struct dns *d, struct span host, dns_fn *fn, void *ctx, struct dns_answer **ret_answer, struct dns_query **ret_query);
/* The names that an address says it has (PTR), at most DNS_PTR_USED of them: only those that are host names. */
enum { DNS_PTR_USED = 5 };
enum status dns_ptr(struct dns *d, const uint8_t ip[16], dns_fn *fn, void *ctx, struct dns_answer **ret_answer, struct dns_query **ret_query);
/* TXT records of a name; TLSA records of a name like "_25._tcp.mx.cam.example". */
enum status dns_txt(struct dns *d, struct span name, dns_fn *fn, void *ctx, struct dns_answer **ret_answer, struct dns_query **ret_query);
enum status dns_tlsa(struct dns *d, struct span name, dns_fn *fn, void *ctx, struct dns_answer **ret_answer, struct dns_query **ret_query);
bool dns_validates(const struct dns *d);
/* fn will not be called any more. */
void dns_cancel(struct dns_query *q);
void dns_answer_release(struct dns_answer *a);
/* Once per turn: time-outs. Gives the time until it must be called again in *ret_wait_ns (UINT64_MAX: none). */
void dns_turn(struct dns *d, uint64_t now_ns, uint64_t *ret_wait_ns);

#endif
