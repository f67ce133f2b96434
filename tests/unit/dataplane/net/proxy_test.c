#include "tests/support/unit.h"

#include "dataplane/net/proxy.h"
#include "spool/mail/address.h"

#define SIG "\r\n\r\n\0\r\nQUIT\n"
#define TCP4 "\x21\x11"
#define ADDR4 "\xc0\x00\x02\x07\xcb\x00\x71\x01\x10\x01\x00\x19"
#define ADDR6 "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x10\x01\x00\x19"
#define UNIX216 "________________________________________________________________________________________________________________________________________________________________________________________________________________________"
#define BYTES(lit) { lit, sizeof(lit) - 1 }

static const struct {
	struct span header;
	enum proxy_result result;
	const char *ip;
	uint16_t port;
} row[] = {
	{ BYTES("PROXY TCP4 192.0.2.7 203.0.113.1 4097 25\r\n"), PROXY_CLIENT, "192.0.2.7", 4097 },
	{ BYTES("PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n"), PROXY_CLIENT, "255.255.255.255", 65535 },
	{ BYTES("PROXY TCP6 2001:db8::7 2001:db8::1 4097 25\r\n"), PROXY_CLIENT, "2001:db8::7", 4097 },
	{ BYTES("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"), PROXY_CLIENT,
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535 },
	{ BYTES("PROXY UNKNOWN\r\n"), PROXY_LOCAL, NULL, 0 },
	{ BYTES("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535 and more\r\n"), PROXY_LOCAL, NULL, 0 },
	{ BYTES("PROXY TCP4 192.0.2.7 203.0.113.1 4097\r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY TCP4 192.0.2.7 203.0.113.1 4097 25 26\r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY TCP4 192.0.2.7 203.0.113.1 4097 25 \r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY TCP4  192.0.2.7 203.0.113.1 4097 25\r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY TCP4 192.0.2.7 203.0.113.1 4097 65536\r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY TCP4 192.0.2.7 203.0.113.1 04097 25\r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY TCP4 192.0.2.7 203.0.113.1 -1 25\r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY TCP4 192.0.2.256 203.0.113.1 4097 25\r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY TCP4 2001:db8::7 2001:db8::1 4097 25\r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY TCP6 192.0.2.7 203.0.113.1 4097 25\r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY TCP6 [2001:db8::7] 2001:db8::1 4097 25\r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY TCP6 IPv6:2001:db8::7 2001:db8::1 4097 25\r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY tcp4 192.0.2.7 203.0.113.1 4097 25\r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY UDP4 192.0.2.7 203.0.113.1 4097 25\r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY TCP4 192.0.2.7 203.0.113.1 4097 25\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY \r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY\r"), PROXY_BAD, NULL, 0 },
	{ BYTES("p"), PROXY_BAD, NULL, 0 },
	{ BYTES("PROXY UNKNOWN 45678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234"), PROXY_BAD, NULL, 0 },
	{ BYTES(SIG TCP4 "\0\x0c" ADDR4), PROXY_CLIENT, "192.0.2.7", 4097 },
	{ BYTES(SIG TCP4 "\0\x12" ADDR4 "\x04\0\x03" "abc"), PROXY_CLIENT, "192.0.2.7", 4097 },
	{ BYTES(SIG "\x21\x21\0\x24" ADDR6), PROXY_CLIENT, "2001:db8::7", 4097 },
	{ BYTES(SIG "\x21\x21\0\x27" ADDR6 "\x20\0\0"), PROXY_CLIENT, "2001:db8::7", 4097 },
	{ BYTES(SIG "\x20\0\0\0"), PROXY_LOCAL, NULL, 0 },
	{ BYTES(SIG "\x20\x11\0\x0c" ADDR4), PROXY_LOCAL, NULL, 0 },
	{ BYTES(SIG "\x20\x31\0\xd8" UNIX216), PROXY_LOCAL, NULL, 0 },
	{ BYTES(SIG "\x21\0\0\x03" "xyz"), PROXY_LOCAL, NULL, 0 },
	{ BYTES(SIG "\x21\x31\0\xd8"), PROXY_BAD, NULL, 0 }, /* AF_UNIX */
	{ BYTES(SIG "\x21\x12\0\x0c"), PROXY_BAD, NULL, 0 }, /* UDP */
	{ BYTES(SIG "\x21\x22\0\x24"), PROXY_BAD, NULL, 0 },
	{ BYTES(SIG "\x21\x41\0\x24"), PROXY_BAD, NULL, 0 },
	{ BYTES(SIG "\x11\x11\0\x0c"), PROXY_BAD, NULL, 0 }, /* version 1 in binary */
	{ BYTES(SIG "\x22\x11\0\x0c"), PROXY_BAD, NULL, 0 },
	{ BYTES(SIG "\x21\x11\0\x0b"), PROXY_BAD, NULL, 0 },
	{ BYTES(SIG "\x21\x21\0\x23"), PROXY_BAD, NULL, 0 },
	{ BYTES("\r\n\r\n\0\r\nQUIT\r"), PROXY_BAD, NULL, 0 },
	{ BYTES("\r\n\r\n\r"), PROXY_BAD, NULL, 0 },
	{ BYTES("EHLO x.example\r\n"), PROXY_BAD, NULL, 0 },
	{ BYTES("\x16\x03\x01"), PROXY_BAD, NULL, 0 },
};
enum { ROWS = sizeof(row) / sizeof(row[0]) };

static void check(size_t i, const struct proxy *p, enum proxy_result r)
{
	char text[64];
	struct out o = out_of(text, sizeof(text));

	assert_int_equal(r, row[i].result);
	assert_true((p->why != NULL) == (r == PROXY_BAD));
	if (r != PROXY_CLIENT)
		return;
	ip_write(p->ip, &o);
	assert_span(out_span(&o), row[i].ip);
	assert_int_equal(p->port, row[i].port);
}

/* In two parts, cut at each place; and never a byte of what is behind it. */
static void the_same_wherever_it_is_cut(void **state)
{
	for (size_t i = 0; i < ROWS; i++) {
		for (size_t cut = 0; cut <= row[i].header.n; cut++) {
			char bytes[400];
			struct out o = out_of(bytes, sizeof(bytes));
			struct proxy p = { 0 };
			enum proxy_result r;
			size_t first, second = 0;

			out_add(&o, row[i].header);
			out_str(&o, "EHLO x.example\r\n");
			assert_false(o.over);
			r = proxy_take(&p, span_of(bytes, cut), &first);
			if (r == PROXY_MORE) {
				assert_int_equal(first, cut);
				r = proxy_take(&p, span_skip(out_span(&o), cut), &second);
			}
			check(i, &p, r);
			if (r != PROXY_BAD)
				assert_int_equal(first + second, row[i].header.n);
		}
	}
}

static void byte_by_byte(void **state)
{
	for (size_t i = 0; i < ROWS; i++) {
		struct proxy p = { 0 };
		enum proxy_result r = PROXY_MORE;
		size_t at = 0, used;

		while (r == PROXY_MORE && at < row[i].header.n) {
			r = proxy_take(&p, span_of(row[i].header.p + at, 1), &used);
			assert_int_equal(used, 1);
			at++;
		}
		check(i, &p, r);
		if (r != PROXY_BAD)
			assert_int_equal(at, row[i].header.n);
	}
}

/* No header is complete before its end. */
static void what_is_cut_short_waits(void **state)
{
	for (size_t i = 0; i < ROWS; i++)
		for (size_t n = 0; n < row[i].header.n && row[i].result != PROXY_BAD; n++) {
			struct proxy p = { 0 };
			size_t used;

			assert_int_equal(proxy_take(&p, span_of(row[i].header.p, n), &used), PROXY_MORE);
			assert_int_equal(used, n);
		}
}

/* TLVs of any length are skipped, none is kept. */
static void the_longest_header(void **state)
{
	static char bytes[16 + 65535 + 5];
	struct proxy p = { 0 };
	size_t used, at = 0;
	enum proxy_result r;

	memcpy(bytes, SIG "\x21\x11\xff\xff" ADDR4, 28);
	memcpy(bytes + 16 + 65535, "EHLO ", 5);
	do {
		r = proxy_take(&p, span_of(bytes + at, sizeof(bytes) - at < 999 ? sizeof(bytes) - at : 999), &used);
		at += used;
	} while (r == PROXY_MORE);
	assert_int_equal(r, PROXY_CLIENT);
	assert_int_equal(at, 16 + 65535);
	assert_int_equal(p.port, 4097);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(the_same_wherever_it_is_cut), cmocka_unit_test(byte_by_byte),
		cmocka_unit_test(what_is_cut_short_waits), cmocka_unit_test(the_longest_header) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
