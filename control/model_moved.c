/* "moved" of a row of mail_domains: single addresses of a domain that go to another next hop while the others go the old way (C8). What is published is a route
 * named "@DOMAIN" and, for the table compiler, a list of that name. */
#include <stdlib.h>
#include "control/model.h"
#include "spool/mail/address.h"

static const char what[] = "mail_domains";

void mail_domain_moved(struct reader *r, const yaml_node_t *item, const struct snap_mail_domain *d)
{
	const yaml_node_t *moved = member(r, item, "moved"), *file;
	struct snap_mail_domain list = *d;
	struct snap_route route = { .line = d->line };
	char name[ADDRESS_DOMAIN_MAX + 2];
	struct out o = out_of(name, sizeof(name));

	if (!moved)
		return;
	if (moved->type != YAML_MAPPING_NODE) {
		complain(r->m, moved, "%s: moved is {file: FILE, to: NEXT-HOP}", what);
		return;
	}
	if (d->kind != DOMAIN_ROUTED && d->kind != DOMAIN_BACKUP_MX && !(d->kind == DOMAIN_ALIASES && d->deliver_unlisted))
		complain(r->m, moved, "%s: moved goes with to, backup_mx or unlisted: deliver; of other domains nothing is delivered as it is", what);
	only_members(r, moved, (const char *const[]){ "file", "to", "tls", "final", TERMS_MEMBERS, NULL }, "mail_domains, moved");
	out_char(&o, '@');
	out_str(&o, model_text(r->m, d->name));
	file = member(r, moved, "file");
	list.name = route.name = model_add_str(r->m, out_span(&o));
	list.kind = DOMAIN_MOVED;
	list.value = mail_domain_path(r, file ? file : moved, scalar(file));
	list.forwarding = model_add_str(r->m, SPAN(""));
	list.deliver_unlisted = 0;
	list.recipients = RECIPIENTS_UNSAID;
	route_next_hops(r, moved, &route);
	model_add_route(r->m, &route);
	r->m->moved = realloc(r->m->moved, (r->m->nmoved + 1) * sizeof(list));
	CHECK(r->m->moved);
	r->m->moved[r->m->nmoved++] = list;
}

void moved_together(struct model *m)
{
	struct snap_list *l = &model_settings(m)->mail_domains, made;
	size_t n = l->n + m->nmoved;
	struct snap_mail_domain *all;

	if (!m->nmoved)
		return;
	all = calloc(n, sizeof(*all));
	CHECK(all);
	memcpy(all, m->bytes + l->off, l->n * sizeof(*all));
	memcpy(all + l->n, m->moved, m->nmoved * sizeof(*all));
	sort_by_name(m, all, n, sizeof(*all));
	made = model_add_list(m, all, n, sizeof(*all));
	model_settings(m)->mail_domains = made;
	free(all);
	free(m->moved);
	m->moved = NULL;
	m->nmoved = 0;
}
