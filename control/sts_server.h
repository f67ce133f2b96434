/* Answers dataplane workers who ask for MTA-STS policies (spool/store/sts_ask.h): from the cache, or by fetching.
 *
 * Thread: one. */
#ifndef WEIR_CONTROL_STS_SERVER_H
#define WEIR_CONTROL_STS_SERVER_H

#include <stdbool.h>
#include "spool/base/status.h"

enum status sts_server_start(const char *run_dir);
void sts_server_stop(void);
/* Serves, and waits at most so long or until fd is readable: true; or other, which may be -1. */
bool sts_server_wait(int fd, int other, int timeout_ms);

#endif
