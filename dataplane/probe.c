#include "dataplane/probe.h"

#include <stdlib.h>
#include <sys/random.h>
#include "dataplane/conns.h"
#include "dataplane/outbound.h"
#include "dataplane/verify.h"
#include "spool/base/clock.h"

/* Probes that may wait for one destination. Each of them is an address for which the budget of a minute was not used up. */
enum { QUEUE_MAX = 1000, INVENTED_BYTES = 8 };

/* A local part that nobody has: a server that takes it takes everything. */
static void invent(struct out *o)
{
	uint8_t random[INVENTED_BYTES] = { 0 };

	(void)!getrandom(random, sizeof(random), 0); /* without randomness it is still nobody's */
	out_str(o, "no-such-user-");
	for (unsigned i = 0; i < sizeof(random); i++)
		out_fmt(o, "%02x", random[i]);
}

static void add_rcpt(struct probe *p, struct span local, struct span domain)
{
	uint32_t i = p->nrcpt++;
	struct out o = out_of(p->addr[i], sizeof(p->addr[i]));

	out_add(&o, local);
	out_char(&o, '@');
	out_add(&o, domain);
	p->rcpt[i] = (struct env_rcpt){ .addr = out_span(&o) };
	p->index[i] = i;
}

static struct probe *probe_new(struct span addr, bool invented, void *owner)
{
	struct probe *p = calloc(1, sizeof(*p));
	const char *at = memrchr(addr.p, '@', addr.n);
	size_t n = at ? (size_t)(at - addr.p) : addr.n;
	char local[64];
	struct out o = out_of(local, sizeof(local));

	if (!p)
		return NULL;
	p->owner = owner;
	add_rcpt(p, span_of(addr.p, n), span_skip(addr, n + 1));
	invent(&o);
	if (invented)
		add_rcpt(p, out_span(&o), span_skip(addr, n + 1));
	p->env = (struct envelope){ .rcpt = p->rcpt, .nrcpt = p->nrcpt };
	for (size_t i = 0; i < addr.n; i++)
		if (addr.p[i] & 0x80)
			p->env.flags |= ENV_SMTPUTF8;
	return p;
}

struct probe *probe_begin(struct worker *w, struct span addr, bool invented, void *owner, struct reply *why)
{
	char key[ROUTE_KEY_MAX];
	struct next_hop hop;
	struct dest *d;
	struct probe *p;

	enum status st = route_rcpt(&w->cfg->snap, &w->tables, addr, HOP_TLS_ROUTE, key, &hop);

	if (st != ST_OK) {
		reply_set(why, st == ST_AGAIN ? 451 : 550, st == ST_AGAIN ? "4.3.0" : "5.1.2", "No route to this recipient: %s", trail_text());
		return NULL;
	}
	d = outbound_dest(w, &hop);
	if (d && d->down_until_ns > w->now_ns) {
		*why = *d->down_reply;
		return NULL;
	}
	p = d && d->nprobes < QUEUE_MAX ? probe_new(addr, invented, owner) : NULL;
	if (!p) {
		reply_set(why, 451, d ? "4.4.5" : "4.3.0", d ? "Too many addresses of this destination are to be asked for" : "Out of memory");
		return NULL;
	}
	p->dest = d;
	TAILQ_INSERT_TAIL(&d->probes, p, entry);
	d->nprobes++;
	outbound_wake(d);
	return p;
}

static void unqueue(struct probe *p)
{
	TAILQ_REMOVE(&p->dest->probes, p, entry);
	p->dest->nprobes--;
}

void probe_give_up(struct probe *p)
{
	if (p->state == PROBE_ASKING) {
		p->abandoned = true; /* its connection has the addresses */
		conn_probe_abandoned(p->conn);
		return;
	}
	unqueue(p);
	free(p);
}

uint32_t probe_wanted(const struct dest *d)
{
	uint32_t max = d->cfg->set->verify_probes, more = max > d->nprobing ? max - d->nprobing : 0;

	return d->nprobes < more ? d->nprobes : more;
}

struct probe *probe_pick(struct dest *d)
{
	struct probe *p = probe_wanted(d) ? TAILQ_FIRST(&d->probes) : NULL;

	if (!p)
		return NULL;
	unqueue(p);
	p->state = PROBE_ASKING;
	d->nprobing++;
	return p;
}

void probe_unpick(struct probe *p)
{
	struct dest *d = p->dest;

	d->nprobing--;
	p->state = PROBE_QUEUED;
	p->conn = NULL;
	TAILQ_INSERT_HEAD(&d->probes, p, entry);
	d->nprobes++;
	if (p->abandoned) {
		unqueue(p);
		free(p);
	}
	outbound_wake(d);
}

void probe_txn(struct probe *p, struct smtp_txn *t)
{
	memset(p->result, 0, sizeof(p->result));
	*t = (struct smtp_txn){ .env = &p->env, .rcpt = p->index, .result = p->result, .nrcpt = p->nrcpt, .probe = true };
}

void probe_answered(struct probe *p)
{
	p->dest->nprobing--;
	outbound_wake(p->dest);
	p->conn = NULL;
	p->state = PROBE_ANSWERED;
	if (p->abandoned)
		free(p);
	else
		verify_probed(p);
}

void probe_dest_failed(struct dest *d, const struct reply *why)
{
	struct probe_queue failed = TAILQ_HEAD_INITIALIZER(failed);
	struct probe *p;

	TAILQ_CONCAT(&failed, &d->probes, entry); /* an answer may lead to new ones */
	d->nprobes = 0;
	TAILQ_FOREACH(p, &failed, entry)
		p->state = PROBE_ANSWERED;
	while ((p = TAILQ_FIRST(&failed))) {
		TAILQ_REMOVE(&failed, p, entry);
		p->failure = *why;
		p->dest_refused = reply_is_permanent(why);
		verify_probed(p);
	}
}
