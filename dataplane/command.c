#include "dataplane/command_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "dataplane/inbound.h"
#include "dataplane/notice.h"
#include "dataplane/rehearse.h"
#include "dataplane/scan.h"
#include "dataplane/verify_ask.h"
#include "spool/base/counters.h"

enum command_op { OP_ACCEPT, OP_REQUEST, OP_SENT };

/* ---- the answer ---- */

void command_row(struct asker *a, struct logline *row)
{
	struct span s = row_text(row);

	if (a->len + s.n + 1 > a->cap) {
		size_t cap = a->cap ? a->cap * 2 : 8192;
		char *bigger;

		while (cap < a->len + s.n + 1)
			cap *= 2;
		bigger = realloc(a->answer, cap);
		if (!bigger)
			return;
		a->answer = bigger;
		a->cap = cap;
	}
	memcpy(a->answer + a->len, s.p, s.n);
	a->len += s.n;
	a->answer[a->len++] = '\n';
}

static void answer_end(struct asker *a, const char *error)
{
	struct logline row;

	row_begin(&row);
	log_str(&row, "end", error ? "error" : "ok");
	if (error)
		log_str(&row, "msg", error);
	command_row(a, &row);
}

static void asker_close(struct asker *a)
{
	if (a->query)
		shared_cancel(a->query);
	if (a->dns)
		dns_cancel(a->dns);
	rehearse_free(a->rehearsal);
	verify_ask_free(a->verifies);
	close(a->fd);
	free(a->answer);
	a->answer = NULL;
	a->query = NULL;
	a->dns = NULL;
	a->rehearsal = NULL;
	a->verifies = NULL;
	a->used = false;
	a->gen++;
}

/* Sends the next packet: whole rows, at most COMMAND_PACKET bytes. */
static void asker_send(struct command *c, struct asker *a)
{
	size_t n = a->len - a->sent;
	struct io_uring_sqe *sqe;

	if (n == 0) {
		asker_close(a);
		return;
	}
	if (n > COMMAND_PACKET) {
		n = COMMAND_PACKET;
		while (a->answer[a->sent + n - 1] != '\n')
			n--; /* a row is far shorter than a packet */
	}
	a->packet = n;
	sqe = uring_sqe(&c->w->uring);
	io_uring_prep_send(sqe, a->fd, a->answer + a->sent, n, MSG_NOSIGNAL);
	uring_tag(sqe, URING_CTL, OP_SENT, (uint32_t)(a - c->asker), a->gen);
}

void command_answered(struct asker *a)
{
	answer_end(a, NULL);
	asker_send(a->command, a);
}

/* ---- arguments ---- */

static bool parse_request(struct asker *a, struct span text)
{
	struct span key, value;
	char buf[512];

	a->nargs = 0;
	while (a->nargs < ARGS_MAX && row_next(&text, &key, &value, buf, sizeof(buf) - 1)) {
		struct arg *g = &a->arg[a->nargs++];
		struct out k = out_of(g->key, sizeof(g->key) - 1), v = out_of(g->value, sizeof(g->value) - 1);

		out_add(&k, key);
		out_add(&v, value);
		g->key[k.n] = g->value[v.n] = '\0';
	}
	return a->nargs > 0;
}

const char *command_arg(const struct asker *a, const char *key)
{
	for (unsigned i = 0; i < a->nargs; i++)
		if (strcmp(a->arg[i].key, key) == 0)
			return a->arg[i].value;
	return NULL;
}

/* ---- commands ---- */

static const char *cmd_status(struct command *c, struct asker *a)
{
	struct worker *w = c->w;
	struct logline row;

	row_begin(&row);
	log_str(&row, "kind", "worker");
	log_u64(&row, "index", w->opt->index);
	log_u64(&row, "pid", (uint64_t)getpid());
	log_u64(&row, "generation", w->cfg->snap.h->generation);
	log_u64(&row, "tables", c->w->tables.h ? c->w->tables.h->generation : 0);
	log_str(&row, "transport", w->cfg->set->transport == NET_DPDK ? "dpdk" : "io_uring");
	log_str(&row, "defer_taskrun", w->uring.defer_taskrun ? "yes" : "no");
	log_u64(&row, "sessions", inbound_sessions(w));
	log_str(&row, "accepts", w->gate.aside ? "no, another worker does" : w->gate.closed ? "paused" : "yes");
	log_str(&row, "starttls", w->cfg->tls_server ? "yes" : "no");
	command_row(a, &row);
	for (uint32_t i = 0; i < w->nstore; i++) {
		row_begin(&row);
		log_str(&row, "kind", "spool");
		store_describe(w->store[i], &row);
		command_row(a, &row);
	}
	row_begin(&row);
	scan_describe(w->scan, &row);
	command_row(a, &row);
	row_begin(&row);
	log_str(&row, "kind", "redis");
	log_str(&row, "up", shared_is_up(w->shared) ? "yes" : "no");
	log_u64(&row, "fallbacks", counter_get(C_REDIS_FALLBACKS));
	command_row(a, &row);
	return NULL;
}

/* What is behind the row of the request is the text. */
static const char *cmd_notice(struct command *c, struct asker *a)
{
	struct span text = span_of(a->request, a->request_len);

	span_cut(&text, '\n');
	return notice_send(c->w, command_arg(a, "to"), command_arg(a, "subject"), text);
}

static const char *dispatch(struct command *c, struct asker *a)
{
	const char *cmd = command_arg(a, "cmd");

	if (!cmd)
		return "no cmd= in the request";
	if (strcmp(cmd, "status") == 0)
		return cmd_status(c, a);
	if (strcmp(cmd, "queue.index") == 0)
		return queue_index(c, a);
	if (strcmp(cmd, "queue.list") == 0)
		return queue_walk(a, NULL);
	if (strcmp(cmd, "queue.show") == 0)
		return command_arg(a, "id") ? queue_walk(a, NULL) : "id is missing";
	for (const char *const *act = (const char *const[]){ "retry", "hold", "release", "delete", NULL }; *act; act++)
		if (strncmp(cmd, "queue.", 6) == 0 && strcmp(cmd + 6, *act) == 0)
			return command_arg(a, "id") || command_arg(a, "all") ? queue_walk(a, *act) : "id or all is missing";
	if (strcmp(cmd, "holds") == 0)
		return question_holds(c, a);
	if (strcmp(cmd, "rate.explain") == 0)
		return question_rate(c, a);
	if (strcmp(cmd, "verify.show") == 0)
		return question_verify(c, a);
	if (strcmp(cmd, "verify.ask") == 0)
		return question_verify_ask(c, a);
	if (strcmp(cmd, "verify.forget") == 0)
		return verify_forget(c->w, command_arg(a, "what"));
	if (strcmp(cmd, "dns") == 0)
		return question_dns(c, a);
	if (strcmp(cmd, "notice") == 0)
		return cmd_notice(c, a);
	if (strcmp(cmd, "route") == 0)
		return question_route(c, a);
	if (strcmp(cmd, "explain") == 0)
		return question_explain(c, a);
	return "no such command";
}

/* ---- the socket ---- */

static void accept_arm(struct command *c)
{
	struct io_uring_sqe *sqe = uring_sqe(&c->w->uring);

	io_uring_prep_accept(sqe, c->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	uring_tag(sqe, URING_CTL, OP_ACCEPT, 0, 0);
}

static void asker_new(struct command *c, int fd)
{
	struct io_uring_sqe *sqe;
	struct asker *a;
	uint32_t i;

	for (i = 0; i < ASKERS && c->asker[i].used; i++)
		;
	if (i == ASKERS) {
		close(fd);
		return;
	}
	a = &c->asker[i];
	*a = (struct asker){ .command = c, .fd = fd, .gen = a->gen, .used = true };
	sqe = uring_sqe(&c->w->uring);
	io_uring_prep_recv(sqe, fd, a->request, sizeof(a->request), 0);
	uring_tag(sqe, URING_CTL, OP_REQUEST, i, a->gen);
}

static void on_request(struct command *c, struct asker *a, int n)
{
	struct span text = span_of(a->request, n > 0 ? (size_t)n : 0);
	const char *error;

	if (n <= 0) {
		asker_close(a);
		return;
	}
	a->request_len = (size_t)n;
	error = parse_request(a, span_cut(&text, '\n')) ? dispatch(c, a) : "the request is not a row of key=value";
	if (a->waits)
		return;
	answer_end(a, error);
	asker_send(c, a);
}

static void on_completion(void *ctx, const struct uring_event *ev)
{
	struct command *c = ctx;
	struct asker *a = &c->asker[ev->slot % ASKERS];

	if (ev->op == OP_ACCEPT) {
		c->accept_rests = ev->res < 0;
		if (ev->res >= 0) {
			asker_new(c, ev->res);
			accept_arm(c);
		}
		return;
	}
	if (!a->used || (a->gen & 0xffffff) != ev->gen)
		return;
	if (ev->op == OP_REQUEST) {
		on_request(c, a, ev->res);
	} else if (ev->res < 0) {
		asker_close(a);
	} else {
		a->sent += a->packet;
		asker_send(c, a);
	}
}

void command_tick(struct worker *w)
{
	if (w->command->accept_rests)
		accept_arm(w->command);
	w->command->accept_rests = false;
}

enum status command_new(struct worker *w, struct command **ret)
{
	struct command *c = calloc(1, sizeof(*c));
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int n = snprintf(a.sun_path, sizeof(a.sun_path), "%s/command-%u", w->opt->run_dir, w->opt->index);
	enum status st;

	if (!c)
		return ST_NOMEM;
	c->w = w;
	c->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (n < 0 || (size_t)n >= sizeof(a.sun_path))
		errno = ENAMETOOLONG;
	else if (c->listen_fd >= 0) {
		mode_t old = umask(0177);

		unlink(a.sun_path);
		n = bind(c->listen_fd, (struct sockaddr *)&a, sizeof(a));
		umask(old);
		if (n == 0 && listen(c->listen_fd, ASKERS) == 0) {
			uring_handle(&w->uring, URING_CTL, on_completion, c);
			accept_arm(c);
			*ret = c;
			return ST_OK;
		}
	}
	st = trail_errno(errno, "%s", a.sun_path);
	if (c->listen_fd >= 0)
		close(c->listen_fd);
	free(c);
	return st;
}

void command_free(struct command *c)
{
	if (!c)
		return;
	for (uint32_t i = 0; i < ASKERS; i++)
		if (c->asker[i].used)
			asker_close(&c->asker[i]);
	shutdown(c->listen_fd, SHUT_RDWR);
	close(c->listen_fd);
	free(c);
}
