"""Every test of test_relay.py again over the DPDK transport: what a client and a remote server see must be the same."""
import pytest
import node as support
from dpdk import make_dpdk, Wire  # noqa: F401
from test_relay import *  # noqa: F401,F403


@pytest.fixture(autouse=True)
def over_the_wire(make_dpdk, monkeypatch):  # noqa: F811
    """Clients that know only a port connect to the first worker."""
    wire = make_dpdk.wire(1)

    def connect(host, port, timeout):
        with wire.client():
            return support.socket.create_connection(("10.25.0.10", port), timeout)

    monkeypatch.setattr(support, "connect_to", connect)
    return wire


@pytest.fixture
def make_sink(make_dpdk, over_the_wire):  # noqa: F811
    return lambda **kw: make_dpdk.keep(over_the_wire.sink(**kw))


@pytest.fixture
def sink(make_sink):
    return make_sink()


@pytest.fixture
def make_node(make_dpdk, over_the_wire):  # noqa: F811
    return lambda sink_port=None, **kw: make_dpdk.node(over_the_wire, sink_port, **{"engine": "clamav", **kw})


@pytest.fixture
def node(make_node, sink):
    return make_node(sink.port)
