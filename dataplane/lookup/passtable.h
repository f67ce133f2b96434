/* The users of a password file in memory, and the stand-ins for those who are not in it. passwords.h says why. No threads here.
 *
 * Owner: who made it. Immutable once made. */
#ifndef WEIR_DATAPLANE_LOOKUP_PASSTABLE_H
#define WEIR_DATAPLANE_LOOKUP_PASSTABLE_H

#include "dataplane/lookup/passwords.h"

struct passtable;

struct passentry {
	struct scram_verifier scram;
	bool has_scram;
	char hash[PASSLINE_HASH_MAX + 1]; /* "": by the verifier */
};

/* From a file's text. Bad lines are left out and complained about (the first few in full). ST_NOMEM. */
enum status passtable_new(struct span text, const char *path, passwords_complain_fn *complain, void *ctx, struct passtable **ret);
void passtable_free(struct passtable *t);
void passtable_state(const struct passtable *t, struct passwords_state *ret);
/* What a password is checked against. Never fails: *ret_decoy says that it stands in. */
void passtable_find(const struct passtable *t, const uint8_t key[SCRAM_KEY], struct span user, bool scram, struct passentry *ret, bool *ret_decoy);

#endif
