#include "dataplane/ask_dns.h"

#include "dataplane/lookup/rr.h"
#include "spool/mail/address.h"

static const char *const result_name[] = { [DNS_FOUND] = "found", [DNS_NXDOMAIN] = "nxdomain", [DNS_NODATA] = "nodata",
	[DNS_NULL_MX] = "null-mx", [DNS_TEMPFAIL] = "tempfail" };

/* Labels as in host names, and "_" for those of TXT records. */
static bool name_ok(const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < n; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-_.", name[i]))
			return false;
	return n > 0 && n < 254 && name[0] != '.';
}

const char *ask_dns(struct dns *d, const char *type, const char *name, dns_fn *fn, void *ctx, struct dns_answer **ret_answer,
	struct dns_query **ret_query)
{
	struct span what = span_str(name ? name : "");
	enum status st;

	*ret_answer = NULL;
	if (!type || !name || !name_ok(name))
		return "write type=mx|addr|txt and name, in lower case";
	if (strcmp(type, "mx") == 0)
		st = dns_mx(d, what, fn, ctx, ret_answer, ret_query);
	else if (strcmp(type, "addr") == 0)
		st = dns_addr(d, what, fn, ctx, ret_answer, ret_query);
	else if (strcmp(type, "txt") == 0)
		st = dns_txt(d, what, fn, ctx, ret_answer, ret_query);
	else
		return "type is mx, addr or txt";
	return st == ST_OK || st == ST_AGAIN ? NULL : "too many questions are under way";
}

void ask_dns_rows(const struct dns_answer *a, ask_dns_row_fn *emit, void *ctx)
{
	struct logline row;

	row_begin(&row);
	log_str(&row, "result", result_name[a->result]);
	log_str(&row, "text", a->text);
	emit(ctx, &row);
	for (uint32_t i = 0; i < a->nmx; i++) {
		row_begin(&row);
		log_str(&row, "mx", a->mx[i].name);
		log_u64(&row, "preference", a->mx[i].preference);
		emit(ctx, &row);
	}
	for (uint32_t i = 0; i < a->naddr; i++) {
		char ip[48];
		struct out o = out_of(ip, sizeof(ip));

		ip_write(a->addr[i], &o);
		row_begin(&row);
		log_span(&row, "addr", out_span(&o));
		emit(ctx, &row);
	}
	for (uint32_t i = 0; i < a->nrr; i++) {
		char text[1024];
		struct out o = out_of(text, sizeof(text));

		row_begin(&row);
		rr_txt(a->rr[i], &o);
		log_span(&row, "txt", out_span(&o));
		emit(ctx, &row);
	}
}
