#include "control/web.h"

#include <stddef.h>

enum { CONNECT_TIMEOUT_S = 20 };

static CURLM *multi;

enum status web_init(void)
{
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(multi = curl_multi_init()))
		return trail(ST_NOMEM, "libcurl cannot start");
	return ST_OK;
}

void web_done(void)
{
	if (multi)
		curl_multi_cleanup(multi);
	multi = NULL;
	curl_global_cleanup();
}

bool web_set_up(CURL *easy, const char *url, const char *ca_file, long timeout_s)
{
	bool ok = curl_easy_setopt(easy, CURLOPT_URL, url) == CURLE_OK;

	ok = ok && curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https") == CURLE_OK;
	ok = ok && curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK;
	ok = ok && curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK;
	ok = ok && curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK;
	ok = ok && curl_easy_setopt(easy, CURLOPT_TIMEOUT, timeout_s) == CURLE_OK;
	ok = ok && curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S) == CURLE_OK;
	ok = ok && curl_easy_setopt(easy, CURLOPT_USERAGENT, "weir") == CURLE_OK;
	if (ok && *ca_file)
		ok = curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file) == CURLE_OK && curl_easy_setopt(easy, CURLOPT_CAPATH, NULL) == CURLE_OK;
	return ok;
}

enum status web_add(struct web_transfer *t)
{
	if (curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t) != CURLE_OK || curl_multi_add_handle(multi, t->easy) != CURLM_OK)
		return trail(ST_NOMEM, "no memory for a fetch");
	return ST_OK;
}

void web_cancel(struct web_transfer *t)
{
	curl_multi_remove_handle(multi, t->easy);
}

static void take_finished(void)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(multi, &left))) {
		struct web_transfer *t;
		CURLcode result = m->data.result;

		if (m->msg != CURLMSG_DONE || curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &t) != CURLE_OK)
			continue;
		curl_multi_remove_handle(multi, t->easy); /* m is gone after this */
		t->fn(t->ctx, result);
	}
}

void web_wait(struct curl_waitfd *fds, unsigned n, int timeout_ms)
{
	int still;

	curl_multi_perform(multi, &still);
	take_finished();
	curl_multi_poll(multi, fds, n, timeout_ms, NULL);
	curl_multi_perform(multi, &still);
	take_finished();
}
