/* The registry of clients as text (A3): one client or network a line, then what is known of it.
 *
 *     192.0.2.7 class=fragile owner=it@chem.cam.example rate=100 connections=50 expires=2027-01-31 note="MRI scanner"
 *
 * Empty lines and those that begin with "#" are nothing. class is robust or fragile (default robust), rate a number of messages in rates.period or none (default: rates.limit), connections those of one address to a worker or none (default: limits.connections_per_own_client), expires the day, or the time in UTC, from
 * which on it may not relay any more.
 *
 * Pure but for memory. Fails: ST_INVALID, the trail says what is wrong with the line. */
#ifndef WEIR_CONTROL_CLIENTFILE_H
#define WEIR_CONTROL_CLIENTFILE_H

#include <stdio.h>
#include "spool/base/span.h"
#include "spool/base/status.h"

enum { CLIENT_OWNER_MAX = 128, CLIENT_NOTE_MAX = 256, CLIENT_LINE_MAX = 2048, CLIENT_NET_TEXT = 56 };

struct client_entry {
	uint8_t ip[16];     /* masked */
	unsigned prefix;    /* in 128 bits */
	uint32_t class_;    /* enum snap_class */
	double rate;        /* negative: the default; 0: none */
	uint32_t conns;     /* 0: the default; UINT32_MAX: no limit */
	uint64_t expires_s; /* 0: never */
	char owner[CLIENT_OWNER_MAX + 1], note[CLIENT_NOTE_MAX + 1];
	unsigned line;
};

struct client_entries {
	struct client_entry *row; /* in the order of the snapshot: longest prefix first, then by address */
	size_t n;
	unsigned wrong;           /* lines with errors */
};

/* One line that is neither empty nor a comment. */
enum status client_parse(struct span line, struct client_entry *ret);
/* A number of connections, none or default. */
bool client_conns_parse(struct span value, uint32_t *ret);
/* The line of an entry, without its end. */
void client_write(const struct client_entry *e, struct out *o);
/* "192.0.2.0/24"; a single address without its length. */
void client_net_write(const uint8_t ip[16], unsigned prefix, struct out *o);
/* Sets one of class, owner, rate, connections, expires, note from its text. */
enum status client_set(struct client_entry *e, struct span key, struct span value);

/* Reads all of it; errors go to `complain`, each with "<name>:<line>: ", at most a hundred. The same network twice is one. */
void client_entries_read(struct client_entries *c, struct span text, const char *name, FILE *complain);
void client_entries_free(struct client_entries *c);
/* NULL: it is not there. */
struct client_entry *client_entries_find(const struct client_entries *c, const uint8_t ip[16], unsigned prefix);
/* Adds, or replaces, keeping the order. */
void client_entries_put(struct client_entries *c, const struct client_entry *e);
void client_entries_drop(struct client_entries *c, struct client_entry *e);
/* All of it as text; the caller frees. */
char *client_entries_text(const struct client_entries *c, size_t *ret_n);

#endif
