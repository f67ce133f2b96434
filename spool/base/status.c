#include "spool/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char trail_buf[512];

const char *status_name(enum status st)
{
	static const char *const name[] = {
		[ST_OK] = "ok", [ST_AGAIN] = "again", [ST_FULL] = "full", [ST_NOMEM] = "out-of-memory", [ST_IO] = "io-error",
		[ST_CORRUPT] = "corrupt", [ST_NOT_FOUND] = "not-found", [ST_EXISTS] = "exists", [ST_INVALID] = "invalid",
		[ST_TOO_BIG] = "too-big", [ST_UNSUPPORTED] = "unsupported", [ST_CLOSED] = "closed", [ST_TIMEOUT] = "timeout",
		[ST_DENIED] = "denied",
	};

	return (size_t)st < sizeof(name) / sizeof(name[0]) ? name[st] : "unknown";
}

enum status trail(enum status st, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(trail_buf, sizeof(trail_buf), fmt, ap);
	va_end(ap);
	return st;
}

enum status trail_errno(int err, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(trail_buf, sizeof(trail_buf), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(trail_buf)) {
		char text[128];

		snprintf(trail_buf + n, sizeof(trail_buf) - (size_t)n, ": %s", strerror_r(err, text, sizeof(text)));
	}
	return ST_IO;
}

const char *trail_text(void)
{
	return trail_buf;
}

void check_failed(const char *cond, const char *file, int line)
{
	fprintf(stderr, "%s:%d: check failed: %s\n", file, line, cond);
	abort();
}
