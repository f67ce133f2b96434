#include "control/tls_keys.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "control/login_file.h"
#include "control/tls_cert.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/file.h"
#include "spool/base/log.h"

enum { TICKET_KEY_OCTETS = 80, KEYS_KEPT = 2 };

/* What was last looked at: weir-control has one configuration. */
static struct {
	uint64_t files;       /* a digest of what the files looked like when they were last taken over */
	uint64_t next_ns;     /* when to look again */
	bool refused;         /* they have changed since, and are of no use */
	char why[1024];       /* what was logged about that */
	uint32_t ncert, nlogin;
	int64_t ends_s;       /* the first end of a certificate in use */
} now_used;

/* ---- ticket keys ---- */

enum status tls_keys_file(const char *path, struct tls_file *ret, bool *ret_open)
{
	char *bytes;
	struct stat st;
	size_t n;

	if (file_read(path, TICKET_KEY_OCTETS * TLS_TICKET_KEYS_MAX, &st, &bytes, &n) != ST_OK)
		return trail(ST_IO, "%s cannot be read: %s", path, trail_text());
	*ret_open = (st.st_mode & S_IRWXO) != 0;
	ret->nticket = (uint32_t)(n / TICKET_KEY_OCTETS);
	for (uint32_t i = 0; i < ret->nticket; i++) {
		const char *p = bytes + i * TICKET_KEY_OCTETS;

		memcpy(ret->ticket[i].name, p, 16);
		memcpy(ret->ticket[i].aes, p + 16, 32);
		memcpy(ret->ticket[i].hmac, p + 48, 32);
	}
	OPENSSL_cleanse(bytes, n);
	free(bytes);
	if (n && n % TICKET_KEY_OCTETS == 0)
		return ST_OK;
	return trail(ST_INVALID, "%s has %zu octets; a key has %d (openssl rand %d), and there are at most %d", path, n, TICKET_KEY_OCTETS, TICKET_KEY_OCTETS, TLS_TICKET_KEYS_MAX);
}

/* A key of the future is one of a clock that went wrong. */
static bool is_due(const struct tls_file *f, uint64_t life_ns, uint64_t wall_ns)
{
	return !f->nticket || f->ticket[0].made_wall_ns > wall_ns || wall_ns - f->ticket[0].made_wall_ns >= life_ns;
}

/* A new key in front when the present one is old. A ticket lives as long as a key is in front, so the one before is enough to accept them all. */
static bool turn_keys(struct tls_file *f, uint64_t life_ns)
{
	uint64_t wall_ns = clock_wall_ns();
	struct tls_ticket_key k = { .made_wall_ns = wall_ns };

	if (!is_due(f, life_ns, wall_ns))
		return true;
	if (RAND_bytes(k.name, sizeof(k.name)) != 1 || RAND_priv_bytes(k.aes, sizeof(k.aes)) != 1 || RAND_priv_bytes(k.hmac, sizeof(k.hmac)) != 1)
		return false;
	memmove(&f->ticket[1], &f->ticket[0], (KEYS_KEPT - 1) * sizeof(k));
	f->ticket[0] = k;
	f->nticket = f->nticket < KEYS_KEPT ? f->nticket + 1 : KEYS_KEPT;
	OPENSSL_cleanse(&k, sizeof(k));
	return true;
}

/* old: what is published. */
static bool take_tickets(const struct snapshot *s, const struct tls_file *old, struct tls_file *f, FILE *errors)
{
	const struct snap_settings *set = &s->h->settings;
	bool ok = true, open;

	if (!set->tls_ticket_life_ns)
		return true;
	if (set->tls_ticket_file.len) {
		ok = tls_keys_file(snap_cstr(s, set->tls_ticket_file), f, &open) == ST_OK;
		if (!ok)
			fprintf(errors, "tls.ticket_key_file: %s\n", trail_text());
		return ok;
	}
	f->nticket = old->nticket < KEYS_KEPT ? old->nticket : KEYS_KEPT;
	memcpy(f->ticket, old->ticket, f->nticket * sizeof(f->ticket[0]));
	ok = turn_keys(f, set->tls_ticket_life_ns);
	if (!ok)
		fprintf(errors, "tls: no random octets for ticket keys\n");
	return ok;
}

/* ---- certificates ---- */

static const struct snap_cert *certs_of(const struct snapshot *s, struct snap_list l)
{
	return (const struct snap_cert *)(const void *)((const char *)s->h + l.off);
}

static uint64_t mix(uint64_t sum, const char *path)
{
	struct stat st = { 0 };
	uint64_t v[4];

	if (stat(path, &st) < 0)
		st.st_size = -1;
	v[0] = (uint64_t)st.st_ino;
	v[1] = (uint64_t)st.st_size;
	v[2] = (uint64_t)st.st_mtim.tv_sec;
	v[3] = (uint64_t)st.st_mtim.tv_nsec;
	for (size_t i = 0; i < 4; i++)
		sum = (sum ^ v[i]) * 0x9e3779b97f4a7c15ull;
	return sum;
}

static uint64_t mix_certs(uint64_t sum, const struct snapshot *s, struct snap_list l)
{
	const struct snap_cert *c = certs_of(s, l);

	for (uint32_t i = 0; i < l.n; i++)
		sum = mix(mix(sum, snap_cstr(s, c[i].certificate)), snap_cstr(s, c[i].key));
	return sum;
}

static uint64_t look(const struct snapshot *s)
{
	uint64_t sum = mix(1, snap_cstr(s, s->h->settings.tls_ticket_file));
	uint32_t n;
	const struct snap_login *l = snap_logins(s, &n);

	sum = mix_certs(mix_certs(sum, s, s->h->settings.tls_certs), s, s->h->settings.tls_client_certs);
	for (uint32_t i = 0; i < n; i++)
		sum = mix(sum, snap_cstr(s, l[i].password_file));
	return sum;
}

static bool take_certs(const struct snapshot *s, struct snap_list l, struct tls_cert *cert, struct tls_pem *pem, uint32_t *n, int64_t *ret_ends_s, FILE *errors)
{
	const struct snap_cert *c = certs_of(s, l);
	char why[1024];

	for (uint32_t i = 0; i < l.n; i++) {
		if (!tls_cert_read(snap_cstr(s, c[i].certificate), snap_cstr(s, c[i].key), &cert[i], why, sizeof(why))) {
			fprintf(errors, "tls: %s\n", why);
			return false;
		}
		pem[(*n)++] = (struct tls_pem){ span_of(cert[i].chain, cert[i].nchain), span_of(cert[i].key, cert[i].nkey) };
		*ret_ends_s = cert[i].ends_s < *ret_ends_s ? cert[i].ends_s : *ret_ends_s;
	}
	return true;
}

static bool take_logins(const struct snapshot *s, char (*password)[LOGIN_PASSWORD_MAX], struct tls_file *f, FILE *errors)
{
	uint32_t n;
	const struct snap_login *l = snap_logins(s, &n);

	for (uint32_t i = 0; i < n; i++) {
		struct tls_login *to = &f->login[i];

		if (login_file_read(snap_cstr(s, l[i].password_file), password[i], &to->password) != ST_OK) {
			fprintf(errors, "password_file: %s\n", trail_text());
			return false;
		}
		to->user = snap_span(s, l[i].user);
		to->file = snap_span(s, l[i].password_file);
		f->nlogin = i + 1;
	}
	return true;
}

static void count(void)
{
	int64_t left = now_used.ends_s - (int64_t)(clock_wall_ns() / NS_PER_S);

	counter_set(C_TLS_CERTS, now_used.ncert);
	counter_set(C_TLS_CERT_LEFT_S, now_used.ncert && left > 0 ? (uint64_t)left : 0);
	counter_set(C_TLS_CERT_REFUSED, now_used.refused);
}

bool tls_keys_publish(const struct snapshot *s, const char *run_dir, FILE *errors)
{
	const struct snap_settings *set = &s->h->settings;
	struct tls_cert cert[TLS_CERTS_MAX + TLS_CLIENT_CERTS_MAX] = { 0 };
	char password[TLS_LOGINS_MAX][LOGIN_PASSWORD_MAX];
	struct tls_file old = { 0 }, f = { 0 };
	uint64_t files = look(s); /* before they are read: what changes meanwhile is seen the next time */
	int64_t ends_s = INT64_MAX;
	bool found = tls_file_read(run_dir, &old) == ST_OK, ok;

	ok = take_certs(s, set->tls_certs, cert, f.cert, &f.ncert, &ends_s, errors) &&
		take_certs(s, set->tls_client_certs, cert + TLS_CERTS_MAX, f.client, &f.nclient, &ends_s, errors) && take_logins(s, password, &f, errors) &&
		take_tickets(s, &old, &f, errors);
	if (ok && (!found || !tls_file_same(&old, &f)) && tls_file_write(run_dir, &f) != ST_OK) {
		fprintf(errors, "%s\n", trail_text());
		ok = false;
	}
	if (ok) {
		now_used.files = files;
		now_used.ncert = f.ncert + f.nclient;
		now_used.nlogin = f.nlogin;
		now_used.ends_s = ends_s;
		now_used.refused = false;
		now_used.why[0] = '\0';
		now_used.next_ns = clock_mono_ns() + s->h->settings.tls_watch_ns;
		count();
	}
	for (uint32_t i = 0; i < TLS_CERTS_MAX + TLS_CLIENT_CERTS_MAX; i++)
		tls_cert_free(&cert[i]);
	explicit_bzero(password, sizeof(password));
	tls_file_free(&old);
	tls_file_free(&f);
	return ok;
}

/* ---- watching ---- */

static bool tickets_are_due(const struct snapshot *s, const char *run_dir)
{
	const struct snap_settings *set = &s->h->settings;
	struct tls_file f;
	bool due;

	if (!set->tls_ticket_life_ns || set->tls_ticket_file.len || tls_file_read(run_dir, &f) != ST_OK)
		return false;
	due = is_due(&f, set->tls_ticket_life_ns, clock_wall_ns());
	tls_file_free(&f);
	return due;
}

/* Said once for each reason: a renewal that is half done is looked at again and again. */
static void refuse(const char *why)
{
	now_used.refused = true;
	count();
	if (strcmp(why, now_used.why) != 0)
		log_msg(LOG_LVL_ERROR, "tls-certificates-refused", "those in use stay: %.*s", (int)strcspn(why, "\n"), why);
	snprintf(now_used.why, sizeof(now_used.why), "%s", why);
}

static void take_over(const struct snapshot *s, const char *run_dir, bool changed)
{
	char why[1024] = "";
	FILE *f = fmemopen(why, sizeof(why) - 1, "w");

	if (!f)
		return;
	if (tls_keys_publish(s, run_dir, f)) {
		if (changed && now_used.nlogin)
			log_msg(LOG_LVL_INFO, "next-hop-logins", "files have changed: the passwords of %u logins are taken over", now_used.nlogin);
		if (changed && (now_used.ncert || !now_used.nlogin))
			log_msg(LOG_LVL_INFO, "tls-certificates", "the files have changed: %u certificates taken over, the first ends in %lld days", now_used.ncert,
				(long long)(now_used.ends_s - (int64_t)(clock_wall_ns() / NS_PER_S)) / 86400);
		fclose(f);
		return;
	}
	fclose(f);
	refuse(why);
}

void tls_keys_turn(const char *run_dir)
{
	char path[4096];
	struct snapshot s;
	bool changed;

	count();
	if (clock_mono_ns() < now_used.next_ns)
		return;
	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	if (snapshot_open(path, &s) != ST_OK)
		return;
	now_used.next_ns = clock_mono_ns() + s.h->settings.tls_watch_ns;
	changed = now_used.refused || look(&s) != now_used.files;
	if (changed || tickets_are_due(&s, run_dir))
		take_over(&s, run_dir, changed);
	snapshot_close(&s);
}
