#include "dataplane/smtp/params.h"
#include "dataplane/smtp/server_internal.h"

/* "FROM:<...>" or "TO:<...>", a space after the colon is tolerated. False: not that. */
static bool take_keyword(struct span *arg, const char *word)
{
	struct span w = span_str(word);

	if (!span_starts_nocase(*arg, w))
		return false;
	*arg = span_skip(*arg, w.n);
	while (arg->n && arg->p[0] == ' ')
		*arg = span_skip(*arg, 1);
	return true;
}

/* RFC 6531 3.5 */
static bool lacks_utf8(const struct smtp_server *s, const struct address *a)
{
	return a->is_utf8 && !(s->env.flags & ENV_SMTPUTF8);
}

/* The decision may take its time, and the line does not stay. */
static void address_stays(struct address *a, struct span copy)
{
	if (a->domain.n)
		a->domain.p = copy.p + (a->domain.p - a->full.p);
	if (a->local.n)
		a->local.p = copy.p + (a->local.p - a->full.p);
	a->full = copy;
}

enum server_action server_mail(struct smtp_server *s, struct span arg)
{
	struct reply r;
	struct span rest;

	if (!s->helo.n)
		return ERROR(s, 503, "5.5.1", "Say EHLO first");
	if (server_in_transaction(s))
		return ERROR(s, 503, "5.5.1", "MAIL was said already");
	if (s->cfg->auth && !s->auth_user.n)
		return ERROR(s, 530, "5.7.0", "%s", s->tls ? "Authentication is required" : "Say STARTTLS first, then AUTH");
	if (s->cfg->mail_max && s->state.mails >= s->cfg->mail_max) {
		SAY(s, 421, "4.7.0", "%.*s: too many messages in one session", SPAN_FMT(s->cfg->hostname));
		return server_close(s);
	}
	if (!take_keyword(&arg, "FROM:"))
		return ERROR(s, 501, "5.5.4", "Syntax: MAIL FROM:<address>");
	if (address_path(arg, ADDRESS_ALLOW_NULL | ADDRESS_UTF8, &s->sender, &rest) != ST_OK)
		return ERROR(s, 501, "5.1.7", "Bad sender address: %s", trail_text());
	if (rest.n && rest.p[0] != ' ')
		return ERROR(s, 501, "5.5.4", "Syntax: MAIL FROM:<address>");
	if (!mail_params(s, rest, &r)) {
		server_transaction_reset(s);
		return server_error(s, &r);
	}
	if (lacks_utf8(s, &s->sender)) {
		server_transaction_reset(s);
		return ERROR(s, 553, "5.6.7", "The address needs SMTPUTF8");
	}
	s->env.sender = pool_span(&s->pool, s->sender.full);
	if (!s->env.sender.p) {
		server_transaction_reset(s);
		return server_out_of_room(s);
	}
	address_stays(&s->sender, s->env.sender);
	s->state.waiting = FOR_MAIL;
	s->state.mails++;
	return SRV_MAIL;
}

/* Makes room for more recipients: the array doubles within the pool. */
static bool rcpt_room(struct smtp_server *s, uint32_t more)
{
	uint32_t cap = s->state.rcpt_cap ? s->state.rcpt_cap * 2 : 4;
	struct env_rcpt *bigger;

	if (s->env.nrcpt + more <= s->state.rcpt_cap)
		return true;
	while (cap < s->env.nrcpt + more)
		cap *= 2;
	bigger = pool_alloc(&s->pool, cap * sizeof(*bigger));
	if (!bigger)
		return false;
	if (s->env.nrcpt)
		memcpy(bigger, s->env.rcpt, s->env.nrcpt * sizeof(*bigger));
	s->env.rcpt = bigger;
	s->state.rcpt_cap = cap;
	return true;
}

enum server_action server_rcpt(struct smtp_server *s, struct span arg)
{
	struct env_rcpt rcpt = { 0 };
	struct reply r;
	struct span rest;

	if (!server_in_transaction(s))
		return ERROR(s, 503, "5.5.1", "Say MAIL first");
	if (s->state.bdat_active)
		return ERROR(s, 503, "5.5.1", "The message has begun already");
	if (!take_keyword(&arg, "TO:"))
		return ERROR(s, 501, "5.5.4", "Syntax: RCPT TO:<address>");
	if (address_path(arg, ADDRESS_ALLOW_BARE | ADDRESS_UTF8, &s->rcpt, &rest) != ST_OK)
		return ERROR(s, 501, "5.1.3", "Bad recipient address: %s", trail_text());
	if (rest.n && rest.p[0] != ' ')
		return ERROR(s, 501, "5.5.4", "Syntax: RCPT TO:<address>");
	if (lacks_utf8(s, &s->rcpt))
		return ERROR(s, 553, "5.6.7", "The address needs SMTPUTF8");
	if (s->cfg->rcpt_max && s->state.rcpt_taken >= s->cfg->rcpt_max) {
		server_uncount(s);
		SAY(s, 452, "4.5.3", "Too many recipients, send the rest in another message");
		return SRV_STEP;
	}
	if (!rcpt_params(s, rest, &rcpt, &r))
		return server_error(s, &r);
	rcpt.addr = pool_span(&s->pool, s->rcpt.full);
	if (!rcpt.addr.p || !rcpt_room(s, 1))
		return server_out_of_room(s);
	s->env.rcpt[s->env.nrcpt++] = rcpt;
	address_stays(&s->rcpt, rcpt.addr);
	s->state.waiting = FOR_RCPT;
	return SRV_RCPT;
}

/* The recipient as it was given, for reports about what it stands for. One that is not ASCII has no form that every next hop takes: it stays without. */
static struct span make_orcpt(struct smtp_server *s, const struct env_rcpt *rcpt)
{
	char buf[ADDRESS_MAX + 16];
	struct out o = out_of(buf, sizeof(buf));

	if (rcpt->orcpt.n || s->rcpt.is_utf8)
		return rcpt->orcpt;
	out_str(&o, "rfc822;");
	out_add(&o, rcpt->addr);
	return pool_span(&s->pool, out_span(&o));
}

bool smtp_server_rcpt_replace(struct smtp_server *s, const struct span *addr, uint32_t n)
{
	uint32_t last = s->env.nrcpt - 1;
	struct env_rcpt before = s->env.rcpt[last], given = before;

	given.orcpt = make_orcpt(s, &given);
	given.given = given.addr;
	if (!rcpt_room(s, n))
		return false;
	for (uint32_t i = 0; i < n; i++) {
		struct env_rcpt r = given;

		r.addr = pool_span(&s->pool, addr[i]);
		if (!r.addr.p) {
			s->env.rcpt[last] = before;
			return false;
		}
		if (span_eq(r.addr, r.given))
			r.given = SPAN_NONE;
		s->env.rcpt[last + i] = r;
	}
	s->env.nrcpt = last + n;
	return true;
}
