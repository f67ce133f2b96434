#include "tests/support/unit.h"
#include "dataplane/net/tls_bytes.h"

static void what_is_added_is_taken_in_order(void **state)
{
	struct tls_queue q = { 0 };
	unsigned char next_in = 0, next_out = 0;
	char piece[1000], got[700];

	(void)state;
	for (size_t turn = 0; turn < 500; turn++) {
		size_t n = (turn * 37) % sizeof(piece), cap = (turn * 53) % sizeof(got), held = q.n;

		for (size_t i = 0; i < n; i++)
			piece[i] = (char)next_in++;
		assert_true(tls_queue_add(&q, span_of(piece, n)));
		assert_int_equal(q.n, held + n);
		n = tls_queue_take(&q, got, cap);
		assert_int_equal(n, cap < held + (turn * 37) % sizeof(piece) ? cap : held + (turn * 37) % sizeof(piece));
		for (size_t i = 0; i < n; i++)
			assert_int_equal((unsigned char)got[i], next_out++);
	}
	while ((tls_queue_take(&q, got, sizeof(got))))
		;
	assert_null(q.p); /* P16: an idle connection has no memory here */
	assert_int_equal(q.cap, 0);
}

static void the_bio_reads_one_way_and_writes_the_other(void **state)
{
	struct tls_bytes b = { 0 };
	BIO *bio = tls_bytes_bio(&b);
	char got[10];

	(void)state;
	assert_non_null(bio);
	assert_true(BIO_read(bio, got, 4) <= 0 && BIO_should_read(bio)); /* not an end: more may come */
	assert_true(tls_queue_add(&b.in, SPAN("hello")));
	assert_int_equal(BIO_read(bio, got, 4), 4);
	assert_memory_equal(got, "hell", 4);
	assert_int_equal(BIO_read(bio, got, 4), 1);
	assert_false(BIO_should_retry(bio));
	assert_true(BIO_read(bio, got, 4) <= 0 && BIO_should_read(bio));
	assert_int_equal(BIO_write(bio, "answer", 6), 6);
	assert_int_equal(BIO_flush(bio), 1);
	assert_int_equal(b.in.n, 0);
	assert_int_equal(tls_queue_take(&b.out, got, sizeof(got)), 6);
	assert_memory_equal(got, "answer", 6);
	BIO_free(bio);
	assert_null(b.out.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_added_is_taken_in_order),
		cmocka_unit_test(the_bio_reads_one_way_and_writes_the_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
