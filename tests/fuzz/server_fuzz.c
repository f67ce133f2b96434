/* A session gives the same replies and the same messages however its input is split; every reply is one of SMTP, whatever came in, on every kind of listener. */
#include <stdlib.h>
#include "dataplane/smtp/server.h"
#include "spool/base/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct session {
	struct smtp_server smtp;
	struct out trace;   /* replies and messages, in order */
	struct out body;
	bool over;
};

static void check_replies(struct span out)
{
	for (size_t line = 0; out.n; line++) {
		const char *nl = memchr(out.p, '\n', out.n);
		size_t len = nl ? (size_t)(nl - out.p) + 1 : 0;

		CHECK(len >= 6 && len <= 512 && out.p[len - 2] == '\r');
		for (size_t i = 0; i < len - 2; i++)
			CHECK(i < 3 ? out.p[i] >= '0' && out.p[i] <= '9' : i == 3 ? out.p[i] == ' ' || out.p[i] == '-' : out.p[i] >= ' ' && out.p[i] < 0x7f);
		out = span_skip(out, len);
	}
}

static void flush(struct session *s)
{
	struct span out = smtp_server_output(&s->smtp);

	check_replies(out);
	out_add(&s->trace, out);
	smtp_server_sent(&s->smtp, out.n);
}

static void answer(struct session *s, unsigned code, const char *enhanced)
{
	struct reply r;

	reply_set(&r, code, enhanced, "answer");
	smtp_server_reply(&s->smtp, &r);
}

static void act(struct session *s, enum server_action action)
{
	switch (action) {
	case SRV_MAIL:
		if (span_starts_nocase(s->smtp.sender.local, SPAN("bad")))
			answer(s, 450, "4.7.1");
		else
			answer(s, 250, "2.1.0");
		break;
	case SRV_RCPT:
		if (span_starts_nocase(s->smtp.rcpt.local, SPAN("bad")))
			answer(s, 550, "5.7.1");
		else
			answer(s, 250, "2.1.5");
		break;
	case SRV_DATA:
		s->body.n = 0;
		answer(s, 354, NULL);
		break;
	case SRV_BODY:
		out_add(&s->body, s->smtp.body);
		break;
	case SRV_BODY_END:
		CHECK(s->smtp.env.nrcpt > 0 && s->smtp.body_len == s->body.n);
		out_add(&s->trace, out_span(&s->body));
		for (size_t i = 0; i < s->body.n; i++)
			CHECK(s->body.p[i] && (s->body.p[i] != '\n' || (i && s->body.p[i - 1] == '\r')));
		answer(s, 250, "2.0.0");
		break;
	case SRV_AUTH: /* offered on submission listeners only: sasl_fuzz */
	case SRV_XCLIENT:
		if (!s->smtp.xclient)
			answer(s, 550, "5.7.0");
		else if (s->smtp.xclient->port == 421)
			answer(s, 421, "4.7.0");
		else
			smtp_server_xclient_ok(&s->smtp);
		break;
	case SRV_STARTTLS:
	case SRV_CLOSE:
		s->over = true;
		break;
	case SRV_MORE:
	case SRV_STEP:
	case SRV_RESET:
		break;
	}
}

/* The ways of a listener; the input is run through each. */
enum way { PLAIN, NORMALISE, LMTP, XCLIENT, SUBMISSION_XCLIENT, NWAY };

/* Everything that was said and taken, in malloc'ed memory. */
static struct out run(const uint8_t *data, size_t n, size_t cut, enum way way)
{
	const struct smtp_server_config cfg = { .hostname = { "fuzz.test", 9 }, .banner = { "ESMTP", 5 }, .size_max = 4096, .rcpt_max = 3,
		.errors_max = 20, .commands_max = 50, .transaction_max = 65536, .starttls = true,
		.lmtp = way == LMTP, .auth = way == SUBMISSION_XCLIENT };
	static struct session s;
	size_t cap = n * 200 + 4096, used;
	char *trace = malloc(cap), *body = malloc(n + 1);

	CHECK(trace && body);
	s.trace = out_of(trace, cap);
	s.body = out_of(body, n + 1);
	s.over = false;
	smtp_server_init(&s.smtp, &cfg);
	s.smtp.wire.normalise = way == NORMALISE;
	s.smtp.xclient_allowed = way == XCLIENT || way == SUBMISSION_XCLIENT;
	for (size_t at = 0; at < n && !s.over;) {
		size_t len = n - at < cut ? n - at : cut;
		struct span in = span_of(data + at, len);
		enum server_action action;

		do {
			action = smtp_server_step(&s.smtp, in, &used);
			CHECK(used <= in.n);
			in = span_skip(in, used);
			act(&s, action);
			flush(&s);
		} while (!s.over && (in.n || action != SRV_MORE));
		at += len;
	}
	CHECK(!s.trace.over && !s.body.over);
	smtp_server_done(&s.smtp);
	free(body);
	return s.trace;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const size_t cuts[] = { 1, 2, 3, 7, 64 };

	for (enum way way = 0; way < NWAY; way++) {
		struct out whole = run(data, n, n ? n : 1, way);

		for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
			struct out split = run(data, n, cuts[i], way);

			CHECK(span_eq(out_span(&whole), out_span(&split)));
			free(split.p);
		}
		free(whole.p);
	}
	return 0;
}
