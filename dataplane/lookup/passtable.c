#include "dataplane/lookup/passtable.h"

#include <stdio.h>
#include <stdlib.h>
#include "spool/base/map.h"

enum { COMPLAINTS_MAX = 20, DECOY_ITERATIONS = 10000, DECOY_SALT = 16 };

/* Stands in when there is not one user: a yescrypt hash at crypt(3)'s own cost, of a password that was thrown away. */
static const char lonely_hash[] = "$y$j9T$3vjGME8q625SvwAPTHOTa0$FP7MBgNP3dIm03j/i0hX5gF.y.5Bxr/PjTrpJfIyU79";

struct passtable {
	struct map *by_name;      /* name -> index of its entry + 1; 0 is never there */
	struct passentry *entry;  /* of those who may log in, in the file's order */
	uint32_t n, cap, nscram, bad;
};

static bool entry_room(struct passtable *t)
{
	uint32_t cap = t->cap ? t->cap * 2 : 64;
	struct passentry *bigger;

	if (t->n < t->cap)
		return true;
	bigger = realloc(t->entry, cap * sizeof(*bigger));
	if (!bigger)
		return false;
	t->entry = bigger;
	t->cap = cap;
	return true;
}

/* Adds a user who may log in. ST_EXISTS, ST_NOMEM. */
static enum status add_user(struct passtable *t, const struct passline *l)
{
	struct passentry *e;
	struct out o;
	enum status st;

	if (map_get(t->by_name, l->user))
		return trail(ST_EXISTS, "the user has a line already, which counts");
	if (!entry_room(t))
		return ST_NOMEM;
	e = &t->entry[t->n];
	*e = (struct passentry){ .scram = l->scram, .has_scram = l->has_scram };
	o = out_of(e->hash, PASSLINE_HASH_MAX);
	out_add(&o, l->hash);
	st = map_set(t->by_name, l->user, (void *)(uintptr_t)(t->n + 1));
	if (st == ST_OK) {
		t->n++;
		t->nscram += l->has_scram;
	}
	return st;
}

/* One line; false: out of memory. */
static bool take_line(struct passtable *t, struct span line, unsigned number, const char *path, passwords_complain_fn *complain, void *ctx)
{
	struct passline l;
	enum status st = passline_parse(line, &l);

	if (st == ST_OK && !l.locked)
		st = add_user(t, &l);
	if (st == ST_NOMEM)
		return false;
	if (st == ST_OK || st == ST_NOT_FOUND)
		return true;
	if (t->bad++ < COMPLAINTS_MAX)
		complain(ctx, path, number, trail_text());
	return true;
}

enum status passtable_new(struct span text, const char *path, passwords_complain_fn *complain, void *ctx, struct passtable **ret)
{
	struct passtable *t = calloc(1, sizeof(*t));
	char more[80];

	if (!t || map_new(&t->by_name) != ST_OK) {
		free(t);
		return ST_NOMEM;
	}
	for (unsigned number = 1; text.n; number++)
		if (!take_line(t, span_cut(&text, '\n'), number, path, complain, ctx)) {
			passtable_free(t);
			return ST_NOMEM;
		}
	if (t->bad > COMPLAINTS_MAX) {
		snprintf(more, sizeof(more), "%u more lines are bad", t->bad - COMPLAINTS_MAX);
		complain(ctx, path, 0, more);
	}
	*ret = t;
	return ST_OK;
}

void passtable_free(struct passtable *t)
{
	if (!t)
		return;
	map_free(t->by_name);
	if (t->entry)
		explicit_bzero(t->entry, t->cap * sizeof(*t->entry));
	free(t->entry);
	free(t);
}

void passtable_state(const struct passtable *t, struct passwords_state *ret)
{
	ret->users = t->n;
	ret->bad_lines = t->bad;
	ret->all_scram = t->n && t->nscram == t->n;
}

/* A number that belongs to this name, and that only who has the key can tell. */
static void keyed(const uint8_t key[SCRAM_KEY], const char *what, struct span user, uint8_t ret[SCRAM_KEY])
{
	char text[PASSLINE_USER_MAX + 16];
	struct out o = out_of(text, sizeof(text));

	out_str(&o, what);
	out_add(&o, user);
	scram_hmac(key, out_span(&o), ret);
}

/* Somebody whose costs the stand-in has: always the same one for a name, as long as the file is the same. */
static const struct passentry *costs_of(const struct passtable *t, const uint8_t key[SCRAM_KEY], struct span user, bool scram)
{
	uint8_t h[SCRAM_KEY];
	uint32_t at;

	if (!t->n)
		return NULL;
	keyed(key, "costs ", user, h);
	memcpy(&at, h, sizeof(at));
	for (uint32_t i = 0; i < t->n; i++) {
		const struct passentry *e = &t->entry[(at + i) % t->n];

		if (!scram || e->has_scram)
			return e;
	}
	return NULL;
}

static void decoy(const struct passtable *t, const uint8_t key[SCRAM_KEY], struct span user, bool scram, struct passentry *ret)
{
	const struct passentry *like = costs_of(t, key, user, scram);
	struct scram_verifier *v = &ret->scram;
	uint8_t salt[SCRAM_KEY];

	*ret = (struct passentry){ .has_scram = true };
	if (!like || *like->hash)
		memcpy(ret->hash, like ? like->hash : lonely_hash, like ? sizeof(ret->hash) : sizeof(lonely_hash));
	v->iterations = like && like->has_scram ? like->scram.iterations : DECOY_ITERATIONS;
	v->salt_len = like && like->has_scram ? like->scram.salt_len : DECOY_SALT;
	keyed(key, "salt ", user, salt);
	for (uint32_t i = 0; i < v->salt_len; i++)
		v->salt[i] = salt[i % SCRAM_KEY];
	keyed(key, "stored key ", user, v->stored_key);
	keyed(key, "server key ", user, v->server_key);
}

void passtable_find(const struct passtable *t, const uint8_t key[SCRAM_KEY], struct span user, bool scram, struct passentry *ret, bool *ret_decoy)
{
	uintptr_t at = (uintptr_t)map_get(t->by_name, user);

	/* made in any case, so that both answers take the same way */
	decoy(t, key, user, scram, ret);
	*ret_decoy = !at || (scram && !t->entry[at - 1].has_scram);
	if (!*ret_decoy)
		*ret = t->entry[at - 1];
}
