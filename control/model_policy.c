/* policy: which mode each rule has for each class of client (rules D2, A5). */
#include "control/model.h"
#include "spool/mail/rules.h"

static const char what[] = "policy.rules";

enum { CLASSES_ALL = (1u << CLASS_NCLASS) - 1, HELP_URL_MAX = 200 };

static void add_word(struct out *o, const char *word)
{
	if (o->n)
		out_str(o, ", ");
	out_str(o, word);
}

static uint32_t take_rule(struct reader *r, const yaml_node_t *item)
{
	const yaml_node_t *at = member(r, item, "rule");
	const char *text = scalar(at);
	enum rule rule = rule_find(span_str(text ? text : ""));
	char buf[2048];
	struct out o = out_of(buf, sizeof(buf));

	if (rule != RULE_NRULE)
		return rule;
	for (unsigned i = 0; i < RULE_NRULE; i++)
		add_word(&o, rule_row[i].name);
	complain(r->m, at ? at : item, "%s: there is no rule \"%s\"; there are %.*s", what, text ? text : "", SPAN_FMT(out_span(&o)));
	return RULE_NRULE;
}

static uint32_t take_class(struct reader *r, const yaml_node_t *at)
{
	const char *text = scalar(at);
	int w = text ? find_word(class_words, text) : -1;

	if (w >= 0)
		return 1u << w;
	complain(r->m, at, "%s: class \"%s\" is not possible; write robust, fragile, submission or mx", what, text ? text : "");
	return 0;
}

static uint32_t take_classes(struct reader *r, const yaml_node_t *item)
{
	const yaml_node_t *at = member(r, item, "class");
	uint32_t classes = 0;

	if (!at)
		return CLASSES_ALL;
	if (at->type != YAML_SEQUENCE_NODE)
		return take_class(r, at);
	for (yaml_node_item_t *i = at->data.sequence.items.start; i < at->data.sequence.items.top; i++)
		classes |= take_class(r, yaml_document_get_node(r->doc, *i));
	return classes;
}

static uint32_t take_mode(struct reader *r, const yaml_node_t *item, uint32_t rule)
{
	const yaml_node_t *at = member(r, item, "mode");
	const char *text = scalar(at);
	int w = text ? find_word(policy_mode_words, text) : -1;
	uint8_t allowed = rule < RULE_NRULE ? rule_row[rule].allowed : (1u << POLICY_NMODE) - 1;
	char buf[256];
	struct out o = out_of(buf, sizeof(buf));

	if (w >= 0 && allowed & 1u << w)
		return (uint32_t)w;
	for (unsigned i = 0; i < POLICY_NMODE; i++)
		if (allowed & 1u << i)
			add_word(&o, policy_mode_words[i]);
	complain(r->m, at ? at : item, "%s: mode \"%s\" is not possible%s%s; there %s %.*s", what, text ? text : "", rule < RULE_NRULE ? " for " : "",
		rule < RULE_NRULE ? rule_row[rule].name : "", memchr(buf, ',', o.n) ? "are" : "is only", SPAN_FMT(out_span(&o)));
	return POLICY_NMODE;
}

void row_policy(struct reader *r, const yaml_node_t *item, void *row)
{
	static const char *const known[] = { "rule", "class", "mode", NULL };
	struct snap_policy *p = row;

	*p = (struct snap_policy){ .rule = RULE_NRULE, .mode = POLICY_NMODE, .line = (uint32_t)item->start_mark.line + 1 };
	if (item->type != YAML_MAPPING_NODE) {
		complain(r->m, item, "%s: an entry is {rule: NAME, class: CLASS, mode: MODE}", what);
		return;
	}
	only_members(r, item, known, what);
	p->rule = take_rule(r, item);
	p->classes = take_classes(r, item);
	p->mode = take_mode(r, item, p->rule);
}

static void check_help_url(struct model *m)
{
	struct span url = span_str(model_text(m, model_settings(m)->policy_help_url));
	bool ok = span_starts_nocase(url, SPAN("https://")) || span_starts_nocase(url, SPAN("http://"));

	for (size_t i = 0; i < url.n; i++)
		ok = ok && url.p[i] > ' ' && url.p[i] < 0x7f;
	if (url.n && (!ok || url.n > HELP_URL_MAX))
		complain(m, NULL, "policy.help_url: \"%s\" is not a page; write for example https://help.cam.example/mail/{code}, at most %d characters", url.p,
			HELP_URL_MAX);
}

static bool asks_dns(enum rule r)
{
	return r == RULE_CLIENT_DNS || r == RULE_SENDER_DOMAIN || r == RULE_SENDER_HOST_NAME || r == RULE_SENDER_UNKNOWN || r == RULE_HEADER_FROM;
}

/* The defaults; two of them follow older keys. A node without a configuration file is one to play with: it takes mail of domains that do not exist. */
static void begin_matrix(struct snap_settings *s, bool playground)
{
	static const enum policy_mode rate[] = { [MODE_OFF] = POLICY_OFF, [MODE_MONITOR] = POLICY_MONITOR, [MODE_DEFER] = POLICY_DEFER };

	for (unsigned r = 0; r < RULE_NRULE; r++)
		for (unsigned c = 0; c < CLASS_NCLASS; c++)
			s->policy_mode[r][c] = playground && asks_dns((enum rule)r) ? POLICY_OFF : rule_row[r].mode[c];
	for (unsigned c = 0; c < CLASS_NCLASS; c++) {
		if (c != CLASS_MX)
			s->policy_mode[RULE_RATE][c] = (uint8_t)rate[s->rate_mode];
		if (s->scan_down == SCAN_DOWN_HOLD)
			s->policy_mode[RULE_UNSCANNED][c] = POLICY_HOLD;
	}
}

void policy_together(struct model *m)
{
	struct snap_settings *s = model_settings(m);
	const struct snap_policy *row = (const struct snap_policy *)(const void *)(m->bytes + s->policy_rules.off);

	check_help_url(m);
	begin_matrix(s, !m->file);
	for (const struct snap_policy *p = row; p < row + s->policy_rules.n; p++)
		for (unsigned c = 0; c < CLASS_NCLASS; c++) {
			if (p->rule == RULE_NRULE || p->mode == POLICY_NMODE || !(p->classes & 1u << c))
				continue;
			if (s->policy_line[p->rule][c])
				complain_line(m, p->line, "%s: %s has a mode for class %s already (line %u)", what, rule_row[p->rule].name, class_words[c],
					s->policy_line[p->rule][c]);
			s->policy_mode[p->rule][c] = (uint8_t)p->mode;
			s->policy_line[p->rule][c] = p->line;
		}
}
