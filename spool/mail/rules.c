#include "spool/mail/rules.h"

#define ALLOW(mode) (1u << POLICY_##mode)
#define ALLOW_ALL (ALLOW(OFF) | ALLOW(MONITOR) | ALLOW(TAG) | ALLOW(HOLD) | ALLOW(DEFER) | ALLOW(REJECT))

const struct rule_row rule_row[RULE_NRULE] = {
#define RULE(id, name_, row_, allowed_, robust, fragile, submission, mx, guarantee_, codes_, title_, cause_, cure_)                        \
	[RULE_##id] = { .name = name_,                                                                                              \
		.row = row_,                                                                                                        \
		.allowed = allowed_,                                                                                                \
		.mode = { [CLASS_ROBUST] = POLICY_##robust, [CLASS_FRAGILE] = POLICY_##fragile, [CLASS_SUBMISSION] = POLICY_##submission,   \
			[CLASS_MX] = POLICY_##mx },                                                                                 \
		.guarantee = GUARANTEE_##guarantee_,                                                                                \
		.codes = codes_,                                                                                                    \
		.title = title_,                                                                                                    \
		.cause = cause_,                                                                                                    \
		.cure = cure_ },
#include "spool/mail/rules.def"
#undef RULE
};

const uint8_t rule_postmaster[RULE_NRULE] = { [RULE_CLIENT_DNS] = POLICY_TAG, [RULE_SENDER_DOMAIN] = POLICY_TAG, [RULE_SENDER_HOST_NAME] = POLICY_TAG,
	[RULE_SENDER_UNKNOWN] = POLICY_TAG, [RULE_HEADER_FROM] = POLICY_TAG, [RULE_DICTIONARY] = POLICY_MONITOR, [RULE_MALWARE] = POLICY_HOLD };

const char *const policy_mode_words[] = { [POLICY_OFF] = "off", [POLICY_MONITOR] = "monitor", [POLICY_TAG] = "tag", [POLICY_HOLD] = "hold",
	[POLICY_DEFER] = "defer", [POLICY_REJECT] = "reject", NULL };
const char *const class_words[] = { [CLASS_MX] = "mx", [CLASS_ROBUST] = "robust", [CLASS_FRAGILE] = "fragile", [CLASS_SUBMISSION] = "submission", NULL };

enum rule rule_find(struct span name)
{
	for (unsigned r = 0; r < RULE_NRULE; r++)
		if (span_eq_nocase(name, span_str(rule_row[r].name)))
			return (enum rule)r;
	return RULE_NRULE;
}

/* A mode may turn 5.x.y into 4.x.y, and the other way. */
static bool same_code(struct span code, struct span text)
{
	return code.n == text.n && code.n > 2 && (text.p[0] == '4' || text.p[0] == '5') && span_eq(span_skip(code, 1), span_skip(text, 1));
}

bool rule_is_meant(enum rule r, struct span text)
{
	struct span codes = span_str(rule_row[r].codes);

	if (span_eq_nocase(text, span_str(rule_row[r].name)) || span_eq_nocase(text, span_str(rule_row[r].row)))
		return true;
	while (codes.n)
		if (same_code(span_cut(&codes, ' '), text))
			return true;
	return false;
}
