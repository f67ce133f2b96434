#include "spool/mail/known.h"

static const char version[] = "W1";
static const char *const name[KNOWN_NKIND] = { [KNOWN_NOTHING] = "nothing", [KNOWN_YES] = "yes", [KNOWN_NO] = "no", [KNOWN_ALL] = "all",
	[KNOWN_MUTE] = "mute", [KNOWN_FORGET] = "forget" };

/* 2100: a time beyond it is nobody's clock. */
#define MS_MAX 4102444800000ull

const char *known_name(enum known_kind kind)
{
	return name[kind];
}

void known_write(const struct known *k, struct out *o)
{
	struct span text = reply_text(&k->reply);
	char status[12];

	out_fmt(o, "%s %s %llu %llu %u", version, name[k->kind], (unsigned long long)k->at_ms, (unsigned long long)k->tried_ms, k->reply.code);
	if (!k->reply.code)
		return;
	out_char(o, ' ');
	out_str(o, k->reply.enhanced[0] == k->reply.code / 100 ? reply_status(&k->reply, status) : "-");
	out_char(o, ' ');
	out_add(o, span_of(text.p, text.n > KNOWN_TEXT_MAX ? KNOWN_TEXT_MAX : text.n));
}

static bool find_kind(struct span word, enum known_kind *ret)
{
	for (enum known_kind k = 0; k < KNOWN_NKIND; k++)
		if (span_eq(word, span_str(name[k]))) {
			*ret = k;
			return true;
		}
	return false;
}

/* Code, enhanced code or "-", text. */
static bool parse_reply(struct span rest, uint64_t code, struct reply *r)
{
	struct span enhanced = span_cut(&rest, ' ');
	bool none = span_eq(enhanced, SPAN("-"));
	char line[16 + KNOWN_TEXT_MAX];
	struct out o = out_of(line, sizeof(line));

	if (!rest.p || rest.n > KNOWN_TEXT_MAX || code < 200)
		return false;
	for (size_t i = 0; i < rest.n; i++)
		if ((rest.p[i] < ' ' || rest.p[i] > '~') && rest.p[i] != '\n')
			return false;
	reply_set(r, (unsigned)code, NULL, "%.*s", SPAN_FMT(rest));
	if (none)
		return true;
	/* the same reader as for the remote's own words */
	*r = (struct reply){ .code = (uint16_t)code };
	out_add(&o, enhanced);
	reply_add_line(r, out_span(&o), true);
	if (o.over || r->text_len || !r->enhanced[0])
		return false;
	memcpy(r->text, rest.p, rest.n);
	r->text_len = (uint16_t)rest.n;
	return true;
}

/* A kind goes with its reply, or the record was not made by us. */
static bool makes_sense(const struct known *k)
{
	switch (k->kind) {
	case KNOWN_NO:
	case KNOWN_MUTE:
		return k->at_ms && reply_is_permanent(&k->reply);
	case KNOWN_YES:
		return k->at_ms && (k->tried_ms != 0) == (k->reply.code != 0) && !reply_is_permanent(&k->reply);
	case KNOWN_ALL:
	case KNOWN_FORGET:
		return k->at_ms && !k->reply.code && !k->tried_ms;
	case KNOWN_NOTHING:
		return k->tried_ms && reply_is_temporary(&k->reply);
	case KNOWN_NKIND:
		break;
	}
	return false;
}

enum status known_parse(struct span s, struct known *ret)
{
	struct known k = { 0 };
	struct span word = span_cut(&s, ' ');
	uint64_t code;
	bool ok;

	*ret = (struct known){ 0 };
	if (!span_eq(word, SPAN("W1")))
		return word.n >= 2 && word.p[0] == 'W' ? ST_UNSUPPORTED : ST_CORRUPT;
	ok = find_kind(span_cut(&s, ' '), &k.kind) && span_u64(span_cut(&s, ' '), MS_MAX, &k.at_ms) && span_u64(span_cut(&s, ' '), MS_MAX, &k.tried_ms) &&
		span_u64(span_cut(&s, ' '), 599, &code);
	if (ok && code)
		ok = parse_reply(s, code, &k.reply);
	else if (ok)
		ok = s.p == NULL;
	if (!ok || !makes_sense(&k))
		return ST_CORRUPT;
	*ret = k;
	return ST_OK;
}
