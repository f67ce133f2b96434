#include "dataplane/lookup/dovecot.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "spool/base/base64.h"
#include "spool/base/clock.h"
#include "spool/mail/address.h"

enum { LINE_MAX_BYTES = 8192, OUT_MAX = 256 * 1024, MECHS_MAX = 32, MECH_NAME = 32, USER_MAX = 255 };
enum { OP_IN, OP_OUT };
#define RECONNECT_NS NS_PER_S

struct dovecot_request {
	TAILQ_ENTRY(dovecot_request) entry; /* oldest question first */
	struct dovecot *d;
	dovecot_fn *fn;
	void *ctx;
	uint32_t id;
	bool waits;           /* for Dovecot, and not for the client's next message */
	bool lost;            /* ended while the client was asked; no longer in the list */
	uint64_t deadline_ns;
};

struct dovecot {
	struct uring *uring;
	struct sockaddr_un addr;
	uint64_t timeout_ns, retry_at_ns;
	int fd;               /* -1: not connected */
	bool up, known;       /* DONE was said; and was ever said */
	bool polling_in, polling_out;
	uint32_t gen, next_id, nrequests, nmech, nmech_new;
	char mech[MECHS_MAX][MECH_NAME], mech_new[MECHS_MAX][MECH_NAME];
	TAILQ_HEAD(, dovecot_request) requests;
	size_t in_len, out_len;
	char in[LINE_MAX_BYTES], out[OUT_MAX];
};

static void request_free(struct dovecot_request *r)
{
	if (!r->lost) {
		TAILQ_REMOVE(&r->d->requests, r, entry);
		r->d->nrequests--;
	}
	free(r);
}

/* Ends a request, or lets it wait for the client. The request may be gone afterwards. */
static void answer(struct dovecot_request *r, const struct dovecot_answer *a)
{
	dovecot_fn *fn = r->fn;
	void *ctx = r->ctx;

	if (!r->waits) { /* nobody is asking now; the asker learns of it when it goes on */
		if (a->result == DOVECOT_CHALLENGE)
			return;
		TAILQ_REMOVE(&r->d->requests, r, entry);
		r->d->nrequests--;
		r->lost = true;
		return;
	}
	r->waits = false;
	if (a->result != DOVECOT_CHALLENGE)
		request_free(r);
	fn(ctx, a);
}

/* ---- the socket ---- */

static void poll_arm(struct dovecot *d, bool out)
{
	bool *armed = out ? &d->polling_out : &d->polling_in;
	struct io_uring_sqe *sqe;

	if (*armed || d->fd < 0)
		return;
	*armed = true;
	sqe = uring_sqe(d->uring);
	io_uring_prep_poll_add(sqe, d->fd, out ? POLLOUT : POLLIN);
	uring_tag(sqe, URING_DOVECOT, out ? OP_OUT : OP_IN, 0, d->gen);
}

static void disconnect(struct dovecot *d)
{
	struct dovecot_request *r, *next;

	if (d->fd < 0)
		return;
	shutdown(d->fd, SHUT_RDWR); /* so that armed polls end */
	close(d->fd);
	d->fd = -1;
	d->up = d->polling_in = d->polling_out = false;
	d->in_len = d->out_len = 0;
	d->gen = (d->gen + 1) & 0xffffff;
	d->retry_at_ns = clock_mono_ns() + RECONNECT_NS;
	for (r = TAILQ_FIRST(&d->requests); r; r = next) {
		next = TAILQ_NEXT(r, entry);
		answer(r, &(struct dovecot_answer){ .result = DOVECOT_TROUBLE });
	}
}

/* A broken connection is not dealt with here, within somebody's question: the reader sees its end. */
static void flush(struct dovecot *d)
{
	ssize_t n;

	if (d->fd < 0 || !d->out_len)
		return;
	n = send(d->fd, d->out, d->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0) {
		d->out_len -= (size_t)n;
		memmove(d->out, d->out + n, d->out_len);
		explicit_bzero(d->out + d->out_len, (size_t)n); /* passwords were in it */
	}
	if (d->out_len && (n > 0 || errno == EAGAIN || errno == EINTR))
		poll_arm(d, true);
}

static bool say(struct dovecot *d, struct span line)
{
	if (d->fd < 0 || line.n > OUT_MAX - d->out_len)
		return false;
	memcpy(d->out + d->out_len, line.p, line.n);
	d->out_len += line.n;
	flush(d);
	return true;
}

static void try_connect(struct dovecot *d)
{
	char line[64];
	struct out o = out_of(line, sizeof(line));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	d->retry_at_ns = clock_mono_ns() + RECONNECT_NS;
	if (fd < 0 || connect(fd, (struct sockaddr *)&d->addr, sizeof(d->addr)) < 0) { /* a Unix socket connects at once, or does not */
		if (fd >= 0)
			close(fd);
		return;
	}
	d->fd = fd;
	d->nmech_new = 0;
	poll_arm(d, false);
	out_fmt(&o, "VERSION\t1\t2\nCPID\t%d\n", (int)getpid());
	say(d, out_span(&o));
}

/* ---- what it says ---- */

/* \001 stands before 0, 1, t, r, n for NUL, \001, TAB, CR, LF. */
static struct span unescape(struct span s, struct out *o)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == 1 && i + 1 < s.n) {
			c = s.p[++i];
			c = c == '0' ? '\0' : c == '1' ? 1 : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'n' ? '\n' : c;
		}
		out_char(o, c);
	}
	return out_span(o);
}

static bool take_value(struct span field, const char *key, struct span *ret)
{
	struct span k = span_str(key);

	if (field.n < k.n || memcmp(field.p, k.p, k.n) != 0)
		return false;
	*ret = span_skip(field, k.n);
	return true;
}

static struct dovecot_request *request_of(struct dovecot *d, struct span id)
{
	struct dovecot_request *r;
	uint64_t n;

	if (!span_u64(id, UINT32_MAX, &n))
		return NULL;
	TAILQ_FOREACH(r, &d->requests, entry)
		if (r->id == n)
			return r;
	return NULL;
}

static void on_ok(struct dovecot_request *r, struct span rest)
{
	struct dovecot_answer a = { .result = DOVECOT_TROUBLE }; /* without a name it is nobody */
	char user[USER_MAX];
	struct out o = out_of(user, sizeof(user));
	struct span field, value;

	while (rest.p) {
		field = span_cut(&rest, '\t');
		if (take_value(field, "user=", &value) && !o.n)
			a.user = unescape(value, &o);
	}
	if (a.user.n && !o.over)
		a.result = DOVECOT_OK;
	answer(r, &a);
}

static void on_fail(struct dovecot_request *r, struct span rest)
{
	struct dovecot_answer a = { .result = DOVECOT_NO };

	while (rest.p) {
		struct span field = span_cut(&rest, '\t');

		if (span_eq(field, SPAN("temp")) || span_eq(field, SPAN("code=temp_fail")))
			a.result = DOVECOT_TROUBLE;
	}
	answer(r, &a);
}

static void on_cont(struct dovecot_request *r, struct span text)
{
	struct dovecot_answer a = { .result = DOVECOT_CHALLENGE };
	char raw[DOVECOT_MESSAGE_MAX];
	struct out o = out_of(raw, sizeof(raw));

	if (base64_decode(text, &o) != ST_OK || o.over)
		a.result = DOVECOT_TROUBLE;
	a.challenge = out_span(&o);
	answer(r, &a);
}

static void on_mech(struct dovecot *d, struct span rest)
{
	struct out o;

	if (d->nmech_new == MECHS_MAX)
		return;
	o = out_of(d->mech_new[d->nmech_new], MECH_NAME - 1);
	out_add(&o, span_cut(&rest, '\t'));
	o.p[o.n] = '\0';
	d->nmech_new += !o.over;
}

/* False: it is not what we speak. */
static bool on_line(struct dovecot *d, struct span line)
{
	struct span rest = line, word = span_cut(&rest, '\t');
	struct dovecot_request *r;

	if (span_eq(word, SPAN("VERSION")))
		return span_eq(span_cut(&rest, '\t'), SPAN("1"));
	if (span_eq(word, SPAN("MECH"))) {
		on_mech(d, rest);
	} else if (span_eq(word, SPAN("DONE"))) {
		memcpy(d->mech, d->mech_new, sizeof(d->mech));
		d->nmech = d->nmech_new;
		d->up = d->known = true;
	} else if (span_eq(word, SPAN("OK")) || span_eq(word, SPAN("FAIL")) || span_eq(word, SPAN("CONT"))) {
		r = request_of(d, span_cut(&rest, '\t'));
		if (!r)
			return true; /* cancelled meanwhile */
		if (word.p[0] == 'O')
			on_ok(r, rest);
		else if (word.p[0] == 'F')
			on_fail(r, rest);
		else
			on_cont(r, span_cut(&rest, '\t'));
	}
	return true; /* SPID, CUID, COOKIE, and what later versions say */
}

static void read_lines(struct dovecot *d)
{
	size_t at = 0;
	uint32_t gen = d->gen;
	const char *nl;

	while ((nl = memchr(d->in + at, '\n', d->in_len - at))) {
		struct span line = span_of(d->in + at, (size_t)(nl - d->in) - at);

		at += line.n + 1;
		if (!on_line(d, line))
			disconnect(d);
		if (d->gen != gen)
			return;
	}
	d->in_len -= at;
	memmove(d->in, d->in + at, d->in_len);
	if (d->in_len == sizeof(d->in))
		disconnect(d); /* no such long line */
}

static void on_readable(struct dovecot *d)
{
	uint32_t gen = d->gen;
	ssize_t n = recv(d->fd, d->in + d->in_len, sizeof(d->in) - d->in_len, MSG_DONTWAIT);

	if (n > 0) {
		d->in_len += (size_t)n;
		read_lines(d);
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		disconnect(d);
	}
	if (d->gen == gen)
		poll_arm(d, false);
}

static void on_completion(void *ctx, const struct uring_event *ev)
{
	struct dovecot *d = ctx;

	if (ev->gen != d->gen || d->fd < 0)
		return;
	if (ev->op == OP_IN) {
		d->polling_in = false;
		on_readable(d);
	} else {
		d->polling_out = false;
		flush(d);
	}
}

/* ---- begin and end ---- */

enum status dovecot_new(struct uring *u, const char *path, uint64_t timeout_ns, struct dovecot **ret)
{
	struct dovecot *d;

	if (strlen(path) >= sizeof(d->addr.sun_path))
		return trail(ST_INVALID, "%s: the path of a socket is shorter", path);
	d = calloc(1, sizeof(*d));
	if (!d)
		return ST_NOMEM;
	d->uring = u;
	d->addr.sun_family = AF_UNIX;
	memcpy(d->addr.sun_path, path, strlen(path) + 1);
	d->timeout_ns = timeout_ns;
	d->fd = -1;
	TAILQ_INIT(&d->requests);
	uring_handle(u, URING_DOVECOT, on_completion, d);
	try_connect(d);
	*ret = d;
	return ST_OK;
}

void dovecot_free(struct dovecot *d)
{
	struct dovecot_request *r;

	if (!d)
		return;
	while ((r = TAILQ_FIRST(&d->requests)))
		request_free(r);
	disconnect(d);
	uring_handle(d->uring, URING_DOVECOT, NULL, NULL);
	explicit_bzero(d->out, sizeof(d->out));
	free(d);
}

bool dovecot_is_up(const struct dovecot *d)
{
	return d->up;
}

bool dovecot_is_known(const struct dovecot *d)
{
	return d->known;
}

bool dovecot_has(const struct dovecot *d, const char *mech)
{
	for (uint32_t i = 0; i < d->nmech; i++)
		if (strcmp(d->mech[i], mech) == 0)
			return true;
	return false;
}

/* ---- requests ---- */

static void write_auth(const struct dovecot_request *r, const struct dovecot_facts *f, struct out *o)
{
	out_fmt(o, "AUTH\t%u\t%s\tservice=smtp\tnologin\tlip=", r->id, f->mech);
	ip_write(f->local_ip, o);
	out_str(o, "\trip=");
	ip_write(f->client_ip, o);
	/* resp= is the last by the protocol */
	out_fmt(o, "\tlport=%u\trport=%u\tsecured\tresp=", f->local_port, f->client_port);
	base64_encode(f->initial, o);
	out_char(o, '\n');
}

enum status dovecot_auth(struct dovecot *d, const struct dovecot_facts *f, dovecot_fn *fn, void *ctx, struct dovecot_request **ret)
{
	char line[BASE64_LEN(DOVECOT_MESSAGE_MAX) + 400];
	struct out o = out_of(line, sizeof(line));
	struct dovecot_request *r;
	bool said;

	if (!d->up)
		return trail(ST_CLOSED, "the authentication socket is not connected");
	if (d->nrequests >= DOVECOT_REQUESTS_MAX || !(r = calloc(1, sizeof(*r))))
		return trail(ST_FULL, "too many logins are under way");
	d->next_id = d->next_id % INT32_MAX + 1;
	*r = (struct dovecot_request){ .d = d, .fn = fn, .ctx = ctx, .id = d->next_id, .waits = true,
		.deadline_ns = clock_mono_ns() + d->timeout_ns };
	write_auth(r, f, &o);
	said = !o.over && say(d, out_span(&o));
	explicit_bzero(line, sizeof(line));
	if (!said) {
		free(r);
		return trail(ST_FULL, "the authentication socket is full");
	}
	TAILQ_INSERT_TAIL(&d->requests, r, entry);
	d->nrequests++;
	*ret = r;
	return ST_OK;
}

enum status dovecot_continue(struct dovecot_request *r, struct span message)
{
	char line[BASE64_LEN(DOVECOT_MESSAGE_MAX) + 40];
	struct out o = out_of(line, sizeof(line));
	struct dovecot *d = r->d;

	out_fmt(&o, "CONT\t%u\t", r->id);
	base64_encode(message, &o);
	out_char(&o, '\n');
	if (r->lost || o.over || !say(d, out_span(&o))) {
		request_free(r);
		return trail(ST_CLOSED, "the authentication server gave the exchange up");
	}
	r->waits = true;
	r->deadline_ns = clock_mono_ns() + d->timeout_ns;
	TAILQ_REMOVE(&d->requests, r, entry);
	TAILQ_INSERT_TAIL(&d->requests, r, entry);
	return ST_OK;
}

static void say_cancel(struct dovecot_request *r)
{
	char line[40];
	struct out o = out_of(line, sizeof(line));

	out_fmt(&o, "CANCEL\t%u\n", r->id);
	if (!r->lost)
		say(r->d, out_span(&o));
}

void dovecot_cancel(struct dovecot_request *r)
{
	say_cancel(r);
	request_free(r);
}

/* Requests whose client is asked have no limit here: the session has its own. They stand anywhere in the list. */
static uint64_t expire(struct dovecot *d, uint64_t now_ns)
{
	struct dovecot_request *r, *next;

	for (r = TAILQ_FIRST(&d->requests); r; r = next) {
		next = TAILQ_NEXT(r, entry);
		if (!r->waits)
			continue;
		if (r->deadline_ns > now_ns)
			return r->deadline_ns - now_ns;
		say_cancel(r);
		answer(r, &(struct dovecot_answer){ .result = DOVECOT_TROUBLE });
		next = TAILQ_FIRST(&d->requests); /* the answer may have changed the list */
	}
	return UINT64_MAX;
}

void dovecot_turn(struct dovecot *d, uint64_t now_ns, uint64_t *ret_wait_ns)
{
	if (d->fd < 0 && d->retry_at_ns <= now_ns)
		try_connect(d);
	*ret_wait_ns = expire(d, now_ns);
	if (d->fd < 0) {
		uint64_t wait = d->retry_at_ns > now_ns ? d->retry_at_ns - now_ns : 0;

		*ret_wait_ns = wait < *ret_wait_ns ? wait : *ret_wait_ns;
	}
}
