/* Recipient verification (B2) and dictionary attacks (B3), as the configuration says it. */
#include "control/model.h"

uint32_t verify_recipients(struct reader *r, const yaml_node_t *item, const char *what)
{
	static const char *const words[] = { "any", "verify", NULL };
	const yaml_node_t *at = member(r, item, "recipients");
	const char *text = scalar(at);
	int w = text ? find_word(words, text) : -1;

	if (!at)
		return RECIPIENTS_UNSAID;
	if (w < 0)
		complain(r->m, at, "%s: recipients \"%s\" is not possible; write any or verify", what, text ? text : "");
	return w == 1 ? RECIPIENTS_VERIFY : RECIPIENTS_ANY;
}

void verify_together(struct model *m)
{
	const struct snap_settings *s = model_settings(m);

	if (s->verify_address_yes_ns > s->verify_domain_yes_ns)
		complain_line(m, key_line(m, "verify.address_yes"), "verify.address_yes must not be longer than verify.domain_yes");
	if (s->verify_wait_ns > s->verify_probe_ns)
		complain_line(m, key_line(m, "verify.wait"), "verify.wait must not be longer than verify.probe_time");
	if (s->verify_probe_rate > 0 && s->verify_probe_rate < 2)
		complain_line(m, key_line(m, "verify.probes_per_minute"), "verify.probes_per_minute must be at least 2, or none");
	if (s->bad_slow > 0 && s->bad_refuse > 0 && s->bad_slow > s->bad_refuse)
		complain_line(m, key_line(m, "dictionary.slow_after"), "dictionary.slow_after must not be more than dictionary.refuse_after");
}
