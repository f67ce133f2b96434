/* Whatever a server says: a recipient counts as delivered only when the content was sent after the server had asked for it, and results are printable. */
#include <stdlib.h>
#include "dataplane/smtp/client.h"
#include "spool/base/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { RECIPIENTS = 3, TRANSACTIONS = 3 };

struct session {
	struct smtp_client smtp;
	struct smtp_txn txn;
	struct reply result[RECIPIENTS];
	unsigned begun;
	bool sent; /* the content of this transaction */
};

static void begin(struct session *s)
{
	static struct env_rcpt rcpt[RECIPIENTS] = { { .addr = { "a@x", 3 } }, { .addr = { "b@x", 3 } }, { .addr = { "c@x", 3 } } };
	static struct envelope env = { .sender = { "s@x", 3 }, .nrcpt = RECIPIENTS, .rcpt = rcpt };
	static const uint32_t index[RECIPIENTS] = { 0, 1, 2 };

	for (unsigned i = 0; i < RECIPIENTS; i++)
		s->result[i].code = 0;
	s->txn = (struct smtp_txn){ .env = &env, .rcpt = index, .result = s->result, .nrcpt = RECIPIENTS, .size = 100 };
	s->sent = false;
	s->begun++;
	smtp_client_begin(&s->smtp, &s->txn);
}

static void check_results(const struct session *s)
{
	for (unsigned i = 0; s->begun && i < RECIPIENTS; i++) {
		const struct reply *r = &s->result[i];

		CHECK(!reply_is_ok(r) || s->sent);
		CHECK(r->code == 0 || (r->code >= 200 && r->code < 600));
		for (unsigned k = 0; r->code && k < r->text_len; k++)
			CHECK(r->text[k] == '\n' || (r->text[k] >= ' ' && r->text[k] < 0x7f));
	}
}

static void run(const uint8_t *data, size_t n, size_t cut, const struct smtp_client_config *cfg)
{
	static struct session s;
	size_t used;

	s.begun = 0;
	s.sent = false;
	smtp_client_init(&s.smtp, cfg);
	for (size_t at = 0; at < n;) {
		size_t len = n - at < cut ? n - at : cut;
		struct span in = span_of(data + at, len);
		enum client_action action;

		do {
			action = smtp_client_step(&s.smtp, in, &used);
			CHECK(used <= in.n);
			in = span_skip(in, used);
			smtp_client_sent(&s.smtp, smtp_client_output(&s.smtp).n);
			if (action == CLI_READY && s.begun < TRANSACTIONS) {
				begin(&s);
			} else if (action == CLI_READY) {
				smtp_client_quit(&s.smtp);
			} else if (action == CLI_BODY) {
				s.sent = true;
				smtp_client_body_sent(&s.smtp);
			} else if (action == CLI_RESULT) {
				check_results(&s);
			} else if (action == CLI_CLOSE) {
				goto over;
			} else if (action == CLI_STARTTLS) {
				smtp_client_tls_done(&s.smtp, true);
			}
		} while (in.n || action != CLI_MORE);
		at += len;
	}
over:
	smtp_client_done(&s.smtp);
	check_results(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const size_t cuts[] = { 1, 3, 64, 1 << 20 };

	for (unsigned kind = 0; kind < 8; kind++) {
		struct smtp_client_config cfg = { .hostname = { "fuzz.test", 9 }, .tls = kind & 1 ? CLIENT_TLS_MAY : CLIENT_TLS_NEVER, .lmtp = kind & 2,
			.chunking = kind & 4 };

		for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++)
			run(data, n, cuts[i], &cfg);
	}
	return 0;
}
