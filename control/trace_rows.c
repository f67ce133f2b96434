/* The rows of the ledger that tell a message's story, as lines. */
#include <stdlib.h>
#include <string.h>
#include "control/trace_internal.h"
#include "control/when.h"
#include "spool/mail/address.h"
#include "spool/store/store.h"

static void event_add(struct trace *t, uint64_t id, uint64_t at_ns, struct span text)
{
	if (t->nevents == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 256;
		t->event = realloc(t->event, t->cap * sizeof(*t->event));
		CHECK(t->event);
	}
	t->event[t->nevents++] = (struct event){ id, at_ns, strndup(text.p, text.n) };
}

struct message *trace_message(struct trace *t, uint64_t id)
{
	for (unsigned i = t->nmessages; i-- > 0;)
		if (t->message[i].id == id)
			return &t->message[i];
	return NULL;
}

/* The message belongs to what is asked for. */
static struct message *adopt(struct trace *t, uint64_t id, uint32_t nrcpt)
{
	struct message *m = trace_message(t, id);

	if (m)
		return m;
	if (t->nmessages == MESSAGES_MAX) {
		t->more = true;
		return NULL;
	}
	m = &t->message[t->nmessages++];
	*m = (struct message){ .id = id, .nrcpt = nrcpt, .rcpt = calloc(nrcpt ? nrcpt : 1, sizeof(char *)) };
	return m;
}

static bool wanted_address(const struct trace *t, struct span a)
{
	return !t->is_ip && t->address.n && span_eq_nocase(a, t->address);
}

/* With or without its brackets. */
static bool wanted_message_id(const struct trace *t, struct span id)
{
	if (!id.n || t->is_ip || !t->address.n)
		return false;
	return span_eq(id, t->address) || (id.n > 2 && span_eq(span_of(id.p + 1, id.n - 2), t->address));
}

static bool wanted_client(const struct trace *t, const uint8_t ip[16])
{
	return t->is_ip && memcmp(ip, t->ip, 16) == 0;
}

/* ---- rows of the ledger, as lines ---- */

static void begin(struct logline *l, const char *event, const struct ledger_row *row, bool repaired)
{
	row_begin(l);
	log_str(l, "ts", when_text(row->at_ns));
	log_str(l, "event", event);
	if (repaired)
		log_str(l, "repaired", "yes"); /* the time is that of the restart */
}

static void add_client(struct logline *l, const struct ledger_row *row)
{
	char ip[48];
	struct out o = out_of(ip, sizeof(ip));

	if (row->flags & ENV_INTERNAL)
		return;
	ip_write(row->client_ip, &o);
	log_span(l, "client", out_span(&o));
	log_span(l, "helo", row->helo);
	log_str(l, "tls", row->flags & ENV_TLS ? "yes" : "no");
}

static void add_reply(struct logline *l, const struct ledger_row *row)
{
	if (row->code && row->enhanced[0])
		log_f(l, "reply", "%u %u.%u.%u %.*s", row->code, row->enhanced[0], row->enhanced[1], row->enhanced[2], SPAN_FMT(row->text));
	else if (row->code)
		log_f(l, "reply", "%u %.*s", row->code, SPAN_FMT(row->text));
	else if (row->text.n)
		log_span(l, "reason", row->text);
}

/* Its acceptance and what it stood for, once it is known to be wanted. */
static void adopt_last(struct trace *t)
{
	if (!adopt(t, t->last_id, t->last_nrcpt))
		return;
	event_add(t, t->last_id, t->last_at_ns, row_text(&t->last));
	for (unsigned i = 0; i < t->ngiven; i++)
		event_add(t, t->last_id, t->last_at_ns, span_str(t->given[i].text));
}

static void forget_given(struct trace *t)
{
	while (t->ngiven)
		free(t->given[--t->ngiven].text);
}

static void on_accepted(struct trace *t, const struct ledger_row *row, bool repaired)
{
	struct logline *l = &t->last;
	struct span addrs = row->addrs, message_id;

	begin(l, row->flags & ENV_INTERNAL ? "made" : "accepted", row, repaired);
	if (row->arrived_ns)
		log_str(l, "arrived", when_text(row->arrived_ns));
	add_client(l, row);
	log_span(l, "from", row->sender);
	if (!addrs.n || !ledger_addr_read(&addrs, &message_id))
		message_id = SPAN_NONE;
	if (message_id.n)
		log_span(l, "message_id", message_id);
	log_u64(l, "nrcpt", row->nrcpt);
	log_u64(l, "size", row->size);
	log_str(l, "verdict", row->flags & ENV_INTERNAL ? "not scanned" : row->state == MSG_HELD ? "held" : "clean");
	if (row->state == MSG_HELD)
		log_span(l, "held", row->text);
	t->last_id = row->id;
	t->last_at_ns = row->at_ns;
	t->last_nrcpt = row->nrcpt;
	forget_given(t);
	if (row->id == t->id || wanted_address(t, row->sender) || wanted_client(t, row->client_ip) || wanted_message_id(t, message_id))
		adopt_last(t);
}

static void on_given(struct trace *t, const struct ledger_row *row, bool repaired)
{
	struct span addrs = row->addrs, a;
	struct logline l;

	if (row->id != t->last_id || !ledger_addr_read(&addrs, &a))
		return;
	begin(&l, "expanded", row, repaired);
	log_span(&l, "to", a);
	log_u64(&l, "nrcpt", row->nrcpt);
	if (t->ngiven < GIVEN_MAX)
		t->given[t->ngiven++] = (struct event){ row->id, row->at_ns, strndup(row_text(&l).p, row_text(&l).n) };
	if (trace_message(t, row->id))
		event_add(t, row->id, row->at_ns, row_text(&l));
	else if (wanted_address(t, a))
		adopt_last(t);
}

static void on_rcpts(struct trace *t, const struct ledger_row *row)
{
	struct message *m = trace_message(t, row->id);
	struct span addrs = row->addrs, a;
	bool wanted = false;

	while (!m && !wanted && addrs.n && ledger_addr_read(&addrs, &a))
		wanted = wanted_address(t, a);
	if (wanted && row->id == t->last_id) {
		adopt_last(t);
		m = trace_message(t, row->id);
	}
	addrs = row->addrs;
	for (uint32_t i = row->rcpt; m && m->rcpt && i < m->nrcpt && addrs.n && ledger_addr_read(&addrs, &a); i++)
		m->rcpt[i] = strndup(a.p ? a.p : "", a.n);
}

static void on_fate(struct trace *t, const struct ledger_row *row, bool repaired)
{
	static const char *const name[] = { [RCPT_QUEUED] = "deferred", [RCPT_DELIVERED] = "delivered", [RCPT_BOUNCED] = "bounced",
		[RCPT_DELETED] = "deleted", [RCPT_DROPPED] = "dropped" };
	struct message *m = trace_message(t, row->id);
	struct logline l;

	if (!m && row->id == t->id)
		m = adopt(t, row->id, 0);
	if (!m || row->state > RCPT_DROPPED)
		return;
	begin(&l, name[row->state], row, repaired);
	if (row->rcpt == LEDGER_RCPT_ALL)
		log_str(&l, "to", "all that had no outcome");
	else if (m->rcpt && row->rcpt < m->nrcpt && m->rcpt[row->rcpt])
		log_str(&l, "to", m->rcpt[row->rcpt]);
	else
		log_u64(&l, "recipient", row->rcpt);
	if (row->state == RCPT_QUEUED)
		log_u64(&l, "attempt", row->attempts);
	if (row->remote.n)
		log_span(&l, "remote", row->remote);
	add_reply(&l, row);
	event_add(t, row->id, row->at_ns, row_text(&l));
}

static void on_state(struct trace *t, const struct ledger_row *row, bool repaired)
{
	struct logline l;

	if (!trace_message(t, row->id))
		return;
	begin(&l, row->state == MSG_HELD ? "held" : "released", row, repaired);
	if (row->text.n)
		log_span(&l, "reason", row->text);
	event_add(t, row->id, row->at_ns, row_text(&l));
}

static void on_refused(struct trace *t, const struct ledger_row *row)
{
	struct span addrs = row->addrs, a;
	bool wanted = (row->id && row->id == t->id) || wanted_address(t, row->sender) || wanted_client(t, row->client_ip);
	struct logline l;

	begin(&l, row->id ? "refused" : "rejected", row, false);
	add_client(&l, row);
	log_span(&l, "from", row->sender);
	while (addrs.n && ledger_addr_read(&addrs, &a)) {
		wanted = wanted || wanted_address(t, a);
		log_span(&l, "to", a);
	}
	if (row->size)
		log_u64(&l, "size", row->size);
	add_reply(&l, row);
	if (wanted && (!row->id || adopt(t, row->id, 0)))
		event_add(t, row->id, row->at_ns, row_text(&l));
}

void trace_row(struct trace *t, const struct ledger_row *row, bool repaired)
{
	switch ((enum ledger_type)row->type) {
	case LEDGER_ACCEPTED:
		on_accepted(t, row, repaired);
		break;
	case LEDGER_GIVEN:
		on_given(t, row, repaired);
		break;
	case LEDGER_RCPTS:
		on_rcpts(t, row);
		break;
	case LEDGER_FATE:
		on_fate(t, row, repaired);
		break;
	case LEDGER_STATE:
		on_state(t, row, repaired);
		break;
	case LEDGER_REFUSED:
		on_refused(t, row);
		break;
	case LEDGER_MARK:
	case LEDGER_BEGIN:
	case LEDGER_GAP:
	case LEDGER_NTYPE:
		break;
	}
}

void trace_free(struct trace *t)
{
	for (unsigned i = 0; i < t->nmessages; i++) {
		for (uint32_t k = 0; t->message[i].rcpt && k < t->message[i].nrcpt; k++)
			free(t->message[i].rcpt[k]);
		free(t->message[i].rcpt);
	}
	for (size_t i = 0; i < t->nevents; i++)
		free(t->event[i].text);
	free(t->event);
	forget_given(t);
	free(t);
}
