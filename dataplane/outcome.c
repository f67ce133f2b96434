#include "dataplane/outcome.h"

#include <stdlib.h>
#include "dataplane/outbound.h"
#include "dataplane/terms.h"
#include "spool/base/clock.h"

#define TOGETHER_NS (NS_PER_S / 4)

/* A wait that doubles, with a jitter that is the same for all recipients of a message, so that those who failed together are tried together. */
static uint64_t wait_ns(const struct snap_settings *set, uint64_t id, unsigned attempts)
{
	uint64_t d = set->retry_first_ns, mix = (id ^ attempts) * 0x9e3779b97f4a7c15ull;

	for (unsigned i = 1; i < attempts && d < set->retry_max_ns; i++)
		d *= 2;
	if (d > set->retry_max_ns)
		d = set->retry_max_ns;
	return d - d / 10 + (mix >> 33) * (d / 5) / 0x7fffffffu;
}

/* When the attempt after this one is due. */
static uint64_t retry_ns(const struct snap_settings *set, uint64_t id, unsigned attempts, uint64_t now)
{
	return (now + wait_ns(set, id, attempts) + TOGETHER_NS - 1) / TOGETHER_NS * TOGETHER_NS;
}

uint64_t outcome_deferred_ns(const struct mail *mail, uint32_t i)
{
	const struct store_rcpt_state *r = &mail->m->rcpt[i];
	uint64_t wait = wait_ns(mail->w->cfg->set, mail->m->id, r->attempts) + TOGETHER_NS;

	return r->attempts && r->next_ns > wait ? r->next_ns - wait : 0;
}

static void list_add(struct outcome_list *l, uint32_t i, const struct reply *r, struct remote remote)
{
	if (l->n == l->cap) {
		uint32_t cap = l->cap ? l->cap * 2 : 1;
		struct bounce_rcpt *bigger = realloc(l->rcpt, cap * sizeof(*bigger));

		CHECK(bigger); /* a few KiB; without them nothing goes on */
		l->rcpt = bigger;
		l->cap = cap;
	}
	bounce_rcpt_set(&l->rcpt[l->n++], i, r, remote);
}

/* Its final state comes with the report: until then nothing else may begin for it. */
static void list_final(struct outcome_list *l, struct mail *mail, uint32_t i, const struct reply *r, struct remote remote)
{
	mail->m->rcpt[i].busy = 1;
	list_add(l, i, r, remote);
}

/* The sender is told once, when the message has been here for long enough. */
static bool wants_delay_notice(const struct mail *mail, uint32_t i, const struct snap_route *route, uint64_t now)
{
	const struct store_msg *m = mail->m;
	uint64_t notice = terms_notice(mail->w->cfg->set, route);
	uint8_t notify = m->env.rcpt[i].notify;

	return notice && m->env.sender.n && !(m->env.flags & ENV_INTERNAL) && (!notify || (notify & NOTIFY_DELAY)) && !m->rcpt[i].told &&
		now >= terms_born(route, m->env.arrived_ns, now) + notice;
}

/* A temporary failure: later again, or never again when the message is too old. */
static void add_temporary(struct outcome *oc, struct mail *mail, uint32_t i, const struct reply *why, struct remote remote)
{
	const struct snap_settings *set = mail->w->cfg->set;
	struct store_msg *m = mail->m;
	const struct snap_route *route = outbound_route(mail, i);
	uint64_t life = terms_life(set, route, !m->env.sender.n), now = clock_steady_ns(), born = terms_born(route, m->env.arrived_ns, now);
	unsigned attempts = m->rcpt[i].attempts + 1u;

	if (now > born && now - born >= life) {
		struct outcome_list *failed = &oc->list[DSN_FAILED];

		list_final(failed, mail, i, why, remote);
		failed->rcpt[failed->n - 1].expired_ns = now - born;
		return;
	}
	if (wants_delay_notice(mail, i, route, now)) {
		m->rcpt[i].told = 1;
		list_add(&oc->list[DSN_DELAYED], i, why, remote);
	}
	m->rcpt[i].busy = 0;
	mail_settle(mail, i, RCPT_QUEUED, why, retry_ns(set, m->id, attempts, now), remote);
}

/* RFC 3461 5.2, 6.2: a report of success is ours when this was the end of the way, or when the next host cannot make one. */
static void add_delivered(struct outcome *oc, struct mail *mail, uint32_t i, const struct reply *r, struct remote remote)
{
	const struct envelope *env = &mail->m->env;

	if (env->sender.n && (env->rcpt[i].notify & NOTIFY_SUCCESS) && !(env->rcpt[i].notify & NOTIFY_NEVER) && (remote.final || !remote.dsn)) {
		list_final(&oc->list[remote.final ? DSN_DELIVERED : DSN_RELAYED], mail, i, r, remote);
		return;
	}
	mail->m->rcpt[i].busy = 0;
	mail_settle(mail, i, RCPT_DELIVERED, r, 0, remote);
}

void outcome_add(struct outcome *oc, struct mail *mail, uint32_t i, const struct reply *r, struct remote remote)
{
	if (reply_is_ok(r))
		add_delivered(oc, mail, i, r, remote);
	else if (reply_is_permanent(r))
		list_final(&oc->list[DSN_FAILED], mail, i, r, remote);
	else
		add_temporary(oc, mail, i, r, remote);
}

uint64_t outcome_report_due(const struct mail *mail)
{
	return mail->nfailed ? mail->failed_ns + OUTCOME_GATHER_S * NS_PER_S : UINT64_MAX;
}

bool outcome_report(struct mail *mail)
{
	struct bounce_rcpt *failed = mail->failed;
	uint32_t n = mail->nfailed;

	if (!n || (mail->deliveries && n < OUTCOME_GATHER_MAX && mail->w->now_ns < outcome_report_due(mail)))
		return false;
	mail->failed = NULL;
	mail->nfailed = 0;
	bounce_begin(mail, DSN_FAILED, failed, n);
	return true;
}

static void gather(struct mail *mail, struct outcome_list *l)
{
	struct bounce_rcpt *all;

	if (!l->n)
		return;
	all = realloc(mail->failed, (mail->nfailed + l->n) * sizeof(*all));
	CHECK(all);
	memcpy(all + mail->nfailed, l->rcpt, l->n * sizeof(*all));
	free(l->rcpt);
	if (!mail->nfailed)
		mail->failed_ns = mail->w->now_ns;
	mail->failed = all;
	mail->nfailed += l->n;
}

void outcome_finish(struct mail *mail, struct outcome *oc)
{
	static const enum dsn_action told_at_once[] = { DSN_DELAYED, DSN_DELIVERED, DSN_RELAYED };

	gather(mail, &oc->list[DSN_FAILED]);
	mail->bounces++; /* holds the mail while several notifications begin */
	for (size_t k = 0; k < sizeof(told_at_once) / sizeof(told_at_once[0]); k++) {
		struct outcome_list *l = &oc->list[told_at_once[k]];

		if (l->n)
			bounce_begin(mail, told_at_once[k], l->rcpt, l->n);
	}
	mail->bounces--;
	outbound_rest(mail);
}
