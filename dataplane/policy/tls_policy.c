/* F4. What the operator forbids is not done. Of what remains DANE comes first: who publishes TLSA records must not be weakened by a
 * certificate authority (RFC 8461 2); then MTA-STS in enforce mode; then what is configured, made mandatory by TLSA records that are there but unusable. */
#include "dataplane/policy/tls_policy.h"

static struct tls_decision by_config(enum snap_tls configured)
{
	static const struct tls_decision of[] = {
		[SNAP_TLS_NEVER] = { .level = TLS_LEVEL_NEVER, .name = "never" },
		[SNAP_TLS_MAY] = { .level = TLS_LEVEL_MAY, .name = "may" },
		[SNAP_TLS_MUST] = { .level = TLS_LEVEL_MUST, .name = "must" },
		[SNAP_TLS_VERIFY] = { .level = TLS_LEVEL_VERIFY, .name = "verify" },
	};

	return of[configured];
}

/* RFC 7672 2.2: usable records decide alone, and a look-up that failed may hide some. False: MTA-STS and configuration decide. */
static bool by_dane(const struct tls_facts *f, struct tls_decision *d)
{
	switch (f->tlsa) {
	case TLS_TLSA_USABLE:
		*d = (struct tls_decision){ .level = TLS_LEVEL_DANE, .origin = TLS_BY_DANE, .name = "dane" };
		return true;
	case TLS_TLSA_FAILED:
		*d = (struct tls_decision){ .refuse = true, .level = TLS_LEVEL_DANE, .origin = TLS_BY_DANE, .name = "dane" };
		reply_set(&d->reply, 451, "4.7.5", "TLSA records of %.*s cannot be looked up, or are bogus", SPAN_FMT(f->host));
		return true;
	case TLS_TLSA_NONE:
	case TLS_TLSA_UNUSABLE:
		break;
	}
	return false;
}

static bool by_sts(const struct tls_facts *f, struct tls_decision *d)
{
	if (f->sts != TLS_STS_ENFORCE)
		return false;
	*d = (struct tls_decision){ .refuse = !f->sts_names_host, .level = TLS_LEVEL_VERIFY, .origin = TLS_BY_STS, .name = "mta-sts" };
	if (d->refuse)
		reply_set(&d->reply, 451, "4.7.5", "The domain's MTA-STS policy does not have its mail exchanger %.*s", SPAN_FMT(f->host));
	return true;
}

struct tls_decision tls_policy(const struct tls_facts *f)
{
	struct tls_decision d = by_config(f->configured);

	if (f->configured == SNAP_TLS_NEVER || by_dane(f, &d) || by_sts(f, &d))
		return d;
	if (f->tlsa == TLS_TLSA_UNUSABLE && d.level < TLS_LEVEL_MUST)
		return (struct tls_decision){ .level = TLS_LEVEL_MUST, .origin = TLS_BY_DANE, .name = "dane-unusable" };
	if (f->sts == TLS_STS_TESTING && d.level < TLS_LEVEL_VERIFY) {
		d.origin = TLS_BY_STS;
		d.trial = true;
		d.name = "mta-sts-testing";
	}
	return d;
}
