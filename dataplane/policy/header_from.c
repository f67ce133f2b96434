/* B5: the originators in the header, From, Sender and Reply-To, are addresses to which an answer can be sent. */
#include "dataplane/policy/policy.h"

static struct decision finding(enum origin_field field, const char *what)
{
	struct decision d = { .accept = false, .rule = RULE_HEADER_FROM };

	reply_set(&d.reply, 550, "5.6.0", "%s: %s", origin_field_name[field], what);
	return d;
}

static bool form_is_bad(const struct originators *o, struct decision *d)
{
	if (*o->bad)
		*d = finding(o->bad_field, o->bad);
	else if (!o->nfield[ORIGIN_FROM] && !o->is_cut)
		*d = finding(ORIGIN_FROM, "the field is missing");
	else if (o->nfield[ORIGIN_FROM] > 1)
		*d = finding(ORIGIN_FROM, "the field is there more than once");
	else if (o->nfield[ORIGIN_SENDER] > 1)
		*d = finding(ORIGIN_SENDER, "the field is there more than once");
	else if (o->nfield[ORIGIN_FROM] && o->nfrom != 1 && !o->nfield[ORIGIN_SENDER] && !o->is_cut)
		*d = finding(ORIGIN_FROM, o->nfrom ? "there are several addresses, and no Sender" : "there is no address, and no Sender");
	else
		return false;
	return true;
}

/* What is found about a sender, said of a field. */
static struct decision of_field(enum origin_field field, const struct decision *d)
{
	struct decision h = { .accept = false, .undecided = d->undecided, .rule = RULE_HEADER_FROM };
	char code[12];

	reply_set(&h.reply, d->reply.code, reply_status(&d->reply, code), "%s: %.*s", origin_field_name[field], SPAN_FMT(reply_text(&d->reply)));
	return h;
}

static struct decision originator_finding(const struct policy_facts *f, uint32_t i)
{
	struct policy_facts one = *f;
	const struct originator *item = &f->header->originators.item[i];
	uint8_t domain = f->header->domain_of[i];
	struct decision d;

	one.sender_domain = domain < f->header->ndomains ? &f->header->domain[domain] : NULL;
	one.sender_known = f->header->known[i];
	d = policy_sender_domain(&one, &item->a);
	if (d.accept)
		d = policy_sender_exists(&one, &item->a);
	return d.accept ? d : of_field(item->field, &d);
}

struct decision policy_header_from(const struct policy_facts *f)
{
	struct decision d = { .accept = true, .rule = RULE_HEADER_FROM };

	if (!f->header || form_is_bad(&f->header->originators, &d))
		return d;
	for (uint32_t i = 0; i < f->header->originators.n; i++) {
		struct decision one = originator_finding(f, i);

		if (!one.accept && !one.undecided)
			return one;
		if (d.accept)
			d = one; /* what is undecided counts when nothing else is found */
	}
	d.rule = RULE_HEADER_FROM;
	return d;
}
