/* One SMTP or LMTP client session, sans-I/O: the mirror of server.h.
 *
 * The host connects, feeds bytes, sends the output and, at CLI_BODY, streams the content itself: through wire_stuff for DATA, in chunks for BDAT. One session carries
 * any number of transactions one after the other. MAIL, RCPT and DATA go out in one write when the server has PIPELINING, and so do the first chunks of BDAT.
 *
 * Each recipient gets its own result; a server that dies gives "no answer" results only for what it had not answered. The server is not trusted to count: a reply that is
 * not due ends the session, and where replies and commands may have got out of step no result of the transaction counts (client_txn.c says how that is noticed).
 *
 * Owner: embedded by its host. Thread: one. */
#ifndef WEIR_DATAPLANE_SMTP_CLIENT_H
#define WEIR_DATAPLANE_SMTP_CLIENT_H

#include "dataplane/smtp/sasl_client.h"
#include "dataplane/smtp/wire.h"
#include "spool/mail/envelope.h"
#include "spool/mail/reply.h"

enum client_tls { CLIENT_TLS_NEVER, CLIENT_TLS_MAY, CLIENT_TLS_MUST };

struct smtp_client_config {
	struct span hostname; /* for EHLO */
	enum client_tls tls;
	bool lmtp;
	bool chunking; /* use BDAT where it is offered */
	const struct sasl_login *login; /* whoever this server demands; under TLS only. NULL: nobody */
	bool final;    /* what this server takes is delivered: reports of success are ours, and it is not asked for them */
};

/* One transaction. The arrays are the host's and live until CLI_RESULT. */
struct smtp_txn {
	const struct envelope *env; /* sender, envid, ret, body, flags; recipients by index below */
	const uint32_t *rcpt;       /* indices into env->rcpt */
	struct reply *result;       /* one per entry of rcpt; code 0 until answered */
	uint32_t nrcpt;
	bool probe;                 /* only asks whether the recipients would be taken: ends after the last RCPT, results are the answers to RCPT */
	bool mail_refused;          /* set: MAIL was refused, and the results say how */
	uint64_t size;              /* bytes of content that will be sent, for SIZE= and BDAT: exactly */
};

enum client_action {
	CLI_MORE,     /* send the output and wait for more input */
	CLI_STARTTLS, /* input buffer was empty: do the handshake now, then smtp_client_tls_done */
	CLI_READY,    /* no transaction: smtp_client_begin, smtp_client_quit, or keep it idle */
	CLI_BODY,     /* stream the content now (as c->use_bdat says), then smtp_client_body_sent; input that comes meanwhile is fed as ever */
	CLI_RESULT,   /* every result of the transaction is set; step on (gives CLI_READY or CLI_CLOSE) */
	CLI_CLOSE,    /* the session is over; c->failure has the reply that ended it (code 0: in order). A transaction without a result
		       * has code 0 in the results not known. Content that is not out yet must not go out any more */
};

enum client_ext {
	EXT_PIPELINING = 1,
	EXT_SIZE = 2,
	EXT_8BITMIME = 4,
	EXT_ENHANCED = 8,
	EXT_STARTTLS = 16,
	EXT_CHUNKING = 32,
	EXT_SMTPUTF8 = 64,
	EXT_DSN = 128,
	EXT_REQUIRETLS = 256,
	EXT_LIMITS = 512,
};

/* Why there is no session although there is a login for it (client_auth.c). */
enum client_auth_fault {
	AUTH_FAULT_NONE,
	AUTH_FAULT_NOT_OFFERED, /* no TLS, no AUTH, or none of our mechanisms */
	AUTH_FAULT_REFUSED,     /* the server says no */
	AUTH_FAULT_BROKEN,      /* its challenges are not those of the mechanism */
};

/* What the words of an EHLO answer said beside being there. */
struct ehlo_values {
	uint64_t size_max;                           /* SIZE; 0: none given */
	uint32_t rcpt_max, rcpt_domain_max, mail_max; /* LIMITS (RFC 9422); 0: none given */
	uint32_t mechs;                              /* AUTH: bits of enum sasl_mech */
};

struct smtp_client {
	const struct smtp_client_config *cfg;
	struct wire wire;
	uint32_t ext;       /* enum client_ext of the last EHLO */
	struct ehlo_values ehlo;
	bool tls, use_bdat;
	bool tls_missing;   /* it was wanted, and the server does not offer it, or refuses it */
	bool tls_later;     /* it refuses it for now only */
	bool logged_in;
	enum client_auth_fault auth_fault; /* CLI_CLOSE: failure says it in words for people, without any secret */
	bool bdat_unknown;  /* CHUNKING was offered, but BDAT is not known: the session is over, and DATA should be used next time */
	bool accepted_any;  /* a recipient was accepted in this transaction */
	struct smtp_txn *txn;
	struct reply failure; /* CLI_CLOSE */
	uint32_t transactions; /* begun on this session */
	uint32_t replies;      /* complete ones so far: the time limit of a reply runs until this changes, however many bytes trickle in */
	/* the rest is the state machine's own */
	struct smtp_client_state {
		uint8_t phase, body;
		bool reply_began, unasked, need_rset, refused;
		uint32_t reply_lines;
		uint32_t next_out, next_in; /* steps of the transaction: see client_txn.c */
		uint32_t next_lmtp;
		uint32_t chunks_out, chunks_in;
		uint64_t content_left; /* BDAT: not announced yet */
		size_t out_sent;
		struct reply reply;         /* being read */
		struct sasl_client sasl;
		uint32_t mechs_left; /* offered, and not refused yet */
		struct out out;
		char chunk_head[40];
		char out_buf[4096];
	} state;
};

void smtp_client_init(struct smtp_client *c, const struct smtp_client_config *cfg);
/* The connection is gone: before the results of a transaction are looked at. What is not known has code 0 in them. */
void smtp_client_done(struct smtp_client *c);
enum client_action smtp_client_step(struct smtp_client *c, struct span in, size_t *ret_used);
/* At CLI_READY. A recipient that the server cannot take (8-bit content to a 7-bit host, SMTPUTF8 or REQUIRETLS lacking, larger than its SIZE) gets a local 5xx result
 * without a word to the server. Then step with empty input. */
void smtp_client_begin(struct smtp_client *c, struct smtp_txn *t);
/* BDAT: announces the next n octets of content. *ret_head goes out right before them; it is empty within a chunk that was announced already, and good until the next call.
 * False: the server refused a chunk, and no more of the content is to be sent. */
bool smtp_client_chunk(struct smtp_client *c, uint64_t n, struct span *ret_head);
/* All content is out, or smtp_client_chunk said no. */
void smtp_client_body_sent(struct smtp_client *c);
void smtp_client_quit(struct smtp_client *c);
/* ok: TLS is on, EHLO is said again. Not ok: with CLIENT_TLS_MAY the host reconnects without TLS. */
void smtp_client_tls_done(struct smtp_client *c, bool ok);
struct span smtp_client_output(const struct smtp_client *c);
void smtp_client_sent(struct smtp_client *c, size_t n);
/* Which time limit applies now: the RFC 5321 4.5.3.2 phase. */
enum client_wait { CLI_WAIT_GREETING, CLI_WAIT_REPLY, CLI_WAIT_DATA_REPLY, CLI_WAIT_BODY, CLI_WAIT_FINAL, CLI_WAIT_IDLE };
enum client_wait smtp_client_wait(const struct smtp_client *c);

#endif
