/* Who a message says it is from: the addresses in From, Sender and Reply-To (RFC 5322 3.6.2, with the groups of RFC 6854 and the UTF-8 of RFC 6532).
 *
 * Reads hostile input: bounded in numbers, comments nest without recursion, nothing is changed or interpreted beyond taking addresses out of what stands around them.
 *
 * Thread: any. Fails: never; what is wrong is a value. */
#ifndef WEIR_SPOOL_MAIL_ORIGINATORS_H
#define WEIR_SPOOL_MAIL_ORIGINATORS_H

#include "spool/mail/address.h"

enum origin_field { ORIGIN_FROM, ORIGIN_SENDER, ORIGIN_REPLY_TO, ORIGIN_NFIELD };
enum { ORIGINATORS_MAX = 32, ORIGINATORS_TEXT_MAX = 4096 };

struct originator {
	enum origin_field field;
	struct address a; /* in text */
};

struct originators {
	uint32_t nfield[ORIGIN_NFIELD]; /* how often each field is there */
	uint32_t nfrom;                 /* addresses in From */
	bool is_cut;                    /* there is more of the header than was read: what is missing may be there */
	uint32_t n;
	struct originator item[ORIGINATORS_MAX];
	enum origin_field bad_field;
	char bad[96];                   /* what is wrong with bad_field, the first thing; empty: nothing */
	size_t text_len;
	char text[ORIGINATORS_TEXT_MAX];
};

extern const char *const origin_field_name[ORIGIN_NFIELD]; /* "From" ... */

/* Reads the header of a message. all: head is the whole message; otherwise it may end in the middle of a field. */
void originators_read(struct span head, bool all, struct originators *ret);

#endif
