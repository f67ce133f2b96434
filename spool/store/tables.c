#include "spool/store/tables.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* ---- checking: everything once, so that nothing need be checked later ---- */

static bool str_ok(const struct tables *t, struct snap_str s)
{
	uint64_t n = t->h->strings.n;

	return s.off < n && s.len < n - s.off && t->strings[s.off + s.len] == '\0';
}

static bool range_ok(uint32_t first, uint32_t n, uint64_t all)
{
	return first <= all && n <= all - first;
}

static bool section_ok(const struct tables *t, struct tables_section s, size_t item)
{
	return s.off >= sizeof(struct tables_header) && s.off % 8 == 0 && s.off <= t->bytes && s.n < TABLES_NONE &&
		s.n <= (t->bytes - s.off) / item;
}

static bool sections_ok(const struct tables *t)
{
	const struct tables_header *h = t->h;

	return section_ok(t, h->domains, sizeof(struct tables_domain)) && section_ok(t, h->aliases, sizeof(struct tables_alias)) &&
		section_ok(t, h->targets, sizeof(struct tables_target)) && section_ok(t, h->sources, sizeof(struct tables_source)) &&
		section_ok(t, h->domain_slots, sizeof(struct tables_slot)) &&
		section_ok(t, h->alias_slots, sizeof(struct tables_slot)) && section_ok(t, h->strings, 1);
}

static bool domain_ok(const struct tables *t, const struct tables_domain *d)
{
	const struct tables_header *h = t->h;

	if (!str_ok(t, d->name) || !str_ok(t, d->text) || d->kind >= DOMAIN_NKIND ||
		!range_ok(d->first_alias, d->naliases, h->aliases.n) || !range_ok(d->first_target, d->ntargets, h->targets.n))
		return false;
	if (d->kind == DOMAIN_LONG_FORM)
		return d->short_form < h->domains.n && t->domain[d->short_form].kind != DOMAIN_LONG_FORM;
	return true;
}

static bool target_ok(const struct tables *t, const struct tables_target *g)
{
	return str_ok(t, g->addr) && g->local_len && g->local_len < g->addr.len && t->strings[g->addr.off + g->local_len] == '@' &&
		(g->domain == TABLES_NONE || g->domain < t->h->domains.n);
}

static bool rows_ok(const struct tables *t)
{
	const struct tables_header *h = t->h;

	for (uint64_t i = 0; i < h->domains.n; i++)
		if (!domain_ok(t, &t->domain[i]))
			return false;
	for (uint64_t i = 0; i < h->aliases.n; i++) {
		const struct tables_alias *a = &t->alias[i];

		if (!str_ok(t, a->name) || a->domain >= h->domains.n || a->source >= h->sources.n ||
			!range_ok(a->first_target, a->ntargets, h->targets.n))
			return false;
	}
	for (uint64_t i = 0; i < h->targets.n; i++)
		if (!target_ok(t, &t->target[i]))
			return false;
	for (uint64_t i = 0; i < h->sources.n; i++)
		if (!str_ok(t, t->source[i].path))
			return false;
	return true;
}

/* A power of two, every reference good, and an empty slot: without one a look-up would not end. */
static bool slots_ok(const struct tables_slot *slot, uint64_t n, uint64_t items)
{
	uint64_t empty = 0;

	if (!n || (n & (n - 1)))
		return false;
	for (uint64_t i = 0; i < n; i++) {
		if (slot[i].index > items)
			return false;
		empty += !slot[i].index;
	}
	return empty > 0;
}

enum status tables_check(const void *p, size_t n, const char *name, struct tables *ret)
{
	struct tables t = { .h = p, .bytes = n };
	const struct tables_header *h = p;
	const char *base = p;

	if (n < sizeof(*h) || h->magic != TABLES_MAGIC)
		return trail(ST_CORRUPT, "%s is not a generation of tables", name);
	if (h->version != TABLES_VERSION || h->header_size != sizeof(*h))
		return trail(ST_UNSUPPORTED, "%s was made by another version of weir-control", name);
	if (h->bytes != n || h->checksum != XXH3_64bits(base + offsetof(struct tables_header, generation),
					  n - offsetof(struct tables_header, generation)))
		return trail(ST_CORRUPT, "%s is damaged", name);
	if (!sections_ok(&t))
		return trail(ST_CORRUPT, "%s has sections that lead nowhere", name);
	t.domain = (const void *)(base + h->domains.off);
	t.alias = (const void *)(base + h->aliases.off);
	t.target = (const void *)(base + h->targets.off);
	t.source = (const void *)(base + h->sources.off);
	t.domain_slot = (const void *)(base + h->domain_slots.off);
	t.alias_slot = (const void *)(base + h->alias_slots.off);
	t.strings = base + h->strings.off;
	if (!rows_ok(&t) || !slots_ok(t.domain_slot, h->domain_slots.n, h->domains.n) ||
		!slots_ok(t.alias_slot, h->alias_slots.n, h->aliases.n))
		return trail(ST_CORRUPT, "%s has references that lead nowhere", name);
	*ret = t;
	return ST_OK;
}

/* ---- opening ---- */

enum status tables_open(const char *path, struct tables *ret)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat sb;
	enum status st;
	void *p;

	if (fd < 0) {
		st = trail_errno(errno, "%s", path);
		return errno == ENOENT ? ST_NOT_FOUND : st;
	}
	if (fstat(fd, &sb) < 0 || sb.st_size < (off_t)sizeof(struct tables_header)) {
		close(fd);
		return trail(ST_CORRUPT, "%s is not a generation of tables", path);
	}
	p = mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return trail_errno(errno, "%s", path);
	st = tables_check(p, (size_t)sb.st_size, path, ret);
	if (st != ST_OK)
		munmap(p, (size_t)sb.st_size);
	return st;
}

/* The highest number below `below` of a generation's file; 0: none. */
static uint64_t newest_below(const char *dir, uint64_t below)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	uint64_t best = 0, n;

	while (d && (e = readdir(d)))
		if (strncmp(e->d_name, "gen-", 4) == 0 && span_u64(span_str(e->d_name + 4), UINT64_MAX - 1, &n) && n > best && n < below)
			best = n;
	if (d)
		closedir(d);
	return best;
}

uint64_t tables_current(const char *run_dir)
{
	char path[4200], to[64] = "";
	uint64_t g = 0;

	snprintf(path, sizeof(path), "%s/tables/current", run_dir);
	if (readlink(path, to, sizeof(to) - 1) > 4 && strncmp(to, "gen-", 4) == 0 && span_u64(span_str(to + 4), UINT64_MAX - 1, &g))
		return g;
	return 0;
}

enum status tables_open_current(const char *run_dir, struct tables *ret)
{
	char dir[4096], path[4200];
	uint64_t n = UINT64_MAX;
	enum status st;

	snprintf(dir, sizeof(dir), "%s/tables", run_dir);
	snprintf(path, sizeof(path), "%s/current", dir);
	st = tables_open(path, ret);
	while (st != ST_OK && (n = newest_below(dir, n))) {
		snprintf(path, sizeof(path), "%s/gen-%llu", dir, (unsigned long long)n);
		if (tables_open(path, ret) == ST_OK)
			return ST_OK;
	}
	return st;
}

void tables_close(struct tables *t)
{
	if (t->h)
		munmap((void *)(uintptr_t)t->h, t->bytes);
	*t = (struct tables){ 0 };
}

/* ---- looking up ---- */

uint64_t tables_domain_hash(uint64_t seed, struct span name)
{
	return XXH3_64bits_withSeed(name.p, name.n, seed);
}

uint64_t tables_alias_hash(uint64_t seed, uint32_t domain, struct span local)
{
	return XXH3_64bits_withSeed(local.p, local.n, seed + (domain + 1) * 0x9e3779b97f4a7c15ull);
}

const struct tables_domain *tables_find_domain(const struct tables *t, struct span domain)
{
	uint64_t hash, mask;

	if (!t->h)
		return NULL;
	hash = tables_domain_hash(t->h->seed, domain);
	mask = t->h->domain_slots.n - 1;
	for (uint64_t i = hash & mask; t->domain_slot[i].index; i = (i + 1) & mask) {
		const struct tables_domain *d = &t->domain[t->domain_slot[i].index - 1];

		if (t->domain_slot[i].tag == hash >> 32 && span_eq(tables_span(t, d->name), domain))
			return d;
	}
	return NULL;
}

const struct tables_alias *tables_find_alias(const struct tables *t, const struct tables_domain *d, struct span local)
{
	uint32_t domain = tables_index(t, d);
	uint64_t hash = tables_alias_hash(t->h->seed, domain, local), mask = t->h->alias_slots.n - 1;

	for (uint64_t i = hash & mask; t->alias_slot[i].index; i = (i + 1) & mask) {
		const struct tables_alias *a = &t->alias[t->alias_slot[i].index - 1];

		if (t->alias_slot[i].tag == hash >> 32 && a->domain == domain && span_eq(tables_span(t, a->name), local))
			return a;
	}
	return NULL;
}
