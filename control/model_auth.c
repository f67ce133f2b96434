/* auth: mechanisms, who may send as whom, and what they say about listeners. */
#include <stdlib.h>
#include "control/model.h"
#include "spool/mail/address.h"

void row_mechanism(struct reader *r, const yaml_node_t *item, void *row)
{
	static const char *const words[] = { "plain", "login", "scram-sha-256", NULL };
	const char *text = scalar(item);
	int w = text ? find_word(words, text) : -1;
	uint32_t *bit = row;

	if (w < 0)
		complain(r->m, item, "auth.mechanisms: \"%s\" is not possible; write plain, login or scram-sha-256", text ? text : "");
	else
		*bit = 1u << w;
}

/* "local@domain", "@domain" or "*"; the domain in look-up form. */
static struct snap_str sender_key(struct reader *r, const yaml_node_t *at)
{
	char buf[ADDRESS_MAX + 1];
	struct out o = out_of(buf, sizeof(buf));
	const char *text = scalar(at), *sign = text ? strrchr(text, '@') : NULL;
	struct address a;

	if (text && strcmp(text, "*") == 0)
		return model_add_str(r->m, SPAN("*"));
	if (sign) {
		out_add(&o, span_of(text, (size_t)(sign - text) + 1));
		if ((sign == text || address_parse(span_str(text), ADDRESS_UTF8, &a) == ST_OK) &&
			address_domain_key(span_str(sign + 1), &o) == ST_OK)
			return model_add_str(r->m, out_span(&o));
	}
	complain(r->m, at, "auth.senders: \"%s\" is not a sender; write an address, \"@domain\" or \"*\"", text ? text : "");
	return model_add_str(r->m, SPAN(""));
}

void row_senders(struct reader *r, const yaml_node_t *item, void *row)
{
	struct snap_senders *s = row;
	const yaml_node_t *list;
	const char *user;
	struct snap_str *a;
	size_t n = 0;

	s->line = (uint32_t)item->start_mark.line + 1;
	s->user = model_add_str(r->m, SPAN(""));
	if (item->type != YAML_MAPPING_NODE) {
		complain(r->m, item, "auth.senders: an entry is {user: NAME, senders: [ADDRESS, ...]}");
		return;
	}
	only_members(r, item, (const char *const[]){ "user", "senders", NULL }, "auth.senders");
	user = scalar(member(r, item, "user"));
	list = member(r, item, "senders");
	if (!user || !*user || !list || list->type != YAML_SEQUENCE_NODE) {
		complain(r->m, item, "auth.senders: an entry is {user: NAME, senders: [ADDRESS, ...]}");
		return;
	}
	s->user = model_add_str(r->m, span_str(user));
	a = calloc((size_t)(list->data.sequence.items.top - list->data.sequence.items.start) + 1, sizeof(*a));
	CHECK(a);
	for (yaml_node_item_t *i = list->data.sequence.items.start; i < list->data.sequence.items.top; i++)
		a[n++] = sender_key(r, yaml_document_get_node(r->doc, *i));
	s->senders = model_add_list(r->m, a, n, sizeof(*a));
	free(a);
}

void auth_together(struct model *m)
{
	const struct snap_settings *s = model_settings(m);
	const struct snap_listener *l = (const struct snap_listener *)(const void *)(m->bytes + s->listeners.off);
	bool submission = false;

	for (uint32_t i = 0; i < s->listeners.n; i++)
		submission = submission || snap_role_is_submission(l[i].role);
	if (s->auth_file.len && s->auth_dovecot.len)
		complain_line(m, key_line(m, "auth.password_file"), "auth.password_file and auth.dovecot cannot both be there");
	if (submission && !s->auth_file.len && !s->auth_dovecot.len)
		complain_line(m, key_line(m, "listen"), "listen: a submission service needs auth.password_file or auth.dovecot");
	if ((s->auth_client_limit > 0 && s->auth_client_limit < 2) || (s->auth_user_limit > 0 && s->auth_user_limit < 2))
		complain_line(m, key_line(m, "auth.failures_per_client"), "auth.failures_per_client and auth.failures_per_user must be at least 2: a login that is under way counts");
	if (submission && !s->auth_mechs.n)
		complain_line(m, key_line(m, "auth.mechanisms"), "auth.mechanisms: a submission service needs one");
}
