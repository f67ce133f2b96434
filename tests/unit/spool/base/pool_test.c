/* The pool at its edges. */
#include "tests/support/unit.h"

#include <stdlib.h>
#include "spool/base/pool.h"

static void sizes_that_wrap(void **state)
{
	static const size_t ceiling[] = { SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2, PTRDIFF_MAX };
	struct pool p;

	for (size_t i = 0; i < sizeof(ceiling) / sizeof(ceiling[0]); i++)
		for (size_t less = 0; less < 100; less++) {
			pool_init(&p, ceiling[i]);
			assert_null(pool_alloc(&p, SIZE_MAX - less));
			assert_non_null(pool_alloc(&p, 24));
			assert_null(pool_alloc(&p, SIZE_MAX - less));
			assert_null(pool_span(&p, span_of("", SIZE_MAX - less)).p);
			pool_reset(&p);
		}
}

static void the_ceiling_is_exact(void **state)
{
	struct pool p;

	for (size_t ceiling = 0; ceiling < 200; ceiling++) {
		size_t got = 0;

		pool_init(&p, ceiling);
		while (pool_alloc(&p, 16))
			got += 16;
		assert_int_equal(got, ceiling / 16 * 16);
		assert_true(p.used <= ceiling);
		pool_reset(&p);
		for (got = 0; pool_alloc(&p, 1); got++) /* takes 16, and is counted so */
			;
		assert_int_equal(got, ceiling / 16);
		pool_reset(&p);
	}
}

static void aligned_zeroed_and_apart(void **state)
{
	enum { N = 2000 };
	static unsigned char *at[N];
	static size_t len[N];
	struct pool p;

	srandom(3);
	pool_init(&p, 16 << 20);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < N; i++) {
			len[i] = (size_t)random() % (i % 100 == 0 ? 200000 : 300);
			at[i] = pool_alloc(&p, len[i]);
			assert_non_null(at[i]);
			assert_int_equal((uintptr_t)at[i] % 16, 0);
			for (size_t k = 0; k < len[i]; k++)
				assert_int_equal(at[i][k], 0);
			memset(at[i], i, len[i]);
		}
		for (int i = 0; i < N; i++)
			for (size_t k = 0; k < len[i]; k++)
				assert_int_equal(at[i][k], (unsigned char)i);
		pool_reset(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(sizes_that_wrap), cmocka_unit_test(the_ceiling_is_exact),
		cmocka_unit_test(aligned_zeroed_and_apart) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
