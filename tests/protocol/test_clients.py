"""The registry of clients, and what each was seen to do (A3, A4)."""
import datetime
import re
import smtplib
import ssl

import pytest

from node import NO_DNS_RULES, Node, Smtp, free_port, wait_for

HEAD = b"From: a@cam.example\r\nSubject: x\r\n\r\nbody\r\n"
LOOP = b"Received: from a by b; now\r\n" * 26 + HEAD
OUTSIDE = "relay_clients: [192.0.2.0/24]\n"
AWAY = "x@elsewhere.example"


def client(node, source, port=None, helo="client.test"):
    c = Smtp(port or node.port, source=source)
    assert c.cmd(f"EHLO {helo}").startswith("250")
    return c


def relays(node, source):
    """The reply to a recipient elsewhere."""
    c = client(node, source)
    c.cmd("MAIL FROM:<a@cam.example>")
    reply = c.cmd(f"RCPT TO:<{AWAY}>")
    c.close()
    return reply


def in_use(node, source, want):
    """The worker takes a change within seconds."""
    assert wait_for(lambda: relays(node, source).startswith(want)), relays(node, source)


def entry(node, network):
    return next((e for e in node.ctl("clients", "list") if e["network"] == network), None)


def stamp(seconds):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_client_is_set_and_deleted(make_node, sink):
    """A3: within seconds, audited, kept over a crash, and each change can be taken back."""
    node = make_node(sink.port, workers=1, extra=OUTSIDE)
    assert relays(node, "127.0.0.9") == "550 5.7.1 Relaying denied: elsewhere.example is not served here"
    said = node.ctl("clients", "set", "127.0.0.9", "--class", "fragile", "--owner", "it@chem.cam.example", "--rate", "100", "--note", 'the "big" MRI scanner')
    assert said == {"ok": True, "text": "change 1: +127.0.0.9\n"}
    in_use(node, "127.0.0.9", "250")
    assert relays(node, "127.0.0.8").startswith("550 5.7.1")
    e = entry(node, "127.0.0.9")
    assert (e["class"], e["owner"], e["rate"], e["note"], e["source"], e["expired"]) == ("fragile", "it@chem.cam.example", 100, 'the "big" MRI scanner', "registry", False)
    rate = node.ctl("rate", "explain", "client/127.0.0.9")[0]
    assert (rate["limit"], rate["source"]) == (100, "registry of clients")

    # what is not named stays; nothing of the configuration is read again
    node.config.write_text(node.config.read_text() + "broken: [\n")
    assert node.ctl("clients", "set", "127.0.0.9", "--rate", "none")["text"] == "change 2: ~127.0.0.9\n"
    assert (entry(node, "127.0.0.9")["rate"], entry(node, "127.0.0.9")["owner"]) == (0, "it@chem.cam.example")
    node.config.write_text(node.config.read_text().replace("broken: [\n", ""))

    node.kill_all()
    node.start()
    in_use(node, "127.0.0.9", "250")
    node.ctl("clients", "delete", "127.0.0.9")
    in_use(node, "127.0.0.9", "550 5.7.1")
    assert node.ctl_text("clients", "delete", "127.0.0.9").returncode == 1
    node.ctl("clients", "revert")
    in_use(node, "127.0.0.9", "250")
    log = node.ctl("clients", "log")
    assert [(r["n"], r["how"], r["diff"]) for r in log] == [(1, "set", "+127.0.0.9"), (2, "set", "~127.0.0.9"), (3, "delete", "-127.0.0.9"), (4, "revert", "+127.0.0.9")]
    assert all(re.match(r"\S+ \(uid \d+\)$", r["by"]) and r["at"] for r in log)
    assert "event=clients-changed rule=A3 n=3 how=delete by=" in node.log_text()
    node.ctl("clients", "revert", "1")
    assert entry(node, "127.0.0.9")["rate"] == 100


def test_the_more_specific_network_counts(make_node, sink):
    node = make_node(sink.port, workers=1, extra="relay_clients: [127.0.0.0/8]\n")
    node.ctl("clients", "set", "127.0.0.0/24", "--class", "fragile")
    node.ctl("clients", "set", "127.0.0.7", "--class", "robust", "--expires", stamp(-10))
    in_use(node, "127.0.0.7", "550 5.7.1 Relaying denied: the registration of your host has expired")
    assert relays(node, "127.0.0.6").startswith("250") and relays(node, "127.0.1.7").startswith("250")
    assert [node.ctl("clients", "show", ip)["class"] for ip in ("127.0.0.6", "127.0.0.7", "127.0.1.7", "192.0.2.1")] == ["fragile", "mx", "robust", "mx"]
    # host bits do not make it another network
    twice = node.ctl_text("clients", "set", "127.1.2.3/8")
    assert twice.returncode == 1 and re.search(r"registry of clients:\d+: 127\.0\.0\.0/8 is in relay_clients already \(line \d+ of the configuration\)", twice.stderr)
    assert len(node.ctl("clients", "log")) == 2


def test_an_expired_client_may_not_relay(make_node, sink):
    """A3: it runs out by itself; 14 days before, the operator is told."""
    node = make_node(sink.port, workers=1, extra=OUTSIDE)
    node.ctl("clients", "set", "127.0.0.9", "--owner", "maths", "--expires", stamp(4))
    node.ctl("clients", "set", "127.0.0.10", "--owner", "physics", "--expires", "10d")
    node.ctl("clients", "set", "127.0.0.11", "--owner", "law", "--expires", "20d")
    in_use(node, "127.0.0.10", "250")
    in_use(node, "127.0.0.9", "550 5.7.1 Relaying denied: the registration of your host has expired")
    assert entry(node, "127.0.0.9")["expired"] and not entry(node, "127.0.0.10")["expired"]
    assert node.counters()["clients_expired_total"] >= 1 and relays(node, "127.0.0.10").startswith("250")
    text = node.ctl_text("status").stdout
    assert "  3 in the registry\n" in text and "  ! 127.0.0.9 (maths) has expired and may not relay" in text
    assert "  ! 127.0.0.10 (physics) expires within 14 days" in text and "(law)" not in text
    assert re.search(r"127\.0\.0\.9 .* EXPIRED\n", node.ctl_text("clients", "list").stdout)
    node.ctl("clients", "set", "127.0.0.9", "--expires", "never")
    in_use(node, "127.0.0.9", "250")


@pytest.mark.parametrize("args, says", [
    (["127.0.0.300"], '"127.0.0.300" is not a network; write for example 192.0.2.7'),
    (["127.0.0.9", "--class", "mx"], 'class "mx" is not possible; write robust or fragile'),
    (["127.0.0.9", "--rate", "-3"], 'rate "-3" is not possible; write a number of messages, none or default'),
    (["127.0.0.9", "--expires", "tomorrow"], 'expires "tomorrow" is not a day; write for example 2027-01-31'),
    (["127.0.0.9", "--note", "x" * 300], "note has at most 256 characters"),
    (["127.0.0.9", "--owner", "a\nb"], "owner is one line of text"),
])
def test_what_cannot_be_set_changes_nothing(shared, args, says):
    p = shared.ctl_text("clients", "set", *args)
    assert p.returncode == 1 and says in p.stderr, p.stderr
    assert shared.ctl("clients", "log") == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    node = Node(tmp_path_factory.mktemp("clients"), engine="trivial", extra=OUTSIDE)
    yield node
    node.stop()


def test_a_file_in_the_place_of_commands(make_node, sink):
    """A3: errors name file and line; a file with errors changes nothing."""
    node = make_node(sink.port, workers=1, start=False, extra=OUTSIDE + "clients: {file: clients.txt}\n")
    file = node.dir / "clients.txt"
    p = node.ctl_text("config", "check", str(node.config))
    assert p.returncode == 1 and re.search(rf"weir\.yaml:\d\d: clients: {file}: No such file", p.stdout + p.stderr), p.stderr
    file.write_text("# devices\r\n\r\n127.0.0.9 class=fragile owner=chem note=\"no DNS\"\r\n127.0.0.32/27 rate=5\n2001:db8::/32\n")
    node.start()
    assert relays(node, "127.0.0.9").startswith("250") and relays(node, "127.0.0.40").startswith("250") and relays(node, "127.0.0.64").startswith("550")
    assert {e["network"]: e["line"] for e in node.ctl("clients", "list") if e["source"] == "registry"} == {"127.0.0.9": 3, "127.0.0.32/27": 4, "2001:db8::/32": 5}
    p = node.ctl_text("clients", "set", "127.0.0.10")
    assert p.returncode == 1 and f"comes from the file {file}: change it there" in p.stderr

    good = file.read_text()
    file.write_text(good + "127.0.0.9\n10.0.0.0/33\n10.0.0.1 colour=red\n10.0.0.2 class=robust class=robust\n10.0.0.3 note=\"open\n192.0.2.0/24\n")
    p = node.ctl_text("config", "reload")
    assert p.returncode == 1
    for line, says in ((6, "127.0.0.9 is there already (line 3)"), (7, '"10.0.0.0/33" is not a network'), (8, 'unknown key "colour"; there are class, owner, rate, connections, expires and note'),
                       (9, "class is there twice"), (10, "is not KEY=VALUE"), (11, "192.0.2.0/24 is in relay_clients already")):
        assert re.search(re.escape(f"{file}:{line}: ") + ".*" + re.escape(says), p.stdout + p.stderr), (line, p.stdout + p.stderr)
    assert relays(node, "127.0.0.9").startswith("250")
    file.write_text(good.replace("127.0.0.9 ", "127.0.0.10 "))
    assert node.ctl_text("config", "reload").returncode == 0
    in_use(node, "127.0.0.10", "250")
    in_use(node, "127.0.0.9", "550")


def test_the_same_network_twice_in_the_configuration(make_node, sink):
    node = make_node(sink.port, start=False, extra="relay_clients: [127.0.0.0/8, 127.9.9.9/8]\n")
    p = node.ctl_text("config", "check", str(node.config))
    assert p.returncode == 1 and re.search(r"weir\.yaml:\d+: relay_clients: 127\.0\.0\.0/8 is there already \(line \d+\)", p.stdout + p.stderr)


def rules_of(node, ip):
    return node.ctl("clients", "show", ip)["evidence"]["rules"]


def test_what_clients_do_is_noted(make_node, sink):
    """A3: volume, TLS, HELO, rules in monitor mode; whom a tightening would hit, with owner; kept over restarts and crashes."""
    node = make_node(sink.port, extra="relay_clients: [{network: 127.0.0.0/24, name: lab}]\nrates: {mode: monitor, limit: 2}\n"
                     f"policy: {{rules: [{NO_DNS_RULES}, {{rule: mail-loop, mode: hold}}]}}\n")
    node.ctl("clients", "set", "127.0.0.9", "--owner", "chem")
    c = client(node, "127.0.0.9", helo="mri.chem.cam.example")
    for _ in range(3):
        assert c.message("a@cam.example", ["b@cam.example", "c@cam.example"], HEAD).startswith("250")
    quiet = client(node, "127.0.0.2")
    assert quiet.message("a@cam.example", ["b@cam.example"], LOOP).startswith("250")
    assert relays(node, "127.1.0.1").startswith("550 5.7.1")

    e = node.ctl("clients", "show", "127.0.0.9")
    assert (e["class"], e["registration"]["owner"]) == ("robust", "chem")
    e = e["evidence"]
    assert (e["messages"], e["recipients"], e["messages_per_day"], e["tls_messages"], e["tls_sessions"], e["helo"]) == (3, 6, 3.0, 0, 0, "mri.chem.cam.example")
    assert e["rules"] == {"rate": 1} and 0 < e["first_seen"] <= e["last_seen"] and e["sessions"] == 1
    assert rules_of(node, "127.0.0.2") == {"mail-loop": 1} and rules_of(node, "127.1.0.1") == {"relay-denied": 1}

    def hit(rule, *more):
        return [(r["address"], r["owner"], r["hits"], r["evidence"]["messages"]) for r in node.ctl("clients", "--would-break", rule, *more)]
    assert hit("rate") == [("127.0.0.9", "chem", 1, 3)] == hit("A8")
    assert hit("mail-loop") == [("127.0.0.2", "lab", 1, 1)]
    assert hit("tls") == [("127.0.0.9", "chem", 3, 3), ("127.0.0.2", "lab", 1, 1)]
    assert hit("relay-denied") == [] and hit("relay-denied", "--class", "mx") == [("127.1.0.1", "", 1, 0)]
    assert "127.0.0.9" in node.ctl_text("clients", "--would-break", "rate").stdout
    p = node.ctl_text("clients", "--would-break", "rat")
    assert p.returncode == 1 and 'there is no rule "rat"; there are tls, relay-denied' in p.stderr

    assert [x["network"] for x in node.ctl("clients", "list", "--unused", "1h")] == []
    node.ctl("clients", "set", "10.0.0.1")
    assert [x["network"] for x in node.ctl("clients", "list", "--unused", "90d")] == ["10.0.0.1"]
    assert {x["network"]: x["evidence"]["messages"] for x in node.ctl("clients", "list", "--class", "robust")} == {"10.0.0.1": 0, "127.0.0.9": 3, "127.0.0.0/24": 1}

    node.kill_all()
    node.start()
    e = node.ctl("clients", "show", "127.0.0.9")["evidence"]
    assert (e["messages"], e["helo"], e["rules"]) == (3, "mri.chem.cam.example", {"rate": 1})
    # the run directory goes with the machine; clients.directory does not
    node.stop()
    saved = sorted(f.name for f in (node.run / "clients").glob("evidence-*"))
    assert saved == ["evidence-0", "evidence-1"]
    for f in node.run.glob("evidence-*"):
        f.unlink()
    node.start()
    assert rules_of(node, "127.0.0.9") == {"rate": 1}


def test_invalid_senders_and_tls_are_noted(make_node, sink, tmp_path):
    """A3, A6 in mode monitor: an address of ours that the tables do not have."""
    aliases = tmp_path / "aliases"
    aliases.write_text("".join(f"{name}: x@elsewhere.example\n" for name in ("postmaster", "webmaster", "abuse", "known")))
    monitored = NO_DNS_RULES.replace("{rule: sender-unknown, mode: off}", "{rule: sender-unknown, mode: monitor}")
    node = make_node(sink.port, extra=f"relay_clients: [127.0.0.0/8]\nmail_domains: [{{domain: ours.example, aliases: {aliases}}}]\npolicy: {{rules: [{monitored}]}}\n")
    with smtplib.SMTP("127.0.0.1", node.port, source_address=("127.0.0.3", 0)) as s:
        s.starttls(context=ssl._create_unverified_context())
        for name in ("known", "nobody", "Known"):
            s.sendmail(f"{name}@ours.example", ["b@cam.example"], HEAD)
    e = node.ctl("clients", "show", "127.0.0.3")["evidence"]
    assert (e["tls_sessions"], e["tls_messages"], e["messages"], e["senders"], e["senders_invalid"], e["rules"]) == (1, 3, 3, 3, 1, {"sender-unknown": 1})
    assert node.ctl("clients", "--would-break", "tls") == []


def test_the_table_is_bounded_and_registered_clients_stay(make_node, sink):
    node = make_node(sink.port, workers=1, extra="relay_clients: [192.0.2.0/24]\nclients: {evidence: 16}\n")
    node.ctl("clients", "set", "127.0.0.9")
    in_use(node, "127.0.0.9", "250")
    for i in range(30):
        assert relays(node, f"127.0.1.{i + 1}").startswith("550")
    assert node.counters()["evidence_dropped_total"] == 16  # 127.0.0.1, who asked whether the node is up, is another
    seen = [i for i in range(30) if node.ctl("clients", "show", f"127.0.1.{i + 1}")["evidence"]["sessions"]]
    assert seen == list(range(15, 30))
    assert node.ctl("clients", "show", "127.0.0.9")["evidence"]["sessions"] >= 1


def cases():
    """40 ways to use the relay, as bytes in steps."""
    hello = "EHLO device.cam.example"
    mail = ["MAIL FROM:<a@cam.example>", "MAIL FROM:<>", "MAIL FROM:<a@cam.example> SIZE=10", "MAIL FROM:<a@cam.example> SIZE=999999999999", "MAIL FROM:<a b>",
            "MAIL FROM:<a@[192.0.2.1]>", "MAIL FROM:<a@cam.example> BODY=8BITMIME", "MAIL FROM:<a@cam.example> FOO=BAR"]
    rcpt = ["RCPT TO:<b@cam.example>", f"RCPT TO:<{AWAY}>", "RCPT TO:<>", "RCPT TO:<@a:b@cam.example>", "RCPT TO:<b%c@cam.example>", "RCPT TO:<postmaster>",
            "RCPT TO:<b@cam.example> NOTIFY=NEVER", "RCPT TO:b@cam.example"]
    ok = [hello, mail[0], rcpt[0], "DATA"]
    yield from ([hello, m, rcpt[0], "QUIT"] for m in mail)
    yield from ([hello, mail[0], r, "QUIT"] for r in rcpt)
    yield from ([hello, *steps, "QUIT"] for steps in (["HELP"], ["NOOP"], ["VRFY b"], ["EXPN b"], ["RSET"], ["DATA"], ["RCPT TO:<b@cam.example>"], ["AUTH PLAIN"], ["XYZZY"], ["HELO again"],
                                                      ["MAIL"], ["RCPT"], ["TURN"], ["GET / HTTP/1.0"]))
    yield from ([["HELO device"], ["HELO"], ["EHLO"], ["MAIL FROM:<a@cam.example>"]][i] + ["QUIT"] for i in range(4))
    yield from ([*ok, body, "QUIT"] for body in (HEAD + b".", LOOP + b".", HEAD.replace(b"body", b"bo\rdy") + b".", b".", b"From: a@cam.example\r\n\r\n" + b"x" * 5000 + b"\r\n.",
                                                 b"From: a@cam.example\nSubject: bare\n\nx\r\n."))


def replies(port, source, steps):
    c = Smtp(port, source=source)
    said = [c.greeting]
    for step in steps:
        try:
            c.send(step + b"\r\n" if isinstance(step, bytes) else step + "\r\n")
            said.append(c.reply())
        except OSError:
            said.append(None)
        if said[-1] is None or said[-1].startswith(("421", "221")):
            break
    c.close()
    # what is of this message and no other
    return [s and re.sub(r"queued as \S+|reference \S+", "queued as ID", s) for s in said]


def test_the_address_for_devices_behaves_as_the_service_does(make_node, sink):
    """A4: 40 cases on both give identical replies; each address counts its own."""
    port = free_port()
    node = make_node(sink.port, extra="relay_clients: [127.0.0.0/8]\n", listeners=[f'{{address: "127.0.0.1:{port}", name: devices}}'])
    all_cases = list(cases())
    assert len(all_cases) == 40
    for steps in all_cases:
        service, devices = replies(node.port, "127.0.0.5", steps), replies(port, "127.0.0.5", steps)
        assert service == devices and len(service) > 1, steps
    rows = {r["listener"]: r for r in node.ctl("clients", "listeners")}
    a, b = rows[f"127.0.0.1:{node.port}"], rows["devices"]
    # Node.start asked the first for its greeting until it was there
    assert b["sessions"] == 40 and a["sessions"] > 40
    assert (a["messages"], a["recipients"], a["refused"]) == (b["messages"], b["recipients"], b["refused"]) and b["messages"] >= 2 and b["refused"] >= 1
    assert "devices" in node.ctl_text("clients", "listeners").stdout


@pytest.mark.parametrize("name, says", [('"a b"', 'name "a b" is not possible'), ("x" * 60, "is not possible; write at most 47")])
def test_a_listener_has_a_usable_name(make_node, sink, name, says):
    node = make_node(sink.port, start=False, listeners=[f'{{address: "127.0.0.1:{free_port()}", name: {name}}}'])
    p = node.ctl_text("config", "check", str(node.config))
    assert p.returncode == 1 and says in p.stdout + p.stderr
