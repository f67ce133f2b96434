/* Adds up a ledger: what each message that was accepted in a span of time says of its recipients, against what the queue has of it.
 *
 * Feeding goes in rounds, because the node works on meanwhile: rows (what is in the ledger), then balance_ask and the queue, then rows again (what came while the queue was
 * asked), then balance_judge. The queue can have no more open recipients of a message than the first reading left open, and no fewer than the second did. */
#ifndef WEIR_CONTROL_BALANCE_H
#define WEIR_CONTROL_BALANCE_H

#include <stdbool.h>
#include <stddef.h>
#include "spool/store/ledger.h"

enum { DELETERS_MAX = 32 };

struct balance_line {
	uint64_t messages, recipients, delivered, bounced, deleted, held, queued, unexplained;
};

struct balance_sums {
	struct balance_line clients, own; /* from clients; made by Weir itself */
	uint64_t problems;
	struct {
		char who[64];
		uint64_t n;
	} deleter[DELETERS_MAX];
	unsigned ndeleters;
};

struct balance;

/* Messages that arrived from since_s on and before until_s. */
enum status balance_new(uint64_t since_s, uint64_t until_s, struct balance **ret);
void balance_free(struct balance *b);
void balance_row(struct balance *b, const struct ledger_row *row, bool repaired);
/* The first reading is done, the queue is asked next. */
void balance_ask(struct balance *b);
void balance_queued(struct balance *b, uint64_t id, uint32_t open, bool held);
/* Sums, and every message that does not balance: text says why. */
typedef void balance_fn(void *ctx, uint64_t id, const char *text);
void balance_judge(const struct balance *b, struct balance_sums *ret, balance_fn *fn, void *ctx);

#endif
