#include "control/domain_fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include "control/secrets.h"
#include "spool/base/clock.h"

enum { REDIRECTS_MAX = 3 };

struct domain_fetch {
	struct web_transfer web;
	struct curl_slist *headers;
	domain_fetched_fn *fn;
	void *ctx;
	char *url;      /* where it began */
	char *text;
	size_t len, cap, max;
	unsigned redirects;
	uint64_t deadline_ns; /* of all together */
	bool too_long, conditional;
	bool has_end;   /* the answer says where it ends */
	struct domain_answer answer;
	char error[CURL_ERROR_SIZE];
};

static void fetch_free(struct domain_fetch *f)
{
	if (f->web.easy)
		curl_easy_cleanup(f->web.easy);
	curl_slist_free_all(f->headers);
	free(f->url);
	free(f->text);
	free(f);
}

/* ---- what comes in ---- */

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
	struct domain_fetch *f = ctx;

	n *= size;
	if (n > f->max - f->len) {
		f->too_long = true;
		return 0;
	}
	if (f->len + n > f->cap) {
		size_t cap = f->cap * 2 > f->len + n ? f->cap * 2 : f->len + n;
		char *bigger = realloc(f->text, cap);

		if (!bigger)
			return 0;
		f->text = bigger;
		f->cap = cap;
	}
	memcpy(f->text + f->len, p, n);
	f->len += n;
	return n;
}

/* A tag that is too long, or could be no field of a request, is as good as none: the next fetch is unconditional. */
static void keep_tag(char *to, size_t cap, struct span v)
{
	to[0] = '\0';
	v = span_trim(v);
	for (size_t i = 0; i < v.n; i++)
		if ((unsigned char)v.p[i] < ' ' || (unsigned char)v.p[i] > '~')
			return;
	if (v.n < cap)
		snprintf(to, cap, "%.*s", SPAN_FMT(v));
}

static size_t on_header(char *p, size_t size, size_t n, void *ctx)
{
	struct domain_fetch *f = ctx;
	struct span line = span_of(p, n * size), name = span_cut(&line, ':');

	if (span_starts_nocase(name, SPAN("HTTP/"))) { /* of each answer: what one before it said does not count */
		f->answer.etag[0] = f->answer.modified[0] = '\0';
		f->has_end = !span_starts_nocase(name, SPAN("HTTP/1"));
		return n * size;
	}
	while (line.n && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == '\n'))
		line.n--;
	if (span_eq_nocase(name, SPAN("Content-Length")) ||
		(span_eq_nocase(name, SPAN("Transfer-Encoding")) && span_ends_nocase(span_trim(line), SPAN("chunked"))))
		f->has_end = true;
	if (span_eq_nocase(name, SPAN("ETag")))
		keep_tag(f->answer.etag, sizeof(f->answer.etag), line);
	else if (span_eq_nocase(name, SPAN("Last-Modified")))
		keep_tag(f->answer.modified, sizeof(f->answer.modified), line);
	return n * size;
}

/* ---- redirects ---- */

static bool same_part(CURLU *a, CURLU *b, CURLUPart part)
{
	char *x = NULL, *y = NULL;
	bool same = curl_url_get(a, part, &x, CURLU_DEFAULT_PORT) == CURLUE_OK && curl_url_get(b, part, &y, CURLU_DEFAULT_PORT) == CURLUE_OK &&
		strcasecmp(x, y) == 0;

	curl_free(x);
	curl_free(y);
	return same;
}

/* The password goes to one host and port, and the aliases come from there: nowhere else. */
static bool same_place(const char *from, const char *to)
{
	CURLU *a = curl_url(), *b = curl_url();
	char *user = NULL;
	bool same = a && b && curl_url_set(a, CURLUPART_URL, from, 0) == CURLUE_OK && curl_url_set(b, CURLUPART_URL, to, 0) == CURLUE_OK &&
		same_part(a, b, CURLUPART_SCHEME) && same_part(a, b, CURLUPART_HOST) && same_part(a, b, CURLUPART_PORT) &&
		curl_url_get(b, CURLUPART_USER, &user, 0) == CURLUE_NO_USER;

	curl_free(user);
	curl_url_cleanup(a);
	curl_url_cleanup(b);
	return same;
}

/* True: it goes on elsewhere on the same host. */
static bool redirect(struct domain_fetch *f, long code)
{
	char *to = NULL, *detail = f->answer.detail;
	size_t cap = sizeof(f->answer.detail);
	uint64_t now = clock_mono_ns();

	if (curl_easy_getinfo(f->web.easy, CURLINFO_REDIRECT_URL, &to) != CURLE_OK || !to) {
		snprintf(detail, cap, "the web server answered %ld without saying where to", code);
		return false;
	}
	if (!same_place(f->url, to)) {
		snprintf(detail, cap, "the web server redirects to another place (%ld); only https on the same host and port is followed", code);
		return false;
	}
	if (++f->redirects > REDIRECTS_MAX) {
		snprintf(detail, cap, "the web server redirects more than %d times", REDIRECTS_MAX);
		return false;
	}
	f->len = 0;
	if (now >= f->deadline_ns) {
		snprintf(detail, cap, "the time for a fetch is over, after %u redirects", f->redirects);
		return false;
	}
	if (curl_easy_setopt(f->web.easy, CURLOPT_URL, to) == CURLE_OK &&
		curl_easy_setopt(f->web.easy, CURLOPT_TIMEOUT_MS, (long)((f->deadline_ns - now) / NS_PER_MS) + 1) == CURLE_OK && web_add(&f->web) == ST_OK)
		return true;
	snprintf(detail, cap, "%s", trail_text());
	return false;
}

/* ---- the end ---- */

static void judge(struct domain_fetch *f, CURLcode result, long code)
{
	struct domain_answer *a = &f->answer;
	char *detail = a->detail;

	a->what = DOMAIN_FETCH_FAILED;
	if (f->too_long)
		snprintf(detail, sizeof(a->detail), "the file is longer than managed.fetch_max (%zu octets)", f->max);
	else if (result != CURLE_OK)
		snprintf(detail, sizeof(a->detail), "%s", f->error[0] ? f->error : curl_easy_strerror(result));
	else if (code == 304 && f->conditional)
		a->what = DOMAIN_FETCH_SAME;
	else if (code == 401 || code == 403)
		snprintf(detail, sizeof(a->detail), "the web server answered %ld: user or password are missing or wrong", code);
	else if (code == 200 && !f->has_end) /* libcurl takes the end of the connection for it, even one without close_notify */
		snprintf(detail, sizeof(a->detail), "the web server does not say how long the file is: half of it could not be told from all");
	else if (code == 200)
		a->what = DOMAIN_FETCH_NEW;
	else if (!*detail)
		snprintf(detail, sizeof(a->detail), "the web server answered %ld", code);
}

static void on_done(void *ctx, CURLcode result)
{
	struct domain_fetch *f = ctx;
	long code = 0;

	curl_easy_getinfo(f->web.easy, CURLINFO_RESPONSE_CODE, &code);
	if (result == CURLE_OK && !f->too_long && (code == 301 || code == 302 || code == 303 || code == 307 || code == 308) && redirect(f, code))
		return;
	judge(f, result, code);
	f->answer.text = span_of(f->text, f->len);
	f->fn(f->ctx, &f->answer);
	fetch_free(f);
}

/* ---- the beginning ---- */

static bool add_header(struct domain_fetch *f, const char *name, const char *value)
{
	char line[DOMAIN_TAG_MAX + 32];
	struct curl_slist *more;

	if (!*value)
		return true;
	snprintf(line, sizeof(line), "%s: %s", name, value);
	more = curl_slist_append(f->headers, line);
	f->headers = more ? more : f->headers;
	f->conditional = true;
	return more != NULL;
}

static bool set_up(struct domain_fetch *f, const struct domain_order *o, const struct secret *secret)
{
	CURL *easy = f->web.easy;
	bool ok = web_set_up(easy, o->url, o->ca_file, o->timeout_s);

	ok = ok && add_header(f, "If-None-Match", o->etag) && add_header(f, "If-Modified-Since", o->modified);
	ok = ok && curl_easy_setopt(easy, CURLOPT_HTTPHEADER, f->headers) == CURLE_OK;
	ok = ok && curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, f->error) == CURLE_OK;
	ok = ok && curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK;
	ok = ok && curl_easy_setopt(easy, CURLOPT_WRITEDATA, f) == CURLE_OK;
	ok = ok && curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK;
	ok = ok && curl_easy_setopt(easy, CURLOPT_HEADERDATA, f) == CURLE_OK;
	if (ok && *secret->user)
		ok = curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BASIC) == CURLE_OK &&
			curl_easy_setopt(easy, CURLOPT_USERNAME, secret->user) == CURLE_OK &&
			curl_easy_setopt(easy, CURLOPT_PASSWORD, secret->password) == CURLE_OK;
	return ok;
}

enum status domain_fetch(const struct domain_order *o, domain_fetched_fn *fn, void *ctx, struct domain_fetch **ret)
{
	struct secret secret = { 0 };
	struct domain_fetch *f;
	enum status st = *o->secrets_file ? secrets_find(o->secrets_file, o->domain, &secret) : ST_OK;

	if (st != ST_OK)
		return st;
	f = calloc(1, sizeof(*f));
	CHECK(f);
	f->web = (struct web_transfer){ .easy = curl_easy_init(), .fn = on_done, .ctx = f };
	f->fn = fn;
	f->ctx = ctx;
	f->max = o->max;
	f->deadline_ns = clock_mono_ns() + (uint64_t)o->timeout_s * NS_PER_S;
	f->url = strdup(o->url);
	if (!f->web.easy || !f->url || !set_up(f, o, &secret))
		st = trail(ST_NOMEM, "libcurl takes no more, or not %s", o->url);
	else
		st = web_add(&f->web);
	secrets_wipe(&secret);
	if (st != ST_OK) {
		fetch_free(f);
		return st;
	}
	*ret = f;
	return ST_OK;
}

void domain_fetch_cancel(struct domain_fetch *f)
{
	web_cancel(&f->web);
	fetch_free(f);
}
