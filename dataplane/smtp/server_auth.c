#include "dataplane/smtp/server_auth.h"

#include "spool/base/base64.h"

#define ERROR(s, code, enhanced, ...)                                                                                              \
	({                                                                                                                         \
		struct reply error_reply;                                                                                          \
		reply_set(&error_reply, code, enhanced, __VA_ARGS__);                                                              \
		server_error(s, &error_reply);                                                                                     \
	})

void server_auth_end(struct smtp_server *s)
{
	if (!s->sasl)
		return;
	sasl_wipe(s->sasl);
	s->sasl = NULL;
	pool_reset(&s->pool); /* AUTH is never within a transaction: nothing else is in the pool */
	wire_forget(&s->wire);
	server_auth_wait(s, AUTH_WAITS_NOTHING);
}

void server_auth_forget(struct smtp_server *s)
{
	server_auth_end(s);
	explicit_bzero(s->auth_user_buf, sizeof(s->auth_user_buf));
	s->auth_user = SPAN_NONE;
}

static void say_challenge(struct smtp_server *s, struct span text)
{
	struct out *o = &s->state.out;

	out_str(o, "334 ");
	base64_encode(text, o);
	out_str(o, "\r\n");
	server_auth_wait(s, AUTH_WAITS_LINE);
}

/* The exchange ends with an error of the client's. The host may have begun something for it: SRV_RESET tells it. */
static enum server_action broken_off(struct smtp_server *s, unsigned code, const char *enhanced, const char *text)
{
	enum server_action act;

	server_auth_end(s);
	act = ERROR(s, code, enhanced, "%s", text);
	return act == SRV_STEP ? SRV_RESET : act;
}

static enum server_action act_on(struct smtp_server *s, enum sasl_action act)
{
	switch (act) {
	case SASL_CHALLENGE:
		say_challenge(s, s->sasl->challenge);
		return SRV_STEP;
	case SASL_MALFORMED:
		return broken_off(s, 501, "5.5.2", "That is not a message of this mechanism");
	case SASL_PASSWORD:
	case SASL_VERIFIER:
	case SASL_RELAY:
	case SASL_DONE:
	case SASL_REFUSED:
		break;
	}
	s->auth_ask = act;
	server_auth_wait(s, AUTH_WAITS_HOST);
	return SRV_AUTH;
}

/* One message of the client in base64; given: whether there is one at all. */
static enum server_action take_message(struct smtp_server *s, struct span text, bool given)
{
	char raw[WIRE_LINE_MAX];
	struct out o = out_of(raw, sizeof(raw));
	enum server_action act;

	if (base64_decode(text, &o) != ST_OK)
		act = broken_off(s, 501, "5.5.2", "That is not base64");
	else if (o.n > SASL_MESSAGE_MAX)
		act = broken_off(s, 500, "5.5.6", "The response is too long");
	else
		act = act_on(s, sasl_step(s->sasl, given ? out_span(&o) : SPAN_NONE));
	explicit_bzero(raw, sizeof(raw));
	return act;
}

/* What stands in the way of any AUTH command; false when nothing does. */
static bool is_out_of_order(const struct smtp_server *s, struct reply *r)
{
	if (!s->cfg->auth)
		reply_set(r, 502, "5.5.1", "AUTH is not offered");
	else if (!s->helo.n || !s->esmtp)
		reply_set(r, 503, "5.5.1", "Say EHLO first");
	else if (server_in_transaction(s))
		reply_set(r, 503, "5.5.1", "AUTH is not possible within a transaction");
	else if (s->auth_user.n)
		reply_set(r, 503, "5.5.1", "You are authenticated already");
	else if (!s->tls)
		reply_set(r, 538, "5.7.11", "AUTH is possible only under TLS: say STARTTLS first");
	else
		return false;
	return true;
}

enum server_action server_auth_command(struct smtp_server *s, struct span arg)
{
	struct span rest = span_trim(arg), name = span_cut(&rest, ' '), first = span_trim(rest);
	unsigned mech = sasl_mech_find(name);
	struct reply r;

	if (is_out_of_order(s, &r))
		return server_error(s, &r);
	if (!name.n)
		return ERROR(s, 501, "5.5.4", "Syntax: AUTH mechanism [initial-response]");
	if (!mech)
		return ERROR(s, 504, "5.5.4", "Unknown authentication mechanism");
	if (!(s->auth_mechs & mech))
		return ERROR(s, 534, "5.7.9", "This authentication mechanism is not allowed here");
	s->sasl = pool_alloc(&s->pool, sizeof(*s->sasl));
	if (!s->sasl) {
		reply_set(&r, 454, "4.7.0", "Out of memory, try again later");
		reply_write(&r, &s->state.out);
		return SRV_STEP;
	}
	sasl_init(s->sasl, (enum sasl_mech)mech);
	/* "=" is an initial response of no octets (RFC 4954 section 4); without one, the first challenge may be empty */
	if (span_eq(first, SPAN("=")))
		return take_message(s, SPAN(""), true);
	return take_message(s, first, first.n > 0);
}

enum server_action server_auth_line(struct smtp_server *s, struct span line)
{
	if (span_eq(line, SPAN("*")))
		return broken_off(s, 501, "5.7.0", "Authentication was cancelled");
	return take_message(s, line, true);
}

enum server_action server_auth_line_long(struct smtp_server *s)
{
	return broken_off(s, 500, "5.5.6", "The line is too long for an authentication exchange");
}

/* ---- the host's answers ---- */

void smtp_server_auth_ok(struct smtp_server *s, struct span user)
{
	struct out o = out_of(s->auth_user_buf, sizeof(s->auth_user_buf));
	struct reply r;

	CHECK(s->sasl && user.n);
	out_add(&o, user);
	CHECK(!o.over);
	s->auth_user = out_span(&o);
	server_auth_end(s);
	reply_set(&r, 235, "2.7.0", "Authentication succeeded");
	reply_write(&r, &s->state.out);
}

void smtp_server_auth_verifier(struct smtp_server *s, const struct scram_verifier *v, bool decoy, struct span nonce)
{
	CHECK(s->sasl && s->auth_ask == SASL_VERIFIER);
	sasl_verifier(s->sasl, v, decoy, nonce);
	say_challenge(s, s->sasl->challenge);
}

bool smtp_server_auth_relay(struct smtp_server *s, struct span challenge)
{
	CHECK(s->sasl && (s->auth_ask == SASL_VERIFIER || s->auth_ask == SASL_RELAY));
	if (sasl_relay(s->sasl, challenge) != SASL_CHALLENGE)
		return false;
	say_challenge(s, s->sasl->challenge);
	return true;
}
