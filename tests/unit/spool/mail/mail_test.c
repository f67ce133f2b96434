#include "tests/support/unit.h"

#include "spool/mail/address.h"
#include "spool/mail/dsn.h"
#include "spool/mail/header.h"

static void good_and_bad_addresses(void **state)
{
	static const char *const good[] = { "a@b.example", "a.b+c@x.example", "\"a b\"@x.example", "\"a\\\"b\"@x.example", "a@[192.0.2.1]",
		"a@[IPv6:2001:db8::1]", "a%b!c@x.example", "a@1.example", "x@xn--bcher-kva.example" };
	static const char *const bad[] = { "", "a", "@b.example", "a@", "a b@x.example", ".a@x.example", "a.@x.example", "a..b@x.example",
		"a@x..example", "a@-x.example", "a@x-.example", "a@x.example.", "a@[192.0.2.300]", "a@[x]", "a\r\n@x.example", "\"a@x.example",
		"a@x_y.example", "\xc3\xa9@x.example" };
	struct address a;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_ok(address_parse(span_str(good[i]), 0, &a));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(address_parse(span_str(bad[i]), 0, &a), ST_INVALID);
	assert_ok(address_parse(SPAN("\xc3\xa9@b\xc3\xbc.example"), ADDRESS_UTF8, &a));
	assert_true(a.is_utf8);
	assert_int_equal(address_parse(SPAN("\xc0\xaf@x.example"), ADDRESS_UTF8, &a), ST_INVALID);
}

static void local_parts_in_look_up_form(void **state)
{
	static const char *const pair[][2] = { { "Fred.Bloggs", "fred.bloggs" }, { "\"Fred\"", "fred" }, { "\"a\\\"B c\"", "a\"b c" }, { "\xc3\x89x", "\xc3\x89x" } };
	char buf[ADDRESS_LOCAL_MAX];
	struct out o;

	for (size_t i = 0; i < sizeof(pair) / sizeof(pair[0]); i++) {
		o = out_of(buf, sizeof(buf));
		assert_true(address_local_ok(span_str(pair[i][0]), ADDRESS_UTF8));
		assert_ok(address_local_key(span_str(pair[i][0]), &o));
		assert_span(out_span(&o), pair[i][1]);
	}
	assert_false(address_local_ok(SPAN("a b"), 0));
	assert_false(address_local_ok(SPAN("a@b"), 0));
	assert_false(address_local_ok(SPAN(""), 0));
	assert_false(address_local_ok(SPAN("\xc3\x89"), 0));
}

/* What is asked of DNS is a host name: the mapping of Unicode letters makes other things, too. */
static void domains_in_look_up_form(void **state)
{
	static const struct {
		const char *domain, *key;
	} row[] = { { "Cam.Example", "cam.example" }, { "B\xc3\xbc" "cher.example", "xn--bcher-kva.example" }, { "x\xe3\x80\x82" "example", "x.example" },
		{ "x.example\xe3\x80\x82", NULL }, { "x\xe3\x80\x82\xe3\x80\x82" "example", NULL }, { "\xe2\x84\x80.example", NULL }, { "x..example", NULL } };
	char key[ADDRESS_DOMAIN_MAX];

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		struct out o = out_of(key, sizeof(key));

		assert_int_equal(address_domain_key(span_str(row[i].domain), &o), row[i].key ? ST_OK : ST_INVALID);
		assert_true(!row[i].key || span_eq(out_span(&o), span_str(row[i].key)));
	}
}

static void paths(void **state)
{
	struct address a;
	struct span rest;

	assert_ok(address_path(SPAN("<@one.example,@two.example:a@b.example> SIZE=1"), 0, &a, &rest));
	assert_span(a.full, "a@b.example");
	assert_span(rest, " SIZE=1");
	assert_ok(address_path(SPAN("<\"a>b\"@c.example>"), 0, &a, &rest));
	assert_span(a.local, "\"a>b\"");
	assert_ok(address_path(SPAN("<>"), ADDRESS_ALLOW_NULL, &a, &rest));
	assert_int_equal(a.full.n, 0);
	assert_int_equal(address_path(SPAN("<>"), 0, &a, &rest), ST_INVALID);
	assert_ok(address_path(SPAN("<PostMaster>"), ADDRESS_ALLOW_BARE, &a, &rest));
	assert_int_equal(address_path(SPAN("<other>"), ADDRESS_ALLOW_BARE, &a, &rest), ST_INVALID);
}

static void networks(void **state)
{
	uint8_t net[16], ip[16];
	unsigned prefix;

	assert_ok(net_parse(SPAN("192.0.2.0/25"), net, &prefix));
	assert_ok(ip_parse(SPAN("192.0.2.127"), ip));
	assert_true(net_contains(net, prefix, ip));
	assert_ok(ip_parse(SPAN("192.0.2.128"), ip));
	assert_false(net_contains(net, prefix, ip));
	assert_int_equal(net_parse(SPAN("192.0.2.0/33"), net, &prefix), ST_INVALID);
	assert_ok(net_parse(SPAN("::/0"), net, &prefix));
	assert_true(net_contains(net, prefix, ip));
}

static void address_literals(void **state)
{
	static const char *const z[] = { "[192.0.2.1]", "[IPv6:2001:db8::1]", "[IPv6:::1]" };
	uint8_t ip[16];
	char buf[64];

	for (size_t i = 0; i < sizeof(z) / sizeof(z[0]); i++) {
		struct out o = out_of(buf, sizeof(buf));

		assert_ok(ip_parse(span_str(z[i]), ip));
		ip_literal_write(ip, &o);
		assert_true(span_eq(out_span(&o), span_str(z[i])));
	}
}

static void envelopes_round_trip_and_survive_damage(void **state)
{
	struct env_rcpt rcpt[2] = { { SPAN("a@b.example"), SPAN("rfc822;A@b.example"), NOTIFY_FAILURE, SPAN("list@b.example") }, { SPAN("c@d.example"), SPAN(""), 0, SPAN_NONE } };
	struct envelope e = { .arrived_ns = 5, .sender = SPAN("s@x.example"), .helo = SPAN("h"), .client_port = 7, .body = BODY_8BITMIME,
		.flags = ENV_TLS, .nrcpt = 2, .rcpt = rcpt, .message_id = SPAN("<1@x>") }, got;
	char buf[1024], bent[1024];
	struct out o = out_of(buf, sizeof(buf));
	struct pool p;

	pool_init(&p, 1 << 20);
	envelope_write(&e, &o);
	assert_int_equal(o.n, envelope_size(&e));
	assert_ok(envelope_read(out_span(&o), &p, &got));
	assert_span(got.rcpt[0].orcpt, "rfc822;A@b.example");
	assert_span(got.sender, "s@x.example");
	assert_span(got.message_id, "<1@x>");
	assert_span(got.rcpt[0].given, "list@b.example");
	assert_int_equal(got.rcpt[1].given.n, 0);
	for (size_t n = 0; n < o.n; n++)
		assert_int_not_equal(envelope_read(span_of(buf, n), &p, &got), ST_OK);
	for (size_t i = 0; i < o.n; i++)
		for (int bit = 0; bit < 8; bit++) {
			memcpy(bent, buf, o.n);
			bent[i] = (char)(bent[i] ^ 1 << bit);
			if (envelope_read(span_of(bent, o.n), &p, &got) == ST_OK)
				assert_true(got.nrcpt <= 2);
		}
	pool_reset(&p);
}

/* Those that were in the spool when the software was replaced. */
static void envelopes_of_earlier_versions_are_read(void **state)
{
	for (uint16_t version = 1; version <= 2; version++) {
		char buf[256];
		struct out o = out_of(buf, sizeof(buf));
		struct envelope got;
		struct pool p;

		pool_init(&p, 1 << 20);
		out_le16(&o, version);
		out_le16(&o, 0);
		out_le64(&o, 5);
		out_add(&o, span_of("\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\7", 16));
		out_le16(&o, 25);
		out_le16(&o, 0);
		out_le32(&o, ENV_TLS);
		out_le32(&o, 1);
		out_field(&o, SPAN("s@x.example"));
		for (int i = 0; i < 4 + 2 * (version - 1); i++)
			out_field(&o, SPAN(""));
		out_field(&o, SPAN("a@b.example"));
		out_field(&o, SPAN("rfc822;l@b.example"));
		out_char(&o, NOTIFY_DELAY);
		assert_ok(envelope_read(out_span(&o), &p, &got));
		assert_span(got.sender, "s@x.example");
		assert_span(got.rcpt[0].addr, "a@b.example");
		assert_span(got.rcpt[0].orcpt, "rfc822;l@b.example");
		assert_int_equal(got.rcpt[0].notify, NOTIFY_DELAY);
		assert_int_equal(got.rcpt[0].given.n + got.message_id.n, 0);
		pool_reset(&p);
	}
}

static void replies_are_clean(void **state)
{
	struct reply r = { .code = 550 };
	char buf[4096];
	struct out o = out_of(buf, sizeof(buf));

	reply_add_line(&r, SPAN("5.1.1 no \x1b[2J\r\nsuch"), true);
	reply_add_line(&r, SPAN("5.1.1 user"), false);
	assert_memory_equal(r.enhanced, ((uint8_t[]){ 5, 1, 1 }), 3);
	reply_line(&r, &o);
	assert_span(out_span(&o), "550 5.1.1 no ?[2J??such user");
	o.n = 0;
	reply_set(&r, 250, "2.0.0", "one\ntwo");
	reply_write(&r, &o);
	assert_span(out_span(&o), "250-2.0.0 one\r\n250 2.0.0 two\r\n");
	for (int i = 0; i < 5000; i++)
		reply_add_line(&r, SPAN("xxxxxxxxxxxxxxxxxxxxxxxxxx"), false);
	assert_true(r.text_len <= REPLY_TEXT_MAX);
}

static void headers(void **state)
{
	struct span rest = SPAN("Received: a\r\n\tb\r\nSubject : x\r\nreceived: c\r\n\r\nReceived: body\r\n"), name, value;

	assert_int_equal(header_count_received(rest), 2);
	assert_true(header_next(&rest, &name, &value));
	assert_span(value, " a\r\n\tb\r\n");
	assert_true(header_next(&rest, &name, &value));
	assert_span(name, "Subject");
}

static void what_a_header_says_of_the_way(void **state)
{
	static const struct {
		const char *head;
		uint32_t flags, want;
		uint8_t body;
	} row[] = {
		{ "Subject: x\r\n\r\nTLS-Required: No\r\n", 0, 0, BODY_7BIT },
		{ "Subject: x\r\ntls-required:  no \r\n\r\n", 0, ENV_TLS_OPTIONAL, BODY_7BIT },
		{ "TLS-Required: No\r\n", 0, ENV_TLS_OPTIONAL, BODY_7BIT },
		{ "TLS-Required: Nope\r\nTLS-Required: Yes\r\n\r\n", 0, 0, BODY_7BIT },
		{ "TLS-Required: No\r\n\r\n", ENV_REQUIRETLS, 0, BODY_7BIT }, /* RFC 8689 4.1 */
		{ "Subject: \xc3\xa4\r\n\r\n", 0, ENV_8BIT_HEADER, BODY_8BITMIME },
		{ "Subject: x\r\n\r\n\xc3\xa4", 0, 0, BODY_8BITMIME },
		{ "", 0, 0, BODY_7BIT },
		{ "\r\nSubject: x\r\n", 0, 0, BODY_7BIT },
		{ " Subject: x\r\n\r\n", 0, ENV_NO_HEADER, BODY_7BIT },
		{ "a text\r\nTLS-Required: No\r\n\r\n", 0, ENV_NO_HEADER, BODY_7BIT },
		{ "From a@b.example Sat Nov 21\r\nTLS-Required: No\r\n\r\n", 0, ENV_TLS_OPTIONAL, BODY_7BIT }, /* of a mailbox file */
		{ ">From a@b.example Sat Nov 21\r\nTLS-Required: No\r\n\r\n", 0, ENV_TLS_OPTIONAL, BODY_7BIT },
		{ "From a@b.example Sat Nov 21\r\n text\r\n", 0, ENV_NO_HEADER, BODY_7BIT },
		{ "From here", 0, 0, BODY_7BIT },
	};

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++)
		assert_int_equal(header_flags(span_str(row[i].head), &(struct envelope){ .flags = row[i].flags, .body = row[i].body }), row[i].want);
}

/* RFC 5321 4.1.3: the tag is part of an address literal. */
static void received_from_either_family(void **state)
{
	struct received_facts f = { .hostname = SPAN("relay.cam.example"), .id = SPAN("1-2") };
	struct envelope v4 = { .helo = SPAN("x"), .client_ip = { [10] = 0xff, 0xff, 192, 0, 2, 1 } }, v6 = { .helo = SPAN("x"), .client_ip = { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 } };
	char text[1024];
	struct out o = out_of(text, sizeof(text));

	received_write(&v4, &f, &o);
	assert_true(span_starts_nocase(out_span(&o), SPAN("Received: from x ([192.0.2.1])\r\n")));
	o = out_of(text, sizeof(text));
	received_write(&v6, &f, &o);
	assert_true(span_starts_nocase(out_span(&o), SPAN("Received: from x ([IPv6:2001:db8::1])\r\n")));
}

static void message_ids(void **state)
{
	static const struct {
		const char *head, *id;
	} row[] = {
		{ "Subject: x\r\nMessage-ID: <a@b>\r\n\r\n", "<a@b>" },
		{ "message-id :\r\n\t<a@b>  \r\nX: y\r\nMessage-ID: <second@b>\r\n\r\n", "<a@b>" },
		{ "Message-ID: bare@b\r\n", "bare@b" },
		{ "Subject: x\r\n\r\nMessage-ID: <body@b>\r\n", "" },
		{ "Message-ID: <a b@c>\r\n\r\n", "" },
		{ "Message-ID: <a\x1b@c>\r\n\r\n", "" },
		{ "Message-ID: \xc3\xa4@c\r\n\r\n", "" },
		{ "Message-ID:\r\n\r\n", "" },
		{ "Message-ID:", "" },
	};
	char longest[300];

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++)
		assert_span(header_message_id(span_str(row[i].head)), row[i].id);
	memset(longest, 'x', sizeof(longest));
	memcpy(longest, "Message-ID:", 11);
	assert_int_equal(header_message_id(span_of(longest, 11 + MESSAGE_ID_MAX)).n, MESSAGE_ID_MAX);
	assert_int_equal(header_message_id(span_of(longest, 12 + MESSAGE_ID_MAX)).n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(good_and_bad_addresses), cmocka_unit_test(local_parts_in_look_up_form),
		cmocka_unit_test(domains_in_look_up_form),
		cmocka_unit_test(paths), cmocka_unit_test(networks), cmocka_unit_test(address_literals),
		cmocka_unit_test(envelopes_round_trip_and_survive_damage),
		cmocka_unit_test(envelopes_of_earlier_versions_are_read), cmocka_unit_test(replies_are_clean), cmocka_unit_test(headers), cmocka_unit_test(what_a_header_says_of_the_way), cmocka_unit_test(message_ids),
		cmocka_unit_test(received_from_either_family) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
