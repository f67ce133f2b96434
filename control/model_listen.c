/* Where SMTP is taken: the rows of listen. */
#include <ctype.h>
#include "control/model.h"
#include "spool/mail/address.h"

#define BANNER_DELAY_MAX_NS 60000000000ull

/* What a listener expects of its clients. */
static void listener_manners(struct reader *r, const yaml_node_t *item, struct snap_listener *l)
{
	static const char *const bare_lf_words[] = { "refuse", "normalise", NULL };
	const char *bare_lf = scalar(member(r, item, "bare_lf")), *delay = scalar(member(r, item, "banner_delay")), *proxy = scalar(member(r, item, "proxy"));
	int w = bare_lf ? find_word(bare_lf_words, bare_lf) : 0;

	if (w < 0)
		complain(r->m, item, "listen: bare_lf \"%s\" is not possible; write refuse or normalise", bare_lf);
	l->bare_lf = w == 1 ? BARE_LF_NORMALISE : BARE_LF_REFUSE;
	w = proxy ? find_word((const char *const[]){ "no", "yes", "false", "true", NULL }, proxy) : 0;
	if (w < 0)
		complain(r->m, item, "listen: proxy \"%s\" is not possible; write yes or no", proxy);
	l->proxy = w > 0 && (w & 1);
	if (delay && (!parse_duration(delay, &l->banner_delay_ns) || l->banner_delay_ns > BANNER_DELAY_MAX_NS))
		complain(r->m, item, "listen: banner_delay \"%s\" is not possible; write a duration of at most 60s, for example 3s", delay);
}

/* Under which its traffic is counted (A4). */
static void listener_name(struct reader *r, const yaml_node_t *item, struct snap_listener *l)
{
	const char *name = scalar(member(r, item, "name"));
	bool ok = !name || (*name && strlen(name) < sizeof(l->name));

	for (const char *c = name; c && *c; c++)
		ok = ok && (isalnum((unsigned char)*c) || strchr("-._", *c));
	if (!ok)
		complain(r->m, item, "listen: name \"%s\" is not possible; write at most %zu letters, digits, \"-\", \".\" or \"_\"", name, sizeof(l->name) - 1);
	else if (name)
		strcpy(l->name, name);
}

void row_listener(struct reader *r, const yaml_node_t *item, void *row)
{
	struct snap_listener *l = row;
	const yaml_node_t *at = item;
	static const char *const role_words[] = { "mx", "submission", "submissions", "lmtp", NULL };
	const char *text = scalar(item), *tls = NULL, *role = NULL;
	struct span host;
	uint64_t port;
	int w;

	if (item->type == YAML_MAPPING_NODE) {
		only_members(r, item, (const char *const[]){ "address", "role", "tls", "bare_lf", "banner_delay", "proxy", "name", NULL }, "listen");
		listener_manners(r, item, l);
		listener_name(r, item, l);
		role = scalar(member(r, item, "role"));
		at = member(r, item, "address");
		text = scalar(at);
		tls = scalar(member(r, item, "tls"));
	}
	if (!text || !split_port(text, &host, &port) || ip_parse(host, l->ip) != ST_OK) {
		complain(r->m, at ? at : item, "listen: \"%s\" is not an address with a port; write for example \"0.0.0.0:25\" or \"[::]:25\"",
			text ? text : "");
		return;
	}
	if (tls && strcmp(tls, "implicit") != 0)
		complain(r->m, item, "listen: tls is \"%s\"; write implicit, or leave it out for STARTTLS", tls);
	if (role && (w = find_word(role_words, role)) >= 0)
		l->role = (uint32_t)w;
	else if (role)
		complain(r->m, item, "listen: role \"%s\" is not possible; write mx, submission, submissions or lmtp", role);
	if (tls && l->role == ROLE_SUBMISSION)
		complain(r->m, item, "listen: submission begins TLS with STARTTLS; with tls: implicit the role is submissions");
	if (l->role == ROLE_LMTP && port == 25)
		complain(r->m, item, "listen: port 25 is SMTP's (RFC 2033 section 5); put lmtp on another one, for example 24");
	l->port = (uint16_t)port;
	l->tls_implicit = tls != NULL || l->role == ROLE_SUBMISSIONS;
}

static void row_range(struct reader *r, const yaml_node_t *item, const char *key, struct snap_range *n)
{
	const char *text = scalar(item);
	unsigned prefix = 0;

	n->line = (uint32_t)item->start_mark.line + 1;
	if (!text || net_parse(span_str(text), n->ip, &prefix) != ST_OK)
		complain(r->m, item, "%s: \"%s\" is not a network; write for example 192.0.2.8/32 or \"2001:db8::/64\"", key, text ? text : "");
	n->prefix = prefix;
}

void row_balancer(struct reader *r, const yaml_node_t *item, void *row)
{
	row_range(r, item, "balancers", row);
}

void row_xclient_client(struct reader *r, const yaml_node_t *item, void *row)
{
	row_range(r, item, "xclient_clients", row);
}

void listeners_together(struct model *m)
{
	const struct snap_settings *s = model_settings(m);
	const struct snap_listener *l = (const struct snap_listener *)(const void *)(m->bytes + s->listeners.off);

	for (uint32_t i = 0; i < s->listeners.n; i++)
		if (l[i].proxy && !s->balancers.n)
			complain(m, NULL, "listen: the listener on port %u has proxy: yes, but there are no balancers", l[i].port);
	for (uint32_t i = 0; i < s->listeners.n; i++)
		for (uint32_t k = 0; k < i; k++)
			if (l[i].name[0] && strcmp(l[i].name, l[k].name) == 0)
				complain(m, NULL, "listen: two listeners have the name %s", l[i].name);
}
