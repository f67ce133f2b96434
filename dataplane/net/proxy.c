#include "dataplane/net/proxy.h"

#include <assert.h>
#include "spool/base/status.h"
#include "spool/mail/address.h"

enum { V2_FIXED = 16, V2_INET = 12, V2_INET6 = 36 };
static_assert((int)V2_FIXED + (int)V2_INET6 <= (int)PROXY_V1_MAX);

static const char v1_begin[] = "PROXY ";
static const char v2_begin[] = "\r\n\r\n\0\r\nQUIT\n";
enum { V1_BEGIN = sizeof(v1_begin) - 1, V2_BEGIN = sizeof(v2_begin) - 1 };

static enum proxy_result bad(struct proxy *p, const char *why)
{
	p->why = why;
	return PROXY_BAD;
}

/* ---- version 1 ---- */

static bool take_ip(struct span text, bool v6, uint8_t ret[16])
{
	bool colon = text.n && memchr(text.p, ':', text.n);

	return text.n && text.p[0] != '[' && !span_starts_nocase(text, SPAN("IPv6:")) && colon == v6 && ip_parse(text, ret) == ST_OK;
}

static bool take_port(struct span text, uint16_t *ret)
{
	uint64_t n;

	if (!span_u64(text, UINT16_MAX, &n) || (text.n > 1 && text.p[0] == '0'))
		return false;
	*ret = (uint16_t)n;
	return true;
}

/* The line without "PROXY " and CRLF: "TCP4 source destination port port", or "UNKNOWN" and whatever. */
static enum proxy_result v1_line(struct proxy *p, struct span rest)
{
	struct span family = span_cut(&rest, ' '), source, destination, port, to;
	uint8_t ip[16];
	uint16_t n;
	bool v6 = span_eq(family, SPAN("TCP6"));

	if (span_eq(family, SPAN("UNKNOWN")))
		return PROXY_LOCAL;
	if (!v6 && !span_eq(family, SPAN("TCP4")))
		return bad(p, "version 1: neither TCP4 nor TCP6 nor UNKNOWN");
	source = span_cut(&rest, ' ');
	destination = span_cut(&rest, ' ');
	port = span_cut(&rest, ' ');
	to = rest;
	if (!take_ip(source, v6, p->ip) || !take_ip(destination, v6, ip))
		return bad(p, "version 1: not an address");
	if (!take_port(port, &p->port) || !take_port(to, &n))
		return bad(p, "version 1: not a port");
	return PROXY_CLIENT;
}

static enum proxy_result v1_step(struct proxy *p)
{
	if (p->head[p->n - 1] != '\n')
		return p->n < PROXY_V1_MAX ? PROXY_MORE : bad(p, "version 1: the line is too long");
	if (p->head[p->n - 2] != '\r')
		return bad(p, "version 1: the line does not end in CRLF");
	return v1_line(p, span_of(p->head + V1_BEGIN, p->n - (size_t)V1_BEGIN - 2));
}

/* ---- version 2 ---- */

static unsigned head_u8(const struct proxy *p, unsigned at)
{
	return (unsigned char)p->head[at];
}

static uint16_t head_be16(const struct proxy *p, unsigned at)
{
	return (uint16_t)(head_u8(p, at) << 8 | head_u8(p, at + 1));
}

static bool v2_is_local(const struct proxy *p)
{
	return (head_u8(p, 12) & 15) == 0 || head_u8(p, 13) == 0; /* LOCAL, or PROXY with UNSPEC */
}

/* Octets of addresses; 0: none that matter, or a family that is not taken. */
static unsigned v2_addresses(const struct proxy *p)
{
	if (v2_is_local(p))
		return 0;
	return head_u8(p, 13) == 0x11 ? V2_INET : head_u8(p, 13) == 0x21 ? V2_INET6 : 0;
}

/* The sixteen octets that say what follows are there. */
static enum proxy_result v2_fixed(struct proxy *p)
{
	unsigned addresses = v2_addresses(p);
	uint16_t len = head_be16(p, 14);

	if (head_u8(p, 12) != 0x20 && head_u8(p, 12) != 0x21)
		return bad(p, "version 2: unknown version or command");
	if (!addresses && !v2_is_local(p))
		return bad(p, "version 2: neither TCP over IPv4 nor TCP over IPv6");
	if (len < addresses)
		return bad(p, "version 2: too short for its addresses");
	p->skip = (uint16_t)(len - addresses);
	return PROXY_MORE;
}

static enum proxy_result v2_done(struct proxy *p)
{
	const char *from = p->head + V2_FIXED;

	if (v2_is_local(p))
		return PROXY_LOCAL;
	if (v2_addresses(p) == V2_INET) {
		memset(p->ip, 0, 10);
		p->ip[10] = p->ip[11] = 0xff;
		memcpy(p->ip + 12, from, 4);
		p->port = head_be16(p, V2_FIXED + 8);
	} else {
		memcpy(p->ip, from, 16);
		p->port = head_be16(p, V2_FIXED + 32);
	}
	return PROXY_CLIENT;
}

static enum proxy_result v2_step(struct proxy *p)
{
	enum proxy_result r = p->n == V2_FIXED ? v2_fixed(p) : PROXY_MORE;

	if (r == PROXY_MORE && p->n >= V2_FIXED && p->n == V2_FIXED + v2_addresses(p) && !p->skip)
		return v2_done(p);
	return r;
}

/* ---- both ---- */

static bool begins(const struct proxy *p, const char *with, size_t n)
{
	return memcmp(p->head, with, p->n < n ? p->n : n) == 0;
}

static bool is_v2_skip(const struct proxy *p)
{
	return p->n >= V2_FIXED && p->head[0] == v2_begin[0] && p->n == V2_FIXED + v2_addresses(p);
}

static enum proxy_result take_octet(struct proxy *p, char c)
{
	p->head[p->n++] = c;
	if (begins(p, v1_begin, V1_BEGIN))
		return p->n <= V1_BEGIN ? PROXY_MORE : v1_step(p);
	if (begins(p, v2_begin, V2_BEGIN))
		return v2_step(p);
	return bad(p, "no PROXY header");
}

enum proxy_result proxy_take(struct proxy *p, struct span in, size_t *ret_used)
{
	enum proxy_result r = PROXY_MORE;
	size_t i = 0, n;

	while (i < in.n && r == PROXY_MORE) {
		if (!is_v2_skip(p)) {
			r = take_octet(p, in.p[i++]);
			continue;
		}
		n = in.n - i < p->skip ? in.n - i : p->skip;
		i += n;
		p->skip = (uint16_t)(p->skip - n);
		r = p->skip ? PROXY_MORE : v2_done(p);
	}
	*ret_used = i;
	return r;
}
