/* Logging in to a next hop: with whose name and password, and what is said when it fails. */
#include "dataplane/conn_internal.h"

#include <sys/random.h>
#include "dataplane/logins.h"
#include "spool/base/base64.h"
#include "spool/base/counters.h"

enum { NONCE_BYTES = SASL_SERVER_NONCE / 4 * 3 };

static struct span fresh_nonce(struct out_conn *c)
{
	uint8_t random[NONCE_BYTES];
	struct out o = out_of(c->nonce, sizeof(c->nonce));

	CHECK(getrandom(random, sizeof(random), 0) == (ssize_t)sizeof(random)); /* so few octets always come, and at once */
	base64_encode(span_of(random, sizeof(random)), &o); /* no padding, and base64 has no comma */
	return out_span(&o);
}

void conn_login_release(struct out_conn *c)
{
	if (c->login_cfg)
		config_release(c->login_cfg);
	c->login_cfg = NULL;
}

/* The session keeps the configuration whose password it says. One that is not published yet is an empty one here, and no reason to send mail without it. */
const struct sasl_login *conn_login(struct out_conn *c)
{
	const struct snap_route *route = c->dest->route;
	struct span user, file;

	conn_login_release(c);
	if (!route || !route->user.len)
		return NULL;
	c->login_cfg = config_hold(c->dest->cfg);
	user = snap_span(&c->login_cfg->snap, route->user);
	file = snap_span(&c->login_cfg->snap, route->password_file);
	c->login = logins_find(c->login_cfg->logins, user, file);
	c->login.nonce = fresh_nonce(c);
	return &c->login;
}

void conn_login_failed(struct out_conn *c, struct reply *ret)
{
	static const char *const what[] = { [AUTH_FAULT_NONE] = "", [AUTH_FAULT_NOT_OFFERED] = "cannot be logged in to", [AUTH_FAULT_REFUSED] = "refuses the login",
		[AUTH_FAULT_BROKEN] = "cannot be logged in to" };
	struct logline l;

	reply_set(ret, 451, "4.7.0", "%s %s: %.*s", c->host, what[c->client.auth_fault], SPAN_FMT(reply_text(&c->client.failure)));
	counter_add(C_OUT_LOGINS_FAILED, 1);
	log_begin(&l, LOG_LVL_WARN, "next-hop-login-refused");
	log_str(&l, "dest", c->dest->key);
	log_str(&l, "host", c->host);
	log_span(&l, "user", c->login.user);
	log_span(&l, "reason", reply_text(&c->client.failure));
	log_emit(&l);
}
