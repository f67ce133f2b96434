/* How "could not" is said: an enum status that may not be ignored, and a trail of detail beside it.
 *
 * Three kinds of error are never mixed: a bug aborts through CHECK (in release too), "could not" is
 * an enum status, and "the world said no" is a value (struct reply, struct verdict), not an error.
 * Library code never logs: it sets the trail once, where the failure happened, and the agent that
 * gives up logs it once.
 *
 * Thread: the trail is one per thread. */
#ifndef WEIR_SPOOL_BASE_STATUS_H
#define WEIR_SPOOL_BASE_STATUS_H

enum [[nodiscard]] status {
	ST_OK = 0,
	ST_AGAIN,       /* not now; asked again later it may do */
	ST_FULL,        /* a configured bound is reached */
	ST_NOMEM,       /* the system has no memory */
	ST_IO,          /* the operating system failed; the trail has errno's text */
	ST_CORRUPT,     /* stored bytes are not what was written */
	ST_NOT_FOUND,
	ST_EXISTS,
	ST_INVALID,     /* input that breaks a rule of its format */
	ST_TOO_BIG,
	ST_UNSUPPORTED, /* a version or feature this machine or build lacks */
	ST_CLOSED,      /* the peer is gone */
	ST_TIMEOUT,
	ST_DENIED,
};

/* The name of a status, in lower case with dashes, for logs. Never NULL. */
const char *status_name(enum status st);

/* Replaces the thread's trail by formatted text (cut at 511 bytes) and returns st. */
enum status trail(enum status st, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Like trail() with ST_IO, and ": " strerror(err) after the text. */
enum status trail_errno(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The thread's trail; "" when nothing was set. Valid until the next trail(). */
const char *trail_text(void);

/* Logs file, line and condition to standard error and aborts. */
_Noreturn void check_failed(const char *cond, const char *file, int line);

#define CHECK(cond) ((cond) ? (void)0 : check_failed(#cond, __FILE__, __LINE__))

#endif
