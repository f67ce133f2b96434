#include "dataplane/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "dataplane/logins.h"
#include "spool/base/clock.h"

static void config_fill(struct config *c)
{
	const struct snap_settings *set = c->set;

	for (unsigned role = 0; role < ROLE_NROLE; role++)
		c->smtp[role] = (struct smtp_server_config){
			.hostname = snap_span(&c->snap, set->hostname),
			.banner = role == ROLE_LMTP ? SPAN("LMTP Weir") : SPAN("ESMTP Weir"),
			.size_max = set->size_max,
			.rcpt_max = set->rcpt_max,
			.mail_max = set->mail_max,
			.errors_max = set->errors_max,
			.commands_max = set->commands_max,
			.transaction_max = set->transaction_max,
			.starttls = c->tls_server != NULL,
			.requiretls = set->requiretls,
			.auth = snap_role_is_submission(role),
			.lmtp = role == ROLE_LMTP,
		};
}

/* Without certificates there is no STARTTLS. Their files were read by weir-control. */
static enum status config_tls(struct config *c, const char *run_dir)
{
	struct tls_server_options o = { .ciphers = snap_cstr(&c->snap, c->set->tls_ciphers), .only_tls13 = c->set->tls_only_13,
		.ticket_life_s = (uint32_t)(c->set->tls_ticket_life_ns / NS_PER_S) };
	enum status st = tls_client_make(snap_cstr(&c->snap, c->set->ca_file), c->set->tls_sessions, &c->tls_client);
	struct tls_file f = { 0 };

	if (st != ST_OK || (!c->set->tls_certs.n && !c->set->tls_client_certs.n && !c->set->client_logins.n))
		return st;
	st = tls_file_read(run_dir, &f);
	/* one file is replaced after the other: what is not there yet is with the next look */
	for (uint32_t i = 0; st == ST_OK && i < f.nclient && i < c->set->tls_client_certs.n; i++)
		st = tls_identity_new(&f.client[i], &c->identity[i]);
	if (st == ST_OK && c->set->tls_certs.n)
		st = tls_server_make(&f, &o, &c->tls_server);
	if (st == ST_OK)
		c->logins = logins_new(&f);
	tls_file_free(&f);
	return st;
}

enum status config_load(const char *run_dir, struct config **ret)
{
	char path[4096];
	struct config *c = calloc(1, sizeof(*c));
	enum status st = ST_NOMEM;

	if (!c)
		return ST_NOMEM;
	c->refs = 1;
	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	st = snapshot_open(path, &c->snap);
	if (st != ST_OK)
		goto fail;
	c->set = &c->snap.h->settings;
	st = config_tls(c, run_dir);
	if (st != ST_OK)
		goto fail;
	config_fill(c);
	*ret = c;
	return ST_OK;
fail:
	config_release(c);
	return st;
}

struct config *config_hold(struct config *c)
{
	c->refs++;
	return c;
}

void config_release(struct config *c)
{
	if (!c || --c->refs)
		return;
	if (c->tls_server)
		tls_context_free(c->tls_server);
	if (c->tls_client)
		tls_context_free(c->tls_client);
	for (uint32_t i = 0; i < TLS_CLIENT_CERTS_MAX; i++)
		tls_identity_free(c->identity[i]);
	logins_free(c->logins);
	if (c->snap.h)
		snapshot_close(&c->snap);
	free(c);
}
