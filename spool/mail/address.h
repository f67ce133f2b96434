/* Mail addresses (RFC 5321 4.1.2, RFC 6531) as opaque values: a local part is never interpreted (P5).
 *
 * Pure functions; results are spans into the input or the caller's buffer. */
#ifndef WEIR_SPOOL_MAIL_ADDRESS_H
#define WEIR_SPOOL_MAIL_ADDRESS_H

#include "spool/base/span.h"
#include "spool/base/status.h"

struct address {
	struct span full;   /* local@domain as written, without source route */
	struct span local;  /* as written, quotes included */
	struct span domain; /* empty for bare "postmaster" */
	bool is_literal;    /* domain is [..] */
	bool is_utf8;       /* needs SMTPUTF8 */
};

enum { ADDRESS_LOCAL_MAX = 64, ADDRESS_DOMAIN_MAX = 255, ADDRESS_MAX = 320 };

enum address_flag {
	ADDRESS_UTF8 = 1,          /* SMTPUTF8 was given */
	ADDRESS_ALLOW_NULL = 2,    /* <> is allowed (MAIL FROM) */
	ADDRESS_ALLOW_BARE = 4,    /* <postmaster> without a domain is allowed (RCPT TO) */
};

/* Parses what stands at the start of s: a path "<...>" (a source route "@a,@b:" is skipped), and leaves the rest after ">" in
 * *ret_rest. ST_INVALID with the trail saying what is wrong. The null path gives an empty `full`. */
enum status address_path(struct span s, unsigned flags, struct address *ret, struct span *ret_rest);
/* Parses a whole span "local@domain" (no angle brackets). */
enum status address_parse(struct span s, unsigned flags, struct address *ret);
/* Whether the domain is a syntactically valid host name (letters, digits, hyphens, dots, U-labels with utf8) . */
bool address_domain_ok(struct span domain, bool utf8);
/* Writes the domain in look-up form: lower case, A-labels, no trailing dot. ST_INVALID. */
enum status address_domain_key(struct span domain, struct out *o);
/* Whether s is a whole local part as it may stand in an envelope. */
bool address_local_ok(struct span s, unsigned flags);
/* Writes a local part of our own domains in look-up form: without needless quotes, ASCII letters in lower case (only for domains whose local parts are ours to interpret). */
enum status address_local_key(struct span local, struct out *o);
/* postmaster in any case, with any or no domain. */
bool address_is_postmaster(const struct address *a);
/* Length of the valid UTF-8 sequence of the non-ASCII character at the start of s, or 0 (RFC 3629: no surrogates, no overlong forms). */
size_t utf8_len(struct span s);
/* RFC 3461 xtext. Decode: ST_INVALID when malformed. */
enum status xtext_decode(struct span s, struct out *o);
void xtext_encode(struct span s, struct out *o);
/* IPv4 or IPv6 text (also "[1.2.3.4]" and "IPv6:..." literals) to 16 bytes, and back ("192.0.2.1", "2001:db8::1"). */
enum status ip_parse(struct span s, uint8_t ret[16]);
void ip_write(const uint8_t ip[16], struct out *o);
/* RFC 5321 4.1.3: "[192.0.2.1]", "[IPv6:2001:db8::1]". */
void ip_literal_write(const uint8_t ip[16], struct out *o);
/* "192.0.2.0/24", "2001:db8::/32" or a bare address; prefix counted in 128 bits (IPv4 /24 gives 120). */
enum status net_parse(struct span s, uint8_t ret_ip[16], unsigned *ret_prefix);
/* The address with all bits behind the prefix 0; ret may be ip. */
void net_mask(const uint8_t ip[16], unsigned prefix, uint8_t ret[16]);
bool net_contains(const uint8_t net[16], unsigned prefix, const uint8_t ip[16]);

#endif
