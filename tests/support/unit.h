/* What every unit test includes. */
#ifndef WEIR_TESTS_SUPPORT_UNIT_H
#define WEIR_TESTS_SUPPORT_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "spool/base/span.h"
#include "spool/base/status.h"

#define assert_ok(st) assert_int_equal((int)(st), ST_OK)
#define assert_span(s, z)                                                                                                          \
	do {                                                                                                                       \
		struct span assert_s = (s);                                                                                        \
		assert_int_equal(assert_s.n, strlen(z));                                                                           \
		assert_memory_equal(assert_s.p ? assert_s.p : "", z, assert_s.n);                                                  \
	} while (0)

#endif
