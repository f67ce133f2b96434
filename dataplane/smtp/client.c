/* A transaction's commands are numbered steps, sent (next_out) and answered (next_in) in order:
 * 0 RSET (only after a transaction that failed), 1 MAIL, 2 .. n+1 one RCPT each, n+2 DATA or BDAT. With PIPELINING next_out runs ahead as far as
 * the output buffer reaches; without it never more than one. */
#include "dataplane/smtp/client.h"

#include "dataplane/smtp/params.h"

enum { PHASE_GREETING, PHASE_EHLO, PHASE_HELO, PHASE_STARTTLS, PHASE_TLS, PHASE_READY, PHASE_COMMANDS, PHASE_BODY_DUE, PHASE_BODY,
	PHASE_FINAL, PHASE_RESULT, PHASE_QUIT, PHASE_CLOSED };
enum { STEP_RSET, STEP_MAIL, STEP_RCPT };
enum { OUT_RESERVE = 1400, REPLY_LINES_MAX = 500, ACCEPTED = 1 /* result code of a recipient that waits for the final reply */ };

static uint32_t step_data(const struct smtp_client *c)
{
	return STEP_RCPT + c->txn->nrcpt;
}

/* ---- output ---- */

struct span smtp_client_output(const struct smtp_client *c)
{
	return span_skip(out_span(&c->state.out), c->state.out_sent);
}

void smtp_client_sent(struct smtp_client *c, size_t n)
{
	c->state.out_sent += n;
	if (c->state.out_sent == c->state.out.n)
		c->state.out_sent = c->state.out.n = 0;
}

static void write_step(struct smtp_client *c, uint32_t step)
{
	struct out *o = &c->state.out;

	if (step == STEP_RSET) {
		out_str(o, "RSET\r\n");
	} else if (step == STEP_MAIL) {
		out_str(o, "MAIL FROM:<");
		out_add(o, c->txn->env->sender);
		out_char(o, '>');
		mail_params_write(c, o);
		out_str(o, "\r\n");
	} else if (step < step_data(c)) {
		const struct env_rcpt *r = &c->txn->env->rcpt[c->txn->rcpt[step - STEP_RCPT]];

		out_str(o, "RCPT TO:<");
		out_add(o, r->addr);
		out_char(o, '>');
		rcpt_params_write(c, r, o);
		out_str(o, "\r\n");
	} else {
		out_str(o, "DATA\r\n");
	}
}

/* Writes as many commands as may be under way. */
static void write_commands(struct smtp_client *c)
{
	bool pipelining = c->ext & EXT_PIPELINING;
	uint32_t last = step_data(c);

	while (c->state.next_out <= last && c->state.out.cap - c->state.out.n >= OUT_RESERVE &&
		(pipelining || c->state.next_out == c->state.next_in)) {
		if (c->state.next_out == last && c->txn->probe)
			return;
		if (c->state.next_out == last) {
			/* without an accepted recipient DATA need not be said; a chunk must not be */
			if (c->state.next_in < last && (c->use_bdat || !pipelining))
				return;
			if (c->state.next_in == last && (c->use_bdat || !c->accepted_any))
				return;
		}
		write_step(c, c->state.next_out++);
	}
}

/* ---- ends ---- */

/* Recipients that wait for the final reply will not get it. */
static void txn_lost(struct smtp_client *c)
{
	for (uint32_t i = 0; c->txn && i < c->txn->nrcpt; i++)
		if (c->txn->result[i].code == ACCEPTED)
			c->txn->result[i].code = 0;
	c->txn = NULL;
}

static enum client_action fail(struct smtp_client *c, const struct reply *r)
{
	c->failure = *r;
	c->state.phase = PHASE_CLOSED;
	txn_lost(c);
	return CLI_CLOSE;
}

static enum client_action fail_text(struct smtp_client *c, const char *enhanced, const char *text)
{
	struct reply r;

	reply_set(&r, 451, enhanced, "%s", text);
	return fail(c, &r);
}

/* Gives every recipient without a result (or only those the server had accepted) this one. */
static void settle(struct smtp_client *c, const struct reply *r, bool only_accepted)
{
	for (uint32_t i = 0; i < c->txn->nrcpt; i++)
		if (c->txn->result[i].code == ACCEPTED || (!only_accepted && c->txn->result[i].code == 0))
			c->txn->result[i] = *r;
}

static void txn_end(struct smtp_client *c, bool need_rset)
{
	c->state.need_rset = need_rset;
	c->state.phase = PHASE_RESULT;
}

/* ---- replies ---- */

static void say_ehlo(struct smtp_client *c, const char *word, unsigned phase)
{
	out_str(&c->state.out, word);
	out_char(&c->state.out, ' ');
	out_add(&c->state.out, c->cfg->hostname);
	out_str(&c->state.out, "\r\n");
	c->ext = 0;
	c->size_max = 0;
	c->state.phase = (uint8_t)phase;
}

static enum client_action on_greeting(struct smtp_client *c, const struct reply *r)
{
	if (r->code != 220)
		return fail(c, r);
	say_ehlo(c, c->cfg->lmtp ? "LHLO" : "EHLO", PHASE_EHLO);
	return CLI_MORE;
}

static enum client_action on_ehlo(struct smtp_client *c, const struct reply *r)
{
	if (!reply_is_ok(r)) {
		if (c->state.phase == PHASE_HELO || c->cfg->lmtp || !reply_is_permanent(r))
			return fail(c, r);
		c->tls_missing = c->cfg->tls != CLIENT_TLS_NEVER;
		if (c->cfg->tls == CLIENT_TLS_MUST)
			return fail_text(c, "4.7.5", "TLS is required, and the server knows no EHLO");
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
		return fail_text(c, "4.7.5", "TLS is required, and the server does not offer it");
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
	if (c->cfg->tls == CLIENT_TLS_MUST)
		return fail_text(c, "4.7.5", "TLS is required, and the server refuses it");
	c->state.phase = PHASE_READY;
	return CLI_MORE;
}

static enum client_action on_data_reply(struct smtp_client *c, const struct reply *r)
{
	/* a 2xx is no delivery: nothing was sent, and who answers so has lost count of our commands */
	if (r->code != 354 && r->code < 400)
		return fail_text(c, "4.5.0", "The server's answer to DATA is not one");
	if (r->code != 354) {
		settle(c, r, true);
		txn_end(c, true);
	} else if (c->accepted_any) {
		c->state.phase = PHASE_BODY_DUE;
	} else {
		/* it wants a message for nobody: an empty one, whose answer means nothing */
		out_str(&c->state.out, ".\r\n");
		c->state.phase = PHASE_FINAL;
	}
	return CLI_MORE;
}

static enum client_action on_command_reply(struct smtp_client *c, const struct reply *r)
{
	uint32_t step = c->state.next_in++;

	if (step == STEP_MAIL) {
		if (reply_is_ok(r))
			return CLI_MORE;
		c->txn->mail_refused = true;
		settle(c, r, false);
		if (c->state.next_out == c->state.next_in)
			txn_end(c, false); /* nothing else was said yet */
	} else if (step > STEP_MAIL && step < step_data(c)) {
		struct reply *result = &c->txn->result[step - STEP_RCPT];

		if (result->code)
			return CLI_MORE; /* MAIL was refused: this only follows from it */
		if (reply_is_ok(r) && c->txn->probe) {
			*result = *r;
		} else if (reply_is_ok(r)) {
			result->code = ACCEPTED;
			c->accepted_any = true;
		} else {
			*result = *r;
			if (r->code < 400)
				result->code = 451;
		}
	} else if (step == step_data(c)) {
		return on_data_reply(c, r);
	}
	return CLI_MORE;
}

/* All RCPTs are answered: what now, when DATA is not under way yet? */
static void after_recipients(struct smtp_client *c)
{
	if (c->state.phase != PHASE_COMMANDS || c->state.next_in != step_data(c) || c->state.next_out > step_data(c))
		return;
	if (!c->accepted_any) {
		txn_end(c, true);
	} else if (c->use_bdat) {
		out_str(&c->state.out, "BDAT ");
		out_u64(&c->state.out, c->txn->size);
		out_str(&c->state.out, " LAST\r\n");
		c->state.phase = PHASE_BODY_DUE;
	}
}

static void on_final(struct smtp_client *c, const struct reply *r)
{
	if (!c->accepted_any) {
		txn_end(c, false);
		return;
	}
	if (c->cfg->lmtp) {
		while (c->state.next_lmtp < c->txn->nrcpt && c->txn->result[c->state.next_lmtp].code != ACCEPTED)
			c->state.next_lmtp++;
		if (c->state.next_lmtp < c->txn->nrcpt)
			c->txn->result[c->state.next_lmtp++] = *r;
		while (c->state.next_lmtp < c->txn->nrcpt && c->txn->result[c->state.next_lmtp].code != ACCEPTED)
			c->state.next_lmtp++;
		if (c->state.next_lmtp < c->txn->nrcpt)
			return;
	} else {
		settle(c, r, true);
	}
	txn_end(c, false);
}

static enum client_action on_reply(struct smtp_client *c)
{
	struct reply *r = &c->state.reply;

	if (r->code == 421 && c->state.phase != PHASE_QUIT)
		return fail(c, r);
	switch (c->state.phase) {
	case PHASE_GREETING:
		return on_greeting(c, r);
	case PHASE_EHLO:
	case PHASE_HELO:
		return on_ehlo(c, r);
	case PHASE_STARTTLS:
		return on_starttls(c, r);
	case PHASE_COMMANDS:
		return on_command_reply(c, r);
	case PHASE_FINAL:
		on_final(c, r);
		return CLI_MORE;
	case PHASE_QUIT:
		c->state.phase = PHASE_CLOSED;
		c->failure.code = 0;
		return CLI_CLOSE;
	case PHASE_BODY_DUE:
	case PHASE_BODY:
		/* an answer before the end of the message: what it took of it is not known, so that the session cannot go on */
		if (r->code >= 400)
			settle(c, r, true);
		return fail_text(c, "4.5.0", "The server answered in the middle of the message");
	default:
		return fail_text(c, "4.5.0", "The server spoke out of turn");
	}
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
	} else if (c->state.phase == PHASE_EHLO) {
		c->ext |= ext_parse(text, &c->size_max);
	}
	reply_add_line(&c->state.reply, text, first);
	c->state.reply_began = more;
	if (!more)
		c->state.reply_lines = 0;
	return !more;
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

void smtp_client_done(struct smtp_client *c)
{
	txn_lost(c);
}

/* What needs no more input: the action due, or CLI_MORE. */
static enum client_action due(struct smtp_client *c)
{
	switch (c->state.phase) {
	case PHASE_COMMANDS:
		after_recipients(c);
		if (c->state.phase == PHASE_COMMANDS)
			write_commands(c);
		break;
	case PHASE_READY:
		return CLI_READY;
	case PHASE_CLOSED:
		return CLI_CLOSE;
	default:
		break;
	}
	if (c->state.phase == PHASE_BODY_DUE) {
		c->state.phase = PHASE_BODY;
		return CLI_BODY;
	}
	if (c->state.phase == PHASE_RESULT) {
		c->txn = NULL;
		c->state.phase = PHASE_READY;
		return CLI_RESULT;
	}
	return CLI_MORE;
}

enum client_action smtp_client_step(struct smtp_client *c, struct span in, size_t *ret_used)
{
	enum client_action act = CLI_MORE;
	size_t n;
	bool bad;

	*ret_used = 0;
	for (;;) {
		/* an idle session still listens: the server may say goodbye */
		if ((c->state.phase != PHASE_READY || !in.n) && (act = due(c)) != CLI_MORE)
			return act;
		if (!in.n)
			return CLI_MORE;
		switch (wire_next(&c->wire, in, &n)) {
		case WIRE_LINE:
			*ret_used += n;
			in = span_skip(in, n);
			if (!reply_line_in(c, c->wire.line, &bad)) {
				if (bad)
					return fail_text(c, "4.5.0", "The server's reply is not SMTP");
				continue;
			}
			act = on_reply(c);
			if (act == CLI_STARTTLS && in.n)
				return fail_text(c, "4.7.0", "The server sent data behind its answer to STARTTLS");
			if (act != CLI_MORE)
				return act;
			continue;
		case WIRE_MORE:
			*ret_used += n;
			return CLI_MORE;
		case WIRE_LINE_LONG:
		case WIRE_BAD_LINE_END:
		case WIRE_BODY:
		case WIRE_BODY_END:
		case WIRE_BAD_NUL:
			*ret_used += n;
			return fail_text(c, "4.5.0", "The server's reply is not SMTP");
		}
	}
}

/* Why this server cannot take the message at all; false when it can. */
static bool cannot_take(const struct smtp_client *c, struct reply *r)
{
	const struct envelope *e = c->txn->env;

	if ((e->flags & ENV_SMTPUTF8) && !(c->ext & EXT_SMTPUTF8))
		reply_set(r, 550, "5.6.7", "The next mail system does not take internationalised addresses (SMTPUTF8)");
	else if (e->body != BODY_7BIT && !(c->ext & EXT_8BITMIME))
		reply_set(r, 550, "5.6.3", "The next mail system takes no 8-bit messages (8BITMIME)");
	else if (c->size_max && c->txn->size > c->size_max)
		reply_set(r, 552, "5.3.4", "The message is larger than the next mail system takes (%llu octets)", (unsigned long long)c->size_max);
	else
		return false;
	return true;
}

void smtp_client_begin(struct smtp_client *c, struct smtp_txn *t)
{
	struct reply r;

	CHECK(c->state.phase == PHASE_READY);
	c->txn = t;
	c->accepted_any = false;
	c->use_bdat = c->cfg->chunking && (c->ext & EXT_CHUNKING);
	c->transactions++;
	c->state.next_lmtp = 0;
	if (cannot_take(c, &r)) {
		settle(c, &r, false);
		c->state.phase = PHASE_RESULT;
		return;
	}
	c->state.phase = PHASE_COMMANDS;
	c->state.next_out = c->state.next_in = c->state.need_rset ? STEP_RSET : STEP_MAIL;
	c->state.need_rset = false;
}

void smtp_client_body_sent(struct smtp_client *c)
{
	if (c->state.phase == PHASE_BODY)
		c->state.phase = PHASE_FINAL;
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
	switch (c->state.phase) {
	case PHASE_GREETING:
		return CLI_WAIT_GREETING;
	case PHASE_READY:
		return CLI_WAIT_IDLE;
	case PHASE_BODY_DUE:
	case PHASE_BODY:
		return CLI_WAIT_BODY;
	case PHASE_FINAL:
		return CLI_WAIT_FINAL;
	case PHASE_COMMANDS:
		return c->state.next_in == step_data(c) ? CLI_WAIT_DATA_REPLY : CLI_WAIT_REPLY;
	default:
		return CLI_WAIT_REPLY;
	}
}
