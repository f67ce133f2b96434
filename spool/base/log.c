#include "spool/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "spool/base/clock.h"

enum { BUFFER = 64 * 1024, AT_ONCE = 4096 /* PIPE_BUF: whole or not at all, also when others write there */, PATIENCE_MS = 100 };

static const char *const level_name[] = { "debug", "info", "warn", "error" };

static struct {
	int fd;
	enum log_level least;
	char who[48];
	int own_of;   /* fd was opened here, in the place of this one; -1: it was not */
	bool socket;
	bool stuck;   /* nobody reads: not waited for again before it goes on */
	bool torn;    /* a line was cut in the middle */
	uint64_t lost;
	size_t n;
	char buf[BUFFER];
} logger = { .fd = 2, .own_of = -1, .least = LOG_LVL_INFO };

/* A pipe is opened anew, so that it can be made non-blocking for us and nobody else who has it. */
static int own_pipe(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
}

void log_init(int fd, const char *program, int instance, enum log_level least)
{
	struct stat st = { 0 };

	logger.least = least;
	snprintf(logger.who, sizeof(logger.who), "%s/%d", program, instance);
	if (logger.own_of == fd) /* a child that may not open it any more goes on with its parent's */
		return;
	if (logger.own_of >= 0)
		close(logger.fd);
	logger.fd = fd;
	logger.own_of = -1;
	logger.stuck = false;
	if (fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode) && (logger.fd = own_pipe(fd)) >= 0)
		logger.own_of = fd;
	else
		logger.fd = fd;
	logger.socket = S_ISSOCK(st.st_mode);
}

/* "2026-11-21T05:00:00.123456Z"; the seconds are formatted once a second. */
static void add_time(struct out *o)
{
	static time_t last;
	static char text[24];
	uint64_t now = clock_wall_ns();
	time_t s = (time_t)(now / NS_PER_S);
	unsigned us = (unsigned)(now % NS_PER_S / NS_PER_US);
	char frac[8] = ".000000";

	if (s != last || !text[0]) {
		struct tm tm;

		gmtime_r(&s, &tm);
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
		last = s;
	}
	for (int i = 6; i > 0; i--, us /= 10)
		frac[i] = (char)('0' + us % 10);
	out_str(o, text);
	out_add(o, span_of(frac, 7));
	out_char(o, 'Z');
}

void row_begin(struct logline *l)
{
	l->level = LOG_LVL_INFO;
	l->o = out_of(l->buf, sizeof(l->buf) - 1);
}

void log_begin(struct logline *l, enum log_level level, const char *event)
{
	row_begin(l);
	l->level = level;
	if (level < logger.least)
		return;
	out_str(&l->o, "ts=");
	add_time(&l->o);
	out_str(&l->o, " level=");
	out_str(&l->o, level_name[level]);
	out_str(&l->o, " p=");
	out_str(&l->o, logger.who);
	out_str(&l->o, " event=");
	out_str(&l->o, event);
}

static bool is_plain(unsigned char c)
{
	return c > ' ' && c < 0x7f && c != '"' && c != '\\' && c != '=';
}

static void add_value(struct out *o, struct span v)
{
	static const char hex[] = "0123456789abcdef";
	bool plain = v.n > 0;

	for (size_t i = 0; i < v.n && plain; i++)
		plain = is_plain((unsigned char)v.p[i]);
	if (plain) {
		out_add(o, v);
		return;
	}
	out_char(o, '"');
	for (size_t i = 0; i < v.n; i++) {
		unsigned char c = (unsigned char)v.p[i];

		if (c == '"' || c == '\\') {
			out_char(o, '\\');
			out_char(o, (char)c);
		} else if (c >= ' ' && c < 0x7f) {
			out_char(o, (char)c);
		} else {
			out_str(o, "\\x");
			out_char(o, hex[c >> 4]);
			out_char(o, hex[c & 15]);
		}
	}
	out_char(o, '"');
}

void log_span(struct logline *l, const char *key, struct span value)
{
	struct out before = l->o;

	if (l->level < logger.least || l->o.over)
		return;
	if (l->o.n)
		out_char(&l->o, ' ');
	out_str(&l->o, key);
	out_char(&l->o, '=');
	add_value(&l->o, value);
	if (l->o.over) { /* cut at a whole field */
		l->o = before;
		l->o.over = true;
	}
}

void log_str(struct logline *l, const char *key, const char *value)
{
	log_span(l, key, span_str(value));
}

void log_u64(struct logline *l, const char *key, uint64_t value)
{
	char buf[20];
	struct out o = out_of(buf, sizeof(buf));

	out_u64(&o, value);
	log_span(l, key, out_span(&o));
}

void log_f(struct logline *l, const char *key, const char *fmt, ...)
{
	char buf[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	log_span(l, key, span_of(buf, (size_t)n < sizeof(buf) ? (size_t)n : sizeof(buf) - 1));
}

void log_emit(struct logline *l)
{
	if (l->level < logger.least)
		return;
	if (logger.n + l->o.n + 1 > BUFFER)
		log_flush();
	memcpy(logger.buf + logger.n, l->buf, l->o.n);
	logger.n += l->o.n;
	logger.buf[logger.n++] = '\n';
	if (l->level == LOG_LVL_ERROR)
		log_flush();
}

struct span row_text(struct logline *l)
{
	return out_span(&l->o);
}

static ssize_t write_some(const char *p, size_t n)
{
	if (logger.socket)
		return send(logger.fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	return write(logger.fd, p, n);
}

/* Whether it takes more within a short time. A log that nobody reads must not stop the mail, so that is waited for once. */
static bool wait_writable(void)
{
	struct pollfd p = { .fd = logger.fd, .events = POLLOUT };

	logger.stuck = poll(&p, 1, logger.stuck ? 0 : PATIENCE_MS) <= 0;
	return !logger.stuck;
}

/* Writes n bytes, at most AT_ONCE; gives how many of them went out. */
static size_t write_out(const char *p, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t w = write_some(p + done, n - done);

		if (w > 0)
			done += (size_t)w;
		else if (w == 0 || (errno != EINTR && (errno != EAGAIN || !wait_writable())))
			break;
	}
	logger.stuck = logger.stuck && done < n;
	return done;
}

/* Whole lines of p, as many as can be written at once. */
static size_t lines_at_once(const char *p, size_t n)
{
	const char *end;

	if (n <= AT_ONCE)
		return n;
	end = memrchr(p, '\n', AT_ONCE);
	return end ? (size_t)(end - p) + 1 : AT_ONCE;
}

static uint64_t count_lines(const char *p, size_t n)
{
	uint64_t lines = 0;

	for (size_t i = 0; i < n; i++)
		lines += p[i] == '\n';
	return lines;
}

/* Says how many lines are missing, and ends one that was cut. False: still nobody reads. */
static bool tell_lost(void)
{
	struct logline l;
	size_t n;

	if (logger.torn && write_out("\n", 1) != 1)
		return false;
	logger.torn = false;
	if (!logger.lost)
		return true;
	log_begin(&l, LOG_LVL_ERROR, "log-lost");
	log_u64(&l, "lines", logger.lost);
	out_char(&l.o, '\n');
	n = write_out(l.buf, l.o.n);
	logger.torn = n && n < l.o.n;
	if (n)
		logger.lost = 0;
	return n == l.o.n;
}

void log_flush(void)
{
	size_t at = 0;

	while (at < logger.n) {
		size_t n = lines_at_once(logger.buf + at, logger.n - at), done = tell_lost() ? write_out(logger.buf + at, n) : 0;

		at += done;
		if (done < n) {
			logger.torn = logger.torn || (done && logger.buf[at - 1] != '\n');
			logger.lost += count_lines(logger.buf + at, logger.n - at);
			break;
		}
	}
	logger.n = 0;
}

void log_msg(enum log_level level, const char *event, const char *fmt, ...)
{
	struct logline l;
	char buf[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	log_begin(&l, level, event);
	log_str(&l, "msg", buf);
	log_emit(&l);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* Reads a quoted value; *rest stands behind the opening quote. */
static bool quoted(struct span *rest, struct out *o)
{
	while (rest->n) {
		char c = rest->p[0];

		*rest = span_skip(*rest, 1);
		if (c == '"')
			return !o->over;
		if (c == '\\' && rest->n >= 3 && rest->p[0] == 'x') {
			int hi = hex_digit(rest->p[1]), lo = hex_digit(rest->p[2]);

			if (hi < 0 || lo < 0)
				return false;
			c = (char)(hi << 4 | lo);
			*rest = span_skip(*rest, 3);
		} else if (c == '\\' && rest->n) {
			c = rest->p[0];
			*rest = span_skip(*rest, 1);
		}
		out_char(o, c);
	}
	return false;
}

bool row_next(struct span *rest, struct span *ret_key, struct span *ret_value, char *buf, size_t cap)
{
	struct out o = out_of(buf, cap);
	size_t n = 0;

	while (rest->n && rest->p[0] == ' ')
		*rest = span_skip(*rest, 1);
	while (n < rest->n && rest->p[n] != '=' && rest->p[n] != ' ')
		n++;
	if (n == 0 || n == rest->n || rest->p[n] != '=')
		return false;
	*ret_key = span_of(rest->p, n);
	*rest = span_skip(*rest, n + 1);
	if (rest->n && rest->p[0] == '"') {
		*rest = span_skip(*rest, 1);
		if (!quoted(rest, &o))
			return false;
	} else {
		out_add(&o, span_cut(rest, ' '));
		if (o.over)
			return false;
	}
	*ret_value = out_span(&o);
	return true;
}
