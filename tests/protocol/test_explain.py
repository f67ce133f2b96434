"""What weirctl explain, check-sender and check-rcpt say (A11) is what a session then hears: the same rule, reply code, enhanced code and text, over generated clients, senders, recipients and headers."""
import collections
import json
import random
import re

import pytest
from node import Smtp, wait_for
from test_auth import line_for
from test_clients import stamp
from test_senders import ZONES, dns  # noqa: F401
from test_verify import PATIENT, users

TESTER, CASES = "127.0.0.9", 200
ROBUST, NAMELESS, OTHER_NAME, SERVFAIL, BUSY, FRAGILE, FRAGILE_NAMELESS, MX, BOB = (
    "127.0.0.2", "127.0.0.4", "127.0.0.3", "127.0.0.6", "127.0.0.8", "127.0.0.200", "127.0.0.201", "127.0.0.130", "bob")
CLIENTS = [ROBUST] * 6 + [NAMELESS, OTHER_NAME, SERVFAIL, BUSY, FRAGILE, FRAGILE, FRAGILE_NAMELESS, MX, MX, MX, MX, "2001:db8::77", BOB, BOB]
GOOD_SENDERS = ["", "a@cam.example", "bob@list.cam.example", "bob@dept.example", "a@elsewhere.example", "a@host.elsewhere.example"]
BAD_SENDERS = ["a@pc.cam.example", "a@text.cam.example", "a@nothing.cam.example", "a@null.elsewhere.example", "a@nothing.elsewhere.example", "a@localhost", "alice@dept.example",
               "bob@old.example", "nobody@list.cam.example", "a@servfail.example", "alice@dept.example", "nobody@list.cam.example", "a b@cam.example", "x" * 70 + "@cam.example"]
GOOD_RCPTS = ["b@cam.example", "bob@dept.example", "postmaster@dept.example", "bob@list.cam.example", "eve@LIST.cam.example", "postmaster"]
BAD_RCPTS = ["alice@dept.example", "x@old.example", "x@elsewhere.example", "nobody@list.cam.example", "round@dept.example", "busy@list.cam.example", "a@@dept.example", "nodomain"]
GOOD_HEADERS = [[], ["From: a@cam.example", "Subject: x"], ["From: Bob <bob@dept.example>", "To: x@y.example"], ["From: eve@list.cam.example"]]
BAD_HEADERS = [["Subject: x"], ["From: a@cam.example", "From: b@cam.example"], ["From: alice@dept.example"], ["From: a@pc.cam.example"], ["From: a@nothing.elsewhere.example"],
               ["From: a@servfail.example"], ["From: nobody@list.cam.example"], ["From: <a@"], ["From: a@cam.example, b@cam.example"], ["From: a@cam.example", "Reply-To: a@null.elsewhere.example"],
               ["From: a@cam.example"] + ["Received: from x by y; Thu, 1 Jan 2026 00:00:00 +0000"] * 26]
RULES = ("{rule: rate, mode: defer}, {rule: header-from, class: mx, mode: reject}, {rule: sender-domain, class: mx, mode: hold}, {rule: client-dns, class: mx, mode: tag}, "
         "{rule: sender-unknown, class: mx, mode: defer}")


def answers(kind, text):
    return "451 4.2.0 greylisted" if kind == "rcpt" and "busy@" in text else users(kind, text) if "list.cam.example" in text.lower() else None


@pytest.fixture
def node(make_node, make_sink, dns, tmp_path):  # noqa: F811
    sink = make_sink(decide=answers)
    (tmp_path / "passwords").write_text(line_for("bob", "secret"))
    to = f'to: "smtp:[127.0.0.1]:{sink.port}", tls: never'
    n = make_node(sink.port, start=False, submission=True, engine="trivial", routes=f'[{{domain: list.cam.example, {to}, recipients: verify}}, {{domain: "*", {to}}}]',
                  extra=f"xclient_clients: [{TESTER}/32]\nauth: {{password_file: {tmp_path}/passwords, senders: [{{user: bob, senders: [bob@dept.example, '@cam.example', '@servfail.example', '@pc.cam.example']}}]}}\n"
                  "relay_clients:\n  - {network: 127.0.0.0/28, rate: none}\n  - {network: 127.0.0.8/32, rate: 3}\n  - {network: 127.0.0.200/31, class: fragile, rate: none}\n"
                  'mail_domains: [{domain: dept.example, aliases: dept}, {domain: old.example, retired: "closed"}]\nlimits: {errors: 1000}\nverify: {retry: 1h}\n'
                  f'dns: {{servers: ["127.0.0.1:{dns.port}"], timeout: 3s}}\npolicy:\n  help_url: "https://help.example/{{code}}"\n  rules: [{RULES}]\n' + PATIENT)
    n.config.write_text(n.config.read_text().replace("local_domains: [cam.example]", "local_domains: [cam.example, list.cam.example]"))
    (n.dir / "dept").write_text("".join(f"{a}: p@cam.example\n" for a in ("postmaster", "webmaster", "abuse")) + "bob: bob@cam.example\nround: round2@dept.example\nround2: round@dept.example\n")
    n.start()
    n.sink = sink
    return n


def explain(node, client, sender, rcpt, header):
    who = ["--client", MX, "--user", client] if client == BOB else ["--client", client]
    p = node.ctl_text("--json", "explain", *who, "--from", sender, "--to", rcpt, *(w for h in header for w in ("--header", h)))
    assert p.returncode in (0, 1, 2), p.stderr
    rows = json.loads(p.stdout)
    assert rows[-1]["kind"] == "outcome" and p.returncode == {"accepted": 0, "held": 0, "refused": 1, "deferred": 2}[rows[-1]["outcome"]]
    return rows


def session(node, client, sender, rcpt, header):
    """The first refusal, or the reply to the message."""
    s = Smtp(node.submission if client == BOB else node.port, source=TESTER)
    s.cmd("EHLO tester.example")
    addr = MX if client == BOB else "IPV6:" + client if ":" in client else client
    assert s.cmd(f"XCLIENT ADDR={addr}" + (f" LOGIN={client}" if client == BOB else "")).startswith("220")
    s.cmd("EHLO tester.example")
    if header:
        r = s.message(sender, [rcpt], ("\r\n".join(header) + "\r\n\r\nx\r\n").encode())
    else:
        r = s.cmd(f"MAIL FROM:<{sender}>")
        r = s.cmd(f"RCPT TO:<{rcpt}>") if r.startswith("2") else r
    s.close()
    return r


def generated():
    rng = random.Random(12)
    for i in range(CASES):
        yield i, rng.choice(CLIENTS), rng.choice(GOOD_SENDERS if rng.random() < 0.6 else BAD_SENDERS), rng.choice(GOOD_RCPTS if rng.random() < 0.6 else BAD_RCPTS), \
            rng.choice(GOOD_HEADERS if rng.random() < 0.5 else BAD_HEADERS)


def without_numbers(reply):
    return re.sub(r"from your host: \d+", "from your host: N", reply)


def findings(text):
    return {m[1] for m in re.finditer(r"event=would-reject rule=\S+ code=(\S+)", text)}


def test_200_cases_are_as_explained(node):
    """A11, and A2, A5, A6, A8, B2, B5, B6, C6, C8, D2 with it."""
    for _ in range(5):
        s = Smtp(node.port, source=TESTER)
        s.cmd("EHLO tester.example")
        s.cmd(f"XCLIENT ADDR={BUSY}")
        s.cmd("EHLO tester.example")
        s.cmd("MAIL FROM:<a@elsewhere.example>")
        s.close()
    seen = collections.Counter()
    for case in generated():
        rows = explain(node, *case[1:])
        end, before = rows[-1], len(node.log_text())
        reply = session(node, *case[1:])
        if end["outcome"] in ("accepted", "held"):
            assert reply.startswith("250"), (case, reply, rows)
            # what was let through by its mode is the same, too
            noted = {r["code"] for r in rows if r.get("does") in ("logs", "tags", "holds")}
            assert wait_for(lambda: findings(node.log_text()[before:]) == noted, 5), (case, noted, node.log_text()[before:])
            seen.update(noted)
            if case[4]:
                held = [r for r in node.queue() if r["state"] == "held"]
                assert bool(held) == (end["outcome"] == "held"), (case, held, rows)
                for r in held:
                    assert r["reason"].startswith(end["code"] + " ")
                    node.ctl("queue", "delete", r["id"])
        else:
            assert without_numbers(reply) == without_numbers(end["reply"]), (case, rows)
            if "code" in end:
                assert reply.endswith(f" [{end['code']}] https://help.example/{end['code']}"), (case, reply)
                assert re.search(rf"event=rejected rule={end['rule']} code={end['code']} ", node.log_text()[before:]), case
        seen[end.get("code", "protocol") if end["outcome"] != "accepted" else "accepted"] += 1
    assert set(seen) >= {"accepted", "protocol", "client-dns", "sender-domain", "sender-host-name", "sender-unknown", "sender-not-yours", "rate", "relay-denied", "recipient-unknown",
                         "recipient-unverified", "domain-retired", "alias-loop", "header-from", "mail-loop"}, seen


def test_nothing_is_counted_or_kept(node):
    """A8, P3: a question leaves no trace on its client, in the spool or among refused attempts."""
    before = node.counters()
    for _ in range(12):
        assert explain(node, BUSY, "a@elsewhere.example", "b@cam.example", ["From: a@cam.example"])[-1]["outcome"] == "accepted"
        assert explain(node, MX, "a@elsewhere.example", "x@elsewhere.example", [])[-1]["code"] == "relay-denied"
    after = node.counters()
    for name in ("sessions_total", "messages_accepted_total", "messages_refused_total", "recipients_refused_total", "policy_refused_total", "rate_over_total"):
        assert after[name] == before[name], name
    assert node.queue() == [] and node.ctl_text("trace", "x@elsewhere.example").stdout == ""


def test_a_registration_that_has_expired(node):
    """A3: its host is one from outside, and is told why."""
    case = ("127.0.0.11", "a@elsewhere.example", "x@elsewhere.example", [])
    node.ctl("clients", "set", "127.0.0.11", "--class", "robust", "--expires", stamp(-10))
    assert wait_for(lambda: explain(node, *case)[0]["class"] == "mx")
    end = explain(node, *case)[-1]
    assert wait_for(lambda: session(node, *case) == end["reply"])  # by every worker, soon
    assert end["reply"].startswith("550 5.7.1 Relaying denied: the registration of your host has expired")


def test_an_address_alone(node):
    for addr, code, said in (("a@elsewhere.example", 0, "accepted"), ("alice@dept.example", 2, "450 4.1.7"), ("a@servfail.example", 2, None), ("x@", 1, "501 5.1.7")):
        p = node.ctl_text("check-sender", addr)
        assert said is None or said in p.stdout.splitlines()[-1], p.stdout
        assert p.returncode == (0 if said is None else code), p.stdout
    for client, code in ((ROBUST, 1), (FRAGILE, 0)):
        assert node.ctl_text("check-sender", "--client", client, "a@pc.cam.example").returncode == code
    for addr, code, said in (("bob@dept.example", 0, "accepted"), ("alice@dept.example", 1, "refused: 550 5.1.1"), ("nobody@list.cam.example", 1, "refused: 550 5.1.1"),
                             ("x@elsewhere.example", 1, "refused: 550 5.7.1"), ("busy@list.cam.example", 2, "deferred: 451 4.2.0"), ("a@@x", 1, "refused: 501 5.1.3")):
        p = node.ctl_text("check-rcpt", addr)
        assert (p.returncode, p.stdout.splitlines()[-1].startswith(said)) == (code, True), p.stdout


def test_every_decision_with_its_line(node):
    out = node.ctl_text("explain", "--client", MX, "--from", "a@nothing.cam.example", "--to", "b@dept.example", "--header", "Subject: x").stdout.splitlines()
    line = {word: 1 + next(i for i, text in enumerate(node.config.read_text().splitlines()) if text.startswith(word)) for word in ("mail_domains", "  rules")}
    assert out[0] == f"client {MX}: class mx  (default)"
    shape = [re.fullmatch(r"(\w+) +([A-Z]\d+) +([a-z-]+) +mode (\w+) +(\w+).*\((\S+)\)", o) for o in out[1:-1]]
    assert [m.groups() for m in shape] == [
        ("MAIL", "P19", "sender-not-yours", "reject", "accepts", "default"), ("MAIL", "A2", "client-dns", "tag", "accepts", f"{node.config}:{line['  rules']}"),
        ("MAIL", "A6", "sender-domain", "hold", "holds", f"{node.config}:{line['  rules']}"), ("MAIL", "A6", "sender-unknown", "defer", "accepts", f"{node.config}:{line['  rules']}"),
        ("MAIL", "A8", "rate", "defer", "accepts", f"{node.config}:{line['  rules']}"), ("RCPT", "B3", "dictionary-attack", "defer", "accepts", "default"),
        ("RCPT", "A1", "relay-denied", "reject", "accepts", f"{node.config}:{line['mail_domains']}"), ("RCPT", "B2", "recipient-unknown", "reject", "refuses", "default"),
        ("DATA", "B6", "mail-loop", "reject", "accepts", "default"), ("DATA", "B5", "header-from", "reject", "refuses", f"{node.config}:{line['  rules']}")]
    assert out[-1].startswith("refused: 550 5.1.1 b@dept.example: there is no such address [recipient-unknown] ")


@pytest.mark.parametrize("args", [["explain"], ["explain", "--client", MX, "--from", "a@b.example"], ["explain", "--client", "host.example", "--from", "a@b.example", "--to", "a@b.example"],
                                  ["check-sender"], ["check-rcpt", "a@b.example", "c@d.example"], ["check-sender", "--from", "x@b.example", "a@b.example"],
                                  ["check-sender", "a@cam.example>\r\nRCPT TO:<b@cam.example"], ["check-rcpt", "x" * 480 + "@cam.example"]])
def test_questions_that_make_no_sense(node, args):
    p = node.ctl_text(*args)
    assert p.returncode == 3 and p.stderr and not p.stdout


def test_sizes_are_explained_as_they_are_declared(node):
    """A7, A11: the node's limit at MAIL, a route's at RCPT."""
    text = node.config.read_text().replace("recipients: verify}", "recipients: verify, size: 2M}").replace("limits: {errors: 1000}", "limits: {errors: 1000, message_size: 3M}")
    node.config.write_text(text)
    assert node.ctl_text("config", "reload").returncode == 0
    assert wait_for(lambda: "size 2097152" in node.ctl_text("route", "x@list.cam.example").stdout)
    for size, rcpt, outcome in ((1000, "b@cam.example", "250 2.1.5"), (2 << 20, "bob@list.cam.example", "250 2.1.5"), ((2 << 20) + 1, "bob@list.cam.example", "552 5.3.4"),
                                ((2 << 20) + 1, "b@cam.example", "250 2.1.5"), ((3 << 20) + 1, "b@cam.example", "552 5.3.4"), ((2 << 20) + 1, "nobody@list.cam.example", "550 5.1.1")):
        p = node.ctl_text("--json", "explain", "--client", ROBUST, "--from", "a@cam.example", "--to", rcpt, "--size", str(size))
        rows = json.loads(p.stdout)
        s = Smtp(node.port, source=ROBUST)
        s.cmd("EHLO tester.example")
        r = s.cmd(f"MAIL FROM:<a@cam.example> SIZE={size}")
        r = s.cmd(f"RCPT TO:<{rcpt}>") if r.startswith("250") else r
        s.close()
        assert r.startswith(outcome) and r == rows[-1].get("reply", "250 2.1.5 Ok") and p.returncode == (not r.startswith("250")), (size, rcpt, r, rows)
        assert any(x.get("code") == "destination-size" for x in rows if x["kind"] == "decision") == (size <= 3 << 20)
    wrong = node.ctl_text("explain", "--client", ROBUST, "--from", "a@cam.example", "--to", "b@cam.example", "--size", "much")
    assert wrong.returncode == 3 and "usage" in wrong.stderr
