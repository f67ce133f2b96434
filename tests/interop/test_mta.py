"""Weir before and behind Postfix, Exim and OpenSMTPD: what either hands to the other arrives, and arrives as it was (section G, A7, F3, F5, P4, P8)."""
import re
import ssl

import pytest
from letters import Report, below_trace, big, head, ugly
from node import Smtp, wait_for

WAYS = ("to-mta", "to-weir")
both_ways = pytest.mark.parametrize("way", WAYS)
TRUST = ssl._create_unverified_context()


class Client(Smtp):
    def __init__(self, port, tls=False):
        super().__init__(port)
        self.ehlo = self.cmd("EHLO client.test")
        if tls:
            assert self.cmd("STARTTLS").startswith("220")
            self.s = TRUST.wrap_socket(self.s)
            self.f = self.s.makefile("rb")
            self.ehlo = self.cmd("EHLO client.test")

    def send_message(self, sender, rcpts, data, mail=""):
        """`rcpts`: addresses, or (address, parameters); gives the reply at the end."""
        reply = self.cmd(f"MAIL FROM:<{sender}>{mail}")
        for r in rcpts if reply.startswith("250") else ():
            rcpt, more = r if isinstance(r, tuple) else (r, "")
            reply = self.cmd(f"RCPT TO:<{rcpt}>{more}")
            if not reply.startswith("25"):
                return reply
        if not reply.startswith("25") or not (reply := self.cmd("DATA")).startswith("354"):
            return reply
        self.send(re.sub(rb"(?m)^\.", b"..", data) + b".\r\n")
        return self.reply()


def send(port, *args, tls=False, **kw):
    """A whole session that must end well."""
    c = Client(port, tls)
    reply = c.send_message(*args, **kw)
    assert reply.startswith("250"), reply
    c.close()


@both_ways
@pytest.mark.parametrize("tls", ("plain", "tls"))
@pytest.mark.where(lambda mta, p: p["tls"] == "plain" or p["way"] == "to-weir" or mta.tls_server)
def test_messages_are_byte_for_byte_the_same(world, way, tls):
    """P8, F5: one that is hard on whoever carries it, and one of 10 MB."""
    letters = {f"ugly@{tls}.{way}.example": ugly(way + tls), f"big@{tls}.{way}.example": big(way + tls, 10_000_000)}
    client_tls = tls == "tls" and (way == "to-mta" or world.mta.tls_server)
    for rcpt, data in letters.items():
        send(world.first_hop(way), "a@origin.example", [rcpt], data, tls=client_tls, mail=" BODY=8BITMIME" if "ugly" in rcpt else "")
    for rcpt, data in letters.items():
        m = world.arrived(rcpt, 60)
        assert m["from"] == "a@origin.example" and below_trace(m["data"], data), m["data"][:3000]
        assert (world.tap(way).session(rcpt) is None) == (tls == "tls")  # what it says cannot be seen under TLS
        received = re.findall(rb"Received: (.*?)\r\n(?![ \t])", m["data"][:-len(data)], re.S)
        assert len(received) == 2 and (b"esmtps" in received[1].lower()) == client_tls
        assert (b"esmtps" in received[0].lower()) == (tls == "tls"), received


@pytest.mark.where(lambda mta, p: not mta.tls_server)
def test_a_server_that_fails_the_handshake_it_offered(world):
    """F4: opportunistic TLS goes on without; mandatory TLS waits, and says what went wrong."""
    data = head("handshake", True) + b"\r\nx\r\n"
    send(world.node.port, "a@origin.example", ["handshake@may.to-mta.example"], data)
    assert below_trace(world.arrived("handshake@may.to-mta.example")["data"], data)
    send(world.node.port, "a@origin.example", ["handshake@tls.to-mta.example"], data)
    q = wait_for(lambda: next((m for m in world.node.queue() if m["to"] == "handshake@tls.to-mta.example" and m["state"] == "deferred"), None))
    assert q["reason"].startswith("451 4.7.5") and "alert" in q["reason"] and "issuer" not in q["reason"], q
    assert not world.messages("handshake@tls.to-mta.example")
    world.node.ctl("queue", "delete", q["id"])


@both_ways
def test_what_was_offered_is_used(world, way):
    """PIPELINING, CHUNKING, SIZE, 8BITMIME by who is the client, as seen on the wire between the two."""
    rcpt = f"offered@plain.{way}.example"
    send(world.first_hop(way), "a@origin.example", [rcpt], ugly(rcpt), mail=" BODY=8BITMIME")
    world.arrived(rcpt)
    session = world.tap(way).session(rcpt)
    mail, offered = session.commands("MAIL")[-1], session.said("server").decode()
    server = world.mta.features if way == "to-mta" else ("PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE", "STARTTLS")
    assert all(re.search(rf"(?m)^250[ -]{word}\b", offered) for word in server), offered
    both = {w for w in server if w in (world.mta.client_features if way == "to-weir" else server)}
    assert session.pipelined() == ("PIPELINING" in both)
    assert bool(session.commands("BDAT")) == ("CHUNKING" in both) == (not session.commands("DATA"))
    assert ("SIZE=" in mail) == ("SIZE" in both) and ("BODY=8BITMIME" in mail) == ("8BITMIME" in both)


def test_a_server_without_extensions(world):
    """The same MTA offers nothing but what it cannot hide."""
    rcpt = "plain@bare.to-mta.example"
    data = ugly(rcpt, ascii_only=True)
    send(world.node.port, "a@origin.example", [rcpt], data)
    assert below_trace(world.arrived(rcpt)["data"], data)
    session = world.to_bare.session(rcpt)
    assert not session.pipelined() and not session.commands("BDAT")
    offered = session.said("server").decode()
    assert not re.search(r"(?m)^250[ -](PIPELINING|CHUNKING|DSN|SMTPUTF8|STARTTLS)", offered)
    assert session.commands("RCPT") == [f"RCPT TO:<{rcpt}>"]


@pytest.mark.where(lambda mta, p: mta.hides_8bitmime)
def test_eight_bits_for_a_server_without_8bitmime_come_back(world):
    """P8: not changed, not sent."""
    send(world.node.port, "eight@origin.example", ["eight@bare.to-mta.example"], ugly("eight"), mail=" BODY=8BITMIME")
    r = Report(world.arrived("eight@origin.example"))
    assert r.rcpts["eight@bare.to-mta.example"]["Status"] == "5.6.3"
    assert not world.messages("eight@bare.to-mta.example")


DSN_MAIL = " RET=HDRS ENVID=QQ+2B314159"
DSN_RCPT = " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;First+2BName@origin.example"


@both_ways
def test_dsn_parameters_are_passed_on(world, way):
    """F3: RET, ENVID, NOTIFY, ORCPT, as the server behind both sees them; and nobody made a report."""
    one, two = f"asks@plain.{way}.example", f"never@plain.{way}.example"
    for rcpt, params in ((one, DSN_RCPT), (two, " NOTIFY=NEVER")):
        send(world.first_hop(way), "dsn@origin.example", [(rcpt, params)], head("dsn", True) + b"\r\nx\r\n", mail=DSN_MAIL)
        m = world.arrived(rcpt)
        assert all(word in m["mail"].split() for word in DSN_MAIL.split()), m["mail"]
        assert all(word in m["rcpt"][0].split() for word in params.split()), m["rcpt"]
    assert not world.messages("dsn@origin.example")


def test_success_is_reported_where_the_server_cannot(world):
    """F3: relayed into a world without DSN."""
    rcpt = "relayed@bare.to-mta.example"
    send(world.node.port, "relayed@origin.example", [(rcpt, DSN_RCPT)], head("relayed", True) + b"\r\nx\r\n", mail=DSN_MAIL)
    world.arrived(rcpt)
    r = Report(world.arrived("relayed@origin.example"))
    row = r.rcpts[rcpt]
    assert row["Action"] == "relayed" and row["Status"].startswith("2.") and row["Original-Recipient"] == "rfc822;First+Name@origin.example"
    assert r.per_message["Original-Envelope-Id"] == "QQ+314159"


UTF8 = "grün.ß"


@both_ways
@pytest.mark.where(lambda mta, p: p["way"] == "to-mta" or "SMTPUTF8" in mta.features)
def test_utf8_addresses(world, way):
    rcpt, sender = f"{UTF8}@plain.{way}.example", "Sändér@origin.example"
    data = head("utf8") + "Subject: grüße\r\n\r\nGrüße\r\n".encode()
    mail = " SMTPUTF8 BODY=8BITMIME"
    send(world.first_hop(way), sender, [rcpt], data, mail=mail)
    if "SMTPUTF8" in world.mta.features:
        m = world.arrived(rcpt)
        assert m["from"] == sender and "SMTPUTF8" in m["mail"] and below_trace(m["data"], data)
        assert "SMTPUTF8" in world.tap(way).session(rcpt).commands("MAIL")[-1]
    else:  # P20: never sent to a hop that does not know it
        assert b"5.6.7" in world.arrived(sender)["data"] and world.tap(way).session(rcpt) is None


@pytest.mark.where(lambda mta, p: mta.name == "postfix")
def test_a_server_that_wants_a_certificate(world):
    """F4: the route's is shown; without one nobody is taken."""
    data = head("certified", True) + b"\r\nx\r\n"
    send(world.node.port, "a@origin.example", ["b@nobody.to-mta.example"], data)
    send(world.node.port, "a@origin.example", ["b@certified.to-mta.example"], data)
    m = world.arrived("b@certified.to-mta.example")
    assert below_trace(m["data"], data) and re.search(rb'Client CN "postfix.test", Issuer "Test Authority" \(verified OK\)', re.sub(rb"\s+", b" ", m["data"]))
    assert wait_for(lambda: next((q for q in world.node.queue() if q["to"] == "b@nobody.to-mta.example" and q["state"] == "deferred"), None))
    assert not world.messages("b@nobody.to-mta.example")
    world.node.ctl_text("queue", "delete", "--all", "--domain", "nobody.to-mta.example")


@both_ways
def test_one_bad_recipient_of_three(world, way):
    """The others get it; the sender gets one report, about that one."""
    good = [f"good{i}@plain.{way}.example" for i in range(2)]
    bad = "bad@plain.to-mta.example" if way == "to-mta" else "gone@closed.to-weir.example"
    sender, data = f"partial-{way}@origin.example", head("partial", True) + b"\r\nx\r\n"
    send(world.first_hop(way), sender, [good[0], bad, good[1]], data)
    for rcpt in good:
        assert below_trace(world.arrived(rcpt)["data"], data)
    m = world.arrived(sender)
    r = Report(m, world.mta.report_type if way == "to-weir" else "multipart/report")
    assert m["to"] == [sender] and list(r.rcpts) == [bad]
    assert r.rcpts[bad]["Action"] == "failed" and re.fullmatch(r"5\.\d+\.\d+", r.rcpts[bad]["Status"])
    assert ("no such user" if way == "to-mta" else "was closed last year") in re.sub(r"\s+", " ", r.rcpts[bad]["Diagnostic-Code"] or r.text.get_content())
    assert "partial" in r.original.as_string()


def test_later_is_tried_again(world):
    rcpts = ["later@plain.to-mta.example", "now@plain.to-mta.example"]
    send(world.node.port, "later@origin.example", rcpts, head("later", True) + b"\r\nx\r\n")
    world.arrived(rcpts[1])

    def waits():
        return next((m for m in world.node.queue() if m["sender"] == "later@origin.example" and m["state"] == "deferred"), None)

    q = wait_for(waits)
    assert q["open"] == 1 and q["to"] == rcpts[0] and re.match("45.*not now", q["reason"]), q
    world.mta.allow_later()
    world.arrived(rcpts[0])
    assert len(world.messages(rcpts[1])) == 1


def test_more_recipients_than_weir_takes_at_once(world):
    """452 4.5.3 beyond a hundred: the client comes back with the rest."""
    rcpts = [f"many{i}@plain.to-weir.example" for i in range(110)]
    send(world.mta.port, "a@origin.example", rcpts, head("many", True) + b"\r\nx\r\n")
    for rcpt in rcpts:
        world.arrived(rcpt)
    assert sum(1 for m in world.sink.messages for r in m["to"] if r.startswith("many")) == 110


@both_ways
def test_too_large_for_the_next_hop(world, way):
    """A7: an MTA behind Weir takes 12 MB, Weir behind an MTA 11: who knows the other's SIZE does not even try."""
    world.weir_takes("20M" if way == "to-mta" else "11M")
    data = big("large", 13_000_000 if way == "to-mta" else 11_700_000)
    rcpt, sender = f"large@plain.{way}.example", f"large-{way}@origin.example"
    send(world.first_hop(way), sender, [rcpt], data, mail=" RET=HDRS")
    if way == "to-weir" and world.mta.name == "opensmtpd":  # its own report has the whole message in it, whatever RET says, and is too large itself
        assert wait_for(lambda: "message too large for peer" in world.mta.log_text()) and not world.messages(rcpt)
        return
    r = Report(world.arrived(sender))
    assert r.rcpts[rcpt]["Action"] == "failed" and len(r.data) < 20000 and not world.messages(rcpt)
    assert way == "to-weir" or r.rcpts[rcpt]["Status"] == "5.3.4"
    session = world.tap(way).session(rcpt)
    assert not session or len(session.said("client")) < 1_000_000


def test_a_relay_that_is_away_is_tried_again(world):
    port, world.to_weir.to = world.to_weir.to, None
    world.to_weir.cut()
    try:
        send(world.mta.port, "a@origin.example", ["away@plain.to-weir.example"], head("away", True) + b"\r\nx\r\n")
        assert wait_for(lambda: world.to_weir.turned_away or re.search("to=<away@.*TempFail", world.mta.log_text())), world.mta.log_text()[-2000:]
    finally:
        world.to_weir.to = port
    world.arrived("away@plain.to-weir.example", 45)  # OpenSMTPD leaves such a host alone for a while
