#include "dataplane/finding.h"

#include "dataplane/clients.h"
#include "spool/base/counters.h"
#include "spool/mail/rule_counts.h"

/* For weirctl trace: the envelope as far as it came. */
static void refuse_note(struct session *s, const struct decision *d, struct span to)
{
	struct store *st = worker_store(s->w);
	struct envelope e = s->smtp.env;

	if (!st)
		return;
	e.helo = s->smtp.helo;
	memcpy(e.client_ip, s->facts.client_ip, 16);
	store_note_refused(st, 0, &e, to, s->body ? body_len(s->body) : 0, &d->reply);
}

static void finding_log(struct session *s, const char *event, const struct decision *d, enum policy_mode mode, struct span to)
{
	char ip[48], text[512];
	struct out o = out_of(ip, sizeof(ip)), t = out_of(text, sizeof(text));
	struct logline l;

	ip_write(s->facts.client_ip, &o);
	reply_line(&d->reply, &t);
	log_begin(&l, LOG_LVL_INFO, event);
	log_str(&l, "rule", rule_row[d->rule].row);
	log_str(&l, "code", rule_row[d->rule].name);
	log_str(&l, "mode", policy_mode_words[mode]);
	log_span(&l, "client", out_span(&o));
	log_span(&l, "helo", s->smtp.helo);
	if (s->facts.auth_user.n)
		log_span(&l, "user", s->facts.auth_user);
	log_span(&l, "from", s->smtp.env.sender);
	if (to.n)
		log_span(&l, "to", to);
	log_span(&l, "reply", out_span(&t));
	log_emit(&l);
}

/* The text of the reply on one line; replies are printable ASCII already. */
static void text_of(const struct decision *d, size_t most, struct out *o)
{
	struct span text = reply_text(&d->reply);

	for (size_t i = 0; i < text.n && i < most; i++)
		out_char(o, text.p[i] == '\n' ? ' ' : text.p[i]);
}

/* In the transaction's pool, behind the marks that are there. What has no room is left out: the log has it. */
static void mark(struct session *s, const struct decision *d)
{
	char buf[ENV_TRACE_MAX], code[12];
	struct out o = out_of(buf, sizeof(buf));
	struct envelope *e = &s->smtp.env;
	struct span all;

	out_add(&o, e->trace);
	out_fmt(&o, "X-Weir-Policy: rule=%s; code=%s;\r\n\t", rule_row[d->rule].name, reply_status(&d->reply, code));
	text_of(d, 300, &o);
	out_str(&o, "\r\n");
	all = o.over ? SPAN_NONE : pool_span(&s->smtp.pool, out_span(&o));
	if (all.p)
		e->trace = all;
}

/* The first reason is the one that operators see. Without memory the message is refused for that instead. */
static bool hold(struct session *s, struct decision *d)
{
	char buf[256];
	struct out o = out_of(buf, sizeof(buf));
	struct envelope *e = &s->smtp.env;

	if (e->hold.n)
		return true;
	out_fmt(&o, "%s (%s): ", rule_row[d->rule].name, rule_row[d->rule].row);
	text_of(d, 180, &o);
	e->hold = pool_span(&s->smtp.pool, out_span(&o));
	if (e->hold.p)
		return true;
	e->hold = SPAN_NONE;
	*d = (struct decision){ .accept = false, .rule = RULE_NO_ROOM };
	reply_set(&d->reply, 452, "4.3.1", "The transaction is too large, try with fewer recipients");
	return false;
}

bool finding_accept(struct session *s, struct decision *d, struct span to)
{
	enum policy_mode mode;
	bool undecided;

	if (d->accept)
		return true;
	undecided = d->undecided;
	mode = policy_apply(&s->facts, d);
	if (!undecided)
		clients_finding(s, d->rule, !d->accept);
	switch (mode) {
	case POLICY_OFF:
	case POLICY_NMODE:
		return true;
	case POLICY_MONITOR:
		counter_add(C_POLICY_MONITORED, 1);
		break;
	case POLICY_TAG:
		counter_add(C_POLICY_TAGGED, 1);
		mark(s, d);
		break;
	case POLICY_HOLD:
		if (!hold(s, d)) {
			mode = policy_apply(&s->facts, d);
			break;
		}
		counter_add(C_POLICY_HELD, 1);
		break;
	case POLICY_DEFER:
	case POLICY_REJECT:
		counter_add(C_POLICY_REFUSED, 1);
		break;
	}
	rule_count(d->rule, policy_class(&s->facts), d->accept ? mode : reply_is_temporary(&d->reply) ? POLICY_DEFER : POLICY_REJECT);
	finding_log(s, d->accept ? "would-reject" : "rejected", d, mode, to);
	if (!d->accept)
		refuse_note(s, d, to);
	return d->accept;
}

void finding_repeat(struct session *s, struct decision *d, struct span to)
{
	enum policy_mode mode = policy_apply(&s->facts, d);

	finding_log(s, "rejected", d, mode, to);
	refuse_note(s, d, to);
}
