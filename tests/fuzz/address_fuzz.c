/* An address that is taken is one: nothing in it can end a line or a path (P5, P24), and written again it is the same; keys of domains and local parts, xtext and IP addresses have one form,
 * which is read as itself.
 *
 * Input: a byte of flags (enum address_flag), then the text. */
#include <stdlib.h>
#include "spool/mail/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool is_ascii(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] & 0x80)
			return false;
	return true;
}

static bool has_control(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
			return true;
	return false;
}

/* With quotes, whatever is in it, the key says the same. */
static void check_local_key(struct span local)
{
	char key[ADDRESS_LOCAL_MAX], quoted[2 * ADDRESS_LOCAL_MAX + 2], back[ADDRESS_LOCAL_MAX];
	struct out k = out_of(key, sizeof(key)), q = out_of(quoted, sizeof(quoted)), b = out_of(back, sizeof(back));

	CHECK(address_local_key(local, &k) == ST_OK && k.n <= local.n);
	out_char(&q, '"');
	for (size_t i = 0; i < k.n; i++) {
		if (key[i] == '"' || key[i] == '\\')
			out_char(&q, '\\');
		out_char(&q, key[i]);
	}
	out_char(&q, '"');
	CHECK(address_local_key(out_span(&q), &b) == ST_OK && span_eq(out_span(&k), out_span(&b)));
}

/* What is asked of DNS and looked up in tables is a host name in ASCII, and its own key. */
static void check_domain_key(struct span domain)
{
	char key[512], back[512];
	struct out k = out_of(key, sizeof(key)), b = out_of(back, sizeof(back));

	if (address_domain_key(domain, &k) != ST_OK)
		return;
	CHECK(address_domain_ok(out_span(&k), false));
	CHECK(address_domain_key(out_span(&k), &b) == ST_OK && span_eq(out_span(&k), out_span(&b)));
}

static void check_address(const struct address *a, unsigned flags)
{
	CHECK(a->local.n && a->local.n <= ADDRESS_LOCAL_MAX && !has_control(a->full));
	CHECK(a->is_utf8 == !is_ascii(a->full) && (!a->is_utf8 || (flags & ADDRESS_UTF8)));
	CHECK(address_local_ok(a->local, flags));
	check_local_key(a->local);
	if (!a->domain.n) {
		CHECK((flags & ADDRESS_ALLOW_BARE) && address_is_postmaster(a) && span_eq(a->full, a->local));
		return;
	}
	CHECK(a->full.p == a->local.p && a->full.n == a->local.n + 1 + a->domain.n && a->local.p[a->local.n] == '@');
	CHECK(a->domain.n <= ADDRESS_DOMAIN_MAX && a->is_literal == (a->domain.p[0] == '['));
	if (!a->is_literal)
		check_domain_key(a->domain);
}

static void same(const struct address *a, const struct address *b)
{
	CHECK(span_eq(a->full, b->full) && span_eq(a->local, b->local) && span_eq(a->domain, b->domain));
	CHECK(a->is_literal == b->is_literal && a->is_utf8 == b->is_utf8);
}

static void check_path(struct span s, unsigned flags)
{
	struct address a, again;
	struct span rest, end;
	char text[ADDRESS_MAX + 2];
	struct out o = out_of(text, sizeof(text));

	if (address_path(s, flags, &a, &rest) != ST_OK)
		return;
	CHECK(rest.p > s.p && rest.p + rest.n == s.p + s.n && rest.p[-1] == '>');
	if (!a.full.n) {
		CHECK((flags & ADDRESS_ALLOW_NULL) && rest.p == s.p + 2);
		return;
	}
	CHECK(a.full.p + a.full.n + 1 == rest.p);
	check_address(&a, flags);
	out_char(&o, '<');
	out_add(&o, a.full);
	out_char(&o, '>');
	CHECK(!o.over && address_path(out_span(&o), flags, &again, &end) == ST_OK && end.n == 0);
	same(&a, &again);
}

static void check_whole(struct span s, unsigned flags)
{
	struct address a, again;
	char text[ADDRESS_MAX + 2];
	struct out o = out_of(text, sizeof(text));
	struct span end;

	if (address_parse(s, flags, &a) != ST_OK)
		return;
	CHECK(span_eq(a.full, s));
	check_address(&a, flags);
	out_char(&o, '<');
	out_add(&o, s);
	out_char(&o, '>');
	CHECK(!o.over && address_path(out_span(&o), flags, &again, &end) == ST_OK && end.n == 0);
	same(&a, &again);
}

static void check_xtext(struct span s)
{
	size_t cap = 3 * s.n + 1;
	char *a = malloc(cap), *b = malloc(cap), *c = malloc(cap);
	struct out o = out_of(a, cap), x = out_of(b, cap), back = out_of(c, cap);

	CHECK(a && b && c);
	xtext_encode(s, &x);
	CHECK(!x.over && is_ascii(out_span(&x)) && !has_control(out_span(&x)));
	CHECK((xtext_decode(out_span(&x), &o) == ST_OK) == !has_control(s));
	o.n = 0;
	if (xtext_decode(s, &o) == ST_OK) {
		CHECK(!o.over && !has_control(out_span(&o)));
		x.n = 0;
		xtext_encode(out_span(&o), &x);
		CHECK(xtext_decode(out_span(&x), &back) == ST_OK && span_eq(out_span(&o), out_span(&back)));
	}
	free(a);
	free(b);
	free(c);
}

static void check_ip(struct span s)
{
	uint8_t ip[16], back[16];
	unsigned prefix;
	char text[64];
	struct out o = out_of(text, sizeof(text));

	if (ip_parse(s, ip) == ST_OK) {
		ip_write(ip, &o);
		CHECK(!o.over && ip_parse(out_span(&o), back) == ST_OK && memcmp(ip, back, 16) == 0);
	}
	if (net_parse(s, ip, &prefix) == ST_OK)
		CHECK(prefix <= 128 && net_contains(ip, prefix, ip));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct span s = span_of(data + 1, n ? n - 1 : 0);

	if (!n)
		return 0;
	check_path(s, data[0] & 7);
	check_whole(s, data[0] & 7);
	check_domain_key(s);
	check_xtext(s);
	check_ip(s);
	return 0;
}
