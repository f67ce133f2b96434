/* The bytes of SMTP in both directions: the only code that knows line ends, dots and chunk lengths.
 *
 * Receiving: one pass that finds ends, refuses bare CR, bare LF and NUL in content (P3), unstuffs dots. A line that is longer than the limit is
 * reported once and skipped to its CRLF (P9). Input may be split anywhere: the events are the same (fuzzed).
 * Content pieces point into the input wherever possible.
 *
 * With `normalise`, for clients that cannot do better, a bare LF ends a line of commands or content as CRLF would, and becomes CRLF in content; a bare CR in content
 * becomes a space. Still nothing but CRLF.CRLF ends DATA: LF.LF, LF.CRLF and CRLF.LF are lines of content, whose first dot is taken off as any line's is. A bare CR in a
 * command, or at the end of a message by BDAT, stays an error.
 *
 * Owner: embedded. Thread: one. */
#ifndef WEIR_DATAPLANE_SMTP_WIRE_H
#define WEIR_DATAPLANE_SMTP_WIRE_H

#include "spool/base/span.h"

enum { WIRE_LINE_MAX = 2048 }; /* longest command or reply line, CRLF included */

enum wire_event {
	WIRE_MORE,      /* all input used */
	WIRE_LINE,      /* w->line: a line without CRLF; valid until the next call */
	WIRE_LINE_LONG, /* a line was longer than the limit, or than the memory there is; skipped as a whole. w->line: its beginning, if anything */
	WIRE_BODY,      /* w->body: content; valid until the next call or as long as the input */
	WIRE_BODY_END,  /* after CRLF.CRLF, or after the last octet of the chunk */
	WIRE_BAD_LINE_END, /* bare CR or bare LF in a line or in content, see normalise: the session cannot go on */
	WIRE_BAD_NUL,   /* NUL in content: reported once per body, reading goes on */
};

enum wire_mode { WIRE_LINES, WIRE_DATA, WIRE_CHUNK, WIRE_SKIP /* a chunk that nobody asked for: its octets mean nothing */ };

struct wire {
	uint8_t mode;
	uint8_t state;   /* in a line of commands */
	uint8_t content; /* in a line of content; kept from chunk to chunk */
	bool skipping, nul_seen;
	bool dot_line;   /* a line of the content so far begins with a dot */
	bool eight_bit;  /* an octet of the content so far is not ASCII */
	bool normalise;  /* the owner's to set, after wire_init */
	bool normalised; /* the content so far had a bare CR or LF, which is there no more */
	struct span line, body;
	uint64_t chunk_left;
	uint32_t line_len; /* of the line that has not come to its end */
	char *line_buf;    /* WIRE_LINE_MAX octets, only while a line did not come in one piece; NULL: none */
};

void wire_init(struct wire *w);
/* Wipes and frees the last line, which may have been a password; the reader goes on. Also what ends a reader. */
void wire_forget(struct wire *w);
/* From the next byte on. WIRE_CHUNK: of exactly chunk_len octets; line ends in it are checked as in DATA across chunks of one message (first says that a
 * message begins), and at the end of the last chunk content must end in CRLF: the caller adds it when it does not. */
void wire_mode(struct wire *w, enum wire_mode mode, uint64_t chunk_len, bool first);
enum wire_event wire_next(struct wire *w, struct span in, size_t *ret_used);

/* After the last chunk: the content ends in the middle of a line end. */
bool wire_ends_in_cr(const struct wire *w);

/* Sending content as DATA. Cuts `content` (a piece of a message, in order) into the next slice to send and the rest: *ret_slice is a part of content without
 * change; *ret_dot says that one extra "." must be sent before it. Returns false when content is used up. state is 0 at the start of a message. */
struct wire_stuff {
	uint8_t state; /* line position: 0 start of line */
};
bool wire_stuff(struct wire_stuff *st, struct span *content, struct span *ret_slice, bool *ret_dot);
/* What ends the content: ".\r\n", or "\r\n.\r\n" when the last line had no end. */
struct span wire_stuff_end(const struct wire_stuff *st);

#endif
