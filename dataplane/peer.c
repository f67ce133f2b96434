#include "dataplane/peer.h"

#include <stdio.h>
#include "dataplane/tls_report.h"
#include "spool/base/counters.h"

void peer_init(struct peer *p, struct worker *w, struct config *cfg, const struct dest *d, peer_fn *fn, void *ctx)
{
	*p = (struct peer){ .w = w, .cfg = cfg, .dest = d, .fn = fn, .ctx = ctx, .decision.name = "none", .host = "" };
}

static void forget_host(struct peer *p)
{
	if (p->tlsa_query)
		dns_cancel(p->tlsa_query);
	p->tlsa_query = NULL;
	dns_answer_release(p->tlsa_answer);
	p->tlsa_answer = NULL;
	p->tlsa.state = TLSA_NONE;
	p->tlsa_done = false;
}

void peer_done(struct peer *p)
{
	forget_host(p);
	if (p->sts_query)
		sts_cancel(p->sts_query);
	sts_release(p->sts);
	p->sts_query = NULL;
	p->sts = NULL;
}

/* ---- reports ---- */

static void policy_text(const struct peer *p, struct out *o)
{
	if (p->decision.origin == TLS_BY_STS)
		mta_sts_write(p->sts->policy, o);
	for (uint32_t i = 0; p->decision.origin == TLS_BY_DANE && i < p->tlsa.n; i++) {
		if (i)
			out_char(o, '\n');
		tlsa_write(&p->tlsa.record[i], o);
	}
	if (o->over)
		o->n = 0; /* half of it would be another policy */
}

/* result NULL: success. */
static void report(struct peer *p, struct net_conn *conn, const char *result, const char *reason)
{
	static const char *const type[] = { [TLS_BY_CONFIG] = "no-policy-found", [TLS_BY_DANE] = "tlsa", [TLS_BY_STS] = "sts" };
	struct span domain = p->dest->kind == ROUTE_MX ? p->dest->domain : span_str(p->host);
	char policy[1400], from[64], to[64];
	struct out po = out_of(policy, sizeof(policy)), fo = out_of(from, sizeof(from)), to_ = out_of(to, sizeof(to));
	uint8_t ip[16];
	uint16_t port;

	if (p->counted || !p->cfg->set->tls_reports || p->dest->kind == ROUTE_LMTP || p->decision.level == TLS_LEVEL_NEVER)
		return;
	p->counted = true;
	policy_text(p, &po);
	if (result && conn) {
		net_local(conn, ip, &port);
		ip_write(ip, &fo);
		ip_write(p->ip, &to_);
	}
	tls_report_count(p->w->tls_report, &(struct tls_session_result){ .type = type[p->decision.origin],
		.domain = p->decision.origin == TLS_BY_DANE ? span_str(p->base) : domain, .policy = out_span(&po), .mx = span_str(p->host),
		.result = result, .reason = span_str(reason), .local_ip = out_span(&fo), .remote_ip = out_span(&to_) });
}

/* The policy itself could not be had: counted beside the session (RFC 8460 4.3.2.2). */
static void report_sts_fault(struct peer *p)
{
	static const char *const result[] = { [STS_FAULT_FETCH] = "sts-policy-fetch-error", [STS_FAULT_INVALID] = "sts-policy-invalid",
		[STS_FAULT_WEBPKI] = "sts-webpki-invalid" };

	if (p->sts->fault == STS_FAULT_NONE || !p->cfg->set->tls_reports)
		return;
	tls_report_count(p->w->tls_report, &(struct tls_session_result){ .type = "sts", .domain = p->dest->domain,
		.result = result[p->sts->fault], .reason = span_str(p->sts->detail) });
}

static const char *result_type(enum tls_fault f)
{
	switch (f) {
	case TLS_FAULT_NAME:
		return "certificate-host-mismatch";
	case TLS_FAULT_EXPIRED:
		return "certificate-expired";
	case TLS_FAULT_NOT_TRUSTED:
		return "certificate-not-trusted";
	case TLS_FAULT_NONE:
	case TLS_FAULT_HANDSHAKE:
	case TLS_FAULT_TLSA:
		break;
	}
	return "validation-failure";
}

/* ---- the domain ---- */

static void on_sts(void *ctx, struct sts_answer *a)
{
	struct peer *p = ctx;

	p->sts_query = NULL;
	p->sts = a;
	report_sts_fault(p);
	p->fn(p->ctx);
}

enum status peer_domain(struct peer *p)
{
	const struct snap_settings *set = p->cfg->set;
	struct sts_ask ask = { .domain = p->dest->domain, .port = (uint16_t)set->mta_sts_port, .timeout_ns = set->mta_sts_timeout_ns };
	enum status st;

	if (p->sts || !set->mta_sts || p->dest->tls_demand == HOP_TLS_OPTIONAL || p->dest->kind != ROUTE_MX || p->dest->tls == SNAP_TLS_NEVER || ask.domain.p[0] == '[')
		return ST_OK;
	st = sts_get(p->w->sts, &ask, on_sts, p, &p->sts, &p->sts_query);
	if (st == ST_OK)
		report_sts_fault(p);
	return st == ST_AGAIN ? ST_AGAIN : ST_OK; /* without memory: as without a policy */
}

/* ---- the host ---- */

static enum tls_sts sts_fact(const struct peer *p)
{
	if (!p->sts || p->sts->result != STS_POLICY)
		return TLS_STS_NONE;
	switch (p->sts->policy->mode) {
	case MTA_STS_ENFORCE:
		return TLS_STS_ENFORCE;
	case MTA_STS_TESTING:
		return TLS_STS_TESTING;
	case MTA_STS_NONE:
		break;
	}
	return TLS_STS_NONE;
}

static bool sts_may_come(const struct peer *p)
{
	return p->sts && (p->sts->result == STS_UNKNOWN || p->sts->fault == STS_FAULT_FETCH);
}

/* RFC 8689 4.2.1: who demands TLS wants to know whom it is with, so that the host's name must be trustworthy too: by DNSSEC, MTA-STS, or the operator's word. */
static void demand(struct peer *p, const struct tls_facts *f)
{
	bool named = p->dest->kind != ROUTE_MX || p->secure || f->sts_names_host;

	if (p->dest->tls_demand != HOP_TLS_REQUIRED || p->decision.refuse || (named && p->decision.level >= TLS_LEVEL_VERIFY))
		return;
	p->decision.refuse = true;
	if (!named && sts_may_come(p))
		reply_set(&p->decision.reply, 451, "4.7.5", "%s cannot be verified now as REQUIRETLS demands: the domain's MTA-STS policy is not known", p->host);
	else
		reply_set(&p->decision.reply, 550, "5.7.30", "%s cannot be verified as REQUIRETLS demands: %s", p->host,
			named ? "TLS is off on this route" : "the domain has neither DNSSEC nor MTA-STS");
}

static void decide(struct peer *p)
{
	static const enum tls_tlsa tlsa[] = { [TLSA_NONE] = TLS_TLSA_NONE, [TLSA_USABLE] = TLS_TLSA_USABLE,
		[TLSA_UNUSABLE] = TLS_TLSA_UNUSABLE, [TLSA_FAILED] = TLS_TLSA_FAILED };
	struct tls_facts f = { .configured = p->dest->tls, .tlsa = tlsa[p->tlsa.state], .sts = sts_fact(p), .host = span_str(p->host) };

	if (p->dest->tls_demand == HOP_TLS_REQUIRED && f.configured != SNAP_TLS_NEVER)
		f.configured = SNAP_TLS_VERIFY;
	f.sts_names_host = f.sts != TLS_STS_NONE && mta_sts_matches(p->sts->policy, f.host);
	p->decision = tls_policy(&f);
	demand(p, &f);
	p->counted = false;
	if (p->decision.refuse) {
		counter_add(C_TLS_OUT_REFUSED, 1);
		report(p, NULL, p->decision.origin == TLS_BY_DANE ? "dnssec-invalid" : "validation-failure",
			p->decision.origin == TLS_BY_DANE ? "TLSA records cannot be looked up" : "the policy does not have this host");
	}
}

static enum status ask_tlsa(struct peer *p);

/* Records at the end of the CNAMEs count before those at the name itself (RFC 7672 2.2.3). True: one more look-up is under way. */
static bool take_tlsa(struct peer *p, struct dns_answer *a)
{
	dns_answer_release(p->tlsa_answer);
	p->tlsa_answer = a;
	tlsa_read(a, &p->tlsa);
	p->tlsa_done = true;
	if (p->tlsa.state != TLSA_NONE || strcmp(p->base, p->host) == 0)
		return false;
	snprintf(p->base, sizeof(p->base), "%s", p->host);
	return ask_tlsa(p) == ST_AGAIN;
}

static void on_tlsa(void *ctx, struct dns_answer *a)
{
	struct peer *p = ctx;

	p->tlsa_query = NULL;
	if (take_tlsa(p, a))
		return;
	decide(p);
	p->fn(p->ctx);
}

static enum status ask_tlsa(struct peer *p)
{
	struct dns_answer *a;
	enum status st = tlsa_lookup(p->w->dns, span_str(p->base), p->port, on_tlsa, p, &a, &p->tlsa_query);

	if (st == ST_OK)
		return take_tlsa(p, a) ? ST_AGAIN : ST_OK;
	if (st != ST_AGAIN)
		p->tlsa.state = TLSA_FAILED; /* it is not known that there are none */
	return st == ST_AGAIN ? ST_AGAIN : ST_OK;
}

enum status peer_host(struct peer *p, const char *host, uint16_t port, bool secure, const struct dns_answer *addr)
{
	bool dane = p->cfg->set->dane && dns_validates(p->w->dns) && p->dest->kind != ROUTE_LMTP && p->dest->tls != SNAP_TLS_NEVER &&
		p->dest->tls_demand != HOP_TLS_OPTIONAL;

	forget_host(p);
	p->secure = secure;
	p->host = host;
	p->port = port;
	snprintf(p->base, sizeof(p->base), "%s", addr && addr->canonical ? addr->canonical : host);
	if (dane && secure && addr && addr->secure && ask_tlsa(p) == ST_AGAIN)
		return ST_AGAIN;
	decide(p);
	return ST_OK;
}

/* ---- the session ---- */

enum client_tls peer_connected(struct peer *p, const uint8_t ip[16], bool no_tls)
{
	memcpy(p->ip, ip, sizeof(p->ip));
	if (p->decision.level == TLS_LEVEL_NEVER || (no_tls && p->decision.level == TLS_LEVEL_MAY))
		return CLIENT_TLS_NEVER;
	p->counted = false;
	return p->decision.level == TLS_LEVEL_MAY ? CLIENT_TLS_MAY : CLIENT_TLS_MUST;
}

void peer_start_tls(struct peer *p, struct net_conn *conn)
{
	struct tls_peer t = { .name = span_str(p->host) };

	switch (p->decision.level) {
	case TLS_LEVEL_DANE:
		t = (struct tls_peer){ .check = TLS_CHECK_TLSA, .name = span_str(p->base), .tlsa = p->tlsa.record, .ntlsa = p->tlsa.n };
		if (p->dest->kind == ROUTE_MX)
			t.also = p->dest->domain;
		break;
	case TLS_LEVEL_VERIFY:
		t.check = TLS_CHECK_NAME;
		break;
	case TLS_LEVEL_NEVER:
	case TLS_LEVEL_MAY:
	case TLS_LEVEL_MUST:
		t.check = p->decision.trial ? TLS_CHECK_TRIAL : TLS_CHECK_NONE;
		break;
	}
	if (p->dest->route && p->dest->route->client_cert)
		t.identity = p->dest->cfg->identity[p->dest->route->client_cert - 1];
	net_start_tls(conn, p->cfg->tls_client, &t);
}

void peer_tls_on(struct peer *p, struct net_conn *conn)
{
	const char *text = "";
	enum tls_fault fault = p->decision.trial ? net_tls_fault(conn, &text) : TLS_FAULT_NONE;

	counter_add(C_TLS_OUT, 1);
	counter_add(C_TLS_OUT_RESUMED, net_tls_resumed(conn));
	counter_add(C_TLS_OUT_DANE, p->decision.level == TLS_LEVEL_DANE);
	counter_add(C_TLS_OUT_STS, p->decision.origin == TLS_BY_STS && p->decision.level == TLS_LEVEL_VERIFY);
	if (p->decision.trial && !mta_sts_matches(p->sts->policy, span_str(p->host)))
		report(p, conn, "validation-failure", "the policy does not have this host");
	else
		report(p, conn, fault == TLS_FAULT_NONE ? NULL : result_type(fault), text);
}

void peer_tls_failed(struct peer *p, struct net_conn *conn, struct reply *ret)
{
	const char *text;
	enum tls_fault fault = net_tls_fault(conn, &text);

	counter_add(C_TLS_OUT_FAILED, 1);
	reply_set(ret, 451, "4.7.5", "TLS with %s (policy %s): %s", p->host, p->decision.name, text);
	if (p->dest->tls_demand == HOP_TLS_REQUIRED && fault != TLS_FAULT_NONE && fault != TLS_FAULT_HANDSHAKE) /* a handshake that broke may not break again */
		reply_set(ret, 550, "5.7.30", "%s cannot be verified as REQUIRETLS demands: %s", p->host, text);
	report(p, conn, result_type(fault), text);
}

void peer_tls_missing(struct peer *p, struct net_conn *conn)
{
	if (p->decision.level == TLS_LEVEL_NEVER)
		return;
	counter_add(C_TLS_OUT_FAILED, p->decision.level != TLS_LEVEL_MAY && !p->counted);
	report(p, conn, "starttls-not-supported", "the server does not offer TLS");
}

struct remote peer_remote(const struct peer *p, const struct net_conn *conn)
{
	const char *tls = conn ? net_tls_text(conn) : NULL;

	return (struct remote){ .host = span_str(p->host), .policy = span_str(p->decision.name), .tls = span_str(tls ? tls : "none") };
}
