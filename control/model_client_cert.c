/* The certificates that Weir shows to the next hops of a route: client_certificate and client_key of its row. */
#include "control/model.h"
#include "spool/store/tls_file.h"

void route_certificate_read(struct reader *r, const yaml_node_t *item, struct snap_route *t)
{
	const char *cert = scalar(member(r, item, "client_certificate")), *key = scalar(member(r, item, "client_key"));

	if (!cert != !key || (cert && (!*cert || !*key)))
		complain(r->m, item, "client_certificate and client_key are names of files, and belong together");
	else if (cert && t->tls == SNAP_TLS_NEVER)
		complain(r->m, item, "client_certificate: without TLS it cannot be shown; write tls: must, or leave tls out");
	t->client_certificate = model_add_str(r->m, span_str(cert && key ? cert : ""));
	t->client_key = model_add_str(r->m, span_str(cert && key ? key : ""));
}

static bool is_same(const struct model *m, const struct snap_cert *c, const struct snap_route *t)
{
	return strcmp(model_text(m, c->certificate), model_text(m, t->client_certificate)) == 0 && strcmp(model_text(m, c->key), model_text(m, t->client_key)) == 0;
}

/* Several routes may show the same. */
void client_certs_together(struct model *m)
{
	struct snap_list routes = model_settings(m)->routes, list;
	struct snap_route *t = (struct snap_route *)(void *)(m->bytes + routes.off);
	struct snap_cert all[TLS_CLIENT_CERTS_MAX];
	uint32_t n = 0;

	for (uint32_t i = 0; i < routes.n; i++) {
		uint32_t k = 0;

		if (!t[i].client_certificate.len)
			continue;
		while (k < n && !is_same(m, &all[k], &t[i]))
			k++;
		if (k == TLS_CLIENT_CERTS_MAX) {
			complain_line(m, t[i].line, "client_certificate: there may be %d different ones", TLS_CLIENT_CERTS_MAX);
			return;
		}
		if (k == n)
			all[n++] = (struct snap_cert){ .certificate = t[i].client_certificate, .key = t[i].client_key, .line = t[i].line };
		t[i].client_cert = k + 1;
	}
	for (uint32_t i = 0; i < n; i++)
		cert_check(m, &all[i]);
	list = model_add_list(m, all, n, sizeof(all[0])); /* what t points into may have moved now */
	model_settings(m)->tls_client_certs = list;
}
