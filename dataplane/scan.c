#include "dataplane/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "dataplane/scan_internal.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

enum { SCAN_NONE_GRACE_S = 5, SCAN_DEATHS_MAX = 2 };

/* ---- slots ---- */

static void slot_wait(struct scan *s, struct scan_slot *slot, bool first)
{
	slot->state = SLOT_WAITING;
	s->nwaiting++;
	if (first)
		TAILQ_INSERT_HEAD(&s->waiting, slot, entry);
	else
		TAILQ_INSERT_TAIL(&s->waiting, slot, entry);
}

static void slot_unwait(struct scan *s, struct scan_slot *slot)
{
	TAILQ_REMOVE(&s->waiting, slot, entry);
	s->nwaiting--;
}

/* The mail knows it no more. What a scanner may still read stays until it answers or ends. */
static void slot_detach(struct scan_slot *slot)
{
	slot->mail->scan_slot = 0;
	slot->mail = NULL;
	slot->state = SLOT_LEASED;
}

static void slot_free(struct scan *s, struct scan_slot *slot)
{
	wheel_cancel(s->w->wheel, &slot->timer);
	if (slot->state == SLOT_WAITING)
		slot_unwait(s, slot);
	if (slot->mail)
		slot_detach(slot);
	store_scan_done(slot->m);
	slot->m = NULL;
	slot->state = SLOT_FREE;
	slot->gen++;
	slot->next_free = s->free_slot;
	s->free_slot = (uint32_t)(slot - s->slot) + 1;
	s->nactive--;
}

/* The question's life ends with a verdict. */
static void slot_answer(struct scan *s, struct scan_slot *slot, enum mail_verdict v, struct span name)
{
	struct mail *mail = slot->mail;

	slot_free(s, slot);
	if (mail)
		mail_verdict(mail, v, name);
}

static uint64_t slot_job(const struct scan *s, const struct scan_slot *slot)
{
	return (uint64_t)slot->gen << 32 | (uint64_t)(slot - s->slot + 1);
}

static bool slot_give(struct scan *s, struct scan_slot *slot)
{
	struct scan_job job = { .job = slot_job(s, slot), .msg_id = slot->m->id, .len = slot->m->body_len, .list_off = slot->list_off,
		.npieces = slot->npieces };

	if (!link_give(s, &job, &slot->link))
		return false;
	slot->state = SLOT_GIVEN;
	return true;
}

void serve_waiting(struct scan *s)
{
	struct scan_slot *slot;

	while ((slot = TAILQ_FIRST(&s->waiting)) && slot_give(s, slot))
		slot_unwait(s, slot);
}

/* ---- what links say ---- */

bool slot_result(struct scan *s, uint32_t i, const struct scan_result *r)
{
	uint32_t k = (uint32_t)(r->job & 0xffffffffu);
	struct scan_slot *slot;
	char name[SCAN_NAME_MAX];
	size_t n = 0;

	if (k == 0 || k > SCAN_SLOTS)
		return false;
	slot = &s->slot[k - 1];
	if ((slot->state != SLOT_GIVEN && slot->state != SLOT_LEASED) || slot->link != i || slot_job(s, slot) != r->job)
		return false;
	for (; n < SCAN_NAME_MAX && r->name[n]; n++)
		name[n] = r->name[n] > ' ' && r->name[n] < 0x7f ? r->name[n] : '_';
	switch (r->verdict) {
	case SCAN_CLEAN:
		counter_add(C_SCAN_CLEAN, slot->mail != NULL);
		slot_answer(s, slot, VERDICT_CLEAN, SPAN_NONE);
		break;
	case SCAN_INFECTED:
		slot_answer(s, slot, VERDICT_INFECTED, span_of(name, n));
		break;
	default:
		counter_add(C_SCAN_FAILED, slot->mail != NULL);
		slot_answer(s, slot, VERDICT_UNSCANNED, span_of(name, n));
		break;
	}
	return true;
}

void slots_orphaned(struct scan *s, uint32_t i, uint64_t working)
{
	for (uint32_t k = 0; k < SCAN_SLOTS; k++) {
		struct scan_slot *slot = &s->slot[k];

		if (slot->state == SLOT_LEASED && slot->link == i)
			slot_free(s, slot);
		if (slot->state != SLOT_GIVEN || slot->link != i)
			continue;
		counter_add(C_SCAN_REQUEUED, 1);
		if (slot_job(s, slot) == working && ++slot->deaths >= SCAN_DEATHS_MAX) {
			counter_add(C_SCAN_SUSPECT, 1);
			slot_answer(s, slot, VERDICT_SUSPECT, SPAN("scanners died on it"));
			continue;
		}
		slot->gen++; /* a late result of the dead link means nothing */
		slot_wait(s, slot, true);
	}
}

/* ---- turns ---- */

void scan_poll(struct scan *s)
{
	for (uint32_t i = 0; i < SCAN_LINKS && s->nlinks; i++)
		if (s->link[i].used)
			link_take(s, i);
	serve_waiting(s);
}

static bool listens_to(const struct scan *s, uint32_t i)
{
	return s->link[i].used && !s->link[i].broken;
}

bool scan_sleep(struct scan *s)
{
	bool may = true;

	for (uint32_t i = 0; i < SCAN_LINKS && s->nlinks; i++)
		if (listens_to(s, i) && !ring_sleep(&s->link[i].results))
			may = false;
	return may;
}

void scan_awake(struct scan *s)
{
	for (uint32_t i = 0; i < SCAN_LINKS && s->nlinks; i++)
		if (listens_to(s, i))
			ring_awake(&s->link[i].results);
}

/* ---- beginning and end ---- */

enum status scan_new(struct worker *w, struct scan **ret)
{
	struct scan *s = calloc(1, sizeof(*s));
	const char *dir = snap_cstr(&w->cfg->snap, w->cfg->set->spool_dir);
	enum status st;

	if (!s)
		return ST_NOMEM;
	s->w = w;
	s->spool_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	st = s->spool_fd < 0 ? trail_errno(errno, "%s", dir) : links_open(s);
	if (st != ST_OK) {
		if (s->spool_fd >= 0)
			close(s->spool_fd);
		free(s);
		return st;
	}
	for (uint32_t i = 0; i < SCAN_SLOTS; i++) {
		s->slot[i].next_free = i + 1 < SCAN_SLOTS ? i + 2 : 0;
		s->slot[i].gen = 1;
	}
	s->free_slot = 1;
	TAILQ_INIT(&s->waiting);
	s->none_since_ns = clock_mono_ns();
	*ret = s;
	return ST_OK;
}

void scan_free(struct scan *s)
{
	if (!s)
		return;
	links_done(s);
	close(s->spool_fd);
	free(s);
}

/* ---- questions ---- */

enum status scan_post(struct scan *s, struct mail *mail, bool patient)
{
	struct scan_slot *slot;
	enum status st;

	if (!s->free_slot)
		return trail(ST_FULL, "%d messages wait for scanners already", SCAN_SLOTS);
	slot = &s->slot[s->free_slot - 1];
	st = store_scan_begin(mail->m, &slot->list_off, &slot->npieces);
	if (st != ST_OK)
		return st;
	s->free_slot = slot->next_free;
	s->nactive++;
	slot->mail = mail;
	slot->m = mail->m;
	slot->patient = patient;
	slot->deaths = 0;
	slot->timer.kind = TIMER_SCAN;
	mail->scan_slot = (uint32_t)(slot - s->slot) + 1;
	counter_add(C_SCAN_JOBS, 1);
	wheel_set(s->w->wheel, &slot->timer, s->w->now_ns + s->w->cfg->set->scan_timeout_ns);
	if (s->nwaiting || !slot_give(s, slot))
		slot_wait(s, slot, false);
	return ST_OK;
}

void scan_cancel(struct scan *s, struct mail *mail)
{
	struct scan_slot *slot;

	if (!mail->scan_slot)
		return;
	slot = &s->slot[mail->scan_slot - 1];
	if (slot->state == SLOT_GIVEN)
		slot_detach(slot); /* its timer goes on, for the lease */
	else
		slot_free(s, slot);
}

/* A scanner that answers others may come to this one yet; one that answers nothing is ended. */
static void lease_timer(struct scan *s, struct scan_slot *slot)
{
	uint64_t patience = s->w->cfg->set->scan_timeout_ns;

	wheel_set(s->w->wheel, &slot->timer, s->w->now_ns + patience);
	if (s->w->now_ns - s->link[slot->link].moved_ns >= patience)
		link_break(s, slot->link, "hangs");
}

void scan_timer(struct worker *w, struct timer *t)
{
	struct scan_slot *slot = container_of(t, struct scan_slot, timer);
	uint64_t again = w->now_ns + w->cfg->set->scan_timeout_ns;
	struct mail *mail = slot->mail;

	if (slot->state == SLOT_LEASED) {
		lease_timer(w->scan, slot);
		return;
	}
	if (slot->patient && slot->state == SLOT_WAITING) {
		wheel_set(w->wheel, t, again);
		return;
	}
	counter_add(C_SCAN_TIMEOUTS, 1);
	if (slot->state == SLOT_GIVEN) {
		wheel_set(w->wheel, t, again);
		slot_detach(slot);
		mail_verdict(mail, VERDICT_UNSCANNED, SPAN("no verdict in time"));
	} else {
		slot_answer(w->scan, slot, VERDICT_UNSCANNED, SPAN("no verdict in time"));
	}
}

/* Without any scanner for some seconds the impatient are answered at once rather than at their time-out. */
void scan_tick(struct scan *s)
{
	links_tick(s);
	if (!s->none_since_ns || s->w->now_ns - s->none_since_ns < SCAN_NONE_GRACE_S * NS_PER_S || !s->nwaiting)
		return;
	for (uint32_t i = 0; i < SCAN_SLOTS; i++)
		if (s->slot[i].state == SLOT_WAITING && !s->slot[i].patient)
			slot_answer(s, &s->slot[i], VERDICT_UNSCANNED, SPAN("no scanner is running"));
}

void scan_describe(const struct scan *s, struct logline *row)
{
	log_str(row, "kind", "scanner");
	log_u64(row, "links", s->nlinks);
	log_u64(row, "waiting", s->nwaiting);
	log_u64(row, "active", s->nactive);
}
