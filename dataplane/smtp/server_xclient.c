#include "dataplane/smtp/server_xclient.h"

#include "dataplane/smtp/server_auth.h"
#include "dataplane/smtp/server_internal.h"

/* What one attribute says: its value, decoded. False: it is none. A span without bytes: the client does not know it. */
typedef bool take_fn(const struct smtp_server *s, struct smtp_xclient *x, struct span v);

static bool take_port(struct span v, uint16_t *ret)
{
	uint64_t n = 0;

	if (v.n && !span_u64(v, UINT16_MAX, &n))
		return false;
	*ret = (uint16_t)n;
	return true;
}

/* "IPV6:2001:db8::1" or "192.0.2.1"; unknown: 0.0.0.0 */
static bool take_ip(struct span v, uint8_t ret[16])
{
	return ip_parse(v.n ? v : SPAN("0.0.0.0"), ret) == ST_OK;
}

/* Names of clients come from the DNS and nowhere else. */
static bool take_name(const struct smtp_server *s, struct smtp_xclient *x, struct span v)
{
	return v.n < 256;
}

static bool take_addr(const struct smtp_server *s, struct smtp_xclient *x, struct span v)
{
	return take_ip(v, x->addr);
}

static bool take_client_port(const struct smtp_server *s, struct smtp_xclient *x, struct span v)
{
	return take_port(v, &x->port);
}

static bool take_proto(const struct smtp_server *s, struct smtp_xclient *x, struct span v)
{
	x->esmtp = !span_eq_nocase(v, SPAN("SMTP"));
	return !x->esmtp || span_eq_nocase(v, s->cfg->lmtp ? SPAN("LMTP") : SPAN("ESMTP"));
}

static bool take_helo(const struct smtp_server *s, struct smtp_xclient *x, struct span v)
{
	x->helo = v;
	return v.n <= sizeof(s->helo_buf);
}

static bool take_login(const struct smtp_server *s, struct smtp_xclient *x, struct span v)
{
	x->login = v;
	return s->cfg->auth && v.n <= sizeof(s->auth_user_buf);
}

/* Our own address is nothing that a decision depends on. */
static bool take_dest_addr(const struct smtp_server *s, struct smtp_xclient *x, struct span v)
{
	uint8_t ip[16];

	return take_ip(v, ip);
}

static bool take_dest_port(const struct smtp_server *s, struct smtp_xclient *x, struct span v)
{
	uint16_t port;

	return take_port(v, &port);
}

static const struct {
	const char *name;
	unsigned bit;
	take_fn *take;
} attribute[] = {
	{ "NAME", XCLIENT_NAME, take_name },
	{ "ADDR", XCLIENT_ADDR, take_addr },
	{ "PORT", XCLIENT_PORT, take_client_port },
	{ "PROTO", XCLIENT_PROTO, take_proto },
	{ "HELO", XCLIENT_HELO, take_helo },
	{ "LOGIN", XCLIENT_LOGIN, take_login },
	{ "DESTADDR", XCLIENT_DESTADDR, take_dest_addr },
	{ "DESTPORT", XCLIENT_DESTPORT, take_dest_port },
};
enum { NATTRIBUTES = sizeof(attribute) / sizeof(attribute[0]) };

static bool is_offered(const struct smtp_server *s, size_t i)
{
	return s->cfg->auth || attribute[i].bit != XCLIENT_LOGIN;
}

void server_xclient_offer(const struct smtp_server *s, struct out *o)
{
	if (!s->xclient_allowed)
		return;
	out_str(o, "\r\n250-XCLIENT");
	for (size_t i = 0; i < NATTRIBUTES; i++)
		if (is_offered(s, i)) {
			out_char(o, ' ');
			out_str(o, attribute[i].name);
		}
}

/* xtext of printable ASCII, in the pool; "[UNAVAILABLE]" and "[TEMPUNAVAIL]" are nothing. False: it is not that. */
static bool decode(struct smtp_server *s, struct span v, struct span *ret)
{
	char buf[WIRE_LINE_MAX];
	struct out o = out_of(buf, sizeof(buf));

	if (!v.n || xtext_decode(v, &o) != ST_OK || o.over)
		return false;
	for (size_t i = 0; i < o.n; i++)
		if (buf[i] < '!' || buf[i] > '~')
			return false;
	*ret = SPAN("");
	if (span_eq_nocase(out_span(&o), SPAN("[UNAVAILABLE]")) || span_eq_nocase(out_span(&o), SPAN("[TEMPUNAVAIL]")))
		return true;
	*ret = pool_span(&s->pool, out_span(&o));
	return ret->p != NULL;
}

/* One NAME=VALUE; false: *r says what is wrong with it. */
static bool take_attribute(struct smtp_server *s, struct smtp_xclient *x, struct span word, struct reply *r)
{
	struct span value = word, name = span_cut(&value, '='), v;
	size_t i = 0;

	while (i < NATTRIBUTES && (!is_offered(s, i) || !span_eq_nocase(name, span_str(attribute[i].name))))
		i++;
	if (i == NATTRIBUTES)
		reply_set(r, 501, "5.5.4", "Unknown XCLIENT attribute: %.*s", SPAN_FMT(name));
	else if (x->has & attribute[i].bit)
		reply_set(r, 501, "5.5.4", "%s stands there twice", attribute[i].name);
	else if (!decode(s, value, &v) || !attribute[i].take(s, x, v))
		reply_set(r, 501, "5.5.4", "Bad value of %s", attribute[i].name);
	else
		x->has |= attribute[i].bit;
	return !r->code;
}

static enum server_action ask_host(struct smtp_server *s, const struct smtp_xclient *x)
{
	s->xclient = x;
	s->state.waiting = FOR_XCLIENT;
	return SRV_XCLIENT;
}

enum server_action server_xclient_command(struct smtp_server *s, struct span arg)
{
	struct smtp_xclient *x;
	struct reply r = { 0 };
	struct span word;

	if (!s->xclient_allowed)
		return ask_host(s, NULL);
	if (server_in_transaction(s))
		return ERROR(s, 503, "5.5.1", "XCLIENT is not possible within a transaction");
	x = pool_alloc(&s->pool, sizeof(*x));
	if (!x)
		return server_out_of_room(s);
	*x = (struct smtp_xclient){ 0 };
	while (arg.n) {
		word = span_cut(&arg, ' ');
		if (word.n && !take_attribute(s, x, word, &r))
			break;
	}
	if (!r.code && !x->has)
		reply_set(&r, 501, "5.5.4", "Syntax: XCLIENT attribute=value ...");
	if (!r.code)
		return ask_host(s, x);
	server_transaction_reset(s);
	return server_error(s, &r);
}

void smtp_server_xclient_ok(struct smtp_server *s)
{
	struct smtp_xclient x = *s->xclient;
	char helo_buf[sizeof(s->helo_buf)], login_buf[sizeof(s->auth_user_buf)];
	struct out helo = out_of(helo_buf, sizeof(helo_buf)), login = out_of(login_buf, sizeof(login_buf));

	CHECK(s->state.waiting == FOR_XCLIENT);
	out_add(&helo, x.helo);
	out_add(&login, x.login);
	server_auth_forget(s);
	server_transaction_reset(s); /* x's spans were in the pool */
	memcpy(s->helo_buf, helo_buf, helo.n);
	s->helo = helo.n ? span_of(s->helo_buf, helo.n) : SPAN_NONE;
	memcpy(s->auth_user_buf, login_buf, login.n);
	s->auth_user = login.n ? span_of(s->auth_user_buf, login.n) : SPAN_NONE;
	s->esmtp = x.esmtp;
	s->xclient = NULL;
	s->state.commands = 0;
	server_greeting(s);
}
