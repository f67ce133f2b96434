"""Disconnects at every byte over the simulated network: P1 (what was acknowledged is delivered) and P2 (what was not complete is not), for the client's connection and for the
one on which the message goes on. A world holds all cuts of one kind, one after the other."""
import itertools

import pytest
import sim
from node import without_trace
from suite import GREETING, HEAD, TEXT, Connection, act
from test_suite import CUT_WAYS, CUTS, EXTENSIONS, INSIDE, LIMITS, WHOLE, run_cut

# HELO, as what is cut are the replies too, and one of many lines is no other than one of one.
STEPS = {"data": (b"HELO me.test\r\n", b"MAIL FROM:<a@cam.example>\r\n", b"RCPT TO:<b@example.org>\r\n", b"DATA\r\n", TEXT + b".\r\n"),
         "bdat": (b"HELO me.test\r\n", b"MAIL FROM:<a@cam.example>\r\n", b"RCPT TO:<b@example.org>\r\n", b"BDAT 20\r\n" + TEXT[:20], b"BDAT %d LAST\r\n" % (len(TEXT) - 20) + TEXT[20:])}
# Nobody is waited for longer than a few of the worker's ticks: simulated time costs something, too.
QUICK = ("timeouts: {command: 5s, data: 5s}\ndelivery: {retry_first: 1s, retry_max: 2s, idle: 500ms, connect_timeout: 5s, greeting_timeout: 5s, reply_timeout: 5s, "
         "final_timeout: 5s}\n")
LONG = HEAD + b"".join(b".%d\r\n" % i for i in range(40))


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    p = sim.Program(tmp_path_factory.mktemp("sim"), EXTENSIONS, extra=LIMITS + INSIDE % "127.0.0.0/16" + QUICK)
    yield p
    p.stop()


def came(world):
    return [without_trace(m["data"]) for m in world.sink.messages]


@pytest.mark.parametrize("network", (sim.CALM, sim.TINY), ids=lambda n: n.name)
@pytest.mark.parametrize("method,how,way", [x for x in itertools.product(WHOLE, CUTS, CUT_WAYS) if x[1] not in ("close_notify", "truncate") or x[2] != "plain"])
def test_a_client_that_goes_at_every_byte(program, method, how, way, network):
    """P2: the cuts of test_suite, in simulated time."""
    end = len(WHOLE[method].replace(b"@ME@", b"\xff"))
    with program.world("cuts", method, how, way, network.name) as world:
        for at in range(end + 3):
            world.network(network, at)
            world.sink.messages.clear()
            run_cut(program.node, method, how, way, at, "me.test")
            world.settle()
            if at < end:
                assert came(world) == [], f"{at} of {end} octets"
            elif how in ("half-close", "close_notify"):
                assert came(world) == [TEXT], f"{at} of {end} octets"
            else:
                assert came(world) in ([], [TEXT]), f"{at} of {end} octets"


def talk(c, steps):
    """Says its steps and reads the replies. Gives the last one, or None when the connection ended before it."""
    for step in steps:
        c.send(step)
        reply = c.reply()
        if not reply or not reply[-1].endswith(b"\r\n"):
            return None
    return reply[0]


@pytest.mark.parametrize("by_client", (True, False), ids=("octets-of-the-client", "octets-of-the-server"))
@pytest.mark.parametrize("how", ("reset", "eof", "silent"))
@pytest.mark.parametrize("method,tls", [("data", False), ("bdat", False), ("data", True)])
def test_a_network_that_cuts_a_session_at_every_byte(program, method, tls, how, by_client):
    """P1, P2: a 250 that came is a message that is delivered; of a message that did not come whole nothing is. Under TLS every 13th octet."""
    whole = sum(map(len, STEPS[method]))
    with program.world("session", method, tls, how, by_client) as world:
        for at in itertools.count(0, 13 if tls else 1):
            world.network(sim.CALM if at % 2 else sim.TINY, at)
            world.cut(how, by_client, at)
            world.sink.messages.clear()
            reply = session(program.node, tls, STEPS[method])
            world.cut_no_more()
            world.settle()
            got = came(world)
            assert got in ([], [TEXT])
            assert not reply or reply.startswith(b"250 2.0.0") and got
            assert tls or not by_client or at >= whole or not got, f"{at} of {whole} octets"
            if reply and (tls or at > whole + 3 or not by_client):
                break
            assert at < 9000


def session(node, tls, steps):
    try:
        c = Connection(node.smtps if tls else node.port)
    except OSError:
        return None
    try:
        c.s.timeout = 5
        if tls:
            c.start_tls()
        return talk(c, steps) if c.reply() else None
    except (OSError, ValueError):  # it was cut
        return None
    finally:
        c.close()


@pytest.mark.parametrize("by_us", (True, False), ids=("octets-of-the-node", "octets-of-the-next-hop"))
@pytest.mark.parametrize("how,stride", [("reset", 1), ("eof", 1), ("silent", 7)])
def test_a_network_that_cuts_a_delivery_at_every_byte(program, how, stride, by_us):
    """P1: whatever happens to the connection on which it goes on, the message arrives whole; twice only if the next hop had it all and could not say so."""
    with program.world("delivery", how, by_us) as world:
        for at in itertools.count(0, stride):
            world.network(sim.CALM, at)
            world.sink.messages.clear()
            world.sink.connections = 0
            c = Connection(program.node.port)
            act(c, GREETING)
            world.cut(how, by_us, at, once=True)
            reply = talk(c, (*STEPS["data"][:4], LONG.replace(b"\r\n.", b"\r\n..") + b".\r\n"))
            assert reply.startswith(b"250 2.0.0")
            c.close()
            world.settle()
            assert came(world) in ([LONG], [LONG, LONG]), f"cut after {at} octets"
            if world.sink.connections == 1:
                break
            assert at < 3000
