"""Weir as an LMTP server (RFC 2033): a listener with role lmtp, with Python's and swaks' clients, and by hand."""
import re
import smtplib
import subprocess

import pytest
from node import Smtp, free_port, wait_for

TEXT = "From: a@cam.example\r\nSubject: lmtp\r\n\r\nx\r\n"
EICAR = r"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*\r\n"


@pytest.fixture
def lmtp(make_node, sink):
    port = free_port()
    node = make_node(sink.port, engine="trivial", extra="relay_clients: [{network: 127.0.0.0/16, rate: none}]\n",
                     listeners=[f'{{address: "127.0.0.1:{port}", role: lmtp}}'])
    node.lmtp, node.sink = port, sink
    return node


def session(node, **kw):
    s = Smtp(node.lmtp, **kw)
    assert re.match(r"220 relay\.cam\.example LMTP ", s.greeting)
    return s


def test_only_lhlo(lmtp):
    s = session(lmtp)
    assert s.cmd("EHLO x.example").startswith("500 5.5.1")
    assert s.cmd("HELO x.example").startswith("500 5.5.1")
    assert s.cmd("MAIL FROM:<a@cam.example>").startswith("503 5.5.1")
    words = s.cmd("LHLO x.example")
    for word in ("PIPELINING", "ENHANCEDSTATUSCODES", "CHUNKING", "8BITMIME", "SIZE", "STARTTLS"):
        assert re.search(rf"250[ -]{word}", words), words
    assert "LHLO" in s.cmd("HELP") and "EHLO" not in s.cmd("HELP")
    assert s.cmd("MAIL FROM:<a@cam.example>").startswith("250")
    assert s.cmd("DATA").startswith("503 5.5.1")
    assert s.cmd("QUIT").startswith("221")


def test_python_client(lmtp):
    """It knows one reply a message: one recipient each."""
    with smtplib.LMTP("127.0.0.1", lmtp.lmtp) as c:
        assert c.sendmail("a@cam.example", ["b@example.org"], TEXT) == {}
        with pytest.raises(smtplib.SMTPDataError) as e:
            c.sendmail("a@cam.example", ["b@example.org"], "Subject: x\r\n\r\n" + EICAR)
        assert e.value.smtp_code == 550
        assert c.noop()[0] == 250
    assert wait_for(lambda: lmtp.sink.count == 1)
    assert re.search(rb"with LMTP\r\n", lmtp.sink.messages[0]["data"])


def test_what_is_refused_after_the_data_is_refused_for_each(lmtp):
    """E1: all recipients share the message; one that was refused at RCPT has had its answer there."""
    s = session(lmtp)
    s.cmd("LHLO x.example")
    s.cmd("MAIL FROM:<a@cam.example>")
    assert [s.cmd(f"RCPT TO:<{r}>")[:3] for r in ("b@example.org", "bad@@example.org", "c@example.org")] == ["250", "501", "250"]
    s.cmd("DATA")
    s.send("Subject: x\r\n\r\n" + EICAR + ".\r\nQUIT\r\n")
    said = [s.reply() for _ in range(3)]
    assert said[0] == said[1] and said[0].startswith("550 5.7.1") and said[2].startswith("221")
    assert lmtp.sink.count == 0


def test_an_alias_is_one_reply(lmtp, make_node, sink, tmp_path):
    """C6: a list of three is one recipient to the client."""
    (tmp_path / "aliases").write_text("list: x@example.org, y@example.org, z@example.org\n")
    port = free_port()
    node = make_node(sink.port, engine="trivial", listeners=[f'{{address: "127.0.0.1:{port}", role: lmtp}}'],
                     extra=f"mail_domains: [{{domain: dept.cam.example, aliases: {tmp_path}/aliases}}]\n")
    assert wait_for(lambda: node.counters()["tables_generation"] > 0)
    s = Smtp(port)
    s.send("LHLO x.example\r\nMAIL FROM:<a@cam.example>\r\nRCPT TO:<list@dept.cam.example>\r\nRCPT TO:<nobody@dept.cam.example>\r\nRCPT TO:<b@example.org>\r\n")
    assert [s.reply()[:3] for _ in range(5)] == ["250", "250", "250", "550", "250"]
    s.send(f"DATA\r\n{TEXT}.\r\nQUIT\r\n")
    replies = [s.reply() for _ in range(4)]
    assert [r[:9] for r in replies] == ["354 End d", "250 2.0.0", "250 2.0.0", "221 2.0.0"], replies
    assert replies[1] == replies[2]
    assert wait_for(lambda: sorted(r for m in sink.messages for r in m["to"]) == ["b@example.org", "x@example.org", "y@example.org", "z@example.org"])


def test_pipelining_and_chunks(lmtp):
    s = session(lmtp)
    body = TEXT.encode()
    s.send(b"LHLO x.example\r\nMAIL FROM:<a@cam.example>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<c@example.org>\r\n" b"BDAT %d\r\n" % len(body[:20]) + body[:20]
           + b"BDAT %d LAST\r\n" % len(body[20:]) + body[20:] + b"NOOP\r\n")
    assert [s.reply()[:3] for _ in range(5)] == ["250"] * 5
    assert [s.reply()[:9] for _ in range(3)] == ["250 2.0.0"] * 3
    assert wait_for(lambda: lmtp.sink.count == 1)


@pytest.mark.parametrize("rcpts", [147, 1000, 5000])
def test_replies_to_more_recipients_than_fit(lmtp, rcpts):
    """P7: they are said as the client takes them; the engine's buffer has room for about fifty."""
    s = session(lmtp)
    s.cmd("LHLO x.example")
    s.cmd("MAIL FROM:<a@cam.example>")
    for begin in range(0, rcpts, 1000):
        n = min(1000, rcpts - begin)
        s.send("".join(f"RCPT TO:<r{begin + i}@example.org>\r\n" for i in range(n)))
        assert {s.reply()[:9] for _ in range(n)} == {"250 2.1.5"}
    assert s.cmd("DATA").startswith("354")
    s.send(TEXT + ".\r\nNOOP\r\n")
    said = [s.reply() for _ in range(rcpts + 1)]
    assert len(set(said[:-1])) == 1 and said[0].startswith("250 2.0.0 ") and said[-1].startswith("250 2.0.0") and said[-1] != said[0]
    assert s.cmd("QUIT").startswith("221")


def test_strangers_relay_no_more_than_by_smtp(lmtp):
    """P5: LMTP is another language, not another rule."""
    s = session(lmtp, source="127.9.0.1")
    s.cmd("LHLO x.example")
    s.cmd("MAIL FROM:<a@cam.example>")
    assert s.cmd("RCPT TO:<b@example.org>").startswith("550 5.7.1")
    assert s.cmd("RCPT TO:<b@cam.example>").startswith("250")


def test_swaks(lmtp):
    out = subprocess.run(["swaks", "--protocol", "LMTP", "--server", f"127.0.0.1:{lmtp.lmtp}", "--from", "a@cam.example", "--to", "b@example.org,c@example.org"],
                         capture_output=True, text=True, timeout=60)
    assert out.returncode == 0 and "LHLO" in out.stdout, out.stdout + out.stderr
    assert wait_for(lambda: lmtp.sink.count == 1)


def test_starttls(lmtp):
    out = subprocess.run(["swaks", "--protocol", "LMTPS", "--server", f"127.0.0.1:{lmtp.lmtp}", "--from", "a@cam.example", "--to", "b@example.org"],
                         capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stdout + out.stderr
    assert wait_for(lambda: lmtp.sink.count == 1)
    assert b" with LMTPS\r\n" in lmtp.sink.messages[0]["data"]


def test_weir_speaks_to_itself(lmtp, make_node):
    """A Weir that delivers by LMTP to one that takes it, 300 recipients in a message."""
    first = make_node(None, engine="trivial", routes=f'[{{domain: "*", to: "lmtp:[127.0.0.1]:{lmtp.lmtp}", tls: never}}]', name="first")
    s = Smtp(first.port)
    s.cmd("EHLO x.example")
    assert s.message("a@cam.example", [f"r{i}@example.org" for i in range(300)], TEXT.encode()).startswith("250")
    assert wait_for(lambda: first.queue() == [] and lmtp.sink.count >= 1)
    assert first.counters()["recipients_delivered_total"] == 300
