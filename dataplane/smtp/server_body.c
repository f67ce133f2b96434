#include "dataplane/smtp/server_internal.h"

enum { FINAL_TEXT_MAX = 400 };

/* ---- the final reply ---- */

/* What is said at the end of the content, in LMTP for each recipient. One that is too long is cut to a part of its first line. */
static void final_set(struct smtp_server *s, const struct reply *r)
{
	struct out o = out_of(s->state.final, sizeof(s->state.final));
	struct span rest = reply_text(r);
	struct reply cut;

	reply_write(r, &o);
	if (o.over) {
		cut = *r;
		cut.text_len = (uint16_t)span_cut(&rest, '\n').n;
		cut.text_len = cut.text_len < FINAL_TEXT_MAX ? cut.text_len : FINAL_TEXT_MAX;
		o = out_of(s->state.final, sizeof(s->state.final));
		reply_write(&cut, &o);
	}
	s->state.final_len = (uint16_t)o.n;
}

enum server_action server_say_finals(struct smtp_server *s)
{
	struct out *o = &s->state.out;
	bool refused = s->state.discard;

	for (; s->state.finals && o->cap - o->n >= s->state.final_len; s->state.finals--)
		out_add(o, span_of(s->state.final, s->state.final_len));
	if (s->state.finals)
		return SRV_STEP; /* the host sends first */
	if (s->state.stray_chunk) {
		s->state.stray_chunk = s->state.discard = false;
		return SRV_STEP;
	}
	/* RFC 3030: after a failed chunk the client resets; chunks that it had pipelined meet 503 */
	server_transaction_reset(s);
	return refused ? SRV_RESET : SRV_STEP;
}

/* RFC 2033 4.2: LMTP has one for each recipient whose RCPT was accepted, whatever aliases made of it. A chunk that is not the last has one in any case. */
static uint32_t final_times(const struct smtp_server *s)
{
	bool each = s->cfg->lmtp && !s->state.stray_chunk && (!s->state.by_bdat || s->state.bdat_last);

	return each ? s->state.rcpt_taken : 1;
}

/* ---- commands ---- */

/* RFC 2033 4.2 and RFC 5321 4.2.2 */
static unsigned no_rcpt_code(const struct smtp_server *s)
{
	return s->cfg->lmtp ? 503 : 554;
}

enum server_action server_data(struct smtp_server *s, struct span arg)
{
	if (!server_arg_is_empty(arg))
		return ERROR(s, 501, "5.5.4", "DATA takes no argument");
	if (!server_in_transaction(s) || s->state.bdat_active)
		return ERROR(s, 503, "5.5.1", "DATA is out of order here");
	if (!s->env.nrcpt)
		return ERROR(s, no_rcpt_code(s), "5.5.1", "No valid recipients");
	s->state.waiting = FOR_DATA;
	s->state.by_bdat = false;
	return SRV_DATA;
}

void server_body_begin(struct smtp_server *s)
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
	struct reply r;

	reply_set(&r, code, "5.5.1", "%s", text);
	final_set(s, &r);
	s->state.discard = s->state.by_bdat = true;
	s->state.bdat_left = n;
	s->state.stray_chunk = true;
	s->state.phase = PHASE_BODY;
	wire_mode(&s->wire, WIRE_SKIP, n, true);
	return SRV_STEP;
}

enum server_action server_bdat(struct smtp_server *s, struct span arg)
{
	struct span rest = span_trim(arg), number = span_cut(&rest, ' ');
	uint64_t n;
	bool last = span_eq_nocase(span_trim(rest), SPAN("LAST"));

	/* where the chunk ends is not known: nothing that follows can be understood */
	if (!span_u64(number, INT64_MAX, &n) || (rest.p && !last)) {
		SAY(s, 501, "5.5.4", "Syntax: BDAT octets [LAST]");
		return server_close(s);
	}
	if (!server_in_transaction(s))
		return bdat_refused(s, n, 503, "Say MAIL first");
	if (!s->env.nrcpt)
		return bdat_refused(s, n, no_rcpt_code(s), "No valid recipients");
	if (n)
		server_uncount(s);
	s->state.by_bdat = true;
	s->state.bdat_left = n;
	s->state.bdat_last = last;
	if (s->state.bdat_active) {
		server_body_begin(s);
		return SRV_STEP;
	}
	s->state.waiting = FOR_DATA;
	return SRV_DATA;
}

/* ---- content ---- */

void server_discard(struct smtp_server *s, const struct reply *r)
{
	if (s->state.discard)
		return;
	final_set(s, r);
	s->state.discard = true;
}

#define DISCARD(s, code, enhanced, text)                                                                                           \
	do {                                                                                                                       \
		struct reply discard_reply;                                                                                        \
		reply_set(&discard_reply, code, enhanced, text);                                                                   \
		server_discard(s, &discard_reply);                                                                                   \
	} while (0)

/* A body that is thrown away has come to its end. */
static enum server_action discarded(struct smtp_server *s)
{
	s->state.phase = PHASE_COMMAND;
	s->state.finals = final_times(s);
	return server_say_finals(s);
}

static enum server_action on_body_end(struct smtp_server *s)
{
	if (s->state.discard)
		return discarded(s);
	if (s->state.by_bdat && !s->state.bdat_last) {
		s->state.phase = PHASE_COMMAND;
		SAY(s, 250, "2.0.0", "Chunk received");
		return SRV_STEP;
	}
	if (s->state.by_bdat && wire_ends_in_cr(&s->wire)) {
		DISCARD(s, 554, "5.6.0", "The message ends with a bare CR");
		return discarded(s);
	}
	/* what it is, not what it was called: the next hop may have no 8BITMIME (RFC 6152, P8) */
	s->env.body = s->wire.eight_bit ? BODY_8BITMIME : BODY_7BIT;
	s->state.waiting = FOR_END;
	return SRV_BODY_END;
}

static enum server_action on_body(struct smtp_server *s)
{
	if (s->state.discard)
		return SRV_STEP;
	s->body = s->wire.body;
	s->body_len += s->body.n;
	if (s->cfg->size_max && s->body_len > s->cfg->size_max) {
		DISCARD(s, 552, "5.3.4", "Message is larger than this server takes");
		return SRV_STEP;
	}
	return SRV_BODY;
}

enum server_action server_body_step(struct smtp_server *s, struct span in, size_t *ret_used)
{
	switch (wire_next(&s->wire, in, ret_used)) {
	case WIRE_BODY:
		return on_body(s);
	case WIRE_BODY_END:
		return on_body_end(s);
	case WIRE_BAD_LINE_END:
		SAY(s, 554, "5.6.0", "Message refused: a bare CR or bare LF is not accepted, lines end with CR LF");
		s->bad_line_end = true;
		return server_close(s);
	case WIRE_BAD_NUL:
		DISCARD(s, 554, "5.6.0", "Message refused: it contains NUL");
		return SRV_STEP;
	case WIRE_MORE:
	case WIRE_LINE:
	case WIRE_LINE_LONG:
		break;
	}
	return SRV_MORE;
}

/* ---- the answer ---- */

void server_answer_end(struct smtp_server *s, const struct reply *r)
{
	uint32_t times = final_times(s);

	s->state.commands = 0;
	if (times > 1 && r->code != 421) {
		final_set(s, r);
		s->state.finals = times;
		s->state.phase = PHASE_COMMAND;
		return;
	}
	server_say(s, r);
	server_transaction_reset(s);
}

void smtp_server_abort_body(struct smtp_server *s, const struct reply *r)
{
	server_discard(s, r);
}
