#include "spool/mail/address.h"

#include <arpa/inet.h>
#include <idn2.h>
#include <stdlib.h>

static bool is_alnum(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* RFC 5322 atext */
static bool is_atext(unsigned char c)
{
	return is_alnum(c) || (c && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

size_t utf8_len(struct span s)
{
	const unsigned char *p = (const unsigned char *)s.p;
	size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
	uint32_t v;

	if (p[0] < 0xc2 || p[0] > 0xf4 || s.n < n)
		return 0;
	v = n == 2 ? p[0] & 0x1fu : n == 3 ? p[0] & 0x0fu : p[0] & 0x07u;
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		v = v << 6 | (p[i] & 0x3fu);
	}
	if ((n == 3 && v < 0x800) || (n == 4 && (v < 0x10000 || v > 0x10ffff)) || (v >= 0xd800 && v < 0xe000))
		return 0;
	return n;
}

/* One character of an atom at s: its length, or 0. Sets *utf8. */
static size_t atom_char(struct span s, unsigned flags, bool *utf8)
{
	size_t n;

	if (is_atext((unsigned char)s.p[0]))
		return 1;
	if ((unsigned char)s.p[0] < 0x80 || !(flags & ADDRESS_UTF8))
		return 0;
	n = utf8_len(s);
	*utf8 = *utf8 || n;
	return n;
}

/* Takes a local part off the front: its length, or 0. */
static size_t local_len(struct span s, unsigned flags, bool *utf8)
{
	size_t i = 0, n;

	if (s.n && s.p[0] == '"') {
		for (i = 1; i < s.n && s.p[i] != '"'; i += n) {
			unsigned char c = (unsigned char)s.p[i];

			n = 1;
			if (c == '\\') {
				n = 2;
				if (i + 1 >= s.n || s.p[i + 1] < ' ' || s.p[i + 1] == 0x7f)
					return 0;
			} else if (c < ' ' || c == 0x7f) {
				return 0;
			} else if (c >= 0x80) {
				n = flags & ADDRESS_UTF8 ? utf8_len(span_skip(s, i)) : 0;
				if (!n)
					return 0;
				*utf8 = true;
			}
		}
		return i < s.n ? i + 1 : 0;
	}
	while (i < s.n) {
		n = atom_char(span_skip(s, i), flags, utf8);
		if (!n && (s.p[i] != '.' || i == 0 || s.p[i - 1] == '.'))
			break;
		i += n ? n : 1;
	}
	return i && s.p[i - 1] != '.' ? i : 0;
}

bool address_domain_ok(struct span domain, bool utf8)
{
	size_t label = 0;
	bool high = false; /* the label has 63 octets in its ASCII form only, which is not made here */

	if (domain.n == 0 || domain.n > ADDRESS_DOMAIN_MAX)
		return false;
	for (size_t i = 0; i < domain.n;) {
		unsigned char c = (unsigned char)domain.p[i];
		size_t n = 1;

		if (c == '.') {
			if (label == 0 || domain.p[i - 1] == '-')
				return false;
			label = 0;
			high = false;
			i++;
			continue;
		}
		if (c == '-' ? label == 0 : !is_alnum(c)) {
			n = c >= 0x80 && utf8 ? utf8_len(span_skip(domain, i)) : 0;
			if (!n)
				return false;
			high = true;
		}
		label += n;
		i += n;
		if (label > 63 && !high)
			return false;
	}
	return label > 0 && domain.p[domain.n - 1] != '-';
}

/* RFC 5321 4.1.3: an IPv6 address has its tag, an IPv4 address has none. */
static bool literal_ok(struct span d)
{
	bool tag = span_starts_nocase(d, SPAN("[IPv6:"));
	struct span text = span_skip(d, tag ? 6 : 1);
	uint8_t ip[16];

	return d.n > 2 && d.p[0] == '[' && d.p[d.n - 1] == ']' && ip_parse(d, ip) == ST_OK && tag == (memchr(text.p, ':', text.n) != NULL);
}

static bool has_high(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] >= 0x80)
			return true;
	return false;
}

enum status address_parse(struct span s, unsigned flags, struct address *ret)
{
	bool utf8 = false;
	size_t n = local_len(s, flags, &utf8);

	*ret = (struct address){ .full = s };
	if (!n)
		return trail(ST_INVALID, "the local part is not valid");
	ret->local = span_of(s.p, n);
	if (n > ADDRESS_LOCAL_MAX)
		return trail(ST_INVALID, "the local part is longer than 64 octets");
	if (n == s.n) {
		if ((flags & ADDRESS_ALLOW_BARE) && address_is_postmaster(ret))
			return ST_OK;
		return trail(ST_INVALID, "the address has no domain");
	}
	if (s.p[n] != '@')
		return trail(ST_INVALID, "the local part is not valid");
	ret->domain = span_skip(s, n + 1);
	if (ret->domain.n && ret->domain.p[0] == '[') {
		if (!literal_ok(ret->domain))
			return trail(ST_INVALID, "the address literal is not valid");
		ret->is_literal = true;
	} else if (!address_domain_ok(ret->domain, flags & ADDRESS_UTF8)) {
		return trail(ST_INVALID, "the domain is not valid");
	}
	ret->is_utf8 = utf8 || has_high(ret->domain);
	return ST_OK;
}

/* Skips "@one,@two:" (RFC 5321 4.1.1.3: accepted and ignored). False when malformed. */
static bool skip_source_route(struct span *s)
{
	while (s->n && s->p[0] == '@') {
		size_t n = 1;

		while (n < s->n && s->p[n] != ',' && s->p[n] != ':' && s->p[n] != '>')
			n++;
		if (n == s->n || s->p[n] == '>' || !address_domain_ok(span_of(s->p + 1, n - 1), false))
			return false;
		*s = span_skip(*s, n + 1);
		if (s->p[-1] == ':')
			return true;
	}
	return false;
}

/* Where the path's ">" is: not one in a quoted local part. s.n: there is none. */
static size_t path_end(struct span s)
{
	bool quoted = false;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '\\' && quoted)
			i++;
		else if (s.p[i] == '"')
			quoted = !quoted;
		else if (s.p[i] == '>' && !quoted)
			return i;
	}
	return s.n;
}

enum status address_path(struct span s, unsigned flags, struct address *ret, struct span *ret_rest)
{
	size_t end;

	*ret = (struct address){ 0 };
	if (!s.n || s.p[0] != '<')
		return trail(ST_INVALID, "the address must stand in angle brackets");
	s = span_skip(s, 1);
	end = path_end(s);
	if (end == s.n)
		return trail(ST_INVALID, "the address has no closing angle bracket");
	*ret_rest = span_skip(s, end + 1);
	s.n = end;
	if (!s.n)
		return flags & ADDRESS_ALLOW_NULL ? ST_OK : trail(ST_INVALID, "the address is empty");
	if (s.p[0] == '@' && !skip_source_route(&s))
		return trail(ST_INVALID, "the source route is not valid");
	return address_parse(s, flags, ret);
}

enum status address_domain_key(struct span domain, struct out *o)
{
	char in[ADDRESS_DOMAIN_MAX + 1];
	uint8_t *ascii = NULL;
	bool ok;

	if (!address_domain_ok(domain, true))
		return trail(ST_INVALID, "the domain is not valid");
	if (!has_high(domain)) {
		for (size_t i = 0; i < domain.n; i++)
			out_char(o, (char)(domain.p[i] >= 'A' && domain.p[i] <= 'Z' ? domain.p[i] + 32 : domain.p[i]));
		return o->over ? ST_INVALID : ST_OK;
	}
	memcpy(in, domain.p, domain.n);
	in[domain.n] = '\0';
	if (idn2_lookup_u8((const uint8_t *)in, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
		return trail(ST_INVALID, "the domain has no ASCII form");
	/* the mapping makes dots and other ASCII characters of some letters: U+3002, U+2100 */
	ok = address_domain_ok(span_str((const char *)ascii), false);
	if (ok)
		out_str(o, (const char *)ascii);
	idn2_free(ascii);
	if (!ok)
		return trail(ST_INVALID, "the domain's ASCII form is not valid");
	return o->over ? ST_INVALID : ST_OK;
}

bool address_local_ok(struct span s, unsigned flags)
{
	bool utf8 = false;

	return s.n && s.n <= ADDRESS_LOCAL_MAX && local_len(s, flags, &utf8) == s.n;
}

/* What the quotes of a quoted string stand for (RFC 5321 4.1.2: "Joe" and Joe are the same). */
enum status address_local_key(struct span local, struct out *o)
{
	bool quoted = local.n >= 2 && local.p[0] == '"' && local.p[local.n - 1] == '"';

	if (quoted)
		local = span_of(local.p + 1, local.n - 2);
	for (size_t i = 0; i < local.n; i++) {
		char c = local.p[i];

		if (quoted && c == '\\' && i + 1 < local.n)
			c = local.p[++i];
		out_char(o, (char)(c >= 'A' && c <= 'Z' ? c + 32 : c));
	}
	return o->over ? trail(ST_TOO_BIG, "the local part is too long") : ST_OK;
}

bool address_is_postmaster(const struct address *a)
{
	return span_eq_nocase(a->local, SPAN("postmaster"));
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

enum status xtext_decode(struct span s, struct out *o)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == '+') {
			if (i + 2 >= s.n || hex(s.p[i + 1]) < 0 || hex(s.p[i + 2]) < 0)
				return trail(ST_INVALID, "xtext with a bad +");
			c = (char)(hex(s.p[i + 1]) << 4 | hex(s.p[i + 2]));
			i += 2;
			if ((unsigned char)c < ' ' || c == 0x7f)
				return trail(ST_INVALID, "xtext with a control character");
		} else if (c < '!' || c > '~' || c == '=') {
			return trail(ST_INVALID, "xtext with a character that must be encoded");
		}
		out_char(o, c);
	}
	return o->over ? trail(ST_TOO_BIG, "xtext is too long") : ST_OK;
}

void xtext_encode(struct span s, struct out *o)
{
	static const char digits[] = "0123456789ABCDEF";

	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c >= '!' && c <= '~' && c != '+' && c != '=') {
			out_char(o, (char)c);
		} else {
			out_char(o, '+');
			out_char(o, digits[c >> 4]);
			out_char(o, digits[c & 15]);
		}
	}
}

enum status ip_parse(struct span s, uint8_t ret[16])
{
	char z[64];

	if (s.n > 2 && s.p[0] == '[' && s.p[s.n - 1] == ']')
		s = span_of(s.p + 1, s.n - 2);
	if (span_starts_nocase(s, SPAN("IPv6:")))
		s = span_skip(s, 5);
	if (s.n == 0 || s.n >= sizeof(z) || memchr(s.p, 0, s.n))
		return trail(ST_INVALID, "not an address");
	memcpy(z, s.p, s.n);
	z[s.n] = '\0';
	if (inet_pton(AF_INET6, z, ret) == 1)
		return ST_OK;
	memset(ret, 0, 10);
	ret[10] = ret[11] = 0xff;
	return inet_pton(AF_INET, z, ret + 12) == 1 ? ST_OK : trail(ST_INVALID, "not an address");
}

static bool is_v4(const uint8_t ip[16])
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	return memcmp(ip, mapped, sizeof(mapped)) == 0;
}

void ip_write(const uint8_t ip[16], struct out *o)
{
	char z[INET6_ADDRSTRLEN] = "";

	if (is_v4(ip))
		inet_ntop(AF_INET, ip + 12, z, sizeof(z));
	else
		inet_ntop(AF_INET6, ip, z, sizeof(z));
	out_str(o, z);
}

void ip_literal_write(const uint8_t ip[16], struct out *o)
{
	out_str(o, is_v4(ip) ? "[" : "[IPv6:");
	ip_write(ip, o);
	out_char(o, ']');
}

enum status net_parse(struct span s, uint8_t ret_ip[16], unsigned *ret_prefix)
{
	struct span rest = s, ip = span_cut(&rest, '/');
	uint64_t bits = 128, most;

	if (ip_parse(ip, ret_ip) != ST_OK)
		return ST_INVALID;
	most = is_v4(ret_ip) ? 32 : 128;
	bits = most;
	if (rest.p && !span_u64(rest, most, &bits))
		return trail(ST_INVALID, "the prefix length is not a number up to %llu", (unsigned long long)most);
	*ret_prefix = (unsigned)(bits + 128 - most);
	return ST_OK;
}

bool net_contains(const uint8_t net[16], unsigned prefix, const uint8_t ip[16])
{
	unsigned bytes = prefix / 8, bits = prefix % 8;

	if (memcmp(net, ip, bytes) != 0)
		return false;
	return !bits || ((net[bytes] ^ ip[bytes]) & (0xff << (8 - bits)) & 0xff) == 0;
}

void net_mask(const uint8_t ip[16], unsigned prefix, uint8_t ret[16])
{
	for (unsigned i = 0; i < 16; i++) {
		unsigned keep = prefix >= 8 * (i + 1) ? 8 : prefix > 8 * i ? prefix - 8 * i : 0;

		ret[i] = (uint8_t)(ip[i] & (0xff00 >> keep));
	}
}
