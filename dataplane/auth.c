#include "dataplane/auth.h"

#include <sys/random.h>
#include "dataplane/auth_delay.h"
#include "dataplane/inbound.h"
#include "dataplane/session.h"
#include "spool/base/base64.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

static_assert((int)SASL_PLAIN == (int)MECH_PLAIN && (int)SASL_LOGIN == (int)MECH_LOGIN && (int)SASL_SCRAM_SHA_256 == (int)MECH_SCRAM_SHA_256);
static_assert((int)DOVECOT_MESSAGE_MAX >= (int)SASL_MESSAGE_MAX);

enum { KEY_MAX = PASSLINE_USER_MAX + 64, NONCE_BYTES = 18 };

/* ---- whoever knows ---- */

enum status auth_open(struct worker *w)
{
	const struct snap_settings *set = w->cfg->set;
	const char *socket = snap_cstr(&w->cfg->snap, set->auth_dovecot);
	bool submission = false;
	uint32_t n;
	const struct snap_listener *l = snap_listeners(&w->cfg->snap, &n);

	for (uint32_t i = 0; i < n; i++)
		submission = submission || snap_role_is_submission(l[i].role);
	if (!submission)
		return ST_OK;
	if (*socket)
		return dovecot_new(&w->uring, socket, set->auth_timeout_ns, &w->dovecot);
	return passwords_new(&w->uring, snap_cstr(&w->cfg->snap, set->auth_secret), &w->passwords);
}

static void complain(void *ctx, const char *path, unsigned line, const char *text)
{
	(void)ctx;
	if (line)
		log_msg(LOG_LVL_ERROR, "password-file", "%s:%u: %s; the line is left out", path, line, text);
	else
		log_msg(LOG_LVL_ERROR, "password-file", "%s: %s", path, text);
}

void auth_tick(struct worker *w)
{
	struct passwords_state st = { 0 };

	if (w->passwords) {
		passwords_watch(w->passwords, snap_cstr(&w->cfg->snap, w->cfg->set->auth_file), complain, w);
		st = passwords_state(w->passwords);
	}
	counter_set(C_AUTH_USERS, st.users);
	counter_set(C_AUTH_BAD_LINES, st.bad_lines);
	counter_set(C_AUTH_DOWN, (w->passwords && !st.readable) || (w->dovecot && !dovecot_is_up(w->dovecot)));
}

/* Until Dovecot has said what it has, what every set-up of it has. A password that we are told goes to it as PLAIN.
 * SCRAM only where nothing else may be used: Dovecot challenges those who exist and refuses others, seconds later, at their first message (P19). No stand-in is like its challenges:
 * they have the salt and iterations of the user's entry, or a new salt each time when that entry is a password; nothing tells us which. */
static unsigned dovecot_mechs(const struct dovecot *d, unsigned may)
{
	if (may == SASL_SCRAM_SHA_256)
		return dovecot_has(d, "SCRAM-SHA-256") ? SASL_SCRAM_SHA_256 : 0;
	return dovecot_has(d, "PLAIN") || !dovecot_is_known(d) ? SASL_PLAIN | SASL_LOGIN : 0;
}

void auth_offer(struct session *s)
{
	const struct worker *w = s->w;
	unsigned may = snap_mechs(&s->cfg->snap), can = 0;

	/* a user without a verifier cannot use SCRAM, and his mail program might not think of anything else that it could do */
	if (w->passwords)
		can = passwords_state(w->passwords).all_scram || may == SASL_SCRAM_SHA_256 ? SASL_ALL : SASL_PLAIN | SASL_LOGIN;
	else if (w->dovecot)
		can = dovecot_mechs(w->dovecot, may);
	s->smtp.auth_mechs = can & may;
}

/* ---- answers ---- */

static void auth_log(const struct session *s, const char *event, const char *why)
{
	const struct sasl *a = s->smtp.sasl;
	char ip[48];
	struct out o = out_of(ip, sizeof(ip));
	struct logline l;

	ip_write(s->facts.client_ip, &o);
	log_begin(&l, LOG_LVL_INFO, event);
	log_str(&l, "rule", "A9");
	log_span(&l, "client", out_span(&o));
	log_span(&l, "helo", s->smtp.helo);
	log_span(&l, "user", a->user);
	log_str(&l, "mech", sasl_mech_name(a->mech));
	if (why)
		log_str(&l, "reason", why);
	log_emit(&l);
}

static void refuse(struct session *s, unsigned code, const char *enhanced, const char *text)
{
	struct reply r;

	s->waits = WAITS_NOTHING;
	reply_set(&r, code, enhanced, "%s", text);
	smtp_server_reply(&s->smtp, &r);
}

/* Whatever is wrong, it is said in the same words. */
static void say_bad(struct session *s)
{
	refuse(s, 535, "5.7.8", "Authentication credentials are invalid");
}

/* And at the same time. */
static void auth_bad(struct session *s)
{
	counter_add(C_AUTH_FAILED, 1);
	auth_log(s, "auth-failed", NULL);
	if (!auth_delay_wait(s))
		say_bad(s);
}

void auth_timer(struct worker *w, struct timer *t)
{
	struct session *s = container_of(t, struct session, auth_timer);

	(void)w;
	say_bad(s);
	inbound_go_on(s);
}

static void auth_limited(struct session *s, unsigned code, const char *what, const char *text)
{
	counter_add(C_AUTH_LIMITED, 1);
	auth_log(s, "auth-limited", what);
	refuse(s, code, "4.7.0", text);
}

/* ---- limits ---- */

/* An IPv6 host has a whole /64 to choose its address from. */
void auth_client_key(const uint8_t client[16], struct out *o)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	uint8_t ip[16];

	memcpy(ip, client, 16);
	if (memcmp(ip, mapped, sizeof(mapped)) != 0)
		memset(ip + 8, 0, 8);
	out_str(o, "auth-client/");
	ip_write(ip, o);
}

/* In lower case: whether "Bob" is "bob" is for others to know, but he has no more attempts for it. */
void auth_user_key(struct span user, struct out *o)
{
	out_str(o, "auth-user/");
	for (size_t i = 0; i < user.n; i++)
		out_char(o, user.p[i] >= 'A' && user.p[i] <= 'Z' ? (char)(user.p[i] + 'a' - 'A') : user.p[i]);
}

static void client_key(const struct session *s, struct out *o)
{
	auth_client_key(s->facts.client_ip, o);
}

static void user_key(const struct session *s, struct out *o)
{
	auth_user_key(s->smtp.sasl->user, o);
}

typedef void key_fn(const struct session *s, struct out *o);

/* Counts an attempt. True: at once, *ret says whether it is over. */
static bool count(struct session *s, key_fn *key, double limit, rate_fn *fn, struct rate_answer *ret)
{
	char text[KEY_MAX];
	struct out o = out_of(text, sizeof(text));

	*ret = (struct rate_answer){ 0 };
	if (limit <= 0)
		return true;
	key(s, &o);
	if (shared_rate(s->w->shared, out_span(&o), 1, limit, s->cfg->set->auth_period_ns, true, fn, s, ret, &s->auth_query) != ST_AGAIN)
		return true;
	s->waits = WAITS_AUTH;
	return false;
}

static void uncount(struct session *s, key_fn *key, double limit)
{
	char text[KEY_MAX];
	struct out o = out_of(text, sizeof(text));

	key(s, &o);
	if (limit > 0)
		shared_rate_undo(s->w->shared, out_span(&o), 1, s->cfg->set->auth_period_ns);
}

static void uncount_both(struct session *s)
{
	uncount(s, client_key, s->cfg->set->auth_client_limit);
	uncount(s, user_key, s->cfg->set->auth_user_limit);
}

/* Nobody said that the password is wrong: it does not count, else an outage would shut out everybody who tries again. */
static void auth_trouble(struct session *s, const char *why)
{
	counter_add(C_AUTH_TEMPFAIL, 1);
	auth_log(s, "auth-undecided", why);
	uncount_both(s);
	refuse(s, 454, "4.7.0", "Authentication is not possible now, try again later");
}

static void auth_good(struct session *s, struct span user)
{
	uncount_both(s);
	counter_add(C_AUTH_OK, 1);
	auth_log(s, "authenticated", NULL);
	s->waits = WAITS_NOTHING;
	smtp_server_auth_ok(&s->smtp, user);
	s->facts.auth_user = s->smtp.auth_user;
}

/* ---- the password file ---- */

static void on_password(void *ctx, bool good)
{
	struct session *s = ctx;

	s->auth_check = NULL;
	if (good)
		auth_good(s, s->smtp.sasl->user);
	else
		auth_bad(s);
	inbound_go_on(s);
}

static void check_password(struct session *s)
{
	const struct sasl *a = s->smtp.sasl;

	if (passwords_check(s->w->passwords, a->user, a->password, on_password, s, &s->auth_check) != ST_OK) {
		auth_trouble(s, trail_text());
		return;
	}
	counter_add(C_AUTH_CHECKS, 1);
	s->waits = WAITS_AUTH;
}

static void give_verifier(struct session *s)
{
	struct scram_verifier v;
	uint8_t random[NONCE_BYTES];
	char nonce[SASL_SERVER_NONCE];
	struct out o = out_of(nonce, sizeof(nonce));
	bool decoy;

	if (passwords_verifier(s->w->passwords, s->smtp.sasl->user, &v, &decoy) != ST_OK ||
		getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
		auth_trouble(s, trail_text());
		return;
	}
	counter_add(C_AUTH_CHECKS, 1);
	base64_encode(span_of(random, sizeof(random)), &o); /* 18 octets: no padding, and base64 has no comma */
	s->waits = WAITS_NOTHING;
	smtp_server_auth_verifier(&s->smtp, &v, decoy, out_span(&o));
	explicit_bzero(&v, sizeof(v));
}

/* ---- Dovecot ---- */

static void on_challenge(struct session *s, struct span challenge)
{
	s->waits = WAITS_NOTHING;
	if (s->smtp.auth_ask != SASL_PASSWORD && smtp_server_auth_relay(&s->smtp, challenge))
		return;
	dovecot_cancel(s->auth_request);
	s->auth_request = NULL;
	auth_trouble(s, "the challenge cannot be passed on");
}

static void on_dovecot(void *ctx, const struct dovecot_answer *a)
{
	struct session *s = ctx;

	if (a->result != DOVECOT_CHALLENGE)
		s->auth_request = NULL;
	switch (a->result) {
	case DOVECOT_CHALLENGE:
		on_challenge(s, a->challenge);
		break;
	case DOVECOT_OK:
		auth_good(s, a->user);
		break;
	case DOVECOT_NO:
		auth_bad(s);
		break;
	case DOVECOT_TROUBLE:
		auth_trouble(s, "Dovecot could not decide");
		break;
	}
	inbound_go_on(s);
}

static void ask_dovecot(struct session *s)
{
	const struct sasl *a = s->smtp.sasl;
	char text[SASL_MESSAGE_MAX];
	struct out o = out_of(text, sizeof(text));
	struct dovecot_facts f = { .mech = "PLAIN" };

	if (s->smtp.auth_ask == SASL_PASSWORD) {
		out_char(&o, '\0');
		out_add(&o, a->user);
		out_char(&o, '\0');
		out_add(&o, a->password);
	} else {
		f.mech = sasl_mech_name(a->mech);
		out_add(&o, a->message);
	}
	f.initial = out_span(&o);
	memcpy(f.client_ip, s->facts.client_ip, sizeof(f.client_ip));
	f.client_port = s->client_port;
	net_local(s->conn, f.local_ip, &f.local_port);
	if (dovecot_auth(s->w->dovecot, &f, on_dovecot, s, &s->auth_request) == ST_OK) {
		counter_add(C_AUTH_CHECKS, 1);
		s->waits = WAITS_AUTH;
	} else {
		auth_trouble(s, trail_text());
	}
	explicit_bzero(text, sizeof(text));
}

/* The client's next message of an exchange that Dovecot leads. */
static void continue_dovecot(struct session *s)
{
	struct dovecot_request *r = s->auth_request;

	s->auth_request = NULL;
	if (!r || dovecot_continue(r, s->smtp.sasl->message) != ST_OK) {
		auth_trouble(s, r ? trail_text() : "the exchange is over");
		return;
	}
	s->auth_request = r;
	s->waits = WAITS_AUTH;
}

/* ---- one step after the other ---- */

static void ask_backend(struct session *s)
{
	if (s->w->dovecot)
		ask_dovecot(s);
	else if (!s->w->passwords)
		auth_trouble(s, "nobody knows passwords");
	else if (s->smtp.auth_ask == SASL_PASSWORD)
		check_password(s);
	else
		give_verifier(s);
}

static void user_counted(struct session *s, const struct rate_answer *a)
{
	if (!a->over) {
		ask_backend(s);
		return;
	}
	/* a mail program that tries again and again must not shut out the others at its address */
	uncount(s, client_key, s->cfg->set->auth_client_limit);
	auth_limited(s, 454, "user", "Too many failed logins of this user, try again later");
}

static void on_user_counted(void *ctx, const struct rate_answer *a)
{
	struct session *s = ctx;

	s->auth_query = NULL;
	user_counted(s, a);
	inbound_go_on(s);
}

static void client_counted(struct session *s, const struct rate_answer *a)
{
	struct rate_answer user;

	if (a->over)
		auth_limited(s, 421, "client", "Too many failed logins from your address, try again later");
	else if (count(s, user_key, s->cfg->set->auth_user_limit, on_user_counted, &user))
		user_counted(s, &user);
}

static void on_client_counted(void *ctx, const struct rate_answer *a)
{
	struct session *s = ctx;

	s->auth_query = NULL;
	client_counted(s, a);
	inbound_go_on(s);
}

void auth_decide(struct session *s)
{
	struct rate_answer client;

	auth_delay_begin(s);
	switch (s->smtp.auth_ask) {
	case SASL_PASSWORD:
	case SASL_VERIFIER:
		if (count(s, client_key, s->cfg->set->auth_client_limit, on_client_counted, &client))
			client_counted(s, &client);
		break;
	case SASL_RELAY:
		continue_dovecot(s);
		break;
	case SASL_DONE:
		auth_good(s, s->smtp.sasl->user);
		break;
	case SASL_REFUSED:
		auth_bad(s);
		break;
	case SASL_CHALLENGE:
	case SASL_MALFORMED:
		CHECK(!"the engine deals with these itself");
	}
}

void auth_cancel(struct session *s)
{
	auth_delay_cancel(s);
	if (s->auth_query)
		shared_cancel(s->auth_query);
	if (s->auth_check)
		passwords_cancel(s->auth_check);
	if (s->auth_request)
		dovecot_cancel(s->auth_request);
	s->auth_query = NULL;
	s->auth_check = NULL;
	s->auth_request = NULL;
}
