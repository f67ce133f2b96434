#include "dataplane/smtp/server_body.h"

void smtp_server_abort_body(struct smtp_server *s, const struct reply *r)
{
	struct out o = out_of(s->state.refusal, sizeof(s->state.refusal));

	if (s->state.discard)
		return;
	reply_write(r, &o);
	s->state.refusal_len = (uint16_t)o.n;
	s->state.discard = true;
}

#define DISCARD(s, code, enhanced, text)                                                                                           \
	do {                                                                                                                       \
		struct reply discard_reply;                                                                                        \
		reply_set(&discard_reply, code, enhanced, text);                                                                   \
		smtp_server_abort_body(s, &discard_reply);                                                                         \
	} while (0)

enum server_action server_body_refusals(struct smtp_server *s)
{
	struct out *o = &s->state.out;

	for (; s->state.refusals && o->cap - o->n >= s->state.refusal_len; s->state.refusals--)
		out_add(o, span_of(s->state.refusal, s->state.refusal_len));
	if (s->state.refusals)
		return SRV_STEP; /* the host sends first */
	if (s->state.stray_chunk) {
		s->state.stray_chunk = s->state.discard = false;
		return SRV_STEP;
	}
	/* RFC 3030: after a failed chunk the client resets; chunks that it had pipelined meet 503 */
	server_forget_transaction(s);
	return SRV_RESET;
}

/* A body that is thrown away has come to its end: its refusal, in LMTP one for each recipient. */
static enum server_action discarded(struct smtp_server *s)
{
	s->state.phase = PHASE_COMMAND;
	s->state.refusals = s->cfg->lmtp && !s->state.stray_chunk ? s->env.nrcpt : 1;
	return server_body_refusals(s);
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
	s->state.rcpt_answers = 0;
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
