#include "spool/mail/envelope.h"

/* Version 1 had neither trace nor hold, 2 neither message_id nor given. RCPT_FIXED: the least that a recipient takes in any. */
enum { ENVELOPE_VERSION = 3, FIXED = 2 + 2 + 8 + 16 + 2 + 1 + 1 + 4 + 4, RCPT_FIXED = 4 + 4 + 1 };

size_t envelope_size(const struct envelope *e)
{
	size_t n = FIXED + 8 * 4 + e->sender.n + e->envid.n + e->helo.n + e->client_name.n + e->auth_user.n + e->trace.n + e->hold.n + e->message_id.n;

	for (uint32_t i = 0; i < e->nrcpt; i++)
		n += RCPT_FIXED + 4 + e->rcpt[i].addr.n + e->rcpt[i].orcpt.n + e->rcpt[i].given.n;
	return n;
}

void envelope_write(const struct envelope *e, struct out *o)
{
	out_le16(o, ENVELOPE_VERSION);
	out_le16(o, 0);
	out_le64(o, e->arrived_ns);
	out_add(o, span_of(e->client_ip, sizeof(e->client_ip)));
	out_le16(o, e->client_port);
	out_char(o, (char)e->body);
	out_char(o, (char)e->ret);
	out_le32(o, e->flags);
	out_le32(o, e->nrcpt);
	out_field(o, e->sender);
	out_field(o, e->envid);
	out_field(o, e->helo);
	out_field(o, e->client_name);
	out_field(o, e->auth_user);
	out_field(o, e->trace);
	out_field(o, e->hold);
	out_field(o, e->message_id);
	for (uint32_t i = 0; i < e->nrcpt; i++) {
		out_field(o, e->rcpt[i].addr);
		out_field(o, e->rcpt[i].orcpt);
		out_field(o, e->rcpt[i].given);
		out_char(o, (char)e->rcpt[i].notify);
	}
}

bool envelope_nrcpt(struct span stored, uint32_t *ret)
{
	struct in i = in_of(stored);
	uint16_t version = in_le16(&i);

	in_bytes(&i, FIXED - 2 - 4);
	*ret = in_le32(&i);
	return !i.bad && version && version <= ENVELOPE_VERSION && *ret <= i.rest.n / RCPT_FIXED;
}

enum status envelope_read(struct span stored, struct pool *p, struct envelope *ret)
{
	struct in i = in_of(stored);
	uint16_t version = in_le16(&i);
	struct span ip;

	*ret = (struct envelope){ 0 };
	if (!version || version > ENVELOPE_VERSION || in_le16(&i) != 0)
		return trail(ST_CORRUPT, "envelope of an unknown version");
	ret->arrived_ns = in_le64(&i);
	ip = in_bytes(&i, sizeof(ret->client_ip));
	if (ip.n)
		memcpy(ret->client_ip, ip.p, sizeof(ret->client_ip));
	ret->client_port = in_le16(&i);
	ret->body = in_u8(&i);
	ret->ret = in_u8(&i);
	ret->flags = in_le32(&i);
	ret->nrcpt = in_le32(&i);
	ret->sender = in_field(&i);
	ret->envid = in_field(&i);
	ret->helo = in_field(&i);
	ret->client_name = in_field(&i);
	ret->auth_user = in_field(&i);
	if (version >= 2) {
		ret->trace = in_field(&i);
		ret->hold = in_field(&i);
	}
	if (version >= 3)
		ret->message_id = in_field(&i);
	/* every recipient takes some bytes: a count beyond that is a lie, and chooses no allocation */
	if (i.bad || ret->nrcpt > i.rest.n / RCPT_FIXED || ret->body > BODY_BINARY || ret->ret > RET_HDRS || ret->trace.n > ENV_TRACE_MAX)
		return trail(ST_CORRUPT, "envelope is cut short or impossible");
	ret->rcpt = pool_alloc(p, (size_t)ret->nrcpt * sizeof(*ret->rcpt));
	if (!ret->rcpt)
		return ST_NOMEM;
	for (uint32_t k = 0; k < ret->nrcpt; k++) {
		ret->rcpt[k].addr = in_field(&i);
		ret->rcpt[k].orcpt = in_field(&i);
		ret->rcpt[k].given = version >= 3 ? in_field(&i) : SPAN_NONE;
		ret->rcpt[k].notify = in_u8(&i);
	}
	if (i.bad || i.rest.n)
		return trail(ST_CORRUPT, "envelope is cut short or has more behind it");
	return ST_OK;
}
