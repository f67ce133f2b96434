/* Whatever a server says, in whatever pieces: a recipient counts as delivered only when the whole content was sent after the server had asked for it; no more content is announced than there
 * is; results are final and printable; nothing is said after the end; a probe never comes to content; nobody logs in without TLS, and where there is a login there is no mail without it.
 *
 * Input: a byte of options (8, 16, 32, 64, 128, see run), then the server's words; a byte 0xff begins a new read, so that what is before it is answered first. All kinds of sessions are tried with it. */
#include <stdlib.h>
#include "dataplane/smtp/client.h"
#include "spool/base/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { NRCPT = 3, SIZE = 1000, TRANSACTIONS = 3 };

struct host {
	struct smtp_client c;
	struct envelope env;
	struct env_rcpt rcpt[NRCPT];
	struct reply result[NRCPT];
	struct smtp_txn txn;
	bool probe; /* every second transaction */
	bool sent; /* the content of this transaction, all of it */
	bool begun, closed;
};

static void say(struct host *h)
{
	struct span o;

	while ((o = smtp_client_output(&h->c)).n) {
		CHECK(o.n <= 4096 && memchr(o.p, '\n', o.n));
		CHECK(h->c.tls || !memmem(o.p, o.n, "AUTH", 4));
		CHECK(!h->c.cfg->login || h->c.logged_in || !memmem(o.p, o.n, "MAIL", 4));
		smtp_client_sent(&h->c, o.n);
	}
}

static void content(struct host *h)
{
	uint64_t left = SIZE;
	struct span head;

	CHECK(!h->txn.probe);
	while (left && h->c.use_bdat) {
		uint64_t n = left > 300 ? 300 : left;

		if (!smtp_client_chunk(&h->c, n, &head))
			break;
		CHECK(head.n < 40);
		left -= n;
	}
	h->sent = !left || !h->c.use_bdat;
	smtp_client_body_sent(&h->c);
}

static void result(const struct host *h)
{
	for (uint32_t i = 0; h->begun && i < NRCPT; i++) {
		const struct reply *r = &h->result[i];

		CHECK(!reply_is_ok(r) || h->sent || h->txn.probe);
		CHECK(r->code == 0 || (r->code >= 200 && r->code < 600));
		CHECK(r->code == 0 || r->text_len <= REPLY_TEXT_MAX);
		for (uint16_t k = 0; r->code && k < r->text_len; k++)
			CHECK(r->text[k] == '\n' || (r->text[k] >= ' ' && r->text[k] < 0x7f));
	}
}

static void begin(struct host *h)
{
	static const uint32_t index[NRCPT] = { 0, 1, 2 };

	for (uint32_t i = 0; i < NRCPT; i++)
		h->result[i].code = 0;
	h->txn = (struct smtp_txn){ .env = &h->env, .rcpt = index, .result = h->result, .nrcpt = NRCPT, .size = SIZE,
		.probe = h->probe && !(h->c.transactions & 1) };
	h->sent = false;
	h->begun = true;
	smtp_client_begin(&h->c, &h->txn);
}

static void feed(struct host *h, struct span in)
{
	size_t used;

	for (unsigned turns = 0; !h->closed; turns++) {
		enum client_action a = smtp_client_step(&h->c, in, &used);

		CHECK(turns < 100000 && used <= in.n);
		in = span_skip(in, used);
		say(h);
		CHECK(a != CLI_READY || !h->c.cfg->login || (h->c.tls && h->c.logged_in));
		if (a == CLI_READY && h->c.transactions < TRANSACTIONS)
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

static void run(uint8_t options, struct span words, size_t cut, const struct smtp_client_config *cfg)
{
	static struct host h;
	size_t used;

	memset(&h, 0, sizeof(h));
	h.probe = options & 64;
	h.env = (struct envelope){ .sender = SPAN("s@x.example"), .nrcpt = NRCPT, .rcpt = h.rcpt, .body = options & 16 ? BODY_8BITMIME : BODY_7BIT };
	for (uint32_t i = 0; i < NRCPT; i++)
		h.rcpt[i] = (struct env_rcpt){ .addr = i == 1 && options & 32 ? SPAN("\xc3\xbc@x.example") : SPAN("a@x.example"), .notify = NOTIFY_SUCCESS,
			.orcpt = SPAN("utf-8;\xc3\xbc+a@x.example") };
	smtp_client_init(&h.c, cfg);
	while (words.p && !h.closed) {
		struct span read = span_cut(&words, (char)0xff);

		do {
			size_t n = read.n < cut ? read.n : cut;

			feed(&h, span_of(read.p, n));
			read = span_skip(read, n);
		} while (read.n && !h.closed);
	}
	if (h.closed)
		CHECK(smtp_client_step(&h.c, SPAN("250 x\r\n"), &used) == CLI_CLOSE);
	smtp_client_done(&h.c);
	result(&h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const size_t cuts[] = { 1, 3, 64, 1 << 20 };
	static const struct sasl_login login = { .user = SPAN("u"), .password = SPAN("p"), .nonce = SPAN("fuzzfuzzfuzzfuzzfuzzfuzz") };

	for (unsigned kind = 0; n && kind < 8; kind++) {
		struct smtp_client_config cfg = { .hostname = SPAN("fuzz.example"), .chunking = kind & 1, .lmtp = kind & 2,
			.tls = kind & 4 ? CLIENT_TLS_MAY : CLIENT_TLS_NEVER, .final = data[0] & 8, .login = data[0] & 128 ? &login : NULL };

		for (size_t i = cfg.login ? 2 : 0; i < sizeof(cuts) / sizeof(cuts[0]); i++)
			run(data[0], span_of(data + 1, n - 1), cuts[i], &cfg);
	}
	return 0;
}
