#include "control/sts_fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum { FETCHES_MAX = 32, TIMEOUT_S = 60 };

struct fetch {
	struct web_transfer web;
	struct curl_slist *connect_to;
	sts_fetched_fn *fn;
	void *ctx;
	size_t len;
	bool too_long;
	char error[CURL_ERROR_SIZE];
	char text[MTA_STS_TEXT_MAX];
};

static unsigned running;

static void fetch_free(struct fetch *f)
{
	if (f->web.easy)
		curl_easy_cleanup(f->web.easy);
	curl_slist_free_all(f->connect_to);
	free(f);
}

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
	struct fetch *f = ctx;

	n *= size;
	if (n > sizeof(f->text) - f->len) {
		f->too_long = true;
		return 0;
	}
	memcpy(f->text + f->len, p, n);
	f->len += n;
	return n;
}

static bool set_up(struct fetch *f, const struct sts_fetch_order *o)
{
	char url[400], to[700];
	bool v6 = memchr(o->address.p, ':', o->address.n) != NULL, ok;

	snprintf(url, sizeof(url), "https://mta-sts.%s/.well-known/mta-sts.txt", o->domain);
	snprintf(to, sizeof(to), "mta-sts.%s:443:%s%.*s%s:%u", o->domain, v6 ? "[" : "", SPAN_FMT(o->address), v6 ? "]" : "", o->port);
	f->connect_to = curl_slist_append(NULL, to);
	ok = f->connect_to && curl_easy_setopt(f->web.easy, CURLOPT_CONNECT_TO, f->connect_to) == CURLE_OK;
	ok = ok && web_set_up(f->web.easy, url, o->ca_file, TIMEOUT_S);
	ok = ok && curl_easy_setopt(f->web.easy, CURLOPT_ERRORBUFFER, f->error) == CURLE_OK;
	ok = ok && curl_easy_setopt(f->web.easy, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK;
	ok = ok && curl_easy_setopt(f->web.easy, CURLOPT_WRITEDATA, f) == CURLE_OK;
	return ok;
}

/* RFC 8461 3.2: text/plain, with or without parameters. */
static bool is_text_plain(const char *type)
{
	return type && strncasecmp(type, "text/plain", 10) == 0 && (type[10] == '\0' || type[10] == ';' || type[10] == ' ');
}

static void finish(struct fetch *f, CURLcode result)
{
	struct mta_sts_policy p;
	const char *type = NULL;
	long code = 0;
	char detail[96];

	curl_easy_getinfo(f->web.easy, CURLINFO_RESPONSE_CODE, &code);
	curl_easy_getinfo(f->web.easy, CURLINFO_CONTENT_TYPE, &type);
	if (f->too_long) {
		f->fn(f->ctx, NULL, "invalid", "the policy is too long");
	} else if (result != CURLE_OK) {
		snprintf(detail, sizeof(detail), "%.95s", f->error[0] ? f->error : curl_easy_strerror(result));
		f->fn(f->ctx, NULL, result == CURLE_PEER_FAILED_VERIFICATION ? "webpki" : "fetch", detail);
	} else if (code != 200) {
		snprintf(detail, sizeof(detail), "the web server answered %ld", code);
		f->fn(f->ctx, NULL, "fetch", detail);
	} else if (!is_text_plain(type)) {
		f->fn(f->ctx, NULL, "invalid", "the policy is not text/plain");
	} else if (mta_sts_parse(span_of(f->text, f->len), &p) != ST_OK) {
		f->fn(f->ctx, NULL, "invalid", trail_text());
	} else {
		f->fn(f->ctx, &p, NULL, "");
	}
}

static void on_done(void *ctx, CURLcode result)
{
	running--;
	finish(ctx, result);
	fetch_free(ctx);
}

enum status sts_fetch(const struct sts_fetch_order *o, sts_fetched_fn *fn, void *ctx)
{
	struct fetch *f;

	if (running >= FETCHES_MAX)
		return trail(ST_FULL, "%u policies are being fetched already", running);
	f = calloc(1, sizeof(*f));
	if (f)
		f->web = (struct web_transfer){ .easy = curl_easy_init(), .fn = on_done, .ctx = f };
	if (!f || !f->web.easy || !set_up(f, o) || web_add(&f->web) != ST_OK) {
		if (f)
			fetch_free(f);
		return trail(ST_NOMEM, "no memory for a fetch");
	}
	f->fn = fn;
	f->ctx = ctx;
	running++;
	return ST_OK;
}
