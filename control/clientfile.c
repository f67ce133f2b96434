#include "control/clientfile.h"

#include <stdlib.h>
#include "control/when.h"
#include "spool/base/clock.h"
#include "spool/base/log.h"
#include "spool/mail/address.h"
#include "spool/mail/rules.h"

enum { ERRORS_SHOWN = 100, CLIENT_CONNS_MAX = 100000 };

/* ---- one line ---- */

static enum status set_text(char *to, size_t most, struct span key, struct span value)
{
	if (value.n > most)
		return trail(ST_INVALID, "%.*s has at most %zu characters", SPAN_FMT(key), most);
	if (memchr(value.p, '\0', value.n) || memchr(value.p, '\n', value.n) || memchr(value.p, '\r', value.n))
		return trail(ST_INVALID, "%.*s is one line of text", SPAN_FMT(key));
	memcpy(to, value.p, value.n);
	to[value.n] = '\0';
	return ST_OK;
}

static enum status set_class(struct client_entry *e, struct span value)
{
	if (span_eq_nocase(value, SPAN("robust")))
		e->class_ = CLASS_ROBUST;
	else if (span_eq_nocase(value, SPAN("fragile")))
		e->class_ = CLASS_FRAGILE;
	else
		return trail(ST_INVALID, "class \"%.*s\" is not possible; write robust or fragile", SPAN_FMT(value));
	return ST_OK;
}

static enum status set_rate(struct client_entry *e, struct span value)
{
	uint64_t n;

	if (span_eq_nocase(value, SPAN("none")))
		e->rate = 0;
	else if (span_eq_nocase(value, SPAN("default")))
		e->rate = -1;
	else if (span_u64(value, 1000000000, &n) && n)
		e->rate = (double)n;
	else
		return trail(ST_INVALID, "rate \"%.*s\" is not possible; write a number of messages, none or default", SPAN_FMT(value));
	return ST_OK;
}

bool client_conns_parse(struct span value, uint32_t *ret)
{
	uint64_t n = 0;

	if (span_eq_nocase(value, SPAN("none")))
		n = UINT32_MAX;
	else if (!span_eq_nocase(value, SPAN("default")) && (!span_u64(value, CLIENT_CONNS_MAX, &n) || !n))
		return false;
	*ret = (uint32_t)n;
	return true;
}

static enum status set_conns(struct client_entry *e, struct span value)
{
	if (client_conns_parse(value, &e->conns))
		return ST_OK;
	return trail(ST_INVALID, "connections \"%.*s\" is not possible; write a number of connections, none or default", SPAN_FMT(value));
}

static enum status set_expiry(struct client_entry *e, struct span value)
{
	char text[40];
	uint64_t ns;

	if (span_eq_nocase(value, SPAN("never"))) {
		e->expires_s = 0;
		return ST_OK;
	}
	snprintf(text, sizeof(text), "%.*s", SPAN_FMT(value));
	/* "now" and "2h" would be another time with each reading */
	if (value.n >= sizeof(text) || !strchr(text, '-') || !when_parse(text, &ns) || !ns)
		return trail(ST_INVALID, "expires \"%.*s\" is not a day; write for example 2027-01-31, 2027-01-31T12:00Z or never", SPAN_FMT(value));
	e->expires_s = ns / NS_PER_S;
	return ST_OK;
}

enum status client_set(struct client_entry *e, struct span key, struct span value)
{
	if (span_eq(key, SPAN("class")))
		return set_class(e, value);
	if (span_eq(key, SPAN("rate")))
		return set_rate(e, value);
	if (span_eq(key, SPAN("connections")))
		return set_conns(e, value);
	if (span_eq(key, SPAN("expires")))
		return set_expiry(e, value);
	if (span_eq(key, SPAN("owner")))
		return set_text(e->owner, CLIENT_OWNER_MAX, key, value);
	if (span_eq(key, SPAN("note")))
		return set_text(e->note, CLIENT_NOTE_MAX, key, value);
	return trail(ST_INVALID, "unknown key \"%.*s\"; there are class, owner, rate, connections, expires and note", SPAN_FMT(key));
}

/* Of a key that there is. */
static unsigned bit_of(struct span key)
{
	static const char *const keys[] = { "class", "owner", "rate", "connections", "expires", "note" };
	unsigned i = 0;

	while (!span_eq(key, span_str(keys[i])))
		i++;
	return 1u << i;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

static struct span trimmed(struct span s)
{
	while (s.n && is_space(s.p[0]))
		s = span_skip(s, 1);
	while (s.n && (is_space(s.p[s.n - 1]) || s.p[s.n - 1] == '\r'))
		s.n--;
	return s;
}

enum status client_parse(struct span line, struct client_entry *ret)
{
	struct span rest = trimmed(line), net, key, value, before;
	char buf[CLIENT_LINE_MAX];
	unsigned seen = 0;

	*ret = (struct client_entry){ .class_ = CLASS_ROBUST, .rate = -1 };
	if (rest.n > CLIENT_LINE_MAX)
		return trail(ST_INVALID, "the line is too long");
	net = span_cut(&rest, ' ');
	if (net_parse(net, ret->ip, &ret->prefix) != ST_OK)
		return trail(ST_INVALID, "\"%.*s\" is not a network; write for example 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32", SPAN_FMT(net));
	net_mask(ret->ip, ret->prefix, ret->ip);
	while (before = trimmed(rest), row_next(&rest, &key, &value, buf, sizeof(buf))) {
		enum status st = client_set(ret, key, value);
		unsigned bit;

		if (st != ST_OK)
			return st;
		bit = bit_of(key);
		if (seen & bit)
			return trail(ST_INVALID, "%.*s is there twice", SPAN_FMT(key));
		seen |= bit;
	}
	return before.n ? trail(ST_INVALID, "\"%.*s\" is not KEY=VALUE; a value with spaces is in quotation marks", SPAN_FMT(before)) : ST_OK;
}

void client_net_write(const uint8_t ip[16], unsigned prefix, struct out *o)
{
	static const uint8_t v4[12] = { [10] = 0xff, [11] = 0xff };
	bool is_v4 = prefix >= 96 && memcmp(ip, v4, sizeof(v4)) == 0;

	ip_write(ip, o);
	if (prefix < 128)
		out_fmt(o, "/%u", is_v4 ? prefix - 96 : prefix);
}

void client_write(const struct client_entry *e, struct out *o)
{
	struct logline row;

	client_net_write(e->ip, e->prefix, o);
	row_begin(&row);
	log_str(&row, "class", class_words[e->class_]);
	if (*e->owner)
		log_str(&row, "owner", e->owner);
	if (e->rate == 0)
		log_str(&row, "rate", "none");
	if (e->rate > 0)
		log_f(&row, "rate", "%.0f", e->rate);
	if (e->conns == UINT32_MAX)
		log_str(&row, "connections", "none");
	else if (e->conns)
		log_u64(&row, "connections", e->conns);
	if (e->expires_s)
		log_str(&row, "expires", when_text(e->expires_s * NS_PER_S));
	if (*e->note)
		log_str(&row, "note", e->note);
	out_char(o, ' ');
	out_add(o, row_text(&row));
}

/* ---- all of them ---- */

static int by_net(const void *a, const void *b)
{
	const struct client_entry *x = a, *y = b;

	return x->prefix != y->prefix ? (x->prefix > y->prefix ? -1 : 1) : memcmp(x->ip, y->ip, 16);
}

static int by_net_and_line(const void *a, const void *b)
{
	const struct client_entry *x = a, *y = b;
	int c = by_net(x, y);

	return c ? c : (x->line > y->line) - (x->line < y->line);
}

static bool shown(struct client_entries *c)
{
	return ++c->wrong <= ERRORS_SHOWN;
}

static void append(struct client_entries *c, const struct client_entry *e)
{
	if ((c->n & (c->n - 1)) == 0) { /* it is full at every power of two */
		c->row = realloc(c->row, (c->n ? c->n * 2 : 1) * sizeof(*c->row));
		CHECK(c->row);
	}
	c->row[c->n++] = *e;
}

void client_entries_read(struct client_entries *c, struct span text, const char *name, FILE *complain)
{
	*c = (struct client_entries){ 0 };
	for (unsigned line = 1; text.n; line++) {
		struct span s = trimmed(span_cut(&text, '\n'));
		struct client_entry e;

		if (!s.n || s.p[0] == '#')
			continue;
		if (client_parse(s, &e) == ST_OK) {
			e.line = line;
			append(c, &e);
		} else if (shown(c)) {
			fprintf(complain, "%s:%u: %s\n", name, line, trail_text());
		}
	}
	if (c->n)
		qsort(c->row, c->n, sizeof(*c->row), by_net_and_line);
	for (size_t i = 1; i < c->n; i++) {
		char net[CLIENT_NET_TEXT];
		struct out o = out_of(net, sizeof(net));

		client_net_write(c->row[i].ip, c->row[i].prefix, &o);
		if (by_net(&c->row[i], &c->row[i - 1]) == 0 && shown(c))
			fprintf(complain, "%s:%u: %.*s is there already (line %u)\n", name, c->row[i].line, SPAN_FMT(out_span(&o)), c->row[i - 1].line);
	}
	if (c->wrong > ERRORS_SHOWN)
		fprintf(complain, "and %u more errors\n", c->wrong - ERRORS_SHOWN);
}

void client_entries_free(struct client_entries *c)
{
	free(c->row);
	*c = (struct client_entries){ 0 };
}

struct client_entry *client_entries_find(const struct client_entries *c, const uint8_t ip[16], unsigned prefix)
{
	struct client_entry wanted = { .prefix = prefix };

	memcpy(wanted.ip, ip, 16);
	return c->n ? bsearch(&wanted, c->row, c->n, sizeof(*c->row), by_net) : NULL;
}

void client_entries_put(struct client_entries *c, const struct client_entry *e)
{
	struct client_entry *old = client_entries_find(c, e->ip, e->prefix);

	if (old) {
		*old = *e;
		return;
	}
	append(c, e);
	qsort(c->row, c->n, sizeof(*c->row), by_net);
}

void client_entries_drop(struct client_entries *c, struct client_entry *e)
{
	size_t i = (size_t)(e - c->row);

	memmove(e, e + 1, (c->n - i - 1) * sizeof(*e));
	c->n--;
}

char *client_entries_text(const struct client_entries *c, size_t *ret_n)
{
	char *text = NULL, line[CLIENT_LINE_MAX * 2];
	FILE *f = open_memstream(&text, ret_n);

	CHECK(f);
	for (size_t i = 0; i < c->n; i++) {
		struct out o = out_of(line, sizeof(line));

		client_write(&c->row[i], &o);
		fprintf(f, "%.*s\n", SPAN_FMT(out_span(&o)));
	}
	fclose(f);
	return text;
}
