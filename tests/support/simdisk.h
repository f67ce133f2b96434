/* A disk that is only simulated: deterministic by its seed, without root, and as unkind as the rules of disks allow.
 *
 * An image lives on while disks on it come and go, as a real one does while machines crash. What was written and not flushed when the power goes is dropped, kept, or
 * torn at sectors, in any combination; operations under way complete in any order. Rules can make operations fail. */
#ifndef WEIR_TESTS_SUPPORT_SIMDISK_H
#define WEIR_TESTS_SUPPORT_SIMDISK_H

#include <stdbool.h>
#include <stdint.h>
#include "spool/base/uring.h"
#include "spool/store/disk.h"

struct sim_image;

enum sim_fault { SIM_OK, SIM_EIO, SIM_ENOSPC, SIM_SHORT };

struct sim_rules {
	uint64_t power_off_at; /* the operation with this number, and all after it, never end; 0: none */
	bool lying_flush;      /* flushes say done and do nothing: the positive control */
	uint64_t fault_at;     /* the operation with this number fails; 0: none */
	uint64_t faults;       /* how many in a row */
	enum sim_fault fault;
	int fault_kind;        /* enum disk_kind that is counted for fault_at; -1: all */
	uint32_t sector;       /* tears are at multiples of this: 512 or 4096 */
};

struct sim_image *sim_image_new(uint64_t seed);
void sim_image_free(struct sim_image *im);
/* A disk on the image. done is called for each end of an operation. */
struct disk *sim_disk(struct sim_image *im, uring_fn *done, const struct sim_rules *rules);
/* The power goes: what is not durable is decided on. Any disk on the image must be freed before it is used again. */
void sim_power_loss(struct sim_image *im);
/* Operations begun so far, over all disks on the image. */
uint64_t sim_operations(const struct sim_image *im);
bool sim_is_off(const struct sim_image *im);
/* The next random number of the image's own sequence. */
uint64_t sim_random(struct sim_image *im);

#endif
