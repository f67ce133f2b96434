/* Helper threads: for work that would hold up the loop.
 *
 * Such a thread gets no signals: they are for the loop's thread, whose wait they are to interrupt. */
#ifndef WEIR_SPOOL_BASE_THREAD_H
#define WEIR_SPOOL_BASE_THREAD_H

#include <pthread.h>
#include "spool/base/status.h"

/* ST_IO. */
enum status thread_start(pthread_t *ret, void *(*fn)(void *), void *arg);

#endif
