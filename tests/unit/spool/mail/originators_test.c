/* From, Sender and Reply-To as they come (B5): RFC 5322 appendix A and worse. */
#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include "spool/mail/originators.h"

static struct originators o;

/* "F a@b|S c@d" for what was found, or "Field: what is wrong". */
static const char *read_all(const char *head)
{
	static const char letter[] = "FSR";
	static char text[8192];
	struct out t = out_of(text, sizeof(text) - 1);
	size_t n = strlen(head);
	char *copy = malloc(n ? n : 1); /* a sanitizer sees every step too far */

	memcpy(copy, head, n);
	originators_read(span_of(copy, n), true, &o);
	free(copy);
	if (*o.bad)
		out_fmt(&t, "%s: %s", origin_field_name[o.bad_field], o.bad);
	for (uint32_t i = 0; i < o.n && !*o.bad; i++)
		out_fmt(&t, "%s%c %.*s", i ? "|" : "", letter[o.item[i].field], SPAN_FMT(o.item[i].a.full));
	text[t.n] = '\0';
	return text;
}

static void addresses_are_found(void **state)
{
	static const char *const good[][2] = {
		{ "From: a@b.example\r\n\r\nFrom: not@here.example\r\n", "F a@b.example" },
		{ "from : a@b.example\r\n", "F a@b.example" },
		{ "From: \"Joe Q. Public\" <john.q.public@example.com>\r\nReply-To: Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>\r\n",
			"F john.q.public@example.com|R mary@x.test|R jdoe@example.org|R one@y.test" },
		{ "From: Joe Q. Public <a@b.example>\r\n", "F a@b.example" }, /* obs-phrase */
		{ "From: Pete(A nice \\) chap) <pete(his (nested) account)@(his host) silly.test(ing) >\r\n", "F pete@silly.test" },
		{ "From:\r\n =?utf-8?q?J=C3=B6rg?=\r\n\t<a\r\n @\r\n b.example>\r\n", "F a@b.example" },
		{ "From: a . b @ c . example\r\n", "F a.b@c.example" },
		{ "From: <@one.example,@two.example:a@b.example>\r\n", "F a@b.example" },
		{ "From: \"a b\\\"c\"@b.example\r\n", "F \"a b\\\"c\"@b.example" },
		{ "From: a@[192.0.2.1], <b@[IPv6:2001:db8::1]>\r\n", "F a@[192.0.2.1]|F b@[IPv6:2001:db8::1]" },
		{ "From: J\xc3\xb6rg <j\xc3\xb6rg@m\xc3\xbcnchen.example>\r\n", "F j\xc3\xb6rg@m\xc3\xbcnchen.example" },
		{ "From: J\xf6rg in Latin-1 <a@b.example>\r\n", "F a@b.example" },
		{ "From: a@b.example\r\nSender: c@d.example\r\nReply-To: undisclosed-recipients:;\r\n", "F a@b.example|S c@d.example" },
		{ "From: Group:a@b.example, C <c@d.example>;, e@f.example\r\n", "F a@b.example|F c@d.example|F e@f.example" },
		{ "From: ,, a@b.example ,,\r\n", "F a@b.example" },
		{ "From: (only a comment) a@b.example (c)\r\n", "F a@b.example" },
		{ "Subject: no\r\n", "" },
		{ "From: \r\n", "" },
		{ "", "" },
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_string_equal(read_all(good[i][0]), good[i][1]);
}

static void what_is_wrong_is_said(void **state)
{
	static const char *const wrong[][2] = {
		{ "From: root\r\n", "From: there is a name without an address" },
		{ "From: root <>\r\n", "From: there is no address in <>" },
		{ "From: root <root>\r\n", "From: there is no address in <>" },
		{ "From: a b@c.example\r\n", "From: there are words before an address that is not in <>" },
		{ "From: <a b@c.example>\r\n", "From: there is no address in <>" },
		{ "From: <a@b.example\r\n", "From: > is missing behind an address" },
		{ "From: a@b.example c\r\n", "From: there are two words in a domain" },
		{ "From: <a@b.example> c\r\n", "From: there is something behind an address that does not belong there" },
		{ "From: <a@b.example>, <c@d.example>>\r\n", "From: there is something behind an address that does not belong there" },
		{ "From: a@b@c.example\r\n", "From: there is something behind an address that does not belong there" },
		{ "From: a@-b.example\r\n", "From: the domain is not valid" },
		{ "From: a@\r\n", "From: the domain is not valid" },
		{ "From: @b.example\r\n", "From: the local part is not valid" },
		{ "From: a..b@c.example\r\n", "From: the local part is not valid" },
		{ "From: a@\xff.example\r\n", "From: the domain is not valid" },
		{ "From: a@b.example (no end (of it)\r\n", "From: a comment has no end" },
		{ "From: \"no end <a@b.example>\r\n", "From: a quoted string has no end" },
		{ "From: a@[192.0.2.1\r\n", "From: an address literal has no end" },
		{ "From: a@[localhost]\r\n", "From: the address literal is not valid" },
		{ "From: g: a@b.example\r\n", "From: a group has no end" },
		{ "From: g: h: a@b.example;;\r\n", "From: there is a name without an address" },
		{ "From: a@b.example;\r\n", "From: there is something behind an address that does not belong there" },
		{ "From: <@one.example a@b.example>\r\n", "From: a source route has no end" },
		{ "From: a@b.example\r\nSender: a@b.example, c@d.example\r\n", "Sender: it is not one address" },
		{ "Sender:\r\n", "Sender: it is not one address" },
		{ "Reply-To: x\r\nFrom: y\r\n", "Reply-To: there is a name without an address" },
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_string_equal(read_all(wrong[i][0]), wrong[i][1]);
}

static void numbers_are_bounded(void **state)
{
	char *text = malloc(300000);
	size_t n = (size_t)sprintf(text, "From: ");

	for (int i = 0; i < 10000; i++)
		n += (size_t)sprintf(text + n, "a%d@b.example,", i);
	text[n] = '\0';
	assert_string_equal(read_all(text), "From: there are too many addresses");
	assert_int_equal(o.n, ORIGINATORS_MAX);
	n = (size_t)sprintf(text, "From: ");
	memset(text + n, '(', 100000); /* no recursion */
	text[n + 100000] = '\0';
	assert_string_equal(read_all(text), "From: a comment has no end");
	memset(text + n, 'a', 100000);
	sprintf(text + n + 100000, "@b.example\r\n");
	assert_string_equal(read_all(text), "From: an address is too long");
	for (n = 0; n < 10000; n++)
		memcpy(text + n * 25, "From: a@b.example\r\nX: y\r\n", 26);
	assert_string_equal(read_all(text), "From: there are too many addresses");
	assert_int_equal(o.nfield[ORIGIN_FROM], n);
	free(text);
}

static void a_cut_header_says_so(void **state)
{
	static const char head[] = "Subject: x\r\nFrom: A <a@b.example>\r\n\r\nbody\r\n";

	for (size_t n = 0; n < sizeof(head); n++) {
		originators_read(span_of(head, n), false, &o);
		assert_string_equal(o.bad, "");
		if (n < 37) /* the empty line is not there */
			assert_true(o.is_cut);
		else
			assert_false(o.is_cut);
		assert_int_equal(o.n, n >= 36);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_found),
		cmocka_unit_test(what_is_wrong_is_said),
		cmocka_unit_test(numbers_are_bounded),
		cmocka_unit_test(a_cut_header_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
