/* Delivery status notifications (RFC 3461, 3464): writes the whole message of a report.
 *
 * Remote text is data: it goes in through reply_line only (P11). */
#ifndef WEIR_SPOOL_MAIL_DSN_H
#define WEIR_SPOOL_MAIL_DSN_H

#include "spool/mail/envelope.h"
#include "spool/mail/reply.h"

enum dsn_action { DSN_FAILED, DSN_DELAYED, DSN_DELIVERED, DSN_RELAYED, DSN_EXPANDED };

struct dsn_rcpt {
	const struct env_rcpt *rcpt;
	enum dsn_action action;
	const struct reply *reply; /* what the remote, or Weir itself, said last */
	uint64_t expired_ns;       /* that was temporary, but it was tried for so long, and is not tried again; 0: not so */
	struct span remote;        /* name of the remote MTA; empty when Weir decided */
	uint64_t last_attempt_wall_ns;
	uint64_t will_retry_until_wall_ns; /* delayed only; 0 otherwise */
};

struct dsn {
	struct span hostname;  /* ours: Reporting-MTA */
	struct span id;        /* id of the report itself, for Message-ID */
	struct span original_id; /* id of the message reported on */
	struct span to;        /* who gets the report */
	struct span from;      /* header From address, e.g. MAILER-DAEMON@host */
	uint64_t now_wall_ns;
	const struct envelope *original;
	const struct dsn_rcpt *rcpt;
	size_t nrcpt;
	struct span original_head; /* the header section of the message, returned as text/rfc822-headers */
	struct span original_body; /* what follows the header, when the whole message is returned (RET=FULL and small enough); or empty */
	bool whole;                /* return message/rfc822 rather than text/rfc822-headers */
};

/* CRLF line ends, 7-bit safe unless the original is not, never a bare CR or LF. o->over when it did not fit. */
void dsn_write(const struct dsn *d, struct out *o);

#endif
