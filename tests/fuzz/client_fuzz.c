/* Whatever a server says, in whatever pieces: the client announces no more content than there is, gives only final results, and says nothing after the end.
 *
 * Input: a byte of options, then the server's words; a byte 0xff begins a new read, so that what is before it is answered first. */
#include <stdlib.h>
#include "dataplane/smtp/client.h"
#include "spool/base/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { NRCPT = 3, SIZE = 1000 };

struct host {
	struct smtp_client c;
	struct envelope env;
	struct env_rcpt rcpt[NRCPT];
	uint32_t index[NRCPT], results;
	struct reply result[NRCPT];
	struct smtp_txn txn;
	uint64_t content;
	bool begun, closed;
};

static void say(struct host *h)
{
	struct span o;

	while ((o = smtp_client_output(&h->c)).n) {
		CHECK(o.n <= 4096 && memchr(o.p, '\n', o.n));
		smtp_client_sent(&h->c, o.n);
	}
}

static void content(struct host *h)
{
	uint64_t left = SIZE;
	struct span head;

	while (left && h->c.use_bdat) {
		uint64_t n = left > 300 ? 300 : left;

		if (!smtp_client_chunk(&h->c, n, &head))
			break;
		CHECK(head.n < 40);
		left -= n;
	}
	smtp_client_body_sent(&h->c);
}

static void result(struct host *h)
{
	for (uint32_t i = 0; i < NRCPT; i++) {
		CHECK(h->result[i].code == 0 || (h->result[i].code >= 200 && h->result[i].code < 600));
		CHECK(h->result[i].text_len <= REPLY_TEXT_MAX);
		for (uint16_t k = 0; k < h->result[i].text_len && h->result[i].code; k++)
			CHECK((h->result[i].text[k] >= ' ' && h->result[i].text[k] < 0x7f) || h->result[i].text[k] == '\n');
	}
}

static void begin(struct host *h)
{
	for (uint32_t i = 0; i < NRCPT; i++)
		h->result[i].code = 0;
	h->txn = (struct smtp_txn){ .env = &h->env, .rcpt = h->index, .result = h->result, .nrcpt = NRCPT, .size = SIZE };
	smtp_client_begin(&h->c, &h->txn);
	h->begun = true;
}

static void feed(struct host *h, struct span in)
{
	size_t used;

	for (unsigned turns = 0; !h->closed; turns++) {
		enum client_action a = smtp_client_step(&h->c, in, &used);

		CHECK(turns < 100000 && used <= in.n);
		in = span_skip(in, used);
		say(h);
		if (a == CLI_READY && h->c.transactions < 3)
			begin(h);
		else if (a == CLI_READY && !in.n)
			return;
		else if (a == CLI_BODY)
			content(h);
		else if (a == CLI_RESULT)
			result(h);
		else if (a == CLI_STARTTLS)
			smtp_client_tls_done(&h->c, true);
		else if (a == CLI_CLOSE)
			h->closed = true;
		else if (a == CLI_MORE && !in.n)
			return;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct smtp_client_config cfg = { .hostname = SPAN("fuzz.example"), .chunking = n && data[0] & 1, .lmtp = n && data[0] & 2,
		.tls = n && data[0] & 4 ? CLIENT_TLS_MAY : CLIENT_TLS_NEVER, .final = n && data[0] & 8 };
	struct host *h = calloc(1, sizeof(*h));
	size_t used;

	if (!h || !n)
		goto out;
	h->env = (struct envelope){ .sender = SPAN("s@x.example"), .nrcpt = NRCPT, .rcpt = h->rcpt, .flags = n && data[0] & 16 ? ENV_8BIT : 0 };
	for (uint32_t i = 0; i < NRCPT; i++) {
		h->index[i] = i;
		h->rcpt[i] = (struct env_rcpt){ .addr = i == 1 && data[0] & 32 ? SPAN("\xc3\xbc@x.example") : SPAN("a@x.example"), .notify = NOTIFY_SUCCESS,
			.orcpt = SPAN("utf-8;\xc3\xbc+a@x.example") };
	}
	smtp_client_init(&h->c, &cfg);
	for (struct span rest = span_of(data + 1, n - 1); rest.p && !h->closed;)
		feed(h, span_cut(&rest, (char)0xff));
	if (h->closed) {
		CHECK(smtp_client_step(&h->c, SPAN("250 x\r\n"), &used) == CLI_CLOSE);
	} else {
		smtp_client_lost(&h->c);
	}
	result(h);
	smtp_client_done(&h->c);
out:
	free(h);
	return 0;
}
