/* mail_domains: what is done with mail to each managed domain, as the configuration says it. The files that it names are read by the table compiler, not here. */
#include <stdlib.h>
#include "control/model.h"
#include "spool/mail/address.h"

static const char what[] = "mail_domains";

/* Until the whole file is read. */
static const uint32_t TLS_OF_MX = UINT32_MAX;

/* The key that makes the kind; a row has exactly one of them. */
static const char *const kind_key[DOMAIN_NKIND] = {
	[DOMAIN_ALIASES] = "aliases",
	[DOMAIN_RETIRED] = "retired",
	[DOMAIN_LONG_FORM] = "long_form_of",
	[DOMAIN_ROUTED] = "to",
	[DOMAIN_BACKUP_MX] = "backup_mx",
	[DOMAIN_FORWARDED] = "forward",
};

/* ---- one row ---- */

static bool find_kind(struct reader *r, const yaml_node_t *item, uint32_t *ret)
{
	unsigned found = 0;

	for (uint32_t k = 0; k < DOMAIN_NKIND; k++)
		if (kind_key[k] && member(r, item, kind_key[k])) {
			*ret = k;
			found++;
		}
	if (member(r, item, "source")) {
		*ret = DOMAIN_ALIASES;
		found++;
	}
	if (found != 1)
		complain(r->m, item, "%s: a domain has one of aliases, source, retired, long_form_of, forward, to or backup_mx; this one has %u", what, found);
	return found == 1;
}

/* A file that is named without a directory to start from is beside the configuration. */
struct snap_str mail_domain_path(struct reader *r, const yaml_node_t *at, const char *path)
{
	const char *slash = r->m->file ? strrchr(r->m->file, '/') : NULL;
	char full[4096];
	int n;

	if (!path || !*path) {
		complain(r->m, at, "%s: the name of a file is missing", what);
		return model_add_str(r->m, SPAN(""));
	}
	if (*path == '/' || !slash)
		return model_add_str(r->m, span_str(path));
	n = snprintf(full, sizeof(full), "%.*s/%s", (int)(slash - r->m->file), r->m->file, path);
	if (n < 0 || (size_t)n >= sizeof(full))
		complain(r->m, at, "%s: the name of a file is too long", what);
	return model_add_str(r->m, span_str(full));
}

static void take_aliases(struct reader *r, const yaml_node_t *item, const yaml_node_t *value, struct snap_mail_domain *d)
{
	static const char *const words[] = { "refuse", "deliver", NULL };
	const yaml_node_t *forwarding = member(r, item, "forwarding");
	const char *unlisted = scalar(member(r, item, "unlisted"));
	int w = unlisted ? find_word(words, unlisted) : 0;

	if (value)
		d->value = mail_domain_path(r, value, scalar(value));
	if (forwarding)
		d->forwarding = mail_domain_path(r, forwarding, scalar(forwarding));
	if (w < 0)
		complain(r->m, item, "%s: unlisted \"%s\" is not possible; write refuse or deliver", what, unlisted);
	d->deliver_unlisted = w > 0;
}

static void take_address(struct reader *r, const yaml_node_t *at, struct snap_mail_domain *d)
{
	const char *text = scalar(at);
	struct address a;

	if (!text || address_parse(span_str(text), 0, &a) != ST_OK)
		complain(r->m, at, "%s: forward \"%s\" is not an address", what, text ? text : "");
	d->value = model_add_str(r->m, span_str(text ? text : ""));
}

static void take_text(struct reader *r, const yaml_node_t *at, struct snap_mail_domain *d)
{
	const char *text = scalar(at);

	if (!text || !*text || strlen(text) > 400 || strpbrk(text, "\r\n"))
		complain(r->m, at, "%s: retired has the text that senders get, one line of at most 400 characters", what);
	d->value = model_add_str(r->m, span_str(text ? text : ""));
}

/* Whatever the default route is, such mail goes to exchangers. */
static void add_mx_route(struct reader *r, const yaml_node_t *item, const struct snap_mail_domain *d)
{
	struct snap_route t = { .name = d->name, .kind = ROUTE_MX, .tls = TLS_OF_MX, .line = d->line };

	route_terms_read(r, item, &t);
	model_add_route(r->m, &t);
}

static void take_value(struct reader *r, const yaml_node_t *item, struct snap_mail_domain *d)
{
	const yaml_node_t *value = member(r, item, kind_key[d->kind]);

	switch ((enum snap_domain_kind)d->kind) {
	case DOMAIN_ALIASES:
		take_aliases(r, item, value, d);
		break;
	case DOMAIN_RETIRED:
		take_text(r, value, d);
		break;
	case DOMAIN_LONG_FORM:
		domain_key(r, value, what, scalar(value), &d->value);
		break;
	case DOMAIN_ROUTED: {
		struct snap_route *t = &(struct snap_route){ .name = d->name, .line = d->line };

		route_next_hops(r, item, t);
		model_add_route(r->m, t);
		break;
	}
	case DOMAIN_BACKUP_MX:
		add_mx_route(r, item, d);
		if (!scalar(value) || strcmp(scalar(value), "yes") != 0)
			complain(r->m, value, "%s: backup_mx is yes, or left out", what);
		break;
	case DOMAIN_FORWARDED:
		take_address(r, value, d);
		break;
	case DOMAIN_MOVED:
	case DOMAIN_NKIND:
		break;
	}
}

void row_mail_domain(struct reader *r, const yaml_node_t *item, void *row)
{
	static const char *const known[] = { "domain", "aliases", "forwarding", "unlisted", "retired", "long_form_of", "to", "tls", "final",
		"backup_mx", "forward", "recipients", "ca", "secrets", "owner", "contact", "moved",
		TERMS_MEMBERS, NULL };
	struct snap_mail_domain *d = row;

	d->line = (uint32_t)item->start_mark.line + 1;
	d->name = d->value = d->forwarding = d->owner = d->contact = d->ca = d->secrets = model_add_str(r->m, SPAN(""));
	if (item->type != YAML_MAPPING_NODE) {
		complain(r->m, item, "%s: an entry is {domain: NAME, ...}", what);
		return;
	}
	only_members(r, item, known, what);
	domain_key(r, item, what, scalar(member(r, item, "domain")), &d->name);
	d->recipients = verify_recipients(r, item, what);
	if (find_kind(r, item, &d->kind))
		take_value(r, item, d);
	mail_domain_source(r, item, d);
	mail_domain_moved(r, item, d);
	if (d->kind != DOMAIN_ALIASES && (member(r, item, "forwarding") || member(r, item, "unlisted")))
		complain(r->m, item, "%s: forwarding and unlisted go with aliases", what);
	if (d->recipients == RECIPIENTS_VERIFY && !d->deliver_unlisted && d->kind != DOMAIN_ROUTED && d->kind != DOMAIN_BACKUP_MX)
		complain(r->m, item, "%s: recipients: verify goes with to, backup_mx or unlisted: deliver; of other domains all addresses are known", what);
	if (d->kind != DOMAIN_ROUTED && (member(r, item, "tls") || member(r, item, "final")))
		complain(r->m, item, "%s: tls and final go with to", what);
	if (d->kind != DOMAIN_ROUTED && d->kind != DOMAIN_BACKUP_MX && route_terms_any(r, item))
		complain(r->m, item, "%s: life, delay_notice, size and hold go with to and backup_mx, or into routes", what);
}

/* ---- all rows ---- */

static struct snap_mail_domain *rows_of(struct model *m, uint32_t *ret_n)
{
	struct snap_list l = model_settings(m)->mail_domains;

	*ret_n = l.n;
	return (struct snap_mail_domain *)(void *)(m->bytes + l.off);
}

static const struct snap_mail_domain *find_row(struct model *m, struct snap_str name)
{
	uint32_t n;
	const struct snap_mail_domain *d = rows_of(m, &n);

	for (uint32_t low = 0, high = n; low < high;) {
		uint32_t mid = low + (high - low) / 2;
		int c = strcmp(model_text(m, name), model_text(m, d[mid].name));

		if (c == 0)
			return &d[mid];
		if (c < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

/* A long form stands for a domain that is here and is not itself a long form: so there is no chain and no loop. */
static void check_long_form(struct model *m, const struct snap_mail_domain *d)
{
	const struct snap_mail_domain *shorter = find_row(m, d->value);

	if (!shorter)
		complain_line(m, d->line, "%s: %s is the long form of %s, which is not one of the %s", what, model_text(m, d->name),
			model_text(m, d->value), what);
	else if (shorter->kind == DOMAIN_LONG_FORM)
		complain_line(m, d->line, "%s: %s is the long form of %s, which is a long form itself", what, model_text(m, d->name),
			model_text(m, d->value));
}

/* The routes of domains that have one of their own go among all routes: delivery looks in one place. */
static void merge_routes(struct model *m)
{
	struct snap_list *l = &model_settings(m)->routes, made;
	size_t n = l->n + m->nroutes;
	struct snap_route *all;

	if (!m->nroutes)
		return;
	all = calloc(n, sizeof(*all));
	CHECK(all);
	if (l->n)
		memcpy(all, m->bytes + l->off, l->n * sizeof(*all));
	memcpy(all + l->n, m->routes, m->nroutes * sizeof(*all));
	sort_by_name(m, all, n, sizeof(*all));
	for (size_t i = 0; i < n; i++)
		if (all[i].tls == TLS_OF_MX)
			all[i].tls = model_settings(m)->outbound_tls;
	for (size_t i = 1; i < n; i++)
		if (all[i].name.len && strcmp(model_text(m, all[i].name), model_text(m, all[i - 1].name)) == 0)
			complain_line(m, all[i].line, "%s: \"%s\" has a route in routes (line %u) and one of its own", what,
				model_text(m, all[i].name), all[i - 1].line);
	made = model_add_list(m, all, n, sizeof(*all));
	model_settings(m)->routes = made;
	free(all);
	free(m->routes);
	m->routes = NULL;
	m->nroutes = 0;
}

void model_add_route(struct model *m, const struct snap_route *route)
{
	m->routes = realloc(m->routes, (m->nroutes + 1) * sizeof(*route));
	CHECK(m->routes);
	m->routes[m->nroutes++] = *route;
}

void mail_domains_together(struct model *m)
{
	uint32_t n;

	rows_of(m, &n);
	for (uint32_t i = 0; i < n; i++) {
		struct snap_mail_domain d = rows_of(m, &n)[i];

		if (d.kind == DOMAIN_LONG_FORM)
			check_long_form(m, &d);
	}
	merge_routes(m);
	moved_together(m);
}
