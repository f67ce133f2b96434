/* What the programs of the power loss test share: a store on a directory, and the position in the recording of the disk below it.
 *
 * Thread: one. Fails: die() ends the program, as there is nothing to be saved. */
#ifndef WEIR_TESTS_CRASH_LEDGER_H
#define WEIR_TESTS_CRASH_LEDGER_H

#include <stdio.h>
#include "spool/store/store.h"

extern struct uring uring;
extern struct store *store;

/* lie: NULL, or the kind of operation that is said to be done and is not (a control: "flush", "claim_flush", "checkpoint_flush"). */
void open_spool(const char *dir, const char *lie);
void close_spool(void);
_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Commits, waits a little, and hands each event to fn. */
void turn(void (*fn)(const struct store_event *ev));
/* A message's content follows from its seed (env.arrived_ns) and length alone. */
void content(uint64_t seed, uint64_t at, char *p, size_t n);
struct store_msg *put(uint64_t seed, size_t bytes, unsigned nrcpt, bool scanned, void (*fn)(const struct store_event *ev));

#endif
