#include "dataplane/command_internal.h"

#include "dataplane/ask_dns.h"
#include "dataplane/auth.h"
#include "dataplane/explain.h"
#include "dataplane/holds.h"
#include "dataplane/policy/policy.h"
#include "dataplane/rehearse.h"
#include "dataplane/verify_ask.h"
#include "spool/base/clock.h"

/* ---- rates ---- */

static void rate_row(struct asker *a, const struct rate_answer *ra)
{
	const struct rate_rule *rule = &a->rule;
	struct logline row;

	row_begin(&row);
	log_str(&row, "key", command_arg(a, "key"));
	log_f(&row, "limit", "%g", rule->limit);
	log_u64(&row, "period_s", rule->period_ns / NS_PER_S);
	log_str(&row, "source", rule->source);
	if (rule->line)
		log_u64(&row, "line", rule->line);
	log_str(&row, "mode", rule->mode);
	log_f(&row, "rate", "%.3f", ra->rate);
	log_f(&row, "next_allowed_s", "%.0f", rate_wait_s(&(struct rate_state){ .r = ra->rate, .known = true }, 0,
		(double)rule->period_ns / 1e9, rule->limit));
	log_str(&row, "backend", ra->local ? "local" : "redis");
	command_row(a, &row);
}

static void on_rate(void *ctx, const struct rate_answer *ra)
{
	struct asker *a = ctx;

	a->query = NULL;
	rate_row(a, ra);
	command_answered(a);
}

/* Messages of a client host, or of a user who logged in (A8). */
static void message_rule(const struct config *cfg, struct policy_facts *f, struct rate_rule *ret)
{
	const struct snap_settings *set = cfg->set;

	f->net = f->auth_user.n ? NULL : snap_find_client(f->snap, f->client_ip, clock_wall_ns() / NS_PER_S, &f->expired);
	*ret = (struct rate_rule){ .limit = policy_rate_limit(f), .period_ns = set->rate_period_ns, .source = "rates.limit",
		.mode = policy_mode_words[policy_mode(f, RULE_RATE)] };
	if (!f->auth_user.n && !f->net)
		ret->source = "none (outside client)";
	if (f->net && f->net->rate_limit >= 0)
		ret->source = f->net->registered ? "registry of clients" : "relay_clients";
	if (f->net)
		ret->line = f->net->line;
}

/* Fills the rule that a key counts for, and writes the key as it is counted. False: there is no such key. */
static bool rate_rule(const struct config *cfg, const char *key, struct rate_rule *ret, struct out *o)
{
	const struct snap_settings *set = cfg->set;
	const char *slash = strchr(key, '/');
	struct span kind = span_of(key, slash ? (size_t)(slash - key) : 0), what = span_str(slash ? slash + 1 : "");
	struct policy_facts f = { .snap = &cfg->snap };
	bool ip = ip_parse(what, f.client_ip) == ST_OK;

	*ret = (struct rate_rule){ .period_ns = set->auth_period_ns, .mode = "defer" };
	if (span_eq(kind, SPAN("auth-client")) && ip) {
		ret->limit = set->auth_client_limit;
		ret->source = "auth.failures_per_client";
		auth_client_key(f.client_ip, o);
	} else if (span_eq(kind, SPAN("auth-user")) && what.n) {
		ret->limit = set->auth_user_limit;
		ret->source = "auth.failures_per_user";
		auth_user_key(what, o);
	} else if (span_eq(kind, SPAN("bad")) && ip) {
		ret->limit = set->bad_refuse;
		ret->period_ns = set->bad_period_ns;
		ret->source = "dictionary.refuse_after";
		ret->mode = "reject";
		out_str(o, key);
	} else if ((span_eq(kind, SPAN("client")) && ip) || (span_eq(kind, SPAN("user")) && what.n)) {
		f.auth_user = span_eq(kind, SPAN("user")) ? what : SPAN_NONE;
		message_rule(cfg, &f, ret);
		out_str(o, key);
	} else {
		return false;
	}
	return !o->over;
}

const char *question_rate(struct command *c, struct asker *a)
{
	const char *key = command_arg(a, "key");
	char text[512];
	struct out o = out_of(text, sizeof(text));
	struct rate_answer ra;

	if (!key || !rate_rule(c->w->cfg, key, &a->rule, &o))
		return "key is client/ADDRESS, user/NAME, auth-client/ADDRESS, auth-user/NAME or bad/ADDRESS";
	if (shared_rate(c->w->shared, out_span(&o), 0, a->rule.limit, a->rule.period_ns, false, on_rate, a, &ra, &a->query) == ST_OK)
		rate_row(a, &ra);
	else
		a->waits = true;
	return NULL;
}

/* ---- recipients, DNS, routes ---- */

static void on_explained(void *ctx, struct logline *row)
{
	command_row(ctx, row);
}

static void on_shown(void *ctx)
{
	struct asker *a = ctx;

	a->query = NULL;
	command_answered(a);
}

static void on_dns(void *ctx, struct dns_answer *answer)
{
	struct asker *a = ctx;

	a->dns = NULL;
	ask_dns_rows(answer, on_explained, a);
	dns_answer_release(answer);
	command_answered(a);
}

const char *question_verify(struct command *c, struct asker *a)
{
	const char *error;

	a->show = (struct verify_show){ .row = on_explained, .end = on_shown, .ctx = a };
	error = verify_show_begin(c->w, command_arg(a, "what"), &a->show, &a->query);
	a->waits = !error;
	return error;
}

const char *question_dns(struct command *c, struct asker *a)
{
	struct dns_answer *answer = NULL;
	const char *error = ask_dns(c->w->dns, command_arg(a, "type"), command_arg(a, "name"), on_dns, a, &answer, &a->dns);

	if (error)
		return error;
	if (!answer) {
		a->waits = true;
		return NULL;
	}
	ask_dns_rows(answer, on_explained, a);
	dns_answer_release(answer);
	return NULL;
}

const char *question_route(struct command *c, struct asker *a)
{
	return explain_route(c->w, command_arg(a, "addr"), command_arg(a, "client"), on_explained, a);
}

/* Routes on hold, and what waits for them (F2). */
const char *question_holds(struct command *c, struct asker *a)
{
	holds_rows(c->w, on_explained, a);
	return NULL;
}

static void on_answered(void *ctx)
{
	command_answered(ctx);
}

/* What is behind the row of the request are the addresses. */
const char *question_verify_ask(struct command *c, struct asker *a)
{
	struct span addresses = span_of(a->request, a->request_len);
	const char *error;

	span_cut(&addresses, '\n');
	a->waits = true; /* it may be answered before this returns */
	error = verify_ask_begin(c->w, addresses, on_explained, on_answered, a, &a->verifies);
	if (error)
		a->waits = false;
	return error;
}

/* What is behind the row of the request is the header. */
const char *question_explain(struct command *c, struct asker *a)
{
	struct rehearse_question q = { .client = command_arg(a, "client"), .from = command_arg(a, "from"), .to = command_arg(a, "to"), .helo = command_arg(a, "helo"),
		.user = command_arg(a, "user"), .header = span_of(a->request, a->request_len) };
	const char *error, *size = command_arg(a, "size");

	if (size && !span_u64(span_str(size), UINT64_MAX, &q.size))
		return "size is a number of bytes";
	span_cut(&q.header, '\n');
	error = rehearse_begin(c->w, &q, on_explained, on_answered, a, &a->rehearsal);
	a->waits = !error;
	return error;
}
