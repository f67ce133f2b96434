"""A node between real clients and real servers: what comes in goes out, byte for byte."""
import email
import email.policy
import os
import random
import re
import socket
import subprocess
import time

import pytest
from node import Smtp, have, wait_for, without_trace

HEAD = b"From: a@cam.example\r\nTo: b@example.org\r\nSubject: test\r\n\r\n"
EICAR = r"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


def lines(n, seed=1):
    rnd = random.Random(seed)
    out = bytearray()
    while len(out) < n:
        out += bytes(rnd.choice(b"abcdefghij.  ~!\xe4") for _ in range(rnd.randrange(0, 100))) + b"\r\n"
        if rnd.random() < 0.1:
            out += b".leading dot\r\n.\r\n..\r\n"
    return bytes(out)


@pytest.mark.parametrize("size", [0, 10, 4096, 70000, 1 << 20, 3 << 20])
def test_bytes_are_untouched(node, sink, size):
    body = HEAD + lines(size)
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.message("a@cam.example", ["b@example.org"], body).startswith("250 2.0.0 ")
    assert wait_for(lambda: sink.count == 1)
    assert without_trace(sink.messages[0]["data"]) == body
    assert sink.messages[0]["from"] == "a@cam.example" and sink.messages[0]["to"] == ["b@example.org"]


def test_swaks_and_the_id_in_reply_and_received(node, sink):
    p = subprocess.run([*node.client_prefix, "swaks", "--server", f"{node.host}:{node.port}", "--from", "me@cam.example", "--to", "you@example.org", "--tls"],
                       capture_output=True, text=True, timeout=60)
    assert p.returncode == 0, p.stdout
    assert "TLS started" in p.stdout
    ident = p.stdout.split("queued as ")[1].split()[0]
    assert wait_for(lambda: sink.count == 1)
    assert f"id {ident}".encode() in sink.messages[0]["data"] and b"with ESMTPS" in sink.messages[0]["data"]
    assert wait_for(lambda: f"event=delivered id={ident}" in node.log_text())


@pytest.mark.skipif(not have("msmtp"), reason="msmtp is not installed")
def test_msmtp(node, sink):
    p = subprocess.run([*node.client_prefix, "msmtp", f"--host={node.host}", f"--port={node.port}", "--from=me@cam.example", "--tls=off", "--auth=off", "you@example.org"],
                       input=b"Subject: from msmtp\n\nhello\n", timeout=60, env={**os.environ, "HOME": "/nonexistent"}, capture_output=True)
    assert p.returncode == 0, p.stderr
    assert wait_for(lambda: sink.count == 1) and b"from msmtp" in sink.messages[0]["data"]


@pytest.mark.skipif(not have("smtp-source"), reason="Postfix's smtp-source is not installed")
@pytest.mark.parametrize("mode", [["-d"], []])
def test_smtp_source_many_sessions(make_node, sink, mode):
    node = make_node(sink.port, engine="trivial")
    subprocess.run([*node.client_prefix, "smtp-source", *mode, "-s", "20", "-m", "1000", "-l", "4096", "-f", "a@cam.example", "-t", "b@example.org",
                    f"{node.host}:{node.port}"], check=True, timeout=120)
    assert wait_for(lambda: sink.count >= 1000, 60)
    time.sleep(0.5)
    assert sink.count == 1000
    assert wait_for(lambda: node.queue() == [])


def test_hundred_megabytes_with_bounded_memory(make_node, make_sink):
    sink = make_sink(keep=False)
    node = make_node(sink.port, engine="trivial", extra="limits: {message_size: 110M}\n")
    block = b"".join(b"%08d " % i + b"x" * 68 + b"\r\n" for i in range(13107))  # about 1 MiB
    c = Smtp(node.port, timeout=120)
    c.cmd("EHLO client.test")
    c.cmd("MAIL FROM:<a@cam.example> SIZE=104000000")
    c.cmd("RCPT TO:<b@example.org>")
    assert c.cmd("DATA").startswith("354")
    c.send(HEAD)
    top = 0
    for _ in range(100):
        c.send(block)
        top = max(top, *(rss_kib(p) for p in node.pids("weir-dataplane")))
    c.send(b".\r\n")
    assert c.reply().startswith("250")
    assert wait_for(lambda: sink.count == 1, 120)
    top = max(top, *(rss_kib(p) for p in node.pids("weir-dataplane")))
    assert without_trace(sink.messages[0]["data"]) == HEAD + block * 100
    assert top < (48 + 80 + node.transport_mib) * 1024  # the arena of 48 MiB and what a worker has anyway


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def test_relaying_is_denied_to_strangers_whatever_the_spelling(make_node, sink):
    node = make_node(sink.port, extra="relay_clients: [192.0.2.0/24]\n")
    c = Smtp(node.port)
    c.cmd("EHLO stranger.test")
    assert c.cmd("MAIL FROM:<x@elsewhere.example>").startswith("250")
    for rcpt in ("b@example.org", "b%example.org@elsewhere.example", "@cam.example:b@example.org", '"b@example.org"@elsewhere.example',
                 "example.org!b@elsewhere.example", "b@[192.0.2.1]", "b@CAM.example.org", "b@notcam.example", "b@sub.cam.example"):
        assert c.cmd(f"RCPT TO:<{rcpt}>").startswith("550 5.7.1"), rcpt
    for rcpt in ("b@cam.example", "b@CAM.EXAMPLE", "b%example.org@cam.example", "postmaster", "PostMaster@cam.example"):
        assert c.cmd(f"RCPT TO:<{rcpt}>").startswith("250"), rcpt
    assert c.cmd("RCPT TO:<b@cam.example.>").startswith("501 5.1.3")


def test_malware_is_refused_at_the_end_of_data(node, sink):
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    r = c.message("a@cam.example", ["b@example.org"], HEAD + EICAR.encode() + b"\r\n")
    assert r.startswith("550 5.7.1") and "Eicar" in r
    import base64
    attached = (b"From: a@cam.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhi\r\n"
                b"--b\r\nContent-Type: application/octet-stream; name=x.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n"
                + base64.b64encode(EICAR.encode()) + b"\r\n--b--\r\n")
    assert c.message("a@cam.example", ["b@example.org"], attached).startswith("550 5.7.1")
    assert c.message("a@cam.example", ["b@example.org"], HEAD + b"clean\r\n").startswith("250")
    assert wait_for(lambda: sink.count == 1)
    time.sleep(0.3)
    assert sink.count == 1 and node.counters()["messages_infected_total"] == 2


def test_several_recipients_get_results_of_their_own(make_node, make_sink):
    def decide(kind, text):
        if kind == "rcpt" and "bad@" in text:
            return "550 5.1.1 no such user\x07 here"
        if kind == "rcpt" and "later@" in text:
            return "450 4.2.1 not now"

    sink = make_sink(decide=decide)
    node = make_node(sink.port, extra="delivery: {retry_first: 1h}\n")
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    rcpts = [f"good{i}@example.org" for i in range(150)] + ["bad@example.org", "later@example.org"]
    assert c.message("a@cam.example", rcpts, HEAD + b"x\r\n").startswith("250")
    assert wait_for(lambda: sum(len(m["to"]) for m in sink.messages if m["from"]) == 150)
    assert wait_for(lambda: any(not m["from"] for m in sink.messages))
    dsn = next(m for m in sink.messages if not m["from"])
    check_dsn(dsn, "bad@example.org", "5.1.1", "a@cam.example")
    q = node.queue()
    assert len(q) == 1 and q[0]["open"] == 1 and q[0]["state"] == "deferred" and "450 4.2.1" in q[0]["reason"]
    show = node.ctl("queue", "show", q[0]["id"])
    assert [r["state"] for r in show[1:]].count("delivered") == 150


def check_dsn(message, rcpt, status, to):
    assert message["to"] == [to]
    m = email.message_from_bytes(message["data"], policy=email.policy.default)
    assert m.get_content_type() == "multipart/report" and m.get_param("report-type") == "delivery-status"
    text, report, original = list(m.iter_parts())
    assert rcpt in text.get_content()
    per_message, per_rcpt = report.get_payload()
    assert per_message["Reporting-MTA"].startswith("dns;")
    assert per_rcpt["Final-Recipient"] == f"rfc822;{rcpt}" and per_rcpt["Action"] == "failed" and per_rcpt["Status"] == status
    assert "Subject: test" in original.as_string()
    assert b"\x07" not in message["data"]


def test_a_bounce_that_fails_goes_to_the_postmaster_and_no_further(make_node, make_sink):
    def decide(kind, text):
        if kind == "rcpt" and ("nobody@" in text or "gone@" in text):
            return "550 5.1.1 no such user"

    sink = make_sink(decide=decide)
    node = make_node(sink.port)
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.message("gone@example.org", ["nobody@example.org"], HEAD).startswith("250")
    assert wait_for(lambda: sink.count == 1)
    assert sink.messages[0]["to"] == ["postmaster@cam.example"] and sink.messages[0]["from"] == ""
    assert wait_for(lambda: node.queue() == [])
    assert node.counters()["dsn_double_total"] == 1


@pytest.mark.parametrize("lmtp", [False, True])
def test_a_server_that_dies_after_the_dot_is_tried_again(make_node, make_sink, lmtp):
    state = {"dying": True}
    sink = make_sink(decide=lambda kind, text: "close" if kind == "end" and state["dying"] else None, lmtp=lmtp)
    node = make_node(routes='[{domain: "*", to: "%s:[%s]:%d", tls: never}]' % ("lmtp" if lmtp else "smtp", sink.host, sink.port),
                     extra="delivery: {retry_first: 1h}\n")
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.message("a@cam.example", ["b@example.org", "c@example.org"], HEAD).startswith("250")
    assert wait_for(lambda: [m for m in node.queue() if m["state"] == "deferred"])
    q = node.queue()
    assert "451 4.4.2 Connection to" in q[0]["reason"] and "was lost" in q[0]["reason"] and q[0]["open"] == 2
    state["dying"] = False
    node.ctl("queue", "retry", "--all")
    assert wait_for(lambda: sink.count == 1) and wait_for(lambda: node.queue() == [])


def test_retry_until_the_host_is_back(make_node, make_sink):
    state = {"down": True}
    sink = make_sink(decide=lambda kind, text: "421 4.3.2 closed for lunch" if kind == "connect" and state["down"] else None)
    node = make_node(sink.port)
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    for _ in range(5):
        assert c.message("a@cam.example", ["b@example.org"], HEAD).startswith("250")
    assert wait_for(lambda: len(node.queue()) == 5)
    state["down"] = False
    assert wait_for(lambda: sink.count == 5, 15) and wait_for(lambda: node.queue() == [])


def test_life_over_bounces(make_node, make_sink):
    sink = make_sink(decide=lambda kind, text: "450 4.2.0 never" if kind == "rcpt" and "never@" in text else None)
    node = make_node(sink.port, extra="delivery: {retry_first: 1s, retry_max: 1s, queue_life: 3s}\n")
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.message("a@cam.example", ["never@example.org"], HEAD).startswith("250")
    assert wait_for(lambda: sink.count == 1, 20)
    check_dsn(sink.messages[0], "never@example.org", "5.4.7", "a@cam.example")
    # RFC 3464 2.3.6: the diagnosis is the last answer of the remote; a person reads both
    text, report, _ = email.message_from_bytes(sink.messages[0]["data"], policy=email.policy.default).iter_parts()
    row = report.get_payload()[1]
    assert row["Remote-MTA"] == "dns;127.0.0.1" and row["Diagnostic-Code"] == "smtp;450 4.2.0 never"
    assert re.search(r"could not be delivered for \d+ seconds; the last answer of 127\.0\.0\.1 was:\r?\n    450 4\.2\.0 never\r?\n", text.get_content())
    assert wait_for(lambda: re.search(r"event=bounced .*reply=\"554 5\.4\.7 Delivery time expired; last: 450 4\.2\.0 never", node.log_text()))


def test_a_hop_without_8bitmime_gets_no_8_bit_message(make_node, make_sink):
    sink = make_sink(extensions=("PIPELINING",))
    node = make_node(sink.port)
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.message("a@cam.example", ["b@example.org"], HEAD + b"\xe4\r\n").startswith("250")  # it did not say BODY=8BITMIME
    assert wait_for(lambda: sink.count == 1)
    check_dsn(sink.messages[0], "b@example.org", "5.6.3", "a@cam.example")
    assert sink.messages[0]["data"].isascii()
    assert c.cmd("MAIL FROM:<a@cam.example> BODY=8BITMIME").startswith("250") and c.cmd("RCPT TO:<b@example.org>").startswith("250")
    c.cmd("DATA")
    c.send(HEAD + b"all ASCII\r\n.\r\n")
    assert c.reply().startswith("250") and wait_for(lambda: sink.count == 2)
    assert without_trace(sink.messages[1]["data"]) == HEAD + b"all ASCII\r\n"


def test_operator_holds_releases_and_deletes(make_node, make_sink):
    state = {"down": True}
    sink = make_sink(decide=lambda kind, text: "450 4.2.0 no" if kind == "mail" and state["down"] else None)
    node = make_node(sink.port, extra="delivery: {retry_first: 1h}\n")
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    for i in range(3):
        assert c.message("a@cam.example", [f"b{i}@example.org"], HEAD).startswith("250")
    assert wait_for(lambda: sum(m["state"] == "deferred" for m in node.queue()) == 3)
    ids = {m["to"][:2]: m["id"] for m in node.queue()}
    assert node.ctl("queue", "hold", ids["b0"])[0]["done"] == "held"
    assert node.ctl("queue", "delete", ids["b1"])[0]["done"] == "deleted"
    state["down"] = False
    node.ctl("queue", "retry", "--all")
    assert wait_for(lambda: sink.count == 1) and sink.messages[0]["to"] == ["b2@example.org"]
    assert wait_for(lambda: [m["state"] for m in node.queue()] == ["held"])
    node.stop()
    node.start()
    assert [m["state"] for m in node.queue()] == ["held"]  # survives a restart
    assert node.ctl("queue", "release", ids["b0"])[0]["done"] == "released"
    node.ctl("queue", "retry", "--all")
    assert wait_for(lambda: sink.count == 2)
    assert node.ctl_text("queue", "show", "0000000000000").returncode == 1


def test_protocol_refusals(node):
    c = Smtp(node.port)
    for text, want in [("MAIL FROM:<a@b.example>", "503 5.5.1"), ("EHLO", "501 Say"), ("FOO", "500 5.5.2"), ("EHLO x.test", "250"),
                       ("RCPT TO:<b@example.org>", "503 5.5.1"), ("DATA", "503 5.5.1"), ("MAIL FROM:a@b.example", "501"),
                       ("MAIL FROM:<a@b.example> SIZE=999999999999", "552 5.3.4"), ("MAIL FROM:<a@b.example> FOO=1", "555 5.5.4"),
                       ("MAIL FROM:<a@b.example>", "250 2.1.0"), ("MAIL FROM:<a@b.example>", "503"), ("DATA", "554 5.5.1"), ("RSET", "250"),
                       ("VRFY x", "252"), ("HELP", "214"), ("NOOP", "250"), ("x" * 3000, "500 5.5.2"), ("QUIT", "221 2.0.0")]:
        assert c.cmd(text).startswith(want), text
    assert c.reply() is None


@pytest.mark.parametrize("ending", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\r\n.\r\n"])
def test_smuggling_endings_end_the_session_and_nothing_leaves(node, sink, ending):
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    c.cmd("MAIL FROM:<a@cam.example>")
    c.cmd("RCPT TO:<b@example.org>")
    c.cmd("DATA")
    c.send(HEAD + b"text" + ending + b"MAIL FROM:<evil@cam.example>\r\nRCPT TO:<c@example.org>\r\nDATA\r\nSubject: evil\r\n\r\n\r\n.\r\n")
    assert c.reply().startswith("554 5.6.0")
    assert c.reply() is None
    time.sleep(0.2)
    assert sink.count == 0


def test_cut_connections_deliver_nothing(node, sink):
    whole = b"MAIL FROM:<a@cam.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" + HEAD + b"x\r\n.\r"
    for n in range(60, len(whole) + 1, 3):
        c = Smtp(node.port)
        c.cmd("EHLO client.test")
        c.send(whole[:n])
        c.close()
    time.sleep(0.5)
    assert sink.count == 0 and node.queue() == []


def test_injection_behind_starttls_closes(node):
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    c.send(b"STARTTLS\r\nNOOP\r\n")
    try:
        rest = c.s.recv(1000)
        assert rest == b"" or (rest.startswith(b"220") and c.s.recv(1000) == b"")
    except ConnectionResetError:
        pass  # so it is where a transport can send a RST at once


def test_other_protocols_are_closed(node):
    for first in (b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.0\r\n", b"CONNECT x:25 HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01\x00"):
        c = Smtp(node.port)
        c.send(first)
        r = c.reply()
        assert r is None or r.startswith("554")
        assert r is None or c.reply() is None


def test_a_byte_at_a_time_and_a_half_closed_client(node, sink):
    whole = (b"EHLO slow.test\r\nMAIL FROM:<a@cam.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" + HEAD + b"..x\r\n.\r\n")
    c = Smtp(node.port)
    for i in range(len(whole)):
        c.send(whole[i:i + 1])
    c.s.shutdown(1)  # no QUIT: the answer comes all the same, then the end, and no other reply
    replies = [c.reply() for _ in range(6)]
    assert [r[:3] for r in replies[:5]] == ["250", "250", "250", "354", "250"] and replies[5] is None
    assert wait_for(lambda: sink.count == 1) and sink.messages[0]["data"].endswith(b"\r\n.x\r\n")


def test_a_whole_session_in_one_write(node, sink):
    c = Smtp(node.port)
    one = b"MAIL FROM:<a@cam.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" + HEAD + b"x\r\n.\r\n"
    c.send(b"EHLO eager.test\r\n" + one * 20 + b"QUIT\r\n")
    replies = []
    while (r := c.reply()) is not None:
        replies.append(r)
    assert len(replies) == 1 + 20 * 4 + 1 and replies[-1].startswith("221")
    assert wait_for(lambda: sink.count == 20)


def test_chunks(node, sink):
    c = Smtp(node.port)
    c.cmd("EHLO chunks.test")
    c.send(b"BDAT 5\r\nNOOP\n")  # out of order: its octets are no commands
    assert c.reply().startswith("503")
    c.cmd("MAIL FROM:<a@cam.example>")
    c.cmd("RCPT TO:<b@example.org>")
    c.send(b"BDAT %d\r\n" % len(HEAD) + HEAD)
    assert c.reply().startswith("250")
    assert c.cmd("DATA").startswith("503")
    c.send(b"BDAT 3\r\n.\r\n")
    assert c.reply().startswith("250")
    c.send(b"BDAT 6 LAST\r\n..a\r\n\r"[:-1] + b"\n"[:0] + b"b")
    r = c.reply()
    assert r.startswith("250 2.0.0 Ok: queued"), r
    assert wait_for(lambda: sink.count == 1)
    assert without_trace(sink.messages[0]["data"]) == HEAD + b".\r\n..a\r\nb\r\n"  # the sink sees the line end that DATA needs
    assert b"\r\n..\r\n...a\r\n" in bytes(sink.raw)
    c.send(b"BDAT 99999999999999999999\r\n")
    assert c.reply().startswith("501") and c.reply() is None


@pytest.mark.parametrize("before,drip", [([], b"NOOP with words"), (["MAIL FROM:<a@cam.example>", "RCPT TO:<b@example.org>", "DATA"], b"text by the drop"),
                                         (["MAIL FROM:<a@cam.example>", "RCPT TO:<b@example.org>", "BDAT 100 LAST"], b"text by the drop")])
def test_who_drips_is_cut_off_at_the_deadline(make_node, sink, before, drip):
    node = make_node(sink.port, workers=1, engine="trivial", extra="timeouts: {command: 2s, data: 2s}\n")
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    for command in before[:-1]:
        c.cmd(command)
    if before:
        c.send(before[-1] + "\r\n")
        assert before[-1] != "DATA" or c.reply().startswith("354")
    begun = time.monotonic()
    for i in range(30):
        try:
            c.send(drip[i % len(drip):][:1])
        except ConnectionError:
            break
        time.sleep(0.3)
        if time.monotonic() - begun > 4:
            break
    assert c.reply().startswith("421 4.4.2") and time.monotonic() - begun < 5


def test_a_slow_but_steady_message_is_taken(make_node, sink):
    node = make_node(sink.port, workers=1, engine="trivial", extra="timeouts: {command: 1s, data: 1s}\n")
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    c.cmd("MAIL FROM:<a@cam.example>")
    c.cmd("RCPT TO:<b@example.org>")
    c.cmd("DATA")
    for _ in range(20):
        c.send(b"y" * 48 + b"\r\n")
        time.sleep(0.2)
    c.send(b".\r\n")
    assert c.reply().startswith("250")


def test_limits_of_time_connections_recipients_and_errors(make_node, sink):
    node = make_node(sink.port, workers=1, extra="timeouts: {command: 1s, data: 1s}\n"
                     "limits: {connections_per_own_client: 10, recipients: 100, errors: 5}\n")
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.reply().startswith("421 4.4.2") and c.reply() is None
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    c.cmd("MAIL FROM:<a@cam.example>")
    for i in range(100):
        assert c.cmd(f"RCPT TO:<b{i}@example.org>").startswith("250")
    assert c.cmd("RCPT TO:<more@example.org>").startswith("452 4.5.3")
    assert c.cmd("DATA").startswith("354")
    assert c.reply().startswith("421 4.4.2")
    c = Smtp(node.port)
    for _ in range(4):
        assert c.cmd("FOO").startswith("500")
    c.send("FOO\r\n")
    assert c.reply().startswith("500") and c.reply().startswith("421 4.7.0") and c.reply() is None
    c.close()
    assert wait_for(lambda: node.counters()["sessions_open"] == 0)
    many = [Smtp(node.port) for _ in range(12)]
    assert sum(m.greeting.startswith("220") for m in many) == 10
    assert sum(m.greeting.startswith("421 4.7.0") for m in many) == 2
    for m in many:
        m.close()
    assert wait_for(lambda: node.counters()["sessions_open"] == 0)
    many, ended = [], 0
    for _ in range(12):  # before the handshake nothing is said: over the limit is simply the end, which may come within the call
        try:
            many.append(Smtp(node.smtps, greet=False, timeout=5).s)
        except ConnectionError:
            ended += 1
    time.sleep(0.3)
    for s in many:
        s.settimeout(0.05)
        try:
            assert s.recv(100) == b""
            ended += 1
        except ConnectionResetError:
            ended += 1
        except TimeoutError:
            pass
        s.close()
    assert ended == 2
