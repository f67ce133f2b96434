/* One change of a managed domain's aliases: compared with the live copy, written into the history, logged (C9). */
#ifndef WEIR_CONTROL_CHANGE_H
#define WEIR_CONTROL_CHANGE_H

#include "control/history.h"

struct change {
	const char *dir, *domain;
	const char *how, *by, *source;
	struct span text;
	uint64_t passed_over; /* of a revert */
	uint64_t n; /* which number it must get; 0: any */
	uint32_t keep;
	enum history_when when;
};

/* The text is known to be good. *ret: the row that is in force now. ST_AGAIN: another change came first. */
enum status change_make(const struct change *c, struct history_row *ret);

#endif
