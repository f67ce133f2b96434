/* The server side of SASL mechanisms, sans-I/O: PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 (RFC 5802, RFC 7677).
 *
 * It takes decoded messages and says what comes next. It knows no users: whether a password is right, or what a user's verifier is, is put to
 * the host. Nobody acts for somebody else: an authorization identity must be empty or the user itself.
 *
 * Owner: embedded or allocated by its host; sasl_wipe before the memory is given up, as passwords are in it. Thread: one. */
#ifndef WEIR_DATAPLANE_SMTP_SASL_H
#define WEIR_DATAPLANE_SMTP_SASL_H

#include "spool/mail/passline.h"

enum sasl_mech { SASL_PLAIN = 1, SASL_LOGIN = 2, SASL_SCRAM_SHA_256 = 4, SASL_ALL = 7 }; /* bits */

enum {
	SASL_MESSAGE_MAX = 1024,   /* longest message of a client: PLAIN needs 3 x 255 octets and two NUL */
	SASL_CHALLENGE_MAX = 768,  /* longest of ours */
	SASL_NONCE_MAX = 256,      /* of a client's nonce */
	SASL_SERVER_NONCE = 24,    /* characters of ours, enough for 128 bits */
};

enum sasl_action {
	SASL_CHALLENGE, /* send a->challenge, then step with the response */
	SASL_PASSWORD,  /* does a->password belong to a->user? The host decides; the exchange ends with its decision */
	SASL_VERIFIER,  /* answer with sasl_verifier, or with sasl_relay: a->message is the client's first message */
	SASL_RELAY,     /* a->message is for whoever made the last challenge: answer with sasl_relay, or the host decides */
	SASL_DONE,      /* it is a->user */
	SASL_REFUSED,   /* it is not */
	SASL_MALFORMED, /* the message breaks the mechanism's syntax, or asks for what is not offered */
};

struct sasl {
	enum sasl_mech mech;
	struct span user, password, message, challenge;
	/* the rest is the machine's own */
	struct sasl_state {
		uint8_t phase;
		bool decoy;
		bool other_identity; /* the client wants to act for somebody else */
		size_t bare;         /* where client-first-message-bare begins: behind the gs2 header */
		size_t nonce_len;    /* of both parts */
		struct scram_verifier verifier;
		struct out first, server_first;
		struct span client_nonce; /* in first */
		char user_buf[PASSLINE_USER_MAX + 1], in[SASL_MESSAGE_MAX], first_buf[SASL_MESSAGE_MAX], out[SASL_CHALLENGE_MAX];
		char server_first_buf[SASL_CHALLENGE_MAX];
	} state;
};

/* The mechanism's bit, 0 when the name is not one of ours; and the name. */
unsigned sasl_mech_find(struct span name);
const char *sasl_mech_name(enum sasl_mech mech);

void sasl_init(struct sasl *a, enum sasl_mech mech);
/* The client's next message, decoded; the first may be missing (p NULL): then the mechanism's first challenge comes, which may be empty. */
enum sasl_action sasl_step(struct sasl *a, struct span message);
/* Answers SASL_VERIFIER. nonce: SASL_SERVER_NONCE printable characters without comma, never used before. decoy: there is no such user; the exchange goes
 * on with a verifier that stands in for one and ends in SASL_REFUSED, whatever the proof. */
enum sasl_action sasl_verifier(struct sasl *a, const struct scram_verifier *v, bool decoy, struct span nonce);
/* Answers SASL_VERIFIER and SASL_RELAY: somebody else has the secret, and says this challenge. From now on messages are only passed. SASL_MALFORMED when it is too long. */
enum sasl_action sasl_relay(struct sasl *a, struct span challenge);
void sasl_wipe(struct sasl *a);

#endif
