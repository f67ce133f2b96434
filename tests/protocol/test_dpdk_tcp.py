"""TCP of the DPDK transport against peers made by hand, small paths, changed neighbours and floods."""
import os
import signal
import subprocess
import threading

import pytest
from dpdk import make_dpdk, open_in, run  # noqa: F401
from node import have, wait_for, without_trace
from raw_tcp import ACK, FIN, PSH, RST, SYN, RawPeer

HEAD = b"From: a@cam.example\r\nTo: b@example.org\r\nSubject: test\r\n\r\n"


def body(n):
    return HEAD + (b"0123456789" * 7 + b"\r\n") * (n // 72)


# ---- a connection's ends ----


def rst_in_syn_received(p):
    p.syn()
    p.send(RST)


def fin_in_syn_received(p):
    p.syn()
    p.send(FIN | ACK)
    p.to_the_end()


def rst_when_established(p):
    p.open()
    p.send(RST)


def rst_at_another_place_is_no_rst(p):
    """RFC 5961: inside the window it gets an ACK, outside nothing; either way the connection goes on."""
    p.open()
    p.send(RST, seq=p.seq + 100)
    p.expect(lambda s: s.flags == ACK and s.ack == p.seq)
    p.send(RST, seq=p.seq - 100000)
    p.send(RST | ACK, seq=p.seq + 2000000000)
    p.cmd(b"NOOP")
    p.send(RST)


def syn_when_established_is_no_syn(p):
    p.open()
    p.send(SYN, seq=p.seq + 50)
    p.expect(lambda s: s.flags == ACK and s.ack == p.seq)
    p.cmd(b"NOOP")
    p.send(RST)


def an_acknowledgement_of_what_was_not_sent(p):
    p.open()
    p.send(ACK, ack=p.ack + 5000)
    p.expect(lambda s: s.flags == ACK and s.ack == p.seq)
    p.cmd(b"NOOP")
    p.send(RST)


def fin_when_established(p):
    p.open()
    p.send(FIN | ACK)
    p.to_the_end()


def half_closed_with_an_answer(p):
    """The command comes with the FIN: it is answered."""
    p.open()
    p.send(FIN | ACK | PSH, b"NOOP\r\n")
    assert p.to_the_end().startswith(b"250 ")


def rst_in_last_ack(p):
    p.open()
    p.send(FIN | ACK)
    p.expect(lambda s: s.flags & FIN)
    p.send(RST)


def quit_without_acknowledging(p):
    p.open()
    p.send(ACK | PSH, b"QUIT\r\n")
    fin = p.expect(lambda s: s.flags & FIN)
    return fin, (fin.seq + len(fin.data) + 1) & 0xffffffff


def rst_in_fin_wait_1(p):
    quit_without_acknowledging(p)
    p.send(RST)


def both_close_at_once(p):
    """CLOSING, then TIME_WAIT, where a RST changes nothing (RFC 1337) and a FIN that comes again is acknowledged again."""
    fin, end = quit_without_acknowledging(p)
    p.send(FIN | ACK, ack=fin.seq)
    p.expect(lambda s: s.flags == ACK and s.ack == p.seq)
    p.send(ACK, ack=end)
    p.quiet()
    p.send(RST)
    p.send(FIN | ACK, seq=p.seq - 1, ack=end)
    p.expect(lambda s: s.flags == ACK and s.ack == p.seq)


def rst_in_closing(p):
    fin, _ = quit_without_acknowledging(p)
    p.send(FIN | ACK, ack=fin.seq)
    p.expect(lambda s: s.flags == ACK and s.ack == p.seq)
    p.send(RST)


def fin_in_fin_wait_2(p):
    _, end = quit_without_acknowledging(p)
    p.ack = end
    p.send(ACK)
    p.quiet(0.1)
    p.send(FIN | ACK)
    p.expect(lambda s: s.flags == ACK and s.ack == p.seq)


def rst_in_fin_wait_2(p):
    _, end = quit_without_acknowledging(p)
    p.ack = end
    p.send(ACK)
    p.quiet(0.1)
    p.send(RST)


ENDS = [rst_in_syn_received, fin_in_syn_received, rst_when_established, rst_at_another_place_is_no_rst, syn_when_established_is_no_syn,
        an_acknowledgement_of_what_was_not_sent, fin_when_established, half_closed_with_an_answer, rst_in_last_ack, rst_in_fin_wait_1, both_close_at_once,
        rst_in_closing, fin_in_fin_wait_2, rst_in_fin_wait_2]


def test_rst_and_fin_in_every_state(make_dpdk):  # noqa: F811
    node, _ = make_dpdk(sink=False)
    pid = node.pids("weir-dataplane")
    failed = []
    for i, end in enumerate(ENDS):
        try:
            end(RawPeer(node, 2000 + i))
        except AssertionError as e:
            failed.append(f"{end.__name__}: {e}")
    assert not failed
    assert wait_for(lambda: node.counters()["sessions_open"] == 0)
    assert wait_for(lambda: node.counters()["tcp_connections"] == 0), node.counters()["tcp_connections"]
    assert wait_for(lambda: node.counters()["tcp_time_wait"] >= 2)
    assert node.pids("weir-dataplane") == pid


# ---- windows, sizes, numbers ----


def test_a_zero_window_is_probed_and_loses_nothing(make_dpdk):  # noqa: F811
    node, _ = make_dpdk(sink=False)
    p = RawPeer(node, window=100)
    p.syn()
    p.send(ACK)
    greeting = p.expect(lambda s: s.data)
    p.window -= len(greeting.data)
    p.take(greeting)
    p.send(ACK | PSH, b"EHLO raw.test\r\n")
    first = p.expect(lambda s: s.data)
    assert len(first.data) <= p.window
    p.window -= len(first.data)
    p.take(first)
    if p.window:
        first = p.expect(lambda s: s.data)
        assert len(first.data) == p.window
        p.window = 0
        p.take(first)
    probes = [s for s in p.quiet(2.5) if s.data or not s.flags & SYN]
    assert probes and all(len(s.data) <= 1 for s in probes), [len(s.data) for s in probes]
    p.window = 65535
    p.send(ACK)
    assert b"250-relay.cam.example" in p.read_until(b"250 ")
    p.window = 7  # silly windows: slow, but whole
    assert p.cmd(b"EHLO raw.test", b"250-").startswith(b"250-relay.cam.example")
    p.send(RST)


@pytest.mark.long
def test_the_first_numbers_cannot_be_guessed(make_dpdk):  # noqa: F811
    node, _ = make_dpdk(sink=False)
    rounds = []
    for again in (False, True):
        numbers = [RawPeer(node, 3000 + i).syn().seq for i in range(12)]
        steps = {(b - a) & 0xffffffff for a, b in zip(numbers, numbers[1:])}
        assert len(steps) == 11 and sum(s > 1 << 24 for s in steps) >= 8, steps  # as a clock that all flows share they would be small
        rounds.append(numbers)
        if not again:
            os.kill(node.pids("weir-dataplane")[0], signal.SIGKILL)
            assert wait_for(node.up, 20)
    moved = {(b - a) & 0xffffffff for a, b in zip(*rounds)}
    assert len(moved) == 12, moved  # another key after a restart


def big_answer(p):
    """Asks for more than a few segments hold."""
    p.send(ACK | PSH, b"EHLO x\r\n" * 20)


def test_a_router_wants_smaller_packets(make_dpdk):  # noqa: F811
    node, _ = make_dpdk(sink=False)
    p = RawPeer(node).open()
    big_answer(p)
    first = p.expect(lambda s: s.size > 1000)
    assert first.df
    p.too_big(first, 600, seq=first.seq - 70000)  # of a segment that is not under way: no router said that
    again = p.expect(lambda s: s.seq == first.seq)
    assert again.df and again.size == first.size
    p.too_big(first, 600)
    again = p.expect(lambda s: s.seq == first.seq, 10)
    assert not again.df  # it may be cut now
    p.take(again)
    p.read_until(b"250 ", 30)
    p.quiet()
    assert node.counters()["tcp_path_mtu_learnt_total"] == 1
    p.got = b""
    big_answer(p)
    sizes = []
    while len(sizes) < 4:
        s = p.next()
        assert s
        p.take(s)
        sizes += [s.size] if s.data else []
        assert s.df and s.size <= 600
    p.send(RST)


@pytest.mark.long
def test_where_no_router_speaks_packets_may_be_cut_after_a_while(make_dpdk):  # noqa: F811
    node, _ = make_dpdk(sink=False)
    p = RawPeer(node).open()
    big_answer(p)
    first = p.expect(lambda s: s.size > 1000)
    assert first.df
    p.take(p.expect(lambda s: s.seq == first.seq and not s.df, 20))
    p.read_until(b"250 ", 30)
    p.send(RST)


@pytest.mark.parametrize("v6", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_narrow_path(make_dpdk, v6):  # noqa: F811
    """A third network behind the clients' one, through a link that takes 900 octets (IPv6: 1,280); both ends think of 1,500."""
    wire = make_dpdk.wire(1)
    wire.add_far(1280 if v6 else 900)
    sink = make_dpdk.keep(wire.sink(host="fd77::2" if v6 else "10.77.0.2", far=True))
    node = make_dpdk.node(wire, sink.port, routes='[{domain: "*", to: "smtp:[%s]:%d", tls: never}]' % (sink.host, sink.port))
    c = node.smtp()
    c.cmd("EHLO client.test")
    for size in (2 << 20, 500000):
        assert c.message("a@cam.example", ["b@example.org"], body(size)).startswith("250")
        assert wait_for(lambda: sink.messages, 60)
        assert without_trace(sink.messages.pop()["data"]) == body(size)
    assert wait_for(lambda: node.counters()["tcp_path_mtu_learnt_total"] == 1, 5)


# ---- neighbours ----


def both_families(node):
    node.config.write_text(node.config.read_text().replace(f'["0.0.0.0:{node.port}"', f'["0.0.0.0:{node.port}", "[::]:{node.port}"'))
    return node


@pytest.mark.parametrize("v6", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_neighbour_gets_another_hardware_address(make_dpdk, v6):  # noqa: F811
    node, sink = make_dpdk(start=False)
    both_families(node).start()
    c = node.smtp(v6=v6)
    ns = node.wire.client_ns
    run("ip", "netns", "exec", ns, "sysctl", "-qw", "net.ipv4.conf.c0.arp_notify=1", "net.ipv6.conf.c0.ndisc_notify=1")
    c.cmd("EHLO client.test")
    for i in (1, 2):
        run("ip", "-n", ns, "link", "set", "c0", "address", f"02:00:00:00:77:0{i}")
        assert c.message("a@cam.example", ["b@example.org"], body(200000)).startswith("250")
        assert wait_for(lambda: sink.count == i, 30)


# ---- floods ----

FLOOD = """
import os, random, socket, struct, sys
mac = bytes.fromhex(open('/sys/class/net/c0/address').read().strip().replace(':', ''))
to = bytes.fromhex(sys.argv[1].replace(':', ''))
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('c0', 0))
def total(b):
    t = sum(struct.unpack('!%dH' % (len(b) // 2), b))
    while t >> 16: t = (t & 0xffff) + (t >> 16)
    return ~t & 0xffff
i = 0
while True:
    src, dst = bytes([10, 25, 0, 100 + i % 100]), bytes([10, 25, 0, 10])
    tcp = struct.pack('!HHIIBBHHH', 1024 + i % 60000, int(sys.argv[2]), random.getrandbits(32), 0, 5 << 4, 2, 65535, 0, 0)
    tcp = tcp[:16] + struct.pack('!H', total(src + dst + struct.pack('!HH', 6, 20) + tcp)) + tcp[18:]
    ip = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 40, i & 0xffff, 0, 64, 6, 0, src, dst)
    ip = ip[:10] + struct.pack('!H', total(ip)) + ip[12:]
    s.send(to + mac + b'\\x08\\x00' + ip + tcp)
    i += 1
"""


def test_a_flood_of_syns_leaves_room(make_dpdk):  # noqa: F811
    """Beyond the bound SYNs are answered by cookies: real clients get in at once while the flood goes on, and mail passes."""
    node, sink = make_dpdk(start=False)
    both_families(node).start()
    flood = subprocess.Popen(["ip", "netns", "exec", node.wire.client_ns, "python3", "-c", FLOOD, open_in(node.wire.node_ns, "/sys/class/net/s0/address"), str(node.port)])
    try:
        assert wait_for(lambda: node.counters()["tcp_syn_cookies_sent_total"] > 3000), node.counters()
        for i in range(10):
            c = node.smtp(v6=i % 2 == 1)
            c.cmd("EHLO client.test")
            assert c.message("a@cam.example", ["b@example.org"], body(100000)).startswith("250")
        assert wait_for(lambda: node.smtp().cmd("NOOP") and node.counters()["tcp_syn_cookies_taken_total"], 30), node.counters()
        assert flood.poll() is None
    finally:
        flood.kill()
        flood.wait()
    assert wait_for(lambda: sink.count == 10, 30)
    assert node.counters()["tcp_half_open"] <= 4096


def test_an_answer_to_a_cookie_that_was_never_given(make_dpdk):  # noqa: F811
    node, _ = make_dpdk(sink=False)
    p = RawPeer(node)
    p.ack = 12345
    p.send(ACK)
    assert p.next().flags & RST


# ---- a second opinion ----

# ours only: what the client received may be in the capture behind what it answered
FAULTS = "_ws.malformed || tcp.checksum.status == 0 || ip.checksum.status == 0 || tcp.analysis.ack_lost_segment && ip.src == 10.25.0.10"
ANOMALIES = FAULTS + " || tcp.connection.rst || tcp.analysis.flags && !tcp.analysis.window_update && !tcp.analysis.keep_alive && !tcp.analysis.keep_alive_ack"


def tshark(capture, what, *fields):
    if not (ordered := capture.with_suffix(".ordered")).exists():  # two processors write into it
        subprocess.run(["reordercap", capture, ordered], check=True, capture_output=True)
    capture = ordered
    p = subprocess.run(["tshark", "-r", capture, "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-Y", what, *fields], capture_output=True, text=True, timeout=120)
    assert p.returncode == 0, p.stderr
    return p.stdout.splitlines()


def resets_not_due(capture, ours):
    """A connection whose FINs both went by may be closed at our end: what comes of it again then gets a RST (RFC 9293 3.10.7.1), as it does from the client's kernel."""
    ended, undue = {}, []
    for line in tshark(capture, "tcp.flags.fin == 1 || tcp.flags.reset == 1", "-T", "fields", "-e", "tcp.stream", "-e", "ip.src", "-e", "tcp.flags.reset"):
        stream, source, reset = line.split("\t")
        if reset == "0":
            ended.setdefault(stream, set()).add(source)
        elif source == ours and len(ended.get(stream, ())) < 2:
            undue.append(line)
    assert ended
    return undue


@pytest.mark.long
@pytest.mark.parametrize("bad,anomalies", [(None, ANOMALIES), ((0.03, 10, 0.05, 0.05), FAULTS)], ids=["good", "bad"])
def test_what_tshark_says(make_dpdk, tmp_path, bad, anomalies):  # noqa: F811
    """Of sessions in and out it finds nothing wrong; on a bad wire nothing but what was lost and came again, and the RSTs that duplicates of ended connections get."""
    if not have("tshark"):
        pytest.skip("tshark is not installed")
    node, sink = make_dpdk(bad=bad)
    capture = tmp_path / "capture"
    shark = subprocess.Popen(["ip", "netns", "exec", node.wire.client_ns, "dumpcap", "-q", "-B", "64", "-i", "c0", "-w", capture], stderr=subprocess.PIPE, text=True)
    try:
        assert wait_for(lambda: capture.exists() and capture.stat().st_size > 0)
        for size in (100, 300000):
            c = node.smtp(timeout=60)
            c.cmd("EHLO client.test")
            assert c.message("a@cam.example", ["b@example.org"], body(size)).startswith("250")
            assert c.cmd("QUIT").startswith("221") and c.reply() is None
            c.close()
        assert wait_for(lambda: sink.count == 2, 60)
        assert wait_for(lambda: node.counters()["tcp_connections"] == 0, 30)
    finally:
        shark.send_signal(signal.SIGINT)
        shark.wait(10)
    assert len(tshark(capture, "tcp.len > 0")) >= 30 and len(tshark(capture, "tcp.flags.syn == 1 && tcp.flags.ack == 0")) >= 3
    assert tshark(capture, anomalies) == []
    assert resets_not_due(capture, "10.25.0.10") == []
    if bad:
        assert tshark(capture, "tcp.analysis.retransmission")  # so the wire was a bad one
