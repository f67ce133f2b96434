/* Transfers by https, many at a time, without waiting: the one multi handle of libcurl that MTA-STS policies and managed domains share.
 *
 * Owner: who adds a transfer keeps its handle, and gets it back by the call of its function. Thread: one. */
#ifndef WEIR_CONTROL_WEB_H
#define WEIR_CONTROL_WEB_H

#include <curl/curl.h>
#include <stdbool.h>
#include "spool/base/status.h"

/* Called once, from web_wait; the handle is no longer in use and may be added again. */
typedef void web_fn(void *ctx, CURLcode result);

enum status web_init(void);
void web_done(void);
/* web and ctx must stay until fn was called; CURLOPT_PRIVATE is the module's. */
struct web_transfer {
	CURL *easy;
	web_fn *fn;
	void *ctx;
};
enum status web_add(struct web_transfer *t);
/* fn will not be called any more. */
void web_cancel(struct web_transfer *t);
/* What every transfer here has: https alone, verified by ca_file ("": the system's authorities), no proxy, no redirects of libcurl's own, a limit of time. */
bool web_set_up(CURL *easy, const char *url, const char *ca_file, long timeout_s);
/* Works on them, and waits for them and for fds, at most so long. */
void web_wait(struct curl_waitfd *fds, unsigned n, int timeout_ms);

#endif
