/* What weirctl clients shows: who is registered, and what was seen of whom (A3).
 *
 * Functions that give an int give the exit code; negative: it was not used as it should be. */
#ifndef WEIR_CONTROL_CLIENTS_VIEW_H
#define WEIR_CONTROL_CLIENTS_VIEW_H

#include <jansson.h>
#include "control/seen.h"
#include "spool/store/snapshot.h"

struct view {
	const char *run_dir;
	json_t *list; /* NULL: text */
	bool as_json;
	struct snapshot snap;
	struct seen seen;
	uint64_t now_s;
};

/* When, in UTC; 0: never. */
const char *view_day(uint64_t s);
/* buf of CLIENT_NET_TEXT + 1. */
const char *view_net(const uint8_t ip[16], unsigned prefix, char *buf);
bool view_has_expired(const struct view *v, const struct snap_net *n);
/* "EXPIRED", "expires soon" or nothing. */
const char *view_state(const struct view *v, const struct snap_net *n);
/* class, unused: NULL for all. */
int view_list(const struct view *v, const char *class, const char *unused);
int view_show(const struct view *v, const char *address);
/* Whom a rule would hit, most of them first; class NULL: all that may relay. */
int view_would_break(const struct view *v, const char *rule, const char *class_wanted);
int view_listeners(const struct view *v);

#endif
