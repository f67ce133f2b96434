/* A2: a client must be registered in DNS: its address has a name, and the name has its address (forward-confirmed reverse DNS). The node itself needs no name. */
#include "dataplane/policy/policy.h"

static bool is_this_node(const uint8_t ip[16])
{
	static const uint8_t v6[16] = { [15] = 1 }, v4[16] = { [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 };

	return memcmp(ip, v6, 16) == 0 || memcmp(ip, v4, 16) == 0;
}

struct decision policy_client_dns(const struct policy_facts *f)
{
	const struct fact_client *c = f->client;
	struct decision d = { .accept = !c || c->is == CLIENT_IS_NAMED || is_this_node(f->client_ip), .rule = RULE_CLIENT_DNS };
	char ip[48];
	struct out o = out_of(ip, sizeof(ip));

	if (d.accept)
		return d;
	ip_write(f->client_ip, &o);
	d.undecided = c->is == CLIENT_IS_UNDECIDED;
	if (d.undecided)
		reply_set(&d.reply, 451, "4.7.25", "The name of your host [%.*s] could not be looked up (%s), try again later", SPAN_FMT(out_span(&o)), c->why);
	else if (c->is == CLIENT_IS_UNNAMED)
		reply_set(&d.reply, 550, "5.7.25", "Your host [%.*s] has no name in DNS (PTR)", SPAN_FMT(out_span(&o)));
	else
		reply_set(&d.reply, 550, "5.7.25", "Your host [%.*s] calls itself %s in DNS, and that name does not have its address", SPAN_FMT(out_span(&o)), c->name);
	return d;
}
