/* RUN/tls: written as a whole, only for its owner; whatever is damaged is refused. */
#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "spool/store/tls_file.h"

static char dir[64], path[96];

static struct tls_file sample(void)
{
	struct tls_file f = { .ncert = 2, .nticket = 2 };

	f.cert[0] = (struct tls_pem){ SPAN("chain"), SPAN("key") };
	f.cert[1] = (struct tls_pem){ SPAN("another chain"), SPAN("another key") };
	f.client[f.nclient++] = (struct tls_pem){ SPAN("chain of a client"), SPAN("its key") };
	f.login[f.nlogin++] = (struct tls_login){ SPAN("user"), SPAN("/a/file"), SPAN("password") };
	memset(f.ticket, 7, 2 * sizeof(f.ticket[0]));
	f.ticket[1].made_wall_ns = 42;
	return f;
}

static void what_is_written_is_read(void **state)
{
	struct tls_file f = sample(), got;
	struct stat st;

	umask(0);
	assert_int_equal(tls_file_read(dir, &got), ST_NOT_FOUND);
	for (int i = 0; i < 2; i++) /* over itself, too */
		assert_ok(tls_file_write(dir, &f));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_ok(tls_file_read(dir, &got));
	assert_true(tls_file_same(&f, &got));
	assert_int_equal(got.nclient, 1);
	assert_span(got.client[0].key, "its key");
	got.nclient--;
	assert_false(tls_file_same(&f, &got));
	got.nclient++;
	assert_int_equal(got.nlogin, 1);
	assert_span(got.login[0].password, "password");
	got.login[0].password.n--;
	assert_false(tls_file_same(&f, &got));
	got.login[0].password.n++;
	got.ticket[1].made_wall_ns++;
	assert_false(tls_file_same(&f, &got));
	tls_file_free(&got);
	assert_null(got.bytes);
}

static void every_damaged_octet_and_every_cut_is_refused(void **state)
{
	struct tls_file f = sample(), got;
	char bytes[1024];
	size_t n;
	FILE *s;

	assert_ok(tls_file_write(dir, &f));
	s = fopen(path, "r");
	n = fread(bytes, 1, sizeof(bytes), s);
	fclose(s);
	for (size_t i = 0; i < 2 * n; i++) {
		if (i < n)
			bytes[i] ^= 1;
		s = fopen(path, "w");
		fwrite(bytes, 1, i < n ? n : i - n, s);
		fclose(s);
		if (i < n)
			bytes[i] ^= 1;
		assert_true(tls_file_read(dir, &got) != ST_OK);
	}
}

static int begin(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/weir-tls-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/tls", dir);
	return 0;
}

static int end(void **state)
{
	unlink(path);
	rmdir(dir);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(what_is_written_is_read), cmocka_unit_test(every_damaged_octet_and_every_cut_is_refused) };

	return cmocka_run_group_tests(tests, begin, end);
}
