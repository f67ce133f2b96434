/* Questions about recipients over a delivery connection (B2): transactions without content, between those of deliveries. */
#include "dataplane/conn_internal.h"

void conn_probe_opened(struct out_conn *c)
{
	if (c->for_probe)
		c->dest->nprobe_opening--;
	c->for_probe = false;
}

bool conn_take_probe(struct out_conn *c)
{
	struct probe *p = probe_pick(c->dest);

	if (!p)
		return false;
	p->conn = c;
	c->probe = p;
	c->went_on = true;
	probe_txn(p, &c->txn);
	smtp_client_begin(&c->client, &c->txn);
	return true;
}

void conn_probe_end(struct out_conn *c)
{
	struct probe *p = c->probe;

	c->probe = NULL;
	p->mail_refused = c->txn.mail_refused;
	conn_lost_reply(c, &p->failure);
	/* an idle connection that the server had given up */
	if (!p->result[0].code && c->client.transactions > 1 && !p->again && !p->abandoned) {
		p->again = true;
		probe_unpick(p);
		return;
	}
	probe_answered(p);
}

void conn_probe_abandoned(struct out_conn *c)
{
	reply_set(&c->client.failure, 451, "4.4.2", "%s did not answer in time", c->host);
	net_abort(c->conn);
}
