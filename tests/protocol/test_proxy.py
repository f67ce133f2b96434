"""The PROXY protocol from balancers (section G, P22): by hand, split at every byte, and with HAProxy."""
import re
import socket
import ssl
import struct
import subprocess
import threading

import node as node_module
import pytest
from node import BIN, Smtp, free_port, wait_for

BALANCER, STRANGER = "127.0.0.5", "127.9.0.1"
TEXT = b"From: a@x.example\r\nSubject: x\r\n\r\nx\r\n"
SIG = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.7 127.0.0.1 4097 25\r\n"
V1_6 = b"PROXY TCP6 2001:db8::7 ::1 4097 25\r\n"


def v2(client, port=4097, tlv=b"", command=0x21, to="127.0.0.1"):
    family, v6 = (0x21, True) if ":" in client else (0x11, False)
    pack = (lambda a: socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, a))
    body = pack(client) + pack("::1" if v6 else to) + struct.pack(">HH", port, 25) + tlv
    return SIG + bytes([command, family]) + struct.pack(">H", len(body)) + body


@pytest.fixture
def proxied(make_node, sink):
    ports = {n: free_port() for n in ("smtp", "tls")}
    node = make_node(sink.port, engine="trivial", extra=f"balancers: [{BALANCER}/32]\nlimits: {{connections_per_client: 3}}\n"
                     "relay_clients: [{network: 127.0.0.1/32, rate: none}, {network: 192.0.2.7/32, rate: none}]\n",
                     listeners=[f'{{address: "127.0.0.1:{ports["smtp"]}", proxy: yes}}', f'{{address: "127.0.0.1:{ports["tls"]}", proxy: yes, tls: implicit}}'])
    node.ports, node.sink = ports, sink
    return node


def tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def open_by(node, header, name="smtp", source=BALANCER, greet=True):
    """A connection that begins with this header."""
    raw = node_module.connect_to("127.0.0.1", node.ports[name], 20, source)
    raw.sendall(header)
    return Smtp(0, sock=tls().wrap_socket(raw) if name == "tls" else raw, greet=greet)


def client_of(node, s):
    """Who the node thinks that the client of this session is: from the log of a refusal."""
    name = f"c{free_port()}.example"
    s.cmd(f"EHLO {name}")
    s.cmd("MAIL FROM:<a@x.example>")
    assert s.cmd("RCPT TO:<b@example.org>").startswith("550 5.7.1")
    line = wait_for(lambda: [x for x in node.log_text().splitlines() if f"helo={name}" in x])[0]
    return re.search(r"client=(\S+)", line).group(1)


@pytest.mark.parametrize("name", ["smtp", "tls"])
@pytest.mark.parametrize("header,client", [(V1.replace(b"192.0.2.7", b"192.0.2.99"), "192.0.2.99"), (V1_6, "2001:db8::7"), (v2("192.0.2.99"), "192.0.2.99"),
                                           (v2("2001:db8::7"), "2001:db8::7"), (v2("192.0.2.99", tlv=b"\x04\0\x05xxxxx\x20\0\0"), "192.0.2.99"),
                                           (b"PROXY UNKNOWN\r\n", BALANCER), (SIG + b"\x20\0\0\0", BALANCER), (SIG + b"\x21\0\0\3xyz", BALANCER)])
def test_the_client_is_the_one_that_was_told(proxied, name, header, client):
    assert client_of(proxied, open_by(proxied, header, name)) == client


def test_it_is_the_client_everywhere(proxied):
    """A1: it may relay; Received, trace and log say its address; its connections are counted, not the balancer's."""
    s = open_by(proxied, V1)
    s.cmd("EHLO x.example")
    assert s.message("a@x.example", ["b@example.org"], TEXT).startswith("250")
    assert wait_for(lambda: proxied.sink.count == 1)
    assert b"Received: from x.example ([192.0.2.7])" in proxied.sink.messages[0]["data"]
    accepted = wait_for(lambda: re.findall(r".*event=accepted.*", proxied.log_text()))
    assert "192.0.2.7" in accepted[0] and BALANCER not in accepted[0]
    assert proxied.counters()["proxy_sessions_total"] == 1
    assert wait_for(lambda: "192.0.2.7" in proxied.ctl_text("trace", "b@example.org").stdout)
    assert BALANCER not in proxied.ctl_text("trace", "b@example.org").stdout


def test_limits_count_the_client(make_node, sink):
    """P16: three connections of one client, the fourth is one too many; another client of the same balancer is not. One worker, as limits are a worker's."""
    port = free_port()
    node = make_node(sink.port, engine="trivial", workers=1, extra=f"balancers: [{BALANCER}/32]\nlimits: {{connections_per_client: 3}}\n",
                     listeners=[f'{{address: "127.0.0.1:{port}", proxy: yes}}'])
    node.ports = {"smtp": port}
    held = [open_by(node, V1) for _ in range(3)]
    assert all(s.greeting.startswith("220") for s in held)
    assert open_by(node, v2("192.0.2.7")).greeting.startswith("421 4.7.0 ")
    assert open_by(node, V1.replace(b"192.0.2.7", b"198.51.100.8")).greeting.startswith("220")
    held.pop().cmd("QUIT")
    assert wait_for(lambda: open_by(node, v2("192.0.2.7")).greeting.startswith("220"))


@pytest.mark.parametrize("name", ["smtp", "tls"])
@pytest.mark.parametrize("header", [V1, v2("192.0.2.7", tlv=b"\x04\0\x02ab"), SIG + b"\x20\0\0\0"], ids=["v1", "v2", "local"])
def test_split_at_every_byte(proxied, name, header):
    """And what follows in the same segment is the client's, a ClientHello, too."""
    def begin(data):
        raw = socket.create_connection(("127.0.0.1", proxied.ports[name]), 20, source_address=(BALANCER, 0))
        raw.setsockopt(socket.SOL_TCP, socket.TCP_NODELAY, 1)
        first, second = data
        if first:
            raw.sendall(first)
        return raw, second

    for cut in range(len(header) + 3):
        if name == "smtp":
            whole = header + b"EHLO x.example\r\n"
            raw, rest = begin((whole[:cut], whole[cut:]))
            raw.sendall(rest)
            s = Smtp(0, sock=raw)
            assert s.greeting.startswith("220") and s.reply().startswith("250")
        else:
            incoming, hello = ssl.MemoryBIO(), ssl.MemoryBIO()
            c = tls().wrap_bio(incoming, hello)
            with pytest.raises(ssl.SSLWantReadError):
                c.do_handshake()
            whole = header + hello.read()
            raw, rest = begin((whole[:cut], whole[cut:]))
            raw.sendall(rest)
            while True:
                try:
                    c.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    incoming.write(raw.recv(65536) or pytest.fail("closed in the handshake"))
            raw.sendall(hello.read())
            while True:
                try:
                    assert c.read(100).startswith(b"220 ")
                    break
                except ssl.SSLWantReadError:
                    incoming.write(raw.recv(65536) or pytest.fail("closed before the greeting"))
        raw.close()


def test_in_single_bytes(proxied):
    for header in (V1, v2("2001:db8::7", tlv=b"\x04\0\0")):
        s = open_by(proxied, b"", greet=False)
        for i in range(len(header)):
            s.send(header[i:i + 1])
        assert s.reply().startswith("220")


@pytest.mark.parametrize("name", ["smtp", "tls"])
@pytest.mark.parametrize("header", [b"EHLO x.example\r\n", b"\x16\x03\x01\x00\x05hello", b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 192.0.2.7 127.0.0.1 4097\r\n", b"PROXY TCP4 " + b"1" * 200,
                                    SIG + b"\x21\x31\0\xd8", SIG + b"\x21\x12\0\x0c", SIG + b"\x31\x11\0\x0c", SIG + b"\x21\x11\0\x04aaaa"])
def test_a_bad_header_ends_the_connection(proxied, name, header):
    """Without a word: who is there is not known."""
    raw = socket.create_connection(("127.0.0.1", proxied.ports[name]), 20, source_address=(BALANCER, 0))
    raw.sendall(header)
    assert raw.recv(100) == b""
    assert wait_for(lambda: proxied.counters()["proxy_refused_total"] == 1)
    assert wait_for(lambda: f"client={BALANCER}" in proxied.log_text() and "proxy-refused" in proxied.log_text())


@pytest.mark.parametrize("name", ["smtp", "tls"])
@pytest.mark.parametrize("header", [V1, v2("192.0.2.7"), b""])
def test_strangers_are_closed_at_once(proxied, name, header):
    """P22: a header from somebody who is no balancer gives nobody another address; nor does he get in without one."""
    raw = socket.create_connection(("127.0.0.1", proxied.ports[name]), 20, source_address=(STRANGER, 0))
    try:
        raw.sendall(header)
        assert raw.recv(100) == b""
    except ConnectionError:
        pass
    assert wait_for(lambda: proxied.counters()["proxy_refused_total"] == 1)
    assert proxied.counters()["proxy_sessions_total"] == 0


@pytest.mark.parametrize("header", [V1, v2("192.0.2.7")])
def test_on_other_listeners_nobody_is_a_balancer(proxied, header):
    """P22: not even those of the configuration."""
    s = Smtp(proxied.port, source=BALANCER)
    s.send(header + b"EHLO x.example\r\nMAIL FROM:<a@x.example>\r\n")
    said = [r for r in iter(s.reply, None)]
    assert said and all(r[:1] == "5" for r in said)


def test_silent_balancers_do_not_stay(proxied):
    """P16, P23: ten seconds for the header, however slowly it comes. The time of the first command is five minutes."""
    raws = [socket.create_connection(("127.0.0.1", proxied.ports[n]), 30, source_address=(BALANCER, 0)) for n in ("smtp", "tls")]
    slow = socket.create_connection(("127.0.0.1", proxied.ports["smtp"]), 30, source_address=(BALANCER, 0))
    stop = threading.Event()

    def drip():
        for i in range(len(V1) - 2):
            slow.sendall(V1[i:i + 1])
            if stop.wait(1):
                return

    t = threading.Thread(target=drip)
    t.start()
    try:
        for raw in [*raws, slow]:
            try:
                assert raw.recv(100) == b""
            except ConnectionResetError:
                pass
    finally:
        stop.set()
        t.join()
    assert wait_for(lambda: proxied.counters()["sessions_timeout_total"] == 3)


def test_balancers_that_only_look(proxied):
    """A health check that connects and goes away is no event."""
    for name in ("smtp", "tls"):
        socket.create_connection(("127.0.0.1", proxied.ports[name]), 20, source_address=(BALANCER, 0)).close()
    assert wait_for(lambda: proxied.counters()["sessions_open"] == 0)
    assert "proxy-refused" not in proxied.log_text()


def test_the_rate_is_the_clients(make_node, sink):
    """A8: the counter's key is the client that was told."""
    port = free_port()
    node = make_node(sink.port, engine="trivial", listeners=[f'{{address: "127.0.0.1:{port}", proxy: yes}}'],
                     extra=f"balancers: [{BALANCER}/32]\nrelay_clients: [192.0.2.0/24]\nrates: {{mode: defer, limit: 2, period: 1h}}\n")
    node.ports = {"smtp": port}
    for client in ("192.0.2.7", "192.0.2.8"):
        s = open_by(node, v2(client))
        s.cmd("EHLO x.example")
        replies = [s.message("a@x.example", ["b@cam.example"], TEXT)[:3] for _ in range(3)]
        assert replies == ["250", "250", "450"]


def test_banner_delay_is_for_the_client(make_node, sink):
    """A balancer is nobody; its client waits, and is early when its first bytes come with the header."""
    port = free_port()
    node = make_node(sink.port, engine="trivial", listeners=[f'{{address: "127.0.0.1:{port}", proxy: yes, banner_delay: 60s}}'],
                     extra=f"balancers: [{BALANCER}/32]\nrelay_clients: [127.0.0.0/8, 192.0.2.7/32]\n")
    node.ports = {"smtp": port}
    assert open_by(node, v2("192.0.2.7")).greeting.startswith("220")
    assert open_by(node, v2("198.51.100.1") + b"EHLO x\r\n").greeting.startswith("554 5.5.0")


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,ssl"])
def test_haproxy(proxied, tmp_path, version):
    """A real balancer, with its health check, SMTP and implicit TLS passed through."""
    front, front_tls = free_port(), free_port()
    check = "check check-send-proxy inter 200ms fall 1 rise 1 source 127.0.0.5"
    (tmp_path / "haproxy.cfg").write_text(
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        f"listen smtp\n  bind 127.0.0.1:{front}\n  unique-id-format %ci:%cp\n  option smtpchk EHLO check.example\n  server a 127.0.0.1:{proxied.ports['smtp']} {version} {check}\n"
        f"listen smtps\n  bind 127.0.0.1:{front_tls}\n  unique-id-format %ci:%cp\n  server a 127.0.0.1:{proxied.ports['tls']} {version} {check}\n")
    with open(tmp_path / "log", "wb") as log:
        h = subprocess.Popen(["haproxy", "-db", "-f", tmp_path / "haproxy.cfg"], stdout=log, stderr=log)
    try:
        def through(port):
            try:
                with socket.create_connection(("127.0.0.1", port), 5, source_address=("127.0.0.1", 0)) as s:
                    return s if port == front_tls else s.recv(10).startswith(b"220")
            except OSError:
                return False

        assert wait_for(lambda: through(front)), (tmp_path / "log").read_text()
        assert client_of(proxied, Smtp(front, source=STRANGER)) == STRANGER
        raw = socket.create_connection(("127.0.0.1", front_tls), 20, source_address=(STRANGER, 0))
        assert client_of(proxied, Smtp(0, sock=tls().wrap_socket(raw))) == STRANGER
        # health checks go on, and none of them was refused
        assert wait_for(lambda: proxied.counters()["sessions_total"] > 10)
        assert "proxy-refused" not in proxied.log_text()
        assert "is DOWN" not in (tmp_path / "log").read_text()
    finally:
        h.terminate()
        h.wait(20)


@pytest.mark.parametrize("text,complaint", [
    ('listen: [{address: "127.0.0.1:2525", proxy: yes}]', "the listener on port 2525 has proxy: yes, but there are no balancers"),
    ('listen: [{address: "127.0.0.1:2525", proxy: v2}]\nbalancers: [127.0.0.1]', 'weir.yaml:1: listen: proxy "v2" is not possible; write yes or no'),
    ("balancers: [everyone]", 'weir.yaml:1: balancers: "everyone" is not a network'),
])
def test_configuration_errors(tmp_path, text, complaint):
    (tmp_path / "weir.yaml").write_text(text + "\nhostname: relay.cam.example\n")
    p = subprocess.run([BIN / "weirctl", "config", "check", tmp_path / "weir.yaml"], capture_output=True, text=True, timeout=30)
    assert p.returncode and complaint in p.stdout + p.stderr, p.stdout + p.stderr
