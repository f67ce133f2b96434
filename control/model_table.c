/* Lists of the configuration: what their rows are made of, the simple ones of them, and their order. */
#include <stdlib.h>
#include "control/model.h"
#include "spool/mail/address.h"

const char *scalar(const yaml_node_t *n)
{
	return n && n->type == YAML_SCALAR_NODE ? (const char *)n->data.scalar.value : NULL;
}

/* The value of a key in a mapping; complains about keys that are not in `known`. */
const yaml_node_t *member(struct reader *r, const yaml_node_t *map, const char *key)
{
	for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
		const char *k = scalar(yaml_document_get_node(r->doc, p->key));

		if (k && strcmp(k, key) == 0)
			return yaml_document_get_node(r->doc, p->value);
	}
	return NULL;
}

void only_members(struct reader *r, const yaml_node_t *map, const char *const *known, const char *what)
{
	for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
		const yaml_node_t *kn = yaml_document_get_node(r->doc, p->key);
		const char *k = scalar(kn);
		char buf[200];
		struct out o = out_of(buf, sizeof(buf));

		list_words(known, &o);
		if (!k || find_word(known, k) < 0)
			complain(r->m, kn, "%s: unknown key \"%s\"; there are %s", what, k ? k : "?", buf);
	}
}

bool split_port(const char *text, struct span *host, uint64_t *port)
{
	struct span s = span_str(text);
	const char *colon = strrchr(text, ':');

	if (!colon || !span_u64(span_str(colon + 1), 65535, port))
		return false;
	*host = span_of(s.p, (size_t)(colon - s.p));
	if (host->n > 2 && host->p[0] == '[' && host->p[host->n - 1] == ']')
		*host = span_of(host->p + 1, host->n - 2);
	else if (memchr(host->p, ':', host->n))
		return false;
	return host->n > 0;
}

typedef void item_fn(struct reader *r, const yaml_node_t *item, void *row);

bool domain_key(struct reader *r, const yaml_node_t *at, const char *what, const char *text, struct snap_str *ret)
{
	char buf[ADDRESS_DOMAIN_MAX + 2];
	struct out o = out_of(buf, sizeof(buf));
	struct span s = span_str(text ? text : "");

	if (strcmp(what, "routes") == 0 && span_eq(s, SPAN("*"))) {
		*ret = model_add_str(r->m, s);
		return true;
	}
	if (strcmp(what, "routes") == 0 && s.n > 1 && s.p[0] == '.') {
		out_char(&o, '.');
		s = span_skip(s, 1);
	}
	if (address_domain_key(s, &o) != ST_OK) {
		complain(r->m, at, "%s: \"%s\" is not a domain; write for example cam.example", what, text ? text : "");
		*ret = model_add_str(r->m, SPAN(""));
		return false;
	}
	*ret = model_add_str(r->m, out_span(&o));
	return true;
}

static void row_domain(struct reader *r, const yaml_node_t *item, void *row)
{
	struct snap_domain *d = row;

	d->line = (uint32_t)item->start_mark.line + 1;
	domain_key(r, item, "local_domains", scalar(item), &d->name);
}

static void row_host(struct reader *r, const yaml_node_t *item, void *row)
{
	struct snap_host *h = row;
	struct span host = SPAN("");
	uint64_t port = 53;
	const char *text = scalar(item);
	uint8_t ip[16];

	if (!text || !split_port(text, &host, &port) || ip_parse(host, ip) != ST_OK) {
		complain(r->m, item, "dns.servers: \"%s\" is not an address with a port; write for example \"192.0.2.53:53\"", text ? text : "");
		host = SPAN("");
	}
	h->name = model_add_str(r->m, host);
	h->port = (uint32_t)port;
}

static const struct table {
	size_t off, size;
	item_fn *fn;
} table[] = {
	{ offsetof(struct snap_settings, listeners), sizeof(struct snap_listener), row_listener },
	{ offsetof(struct snap_settings, relay_nets), sizeof(struct snap_net), row_net },
	{ offsetof(struct snap_settings, domains), sizeof(struct snap_domain), row_domain },
	{ offsetof(struct snap_settings, routes), sizeof(struct snap_route), row_route },
	{ offsetof(struct snap_settings, dns_servers), sizeof(struct snap_host), row_host },
	{ offsetof(struct snap_settings, mail_domains), sizeof(struct snap_mail_domain), row_mail_domain },
	{ offsetof(struct snap_settings, balancers), sizeof(struct snap_range), row_balancer },
	{ offsetof(struct snap_settings, sources), sizeof(struct snap_range), row_source },
	{ offsetof(struct snap_settings, xclient_clients), sizeof(struct snap_range), row_xclient_client },
	{ offsetof(struct snap_settings, auth_mechs), sizeof(uint32_t), row_mechanism },
	{ offsetof(struct snap_settings, auth_senders), sizeof(struct snap_senders), row_senders },
	{ offsetof(struct snap_settings, tls_certs), sizeof(struct snap_cert), row_certificate },
	{ offsetof(struct snap_settings, policy_rules), sizeof(struct snap_policy), row_policy },
};

static struct model *sorting; /* qsort has no context; one thread */

static int by_name(const void *a, const void *b)
{
	const struct snap_str *x = a, *y = b;
	int c = memcmp(sorting->bytes + x->off, sorting->bytes + y->off, x->len < y->len ? x->len : y->len);

	return c ? c : x->len < y->len ? -1 : x->len > y->len;
}

void sort_by_name(struct model *m, void *rows, size_t n, size_t size)
{
	sorting = m;
	qsort(rows, n, size, by_name);
}

/* Sorts as the snapshot's readers search; equal names are an error. */
static void sort_table(struct reader *r, const struct table *t, char *rows, size_t n, const char *key, const yaml_node_t *at)
{
	sorting = r->m;
	if (t->fn != row_domain && t->fn != row_route && t->fn != row_mail_domain && t->fn != row_senders)
		return;
	sort_by_name(r->m, rows, n, t->size);
	for (size_t i = 1; i < n; i++) {
		const struct snap_str *s = (const struct snap_str *)(const void *)(rows + i * t->size);

		if (s->len && by_name(rows + (i - 1) * t->size, s) == 0)
			complain(r->m, at, "%s: \"%s\" is there twice", key, r->m->bytes + s->off);
	}
}

void set_table(struct reader *r, const struct schema_row *row, const yaml_node_t *node)
{
	const struct table *t = table;
	struct snap_list list;
	char *rows;
	size_t n;

	while (t->off != row->off)
		t++;
	if (node->type != YAML_SEQUENCE_NODE) {
		complain(r->m, node, "%s is a list; write for example %s: [ ... ]", row->key, row->key);
		return;
	}
	n = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
	if (n > row->max) {
		complain(r->m, node, "%s: at most %llu entries", row->key, (unsigned long long)row->max);
		return;
	}
	rows = calloc(n + 1, t->size);
	CHECK(rows);
	for (size_t i = 0; i < n; i++)
		t->fn(r, yaml_document_get_node(r->doc, node->data.sequence.items.start[i]), rows + i * t->size);
	sort_table(r, t, rows, n, row->key, node);
	list = model_add_list(r->m, rows, n, t->size);
	memcpy((char *)model_settings(r->m) + row->off, &list, sizeof(list));
	free(rows);
}
