/* The envelope of a message and the facts of the session that brought it; and its stored form.
 *
 * The stored form is length-prefixed and never line-based (P11); its layout is in FORMAT.md. */
#ifndef WEIR_SPOOL_MAIL_ENVELOPE_H
#define WEIR_SPOOL_MAIL_ENVELOPE_H

#include "spool/base/pool.h"
#include "spool/base/span.h"
#include "spool/base/status.h"

enum body_type { BODY_7BIT = 0, BODY_8BITMIME = 1, BODY_BINARY = 2 };
enum dsn_notify { NOTIFY_NEVER = 1, NOTIFY_SUCCESS = 2, NOTIFY_FAILURE = 4, NOTIFY_DELAY = 8 }; /* 0: not given */
enum dsn_ret { RET_NONE = 0, RET_FULL = 1, RET_HDRS = 2 };
enum envelope_flag {
	ENV_SMTPUTF8 = 1,
	ENV_TLS = 2,        /* came over TLS */
	ENV_ESMTP = 4,      /* EHLO rather than HELO */
	ENV_INTERNAL = 8,   /* made by Weir itself: not scanned, no Received of a client */
	ENV_DOUBLE_BOUNCE = 16, /* a failed notification on its way to the postmaster; dropped when it fails */
	ENV_REQUIRETLS = 32,     /* RFC 8689: never without verified TLS, and only to who promises the same */
	ENV_TLS_OPTIONAL = 64,   /* the header says TLS-Required: No */
	ENV_8BIT_HEADER = 128,   /* the header has octets above 127 */
	ENV_LMTP = 256,          /* LHLO: the client was answered for each recipient */
	ENV_NO_HEADER = 512,     /* the message does not begin with a field: all of it is text */
};

struct env_rcpt {
	struct span addr;  /* local@domain, or bare "postmaster" */
	struct span orcpt; /* "rfc822;..." as given, decoded from xtext; empty when not given */
	uint8_t notify;    /* enum dsn_notify bits */
	struct span given; /* what RCPT said when that stands for addr (an alias, a long-form domain); empty: it said addr */
};

struct envelope {
	uint64_t arrived_ns; /* spool time (clock_steady_ns) */
	struct span sender; /* local@domain; empty for the null sender */
	struct span envid;  /* as given, xtext */
	struct span helo;
	struct span client_name; /* verified host name of the client; empty when unknown */
	struct span auth_user;
	struct span trace;  /* fields that are delivered on top of the message, above our Received: whole lines, at most ENV_TRACE_MAX octets */
	struct span hold;   /* why it is to be held once it is accepted; empty: it is not */
	struct span message_id; /* the header's Message-ID with its brackets; empty: none, or none that can be looked for */
	uint8_t client_ip[16]; /* IPv4 as ::ffff:a.b.c.d; of a notification that of the message it is about; zero when there is none */
	uint16_t client_port;
	uint8_t body;   /* enum body_type */
	uint8_t ret;    /* enum dsn_ret */
	uint32_t flags; /* enum envelope_flag */
	uint32_t nrcpt;
	struct env_rcpt *rcpt;
};

enum { ENV_TRACE_MAX = 1024 };

/* Bytes that envelope_write will need. */
size_t envelope_size(const struct envelope *e);
void envelope_write(const struct envelope *e, struct out *o);
/* How many recipients a stored envelope says it has; false when it is cut short, of an unknown version, or cannot have so many. */
bool envelope_nrcpt(struct span stored, uint32_t *ret);
/* Spans of *ret point into `stored`; the recipient array is from the pool. ST_CORRUPT, ST_NOMEM. */
enum status envelope_read(struct span stored, struct pool *p, struct envelope *ret);

#endif
