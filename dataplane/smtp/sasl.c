#include "dataplane/smtp/sasl.h"

#include "spool/base/base64.h"

enum { PHASE_FIRST, PHASE_LOGIN_USER, PHASE_LOGIN_PASSWORD, PHASE_SCRAM_WAIT, PHASE_SCRAM_FINAL, PHASE_SCRAM_CONFIRM, PHASE_RELAY, PHASE_END };

static const struct {
	const char *name;
	enum sasl_mech mech;
} mech_table[] = {
	{ "PLAIN", SASL_PLAIN },
	{ "LOGIN", SASL_LOGIN },
	{ "SCRAM-SHA-256", SASL_SCRAM_SHA_256 },
};

enum { NMECH = sizeof(mech_table) / sizeof(mech_table[0]) };

unsigned sasl_mech_find(struct span name)
{
	for (size_t i = 0; i < NMECH; i++)
		if (span_eq_nocase(name, span_str(mech_table[i].name)))
			return mech_table[i].mech;
	return 0;
}

const char *sasl_mech_name(enum sasl_mech mech)
{
	for (size_t i = 0; i < NMECH; i++)
		if (mech_table[i].mech == mech)
			return mech_table[i].name;
	return "";
}

void sasl_init(struct sasl *a, enum sasl_mech mech)
{
	memset(a, 0, sizeof(*a));
	a->mech = mech;
	a->state.first = out_of(a->state.first_buf, sizeof(a->state.first_buf));
	a->state.server_first = out_of(a->state.server_first_buf, sizeof(a->state.server_first_buf));
}

void sasl_wipe(struct sasl *a)
{
	explicit_bzero(a, sizeof(*a));
}

static enum sasl_action end_with(struct sasl *a, enum sasl_action act)
{
	a->state.phase = PHASE_END;
	return act;
}

static enum sasl_action challenge(struct sasl *a, struct span text, unsigned next)
{
	a->challenge = text;
	a->state.phase = (uint8_t)next;
	return SASL_CHALLENGE;
}

static bool has_nul(struct span s)
{
	return s.n && memchr(s.p, '\0', s.n);
}

static void set_user(struct sasl *a, struct span name)
{
	struct out o = out_of(a->state.user_buf, sizeof(a->state.user_buf));

	out_add(&o, name);
	a->user = out_span(&o);
}

/* A name and a password are known. What no user can have is refused here: it tells the client nothing that it did not know. */
static enum sasl_action ask_password(struct sasl *a, struct span password)
{
	a->password = password;
	if (!passline_user_ok(a->user) || !password.n || password.n > PASSLINE_PASSWORD_MAX)
		return end_with(a, SASL_REFUSED);
	return end_with(a, SASL_PASSWORD);
}

/* ---- PLAIN ---- */

static enum sasl_action plain(struct sasl *a, struct span m)
{
	struct span rest = m, authzid, authcid;

	if (!m.p)
		return challenge(a, SPAN(""), PHASE_FIRST);
	authzid = span_cut(&rest, '\0');
	if (!rest.p)
		return end_with(a, SASL_MALFORMED);
	authcid = span_cut(&rest, '\0');
	if (!rest.p || has_nul(rest) || !authcid.n)
		return end_with(a, SASL_MALFORMED);
	set_user(a, authcid);
	if (authzid.n && !span_eq(authzid, authcid))
		return end_with(a, SASL_REFUSED);
	return ask_password(a, rest);
}

/* ---- LOGIN (draft-murchison-sasl-login) ---- */

static enum sasl_action login_user(struct sasl *a, struct span m)
{
	if (!m.p)
		return challenge(a, SPAN("Username:"), PHASE_LOGIN_USER);
	if (has_nul(m))
		return end_with(a, SASL_MALFORMED);
	set_user(a, m);
	return challenge(a, SPAN("Password:"), PHASE_LOGIN_PASSWORD);
}

static enum sasl_action login_password(struct sasl *a, struct span m)
{
	if (has_nul(m))
		return end_with(a, SASL_MALFORMED);
	return ask_password(a, m);
}

/* ---- SCRAM-SHA-256 ---- */

/* The value of the attribute that comes next ("r=..."), up to the comma; p NULL when it is another one. */
static struct span take_attribute(struct span *rest, char name)
{
	struct span s;

	if (rest->n < 2 || rest->p[0] != name || rest->p[1] != '=')
		return SPAN_NONE;
	s = span_cut(rest, ',');
	return span_skip(s, 2);
}

/* A saslname: "," is =2C and "=" is =3D. */
static bool decode_name(struct span s, struct out *o)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] != '=') {
			out_char(o, s.p[i]);
			continue;
		}
		if (s.n - i < 3 || (memcmp(s.p + i, "=2C", 3) != 0 && memcmp(s.p + i, "=3D", 3) != 0))
			return false;
		out_char(o, s.p[i + 1] == '2' ? ',' : '=');
		i += 2;
	}
	return !o->over;
}

static bool is_nonce(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < 0x21 || s.p[i] > 0x7e || s.p[i] == ',')
			return false;
	return s.n > 0 && s.n <= SASL_NONCE_MAX;
}

/* The gs2 header: "n" and "y" say that no channel is bound; "p=" wants what was not offered. */
static bool take_gs2_header(struct sasl *a, struct span *rest)
{
	struct span flag = span_cut(rest, ','), id;
	char buf[SASL_MESSAGE_MAX];
	struct out o = out_of(buf, sizeof(buf));

	if (!rest->p || (!span_eq(flag, SPAN("n")) && !span_eq(flag, SPAN("y"))))
		return false;
	id = span_cut(rest, ',');
	if (!rest->p)
		return false;
	if (!id.n)
		return true;
	if (id.n < 3 || id.p[0] != 'a' || id.p[1] != '=' || !decode_name(span_skip(id, 2), &o))
		return false;
	set_user(a, out_span(&o)); /* compared with the user's name below */
	a->state.other_identity = true;
	return true;
}

static bool scram_read_first(struct sasl *a)
{
	struct span m = out_span(&a->state.first), rest = m, name, id;
	char buf[PASSLINE_USER_MAX + 1], id_buf[PASSLINE_USER_MAX + 1];
	struct out user = out_of(buf, sizeof(buf)), other = out_of(id_buf, sizeof(id_buf));

	if (a->state.first.over || has_nul(m) || !take_gs2_header(a, &rest))
		return false;
	id = a->user;
	out_add(&other, id);
	a->state.bare = (size_t)(rest.p - m.p);
	name = take_attribute(&rest, 'n'); /* "m=" here is an extension that must be understood: refused by not being n= */
	a->state.client_nonce = take_attribute(&rest, 'r');
	if (!name.n || !decode_name(name, &user) || !is_nonce(a->state.client_nonce))
		return false;
	set_user(a, out_span(&user));
	a->state.other_identity = a->state.other_identity && !span_eq(out_span(&other), a->user);
	return true;
}

static enum sasl_action scram_first(struct sasl *a, struct span m)
{
	if (!m.p)
		return challenge(a, SPAN(""), PHASE_FIRST);
	out_add(&a->state.first, m);
	if (!scram_read_first(a))
		return end_with(a, SASL_MALFORMED);
	if (a->state.other_identity || !passline_user_ok(a->user))
		return end_with(a, SASL_REFUSED);
	a->message = out_span(&a->state.first);
	a->state.phase = PHASE_SCRAM_WAIT;
	return SASL_VERIFIER;
}

enum sasl_action sasl_verifier(struct sasl *a, const struct scram_verifier *v, bool decoy, struct span nonce)
{
	struct out *o = &a->state.server_first;

	CHECK(a->state.phase == PHASE_SCRAM_WAIT && is_nonce(nonce));
	a->state.verifier = *v;
	a->state.decoy = decoy;
	out_str(o, "r=");
	out_add(o, a->state.client_nonce);
	out_add(o, nonce);
	a->state.nonce_len = o->n - 2;
	out_str(o, ",s=");
	base64_encode(span_of(v->salt, v->salt_len), o);
	out_str(o, ",i=");
	out_u64(o, v->iterations);
	CHECK(!o->over);
	return challenge(a, out_span(o), PHASE_SCRAM_FINAL);
}

/* client-final-message: c=, the gs2 header again; r=, the nonce of both; p=, the proof, which is last. */
static bool scram_read_final(struct sasl *a, struct span m, struct span *ret_unproved, uint8_t ret_proof[SCRAM_KEY])
{
	char buf[BASE64_LEN(SASL_MESSAGE_MAX)], raw[SCRAM_KEY + 3];
	struct out binding = out_of(buf, sizeof(buf)), proof = out_of(raw, sizeof(raw));
	struct span rest = m, c, r, last = m;
	size_t at = m.n;

	while (at > 0 && m.p[at - 1] != ',')
		at--;
	last = span_skip(m, at);
	c = take_attribute(&rest, 'c');
	r = take_attribute(&rest, 'r');
	base64_encode(span_of(a->state.first_buf, a->state.bare), &binding);
	if (!c.p || !r.p || !rest.p || !span_eq(c, out_span(&binding)))
		return false;
	if (!span_eq(r, span_of(a->state.server_first_buf + 2, a->state.nonce_len)))
		return false;
	if (last.n < 2 || last.p[0] != 'p' || last.p[1] != '=' || base64_decode(span_skip(last, 2), &proof) != ST_OK || proof.n != SCRAM_KEY)
		return false;
	memcpy(ret_proof, raw, SCRAM_KEY);
	*ret_unproved = span_of(m.p, at - 1);
	return true;
}

static enum sasl_action scram_final(struct sasl *a, struct span m)
{
	char text[SASL_MESSAGE_MAX * 2 + SASL_CHALLENGE_MAX + 2];
	struct out auth = out_of(text, sizeof(text)), o = out_of(a->state.out, sizeof(a->state.out));
	uint8_t proof[SCRAM_KEY], signature[SCRAM_KEY];
	struct span unproved;

	if (!scram_read_final(a, m, &unproved, proof))
		return end_with(a, SASL_MALFORMED);
	out_add(&auth, span_skip(out_span(&a->state.first), a->state.bare));
	out_char(&auth, ',');
	out_add(&auth, out_span(&a->state.server_first));
	out_char(&auth, ',');
	out_add(&auth, unproved);
	/* a decoy's proof is looked at all the same */
	if (!scram_proof_ok(&a->state.verifier, out_span(&auth), proof) || a->state.decoy)
		return end_with(a, SASL_REFUSED);
	scram_server_signature(&a->state.verifier, out_span(&auth), signature);
	out_str(&o, "v=");
	base64_encode(span_of(signature, sizeof(signature)), &o);
	return challenge(a, out_span(&o), PHASE_SCRAM_CONFIRM);
}

/* ---- all ---- */

enum sasl_action sasl_relay(struct sasl *a, struct span text)
{
	struct out o = out_of(a->state.out, sizeof(a->state.out));

	out_add(&o, text);
	if (o.over)
		return end_with(a, SASL_MALFORMED);
	return challenge(a, out_span(&o), PHASE_RELAY);
}

static enum sasl_action first(struct sasl *a, struct span m)
{
	switch (a->mech) {
	case SASL_PLAIN:
		return plain(a, m);
	case SASL_LOGIN:
		return login_user(a, m);
	case SASL_SCRAM_SHA_256:
		return scram_first(a, m);
	case SASL_ALL:
		break;
	}
	return end_with(a, SASL_MALFORMED);
}

enum sasl_action sasl_step(struct sasl *a, struct span message)
{
	struct out in = out_of(a->state.in, sizeof(a->state.in));
	struct span m;

	out_add(&in, message);
	m = message.p ? out_span(&in) : SPAN_NONE;
	if (in.over)
		return end_with(a, SASL_MALFORMED);
	switch (a->state.phase) {
	case PHASE_FIRST:
		return first(a, m);
	case PHASE_LOGIN_USER:
		return login_user(a, m);
	case PHASE_LOGIN_PASSWORD:
		return login_password(a, m);
	case PHASE_SCRAM_FINAL:
		return scram_final(a, m);
	case PHASE_SCRAM_CONFIRM:
		return end_with(a, m.n ? SASL_MALFORMED : SASL_DONE);
	case PHASE_RELAY:
		a->message = m;
		return SASL_RELAY;
	default:
		return end_with(a, SASL_MALFORMED);
	}
}
