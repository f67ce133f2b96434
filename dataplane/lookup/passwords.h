/* The password file: who there is, and checks of passwords that do not hold up the loop.
 *
 * crypt(3) takes tens of milliseconds by design, so it runs on one helper thread with a bounded queue. A thread and not a process: the work is a pure function
 * of a copy of the hash and the password, which this process has anyway; there is no privilege to part with, nothing to supervise, and nothing to send through a pipe.
 * The thread touches its jobs and nothing else. When the queue is full the answer is "try again".
 *
 * Somebody who does not exist, or may not log in, is treated like somebody who does, with the hash or verifier of a user that stands in (chosen by a keyed hash of the
 * name, always the same one): the same functions run with costs that real users have, and then the answer is no. The salt that SCRAM shows for such a name comes from the same key, which all
 * nodes share, so that it does not change from node to node or from day to day.
 *
 * Owner: the worker. Thread: one (and the helper, inside). Fails: without a readable file the last good table stays; without any, ST_CLOSED. */
#ifndef WEIR_DATAPLANE_LOOKUP_PASSWORDS_H
#define WEIR_DATAPLANE_LOOKUP_PASSWORDS_H

#include "spool/base/uring.h"
#include "spool/mail/passline.h"

enum { PASSWORDS_QUEUE_MAX = 64 };

struct passwords;
struct password_check;

/* Says what is wrong with the file: line 0 is the file as a whole. */
typedef void passwords_complain_fn(void *ctx, const char *path, unsigned line, const char *text);
typedef void password_fn(void *ctx, bool good);

/* The key for stand-ins is in secret_file, which is made when it is missing. */
enum status passwords_new(struct uring *u, const char *secret_file, struct passwords **ret);
void passwords_free(struct passwords *p);
/* Reads the file when it is another one than last time (name, inode, time, size). A bad line is left out and complained about, the others count. "" forgets all users. */
void passwords_watch(struct passwords *p, const char *path, passwords_complain_fn *complain, void *ctx);
struct passwords_state {
	uint32_t users;
	uint32_t bad_lines;
	bool readable;  /* the file, when last looked at */
	bool all_scram; /* everybody who may log in has a verifier */
};
struct passwords_state passwords_state(const struct passwords *p);

/* Checks on the helper thread; fn is called from uring_wait unless cancelled. ST_FULL: the queue is; ST_CLOSED: there are no passwords. The password is copied, and wiped afterwards. */
enum status passwords_check(struct passwords *p, struct span user, struct span password, password_fn *fn, void *ctx, struct password_check **ret);
void passwords_cancel(struct password_check *c);
/* The verifier of a user, at once. *ret_decoy: it stands in for one that does not exist. ST_CLOSED: there are no passwords. */
enum status passwords_verifier(struct passwords *p, struct span user, struct scram_verifier *ret, bool *ret_decoy);

#endif
