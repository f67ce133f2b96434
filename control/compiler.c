#include "control/compiler.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "control/progress.h"
#include "control/sources.h"
#include "spool/base/log.h"

/* Who started us must be there: two that write tables at a time are none too many for the lock, but one too many. */
static bool has_parent(void)
{
	struct pollfd p = { .fd = STDOUT_FILENO };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return poll(&p, 1, 0) == 0; /* else nobody reads any more */
}

static void tell_errors(const char *text)
{
	struct span rest = span_str(text);

	while (rest.n) {
		struct span line = span_cut(&rest, '\n');

		printf("error %.*s\n", SPAN_FMT(line));
	}
	fflush(stdout);
}

int compiler_run(const char *run_dir, enum publish_tables how, const char *by)
{
	struct progress p = { .to = stdout };
	struct snapshot s;
	char *text = NULL;
	size_t n;
	FILE *errors = open_memstream(&text, &n);
	uint64_t generation;
	int lock = -1;
	bool ok;

	CHECK(errors);
	prctl(PR_SET_NAME, "weir-compiler"); /* not "exe", which it was started as */
	if (!has_parent())
		return 1;
	if (snapshot_open("/proc/self/fd/0", &s) != ST_OK || (lock = generations_lock(run_dir)) < 0) {
		tell_errors(trail_text());
		return 1;
	}
	ok = tables_publish(&s, run_dir, how, errors, &p, &generation);
	fclose(errors);
	close(lock); /* what follows has nothing to do with tables: a rollback need not wait for it */
	if (ok) {
		printf("generation %llu\n", (unsigned long long)generation);
		fflush(stdout);
		printf("changes %u\n", sources_note_files(&s, by, &p));
		fflush(stdout);
	} else {
		tell_errors(text);
	}
	log_flush();
	free(text);
	snapshot_close(&s);
	return ok ? 0 : COMPILER_ERRORS;
}
