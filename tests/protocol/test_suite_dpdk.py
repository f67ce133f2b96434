"""The protocol suite again over DPDK: every case in every way in make check-crash, a part of the table in make check."""
import os
import socket

import pytest
import test_suite
from dpdk import Maker, why_not
from node import free_port
from suite import Connection
from test_suite import (  # noqa: F401
    EXTENSIONS, INSIDE, LIMITS, RUNS, Suite, normalising, test_every_byte_that_was_sent_on, test_log_lines_cannot_be_forged, test_no_process_died,
    test_nothing_is_left_and_nothing_else_arrived, test_received_fields, test_strangers_reach_only_our_domains, test_who_does_not_read_is_held_back)

ALL = "WEIR_KILLS" in os.environ  # of make check-crash
PART = RUNS if ALL else RUNS[::12] + [r for r in RUNS[1::3] if r[0].outside]
CUTS = None if ALL else list(test_suite.cuts())[::25]
STUCK = ("starttls", "implicit") if ALL else ()
INSIDER, OUTSIDER = "10.25.0.1", "10.25.0.2"


@pytest.mark.parametrize("case,way", PART, ids=[f"{case.name}-{way}" for case, way in PART])
def test_case(suite, case, way):  # noqa: F811
    test_suite.test_case(suite, case, way)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    if why_not():
        pytest.skip(why_not())
    maker = Maker(tmp_path_factory.mktemp)
    usual = Connection.open
    try:
        wire = maker.wire(1)
        wire.in_client("ip", "addr", "add", OUTSIDER + "/24", "dev", "c0", check=True)
        sink = maker.keep(wire.sink(extensions=EXTENSIONS))
        normalise = free_port()
        node = maker.node(wire, sink.port, listeners=[normalising("0.0.0.0", normalise)], extra=LIMITS + INSIDE % (INSIDER + "/32"))
        node.normalise = normalise

        def connect(port, source, timeout):
            with wire.client():
                return socket.create_connection((node.host, port), timeout, source_address=(INSIDER if source == "127.0.0.1" else OUTSIDER, 0))

        Connection.open = staticmethod(connect)
        s = Suite(node, sink, PART, CUTS, STUCK)
        s.run_all()
        yield s
    finally:
        Connection.open = staticmethod(usual)
        maker.end()


@pytest.mark.parametrize("way", ["plain", *(pytest.param(way, marks=pytest.mark.long) for way in ("starttls", "implicit"))])
def test_who_reads_late_gets_every_reply(suite, way):
    test_suite.test_who_reads_late_gets_every_reply(suite, way)


@pytest.mark.long
@pytest.mark.skipif(not ALL, reason="only in make check-crash")
@pytest.mark.parametrize("way", ["starttls", "implicit"])
def test_a_stuck_handshake_ends(suite, way):
    test_suite.test_a_stuck_handshake_ends(suite, way)


def test_cuts(suite):
    """P2: nothing of a transaction that was cut, the whole of one that was not."""
    for method, how, way, at in suite.cut_runs:
        key = method, how, way, at
        assert not suite.failed[key], (key, suite.failed[key])
        came = [test_suite.without_trace(m["data"]) for m in suite.of(key)]
        end = len(test_suite.WHOLE[method].replace(b"@ME@", b"\xff"))
        whole = [test_suite.TEXT]
        assert came == [] if at < end else came == whole if how in ("half-close", "close_notify") else came in ([], whole), (key, end)
