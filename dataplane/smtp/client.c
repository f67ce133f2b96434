/* The session: greeting, EHLO, STARTTLS, and the parser of replies. Logging in is in client_auth.c, what a transaction is made of in client_txn.c.
 *
 * Input is read before anything new is said: a reply that came before its command went out is not due, and ends the session. */
#include "dataplane/smtp/client_internal.h"
#include "dataplane/smtp/params.h"

enum { REPLY_LINES_MAX = 500 };

/* ---- output ---- */

struct span smtp_client_output(const struct smtp_client *c)
{
	return span_skip(out_span(&c->state.out), c->state.out_sent);
}

void smtp_client_sent(struct smtp_client *c, size_t n)
{
	c->state.out_sent += n;
	if (c->state.out_sent < c->state.out.n)
		return;
	if (c->state.phase == PHASE_AUTH)
		explicit_bzero(c->state.out_buf, c->state.out.n); /* passwords do not stay */
	c->state.out_sent = c->state.out.n = 0;
}

/* ---- ends ---- */

void smtp_client_done(struct smtp_client *c)
{
	wire_forget(&c->wire);
	txn_lost(c);
}

enum client_action client_fail(struct smtp_client *c, const struct reply *r)
{
	c->failure = *r;
	c->state.phase = PHASE_CLOSED;
	txn_lost(c);
	return CLI_CLOSE;
}

enum client_action client_fail_text(struct smtp_client *c, const char *enhanced, const char *text)
{
	struct reply r;

	reply_set(&r, 451, enhanced, "%s", text);
	return client_fail(c, &r);
}

/* ---- replies ---- */

static void say_ehlo(struct smtp_client *c, const char *word, unsigned phase)
{
	out_str(&c->state.out, word);
	out_char(&c->state.out, ' ');
	out_add(&c->state.out, c->cfg->hostname);
	out_str(&c->state.out, "\r\n");
	c->ext = 0;
	c->ehlo = (struct ehlo_values){ 0 };
	c->state.phase = (uint8_t)phase;
}

static enum client_action on_greeting(struct smtp_client *c, const struct reply *r)
{
	if (r->code != 220)
		return client_fail(c, r);
	say_ehlo(c, c->cfg->lmtp ? "LHLO" : "EHLO", PHASE_EHLO);
	return CLI_MORE;
}

static enum client_action on_ehlo(struct smtp_client *c, const struct reply *r)
{
	if (!reply_is_ok(r)) {
		if (c->state.phase == PHASE_HELO || c->cfg->lmtp || !reply_is_permanent(r))
			return client_fail(c, r);
		c->tls_missing = c->cfg->tls != CLIENT_TLS_NEVER;
		if (c->cfg->tls == CLIENT_TLS_MUST)
			return client_fail_text(c, "4.7.5", "TLS is required, and the server knows no EHLO");
		say_ehlo(c, "HELO", PHASE_HELO);
		return CLI_MORE;
	}
	if (!c->tls && c->cfg->tls != CLIENT_TLS_NEVER && (c->ext & EXT_STARTTLS)) {
		out_str(&c->state.out, "STARTTLS\r\n");
		c->state.phase = PHASE_STARTTLS;
		return CLI_MORE;
	}
	c->tls_missing = !c->tls && c->cfg->tls != CLIENT_TLS_NEVER;
	if (!c->tls && c->cfg->tls == CLIENT_TLS_MUST)
		return client_fail_text(c, "4.7.5", "TLS is required, and the server does not offer it");
	if (c->cfg->login)
		return auth_begin(c);
	c->state.phase = PHASE_READY;
	return CLI_MORE;
}

static enum client_action on_starttls(struct smtp_client *c, const struct reply *r)
{
	if (r->code == 220) {
		c->state.phase = PHASE_TLS;
		return CLI_STARTTLS;
	}
	c->tls_missing = true;
	c->tls_later = reply_is_temporary(r);
	if (c->cfg->tls == CLIENT_TLS_MUST)
		return client_fail_text(c, "4.7.5", "TLS is required, and the server refuses it");
	if (c->cfg->login)
		return auth_begin(c);
	c->state.phase = PHASE_READY;
	return CLI_MORE;
}

static enum client_action on_reply(struct smtp_client *c)
{
	struct reply *r = &c->state.reply;

	c->replies++;
	if (r->code == 421 && c->state.phase != PHASE_QUIT) {
		reply_derive(r, REPLY_TO_SESSION);
		return client_fail(c, r);
	}
	if (c->state.unasked && c->state.phase == PHASE_TXN)
		return txn_unasked(c, r);
	if (c->state.unasked) {
		if (c->use_bdat || c->state.phase == PHASE_RSET || c->state.phase == PHASE_LAST)
			txn_void(c); /* nothing else shows that the last reply was the one to the message */
		return client_fail_text(c, "4.5.0", "The server spoke out of turn");
	}
	switch ((enum client_phase)c->state.phase) {
	case PHASE_GREETING:
		return on_greeting(c, r);
	case PHASE_EHLO:
	case PHASE_HELO:
		return on_ehlo(c, r);
	case PHASE_STARTTLS:
		return on_starttls(c, r);
	case PHASE_AUTH:
		return auth_reply(c, r, c->wire.line);
	case PHASE_TXN:
		return txn_reply(c, r);
	case PHASE_RSET:
	case PHASE_LAST:
		return txn_end_reply(c, r);
	case PHASE_QUIT:
		c->state.phase = PHASE_CLOSED;
		c->failure.code = 0;
		return CLI_CLOSE;
	case PHASE_TLS:
	case PHASE_READY:
	case PHASE_RESULT:
	case PHASE_CLOSED:
		break;
	}
	return client_fail_text(c, "4.5.0", "The server spoke out of turn");
}

/* One line of a reply. True when the reply is complete; *bad when it is none. */
static bool reply_line_in(struct smtp_client *c, struct span line, bool *bad)
{
	uint64_t code;
	bool more = line.n > 3 && line.p[3] == '-', first = !c->state.reply_began;
	struct span text;

	*bad = true;
	if (line.n < 3 || !span_u64(span_of(line.p, 3), 599, &code) || code < 200 || (line.n > 3 && !more && line.p[3] != ' '))
		return false;
	if (++c->state.reply_lines > REPLY_LINES_MAX || (!first && code != c->state.reply.code))
		return false;
	*bad = false;
	text = span_skip(line, 4);
	if (first) {
		c->state.reply.code = (uint16_t)code;
		c->state.reply.text_len = 0;
		memset(c->state.reply.enhanced, 0, sizeof(c->state.reply.enhanced));
		c->state.reply.derived = 0;
	} else if (c->state.phase == PHASE_EHLO) {
		c->ext |= ext_parse(text, &c->ehlo);
	}
	reply_add_line(&c->state.reply, text, first);
	c->state.reply_began = more;
	if (!more)
		c->state.reply_lines = 0;
	return !more;
}

/* ---- turns ---- */

/* Whether the server owes us a reply: to something that is out already. */
static bool reply_due(const struct smtp_client *c)
{
	bool unsent = smtp_client_output(c).n != 0;

	switch ((enum client_phase)c->state.phase) {
	case PHASE_TXN:
		return txn_reply_due(c, unsent);
	case PHASE_TLS:
	case PHASE_READY:
	case PHASE_RESULT:
	case PHASE_CLOSED:
		return false;
	case PHASE_GREETING:
	case PHASE_EHLO:
	case PHASE_HELO:
	case PHASE_STARTTLS:
	case PHASE_AUTH:
	case PHASE_RSET:
	case PHASE_LAST:
	case PHASE_QUIT:
		break;
	}
	return !unsent;
}

/* What needs no more input: the action due, or CLI_MORE. */
static enum client_action due(struct smtp_client *c)
{
	enum client_action act;

	if (c->state.phase == PHASE_CLOSED)
		return CLI_CLOSE;
	if (c->state.unasked)
		return CLI_MORE; /* the end of what it says decides; nothing more is said */
	if (c->state.phase == PHASE_TXN && (act = txn_due(c)) != CLI_MORE)
		return act;
	if (c->state.phase == PHASE_RESULT) {
		c->txn = NULL;
		c->state.phase = PHASE_READY;
		return CLI_RESULT;
	}
	return c->state.phase == PHASE_READY ? CLI_READY : CLI_MORE;
}

/* One line of the server's. */
static enum client_action line_in(struct smtp_client *c, bool more_behind)
{
	enum client_action act;
	bool bad;

	if (!reply_line_in(c, c->wire.line, &bad))
		return bad ? client_fail_text(c, "4.5.0", "The server's reply is not SMTP") : CLI_MORE;
	act = on_reply(c);
	if (act == CLI_STARTTLS && more_behind)
		return client_fail_text(c, "4.7.0", "The server sent data behind its answer to STARTTLS");
	return act;
}

enum client_action smtp_client_step(struct smtp_client *c, struct span in, size_t *ret_used)
{
	enum client_action act = CLI_MORE;
	size_t n;

	*ret_used = 0;
	while (in.n && act == CLI_MORE) {
		if (c->state.phase == PHASE_CLOSED)
			return CLI_CLOSE;
		if (!reply_due(c))
			c->state.unasked = true;
		switch (wire_next(&c->wire, in, &n)) {
		case WIRE_LINE:
			act = line_in(c, in.n > n);
			break;
		case WIRE_MORE:
			break;
		case WIRE_LINE_LONG:
		case WIRE_BAD_LINE_END:
		case WIRE_BODY:
		case WIRE_BODY_END:
		case WIRE_BAD_NUL:
			act = client_fail_text(c, "4.5.0", "The server's reply is not SMTP");
			break;
		}
		*ret_used += n;
		in = span_skip(in, n);
	}
	return act == CLI_MORE ? due(c) : act;
}

/* ---- the public part ---- */

void smtp_client_init(struct smtp_client *c, const struct smtp_client_config *cfg)
{
	memset(c, 0, sizeof(*c));
	c->cfg = cfg;
	wire_init(&c->wire);
	wire_mode(&c->wire, WIRE_LINES, 0, true);
	c->state.out = out_of(c->state.out_buf, sizeof(c->state.out_buf));
}

void smtp_client_quit(struct smtp_client *c)
{
	out_str(&c->state.out, "QUIT\r\n");
	c->state.phase = PHASE_QUIT;
}

void smtp_client_tls_done(struct smtp_client *c, bool ok)
{
	wire_mode(&c->wire, WIRE_LINES, 0, true);
	c->tls = ok;
	if (ok)
		say_ehlo(c, c->cfg->lmtp ? "LHLO" : "EHLO", PHASE_EHLO);
	else
		c->state.phase = PHASE_CLOSED;
}

enum client_wait smtp_client_wait(const struct smtp_client *c)
{
	switch ((enum client_phase)c->state.phase) {
	case PHASE_GREETING:
		return CLI_WAIT_GREETING;
	case PHASE_READY:
		return CLI_WAIT_IDLE;
	case PHASE_TXN:
		return txn_wait(c);
	case PHASE_EHLO:
	case PHASE_HELO:
	case PHASE_STARTTLS:
	case PHASE_TLS:
	case PHASE_AUTH:
	case PHASE_RSET:
	case PHASE_LAST:
	case PHASE_RESULT:
	case PHASE_QUIT:
	case PHASE_CLOSED:
		break;
	}
	return CLI_WAIT_REPLY;
}
