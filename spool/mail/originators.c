#include "spool/mail/originators.h"

#include <stdio.h>
#include "spool/mail/header.h"

const char *const origin_field_name[ORIGIN_NFIELD] = { [ORIGIN_FROM] = "From", [ORIGIN_SENDER] = "Sender", [ORIGIN_REPLY_TO] = "Reply-To" };

struct list {
	struct originators *r;
	enum origin_field field;
	struct span rest;
	bool in_group;
};

static bool bad(struct list *l, const char *what)
{
	l->r->bad_field = l->field;
	snprintf(l->r->bad, sizeof(l->r->bad), "%s", what);
	return false;
}

/* ---- pieces (RFC 5322 3.2) ---- */

static char next(const struct list *l)
{
	return l->rest.n ? l->rest.p[0] : '\0'; /* a message has no NUL */
}

static void pass(struct list *l)
{
	l->rest = span_skip(l->rest, 1);
}

static bool skip_comment(struct list *l)
{
	size_t depth = 0;

	do {
		char c = next(l);

		if (!l->rest.n)
			return bad(l, "a comment has no end");
		if (c == '\\')
			pass(l);
		depth += c == '(';
		depth -= c == ')';
		pass(l);
	} while (depth);
	return true;
}

/* Comments and white space, folds included. */
static bool skip_space(struct list *l)
{
	while (l->rest.n) {
		char c = next(l);

		if (c == '(') {
			if (!skip_comment(l))
				return false;
		} else if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
			pass(l);
		} else {
			break;
		}
	}
	return true;
}

static bool is_atom(char c)
{
	return (unsigned char)c > ' ' && c != 0x7f && !strchr("()<>[]:;@\\,.\"", c);
}

/* With its quotes, without the folds in it. */
static bool take_quoted(struct list *l, struct out *o)
{
	out_char(o, '"');
	for (pass(l); l->rest.n && next(l) != '"'; pass(l)) {
		if (next(l) == '\\' && l->rest.n > 1) {
			out_char(o, '\\');
			pass(l);
		}
		if (next(l) != '\r' && next(l) != '\n')
			out_char(o, next(l));
	}
	if (!l->rest.n)
		return bad(l, "a quoted string has no end");
	out_char(o, '"');
	pass(l);
	return true;
}

/* Words and dots, up to what is neither; o gets them without what is between them. spaced: two words have no dot between them: it is a phrase, and no part of an address. */
static bool take_words(struct list *l, struct out *o, bool *spaced)
{
	bool after_word = false;

	*spaced = false;
	while (skip_space(l)) {
		char c = next(l);

		if (l->rest.n && c == '.') {
			after_word = false;
			out_char(o, c);
			pass(l);
			continue;
		}
		if (!l->rest.n || !(c == '"' || is_atom(c)))
			return true;
		*spaced = *spaced || after_word;
		after_word = true;
		if (c == '"' && !take_quoted(l, o))
			return false;
		for (; c != '"' && l->rest.n && is_atom(next(l)); pass(l))
			out_char(o, next(l));
	}
	return false;
}

static bool take_domain(struct list *l, struct out *o)
{
	bool spaced;

	if (!skip_space(l))
		return false;
	if (next(l) != '[')
		return take_words(l, o, &spaced) && (!spaced || bad(l, "there are two words in a domain"));
	for (; l->rest.n && next(l) != ']'; pass(l))
		out_char(o, next(l));
	if (!l->rest.n)
		return bad(l, "an address literal has no end");
	out_char(o, ']');
	pass(l);
	return skip_space(l);
}

/* ---- addresses (RFC 5322 3.4) ---- */

/* Keeps an address whose local part is in `o` and whose domain begins behind the @. */
static bool take_address(struct list *l, struct out *o)
{
	struct originators *r = l->r;
	struct originator *item = &r->item[r->n];
	struct span text;

	pass(l);
	out_char(o, '@');
	if (!take_domain(l, o))
		return false;
	if (r->n == ORIGINATORS_MAX || o->n > sizeof(r->text) - r->text_len)
		return bad(l, "there are too many addresses");
	if (o->over)
		return bad(l, "an address is too long");
	text = span_of(memcpy(r->text + r->text_len, o->p, o->n), o->n);
	r->text_len += o->n;
	item->field = l->field;
	if (address_parse(text, ADDRESS_UTF8, &item->a) != ST_OK)
		return bad(l, trail_text());
	r->n++;
	r->nfrom += l->field == ORIGIN_FROM;
	return true;
}

/* "@one,@two:" (obs-route). */
static bool skip_route(struct list *l)
{
	while (l->rest.n && next(l) != ':' && next(l) != '>')
		pass(l);
	if (next(l) != ':')
		return bad(l, "a source route has no end");
	pass(l);
	return true;
}

static bool take_angle(struct list *l)
{
	char buf[ADDRESS_MAX * 2];
	struct out o = out_of(buf, sizeof(buf));
	bool spaced;

	pass(l);
	if (!skip_space(l) || (next(l) == '@' && !skip_route(l)) || !take_words(l, &o, &spaced))
		return false;
	if (next(l) != '@' || spaced)
		return bad(l, "there is no address in <>");
	if (!take_address(l, &o))
		return false;
	if (next(l) != '>')
		return bad(l, "> is missing behind an address");
	pass(l);
	return true;
}

/* One address, one group's begin or end, or nothing between two commas; and the comma behind it. False: the rest is not read. */
static bool take_element(struct list *l)
{
	char buf[ADDRESS_MAX * 2];
	struct out o = out_of(buf, sizeof(buf));
	bool spaced;

	if (!take_words(l, &o, &spaced))
		return false;
	if (next(l) == '<') {
		if (!take_angle(l))
			return false;
	} else if (next(l) == '@') {
		if (spaced)
			return bad(l, "there are words before an address that is not in <>");
		if (!take_address(l, &o))
			return false;
	} else if (next(l) == ':' && o.n && !l->in_group) {
		l->in_group = true;
		pass(l);
		return true;
	} else if (o.n) {
		return bad(l, "there is a name without an address");
	}
	if (!skip_space(l))
		return false;
	if (next(l) == ';' && l->in_group) {
		l->in_group = false;
		pass(l);
		if (!skip_space(l))
			return false;
	}
	if (l->rest.n && next(l) != ',' && !(l->in_group && next(l) == ';'))
		return bad(l, "there is something behind an address that does not belong there");
	if (next(l) == ',')
		pass(l);
	return true;
}

static void read_list(struct originators *r, enum origin_field field, struct span value)
{
	struct list l = { .r = r, .field = field, .rest = value };
	uint32_t before = r->n;

	while (l.rest.n)
		if (!take_element(&l))
			return;
	if (l.in_group)
		bad(&l, "a group has no end");
	else if (r->n != before + 1 && field == ORIGIN_SENDER)
		bad(&l, "it is not one address");
}

static bool is_field(struct span name, enum origin_field *ret)
{
	for (unsigned f = 0; f < ORIGIN_NFIELD; f++)
		if (span_eq_nocase(name, span_str(origin_field_name[f]))) {
			*ret = (enum origin_field)f;
			return true;
		}
	return false;
}

void originators_read(struct span head, bool all, struct originators *ret)
{
	struct span name, value;
	enum origin_field f;

	memset(ret, 0, offsetof(struct originators, text));
	head = header_fields(head);
	while (header_next(&head, &name, &value)) {
		ret->is_cut = !head.n && !all;
		if (!is_field(name, &f) || ret->is_cut)
			continue;
		ret->nfield[f]++;
		if (!*ret->bad)
			read_list(ret, f, value);
	}
	ret->is_cut = ret->is_cut || (!all && !memchr(head.p, '\n', head.n));
}
