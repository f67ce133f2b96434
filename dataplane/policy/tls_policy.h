/* F4: what TLS a delivery to one host must have: configuration, DANE (RFC 7672) and MTA-STS (RFC 8461) together.
 *
 * A pure decision; peer.c gathers the facts and carries it out.
 *
 * Thread: any. Fails: never; a decision is a value. */
#ifndef WEIR_DATAPLANE_POLICY_TLS_POLICY_H
#define WEIR_DATAPLANE_POLICY_TLS_POLICY_H

#include "spool/mail/reply.h"
#include "spool/store/snapshot.h"

enum tls_tlsa { TLS_TLSA_NONE, TLS_TLSA_USABLE, TLS_TLSA_UNUSABLE, TLS_TLSA_FAILED };
enum tls_sts { TLS_STS_NONE, TLS_STS_TESTING, TLS_STS_ENFORCE };

struct tls_facts {
	enum snap_tls configured; /* of the route, or of delivery by MX */
	enum tls_tlsa tlsa;       /* of this host */
	enum tls_sts sts;         /* of the recipients' domain */
	bool sts_names_host;      /* its policy has this host */
	struct span host;
};

enum tls_level {
	TLS_LEVEL_NEVER,
	TLS_LEVEL_MAY,    /* where it is offered; without when it fails */
	TLS_LEVEL_MUST,   /* whoever is at the other end */
	TLS_LEVEL_VERIFY, /* with a certificate that an authority gave to that name */
	TLS_LEVEL_DANE,   /* with a certificate that a TLSA record knows */
};

/* Whose will it is. */
enum tls_origin { TLS_BY_CONFIG, TLS_BY_DANE, TLS_BY_STS };

struct tls_decision {
	bool refuse;          /* this host must not be used; reply says why */
	bool trial;           /* the certificate is looked at for the report; what is found changes nothing */
	enum tls_level level;
	enum tls_origin origin;
	const char *name;     /* for logs: "may", "must", "verify", "never", "dane", "dane-unusable", "mta-sts", "mta-sts-testing" */
	struct reply reply;
};

struct tls_decision tls_policy(const struct tls_facts *f);

#endif
