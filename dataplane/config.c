#include "dataplane/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "spool/base/counters.h"

static void config_fill(struct config *c)
{
	const struct snap_settings *set = c->set;

	c->smtp = (struct smtp_server_config){
		.hostname = snap_span(&c->snap, set->hostname),
		.banner = SPAN("ESMTP Weir"),
		.size_max = set->size_max,
		.rcpt_max = set->rcpt_max,
		.errors_max = set->errors_max,
		.commands_max = set->commands_max,
		.transaction_max = set->transaction_max,
		.starttls = c->tls_server != NULL,
	};
}

/* Without certificate files there is no STARTTLS; files that are named but bad are an error. */
static enum status config_tls(struct config *c)
{
	const char *cert = snap_cstr(&c->snap, c->set->tls_cert);
	const char *key = snap_cstr(&c->snap, c->set->tls_key);
	enum status st = tls_client_new(false, NULL, &c->tls_client);

	if (st == ST_OK && *cert)
		st = tls_server_new(cert, key, &c->tls_server);
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
	st = config_tls(c);
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
	if (c->snap.h)
		snapshot_close(&c->snap);
	free(c);
}

void tables_watch(struct worker *w)
{
	char path[4096];
	struct tables t;
	struct stat sb;
	bool first = !w->tables.h;

	snprintf(path, sizeof(path), "%s/tables/current", w->opt->run_dir);
	if (stat(path, &sb) < 0 || sb.st_ino == w->tables_ino)
		return; /* without the name, or with the file that is mapped, what is in use stays */
	w->tables_ino = sb.st_ino;
	/* a worker that has none yet takes the best that it can find: a damaged generation must not turn our addresses into unknown ones */
	if ((first ? tables_open_current(w->opt->run_dir, &t) : tables_open(path, &t)) != ST_OK) {
		counter_add(C_TABLES_REFUSED, 1);
		log_msg(LOG_LVL_ERROR, "tables-refused", "%s: %s", first ? "there are no others" : "the last good ones stay in use", trail_text());
		return;
	}
	tables_close(&w->tables);
	w->tables = t;
	counter_set(C_TABLES_GENERATION, t.h->generation);
	log_msg(LOG_LVL_INFO, "tables", "generation %llu, %llu domains, %llu aliases", (unsigned long long)t.h->generation,
		(unsigned long long)t.h->domains.n, (unsigned long long)t.h->aliases.n);
}
