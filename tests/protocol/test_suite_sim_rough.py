"""The protocol suite over the simulated network again, in networks that cut everything to pieces, delay and lose (tests/support/sim.py has their figures).

They make "bytes" and "burst" of "plain", and of both kinds of TLS one: these are the ways that are left.
"""
import pytest
import sim
from test_suite import CASES
from test_suite_sim import program, run_in  # noqa: F401

NETWORKS = {sim.TINY: ("plain", "starttls"), sim.BAD: ("plain", "implicit")}


@pytest.mark.parametrize("case", CASES, ids=[f"net_sim-tiny-and-bad-{case.name}" for case in CASES])
def test_case(program, case):  # noqa: F811
    run_in(program, case, NETWORKS)
