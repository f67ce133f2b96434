/* A PROXY header means the same however it is split, has the same end, and what follows it changes nothing. What is taken as version 1 is what would be written for it. */
#include <stdio.h>
#include <stdlib.h>
#include "dataplane/net/proxy.h"
#include "spool/base/status.h"
#include "spool/mail/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static enum proxy_result run(const uint8_t *data, size_t n, size_t cut, struct proxy *p, size_t *ret_end)
{
	enum proxy_result r = PROXY_MORE;
	size_t used;

	*p = (struct proxy){ 0 };
	for (*ret_end = 0; *ret_end < n && r == PROXY_MORE; *ret_end += used) {
		size_t len = n - *ret_end < cut ? n - *ret_end : cut;
		/* a copy, so that a byte too far is noticed */
		char *piece = malloc(len);

		CHECK(piece);
		memcpy(piece, data + *ret_end, len);
		r = proxy_take(p, span_of(piece, len), &used);
		free(piece);
		CHECK(used <= len && (r != PROXY_MORE || used == len));
	}
	CHECK((r == PROXY_BAD) == (p->why != NULL));
	return r;
}

/* Version 1 has one spelling for ports and for what is around the addresses; of those, ours is one of several. */
static void check_v1(const uint8_t *data, size_t end, const struct proxy *p)
{
	char port[16];

	CHECK(end <= PROXY_V1_MAX && memcmp(data + end - 2, "\r\n", 2) == 0 && !memchr(data, '\n', end - 1));
	snprintf(port, sizeof(port), " %u ", p->port);
	CHECK(memmem(data, end, port, strlen(port)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct proxy whole, split;
	size_t end, e;
	enum proxy_result r = run(data, n, n ? n : 1, &whole, &end);

	for (size_t cut = 1; cut < 9; cut++) {
		CHECK(run(data, n, cut, &split, &e) == r);
		CHECK(r == PROXY_BAD || e == end);
		CHECK(r != PROXY_CLIENT || (memcmp(split.ip, whole.ip, 16) == 0 && split.port == whole.port));
	}
	if (r == PROXY_CLIENT || r == PROXY_LOCAL) {
		CHECK(run(data, end, end, &split, &e) == r && e == end);
		CHECK(run(data, end - 1, end, &split, &e) == PROXY_MORE);
	}
	if (r == PROXY_CLIENT && data[0] == 'P')
		check_v1(data, end, &whole);
	return 0;
}
