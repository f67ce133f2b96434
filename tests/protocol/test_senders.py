"""Clients that are registered in DNS and senders that can be answered (A2, A6, P15), against nsd and unbound: missing names, SERVFAIL, silence, aliases, null MX, IPv6 only."""
import socket

import pytest

from node import Smtp, wait_for
from tls_world import Dns

HEAD = b"From: a@cam.example\r\nSubject: x\r\n\r\nbody\r\n"
INSIDE = ("relay_clients: [{network: 127.0.0.0/25, rate: none}, {network: 127.0.0.200/31, class: fragile, rate: none}]\n"
          'mail_domains: [{domain: dept.example, aliases: dept}, {domain: old.example, retired: "closed"}]\n')
ZONES = {
    "cam.example": "@ MX 10 mx\nmx A 127.0.0.1\npc A 192.0.2.1\npc6 AAAA 2001:db8::1\nlist MX 10 mx\ntext TXT hello\nweb CNAME pc\n",
    "dept.example": "@ MX 10 mx.cam.example.\n",
    "old.example": "@ MX 10 mx.cam.example.\n",
    "elsewhere.example": "@ MX 10 mail\nmail A 192.0.2.9\nhost A 192.0.2.8\nsix AAAA 2001:db8::2\nnull MX 0 .\ntext TXT x\nalias CNAME @\nhostalias CNAME host\n"
                         "dangling CNAME nothing\nloop1 CNAME loop2\nloop2 CNAME loop1\nmany MX 1 m1\n" + "".join(f"many MX {i} m{i}\n" for i in range(2, 120)),
    "servfail.example": "@ THIS IS NO RECORD\n",
    "127.in-addr.arpa": "2.0.0 PTR good.hosts.example.\n3.0.0 PTR other.hosts.example.\n5.0.0 PTR nothing.hosts.example.\n6.0.0 PTR host.servfail.example.\n"
                        "200.0.0 PTR frag.hosts.example.\n207.0.0 PTR frag.hosts.example.\n130.0.0 PTR mx.hosts.example.\n206.0.0 PTR host.servfail.example.\n136.0.0 PTR host.servfail.example.\n"
                        "7.0.0 CNAME 7.sub\n7.sub PTR good7.hosts.example.\n8.0.0 PTR nothing.hosts.example.\n8.0.0 PTR good8.hosts.example.\n9.0.0 PTR bad\\000name.hosts.example.\n"
                        + "201.0.0 PTR other.hosts.example.\n10.0.0 PTR host.silent.example.\n",
    "hosts.example": "good A 127.0.0.2\nother A 192.0.2.77\ngood7 A 127.0.0.7\nfrag A 127.0.0.200\nfrag A 127.0.0.207\nmx A 127.0.0.130\ngood8 A 192.0.2.1\ngood8 A 127.0.0.8\n",
}


@pytest.fixture(scope="module")
def dns(tmp_path_factory):
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    d = Dns(tmp_path_factory.mktemp("dns"), ZONES, stubs={"silent.example": silent.getsockname()[1]})
    yield d
    d.stop()
    silent.close()


@pytest.fixture
def make(make_node, sink, dns):
    def made(rules="", more="", **kw):
        node = make_node(sink.port, start=False, extra=INSIDE + f'dns: {{servers: ["127.0.0.1:{dns.port}"], timeout: 3s}}\npolicy: {{rules: [{rules}]}}\n' + more, **kw)
        (node.dir / "dept").write_text("postmaster: p@cam.example\nwebmaster: p@cam.example\nabuse: p@cam.example\nbob: bob@cam.example\n")
        return node.start()

    return made


def mail(node, sender, source="127.0.0.1"):
    """What is found about client and sender is said to the recipient."""
    c = Smtp(node.port, source=source)
    c.cmd("EHLO client.test")
    assert c.cmd(f"MAIL FROM:<{sender}>") == "250 2.1.0 Ok"
    r = c.cmd("RCPT TO:<b@cam.example>")
    c.close()
    return r


OK = "250 2.1.5 Ok"
SENDERS = {
    "": OK,
    "a@cam.example": OK,
    "a@CAM.example": OK,
    "a@list.cam.example": OK,
    "a@pc.cam.example": "550 5.1.8 <a@pc.cam.example>: pc.cam.example is the name of a host, not a mail domain",
    "a@pc6.cam.example": "550 5.1.8 <a@pc6.cam.example>: pc6.cam.example is the name of a host, not a mail domain",
    "a@web.cam.example": "550 5.1.8 <a@web.cam.example>: web.cam.example is the name of a host, not a mail domain",
    "a@text.cam.example": "550 5.1.8 <a@text.cam.example>: domain text.cam.example has no MX record",
    "a@nothing.cam.example": "550 5.1.8 <a@nothing.cam.example>: domain nothing.cam.example does not exist",
    "a@elsewhere.example": OK,
    "a@host.elsewhere.example": OK,
    "a@six.elsewhere.example": OK,
    "a@alias.elsewhere.example": OK,
    "a@hostalias.elsewhere.example": OK,
    "a@many.elsewhere.example": OK,
    "a@null.elsewhere.example": "550 5.7.27 <a@null.elsewhere.example>: domain null.elsewhere.example says that it takes no mail (null MX)",
    "a@text.elsewhere.example": "550 5.1.8 <a@text.elsewhere.example>: domain text.elsewhere.example has no MX or address record",
    "a@nothing.elsewhere.example": "550 5.1.8 <a@nothing.elsewhere.example>: domain nothing.elsewhere.example does not exist",
    "a@dangling.elsewhere.example": "550 5.1.8 <a@dangling.elsewhere.example>: domain dangling.elsewhere.example does not exist",
    "a@localhost": "550 5.1.8 <a@localhost>: localhost is not the full name of a mail domain",
    "a@[192.0.2.1]": "550 5.1.8 <a@[192.0.2.1]>: [192.0.2.1] is not the full name of a mail domain",
    "bob@dept.example": OK,
    "Postmaster@dept.example": OK,
    "alice@dept.example": "550 5.1.7 <alice@dept.example>: there is no such sender here",
    "bob@old.example": "550 5.1.7 <bob@old.example>: there is no such sender here",
}


def test_senders_that_can_be_answered(make):
    node = make()
    for source in ("127.0.0.2", "127.0.0.129"):  # robust, mx
        assert {s: mail(node, s, source) for s in SENDERS} == SENDERS
    assert {mail(node, s, "127.0.0.200") for s in SENDERS} == {OK}  # fragile: only logged
    assert node.counters()["sender_invalid_total"] == 2 * sum(r != OK for r in SENDERS.values())
    assert "event=would-reject rule=A6 code=sender-host-name mode=monitor client=127.0.0.200 helo=client.test from=a@pc.cam.example" in node.log_text()


@pytest.mark.parametrize("domain", ["servfail.example", "loop1.elsewhere.example", "silent.example"])
def test_what_dns_does_not_say_is_temporary(make, domain):
    node = make("{rule: sender-domain, class: mx, mode: tag}")
    for source, reply in (("127.0.0.2", "451 4.4.3 "), ("127.0.0.129", OK), ("127.0.0.200", OK)):
        assert mail(node, "a@" + domain, source).startswith(reply)
    assert mail(node, "a@elsewhere.example", "127.0.0.2") == OK


def test_clients_are_registered_in_dns(make, sink):
    node = make()
    got = {i: mail(node, "a@cam.example", f"127.0.0.{i}") for i in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 129, 201)}
    assert got == {
        1: OK, 2: OK, 7: OK, 8: OK, 129: OK, 201: OK,
        3: "550 5.7.25 Your host [127.0.0.3] calls itself other.hosts.example in DNS, and that name does not have its address",
        4: "550 5.7.25 Your host [127.0.0.4] has no name in DNS (PTR)",
        5: "550 5.7.25 Your host [127.0.0.5] calls itself nothing.hosts.example in DNS, and that name does not have its address",
        6: got[6], 9: "550 5.7.25 Your host [127.0.0.9] has no name in DNS (PTR)", 10: got[10]}
    assert got[6].startswith("451 4.7.25 The name of your host [127.0.0.6] could not be looked up (")
    assert got[10].startswith("451 4.7.25 ")
    assert "event=would-reject rule=A2 code=client-dns mode=monitor client=127.0.0.201" in node.log_text()
    c = Smtp(node.port, source="127.0.0.7")
    c.cmd("EHLO client.test")
    assert c.message("a@cam.example", ["b@cam.example"], HEAD).startswith("250")
    assert wait_for(lambda: sink.count == 1)
    assert sink.messages[0]["data"].startswith(b"Received: from client.test (good7.hosts.example [127.0.0.7])\r\n\tby relay.cam.example ")


def test_no_rule_no_question(make):
    node = make(", ".join(f"{{rule: {r}, mode: off}}" for r in ("client-dns", "sender-domain", "sender-host-name")))
    before = node.counters()["dns_queries_total"]
    assert mail(node, "a@nothing.cam.example", "127.0.0.4") == OK
    assert mail(node, "alice@dept.example", "127.0.0.4").startswith("550 5.1.7")
    assert node.counters()["dns_queries_total"] == before


def test_answers_are_cached_and_a_client_that_goes_away_costs_nothing(make):
    node = make(workers=1)
    assert mail(node, "a@elsewhere.example", "127.0.0.2") == OK
    before = node.counters()["dns_queries_total"]
    for _ in range(5):
        assert mail(node, "a@elsewhere.example", "127.0.0.2") == OK
    assert node.counters()["dns_queries_total"] == before
    for _ in range(20):
        c = Smtp(node.port, source="127.0.0.10")
        c.send("EHLO x\r\nMAIL FROM:<a@silent.example>\r\n")
        c.close()
    assert wait_for(lambda: node.counters()["sessions_open"] == 0)
    assert mail(node, "a@elsewhere.example", "127.0.0.2") == OK and len(node.pids("weir-dataplane")) == 1
    assert "signal" not in node.log_text()


def test_modes_of_what_is_found_at_mail(make, sink):
    node = make("{rule: sender-host-name, class: robust, mode: hold}, {rule: client-dns, class: robust, mode: tag}, {rule: sender-domain, class: robust, mode: defer}")
    c = Smtp(node.port, source="127.0.0.4")
    c.cmd("EHLO client.test")
    assert c.message("a@nothing.cam.example", ["b@cam.example"], HEAD).startswith("450 4.1.8")
    c.cmd("RSET")
    assert c.message("a@pc.cam.example", ["b@cam.example"], HEAD).startswith("250")
    assert c.message("a@cam.example", ["b@cam.example"], HEAD).startswith("250")
    assert wait_for(lambda: sink.count == 1)
    assert sink.messages[0]["data"].startswith(b"X-Weir-Policy: rule=client-dns; code=5.7.25;\r\n\tYour host [127.0.0.4] has no name in DNS (PTR)\r\nReceived: ")
    held = node.queue()
    assert [r["reason"] for r in held] == ["sender-host-name (A6): <a@pc.cam.example>: pc.cam.example is the name of a host, not a mail domain"]
    node.ctl("queue", "release", held[0]["id"])
    assert wait_for(lambda: sink.count == 2)
    assert sink.messages[1]["data"].startswith(b"X-Weir-Policy: rule=client-dns;")


# B4, RFC 5321 4.5.1: postmaster is who is written to when nothing else works.

POSTMASTERS = ["postmaster", "Postmaster@cam.example", "POSTMASTER@dept.example", "postmaster@old.example"]


def session(node, source):
    c = Smtp(node.port, source=source)
    c.cmd("EHLO client.test")
    return c


@pytest.mark.parametrize("to", POSTMASTERS)
def test_postmaster_is_reached_by_those_whose_dns_is_wrong(make, sink, to):
    """B4: exempt from A2, A6 and B5, with what was found on top; others are not."""
    node = make()
    for source, sender in (("127.0.0.4", "a@cam.example"), ("127.0.0.2", "a@pc.cam.example"), ("127.0.0.2", "a@nothing.elsewhere.example"), ("127.0.0.2", "alice@dept.example"),
                           ("127.0.0.200", "a@pc.cam.example"), ("127.0.0.130", "a@localhost")):
        before = sink.count
        assert session(node, source).message(sender, [to], b"Subject: no From\r\n\r\nhelp\r\n").startswith("250 2.0.0"), (source, sender)
        assert wait_for(lambda: sink.count == before + 1)
    assert not node.queue()
    tagged = [m["data"] for m in sink.messages if m["data"].startswith(b"X-Weir-Policy: rule=")]
    assert len(tagged) == 5  # not what class fragile sent: its modes are monitor here
    assert tagged[0].startswith(b"X-Weir-Policy: rule=client-dns; code=5.7.25;\r\n\tYour host [127.0.0.4] has no name in DNS (PTR)\r\n")


def test_postmaster_elsewhere_is_a_recipient_like_others(make):
    """B4: only ours is exempt."""
    node = make()
    c = session(node, "127.0.0.4")
    assert c.cmd("MAIL FROM:<a@cam.example>").startswith("250")
    assert c.cmd("RCPT TO:<postmaster@elsewhere.example>").startswith("550 5.7.25")
    assert c.cmd("RCPT TO:<postmaster@cam.example>").startswith("250")
    out = session(node, "127.0.0.130")
    assert out.cmd("MAIL FROM:<a@elsewhere.example>").startswith("250")
    assert out.cmd("RCPT TO:<postmaster@elsewhere.example>").startswith("550 5.7.1")


def test_others_beside_postmaster_are_refused(make, sink):
    """B4: each recipient hears what is for it, in any order; the log has a line for each, and one refusal is counted."""
    node = make()
    c = session(node, "127.0.0.4")
    assert c.cmd("MAIL FROM:<a@cam.example>") == "250 2.1.0 Ok"
    said = [c.cmd(f"RCPT TO:<{a}>") for a in ("b@cam.example", "postmaster", "c@cam.example", "postmaster@dept.example")]
    assert [r[:10] for r in said] == ["550 5.7.25", "250 2.1.5 ", "550 5.7.25", "250 2.1.5 "] and said[0] == said[2]
    assert c.cmd("DATA").startswith("354")
    assert c.cmd("From: a@cam.example\r\n\r\nx\r\n.").startswith("250")
    assert wait_for(lambda: sink.count == 1)
    assert sorted(sink.messages[0]["to"]) == ["p@cam.example", "postmaster"]
    log = node.log_text()
    assert [f"rule=A2 code=client-dns mode=reject client=127.0.0.4 helo=client.test from=a@cam.example to={a}@cam.example" in log for a in "bc"] == [True, True]
    rule = node.ctl("rules", "client-dns")[0]["classes"]["robust"]["found"]
    assert rule == {"monitor": 0, "tag": 1, "hold": 0, "defer": 0, "reject": 1}
    assert c.cmd("MAIL FROM:<a@cam.example>").startswith("250") and c.cmd("RCPT TO:<b@cam.example>").startswith("550 5.7.25")


def test_what_is_held_for_others_is_not_for_postmaster(make, sink):
    """B4, A5: a fragile client's mail from no sender is held for a person to see, unless postmaster is that person."""
    node = make("{rule: sender-host-name, class: fragile, mode: reject}")
    for to, held in (("b@cam.example", 1), ("postmaster", 1)):
        assert session(node, "127.0.0.200").message("a@pc.cam.example", [to], HEAD).startswith("250 2.0.0")
        assert len([r for r in node.queue() if r["state"] == "held"]) == held
    assert wait_for(lambda: sink.count == 1) and sink.messages[0]["to"] == ["postmaster"]


def test_guessing_senders_is_guessing_addresses(make):
    """B3: an own sender that does not exist counts like a recipient that does not; it would tell the same."""
    node = make(more="dictionary: {slow_after: none, refuse_after: 5, period: 1h, refuse_for: 1h}\nredis: {budget: 1s}\n", workers=1)
    said = []
    for i in range(7):
        said.append(mail(node, f"guess{i}@dept.example", "127.0.0.130") if i < 6 else Smtp(node.port, source="127.0.0.130").greeting)
    assert [r[:4] for r in said] == ["550 "] * 5 + ["421 "] * 2, said
    assert "event=dictionary-attack rule=B3 mode=defer client=127.0.0.130" in node.log_text()


def test_own_senders_are_verified_as_recipients_are(make_node, make_sink, dns):  # noqa: F811
    """A6, B2: a domain whose tables deliver what is not listed: its destination is asked for the one address that mail for the sender goes to; a long form and an alias of one likewise; aliases of several are not asked for."""
    inner = make_sink(decide=lambda kind, text: "550 5.1.1 nobody" if kind == "rcpt" and not any(f"<{a}@" in text for a in ("bob", "eve", "b", "postmaster")) else None)
    node = make_node(start=False, workers=1, routes=f'[{{domain: "*", to: "smtp:[127.0.0.1]:{inner.port}", tls: never}}]',
                     extra="relay_clients: [{network: 127.0.0.0/25, rate: none}, {network: 127.0.0.200/31, class: fragile, rate: none}]\nredis: {budget: 1s}\n"
                     f'dns: {{servers: ["127.0.0.1:{dns.port}"], timeout: 3s}}\npolicy: {{rules: []}}\nmail_domains:\n'
                     "  - {domain: dept.example, aliases: dept, unlisted: deliver, recipients: verify}\n  - {domain: old.example, long_form_of: dept.example}\n")
    (node.dir / "dept").write_text("postmaster: p@cam.example\nwebmaster: p@cam.example\nabuse: p@cam.example\nstaff: bob@dept.example, gone@dept.example\nhead: gone@dept.example\nchief: eve@dept.example\n")
    node.start()
    got = {a: mail(node, a, "127.0.0.2") for a in ("bob@dept.example", "gone@dept.example", "eve@old.example", "nobody@old.example", "staff@dept.example", "head@dept.example", "chief@dept.example", "a@cam.example")}
    assert got == {a: OK for a in ("bob@dept.example", "eve@old.example", "staff@dept.example", "chief@dept.example", "a@cam.example")} | {
        a: f"550 5.1.7 <{a}>: there is no such sender here" for a in ("gone@dept.example", "nobody@old.example", "head@dept.example")}
    assert mail(node, "gone@dept.example", "127.0.0.200") == OK
    c = session(node, "127.0.0.2")
    assert c.message("bob@dept.example", ["b@cam.example"], b"From: gone@dept.example\r\n\r\nx\r\n").startswith("550 5.1.7 From: <gone@dept.example>")
