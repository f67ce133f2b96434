/* tls.ciphers and tls.ca_file, before a worker sees them (P23, P24). */
#include "tests/support/unit.h"

#include "control/tls_check.h"

static char why[600];

static void lists_of_ciphers(void **state)
{
	static const struct {
		const char *list, *why; /* NULL: it is good */
	} row[] = {
		{ "ECDHE+AESGCM:ECDHE+CHACHA20", NULL },
		{ "ECDHE-RSA-AES128-GCM-SHA256", NULL },
		{ "HIGH:!aNULL:!RC4:!NOSUCH:-MD5:+SHA:@STRENGTH", NULL },
		{ "DEFAULT@SECLEVEL=2", NULL },
		{ "ECDHE+AESGCM, ECDHE+CHACHA20;ECDHE-RSA-AES256-GCM-SHA384 :", NULL },
		{ "ECDHE+AESGCM:ECDHE-RSA-AES128-GCM-SHA265", "\"ECDHE-RSA-AES128-GCM-SHA265\" is no cipher of TLS 1.2" },
		{ "strong", "\"strong\" is no cipher" },
		{ "TLS_AES_256_GCM_SHA384", "\"TLS_AES_256_GCM_SHA384\" is no cipher of TLS 1.2" },
		{ "aNULL", "no cipher is left" },
		{ "AESGCM:!AESGCM", "no cipher is left" },
		{ "!RC4", "no cipher is left" },
		{ "@NONSENSE", "no cipher is left" },
		{ ":", "no cipher is left" },
	};

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		bool ok = tls_ciphers_ok(row[i].list, why, sizeof(why));

		if (ok != !row[i].why || (!ok && !strstr(why, row[i].why)))
			fail_msg("%s: %s", row[i].list, ok ? "taken" : why);
	}
}

static void a_long_word_is_cut_in_what_is_said(void **state)
{
	char list[5000];

	memset(list, 'A', sizeof(list) - 1);
	list[sizeof(list) - 1] = '\0';
	assert_false(tls_ciphers_ok(list, why, sizeof(why)));
	assert_non_null(strstr(why, "AAAA\" is no cipher"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_of_ciphers),
		cmocka_unit_test(a_long_word_is_cut_in_what_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
