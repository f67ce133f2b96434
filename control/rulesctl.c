#include "control/rulesctl.h"

#include <jansson.h>
#include "control/metrics.h"
#include "spool/mail/rule_counts.h"
#include "spool/store/snapshot.h"

struct sums {
	uint64_t n[RULE_NRULE][CLASS_NCLASS][POLICY_NMODE];
};

static const enum snap_class order[] = { CLASS_ROBUST, CLASS_FRAGILE, CLASS_SUBMISSION, CLASS_MX };
enum { NORDER = sizeof(order) / sizeof(order[0]) };

static void add_page(void *ctx, const char *role, int instance, const struct counters_page *p)
{
	struct sums *s = ctx;

	(void)instance;
	if (strcmp(role, "dataplane") != 0)
		return;
	for (unsigned r = 0; r < RULE_NRULE; r++)
		for (unsigned c = 0; c < CLASS_NCLASS; c++)
			for (unsigned m = POLICY_MONITOR; m < POLICY_NMODE; m++)
				s->n[r][c][m] += rule_counts_get(p, (enum rule)r, (enum snap_class)c, (enum policy_mode)m);
}

/* A series for everything that a rule may do, also while it is 0: what begins at 1 has no rate. */
void rules_metrics(const char *stats_dir, FILE *f)
{
	struct sums s = { 0 };

	each_page(stats_dir, add_page, &s);
	fputs("# HELP weir_findings_total what rules found, by the class of the client and by what was done about it\n# TYPE weir_findings_total counter\n", f);
	for (unsigned r = 0; r < RULE_NRULE; r++)
		for (unsigned c = 0; c < CLASS_NCLASS; c++)
			for (unsigned m = POLICY_MONITOR; m < POLICY_NMODE; m++)
				if (s.n[r][c][m] || rule_row[r].allowed & 1u << m)
					fprintf(f, "weir_findings_total{rule=\"%s\",id=\"%s\",class=\"%s\",done=\"%s\"} %llu\n", rule_row[r].name, rule_row[r].row,
						class_words[c], policy_mode_words[m], (unsigned long long)s.n[r][c][m]);
}

static enum policy_mode mode_of(const struct snapshot *s, unsigned r, enum snap_class class)
{
	return s->h ? snap_policy_mode(s, (enum rule)r, class) : (enum policy_mode)rule_row[r].mode[class];
}

static uint64_t total(const struct sums *s, unsigned r, enum snap_class class)
{
	uint64_t n = 0;

	for (unsigned m = POLICY_MONITOR; m < POLICY_NMODE; m++)
		n += s->n[r][class][m];
	return n;
}

static void print_rule(const struct snapshot *snap, const struct sums *s, unsigned r)
{
	static const char *const done[POLICY_NMODE] = { [POLICY_MONITOR] = "logged", [POLICY_TAG] = "tagged", [POLICY_HOLD] = "held", [POLICY_DEFER] = "deferred",
		[POLICY_REJECT] = "refused" };

	for (unsigned i = 0; i < NORDER; i++) {
		enum policy_mode mode = mode_of(snap, r, order[i]);
		bool any = total(s, r, order[i]) > 0;

		if (mode == POLICY_OFF && !any)
			continue;
		printf("%-3s  %-20s  %-10s  %-7s ", rule_row[r].row, rule_row[r].name, class_words[order[i]], policy_mode_words[mode]);
		for (unsigned m = POLICY_MONITOR; m < POLICY_NMODE; m++)
			if (s->n[r][order[i]][m])
				printf("  %s %llu", done[m], (unsigned long long)s->n[r][order[i]][m]);
		puts(any ? "" : "  -");
	}
}

static json_t *rule_json(const struct snapshot *snap, const struct sums *s, unsigned r)
{
	json_t *classes = json_object();

	for (unsigned i = 0; i < NORDER; i++) {
		json_t *found = json_object();

		for (unsigned m = POLICY_MONITOR; m < POLICY_NMODE; m++)
			json_object_set_new(found, policy_mode_words[m], json_integer((json_int_t)s->n[r][order[i]][m]));
		json_object_set_new(classes, class_words[order[i]], json_pack("{ss so}", "mode", policy_mode_words[mode_of(snap, r, order[i])], "found", found));
	}
	return json_pack("{ss ss ss so}", "code", rule_row[r].name, "rule", rule_row[r].row, "title", rule_row[r].title, "classes", classes);
}

int rules_command(const char *run_dir, bool as_json, const char *code)
{
	struct snapshot snap = { 0 };
	struct sums s = { 0 };
	json_t *all = json_array();
	unsigned found = 0;
	char path[4096];

	snprintf(path, sizeof(path), "%s/stats", run_dir);
	each_page(path, add_page, &s);
	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	if (snapshot_open(path, &snap) != ST_OK)
		snap.h = NULL;
	for (unsigned r = 0; r < RULE_NRULE; r++) {
		if (code && !rule_is_meant((enum rule)r, span_str(code)))
			continue;
		found++;
		if (as_json)
			json_array_append_new(all, rule_json(&snap, &s, r));
		else
			print_rule(&snap, &s, r);
	}
	if (as_json) {
		json_dumpf(all, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(all);
	if (snap.h)
		snapshot_close(&snap);
	if (!found)
		fprintf(stderr, "weirctl: no rule has the code \"%s\"; weirctl explain-code lists them\n", code);
	return found ? 0 : 1;
}
