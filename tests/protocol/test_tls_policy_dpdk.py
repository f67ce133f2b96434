"""F4 over DPDK: every test of test_tls_policy.py with exchangers in another network; DNS and the policies' web server are on the node's own kernel."""
import pytest
from dpdk import Maker, why_not
from test_tls_policy import *  # noqa: F401,F403
from test_tls_policy import World, config, routes

# of resolvers only
del test_without_validation_there_is_no_dane, test_a_resolver_that_does_not_validate_is_noticed  # noqa: F821


@pytest.fixture(scope="module")
def maker(tmp_path_factory):
    if why_not():
        pytest.skip(why_not())
    m = Maker(tmp_path_factory.mktemp)
    yield m
    m.end()


@pytest.fixture(scope="module")
def wire(maker):
    w = maker.wire(1)
    w.add_clients(11, 12, 13, 14)
    return w


@pytest.fixture(scope="module")
def world(wire, tmp_path_factory):
    w = World(tmp_path_factory.mktemp("world"), "10.25.0.", wire.client, wire.node)
    yield w
    w.stop()


@pytest.fixture(scope="module")
def node(maker, wire, world):
    return maker.node(wire, None, routes=routes(world), extra=config(world))
