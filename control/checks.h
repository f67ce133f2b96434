/* The checks that weir-control has made in time: each managed domain in detail (C5), postmaster of every served domain (B4). weirctl makes them, as a process of its own,
 * so that nothing waits; what is wrong goes to postmaster by mail, and into the counters.
 *
 * Thread: one. */
#ifndef WEIR_CONTROL_CHECKS_H
#define WEIR_CONTROL_CHECKS_H

/* After managed_configured. */
void checks_configured(void);
/* Every second or so. */
void checks_turn(const char *run_dir);
/* Ends one that runs. */
void checks_stop(void);

#endif
