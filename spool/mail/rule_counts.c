#include "spool/mail/rule_counts.h"

#include <assert.h>

enum { DONE = POLICY_NMODE - POLICY_MONITOR };
static_assert((int)RULE_NRULE * (int)CLASS_NCLASS * (int)DONE <= (int)COUNTERS_TABLE);

/* FNV-1a over the rules' names in their order: a table with other rows is told apart. Never 0. */
static uint64_t layout(void)
{
	static uint64_t known;
	uint64_t h = 0xcbf29ce484222325ull;

	for (unsigned r = 0; !known && r < RULE_NRULE; r++)
		for (const char *p = rule_row[r].name;; p++) {
			h = (h ^ (unsigned char)*p) * 0x100000001b3ull;
			if (!*p)
				break;
		}
	if (!known)
		known = h | 1;
	return known;
}

static unsigned place(enum rule r, enum snap_class class, enum policy_mode done)
{
	return ((unsigned)r * CLASS_NCLASS + (unsigned)class) * DONE + (unsigned)done - POLICY_MONITOR;
}

void rule_count(enum rule r, enum snap_class class, enum policy_mode done)
{
	struct counters_page *p = counters_self;
	_Atomic uint64_t *to;

	CHECK(r < RULE_NRULE && class < CLASS_NCLASS && done >= POLICY_MONITOR && done < POLICY_NMODE);
	to = &p->table[place(r, class, done)];
	if (atomic_load_explicit(&p->table_layout, memory_order_relaxed) != layout()) {
		for (unsigned i = 0; i < COUNTERS_TABLE; i++)
			atomic_store_explicit(&p->table[i], 0, memory_order_relaxed);
		atomic_store_explicit(&p->table_layout, layout(), memory_order_release);
	}
	atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + 1, memory_order_relaxed); /* one writer */
}

uint64_t rule_counts_get(const struct counters_page *p, enum rule r, enum snap_class class, enum policy_mode done)
{
	if (done < POLICY_MONITOR || atomic_load_explicit(&p->table_layout, memory_order_acquire) != layout())
		return 0;
	return atomic_load_explicit(&p->table[place(r, class, done)], memory_order_relaxed);
}
