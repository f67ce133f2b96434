/* Reading a message header (RFC 5322 2.2), one field at a time; and the fields that Weir adds on top.
 *
 * Never changes the message: what Weir adds is a separate piece sent before it (F5, P8). */
#ifndef WEIR_SPOOL_MAIL_HEADER_H
#define WEIR_SPOOL_MAIL_HEADER_H

#include "spool/mail/envelope.h"

/* Takes the next field off *rest: name without colon and trailing space, value unfolded-not (with its line ends). False at the empty line that ends
 * the header, at a line that is no field, or at the end of what is there. */
bool header_next(struct span *rest, struct span *ret_name, struct span *ret_value);
/* The fields of a header that begins with the line "From sender date" of a mailbox file, as some programs send it: readers of mail pass over that line, and so do we. */
struct span header_fields(struct span head);
/* Number of Received fields in what is there of the header (B6). */
unsigned header_count_received(struct span head);
/* What the header of e's message says about its way: ENV_TLS_OPTIONAL for "TLS-Required: No", which REQUIRETLS outdoes (RFC 8689 4.1); ENV_8BIT_HEADER, unless e says that all is 7BIT;
 * and ENV_NO_HEADER. */
uint32_t header_flags(struct span head, const struct envelope *e);
/* The text of the first Message-ID field, when it is one word of at most MESSAGE_ID_MAX octets that can be looked for; else empty. Points into head. */
enum { MESSAGE_ID_MAX = 250 };
struct span header_message_id(struct span head);

struct received_facts {
	struct span hostname; /* ours */
	struct span id;       /* text form of the message id */
	struct span tls;      /* "TLS1.3 TLS_AES_256_GCM_SHA384", or empty */
	struct span rcpt;     /* the "for" clause, only when there is one recipient; or empty */
};

/* Writes "Received: from helo (name [192.0.2.1]) by us with ESMTPS id ...; date\r\n", or "[IPv6:2001:db8::1]"; folded below 78 columns where it can be. */
void received_write(const struct envelope *e, const struct received_facts *f, struct out *o);
/* RFC 5322 date in UTC ("Sat, 21 Nov 2026 05:00:00 +0000"). */
void date_write(uint64_t wall_ns, struct out *o);

#endif
