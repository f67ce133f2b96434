#include "control/when.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "spool/base/clock.h"

static bool ago(const char *text, uint64_t *ret_ns)
{
	static const struct {
		char unit;
		uint64_t s;
	} units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (end != text && *end == units[i].unit && !end[1] && n < 1000000) {
			*ret_ns = clock_wall_ns() / NS_PER_S * NS_PER_S - n * units[i].s * NS_PER_S;
			return true;
		}
	return false;
}

bool when_parse(const char *text, uint64_t *ret_ns)
{
	static const char *const forms[] = { "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%MZ", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H", "%Y-%m-%d" };

	if (strcmp(text, "now") == 0) {
		*ret_ns = clock_wall_ns();
		return true;
	}
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		struct tm tm = { 0 };
		const char *end = strptime(text, forms[i], &tm);

		if (end && !*end) {
			*ret_ns = (uint64_t)timegm(&tm) * NS_PER_S;
			return true;
		}
	}
	return ago(text, ret_ns);
}

const char *when_text(uint64_t ns)
{
	static char text[2][32];
	static unsigned which;
	time_t t = (time_t)(ns / NS_PER_S);
	struct tm tm;

	which ^= 1;
	gmtime_r(&t, &tm);
	strftime(text[which], sizeof(text[which]), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return text[which];
}
