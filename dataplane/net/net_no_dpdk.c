/* In place of net_dpdk*.c where DPDK or lwIP's source could not be had: says so. WEIR_NO_DPDK is the reason, from the Makefile. */
#include "dataplane/net/transport.h"

static enum status start(struct net *n)
{
	(void)n;
	return trail(ST_UNSUPPORTED, "transport: this build has no DPDK: %s", WEIR_NO_DPDK);
}

const struct transport_ops net_dpdk_ops = { .start = start };

enum status net_dpdk_open(const struct snap_dpdk *cfg, const char *run_dir)
{
	(void)cfg;
	(void)run_dir;
	return trail(ST_UNSUPPORTED, "transport: this build has no DPDK: %s", WEIR_NO_DPDK);
}

const char *net_dpdk_missing(void)
{
	return WEIR_NO_DPDK;
}
