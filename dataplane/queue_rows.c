#include "dataplane/queue_rows.h"

#include <stdio.h>
#include "dataplane/route.h"
#include "dataplane/terms.h"
#include "spool/base/clock.h"
#include "spool/mail/address.h"

/* The hold that a recipient waits for; NULL: none. */
static const struct snap_route *hold_of(const struct worker *w, const struct store_msg *m, uint32_t i)
{
	char key[ROUTE_KEY_MAX];
	struct next_hop hop;

	if (m->rcpt[i].state != RCPT_QUEUED || m->rcpt[i].busy || route_rcpt(&w->cfg->snap, &w->tables, m->env.rcpt[i].addr, HOP_TLS_ROUTE, key, &hop) != ST_OK)
		return NULL;
	return terms_on_hold(hop.route, clock_steady_ns()) ? hop.route : NULL;
}

static const char *state_name(const struct worker *w, const struct store_msg *m)
{
	if (m->state == MSG_HELD)
		return "held";
	if (m->state == MSG_PENDING)
		return "scanning";
	for (uint32_t i = 0; i < m->env.nrcpt; i++)
		if (m->rcpt[i].state == RCPT_QUEUED && (m->rcpt[i].busy || (!m->rcpt[i].attempts && !hold_of(w, m, i))))
			return "active";
	return "deferred";
}

static void log_seconds(struct logline *row, const char *key, uint64_t from_ns, uint64_t to_ns)
{
	log_u64(row, key, to_ns > from_ns ? (to_ns - from_ns) / NS_PER_S : 0);
}

void queue_row_msg(const struct worker *w, const struct store_msg *m, struct logline *row)
{
	char id[MSG_ID_TEXT + 1], ip[48];
	struct out o = out_of(ip, sizeof(ip));
	uint64_t next = UINT64_MAX, now = clock_steady_ns();
	const struct snap_route *hold = NULL;
	const struct reply *last = NULL;

	row_begin(row);
	msg_id_text(m->id, id);
	log_str(row, "id", id);
	log_str(row, "state", state_name(w, m));
	log_seconds(row, "age_s", m->env.arrived_ns, now);
	log_u64(row, "size", m->body_len);
	log_span(row, "sender", m->env.sender);
	log_u64(row, "rcpts", m->env.nrcpt);
	log_u64(row, "open", m->open_rcpts);
	ip_write(m->env.client_ip, &o);
	log_span(row, "client", out_span(&o));
	for (uint32_t i = 0; i < m->env.nrcpt; i++) {
		if (m->rcpt[i].state != RCPT_QUEUED)
			continue;
		if (m->rcpt[i].next_ns < next)
			next = m->rcpt[i].next_ns;
		if (m->rcpt[i].last)
			last = m->rcpt[i].last;
		if (!hold)
			hold = hold_of(w, m, i);
	}
	if (next != UINT64_MAX)
		log_seconds(row, "next_s", now, next);
	if (m->env.nrcpt)
		log_span(row, "to", m->env.rcpt[0].addr);
	if (m->state == MSG_HELD) {
		log_span(row, "reason", m->hold_reason);
	} else if (hold) {
		char text[300];
		struct out t = out_of(text, sizeof(text));

		terms_hold_text(&w->cfg->snap, hold, &t);
		log_span(row, "reason", out_span(&t));
	} else if (last) {
		char text[REPLY_TEXT_MAX + 32];
		struct out t = out_of(text, sizeof(text));

		reply_line(last, &t);
		log_span(row, "reason", span_of(text, t.n > 300 ? 300 : t.n));
	}
}

void queue_row_rcpt(const struct worker *w, const struct store_msg *m, uint32_t i, struct logline *row)
{
	static const char *const name[] = { [RCPT_QUEUED] = "queued", [RCPT_DELIVERED] = "delivered", [RCPT_BOUNCED] = "bounced",
		[RCPT_DELETED] = "deleted", [RCPT_DROPPED] = "dropped" };
	const struct store_rcpt_state *r = &m->rcpt[i];
	char text[REPLY_TEXT_MAX + 32];
	struct out o = out_of(text, sizeof(text));
	const struct snap_route *hold = hold_of(w, m, i);

	row_begin(row);
	log_span(row, "rcpt", m->env.rcpt[i].addr);
	log_str(row, "state", r->busy ? "active" : r->state == RCPT_QUEUED && (r->attempts || hold) ? "deferred" : name[r->state]);
	log_u64(row, "attempts", r->attempts);
	if (r->state == RCPT_QUEUED && r->attempts)
		log_seconds(row, "next_s", clock_steady_ns(), r->next_ns);
	if (hold) {
		terms_hold_text(&w->cfg->snap, hold, &o);
		log_span(row, "hold", out_span(&o));
		o.n = 0;
	}
	if (r->last) {
		reply_line(r->last, &o);
		log_span(row, "reply", out_span(&o));
	}
}

static bool domain_matches(const struct store_msg *m, const char *domain)
{
	char at[ADDRESS_DOMAIN_MAX + 2];

	snprintf(at, sizeof(at), "@%s", domain);
	for (uint32_t i = 0; i < m->env.nrcpt; i++)
		if (m->rcpt[i].state == RCPT_QUEUED && span_ends_nocase(m->env.rcpt[i].addr, span_str(at)))
			return true;
	return false;
}

bool queue_matches(const struct worker *w, const struct store_msg *m, const struct queue_filter *f)
{
	return m->open_rcpts && (!f->state || strcmp(f->state, state_name(w, m)) == 0) && (!f->domain || domain_matches(m, f->domain)) &&
		(!f->sender || span_eq_nocase(m->env.sender, span_str(f->sender)));
}
