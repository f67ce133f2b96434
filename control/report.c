#include "control/report.h"

#include <stdarg.h>
#include <stdio.h>
#include "control/ask.h"
#include "spool/base/log.h"

static const char *const level_name[] = { [REPORT_OK] = "ok", [REPORT_ADVICE] = "advice", [REPORT_WRONG] = "wrong" };

static json_t *text_json(const char *text)
{
	json_t *j = json_string(text);

	return j ? j : json_string("(not UTF-8)");
}

void report_say(struct report *r, enum report_level level, const char *rule, const char *fmt, ...)
{
	char text[1200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?'; /* what DNS says goes to terminals */
	r->wrong += level == REPORT_WRONG;
	r->advice += level == REPORT_ADVICE;
	if (r->json)
		json_array_append_new(r->json, json_pack("{s:s, s:s, s:o}", "level", level_name[level], "rule", rule, "text",
			text_json(text)));
	else
		printf("%-7s %-4s %s\n", level_name[level], rule, text);
}

int report_end(struct report *r)
{
	if (r->json) {
		json_dumpf(r->json, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(r->json);
	} else {
		printf("%u wrong, %u to consider\n", r->wrong, r->advice);
	}
	return r->wrong ? 1 : 0;
}

/* ---- DNS ---- */

static void on_row(void *ctx, unsigned worker, struct span row)
{
	static const char *const keys[] = { "mx", "addr", "txt" };
	struct dns_said *d = ctx;

	(void)worker;
	if (row.n > 7 && memcmp(row.p, "result=", 7) == 0) {
		row_value(row, "result", d->result, sizeof(d->result));
		row_value(row, "text", d->text, sizeof(d->text));
		return;
	}
	for (size_t i = 0; i < 3 && d->n < sizeof(d->value) / sizeof(d->value[0]); i++)
		if (row.n > 4 && memcmp(row.p, keys[i], strlen(keys[i])) == 0) {
			row_value(row, keys[i], d->value[d->n++], sizeof(d->value[0]));
			return;
		}
}

enum status report_dns(const char *run_dir, const char *type, const char *name, struct dns_said *ret)
{
	unsigned worker[64], n = ask_workers(run_dir, worker, 64);
	enum status st = trail(ST_NOT_FOUND, "no dataplane worker runs in %s", run_dir);
	struct logline request;

	row_begin(&request);
	log_str(&request, "cmd", "dns");
	log_str(&request, "type", type);
	log_str(&request, "name", name);
	for (unsigned i = 0; i < n; i++) {
		*ret = (struct dns_said){ 0 };
		st = ask_worker(run_dir, worker[i], row_text(&request), on_row, ret);
		if (st == ST_OK)
			return ST_OK;
	}
	return st;
}

bool dns_is_implicit(const struct dns_said *mx, const char *domain)
{
	return dns_found(mx) && mx->n == 1 && strcmp(mx->value[0], domain) == 0;
}
