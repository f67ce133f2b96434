#include "control/codes.h"

#include <jansson.h>
#include <stdio.h>
#include "spool/mail/rules.h"
#include "spool/store/snapshot.h"

static const enum snap_class order[] = { CLASS_ROBUST, CLASS_FRAGILE, CLASS_SUBMISSION, CLASS_MX };

static enum policy_mode mode_of(const struct snapshot *s, enum rule r, enum snap_class class)
{
	return s->h ? snap_policy_mode(s, r, class) : (enum policy_mode)rule_row[r].mode[class];
}

static void modes(const struct snapshot *s, enum rule r, struct out *o)
{
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		out_fmt(o, "%s%s %s", i ? ", " : "", class_words[order[i]], policy_mode_words[mode_of(s, r, order[i])]);
}

static void allowed(enum rule r, struct out *o)
{
	for (unsigned m = 0; m < POLICY_NMODE; m++)
		if (rule_row[r].allowed & 1u << m)
			out_fmt(o, "%s%s", o->n ? ", " : "", policy_mode_words[m]);
}

static void print_rule(const struct snapshot *s, enum rule r)
{
	static const char *const promised[] = { [GUARANTEE_REFUSE] = "is refused like others", [GUARANTEE_HOLD] = "is accepted and held instead",
		[GUARANTEE_SEND] = "is accepted; what is wrong becomes a bounce" };
	const struct rule_row *row = &rule_row[r];
	char buf[256], may[192];
	struct out o = out_of(buf, sizeof(buf)), m = out_of(may, sizeof(may));

	modes(s, r, &o);
	allowed(r, &m);
	if (rule_postmaster[r])
		out_fmt(&m, "; for postmaster alone: %s at most", policy_mode_words[rule_postmaster[r]]);
	printf("%s (%s): %s\n    codes: %s\n    cause: %s\n    cure:  %s\n    modes: %.*s\n    possible: %.*s; where a class fragile client would be refused it %s\n",
		row->name, row->row, row->title, row->codes, row->cause, row->cure, SPAN_FMT(out_span(&o)), SPAN_FMT(out_span(&m)), promised[row->guarantee]);
}

/* Modes here are the defaults: the manual page has the same lines. */
static void print_line(enum rule r)
{
	const struct snapshot none = { 0 };
	char buf[256];
	struct out o = out_of(buf, sizeof(buf));

	modes(&none, r, &o);
	printf("%s (%s): %s. Default: %.*s.\n", rule_row[r].name, rule_row[r].row, rule_row[r].title, SPAN_FMT(out_span(&o)));
}

static json_t *rule_json(const struct snapshot *s, enum rule r)
{
	const struct rule_row *row = &rule_row[r];
	json_t *m = json_object();

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		json_object_set_new(m, class_words[order[i]], json_string(policy_mode_words[mode_of(s, r, order[i])]));
	return json_pack("{ss ss ss ss ss ss so}", "code", row->name, "rule", row->row, "enhanced", row->codes, "title", row->title, "cause", row->cause,
		"cure", row->cure, "modes", m);
}

int codes_command(const char *run_dir, bool as_json, const char *code)
{
	struct snapshot s = { 0 };
	json_t *all = json_array();
	unsigned found = 0;
	char path[4096];

	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	if (snapshot_open(path, &s) != ST_OK)
		s.h = NULL;
	for (unsigned r = 0; r < RULE_NRULE; r++) {
		if (code && !rule_is_meant((enum rule)r, span_str(code)))
			continue;
		found++;
		if (as_json)
			json_array_append_new(all, rule_json(&s, (enum rule)r));
		else if (code)
			print_rule(&s, (enum rule)r);
		else
			print_line((enum rule)r);
	}
	if (as_json) {
		json_dumpf(all, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(all);
	if (s.h)
		snapshot_close(&s);
	if (!found)
		fprintf(stderr, "weirctl: no rule has the code \"%s\"; weirctl explain-code lists them\n", code);
	return found ? 0 : 1;
}
