/* Reads the configuration file with libyaml's document interface: it keeps the line of every value, which the checks of meaning
 * need for their messages (libcyaml, which stands on it, tells lines only for errors of its own). */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "control/model.h"
#include "spool/base/clock.h"
#include "spool/base/hash.h"
#include "spool/mail/address.h"
#include "spool/store/snap_dpdk.h"

struct snap_settings *model_settings(struct model *m)
{
	return &((struct snap_header *)(void *)m->bytes)->settings;
}

/* ---- errors ---- */

static void complain_at(struct model *m, size_t line, const char *fmt, va_list ap)
{
	m->errors++;
	fputs(m->file ? m->file : "(default)", m->complain);
	if (line)
		fprintf(m->complain, ":%zu", line);
	fputs(": ", m->complain);
	vfprintf(m->complain, fmt, ap);
	fputc('\n', m->complain);
}

uint32_t key_line(const struct model *m, const char *key)
{
	return m->row_line[schema_find(span_str(key)) - schema];
}

void complain(struct model *m, const yaml_node_t *at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	complain_at(m, at ? at->start_mark.line + 1 : 0, fmt, ap);
	va_end(ap);
}

void complain_line(struct model *m, uint32_t line, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	complain_at(m, line, fmt, ap);
	va_end(ap);
}

void warn_line(struct model *m, uint32_t line, const char *fmt, ...)
{
	va_list ap;

	fprintf(m->complain, "%s:%u: warning: ", m->file ? m->file : "(default)", line);
	va_start(ap, fmt);
	vfprintf(m->complain, fmt, ap);
	va_end(ap);
	fputc('\n', m->complain);
}

/* How many changes make a into b: for "did you mean". */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[64], n = (unsigned)strlen(b);

	if (n >= 64 || strlen(a) >= 64)
		return 99;
	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 1; a[i - 1]; i++) {
		unsigned diag = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= n; j++) {
			unsigned change = diag + (a[i - 1] != b[j - 1]), best = change;

			diag = row[j];
			best = row[j] + 1 < best ? row[j] + 1 : best;
			best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
			row[j] = best;
		}
	}
	return row[n];
}

static void unknown_key(struct model *m, const yaml_node_t *at, const char *key)
{
	char best[64] = "", group[64];
	unsigned best_d = 4;

	for (size_t i = 0; i < schema_rows; i++) {
		unsigned whole = distance(key, schema[i].key), part;

		snprintf(group, sizeof(group), "%.*s", (int)strcspn(schema[i].key, "."), schema[i].key);
		part = distance(key, group);
		if (whole < best_d || part < best_d) {
			best_d = whole < part ? whole : part;
			snprintf(best, sizeof(best), "%s", whole < part ? schema[i].key : group);
		}
	}
	complain(m, at, "unknown key \"%s\"%s%s%s", key, *best ? "; did you mean \"" : "", best, *best ? "\"?" : "");
}

/* ---- the file in the making ---- */

static uint32_t append(struct model *m, const void *p, size_t n)
{
	size_t at = (m->n + 7) & ~(size_t)7;

	if (at + n + 1 > m->cap) {
		size_t cap = m->cap * 2 > at + n + 1 ? m->cap * 2 : (at + n + 1) * 2;

		m->bytes = realloc(m->bytes, cap);
		CHECK(m->bytes);
		memset(m->bytes + m->cap, 0, cap - m->cap);
		m->cap = cap;
	}
	if (n)
		memcpy(m->bytes + at, p, n);
	m->bytes[at + n] = '\0';
	m->n = at + n + 1;
	return (uint32_t)at;
}

struct snap_str model_add_str(struct model *m, struct span s)
{
	return (struct snap_str){ append(m, s.p, s.n), (uint32_t)s.n };
}

struct snap_list model_add_list(struct model *m, const void *rows, size_t n, size_t size)
{
	return (struct snap_list){ append(m, rows, n * size), (uint32_t)n };
}

const char *model_text(const struct model *m, struct snap_str s)
{
	return m->bytes + s.off;
}

/* ---- values ---- */

static bool parse_unit(const char *text, const char *const *unit, const double *factor, size_t n, double *ret)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || v < 0 || !isdigit((unsigned char)text[0]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (strcasecmp(end, unit[i]) == 0) {
			*ret = v * factor[i];
			return *ret < 1.8e19;
		}
	return false;
}

bool parse_size(const char *text, uint64_t *ret)
{
	static const char *const unit[] = { "", "K", "M", "G", "T" };
	static const double factor[] = { 1, 1024, 1048576, 1073741824, 1099511627776.0 };
	double v;

	if (!parse_unit(text, unit, factor, 5, &v))
		return false;
	*ret = (uint64_t)v;
	return true;
}

bool parse_duration(const char *text, uint64_t *ret)
{
	static const char *const unit[] = { "ms", "s", "m", "h", "d" };
	static const double factor[] = { 1e6, 1e9, 60e9, 3600e9, 86400e9 };
	double v;

	if (!parse_unit(text, unit, factor, 5, &v))
		return false;
	*ret = (uint64_t)v;
	return true;
}

bool parse_rate(const char *text, double *ret)
{
	char *end;

	if (strcasecmp(text, "none") == 0) {
		*ret = 0;
		return true;
	}
	*ret = strtod(text, &end);
	return end != text && !*end && *ret > 0 && *ret < 1e12;
}

int find_word(const char *const *words, const char *text)
{
	for (int i = 0; words[i]; i++)
		if (strcasecmp(words[i], text) == 0)
			return i;
	return -1;
}

static void list_words(const char *const *words, struct out *o)
{
	for (int i = 0; words[i]; i++) {
		if (i)
			out_str(o, words[i + 1] ? ", " : " or ");
		out_str(o, words[i]);
	}
	out_char(o, '\0');
}

static void set_number(struct model *m, const yaml_node_t *at, const struct schema_row *r, uint64_t v, const char *text)
{
	char lo[32] = "", hi[32] = "";
	char *to = (char *)model_settings(m) + r->off;

	if (v < r->min || (r->max && v > r->max)) {
		if (r->type == T_SIZE || r->type == T_U32) {
			snprintf(lo, sizeof(lo), "%llu", (unsigned long long)r->min);
			snprintf(hi, sizeof(hi), "%llu", (unsigned long long)r->max);
		} else {
			snprintf(lo, sizeof(lo), "%gs", (double)r->min / 1e9);
			snprintf(hi, sizeof(hi), "%gs", (double)r->max / 1e9);
		}
		if (!(v == 0 && strcmp(r->def, "0") == 0)) {
			complain(m, at, "%s: %s is out of range; at least %s%s%s", r->key, text, lo, r->max ? ", at most " : "", r->max ? hi : "");
			return;
		}
	}
	if (r->type == T_U32)
		memcpy(to, &(uint32_t){ (uint32_t)v }, 4);
	else
		memcpy(to, &v, 8);
}

/* Sets a scalar from its text. */
static void set_scalar(struct model *m, const yaml_node_t *at, const struct schema_row *r, const char *text)
{
	char *to = (char *)model_settings(m) + r->off;
	char buf[200];
	struct out o = out_of(buf, sizeof(buf));
	uint64_t v = 0;
	double d;
	int w;

	switch (r->type) {
	case T_STRING: {
		struct snap_str s = model_add_str(m, span_str(text));

		memcpy((char *)model_settings(m) + r->off, &s, sizeof(s));
		break;
	}
	case T_U32:
		if (!span_u64(span_str(text), UINT32_MAX, &v))
			complain(m, at, "%s: \"%s\" is not a number", r->key, text);
		else
			set_number(m, at, r, v, text);
		break;
	case T_SIZE:
		if (!parse_size(text, &v))
			complain(m, at, "%s: \"%s\" is not a size; write for example 512K, 100M or 8G", r->key, text);
		else
			set_number(m, at, r, v, text);
		break;
	case T_DURATION:
		if (!parse_duration(text, &v))
			complain(m, at, "%s: \"%s\" is not a duration; write for example 500ms, 30s, 5m, 4h or 5d", r->key, text);
		else
			set_number(m, at, r, v, text);
		break;
	case T_RATE:
		if (!parse_rate(text, &d))
			complain(m, at, "%s: \"%s\" is not a rate; write a number of messages, or none", r->key, text);
		else
			memcpy(to, &d, sizeof(d));
		break;
	case T_ENUM:
		w = find_word(r->words, text);
		list_words(r->words, &o);
		if (w < 0)
			complain(m, at, "%s: \"%s\" is not possible; write %s", r->key, text, buf);
		else if (r->off == offsetof(struct snap_settings, engine)) {
			struct snap_str s = model_add_str(m, span_str(r->words[w]));

			memcpy((char *)model_settings(m) + r->off, &s, sizeof(s));
		} else
			memcpy(to, &(uint32_t){ (uint32_t)w }, 4);
		break;
	case T_BOOL:
		w = find_word((const char *const[]){ "no", "yes", "false", "true", NULL }, text);
		if (w < 0)
			complain(m, at, "%s: \"%s\" is not possible; write yes or no", r->key, text);
		else
			memcpy(to, &(uint32_t){ (uint32_t)w & 1 }, 4);
		break;
	case T_TABLE:
		break;
	}
}

/* ---- tables ---- */

const char *scalar(const yaml_node_t *n)
{
	return n && n->type == YAML_SCALAR_NODE ? (const char *)n->data.scalar.value : NULL;
}

/* The value of a key in a mapping; complains about keys that are not in `known`. */
const yaml_node_t *member(struct reader *r, const yaml_node_t *map, const char *key)
{
	for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
		const char *k = scalar(yaml_document_get_node(r->doc, p->key));

		if (k && strcmp(k, key) == 0)
			return yaml_document_get_node(r->doc, p->value);
	}
	return NULL;
}

void only_members(struct reader *r, const yaml_node_t *map, const char *const *known, const char *what)
{
	for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
		const yaml_node_t *kn = yaml_document_get_node(r->doc, p->key);
		const char *k = scalar(kn);
		char buf[200];
		struct out o = out_of(buf, sizeof(buf));

		list_words(known, &o);
		if (!k || find_word(known, k) < 0)
			complain(r->m, kn, "%s: unknown key \"%s\"; there are %s", what, k ? k : "?", buf);
	}
}

bool split_port(const char *text, struct span *host, uint64_t *port)
{
	struct span s = span_str(text);
	const char *colon = strrchr(text, ':');

	if (!colon || !span_u64(span_str(colon + 1), 65535, port))
		return false;
	*host = span_of(s.p, (size_t)(colon - s.p));
	if (host->n > 2 && host->p[0] == '[' && host->p[host->n - 1] == ']')
		*host = span_of(host->p + 1, host->n - 2);
	else if (memchr(host->p, ':', host->n))
		return false;
	return host->n > 0;
}

typedef void item_fn(struct reader *r, const yaml_node_t *item, void *row);

bool domain_key(struct reader *r, const yaml_node_t *at, const char *what, const char *text, struct snap_str *ret)
{
	char buf[ADDRESS_DOMAIN_MAX + 2];
	struct out o = out_of(buf, sizeof(buf));
	struct span s = span_str(text ? text : "");

	if (strcmp(what, "routes") == 0 && span_eq(s, SPAN("*"))) {
		*ret = model_add_str(r->m, s);
		return true;
	}
	if (strcmp(what, "routes") == 0 && s.n > 1 && s.p[0] == '.') {
		out_char(&o, '.');
		s = span_skip(s, 1);
	}
	if (address_domain_key(s, &o) != ST_OK) {
		complain(r->m, at, "%s: \"%s\" is not a domain; write for example cam.example", what, text ? text : "");
		*ret = model_add_str(r->m, SPAN(""));
		return false;
	}
	*ret = model_add_str(r->m, out_span(&o));
	return true;
}

static void row_domain(struct reader *r, const yaml_node_t *item, void *row)
{
	struct snap_domain *d = row;

	d->line = (uint32_t)item->start_mark.line + 1;
	domain_key(r, item, "local_domains", scalar(item), &d->name);
}

static void row_host(struct reader *r, const yaml_node_t *item, void *row)
{
	struct snap_host *h = row;
	struct span host = SPAN("");
	uint64_t port = 53;
	const char *text = scalar(item);
	uint8_t ip[16];

	if (!text || !split_port(text, &host, &port) || ip_parse(host, ip) != ST_OK) {
		complain(r->m, item, "dns.servers: \"%s\" is not an address with a port; write for example \"192.0.2.53:53\"", text ? text : "");
		host = SPAN("");
	}
	h->name = model_add_str(r->m, host);
	h->port = (uint32_t)port;
}

static void row_mechanism(struct reader *r, const yaml_node_t *item, void *row)
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

static void row_senders(struct reader *r, const yaml_node_t *item, void *row)
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

static const struct table {
	size_t off, size;
	item_fn *fn;
} table[] = {
	{ offsetof(struct snap_settings, listeners), sizeof(struct snap_listener), row_listener },
	{ offsetof(struct snap_settings, relay_nets), sizeof(struct snap_net), row_net },
	{ offsetof(struct snap_settings, domains), sizeof(struct snap_domain), row_domain },
	{ offsetof(struct snap_settings, routes), sizeof(struct snap_route), row_route },
	{ offsetof(struct snap_settings, dns_servers), sizeof(struct snap_host), row_host },
	{ offsetof(struct snap_settings, mail_domains), sizeof(struct snap_mail_domain), row_mail_domain },
	{ offsetof(struct snap_settings, balancers), sizeof(struct snap_range), row_balancer },
	{ offsetof(struct snap_settings, sources), sizeof(struct snap_range), row_source },
	{ offsetof(struct snap_settings, xclient_clients), sizeof(struct snap_range), row_xclient_client },
	{ offsetof(struct snap_settings, auth_mechs), sizeof(uint32_t), row_mechanism },
	{ offsetof(struct snap_settings, auth_senders), sizeof(struct snap_senders), row_senders },
	{ offsetof(struct snap_settings, tls_certs), sizeof(struct snap_cert), row_certificate },
	{ offsetof(struct snap_settings, policy_rules), sizeof(struct snap_policy), row_policy },
};

static struct model *sorting; /* qsort has no context; one thread */

static int by_name(const void *a, const void *b)
{
	const struct snap_str *x = a, *y = b;
	int c = memcmp(sorting->bytes + x->off, sorting->bytes + y->off, x->len < y->len ? x->len : y->len);

	return c ? c : x->len < y->len ? -1 : x->len > y->len;
}

void sort_by_name(struct model *m, void *rows, size_t n, size_t size)
{
	sorting = m;
	qsort(rows, n, size, by_name);
}

/* Sorts as the snapshot's readers search; equal names are an error. */
static void sort_table(struct reader *r, const struct table *t, char *rows, size_t n, const char *key, const yaml_node_t *at)
{
	sorting = r->m;
	if (t->fn != row_domain && t->fn != row_route && t->fn != row_mail_domain && t->fn != row_senders)
		return;
	sort_by_name(r->m, rows, n, t->size);
	for (size_t i = 1; i < n; i++) {
		const struct snap_str *s = (const struct snap_str *)(const void *)(rows + i * t->size);

		if (s->len && by_name(rows + (i - 1) * t->size, s) == 0)
			complain(r->m, at, "%s: \"%s\" is there twice", key, r->m->bytes + s->off);
	}
}

static void set_table(struct reader *r, const struct schema_row *row, const yaml_node_t *node)
{
	const struct table *t = table;
	struct snap_list list;
	char *rows;
	size_t n;

	while (t->off != row->off)
		t++;
	if (node->type != YAML_SEQUENCE_NODE) {
		complain(r->m, node, "%s is a list; write for example %s: [ ... ]", row->key, row->key);
		return;
	}
	n = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
	if (n > row->max) {
		complain(r->m, node, "%s: at most %llu entries", row->key, (unsigned long long)row->max);
		return;
	}
	rows = calloc(n + 1, t->size);
	CHECK(rows);
	for (size_t i = 0; i < n; i++)
		t->fn(r, yaml_document_get_node(r->doc, node->data.sequence.items.start[i]), rows + i * t->size);
	sort_table(r, t, rows, n, row->key, node);
	list = model_add_list(r->m, rows, n, t->size);
	memcpy((char *)model_settings(r->m) + row->off, &list, sizeof(list));
	free(rows);
}

/* ---- the whole ---- */

static bool is_group(const char *path)
{
	size_t n = strlen(path);

	for (size_t i = 0; i < schema_rows; i++)
		if (strncmp(schema[i].key, path, n) == 0 && schema[i].key[n] == '.')
			return true;
	return false;
}

static void walk(struct reader *r, const yaml_node_t *map, const char *prefix)
{
	for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
		const yaml_node_t *kn = yaml_document_get_node(r->doc, p->key), *v = yaml_document_get_node(r->doc, p->value);
		const char *k = scalar(kn);
		const struct schema_row *row;
		char path[128];

		snprintf(path, sizeof(path), "%s%s%s", prefix, *prefix ? "." : "", k ? k : "?");
		row = schema_find(span_str(path));
		if (!row && v->type == YAML_MAPPING_NODE && is_group(path)) {
			walk(r, v, path);
			continue;
		}
		if (!row) {
			unknown_key(r->m, kn, path);
			continue;
		}
		if (r->seen[row - schema])
			complain(r->m, kn, "%s is there twice", path);
		r->seen[row - schema] = true;
		r->m->row_line[row - schema] = (uint32_t)kn->start_mark.line + 1;
		if (row->type == T_TABLE)
			set_table(r, row, v);
		else if (!scalar(v))
			complain(r->m, v, "%s has one value, not a list or a group", path);
		else
			set_scalar(r->m, v, row, scalar(v));
	}
}

static void read_stream(struct model *m, yaml_parser_t *p)
{
	yaml_document_t doc;
	bool seen[SCHEMA_ROWS_MAX] = { false };
	struct reader r = { .m = m, .doc = &doc, .seen = seen };
	yaml_node_t *root;

	CHECK(schema_rows <= SCHEMA_ROWS_MAX);
	if (!yaml_parser_load(p, &doc)) {
		m->errors++;
		fprintf(m->complain, "%s:%zu: not YAML: %s\n", m->file ? m->file : "(default)", p->problem_mark.line + 1, p->problem ? p->problem : "?");
		free(r.seen);
		return;
	}
	root = yaml_document_get_root_node(&doc);
	if (root && root->type == YAML_MAPPING_NODE)
		walk(&r, root, "");
	else if (root)
		complain(m, root, "the file is a list of KEY: VALUE");
	yaml_document_delete(&doc);
}

static void read_text(struct model *m, const char *text)
{
	yaml_parser_t p;

	CHECK(yaml_parser_initialize(&p));
	yaml_parser_set_input_string(&p, (const unsigned char *)text, strlen(text));
	read_stream(m, &p);
	yaml_parser_delete(&p);
}

static void read_file(struct model *m, const char *file)
{
	FILE *f = fopen(file, "r");
	yaml_parser_t p;

	if (!f) {
		m->errors++;
		fprintf(m->complain, "%s: %s\n", file, strerror(errno));
		return;
	}
	CHECK(yaml_parser_initialize(&p));
	yaml_parser_set_input_file(&p, f);
	read_stream(m, &p);
	yaml_parser_delete(&p);
	fclose(f);
}

static void defaults(struct model *m)
{
	for (size_t i = 0; i < schema_rows; i++) {
		char text[256];

		if (schema[i].type != T_TABLE) {
			set_scalar(m, NULL, &schema[i], schema[i].def);
			continue;
		}
		if (strchr(schema[i].key, '.'))
			snprintf(text, sizeof(text), "%.*s: {%s: %s}", (int)strcspn(schema[i].key, "."), schema[i].key,
				strchr(schema[i].key, '.') + 1, schema[i].def);
		else
			snprintf(text, sizeof(text), "%s: %s", schema[i].key, schema[i].def);
		read_text(m, text);
	}
}

static void default_str(struct model *m, size_t off, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void default_str(struct model *m, size_t off, const char *fmt, ...)
{
	struct snap_str *s = (struct snap_str *)(void *)((char *)model_settings(m) + off), made;
	char text[4096];
	va_list ap;

	if (s->len)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	made = model_add_str(m, span_str(text));
	memcpy((char *)model_settings(m) + off, &made, sizeof(made));
}

/* What follows from the machine and from other values. */
static void derive(struct model *m, const char *run_dir)
{
	char host[256] = "localhost", exe[4096] = "";
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	struct snap_settings *s = model_settings(m);

	gethostname(host, sizeof(host) - 1);
	if (readlink("/proc/self/exe", exe, sizeof(exe) - 1) > 0 && strrchr(exe, '/'))
		*strrchr(exe, '/') = '\0';
	s->workers = s->workers ? s->workers : cores > 0 ? (uint32_t)cores : 1;
	s->partitions = s->partitions ? s->partitions : s->workers;
	s->scanners = s->scanners ? s->scanners : cores > 0 ? (uint32_t)cores : 1;
	if (!s->arena_bytes) {
		s->arena_bytes = memory / 16;
		if (s->arena_bytes > 512ull << 20)
			s->arena_bytes = 512ull << 20;
	}
	default_str(m, offsetof(struct snap_settings, hostname), "%s", host);
	s = model_settings(m);
	default_str(m, offsetof(struct snap_settings, node), "%.*s", (int)strcspn(m->bytes + s->hostname.off, "."), m->bytes + s->hostname.off);
	default_str(m, offsetof(struct snap_settings, run_dir), "%s", run_dir);
	default_str(m, offsetof(struct snap_settings, spool_dir), "%s/spool", run_dir);
	default_str(m, offsetof(struct snap_settings, clients_dir), "%s/clients", run_dir);
	default_str(m, offsetof(struct snap_settings, managed_dir), "%s/domains", run_dir);
	default_str(m, offsetof(struct snap_settings, managed_exchangers), "%s", m->bytes + model_settings(m)->hostname.off);
	default_str(m, offsetof(struct snap_settings, auth_secret), "%s/auth-secret", run_dir);
	default_str(m, offsetof(struct snap_settings, redis), "unix:%s/redis.sock", run_dir);
	default_str(m, offsetof(struct snap_settings, signatures), "%s/signatures", exe);
	s = model_settings(m);
	if (!s->tls_cert.len && !s->tls_key.len && !s->tls_certs.n) {
		char cert[4096];

		snprintf(cert, sizeof(cert), "%s/tls-cert.pem", run_dir);
		if (access(cert, R_OK) == 0) {
			default_str(m, offsetof(struct snap_settings, tls_cert), "%s", cert);
			default_str(m, offsetof(struct snap_settings, tls_key), "%s/tls-key.pem", run_dir);
		}
	}
}

static void check_auth(struct model *m)
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

/* Each worker's device and addresses. */
static void check_dpdk(struct model *m)
{
	const struct snapshot s = { .h = (const struct snap_header *)(const void *)m->bytes, .bytes = m->n };
	struct snap_dpdk d;

	if (*WEIR_NO_DPDK)
		complain_line(m, key_line(m, "transport"), "transport: this build has no DPDK: %s", WEIR_NO_DPDK);
	for (uint32_t w = 0; w < s.h->settings.workers; w++)
		if (snap_dpdk(&s, w, &d) != ST_OK || snap_dpdk_listens(&s, &d) != ST_OK) {
			complain_line(m, key_line(m, "transport"), "%s (worker %u)", trail_text(), w);
			return;
		}
}

/* What single values cannot show. */
static void check_together(struct model *m)
{
	const struct snap_settings *s = model_settings(m);
	const char *host = m->bytes + s->hostname.off;

	if (!address_domain_ok(span_str(host), false))
		complain_line(m, key_line(m, "hostname"), "hostname: \"%s\" is not a host name", host);
	if (!s->listeners.n)
		complain_line(m, key_line(m, "listen"), "listen: at least one address is needed");
	listeners_together(m);
	check_auth(m);
	verify_together(m);
	if (s->spill_bytes > s->segment_bytes / 4)
		complain_line(m, key_line(m, "spool.spill"), "spool.spill must be at most a quarter of spool.segment");
	if (s->retry_first_ns > s->retry_max_ns)
		complain_line(m, key_line(m, "delivery.retry_first"), "delivery.retry_first must not be longer than delivery.retry_max");
	if (s->transport) /* not io_uring */
		check_dpdk(m);
	if (s->postmaster.len) {
		struct address a;

		if (address_parse(span_str(m->bytes + s->postmaster.off), 0, &a) != ST_OK)
			complain_line(m, key_line(m, "postmaster"), "postmaster: \"%s\" is not an address: %s", m->bytes + s->postmaster.off, trail_text());
	}
}

void model_seal(struct model *m, uint64_t generation)
{
	struct snap_header *h = (struct snap_header *)(void *)m->bytes;

	h->magic = SNAPSHOT_MAGIC;
	h->version = SNAPSHOT_VERSION;
	h->settings_size = sizeof(struct snap_settings);
	h->bytes = m->n;
	h->generation = generation;
	h->made_wall_ns = clock_wall_ns();
	h->checksum = XXH3_64bits(m->bytes + offsetof(struct snap_header, generation), m->n - offsetof(struct snap_header, generation));
}

bool model_read(struct model *m, const char *file, const char *run_dir, uint64_t generation, FILE *out)
{
	*m = (struct model){ .complain = out };
	append(m, &(struct snap_header){ 0 }, sizeof(struct snap_header));
	default_str(m, offsetof(struct snap_settings, run_dir), "%s", run_dir);
	defaults(m);
	m->file = file;
	if (file)
		read_file(m, file);
	mail_domains_together(m);
	policy_together(m);
	derive(m, run_dir);
	default_str(m, offsetof(struct snap_settings, config_file), "%s", file ? file : "");
	terms_together(m);
	default_str(m, offsetof(struct snap_settings, config_file), "%s", file ? file : "");
	tls_together(m);
	client_certs_together(m);
	check_together(m);
	nets_together(m);
	registry_together(m);
	model_seal(m, generation);
	return m->errors == 0;
}

enum status model_publish(struct model *m, const char *run_dir)
{
	char path[4096], temp[4096];
	int fd;
	bool ok;

	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	snprintf(temp, sizeof(temp), "%s/snapshot.new", run_dir);
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	if (fd < 0)
		return trail_errno(errno, "%s", temp);
	ok = write(fd, m->bytes, m->n) == (ssize_t)m->n && fsync(fd) == 0;
	close(fd);
	if (!ok || rename(temp, path) < 0)
		return trail_errno(errno, "%s", path);
	return ST_OK;
}
