"""What single listeners ask of their clients: banner_delay, bare_lf; and what a configuration may say about them."""
import subprocess

import pytest
from node import BIN, Smtp, free_port, wait_for

OUTSIDE = "127.9.0.1"
TEXT = b"From: a@cam.example\r\nSubject: x\r\n\r\nx\r\n"


@pytest.fixture
def listeners(make_node, sink):
    """`slow` greets nobody from outside while a test lasts; `short` does soon."""
    ports = {name: free_port() for name in ("slow", "short", "short_tls", "lf")}
    options = {"slow": "banner_delay: 60s", "short": "banner_delay: 300ms", "short_tls": "banner_delay: 300ms, tls: implicit", "lf": "bare_lf: normalise"}
    node = make_node(sink.port, engine="trivial", extra="relay_clients: [{network: 127.0.0.0/16, rate: none}]\n",
                     listeners=[f'{{address: "127.0.0.1:{ports[n]}", {options[n]}}}' for n in ports])
    node.ports, node.sink = ports, sink
    return node


def test_early_talkers_are_refused(listeners):
    """RFC 5321 3.1: 554 where the greeting would be, and nothing of what was said early is read."""
    for early in (b"EHLO early.example\r\n", b"\r\n", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01", b"E"):
        s = Smtp(listeners.ports["slow"], source=OUTSIDE, greet=False)
        s.send(early)
        assert s.reply().startswith("554 5.5.0 relay.cam.example: you talked before the greeting")
        assert s.reply() is None
    assert wait_for(lambda: listeners.counters()["early_talkers_total"] == 5)
    log = wait_for(lambda: [line for line in listeners.log_text().splitlines() if "early-talker" in line])
    assert len(log) == 5 and all(f"client={OUTSIDE}" in line for line in log)


def test_who_waits_is_greeted(listeners):
    s = Smtp(listeners.ports["short"], source=OUTSIDE)
    assert s.greeting.startswith("220 ")
    assert s.cmd("EHLO x.example").startswith("250")
    assert s.message("a@x.example", ["b@cam.example"], TEXT).startswith("250")


def test_clients_from_inside_do_not_wait(listeners):
    """They are greeted at once, however long the delay; and may even be early."""
    s = Smtp(listeners.ports["slow"], greet=False)
    s.send(b"EHLO x.example\r\n")
    assert s.reply().startswith("220 ") and s.reply().startswith("250")


def test_the_delay_comes_after_the_handshake(listeners):
    import ssl
    import socket
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def begin():
        raw = socket.create_connection(("127.0.0.1", listeners.ports["short_tls"]), 20, source_address=(OUTSIDE, 0))
        return Smtp(0, greet=False, sock=context.wrap_socket(raw))

    s = begin()
    assert s.reply().startswith("220 ") and s.cmd("EHLO x.example").startswith("250")
    early = begin()
    early.send(b"EHLO x.example\r\n")
    assert early.reply().startswith("554 5.5.0")


def test_silence_and_an_end(listeners):
    """A client that goes away while it waits leaves nothing behind."""
    for _ in range(20):
        Smtp(listeners.ports["slow"], source=OUTSIDE, greet=False).s.close()
    assert wait_for(lambda: listeners.counters()["sessions_open"] == 0)


def test_a_stop_does_not_wait_for_the_delay(listeners):
    s = Smtp(listeners.ports["slow"], source=OUTSIDE, greet=False)
    assert wait_for(lambda: listeners.counters()["sessions_open"] == 1)
    listeners.stop()
    assert s.reply().startswith("421 4.3.2") and s.reply() is None


def test_a_device_with_bare_line_feeds(listeners):
    """The whole session of an old device; what goes on is clean, and it is counted."""
    s = Smtp(listeners.ports["lf"])
    s.send(b"HELO printer\nMAIL FROM:<scan@cam.example>\nRCPT TO:<b@example.org>\nDATA\n")
    assert [s.reply()[:3] for _ in range(4)] == ["250", "250", "250", "354"]
    s.send(TEXT.replace(b"\r\n", b"\n") + b"\r\n.\r\nQUIT\n")
    assert s.reply().startswith("250") and s.reply().startswith("221")
    assert wait_for(lambda: listeners.sink.count == 1)
    assert listeners.sink.messages[0]["data"].endswith(TEXT + b"\r\n")
    assert listeners.counters()["messages_normalised_total"] == 1
    strict = Smtp(listeners.port)
    strict.send(b"HELO printer\n")
    assert strict.reply().startswith("500 5.5.2")


@pytest.mark.parametrize("entry,complaint", [
    ('{address: "127.0.0.1:2525", bare_lf: fold}', 'bare_lf "fold" is not possible; write refuse or normalise'),
    ('{address: "127.0.0.1:2525", banner_delay: 5}', 'banner_delay "5" is not possible; write a duration of at most 60s'),
    ('{address: "127.0.0.1:2525", banner_delay: 61s}', "at most 60s"),
    ('{address: "127.0.0.1:25", role: lmtp}', "port 25 is SMTP's"),
    ('{address: "127.0.0.1:2525", role: smtp}', "write mx, submission, submissions or lmtp"),
])
def test_configuration_errors(tmp_path, entry, complaint):
    (tmp_path / "weir.yaml").write_text(f"hostname: relay.cam.example\nlisten:\n  - {entry}\n")
    p = subprocess.run([BIN / "weirctl", "config", "check", tmp_path / "weir.yaml"], capture_output=True, text=True, timeout=30)
    assert p.returncode and "weir.yaml:3:" in p.stdout + p.stderr and complaint in p.stdout + p.stderr, p.stdout + p.stderr
