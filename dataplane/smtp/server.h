/* One SMTP server session (RFC 5321 and extensions), sans-I/O: bytes in, actions and reply bytes out.
 *
 * It knows the protocol: order of commands, parameters, limits, replies. It decides nothing about mail: MAIL, RCPT, DATA and the end
 * of data are put to the host as actions, which the host answers with smtp_server_reply (at once or later). It never does
 * I/O, never allocates but from its transaction pool (a ceiling), never reads a clock.
 *
 * The host's loop: smtp_server_step(s, input, &used) until it gives SRV_MORE with all input used and no output, or an action that needs
 * an answer (then no more input may be given until it is answered). At SRV_MORE it sends what smtp_server_output gives, which makes room
 * for more of it: when that was taken, at once or later, it steps again, with empty input too.
 *
 * Owner: embedded by its host; smtp_server_init/_done. Thread: one. */
#ifndef WEIR_DATAPLANE_SMTP_SERVER_H
#define WEIR_DATAPLANE_SMTP_SERVER_H

#include "dataplane/smtp/sasl.h"
#include "dataplane/smtp/wire.h"
#include "spool/base/pool.h"
#include "spool/mail/address.h"
#include "spool/mail/envelope.h"
#include "spool/mail/reply.h"

struct smtp_server_config {
	struct span hostname;
	struct span banner;     /* text after the host name in the greeting */
	uint64_t size_max;      /* bytes; also announced */
	uint32_t rcpt_max;      /* recipients a transaction; 452 4.5.3 beyond */
	uint32_t mail_max;      /* transactions a session; 421 4.7.0 beyond. 0: no limit */
	uint32_t errors_max;    /* protocol errors a session; then 421 4.7.0 and close */
	uint32_t commands_max;  /* commands without a message between (NOOP flood; RCPT and BDAT that were taken do not count); then 421 */
	size_t transaction_max; /* ceiling of the transaction pool, bytes; then 452 4.3.1 */
	bool requiretls;        /* offer REQUIRETLS when TLS is on */
	bool starttls;          /* a TLS context is there: offer STARTTLS until TLS is on */
	bool lmtp;              /* RFC 2033: LHLO, one reply a recipient after the data */
	bool auth;              /* a submission service (RFC 6409): AUTH is offered under TLS, and MAIL needs it */
};

enum server_action {
	SRV_MORE,     /* send the output and step again; without output all input is used: wait for more */
	SRV_STEP,     /* something was answered or skipped: step on */
	SRV_MAIL,     /* decide on s->env.sender (s->sender is the parsed form): answer with smtp_server_reply */
	SRV_RCPT,     /* decide on s->rcpt, the last recipient: answer. It is in s->env.rcpt[] already and is taken out when the answer is not 2xx */
	SRV_DATA,     /* DATA, or the first BDAT: make room; answer with a 2xx or 354 reply (text is ours) to begin, or with an error */
	SRV_BODY,     /* s->body is the next piece of content, dot-unstuffed; valid until the next step. Take it all; or answer with smtp_server_abort_body */
	SRV_BODY_END, /* the content is complete: decide; answer with smtp_server_reply. In LMTP it is said once for each RCPT that was accepted (RFC 2033 4.2): all recipients
		       * share one message, so what becomes of it becomes of each of them */
	SRV_RESET,    /* the transaction is over without a message (RSET, EHLO, QUIT, error in the body), or the client broke AUTH off: drop what was
		       * collected and begun; step on */
	SRV_AUTH,     /* s->auth_ask says what is to be decided about s->sasl: SASL_PASSWORD, SASL_VERIFIER, SASL_RELAY (see sasl.h), or SASL_DONE and
		       * SASL_REFUSED for the last word. Answer with smtp_server_auth_ok, _verifier, _relay, or with smtp_server_reply to end it */
	SRV_XCLIENT,  /* XCLIENT was said. s->xclient is what it says of the client, NULL when the client may not use it: answer with smtp_server_xclient_ok or smtp_server_reply */
	SRV_STARTTLS, /* the 220 was taken, and all before it: do the handshake, then smtp_server_tls_started */
	SRV_CLOSE,    /* send the output, then close. No further input is read. */
};

/* What XCLIENT says: the attributes that were given. One that the client does not know is empty, or 0. */
enum { XCLIENT_NAME = 1, XCLIENT_ADDR = 2, XCLIENT_PORT = 4, XCLIENT_PROTO = 8, XCLIENT_HELO = 16, XCLIENT_LOGIN = 32, XCLIENT_DESTADDR = 64, XCLIENT_DESTPORT = 128 };
struct smtp_xclient {
	unsigned has;
	uint8_t addr[16];
	uint16_t port;
	bool esmtp;
	struct span helo, login;
};

struct smtp_server {
	const struct smtp_server_config *cfg;
	struct wire wire;
	struct pool pool;          /* lives as long as the transaction: env and its spans */
	struct envelope env;       /* sender, rcpt[], body, ret, envid, flags: filled by the session. The rest is the host's. */
	struct address sender;     /* SRV_MAIL; stays until the next MAIL */
	struct address rcpt;       /* SRV_RCPT; stays until the next RCPT */
	uint64_t size_declared;    /* SIZE= of MAIL; 0 when not given */
	struct span body;          /* SRV_BODY */
	uint64_t body_len;         /* bytes of content so far */
	struct span helo;          /* copy, lives as long as the session */
	char helo_buf[256];
	unsigned auth_mechs;       /* enum sasl_mech bits that the host can check; it sets them, and may change them at any time */
	struct sasl *sasl;         /* during AUTH, in the pool */
	enum sasl_action auth_ask; /* SRV_AUTH */
	struct span auth_user;     /* who it is since a good AUTH; lives as long as the session, or until STARTTLS */
	char auth_user_buf[PASSLINE_USER_MAX];
	bool xclient_allowed; /* the host's to set: the client may say XCLIENT, and is told so */
	const struct smtp_xclient *xclient; /* SRV_XCLIENT; in the pool */
	bool esmtp, tls;
	bool bad_line_end;         /* it was closed because of a bare CR or LF */
	/* the rest is the state machine's own */
	struct smtp_server_state {
		uint8_t phase, waiting;
		bool closing, first_step, have_mail;
		bool by_bdat, bdat_active, bdat_last; /* the message comes in chunks; its first was taken; this is the last */
		bool discard;     /* the content is thrown away, refusal is said at its end */
		bool stray_chunk; /* of a BDAT that was out of order */
		uint16_t final_len;
		uint32_t finals; /* how often the final reply is still to be said: as there is room for it */
		uint32_t errors, commands, mails, rcpt_cap;
		uint32_t rcpt_taken; /* RCPT commands that were accepted: not what they were expanded to */
		uint64_t bdat_left;
		size_t out_sent;
		size_t before_220; /* STARTTLS: where its reply begins in out */
		struct out out;
		char final[512];
		char out_buf[1792]; /* with it a session of dataplane/ is just below 4 KiB, which is what the allocator gives */
	} state;
};

void smtp_server_init(struct smtp_server *s, const struct smtp_server_config *cfg);
void smtp_server_done(struct smtp_server *s);
/* The greeting is in the output after init; instead of it: 421 or 554 and close. Call before the first step. */
void smtp_server_refuse(struct smtp_server *s, const struct reply *r);
/* A STARTTLS was answered with 220, which is in the output; and its place is taken by this reply, and the session ends. */
bool smtp_server_starts_tls(const struct smtp_server *s);
void smtp_server_starttls_refuse(struct smtp_server *s, const struct reply *r);
/* Uses up to in.n bytes, *ret_used says how many. May be called with empty input to go on after an answer. */
enum server_action smtp_server_step(struct smtp_server *s, struct span in, size_t *ret_used);
/* Answers SRV_MAIL, SRV_RCPT, SRV_DATA, SRV_BODY_END; SRV_XCLIENT with a refusal; and SRV_AUTH with a refusal: 535 counts as an error of the client's. */
void smtp_server_reply(struct smtp_server *s, const struct reply *r);
/* SRV_RCPT, just before a positive answer: puts these addresses (none: they are all in the envelope already) in the place of the last recipient. They keep its NOTIFY and its ORCPT, which
 * becomes the recipient as it was given when there is none (RFC 3461 5.2.7). False: no room, answer 452; the envelope is as it was. */
[[nodiscard]] bool smtp_server_rcpt_replace(struct smtp_server *s, const struct span *addr, uint32_t n);
/* Answer SRV_AUTH: it is this user (235); here is the verifier (see sasl_verifier); or a challenge of somebody who has the secret, false when it is too long to be passed on. */
void smtp_server_auth_ok(struct smtp_server *s, struct span user);
void smtp_server_auth_verifier(struct smtp_server *s, const struct scram_verifier *v, bool decoy, struct span nonce);
[[nodiscard]] bool smtp_server_auth_relay(struct smtp_server *s, struct span challenge);
/* Answers SRV_XCLIENT: everything from before is forgotten but TLS, the client is whom XCLIENT named, and greeted again. s->auth_user is the user that LOGIN named. */
void smtp_server_xclient_ok(struct smtp_server *s);
/* The host cannot take the content (spool full, too big for it): the rest is read and thrown away, then this reply is sent in place of
 * the decision at the end. */
void smtp_server_abort_body(struct smtp_server *s, const struct reply *r);
/* TLS is on: all state from before is forgotten (RFC 3207 4.2). */
void smtp_server_tls_started(struct smtp_server *s);
/* Closes from outside with a reply (time-out, shutdown: 421 4.4.2, 421 4.3.2): output then SRV_CLOSE at the next step. */
void smtp_server_shutdown(struct smtp_server *s, const struct reply *r);
/* What is to be sent; then smtp_server_sent with the number of bytes taken. */
struct span smtp_server_output(const struct smtp_server *s);
void smtp_server_sent(struct smtp_server *s, size_t n);
/* Which time limit applies now. */
enum server_wait { SRV_WAIT_COMMAND, SRV_WAIT_BODY, SRV_WAIT_DECISION };
enum server_wait smtp_server_wait(const struct smtp_server *s);

#endif
