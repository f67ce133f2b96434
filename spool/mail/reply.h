/* SMTP replies as values: what we say, and what a remote said.
 *
 * A remote 550 is success of the call that got it: it is a struct reply, never an enum status. */
#ifndef WEIR_SPOOL_MAIL_REPLY_H
#define WEIR_SPOOL_MAIL_REPLY_H

#include "spool/base/span.h"

enum { REPLY_TEXT_MAX = 1024 }; /* of a remote reply, P11 */

struct reply {
	uint16_t code;      /* 250, 451, 550 ...; 0: none */
	uint8_t enhanced[3]; /* class, subject, detail (RFC 3463); class 0: none */
	uint8_t derived;     /* 1: enhanced is ours, made from the code (reply_derive): for Status fields, never shown as the remote's words */
	uint16_t text_len;
	char text[REPLY_TEXT_MAX]; /* printable ASCII only; several lines are joined by "\n" */
};

/* Sets code, enhanced code ("5.7.1" or NULL) and formatted text (sanitised, cut). */
void reply_set(struct reply *r, unsigned code, const char *enhanced, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
static inline struct span reply_text(const struct reply *r)
{
	return span_of(r->text, r->text_len);
}
static inline bool reply_is_ok(const struct reply *r)
{
	return r->code >= 200 && r->code < 300;
}
static inline bool reply_is_temporary(const struct reply *r)
{
	return r->code >= 400 && r->code < 500;
}
static inline bool reply_is_permanent(const struct reply *r)
{
	return r->code >= 500 && r->code < 600;
}
/* Writes it as the server sends it: "550 5.7.1 text\r\n", one line per "\n" in the text, the enhanced code on each line. */
void reply_write(const struct reply *r, struct out *o);
/* Adds text of one reply line of a remote (without code and separator): controls and 8-bit become '?', a leading enhanced code of
 * the first line is taken off into `enhanced`, at most REPLY_TEXT_MAX are kept. first: this is the first line. */
void reply_add_line(struct reply *r, struct span text, bool first);
/* What a code without an enhanced one is about: the command that it answers. */
enum reply_stage { REPLY_TO_SESSION, REPLY_TO_MAIL, REPLY_TO_RCPT, REPLY_TO_CONTENT };
/* Gives a remote reply without an enhanced code the one that its code means there (RFC 3463, RFC 5248). */
void reply_derive(struct reply *r, enum reply_stage stage);
/* The enhanced code that goes with its text; all 0 when there was none: a derived one is not the remote's. */
void reply_said(const struct reply *r, uint8_t ret[3]);
/* "5.1.1", or one made from the code ("5.0.0") when the remote gave none. buf of 12 bytes. */
const char *reply_status(const struct reply *r, char buf[12]);
/* "550 5.1.1 text" on one line, for logs and DSNs. */
void reply_line(const struct reply *r, struct out *o);

#endif
