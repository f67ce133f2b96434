/* Whatever stands in a generation's file, its reader refuses it or every look-up and expansion in it ends within its bounds. The checksum is made right first: the checks behind it are what is tried. */
#include <stdlib.h>
#include <xxhash.h>
#include "dataplane/policy/alias.h"
#include "spool/base/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void walk_domain(const struct tables *t, const struct tables_domain *d, const struct policy_facts *f)
{
	char text[ADDRESS_LOCAL_MAX + ADDRESS_DOMAIN_MAX + 2];
	struct alias_expansion e;

	for (uint32_t i = 0; i <= d->naliases && i < 50; i++) {
		struct span local = i < d->naliases ? tables_span(t, t->alias[d->first_alias + i].name) : SPAN("postmaster");
		struct address a = { .local = local, .domain = tables_span(t, d->name) };
		struct out o = out_of(text, sizeof(text));
		struct pool pool;

		(void)tables_find_alias(t, d, local);
		out_add(&o, local);
		out_char(&o, '@');
		out_add(&o, a.domain);
		a.full = out_span(&o);
		pool_init(&pool, 1 << 20);
		policy_alias(f, &a, true, &pool, &e);
		CHECK(!e.in_tables || (e.d.accept ? e.nrcpt > 0 : e.d.reply.code >= 400));
		pool_reset(&pool);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct snap_header empty;
	struct snapshot snap = { .h = &empty, .bytes = sizeof(empty) };
	struct tables t;
	struct policy_facts f = { .snap = &snap, .tables = &t };
	struct tables_header *h;
	const size_t from = offsetof(struct tables_header, generation);
	char *copy = aligned_alloc(8, (n + 7) & ~(size_t)7);

	CHECK(copy || !n);
	if (n < sizeof(*h)) {
		CHECK(tables_check(copy, n, "fuzz", &t) != ST_OK);
		free(copy);
		return 0;
	}
	memcpy(copy, data, n);
	h = (struct tables_header *)(void *)copy;
	h->magic = TABLES_MAGIC;
	h->version = TABLES_VERSION;
	h->header_size = sizeof(*h);
	h->bytes = n;
	h->checksum = XXH3_64bits(copy + from, n - from);
	if (tables_check(copy, n, "fuzz", &t) == ST_OK)
		for (uint64_t i = 0; i < t.h->domains.n && i < 50; i++)
			walk_domain(&t, &t.domain[i], &f);
	free(copy);
	return 0;
}
