"""Next hops that break the rules: what becomes of the message is defined for each, and it is delivered at most once.

All rows run at the same time against one node: row n is the domain rn.example with a server of its own. A message goes to a@ and b@ there. Bounces go to the good
sink."""
import email
import email.policy
import re
import time

import pytest
from nasty import CLOSE, Drip, Nasty, Wait
from node import Node, Sink, Smtp, wait_for

BODY = b"From: s@cam.example\r\nSubject: nasty\r\n\r\n" + b"line of the message\r\n" * 200
BDAT = ("PIPELINING", "8BITMIME", "CHUNKING")
TLS = ("PIPELINING", "STARTTLS")
SLOW = Wait(20)

# what becomes of a@ and of b@: "delivered", ("deferred", text in the reason), ("bounced", Status of the DSN)
DELIVERED = "delivered"


def deferred(text):
    return ("deferred", text)


def bounced(status):
    return ("bounced", status)


ROWS = []


def row(name, script, a, b=None, ext=("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"), **kw):
    ROWS.append({"name": name, "script": script, "ext": ext, "want": (a, b or a), **kw})


# ---- each reply at each command ----
for step in ("connect", "ehlo"):
    row(f"421 at {step}", {step: "421 4.3.2 bye"}, deferred("421") if step == "ehlo" else deferred("refused the session: 421"))
    row(f"451 at {step}", {step: "451 4.3.0 no"}, deferred("refused the session: 451"))
    row(f"close at {step}", {step: CLOSE}, deferred("4.4.2"))
    row(f"silence at {step}", {step: SLOW}, deferred("did not answer in time"))
row("554 at connect", {"connect": "554 5.3.2 no mail here"}, deferred("refused the session: 554"))
row("554 at ehlo: HELO will do", {"ehlo": "554 what?"}, DELIVERED)
row("ehlo and helo refused", {"ehlo": "502 what?", "helo": "502 what?"}, deferred("refused the session: 502"))
for step in ("mail", "rcpt", "data", "end"):
    row(f"421 at {step}", {step: "421 4.3.2 bye"}, deferred("421 4.3.2 bye"))
    row(f"451 at {step}", {step: "451 4.3.0 later"}, deferred("451 4.3.0 later"))
    row(f"550 at {step}", {step: "550 5.7.1 never"}, bounced("5.7.1"))
    row(f"550 at {step}, one by one", {step: "550 5.7.1 never"}, bounced("5.7.1"), ext=())
    row(f"close at {step}", {step: CLOSE}, deferred("4.4.2"))
    row(f"silence at {step}", {step: SLOW}, deferred("did not answer in time"))
    row(f"a drip at {step}", {step: Drip(b"250-and so on\r\n")}, deferred("did not answer in time"))
    row(f"late at {step}", {step: lambda c: time.sleep(0.7)}, DELIVERED)
row("close instead of the answer to QUIT", {"quit": CLOSE}, DELIVERED)
row("close at RSET", {"rcpt": "550 5.1.1 no", "rset": CLOSE}, bounced("5.1.1"))
row("one of two refused", {"rcpt2": "550 5.1.1 no"}, DELIVERED, bounced("5.1.1"))
row("one of two later", {"rcpt2": "450 4.2.1 later"}, DELIVERED, deferred("450 4.2.1 later"))

# ---- what is no reply ----
row("not SMTP", {"mail": "hello there"}, deferred("not SMTP"))
row("HTTP", {"connect": b"HTTP/1.1 400 Bad Request\r\n\r\n"}, deferred("refused the session: 451"))
row("code 199", {"mail": "199 what"}, deferred("not SMTP"))
row("code 600", {"mail": "600 what"}, deferred("not SMTP"))
row("no code behind the hyphen", {"mail": b"250-one\r\nand two\r\n"}, deferred("not SMTP"))
row("codes that differ", {"mail": b"250-one\r\n550 two\r\n"}, deferred("not SMTP"))
row("a bare LF", {"mail": b"250 ok\n"}, deferred("not SMTP"))
row("a bare CR", {"mail": b"250 o\rk\r\n"}, deferred("not SMTP"))
row("thousands of lines", {"mail": b"250-more\r\n" * 5000 + b"250 ok\r\n"}, deferred("not SMTP"))
row("a line without end", {"mail": [b"250 " + b"x" * 3_000_000, SLOW]}, deferred("did not answer in time"))
row("a very long line", {"mail": b"250 " + b"x" * 30_000 + b"\r\n"}, deferred("not SMTP"))
row("a reply of 400 lines", {"rcpt": b"550-5.1.1 " + b"y" * 300 + b"\r\n" + b"550-5.1.1 no\r\n" * 398 + b"550 5.1.1 no\r\n"}, bounced("5.1.1"))
row("controls and 8-bit", {"rcpt": b"550 5.1.1 no \x1b[2J\x00\x07\xff\xc3\xa9 Content-Type: x\r\n"}, bounced("5.1.1"), clean=True)
row("an enhanced code of another class", {"rcpt": "550 2.1.5 fine"}, bounced("5.1.1"))
row("no enhanced code", {"rcpt": "550 no such user"}, bounced("5.1.1"))
row("no enhanced code, mailbox full", {"rcpt": "552 full"}, bounced("5.2.2"))
row("no enhanced code, too many recipients (RFC 5321 4.5.3.1.10)", {"rcpt2": "552 too many"}, DELIVERED, deferred("452 too many"))
row("too many recipients for good", {"rcpt": "552 5.5.3 too many"}, deferred("452 4.5.3 too many"))
row("an enhanced code, mailbox full", {"rcpt2": "552 5.2.2 full"}, DELIVERED, bounced("5.2.2"))
row("no enhanced code, too big", {"end": "552 too big"}, bounced("5.3.4"))

# ---- replies that are not due ----
row("everything at once", {"connect": b"220 x\r\n250 x\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n"}, deferred("out of turn"))
row("a second greeting", {"connect": b"220 x\r\n220 y\r\n"}, deferred("out of turn"))
row("two answers to EHLO", {"ehlo": b"250 x\r\n250 y\r\n"}, deferred("out of turn"), ext=())
row("two answers to MAIL", {"mail": b"250 ok\r\n550 5.7.1 surplus\r\n"}, deferred("4.5.0"))
row("two answers to MAIL, one by one", {"mail": b"250 ok\r\n550 5.7.1 surplus\r\n"}, deferred("do not fit|out of turn"), ext=())
row("two answers to a recipient", {"rcpt1": b"250 ok\r\n550 5.1.1 surplus\r\n"}, deferred("do not fit|4.5.0"))
row("two answers to a recipient, one by one", {"rcpt1": b"250 ok\r\n550 5.1.1 surplus\r\n"}, deferred("do not fit|4.5.0"), ext=())
row("two answers to a recipient, the second late", {"rcpt1": ["250 ok", Wait(0.3), "550 5.1.1 surplus"]}, deferred("do not fit|4.5.0"), ext=())
row("a refused recipient answered twice", {"rcpt": b"550 5.1.1 no\r\n550 5.1.1 no\r\n"}, deferred("4.5.0"))
row("354 to MAIL", {"mail": "354 go on"}, deferred("do not fit"))
row("354 to RCPT", {"rcpt": "354 go on"}, deferred("do not fit"))
row("250 to DATA", {"data": "250 ok"}, deferred("do not fit"))
row("two answers to the message", {"end": b"250 2.0.0 taken\r\n550 5.7.1 or not\r\n"}, DELIVERED, counts=False)

# ---- STARTTLS (P4) ----
row("STARTTLS refused", {"starttls": "454 4.7.0 no"}, DELIVERED, ext=TLS)
row("STARTTLS refused for good", {"starttls": "554 5.7.0 no"}, DELIVERED, ext=TLS)
row("replies injected behind STARTTLS", {"starttls": b"220 go\r\n250-x\r\n250 AUTH PLAIN\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n"},
    deferred("behind its answer to STARTTLS|out of turn"), ext=TLS)
row("no handshake behind 220: without TLS the next time", {"starttls1": ["220 go", CLOSE]}, deferred("."), ext=TLS, either=True)
row("junk for a handshake", {"starttls": ["220 go", Wait(0.2), b"250 x\r\n250 ok\r\n", CLOSE]}, deferred("."), ext=TLS, either=True)

# ---- BDAT (RFC 3030) ----
row("chunks", {}, DELIVERED, ext=BDAT)
row("chunks, one by one", {}, DELIVERED, ext=("CHUNKING",))
row("a chunk refused for now", {"bdat": "452 4.3.1 full"}, deferred("452 4.3.1 full"), ext=BDAT)
row("a chunk refused for good", {"bdat": "552 5.3.4 too big"}, bounced("5.3.4"), ext=BDAT)
row("the last chunk refused", {"end": "554 5.6.0 no"}, bounced("5.6.0"), ext=BDAT)
row("the last chunk refused, one by one", {"end": "554 5.6.0 no"}, bounced("5.6.0"), ext=("CHUNKING",))
row("BDAT offered, not known: DATA", {"bdat": "500 5.5.2 what?"}, DELIVERED, ext=BDAT)
row("close at a chunk", {"bdat": CLOSE}, deferred("4.4.2"), ext=BDAT)
row("silence at a chunk", {"bdat": SLOW}, deferred("did not answer in time"), ext=BDAT)
row("421 at a chunk", {"bdat": "421 4.3.2 bye"}, deferred("421 4.3.2 bye"), ext=BDAT)
row("one of two refused, by chunks", {"rcpt2": "550 5.1.1 no"}, DELIVERED, bounced("5.1.1"), ext=BDAT)
row("both refused, by chunks", {"rcpt": "550 5.1.1 no"}, bounced("5.1.1"), ext=BDAT)
row("two answers to a recipient, by chunks", {"rcpt1": b"250 ok\r\n550 5.1.1 surplus\r\n"}, deferred("4.5.0"), ext=BDAT, counts=False)
row("two answers to MAIL, by chunks", {"mail": b"250 ok\r\n250 ok\r\n"}, deferred("4.5.0"), ext=BDAT, counts=False)

# ---- what it cannot take ----
row("too large", {}, bounced("5.3.4"), ext=("SIZE 100",), hears_not=b"MAIL")
row("too large, a size without number", {}, DELIVERED, ext=("SIZE x",))


class World:
    def __init__(self, tmp):
        self.sink = Sink()
        self.servers = [Nasty(r["script"], r["ext"]) for r in ROWS]
        routes = "".join('\n  - {domain: r%d.example, to: "smtp:[127.0.0.1]:%d", tls: %s}' % (i, s.port, "may" if "STARTTLS" in ROWS[i]["ext"] else "never")
                         for i, s in enumerate(self.servers))
        self.node = Node(tmp, routes=routes + '\n  - {domain: "*", to: "smtp:[127.0.0.1]:%d", tls: never}' % self.sink.port, workers=1, engine="trivial",
                         extra="delivery: {retry_first: 1h, retry_max: 1h, idle: 300ms, greeting_timeout: 3s, reply_timeout: 3s, final_timeout: 3s}\n"
                         "reports: {per_sender: 0, per_host: 0}\n")
        c = Smtp(self.node.port)
        c.cmd("EHLO client.test")
        for i in range(len(ROWS)):
            assert c.message(f"s{i}@cam.example", [f"a@r{i}.example", f"b@r{i}.example"], BODY).startswith("250")
        c.close()

    def queued(self, i):
        """Address -> reason of the recipients of row i that are still in the queue."""
        out = {}
        for m in self.node.queue():
            if m["to"].endswith(f"@r{i}.example") or f"r{i}.example" in m["to"]:
                for r in self.node.ctl("queue", "show", m["id"])[1:]:
                    if r["state"] in ("deferred", "queued", "active"):
                        out[r["rcpt"][0]] = (r["state"], r.get("reply", ""))
        return out

    def reports(self, i):
        """Address -> (Status, message) of what was reported."""
        out = {}
        for m in list(self.sink.messages):
            if m["to"] != [f"s{i}@cam.example"]:
                continue
            report = list(email.message_from_bytes(m["data"], policy=email.policy.default).iter_parts())[1]
            for part in report.get_payload()[1:]:
                assert part["Action"] == "failed"
                address = part["Final-Recipient"].split(";")[1].strip()[0]
                assert address not in out, "reported twice"
                out[address] = (part["Status"], m["data"])
        return out

    def stop(self):
        self.node.stop()
        self.sink.stop()
        for s in self.servers:
            s.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    w = World(tmp_path_factory.mktemp("nasty"))
    yield w
    w.stop()


@pytest.mark.parametrize("i", range(len(ROWS)), ids=[r["name"] for r in ROWS])
def test_nasty_server(world, i):
    r, server = ROWS[i], world.servers[i]

    def settled():
        q, reports = world.queued(i), world.reports(i)
        return all((x in q and q[x][0] == "deferred") or x in reports or any(f"{x}@r{i}.example" in m["to"] for m in server.messages) or
                   (x not in q and r["want"]["ab".index(x)] == DELIVERED) for x in "ab")

    assert wait_for(settled, 30, 0.2), (world.queued(i), world.reports(i).keys(), server.verbs())
    time.sleep(0.1)
    q, reports = world.queued(i), world.reports(i)
    for x, want in zip("ab", r["want"]):
        copies = sum(f"{x}@r{i}.example" in m["to"] for m in server.messages)
        if r.get("either") and copies == 1:
            want = DELIVERED
        if want == DELIVERED:
            assert x not in q and x not in reports, (x, q, reports.keys())
            assert copies == 1 or r.get("counts") is False
        elif want[0] == "deferred":
            assert x in q and re.search(want[1], q[x][1]), (x, q, reports.keys(), server.verbs())
            assert x not in reports and (copies == 0 or r.get("counts") is False)
        else:
            assert x in reports and reports[x][0] == want[1], (x, q, {k: v[0] for k, v in reports.items()})
            assert x not in q and copies == 0
    for m in server.messages:
        assert m["data"].endswith(BODY)
    if r.get("clean"):
        for data in (v[1] for v in reports.values()):
            assert not re.search(rb"[^\t\r\n -~]", data)
            assert b"\r\nContent-Type: x" not in data
    if r.get("hears_not"):
        assert not any(line.startswith(r["hears_not"]) for line in server.heard)


def test_no_reply_got_into_the_log_as_it_was(world):
    text = world.node.log_path.read_bytes()
    assert b"\x1b" not in text and b"\x00" not in text and b"\xff" not in text


def test_all_are_accounted_for(world):
    assert wait_for(lambda: world.node.counters()["outbound_connections_open"] == 0, 20)
    c = world.node.counters()
    assert c["outbound_bdat_unknown_total"] == 1 and c["outbound_bdat_total"] > 5
