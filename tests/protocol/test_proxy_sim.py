"""The PROXY protocol over the simulated network: headers in pieces of every size, cut off at every byte, from balancers and from strangers (section G, P22)."""
import itertools

import pytest
import sim
from node import free_port
from suite import Connection, check_reply, expect, expect_closed, greeting
from test_proxy import BALANCER, SIG, STRANGER, V1, V1_6, v2
from test_suite import EXTENSIONS, INSIDE

CLIENTS = {  # header: whom Received names
    "v1": (V1, "[192.0.2.7]"), "v1-tcp6": (V1_6, "[IPv6:2001:db8::7]"), "v1-unknown": (b"PROXY UNKNOWN\r\n", f"[{BALANCER}]"), "v2": (v2("192.0.2.7"), "[192.0.2.7]"),
    "v2-tcp6": (v2("2001:db8::7"), "[IPv6:2001:db8::7]"), "v2-tlv": (v2("192.0.2.7", tlv=b"\x04\0\x05xxxxx\x20\0\0"), "[192.0.2.7]"), "v2-local": (SIG + b"\x20\0\0\0", f"[{BALANCER}]"),
    "v2-local-tlv": (SIG + b"\x20\0\0\3xyz", f"[{BALANCER}]")}
BAD = {"smtp": b"EHLO x.example\r\n", "http": b"GET / HTTP/1.1\r\n\r\n", "v1-short": b"PROXY TCP4 192.0.2.7 127.0.0.1 4097\r\n", "v1-long": b"PROXY TCP4 " + b"1" * 200,
       "v2-unix": SIG + b"\x21\x31\0\xd8", "v2-udp": SIG + b"\x21\x12\0\x0c", "v2-version": SIG + b"\x31\x11\0\x0c", "v2-too-short": SIG + b"\x21\x11\0\x04aaaa"}
PORTS = ("proxied", "proxied_tls")
MESSAGE = ((b"EHLO x.example\r\n", "250"), (b"MAIL FROM:<a@cam.example>\r\n", "250 2.1.0"), (b"RCPT TO:<b@example.org>\r\n", "250 2.1.5"), (b"DATA\r\n", "354"),
           (b"Subject: x\r\n\r\nx\r\n.\r\n", "250 2.0.0"))


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    ports = {name: free_port() for name in PORTS}
    networks = f"127.0.0.1/32, rate: none}}, {{network: {BALANCER}/32, rate: none}}, {{network: 192.0.2.7/32, rate: none}}, {{network: \"2001:db8::7/128\""
    p = sim.Program(tmp_path_factory.mktemp("sim"), EXTENSIONS, extra=f"balancers: [{BALANCER}/32]\n" + INSIDE % networks,
                    listeners=[f'{{address: "127.0.0.1:{ports["proxied"]}", proxy: yes}}', f'{{address: "127.0.0.1:{ports["proxied_tls"]}", proxy: yes, tls: implicit}}'])
    p.ports = ports
    yield p
    p.stop()


def send_message(c):
    for line, want in MESSAGE:
        c.send(line)
        expect(c, want, line)
    c.close()


def received_from(world, client):
    world.settle()
    m = world.sink.messages.pop()
    assert not world.sink.messages
    assert m["data"].startswith(f"Received: from x.example ({client})\r\n".encode()), m["data"][:100]


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("name", CLIENTS)
def test_net_sim_header_split_at_every_byte(program, name, port):
    """The client is the one that was told, however the header and what follows it come."""
    header, client = CLIENTS[name]
    with program.world("proxy", name, port) as world:
        for at in range(len(header) + 1):
            world.network((sim.CALM, sim.TINY, sim.BAD)[at % 3], at)
            c = Connection(program.ports[port], BALANCER)
            c.send_raw(header[:at])
            c.rest(0.5)
            c.send_raw(header[at:])
            if port == "proxied_tls":
                c.start_tls()
            greeting(c)
            send_message(c)
            received_from(world, client)


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("name", ("v1", "v2-tlv"))
def test_net_sim_header_cut_off_at_every_byte(program, name, port):
    """Nothing is said to a balancer that went in its header, and nothing of it stays."""
    header = CLIENTS[name][0]
    with program.world("cut", name, port) as world:
        for at, how in itertools.product(range(len(header)), ("close", "reset", "half-close")):
            world.network(sim.TINY, at, how)
            c = Connection(program.ports[port], BALANCER)
            c.send_raw(header[:at])
            {"close": c.close, "reset": c.reset, "half-close": c.half_close}[how]()
            if how == "half-close":
                assert c.reply() is None
                c.close()
            world.settle()


@pytest.mark.parametrize("network", (sim.CALM, sim.TINY), ids=lambda n: n.name)
@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("name", BAD)
def test_net_sim_a_bad_header_ends_the_connection(program, name, port, network):
    with program.world("bad", name, port) as world:
        world.network(network)
        c = Connection(program.ports[port], BALANCER)
        c.send_raw(BAD[name])
        assert c.reply() is None
        c.close()
        world.settle()


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("name", CLIENTS)
def test_net_sim_strangers_and_other_listeners(program, name, port):
    """P22: a header from somebody who is no balancer gives nobody another address; on a listener without proxy: yes it is no command."""
    with program.world("stranger", name, port) as world:
        world.network(sim.TINY)
        c = Connection(program.ports[port], STRANGER)
        c.send_raw(CLIENTS[name][0])
        assert c.reply() is None
        c.close()
        world.settle()
        c = Connection(program.node.port, BALANCER)
        greeting(c)
        c.send(CLIENTS[name][0])
        code, _, _ = check_reply(c.reply())
        assert code[0] == "5"
        expect_closed(c, False)
        c.close()
        world.settle()


@pytest.mark.parametrize("port", PORTS)
def test_net_sim_silent_balancers_do_not_stay(program, port):
    """P16, P23: ten seconds for the header, however slowly it comes."""
    with program.world("silent", port) as world:
        for drip in (False, True):
            world.network(sim.CALM, drip)
            begun = world.now
            c = Connection(program.ports[port], BALANCER)
            for i in range(len(V1) - 2 if drip else 0):
                c.send_raw(V1[i:i + 1])
                c.rest(1)
            assert c.reply() is None
            c.close()
            world.settle()
            assert drip or 9 * sim.S < world.now - begun < 15 * sim.S
