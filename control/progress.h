/* How far a long piece of work is: a line now and then, "progress PHASE DONE OF", for the process that waits for it. */
#ifndef WEIR_CONTROL_PROGRESS_H
#define WEIR_CONTROL_PROGRESS_H

#include <stdint.h>
#include <stdio.h>

/* READING: the files of domains; WRITING: the generation; NOTING: the histories of domains. */
enum progress_phase { PROGRESS_NONE, PROGRESS_READING, PROGRESS_WRITING, PROGRESS_NOTING, PROGRESS_NPHASE };

struct progress {
	FILE *to; /* NULL: nobody waits */
	enum progress_phase phase;
	uint64_t told_ns;
};

/* At the beginning of a phase, and ten times a second; p may be NULL. */
void progress_tell(struct progress *p, enum progress_phase phase, uint64_t done, uint64_t of);

#endif
