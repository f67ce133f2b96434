#include "dataplane/smtp/sasl_client.h"

#include "spool/base/base64.h"

enum { PHASE_FIRST, PHASE_SECOND, PHASE_SIGNATURE, PHASE_COMPLETE, PHASE_FAILED };

unsigned sasl_client_best(unsigned mechs)
{
	static const unsigned order[] = { SASL_SCRAM_SHA_256, SASL_PLAIN, SASL_LOGIN };

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		if (mechs & order[i])
			return order[i];
	return 0;
}

void sasl_client_init(struct sasl_client *a, enum sasl_mech mech, const struct sasl_login *login)
{
	*a = (struct sasl_client){ .mech = mech, .login = login };
}

bool sasl_client_begins(const struct sasl_client *a)
{
	return a->mech != SASL_LOGIN;
}

bool sasl_client_complete(const struct sasl_client *a)
{
	return a->phase == PHASE_COMPLETE;
}

static const char *failed(struct sasl_client *a, const char *why)
{
	a->phase = PHASE_FAILED;
	return why;
}

static const char *next(struct sasl_client *a, unsigned phase)
{
	a->phase = (uint8_t)phase;
	return NULL;
}

/* ---- PLAIN and LOGIN ---- */

static const char *plain(struct sasl_client *a, struct out *o)
{
	out_char(o, '\0');
	out_add(o, a->login->user);
	out_char(o, '\0');
	out_add(o, a->login->password);
	return next(a, PHASE_COMPLETE);
}

/* What the challenges say differs from server to server: first the name, then the password. */
static const char *login_word(struct sasl_client *a, struct out *o)
{
	bool user = a->phase == PHASE_FIRST;

	out_add(o, user ? a->login->user : a->login->password);
	return next(a, user ? PHASE_SECOND : PHASE_COMPLETE);
}

/* ---- SCRAM-SHA-256 ---- */

/* client-first-message-bare; in a saslname "," is =2C and "=" is =3D. */
static void scram_bare(const struct sasl_client *a, struct out *o)
{
	struct span user = a->login->user;

	out_str(o, "n=");
	for (size_t i = 0; i < user.n; i++) {
		if (user.p[i] == ',')
			out_str(o, "=2C");
		else if (user.p[i] == '=')
			out_str(o, "=3D");
		else
			out_char(o, user.p[i]);
	}
	out_str(o, ",r=");
	out_add(o, a->login->nonce);
}

static const char *scram_first(struct sasl_client *a, struct out *o)
{
	out_str(o, "n,,"); /* no channel is bound */
	scram_bare(a, o);
	return next(a, PHASE_SECOND);
}

/* The value of the attribute that comes next; p NULL when it is another one. */
static struct span take(struct span *rest, char name)
{
	if (rest->n < 2 || rest->p[0] != name || rest->p[1] != '=')
		return SPAN_NONE;
	return span_skip(span_cut(rest, ','), 2);
}

/* The server's nonce begins with ours and adds to it: else somebody plays an old exchange again. */
static bool is_continued(struct span nonce, struct span ours)
{
	if (nonce.n <= ours.n || nonce.n > SASL_NONCE_MAX || memcmp(nonce.p, ours.p, ours.n) != 0)
		return false;
	for (size_t i = 0; i < nonce.n; i++)
		if (nonce.p[i] < 0x21 || nonce.p[i] > 0x7e)
			return false;
	return true;
}

/* server-first-message: r=, s=, i=. "m=" in front is an extension that must be understood: refused by not being r=. */
static const char *read_server_first(const struct sasl_client *a, struct span m, struct span *ret_nonce, struct scram_verifier *v)
{
	struct span rest = m, salt, number;
	struct out o = out_of(v->salt, sizeof(v->salt));
	uint64_t iterations;

	*ret_nonce = take(&rest, 'r');
	salt = take(&rest, 's');
	number = take(&rest, 'i');
	if (!ret_nonce->p || !salt.n || base64_decode(salt, &o) != ST_OK || o.over || !span_u64(number, UINT32_MAX, &iterations))
		return "its SCRAM message is malformed";
	if (!is_continued(*ret_nonce, a->login->nonce))
		return "its SCRAM nonce does not continue ours";
	if (iterations < SCRAM_ITERATIONS_MIN || iterations > SASL_CLIENT_ITERATIONS_MAX)
		return "its SCRAM wants fewer than 4096 or more than 100000 iterations";
	v->salt_len = (uint32_t)o.n;
	v->iterations = (uint32_t)iterations;
	return NULL;
}

static void keys_of(const struct sasl_login *l, const struct scram_verifier *v, struct sasl_known *ret)
{
	if (l->known && l->known->iterations == v->iterations && l->known->salt_len == v->salt_len && memcmp(l->known->salt, v->salt, v->salt_len) == 0) {
		*ret = *l->known;
		return;
	}
	*ret = (struct sasl_known){ .iterations = v->iterations, .salt_len = v->salt_len };
	memcpy(ret->salt, v->salt, v->salt_len);
	scram_keys(l->password, v, ret->client_key, ret->server_key);
	if (l->known)
		*l->known = *ret;
}

/* client-final-message, and what the server must say to it. */
static const char *scram_final(struct sasl_client *a, struct span m, struct out *o)
{
	char text[2 * SASL_RESPONSE_MAX + SASL_MESSAGE_MAX];
	struct out auth = out_of(text, sizeof(text));
	struct sasl_known keys;
	uint8_t proof[SCRAM_KEY];
	struct scram_verifier v = { 0 };
	struct span nonce;
	const char *why = read_server_first(a, m, &nonce, &v);

	if (why)
		return failed(a, why);
	out_str(o, "c=biws,r="); /* base64 of "n,," */
	out_add(o, nonce);
	scram_bare(a, &auth);
	out_char(&auth, ',');
	out_add(&auth, m);
	out_char(&auth, ',');
	out_add(&auth, out_span(o));
	if (auth.over)
		return failed(a, "its SCRAM message is too long");
	keys_of(a->login, &v, &keys);
	scram_proof(keys.client_key, out_span(&auth), proof);
	scram_hmac(keys.server_key, out_span(&auth), a->signature);
	explicit_bzero(&keys, sizeof(keys));
	out_str(o, ",p=");
	base64_encode(span_of(proof, sizeof(proof)), o);
	return next(a, PHASE_SIGNATURE);
}

/* server-final-message; our answer is empty. */
static const char *scram_signature(struct sasl_client *a, struct span m)
{
	uint8_t raw[SCRAM_KEY + 3];
	struct out o = out_of(raw, sizeof(raw));
	struct span rest = m, v = take(&rest, 'v');

	if (!v.p || base64_decode(v, &o) != ST_OK || o.over || o.n != SCRAM_KEY || !scram_equal(raw, a->signature, SCRAM_KEY))
		return failed(a, "it has not shown that it knows the password");
	return next(a, PHASE_COMPLETE);
}

/* ---- all ---- */

const char *sasl_client_step(struct sasl_client *a, struct span challenge, struct out *response)
{
	if (challenge.n > SASL_MESSAGE_MAX)
		return failed(a, "its challenge is too long");
	if (a->phase == PHASE_FIRST && sasl_client_begins(a) && challenge.n)
		return failed(a, "it speaks first, which the mechanism does not have");
	switch (a->phase) {
	case PHASE_FIRST:
		return a->mech == SASL_PLAIN ? plain(a, response) : a->mech == SASL_LOGIN ? login_word(a, response) : scram_first(a, response);
	case PHASE_SECOND:
		return a->mech == SASL_LOGIN ? login_word(a, response) : scram_final(a, challenge, response);
	case PHASE_SIGNATURE:
		return scram_signature(a, challenge);
	default:
		return failed(a, "it asks for more than the mechanism has");
	}
}
