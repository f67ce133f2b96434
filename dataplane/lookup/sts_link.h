/* The link to weir-control of spool/store/sts_ask.h: made when it is needed, made again when it broke.
 *
 * Thread: one. Nothing waits: what cannot be sent at once is not sent. */
#ifndef WEIR_DATAPLANE_LOOKUP_STS_LINK_H
#define WEIR_DATAPLANE_LOOKUP_STS_LINK_H

#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/base/uring.h"

struct sts_link;

typedef void sts_link_packet_fn(void *ctx, struct span packet);
typedef void sts_link_broken_fn(void *ctx);

enum status sts_link_new(struct uring *u, const char *run_dir, sts_link_packet_fn *packet, sts_link_broken_fn *broken, void *ctx,
	struct sts_link **ret);
/* After the ring is gone. */
void sts_link_free(struct sts_link *l);
/* False: weir-control is away, or has too much to do. */
bool sts_link_send(struct sts_link *l, struct span packet);

#endif
