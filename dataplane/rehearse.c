#include "dataplane/rehearse_internal.h"

#include <stdlib.h>
#include "dataplane/dictionary.h"
#include "dataplane/recipient.h"
#include "spool/base/clock.h"
#include "spool/mail/header.h"

static void scene_done(struct rehearsal *r);

/* ---- MAIL ---- */

static bool take(void *ctx, struct decision *d)
{
	rehearse_say(ctx, d, NULL);
	return true;
}

/* Whether one more message would be over; nothing is counted. */
static void say_rate(struct rehearsal *r, const struct rate_answer *a)
{
	double period_s = (double)r->cfg->set->rate_period_ns / 1e9, limit = policy_rate_limit(&r->facts);
	struct rate_state now = { .r = a->rate, .known = true };
	double next = rate_after(&now, 0, 1, period_s);
	struct decision d = policy_rate(&r->facts, rate_is_over(next, limit), next);

	rehearse_say(r, &d, NULL);
}

static void on_rate(void *ctx, const struct rate_answer *a)
{
	struct rehearsal *r = ctx;

	r->query = NULL;
	say_rate(r, a);
	scene_done(r);
}

static bool would_pass(void *ctx, struct decision *d)
{
	policy_apply(ctx, d);
	return d->accept;
}

/* Whether the message is one that the rate counts: not when everybody but postmaster is refused for its sender. */
static bool is_counted(const struct rehearsal *r)
{
	struct policy_facts f = r->facts;

	f.to_postmaster = false;
	return !r->facts.to_postmaster || policy_mail(&f, &r->smtp.sender, would_pass, &f);
}

static void ask_rate(struct rehearsal *r)
{
	double limit = policy_rate_limit(&r->facts);
	char key[PASSLINE_USER_MAX + 64];
	struct out o = out_of(key, sizeof(key));
	struct decision none = { .accept = true, .rule = RULE_RATE };
	struct rate_answer a;

	if (limit <= 0 || (!r->is_known_client && !r->facts.auth_user.n) || !is_counted(r)) {
		rehearse_say(r, &none, limit > 0 && !is_counted(r) ? "not counted" : "no limit");
		scene_done(r);
		return;
	}
	policy_rate_key(&r->facts, &o);
	if (shared_rate(r->w->shared, out_span(&o), 0, limit, r->cfg->set->rate_period_ns, false, on_rate, r, &a, &r->query) == ST_AGAIN)
		return;
	say_rate(r, &a);
	scene_done(r);
}

static void decide_mail(struct rehearsal *r)
{
	if (r->client_ask || r->domain_ask)
		return;
	policy_mail(&r->facts, &r->smtp.sender, take, r);
	ask_rate(r);
}

static void on_client(void *ctx)
{
	struct rehearsal *r = ctx;

	r->client_ask = NULL;
	decide_mail(r);
}

static void on_sender(void *ctx)
{
	struct rehearsal *r = ctx;

	r->domain_ask = NULL;
	decide_mail(r);
}

static void play_mail(struct rehearsal *r)
{
	struct decision d;

	if (!r->has_from) {
		scene_done(r);
		return;
	}
	d = policy_sender(&r->facts, &r->smtp.sender);
	rehearse_say(r, &d, NULL);
	if (r->is_known_client && policy_mode(&r->facts, RULE_CLIENT_DNS) != POLICY_OFF) {
		r->facts.client = &r->client;
		if (facts_client(r->w, r->facts.client_ip, FACTS_BUDGET_NS, &r->client, on_client, r, &r->client_ask) == ST_OK)
			r->client_ask = NULL;
	}
	facts_sender(r->w, &r->facts, &r->smtp.sender, FACTS_BUDGET_NS, &r->smtp.pool, &r->sender, on_sender, r, &r->domain_ask);
	decide_mail(r);
}

/* ---- RCPT ---- */

/* The recipient was decided on, but for the size of the message. */
static void rcpt_done(struct rehearsal *r)
{
	if (r->smtp.size_declared)
		rehearse_say(r, &r->fits, NULL);
	scene_done(r);
}

static void on_verified(void *ctx, const struct verify_answer *a)
{
	struct rehearsal *r = ctx;
	struct decision d = recipient_verified(&r->smtp.rcpt, a);

	r->verify = NULL;
	rehearse_say(r, &d, a->why);
	rcpt_done(r);
}

/* What the tables say was said; the destination has the last word where it is asked. */
static void ask_destination(struct rehearsal *r, struct span addr)
{
	struct verify_answer a;
	struct decision d;
	enum status st = verify_address(r->w, addr, r->cfg->set->verify_wait_ns, on_verified, r, &a, &r->verify);

	if (st == ST_AGAIN)
		return;
	if (st == ST_OK) {
		d = recipient_verified(&r->smtp.rcpt, &a);
		rehearse_say(r, &d, a.why);
	}
	rcpt_done(r);
}

static void decide_rcpt(struct rehearsal *r)
{
	struct decision d = policy_relay(&r->facts, &r->smtp.rcpt);
	struct alias_expansion e;
	struct pool work;
	struct span addr;
	bool accepted = d.accept;

	rehearse_say(r, &d, NULL);
	if (!accepted) {
		scene_done(r);
		return;
	}
	pool_init(&work, r->cfg->set->transaction_max);
	policy_alias(&r->facts, &r->smtp.rcpt, false, &work, &e);
	if (e.d.accept)
		e.d.rule = RULE_RCPT_UNKNOWN;
	d = e.d;
	r->fits = d.accept ? recipient_size(&r->facts, &r->smtp.rcpt, &e, r->smtp.size_declared) : (struct decision){ .accept = true, .rule = RULE_ROUTE_SIZE };
	rehearse_say(r, &d, e.in_tables ? "the tables have it" : "the tables do not have it");
	if (recipient_is_to_verify(r->w, &r->facts, &r->smtp.rcpt, &e, &addr))
		ask_destination(r, addr);
	else
		rcpt_done(r);
	pool_reset(&work);
}

/* What refuses a recipient before it is told what was found about its sender. */
static void comes_before_sender(struct rehearsal *r)
{
	if (r->refused && policy_is_of_sender(r->first.rule))
		r->refused = false;
}

static void say_dictionary(struct rehearsal *r, bool refused)
{
	struct decision d = { .accept = !refused, .rule = RULE_DICTIONARY };

	dictionary_refusal(&r->facts, &d.reply);
	if (refused)
		comes_before_sender(r);
	rehearse_say(r, &d, NULL);
	decide_rcpt(r);
}

static void on_refused(void *ctx, const struct span *values)
{
	struct rehearsal *r = ctx;

	r->query = NULL;
	say_dictionary(r, values && values[0].p);
}

static void play_rcpt(struct rehearsal *r)
{
	struct span name = DICTIONARY_REFUSED;
	bool may = r->is_known_client && dictionary_may_refuse(&r->facts), refused = may && dictionary_refuses(r->w, &r->facts);
	char buf[64];

	if (!may || refused || shared_get(r->w->shared, dictionary_key(&r->facts, buf, sizeof(buf)), &name, 1, on_refused, r, &r->query) != ST_AGAIN)
		say_dictionary(r, refused);
}

/* ---- the header ---- */

static void decide_header(struct rehearsal *r)
{
	struct decision d = policy_header_from(&r->facts);

	r->facts.header = NULL;
	rehearse_say(r, &d, NULL);
	scene_done(r);
}

static void on_header(void *ctx)
{
	struct rehearsal *r = ctx;

	r->domain_ask = NULL;
	decide_header(r);
}

static void play_header(struct rehearsal *r)
{
	struct span head = span_of(r->head, r->head_len);
	struct decision d = policy_hops(&r->facts, header_count_received(head));

	rehearse_say(r, &d, NULL);
	r->header = policy_mode(&r->facts, RULE_HEADER_FROM) == POLICY_OFF ? NULL : pool_alloc(&r->smtp.pool, sizeof(*r->header));
	r->facts.header = r->header;
	if (r->header) {
		facts_header(&r->facts, head, head.n, &r->smtp.pool, r->header);
		if (facts_header_ask(r->w, &r->facts, r->header, FACTS_BUDGET_NS, on_header, r, &r->domain_ask) == ST_AGAIN)
			return;
	}
	decide_header(r);
}

/* ---- the play ---- */

/* Takes what the engine says of the command, the last line of it. */
static void take_output(struct rehearsal *r)
{
	struct span out = smtp_server_output(&r->smtp), rest = out, line = SPAN_NONE;
	uint64_t code;

	while (rest.n)
		line = span_cut(&rest, '\n');
	if (line.n >= 4 && span_u64(span_of(line.p, 3), 999, &code) && code >= 400) {
		r->protocol.code = (uint16_t)code;
		line = span_skip(line, 4);
		if (line.n && line.p[line.n - 1] == '\r')
			line.n--;
		reply_add_line(&r->protocol, line, true);
	}
	smtp_server_sent(&r->smtp, out.n);
}

/* Gives the engine a command, and hears what it says to it, or what it asks. */
static enum server_action perform(struct rehearsal *r)
{
	struct span in = span_str(r->command);
	enum server_action act;
	size_t n;

	do {
		act = smtp_server_step(&r->smtp, in, &n);
		in = span_skip(in, n);
		if (act == SRV_MAIL || act == SRV_RCPT)
			return act;
		take_output(r);
	} while (act == SRV_STEP || act == SRV_RESET || (act == SRV_MORE && in.n));
	return act;
}

static void play_command(struct rehearsal *r)
{
	enum server_action act = perform(r);

	if (act == SRV_MAIL) {
		play_mail(r);
	} else if (act == SRV_RCPT) {
		play_rcpt(r);
	} else {
		if (r->protocol.code) {
			comes_before_sender(r);
			rehearse_say_protocol(r);
			r->scene = SCENE_HEADER; /* nothing can follow */
		}
		scene_done(r);
	}
}

static const char *smtputf8(const char *a)
{
	for (; *a; a++)
		if (*a & 0x80)
			return " SMTPUTF8";
	return "";
}

static void play(struct rehearsal *r)
{
	struct out o = out_of(r->command, sizeof(r->command) - 1);

	switch (r->scene) {
	case SCENE_EHLO:
		out_fmt(&o, "EHLO %s\r\n", r->helo);
		break;
	case SCENE_MAIL:
		out_fmt(&o, "MAIL FROM:<%s>%s", r->from, *smtputf8(r->from) ? smtputf8(r->from) : smtputf8(r->to));
		if (r->size)
			out_fmt(&o, " SIZE=%llu", (unsigned long long)r->size);
		out_str(&o, "\r\n");
		break;
	case SCENE_RCPT:
		if (r->has_to)
			out_fmt(&o, "RCPT TO:<%s>\r\n", r->to);
		break;
	case SCENE_HEADER:
		break;
	case SCENE_END:
		rehearse_say_outcome(r);
		r->end(r->ctx);
		return;
	}
	r->command[o.n] = '\0';
	if (o.n)
		play_command(r);
	else if (r->scene == SCENE_HEADER && r->head_len)
		play_header(r);
	else
		scene_done(r);
}

/* The engine is told that all is well, whatever was decided, so that the rest can be asked. */
static void scene_done(struct rehearsal *r)
{
	struct reply ok;

	reply_set(&ok, 250, "2.0.0", "Ok");
	if (smtp_server_wait(&r->smtp) == SRV_WAIT_DECISION)
		smtp_server_reply(&r->smtp, &ok);
	smtp_server_sent(&r->smtp, smtp_server_output(&r->smtp).n);
	r->scene++;
	play(r);
}

/* ---- begin and end ---- */

/* Copies an argument. False: it is too long, or has what would end a command. */
static bool copy(const char *from, char *to, size_t cap)
{
	size_t n = from ? strlen(from) : 0;

	if (n >= cap)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)from[i] < ' ' || from[i] == 0x7f)
			return false;
	memcpy(to, from ? from : "", n + 1);
	return true;
}

/* Lines of the asker's, whatever they end with, as lines of a message. */
static bool copy_header(struct rehearsal *r, struct span header)
{
	struct out o = out_of(r->head, sizeof(r->head));

	while (header.n) {
		struct span line = span_cut(&header, '\n');

		if (line.n && line.p[line.n - 1] == '\r')
			line.n--;
		out_add(&o, line);
		out_str(&o, "\r\n");
	}
	if (o.n)
		out_str(&o, "\r\n");
	r->head_len = o.n;
	return !o.over;
}

static const char *take_question(struct rehearsal *r, const struct rehearse_question *q)
{
	if (!q->from && !q->to)
		return "neither from nor to is given";
	if (q->client && ip_parse(span_str(q->client), r->facts.client_ip) != ST_OK)
		return "client is an address";
	if (!copy(q->from, r->from, sizeof(r->from)) || !copy(q->to, r->to, sizeof(r->to)))
		return "an address is too long, or has control characters";
	if (!copy(q->helo ? q->helo : "explain.invalid", r->helo, sizeof(r->helo)) || !copy(q->user, r->user, sizeof(r->user)))
		return "helo or user is too long, or has control characters";
	if (!copy_header(r, q->header))
		return "the header is too long";
	r->size = q->size;
	r->is_known_client = q->client;
	r->has_from = q->from;
	r->has_to = q->to;
	return NULL;
}

const char *rehearse_begin(struct worker *w, const struct rehearse_question *q, explain_row_fn *emit, void (*end)(void *ctx), void *ctx, struct rehearsal **ret)
{
	struct rehearsal *r = calloc(1, sizeof(*r));
	const char *error = r ? take_question(r, q) : "out of memory";
	struct address to;

	if (error) {
		free(r);
		return error;
	}
	*ret = r;
	r->w = w;
	r->cfg = config_hold(w->cfg);
	r->emit = emit;
	r->end = end;
	r->ctx = ctx;
	r->facts.snap = &r->cfg->snap;
	r->facts.tables = &w->tables;
	if (r->is_known_client)
		r->facts.net = snap_find_client(r->facts.snap, r->facts.client_ip, clock_wall_ns() / NS_PER_S, &r->facts.expired);
	r->facts.auth_user = span_str(r->user);
	r->facts.to_postmaster = r->has_to && address_parse(span_str(r->to), ADDRESS_UTF8 | ADDRESS_ALLOW_BARE, &to) == ST_OK && policy_is_our_postmaster(&r->facts, &to);
	smtp_server_init(&r->smtp, &r->cfg->smtp[ROLE_MX]);
	smtp_server_sent(&r->smtp, smtp_server_output(&r->smtp).n);
	rehearse_say_client(r);
	play(r);
	return NULL;
}

void rehearse_free(struct rehearsal *r)
{
	if (!r)
		return;
	if (r->client_ask)
		facts_cancel(r->client_ask);
	if (r->domain_ask)
		facts_cancel(r->domain_ask);
	if (r->query)
		shared_cancel(r->query);
	if (r->verify)
		verify_cancel(r->verify);
	smtp_server_done(&r->smtp);
	config_release(r->cfg);
	free(r);
}
