#include "spool/base/pool.h"

#include <stdlib.h>

enum { CHUNK_MIN = 1024, ALIGN = 16 };

struct pool_chunk {
	struct pool_chunk *next;
	size_t used, cap;
	_Alignas(16) unsigned char bytes[];
};

void pool_init(struct pool *p, size_t ceiling)
{
	*p = (struct pool){ .ceiling = ceiling };
}

void pool_reset(struct pool *p)
{
	struct pool_chunk *c, *next;

	for (c = p->chunks; c; c = next) {
		next = c->next;
		free(c);
	}
	p->chunks = NULL;
	p->used = 0;
}

void *pool_alloc(struct pool *p, size_t n)
{
	struct pool_chunk *c = p->chunks;
	size_t cap;
	void *at;

	if (n > PTRDIFF_MAX - sizeof(*c) - ALIGN) /* nothing is that large, and rounding must not wrap */
		return NULL;
	n = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	if (n > p->ceiling || p->used > p->ceiling - n)
		return NULL;
	if (!c || c->cap - c->used < n) {
		cap = c ? c->cap * 2 : CHUNK_MIN;
		if (cap > 64 * 1024)
			cap = 64 * 1024;
		if (cap < n)
			cap = n;
		c = malloc(sizeof(*c) + cap);
		if (!c)
			return NULL;
		c->next = p->chunks;
		c->used = 0;
		c->cap = cap;
		p->chunks = c;
	}
	at = c->bytes + c->used;
	c->used += n;
	p->used += n;
	memset(at, 0, n);
	return at;
}

struct span pool_span(struct pool *p, struct span s)
{
	char *at = s.n < SIZE_MAX ? pool_alloc(p, s.n + 1) : NULL;

	if (!at)
		return SPAN_NONE;
	if (s.n)
		memcpy(at, s.p, s.n);
	return span_of(at, s.n);
}
