/* Points in time as operators write them, all in UTC: 2026-11-21, 2026-11-21T08, 2026-11-21T08:30[:15][Z], now; or how long ago: 90m, 2h, 3d. */
#ifndef WEIR_CONTROL_WHEN_H
#define WEIR_CONTROL_WHEN_H

#include <stdbool.h>
#include <stdint.h>

/* Nanoseconds since the epoch. */
bool when_parse(const char *text, uint64_t *ret_ns);
/* "2026-11-21T08:30:15Z", valid until the next but one call. */
const char *when_text(uint64_t ns);

#endif
