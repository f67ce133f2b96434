/* weir-bench spool: options, and the producers of `durable`. */
#include "bench/spool.h"

#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "spool/base/clock.h"

static int usage(void)
{
	fputs("usage: weir-bench spool durable --dir D [--way spool|file|direct] [--size BYTES] [--outstanding N] [--producers N]\n"
	      "                               [--seconds S] [--warm S] [--rate MESSAGES-A-SECOND] [--segment BYTES] [--max BYTES]\n"
	      "       weir-bench spool fill --dir D [--messages N] [--size BYTES] [--percent DEFERRED] [--tail] [--segment BYTES]\n"
	      "       weir-bench spool recover --dir D\n"
	      "       weir-bench spool compact --dir D [--percent STAYING] [--ratio RING/DEFERRED] [--size BYTES] [--messages N] [--seconds S]\n", stderr);
	return 2;
}

uint64_t cpu_self_ns(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * NS_PER_S + (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * NS_PER_US;
}

struct span bench_text(unsigned size)
{
	char *p = malloc(size + 80);

	CHECK(p);
	for (unsigned i = 0; i < size; i++)
		p[i] = (char)('a' + (i * 7 + i / 76) % 26);
	for (unsigned i = 76; i < size; i += 78)
		memcpy(p + i, "\r\n", 2);
	return span_of(p, size);
}

/* ---- measuring ---- */

void measure_begin(struct measure *m)
{
	pthread_barrier_wait(m->barrier);
	m->begin_ns = clock_mono_ns();
	m->end_ns = m->begin_ns + (uint64_t)(m->o->seconds * 1e9);
	m->begin_cpu_ns = cpu_self_ns();
	m->nlatency = 0;
}

bool measure_over(const struct measure *m)
{
	return clock_mono_ns() >= m->end_ns;
}

void measure_latency(struct measure *m, uint64_t ns)
{
	if (m->nlatency == m->latency_cap) {
		m->latency_cap = m->latency_cap ? m->latency_cap * 2 : 1 << 20;
		m->latency = realloc(m->latency, m->latency_cap * sizeof(*m->latency));
		CHECK(m->latency);
	}
	m->latency[m->nlatency++] = ns;
}

static int by_size(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static uint64_t quantile(const struct measure *m, double q)
{
	return m->nlatency ? m->latency[(uint64_t)((double)(m->nlatency - 1) * q)] : 0;
}

void measure_end(struct measure *m, uint64_t messages)
{
	*m->ret = (struct span_of_work){ .messages = messages, .ns = clock_mono_ns() - m->begin_ns, .cpu_ns = cpu_self_ns() - m->begin_cpu_ns };
	if (m->nlatency)
		qsort(m->latency, m->nlatency, sizeof(*m->latency), by_size);
	m->ret->p50_ns = quantile(m, 0.5);
	m->ret->p99_ns = quantile(m, 0.99);
	m->ret->p999_ns = quantile(m, 0.999);
	m->ret->max_ns = quantile(m, 1);
	free(m->latency);
}

/* ---- durable ---- */

struct shared {
	pthread_barrier_t barrier;
	struct span_of_work work[PRODUCERS_MAX];
};

static void report(const struct spool_options *o, const struct shared *sh)
{
	uint64_t messages = 0, cpu = 0;
	double rate = 0;

	for (unsigned i = 0; i < o->producers; i++) {
		messages += sh->work[i].messages;
		cpu += sh->work[i].cpu_ns;
		rate += (double)sh->work[i].messages * 1e9 / (double)sh->work[i].ns;
	}
	printf("way=%s size=%u outstanding=%u producers=%u messages=%llu rate=%.0f cpu_us=%.2f p50_us=%.0f p99_us=%.0f p999_us=%.0f max_us=%.0f\n",
		o->way, o->size, o->outstanding, o->producers, (unsigned long long)messages, rate,
		messages ? (double)cpu / 1e3 / (double)messages : 0, (double)sh->work[0].p50_ns / 1e3, (double)sh->work[0].p99_ns / 1e3,
		(double)sh->work[0].p999_ns / 1e3, (double)sh->work[0].max_ns / 1e3);
}

int spool_durable(const struct spool_options *o)
{
	void (*way)(struct measure *) = strcmp(o->way, "spool") == 0 ? way_spool : strcmp(o->way, "file") == 0 ? way_file :
		strcmp(o->way, "direct") == 0 ? way_direct : NULL;
	struct shared *sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_barrierattr_t attr;
	pid_t pid[PRODUCERS_MAX];
	int bad = 0, status;

	if (!way)
		return usage();
	CHECK(sh != MAP_FAILED);
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&sh->barrier, &attr, o->producers);
	for (unsigned i = 0; i < o->producers; i++)
		if ((pid[i] = fork()) == 0) {
			struct measure m = { .o = o, .producer = i, .barrier = &sh->barrier, .ret = &sh->work[i] };

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			prctl(PR_SET_TIMERSLACK, 1000);
			way(&m);
			_exit(0);
		}
	while (wait(&status) > 0) {
		for (unsigned i = 0; status && !bad && i < o->producers; i++)
			kill(pid[i], SIGKILL); /* the others would wait for it at the barrier */
		bad |= status;
	}
	if (!bad)
		report(o, sh);
	return bad != 0;
}

/* ---- options ---- */

int bench_spool(int argc, char **argv)
{
	static const struct option options[] = { { "dir", 1, NULL, 'd' }, { "way", 1, NULL, 'w' }, { "size", 1, NULL, 'z' },
		{ "outstanding", 1, NULL, 'o' }, { "producers", 1, NULL, 'p' }, { "seconds", 1, NULL, 's' }, { "warm", 1, NULL, 'W' },
		{ "rate", 1, NULL, 'r' }, { "segment", 1, NULL, 'g' }, { "max", 1, NULL, 'x' }, { "messages", 1, NULL, 'm' },
		{ "percent", 1, NULL, 'c' }, { "ratio", 1, NULL, 'R' }, { "tail", 0, NULL, 't' }, { 0 } };
	struct spool_options o = { .way = "spool", .size = 4096, .outstanding = 64, .producers = 1, .percent = 50, .messages = 10000,
		.segment_bytes = 64 << 20, .max_bytes = 16ull << 30, .seconds = 1, .warm_s = 0.5, .ratio = 4 };
	int c;

	optind = 3;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'd':
			o.dir = optarg;
			break;
		case 'w':
			o.way = optarg;
			break;
		case 'z':
			o.size = (unsigned)atoi(optarg);
			break;
		case 'o':
			o.outstanding = (unsigned)atoi(optarg);
			break;
		case 'p':
			o.producers = (unsigned)atoi(optarg);
			break;
		case 's':
			o.seconds = atof(optarg);
			break;
		case 'W':
			o.warm_s = atof(optarg);
			break;
		case 'r':
			o.rate = atof(optarg);
			break;
		case 'g':
			o.segment_bytes = strtoull(optarg, NULL, 10);
			break;
		case 'x':
			o.max_bytes = strtoull(optarg, NULL, 10);
			break;
		case 'm':
			o.messages = strtoull(optarg, NULL, 10);
			break;
		case 'c':
			o.percent = (unsigned)atoi(optarg);
			break;
		case 'R':
			o.ratio = atof(optarg);
			break;
		case 't':
			o.tail = true;
			break;
		default:
			return usage();
		}
	if (argc < 3 || !o.dir || optind != argc || !o.size || !o.outstanding || !o.producers || o.producers > PRODUCERS_MAX || o.percent > 100 ||
		o.ratio < 1)
		return usage();
	if (strcmp(argv[2], "durable") == 0)
		return spool_durable(&o);
	if (strcmp(argv[2], "fill") == 0)
		return spool_fill(&o);
	if (strcmp(argv[2], "recover") == 0)
		return spool_recover(&o);
	if (strcmp(argv[2], "compact") == 0)
		return spool_compact(&o);
	return usage();
}
