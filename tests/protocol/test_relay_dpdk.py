"""Every test of test_relay.py again over the DPDK transport: what a client and a remote server see must be the same."""
from dpdk import make_dpdk, make_node, make_sink, node, over_the_wire, sink  # noqa: F401
from test_relay import *  # noqa: F401,F403

IN_CHECK = {"test_cut_connections_deliver_nothing", "test_injection_behind_starttls_closes",
            "test_limits_of_time_connections_recipients_and_errors", "test_smtp_source_many_sessions[mode0]"}
