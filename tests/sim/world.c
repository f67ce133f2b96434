/* What the worker's calls find in place of kernel and disk: --wrap of config_load, net_new, disk_files_new and uring_wait. */
#include "tests/sim/world.h"

#include <stdlib.h>
#include "dataplane/inbound.h"
#include "dataplane/outbound.h"
#include "spool/base/counters.h"
#include "tests/sim/control.h"
#include "tests/sim/disk.h"
#include "tests/sim/scanner.h"

struct world world;

enum status __real_config_load(const char *run_dir, struct config **ret);
enum status __wrap_config_load(const char *run_dir, struct config **ret);
enum status __real_net_new(struct uring *u, const struct net_config *cfg, struct net **ret);
enum status __wrap_net_new(struct uring *u, const struct net_config *cfg, struct net **ret);
enum status __wrap_disk_files_new(struct uring *u, const char *dir, bool direct, struct disk **ret);
enum status __real_uring_wait(struct uring *u, uint64_t timeout_ns);
enum status __wrap_uring_wait(struct uring *u, uint64_t timeout_ns);

void world_begin(struct worker *w, const struct sim_options *o)
{
	world.worker = w;
	world.sim = sim_new(o);
	CHECK(world.sim);
	world.seed = o->seed;
}

/* The configuration says what it says in production, and cannot say "simulated". */
enum status __wrap_config_load(const char *run_dir, struct config **ret)
{
	enum status st = __real_config_load(run_dir, ret);
	struct snap_settings *mine;

	if (st != ST_OK)
		return st;
	mine = malloc(sizeof(*mine)); /* as long as the process, as a configuration may be held by a session */
	CHECK(mine);
	*mine = *(*ret)->set;
	mine->transport = NET_SIM;
	(*ret)->set = mine;
	return ST_OK;
}

enum status __wrap_net_new(struct uring *u, const struct net_config *cfg, struct net **ret)
{
	struct net_config mine = *cfg;

	mine.sim = world.sim;
	return __real_net_new(u, &mine, ret);
}

static void disk_ended(const struct disk_tag *tag, int res)
{
	struct uring *u = &world.worker->uring;

	u->handler[URING_STORE].fn(u->handler[URING_STORE].ctx, &(struct uring_event){ .op = tag->op, .slot = tag->slot, .gen = tag->gen, .res = res });
}

enum status __wrap_disk_files_new(struct uring *u, const char *dir, bool direct, struct disk **ret)
{
	(void)u;
	(void)dir;
	(void)direct;
	CHECK(!world.disk); /* one partition: a disk is one directory */
	world.disk = disk_new(world.seed, disk_ended);
	*ret = world.disk;
	return ST_OK;
}

uint32_t world_queue(void)
{
	uint32_t n = 0, awake;

	for (uint32_t i = 0; i < world.worker->nstore; i++)
		n += store_count(world.worker->store[i], &awake);
	return n;
}

bool world_is_idle(void)
{
	struct worker *w = world.worker;

	return !inbound_sessions(w) && !outbound_busy(w) && !net_conns(w->net) && !world_queue() && !store_busy(w->store[0]);
}

/* What takes no simulated time. True: something happened, and the worker should look. */
static bool at_once(void)
{
	bool scanned = scanner_turn();

	return disk_turn(world.disk) || scanned;
}

enum status __wrap_uring_wait(struct uring *u, uint64_t timeout_ns)
{
	enum status st = __real_uring_wait(u, 0);
	uint64_t limit;

	if (st != ST_OK || at_once() || !counter_get(C_SCANNERS) || !timeout_ns || world.worker->stopping)
		return st;
	limit = control_turn();
	if (!world.worker->stopping)
		sim_wait(world.sim, limit < timeout_ns ? limit : timeout_ns);
	return ST_OK;
}
