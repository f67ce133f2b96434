#include "dataplane/rehearse_internal.h"

static const char *const scene_name[] = { "EHLO", "MAIL", "RCPT", "DATA", "END" };

static void log_reply(struct logline *row, const struct reply *reply)
{
	char text[REPLY_TEXT_MAX + 32];
	struct out o = out_of(text, sizeof(text));

	reply_line(reply, &o);
	log_span(row, "reply", out_span(&o));
}

static void row_rule(const struct rehearsal *r, struct logline *row, enum rule rule)
{
	row_begin(row);
	log_str(row, "kind", "decision");
	log_str(row, "stage", scene_name[r->scene]);
	log_str(row, "rule", rule_row[rule].row);
	log_str(row, "code", rule_row[rule].name);
	log_str(row, "mode", policy_mode_words[policy_mode(&r->facts, rule)]);
}

/* The line of the configuration that made the decision this one: of the mode, else of the domain, network or limit. */
static uint32_t line_of(const struct rehearsal *r, enum rule rule)
{
	uint32_t line = policy_line(&r->facts, rule);

	if (line)
		return line;
	if (rule == RULE_RELAY_DENIED)
		return explain_relay_line(&r->facts, &r->smtp.rcpt);
	return rule == RULE_RATE && r->facts.net && !r->facts.auth_user.n && r->facts.net->rate_limit >= 0 ? r->facts.net->line : 0;
}

static void note(struct rehearsal *r, const struct decision *d, enum policy_mode mode)
{
	if (r->refused || (d->accept && (mode != POLICY_HOLD || r->held)))
		return;
	r->first = *d;
	r->refused = !d->accept;
	r->held = d->accept;
}

void rehearse_say(struct rehearsal *r, struct decision *d, const char *what)
{
	static const char *const does[] = { [POLICY_OFF] = "off", [POLICY_MONITOR] = "logs", [POLICY_TAG] = "tags", [POLICY_HOLD] = "holds", [POLICY_DEFER] = "defers", [POLICY_REJECT] = "refuses" };
	bool is_off = policy_mode(&r->facts, d->rule) == POLICY_OFF;
	uint32_t line = line_of(r, d->rule);
	char status[12];
	struct logline row;
	enum policy_mode mode;

	row_rule(r, &row, d->rule);
	if (d->accept) {
		log_str(&row, "does", is_off ? "off" : "accepts");
	} else {
		mode = policy_apply(&r->facts, d);
		log_str(&row, "does", !d->accept && reply_is_temporary(&d->reply) ? does[POLICY_DEFER] : does[mode]);
		note(r, d, mode);
		log_str(&row, "status", reply_status(&d->reply, status));
		log_reply(&row, &d->reply);
	}
	if (what)
		log_str(&row, "what", what);
	if (line)
		log_u64(&row, "config_line", line);
	r->emit(r->ctx, &row);
}

void rehearse_say_client(struct rehearsal *r)
{
	struct logline row;
	char ip[48];
	struct out o = out_of(ip, sizeof(ip));

	row_begin(&row);
	log_str(&row, "kind", "client");
	log_str(&row, "class", class_words[policy_class(&r->facts)]);
	if (r->is_known_client) {
		ip_write(r->facts.client_ip, &o);
		log_span(&row, "client", out_span(&o));
	}
	if (r->facts.auth_user.n)
		log_span(&row, "user", r->facts.auth_user);
	if (r->facts.net)
		log_u64(&row, "config_line", r->facts.net->line);
	r->emit(r->ctx, &row);
}

void rehearse_say_protocol(struct rehearsal *r)
{
	struct logline row;

	row_begin(&row);
	log_str(&row, "kind", "protocol");
	log_str(&row, "stage", scene_name[r->scene]);
	log_str(&row, "does", reply_is_temporary(&r->protocol) ? "defers" : "refuses");
	log_reply(&row, &r->protocol);
	r->emit(r->ctx, &row);
}

void rehearse_say_outcome(struct rehearsal *r)
{
	const struct reply *reply = r->refused ? &r->first.reply : r->protocol.code ? &r->protocol : NULL;
	struct logline row;

	row_begin(&row);
	log_str(&row, "kind", "outcome");
	log_str(&row, "outcome", reply ? reply_is_temporary(reply) ? "deferred" : "refused" : r->held ? "held" : "accepted");
	if (r->refused || (r->held && !reply)) {
		log_str(&row, "rule", rule_row[r->first.rule].row);
		log_str(&row, "code", rule_row[r->first.rule].name);
	}
	if (reply)
		log_reply(&row, reply);
	r->emit(r->ctx, &row);
}
