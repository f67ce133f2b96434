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
};

enum { NEXT = sizeof(ext) / sizeof(ext[0]) };

uint32_t ext_parse(struct span line, uint64_t *size)
{
	struct span rest = line, word = span_cut(&rest, ' ');

	for (size_t i = 0; i < NEXT; i++) {
		if (!span_eq_nocase(word, span_str(ext[i].word)))
			continue;
		if (ext[i].bit == EXT_SIZE && !span_u64(span_trim(rest), UINT64_MAX, size))
			*size = 0;
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

void ext_write(const struct smtp_server *s, struct out *o)
{
	out_str(o, "250-");
	out_add(o, s->cfg->hostname);
	auth_write(s, o);
	server_xclient_offer(s, o);
	for (size_t i = 0; i < NEXT; i++) {
		if (ext[i].bit == EXT_STARTTLS && (!s->cfg->starttls || s->tls))
			continue;
		out_str(o, i + 1 < NEXT ? "\r\n250-" : "\r\n250 ");
		out_str(o, ext[i].word);
		if (ext[i].bit == EXT_SIZE) {
			out_char(o, ' ');
			out_u64(o, s->cfg->size_max);
		}
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

/* AUTH=<> or AUTH=mailbox (RFC 4954 section 5): read, and then taken for AUTH=<>, as we trust no client to speak for another. */
static bool param_auth(struct smtp_server *s, struct span v, struct env_rcpt *rcpt, struct reply *r)
{
	if (!s->cfg->auth)
		return refuse(r, 555, "5.5.4", "Unsupported parameter: AUTH");
	return is_xtext(v, AUTH_MAX) || refuse(r, 501, "5.5.4", "AUTH is <> or a mailbox in xtext");
}

static bool param_envid(struct smtp_server *s, struct span v, struct env_rcpt *rcpt, struct reply *r)
{
	if (!is_xtext(v, ENVID_MAX))
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

static bool param_orcpt(struct smtp_server *s, struct span v, struct env_rcpt *rcpt, struct reply *r)
{
	char buf[ORCPT_MAX];
	struct out o = out_of(buf, sizeof(buf));
	struct span rest = v, type = span_cut(&rest, ';');

	out_add(&o, type);
	out_char(&o, ';');
	if (!rest.n || !is_type(type) || xtext_decode(rest, &o) != ST_OK || o.over)
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
	if (!(c->ext & EXT_DSN))
		return;
	if (e->ret)
		out_str(o, e->ret == RET_HDRS ? " RET=HDRS" : " RET=FULL");
	if (e->envid.n) {
		out_str(o, " ENVID=");
		out_add(o, e->envid);
	}
}

void rcpt_params_write(const struct smtp_client *c, const struct env_rcpt *rcpt, struct out *o)
{
	struct span rest = rcpt->orcpt, type;

	if (!(c->ext & EXT_DSN))
		return;
	if (rcpt->notify & NOTIFY_NEVER) {
		out_str(o, " NOTIFY=NEVER");
	} else if (rcpt->notify) {
		const char *sep = " NOTIFY=";

		if (rcpt->notify & NOTIFY_SUCCESS)
			out_str(o, sep), out_str(o, "SUCCESS"), sep = ",";
		if (rcpt->notify & NOTIFY_FAILURE)
			out_str(o, sep), out_str(o, "FAILURE"), sep = ",";
		if (rcpt->notify & NOTIFY_DELAY)
			out_str(o, sep), out_str(o, "DELAY");
	}
	if (!rcpt->orcpt.n)
		return;
	type = span_cut(&rest, ';');
	out_str(o, " ORCPT=");
	out_add(o, type);
	out_char(o, ';');
	xtext_encode(rest, o);
}
