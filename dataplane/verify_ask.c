#include "dataplane/verify_ask.h"

#include <stdlib.h>
#include "dataplane/policy/recipient_known.h"
#include "spool/base/clock.h"

struct item {
	struct verify_ask *ask;
	struct verify_query *query; /* under way */
	char addr[ADDRESS_MAX + 1];
};

struct verify_ask {
	void (*row)(void *ctx, struct logline *row);
	void (*end)(void *ctx);
	void *ctx;
	uint32_t n, pending;
	struct item item[VERIFY_ASK_MAX];
};

static void say(struct item *i, const struct verify_answer *a)
{
	static const char *const word[] = { [VERIFY_YES] = "yes", [VERIFY_NO] = "no", [VERIFY_UNKNOWN] = "unknown" };
	char text[REPLY_TEXT_MAX + 32];
	struct out o = out_of(text, sizeof(text));
	struct logline row;

	row_begin(&row);
	log_str(&row, "addr", i->addr);
	log_str(&row, "result", a ? word[a->result] : "not-asked");
	log_str(&row, "cached", a && a->cached ? "yes" : "no");
	log_str(&row, "why", a ? a->why : "there is nobody to ask");
	if (a && a->reply.code) {
		reply_line(&a->reply, &o);
		log_span(&row, "reply", out_span(&o));
	}
	i->ask->row(i->ask->ctx, &row);
	i->ask->pending--;
}

static void on_verified(void *ctx, const struct verify_answer *answer)
{
	struct item *i = ctx;
	struct verify_ask *a = i->ask;

	i->query = NULL;
	say(i, answer);
	if (!a->pending)
		a->end(a->ctx);
}

/* A probe may take its whole time, and who has the claim another. */
static void begin(struct worker *w, struct item *i)
{
	struct verify_answer answer;
	enum status st = verify_address(w, span_str(i->addr), 2 * w->cfg->set->verify_probe_ns, on_verified, i, &answer, &i->query);

	if (st != ST_AGAIN)
		say(i, st == ST_OK ? &answer : NULL);
}

static const char *take(struct verify_ask *a, struct span addresses)
{
	while (addresses.n) {
		struct span one = span_trim(span_cut(&addresses, '\n'));
		struct item *i = &a->item[a->n];
		struct address parsed;

		if (!one.n)
			continue;
		if (a->n == VERIFY_ASK_MAX)
			return "too many addresses at a time";
		if (one.n > ADDRESS_MAX || address_parse(one, ADDRESS_UTF8, &parsed) != ST_OK)
			return "one of them is not an address";
		memcpy(i->addr, one.p, one.n);
		i->ask = a;
		a->n++;
	}
	return a->n ? NULL : "no address is given";
}

const char *verify_ask_begin(struct worker *w, struct span addresses, void (*row)(void *ctx, struct logline *row), void (*end)(void *ctx), void *ctx, struct verify_ask **ret)
{
	struct verify_ask *a = calloc(1, sizeof(*a));
	const char *error = a ? take(a, addresses) : "out of memory";

	if (error) {
		free(a);
		return error;
	}
	a->row = row;
	a->end = end;
	a->ctx = ctx;
	a->pending = a->n;
	*ret = a;
	for (uint32_t i = 0; i < a->n; i++)
		begin(w, &a->item[i]);
	if (!a->pending)
		end(ctx);
	return NULL;
}

void verify_ask_free(struct verify_ask *a)
{
	if (!a)
		return;
	for (uint32_t i = 0; i < a->n; i++)
		if (a->item[i].query)
			verify_cancel(a->item[i].query);
	free(a);
}
