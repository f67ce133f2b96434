/* Who logs in to the next hops of a route: user and password_file of its row. */
#include "control/login_file.h"
#include "control/model.h"
#include "spool/mail/passline.h"
#include "spool/store/tls_file.h"

static bool is_user(const char *user)
{
	size_t n = strlen(user);

	for (size_t i = 0; i < n; i++)
		if ((unsigned char)user[i] < ' ' || user[i] == 0x7f)
			return false;
	return n && n <= PASSLINE_USER_MAX;
}

void route_login_read(struct reader *r, const yaml_node_t *item, struct snap_route *t)
{
	const yaml_node_t *user_at = member(r, item, "user"), *file_at = member(r, item, "password_file");
	const char *user = scalar(user_at), *file = scalar(file_at);
	bool both = user && file && *file;

	t->user = t->password_file = model_add_str(r->m, SPAN(""));
	if (!user_at && !file_at)
		return;
	if (!both)
		complain(r->m, item, "user and password_file are a name and the name of a file, and belong together");
	else if (!is_user(user))
		complain(r->m, user_at, "user: a name has 1 to %d octets, and no control characters", PASSLINE_USER_MAX);
	else if (t->kind == ROUTE_MX)
		complain(r->m, user_at, "user: a password is for hosts that are named; write to: \"smtp:HOST:PORT\"");
	else if (t->tls != SNAP_TLS_MUST && t->tls != SNAP_TLS_VERIFY)
		complain(r->m, user_at, "user: a password goes nowhere without TLS; write tls: verify (or must, when the host's certificate cannot be verified)");
	if (!both)
		return;
	t->user = model_add_str(r->m, span_str(user));
	t->password_file = model_add_str(r->m, span_str(file));
}

static bool is_same(const struct model *m, const struct snap_login *l, const struct snap_route *t)
{
	return strcmp(model_text(m, l->user), model_text(m, t->user)) == 0 && strcmp(model_text(m, l->password_file), model_text(m, t->password_file)) == 0;
}

static void login_check(struct model *m, const struct snap_login *l)
{
	char buf[LOGIN_PASSWORD_MAX];
	struct span password;

	if (login_file_read(model_text(m, l->password_file), buf, &password) != ST_OK)
		complain_line(m, l->line, "password_file: %s", trail_text());
	explicit_bzero(buf, sizeof(buf));
}

/* Several routes may have the same. */
void client_logins_together(struct model *m)
{
	struct snap_list routes = model_settings(m)->routes, list;
	const struct snap_route *t = (const struct snap_route *)(const void *)(m->bytes + routes.off);
	struct snap_login all[TLS_LOGINS_MAX];
	uint32_t n = 0;

	for (uint32_t i = 0; i < routes.n; i++) {
		uint32_t k = 0;

		if (!t[i].user.len)
			continue;
		while (k < n && !is_same(m, &all[k], &t[i]))
			k++;
		if (k == TLS_LOGINS_MAX) {
			complain_line(m, t[i].line, "user: there may be %d different ones", TLS_LOGINS_MAX);
			return;
		}
		if (k == n)
			all[n++] = (struct snap_login){ .user = t[i].user, .password_file = t[i].password_file, .line = t[i].line };
	}
	for (uint32_t i = 0; i < n; i++)
		login_check(m, &all[i]);
	list = model_add_list(m, all, n, sizeof(all[0]));
	model_settings(m)->client_logins = list;
}
