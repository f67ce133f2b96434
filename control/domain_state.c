#include "control/domain_state.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include "control/history.h"

/* The members, once for both directions. */
#define TEXTS(X) X(url) X(etag) X(modified) X(result)
#define NUMBERS(X) \
	X(fetched_s) X(next_s) X(failures) X(refused) X(refused_entries) X(told) X(checked_s) X(next_check_s) X(findings)
#define FLAGS(X) X(failed) X(refused_shrunk)

static void read_text(const json_t *o, const char *key, char *to, size_t cap)
{
	const char *text = json_string_value(json_object_get(o, key));

	snprintf(to, cap, "%s", text ? text : "");
}

void domain_state_read(const char *dir, const char *domain, struct domain_state *ret)
{
	char path[4500];
	json_t *o = json_load_file(history_path(dir, domain, "state", path), 0, NULL);

	*ret = (struct domain_state){ 0 };
#define TEXT(m) read_text(o, #m, ret->m, sizeof(ret->m));
#define NUMBER(m) ret->m = (uint64_t)json_integer_value(json_object_get(o, #m));
#define FLAG(m) ret->m = json_is_true(json_object_get(o, #m));
	TEXTS(TEXT)
	NUMBERS(NUMBER)
	FLAGS(FLAG)
#undef TEXT
#undef NUMBER
#undef FLAG
	json_decref(o);
}

enum status domain_state_write(const char *dir, const char *domain, const struct domain_state *s)
{
	json_t *o = json_object();
	enum status st;
	char *text;

	/* a result may quote what is not UTF-8; then there is none in the file */
#define TEXT(m) json_object_set_new(o, #m, json_string(s->m));
#define NUMBER(m) json_object_set_new(o, #m, json_integer((json_int_t)s->m));
#define FLAG(m) json_object_set_new(o, #m, json_boolean(s->m));
	TEXTS(TEXT)
	NUMBERS(NUMBER)
	FLAGS(FLAG)
#undef TEXT
#undef NUMBER
#undef FLAG
	text = json_dumps(o, JSON_INDENT(1));
	json_decref(o);
	CHECK(text);
	st = history_replace(dir, domain, "state", span_str(text), HISTORY_LATER);
	free(text);
	return st;
}
