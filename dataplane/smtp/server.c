#include "dataplane/smtp/server.h"

#include "dataplane/smtp/params.h"
#include "dataplane/smtp/server_auth.h"
#include "dataplane/smtp/server_body.h"

enum { OUT_RESERVE = 1200 }; /* room that one command's replies may need */

/* ---- output ---- */

void server_say(struct smtp_server *s, const struct reply *r)
{
	reply_write(r, &s->state.out);
}

struct span smtp_server_output(const struct smtp_server *s)
{
	return span_skip(out_span(&s->state.out), s->state.out_sent);
}

void smtp_server_sent(struct smtp_server *s, size_t n)
{
	s->state.out_sent += n;
	if (s->state.out_sent == s->state.out.n)
		s->state.out_sent = s->state.out.n = 0;
}

/* ---- the transaction ---- */

static bool in_transaction(const struct smtp_server *s)
{
	return s->state.have_mail;
}

bool server_in_transaction(const struct smtp_server *s)
{
	return in_transaction(s);
}

void server_forget_transaction(struct smtp_server *s)
{
	pool_reset(&s->pool);
	s->env = (struct envelope){ 0 };
	s->size_declared = 0;
	s->body_len = 0;
	s->state.have_mail = s->state.bdat_active = s->state.bdat_last = s->state.discard = false;
	s->state.rcpt_cap = s->state.rcpt_answers = s->state.rcpt_taken = s->state.refusal_len = 0;
	s->state.phase = PHASE_COMMAND;
	s->state.waiting = NOT_WAITING;
}

/* Ends the transaction without a message; tells the host when it knew of one. */
static enum server_action reset_action(struct smtp_server *s)
{
	bool had = in_transaction(s);

	server_forget_transaction(s);
	return had ? SRV_RESET : SRV_STEP;
}

enum server_action server_close(struct smtp_server *s)
{
	s->state.closing = true;
	return SRV_CLOSE;
}

/* An error of the client's; too many of them end the session. */
static enum server_action protocol_error(struct smtp_server *s, const struct reply *r)
{
	server_say(s, r);
	if (s->cfg->errors_max && ++s->state.errors >= s->cfg->errors_max) {
		SAY(s, 421, "4.7.0", "%.*s: too many errors", SPAN_FMT(s->cfg->hostname));
		return server_close(s);
	}
	return SRV_STEP;
}

enum server_action server_error(struct smtp_server *s, const struct reply *r)
{
	return protocol_error(s, r);
}

void server_auth_wait(struct smtp_server *s, enum server_auth_wait w)
{
	s->state.waiting = w == AUTH_WAITS_HOST ? FOR_AUTH : NOT_WAITING;
	s->state.phase = w == AUTH_WAITS_NOTHING ? PHASE_COMMAND : PHASE_AUTH;
}

#define ERROR(s, code, enhanced, ...)                                                                                              \
	({                                                                                                                         \
		struct reply error_reply;                                                                                          \
		reply_set(&error_reply, code, enhanced, __VA_ARGS__);                                                              \
		protocol_error(s, &error_reply);                                                                                   \
	})

/* ---- commands ---- */

static enum server_action greet(struct smtp_server *s, struct span arg, bool esmtp)
{
	struct span name = span_trim(arg);
	size_t n = name.n < sizeof(s->helo_buf) ? name.n : sizeof(s->helo_buf);

	if (!name.n)
		return ERROR(s, 501, NULL, "Say your host name"); /* RFC 2034 4: no enhanced code in any answer to EHLO and HELO */
	memcpy(s->helo_buf, name.p, n);
	s->helo = span_of(s->helo_buf, n);
	s->esmtp = esmtp;
	if (esmtp)
		ext_write(s, &s->state.out);
	else
		SAY(s, 250, NULL, "%.*s", SPAN_FMT(s->cfg->hostname));
	return reset_action(s);
}

static enum server_action cmd_ehlo(struct smtp_server *s, struct span arg)
{
	if (s->cfg->lmtp)
		return ERROR(s, 500, "5.5.1", "This is LMTP: say LHLO");
	return greet(s, arg, true);
}

static enum server_action cmd_helo(struct smtp_server *s, struct span arg)
{
	if (s->cfg->lmtp)
		return ERROR(s, 500, "5.5.1", "This is LMTP: say LHLO");
	return greet(s, arg, false);
}

static enum server_action cmd_lhlo(struct smtp_server *s, struct span arg)
{
	if (!s->cfg->lmtp)
		return ERROR(s, 500, "5.5.1", "This is SMTP: say EHLO");
	return greet(s, arg, true);
}

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

/* A command that carries a message on is no part of a flood. */
static void uncount(struct smtp_server *s)
{
	if (s->state.commands)
		s->state.commands--;
}

static enum server_action out_of_room(struct smtp_server *s)
{
	SAY(s, 452, "4.3.1", "The transaction is too large, try with fewer recipients");
	return SRV_STEP;
}

static enum server_action cmd_mail(struct smtp_server *s, struct span arg)
{
	struct reply r;
	struct span rest;

	if (!s->helo.n)
		return ERROR(s, 503, "5.5.1", "Say EHLO first");
	if (in_transaction(s))
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
		server_forget_transaction(s);
		return protocol_error(s, &r);
	}
	if (lacks_utf8(s, &s->sender)) {
		server_forget_transaction(s);
		return ERROR(s, 553, "5.6.7", "The address needs SMTPUTF8");
	}
	s->env.sender = pool_span(&s->pool, s->sender.full);
	if (!s->env.sender.p) {
		server_forget_transaction(s);
		return out_of_room(s);
	}
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

static enum server_action cmd_rcpt(struct smtp_server *s, struct span arg)
{
	struct env_rcpt rcpt = { 0 };
	struct reply r;
	struct span rest;

	if (!in_transaction(s))
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
		uncount(s);
		SAY(s, 452, "4.5.3", "Too many recipients, send the rest in another message");
		return SRV_STEP;
	}
	if (!rcpt_params(s, rest, &rcpt, &r))
		return protocol_error(s, &r);
	rcpt.addr = pool_span(&s->pool, s->rcpt.full);
	if (!rcpt.addr.p || !rcpt_room(s, 1))
		return out_of_room(s);
	s->env.rcpt[s->env.nrcpt++] = rcpt;
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
	if (!rcpt_room(s, n))
		return false;
	for (uint32_t i = 0; i < n; i++) {
		struct env_rcpt r = given;

		r.addr = pool_span(&s->pool, addr[i]);
		if (!r.addr.p) {
			s->env.rcpt[last] = before;
			return false;
		}
		s->env.rcpt[last + i] = r;
	}
	s->env.nrcpt = last + n;
	return true;
}

static bool arg_is_empty(struct span arg)
{
	return span_trim(arg).n == 0;
}

static enum server_action cmd_data(struct smtp_server *s, struct span arg)
{
	if (!arg_is_empty(arg))
		return ERROR(s, 501, "5.5.4", "DATA takes no argument");
	if (!in_transaction(s) || s->state.bdat_active)
		return ERROR(s, 503, "5.5.1", "DATA is out of order here");
	if (!s->env.nrcpt)
		return ERROR(s, 554, "5.5.1", "No valid recipients");
	s->state.waiting = FOR_DATA;
	s->state.by_bdat = false;
	return SRV_DATA;
}

static void body_begin(struct smtp_server *s)
{
	s->state.phase = PHASE_BODY;
	if (s->state.by_bdat)
		wire_mode(&s->wire, WIRE_CHUNK, s->state.bdat_left, !s->state.bdat_active);
	else
		wire_mode(&s->wire, WIRE_DATA, 0, true);
	s->state.bdat_active = s->state.by_bdat;
}

/* The octets of a chunk come whether we like the command or not: they are read and thrown away (P9). */
static enum server_action bdat_refused(struct smtp_server *s, uint64_t n, unsigned code, const char *text)
{
	struct out o = out_of(s->state.refusal, sizeof(s->state.refusal));
	struct reply r;

	reply_set(&r, code, "5.5.1", "%s", text);
	reply_write(&r, &o);
	s->state.refusal_len = (uint16_t)o.n;
	s->state.discard = s->state.by_bdat = true;
	s->state.bdat_left = n;
	s->state.stray_chunk = true;
	s->state.phase = PHASE_BODY;
	wire_mode(&s->wire, WIRE_SKIP, n, true);
	return SRV_STEP;
}

static enum server_action cmd_bdat(struct smtp_server *s, struct span arg)
{
	struct span rest = span_trim(arg), number = span_cut(&rest, ' ');
	uint64_t n;
	bool last = span_eq_nocase(span_trim(rest), SPAN("LAST"));

	/* where the chunk ends is not known: nothing that follows can be understood */
	if (!span_u64(number, INT64_MAX, &n) || (rest.p && !last)) {
		SAY(s, 501, "5.5.4", "Syntax: BDAT octets [LAST]");
		return server_close(s);
	}
	if (!in_transaction(s))
		return bdat_refused(s, n, 503, "Say MAIL first");
	if (!s->env.nrcpt)
		return bdat_refused(s, n, 554, "No valid recipients");
	if (n)
		uncount(s);
	s->state.by_bdat = true;
	s->state.bdat_left = n;
	s->state.bdat_last = last;
	if (s->state.bdat_active) {
		body_begin(s);
		return SRV_STEP;
	}
	s->state.waiting = FOR_DATA;
	return SRV_DATA;
}

static enum server_action cmd_rset(struct smtp_server *s, struct span arg)
{
	if (!arg_is_empty(arg))
		return ERROR(s, 501, "5.5.4", "RSET takes no argument");
	SAY(s, 250, "2.0.0", "Ok");
	return reset_action(s);
}

static enum server_action cmd_noop(struct smtp_server *s, struct span arg)
{
	SAY(s, 250, "2.0.0", "Ok");
	return SRV_STEP;
}

static enum server_action cmd_vrfy(struct smtp_server *s, struct span arg)
{
	if (arg_is_empty(arg))
		return ERROR(s, 501, "5.5.4", "Syntax: VRFY address");
	SAY(s, 252, "2.5.0", "Cannot tell, but will take mail and try to deliver it");
	return SRV_STEP;
}

static enum server_action cmd_help(struct smtp_server *s, struct span arg)
{
	SAY(s, 214, "2.0.0", "Commands: EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP STARTTLS AUTH QUIT");
	return SRV_STEP;
}

static enum server_action cmd_expn(struct smtp_server *s, struct span arg)
{
	return ERROR(s, 502, "5.5.1", "EXPN is not offered");
}

static enum server_action cmd_starttls(struct smtp_server *s, struct span arg)
{
	if (!arg_is_empty(arg))
		return ERROR(s, 501, "5.5.4", "STARTTLS takes no argument");
	if (s->tls)
		return ERROR(s, 503, "5.5.1", "TLS is on already");
	if (!s->cfg->starttls)
		return ERROR(s, 502, "5.5.1", "STARTTLS is not offered");
	if (in_transaction(s))
		return ERROR(s, 503, "5.5.1", "STARTTLS is not possible within a transaction");
	s->state.before_220 = s->state.out.n;
	SAY(s, 220, "2.0.0", "Ready to start TLS");
	s->state.waiting = FOR_220;
	return SRV_STEP;
}

static enum server_action cmd_quit(struct smtp_server *s, struct span arg)
{
	SAY(s, 221, "2.0.0", "%.*s closing the connection", SPAN_FMT(s->cfg->hostname));
	return server_close(s);
}

/* What another protocol begins with: who speaks it is not a mail client (P22). */
static enum server_action cmd_foreign(struct smtp_server *s, struct span arg)
{
	SAY(s, 554, "5.5.1", "This is a mail server");
	return server_close(s);
}

static const struct command {
	const char *name;
	enum server_action (*run)(struct smtp_server *s, struct span arg);
} command_table[] = {
	{ "MAIL", cmd_mail },
	{ "RCPT", cmd_rcpt },
	{ "DATA", cmd_data },
	{ "BDAT", cmd_bdat },
	{ "EHLO", cmd_ehlo },
	{ "HELO", cmd_helo },
	{ "LHLO", cmd_lhlo },
	{ "RSET", cmd_rset },
	{ "NOOP", cmd_noop },
	{ "QUIT", cmd_quit },
	{ "STARTTLS", cmd_starttls },
	{ "AUTH", server_auth_command },
	{ "VRFY", cmd_vrfy },
	{ "HELP", cmd_help },
	{ "EXPN", cmd_expn },
	{ "GET", cmd_foreign },
	{ "POST", cmd_foreign },
	{ "PUT", cmd_foreign },
	{ "HEAD", cmd_foreign },
	{ "PATCH", cmd_foreign },
	{ "DELETE", cmd_foreign },
	{ "TRACE", cmd_foreign },
	{ "OPTIONS", cmd_foreign },
	{ "CONNECT", cmd_foreign },
	{ "PRI", cmd_foreign }, /* HTTP/2 */
	{ "PROXY", cmd_foreign },
};

static bool has_bad_octet(struct span line)
{
	for (size_t i = 0; i < line.n; i++) {
		unsigned char c = (unsigned char)line.p[i];

		if ((c < ' ' && c != '\t') || c == 0x7f)
			return true;
	}
	return false;
}

static enum server_action on_line(struct smtp_server *s, struct span line)
{
	struct span arg = line, word = span_cut(&arg, ' ');

	if (has_bad_octet(line))
		return ERROR(s, 500, "5.5.2", "Control characters are not allowed in commands");
	if (s->cfg->commands_max && ++s->state.commands > s->cfg->commands_max) {
		SAY(s, 421, "4.7.0", "%.*s: too many commands without a message", SPAN_FMT(s->cfg->hostname));
		return server_close(s);
	}
	for (size_t i = 0; i < sizeof(command_table) / sizeof(command_table[0]); i++)
		if (span_eq_nocase(word, span_str(command_table[i].name)))
			return command_table[i].run(s, arg);
	if (span_starts_nocase(line, SPAN("SSH-")))
		return cmd_foreign(s, arg);
	return ERROR(s, 500, "5.5.2", "Unknown command");
}

static enum server_action step_command(struct smtp_server *s, struct span in, size_t *ret_used)
{
	/* a TLS client hello, or anything binary, where a command should begin */
	if (s->state.first_step && in.n) {
		s->state.first_step = false;
		if ((unsigned char)in.p[0] == 0x16 || in.p[0] == 0) {
			*ret_used = in.n;
			return server_close(s);
		}
	}
	switch (wire_next(&s->wire, in, ret_used)) {
	case WIRE_LINE:
		return s->state.phase == PHASE_AUTH ? server_auth_line(s, s->wire.line) : on_line(s, s->wire.line);
	case WIRE_LINE_LONG:
		if (s->state.phase == PHASE_AUTH)
			return server_auth_line_long(s);
		return ERROR(s, 500, "5.5.2", "Line is too long");
	case WIRE_BAD_LINE_END:
		SAY(s, 500, "5.5.2", "Lines end with CR LF; a bare CR or LF is not accepted");
		s->bad_line_end = true;
		return server_close(s);
	case WIRE_MORE:
	case WIRE_BODY:
	case WIRE_BODY_END:
	case WIRE_BAD_NUL:
		break;
	}
	return SRV_MORE;
}

/* ---- the public part ---- */

void smtp_server_init(struct smtp_server *s, const struct smtp_server_config *cfg)
{
	memset(s, 0, sizeof(*s));
	s->cfg = cfg;
	wire_init(&s->wire);
	wire_mode(&s->wire, WIRE_LINES, 0, true);
	pool_init(&s->pool, cfg->transaction_max ? cfg->transaction_max : 1024 * 1024);
	s->state.out = out_of(s->state.out_buf, sizeof(s->state.out_buf));
	s->state.first_step = true;
	out_fmt(&s->state.out, "220 %.*s %.*s\r\n", SPAN_FMT(cfg->hostname), SPAN_FMT(cfg->banner));
}

void smtp_server_done(struct smtp_server *s)
{
	server_auth_forget(s);
	wire_forget(&s->wire);
	pool_reset(&s->pool);
}

void smtp_server_refuse(struct smtp_server *s, const struct reply *r)
{
	s->state.out.n = s->state.out_sent = 0;
	smtp_server_shutdown(s, r);
}

void smtp_server_shutdown(struct smtp_server *s, const struct reply *r)
{
	server_say(s, r);
	s->state.closing = true;
}

bool smtp_server_starts_tls(const struct smtp_server *s)
{
	return s->state.waiting == FOR_220;
}

void smtp_server_starttls_refuse(struct smtp_server *s, const struct reply *r)
{
	CHECK(s->state.waiting == FOR_220 && s->state.before_220 >= s->state.out_sent && s->state.before_220 < s->state.out.n);
	s->state.out.n = s->state.before_220;
	smtp_server_shutdown(s, r);
}

enum server_action smtp_server_step(struct smtp_server *s, struct span in, size_t *ret_used)
{
	*ret_used = 0;
	if (s->state.closing) {
		*ret_used = in.n;
		return SRV_CLOSE;
	}
	if (s->state.waiting == FOR_220 && !s->state.out.n) {
		s->state.waiting = FOR_TLS;
		return SRV_STARTTLS;
	}
	if (s->state.waiting != NOT_WAITING)
		return SRV_MORE;
	if (s->state.out.cap - s->state.out.n < OUT_RESERVE)
		return SRV_MORE; /* the host sends first */
	if (s->state.refusals)
		return server_body_refusals(s);
	return s->state.phase == PHASE_BODY ? server_body_step(s, in, ret_used) : step_command(s, in, ret_used);
}

static void answer_end(struct smtp_server *s, const struct reply *r)
{
	server_say(s, r);
	if (s->cfg->lmtp && ++s->state.rcpt_answers < s->env.nrcpt)
		return;
	server_forget_transaction(s);
	s->state.commands = 0;
}

void smtp_server_reply(struct smtp_server *s, const struct reply *r)
{
	unsigned waiting = s->state.waiting;

	s->state.waiting = NOT_WAITING;
	switch (waiting) {
	case FOR_MAIL:
		server_say(s, r);
		if (reply_is_ok(r))
			s->state.have_mail = true;
		else
			server_forget_transaction(s);
		break;
	case FOR_RCPT:
		server_say(s, r);
		if (reply_is_ok(r)) {
			s->state.rcpt_taken++;
			uncount(s);
		} else {
			s->env.nrcpt--;
		}
		break;
	case FOR_DATA:
		if (r->code < 400) {
			if (!s->state.by_bdat)
				server_say(s, r);
			body_begin(s);
		} else if (s->state.by_bdat) {
			body_begin(s);
			smtp_server_abort_body(s, r);
		} else {
			server_say(s, r);
			server_forget_transaction(s);
		}
		break;
	case FOR_AUTH:
		CHECK(r->code >= 400);
		server_auth_end(s);
		if (r->code == 535)
			protocol_error(s, r);
		else
			server_say(s, r);
		break;
	case FOR_END:
		s->state.waiting = s->cfg->lmtp && s->state.rcpt_answers + 1 < s->env.nrcpt ? FOR_END : NOT_WAITING;
		answer_end(s, r);
		break;
	default:
		CHECK(!"no answer was asked for");
	}
	if (r->code == 421)
		s->state.closing = true;
}

void smtp_server_tls_started(struct smtp_server *s)
{
	server_auth_forget(s);
	server_forget_transaction(s);
	wire_mode(&s->wire, WIRE_LINES, 0, true);
	s->helo = SPAN_NONE;
	s->esmtp = false;
	s->tls = true;
	s->state.commands = 0;
	s->state.first_step = true;
}

enum server_wait smtp_server_wait(const struct smtp_server *s)
{
	if (s->state.waiting == FOR_220 || s->state.waiting == FOR_TLS)
		return SRV_WAIT_COMMAND;
	if (s->state.waiting != NOT_WAITING)
		return SRV_WAIT_DECISION;
	return s->state.phase == PHASE_BODY ? SRV_WAIT_BODY : SRV_WAIT_COMMAND;
}
