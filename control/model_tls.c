/* tls: the server's certificates, as the configuration names them, and whether they can be used. */
#include <stdlib.h>
#include "control/model.h"
#include "control/tls_cert.h"
#include "control/tls_check.h"
#include "control/tls_keys.h"
#include "spool/base/clock.h"
#include "spool/store/tls_file.h"

enum { WARN_DAYS = 14 };

void row_certificate(struct reader *r, const yaml_node_t *item, void *row)
{
	struct snap_cert *c = row;
	const char *cert = NULL, *key = NULL;

	if (item->type == YAML_MAPPING_NODE) {
		only_members(r, item, (const char *const[]){ "certificate", "key", NULL }, "tls.certificates");
		cert = scalar(member(r, item, "certificate"));
		key = scalar(member(r, item, "key"));
	}
	if (!cert || !*cert || !key || !*key)
		complain(r->m, item, "tls.certificates: an entry is {certificate: FILE, key: FILE}");
	c->certificate = model_add_str(r->m, span_str(cert ? cert : ""));
	c->key = model_add_str(r->m, span_str(key ? key : ""));
	c->line = (uint32_t)item->start_mark.line + 1;
}

static void check_cert(struct model *m, const struct snap_cert *c)
{
	const char *cert = model_text(m, c->certificate), *key = model_text(m, c->key);
	int64_t now = (int64_t)(clock_wall_ns() / NS_PER_S);
	struct tls_cert t;
	char why[1024];

	if (!c->certificate.len || !c->key.len)
		return; /* that was said */
	if (!tls_cert_read(cert, key, &t, why, sizeof(why))) {
		complain_line(m, c->line, "tls: %s", why);
		return;
	}
	if (t.ends_s <= now)
		warn_line(m, c->line, "tls: the certificate in %s has expired", cert);
	else if (t.ends_s < now + WARN_DAYS * 86400)
		warn_line(m, c->line, "tls: the certificate in %s expires in %lld days", cert, (long long)(t.ends_s - now) / 86400);
	if (t.begins_s > now)
		warn_line(m, c->line, "tls: the certificate in %s is not valid yet", cert);
	if (t.key_is_open)
		warn_line(m, c->line, "tls: everybody can read the key in %s; chmod o= %s", key, key);
	tls_cert_free(&t);
}

static void check_ticket_file(struct model *m)
{
	const struct snap_settings *s = model_settings(m);
	const char *file = model_text(m, s->tls_ticket_file);
	struct tls_file keys = { 0 };
	bool open;

	if (!*file)
		return;
	if (tls_keys_file(file, &keys, &open) != ST_OK)
		complain_line(m, key_line(m, "tls.ticket_key_file"), "tls.ticket_key_file: %s", trail_text());
	else if (open)
		warn_line(m, key_line(m, "tls.ticket_key_file"), "tls.ticket_key_file: everybody can read %s; chmod o= %s", file, file);
	tls_file_free(&keys);
}

static void check_ciphers(struct model *m)
{
	const char *list = model_text(m, model_settings(m)->tls_ciphers);
	char why[512];

	if (*list && !tls_ciphers_ok(list, why, sizeof(why)))
		complain_line(m, key_line(m, "tls.ciphers"), "tls.ciphers: %s", why);
}

static void check_authorities(struct model *m)
{
	const char *file = model_text(m, model_settings(m)->ca_file);
	char why[4500];

	if (*file && !tls_authorities_ok(file, why, sizeof(why)))
		complain_line(m, key_line(m, "tls.ca_file"), "tls.ca_file: %s", why);
}

/* tls.certificate and tls.key are the first of the certificates. */
static void put_first(struct model *m, uint32_t line)
{
	struct snap_settings *s = model_settings(m);
	const struct snap_cert *more = (const struct snap_cert *)(const void *)(m->bytes + s->tls_certs.off);
	struct snap_cert all[TLS_CERTS_MAX + 1] = { { .certificate = s->tls_cert, .key = s->tls_key, .line = line } };
	uint32_t n = s->tls_certs.n;
	struct snap_list list;

	memcpy(all + 1, more, n * sizeof(*more));
	list = model_add_list(m, all, n + 1, sizeof(all[0]));
	model_settings(m)->tls_certs = list;
}

void tls_together(struct model *m)
{
	const struct snap_settings *s = model_settings(m);

	if (s->tls_cert.len && s->tls_key.len)
		put_first(m, key_line(m, "tls.certificate"));
	else if (s->tls_cert.len)
		complain_line(m, key_line(m, "tls.certificate"), "tls.certificate is there without tls.key");
	else if (s->tls_key.len)
		complain_line(m, key_line(m, "tls.key"), "tls.key is there without tls.certificate");
	s = model_settings(m);
	if (s->tls_certs.n > TLS_CERTS_MAX)
		complain_line(m, key_line(m, "tls.certificates"), "tls.certificates: at most %d, tls.certificate included", TLS_CERTS_MAX);
	for (uint32_t i = 0; i < s->tls_certs.n; i++)
		check_cert(m, &((const struct snap_cert *)(const void *)(m->bytes + s->tls_certs.off))[i]);
	check_ticket_file(m);
	check_ciphers(m);
	check_authorities(m);
}
