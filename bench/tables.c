/* Alias tables at scale: makes alias files to compile, and measures opening and look-ups in the generation in use. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include "bench/bench.h"
#include "spool/base/clock.h"
#include "spool/store/tables.h"

/* One question, with its text outside the tables, so that asking warms nothing. */
struct question {
	uint32_t local_off;
	uint16_t domain_len, local_len;
	uint32_t domain_off;
};

static FILE *create(const char *dir, const char *name)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	if (!f) {
		perror(path);
		exit(1);
	}
	return f;
}

/* Aliases of people: most go out, one in ten to a list in the next domain. */
static void make_domain(const char *dir, unsigned d, unsigned domains, unsigned aliases)
{
	char name[64];
	FILE *f;

	snprintf(name, sizeof(name), "aliases-%u", d);
	f = create(dir, name);
	fprintf(f, "# department %u\npostmaster: user0.of%u@dept%u.example\n", d, d, d);
	for (unsigned i = 0; i + 1 < aliases; i++)
		if (i % 10 == 9)
			fprintf(f, "user%u.of%u: user%u.of%u@dept%u.example,copy%u@mail.example.org\n", i, d, i - 1, (d + 1) % domains, (d + 1) % domains, i);
		else
			fprintf(f, "user%u.of%u: u%u-%u@mail.example.org\n", i, d, i, d);
	fclose(f);
}

static int make(const char *dir, unsigned domains, unsigned aliases)
{
	FILE *f;

	if (mkdir(dir, 0755) < 0 && errno != EEXIST) {
		perror(dir);
		return 1;
	}
	f = create(dir, "weir.yaml");
	fputs("mail_domains:\n", f);
	for (unsigned d = 0; d < domains; d++) {
		make_domain(dir, d, domains, aliases);
		fprintf(f, "  - {domain: dept%u.example, aliases: aliases-%u}\n", d, d);
	}
	fclose(f);
	printf("%u aliases in %u domains; %s/weir.yaml names them\n", domains * aliases, domains, dir);
	return 0;
}

static uint32_t keep(char **text, size_t *n, size_t *cap, struct span s, const char *suffix)
{
	size_t at = *n, more = s.n + strlen(suffix);

	if (*n + more > *cap) {
		*cap = (*cap + more) * 2;
		*text = realloc(*text, *cap);
		CHECK(*text);
	}
	memcpy(*text + at, s.p, s.n);
	memcpy(*text + at + s.n, suffix, more - s.n);
	*n += more;
	return (uint32_t)at;
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* The CPU time of one, in ns: on a busy machine others have the processor in between. */
static double ask(const struct tables *t, const struct question *q, const char *text, unsigned n, unsigned *ret_found)
{
	uint64_t start = cpu_ns();
	unsigned found = 0;

	for (unsigned i = 0; i < n; i++) {
		const struct tables_domain *d = tables_find_domain(t, span_of(text + q[i].domain_off, q[i].domain_len));
		const struct tables_alias *a = d ? tables_find_alias(t, d, span_of(text + q[i].local_off, q[i].local_len)) : NULL;

		/* what an expansion reads of it: the first address */
		found += a && tables_span(t, t->target[a->first_target].addr).p[0] != '\0';
	}
	*ret_found = found;
	return (double)(cpu_ns() - start) / n;
}

static void measure(const struct tables *t, unsigned n, const char *suffix)
{
	struct question *q = calloc(n, sizeof(*q));
	size_t len = 0, cap = 0;
	unsigned found = 0;
	char *text = NULL;

	CHECK(q);
	for (unsigned i = 0; i < n; i++) {
		const struct tables_alias *a = &t->alias[(uint64_t)random() % t->h->aliases.n];
		struct span domain = tables_span(t, t->domain[a->domain].name), local = tables_span(t, a->name);

		q[i].domain_len = (uint16_t)domain.n;
		q[i].local_len = (uint16_t)(local.n + strlen(suffix));
		q[i].domain_off = keep(&text, &len, &cap, domain, "");
		q[i].local_off = keep(&text, &len, &cap, local, suffix);
	}
	for (int round = 0; round < 3; round++) {
		uint64_t start = clock_mono_ns();
		double ns = ask(t, q, text, n, &found);

		printf("%s: %u look-ups, %u found, %.0f ns of CPU each, %.0f ns of time\n", *suffix ? "unknown" : "known", n, found, ns,
			(double)(clock_mono_ns() - start) / n);
	}
	free(text);
	free(q);
}

static int look(const char *run_dir, unsigned lookups)
{
	uint64_t start = clock_mono_ns();
	struct tables t;

	if (tables_open_current(run_dir, &t) != ST_OK || !t.h->aliases.n) {
		fprintf(stderr, "weir-bench: %s: %s\n", run_dir, trail_text());
		return 1;
	}
	printf("generation %llu: %llu aliases in %llu domains, %.1f MiB; opened and checked in %.1f ms\n", (unsigned long long)t.h->generation,
		(unsigned long long)t.h->aliases.n, (unsigned long long)t.h->domains.n, (double)t.bytes / (1 << 20),
		(double)(clock_mono_ns() - start) / 1e6);
	measure(&t, lookups, "");
	measure(&t, lookups, "-x");
	tables_close(&t);
	return 0;
}

int bench_tables(int argc, char **argv)
{
	static const struct option options[] = { { "make", 1, NULL, 'm' }, { "run", 1, NULL, 'r' }, { "domains", 1, NULL, 'd' },
		{ "aliases", 1, NULL, 'a' }, { "lookups", 1, NULL, 'l' }, { 0 } };
	const char *dir = NULL, *run_dir = NULL;
	unsigned domains = 5000, aliases = 200, lookups = 1000000;
	int c;

	optind = 2;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (c == 'm')
			dir = optarg;
		else if (c == 'r')
			run_dir = optarg;
		else if (c == 'd')
			domains = (unsigned)atoi(optarg);
		else if (c == 'a')
			aliases = (unsigned)atoi(optarg);
		else if (c == 'l')
			lookups = (unsigned)atoi(optarg);
		else
			return -1;
	if (!dir == !run_dir || optind != argc || !domains || !aliases || !lookups)
		return -1;
	return dir ? make(dir, domains, aliases) : look(run_dir, lookups);
}
