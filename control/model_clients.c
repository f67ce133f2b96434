/* Who may relay: the rows of relay_clients, and the registry beside them (A1, A3). */
#include "control/clientfile.h"
#include "control/history.h"
#include "control/model.h"
#include "control/model_clients.h"
#include <stdlib.h>
#include "spool/base/file.h"
#include "spool/mail/address.h"

enum { REGISTRY_MAX = 64 << 20, REGISTRY_ENTRIES_MAX = 100000 };

/* ---- relay_clients ---- */

void row_net(struct reader *r, const yaml_node_t *item, void *row)
{
	static const char *const classes[] = { "robust", "fragile", NULL };
	struct snap_net *n = row;
	const char *text = scalar(item), *class = NULL, *rate = NULL, *conns = NULL, *name = NULL;
	unsigned prefix = 0;
	int w;

	if (item->type == YAML_MAPPING_NODE) {
		only_members(r, item, (const char *const[]){ "network", "class", "rate", "connections", "name", NULL }, "relay_clients");
		text = scalar(member(r, item, "network"));
		class = scalar(member(r, item, "class"));
		rate = scalar(member(r, item, "rate"));
		conns = scalar(member(r, item, "connections"));
		name = scalar(member(r, item, "name"));
	}
	n->class_ = CLASS_ROBUST;
	n->rate_limit = -1;
	n->line = (uint32_t)item->start_mark.line + 1;
	n->name = model_add_str(r->m, span_str(name ? name : ""));
	n->owner = n->note = model_add_str(r->m, SPAN(""));
	if (!text || net_parse(span_str(text), n->ip, &prefix) != ST_OK)
		complain(r->m, item, "relay_clients: \"%s\" is not a network; write for example 192.0.2.0/24 or \"2001:db8::/32\"", text ? text : "");
	net_mask(n->ip, prefix, n->ip);
	n->prefix = prefix;
	if (class && (w = find_word(classes, class)) < 0)
		complain(r->m, item, "relay_clients: class \"%s\" is not possible; write robust or fragile", class);
	else if (class)
		n->class_ = w ? CLASS_FRAGILE : CLASS_ROBUST;
	if (rate && !parse_rate(rate, &n->rate_limit))
		complain(r->m, item, "relay_clients: rate \"%s\" is not possible; write a number of messages, or none", rate);
	if (conns && !client_conns_parse(span_str(conns), &n->conns_max))
		complain(r->m, item, "relay_clients: connections \"%s\" is not possible; write a number of connections, or none", conns);
}

/* As the snapshot's readers search; of the same network relay_clients comes first. */
static int by_net(const void *a, const void *b)
{
	const struct snap_net *x = a, *y = b;
	int c = x->prefix != y->prefix ? (x->prefix > y->prefix ? -1 : 1) : memcmp(x->ip, y->ip, 16);

	return c ? c : x->registered != y->registered ? (x->registered > y->registered) - (x->registered < y->registered) : (x->line > y->line) - (x->line < y->line);
}

static bool is_same(const struct snap_net *a, const struct snap_net *b)
{
	return a->prefix == b->prefix && memcmp(a->ip, b->ip, 16) == 0;
}

static const char *net_text(const struct snap_net *n, char *buf)
{
	struct out o = out_of(buf, CLIENT_NET_TEXT);

	client_net_write(n->ip, n->prefix, &o);
	out_char(&o, '\0');
	return buf;
}

void nets_together(struct model *m)
{
	struct snap_net *n = (struct snap_net *)(void *)(m->bytes + model_settings(m)->relay_nets.off);
	char buf[CLIENT_NET_TEXT + 1];

	qsort(n, model_settings(m)->relay_nets.n, sizeof(*n), by_net);
	for (uint32_t i = 1; i < model_settings(m)->relay_nets.n; i++)
		if (is_same(&n[i], &n[i - 1]))
			complain_line(m, n[i].line, "relay_clients: %s is there already (line %u)", net_text(&n[i], buf), n[i - 1].line);
}

/* ---- the registry ---- */

enum status registry_text(const struct snapshot *s, char **ret, size_t *ret_n)
{
	const char *file = snap_cstr(s, s->h->settings.clients_file), *dir = snap_cstr(s, s->h->settings.clients_dir);
	struct history_row row;
	enum status st;

	*ret = NULL;
	*ret_n = 0;
	if (*file)
		return file_read(file, REGISTRY_MAX, NULL, ret, ret_n);
	st = history_last(dir, REGISTRY, &row);
	if (st == ST_OK)
		st = history_read(dir, REGISTRY, &row, ret, ret_n);
	return st == ST_NOT_FOUND ? ST_OK : st;
}

static void to_row(struct model *m, const struct client_entry *e, struct snap_net *ret)
{
	*ret = (struct snap_net){ .prefix = e->prefix, .class_ = e->class_, .rate_limit = e->rate, .conns_max = e->conns, .expires_s = e->expires_s, .line = e->line, .registered = 1,
		.name = model_add_str(m, SPAN("")), .owner = model_add_str(m, span_str(e->owner)), .note = model_add_str(m, span_str(e->note)) };
	memcpy(ret->ip, e->ip, 16);
}

static void complain_double(struct model *m, const char *name, const struct snap_net *was, const struct snap_net *n)
{
	char buf[CLIENT_NET_TEXT + 1];

	m->errors++;
	fprintf(m->complain, "%s:%u: %s is in relay_clients already (line %u of the configuration)\n", name, n->line, net_text(n, buf), was->line);
}

void registry_merge(struct model *m, struct span text, const char *name)
{
	struct client_entries c;
	struct snap_list fixed = model_settings(m)->relay_nets, all;
	struct snap_net *row;

	client_entries_read(&c, text, name, m->complain);
	m->errors += c.wrong;
	if (c.n > REGISTRY_ENTRIES_MAX) {
		m->errors++;
		fprintf(m->complain, "%s: at most %d clients\n", name, REGISTRY_ENTRIES_MAX);
		c.n = REGISTRY_ENTRIES_MAX;
	}
	row = calloc(c.n + fixed.n + 1, sizeof(*row));
	CHECK(row);
	memcpy(row, m->bytes + fixed.off, fixed.n * sizeof(*row));
	for (size_t i = 0; i < c.n; i++)
		to_row(m, &c.row[i], &row[fixed.n + i]);
	qsort(row, c.n + fixed.n, sizeof(*row), by_net);
	for (size_t i = 1; i < c.n + fixed.n; i++)
		if (is_same(&row[i], &row[i - 1]) && !row[i - 1].registered)
			complain_double(m, name, &row[i - 1], &row[i]);
	all = model_add_list(m, row, c.n + fixed.n, sizeof(*row));
	model_settings(m)->nets = all;
	free(row);
	client_entries_free(&c);
}

const char *registry_name(const struct snapshot *s)
{
	const char *file = snap_cstr(s, s->h->settings.clients_file);

	return *file ? file : "registry of clients";
}

/* A name that is relative is beside the configuration. */
static void resolve_file(struct model *m)
{
	const char *file = model_text(m, model_settings(m)->clients_file), *slash = m->file ? strrchr(m->file, '/') : NULL;
	char path[4096];
	struct snap_str made;
	int n;

	if (!*file || *file == '/' || !slash)
		return;
	n = snprintf(path, sizeof(path), "%.*s/%s", (int)(slash - m->file), m->file, file);
	if (n >= (int)sizeof(path)) {
		complain_line(m, key_line(m, "clients.file"), "clients.file: the name is too long");
		return;
	}
	made = model_add_str(m, span_str(path));
	model_settings(m)->clients_file = made;
}

void registry_together(struct model *m)
{
	struct snapshot s;
	char *text, *name;
	size_t n;

	resolve_file(m);
	s = (struct snapshot){ .h = (const struct snap_header *)(const void *)m->bytes, .bytes = m->n };
	name = strdup(registry_name(&s)); /* the bytes move */
	CHECK(name);
	if (registry_text(&s, &text, &n) != ST_OK)
		complain_line(m, key_line(m, "clients.file"), "clients: %s: %s", name, trail_text());
	model_settings(m)->registry_off = (uint32_t)m->n;
	registry_merge(m, span_of(text, text ? n : 0), name);
	free(text);
	free(name);
}

bool registry_replace(struct model *m, const struct snapshot *s, struct span text, FILE *complain)
{
	size_t n = s->h->settings.registry_off;

	*m = (struct model){ .complain = complain, .n = n, .cap = n + 4096 };
	m->bytes = calloc(1, m->cap);
	CHECK(m->bytes);
	memcpy(m->bytes, s->h, n);
	registry_merge(m, text, registry_name(s));
	model_seal(m, s->h->generation + 1);
	return m->errors == 0;
}
