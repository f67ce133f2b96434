/* Structured events, one logfmt line each: ts=... level=... event=... key=value ...
 *
 * The same writer and reader serve the log, the answers of a worker on its command socket and weirctl. Values are quoted when they need to
 * be; control characters and bytes above 0x7e are written as \xNN, so that no input can forge a line
 * (P24). Lines are buffered and written by log_flush, which an agent calls once per turn of its loop
 * (and log_emit itself when the buffer is full, and at once for level error). Lines go out whole, also beside other processes on the same pipe. A
 * reader that sleeps is waited for a tenth of a second, once; then lines are lost, and event=log-lost says how many as soon as it reads again.
 *
 * Thread: one per process. */
#ifndef WEIR_SPOOL_BASE_LOG_H
#define WEIR_SPOOL_BASE_LOG_H

#include "spool/base/span.h"

enum log_level { LOG_LVL_DEBUG, LOG_LVL_INFO, LOG_LVL_WARN, LOG_LVL_ERROR };

/* Writes to fd from now on (default 2); `program` and `instance` are on every line (p=dataplane/0). */
void log_init(int fd, const char *program, int instance, enum log_level least);

struct logline {
	struct out o;
	enum log_level level;
	char buf[2048]; /* what does not fit is cut at a whole field */
};

/* Begins a line with ts, level, p and event. */
void log_begin(struct logline *l, enum log_level level, const char *event);
/* Begins an empty row (no ts, level, p, event): for answers that are not log lines. */
void row_begin(struct logline *l);
void log_span(struct logline *l, const char *key, struct span value);
void log_str(struct logline *l, const char *key, const char *value);
void log_u64(struct logline *l, const char *key, uint64_t value);
void log_f(struct logline *l, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Ends the line and hands it to the buffer. */
void log_emit(struct logline *l);
/* The row's text without line end; valid as long as l. */
struct span row_text(struct logline *l);
void log_flush(void);
/* Shorthand: an event with only msg="...". */
void log_msg(enum log_level level, const char *event, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Reads one key=value pair off *rest and unescapes it into buf (cap bytes). False at the end or when malformed. */
bool row_next(struct span *rest, struct span *ret_key, struct span *ret_value, char *buf, size_t cap);

#endif
