/* The client against a server that says exactly what a row says: what goes out, and what becomes of each recipient. Every row is played whole and a byte at a time. */
#include "tests/support/unit.h"

#include <stdio.h>
#include "dataplane/smtp/client.h"

#define HELLO "220 x\r\n"
#define EHLO_PIPE "250-x\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 1000\r\n"
#define EHLO_BDAT "250-x\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING\r\n"
#define EHLO_PLAIN "250 x\r\n"
#define CONTENT "Subject: x\r\n\r\n"

enum { TURNS = 12 };

struct play {
	struct smtp_client c;
	struct smtp_txn txn;
	struct envelope env;
	struct env_rcpt rcpt[2];
	uint32_t index[2];
	struct reply result[2];
	char said[4096];
	struct out out;
	enum client_action end;
	bool begun, have_result;
};

static void take_output(struct play *p)
{
	struct span o;

	while ((o = smtp_client_output(&p->c)).n) {
		out_add(&p->out, o);
		smtp_client_sent(&p->c, o.n);
	}
}

static void send_content(struct play *p)
{
	struct span content = SPAN(CONTENT), head;
	size_t half = p->c.use_bdat ? 5 : content.n;

	take_output(p);
	while (content.n) {
		size_t n = content.n < half ? content.n : half;

		if (p->c.use_bdat && !smtp_client_chunk(&p->c, n, &head))
			break;
		if (p->c.use_bdat)
			out_add(&p->out, head);
		out_add(&p->out, span_of(content.p, n));
		content = span_skip(content, n);
		half = content.n;
	}
	if (!p->c.use_bdat)
		out_str(&p->out, ".\r\n");
	smtp_client_body_sent(&p->c);
}

static void feed(struct play *p, struct span in)
{
	size_t n;

	do {
		enum client_action a = smtp_client_step(&p->c, in, &n);

		in = span_skip(in, n);
		take_output(p);
		switch (a) {
		case CLI_READY:
			if (p->begun && !in.n)
				return;
			if (!p->begun)
				smtp_client_begin(&p->c, &p->txn);
			p->begun = true;
			continue;
		case CLI_BODY:
			send_content(p);
			continue;
		case CLI_RESULT:
			p->have_result = true;
			continue;
		case CLI_CLOSE:
			p->end = CLI_CLOSE;
			return;
		case CLI_STARTTLS:
			p->end = CLI_STARTTLS;
			return;
		case CLI_MORE:
			if (!in.n)
				return;
		}
	} while (true);
}

static void begin(struct play *p, const struct smtp_client_config *cfg, uint32_t nrcpt)
{
	memset(p, 0, sizeof(*p));
	p->out = out_of(p->said, sizeof(p->said) - 1);
	p->rcpt[0].addr = SPAN("a@x.example");
	p->rcpt[1].addr = SPAN("b@x.example");
	p->index[1] = 1;
	p->env = (struct envelope){ .sender = SPAN("s@x.example"), .nrcpt = nrcpt, .rcpt = p->rcpt };
	p->txn = (struct smtp_txn){ .env = &p->env, .rcpt = p->index, .result = p->result, .nrcpt = nrcpt, .size = sizeof(CONTENT) - 1 };
	smtp_client_init(&p->c, cfg);
}

struct row {
	const char *name;
	const char *ehlo;
	unsigned nrcpt;
	const char *in[TURNS]; /* what the server says, write by write, after EHLO */
	unsigned code[2];      /* results; 0: not known */
	bool closed;
	const char *must_say, *must_not_say;
};

static const struct row row[] = {
	{ "DATA, pipelined", EHLO_PIPE, 2, { "250 m\r\n250 r\r\n550 r\r\n354 d\r\n", "250 ok\r\n" }, { 250, 550 }, false, "DATA\r\n" CONTENT ".\r\n", "RSET" },
	{ "DATA, one by one", EHLO_PLAIN, 2, { "250 m\r\n", "250 r\r\n", "250 r\r\n", "354 d\r\n", "250 ok\r\n" }, { 250, 250 }, false, CONTENT ".\r\n", NULL },
	{ "MAIL refused, one by one", EHLO_PLAIN, 1, { "550 5.7.1 m\r\n" }, { 550, 0 }, false, "MAIL", "RCPT" },
	{ "MAIL refused, pipelined", EHLO_PIPE, 2, { "550 m\r\n503 r\r\n503 r\r\n503 d\r\n", "250 rset\r\n" }, { 550, 550 }, false, "RSET\r\n", CONTENT },
	{ "all recipients refused", EHLO_PIPE, 2, { "250 m\r\n550 r\r\n450 r\r\n554 d\r\n", "250 rset\r\n" }, { 550, 450 }, false, "RSET\r\n", CONTENT },
	{ "a message for nobody is wanted", EHLO_PIPE, 1, { "250 m\r\n550 r\r\n354 d\r\n", "554 none\r\n", "250 rset\r\n" }, { 550, 0 }, false, "DATA\r\n.\r\nRSET", NULL },
	{ "DATA refused", EHLO_PIPE, 1, { "250 m\r\n250 r\r\n451 d\r\n", "250 rset\r\n" }, { 451, 0 }, false, "RSET", CONTENT },
	{ "content refused", EHLO_PIPE, 1, { "250 m\r\n250 r\r\n354 d\r\n", "554 5.6.0 no\r\n" }, { 554, 0 }, false, NULL, "RSET" },
	{ "a reply too many before DATA", EHLO_PIPE, 2, { "250 m\r\n250 r\r\n550 r\r\n250 r\r\n354 d\r\n" }, { 0, 0 }, true, NULL, CONTENT },
	{ "a refusal too many, one by one", EHLO_PLAIN, 2, { "250 m\r\n", "250 r\r\n", "550 extra\r\n", "250 r\r\n" }, { 0, 0 }, true, NULL, CONTENT },
	{ "a refusal too many, all refused", EHLO_PIPE, 2, { "250 m\r\n550 r\r\n550 x\r\n550 r\r\n", "554 d\r\n" }, { 0, 0 }, true, "RSET", CONTENT },
	{ "replies before their commands", EHLO_PLAIN, 2, { "250 m\r\n250 r\r\n550 r\r\n354 d\r\n" }, { 0, 0 }, true, NULL, "RCPT" },
	{ "a refusal twice, one by one", EHLO_PLAIN, 1, { "250 m\r\n", "550 r\r\n550 r\r\n" }, { 0, 0 }, true, NULL, "DATA" },
	{ "surplus behind refusals", EHLO_PIPE, 1, { "250 m\r\n550 r\r\n554 d\r\n250 x\r\n" }, { 0, 0 }, true, NULL, CONTENT },
	{ "354 to MAIL", EHLO_PLAIN, 1, { "354 m\r\n" }, { 0, 0 }, true, NULL, "RCPT" },
	{ "a reply behind the final one", EHLO_PIPE, 1, { "250 m\r\n250 r\r\n354 d\r\n", "250 ok\r\n550 no\r\n" }, { 250, 0 }, true, NULL, NULL },
	{ "421 at MAIL", EHLO_PIPE, 1, { "421 bye\r\n" }, { 0, 0 }, true, NULL, CONTENT },
	{ "421 behind a refusal", EHLO_PIPE, 2, { "250 m\r\n550 r\r\n421 r\r\n" }, { 550, 0 }, true, NULL, CONTENT },
	{ "421 at the end", EHLO_PIPE, 1, { "250 m\r\n250 r\r\n354 d\r\n", "421 bye\r\n" }, { 0, 0 }, true, NULL, NULL },
	{ "codes that differ", EHLO_PIPE, 1, { "250-m\r\n550 m\r\n" }, { 0, 0 }, true, NULL, CONTENT },
	{ "no reply at all", EHLO_PIPE, 1, { "hello\r\n" }, { 0, 0 }, true, NULL, CONTENT },
	{ "a bare LF", EHLO_PIPE, 1, { "250 m\n250 r\r\n" }, { 0, 0 }, true, NULL, CONTENT },

	{ "BDAT, pipelined", EHLO_BDAT, 1, { "250 m\r\n250 r\r\n250 c\r\n250 ok\r\n" }, { 250, 0 }, false,
		"RCPT TO:<a@x.example>\r\nBDAT 5\r\nSubjeBDAT 9 LAST\r\nct: x\r\n\r\n", "DATA" },
	{ "BDAT, final refusal", EHLO_BDAT, 1, { "250 m\r\n250 r\r\n250 c\r\n554 5.6.0 no\r\n", "250 rset\r\n" }, { 554, 0 }, false, "RSET", "DATA" },
	{ "BDAT, first chunk refused", EHLO_BDAT, 1, { "250 m\r\n250 r\r\n452 c\r\n503 c\r\n", "250 rset\r\n" }, { 452, 0 }, false, "RSET", NULL },
	{ "BDAT, no recipient", EHLO_BDAT, 1, { "250 m\r\n550 r\r\n503 c\r\n503 c\r\n", "250 rset\r\n" }, { 550, 0 }, false, "RSET", NULL },
	{ "BDAT, some recipients: QUIT shows that no reply was too many", EHLO_BDAT, 2, { "250 m\r\n250 r\r\n550 r\r\n250 c\r\n250 ok\r\n", "221 bye\r\n" }, { 250, 550 },
		true, "QUIT\r\n", NULL },
	{ "BDAT, a refusal too many", EHLO_BDAT, 2, { "250 m\r\n250 r\r\n550 x\r\n250 r\r\n250 c\r\n", "250 ok\r\n" }, { 0, 0 }, true, "QUIT\r\n", NULL },
	{ "BDAT, a chunk taken though nobody was", EHLO_BDAT, 1, { "250 m\r\n550 x\r\n250 r\r\n250 c\r\n250 ok\r\n" }, { 0, 0 }, true, NULL, NULL },
	{ "BDAT, a reply behind the final one", EHLO_BDAT, 1, { "250 m\r\n250 r\r\n250 c\r\n250 ok\r\n451 no\r\n" }, { 0, 0 }, true, NULL, NULL },
	{ "BDAT is not known", EHLO_BDAT, 1, { "250 m\r\n250 r\r\n500 c\r\n500 c\r\n" }, { 0, 0 }, true, NULL, NULL },
	{ "BDAT, one by one: one chunk", "250-x\r\n250 CHUNKING\r\n", 1, { "250 m\r\n", "250 r\r\n", "250 ok\r\n" }, { 250, 0 }, false, "BDAT 14 LAST\r\n" CONTENT, "DATA" },

	{ "LMTP, an answer each", "250-x\r\n250 PIPELINING\r\n", 2, { "250 m\r\n250 r\r\n250 r\r\n354 d\r\n", "250 a\r\n452 b\r\n" }, { 250, 452 }, false, "LHLO", NULL },
	{ "LMTP by BDAT", EHLO_BDAT, 2, { "250 m\r\n250 r\r\n250 r\r\n", "250 a\r\n550 b\r\n" }, { 250, 550 }, false, "BDAT 14 LAST\r\n" CONTENT, "QUIT" },
};

static void play_row(const struct row *r, bool by_bytes)
{
	struct smtp_client_config cfg = { .hostname = SPAN("me.example"), .chunking = true, .lmtp = strncmp(r->name, "LMTP", 4) == 0 };
	struct play p;

	begin(&p, &cfg, r->nrcpt);
	feed(&p, SPAN(HELLO));
	feed(&p, span_str(r->ehlo));
	for (unsigned i = 0; i < TURNS && r->in[i] && p.end != CLI_CLOSE; i++)
		for (size_t at = 0, n = by_bytes ? 1 : strlen(r->in[i]); at < strlen(r->in[i]) && p.end != CLI_CLOSE; at += n)
			feed(&p, span_of(r->in[i] + at, n));
	for (unsigned i = 0; i < r->nrcpt; i++)
		if (p.result[i].code != r->code[i])
			fail_msg("%s%s: recipient %u has %u, not %u; said: %s", r->name, by_bytes ? " (by bytes)" : "", i, p.result[i].code, r->code[i], p.said);
	if ((p.end == CLI_CLOSE) != r->closed || (!r->closed && !p.have_result))
		fail_msg("%s%s: closed %d, result %d; said: %s", r->name, by_bytes ? " (by bytes)" : "", p.end == CLI_CLOSE, p.have_result, p.said);
	if ((r->must_say && !strstr(p.said, r->must_say)) || (r->must_not_say && strstr(p.said, r->must_not_say)))
		fail_msg("%s%s: said: %s", r->name, by_bytes ? " (by bytes)" : "", p.said);
	smtp_client_done(&p.c);
}

static void every_server(void **state)
{
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++)
		play_row(&row[i], false);
}

/* A byte at a time the client gets to speak in between, which a server that answers early does not wait for: those rows are left out. */
static void every_server_by_bytes(void **state)
{
	static const char *const early[] = { "replies before their commands", "a reply behind the final one", "a refusal twice, one by one", "surplus behind refusals", "BDAT, a reply behind the final one" };

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		bool left_out = false;

		for (size_t k = 0; k < sizeof(early) / sizeof(early[0]); k++)
			left_out = left_out || strcmp(row[i].name, early[k]) == 0;
		if (!left_out)
			play_row(&row[i], true);
	}
}

static void endless_replies_end_the_session(void **state)
{
	struct smtp_client_config cfg = { .hostname = SPAN("me.example") };
	struct play p;
	char line[3000];

	begin(&p, &cfg, 1);
	for (unsigned i = 0; i < 1000 && p.end != CLI_CLOSE; i++)
		feed(&p, SPAN("220-and so on\r\n"));
	assert_int_equal(p.end, CLI_CLOSE);
	assert_int_equal(p.c.failure.code, 451);
	smtp_client_done(&p.c);

	begin(&p, &cfg, 1);
	memset(line, 'x', sizeof(line));
	feed(&p, SPAN("220 "));
	for (unsigned i = 0; i < 1000; i++)
		feed(&p, span_of(line, sizeof(line)));
	assert_int_equal(p.c.replies, 0); /* the time limit goes on */
	feed(&p, SPAN("\r\n"));
	assert_int_equal(p.end, CLI_CLOSE);
	smtp_client_done(&p.c);
}

static void what_a_server_cannot_take_it_never_hears(void **state)
{
	static const struct {
		uint32_t flags;
		uint8_t body;
		const char *sender, *rcpt, *ehlo;
		bool tls;
		uint64_t size;
		unsigned code;
		uint8_t enhanced[3];
	} want[] = {
		{ 0, BODY_8BITMIME, "s@x.example", "a@x.example", EHLO_PLAIN, false, 14, 550, { 5, 6, 3 } },
		{ ENV_SMTPUTF8, BODY_7BIT, "\xc3\xa9@x.example", "a@x.example", EHLO_PIPE, false, 14, 550, { 5, 6, 7 } },
		{ ENV_SMTPUTF8, BODY_7BIT, "s@x.example", "\xc3\xa9@x.example", EHLO_PIPE, false, 14, 550, { 5, 6, 7 } },
		{ ENV_SMTPUTF8 | ENV_8BIT_HEADER, BODY_8BITMIME, "s@x.example", "a@x.example", EHLO_PIPE, false, 14, 550, { 5, 6, 7 } },
		{ 0, BODY_7BIT, "s@x.example", "a@x.example", EHLO_PIPE, false, 1001, 552, { 5, 3, 4 } },
		{ ENV_REQUIRETLS, BODY_7BIT, "s@x.example", "a@x.example", "250-x\r\n250 REQUIRETLS\r\n", false, 14, 550, { 5, 7, 30 } },
		{ ENV_REQUIRETLS, BODY_7BIT, "s@x.example", "a@x.example", EHLO_PIPE, true, 14, 550, { 5, 7, 30 } },
	};

	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		struct smtp_client_config cfg = { .hostname = SPAN("me.example") };
		struct play p;

		begin(&p, &cfg, 1);
		p.env.flags = want[i].flags;
		p.env.body = want[i].body;
		p.env.sender = span_str(want[i].sender);
		p.rcpt[0].addr = span_str(want[i].rcpt);
		p.txn.size = want[i].size;
		p.c.tls = want[i].tls;
		feed(&p, SPAN(HELLO));
		feed(&p, span_str(want[i].ehlo));
		assert_true(p.have_result);
		assert_int_equal(p.result[0].code, want[i].code);
		assert_memory_equal(p.result[0].enhanced, want[i].enhanced, 3);
		assert_null(strstr(p.said, "MAIL"));
	}
}

/* A recipient that only this server cannot take does not hold the others back. */
static void one_utf8_recipient_among_others(void **state)
{
	struct smtp_client_config cfg = { .hostname = SPAN("me.example") };
	struct play p;

	begin(&p, &cfg, 2);
	p.env.flags = ENV_SMTPUTF8;
	p.rcpt[0].addr = SPAN("\xc3\xa9@x.example");
	feed(&p, SPAN(HELLO));
	feed(&p, SPAN(EHLO_PIPE));
	feed(&p, SPAN("250 m\r\n250 r\r\n354 d\r\n"));
	feed(&p, SPAN("250 ok\r\n"));
	assert_true(p.have_result);
	assert_int_equal(p.result[0].code, 550);
	assert_int_equal(p.result[1].code, 250);
	assert_null(strstr(p.said, "\xc3"));
	assert_null(strstr(p.said, "SMTPUTF8"));
}

static void parameters_go_where_they_are_known(void **state)
{
	struct smtp_client_config cfg = { .hostname = SPAN("me.example") };
	struct play p;

	begin(&p, &cfg, 2);
	p.env.envid = SPAN("id+2B1");
	p.env.ret = RET_HDRS;
	p.env.body = BODY_8BITMIME;
	p.rcpt[0].notify = NOTIFY_SUCCESS | NOTIFY_DELAY;
	p.rcpt[0].orcpt = SPAN("rfc822;A+a@x.example");
	p.rcpt[1].notify = NOTIFY_SUCCESS;
	p.rcpt[1].orcpt = SPAN("utf-8;\xc3\xa9@x.example");
	feed(&p, SPAN(HELLO));
	feed(&p, SPAN("250-x\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n250-DSN\r\n250 LIMITS RCPTMAX=7 MAILMAX=x RCPTDOMAINMAX=1\r\n"));
	assert_non_null(strstr(p.said, "MAIL FROM:<s@x.example> SIZE=14 BODY=8BITMIME RET=HDRS ENVID=id+2B1\r\n"));
	assert_non_null(strstr(p.said, "RCPT TO:<a@x.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;A+2Ba@x.example\r\n"));
	assert_non_null(strstr(p.said, "RCPT TO:<b@x.example> NOTIFY=SUCCESS ORCPT=utf-8;\\x{E9}@x.example\r\n"));
	assert_int_equal(p.c.ehlo.rcpt_max, 7);
	assert_int_equal(p.c.ehlo.mail_max, 0);
	assert_int_equal(p.c.ehlo.rcpt_domain_max, 1);

	cfg.final = true;
	begin(&p, &cfg, 2);
	p.rcpt[0].notify = NOTIFY_SUCCESS | NOTIFY_DELAY;
	p.rcpt[1].notify = NOTIFY_SUCCESS;
	feed(&p, SPAN(HELLO));
	feed(&p, SPAN("250-x\r\n250-PIPELINING\r\n250 DSN\r\n"));
	assert_non_null(strstr(p.said, "RCPT TO:<a@x.example> NOTIFY=DELAY\r\nRCPT TO:<b@x.example> NOTIFY=NEVER\r\n"));
}

static void data_behind_starttls_ends_the_session(void **state)
{
	struct smtp_client_config cfg = { .hostname = SPAN("me.example"), .tls = CLIENT_TLS_MAY };
	struct play p;

	begin(&p, &cfg, 1);
	feed(&p, SPAN(HELLO));
	feed(&p, SPAN("250-x\r\n250 STARTTLS\r\n"));
	feed(&p, SPAN("220 go\r\n250-x\r\n250 AUTH PLAIN\r\n"));
	assert_int_equal(p.end, CLI_CLOSE);
	assert_int_equal(p.c.failure.code, 451);
	assert_false(p.begun);
}

static void codes_without_enhanced_ones(void **state)
{
	static const struct {
		unsigned code;
		enum reply_stage stage;
		const char *status;
	} want[] = { { 550, REPLY_TO_RCPT, "5.1.1" }, { 550, REPLY_TO_MAIL, "5.7.1" }, { 552, REPLY_TO_RCPT, "5.2.2" }, { 552, REPLY_TO_CONTENT, "5.3.4" },
		{ 452, REPLY_TO_RCPT, "4.5.3" }, { 452, REPLY_TO_CONTENT, "4.3.1" }, { 421, REPLY_TO_SESSION, "4.3.2" }, { 503, REPLY_TO_RCPT, "5.5.1" },
		{ 554, REPLY_TO_CONTENT, "5.0.0" }, { 250, REPLY_TO_CONTENT, "2.0.0" }, { 447, REPLY_TO_MAIL, "4.0.0" } };

	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		struct reply r = { .code = (uint16_t)want[i].code };
		char buf[12], line[64];
		struct out o = out_of(line, sizeof(line));

		reply_derive(&r, want[i].stage);
		assert_string_equal(reply_status(&r, buf), want[i].status);
		reply_line(&r, &o);
		assert_int_equal(o.n, 4); /* never shown as the server's words */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(every_server), cmocka_unit_test(every_server_by_bytes), cmocka_unit_test(endless_replies_end_the_session),
		cmocka_unit_test(what_a_server_cannot_take_it_never_hears), cmocka_unit_test(one_utf8_recipient_among_others),
		cmocka_unit_test(parameters_go_where_they_are_known), cmocka_unit_test(data_behind_starttls_ends_the_session),
		cmocka_unit_test(codes_without_enhanced_ones) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
