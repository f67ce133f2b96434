#include "control/sts_fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum { FETCHES_MAX = 32, TIMEOUT_S = 60, CONNECT_TIMEOUT_S = 20 };

struct fetch {
	CURL *easy;
	struct curl_slist *connect_to;
	sts_fetched_fn *fn;
	void *ctx;
	size_t len;
	bool too_long;
	char error[CURL_ERROR_SIZE];
	char text[MTA_STS_TEXT_MAX];
};

static CURLM *multi;
static unsigned running;

enum status sts_fetch_init(void)
{
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(multi = curl_multi_init()))
		return trail(ST_NOMEM, "libcurl cannot start");
	return ST_OK;
}

void sts_fetch_done(void)
{
	if (multi)
		curl_multi_cleanup(multi);
	multi = NULL;
	curl_global_cleanup();
}

static void fetch_free(struct fetch *f)
{
	if (f->easy)
		curl_easy_cleanup(f->easy);
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
	ok = f->connect_to && curl_easy_setopt(f->easy, CURLOPT_CONNECT_TO, f->connect_to) == CURLE_OK;
	ok = ok && curl_easy_setopt(f->easy, CURLOPT_URL, url) == CURLE_OK;
	ok = ok && curl_easy_setopt(f->easy, CURLOPT_PROTOCOLS_STR, "https") == CURLE_OK;
	ok = ok && curl_easy_setopt(f->easy, CURLOPT_PROXY, "") == CURLE_OK;
	ok = ok && curl_easy_setopt(f->easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK;
	ok = ok && curl_easy_setopt(f->easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK;
	ok = ok && curl_easy_setopt(f->easy, CURLOPT_TIMEOUT, (long)TIMEOUT_S) == CURLE_OK;
	ok = ok && curl_easy_setopt(f->easy, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S) == CURLE_OK;
	ok = ok && curl_easy_setopt(f->easy, CURLOPT_USERAGENT, "weir") == CURLE_OK;
	ok = ok && curl_easy_setopt(f->easy, CURLOPT_ERRORBUFFER, f->error) == CURLE_OK;
	ok = ok && curl_easy_setopt(f->easy, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK;
	ok = ok && curl_easy_setopt(f->easy, CURLOPT_WRITEDATA, f) == CURLE_OK;
	ok = ok && curl_easy_setopt(f->easy, CURLOPT_PRIVATE, f) == CURLE_OK;
	if (ok && *o->ca_file)
		ok = curl_easy_setopt(f->easy, CURLOPT_CAINFO, o->ca_file) == CURLE_OK && curl_easy_setopt(f->easy, CURLOPT_CAPATH, NULL) == CURLE_OK;
	return ok;
}

enum status sts_fetch(const struct sts_fetch_order *o, sts_fetched_fn *fn, void *ctx)
{
	struct fetch *f;

	if (running >= FETCHES_MAX)
		return trail(ST_FULL, "%u policies are being fetched already", running);
	f = calloc(1, sizeof(*f));
	if (!f || !(f->easy = curl_easy_init()) || !set_up(f, o) || curl_multi_add_handle(multi, f->easy) != CURLM_OK) {
		if (f)
			fetch_free(f);
		return trail(ST_NOMEM, "no memory for a fetch");
	}
	f->fn = fn;
	f->ctx = ctx;
	running++;
	return ST_OK;
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

	curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &code);
	curl_easy_getinfo(f->easy, CURLINFO_CONTENT_TYPE, &type);
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

static void take_finished(void)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(multi, &left))) {
		struct fetch *f;
		CURLcode result = m->data.result;

		if (m->msg != CURLMSG_DONE || curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &f) != CURLE_OK)
			continue;
		curl_multi_remove_handle(multi, f->easy); /* m is gone after this */
		running--;
		finish(f, result);
		fetch_free(f);
	}
}

void sts_fetch_wait(struct curl_waitfd *fds, unsigned n, int timeout_ms)
{
	int still;

	curl_multi_perform(multi, &still);
	take_finished();
	curl_multi_poll(multi, fds, n, timeout_ms, NULL);
	curl_multi_perform(multi, &still);
	take_finished();
}
