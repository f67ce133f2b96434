#include "control/notices.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "control/ask.h"
#include "spool/base/clock.h"
#include "spool/base/log.h"
#include "spool/store/command.h"

enum { WAITING_MAX = 10000, ANSWER_S = 10, RETRY_S = 10 };

struct notice {
	TAILQ_ENTRY(notice) entry;
	char *to, *subject, *text, *domain;
	uint64_t key;
	notice_taken_fn *taken;
};

static TAILQ_HEAD(, notice) waiting = TAILQ_HEAD_INITIALIZER(waiting);
static unsigned nwaiting;
static int asked = -1;         /* the connection on which the first of them is offered */
static uint64_t until_ns;      /* when that is given up, or the next one begun */
static unsigned turn;          /* which worker is asked */

static void notice_free(struct notice *n)
{
	free(n->to);
	free(n->subject);
	free(n->text);
	free(n->domain);
	free(n);
}

static void drop(struct notice *n)
{
	TAILQ_REMOVE(&waiting, n, entry);
	nwaiting--;
	notice_free(n);
}

static void hang_up(void)
{
	if (asked >= 0)
		close(asked);
	asked = -1;
}

/* What waits for the same reader about the same thing is out of date, unless it is on its way already. True: it says the same, no other is needed. */
static bool replaces(const struct notice_order *o)
{
	struct notice *n, *next;

	for (n = TAILQ_FIRST(&waiting); n; n = next) {
		next = TAILQ_NEXT(n, entry);
		if (strcmp(n->to, o->to) != 0 || strcmp(n->subject, o->subject) != 0)
			continue;
		if (strcmp(n->text, o->text) == 0 || (n->key && n->key == o->key))
			return true;
		if (n != TAILQ_FIRST(&waiting) || asked < 0)
			drop(n);
	}
	return false;
}

void notices_add(const struct notice_order *o)
{
	struct notice *n;

	if (replaces(o))
		return;
	if (nwaiting == WAITING_MAX) {
		log_msg(LOG_LVL_WARN, "notice-dropped", "no worker takes mail: %u notices wait already", nwaiting);
		return;
	}
	n = calloc(1, sizeof(*n));
	CHECK(n);
	*n = (struct notice){ .to = strdup(o->to), .subject = strdup(o->subject), .text = strdup(o->text), .domain = strdup(o->domain), .key = o->key,
		.taken = o->taken };
	CHECK(n->to && n->subject && n->text && n->domain);
	TAILQ_INSERT_TAIL(&waiting, n, entry);
	nwaiting++;
}

/* The row and the text in one packet; a text that does not fit is cut at a line. */
static size_t write_request(const struct notice *n, char *packet, size_t cap)
{
	struct out o = out_of(packet, cap);
	struct logline row;
	size_t len = strlen(n->text);

	row_begin(&row);
	log_str(&row, "cmd", "notice");
	log_str(&row, "to", n->to);
	log_str(&row, "subject", n->subject);
	out_add(&o, row_text(&row));
	out_char(&o, '\n');
	if (len > cap - o.n) {
		const char *end = memrchr(n->text, '\n', cap - o.n);

		len = end ? (size_t)(end - n->text) + 1 : 0;
	}
	out_add(&o, span_of(n->text, len));
	return o.n;
}

static void offer(const char *run_dir, const struct notice *n)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	unsigned worker[64], workers = ask_workers(run_dir, worker, 64);
	char packet[COMMAND_REQUEST];
	int len;

	until_ns = clock_mono_ns() + RETRY_S * NS_PER_S;
	if (!workers)
		return;
	len = snprintf(a.sun_path, sizeof(a.sun_path), "%s/command-%u", run_dir, worker[turn++ % workers]);
	asked = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (asked < 0 || len >= (int)sizeof(a.sun_path) || connect(asked, (struct sockaddr *)&a, sizeof(a)) < 0 ||
		send(asked, packet, write_request(n, packet, sizeof(packet)), MSG_NOSIGNAL) < 0) {
		log_msg(LOG_LVL_DEBUG, "notice-waits", "%s: %s", a.sun_path, strerror(errno));
		hang_up();
		return;
	}
	until_ns = clock_mono_ns() + ANSWER_S * NS_PER_S;
}

/* True: the first notice is out of the way. */
static bool take_answer(struct notice *n)
{
	char packet[1024];
	ssize_t got = recv(asked, packet, sizeof(packet), 0);
	bool ok = got >= 6 && memcmp(packet, "end=ok", 6) == 0;

	if (got < 0 && (errno == EAGAIN || errno == EINTR) && clock_mono_ns() < until_ns)
		return false;
	hang_up();
	if (!ok) {
		until_ns = clock_mono_ns() + RETRY_S * NS_PER_S;
		log_msg(LOG_LVL_WARN, "notice-waits", "a worker does not take the mail to %s: %.*s", n->to, got > 0 ? (int)strcspn(packet, "\n") : 0, packet);
		return false;
	}
	log_msg(LOG_LVL_INFO, "notice", "to %s: %s", n->to, n->subject);
	if (n->taken)
		n->taken(n->domain, n->key);
	drop(n);
	until_ns = 0;
	return true;
}

void notices_turn(const char *run_dir)
{
	struct notice *n = TAILQ_FIRST(&waiting);

	if (!n)
		return;
	if (asked >= 0 && !take_answer(n))
		return;
	n = TAILQ_FIRST(&waiting);
	if (n && asked < 0 && clock_mono_ns() >= until_ns)
		offer(run_dir, n);
}

void notices_stop(void)
{
	hang_up();
	while (!TAILQ_EMPTY(&waiting))
		drop(TAILQ_FIRST(&waiting));
}
