"""Recipients verified with their destination at RCPT (rule B2), and clients that guess names (B3): what is answered, what is kept in Redis, how many connections and probes were made."""
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from node import BIN, Smtp, free_port, wait_for

OUTSIDE = "relay_clients: [{network: 192.0.2.0/24}]\n"
PATIENT = "redis: {budget: 1s}\n"  # a busy machine may be late; what happens without Redis has a test of its own
KNOWN = ("bob", "eve", "postmaster")


def routes(port, kind="smtp", more=""):
    return '[{domain: cam.example, to: "%s:[127.0.0.1]:%d", tls: never, recipients: verify%s}]' % (kind, port, more)


def users(kind, text):
    """A destination with KNOWN users."""
    if kind == "rcpt" and not re.search(r"<(%s)@" % "|".join(KNOWN), text):
        return "550 5.1.1 nobody of that name\x07 here"
    return None


def redis(node, *args):
    """redis-cli on the node's own Redis; None: no such key."""
    out = subprocess.run(["redis-cli", "-s", node.run / "redis.sock", *args], capture_output=True, timeout=10).stdout.decode("latin-1").rstrip("\n")
    return out or None


def record(node, addr):
    local, domain = addr.rsplit("@", 1)
    return redis(node, "GET", "weir:{%s}:addr:%s" % (domain, local))


def domain_record(node, domain="cam.example"):
    return redis(node, "GET", "weir:{%s}:verify" % domain)


def rcpts(sink):
    return re.findall(r"RCPT TO:<(.*?)>", sink.raw.decode())


def asked(sink):
    """Addresses that it was asked for, without the invented ones."""
    return [r for r in rcpts(sink) if not r.startswith("no-such-user-")]


def rcpt(node, *addrs, port=None):
    s = Smtp(port or node.port, timeout=60)
    assert s.cmd("EHLO client.example").startswith("250")
    assert s.cmd("MAIL FROM:<someone@elsewhere.example>").startswith("250")
    answers = [s.cmd(f"RCPT TO:<{a}>") for a in addrs]
    s.close()
    return answers if len(answers) > 1 else answers[0]


@pytest.fixture
def world(make_node, make_sink):
    """A node whose domain is verified with a sink that knows KNOWN."""
    def make(decide=users, extra="", kind="smtp", workers=2, clients=OUTSIDE, **kw):
        sink = make_sink(decide=decide, lmtp=kind == "lmtp")
        node = make_node(routes=routes(sink.port, kind), extra=clients + extra + ("" if "redis:" in extra else PATIENT), workers=workers, **kw)
        return node, sink

    return make


def test_b2_known_and_unknown(world):
    node, sink = world()
    assert rcpt(node, "bob@cam.example").startswith("250")
    no = rcpt(node, "nobody@cam.example")
    assert no.startswith("550 5.1.1") and "nobody of that name? here" in no, no  # the remote's own text, without its controls (P11)
    assert record(node, "bob@cam.example").startswith("W1 yes ")
    assert record(node, "nobody@cam.example").startswith("W1 no ")
    assert domain_record(node).startswith("W1 yes ")
    for _ in range(10):
        assert rcpt(node, "bob@cam.example").startswith("250")
        assert rcpt(node, "nobody@CAM.example").startswith("550 5.1.1")
    assert sorted(asked(sink)) == ["bob@cam.example", "nobody@cam.example"]
    assert len(rcpts(sink)) == 3, "an invented name is tried once for the domain"
    assert b"MAIL FROM:<>" in sink.raw and b"DATA" not in sink.raw and not sink.messages
    # how long: 7 d for a yes (24 h and then as what was good before an outage), 2 h for a no, 7 d for the domain
    for key, life in (("weir:{cam.example}:addr:bob", 7 * 86400), ("weir:{cam.example}:addr:nobody", 7200), ("weir:{cam.example}:verify", 7 * 86400)):
        assert life - 60 < int(redis(node, "TTL", key)) <= life
    # all names of a domain share a hash tag, and there is no claim left
    assert not redis(node, "KEYS", "*:ask:*")


def test_b2_message_is_delivered_and_teaches(world):
    """What a delivery shows is not asked for; a 5.1.1 to a delivery is remembered, too."""
    gone = []

    def decide(kind, text):
        return "550 5.1.1 left us" if kind == "rcpt" and gone else users(kind, text)

    node, sink = world(decide)
    s = Smtp(node.port)
    s.cmd("EHLO c.example")
    assert s.message("x@elsewhere.example", ["bob@cam.example"], b"Subject: a\r\n\r\nb\r\n").startswith("250")
    assert wait_for(lambda: sink.count == 1)
    gone.append(1)
    assert s.message("", ["bob@cam.example"], b"Subject: a\r\n\r\nb\r\n").startswith("250"), "known to be good"
    assert wait_for(lambda: (record(node, "bob@cam.example") or "").startswith("W1 no")), record(node, "bob@cam.example")
    assert node.counters()["verify_learnt_total"] >= 1
    # the other worker looks at Redis again within a minute; this domain's addresses are looked up anew at once after "forget"
    gone.clear()
    assert node.ctl_text("verify", "forget", "bob@cam.example").returncode == 0
    assert record(node, "bob@cam.example") is None
    assert rcpt(node, "bob@cam.example").startswith("250")


def test_b2_tables_come_first(make_node, make_sink):
    """An alias is known by the tables; what is not listed is asked for; several targets are not."""
    sink = make_sink(decide=users)
    files = "alice:bob\nmany:bob,nobody\ndead:nobody\npostmaster:bob\n"
    node = make_node(routes='[{domain: cam.example, to: "smtp:[127.0.0.1]:%d", tls: never}]' % sink.port, start=False, extra=OUTSIDE)
    (node.dir / "aliases").write_text(re.sub(r"(?<=[:,])(\w+)", r"\1@cam.example", files))
    node.config.write_text(node.config.read_text() + "mail_domains:\n  - {domain: cam.example, aliases: aliases, unlisted: deliver, recipients: verify}\n"
                           "  - {domain: long.example, long_form_of: cam.example}\n")
    node.start()
    assert rcpt(node, "alice@cam.example", "many@cam.example", "bob@cam.example", "eve@long.example")[3].startswith("250")
    assert rcpt(node, "dead@cam.example").startswith("550 5.1.1"), "one address behind it, which is not there"
    assert rcpt(node, "who@long.example").startswith("550 5.1.1 who@long.example")
    assert rcpt(node, "PostMaster@cam.example", "many@cam.example")[0].startswith("250"), "B4"
    assert sorted(set(asked(sink))) == ["bob@cam.example", "eve@cam.example", "nobody@cam.example", "who@cam.example"]


def test_b2_one_probe_for_many_sessions_and_two_nodes(world, make_node, make_sink):
    """However many ask at a time, on two nodes with one Redis: one probe."""
    def slow(kind, text):
        if kind == "rcpt" and "bob" in text:
            time.sleep(1.0)
        return users(kind, text)

    node, sink = world(slow)
    other = make_node(routes=routes(sink.port), extra=OUTSIDE + f"redis: {{server: \"unix:{node.run}/redis.sock\", budget: 1s}}\n", name="other")
    answers = []
    threads = [threading.Thread(target=lambda n=n: answers.append(rcpt(n, "bob@cam.example"))) for n in (node, other) * 10]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(answers) == 20 and all(a.startswith("250") for a in answers), answers
    assert asked(sink) == ["bob@cam.example"] and sink.connections == 1
    # what one has learnt the other knows
    assert rcpt(node, "nobody@cam.example").startswith("550 5.1.1") and rcpt(other, "nobody@cam.example").startswith("550 5.1.1")
    assert asked(sink).count("nobody@cam.example") == 1


def test_b2_each_reply_is_about_its_recipient(world):
    """However the commands came, in pieces or many at a time, while some are waited for."""
    def slow(kind, text):
        if kind == "rcpt":
            time.sleep(0.2)
        return users(kind, text)

    node, sink = world(slow)
    s = Smtp(node.port)
    s.cmd("EHLO c.example")
    s.cmd("MAIL FROM:<x@elsewhere.example>")
    s.send("RCPT TO:<nobody1@cam")
    time.sleep(0.2)
    s.send(".example>\r\nNOOP " + "z" * 400 + "\r\n" + "".join(f"RCPT TO:<@a.example:nobody{i}@CAM.example>\r\n" for i in (2, 3)) + "RCPT TO:<bob@cam.example>\r\n"
           + "RCPT TO:<nobody4@cam.exa")
    answers = [s.reply() for _ in range(5)]
    s.send("mple>\r\nDATA\r\n")
    answers += [s.reply(), s.reply()]
    s.send("Subject: a\r\n\r\nb\r\n.\r\n")
    assert s.reply().startswith("250")
    for i, name in ((0, "nobody1@cam.example"), (2, "nobody2@CAM.example"), (3, "nobody3@CAM.example"), (5, "nobody4@cam.example")):
        assert answers[i].startswith(f"550 5.1.1 {name}: "), answers
    assert answers[4].startswith("250 2.1.5") and answers[6].startswith("354")
    assert wait_for(lambda: sink.count == 1) and sink.messages[0]["to"] == ["bob@cam.example"]
    assert asked(sink)[:5] == [f"nobody{i}@cam.example" for i in (1, 2, 3)] + ["bob@cam.example", "nobody4@cam.example"]
    s.close()


def test_b2_a_recipient_outlives_its_line(world):
    """While it is waited for others use the buffers that the command came in."""
    def slow(kind, text):
        if kind == "rcpt":
            time.sleep(3)
        return users(kind, text)

    node, sink = world(slow, workers=1, extra="limits: {commands: 0}\n")
    s, t = Smtp(node.port), Smtp(node.port)
    s.cmd("EHLO c.example")
    s.cmd("MAIL FROM:<x@elsewhere.example>")
    s.send("RCPT TO:<nobody@cam.example>\r\n")
    for _ in range(3000):
        assert t.cmd("NOOP " + "y" * 400).startswith("250")
    assert s.reply().startswith("550 5.1.1 nobody@cam.example: ")
    s.close()
    t.close()


def test_b2_accepts_everything(world):
    node, sink = world(lambda kind, text: None)
    assert rcpt(node, "bob@cam.example").startswith("250")
    assert domain_record(node).startswith("W1 all ")
    for i in range(20):
        assert rcpt(node, f"x{i}@cam.example").startswith("250")
    assert len(rcpts(sink)) == 2, "the first one, and the invented one beside it"


def test_b2_greylisting(world):
    node, sink = world(lambda kind, text: "450 4.2.0 come back later" if kind == "rcpt" else None)
    for _ in range(5):
        a = rcpt(node, "bob@cam.example")
        assert a.startswith("451 4.2.0") and "come back later" in a, a
    assert record(node, "bob@cam.example").startswith("W1 nothing 0 ") and domain_record(node) is None
    assert asked(sink) == ["bob@cam.example"], "not again before verify.retry"


def test_b2_refuses_the_null_sender(world):
    """It cannot be asked: its addresses are taken, as nothing better can be known."""
    node, sink = world(lambda kind, text: "550 5.7.1 no null senders" if kind == "mail" and "<>" in text else users(kind, text))
    assert rcpt(node, "bob@cam.example", "nobody@cam.example") and domain_record(node).startswith("W1 mute ")
    assert rcpt(node, "nobody@cam.example").startswith("250")
    assert sink.raw.count(b"MAIL FROM:<>") == 1


@pytest.mark.parametrize("how", ["connect", "ehlo", "mail", "rcpt"])
def test_b2_closes(world, how):
    node, sink = world(lambda kind, text: "close" if kind == how else None, extra="delivery: {retry_first: 30s, retry_max: 60s}\n")
    if how == "connect":
        sink.decide = lambda kind, text: "554 5.3.2 no service" if kind == "connect" else None
    a = rcpt(node, "bob@cam.example")
    assert a.startswith("451 4.4.2"), a
    assert rcpt(node, "bob@cam.example").startswith("451 4.4.2")
    assert record(node, "bob@cam.example").startswith("W1 nothing 0 ")
    assert sink.connections <= 2


class Tarpit:
    """A destination that says nothing, or next to nothing."""

    def __init__(self, greet=b""):
        self.port, self.connections, self.greet, self.open = free_port(), 0, greet, []
        self.s = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                c, _ = self.s.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(c)
            c.sendall(self.greet)

    def stop(self):
        self.s.close()
        for c in self.open:
            c.close()


class Tap:
    """Stands before a server and counts: connections, and what was said to it."""

    def __init__(self, to):
        self.port, self.to, self.connections, self.said = free_port(), to, 0, bytearray()
        self.s = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                c, _ = self.s.accept()
                s = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.copy, args=(c, s, self.said), daemon=True).start()
            threading.Thread(target=self.copy, args=(s, c, None), daemon=True).start()

    @staticmethod
    def copy(a, b, said):
        try:
            while data := a.recv(65536):
                if said is not None:
                    said += data
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def stop(self):
        self.s.close()


@pytest.fixture
def tarpit():
    t = Tarpit()
    yield t
    t.stop()


def test_b2_tarpit(make_node, tarpit):
    """RCPT waits verify.wait, not longer; a probe verify.probe_time."""
    node = make_node(routes=routes(tarpit.port), extra=OUTSIDE + "verify: {wait: 500ms, probe_time: 2s}\n", workers=1)
    a = rcpt(node, "bob@cam.example")
    assert a.startswith("451 4.4.1"), a
    assert wait_for(lambda: record(node, "bob@cam.example"))
    assert rcpt(node, "bob@cam.example").startswith("451 4.4.1")
    assert tarpit.connections == 1
    assert node.counters()["verify_probes_total"] == 1


def test_b2_outage(world):
    """While the destination is away what was good is taken, for as long as verify.domain_yes; what is not known gets 451 (4.4)."""
    node, sink = world(extra="verify: {address_yes: 1s, address_no: 1s, retry: 1s}\ndelivery: {retry_first: 1s, retry_max: 1s, idle: 0s}\n")
    assert rcpt(node, "bob@cam.example").startswith("250")
    sink.stop()
    assert wait_for(lambda: not rcpt(node, "other@cam.example").startswith("250"))
    at = int(record(node, "bob@cam.example").split()[2])
    assert wait_for(lambda: rcpt(node, "bob@cam.example").startswith("250") and int(record(node, "bob@cam.example").split()[3]) > at)
    assert record(node, "bob@cam.example").split()[:3] == ["W1", "yes", str(at)], "the yes stays, with the note that it was asked for in vain"
    assert rcpt(node, "bob@cam.example").startswith("250")
    assert rcpt(node, "eve@cam.example").startswith("451 4.4.")
    assert node.counters()["verify_outage_total"] > 0


def test_a5_fragile_never_waits(make_node, tarpit):
    node = make_node(routes=routes(tarpit.port), extra="relay_clients: [{network: 127.0.0.0/8, class: fragile}]\nverify: {wait: 60s}\n")
    assert rcpt(node, "bob@cam.example").startswith("250")
    assert tarpit.connections == 0


def test_b2_claim_of_a_dead_node(world):
    """Who has the claim may die: it ends by itself, and the next one asks."""
    node, sink = world(extra="verify: {wait: 8s, probe_time: 10s}\n")
    redis(node, "SET", "weir:{cam.example}:ask:bob", "somebody else", "PX", "1500")
    assert rcpt(node, "bob@cam.example").startswith("250") and asked(sink) == ["bob@cam.example"]
    assert node.counters()["verify_joined_total"] == 1


def test_b2_dns_is_undecided(make_node):
    """Nothing is learnt of a domain whose DNS does not answer."""
    node = make_node(routes='[{domain: cam.example, to: mx, recipients: verify}]', extra=OUTSIDE + 'dns: {servers: ["127.0.0.1:%d"], timeout: 300ms}\n' % free_port())
    assert rcpt(node, "bob@cam.example").startswith("451 4.4.3"), "DNS is undecided"
    assert domain_record(node) is None


def test_b2_budget(world):
    node, sink = world(extra="verify: {probes_per_minute: 5}\n", workers=1)
    answers = [rcpt(node, f"n{i}@cam.example") for i in range(12)]
    assert [a[:9] for a in answers if not a.startswith("550 5.1.1")] == ["451 4.4.5"] * (12 - len(asked(sink)))
    assert 4 <= len(asked(sink)) <= 6 and node.counters()["verify_over_budget_total"] == 12 - len(asked(sink))
    assert rcpt(node, "n0@cam.example").startswith("550 5.1.1"), "what is known is known"


def test_b2_without_redis(world):
    """The worker's own cache and probes go on, visibly degraded."""
    node, sink = world(workers=1, extra="redis: {budget: 20ms}\n")
    os.kill(node.redis_pid(), signal.SIGSTOP)
    try:
        assert rcpt(node, "bob@cam.example").startswith("250") and rcpt(node, "nobody@cam.example").startswith("550 5.1.1")
        assert rcpt(node, "bob@cam.example").startswith("250") and rcpt(node, "nobody@cam.example").startswith("550 5.1.1")
        assert sorted(asked(sink)) == ["bob@cam.example", "nobody@cam.example"]
    finally:
        os.kill(node.redis_pid(), signal.SIGCONT)
    down = make_down(node)
    assert rcpt(node, "eve@cam.example").startswith("250") and "remembered, by each worker" in down()


def make_down(node):
    pid = node.redis_pid()
    os.kill(node.proc.pid, signal.SIGSTOP)  # the supervisor does not start it again
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: node.counters()["redis_up"] == 0)

    def status():
        text = node.ctl_text("status").stdout
        os.kill(node.proc.pid, signal.SIGCONT)
        return text

    return status


@pytest.mark.parametrize("value", ["", "W1", "W2 yes 1 0 0", "W1 yes 99999999999999 0 0", "W1 yes 4102444800000 0 0", "W1 no 1 0 250 2.1.5 ok", "W1 all -1 0 0",
                                   "W1 no 1 0 550 5.1.1 a\x01b", "W1 yes 1 0 0 trailing", "W1 no 1 0 550 9.1.1 x", "x" * 100000, "W1 mute 1 0 0"])
def test_b2_hostile_records_are_not_believed(world, value):
    node, sink = world(workers=1)
    for key in (":addr:bob", ":verify", ":forget", ":addr:nobody"):
        redis(node, "SET", "weir:{cam.example}" + key, value)
    assert rcpt(node, "bob@cam.example").startswith("250") and rcpt(node, "nobody@cam.example").startswith("550 5.1.1")
    assert node.counters()["verify_bad_records_total"] > 0 and len(asked(sink)) == 2


def test_b2_show_and_forget(world):
    node, sink = world(workers=1)
    rcpt(node, "bob@cam.example", "nobody@cam.example")
    rows = node.ctl("verify", "show", "nobody@cam.example")
    assert {(r["where"], r["what"], r["known"]) for r in rows} == {(w, *x) for w in ("worker", "redis") for x in (("nobody@cam.example", "no"), ("cam.example", "yes"))}
    assert "nobody of that name" in node.ctl_text("verify", "show", "nobody@cam.example").stdout
    assert node.ctl_text("verify", "forget", "cam.example").returncode == 0
    assert rcpt(node, "bob@cam.example").startswith("250") and rcpt(node, "nobody@cam.example").startswith("550")
    assert asked(sink).count("bob@cam.example") == 2 and asked(sink).count("nobody@cam.example") == 2
    assert node.ctl_text("verify", "show", "not an address").returncode == 1 and node.ctl_text("verify").returncode == 2


def test_b3_dictionary_attack(world):
    """10,000 invented names from one client: few probes, slowed, then 421, on both workers; others are served."""
    node, sink = world(extra="dictionary: {slow_after: 5, delay: 100ms, refuse_after: 20, refuse_for: 1h}\nverify: {probes_per_minute: none}\n"
                       "limits: {errors: 0, commands: 0}\n")
    tried, ended = 0, 0
    while tried < 10000:
        s = Smtp(node.port)
        if s.greeting.startswith("421 4.7.0"):
            ended += 1
            tried += 100  # what the attacker would have sent in this session
            s.close()
            continue
        s.cmd("EHLO c.example")
        s.cmd("MAIL FROM:<x@elsewhere.example>")
        for _ in range(100):
            tried += 1
            a = s.cmd(f"RCPT TO:<guess{tried}@cam.example>")
            if a.startswith("421 4.7.0"):
                ended += 1
                assert s.reply() is None, "and the connection is closed"
                break
            assert a.startswith("550 5.1.1"), a
        s.close()
    c = node.counters()
    assert ended > 50 and len(asked(sink)) <= 22, len(asked(sink))
    assert c["dictionary_slowed_total"] >= 14 and c["dictionary_refused_total"] == ended
    assert redis(node, "GET", "weir:{bad/127.0.0.1}:refused") == "1"
    assert "dictionary-attack" in node.log_text()
    other = Smtp(node.port, source="127.0.0.2")
    other.cmd("EHLO c.example")
    other.cmd("MAIL FROM:<x@elsewhere.example>")
    assert other.cmd("RCPT TO:<bob@cam.example>").startswith("250")
    other.close()


@pytest.mark.parametrize("text, says", [
    ("verify: {wait: 5m}", "verify.wait"),
    ("verify: {wait: 60s, probe_time: 10s}", "must not be longer than verify.probe_time"),
    ("verify: {address_yes: 8d}", "must not be longer than verify.domain_yes"),
    ("dictionary: {slow_after: 101}", "must not be more than dictionary.refuse_after"),
    ("verify: {probes_per_minute: 1}", "must be at least 2, or none"),
    ('routes: [{domain: a.example, to: mx, recipients: maybe}]', "write any or verify"),
    ('mail_domains: [{domain: a.example, retired: gone, recipients: verify}]', "goes with to, backup_mx or unlisted"),
])
def test_configuration_errors(tmp_path, text, says):
    (tmp_path / "weir.yaml").write_text("hostname: relay.cam.example\n" + text + "\n")
    p = subprocess.run([BIN / "weirctl", "config", "check", tmp_path / "weir.yaml"], capture_output=True, text=True)
    assert p.returncode == 1 and says in p.stderr, p.stderr


def test_modes_of_what_verification_finds(world):
    """D2, A12: what destinations say, and the count of unknown names, are findings of rules with modes and a help page."""
    rules = "{rule: recipient-unverified, mode: monitor}, {rule: recipient-unknown, class: mx, mode: defer}, {rule: dictionary-attack, mode: monitor}"
    node, sink = world(decide=lambda k, t: "451 4.3.0 not now" if "<busy@" in t else users(k, t), workers=1,
                       extra=f'policy: {{help_url: "https://help.example/{{code}}", rules: [{rules}, {{rule: sender-domain, mode: off}}, {{rule: header-from, mode: off}}]}}\n'
                             "dictionary: {slow_after: 2, refuse_after: 4, delay: 60s}\n")
    assert rcpt(node, "bob@cam.example", "busy@cam.example") == ["250 2.1.5 Ok"] * 2
    got = [rcpt(node, f"guess{i}@cam.example") for i in range(6)]
    assert all(r.startswith("450 4.1.1 guess") and r.endswith(" [recipient-unknown] https://help.example/recipient-unknown") for r in got), got
    log = node.log_text()
    assert "event=would-reject rule=B2 code=recipient-unverified mode=monitor" in log and "event=rejected rule=B2 code=recipient-unknown mode=defer" in log
    assert len(re.findall("event=dictionary-attack rule=B3 mode=monitor client=127.0.0.1 refused_s=0", log)) == 2  # the 5th and 6th: the average is a little below the number
    assert node.counters()["dictionary_refused_total"] == 0
