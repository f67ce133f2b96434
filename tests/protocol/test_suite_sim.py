"""The protocol suite over the simulated network (net_sim): the same table, the real worker, and simulated time; here in a calm network, and in test_suite_sim_rough in two others.

A case has a world of its own, and in it the ways in which it makes sense, one after the other. What arrives is looked at after each, and that nothing is left to do.
Every case of the table is run. Only over real sockets are run: what measures memory or processes (test_suite), real clients, balancers and MTAs, and far ends with IPv6
addresses, which net_sim does not have.
"""
import collections
import re

import pytest
import sim
from node import free_port, without_trace
from suite import OPEN, WAYS, Connection, as_bytes, connect, expect, greeting, run_case
from test_suite import CASES, EXTENSIONS, FIELD, INSIDE, LIMITS, normalising



@pytest.fixture(scope="module")
def program(tmp_path_factory):
    normalise = free_port()
    p = sim.Program(tmp_path_factory.mktemp("sim"), EXTENSIONS, listeners=[normalising("127.0.0.1", normalise)], extra=LIMITS + INSIDE % "127.0.0.0/16")
    p.node.normalise = normalise
    yield p
    p.stop()


CASE = next(case for case in CASES if case.name == "pipelined-over-the-dot")


def run(world, node, case, way):
    world.sink.messages.clear()
    run_case(case, way, node, "me.test")
    world.settle()
    came = world.sink.messages
    assert sorted(without_trace(m["data"]) for m in came) == sorted(case.gets)
    assert not case.to or came[0]["to"] == case.to
    assert not case.mail or re.sub(r" SIZE=\d+", "", came[0]["mail"]) == case.mail
    assert not case.rcpt or came[0]["rcpt"] == case.rcpt
    assert all(re.match(FIELD, m["data"]) for m in came), came
    assert not case.outside or all(rcpt.lower().endswith("@cam.example") or rcpt.lower() == "postmaster" for m in came for rcpt in m["to"]), came  # P5
    assert not re.search(rb"\0|\r(?!\n)|(?<!\r)\n", world.sink.raw)  # P3


def run_in(program, case, networks):
    size = sum(len(s[0]) for s in case.steps if isinstance(s, tuple))
    with program.world(case.name) as world:
        for network, ways in networks.items():
            for way in case.runs():
                if way in ways:
                    world.network(network.for_size(size), way)
                    run(world, program.node, case, way)


@pytest.mark.parametrize("case", CASES, ids=[f"net_sim-calm-{case.name}" for case in CASES])
def test_case(program, case):
    run_in(program, case, {sim.CALM: WAYS})


@pytest.mark.parametrize("way", ("plain", "starttls", "implicit"))
def test_net_sim_who_does_not_read_is_held_back(program, way):
    """P7: TCP holds him back, nothing piles up here; and in the end he is closed."""
    with program.world("unread", way) as world:
        world.network(sim.CALM)
        c = connect(way, program.node)
        for step in OPEN:
            c.send(as_bytes(step[0]))
            expect(c, step[1], b"")
        c.send(b"RCPT TO:<b@example.org>\r\n" * 40000)
        world.rest(60)
        assert world.state(c.s.end).unsent > 500000
        world.rest(1000)
        assert world.state().sessions == 0
        c.reset()
        world.settle()


@pytest.mark.parametrize("way", ("plain", "starttls", "implicit"))
def test_net_sim_who_reads_late_gets_every_reply(program, way):
    with program.world("late", way) as world:
        world.network(sim.CALM)
        c = connect(way, program.node)
        c.send((b"EHLO late.test\r\nMAIL FROM:<a@cam.example>\r\n" + b"RCPT TO:<b@example.org>\r\n" * 1000 + b"RSET\r\n") * 20)
        world.rest(60)
        for _ in range(20):
            assert c.reply()[-1].startswith(b"250 ") and c.reply()[0].startswith(b"250 2.1.0")
            assert collections.Counter(c.reply()[0][:9] for _ in range(1000)) == {b"250 2.1.5": 100, b"452 4.5.3": 900}
            assert c.reply()[0].startswith(b"250 2.0.0")
        c.close()
        world.settle()


@pytest.mark.parametrize("way", ("starttls", "implicit"))
def test_net_sim_a_stuck_handshake_ends(program, way):
    """P23, and on the clock of the world exactly in time."""
    with program.world("stuck", way) as world:
        world.network(sim.CALM)
        c = Connection(program.node.smtps if way == "implicit" else program.node.port)
        if way == "starttls":
            greeting(c)
            c.send(b"STARTTLS\r\n")
            expect(c, "220 2.0.0", b"STARTTLS")
        begun = world.now
        assert c.reply() is None
        assert 10 * sim.S <= world.now - begun < 10.1 * sim.S
        c.close()
        world.settle()


def test_net_sim_is_the_same_again(program):
    """The same seed is the same conversation to the nanosecond, and another one is not."""
    def conversation(name):
        with program.world(name) as world:
            world.network(sim.BAD)
            run(world, program.node, CASE, "implicit")
            return world.now

    assert conversation("a") == conversation("a") != conversation("b")
