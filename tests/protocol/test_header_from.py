"""Originators in the header (B5): From, Sender and Reply-To, for each class of client, against nsd and unbound."""
import pytest

from node import Smtp, wait_for
from test_senders import dns, make  # noqa: F401
from test_verify import PATIENT, asked, users

ROBUST, MX, FRAGILE = "127.0.0.2", "127.0.0.129", "127.0.0.200"


def send(node, head, source=ROBUST, sender="a@cam.example"):
    c = Smtp(node.port, source=source)
    c.cmd("EHLO client.test")
    r = c.message(sender, ["b@cam.example"], head.encode() + b"\r\nbody\r\n")
    c.close()
    return r


BAD = {
    "Subject: x\r\n": "550 5.6.0 From: the field is missing",
    "From: root\r\n": "550 5.6.0 From: there is a name without an address",
    "From: <a@cam.example\r\n": "550 5.6.0 From: > is missing behind an address",
    "From: a@cam.example\r\nFrom: a@cam.example\r\n": "550 5.6.0 From: the field is there more than once",
    "From: a@cam.example, a@elsewhere.example\r\n": "550 5.6.0 From: there are several addresses, and no Sender",
    "From: nobody:;\r\n": "550 5.6.0 From: there is no address, and no Sender",
    "From: a@cam.example\r\nSender: a@cam.example, a@elsewhere.example\r\n": "550 5.6.0 Sender: it is not one address",
    "From: a@nothing.elsewhere.example\r\n": "550 5.1.8 From: <a@nothing.elsewhere.example>: domain nothing.elsewhere.example does not exist",
    "From: a@pc.cam.example\r\n": "550 5.1.8 From: <a@pc.cam.example>: pc.cam.example is the name of a host, not a mail domain",
    "From: a@null.elsewhere.example\r\n": "550 5.7.27 From: <a@null.elsewhere.example>: domain null.elsewhere.example says that it takes no mail (null MX)",
    "From: alice@dept.example\r\n": "550 5.1.7 From: <alice@dept.example>: there is no such sender here",
    "From: a@cam.example\r\nSender: root@localhost\r\n": "550 5.1.8 Sender: <root@localhost>: localhost is not the full name of a mail domain",
    "From: a@cam.example\r\nReply-To: Team: bob@dept.example, x@text.cam.example;\r\n":
        "550 5.1.8 Reply-To: <x@text.cam.example>: domain text.cam.example has no MX record",
    "From: a@servfail.example\r\nReply-To: alice@dept.example\r\n": "550 5.1.7 Reply-To: <alice@dept.example>: there is no such sender here",
}
GOOD = [
    "From: a@cam.example\r\n",
    'From: "B. Smith" (the "one") <bob@dept.example>\r\nReply-To: undisclosed:;\r\n',
    "From: a@cam.example, a@elsewhere.example\r\nSender: a@cam.example\r\n",
    "From: Jörg <a@elsewhere.example>\r\n",
    "From: a@cam.example\r\nReply-To: a@six.elsewhere.example\r\n",
]


def test_who_may_say_what(make, sink):  # noqa: F811
    node = make()
    assert {h: send(node, h) for h in BAD} == BAD
    assert {send(node, h).split()[0] for h in GOOD} == {"250"}
    assert wait_for(lambda: sink.count == len(GOOD)) and not [m for m in sink.messages if b"X-Weir" in m["data"]]
    del sink.messages[:]
    assert {send(node, h, MX).split()[0] for h in BAD} == {"250"}  # outside: marked
    assert wait_for(lambda: len(sink.messages) == len(BAD))
    assert all(m["data"].startswith(b"X-Weir-Policy: rule=header-from; code=5.") for m in sink.messages)
    del sink.messages[:]
    assert {send(node, h, FRAGILE).split()[0] for h in BAD} == {"250"}
    assert wait_for(lambda: len(sink.messages) == len(BAD))
    assert all(m["data"].startswith(b"Received: ") for m in sink.messages)


@pytest.mark.parametrize("domain", ["servfail.example", "silent.example"])
def test_undecided_is_temporary(make, sink, domain):  # noqa: F811
    node = make()
    head = f"From: a@{domain}\r\n"
    assert send(node, head).startswith(f"451 4.4.3 From: <a@{domain}>: domain {domain} could not be looked up (")
    assert [send(node, head, s).split()[0] for s in (MX, FRAGILE)] == ["250", "250"]
    assert wait_for(lambda: sink.count == 2) and all(m["data"].startswith(b"Received: ") for m in sink.messages)


def test_questions_and_time_are_bounded(make, sink):  # noqa: F811
    """P15: at most eight domains of a header are asked about; a client that goes away while they are takes its message with it (P2)."""
    node = make(workers=1)
    assert send(node, "From: a@cam.example\r\n").startswith("250")
    before = node.counters()["dns_queries_total"]
    many = "From: a@cam.example\r\nReply-To: " + ",\r\n ".join(f"a@d{i}.many.elsewhere.example" for i in range(30)) + "\r\n"
    assert send(node, many).startswith("550 5.1.8 Reply-To: <a@d0.many.elsewhere.example>")
    assert node.counters()["dns_queries_total"] - before <= 30
    assert send(node, many.replace("Reply-To:", "Reply-To: a@cam.example, a@cam.example, a@cam.example,")).startswith("550 5.6.0 Reply-To: there are too many addresses")
    for _ in range(10):
        c = Smtp(node.port, source=ROBUST)
        c.send("EHLO x\r\nMAIL FROM:<a@cam.example>\r\nRCPT TO:<b@cam.example>\r\nDATA\r\nFrom: a@silent.example\r\n\r\n.\r\n")
        for _ in range(4):
            c.reply()
        c.close()
    assert wait_for(lambda: node.counters()["sessions_open"] == 0)
    assert send(node, "From: a@cam.example\r\n").startswith("250")
    assert wait_for(lambda: sink.count == 2) and not node.queue() and len(node.pids("weir-dataplane")) == 1


def test_a_header_may_be_held(make, sink):  # noqa: F811
    node = make("{rule: header-from, class: mx, mode: hold}")
    assert send(node, "From: root\r\n", MX).startswith("250")
    assert [r["reason"] for r in node.queue()] == ["header-from (B5): From: there is a name without an address"]
    assert sink.count == 0


def test_own_addresses_are_verified_where_recipients_are(make, make_sink):  # noqa: F811
    """B5, B2: where the tables do not say, their destination is asked, once for each address; outside, where the rule only tags, what is known decides and nobody is asked for a stranger's header."""
    inner = make_sink(decide=lambda kind, text: users(kind, text) if "list.cam.example" in text else None)
    to = f'to: "smtp:[127.0.0.1]:{inner.port}", tls: never'
    node = make(more=PATIENT + "verify: {probes_per_minute: none}\n", workers=1, routes=f'[{{domain: list.cam.example, {to}, recipients: verify}}, {{domain: "*", {to}}}]')
    nobody = "From: nobody@list.cam.example\r\nReply-To: nobody@list.cam.example, bob@list.cam.example\r\n"
    assert send(node, "From: nobody2@list.cam.example\r\n", MX).startswith("250") and not asked(inner)
    assert wait_for(lambda: inner.count == 1) and b"X-Weir" not in inner.messages[0]["data"]
    assert [send(node, nobody) for _ in range(2)] == ["550 5.1.7 From: <nobody@list.cam.example>: there is no such sender here"] * 2
    assert send(node, "From: bob@list.cam.example\r\nReply-To: Eve <eve@list.cam.example>\r\n").startswith("250")
    assert send(node, "From: bob@list.cam.example\r\nReply-To: Eve <evil@list.cam.example>\r\n").startswith("550 5.1.7 Reply-To: <evil@list.cam.example>")
    before = asked(inner)
    assert sorted(a for a in before if a.endswith("@list.cam.example")) == sorted(a + "@list.cam.example" for a in ("nobody", "bob", "eve", "evil"))
    assert send(node, nobody, MX).startswith("250") and send(node, nobody, FRAGILE).startswith("250")
    assert wait_for(lambda: inner.count == 4)
    assert [m["data"].startswith(b"X-Weir-Policy: rule=header-from; code=5.1.7;") for m in inner.messages] == [False, False, True, False]
    many = "From: bob@list.cam.example\r\nReply-To: " + ", ".join(f"x{i}@list.cam.example" for i in range(20)) + "\r\n"
    assert send(node, many).startswith("550 5.1.7 Reply-To: <x0@list.cam.example>")
    assert wait_for(lambda: node.counters()["verify_waiting"] == 0)
    assert 7 <= sum(a.startswith("x") for a in asked(inner)) <= 8


def test_an_outage_of_the_destination_refuses_no_header(make, make_sink):  # noqa: F811
    """B5, B2: what cannot be asked is not held against the sender, and a client that goes away while it is asked takes its message with it (P2)."""
    inner = make_sink(decide=lambda kind, text: "451 4.3.0 later" if kind == "rcpt" and "list.cam.example" in text else None)
    to = f'to: "smtp:[127.0.0.1]:{inner.port}", tls: never'
    node = make(more=PATIENT, workers=1, routes=f'[{{domain: list.cam.example, {to}, recipients: verify}}, {{domain: "*", {to}}}]')
    assert send(node, "From: nobody@list.cam.example\r\n").startswith("250")
    for i in range(5):
        c = Smtp(node.port, source=ROBUST)
        c.send(f"EHLO x\r\nMAIL FROM:<a@cam.example>\r\nRCPT TO:<b@cam.example>\r\nDATA\r\nFrom: y{i}@list.cam.example\r\n\r\n.\r\n")
        for _ in range(4):
            c.reply()
        c.close()
    assert wait_for(lambda: node.counters()["sessions_open"] == 0) and len(node.pids("weir-dataplane")) == 1
