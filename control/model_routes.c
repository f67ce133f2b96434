/* Routes: where domains go, as the configuration says it; for the entries of "routes" and for those of mail_domains that have next hops. */
#include "control/model.h"

/* One "smtp:HOST:PORT" or "lmtp:HOST:PORT". False: complained. */
static bool route_target(struct reader *r, const yaml_node_t *at, uint32_t *kind, struct snap_host *h)
{
	const char *text = scalar(at);
	struct span host;
	uint64_t port;
	uint32_t k = text && strncmp(text, "lmtp:", 5) == 0 ? ROUTE_LMTP : ROUTE_SMTP;

	if (!text || (strncmp(text, "smtp:", 5) != 0 && k != ROUTE_LMTP) || !split_port(text + 5, &host, &port) || !port) {
		complain(r->m, at, "routes: \"%s\" is not a next hop; write smtp:HOST:PORT, lmtp:HOST:PORT or mx", text ? text : "");
		return false;
	}
	if (*kind != ROUTE_MX && *kind != k) {
		complain(r->m, at, "routes: smtp and lmtp cannot be mixed in one route");
		return false;
	}
	*kind = k;
	h->name = model_add_str(r->m, host);
	h->port = (uint32_t)port;
	return true;
}

void route_next_hops(struct reader *r, const yaml_node_t *item, struct snap_route *t)
{
	static const char *const words[] = { "never", "may", "must", "verify", NULL };
	const yaml_node_t *to = member(r, item, "to");
	const char *tls = scalar(member(r, item, "tls"));
	const char *final = scalar(member(r, item, "final"));
	struct snap_host h[16];
	uint32_t n = 0;
	int w;

	memset(h, 0, sizeof(h));
	t->tls = SNAP_TLS_MAY;
	if (tls && (w = find_word(words, tls)) >= 0)
		t->tls = (uint32_t)w;
	else if (tls)
		complain(r->m, item, "routes: tls \"%s\" is not possible; write never, may, must or verify", tls);
	if (final && strcmp(final, "yes") != 0 && strcmp(final, "no") != 0)
		complain(r->m, item, "routes: final \"%s\" is not possible; write yes or no", final);
	t->final_ = final && strcmp(final, "yes") == 0;
	if (!to) {
		complain(r->m, item, "routes: \"to\" is missing; write smtp:HOST:PORT, lmtp:HOST:PORT or mx");
	} else if (to->type == YAML_SEQUENCE_NODE) {
		for (yaml_node_item_t *i = to->data.sequence.items.start; i < to->data.sequence.items.top && n < 16; i++)
			n += route_target(r, yaml_document_get_node(r->doc, *i), &t->kind, &h[n]);
		if (!n)
			complain(r->m, to, "routes: the list of next hops is empty");
	} else if (!scalar(to) || strcmp(scalar(to), "mx") != 0) {
		n = route_target(r, to, &t->kind, &h[0]);
	}
	t->hosts = model_add_list(r->m, h, n, sizeof(*h));
	route_terms_read(r, item, t);
}

void row_route(struct reader *r, const yaml_node_t *item, void *row)
{
	struct snap_route *t = row;

	t->line = (uint32_t)item->start_mark.line + 1;
	if (item->type != YAML_MAPPING_NODE) {
		complain(r->m, item, "routes: an entry is {domain: NAME, to: NEXT-HOP}");
		t->name = t->hold_reason = t->client_certificate = t->client_key = t->user = t->password_file = model_add_str(r->m, SPAN(""));
		return;
	}
	only_members(r, item, (const char *const[]){ "domain", "to", "tls", "final", "recipients", TERMS_MEMBERS, NULL }, "routes");
	domain_key(r, item, "routes", scalar(member(r, item, "domain")), &t->name);
	t->recipients = verify_recipients(r, item, "routes");
	route_next_hops(r, item, t);
}
