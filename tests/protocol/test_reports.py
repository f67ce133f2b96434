"""Delivery status notifications (RFC 3461, 3464, 6533) parsed by python3's email package; and how many are made (P10, A10)."""
import email
import email.policy
import re
import time

import pytest
from nasty import Nasty
from node import Smtp, wait_for

HEAD = b"From: s@cam.example\r\nTo: somebody\r\nSubject: test\r\nMIME-Version: 1.0\r\n\r\n"
BODY = HEAD + b"the text itself\r\n"
PLAIN = ("PIPELINING", "8BITMIME")
DSN = ("PIPELINING", "8BITMIME", "DSN", "SMTPUTF8")


class Report:
    def __init__(self, message):
        self.data, self.to = message["data"], message["to"]
        assert message["from"] == ""
        m = email.message_from_bytes(message["data"], policy=email.policy.default)
        assert m.get_content_type() == "multipart/report" and m.get_param("report-type") == "delivery-status" and not m.defects
        assert m["Auto-Submitted"] == "auto-replied" and m["Date"] and m["Message-ID"]
        self.subject = m["Subject"]
        self.text, self.status, self.original = list(m.iter_parts())
        self.kind = self.status.get_content_type()
        # the email package parses message/delivery-status into fields; of message/global-delivery-status it knows only the text
        if self.kind == "message/delivery-status":
            self.per_message, *self.rows = self.status.get_payload()
        else:
            raw = self.data.split(b"Content-Type: message/global-delivery-status")[1].split(b"\r\n\r\n", 1)[1].split(b"\r\n--=_weir")[0]
            self.per_message, *self.rows = [email.message_from_bytes(x, policy=email.policy.SMTPUTF8) for x in re.split(rb"\r\n\r\n(?=Orig|Final)", raw)]
        self.rcpts = {r["Final-Recipient"].split(";", 1)[1].strip(): r for r in self.rows}

    @property
    def actions(self):
        return {a: r["Action"] for a, r in self.rcpts.items()}


@pytest.fixture
def world(make_node, make_sink):
    """Reports go to the sink; what they are about to a server of the test's choice at far.example, or by LMTP at store.example."""
    made = []

    class World:
        def __init__(self, script=None, extensions=PLAIN, extra="", lmtp=False, final=False, delivery="retry_first: 1s, retry_max: 1s, idle: 300ms", **kw):
            self.sink = make_sink(extensions=("PIPELINING", "8BITMIME", "SMTPUTF8"))
            self.far = Nasty(script, extensions)
            made.append(self.far)
            kind = "lmtp" if lmtp else "smtp"
            self.node = make_node(routes=f'[{{domain: far.example, to: "{kind}:[127.0.0.1]:{self.far.port}", tls: never{", final: yes" if final else ""}}},'
                                  f' {{domain: "*", to: "smtp:[127.0.0.1]:{self.sink.port}", tls: never}}]', engine="trivial", workers=1,
                                  extra=f"delivery: {{{delivery}}}\n" + extra, **kw)
            self.client = Smtp(self.node.port)
            self.client.cmd("EHLO client.test")

        def send(self, rcpts, mail="", sender="s@cam.example", data=BODY):
            """rcpts: address, or (address, parameters)."""
            assert self.client.cmd(f"MAIL FROM:<{sender}>{mail}").startswith("250")
            for r in rcpts:
                a, p = r if isinstance(r, tuple) else (r, "")
                reply = self.client.cmd(f"RCPT TO:<{a}>{p}")
                assert reply.startswith("250"), reply
            assert self.client.cmd("DATA").startswith("354")
            self.client.send(data + b".\r\n")
            reply = self.client.reply()
            assert reply.startswith("250"), reply

        def reports(self, n=1, timeout=10):
            assert wait_for(lambda: self.sink.count >= n, timeout), (self.sink.count, self.node.queue())
            time.sleep(0.3)
            assert self.sink.count == n
            return [Report(m) for m in self.sink.messages]

        def silence(self):
            assert wait_for(lambda: self.node.queue() == [], 10), self.node.queue()
            time.sleep(0.3)
            assert self.sink.count == 0

    yield World
    for s in made:
        s.stop()


def test_parameters_are_passed_on_where_dsn_is_offered_and_no_report_is_made(world):
    w = world(extensions=DSN)
    w.send([("a@far.example", " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;A+2Ba@cam.example"), ("b@far.example", " NOTIFY=NEVER"), "c@far.example"], " RET=HDRS ENVID=x+2B1")
    w.silence()
    heard = b"".join(w.far.heard)
    assert b"RET=HDRS ENVID=x+2B1\r\n" in heard
    assert b"RCPT TO:<a@far.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;A+2Ba@cam.example\r\n" in heard
    assert b"RCPT TO:<b@far.example> NOTIFY=NEVER\r\n" in heard and b"RCPT TO:<c@far.example>\r\n" in heard
    assert w.node.counters()["dsn_total"] == 0


def test_relayed_where_dsn_is_not_offered(world):
    w = world()
    w.send([("a@far.example", " NOTIFY=SUCCESS ORCPT=rfc822;A+2Ba@cam.example"), ("b@far.example", " NOTIFY=FAILURE"), "c@far.example",
            ("d@far.example", " NOTIFY=SUCCESS,FAILURE")], " RET=FULL ENVID=id+2B7")
    r, = w.reports()
    assert r.actions == {"a@far.example": "relayed", "d@far.example": "relayed"} and r.to == ["s@cam.example"]
    assert r.per_message["Original-Envelope-Id"] == "id+7" and r.per_message["Reporting-MTA"] == "dns;relay.cam.example"
    assert r.rcpts["a@far.example"]["Original-Recipient"] == "rfc822;A+a@cam.example"
    assert r.rcpts["a@far.example"]["Status"].startswith("2.")
    assert r.original.get_content_type() == "text/rfc822-headers" and b"the text itself" not in r.data  # no failure: the header will do
    assert len(w.far.messages) == 1 and not any(b"NOTIFY" in x for x in w.far.heard)


@pytest.mark.parametrize("kw", [{"lmtp": True}, {"final": True}, {"final": True, "extensions": DSN}])
def test_delivered_where_it_is_final(world, kw):
    w = world(**kw)
    w.send([("a@far.example", " NOTIFY=SUCCESS"), "b@far.example"])
    r, = w.reports()
    assert r.actions == {"a@far.example": "delivered"}
    if "extensions" in kw:
        assert b"RCPT TO:<a@far.example> NOTIFY=NEVER\r\n" in w.far.heard  # it is not asked for a second report


def test_failures_honour_notify_and_are_one_report(world):
    w = world({"rcpt": "550 5.1.1 no such user"})
    w.send([("a@far.example", ""), ("b@far.example", " NOTIFY=FAILURE ORCPT=rfc822;b@old.example"), ("c@far.example", " NOTIFY=NEVER"),
            ("d@far.example", " NOTIFY=SUCCESS,DELAY")])
    r, = w.reports()
    assert r.actions == {"a@far.example": "failed", "b@far.example": "failed"}
    assert r.rcpts["b@far.example"]["Original-Recipient"] == "rfc822;b@old.example"
    assert r.rcpts["a@far.example"]["Status"] == "5.1.1" and "no such user" in r.rcpts["a@far.example"]["Diagnostic-Code"]
    assert r.original.get_content_type() == "message/rfc822" and b"the text itself" in r.data
    assert w.node.queue() == [] and w.node.counters()["recipients_bounced_total"] == 4


def test_nobody_wants_to_know(world):
    w = world({"rcpt": "550 5.1.1 no such user"})
    w.send([("a@far.example", " NOTIFY=NEVER"), ("b@far.example", " NOTIFY=SUCCESS")])
    w.silence()


def test_failures_of_several_transactions_are_gathered(world):
    w = world({"rcpt": lambda c: "550 5.1.1 no such user" if c.server.heard[-1].startswith(b"RCPT TO:<bad") else None},
              extensions=PLAIN + ("LIMITS RCPTMAX=3",))
    w.send([f"{'bad' if i % 3 == 0 else 'good'}{i}@far.example" for i in range(20)])
    r, = w.reports()
    assert r.actions == {f"bad{i}@far.example": "failed" for i in range(0, 20, 3)}
    assert sum(len(m["to"]) for m in w.far.messages) == 13 and all(len(m["to"]) <= 3 for m in w.far.messages)


@pytest.mark.parametrize("ret, kind", [("", "message/rfc822"), (" RET=FULL", "message/rfc822"), (" RET=HDRS", "text/rfc822-headers")])
def test_ret(world, ret, kind):
    w = world({"end": "554 5.6.0 not this"})
    w.send(["a@far.example"], ret)
    r, = w.reports()
    assert r.original.get_content_type() == kind and (b"the text itself" in r.data) == (kind == "message/rfc822")
    assert "Subject: test" in r.original.as_string()


def test_what_was_refused_in_session_is_not_reported(world):
    w = world()
    c = Smtp(w.node.port)
    c.cmd("EHLO client.test")
    assert c.message("s@cam.example", ["a@far.example"], HEAD + b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*\r\n").startswith("550")
    w.silence()


def test_one_delay_notice_whatever_happens(world):
    w = world({"rcpt": "450 4.2.0 later"}, delivery="retry_first: 1s, retry_max: 1s, delay_notice: 2s, idle: 300ms")
    w.send(["a@far.example", ("b@far.example", " NOTIFY=FAILURE"), ("c@far.example", " NOTIFY=DELAY")])
    r, = w.reports()
    assert r.actions == {"a@far.example": "delayed", "c@far.example": "delayed"} and r.rcpts["a@far.example"]["Will-Retry-Until"]
    for _ in range(3):
        w.node.ctl("queue", "retry", "--all")
        time.sleep(0.4)
    w.node.stop()
    w.node.start()
    w.node.ctl("queue", "retry", "--all")
    time.sleep(2.5)
    assert w.sink.count == 1  # told once, also after a restart


def test_smtputf8_addresses(world):
    w = world({"rcpt": "550 5.1.1 no such user"}, extensions=DSN)
    w.send([("ü@far.example", " ORCPT=utf-8;\\x{E9}@far.example"), "plain@far.example"], " SMTPUTF8", sender="ß@cam.example")
    r, = w.reports()
    assert r.to == ["ß@cam.example"] and r.kind == "message/global-delivery-status"
    raw = r.data.decode()
    assert "Final-Recipient: utf-8;ü@far.example\r\n" in raw and "Original-Recipient: utf-8;é@far.example\r\n" in raw
    assert "Final-Recipient: rfc822;plain@far.example\r\n" in raw
    assert r.original.get_content_type() == "message/global"
    assert "ORCPT=utf-8;é@far.example\r\n".encode() in b"".join(w.far.heard)


def test_a_hop_without_smtputf8_never_hears_of_utf8(world):
    w = world()
    w.send(["ü@far.example", "plain@far.example"], " SMTPUTF8")
    r, = w.reports()
    assert b"Final-Recipient: utf-8;\xc3\xbc@far.example\r\n" in r.data and b"Status: 5.6.7\r\n" in r.data
    assert [m["to"] for m in w.far.messages] == [["plain@far.example"]]
    assert not any(re.search(rb"[\x80-\xff]|SMTPUTF8", x) for x in w.far.heard)


def test_smtputf8_header_needs_it_too(world):
    w = world()
    w.send(["plain@far.example"], " SMTPUTF8 BODY=8BITMIME", data=b"From: s@cam.example\r\nSubject: gr\xc3\xbc\xc3\x9fe\r\n\r\nx\r\n")
    r, = w.reports()
    assert r.rows[0]["Status"] == "5.6.7" and w.far.messages == []


def test_eight_bit_content_and_seven_bit_hops(world):
    w = world(extensions=("PIPELINING",))
    w.send(["a@far.example"], " BODY=8BITMIME")  # only said to be 8-bit: it passes
    assert wait_for(lambda: len(w.far.messages) == 1)
    w.send(["a@far.example"], "", data=HEAD + b"gr\xfc\xdfe\r\n")  # not said to be 8-bit
    r, = w.reports()
    assert r.rows[0]["Status"] == "5.6.3" and len(w.far.messages) == 1
    assert not any(b"BODY" in x for x in w.far.heard)


def test_body_says_what_the_content_is(world):
    w = world()
    w.send(["a@far.example"], "", data=HEAD + b"gr\xfc\xdfe\r\n")
    w.send(["a@far.example"], " BODY=8BITMIME")
    w.send(["a@far.example"], " BODY=7BIT")
    assert wait_for(lambda: len(w.far.messages) == 3)
    mails = [x for x in w.far.heard if x.startswith(b"MAIL")]
    assert [b"BODY=8BITMIME" in x for x in mails] == [True, False, False]


def test_forged_senders_and_a_dead_host_make_few_reports(world):
    """P10: ten thousand of them."""
    w = world({"rcpt": "550 5.1.1 no such user"}, extra="reports: {per_host: 50}\n")
    n = 10000
    one = "MAIL FROM:<forged%d@victim.example>\r\nRCPT TO:<a@far.example>\r\nDATA\r\n"
    for start in range(0, n, 500):
        w.client.send(b"".join((one % i).encode() + BODY + b".\r\n" for i in range(start, start + 500)))
        for _ in range(500 * 4):
            assert w.client.reply()[0] in "23"
    assert wait_for(lambda: w.node.counters()["recipients_bounced_total"] >= n, 120)
    assert wait_for(lambda: w.node.queue() == [], 20)
    c = w.node.counters()
    assert c["dsn_total"] == 50 and w.sink.count == 50 and c["dsn_suppressed_total"] == n - 50
    assert "event=dsn-suppressed" in w.node.log_text() and "limit=reports.per_host" in w.node.log_text()


def test_one_sender_gets_so_many_reports(world):
    w = world({"rcpt": "550 5.1.1 no such user"}, extra="reports: {per_sender: 3}\n")
    for i in range(6):
        w.send([f"a{i}@far.example"], sender="S@cam.example" if i % 2 else "s@cam.example")
    w.send(["b@far.example"], sender="other@cam.example")
    assert sorted(r.to[0].lower() for r in w.reports(4)) == ["other@cam.example"] + ["s@cam.example"] * 3
    assert w.node.counters()["dsn_suppressed_total"] == 3


def test_double_bounces_are_told_once_an_address_and_so_often_a_host(world):
    w = world({"rcpt": "550 5.1.1 no such user"}, extra="reports: {double: 4}\n")
    for i in range(3):
        w.send(["a@far.example"], sender="gone@far.example")
    for i in range(6):
        w.send(["a@far.example"], sender=f"gone{i}@far.example")
    assert wait_for(lambda: w.node.queue() == [])
    reports = w.reports(4)
    assert all(r.to == ["postmaster@cam.example"] for r in reports)
    c = w.node.counters()
    assert c["dsn_double_total"] == 4 and c["dsn_double_suppressed_total"] == 5
    text = w.node.log_text()
    assert "limit=duplicate" in text and "limit=reports.double" in text and "client=127.0.0.1" in text
