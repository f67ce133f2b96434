/* What scan.c (questions and verdicts) and scan_link.c (links to scanner processes) share; nobody else includes it. */
#ifndef WEIR_DATAPLANE_SCAN_INTERNAL_H
#define WEIR_DATAPLANE_SCAN_INTERNAL_H

#include <sys/queue.h>
#include "dataplane/scan.h"
#include "spool/store/scan.h"

enum { SCAN_LINKS = 64, SCAN_SLOTS = 4096 };

struct scan_link_state {
	int sock, pidfd;     /* pidfd -1: its process cannot be named */
	void *mem;
	struct scan_link *link;
	struct ring jobs, results;
	char wakes[64];      /* what the socket brings is a wakeup, whatever it says */
	uint64_t moved_ns;   /* its last result, or its first job after it had none */
	uint32_t gen;
	uint32_t outstanding;
	bool used;
	bool broken;         /* gets no jobs, is not listened to; waits for its process's end */
};

enum slot_state {
	SLOT_FREE,
	SLOT_WAITING, /* for a link with room */
	SLOT_GIVEN,   /* to a link */
	SLOT_LEASED,  /* nobody waits for the answer any more, but a scanner may still read: what it reads stays */
};

/* One question. */
struct scan_slot {
	struct timer timer;
	TAILQ_ENTRY(scan_slot) entry; /* among the waiting */
	struct mail *mail;            /* NULL: leased */
	struct store_msg *m;
	uint64_t list_off;
	uint32_t npieces;
	uint32_t gen;
	uint32_t next_free;
	uint8_t state, deaths, link;
	bool patient;
};

struct scan {
	struct worker *w;
	int listen_fd;
	int spool_fd;
	bool accept_later;   /* no descriptors were left */
	uint32_t nlinks, nwaiting, nactive;
	uint32_t free_slot;  /* index + 1; 0: none */
	TAILQ_HEAD(, scan_slot) waiting;
	uint64_t none_since_ns; /* when the last link went; 0: there is one */
	struct scan_link_state link[SCAN_LINKS];
	struct scan_slot slot[SCAN_SLOTS];
};

/* ---- scan.c ---- */
/* A result is what a process that may be taken over has written: everything is checked. False: it answers nothing that link i was asked. */
bool slot_result(struct scan *s, uint32_t i, const struct scan_result *r);
/* Link i's process is gone: its leases end, its jobs go to others; `working` is what it said that it was on. */
void slots_orphaned(struct scan *s, uint32_t i, uint64_t working);
/* Gives waiting jobs to links with room. */
void serve_waiting(struct scan *s);

/* ---- scan_link.c ---- */
enum status links_open(struct scan *s);
void links_done(struct scan *s);
/* Gives the job to the least busy link. False when no link has room. */
bool link_give(struct scan *s, const struct scan_job *job, uint8_t *ret_link);
/* Takes what link i has answered. */
void link_take(struct scan *s, uint32_t i);
/* It lied or hangs: its process is ended, and with that the link. */
void link_break(struct scan *s, uint32_t i, const char *why);
/* Takes connections again after descriptors ran out. */
void links_tick(struct scan *s);

#endif
