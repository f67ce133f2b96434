"""Over DPDK: listeners behind balancers (PROXY), listeners that speak LMTP, test clients (XCLIENT), and destinations that are asked for recipients (B2)."""
from dpdk import make_dpdk, make_node, make_sink, over_the_wire, sink  # noqa: F401
from test_lmtp_server import lmtp, test_only_lhlo, test_what_is_refused_after_the_data_is_refused_for_each  # noqa: F401
from test_proxy import proxied, test_it_is_the_client_everywhere, test_limits_count_the_client  # noqa: F401
from test_verify import test_b2_known_and_unknown, test_b2_message_is_delivered_and_teaches, world  # noqa: F401
from test_xclient import node, test_helo_and_proto, test_the_client_is_the_one_that_was_named  # noqa: F401

IN_CHECK = {"test_only_lhlo", "test_what_is_refused_after_the_data_is_refused_for_each", "test_it_is_the_client_everywhere", "test_limits_count_the_client",
            "test_b2_known_and_unknown", "test_the_client_is_the_one_that_was_named"}
