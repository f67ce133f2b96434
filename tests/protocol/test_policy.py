"""Rules, modes and classes (D2, A5, A12): what a mode does to the reply, to the message and to the log."""
import os
import re
import urllib.request

import pytest

from node import NO_DNS_RULES, Smtp, wait_for

HEAD = b"From: a@cam.example\r\nSubject: x\r\n\r\nbody\r\n"
LOOP = b"Received: from a by b; now\r\n" * 26 + HEAD
INSIDE = "redis: {budget: 1s}\nrelay_clients: [{network: 127.0.0.1/32, rate: 3, name: robust}, {network: 127.0.0.2/32, class: fragile, rate: 3}]\n"


def client(node, source="127.0.0.1"):
    c = Smtp(node.port, source=source)
    assert c.cmd("EHLO client.test").startswith("250")
    return c


def over_its_rate(node, source="127.0.0.1"):
    """The reply to the fourth message; three an hour are allowed."""
    c = client(node, source)
    for _ in range(3):
        assert c.message("a@cam.example", ["b@cam.example"], HEAD).startswith("250")
    return c.message("a@cam.example", ["b@cam.example"], HEAD)


@pytest.mark.parametrize("mode, reply, delivered", [
    ("off", "250 2.0.0", 4), ("monitor", "250 2.0.0", 4), ("tag", "250 2.0.0", 4), ("hold", "250 2.0.0", 3), ("defer", "450 4.7.1", 3), ("reject", "550 5.7.1", 3)])
def test_a_mode_is_what_is_done_about_a_finding(make_node, sink, mode, reply, delivered):
    node = make_node(sink.port, extra=INSIDE + f"rates: {{mode: monitor}}\npolicy: {{rules: [{NO_DNS_RULES}, {{rule: rate, class: robust, mode: {mode}}}]}}\n")
    assert over_its_rate(node).startswith(reply)
    assert wait_for(lambda: sink.count == delivered)
    tagged = [m["data"] for m in sink.messages if b"X-Weir-Policy" in m["data"]]
    assert len(tagged) == (1 if mode == "tag" else 0)
    if tagged:
        assert re.match(rb"X-Weir-Policy: rule=rate; code=4\.7\.1;\r\n\tToo many messages from your host: 4, at most 3 [^\r]*\r\nReceived: from client\.test ", tagged[0])
        assert tagged[0].endswith(HEAD)
    log = node.log_text()
    assert len(re.findall("event=would-reject rule=A8 code=rate mode=" + mode + " client=127.0.0.1 .*from=a@cam.example", log)) == (mode in ("monitor", "tag", "hold"))
    assert len(re.findall(f"event=rejected rule=A8 code=rate mode={mode} ", log)) == (mode in ("defer", "reject"))
    assert ("event=rate-over" in log) == (mode != "off")
    c = node.counters()
    assert [c[f"policy_{x}_total"] for x in ("monitored", "tagged", "held", "refused")] == [mode == "monitor", mode == "tag", mode == "hold", mode in ("defer", "reject")]


def test_what_is_held_waits_for_an_operator_over_a_crash(make_node, sink):
    """D6: the reason is in the spool, so that a kill does not release the message."""
    node = make_node(sink.port, extra=INSIDE + f"policy: {{rules: [{NO_DNS_RULES}, {{rule: mail-loop, mode: hold}}]}}\n")
    assert client(node).message("a@cam.example", ["b@cam.example"], LOOP).startswith("250")
    rows = node.queue()
    assert [(r["state"], r["reason"]) for r in rows] == [("held", "mail-loop (B6): Mail loop: 26 Received fields, at most 25 are taken")]
    node.kill_all()
    node.start()
    assert [r["state"] for r in wait_for(node.queue)] == ["held"] and sink.count == 0
    assert any("mail-loop (B6)" in str(r) for r in node.ctl("queue", "show", rows[0]["id"]))
    node.ctl("queue", "release", rows[0]["id"])
    assert wait_for(lambda: sink.count == 1) and sink.messages[0]["data"].endswith(LOOP)
    assert wait_for(lambda: not node.queue())


def test_a_refusal_names_its_code_and_page(make_node, sink):
    """A12"""
    node = make_node(sink.port, extra="relay_clients: [{network: 127.0.0.1/32, rate: none}]\npolicy: {rules: [" + NO_DNS_RULES + "], help_url: \"https://help.cam.example/mail/{code}\"}\n")
    c = client(node, "127.0.0.9")
    assert c.cmd("MAIL FROM:<a@cam.example>").startswith("250")
    assert c.cmd("RCPT TO:<b@elsewhere.example>") == \
        "550 5.7.1 Relaying denied: elsewhere.example is not served here [relay-denied] https://help.cam.example/mail/relay-denied"
    assert client(node).message("a@cam.example", ["b@cam.example"], LOOP).endswith("[mail-loop] https://help.cam.example/mail/mail-loop")
    for code in ("relay-denied", "A1"):
        text = node.ctl_text("explain-code", code).stdout
        assert text.startswith("relay-denied (A1): the client may not send to this domain\n") and "    cause: " in text and "    cure:  Log in" in text
    assert {r["code"] for r in node.ctl("explain-code", "5.4.6")} == {"mail-loop", "alias-loop"}
    row = node.ctl("explain-code", "unscanned")[0]
    assert row["modes"] == {"robust": "defer", "fragile": "hold", "submission": "defer", "mx": "defer"}
    unknown = node.ctl_text("explain-code", "5.9.9")
    assert unknown.returncode == 1 and 'no rule has the code "5.9.9"' in unknown.stderr


def test_older_keys_set_the_defaults(make_node, sink):
    node = make_node(sink.port, extra="rates: {mode: defer}\nscan: {processes: 2, engine: trivial, unavailable: hold}\npolicy: {rules: [{rule: rate, class: submission, mode: tag}]}\n")
    assert node.ctl("explain-code", "rate")[0]["modes"] == {"robust": "defer", "fragile": "defer", "submission": "tag", "mx": "off"}
    assert set(node.ctl("explain-code", "unscanned")[0]["modes"].values()) == {"hold"}


def test_tagged_mail_of_a_forger_stays_as_it_came(make_node, sink):
    """F5: fields of our name from outside are content; ours stand above our Received field."""
    node = make_node(sink.port)
    forged = b"X-Weir-Policy: rule=rate; code=2.0.0;\r\n\ttrust me\r\n" + HEAD
    assert client(node).message("a@cam.example", ["b@cam.example"], forged).startswith("250")
    assert wait_for(lambda: sink.count == 1)
    assert sink.messages[0]["data"].startswith(b"Received: from ") and sink.messages[0]["data"].endswith(forged)


def rule(node, name):
    return node.ctl("rules", name)[0]["classes"]


def test_findings_are_counted_by_rule_class_and_mode(make_node, sink):
    """D2: what mode monitor is for: weirctl rules and /metrics say how often each rule would have refused, over restarts of the workers."""
    node = make_node(sink.port, extra=INSIDE + f"policy: {{rules: [{NO_DNS_RULES}, {{rule: rate, class: robust, mode: monitor}}, {{rule: mail-loop, class: mx, mode: hold}}]}}\n", workers=1)
    over_its_rate(node)
    over_its_rate(node, "127.0.0.2")
    outside = client(node, "127.0.0.9")
    assert outside.message("a@x.example", ["b@x.example"], HEAD).startswith("550 5.7.1")
    outside.cmd("RSET")
    assert outside.message("a@x.example", ["b@cam.example"], LOOP).startswith("250")
    assert client(node).message("a@cam.example", ["b@cam.example"], LOOP).startswith("554 5.4.6")
    zero = dict.fromkeys(("monitor", "tag", "hold", "defer", "reject"), 0)
    want = {"rate": ("robust", "monitor", {"monitor": 2}), "relay-denied": ("mx", "reject", {"reject": 1}), "mail-loop": ("mx", "hold", {"hold": 1})}
    for name, (of, mode, found) in want.items():
        assert rule(node, name)[of] == {"mode": mode, "found": {**zero, **found}}, name
    assert rule(node, "A8")["fragile"]["found"]["monitor"] == 1 and rule(node, "rate")["mx"] == {"mode": "off", "found": zero}
    assert rule(node, "mail-loop")["robust"]["found"]["reject"] == 1
    text = node.ctl_text("rules", "mail-loop").stdout.splitlines()
    assert [re.sub(" +", " ", t) for t in text] == ["B6 mail-loop robust reject refused 1", "B6 mail-loop fragile reject -", "B6 mail-loop submission reject -", "B6 mail-loop mx hold held 1"]
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{node.metrics}/metrics", timeout=10).read().decode()
    assert 'weir_findings_total{rule="mail-loop",id="B6",class="mx",done="hold"} 1\n' in metrics
    assert 'weir_findings_total{rule="client-dns",id="A2",class="mx",done="reject"} 0\n' in metrics
    for pid in node.pids("weir-dataplane"):
        os.kill(pid, 9)
    assert wait_for(node.up)
    assert rule(node, "mail-loop")["mx"]["found"]["hold"] == 1
    unknown = node.ctl_text("rules", "5.9.9")
    assert unknown.returncode == 1 and 'no rule has the code "5.9.9"' in unknown.stderr


EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


def test_malware_for_postmaster_is_held_not_refused(make_node, sink):
    """B4: mail for postmaster alone is exempt from content refusal, and E1: malware is not delivered."""
    node = make_node(sink.port)
    for rcpts, reply in ((["b@cam.example"], "550 5.7.1"), (["postmaster", "b@cam.example"], "550 5.7.1"), (["POSTMASTER"], "250 2.0.0")):
        assert client(node).message("a@cam.example", rcpts, HEAD + EICAR + b"\r\n").startswith(reply)
    assert [(r["state"], r["reason"].split(":")[0]) for r in node.queue()] == [("held", "infected")] and not sink.count
    assert rule(node, "malware")["robust"]["found"] == {"monitor": 0, "tag": 0, "hold": 1, "defer": 0, "reject": 2}
    text = node.ctl_text("explain-code", "malware").stdout
    assert "for postmaster alone: hold at most" in text
