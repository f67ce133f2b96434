/* Configuration files that cannot be read: what is said, and that nothing worse happens. */
#include "tests/support/unit.h"

#include <stdlib.h>
#include <unistd.h>
#include "control/schema.h"

static char path[64];

/* What the reader says of a file with this text; in it the file is FILE. */
static const char *said(const char *text)
{
	static char all[2000];
	struct model m;
	char *complaint = NULL, *at;
	size_t len = 0;
	FILE *f = fopen(path, "w"), *out = open_memstream(&complaint, &len);
	bool ok;

	assert_true(f && out);
	fputs(text, f);
	fclose(f);
	ok = model_read(&m, path, "/tmp", 1, out);
	fclose(out);
	assert_int_equal(ok, !len);
	at = strstr(complaint, path);
	if (at)
		snprintf(all, sizeof(all), "FILE%s", at + strlen(path));
	else
		snprintf(all, sizeof(all), "%s", complaint);
	free(complaint);
	free(m.bytes);
	return all;
}

static void what_is_not_yaml_is_said_with_its_line(void **state)
{
	assert_string_equal(said("workers: 1\nlisten: [a\nnode: {"), "FILE:3: not YAML: did not find expected ',' or ']'\n");
	assert_string_equal(said("workers: 1\n\tnode: x\n"), "FILE:2: not YAML: found a tab character that violates indentation\n");
}

static void a_file_that_is_no_mapping_is_said(void **state)
{
	assert_string_equal(said("- workers: 1\n"), "FILE:1: the file is a list of KEY: VALUE\n");
	assert_string_equal(said("workers\n"), "FILE:1: the file is a list of KEY: VALUE\n");
}

static void keys_are_known_and_there_once(void **state)
{
	assert_string_equal(said("workers: 1\nwokers: 1\n"), "FILE:2: unknown key \"wokers\"; did you mean \"workers\"?\n");
	assert_string_equal(said("workers: 1\nworkers: 2\n"), "FILE:2: workers is there twice\n");
	assert_string_equal(said("spool: {segment: [1, 2]}\n"), "FILE:1: spool.segment has one value, not a list or a group\n");
}

static int make_file(void **state)
{
	int fd;

	snprintf(path, sizeof(path), "/tmp/model-read-XXXXXX");
	fd = mkstemp(path);
	return fd < 0 || close(fd) < 0;
}

static int remove_file(void **state)
{
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_yaml_is_said_with_its_line),
		cmocka_unit_test(a_file_that_is_no_mapping_is_said),
		cmocka_unit_test(keys_are_known_and_there_once),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
