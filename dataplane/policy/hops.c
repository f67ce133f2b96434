/* B6: a message that has been through too many relays is in a loop. */
#include "dataplane/policy/policy.h"

struct decision policy_hops(const struct policy_facts *f, unsigned received)
{
	unsigned most = f->snap->h->settings.max_received;
	struct decision d = { .accept = received <= most, .rule = RULE_MAIL_LOOP };

	if (!d.accept)
		reply_set(&d.reply, 554, "5.4.6", "Mail loop: %u Received fields, at most %u are taken", received, most);
	return d;
}
