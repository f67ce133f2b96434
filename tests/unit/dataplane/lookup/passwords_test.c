#include "tests/support/unit.h"

#include <crypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "dataplane/lookup/passtable.h"
#include "spool/base/base64.h"

static const uint8_t key[SCRAM_KEY] = { 1, 2, 3 };
static char complaints[4096];

static void complain(void *ctx, const char *path, unsigned line, const char *text)
{
	size_t n = strlen(complaints);

	assert_string_equal(path, "file");
	snprintf(complaints + n, sizeof(complaints) - n, "%u: %s\n", line, text);
}

/* A cheap hash for the tests: yescrypt at its lowest cost. */
static const char *cheap(const char *password)
{
	char setting[CRYPT_GENSALT_OUTPUT_SIZE];
	static struct crypt_data data;

	assert_non_null(crypt_gensalt_rn("$y$", 1, NULL, 0, setting, sizeof(setting)));
	return crypt_r(password, setting, &data);
}

static const char verifier[] = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
			       "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

/* ---- lines ---- */

static void lines(void **state)
{
	static const struct {
		const char *line;
		enum status st;
		const char *trail;
	} row[] = {
		{ "", ST_NOT_FOUND, NULL },
		{ "   \r", ST_NOT_FOUND, NULL },
		{ "# bob:x", ST_NOT_FOUND, NULL },
		{ "bob:!", ST_OK, NULL },
		{ "bob:*LK*", ST_OK, NULL },
		{ "bob", ST_INVALID, "user:hash" },
		{ "bob:", ST_INVALID, "no hash" },
		{ ":$y$x", ST_INVALID, "name" },
		{ "b\x01:!", ST_INVALID, "name" },
		{ "b\xc3:!", ST_INVALID, "name" },
		{ "b\xc3\xa4:!", ST_OK, NULL },
		{ "b\xed\xa0\x80:!", ST_INVALID, "name" },
		{ "bob:secret", ST_INVALID, "crypt(3)" },
		{ "bob:$1$abcdefgh$abcdefghijklmnopqrstuv", ST_INVALID, "crypt(3)" },
		{ "bob:abcdefghijklm", ST_INVALID, "crypt(3)" },
		{ "bob:$6$abcdefgh$", ST_INVALID, "crypt(3)" },
		{ "bob:!:{SCRAM-SHA-256}1,a,b,c", ST_INVALID, "iterations" },
		{ "bob:{SCRAM-SHA-256}4096,,,", ST_INVALID, "salt" },
		{ "bob:{SCRAM-SHA-256}4096,AAAA,AAAA,AAAA", ST_INVALID, "stored key" },
		{ "bob:{SCRAM-SHA-1}4096,AAAA,AAAA,AAAA", ST_INVALID, "begins with" },
	};
	struct passline l;
	char text[600];

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		assert_int_equal(passline_parse(span_str(row[i].line), &l), row[i].st);
		if (row[i].trail)
			assert_non_null(strstr(trail_text(), row[i].trail));
	}
	snprintf(text, sizeof(text), "bob:%s", verifier);
	assert_ok(passline_parse(span_str(text), &l));
	assert_true(l.has_scram && !l.hash.n);
	assert_true(passline_check("", &l.scram, "pencil", 6));
	assert_false(passline_check("", &l.scram, "pencils", 7));
	snprintf(text, sizeof(text), "bob:%s:%s", cheap("x"), verifier);
	assert_ok(passline_parse(span_str(text), &l));
	assert_true(l.has_scram && l.hash.n);
	snprintf(text, sizeof(text), "bob:%s:%s", verifier, verifier);
	assert_int_equal(passline_parse(span_str(text), &l), ST_INVALID);
	snprintf(text, sizeof(text), "bob:!:%s:x", verifier);
	assert_int_equal(passline_parse(span_str(text), &l), ST_INVALID);
}

static void a_made_line_fits_its_password(void **state)
{
	char text[600], hash[PASSLINE_HASH_MAX + 1] = "";
	struct out o = out_of(text, sizeof(text)), h = out_of(hash, sizeof(hash) - 1);
	struct passline l;

	assert_ok(passline_make(SPAN("bob"), "K\xc3\xa4se", true, &o));
	assert_ok(passline_parse(out_span(&o), &l));
	assert_span(l.user, "bob");
	out_add(&h, l.hash);
	assert_true(passline_check(hash, &l.scram, "K\xc3\xa4se", 5));
	assert_false(passline_check(hash, &l.scram, "Kase", 4));
	assert_true(passline_check("", &l.scram, "K\xc3\xa4se", 5));
	assert_int_equal(passline_make(SPAN("b:b"), "x", true, &o), ST_INVALID);
	assert_int_equal(passline_make(SPAN("bob"), "", true, &o), ST_INVALID);
}

/* ---- the table ---- */

static struct passtable *table_of(const char *text)
{
	struct passtable *t;

	complaints[0] = '\0';
	assert_ok(passtable_new(span_str(text), "file", complain, NULL, &t));
	return t;
}

static void stand_ins_are_like_users(void **state)
{
	char text[2048];
	struct passtable *t;
	struct passentry e, again;
	struct passwords_state st;
	bool decoy;

	snprintf(text, sizeof(text), "bob:%s:%s\nbad\nann:%s\nbob:!\nbob:%s\ngone:!\n", cheap("secret"), verifier, verifier, verifier);
	t = table_of(text);
	passtable_state(t, &st);
	assert_int_equal(st.users, 2);
	assert_int_equal(st.bad_lines, 2);
	assert_true(st.all_scram);
	assert_non_null(strstr(complaints, "2: there is no \":\""));
	assert_non_null(strstr(complaints, "5: the user has a line already"));
	passtable_find(t, key, SPAN("bob"), false, &e, &decoy);
	assert_false(decoy);
	assert_true(passline_check(e.hash, &e.scram, "secret", 6));
	for (int i = 0; i < 40; i++) {
		char name[24];

		snprintf(name, sizeof(name), "nobody%d", i);
		passtable_find(t, key, span_str(name), false, &e, &decoy);
		assert_true(decoy);
		/* somebody's hash, or none and a verifier: what is done with it is what is done for a user */
		assert_true(strncmp(e.hash, "$y$", 3) == 0 || !*e.hash);
		passtable_find(t, key, span_str(name), true, &e, &decoy);
		passtable_find(t, key, span_str(name), true, &again, &decoy);
		assert_memory_equal(&e.scram, &again.scram, sizeof(e.scram)); /* the same salt each time */
		assert_int_equal(e.scram.iterations, 4096);
		assert_int_equal(e.scram.salt_len, 16);
	}
	passtable_find(t, key, SPAN("gone"), false, &e, &decoy);
	assert_true(decoy);
	passtable_free(t);
	t = table_of("");
	passtable_find(t, key, SPAN("bob"), false, &e, &decoy);
	assert_true(decoy);
	assert_int_equal(crypt_checksalt(e.hash), CRYPT_SALT_OK); /* even where there are no users */
	passtable_state(t, &st);
	assert_false(st.all_scram);
	passtable_free(t);
}

static void complaints_are_bounded(void **state)
{
	char text[1024] = "";
	struct passtable *t;
	unsigned n = 0;

	for (int i = 0; i < 100; i++)
		strcat(text, "bad\n");
	t = table_of(text);
	for (const char *p = complaints; (p = strchr(p, '\n')); p++)
		n++;
	assert_int_equal(n, 21);
	assert_non_null(strstr(complaints, "0: 80 more lines are bad"));
	passtable_free(t);
}

/* ---- the helper thread ---- */

static int answers[2]; /* bad, good */

static void on_answer(void *ctx, bool good)
{
	answers[good]++;
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void no_complaint(void *ctx, const char *path, unsigned line, const char *text)
{
	fail_msg("%s:%u: %s", path, line, text);
}

static void passwords_are_checked_beside_the_loop(void **state)
{
	char dir[] = "/tmp/weir-passwords-XXXXXX", file[64], secret[64], text[1024];
	struct uring u;
	struct passwords *p;
	struct password_check *c;
	unsigned full = 0, cancelled = 0;

	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/file", dir);
	snprintf(secret, sizeof(secret), "%s/secret", dir);
	snprintf(text, sizeof(text), "bob:%s\n", cheap("secret"));
	write_file(file, text);
	assert_ok(uring_init(&u, 64));
	assert_ok(passwords_new(&u, secret, &p));
	assert_int_equal(passwords_check(p, SPAN("bob"), SPAN("secret"), on_answer, NULL, &c), ST_CLOSED);
	passwords_watch(p, file, no_complaint, NULL);
	assert_true(passwords_state(p).readable);
	answers[0] = answers[1] = 0;
	assert_ok(passwords_check(p, SPAN("bob"), SPAN("secret"), on_answer, NULL, &c));
	assert_ok(passwords_check(p, SPAN("bob"), SPAN("wrong"), on_answer, NULL, &c));
	assert_ok(passwords_check(p, SPAN("nobody"), SPAN("secret"), on_answer, NULL, &c));
	for (int i = 0; i < 1000 && answers[0] + answers[1] < 3; i++)
		assert_ok(uring_wait(&u, 10000000));
	assert_int_equal(answers[1], 1);
	assert_int_equal(answers[0], 2);
	/* more than the queue takes; some are given up */
	answers[0] = answers[1] = 0;
	for (int i = 0; i < 500; i++) {
		enum status st = passwords_check(p, SPAN("bob"), SPAN("secret"), on_answer, NULL, &c);

		full += st == ST_FULL;
		if (st == ST_OK && i % 3 == 0) {
			passwords_cancel(c);
			cancelled++;
		}
	}
	assert_true(full > 0);
	for (int i = 0; i < 2000 && answers[1] < (int)(500 - full - cancelled); i++)
		assert_ok(uring_wait(&u, 10000000));
	assert_int_equal(answers[1], 500 - full - cancelled);
	assert_ok(passwords_check(p, SPAN("bob"), SPAN("secret"), on_answer, NULL, &c)); /* left behind at the end */
	passwords_free(p);
	uring_done(&u);
	unlink(file);
	unlink(secret);
	rmdir(dir);
}

static void the_secret_is_made_once(void **state)
{
	char dir[] = "/tmp/weir-passwords-XXXXXX", file[64], secret[64], text[1024];
	struct scram_verifier v[2];
	struct stat st;
	bool decoy;

	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/file", dir);
	snprintf(secret, sizeof(secret), "%s/secret", dir);
	snprintf(text, sizeof(text), "bob:%s\n", verifier);
	write_file(file, text);
	for (int i = 0; i < 2; i++) {
		struct uring u;
		struct passwords *p;

		assert_ok(uring_init(&u, 64));
		assert_ok(passwords_new(&u, secret, &p));
		passwords_watch(p, file, no_complaint, NULL);
		assert_ok(passwords_verifier(p, SPAN("nobody"), &v[i], &decoy));
		assert_true(decoy);
		passwords_free(p);
		uring_done(&u);
	}
	assert_memory_equal(&v[0], &v[1], sizeof(v[0]));
	assert_int_equal(stat(secret, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	write_file(secret, "short");
	assert_int_equal(passwords_new(&(struct uring){ 0 }, secret, &(struct passwords *){ NULL }), ST_INVALID);
	unlink(file);
	unlink(secret);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(lines), cmocka_unit_test(a_made_line_fits_its_password),
		cmocka_unit_test(stand_ins_are_like_users), cmocka_unit_test(complaints_are_bounded),
		cmocka_unit_test(passwords_are_checked_beside_the_loop), cmocka_unit_test(the_secret_is_made_once) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
