#include "tests/sim/control.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "dataplane/inbound.h"
#include "dataplane/net/net_sim_internal.h"
#include "tests/sim/world.h"

enum { ENDS = 16384, READ = 65536, ORDER_MAX = 64 << 20 };

struct bytes {
	char *p;
	size_t n, cap;
};

/* A far end in the hands of the test. */
struct far {
	struct sim_end *end; /* NULL: given up */
	struct bytes in;     /* has come, was not told */
	struct bytes out;    /* to be sent, as the window lets it, from off */
	size_t off;
	bool fin, close;     /* after that */
	bool dialled;        /* by the worker */
	bool over;           /* its end was told */
};

static int fd;
static bool ready; /* the worker's first turn is over */
static struct far far[ENDS];
static int32_t nfar;
static uint16_t sink;
static struct order run; /* that lets time go on now; what is 0: none */
static uint64_t run_until;
static struct bytes answer;

/* ---- the socket ---- */

void control_open(int socket)
{
	fd = socket;
}

/* Several orders come at once: what is read belongs to this world, as nobody orders another one before he has seen the end of it. */
static bool get(void *to, size_t n)
{
	static char buf[READ];
	static size_t off, len;

	for (size_t done = 0, k; done < n; done += k, off += k) {
		if (off == len) {
			ssize_t r = read(fd, buf, sizeof(buf));

			if (r <= 0)
				return false;
			off = 0;
			len = (size_t)r;
		}
		k = len - off < n - done ? len - off : n - done;
		memcpy((char *)to + done, buf + off, k);
	}
	return true;
}

bool control_next(struct order *ret, const char **ret_data)
{
	static char *data;

	if (!get(ret, sizeof(*ret)))
		return false;
	CHECK(ret->n <= ORDER_MAX);
	free(data);
	data = malloc(ret->n + 1);
	CHECK(data && get(data, ret->n));
	*ret_data = data;
	return true;
}

static void put(const void *p, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = write(fd, (const char *)p + done, n - done);

		if (r < 0 && errno != EINTR)
			_exit(1);
		done += r > 0 ? (size_t)r : 0;
	}
}

void control_answer(const void *p, uint32_t n)
{
	put(&n, sizeof(n));
	put(p, n);
}

static void add(struct bytes *b, const void *p, size_t n)
{
	if (b->n + n > b->cap) {
		b->cap = 2 * (b->n + n);
		b->p = realloc(b->p, b->cap);
		CHECK(b->p);
	}
	memcpy(b->p + b->n, p, n);
	b->n += n;
}

/* ---- far ends ---- */

static int32_t far_new(struct sim_end *e, bool dialled)
{
	CHECK(nfar < ENDS);
	far[nfar] = (struct far){ .end = e, .dialled = dialled };
	return nfar++;
}

static struct far *far_of(int32_t id)
{
	CHECK(id >= 0 && id < nfar);
	return &far[id];
}

static void far_end(struct far *f)
{
	free(f->in.p);
	free(f->out.p);
	*f = (struct far){ .over = true };
}

/* Sends what goes; a close that has waited for that happens. */
static void far_push(struct far *f)
{
	while (f->end && f->off < f->out.n) {
		ssize_t r = sim_write(f->end, span_of(f->out.p + f->off, f->out.n - f->off));

		if (r == -EAGAIN)
			return;
		f->off = r < 0 ? f->out.n : f->off + (size_t)r; /* after a reset the rest is lost, as in a kernel */
	}
	if (!f->end)
		return;
	f->out.n = f->off = 0;
	if (f->close) {
		sim_close(f->end);
		far_end(f);
	} else if (f->fin) {
		sim_fin(f->end);
	}
}

static int32_t far_dial(uint16_t port, const char ip[4])
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in from = { .sin_family = AF_INET };
	struct sockaddr_storage a = { 0 }, b = { 0 };
	struct sim_end *e;

	memcpy(&from.sin_addr, ip, 4);
	memcpy(&a, &to, sizeof(to));
	memcpy(&b, &from, sizeof(from));
	return sim_dial(world.sim, &a, &b, &e) == 0 ? far_new(e, false) : -1;
}

/* ---- what there is to read ---- */

static void tell(char what, int32_t id, const void *p, uint32_t n)
{
	add(&answer, &what, 1);
	add(&answer, &id, sizeof(id));
	add(&answer, &n, sizeof(n));
	add(&answer, p, n);
}

/* What was sent together is told together: a test is not asked for each byte. */
static void read_one(int32_t id, bool last)
{
	static char buf[READ];
	struct far *f = &far[id];
	ssize_t n;

	if (!f->end || (f->dialled && f->over))
		return;
	while ((n = sim_read(f->end, buf, sizeof(buf))) > 0)
		add(&f->in, buf, (size_t)n);
	if (n == -EAGAIN && sim_peer(f->end)->under_way && !last)
		return;
	if (f->in.n)
		tell('D', id, f->in.p, (uint32_t)f->in.n);
	f->in.n = 0;
	if (n == -EAGAIN)
		return;
	f->over = true;
	tell(n == 0 ? 'E' : 'X', id, NULL, 0);
}

static void read_all(bool last)
{
	struct sim_end *e;

	while (sink && sim_accept(world.sim, sink, &e) == 0)
		tell('A', far_new(e, true), NULL, 0);
	for (int32_t i = 0; i < nfar; i++)
		if (far[i].dialled || i == run.id)
			read_one(i, last);
}

/* ---- orders ---- */

static void begin_run(const struct order *o)
{
	run = *o;
	run_until = sim_now(world.sim) + o->arg;
	answer.n = 0;
	add(&answer, "\0\0\0\0\0\0\0\0 ", 9);
}

static void end_run(char why)
{
	uint64_t now = sim_now(world.sim);

	run.what = 0;
	memcpy(answer.p, &now, sizeof(now));
	answer.p[8] = why;
	control_answer(answer.p, (uint32_t)answer.n);
}

/* Ends the run when it is over. A full round of the worker has ended before: what it had to say to what came has been said. */
static void look(void)
{
	bool over = sim_now(world.sim) >= run_until;

	for (int32_t i = 0; i < nfar; i++)
		far_push(&far[i]);
	read_all(over);
	if (answer.n > 9)
		end_run('e');
	else if (run.what == 'I' && world_is_idle())
		end_run('i');
	else if (over)
		end_run('t');
}

static void say_state(const struct order *o)
{
	uint64_t v[4] = { inbound_sessions(world.worker), net_conns(world.worker->net), world_queue(), o->id < 0 ? 0 : far_of(o->id)->out.n - far_of(o->id)->off };

	control_answer(v, sizeof(v));
}

static void to_far(const struct order *o, const char *data)
{
	struct far *f = far_of(o->id);

	if (!f->end)
		return;
	if (o->what == 'S')
		add(&f->out, data, o->n);
	f->fin = f->fin || o->what == 'F';
	f->close = f->close || o->what == 'C';
	if (o->what == 'X') {
		sim_reset(f->end);
		far_end(f);
	}
	far_push(f);
}

static void carry_out(const struct order *o, const char *data)
{
	struct sim_port *p;
	int32_t id;

	switch (o->what) {
	case 'L':
		sink = (uint16_t)o->arg;
		CHECK(sim_port_add(world.sim, sink, &p) == ST_OK);
		break;
	case 'D':
		CHECK(o->n == 4);
		id = far_dial((uint16_t)o->arg, data);
		control_answer(&id, sizeof(id));
		break;
	case 'O':
		CHECK(o->n == sizeof(struct sim_options));
		sim_set_options(world.sim, (const struct sim_options *)(const void *)data);
		break;
	case 'K':
		CHECK(o->n == 2);
		sim_set_cut(world.sim, &(struct sim_cut){ .how = (enum sim_cut_how)data[0], .by_client = data[1], .at = o->arg });
		break;
	case 'R':
	case 'I':
		begin_run(o);
		break;
	case 'Q':
		say_state(o);
		break;
	case 'E':
		world.worker->stopping = true;
		break;
	default:
		to_far(o, data);
	}
}

uint64_t control_turn(void)
{
	struct order o;
	const char *data;

	if (!ready)
		control_answer("ready", 5);
	ready = true;
	if (run.what)
		look();
	while (!run.what && !world.worker->stopping) {
		if (!control_next(&o, &data))
			_exit(0);
		carry_out(&o, data);
		if (run.what)
			look();
	}
	return run.what ? run_until - sim_now(world.sim) : 0;
}
