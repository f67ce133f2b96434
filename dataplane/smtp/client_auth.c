/* AUTH (RFC 4954): the client tells a next hop who it is, right after the EHLO under TLS and before any mail.
 *
 * The best mechanism that is offered is tried; a server that does not take it after all (504, 534) is asked for the next. A login that fails ends the session: mail waits,
 * it is not returned, because what is wrong is between this relay and its next hop. */
#include "dataplane/smtp/client_internal.h"
#include "spool/base/base64.h"

enum { LINE_MAX = 512 /* RFC 5321 4.5.3.1.4: of a command, CRLF included */ };

static enum client_action auth_fail(struct smtp_client *c, enum client_auth_fault fault, const char *text)
{
	c->auth_fault = fault;
	return client_fail_text(c, "4.7.0", text);
}

/* A response as base64. False: the exchange is broken, and the session over. */
static bool respond(struct smtp_client *c, struct span challenge)
{
	char raw[SASL_RESPONSE_MAX];
	struct out o = out_of(raw, sizeof(raw));
	const char *why = sasl_client_step(&c->state.sasl, challenge, &o);

	if (why || o.over) {
		auth_fail(c, AUTH_FAULT_BROKEN, why ? why : "its challenge is too long");
		return false;
	}
	base64_encode(out_span(&o), &c->state.out);
	explicit_bzero(raw, sizeof(raw));
	return true;
}

/* AUTH, with the first response in the same line where that is short enough. */
static enum client_action say_auth(struct smtp_client *c)
{
	struct out *o = &c->state.out;
	unsigned mech = sasl_client_best(c->state.mechs_left);
	size_t word, begin = o->n;

	if (!mech)
		return auth_fail(c, AUTH_FAULT_NOT_OFFERED, "it offers none of SCRAM-SHA-256, PLAIN and LOGIN");
	c->state.mechs_left &= ~mech;
	c->state.phase = PHASE_AUTH;
	sasl_client_init(&c->state.sasl, (enum sasl_mech)mech, c->cfg->login);
	out_str(o, "AUTH ");
	out_str(o, sasl_mech_name((enum sasl_mech)mech));
	word = o->n;
	if (sasl_client_begins(&c->state.sasl)) {
		out_char(o, ' ');
		if (!respond(c, SPAN_NONE))
			return CLI_CLOSE;
	}
	if (o->n - begin + 2 > LINE_MAX) {
		explicit_bzero(o->p + word, o->n - word);
		o->n = word;
		sasl_client_init(&c->state.sasl, (enum sasl_mech)mech, c->cfg->login);
	}
	out_str(o, "\r\n");
	return CLI_MORE;
}

enum client_action auth_begin(struct smtp_client *c)
{
	if (!c->tls)
		return auth_fail(c, AUTH_FAULT_NOT_OFFERED, "a login is only for TLS, which is off");
	if (!c->cfg->login->password.n)
		return auth_fail(c, AUTH_FAULT_NOT_OFFERED, "our password is not known here yet");
	c->state.mechs_left = c->ehlo.mechs;
	return say_auth(c);
}

/* The text of a refusal for people. Only that of the codes for AUTH: a server that took our words for a command may have them in its complaint. */
static enum client_action refused(struct smtp_client *c, const struct reply *r)
{
	static const uint16_t known[] = { 432, 454, 534, 535, 538 };
	struct reply why;
	bool ours = false;

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		ours = ours || r->code == known[i];
	reply_set(&why, 451, "4.7.0", "%u %.*s", r->code, ours ? (int)reply_text(r).n : 0, reply_text(r).p);
	c->auth_fault = AUTH_FAULT_REFUSED;
	return client_fail(c, &why);
}

static enum client_action on_challenge(struct smtp_client *c, struct span line)
{
	char raw[SASL_MESSAGE_MAX + 1];
	struct out o = out_of(raw, sizeof(raw));

	if (base64_decode(span_trim(span_skip(line, 4)), &o) != ST_OK || o.over)
		return auth_fail(c, AUTH_FAULT_BROKEN, "its challenge is too long, or not base64");
	if (!respond(c, out_span(&o)))
		return CLI_CLOSE;
	out_str(&c->state.out, "\r\n");
	return CLI_MORE;
}

enum client_action auth_reply(struct smtp_client *c, const struct reply *r, struct span line)
{
	if (r->code == 334)
		return on_challenge(c, line);
	if ((r->code == 504 || r->code == 534) && sasl_client_best(c->state.mechs_left))
		return say_auth(c);
	if (r->code != 235)
		return refused(c, r);
	if (!sasl_client_complete(&c->state.sasl))
		return auth_fail(c, AUTH_FAULT_BROKEN, "it ends the exchange before its time, and has not shown that it knows the password");
	c->logged_in = true;
	c->state.phase = PHASE_READY;
	return CLI_MORE;
}
