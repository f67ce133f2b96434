/* Managed mail domains in weir-control: when each is fetched, what becomes of what comes, who is told (C2, C4).
 *
 * A domain that is fetched and passes the guards becomes a change of its history (change.h), and tables are compiled; otherwise the live copy stays, and postmaster@domain gets one mail.
 * Nothing here waits: not for fetches, mails and checks, nor for a compilation (publish.h).
 *
 * Thread: one. */
#ifndef WEIR_CONTROL_MANAGED_H
#define WEIR_CONTROL_MANAGED_H

#include <stdio.h>
#include "control/domain_state.h"
#include "control/history.h"
#include "spool/store/snapshot.h"

/* One managed domain: of DOMAIN_ALIASES. */
struct managed {
	const struct snap_mail_domain *conf;
	const char *domain, *dir;
	struct domain_state state;
	struct domain_fetch *fetch; /* NULL: none is under way */
	int waiter[8];              /* askers who wait for the fetch */
	unsigned nwaiters;
};

/* Nothing is managed before managed_configured. */
void managed_start(const char *run_dir);
void managed_stop(void);
/* The configuration is another one. */
void managed_configured(void);
/* Every second or so. */
void managed_turn(void);

/* ---- for orders (managed_orders.c) and checks (checks.c) ---- */

const struct snapshot *managed_snapshot(void);
struct managed *managed_find(const char *domain);
struct managed *managed_at(size_t i); /* NULL: there are no more */
/* Fetches now; the answer goes to fd, which is closed then. */
void managed_fetch_now(struct managed *d, int fd);
/* Keeps d->state on the disk. */
void managed_keep(struct managed *d);
/* Makes a text the live copy; ST_OK: in the history, and tables are compiled of it soon. */
enum status managed_change(struct managed *d, const char *how, const char *by, struct span text, uint64_t passed_over, struct history_row *ret);

#endif
