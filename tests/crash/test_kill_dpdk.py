"""The kill storms again over the DPDK transport: a worker's death takes its whole TCP with it, and loses nothing that was acknowledged."""
import pytest
from dpdk import make_dpdk, make_node, make_sink, node, over_the_wire, sink  # noqa: F401
from test_kill import *  # noqa: F401,F403

pytestmark = pytest.mark.long
