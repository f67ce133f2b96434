/* B6: a message that has been through too many relays is in a loop. */
#include "dataplane/policy/policy.h"

struct decision policy_hops(const struct policy_facts *f, unsigned received)
{
	unsigned most = f->snap->h->settings.max_received;
	struct decision d = { .accept = received <= most, .rule = "B6" };

	if (!d.accept)
		reply_set(&d.reply, 554, "5.4.6", "Mail loop: %u Received fields, at most %u are taken", received, most);
	return d;
}
