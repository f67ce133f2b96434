"""REQUIRETLS and TLS-Required: No (RFC 8689), in both directions."""
import re
import ssl

import pytest
from nasty import CLOSE, Nasty
from node import Node, Sink, Smtp, free_port, have, wait_for
from tls_world import Authority, Dns

pytestmark = pytest.mark.skipif(not all(map(have, ("nsd", "unbound", "ldns-signzone", "openssl"))), reason="nsd, unbound, ldns-signzone or openssl is not installed")

HEAD = b"From: s@cam.example\r\nSubject: test\r\n\r\n"
EXT = ("PIPELINING", "8BITMIME", "STARTTLS", "REQUIRETLS")
GOOD, BAD, LACKING, CLEAR, LATER, BROKEN = (f"127.0.0.{n}" for n in range(21, 27))


class World:
    def __init__(self, tmp):
        for n in ("certs", "dns"):
            (tmp / n).mkdir()
        ca = Authority(tmp / "certs")
        cert = ca.issue("mx-good.signed.example", "mx-lacking.signed.example", "mx-good.plain.example")
        self.port = free_port()
        own = ca.self_signed("own")
        self.good = Nasty(extensions=EXT, address=GOOD, port=self.port, cert=cert)
        self.bad = Nasty(extensions=EXT, address=BAD, port=self.port, cert=own)
        self.lacking = Nasty(extensions=EXT[:3], address=LACKING, port=self.port, cert=cert)
        self.clear = Nasty(extensions=EXT[:2], address=CLEAR, port=self.port)
        self.later = Nasty({"starttls": "454 4.7.0 not now"}, extensions=EXT, address=LATER, port=self.port)
        self.broken = Nasty({"starttls": ["220 2.0.0 go on", CLOSE]}, extensions=EXT, address=BROKEN, port=self.port)
        hosts = f"mx-good A {GOOD}\nmx-bad A {BAD}\nmx-lacking A {LACKING}\nmx-clear A {CLEAR}\nmx-later A {LATER}\nmx-broken A {BROKEN}\n"
        mx = "".join(f"{n} MX 10 mx-{n}\n" for n in ("good", "bad", "lacking", "clear", "later", "broken")) + "second MX 10 mx-lacking\nsecond MX 20 mx-good\n"
        tlsa = f"_{self.port}._tcp.mx-clear TLSA 3 1 1 {'0' * 64}\n"
        self.dns = Dns(tmp / "dns", {"signed.example": hosts + mx + tlsa, "plain.example": hosts + mx}, signed=("signed.example",))
        self.sink = Sink()
        self.node = Node(tmp, routes=f'[{{domain: cam.example, to: "smtp:[127.0.0.1]:{self.sink.port}", tls: never}}]', workers=1, engine="trivial",
                         extra=f'dns: {{servers: ["127.0.0.1:{self.dns.port}"], validates: yes}}\ntls: {{ca_file: {ca.cert}}}\n'
                         f"delivery: {{port: {self.port}, retry_first: 1h, idle: 300ms, mta_sts: no}}\n")

    def send(self, rcpt, params=" REQUIRETLS", head=HEAD, sender="s@cam.example"):
        c = self.tls_client()
        assert c.cmd(f"MAIL FROM:<{sender}>{params}").startswith("250")
        assert c.cmd(f"RCPT TO:<{rcpt}>").startswith("250")
        assert c.cmd("DATA").startswith("354")
        c.send(head + b"x\r\n.\r\n")
        assert c.reply().startswith("250")

    def tls_client(self):
        c = Smtp(self.node.port)
        c.cmd("EHLO client.test")
        assert c.cmd("STARTTLS").startswith("220")
        context = ssl._create_unverified_context()
        c.s = context.wrap_socket(c.s)
        c.f = c.s.makefile("rb")
        self.ehlo = c.cmd("EHLO client.test")
        return c

    def status(self, sender):
        """Status of the report that this sender got."""
        assert wait_for(lambda: any(m["to"] == [sender] for m in self.sink.messages), 10), self.node.log_text()[-2000:]
        data = next(m["data"] for m in self.sink.messages if m["to"] == [sender])
        assert b"message/rfc822" not in data and b"text/rfc822-headers" in data  # as with RET=HDRS
        return re.search(rb"^Status: (.*?)\r$", data, re.M).group(1).decode()

    def stop(self):
        self.node.stop()
        self.sink.stop()
        for s in (self.good, self.bad, self.lacking, self.clear, self.later, self.broken):
            s.stop()
        self.dns.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    w = World(tmp_path_factory.mktemp("requiretls"))
    yield w
    w.stop()


def got(server, rcpt):
    return [m for m in server.messages if rcpt in m["to"]]


def test_offered_and_taken_with_tls_only(world):
    c = Smtp(world.node.port)
    assert "REQUIRETLS" not in c.cmd("EHLO client.test")
    assert c.cmd("MAIL FROM:<s@cam.example> REQUIRETLS").startswith("530 5.7.10")
    c = world.tls_client()
    assert "REQUIRETLS" in world.ehlo
    assert c.cmd("MAIL FROM:<s@cam.example> REQUIRETLS=1").startswith("501 5.5.4")


def test_delivered_and_demanded_of_the_next(world):
    world.send("a@good.signed.example")
    assert wait_for(lambda: got(world.good, "a@good.signed.example"))
    assert any(re.match(rb"MAIL FROM:<s@cam.example>.* REQUIRETLS\r\n", x) for x in world.good.heard)
    assert wait_for(lambda: "tls_policy=verify" in world.node.log_text())


def test_the_next_exchanger_may_have_it(world):
    world.send("a@second.signed.example")
    assert wait_for(lambda: got(world.good, "a@second.signed.example"))
    assert not got(world.lacking, "a@second.signed.example")


@pytest.mark.parametrize("name", ["bad", "lacking", "clear"])
def test_otherwise_it_comes_back(world, name):
    """And the report goes even where REQUIRETLS is not to be had: a bounce is not lost for want of it."""
    sender = f"{name}@cam.example"
    world.send(f"a@{name}.signed.example", " REQUIRETLS RET=FULL", sender=sender)
    assert world.status(sender) == "5.7.30"
    assert not got(getattr(world, name), f"a@{name}.signed.example")


@pytest.mark.parametrize("name", ["later", "broken"])
def test_what_may_be_better_later_is_tried_again(world, name):
    """STARTTLS refused for the moment, a handshake that breaks off: no reason to give the message up."""
    world.send(f"a@{name}.signed.example", sender=f"{name}@cam.example")
    assert wait_for(lambda: any(m["to"] == f"a@{name}.signed.example" and "4.7.5" in m.get("reason", "") for m in world.node.queue()))
    assert not any(m["to"] == [f"{name}@cam.example"] for m in world.sink.messages)


def test_unauthenticated_names_will_not_do(world):
    world.send("a@good.plain.example", sender="plain@cam.example")
    assert world.status("plain@cam.example") == "5.7.30"
    assert not got(world.good, "a@good.plain.example")


def test_tls_required_no_only_loosens_what_others_ask_for(world):
    world.send("a@clear.signed.example", params="", sender="strict@cam.example")
    world.send("b@clear.signed.example", params="", head=b"TLS-Required: No\r\n" + HEAD)
    assert wait_for(lambda: got(world.clear, "b@clear.signed.example"))
    assert not got(world.clear, "a@clear.signed.example")
    q = [m for m in world.node.queue() if m["to"] == "a@clear.signed.example"]
    assert q and "4.7.5" in q[0]["reason"]
