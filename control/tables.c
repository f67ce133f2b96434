#include "control/tables.h"

#include <stdarg.h>
#include <stdlib.h>
#include <xxhash.h>
#include "control/aliasfile.h"
#include "control/history.h"
#include "control/movedfile.h"
#include "control/sources.h"
#include "spool/base/file.h"
#include "spool/mail/address.h"

enum { FILE_MAX = 256 << 20, ERRORS_SHOWN = 100 };

/* An array that grows. */
struct rows {
	void *p;
	size_t n, cap, size;
};

struct compiler {
	const struct snapshot *s;
	uint64_t seed;
	FILE *complain;
	unsigned errors;
	struct rows domains, domain_slots, aliases, alias_slots, targets, sources;
	struct rows strings;
	uint32_t nothing; /* offset of the empty string */
};

/* ---- errors ---- */

static void wrong(struct compiler *c, const char *path, unsigned line, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static void wrong(struct compiler *c, const char *path, unsigned line, const char *fmt, ...)
{
	va_list ap;

	if (++c->errors > ERRORS_SHOWN)
		return;
	fprintf(c->complain, line ? "%s:%u: " : "%s: ", path, line);
	va_start(ap, fmt);
	vfprintf(c->complain, fmt, ap);
	va_end(ap);
	fputc('\n', c->complain);
}

/* ---- arrays ---- */

static void *rows_add(struct rows *r, size_t n)
{
	void *at;

	if (r->n + n > r->cap) {
		r->cap = r->cap * 2 > r->n + n ? r->cap * 2 : (r->n + n) * 2;
		r->p = realloc(r->p, r->cap * r->size);
		CHECK(r->p);
	}
	at = (char *)r->p + r->n * r->size;
	memset(at, 0, n * r->size);
	r->n += n;
	CHECK(r->n < TABLES_NONE); /* 4 GB of text, or as many rows */
	return at;
}

static struct snap_str add_string(struct compiler *c, struct span s)
{
	uint32_t off = (uint32_t)c->strings.n;
	char *to = rows_add(&c->strings, s.n + 1);

	if (s.n)
		memcpy(to, s.p, s.n);
	return (struct snap_str){ off, (uint32_t)s.n };
}

static struct span string(const struct compiler *c, struct snap_str s)
{
	return span_of((const char *)c->strings.p + s.off, s.len);
}

static struct tables_domain *domain(const struct compiler *c, size_t i)
{
	return (struct tables_domain *)c->domains.p + i;
}

static struct tables_alias *alias(const struct compiler *c, size_t i)
{
	return (struct tables_alias *)c->aliases.p + i;
}

static const char *source_path(const struct compiler *c, uint32_t i)
{
	return (const char *)c->strings.p + ((const struct tables_source *)c->sources.p)[i].path.off;
}

/* ---- hashes ---- */

static struct tables_slot *make_slots(struct rows *slots, size_t items, uint64_t *ret_mask)
{
	size_t n = 8;

	while (n < items * 2)
		n *= 2;
	*ret_mask = n - 1;
	return rows_add(slots, n);
}

static void put_slot(struct tables_slot *slot, uint64_t mask, uint64_t hash, size_t index)
{
	uint64_t i = hash & mask;

	while (slot[i].index)
		i = (i + 1) & mask;
	slot[i] = (struct tables_slot){ .tag = (uint32_t)(hash >> 32), .index = (uint32_t)index + 1 };
}

static void hash_domains(struct compiler *c)
{
	uint64_t mask;
	struct tables_slot *slot = make_slots(&c->domain_slots, c->domains.n, &mask);

	for (size_t i = 0; i < c->domains.n; i++)
		put_slot(slot, mask, tables_domain_hash(c->seed, string(c, domain(c, i)->name)), i);
}

static void hash_aliases(struct compiler *c)
{
	uint64_t mask;
	struct tables_slot *slot = make_slots(&c->alias_slots, c->aliases.n, &mask);

	for (size_t i = 0; i < c->aliases.n; i++)
		put_slot(slot, mask, tables_alias_hash(c->seed, alias(c, i)->domain, string(c, alias(c, i)->name)), i);
}

static uint32_t find_domain(const struct compiler *c, struct span key)
{
	uint64_t hash = tables_domain_hash(c->seed, key), mask = c->domain_slots.n - 1;
	const struct tables_slot *slot = c->domain_slots.p;

	for (uint64_t i = hash & mask; slot[i].index; i = (i + 1) & mask)
		if (slot[i].tag == hash >> 32 && span_eq(string(c, domain(c, slot[i].index - 1)->name), key))
			return slot[i].index - 1;
	return TABLES_NONE;
}

/* ---- rows ---- */

/* The address is known to be valid. */
static void add_target(struct compiler *c, struct span text)
{
	char key[ADDRESS_DOMAIN_MAX + 1], whole[ADDRESS_MAX + ADDRESS_DOMAIN_MAX];
	struct out o = out_of(key, sizeof(key)), w = out_of(whole, sizeof(whole));
	struct tables_target *t;
	struct address a;
	struct snap_str addr;

	CHECK(address_parse(text, ADDRESS_UTF8, &a) == ST_OK);
	if (a.is_literal)
		out_add(&o, a.domain);
	else
		CHECK(address_domain_key(a.domain, &o) == ST_OK);
	out_add(&w, a.local);
	out_char(&w, '@');
	out_add(&w, out_span(&o));
	addr = add_string(c, out_span(&w));
	t = rows_add(&c->targets, 1);
	*t = (struct tables_target){ .addr = addr, .local_len = (uint32_t)a.local.n,
		.domain = a.is_literal ? TABLES_NONE : find_domain(c, out_span(&o)) };
}

static void add_alias(struct compiler *c, uint32_t d, uint32_t source, bool is_forwarding, struct aliasfile *f)
{
	char key[ADDRESS_LOCAL_MAX + 1];
	struct out o = out_of(key, sizeof(key));
	uint32_t first = (uint32_t)c->targets.n;
	struct span addresses = f->addresses, one;
	struct tables_alias *a;
	struct snap_str name;

	CHECK(address_local_key(f->name, &o) == ST_OK);
	while (aliasfile_address(&addresses, &one))
		add_target(c, one);
	name = add_string(c, out_span(&o));
	a = rows_add(&c->aliases, 1);
	*a = (struct tables_alias){ .name = name, .domain = d, .first_target = first, .ntargets = (uint32_t)c->targets.n - first,
		.source = source, .line = f->line, .is_forwarding = is_forwarding };
}

/* ---- files ---- */

static void compile_text(struct compiler *c, uint32_t d, const char *name, struct span text, bool is_forwarding)
{
	uint32_t source = (uint32_t)c->sources.n;
	struct snap_str path = add_string(c, span_str(name));
	enum aliasfile_event ev;
	struct aliasfile f;

	((struct tables_source *)rows_add(&c->sources, 1))->path = path;
	f = aliasfile_of(text);
	while ((ev = aliasfile_next(&f)) != ALIASFILE_END)
		if (ev == ALIASFILE_WRONG)
			wrong(c, name, f.line, "%s", f.wrong);
		else
			add_alias(c, d, source, is_forwarding, &f);
}

static void compile_source(struct compiler *c, uint32_t d, const struct snap_mail_domain *m)
{
	struct source_text t;

	if (source_read(c->s, m, &t) != ST_OK) {
		wrong(c, t.name, 0, "%s", trail_text());
		return;
	}
	compile_text(c, d, t.name, span_of(t.bytes, t.n), false);
	free(t.bytes);
}

static void compile_forwarding(struct compiler *c, uint32_t d, const char *path)
{
	char *bytes;
	size_t n;

	if (file_read(path, FILE_MAX, NULL, &bytes, &n) != ST_OK) {
		wrong(c, path, 0, "%s", trail_text());
		return;
	}
	compile_text(c, d, path, span_of(bytes, n), true);
	free(bytes);
}

/* Local parts that stand for nothing: that they are there is what is said (C8). */
static void compile_moved(struct compiler *c, uint32_t d, const char *path)
{
	struct snap_str name = add_string(c, span_str(path));
	uint32_t source = (uint32_t)c->sources.n;
	struct movedfile f;
	char *bytes;
	size_t n;

	((struct tables_source *)rows_add(&c->sources, 1))->path = name;
	if (file_read(path, FILE_MAX, NULL, &bytes, &n) != ST_OK) {
		wrong(c, path, 0, "%s", trail_text());
		return;
	}
	f = movedfile_of(span_of(bytes, n));
	while (movedfile_next(&f)) {
		struct snap_str key = f.wrong ? (struct snap_str){ c->nothing, 0 } : add_string(c, out_span(&f.key));

		if (f.wrong)
			wrong(c, path, f.line, "%s", f.wrong);
		else
			*(struct tables_alias *)rows_add(&c->aliases, 1) = (struct tables_alias){ .name = key, .domain = d,
				.first_target = (uint32_t)c->targets.n, .source = source, .line = f.line };
	}
	free(bytes);
}

/* ---- order ---- */

static const struct compiler *sorting; /* qsort has no context; one thread */

/* By name; of equal ones the first in the files comes first. */
static int by_name(const void *p, const void *q)
{
	const struct tables_alias *a = p, *b = q;
	struct span x = string(sorting, a->name), y = string(sorting, b->name);
	int c = memcmp(x.p, y.p, (x.n < y.n ? x.n : y.n) + 1); /* with the NUL: the shorter one is first */

	if (c)
		return c;
	return a->source != b->source ? (a->source < b->source ? -1 : 1) : (a->line > b->line) - (a->line < b->line);
}

static void sort_aliases(struct compiler *c, struct tables_domain *d)
{
	struct tables_alias *a = alias(c, d->first_alias);

	sorting = c;
	qsort(a, d->naliases, sizeof(*a), by_name);
	for (uint32_t i = 1; i < d->naliases; i++)
		if (span_eq(string(c, a[i].name), string(c, a[i - 1].name)))
			wrong(c, source_path(c, a[i].source), a[i].line, "\"%.*s\" is there already (%s:%u)", SPAN_FMT(string(c, a[i].name)),
				source_path(c, a[i - 1].source), a[i - 1].line);
}

/* ---- domains ---- */

static void add_domain(struct compiler *c, const struct snap_mail_domain *m)
{
	struct snap_str name = add_string(c, snap_span(c->s, m->name));
	struct snap_str text = m->kind == DOMAIN_RETIRED ? add_string(c, snap_span(c->s, m->value)) : (struct snap_str){ c->nothing, 0 };
	struct tables_domain *d = rows_add(&c->domains, 1);

	*d = (struct tables_domain){ .name = name, .text = text, .kind = m->kind, .deliver_unlisted = m->deliver_unlisted,
		.short_form = TABLES_NONE, .line = m->line };
}

/* One that was never fetched is left out, and so is its long form: workers see in the configuration that it ought to be there, and answer 451. */
static bool is_there(const struct snapshot *s, const struct snap_mail_domain *m)
{
	struct history_row row;

	if (m->kind == DOMAIN_LONG_FORM)
		m = snap_find_mail_domain(s, snap_span(s, m->value));
	return !m || m->kind != DOMAIN_ALIASES || m->source != SOURCE_HTTPS ||
		history_last(snap_cstr(s, s->h->settings.managed_dir), snap_cstr(s, m->name), &row) != ST_NOT_FOUND;
}

static void fill_domain(struct compiler *c, uint32_t i, const struct snap_mail_domain *m)
{
	struct tables_domain d = *domain(c, i);

	d.first_alias = (uint32_t)c->aliases.n;
	d.first_target = (uint32_t)c->targets.n;
	if (m->kind == DOMAIN_LONG_FORM)
		d.short_form = find_domain(c, snap_span(c->s, m->value));
	if (m->kind == DOMAIN_FORWARDED) {
		add_target(c, snap_span(c->s, m->value));
		d.ntargets = 1;
	}
	if (m->kind == DOMAIN_ALIASES)
		compile_source(c, i, m);
	if (m->forwarding.len)
		compile_forwarding(c, i, snap_cstr(c->s, m->forwarding));
	if (m->kind == DOMAIN_MOVED)
		compile_moved(c, i, snap_cstr(c->s, m->value));
	d.naliases = (uint32_t)c->aliases.n - d.first_alias;
	if (d.naliases)
		sort_aliases(c, &d);
	*domain(c, i) = d;
}

/* ---- the image ---- */

static void take_section(struct tables_image *image, unsigned i, struct rows *r, struct tables_section *ret, uint64_t *off)
{
	size_t bytes = r->n * r->size, padded = (bytes + 7) & ~(size_t)7;

	r->p = realloc(r->p, padded + 8);
	CHECK(r->p);
	memset((char *)r->p + bytes, 0, padded - bytes);
	*ret = (struct tables_section){ .off = *off, .n = r->n };
	image->section[i].p = r->p;
	image->section[i].n = padded;
	*off += padded;
}

static void make_image(struct compiler *c, struct tables_image *image)
{
	struct tables_header *h = &image->h;
	XXH3_state_t *state = XXH3_createState();
	uint64_t off = sizeof(*h);

	CHECK(state && XXH3_64bits_reset(state) == XXH_OK);
	*image = (struct tables_image){ .h = { .magic = TABLES_MAGIC, .version = TABLES_VERSION, .header_size = sizeof(*h), .seed = c->seed } };
	take_section(image, 0, &c->domains, &h->domains, &off);
	take_section(image, 1, &c->domain_slots, &h->domain_slots, &off);
	take_section(image, 2, &c->aliases, &h->aliases, &off);
	take_section(image, 3, &c->alias_slots, &h->alias_slots, &off);
	take_section(image, 4, &c->targets, &h->targets, &off);
	take_section(image, 5, &c->sources, &h->sources, &off);
	take_section(image, 6, &c->strings, &h->strings, &off);
	h->bytes = off;
	for (unsigned i = 0; i < TABLES_SECTIONS; i++)
		XXH3_64bits_update(state, image->section[i].p, image->section[i].n);
	h->content = XXH3_64bits_digest(state);
	XXH3_freeState(state);
}

void tables_image_seal(struct tables_image *image, uint64_t generation, uint64_t made_wall_ns)
{
	const size_t from = offsetof(struct tables_header, generation);
	XXH3_state_t *state = XXH3_createState();

	CHECK(state && XXH3_64bits_reset(state) == XXH_OK);
	image->h.generation = generation;
	image->h.made_wall_ns = made_wall_ns;
	XXH3_64bits_update(state, (const char *)&image->h + from, sizeof(image->h) - from);
	for (unsigned i = 0; i < TABLES_SECTIONS; i++)
		XXH3_64bits_update(state, image->section[i].p, image->section[i].n);
	image->h.checksum = XXH3_64bits_digest(state);
	XXH3_freeState(state);
}

void tables_image_free(struct tables_image *image)
{
	for (unsigned i = 0; i < TABLES_SECTIONS; i++)
		free(image->section[i].p);
	*image = (struct tables_image){ 0 };
}

bool tables_compile(const struct snapshot *s, uint64_t seed, FILE *complain, struct progress *p, struct tables_image *ret)
{
	struct compiler c = { .s = s, .seed = seed, .complain = complain, .domains.size = sizeof(struct tables_domain),
		.domain_slots.size = sizeof(struct tables_slot), .aliases.size = sizeof(struct tables_alias),
		.alias_slots.size = sizeof(struct tables_slot), .targets.size = sizeof(struct tables_target),
		.sources.size = sizeof(struct tables_source), .strings.size = 1 };
	uint32_t n;
	const struct snap_mail_domain *m = snap_mail_domains(s, &n);

	c.nothing = add_string(&c, SPAN("")).off;
	for (uint32_t i = 0; i < n; i++)
		if (is_there(s, &m[i]))
			add_domain(&c, &m[i]);
	hash_domains(&c); /* before the files: their addresses are looked up in it */
	for (uint32_t i = 0, at = 0; i < n; i++) {
		progress_tell(p, PROGRESS_READING, i, n);
		if (at < c.domains.n && span_eq(string(&c, domain(&c, at)->name), snap_span(s, m[i].name)))
			fill_domain(&c, at++, &m[i]);
	}
	hash_aliases(&c);
	make_image(&c, ret);
	ret->errors = c.errors;
	if (c.errors > ERRORS_SHOWN)
		fprintf(complain, "and %u more errors\n", c.errors - ERRORS_SHOWN);
	if (c.errors)
		tables_image_free(ret);
	return c.errors == 0;
}
