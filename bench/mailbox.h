/* Mailboxes of the sink: for each address a directory of that name, in lower case, with a file for each letter. Who has no directory does not exist.
 *
 * For people and tests to read; it promises nothing about a crash. */
#ifndef WEIR_BENCH_MAILBOX_H
#define WEIR_BENCH_MAILBOX_H

#include <stdio.h>
#include "spool/mail/envelope.h"

struct letter {
	FILE *f; /* NULL: there is none */
	char path[4096];
};

/* Whether the address has a mailbox below dir. An address that cannot be the name of a directory has none. */
bool mailbox_there(const char *dir, struct span addr);
/* A letter that is not in a mailbox yet; begins with Return-Path (RFC 5321 4.4). */
[[nodiscard]] bool letter_begin(struct letter *l, const char *dir, struct span sender);
void letter_add(struct letter *l, struct span piece);
/* Puts it into the mailbox of each recipient. False: into not all of them, or not the whole letter. It is over in any case. */
[[nodiscard]] bool letter_end(struct letter *l, const char *dir, const struct envelope *env);
/* The letter, if there is one, never was. */
void letter_drop(struct letter *l);

#endif
