/* The compiled tables of mail domains and aliases: one immutable, checksummed file a generation, made by weir-control (C1).
 *
 * <run>/tables/gen-N never changes once it has that name; <run>/tables/current is a symbolic link to one of them and is replaced as a whole. A reader maps
 * a generation, checks everything in it once, and then looks up without further checks. References are offsets into sections, sections are offsets from the start of
 * the file; look-ups go through open-addressing hashes that are at most half full and seeded, so that no chain is long.
 *
 * Owner: the opener, until tables_close. Thread: any, read-only. */
#ifndef WEIR_SPOOL_STORE_TABLES_H
#define WEIR_SPOOL_STORE_TABLES_H

#include <assert.h>
#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/store/snapshot.h"

enum { TABLES_VERSION = 1 };
#define TABLES_MAGIC 0x4c42415452494557ull /* "WEIRTABL" */
#define TABLES_NONE UINT32_MAX
/* Steps from an address to what it stands for; more are refused (C6). */
enum { TABLES_DEPTH_MAX = 16 };

/* Text is in the strings section, followed by a NUL that is not counted. */
struct tables_domain {
	struct snap_str name;        /* look-up form; the section is sorted by it */
	struct snap_str text;        /* DOMAIN_RETIRED: what is said */
	uint32_t kind;               /* enum snap_domain_kind */
	uint32_t deliver_unlisted;
	uint32_t short_form;         /* DOMAIN_LONG_FORM: index of a domain that is no long form itself; else TABLES_NONE */
	uint32_t line;               /* of the configuration file */
	uint32_t first_alias, naliases;
	uint32_t first_target, ntargets; /* DOMAIN_FORWARDED: one */
};
/* One local part of one domain. Those of a domain stand together, sorted by name. */
struct tables_alias {
	struct snap_str name;        /* look-up form, address_local_key */
	uint32_t domain;
	uint32_t first_target, ntargets;
	uint32_t source, line;       /* the file and line that it comes from */
	uint32_t is_forwarding;      /* from the table of per-user forwarding (C8), not from the alias file */
};
/* One address that an alias stands for. */
struct tables_target {
	struct snap_str addr;        /* local@domain, the domain in look-up form */
	uint32_t local_len;
	uint32_t domain;             /* index when the domain is in these tables; else TABLES_NONE */
};
struct tables_source {
	struct snap_str path;
};
/* index counts from 1; 0: the slot is empty. tag is the upper half of the hash: most misses need no second look. */
struct tables_slot {
	uint32_t tag, index;
};
static_assert(sizeof(struct tables_domain) == 48 && sizeof(struct tables_alias) == 32 && sizeof(struct tables_target) == 16);

struct tables_section {
	uint64_t off, n; /* n items; of strings: bytes */
};

struct tables_header {
	uint64_t magic;
	uint32_t version, header_size;
	uint64_t bytes;        /* of the whole file */
	uint64_t checksum;     /* XXH3 of all that follows this field */
	uint64_t generation, made_wall_ns;
	uint64_t seed;         /* of the hashes; kept from generation to generation, so that equal input gives equal content */
	uint64_t content;      /* XXH3 of all that follows the header */
	struct tables_section domains, domain_slots, aliases, alias_slots, targets, sources, strings;
};
static_assert(offsetof(struct tables_header, domains) == 64 && sizeof(struct tables_header) == 176);

struct tables {
	const struct tables_header *h; /* NULL: there are none */
	size_t bytes;
	const struct tables_domain *domain;
	const struct tables_alias *alias;
	const struct tables_target *target;
	const struct tables_source *source;
	const struct tables_slot *domain_slot, *alias_slot;
	const char *strings;
};

/* Maps and checks a generation. ST_CORRUPT, ST_UNSUPPORTED, ST_IO. */
enum status tables_open(const char *path, struct tables *ret);
/* <run>/tables/current; when that is damaged, the newest generation that is good. ST_NOT_FOUND: there is none. */
enum status tables_open_current(const char *run_dir, struct tables *ret);
void tables_close(struct tables *t);
/* The number of the generation that `current` names, whether it is good or not; 0: none. */
uint64_t tables_current(const char *run_dir);
/* The check alone, of bytes in memory (8-aligned), which must stay as they are. name is for the trail. */
enum status tables_check(const void *p, size_t n, const char *name, struct tables *ret);

/* domain in look-up form. NULL: not one of ours. t may be without tables. */
const struct tables_domain *tables_find_domain(const struct tables *t, struct span domain);
/* local in look-up form. */
const struct tables_alias *tables_find_alias(const struct tables *t, const struct tables_domain *d, struct span local);

static inline struct span tables_span(const struct tables *t, struct snap_str s)
{
	return span_of(t->strings + s.off, s.len);
}

static inline uint32_t tables_index(const struct tables *t, const struct tables_domain *d)
{
	return (uint32_t)(d - t->domain);
}

/* What the slots are ordered by; for the compiler. */
uint64_t tables_domain_hash(uint64_t seed, struct span name);
uint64_t tables_alias_hash(uint64_t seed, uint32_t domain, struct span local);

#endif
