"""XCLIENT for configured test clients (Postfix's XCLIENT_README): by hand and with swaks."""
import re
import subprocess

import pytest
from node import BIN, Smtp, free_port, wait_for
from test_auth import line_for

TESTER, OTHER = "127.0.0.9", "127.9.0.1"
TEXT = b"From: a@x.example\r\nSubject: x\r\n\r\nx\r\n"


@pytest.fixture
def node(make_node, sink, tmp_path):
    (tmp_path / "passwords").write_text(line_for("bob", "secret"))
    lmtp = free_port()
    n = make_node(sink.port, engine="trivial", submission=True, listeners=[f'{{address: "127.0.0.1:{lmtp}", role: lmtp}}'],
                  extra=f"xclient_clients: [{TESTER}/32]\nauth: {{password_file: {tmp_path}/passwords}}\nlimits: {{connections_per_client: 2}}\n"
                  "relay_clients: [{network: 127.0.0.1/32, rate: none}, {network: 192.0.2.7/32, rate: none, name: tested}]\n")
    n.sink, n.lmtp = sink, lmtp
    return n


def as_tester(node, port=None, ehlo="EHLO"):
    s = Smtp(port or node.port, source=TESTER)
    return s, s.cmd(f"{ehlo} tester.example")


def test_it_is_offered_to_test_clients_only(node):
    assert "250-XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT\n" in as_tester(node)[1]
    assert "250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\n" in as_tester(node, node.submission)[1]
    for source in (OTHER, "127.0.0.1"):
        s = Smtp(node.port, source=source)
        assert "XCLIENT" not in s.cmd("EHLO x.example")
        assert s.cmd("XCLIENT ADDR=192.0.2.7").startswith("550 5.7.0")
        assert s.cmd("MAIL FROM:<a@x.example>").startswith("250")
        s.cmd("QUIT")
    assert wait_for(lambda: node.counters()["xclient_refused_total"] == 2)
    assert node.counters()["xclient_total"] == 0
    assert len(re.findall(rf"event=xclient-refused client={OTHER} ", node.log_text())) == 1


def test_the_client_is_the_one_that_was_named(node):
    """A1: the rules are those of the other client, in both directions; Received and trace say so."""
    s, _ = as_tester(node)
    s.cmd("MAIL FROM:<a@x.example>")
    assert s.cmd("RCPT TO:<b@example.org>").startswith("550 5.7.1")
    assert s.cmd("XCLIENT ADDR=192.0.2.7").startswith("503 5.5.1")
    s.cmd("RSET")
    assert s.cmd("XCLIENT NAME=relay.x.example ADDR=192.0.2.7 PORT=4097").startswith("220 relay.cam.example ESMTP")
    assert s.cmd("MAIL FROM:<a@x.example>").startswith("503 5.5.1")
    assert "XCLIENT" in s.cmd("EHLO other.example")
    assert s.message("a@x.example", ["b@example.org"], TEXT).startswith("250")
    assert wait_for(lambda: node.sink.count == 1)
    assert b"Received: from other.example ([192.0.2.7])" in node.sink.messages[0]["data"]
    assert wait_for(lambda: "192.0.2.7" in node.ctl_text("trace", "b@example.org").stdout)
    assert s.cmd("XCLIENT ADDR=IPV6:2001:db8::7").startswith("220")
    s.cmd("EHLO other.example")
    s.cmd("MAIL FROM:<a@x.example>")
    assert s.cmd("RCPT TO:<b@example.org>").startswith("550 5.7.1")
    assert wait_for(lambda: "client=2001:db8::7" in node.log_text())
    assert re.search(rf"event=xclient client=\S+\.9 becomes=192\.0\.2\.7", node.log_text())
    assert node.counters()["xclient_total"] == 2


def test_helo_and_proto(node):
    """HELO stands for the greeting; what the client says after it counts again."""
    s, _ = as_tester(node)
    assert s.cmd("XCLIENT ADDR=192.0.2.7 HELO=x+2Dhost.example PROTO=SMTP").startswith("220")
    assert s.message("a@x.example", ["b@example.org"], TEXT).startswith("250")
    assert s.cmd("XCLIENT HELO=y.example PROTO=ESMTP").startswith("220")
    assert s.message("a@x.example", ["b@example.org"], TEXT).startswith("250")
    assert s.cmd("XCLIENT HELO=[UNAVAILABLE]").startswith("220")
    assert s.cmd("MAIL FROM:<a@x.example>").startswith("503")
    assert wait_for(lambda: node.sink.count == 2)
    got = sorted(re.search(rb"Received: (from \S+ \(\S+\)).* with (\S+)", m["data"].replace(b"\r\n\t", b" ")).groups() for m in node.sink.messages)
    assert got == [(b"from x-host.example ([192.0.2.7])", b"SMTP"), (b"from y.example ([192.0.2.7])", b"ESMTP")]


@pytest.mark.parametrize("arg", ["", " ", "ADDR", "ADDR=", "ADDR=host.example", "ADDR=192.0.2.256", "ADDR=1.2.3.4 ADDR=1.2.3.5", "PORT=65536", "PORT=x", "PROTO=UUCP", "PROTO=LMTP",
                                 "HELO=a+0D+0Ab", "HELO=a+20b", "HELO=a+zz", "NAME=a+00", "FOO=bar", "=x", "LOGIN=bob", "DESTADDR=x", "DESTPORT=-1", "ADDR=192.0.2.7 FOO=x"])
def test_bad_attributes_change_nothing(node, arg):
    s, _ = as_tester(node)
    assert s.cmd(f"XCLIENT {arg}").startswith("501 5.5.4")
    s.cmd("MAIL FROM:<a@x.example>")
    assert s.cmd("RCPT TO:<b@example.org>").startswith("550 5.7.1")


@pytest.mark.parametrize("arg", ["ADDR=[UNAVAILABLE]", "ADDR=[tempunavail] NAME=[TEMPUNAVAIL]", "NAME=[UNAVAILABLE] PORT=[UNAVAILABLE] DESTADDR=192.0.2.1 DESTPORT=25", "addr=198.51.100.1"])
def test_what_is_not_known(node, arg):
    s, _ = as_tester(node)
    assert s.cmd(f"XCLIENT {arg}").startswith("220")
    s.cmd("EHLO x.example")
    assert s.cmd("MAIL FROM:<a@x.example>").startswith("250")
    assert s.cmd("RCPT TO:<b@example.org>").startswith("550 5.7.1")


def test_login_is_for_test_clients_on_submission_services(node):
    """P19: nobody else gets past AUTH and TLS with it, and not by asking twice."""
    s, _ = as_tester(node, node.submission)
    assert s.cmd("MAIL FROM:<bob@cam.example>").startswith("530")
    assert s.cmd("XCLIENT LOGIN=bob").startswith("220")
    s.cmd("EHLO x.example")
    assert s.message("bob@cam.example", ["b@example.org"], TEXT).startswith("250")
    assert s.cmd("MAIL FROM:<bob@elsewhere.example>").startswith("550 5.7.1")
    assert s.cmd("XCLIENT ADDR=192.0.2.8").startswith("220")
    s.cmd("EHLO x.example")
    assert s.cmd("MAIL FROM:<bob@cam.example>").startswith("530")
    assert s.cmd("XCLIENT LOGIN=[UNAVAILABLE]").startswith("220")
    s.cmd("EHLO x.example")
    assert s.cmd("MAIL FROM:<bob@cam.example>").startswith("530")
    o = Smtp(node.submission, source=OTHER)
    o.cmd("EHLO x.example")
    assert o.cmd("XCLIENT LOGIN=bob").startswith("550 5.7.0")
    assert o.cmd("MAIL FROM:<bob@cam.example>").startswith("530")


def test_connections_are_the_other_clients(make_node, sink):
    """P16: limits count it, and 421 is what it would get."""
    node = make_node(sink.port, engine="trivial", workers=1, extra=f"xclient_clients: [{TESTER}/32]\nlimits: {{connections_per_client: 2}}\n")
    held = []
    for _ in range(2):
        s, _ = as_tester(node)
        assert s.cmd("XCLIENT ADDR=192.0.2.7").startswith("220")
        held.append(s)
    s, _ = as_tester(node)
    assert s.cmd("XCLIENT ADDR=192.0.2.7").startswith("421 4.7.0") and s.reply() is None
    held.pop().cmd("QUIT")
    s = wait_for(lambda: next((t for t in [as_tester(node)[0]] if t.cmd("XCLIENT ADDR=192.0.2.7").startswith("220")), None))
    assert s.cmd("EHLO x.example").startswith("250")


def test_pipelined(node):
    s = Smtp(node.port, source=TESTER)
    s.send(b"EHLO x.example\r\nXCLIENT ADDR=192.0.2.7\r\nEHLO y.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@example.org>\r\nRSET\r\n")
    assert [s.reply()[:3] for _ in range(6)] == ["250", "220", "250", "250", "250", "250"]


def test_lmtp(node):
    s, _ = as_tester(node, node.lmtp, "LHLO")
    assert s.cmd("XCLIENT ADDR=192.0.2.7 PROTO=ESMTP").startswith("501")
    assert s.cmd("XCLIENT ADDR=192.0.2.7 PROTO=LMTP HELO=x.example").startswith("220 relay.cam.example LMTP")
    assert s.message("a@x.example", ["b@example.org"], TEXT).startswith("250")


def test_swaks(node):
    run = ["swaks", "--server", f"127.0.0.1:{node.port}", "--local-interface", TESTER, "--from", "a@x.example", "--to", "b@example.org"]
    assert subprocess.run(run, capture_output=True, timeout=60).returncode == 24
    out = subprocess.run([*run, "--xclient-addr", "192.0.2.7", "--xclient-name", "x.example", "--xclient-helo", "h.example"], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stdout + out.stderr
    assert re.search(r"-> XCLIENT .*ADDR=192\.0\.2\.7", out.stdout)
    assert wait_for(lambda: node.sink.count == 1)
    assert b"([192.0.2.7])" in node.sink.messages[0]["data"]


def test_configuration_errors(tmp_path):
    (tmp_path / "weir.yaml").write_text("hostname: relay.cam.example\nxclient_clients: [all]\n")
    p = subprocess.run([BIN / "weirctl", "config", "check", tmp_path / "weir.yaml"], capture_output=True, text=True, timeout=30)
    assert p.returncode and 'weir.yaml:2: xclient_clients: "all" is not a network' in p.stdout + p.stderr
