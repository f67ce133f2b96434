/* The client side of SASL mechanisms, sans-I/O, for next hops that demand a login: SCRAM-SHA-256 (RFC 5802, RFC 7677), PLAIN (RFC 4616), LOGIN.
 *
 * It takes decoded challenges and gives responses. What a server says is not trusted: it has no say in how long a computation takes (SASL_CLIENT_ITERATIONS_MAX), and with
 * SCRAM it must show that it knows the password, too, before the login counts.
 *
 * Owner: embedded by its host. Thread: one. */
#ifndef WEIR_DATAPLANE_SMTP_SASL_CLIENT_H
#define WEIR_DATAPLANE_SMTP_SASL_CLIENT_H

#include "dataplane/smtp/sasl.h"

/* An iteration costs about a microsecond of the worker's time; honest servers ask for the same as the last time, which costs nothing (struct sasl_known). */
enum { SASL_CLIENT_ITERATIONS_MAX = 100000, SASL_RESPONSE_MAX = 1100 };

/* What a SCRAM server asked for last, and what came of it (RFC 5802 3: a client may keep that in place of the password). All 0: nothing yet. As secret as the password. */
struct sasl_known {
	uint32_t iterations, salt_len;
	uint8_t salt[SCRAM_SALT_MAX], client_key[SCRAM_KEY], server_key[SCRAM_KEY];
};

/* Who logs in. All of it is the host's; the nonce: SASL_SERVER_NONCE printable characters without comma, never used before. */
struct sasl_login {
	struct span user, password, nonce;
	struct sasl_known *known; /* of this password; may be NULL */
};

struct sasl_client {
	enum sasl_mech mech;
	const struct sasl_login *login;
	/* the rest is the machine's own */
	uint8_t phase;
	uint8_t signature[SCRAM_KEY]; /* what the server must show */
};

/* The best of these bits of enum sasl_mech; 0: none of them is known. */
unsigned sasl_client_best(unsigned mechs);
void sasl_client_init(struct sasl_client *a, enum sasl_mech mech, const struct sasl_login *login);
/* Whether the mechanism begins with words of the client, which may go out with AUTH itself. */
bool sasl_client_begins(const struct sasl_client *a);
/* The response to a challenge, decoded; the first challenge of a mechanism that begins with the client's words is empty. NULL, or why there is none: the exchange is over. */
const char *sasl_client_step(struct sasl_client *a, struct span challenge, struct out *response);
/* The server may say now that the login is good: everything was said, and with SCRAM the server has shown that it knows the password. */
bool sasl_client_complete(const struct sasl_client *a);

#endif
