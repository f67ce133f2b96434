#include "dataplane/smtp/wire.h"

#include <stdlib.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Where in a line, of content or of commands, the reader is. */
enum { AT_START, IN_LINE, AFTER_CR, AFTER_DOT, AFTER_DOT_CR, AT_START_BARE, AFTER_DOT_BARE /* after a bare LF: no end of DATA begins here */ };

void wire_init(struct wire *w)
{
	memset(w, 0, sizeof(*w));
}

void wire_forget(struct wire *w)
{
	if (!w->line_buf)
		return;
	explicit_bzero(w->line_buf, WIRE_LINE_MAX);
	free(w->line_buf);
	w->line_buf = NULL;
	w->line_len = 0;
}

void wire_mode(struct wire *w, enum wire_mode mode, uint64_t chunk_len, bool first)
{
	w->mode = (uint8_t)mode;
	w->chunk_left = chunk_len;
	if (mode == WIRE_LINES) {
		w->line_len = 0;
		w->skipping = false;
		w->state = IN_LINE;
	} else if (first) {
		w->nul_seen = w->dot_line = w->eight_bit = w->normalised = false;
		w->content = AT_START;
	}
}

/* Index of the first CR, LF or NUL; n when there is none. *high is set when an octet before it is not ASCII. */
static size_t find_special(const char *p, size_t n, bool *high)
{
	size_t i = 0;
	unsigned seen = 0;

#ifdef __SSE2__
	const __m128i cr = _mm_set1_epi8('\r'), lf = _mm_set1_epi8('\n'), nul = _mm_setzero_si128();

	for (; i + 16 <= n; i += 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
		__m128i hit = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, cr), _mm_cmpeq_epi8(v, lf)), _mm_cmpeq_epi8(v, nul));
		unsigned mask = (unsigned)_mm_movemask_epi8(hit), above = (unsigned)_mm_movemask_epi8(v);

		if (mask) {
			*high = *high || seen || (above & ((mask & -mask) - 1));
			return i + (size_t)__builtin_ctz(mask);
		}
		seen |= above;
	}
#endif
	while (i < n && p[i] != '\r' && p[i] != '\n' && p[i] != '\0')
		seen |= (unsigned char)p[i++] & 0x80u;
	*high = *high || seen;
	return i;
}

/* ---- lines ---- */

/* Adds to a line that did not come in one piece; too long: the rest is skipped. */
static void line_add(struct wire *w, struct span s)
{
	if (w->skipping)
		return;
	if (!w->line_buf)
		w->line_buf = malloc(WIRE_LINE_MAX);
	w->skipping = !w->line_buf || s.n > WIRE_LINE_MAX - w->line_len;
	if (!w->line_buf)
		return;
	if (w->skipping)
		s.n = WIRE_LINE_MAX - w->line_len;
	memcpy(w->line_buf + w->line_len, s.p, s.n);
	w->line_len += (uint32_t)s.n;
}

static enum wire_event next_line(struct wire *w, struct span in, size_t *ret_used)
{
	const char *nl = in.n ? memchr(in.p, '\n', in.n) : NULL, *cr;
	size_t take = nl ? (size_t)(nl - in.p) + 1 : in.n;
	bool pending_cr = w->state == AFTER_CR, bare;
	uint32_t end;

	*ret_used = take;
	if (take == 0)
		return WIRE_MORE;
	if (!w->line_len)
		wire_forget(w); /* the line before was used: an idle connection has no buffer */
	if (pending_cr && in.p[0] != '\n')
		return WIRE_BAD_LINE_END;
	cr = memchr(in.p, '\r', take);
	bare = w->normalise && nl && !cr && !pending_cr;
	end = bare ? 1 : 2;
	/* the only CR is the one right before the LF, here or at the end of what came before */
	if (!bare && (nl ? (cr ? cr != nl - 1 : !(pending_cr && take == 1)) : (cr && cr != in.p + take - 1)))
		return WIRE_BAD_LINE_END;
	w->state = !nl && cr ? AFTER_CR : IN_LINE;
	if (!nl) {
		line_add(w, in);
		return WIRE_MORE;
	}
	if (!w->line_len && !w->skipping && take <= WIRE_LINE_MAX) {
		w->line = span_of(in.p, take - end);
		return WIRE_LINE;
	}
	line_add(w, span_of(in.p, take));
	w->line = span_of(w->line_buf, w->line_len >= end ? w->line_len - end : 0);
	w->line_len = 0;
	if (w->skipping) {
		w->skipping = false;
		return WIRE_LINE_LONG;
	}
	return WIRE_LINE;
}

/* ---- content ---- */

/* What a scan step found at in.p[*i]. */
enum step { STEP_ON, STEP_BAD, STEP_NUL, STEP_END, STEP_CUT };

/* At the start of a line of DATA: a dot is not content. */
static enum step at_start(struct wire *w, struct span in, size_t *i, size_t start)
{
	if (w->mode == WIRE_DATA && in.p[*i] == '.') {
		if (*i > start)
			return STEP_CUT; /* first what is before it; then we are here again */
		w->content = AFTER_DOT;
		(*i)++;
		return STEP_CUT;
	}
	w->dot_line = w->dot_line || in.p[*i] == '.';
	w->content = IN_LINE;
	return STEP_ON;
}

static enum step in_line(struct wire *w, struct span in, size_t *i)
{
	*i += find_special(in.p + *i, in.n - *i, &w->eight_bit);
	if (*i == in.n)
		return STEP_ON;
	if (in.p[*i] == '\n')
		return STEP_BAD;
	if (in.p[*i] == '\0' && !w->nul_seen)
		return STEP_NUL;
	if (in.p[*i] == '\r')
		w->content = AFTER_CR;
	(*i)++;
	return STEP_ON;
}

static enum step one_step(struct wire *w, struct span in, size_t *i, size_t start)
{
	switch (w->content) {
	case AT_START:
		return at_start(w, in, i, start);
	case IN_LINE:
		return in_line(w, in, i);
	case AFTER_CR:
		if (in.p[*i] != '\n')
			return STEP_BAD;
		w->content = AT_START;
		(*i)++;
		return STEP_ON;
	case AFTER_DOT:
		if (in.p[*i] == '\r') {
			w->content = AFTER_DOT_CR;
			(*i)++;
			return STEP_CUT;
		}
		w->content = IN_LINE; /* it was a stuffed dot; the rest is content */
		w->dot_line = w->dot_line || in.p[*i] == '.';
		return STEP_ON;
	default: /* AFTER_DOT_CR: only LF is right, and it is the end */
		if (in.p[*i] != '\n')
			return STEP_BAD;
		(*i)++;
		return STEP_END;
	}
}

static enum wire_event next_content(struct wire *w, struct span in, size_t *ret_used)
{
	size_t i = 0, start = 0;

	while (i < in.n) {
		switch (one_step(w, in, &i, start)) {
		case STEP_ON:
			continue;
		case STEP_CUT:
			if (i > start && w->content == AT_START) {
				w->body = span_of(in.p + start, i - start);
				*ret_used = i;
				return WIRE_BODY;
			}
			start = i;
			continue;
		case STEP_BAD:
			*ret_used = i;
			return WIRE_BAD_LINE_END;
		case STEP_NUL:
			if (i > start)
				break;
			w->nul_seen = true;
			*ret_used = i; /* it stays content: the message will be refused as a whole */
			return WIRE_BAD_NUL;
		case STEP_END:
			*ret_used = i;
			wire_mode(w, WIRE_LINES, 0, false);
			return WIRE_BODY_END;
		}
		break;
	}
	*ret_used = i;
	if (i == start)
		return WIRE_MORE;
	w->body = span_of(in.p + start, i - start);
	return WIRE_BODY;
}

/* ---- content with bare line ends made good ---- */

static enum wire_event give(struct wire *w, struct span piece, size_t used, size_t *ret_used)
{
	w->body = piece;
	*ret_used = used;
	return WIRE_BODY;
}

static enum wire_event give_instead(struct wire *w, struct span piece, size_t used, size_t *ret_used)
{
	w->normalised = true;
	return give(w, piece, used, ret_used);
}

/* From in.p[i] on within a line: what comes before its end, with that when it is a good one; or the end, or a NUL. */
static enum wire_event give_line(struct wire *w, struct span in, size_t i, size_t *ret_used)
{
	size_t start = i;

	i += find_special(in.p + i, in.n - i, &w->eight_bit);
	if (in.n - i >= 2 && in.p[i] == '\r' && in.p[i + 1] == '\n') {
		w->content = AT_START;
		i += 2;
	}
	if (i > start)
		return give(w, span_of(in.p + start, i - start), i, ret_used);
	if (in.p[i] == '\n') {
		w->content = AT_START_BARE;
		return give_instead(w, SPAN("\r\n"), i + 1, ret_used);
	}
	if (in.p[i] == '\r') {
		w->content = AFTER_CR;
		*ret_used = i + 1;
		return WIRE_MORE;
	}
	if (w->nul_seen)
		return give(w, span_of(in.p + i, 1), i + 1, ret_used);
	w->nul_seen = true;
	*ret_used = i;
	return WIRE_BAD_NUL;
}

/* A CR is held back until it is known what it is. */
static enum wire_event after_cr(struct wire *w, char c, size_t i, size_t *ret_used)
{
	w->content = c == '\n' ? AT_START : IN_LINE;
	return c == '\n' ? give(w, SPAN("\r\n"), i + 1, ret_used) : give_instead(w, SPAN(" "), i, ret_used);
}

static enum wire_event next_normalised(struct wire *w, struct span in, size_t *ret_used)
{
	enum wire_event ev;
	size_t i = 0;

	while (i < in.n) {
		char c = in.p[i];

		switch (w->content) {
		case AT_START:
		case AT_START_BARE:
			if (c == '.' && w->mode == WIRE_DATA) {
				w->content = w->content == AT_START ? AFTER_DOT : AFTER_DOT_BARE;
				i++;
				continue;
			}
			break;
		case AFTER_DOT:
			if (c == '\r') {
				w->content = AFTER_DOT_CR;
				i++;
				continue;
			}
			break;
		case AFTER_DOT_CR:
			if (c == '\n') {
				*ret_used = i + 1;
				wire_mode(w, WIRE_LINES, 0, false);
				return WIRE_BODY_END;
			}
			return after_cr(w, c, i, ret_used);
		case AFTER_CR:
			return after_cr(w, c, i, ret_used);
		default:
			break;
		}
		w->dot_line = w->dot_line || (w->content != IN_LINE && c == '.');
		w->content = IN_LINE;
		ev = give_line(w, in, i, ret_used);
		if (ev != WIRE_MORE)
			return ev;
		i = *ret_used;
	}
	*ret_used = in.n;
	return WIRE_MORE;
}

static enum wire_event content(struct wire *w, struct span in, size_t *ret_used)
{
	return w->normalise ? next_normalised(w, in, ret_used) : next_content(w, in, ret_used);
}

static enum wire_event next_chunk(struct wire *w, struct span in, size_t *ret_used)
{
	enum wire_event ev;

	if (w->chunk_left == 0) {
		*ret_used = 0;
		wire_mode(w, WIRE_LINES, 0, false);
		return WIRE_BODY_END;
	}
	if (in.n > w->chunk_left)
		in.n = (size_t)w->chunk_left;
	*ret_used = in.n;
	ev = w->mode == WIRE_SKIP ? WIRE_MORE : content(w, in, ret_used);
	w->chunk_left -= *ret_used;
	if (ev == WIRE_MORE && !w->chunk_left) { /* nothing of what came last is content, or not yet: the end must not wait for more */
		wire_mode(w, WIRE_LINES, 0, false);
		return WIRE_BODY_END;
	}
	return ev;
}

enum wire_event wire_next(struct wire *w, struct span in, size_t *ret_used)
{
	if (w->mode == WIRE_LINES)
		return next_line(w, in, ret_used);
	return w->mode == WIRE_DATA ? content(w, in, ret_used) : next_chunk(w, in, ret_used);
}

bool wire_ends_in_cr(const struct wire *w)
{
	return w->content == AFTER_CR;
}

/* ---- sending ---- */

bool wire_stuff(struct wire_stuff *st, struct span *content, struct span *ret_slice, bool *ret_dot)
{
	struct span s = *content;
	const char *at;

	if (!s.n)
		return false;
	*ret_dot = st->state == 0 && s.p[0] == '.';
	at = memmem(s.p, s.n, "\n.", 2);
	if (at) {
		size_t n = (size_t)(at - s.p) + 1;

		*ret_slice = span_of(s.p, n);
		*content = span_skip(s, n);
		st->state = 0;
		return true;
	}
	*ret_slice = s;
	*content = span_skip(s, s.n);
	st->state = s.p[s.n - 1] != '\n';
	return true;
}

struct span wire_stuff_end(const struct wire_stuff *st)
{
	return st->state == 0 ? SPAN(".\r\n") : SPAN("\r\n.\r\n");
}
