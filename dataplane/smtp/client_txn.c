/* A transaction's commands are numbered steps, sent (next_out) and answered (next_in) in order:
 * 0 RSET (only after a transaction that failed), 1 MAIL, 2 .. n+1 one RCPT each, n+2 DATA. With PIPELINING next_out runs ahead as far as
 * the output buffer reaches; without it never more than one. BDAT takes the place of DATA; its chunks are counted for themselves, and the first go out behind
 * the last RCPT when the server has PIPELINING.
 *
 * Servers that do not count. A reply too many moves all later ones to the wrong command. DATA shows it: its answer is 354 or an error, so that any other 2xx or 3xx there, or
 * a 354 elsewhere, voids the transaction. A pipelined transaction with a refusal in it is therefore over only when RSET (or QUIT, after a message that went by BDAT) got
 * its own kind of answer: before, the refusal could be somebody else's. */
#include "dataplane/smtp/client_internal.h"
#include "dataplane/smtp/params.h"

enum { STEP_RSET, STEP_MAIL, STEP_RCPT };
enum { BODY_NONE, BODY_SENDING, BODY_SENT };
enum { OUT_RESERVE = 1400, ACCEPTED = 1 /* result code of a recipient that waits for the final reply */ };

static uint32_t step_data(const struct smtp_client *c)
{
	return STEP_RCPT + c->txn->nrcpt;
}

static bool pipelining(const struct smtp_client *c)
{
	return c->ext & EXT_PIPELINING;
}

static bool has_high(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] >= 0x80)
			return true;
	return false;
}

static const struct env_rcpt *rcpt_of(const struct smtp_client *c, uint32_t step)
{
	return &c->txn->env->rcpt[c->txn->rcpt[step - STEP_RCPT]];
}

/* A recipient of whom this server hears nothing, because it could not write the address. */
static bool is_skipped(const struct smtp_client *c, uint32_t step)
{
	return step >= STEP_RCPT && step < step_data(c) && !(c->ext & EXT_SMTPUTF8) && has_high(rcpt_of(c, step)->addr);
}

/* ---- what the server hears ---- */

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
		out_str(o, "RCPT TO:<");
		out_add(o, rcpt_of(c, step)->addr);
		out_char(o, '>');
		rcpt_params_write(c, rcpt_of(c, step), o);
		out_str(o, "\r\n");
	} else {
		out_str(o, "DATA\r\n");
	}
}

static void skip(const struct smtp_client *c, uint32_t *step)
{
	while (is_skipped(c, *step))
		(*step)++;
}

/* Writes as many commands as may be under way. */
static void write_commands(struct smtp_client *c)
{
	uint32_t last = step_data(c);

	skip(c, &c->state.next_in);
	for (skip(c, &c->state.next_out); c->state.next_out <= last && !c->state.refused; skip(c, &c->state.next_out)) {
		if (c->state.out.cap - c->state.out.n < OUT_RESERVE || (!pipelining(c) && c->state.next_out != c->state.next_in))
			return;
		if (c->state.next_out == last && (c->txn->probe || c->use_bdat || (c->state.next_in == last && !c->accepted_any)))
			return; /* a probe has no content; BDAT is written with its chunks; and without a recipient nothing need be said */
		write_step(c, c->state.next_out++);
	}
}

static bool all_answered(const struct smtp_client *c)
{
	return c->state.next_in == c->state.next_out && c->state.chunks_in == c->state.chunks_out;
}

/* Whether the content can go now. DATA wants its 354; chunks behind pipelined recipients only trust in one of them being accepted, and with LMTP the answers
 * are counted by those accepted. */
static bool body_is_due(const struct smtp_client *c)
{
	if (c->state.body != BODY_NONE || c->state.refused)
		return false;
	if (!c->use_bdat)
		return c->state.next_in > step_data(c);
	if (c->state.next_out != step_data(c))
		return false;
	return pipelining(c) && !c->cfg->lmtp ? c->state.next_in < step_data(c) || c->accepted_any : c->state.next_in == step_data(c) && c->accepted_any;
}

bool smtp_client_chunk(struct smtp_client *c, uint64_t n, struct span *ret_head)
{
	struct out o = out_of(c->state.chunk_head, sizeof(c->state.chunk_head));
	bool whole = !pipelining(c) || c->cfg->lmtp;

	*ret_head = SPAN_NONE;
	if (c->state.phase != PHASE_TXN)
		return false;
	if (whole && c->state.chunks_out)
		return true; /* what was announced must come, refused or not */
	if (c->state.refused || (c->state.next_in == step_data(c) && !c->accepted_any))
		return false;
	if (whole)
		n = c->txn->size;
	CHECK(n <= c->state.content_left);
	c->state.content_left -= n;
	c->state.chunks_out++;
	out_str(&o, "BDAT ");
	out_u64(&o, n);
	out_str(&o, c->state.content_left ? "\r\n" : " LAST\r\n");
	*ret_head = out_span(&o);
	return true;
}

void smtp_client_body_sent(struct smtp_client *c)
{
	if (c->state.body == BODY_SENDING)
		c->state.body = BODY_SENT;
}

/* ---- results ---- */

/* Gives every recipient without a result (or only those the server had accepted) this one. */
static void settle(struct smtp_client *c, const struct reply *r, bool only_accepted)
{
	for (uint32_t i = 0; i < c->txn->nrcpt; i++)
		if (c->txn->result[i].code == ACCEPTED || (!only_accepted && c->txn->result[i].code == 0))
			c->txn->result[i] = *r;
}

void txn_void(struct smtp_client *c)
{
	for (uint32_t i = 0; c->txn && i < c->txn->nrcpt; i++)
		c->txn->result[i].code = 0;
}

void txn_lost(struct smtp_client *c)
{
	for (uint32_t i = 0; c->txn && i < c->txn->nrcpt; i++)
		if (c->txn->result[i].code == ACCEPTED)
			c->txn->result[i].code = 0;
	c->txn = NULL;
}

static enum client_action out_of_step(struct smtp_client *c)
{
	txn_void(c);
	return client_fail_text(c, "4.5.0", "The server's replies do not fit the commands");
}

static bool any_refused(const struct smtp_client *c)
{
	for (uint32_t i = 0; i < c->txn->nrcpt; i++)
		if (c->txn->result[i].code >= 300)
			return true;
	return false;
}

/* Every reply of the transaction is there. */
static void txn_over(struct smtp_client *c)
{
	bool delivered = c->accepted_any && !c->state.refused;

	if (delivered && !(c->use_bdat && pipelining(c) && !c->cfg->lmtp && any_refused(c))) {
		c->state.phase = PHASE_RESULT;
	} else if (delivered) {
		out_str(&c->state.out, "QUIT\r\n");
		c->state.phase = PHASE_LAST;
	} else if (pipelining(c) || c->state.chunks_out) {
		out_str(&c->state.out, "RSET\r\n");
		c->state.phase = PHASE_RSET;
	} else {
		c->state.need_rset = true;
		c->state.phase = PHASE_RESULT;
	}
}

enum client_action txn_end_reply(struct smtp_client *c, const struct reply *r)
{
	bool quit = c->state.phase == PHASE_LAST;

	if (quit ? r->code != 221 : !reply_is_ok(r))
		return out_of_step(c);
	if (quit) {
		struct reply none = { 0 };

		return client_fail(c, &none);
	}
	c->state.phase = PHASE_RESULT;
	return CLI_MORE;
}

/* ---- what the server says ---- */

static enum client_action on_mail_reply(struct smtp_client *c, const struct reply *r)
{
	if (r->code >= 300 && r->code < 400)
		return out_of_step(c);
	if (!reply_is_ok(r)) {
		c->txn->mail_refused = true;
		settle(c, r, false);
		c->state.refused = true;
	}
	return CLI_MORE;
}

/* RFC 5321 4.5.3.1.10: by RFC 821 too many recipients are 552, which is no fault of this one. Without an enhanced code it is that when others were accepted before; else it is
 * his mailbox that is full, and if we are wrong he is the first the next time. */
static bool means_too_many(const struct smtp_client *c, const struct reply *r)
{
	uint8_t said[3];

	reply_said(r, said);
	return r->code == 552 && (said[0] ? said[1] == 5 && said[2] == 3 : c->accepted_any);
}

static enum client_action on_rcpt_reply(struct smtp_client *c, uint32_t step, const struct reply *r)
{
	struct reply *result = &c->txn->result[step - STEP_RCPT];

	if (r->code >= 300 && r->code < 400)
		return out_of_step(c);
	if (result->code)
		return CLI_MORE; /* MAIL was refused: this only follows from it */
	if (reply_is_ok(r) && !c->txn->probe) {
		result->code = ACCEPTED;
		c->accepted_any = true;
	} else {
		*result = *r;
		if (means_too_many(c, r)) {
			result->code = 452;
			memcpy(result->enhanced, (const uint8_t[]){ 4, 5, 3 }, sizeof(result->enhanced));
		}
	}
	return CLI_MORE;
}

static enum client_action on_data_reply(struct smtp_client *c, const struct reply *r)
{
	if (r->code < 400 && r->code != 354)
		return out_of_step(c);
	if (r->code != 354) {
		settle(c, r, true);
		c->state.refused = true;
	} else if (!c->accepted_any) {
		/* it wants a message for nobody: an empty one, whose answer means nothing */
		out_str(&c->state.out, ".\r\n");
		c->state.body = BODY_SENT;
	}
	return CLI_MORE;
}

/* The next recipient that was accepted and has no answer yet; nrcpt: none. */
static uint32_t next_accepted(const struct smtp_client *c, uint32_t i)
{
	while (i < c->txn->nrcpt && c->txn->result[i].code != ACCEPTED)
		i++;
	return i;
}

/* The answer to the whole message; with LMTP one for each recipient that was accepted. */
static void on_final(struct smtp_client *c, const struct reply *r)
{
	if (c->cfg->lmtp && c->accepted_any) {
		c->state.next_lmtp = next_accepted(c, c->state.next_lmtp);
		if (c->state.next_lmtp < c->txn->nrcpt)
			c->txn->result[c->state.next_lmtp] = *r;
		if (next_accepted(c, c->state.next_lmtp) < c->txn->nrcpt)
			return;
	} else {
		settle(c, r, true);
	}
	txn_over(c);
}

/* A chunk's answer. 500 and 502: the server does not know what it offers; what it made of the octets nobody knows. */
static enum client_action on_chunk_reply(struct smtp_client *c, const struct reply *r)
{
	bool last = c->state.content_left == 0 && c->state.chunks_in + 1 == c->state.chunks_out;

	if (r->code < 400 && (!reply_is_ok(r) || !c->accepted_any))
		return out_of_step(c);
	if (c->state.refused || !c->accepted_any) { /* this only follows from an earlier refusal */
		c->state.chunks_in++;
		return CLI_MORE;
	}
	if (r->code == 500 || r->code == 502) {
		c->bdat_unknown = true;
		return client_fail_text(c, "4.5.0", "The server offers CHUNKING, but does not know BDAT");
	}
	if (last && reply_is_ok(r) && c->state.body != BODY_SENT)
		return out_of_step(c); /* it took a chunk that is not there yet */
	if (last && (reply_is_ok(r) || (c->cfg->lmtp && c->state.body == BODY_SENT))) {
		on_final(c, r);
		c->state.chunks_in += c->state.phase != PHASE_TXN;
		return CLI_MORE;
	}
	c->state.chunks_in++;
	if (!reply_is_ok(r)) {
		settle(c, r, true);
		c->state.refused = true;
	}
	return CLI_MORE;
}

bool txn_reply_due(const struct smtp_client *c, bool unsent)
{
	return !all_answered(c) || (c->state.body == BODY_SENT && !c->use_bdat && !unsent);
}

enum client_action txn_reply(struct smtp_client *c, struct reply *r)
{
	uint32_t step = c->state.next_in;

	if (step < c->state.next_out) {
		c->state.next_in++;
		skip(c, &c->state.next_in);
		reply_derive(r, step == STEP_MAIL ? REPLY_TO_MAIL : step == step_data(c) ? REPLY_TO_CONTENT : REPLY_TO_RCPT);
		if (step == STEP_RSET)
			return reply_is_ok(r) ? CLI_MORE : out_of_step(c);
		if (step == STEP_MAIL)
			return on_mail_reply(c, r);
		return step < step_data(c) ? on_rcpt_reply(c, step, r) : on_data_reply(c, r);
	}
	reply_derive(r, REPLY_TO_CONTENT);
	if (c->state.chunks_in < c->state.chunks_out)
		return on_chunk_reply(c, r);
	if (r->code >= 300 && r->code < 400)
		return out_of_step(c);
	on_final(c, r);
	return CLI_MORE;
}

/* An answer before the end of the message: what the server took of it is not known, so that the session cannot go on. A refusal can only mean this
 * message, because everything before it was answered. */
enum client_action txn_unasked(struct smtp_client *c, const struct reply *r)
{
	struct reply refusal = *r;

	if (c->use_bdat || c->state.body != BODY_SENDING || r->code < 400)
		return out_of_step(c);
	reply_derive(&refusal, REPLY_TO_CONTENT);
	settle(c, &refusal, true);
	return client_fail_text(c, "4.5.0", "The server answered in the middle of the message");
}

/* ---- turns ---- */

enum client_action txn_due(struct smtp_client *c)
{
	write_commands(c);
	if (body_is_due(c)) {
		c->state.body = BODY_SENDING;
		return CLI_BODY;
	}
	/* nothing more will be said: no recipient, or a refusal, and all of it is answered */
	if (c->state.body != BODY_SENDING && !txn_reply_due(c, false) && (c->state.refused || (c->state.next_in >= step_data(c) && !c->accepted_any)))
		txn_over(c);
	return CLI_MORE;
}

enum client_wait txn_wait(const struct smtp_client *c)
{
	if (c->state.body == BODY_SENDING)
		return CLI_WAIT_BODY;
	if (c->state.next_in < c->state.next_out)
		return c->state.next_in == step_data(c) ? CLI_WAIT_DATA_REPLY : CLI_WAIT_REPLY;
	return CLI_WAIT_FINAL;
}

/* Why this server cannot take the message at all; false when it can. */
static bool cannot_take(const struct smtp_client *c, struct reply *r)
{
	const struct envelope *e = c->txn->env;
	bool utf8 = has_high(e->sender) || ((e->flags & ENV_SMTPUTF8) && (e->flags & ENV_8BIT_HEADER));

	/* RFC 8689 5: a bounce is not lost for want of it */
	if ((e->flags & ENV_REQUIRETLS) && e->sender.n && (!c->tls || !(c->ext & EXT_REQUIRETLS)))
		reply_set(r, 550, "5.7.30", "The next mail system does not support REQUIRETLS, which the sender demands");
	else if (utf8 && !(c->ext & EXT_SMTPUTF8))
		reply_set(r, 550, "5.6.7", "The next mail system does not take internationalised addresses (SMTPUTF8)");
	else if (e->body != BODY_7BIT && !(c->ext & EXT_8BITMIME))
		reply_set(r, 550, "5.6.3", "The next mail system takes no 8-bit messages (8BITMIME)");
	else if (c->ehlo.size_max && c->txn->size > c->ehlo.size_max)
		reply_set(r, 552, "5.3.4", "The message is larger than the next mail system takes (%llu octets)", (unsigned long long)c->ehlo.size_max);
	else
		return false;
	return true;
}

/* Recipients whose addresses this server cannot take; true when none is left. */
static bool none_left(struct smtp_client *c)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < c->txn->nrcpt; i++)
		if (is_skipped(c, STEP_RCPT + i)) {
			reply_set(&c->txn->result[i], 550, "5.6.7", "The next mail system does not take internationalised addresses (SMTPUTF8)");
			n++;
		}
	return n == c->txn->nrcpt;
}

void smtp_client_begin(struct smtp_client *c, struct smtp_txn *t)
{
	struct smtp_client_state *s = &c->state;
	struct reply r;

	CHECK(s->phase == PHASE_READY);
	c->txn = t;
	c->accepted_any = false;
	c->use_bdat = !t->probe && c->cfg->chunking && (c->ext & EXT_CHUNKING);
	c->transactions++;
	s->next_lmtp = s->chunks_in = s->chunks_out = 0;
	s->content_left = t->size;
	s->body = BODY_NONE;
	s->refused = false;
	s->phase = PHASE_RESULT;
	if (cannot_take(c, &r)) {
		settle(c, &r, false);
		return;
	}
	if (none_left(c))
		return;
	s->phase = PHASE_TXN;
	s->next_out = s->next_in = s->need_rset ? STEP_RSET : STEP_MAIL;
	s->need_rset = false;
}
