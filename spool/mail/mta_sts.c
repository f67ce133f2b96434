#include "spool/mail/mta_sts.h"

#include "spool/mail/address.h"

static const char *const mode_name[] = { [MTA_STS_NONE] = "none", [MTA_STS_TESTING] = "testing", [MTA_STS_ENFORCE] = "enforce" };

const char *mta_sts_mode_name(enum mta_sts_mode m)
{
	return mode_name[m];
}

/* ---- the TXT record ---- */

static bool id_ok(struct span id)
{
	if (!id.n || id.n > MTA_STS_ID_MAX)
		return false;
	for (size_t i = 0; i < id.n; i++)
		if (!((id.p[i] >= '0' && id.p[i] <= '9') || ((id.p[i] | 32) >= 'a' && (id.p[i] | 32) <= 'z')))
			return false;
	return true;
}

enum status mta_sts_record(struct span txt, struct span *ret_id)
{
	struct span rest = txt, first = span_trim(span_cut(&rest, ';'));

	if (!span_eq(first, SPAN("v=STSv1")))
		return ST_NOT_FOUND;
	while (rest.n) {
		struct span value = span_trim(span_cut(&rest, ';'));
		struct span key = span_trim(span_cut(&value, '='));

		if (!span_eq(key, SPAN("id")))
			continue;
		*ret_id = span_trim(value);
		return id_ok(*ret_id) ? ST_OK : trail(ST_INVALID, "the id of the _mta-sts record is not one to 32 letters and digits");
	}
	return trail(ST_INVALID, "the _mta-sts record has no id");
}

/* ---- the policy ---- */

static bool pattern_ok(struct span mx)
{
	struct span name = mx.n > 2 && mx.p[0] == '*' && mx.p[1] == '.' ? span_skip(mx, 2) : mx;

	return address_domain_ok(name, false);
}

static enum status take_mx(struct mta_sts_policy *p, struct span value)
{
	if (!pattern_ok(value))
		return trail(ST_INVALID, "a mx of the policy is not a host name");
	if (p->nmx == MTA_STS_MX_MAX)
		return trail(ST_INVALID, "the policy has more than %d mx", MTA_STS_MX_MAX);
	p->mx[p->nmx++] = value;
	return ST_OK;
}

enum { SEEN_VERSION = 1, SEEN_MODE = 2, SEEN_AGE = 4, SEEN_ALL = 7 };

/* A field that may be there once: true when it is its first time. */
static bool once(struct span key, const char *name, unsigned bit, unsigned *seen)
{
	if (!span_eq(key, span_str(name)) || (*seen & bit))
		return false;
	*seen |= bit;
	return true;
}

static enum status take_field(struct mta_sts_policy *p, struct span key, struct span value, unsigned *seen)
{
	uint64_t age;

	if (span_eq(key, SPAN("mx")))
		return take_mx(p, value);
	if (once(key, "version", SEEN_VERSION, seen))
		return span_eq(value, SPAN("STSv1")) ? ST_OK : trail(ST_INVALID, "the policy's version is not STSv1");
	if (once(key, "mode", SEEN_MODE, seen)) {
		for (unsigned i = MTA_STS_NONE; i <= MTA_STS_ENFORCE; i++)
			if (span_eq(value, span_str(mode_name[i]))) {
				p->mode = (enum mta_sts_mode)i;
				return ST_OK;
			}
		return trail(ST_INVALID, "the policy's mode is not enforce, testing or none");
	}
	if (once(key, "max_age", SEEN_AGE, seen)) {
		if (value.n > 10 || !span_u64(value, UINT64_MAX, &age))
			return trail(ST_INVALID, "the policy's max_age is not a number");
		p->max_age_s = age > MTA_STS_AGE_MAX_S ? MTA_STS_AGE_MAX_S : (uint32_t)age;
	}
	return ST_OK;
}

enum status mta_sts_parse(struct span text, struct mta_sts_policy *ret)
{
	unsigned seen = 0;

	ret->mode = MTA_STS_NONE;
	ret->max_age_s = ret->nmx = 0;
	if (text.n > MTA_STS_TEXT_MAX)
		return trail(ST_INVALID, "the policy is longer than %d octets", MTA_STS_TEXT_MAX);
	while (text.n) {
		struct span value = span_cut(&text, '\n'), key;
		enum status st;

		if (value.n && value.p[value.n - 1] == '\r')
			value.n--;
		if (!span_trim(value).n)
			continue;
		key = span_cut(&value, ':');
		if (!value.p)
			return trail(ST_INVALID, "a line of the policy is not KEY: VALUE");
		st = take_field(ret, key, span_trim(value), &seen);
		if (st != ST_OK)
			return st;
	}
	if (seen != SEEN_ALL)
		return trail(ST_INVALID, "the policy lacks %s",
			!(seen & SEEN_VERSION) ? "version" : !(seen & SEEN_MODE) ? "mode" : "max_age");
	if (!ret->nmx && ret->mode != MTA_STS_NONE)
		return trail(ST_INVALID, "the policy has no mx");
	return ST_OK;
}

void mta_sts_write(const struct mta_sts_policy *p, struct out *o)
{
	out_fmt(o, "version: STSv1\nmode: %s\n", mode_name[p->mode]);
	for (uint32_t i = 0; i < p->nmx; i++) {
		out_str(o, "mx: ");
		out_add(o, p->mx[i]);
		out_char(o, '\n');
	}
	out_fmt(o, "max_age: %u\n", p->max_age_s);
}

bool mta_sts_matches(const struct mta_sts_policy *p, struct span mx)
{
	struct span rest = mx;

	if (mx.n && mx.p[mx.n - 1] == '.')
		mx.n--;
	rest = mx;
	span_cut(&rest, '.');
	for (uint32_t i = 0; i < p->nmx; i++) {
		struct span m = p->mx[i];

		if (m.p[0] == '*' ? rest.n && span_eq_nocase(span_skip(m, 2), rest) : span_eq_nocase(m, mx))
			return true;
	}
	return false;
}
