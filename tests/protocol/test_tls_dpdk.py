"""F4 and P4 over DPDK: what test_tls.py has of TLS with remote hosts. The server's side of TLS is in test_suite_dpdk.py."""
import pytest
from dpdk import make_dpdk, make_node, make_sink, over_the_wire  # noqa: F401
from node import free_port
from test_tls import (  # noqa: F401
    Remote, TlsSink, ca, certificate, pytestmark, test_mandatory_tls_that_fails_defers, test_opportunistic_tls_that_fails_is_done_without,
    test_replies_behind_the_220_are_not_read, test_replies_behind_the_end_of_tls_are_not_read, test_sessions_of_remote_hosts_are_resumed)

IN_CHECK = {"test_mandatory_tls_that_fails_defers[junk]", "test_opportunistic_tls_that_fails_is_done_without[silent]", "test_replies_behind_the_220_are_not_read",
            "test_replies_behind_the_end_of_tls_are_not_read[END-close_notify]", "test_sessions_of_remote_hosts_are_resumed"}


@pytest.fixture
def remote(over_the_wire):  # noqa: F811
    made = []

    def make(script, context=None):
        with over_the_wire.client():
            made.append(Remote(script, context, "10.25.0.1"))
        return made[-1]

    yield make
    for r in made:
        r.stop()


@pytest.fixture
def tls_sink(over_the_wire, ca, tmp_path):  # noqa: F811
    with over_the_wire.client():
        s = TlsSink("10.25.0.1", free_port(), *certificate(ca, tmp_path, "remote.test"))
    yield s
    s.stop()
