"""Every test of test_relay.py again over the DPDK transport: what a client and a remote server see must be the same."""
from dpdk import make_dpdk, make_node, make_sink, node, over_the_wire, sink  # noqa: F401
from test_relay import *  # noqa: F401,F403
