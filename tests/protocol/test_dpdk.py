"""The same relay over the DPDK transport: lwIP on af_packet, real kernels at the other end."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pytest
from dpdk import HERE, make_dpdk, open_in, why_not  # noqa: F401
from node import BIN, ROOT, wait_for, without_trace

HEAD = b"From: a@cam.example\r\nTo: b@example.org\r\nSubject: test\r\n\r\n"


def body(n):
    return HEAD + (b"0123456789" * 7 + b"\r\n") * (n // 72) + b".dots\r\n..\r\n"


def test_bytes_are_untouched_over_both_families(make_dpdk):  # noqa: F811
    node, sink = make_dpdk(start=False, extra="")
    node.config.write_text(node.config.read_text().replace(f'["0.0.0.0:{node.port}"', f'["0.0.0.0:{node.port}", "[::]:{node.port}"'))
    node.start()
    for v6 in (False, True):
        c = node.smtp(v6=v6)
        assert c.cmd("EHLO client.test").startswith("250-")
        for size in (0, 4096, 70000, 1 << 20, 10 << 20):
            assert c.message("a@cam.example", ["b@example.org"], body(size)).startswith("250 2.0.0 ")
            assert wait_for(lambda: sink.count and sink.messages, 60)
            assert without_trace(sink.messages.pop()["data"]) == body(size)
        assert c.cmd("QUIT").startswith("221") and c.reply() is None
    log = node.log_text()
    assert "client=10.25.0.1 " in log and "client=fd25::1 " in log
    counters = node.counters()
    assert counters["dpdk_workers"] == 1 and counters["tcp_checksum_errors_total"] == 0


def test_swaks_with_starttls(make_dpdk):  # noqa: F811
    node, sink = make_dpdk()
    p = node.wire.in_client("swaks", "--server", f"10.25.0.10:{node.port}", "--from", "me@cam.example", "--to", "you@example.org", "--tls",
                            capture_output=True, text=True, timeout=60)
    assert p.returncode == 0 and "TLS started" in p.stdout, p.stdout
    assert wait_for(lambda: sink.count == 1)
    assert b"with ESMTPS" in sink.messages[0]["data"]


@pytest.mark.long
def test_two_workers_have_two_devices(make_dpdk):  # noqa: F811
    node, sink = make_dpdk(workers=2)
    for w in (0, 1):
        c = node.smtp(worker=w)
        c.cmd("EHLO client.test")
        assert c.message("a@cam.example", [f"b{w}@example.org"], HEAD).startswith("250")
    assert wait_for(lambda: sink.count == 2)
    assert node.counters()["dpdk_workers"] == 2


@pytest.mark.long
def test_af_xdp(make_dpdk):  # noqa: F811
    node, sink = make_dpdk(device="net_af_xdp0,iface=s%w,start_queue=0,queue_count=1", start=False)
    try:
        node.start()
    except AssertionError:
        assert "XDP" in node.log_text() or "xdp" in node.log_text(), node.log_text()[-2000:]
        pytest.skip("no AF_XDP on veth here")
    for again in (False, True):
        c = node.smtp()
        c.cmd("EHLO client.test")
        assert c.message("a@cam.example", ["b@example.org"], body(1 << 20)).startswith("250")
        assert wait_for(lambda: sink.messages, 30)
        assert without_trace(sink.messages.pop()["data"]) == body(1 << 20)
        if not again:  # the queue and its XDP program survive the worker
            os.kill(node.pids("weir-dataplane")[0], signal.SIGKILL)
            assert wait_for(node.up, 20)


def test_delivery_over_ipv6(make_dpdk):  # noqa: F811
    wire = make_dpdk.wire(1)
    sink = make_dpdk.keep(wire.sink(host="fd25:0::1"))
    node = make_dpdk.node(wire, sink.port, routes='[{domain: "*", to: "smtp:[fd25:0::1]:%d", tls: never}]' % sink.port)
    c = node.smtp()
    c.cmd("EHLO client.test")
    assert c.message("a@cam.example", ["b@example.org"], body(300000)).startswith("250")
    assert wait_for(lambda: sink.count == 1, 30)
    assert without_trace(sink.messages[0]["data"]) == body(300000)


@pytest.fixture
def open_tmp():
    """A directory that everybody can enter; pytest's own is root's."""
    tmp = pathlib.Path(tempfile.mkdtemp(prefix="weir-user-", dir="/tmp"))
    tmp.chmod(0o755)
    yield tmp
    shutil.rmtree(tmp)


def test_a_worker_gives_its_privileges_up(open_tmp, make_dpdk):  # noqa: F811
    wire = make_dpdk.wire(1)
    sink = make_dpdk.keep(wire.sink())
    node = make_dpdk.node(wire, sink.port, tmp=open_tmp, extra="user: nobody\n", dpdk=", kernel: weir%w")
    for again in (False, True):
        pid = node.pids("weir-dataplane")[0]
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():  # DPDK's threads, too
            status = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
            assert "0" not in status["Uid"].split() and "0" not in status["Gid"].split(), task
            assert all(int(status[which], 16) == 0 for which in ("CapEff", "CapPrm", "CapInh", "CapAmb")), task
        c = node.smtp()
        c.cmd("EHLO client.test")
        assert c.message("a@cam.example", ["b@example.org"], HEAD).startswith("250")
        assert wait_for(lambda: sink.count == 1 + again)
        if not again:
            os.kill(pid, signal.SIGKILL)
            assert wait_for(node.up, 20)


HUGE = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


@pytest.mark.long
def test_huge_pages(make_dpdk):  # noqa: F811
    """deploy/hugepages reserves what a worker needs, and the worker uses it."""
    if why_not():
        pytest.skip(why_not())
    before = (HUGE / "nr_hugepages").read_text() if HUGE.exists() else None
    if before is None or subprocess.run([ROOT / "deploy" / "hugepages", "2"], capture_output=True).returncode != 0:
        pytest.skip("no huge pages can be reserved here")
    try:
        node, sink = make_dpdk(dpdk=", hugepages: true")
        smaps = pathlib.Path(f"/proc/{node.pids('weir-dataplane')[0]}/smaps_rollup").read_text()
        used = sum(int(line.split()[1]) for line in smaps.splitlines() if "_Hugetlb" in line)
        assert used >= 40 * 1024, smaps  # KiB: the packet buffers; the arena may have some, too
        c = node.smtp()
        c.cmd("EHLO client.test")
        assert c.message("a@cam.example", ["b@example.org"], body(100000)).startswith("250")
        assert wait_for(lambda: sink.count == 1)
        make_dpdk.end()
        make_dpdk.made.clear()
    finally:
        (HUGE / "nr_hugepages").write_text(before)


ECHO = """
import socket, struct, sys
v6 = ':' in sys.argv[1]
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP)
s.settimeout(5)
def total(b):
    t = sum(struct.unpack('!%dH' % (len(b) // 2), b))
    while t >> 16: t = (t & 0xffff) + (t >> 16)
    return ~t & 0xffff
echo = struct.pack('!BBHHH', 128 if v6 else 8, 0, 0, 7, 9) + b'x' * 56
if not v6: echo = echo[:2] + struct.pack('!H', total(echo)) + echo[4:]
s.sendto(echo, (sys.argv[1], 0))
while True:
    answer = s.recv(2000)[0 if v6 else 20:]
    if answer[0] == (129 if v6 else 0): break
assert answer[4:] == echo[4:], answer
"""


def test_echo_is_answered(make_dpdk):  # noqa: F811
    node, _ = make_dpdk(sink=False)
    for ip in ("10.25.0.10", "fd25::10"):
        p = node.wire.in_client("python3", "-c", ECHO, ip, capture_output=True, text=True, timeout=20)
        assert p.returncode == 0, p.stderr


def test_many_connections(make_dpdk):  # noqa: F811
    node, sink = make_dpdk(extra="limits: {connections_per_own_client: 2000}\n")
    many = [node.smtp() for _ in range(1000)]
    for c in many:
        c.send("EHLO client.test\r\nMAIL FROM:<a@cam.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
    for c in many:
        assert [c.reply()[:3] for _ in range(4)] == ["250", "250", "250", "354"]
        c.send(HEAD + b"x\r\n.\r\n")
    assert all(c.reply().startswith("250 2.0.0") for c in many)
    assert node.counters()["sessions_open"] == 1000
    for c in many[::2]:
        c.close()  # without QUIT
    for c in many[1::2]:
        assert c.cmd("QUIT").startswith("221") and c.reply() is None
        c.close()
    assert wait_for(lambda: sink.count == 1000, 60)
    assert wait_for(lambda: node.counters()["sessions_open"] == 0)
    assert wait_for(lambda: node.counters()["tcp_connections"] <= 20, 30)


@pytest.mark.long
def test_load_and_reused_ports(make_dpdk):  # noqa: F811
    """A connection a message: more than lwIP keeps in TIME_WAIT by itself, from ports that come back."""
    node, sink = make_dpdk(sink_args={"keep": False})
    node.wire.in_client("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 42499", check=True)
    p = node.wire.in_client(BIN / "weir-bench", "send", "--to", f"10.25.0.10:{node.port}", "--sessions", 20, "--messages", 3000, "--size", 1000,
                            "--per-connection", 1, capture_output=True, text=True, timeout=120)
    assert "acked=3000 refused=0 unknown=0" in p.stdout, p.stdout + p.stderr
    assert wait_for(lambda: node.counters()["recipients_delivered_total"] == 3000, 60)
    assert wait_for(lambda: node.counters()["tcp_time_wait_recycled_total"] > 0, 5), node.counters()


@pytest.mark.parametrize("bad", [*(pytest.param(bad, marks=pytest.mark.long) for bad in ((0, 20, 0), (0.02, 5, 0), (0, 5, 0.1), (0, 5, 0, 0.2), (0.01, 25, 0.02, 0.02))),
                                 (0.03, 10, 0.05, 0.05)])
def test_loss_delay_reordering_and_duplicates(make_dpdk, bad):  # noqa: F811
    """Both directions of a bad wire: mail comes in and goes out, byte for byte, once. 25 ms each way are 50 ms there and back."""
    node, sink = make_dpdk(bad=bad)
    done = []

    def talk(i):
        c = node.smtp(timeout=60)
        c.cmd("EHLO client.test")
        for size in (100, 300000):
            assert c.message("a@cam.example", [f"b{i}-{size}@example.org"], body(size)).startswith("250")
        done.append(i)

    threads = [threading.Thread(target=talk, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(90)
    assert len(done) == 4
    assert wait_for(lambda: sink.count == 8, 90)
    for m in sink.messages:
        assert without_trace(m["data"]) == body(int(m["to"][0].split("@")[0].split("-")[1]))
    assert bad[0] == 0 or wait_for(lambda: node.counters()["tcp_retransmitted_segments_total"] > 0, 5)


def test_a_killed_worker_comes_back_and_keeps_its_mail(make_dpdk):  # noqa: F811
    down = threading.Event()
    down.set()
    node, sink = make_dpdk(sink_args={"decide": lambda kind, text: "451 4.3.0 later" if kind == "rcpt" and down.is_set() else None})
    c = node.smtp()
    c.cmd("EHLO client.test")
    for i in range(20):
        assert c.message("a@cam.example", [f"b{i}@example.org"], HEAD).startswith("250")
    c.cmd("MAIL FROM:<a@cam.example>")
    os.kill(node.pids("weir-dataplane")[0], signal.SIGKILL)
    assert wait_for(node.up, 20)
    c.send("RCPT TO:<b@example.org>\r\n")  # of the dead worker's connection the new one knows nothing: RST
    with pytest.raises(ConnectionResetError):
        c.reply()
    down.clear()
    assert wait_for(lambda: sink.count == 20, 30)
    assert sorted(m["to"][0] for m in sink.messages) == sorted(f"b{i}@example.org" for i in range(20))
    assert node.queue() == []


def test_a_stopped_node_says_goodbye(make_dpdk):  # noqa: F811
    node, _ = make_dpdk()
    c = node.smtp()
    c.cmd("EHLO client.test")
    node.proc.send_signal(signal.SIGTERM)
    assert c.reply().startswith("421") and c.reply() is None
    node.proc.wait(40)


def test_closed_port_and_refused_destination(make_dpdk):  # noqa: F811
    node, _ = make_dpdk(sink=False)
    with node.wire.client(), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("10.25.0.10", node.port + 1), 5)
    c = node.smtp()
    c.cmd("EHLO client.test")
    assert c.message("a@cam.example", ["b@example.org"], HEAD).startswith("250")
    assert wait_for(lambda: "connection refused" in node.log_text())


SMALL = """
import random, socket, struct, sys, time
mac = bytes.fromhex(open('/sys/class/net/c0/address').read().strip().replace(':', ''))
to = bytes.fromhex(sys.argv[1].replace(':', ''))
port, options = int(sys.argv[2]), bytes.fromhex(sys.argv[3])
src, dst, own = bytes([10, 25, 0, 77]), bytes([10, 25, 0, 10]), random.randrange(2000, 9000)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(('c0', 3))
s.settimeout(5)
def total(b):
    b += bytes(len(b) % 2)
    t = sum(struct.unpack('!%dH' % (len(b) // 2), b))
    while t >> 16: t = (t & 0xffff) + (t >> 16)
    return ~t & 0xffff
def send(seq, ack, flags, window, options=b'', data=b''):
    tcp = struct.pack('!HHIIBBHHH', own, port, seq, ack, (5 + len(options) // 4) << 4, flags, window, 0, 0) + options + data
    tcp = tcp[:16] + struct.pack('!H', total(src + dst + struct.pack('!HH', 6, len(tcp)) + tcp)) + tcp[18:]
    ip = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, src, dst)
    s.send(to + mac + b'\\x08\\x00' + ip[:10] + struct.pack('!H', total(ip)) + ip[12:] + tcp)
s.send(to + mac + b'\\x08\\x06' + struct.pack('!HHBBH', 1, 0x800, 6, 4, 1) + mac + src + bytes(6) + dst)
send(1000, 0, 2, 0)
while True:
    f = s.recv(2000)
    if f[12:14] == b'\\x08\\x00' and f[23] == 6 and f[36:38] == struct.pack('!H', own) and f[47] == 18: break
ack = struct.unpack('!I', f[38:42])[0] + 1
send(1001, ack, 16, 0)
time.sleep(0.3)
send(1001, ack, 16, 10, options)
send(1001, ack, 24, 10, b'', b'EHLO x' + bytes([13, 10]))
time.sleep(0.3)
"""


@pytest.mark.parametrize("options", [pytest.param("", marks=pytest.mark.long), "02040001"])
def test_a_small_window_or_segment_size_comes_late(make_dpdk, options):  # noqa: F811
    """The greeting waits for a window that opens by ten octets; the options make segments smaller than what is queued."""
    node, _ = make_dpdk()
    pid = node.pids("weir-dataplane")
    node.wire.in_client("python3", "-c", SMALL, open_in(node.wire.node_ns, "/sys/class/net/s0/address"), node.port, options, check=True, timeout=30)
    assert node.smtp().cmd("EHLO client.test").startswith("250-")
    assert node.pids("weir-dataplane") == pid


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_hostile_frames(make_dpdk, seed):  # noqa: F811
    node, sink = make_dpdk()
    pid = node.pids("weir-dataplane")
    p = node.wire.in_client("/usr/bin/python3", HERE / "hostile_frames.py", "c0", open_in(node.wire.node_ns, "/sys/class/net/s0/address"), node.port, seed, 20000,
                            capture_output=True, text=True, timeout=60)
    assert p.returncode == 0 and "connections 60" in p.stdout, p.stdout + p.stderr
    c = node.smtp()
    c.cmd("EHLO client.test")
    assert c.message("a@cam.example", ["b@example.org"], body(100000)).startswith("250")
    assert wait_for(lambda: sink.count == 1)
    assert node.pids("weir-dataplane") == pid


@pytest.mark.long
def test_offloads_left_on_are_named(make_dpdk):  # noqa: F811
    node, _ = make_dpdk(offloads=True, start=False)
    node.log = open(node.log_path, "ab")
    node.proc = subprocess.Popen([*node.prefix, BIN / "weir", "run", "--config", node.config, "--run", node.run], stdout=node.log, stderr=node.log)
    assert wait_for(lambda: "event=started" in node.log_text() and "p=dataplane" in node.log_text(), 20)
    time.sleep(0.5)
    with pytest.raises(OSError):
        node.connect(timeout=3)
    assert wait_for(lambda: "ethtool -K DEVICE tx off" in node.log_text(), 5), node.log_text()[-2000:]


def test_a_missing_device_is_named(make_dpdk):  # noqa: F811
    node, _ = make_dpdk(sink=False, start=False, device="net_af_packet0,iface=nosuch%w")
    node.log = open(node.log_path, "ab")
    node.proc = subprocess.Popen([*node.prefix, BIN / "weir", "run", "--config", node.config, "--run", node.run], stdout=node.log, stderr=node.log)
    assert wait_for(lambda: "start-failed" in node.log_text(), 20)
    assert "DPDK has no port net_af_packet0" in node.log_text() and "SIOCGIFINDEX" in node.log_text(), node.log_text()


@pytest.mark.parametrize("dpdk,message", [
    ("", "dpdk.devices is empty"),
    ("devices: net_null0", "DPDK needs an address of its own"),
    ("devices: net_null0, ipv4: 10.0.0.1", "dpdk.ipv4: \"10.0.0.1\" is not possible"),
    ("devices: net_null0, ipv6: \"fd00::1/48\"", "dpdk.ipv6: \"fd00::1/48\" is not possible"),
    ("devices: net_null0, ipv4: 10.0.0.1/24, ipv6: \"fd00::%w/64\"", "either both are different for each worker"),
    ("devices: net_null0, ipv4: 10.0.0.1/24", "listen: 127.0.0.1 is not the address that DPDK has"),
    ("devices: net_null0, ipv4: 10.0.0.%w/24, kernel: weir", "each needs an interface of its own; write for example weir%w"),
    ("devices: net_null0, ipv4: 10.0.0.1/24, kernel: weir%w", "there is one interface; write for example weir, without %w"),
    ("devices: net_null0, ipv4: 10.0.0.1/24, kernel: a/b", "dpdk.kernel: \"a/b\" is not the name of an interface"),
    ("devices: net_null0, ipv4: 10.0.0.1/24, kernel: a-name-of-16-char", "is not the name of an interface: at most 15"),
    ("devices: net_null0, ipv4: 10.0.0.1/24, gateway6: \"fe80::1\"", "dpdk.gateway6 is there without an address"),
])
def test_configuration_errors_are_named(tmp_path, dpdk, message):
    if why_not():
        pytest.skip(why_not())
    f = tmp_path / "weir.yaml"
    f.write_text(f"transport: dpdk\nworkers: 2\ndpdk: {{{dpdk}}}\n")
    p = subprocess.run([BIN / "weirctl", "config", "check", f], capture_output=True, text=True)
    assert p.returncode != 0 and message in p.stdout + p.stderr, p.stdout + p.stderr
