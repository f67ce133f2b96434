#include "dataplane/smtp/params.h"

#include <ctype.h>
#include "dataplane/smtp/server_xclient.h"
#include "spool/mail/address.h"

enum { ENVID_MAX = 100, ORCPT_MAX = 500, AUTH_MAX = 500 };

/* ---- EHLO ---- */

static const struct {
	const char *word;
	uint32_t bit;
} ext[] = {
	{ "PIPELINING", EXT_PIPELINING },
	{ "SIZE", EXT_SIZE },
	{ "8BITMIME", EXT_8BITMIME },
	{ "ENHANCEDSTATUSCODES", EXT_ENHANCED },
	{ "STARTTLS", EXT_STARTTLS },
	{ "CHUNKING", EXT_CHUNKING },
	{ "SMTPUTF8", EXT_SMTPUTF8 },
	{ "DSN", EXT_DSN },
	{ "REQUIRETLS", EXT_REQUIRETLS },
	{ "LIMITS", EXT_LIMITS },
};

enum { NEXT = sizeof(ext) / sizeof(ext[0]) };

/* RFC 9422 4: NAME=VALUE words; those not known, or with a value that is none, are passed over. */
static void limits_parse(struct span rest, struct ehlo_values *v)
{
	while (rest.p) {
		struct span value = span_cut(&rest, ' '), name = span_cut(&value, '=');
		uint64_t n;

		if (!span_u64(value, UINT32_MAX, &n))
			continue;
		if (span_eq_nocase(name, SPAN("RCPTMAX")))
			v->rcpt_max = (uint32_t)n;
		else if (span_eq_nocase(name, SPAN("MAILMAX")))
			v->mail_max = (uint32_t)n;
		else if (span_eq_nocase(name, SPAN("RCPTDOMAINMAX")))
			v->rcpt_domain_max = (uint32_t)n;
	}
}

static void mechs_parse(struct span rest, struct ehlo_values *v)
{
	while (rest.p)
		v->mechs |= sasl_mech_find(span_cut(&rest, ' '));
}

uint32_t ext_parse(struct span line, struct ehlo_values *v)
{
	struct span rest = line, word = span_cut(&rest, ' ');

	if (span_eq_nocase(word, SPAN("AUTH"))) /* a server's own line is auth_write's, by the state of its session */
		mechs_parse(rest, v);
	for (size_t i = 0; i < NEXT; i++) {
		if (!span_eq_nocase(word, span_str(ext[i].word)))
			continue;
		if (ext[i].bit == EXT_SIZE && !span_u64(span_trim(rest), UINT64_MAX, &v->size_max))
			v->size_max = 0;
		if (ext[i].bit == EXT_LIMITS)
			limits_parse(rest, v);
		return ext[i].bit;
	}
	return 0;
}

/* Only what can be used now: never outside TLS (RFC 4954 section 4, P19). */
static void auth_write(const struct smtp_server *s, struct out *o)
{
	if (!s->cfg->auth || !s->tls || !s->auth_mechs)
		return;
	out_str(o, "\r\n250-AUTH");
	for (unsigned mech = 1; mech < SASL_ALL; mech <<= 1)
		if (s->auth_mechs & mech) {
			out_char(o, ' ');
			out_str(o, sasl_mech_name((enum sasl_mech)mech));
		}
}

static bool is_offered(const struct smtp_server *s, uint32_t bit)
{
	if (bit == EXT_STARTTLS)
		return s->cfg->starttls && !s->tls;
	if (bit == EXT_REQUIRETLS)
		return s->tls && s->cfg->requiretls;
	return bit != EXT_LIMITS || s->cfg->rcpt_max || s->cfg->mail_max;
}

static void values_write(const struct smtp_server *s, uint32_t bit, struct out *o)
{
	if (bit == EXT_SIZE)
		out_fmt(o, " %llu", (unsigned long long)s->cfg->size_max);
	if (bit == EXT_LIMITS && s->cfg->rcpt_max)
		out_fmt(o, " RCPTMAX=%u", s->cfg->rcpt_max);
	if (bit == EXT_LIMITS && s->cfg->mail_max)
		out_fmt(o, " MAILMAX=%u", s->cfg->mail_max);
}

void ext_write(const struct smtp_server *s, struct out *o)
{
	size_t last = 0;

	for (size_t i = 0; i < NEXT; i++)
		if (is_offered(s, ext[i].bit))
			last = i;
	out_str(o, "250-");
	out_add(o, s->cfg->hostname);
	auth_write(s, o);
	server_xclient_offer(s, o);
	for (size_t i = 0; i <= last; i++) {
		if (!is_offered(s, ext[i].bit))
			continue;
		out_str(o, i < last ? "\r\n250-" : "\r\n250 ");
		out_str(o, ext[i].word);
		values_write(s, ext[i].bit, o);
	}
	out_str(o, "\r\n");
}

/* ---- what the server reads ---- */

/* The next KEY=VALUE. False at the end. */
static bool next_param(struct span *rest, struct span *key, struct span *value)
{
	while (rest->n && rest->p[0] == ' ')
		*rest = span_skip(*rest, 1);
	if (!rest->n)
		return false;
	*value = span_cut(rest, ' ');
	*key = span_cut(value, '=');
	return true;
}

static bool refuse(struct reply *r, unsigned code, const char *enhanced, const char *text)
{
	reply_set(r, code, enhanced, "%s", text);
	return false;
}

/* RFC 1870 3: up to 20 digits, whether we can count so far or not. */
static bool is_number(struct span v)
{
	for (size_t i = 0; i < v.n; i++)
		if (v.p[i] < '0' || v.p[i] > '9')
			return false;
	return v.n && v.n <= 20;
}

static bool param_size(struct smtp_server *s, struct span v, struct env_rcpt *rcpt, struct reply *r)
{
	if (!is_number(v))
		return refuse(r, 501, "5.5.4", "SIZE is not a number of octets");
	if (!span_u64(v, UINT64_MAX, &s->size_declared) || (s->cfg->size_max && s->size_declared > s->cfg->size_max))
		return refuse(r, 552, "5.3.4", "Message is larger than this server takes");
	return true;
}

static bool param_body(struct smtp_server *s, struct span v, struct env_rcpt *rcpt, struct reply *r)
{
	if (span_eq_nocase(v, SPAN("7BIT")))
		s->env.body = BODY_7BIT;
	else if (span_eq_nocase(v, SPAN("8BITMIME")))
		s->env.body = BODY_8BITMIME;
	else
		return refuse(r, 501, "5.5.4", "BODY is 7BIT or 8BITMIME");
	return true;
}

static bool param_ret(struct smtp_server *s, struct span v, struct env_rcpt *rcpt, struct reply *r)
{
	if (span_eq_nocase(v, SPAN("FULL")))
		s->env.ret = RET_FULL;
	else if (span_eq_nocase(v, SPAN("HDRS")))
		s->env.ret = RET_HDRS;
	else
		return refuse(r, 501, "5.5.4", "RET is FULL or HDRS");
	return true;
}

static bool is_xtext(struct span v, size_t max)
{
	char buf[ORCPT_MAX];
	struct out o = out_of(buf, sizeof(buf));

	return v.n && v.n <= max && xtext_decode(v, &o) == ST_OK;
}

static bool is_text(struct span s, bool utf8)
{
	for (size_t n; s.n; s = span_skip(s, n)) {
		n = !(s.p[0] & 0x80) ? 1 : utf8 ? utf8_len(s) : 0;
		if (!n)
			return false;
	}
	return true;
}

/* RFC 3461 4.2, 4.4: what is in the xtext of ORCPT and ENVID is printable US-ASCII, as it goes into reports. In mail with SMTPUTF8, whose reports may have it,
 * ORCPT may be UTF-8, as Postfix sends addresses of type rfc822. */
static bool is_report_xtext(struct span v, bool utf8, struct out *o)
{
	struct span before = out_span(o);

	return xtext_decode(v, o) == ST_OK && is_text(span_skip(out_span(o), before.n), utf8);
}

/* AUTH=<> or AUTH=mailbox (RFC 4954 section 5): read, and then taken for AUTH=<>, as we trust no client to speak for another. */
static bool param_auth(struct smtp_server *s, struct span v, struct env_rcpt *rcpt, struct reply *r)
{
	if (!s->cfg->auth)
		return refuse(r, 555, "5.5.4", "Unsupported parameter: AUTH");
	return is_xtext(v, AUTH_MAX) || refuse(r, 501, "5.5.4", "AUTH is <> or a mailbox in xtext");
}

static bool param_envid(struct smtp_server *s, struct span v, struct env_rcpt *rcpt, struct reply *r)
{
	char buf[ENVID_MAX];
	struct out o = out_of(buf, sizeof(buf));

	if (!v.n || v.n > ENVID_MAX || !is_report_xtext(v, false, &o))
		return refuse(r, 501, "5.5.4", "ENVID is not xtext of at most 100 characters");
	s->env.envid = pool_span(&s->pool, v);
	return true;
}

static bool param_smtputf8(struct smtp_server *s, struct span v, struct env_rcpt *rcpt, struct reply *r)
{
	if (v.p)
		return refuse(r, 501, "5.5.4", "SMTPUTF8 takes no value");
	s->env.flags |= ENV_SMTPUTF8;
	return true;
}

/* RFC 8689 4.2 */
static bool param_requiretls(struct smtp_server *s, struct span v, struct env_rcpt *rcpt, struct reply *r)
{
	if (!s->cfg->requiretls)
		return refuse(r, 555, "5.5.4", "Unsupported parameter: REQUIRETLS");
	if (v.p)
		return refuse(r, 501, "5.5.4", "REQUIRETLS takes no value");
	if (!s->tls)
		return refuse(r, 530, "5.7.10", "REQUIRETLS needs TLS: say STARTTLS first");
	s->env.flags |= ENV_REQUIRETLS;
	return true;
}

static bool param_notify(struct smtp_server *s, struct span v, struct env_rcpt *rcpt, struct reply *r)
{
	static const struct {
		const char *word;
		uint8_t bit;
	} word[] = { { "NEVER", NOTIFY_NEVER }, { "SUCCESS", NOTIFY_SUCCESS }, { "FAILURE", NOTIFY_FAILURE }, { "DELAY", NOTIFY_DELAY } };

	do {
		struct span w = span_cut(&v, ',');
		size_t i = 0;

		while (i < 4 && !span_eq_nocase(w, span_str(word[i].word)))
			i++;
		if (i == 4)
			return refuse(r, 501, "5.5.4", "NOTIFY is NEVER, or a list of SUCCESS, FAILURE, DELAY");
		rcpt->notify |= word[i].bit;
	} while (v.p);
	if ((rcpt->notify & NOTIFY_NEVER) && rcpt->notify != NOTIFY_NEVER)
		return refuse(r, 501, "5.5.4", "NOTIFY=NEVER stands alone");
	return true;
}

/* RFC 3461 4.2: addr-type is an atom; letters, digits and hyphens are all that were ever registered. */
static bool is_type(struct span v)
{
	for (size_t i = 0; i < v.n; i++)
		if (!isascii(v.p[i]) || (!isalnum((unsigned char)v.p[i]) && v.p[i] != '-'))
			return false;
	return v.n > 0;
}

/* A character of an address as UTF-8; false for what cannot be in one. */
static bool out_utf8(struct out *o, uint32_t point)
{
	if (point <= ' ' || point == 0x7f || (point >= 0xd800 && point < 0xe000) || point > 0x10ffff)
		return false;
	if (point < 0x80) {
		out_char(o, (char)point);
	} else if (point < 0x800) {
		out_char(o, (char)(0xc0 | point >> 6));
		out_char(o, (char)(0x80 | (point & 0x3f)));
	} else {
		if (point < 0x10000) {
			out_char(o, (char)(0xe0 | point >> 12));
		} else {
			out_char(o, (char)(0xf0 | point >> 18));
			out_char(o, (char)(0x80 | (point >> 12 & 0x3f)));
		}
		out_char(o, (char)(0x80 | (point >> 6 & 0x3f)));
		out_char(o, (char)(0x80 | (point & 0x3f)));
	}
	return true;
}

/* RFC 6533 3: utf-8-addr-xtext, or as it is when SMTPUTF8 was given; back to plain UTF-8. */
static bool utf8_addr_read(const struct smtp_server *s, struct span v, struct out *o)
{
	while (v.n) {
		unsigned char c = (unsigned char)v.p[0];
		size_t n = 1;

		if (v.n >= 4 && v.p[0] == '\\' && v.p[1] == 'x' && v.p[2] == '{') {
			uint32_t point = 0;

			for (n = 3; n < v.n && n < 9 && v.p[n] != '}'; n++) {
				const char *digits = "0123456789ABCDEF", *at = memchr(digits, v.p[n], 16);

				if (!at)
					return false;
				point = point << 4 | (uint32_t)(at - digits);
			}
			if (n == 3 || n >= v.n || v.p[n++] != '}' || !out_utf8(o, point))
				return false;
		} else if (c >= 0x80) {
			n = s->env.flags & ENV_SMTPUTF8 ? utf8_len(v) : 0;
			if (!n)
				return false;
			out_add(o, span_of(v.p, n));
		} else if (c <= ' ' || c == 0x7f || c == '+' || c == '=' || c == '\\') {
			return false;
		} else {
			out_char(o, (char)c);
		}
		v = span_skip(v, n);
	}
	return true;
}

static bool param_orcpt(struct smtp_server *s, struct span v, struct env_rcpt *rcpt, struct reply *r)
{
	char buf[ORCPT_MAX];
	struct out o = out_of(buf, sizeof(buf));
	struct span rest = v, type = span_cut(&rest, ';');

	out_add(&o, type);
	out_char(&o, ';');
	if (!rest.n || !is_type(type) ||
		!(span_eq_nocase(type, SPAN("utf-8")) ? utf8_addr_read(s, rest, &o) : is_report_xtext(rest, s->env.flags & ENV_SMTPUTF8, &o)) || o.over)
		return refuse(r, 501, "5.5.4", "ORCPT is TYPE;XTEXT of at most 500 characters");
	rcpt->orcpt = pool_span(&s->pool, out_span(&o));
	return true;
}

struct param {
	const char *key;
	bool (*take)(struct smtp_server *s, struct span v, struct env_rcpt *rcpt, struct reply *r);
};

static const struct param mail_param[] = {
	{ "SIZE", param_size },
	{ "BODY", param_body },
	{ "SMTPUTF8", param_smtputf8 },
	{ "REQUIRETLS", param_requiretls },
	{ "RET", param_ret },
	{ "ENVID", param_envid },
	{ "AUTH", param_auth },
	{ NULL, NULL },
};

static const struct param rcpt_param[] = {
	{ "NOTIFY", param_notify },
	{ "ORCPT", param_orcpt },
	{ NULL, NULL },
};

static bool take_params(struct smtp_server *s, const struct param *table, struct span params, struct env_rcpt *rcpt, struct reply *r)
{
	struct span key, value;
	uint32_t seen = 0;

	while (next_param(&params, &key, &value)) {
		unsigned i = 0;

		if (!key.n)
			return refuse(r, 501, "5.5.4", "Syntax: a parameter is KEY or KEY=VALUE");
		while (table[i].key && !span_eq_nocase(key, span_str(table[i].key)))
			i++;
		if (!table[i].key) {
			reply_set(r, 555, "5.5.4", "Unsupported parameter: %.*s", SPAN_FMT(key));
			return false;
		}
		/* each at most once: RFC 3461 4, and two values of one thing have no meaning */
		if (seen & 1u << i) {
			reply_set(r, 501, "5.5.4", "%s stands there twice", table[i].key);
			return false;
		}
		seen |= 1u << i;
		if (!table[i].take(s, value, rcpt, r))
			return false;
	}
	return true;
}

bool mail_params(struct smtp_server *s, struct span params, struct reply *r)
{
	s->size_declared = 0;
	return take_params(s, mail_param, params, NULL, r);
}

bool rcpt_params(struct smtp_server *s, struct span params, struct env_rcpt *rcpt, struct reply *r)
{
	return take_params(s, rcpt_param, params, rcpt, r);
}

/* ---- what the client writes ---- */

void mail_params_write(const struct smtp_client *c, struct out *o)
{
	const struct envelope *e = c->txn->env;

	if (c->ext & EXT_SIZE) {
		out_str(o, " SIZE=");
		out_u64(o, c->txn->size);
	}
	if ((c->ext & EXT_8BITMIME) && e->body != BODY_7BIT)
		out_str(o, " BODY=8BITMIME");
	if ((c->ext & EXT_SMTPUTF8) && (e->flags & ENV_SMTPUTF8))
		out_str(o, " SMTPUTF8");
	if ((e->flags & ENV_REQUIRETLS) && c->tls && (c->ext & EXT_REQUIRETLS))
		out_str(o, " REQUIRETLS");
	if (c->logged_in) /* RFC 4954 5: the login is this relay's; who submitted the message is not known to it */
		out_str(o, " AUTH=<>");
	if (!(c->ext & EXT_DSN))
		return;
	if (e->ret)
		out_str(o, e->ret == RET_HDRS ? " RET=HDRS" : " RET=FULL");
	if (e->envid.n) {
		out_str(o, " ENVID=");
		out_add(o, e->envid);
	}
}

static void notify_write(uint8_t notify, struct out *o)
{
	static const struct {
		uint8_t bit;
		const char *word;
	} word[] = { { NOTIFY_NEVER, "NEVER" }, { NOTIFY_SUCCESS, "SUCCESS" }, { NOTIFY_FAILURE, "FAILURE" }, { NOTIFY_DELAY, "DELAY" } };
	const char *sep = " NOTIFY=";

	for (size_t i = 0; i < sizeof(word) / sizeof(word[0]); i++)
		if (notify & word[i].bit) {
			out_str(o, sep);
			out_str(o, word[i].word);
			sep = ",";
		}
}

/* RFC 6533 3: an address of type utf-8 goes as it is where SMTPUTF8 is, else with its other letters as \x{HEX}. */
static void utf8_addr_write(struct span s, bool raw, struct out *o)
{
	while (s.n) {
		unsigned char c = (unsigned char)s.p[0];
		unsigned len = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
		uint32_t point = c < 0x80 ? c : c & (0xffu >> (len + 1));

		if (len > s.n)
			return;
		for (unsigned i = 1; i < len; i++)
			point = point << 6 | ((unsigned char)s.p[i] & 0x3f);
		if ((c < 0x80 && c > ' ' && c != '+' && c != '=' && c != '\\' && c != 0x7f) || (raw && c >= 0x80))
			out_add(o, span_of(s.p, len));
		else
			out_fmt(o, "\\x{%X}", point);
		s = span_skip(s, len);
	}
}

/* Left out when it does not fit a command. */
static void orcpt_write(const struct smtp_client *c, struct span orcpt, struct out *o)
{
	char buf[ORCPT_MAX];
	struct out t = out_of(buf, sizeof(buf));
	struct span rest = orcpt, type = span_cut(&rest, ';');

	out_add(&t, type);
	out_char(&t, ';');
	if (span_eq_nocase(type, SPAN("utf-8")))
		utf8_addr_write(rest, c->ext & EXT_SMTPUTF8, &t);
	else
		xtext_encode(rest, &t);
	if (!t.over) {
		out_str(o, " ORCPT=");
		out_add(o, out_span(&t));
	}
}

void rcpt_params_write(const struct smtp_client *c, const struct env_rcpt *rcpt, struct out *o)
{
	uint8_t notify = rcpt->notify;

	if (!(c->ext & EXT_DSN))
		return;
	if (c->cfg->final && (notify & NOTIFY_SUCCESS)) {
		notify = (uint8_t)(notify & ~NOTIFY_SUCCESS); /* that report is ours */
		notify = notify ? notify : NOTIFY_NEVER;
	}
	notify_write(notify, o);
	if (rcpt->orcpt.n)
		orcpt_write(c, rcpt->orcpt, o);
}
