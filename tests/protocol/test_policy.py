"""Rules, modes and classes (D2, A5, A12): what a mode does to the reply, to the message and to the log."""
import re

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
