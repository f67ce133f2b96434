"""What is wrong with a mail domain: aliases and targets (rule C5), MX, SPF, DKIM, DMARC, host names (C10), postmaster of every domain (B4); what nodes know of each other (C1)."""
import re
import subprocess

import pytest
from alias_web import GOOD
from node import Smtp, wait_for
from test_verify import PATIENT, asked, users
from tls_world import Dns

ZONES = {
    "cam.example": """\
        relay A 127.0.0.1
        other A 127.0.0.9
        @ MX 10 relay
        host A 127.0.0.1
        null MX 0 .
        """,
    "good.example": """\
        @ MX 10 relay.cam.example.
        @ TXT "v=spf1 mx -all"
        _dmarc TXT "v=DMARC1; p=none"
        s1._domainkey TXT "v=DKIM1; k=rsa; p=AAAA"
        s2._domainkey TXT "v=DKIM1; p="
        """,
    "bad.example": """\
        @ MX 10 other.cam.example.
        @ A 127.0.0.9
        @ TXT "v=spf1 mx -all"
        @ TXT "v=spf1 -all"
        _dmarc TXT "v=DMARC1; rua=mailto:x@bad.example"
        """,
}
BAD = ("postmaster: pm@cam.example\nwebmaster: web@cam.example\nring1: ring2@bad.example\nring2: ring1@bad.example\n"
       "lost: nobody@bad.example\ngone: x@gone.cam.example\nnull: x@null.cam.example\nhost: x@host.cam.example\nself: a@good.example\n")


@pytest.fixture(scope="module")
def dns(tmp_path_factory):
    d = Dns(tmp_path_factory.mktemp("dns"), ZONES)
    yield d
    d.stop()


@pytest.fixture
def org(make_node, sink, dns):
    """A node with two managed domains; keys are added to the group managed, bad is the file of bad.example."""
    def make(keys="", bad=BAD, postmaster=True):
        node = make_node(start=False, workers=1, routes='[{domain: cam.example, to: "smtp:[127.0.0.1]:%d", tls: never}]' % sink.port,
                         extra=f"dns: {{servers: [\"127.0.0.1:{dns.port}\"], timeout: 3s}}\n"
                         f"managed: {{exchangers: relay.cam.example{keys}}}\nmail_domains:\n"
                         "  - {domain: good.example, aliases: good}\n  - {domain: bad.example, aliases: bad}\n"
                         "  - {domain: old.example, retired: it is closed}\n")
        (node.dir / "good").write_text(GOOD + "a: pm@cam.example\n")
        (node.dir / "bad").write_text(bad)
        if not postmaster:
            node.config.write_text(node.config.read_text().replace("postmaster: postmaster@cam.example\n", ""))
        return node.start()

    return make


def found(node, *args):
    """(level, rule, text) of a report."""
    return [(r["level"], r["rule"], r["text"]) for r in node.ctl("domain", *args, check=False)]


def wrong(rows):
    return [text for level, _, text in rows if level == "wrong"]


def test_a_good_domain(org):
    node = org()
    p = node.ctl_text("domain", "check", "good.example", "--dkim", "s1")
    assert p.returncode == 0 and "0 wrong, 0 to consider" in p.stdout, p.stdout
    for line in ("ok      C5   4 aliases", "ok      C10  MX: 1 of 1", "ok      C10  SPF: v=spf1", "ok      C10  DKIM", "ok      C10  DMARC: v=DMARC1; p=none"):
        assert line in p.stdout, p.stdout
    p = node.ctl_text("domain", "check", "good.example", "--dkim", "s2")
    assert p.returncode == 1 and "p= is empty" in p.stdout
    p = node.ctl_text("domain", "check", "good.example", "--dkim", "s3")
    assert p.returncode == 1 and "no key at s3._domainkey.good.example" in p.stdout


def test_everything_that_can_be_wrong_is_found(org):
    node = org()
    assert node.ctl_text("domain", "check", "bad.example").returncode == 1
    rows = found(node, "check", "bad.example")
    texts = wrong(rows)
    for rule, why in (("C4", "^abuse is missing$"), ("C5", "ring. closes a loop|ring.@bad.example closes a loop"), ("C5", "line 5: lost: nobody@bad.example leads nowhere"),
                      ("C5", "line 6: gone: no mail can be sent to gone.cam.example"), ("C5", "line 7: null: no mail can be sent to null.cam.example"),
                      ("C10", "MX: none of them is ours; it should name relay.cam.example"), ("C10", "SPF: there are 2 records"), ("C10", "DMARC: the record has no p=")):
        assert any(r == rule and level == "wrong" and re.search(why, text) for level, r, text in rows), (why, rows)
    assert len(texts) == 8, texts
    assert not any("host.cam.example" in t for t in texts)  # an address is as good as an exchanger
    assert ("advice", "C10") in [r[:2] for r in rows if "also a host with address 127.0.0.9" in r[2]]


INNER = ("postmaster: bob@inner.example\nwebmaster: bob@inner.example\nabuse: webmaster@good.example\na: nobody@inner.example\nb: eve@inner.example, gone@inner.example\n"
         "c: late@inner.example\nd: nobody@inner.example\ne: x@listed.example\n")


@pytest.fixture
def inner(make_node, make_sink, dns):
    """good.example's aliases lead to inner.example, whose server knows bob and eve, and cannot say of late; and to listed.example, delivered to a server that refuses x."""
    def make(targets="", rate=""):
        sink = make_sink(decide=lambda kind, text: "451 4.2.1 it is late" if kind == "rcpt" and "<late@" in text else users(kind, text))
        node = make_node(start=False, workers=1, routes='[{domain: "*", to: "smtp:[127.0.0.1]:%d", tls: never}]' % sink.port,
                         extra=f"dns: {{servers: [\"127.0.0.1:{dns.port}\"], timeout: 3s}}\nverify: {{probe_time: 20s{rate}}}\n"
                         f"managed: {{exchangers: relay.cam.example{targets}}}\nmail_domains:\n  - {{domain: good.example, aliases: good}}\n"
                         '  - {domain: listed.example, aliases: listed, unlisted: deliver, recipients: verify}\n' + PATIENT)
        (node.dir / "good").write_text(INNER)
        (node.dir / "listed").write_text(GOOD)
        return node.start(), sink

    return make


def test_the_targets_of_aliases_are_verified_with_their_destinations(inner):
    """C5, B2: each address once, in the destination's own words; what cannot be said now is no finding; what is known is not asked for again."""
    node, sink = inner()
    rows = found(node, "check", "good.example")
    assert sorted(wrong(rows)) == ["line 4: a: nobody@inner.example is refused by its destination: 550 5.1.1 nobody of that name? here",
                                   "line 5: b: gone@inner.example is refused by its destination: 550 5.1.1 nobody of that name? here",
                                   "line 8: e: x@listed.example is refused by its destination: 550 5.1.1 nobody of that name? here"]
    assert [t for level, _, t in rows if level == "advice" and "verified" in t] == ["1 addresses could not be verified now; the first: late@inner.example: 451 4.2.1 it is late"]
    once = asked(sink)
    assert sorted(once) == sorted(a + "@inner.example" for a in ("bob", "nobody", "eve", "gone", "late")) + ["x@listed.example"] and not sink.count
    assert wrong(found(node, "check", "good.example")) == wrong(rows) and asked(sink) == once
    node.ctl_text("verify", "forget", "gone@inner.example")
    node.ctl_text("verify", "forget", "nobody@inner.example")
    node.ctl_text("verify", "forget", "x@listed.example")
    sink.decide = None
    assert not wrong(found(node, "check", "good.example"))


def test_where_the_rest_is_delivered_the_destination_has_postmaster(inner):
    """C4, C5: a domain whose unlisted addresses are delivered needs no entry for what its destination knows; what neither has is missing."""
    node, sink = inner()
    (node.dir / "listed").write_text("webmaster: bob@inner.example\n")
    node.ctl_text("tables", "compile")
    rows = found(node, "check", "listed.example")
    assert [t for t in wrong(rows) if "MX" not in t] == ["abuse@listed.example is neither in the tables nor known to its destination: 550 5.1.1 nobody of that name? here"], rows
    assert sorted(asked(sink)) == ["abuse@listed.example", "bob@inner.example", "postmaster@listed.example"]


@pytest.mark.parametrize("targets, who", [("verified", ["x@listed.example"]), ("none", [])])
def test_whose_targets_are_verified_is_configured(inner, targets, who):
    """C5: callouts to strangers are not everybody's wish."""
    node, sink = inner(f", check_targets: {targets}")
    rows = found(node, "check", "good.example")
    assert asked(sink) == who and len(wrong(rows)) == len(who)


def test_a_check_leaves_half_of_a_destination_s_probes_to_mail(inner):
    """C5, B2: four a minute may be asked: two are, and two are left."""
    node, sink = inner(rate=", probes_per_minute: 4")
    p = subprocess.Popen([node.bin / "weirctl", "--run", node.run, "domain", "check", "good.example"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert wait_for(lambda: "event=verified" in node.log_text() and len(asked(sink)) == 3)  # two of inner.example, one of listed.example
        assert p.poll() is None
        s = Smtp(node.port)
        s.cmd("EHLO client.test")
        assert s.message("a@good.example", ["bob@listed.example"], b"From: postmaster@good.example\r\n\r\nx\r\n").startswith("250")
    finally:
        p.kill()
        p.wait()


def test_without_workers_there_is_no_report(org):
    node = org()
    node.stop()
    p = node.ctl_text("domain", "check", "good.example")
    assert p.returncode == 2 and "DNS cannot be asked" in p.stderr and not p.stdout.count("MX")


def test_each_domain_is_checked_in_time_and_postmaster_hears_of_findings_only(org, sink):
    node = org(keys=", check_every: 1s")
    assert wait_for(lambda: any(b"Subject: Mail domain bad.example: 8 findings" in m["data"] for m in sink.messages)), node.log_text()[-3000:]
    m = next(m for m in sink.messages if b"bad.example: 8 findings" in m["data"])
    assert m["to"] == ["pm@cam.example"] and b"abuse is missing" in m["data"] and b"DMARC: the record has no p=" in m["data"]
    assert wait_for(lambda: node.ctl("domain", "show", "good.example")["checked"])
    assert not any(b"good.example: " in m["data"].split(b"\r\n\r\n")[0] for m in sink.messages)
    assert node.ctl("domain", "show", "bad.example")["findings"] == 8
    assert "the last check of mail domains found something wrong" in node.ctl_text("status").stdout


def test_postmaster_of_every_served_domain(org, sink):
    node = org()
    p = node.ctl_text("domain", "self-check")
    assert p.returncode == 0 and "postmaster leads somewhere in all 4 served domains" in p.stdout, p.stdout
    node.stop()


def test_a_postmaster_that_leads_nowhere_is_told_and_shown(org, sink):
    node = org(keys=", self_check_every: 1s", bad=BAD.replace("pm@cam.example", "pm@gone.cam.example"))
    p = node.ctl_text("domain", "self-check")
    assert p.returncode == 1
    assert "postmaster@bad.example leads to pm@gone.cam.example, where no mail can be sent: " in p.stdout
    assert wait_for(lambda: any(b"Subject: Self-check: postmaster of 1 domains" in m["data"] for m in sink.messages)), node.log_text()[-3000:]
    m = next(m for m in sink.messages if b"Self-check" in m["data"])
    assert m["to"] == ["postmaster@cam.example"] and b"pm@gone.cam.example" in m["data"]
    assert wait_for(lambda: "postmaster of a served domain leads nowhere" in node.ctl_text("status").stdout)
    # it is told again when something else is found, not every day
    checked = node.log_text().count("postmasters: 1 findings")
    assert wait_for(lambda: node.log_text().count("postmasters: 1 findings") >= checked + 2)
    assert sum(b"Self-check" in m["data"] for m in sink.messages) == 1
    (node.dir / "bad").write_text(GOOD)
    assert node.ctl_text("tables", "compile").returncode == 0
    assert wait_for(lambda: "postmaster of a served domain leads nowhere" not in node.ctl_text("status").stdout)


def test_without_a_postmaster_bare_postmaster_is_nobody(org):
    node = org(postmaster=False)
    assert any("postmaster is not configured" in t for t in wrong(found(node, "self-check")))


def test_nodes_know_each_others_tables(make_node, sink, tmp_path):
    """Two nodes with one Redis: equal aliases have an equal digest, whatever their generations are called (C1)."""
    one = make_node(sink.port, start=False, workers=1, name="one", extra="node: one\nmail_domains: [{domain: dept.example, aliases: dept}]\n")
    (one.dir / "dept").write_text(GOOD)
    one.start()
    two = make_node(sink.port, start=False, workers=1, name="two", extra=f"node: two\nredis: {{server: \"unix:{one.run}/redis.sock\"}}\n"
                    "mail_domains: [{domain: dept.example, aliases: dept}]\n")
    (two.dir / "dept").write_text("# another spelling\n" + GOOD.replace("\n", "\r\n"))
    two.start()

    def nodes():
        return {n["node"]: n for n in one.ctl("status")["nodes"]}

    assert wait_for(lambda: len(nodes()) == 2), nodes()
    assert nodes() == {n["node"]: n for n in two.ctl("status")["nodes"]} or nodes()["one"]["tables"] == nodes()["two"]["tables"]
    assert nodes()["one"]["tables"] == nodes()["two"]["tables"] and nodes()["one"]["silent_s"] < 60
    assert "not the same" not in one.ctl_text("status").stdout
    (two.dir / "dept").write_text(GOOD + "head: x@cam.example\n")
    assert two.ctl_text("tables", "compile").returncode == 0
    assert wait_for(lambda: nodes()["one"]["tables"] != nodes()["two"]["tables"])
    text = one.ctl_text("status").stdout
    assert "the tables of these nodes are not the same" in text and re.search(r"(?m)^  two +tables [0-9a-f]{16}, generation 2 of 20", text)
