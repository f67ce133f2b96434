#include "dataplane/smtp/server.h"

#include "dataplane/smtp/params.h"
#include "dataplane/smtp/server_auth.h"
#include "dataplane/smtp/server_internal.h"
#include "dataplane/smtp/server_xclient.h"

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

bool server_in_transaction(const struct smtp_server *s)
{
	return s->state.have_mail;
}

void server_transaction_reset(struct smtp_server *s)
{
	pool_reset(&s->pool);
	s->env = (struct envelope){ 0 };
	s->size_declared = 0;
	s->body_len = 0;
	s->state.have_mail = s->state.bdat_active = s->state.bdat_last = s->state.discard = false;
	s->state.rcpt_cap = s->state.rcpt_taken = s->state.finals = s->state.final_len = 0;
	s->state.phase = PHASE_COMMAND;
	s->state.waiting = NOT_WAITING;
}

enum server_action server_reset_action(struct smtp_server *s)
{
	bool had = server_in_transaction(s);

	server_transaction_reset(s);
	return had ? SRV_RESET : SRV_STEP;
}

enum server_action server_close(struct smtp_server *s)
{
	s->state.closing = true;
	return SRV_CLOSE;
}

enum server_action server_error(struct smtp_server *s, const struct reply *r)
{
	server_say(s, r);
	if (s->cfg->errors_max && ++s->state.errors >= s->cfg->errors_max) {
		SAY(s, 421, "4.7.0", "%.*s: too many errors", SPAN_FMT(s->cfg->hostname));
		return server_close(s);
	}
	return SRV_STEP;
}

void server_auth_wait(struct smtp_server *s, enum server_auth_wait w)
{
	s->state.waiting = w == AUTH_WAITS_HOST ? FOR_AUTH : NOT_WAITING;
	s->state.phase = w == AUTH_WAITS_NOTHING ? PHASE_COMMAND : PHASE_AUTH;
}

void server_uncount(struct smtp_server *s)
{
	if (s->state.commands)
		s->state.commands--;
}

enum server_action server_out_of_room(struct smtp_server *s)
{
	SAY(s, 452, "4.3.1", "The transaction is too large, try with fewer recipients");
	return SRV_STEP;
}

/* ---- commands ---- */

bool server_arg_is_empty(struct span arg)
{
	return span_trim(arg).n == 0;
}

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
	return server_reset_action(s);
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

static enum server_action cmd_rset(struct smtp_server *s, struct span arg)
{
	if (!server_arg_is_empty(arg))
		return ERROR(s, 501, "5.5.4", "RSET takes no argument");
	SAY(s, 250, "2.0.0", "Ok");
	return server_reset_action(s);
}

static enum server_action cmd_noop(struct smtp_server *s, struct span arg)
{
	SAY(s, 250, "2.0.0", "Ok");
	return SRV_STEP;
}

static enum server_action cmd_vrfy(struct smtp_server *s, struct span arg)
{
	if (server_arg_is_empty(arg))
		return ERROR(s, 501, "5.5.4", "Syntax: VRFY address");
	SAY(s, 252, "2.5.0", "Cannot tell, but will take mail and try to deliver it");
	return SRV_STEP;
}

static enum server_action cmd_help(struct smtp_server *s, struct span arg)
{
	SAY(s, 214, "2.0.0", "Commands: %s MAIL RCPT DATA BDAT RSET NOOP VRFY HELP STARTTLS AUTH QUIT", s->cfg->lmtp ? "LHLO" : "EHLO HELO");
	return SRV_STEP;
}

static enum server_action cmd_expn(struct smtp_server *s, struct span arg)
{
	return ERROR(s, 502, "5.5.1", "EXPN is not offered");
}

static enum server_action cmd_starttls(struct smtp_server *s, struct span arg)
{
	if (!server_arg_is_empty(arg))
		return ERROR(s, 501, "5.5.4", "STARTTLS takes no argument");
	if (s->tls)
		return ERROR(s, 503, "5.5.1", "TLS is on already");
	if (!s->cfg->starttls)
		return ERROR(s, 502, "5.5.1", "STARTTLS is not offered");
	if (server_in_transaction(s))
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
	{ "MAIL", server_mail },
	{ "RCPT", server_rcpt },
	{ "DATA", server_data },
	{ "BDAT", server_bdat },
	{ "EHLO", cmd_ehlo },
	{ "HELO", cmd_helo },
	{ "LHLO", cmd_lhlo },
	{ "RSET", cmd_rset },
	{ "NOOP", cmd_noop },
	{ "QUIT", cmd_quit },
	{ "STARTTLS", cmd_starttls },
	{ "AUTH", server_auth_command },
	{ "XCLIENT", server_xclient_command },
	{ "VRFY", cmd_vrfy },
	{ "HELP", cmd_help },
	{ "EXPN", cmd_expn },
	{ "GET", cmd_foreign },
	{ "POST", cmd_foreign },
	{ "CONNECT", cmd_foreign },
	{ "PROXY", cmd_foreign },
};

static const struct command *command_find(struct span word)
{
	for (size_t i = 0; i < sizeof(command_table) / sizeof(command_table[0]); i++)
		if (span_eq_nocase(word, span_str(command_table[i].name)))
			return &command_table[i];
	return NULL;
}

/* "HTTP/1.1" at the end, or that of RTSP, SIP, ICAP. */
static bool ends_in_version(struct span line)
{
	size_t i = line.n;

	while (i && (line.p[i - 1] == '.' || (line.p[i - 1] >= '0' && line.p[i - 1] <= '9')))
		i--;
	return i < line.n && i > 1 && line.p[i - 1] == '/' && line.p[i - 2] != ' ';
}

/* Whether it is the first line of another protocol and no mail client's: one of the words above, or a line like METHOD /path or METHOD scheme:... VERSION.
 * Of a line that was too long this is its beginning. */
static bool is_foreign(struct span line)
{
	struct span arg = line;
	const struct command *c = command_find(span_cut(&arg, ' '));

	if (c)
		return c->run == cmd_foreign;
	return span_starts_nocase(line, SPAN("SSH-")) || (arg.n && (arg.p[0] == '/' || memmem(arg.p, arg.n, "://", 3) || ends_in_version(arg)));
}

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
	const struct command *c;

	if (has_bad_octet(line))
		return ERROR(s, 500, "5.5.2", "Control characters are not allowed in commands");
	if (s->cfg->commands_max && ++s->state.commands > s->cfg->commands_max) {
		SAY(s, 421, "4.7.0", "%.*s: too many commands without a message", SPAN_FMT(s->cfg->hostname));
		return server_close(s);
	}
	if (is_foreign(line))
		return cmd_foreign(s, SPAN_NONE);
	c = command_find(word);
	return c ? c->run(s, arg) : ERROR(s, 500, "5.5.2", "Unknown command");
}

/* No command begins so; nor do the errors that are worth an answer. */
static bool is_binary(char c)
{
	return (unsigned char)c >= 0x7f || ((unsigned char)c < ' ' && c != '\t' && c != '\r' && c != '\n');
}

static enum server_action step_command(struct smtp_server *s, struct span in, size_t *ret_used)
{
	/* a TLS client hello, or anything binary, where the first command should begin */
	if (s->state.first_step && in.n) {
		s->state.first_step = false;
		if (is_binary(in.p[0])) {
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
		if (is_foreign(s->wire.line))
			return cmd_foreign(s, SPAN_NONE);
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

void server_greeting(struct smtp_server *s)
{
	out_fmt(&s->state.out, "220 %.*s %.*s\r\n", SPAN_FMT(s->cfg->hostname), SPAN_FMT(s->cfg->banner));
}

void smtp_server_init(struct smtp_server *s, const struct smtp_server_config *cfg)
{
	memset(s, 0, sizeof(*s));
	s->cfg = cfg;
	wire_init(&s->wire);
	wire_mode(&s->wire, WIRE_LINES, 0, true);
	pool_init(&s->pool, cfg->transaction_max ? cfg->transaction_max : 1024 * 1024);
	s->state.out = out_of(s->state.out_buf, sizeof(s->state.out_buf));
	s->state.first_step = true;
	server_greeting(s);
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
	if (s->state.finals)
		return server_say_finals(s);
	return s->state.phase == PHASE_BODY ? server_body_step(s, in, ret_used) : step_command(s, in, ret_used);
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
			server_transaction_reset(s);
		break;
	case FOR_RCPT:
		server_say(s, r);
		if (reply_is_ok(r)) {
			s->state.rcpt_taken++;
			server_uncount(s);
		} else {
			s->env.nrcpt--;
		}
		break;
	case FOR_DATA:
		if (r->code < 400) {
			if (!s->state.by_bdat)
				server_say(s, r);
			server_body_begin(s);
		} else if (s->state.by_bdat) {
			server_body_begin(s);
			server_discard(s, r);
		} else {
			server_say(s, r);
			server_transaction_reset(s);
		}
		break;
	case FOR_AUTH:
		CHECK(r->code >= 400);
		server_auth_end(s);
		if (r->code == 535)
			server_error(s, r);
		else
			server_say(s, r);
		break;
	case FOR_XCLIENT:
		CHECK(r->code >= 400);
		if (s->xclient)
			server_transaction_reset(s); /* what it said was in the pool */
		s->xclient = NULL;
		if (r->code == 421)
			server_say(s, r);
		else
			server_error(s, r);
		break;
	case FOR_END:
		server_answer_end(s, r);
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
	server_transaction_reset(s);
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
