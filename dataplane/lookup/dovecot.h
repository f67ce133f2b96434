/* Dovecot's authentication socket, as a client (Dovecot's "Authentication Protocol v1.2"; VERSION, CPID, AUTH, CONT, CANCEL; MECH, OK, CONT, FAIL), on the worker's loop.
 *
 * One connection with many exchanges on it. Without it, or without an answer in time, the answer is "try again", never "no".
 *
 * Owner: the worker. A request is its asker's until its last answer, or until dovecot_cancel. Thread: one. */
#ifndef WEIR_DATAPLANE_LOOKUP_DOVECOT_H
#define WEIR_DATAPLANE_LOOKUP_DOVECOT_H

#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/base/uring.h"

struct dovecot;
struct dovecot_request;

enum { DOVECOT_REQUESTS_MAX = 1024, DOVECOT_MESSAGE_MAX = 1024 /* octets of a message in either direction */ };

enum dovecot_result {
	DOVECOT_CHALLENGE, /* go on with dovecot_continue; all others end the request */
	DOVECOT_OK,
	DOVECOT_NO,        /* wrong user, password or whatever: it is not told apart */
	DOVECOT_TROUBLE,   /* not decided: Dovecot is away, slow, or has trouble of its own */
};

struct dovecot_answer {
	enum dovecot_result result;
	struct span challenge; /* decoded */
	struct span user;      /* DOVECOT_OK: as Dovecot names it */
};

struct dovecot_facts {
	const char *mech;
	struct span initial; /* the client's first message */
	uint8_t client_ip[16], local_ip[16];
	uint16_t client_port, local_port;
};

typedef void dovecot_fn(void *ctx, const struct dovecot_answer *a);

enum status dovecot_new(struct uring *u, const char *path, uint64_t timeout_ns, struct dovecot **ret);
void dovecot_free(struct dovecot *d);
bool dovecot_is_up(const struct dovecot *d);
/* Whether it said that it has this mechanism; kept while it is away. False until the first time it said anything. */
bool dovecot_has(const struct dovecot *d, const char *mech);
bool dovecot_is_known(const struct dovecot *d);
/* Begins an exchange under TLS. fn is called from uring_wait or dovecot_turn. ST_CLOSED, ST_FULL, ST_NOMEM: try again later. */
enum status dovecot_auth(struct dovecot *d, const struct dovecot_facts *f, dovecot_fn *fn, void *ctx, struct dovecot_request **ret);
/* After a challenge. When it is not ST_OK the request has ended. */
enum status dovecot_continue(struct dovecot_request *r, struct span message);
void dovecot_cancel(struct dovecot_request *r);
/* Once a turn: reconnection, time limits. */
void dovecot_turn(struct dovecot *d, uint64_t now_ns, uint64_t *ret_wait_ns);

#endif
