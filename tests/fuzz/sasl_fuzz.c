/* Properties of AUTH, whatever a client sends:
 * - base64 that is accepted is what base64_encode writes;
 * - a machine that asks for a password or a verifier names a user who can exist, and no one but the client itself; with a stand-in nobody is ever
 *   authenticated; after its end a machine does nothing more;
 * - an honest SCRAM client is understood whatever its name and nonce are, and a wrong proof never is;
 * - a session whose host agrees to nothing never gets to MAIL, however its input is split, and says the same;
 * - a line of the password file that is accepted is written and read as the same. */
#include <stdlib.h>
#include "dataplane/smtp/server.h"
#include "spool/base/base64.h"

#define NONCE "abcdefghijklmnopqrstuvwx"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_base64(struct span in)
{
	char raw[4096], text[BASE64_LEN(sizeof(raw))];
	struct out o = out_of(raw, sizeof(raw)), back = out_of(text, sizeof(text));

	if (in.n > sizeof(raw) || base64_decode(in, &o) != ST_OK)
		return;
	base64_encode(out_span(&o), &back);
	CHECK(span_eq(out_span(&back), in));
}

static void check_asked(const struct sasl *a)
{
	CHECK(passline_user_ok(a->user) && a->user.n <= PASSLINE_USER_MAX);
	if (a->mech != SASL_SCRAM_SHA_256)
		CHECK(a->password.n && a->password.n <= PASSLINE_PASSWORD_MAX && !memchr(a->password.p, '\0', a->password.n));
}

static struct scram_verifier verifier_of(struct span password)
{
	struct scram_verifier v = { .iterations = 1, .salt_len = 4, .salt = { 1, 2, 3, 4 } };

	scram_derive(password, &v);
	return v;
}

/* Messages are separated by line feeds. */
static void check_machine(enum sasl_mech mech, struct span rest)
{
	struct scram_verifier v = verifier_of(SPAN("pencil"));
	struct sasl *a = malloc(sizeof(*a));
	enum sasl_action act = SASL_CHALLENGE;

	CHECK(a);
	sasl_init(a, mech);
	while (act == SASL_CHALLENGE && rest.p) {
		act = sasl_step(a, span_cut(&rest, '\n'));
		CHECK(act != SASL_CHALLENGE || a->challenge.n <= SASL_CHALLENGE_MAX);
		if (act == SASL_PASSWORD)
			check_asked(a);
		if (act == SASL_VERIFIER) {
			check_asked(a);
			act = sasl_verifier(a, &v, true, SPAN(NONCE));
			CHECK(act == SASL_CHALLENGE && memmem(a->challenge.p, a->challenge.n, NONCE, sizeof(NONCE) - 1));
		}
		CHECK(act != SASL_DONE && act != SASL_RELAY);
	}
	if (act != SASL_CHALLENGE)
		CHECK(sasl_step(a, SPAN("more")) == SASL_MALFORMED);
	sasl_wipe(a);
	free(a);
}

/* An honest client's proof for what was said, or one with a bit changed. */
static void write_final(const struct scram_verifier *v, struct span bare, struct span challenge, bool honest, struct out *o)
{
	char text[4096];
	struct out auth = out_of(text, sizeof(text));
	struct span rest = challenge, nonce = span_cut(&rest, ',');
	uint8_t salted[SCRAM_KEY], client_key[SCRAM_KEY], signature[SCRAM_KEY];

	out_str(o, "c=biws,");
	out_add(o, nonce);
	out_add(&auth, bare);
	out_char(&auth, ',');
	out_add(&auth, challenge);
	out_char(&auth, ',');
	out_add(&auth, out_span(o));
	/* with one iteration the salted password is one HMAC of salt and INT(1) */
	scram_hmac((const uint8_t[SCRAM_KEY]){ 'p', 'e', 'n', 'c', 'i', 'l' }, SPAN("\1\2\3\4\0\0\0\1"), salted);
	scram_hmac(salted, SPAN("Client Key"), client_key);
	scram_hmac(v->stored_key, out_span(&auth), signature);
	for (size_t i = 0; i < SCRAM_KEY; i++)
		client_key[i] ^= signature[i];
	client_key[7] ^= honest ? 0 : 1;
	out_str(o, ",p=");
	base64_encode(span_of(client_key, SCRAM_KEY), o);
}

static void check_honest_client(struct span name, bool honest)
{
	struct scram_verifier v = verifier_of(SPAN("pencil"));
	char first[2048], final[2048];
	struct out o = out_of(first, sizeof(first)), f = out_of(final, sizeof(final));
	struct sasl *a;

	if (!passline_user_ok(name))
		return;
	out_str(&o, "n,,n=");
	for (size_t i = 0; i < name.n; i++) {
		if (name.p[i] == ',' || name.p[i] == '=')
			out_str(&o, name.p[i] == ',' ? "=2C" : "=3D");
		else
			out_char(&o, name.p[i]);
	}
	out_str(&o, ",r=fyko+d2lbbFgONRv9qkxdawL");
	a = malloc(sizeof(*a));
	CHECK(a);
	sasl_init(a, SASL_SCRAM_SHA_256);
	CHECK(sasl_step(a, out_span(&o)) == SASL_VERIFIER && span_eq(a->user, name));
	CHECK(sasl_verifier(a, &v, false, SPAN(NONCE)) == SASL_CHALLENGE);
	write_final(&v, span_skip(out_span(&o), 3), a->challenge, honest, &f);
	CHECK(sasl_step(a, out_span(&f)) == (honest ? SASL_CHALLENGE : SASL_REFUSED));
	if (honest)
		CHECK(sasl_step(a, SPAN("")) == SASL_DONE && span_eq(a->user, name));
	sasl_wipe(a);
	free(a);
}

/* Gives the input to a session in pieces of `cut`; the host says no to everything. */
static void run_session(struct span in, size_t cut, struct out *said)
{
	static const struct smtp_server_config cfg = { .hostname = { "relay.test", 10 }, .auth = true, .errors_max = 50 };
	struct smtp_server *s = malloc(sizeof(*s));
	struct reply no;
	enum server_action act = SRV_MORE;

	CHECK(s);
	smtp_server_init(s, &cfg);
	smtp_server_tls_started(s);
	s->auth_mechs = SASL_ALL;
	reply_set(&no, 535, "5.7.8", "no");
	while (act != SRV_CLOSE) {
		struct span piece = span_of(in.p, in.n < cut ? in.n : cut), o;
		size_t used;

		act = smtp_server_step(s, piece, &used);
		CHECK(used <= piece.n);
		in = span_skip(in, used);
		if (act == SRV_AUTH)
			smtp_server_reply(s, &no);
		CHECK(act != SRV_MAIL && act != SRV_RCPT && act != SRV_DATA && act != SRV_STARTTLS && !s->auth_user.n);
		o = smtp_server_output(s);
		out_add(said, o);
		smtp_server_sent(s, o.n);
		if (act == SRV_MORE && !in.n && !o.n)
			break;
	}
	smtp_server_done(s);
	free(s);
}

static void check_session(struct span in)
{
	static char a[1 << 20], b[1 << 20];
	struct out whole = out_of(a, sizeof(a)), split = out_of(b, sizeof(b));

	run_session(in, in.n + 1, &whole);
	for (size_t cut = 1; cut < 6; cut++) {
		split.n = 0;
		run_session(in, cut, &split);
		CHECK(span_eq(out_span(&whole), out_span(&split)));
	}
}

static void check_passline(struct span line)
{
	struct passline l;
	struct scram_verifier back;
	char text[512];
	struct out o = out_of(text, sizeof(text));

	if (passline_parse(line, &l) != ST_OK)
		return;
	CHECK(passline_user_ok(l.user) && l.hash.n <= PASSLINE_HASH_MAX && (l.hash.n || l.has_scram || l.locked));
	if (!l.has_scram)
		return;
	scram_write(&l.scram, &o);
	CHECK(!o.over && scram_parse(out_span(&o), &back) == ST_OK && memcmp(&back, &l.scram, sizeof(back)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const enum sasl_mech mech[] = { SASL_PLAIN, SASL_LOGIN, SASL_SCRAM_SHA_256 };
	struct span in = span_of(data + 1, n ? n - 1 : 0);

	if (!n || n > 1 << 16)
		return 0;
	check_base64(in);
	check_machine(mech[data[0] % 3], in);
	check_honest_client(in, data[0] & 1);
	check_session(in);
	check_passline(in);
	return 0;
}
