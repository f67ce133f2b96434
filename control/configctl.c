#include "control/configctl.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "control/ask.h"
#include "control/rows.h"
#include "control/schema.h"
#include "control/tables.h"
#include "control/taken.h"

static void explain_row(const struct schema_row *row)
{
	printf("%s\n    %s\n    default: %s   takes effect: %s\n", row->key, row->prose, *row->def ? row->def : "(see above)",
		row->reload == RELOAD_LIVE ? "at reload" : "at restart");
	if (row->words) {
		printf("    one of:");
		for (int i = 0; row->words[i]; i++)
			printf(" %s", row->words[i]);
		putchar('\n');
	}
}

static int config_explain(const char *key)
{
	const struct schema_row *row = key ? schema_find(span_str(key)) : NULL;

	if (key && !row) {
		fprintf(stderr, "weirctl: there is no key \"%s\"\n", key);
		return 1;
	}
	for (size_t i = 0; i < schema_rows; i++)
		if (!key || row == &schema[i])
			explain_row(&schema[i]);
	return 0;
}

static int config_show(const char *run_dir, bool as_json)
{
	char path[4096], text[4096];
	struct snapshot s;
	json_t *j = as_json ? json_object() : NULL;

	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	if (snapshot_open(path, &s) != ST_OK)
		return trail_failed();
	if (!as_json)
		printf("# generation %llu\n", (unsigned long long)s.h->generation);
	for (size_t i = 0; i < schema_rows; i++) {
		struct out o = out_of(text, sizeof(text) - 1);

		schema_value(&s, &schema[i], &o);
		text[o.n] = '\0';
		if (as_json)
			json_object_set_new(j, schema[i].key, json_string(text));
		else
			printf("%s: %s\n", schema[i].key, text);
	}
	if (as_json) {
		json_dumpf(j, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(j);
	snapshot_close(&s);
	return 0;
}

static int config_check(const char *run_dir, const char *file)
{
	struct model m;
	bool ok = model_read(&m, file, run_dir, 1, stderr);
	struct snapshot s = { .h = (const struct snap_header *)(const void *)m.bytes, .bytes = m.n };
	struct tables_image image = { 0 };

	if (ok)
		ok = tables_compile(&s, 0, stderr, NULL, &image);
	if (ok)
		printf("%s: no errors\n", file);
	else
		fprintf(stderr, "%u error%s\n", m.errors + image.errors, m.errors + image.errors == 1 ? "" : "s");
	tables_image_free(&image);
	free(m.bytes);
	return ok ? 0 : 1;
}

static int config_reload(const char *run_dir)
{
	char text[65536] = "";
	enum status st = ask_control(run_dir, "reload\n", text, sizeof(text));

	if (st == ST_OK) {
		fputs(text, stderr); /* warnings */
		puts("The new configuration is published.");
		return taken_wait(run_dir, stdout) ? 0 : 1;
	}
	if (st != ST_INVALID)
		return trail_failed();
	fprintf(stderr, "%sThe configuration in use stays as it is.\n", text);
	return 1;
}

int config_command(const char *run_dir, bool as_json, int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";

	if (strcmp(verb, "check") == 0 && argc == 3)
		return config_check(run_dir, argv[2]);
	if (strcmp(verb, "show") == 0 && argc == 2)
		return config_show(run_dir, as_json);
	if (strcmp(verb, "explain") == 0 && argc <= 3)
		return config_explain(argc == 3 ? argv[2] : NULL);
	if (strcmp(verb, "reload") == 0 && argc == 2)
		return config_reload(run_dir);
	return -1;
}
