"""The submission service: AUTH against a password file and against Dovecot, its limits, and what a user may send (A9, P4, P19)."""
import base64
import concurrent.futures
import hashlib
import hmac
import os
import re
import secrets
import signal
import smtplib
import socket
import ssl
import subprocess
import textwrap
import time

import pytest
from node import BIN, Smtp, have, wait_for

HEAD = b"From: bob@cam.example\r\nSubject: test\r\n\r\n"
OUTSIDE = "relay_clients: [{network: 192.0.2.0/24}]\n"  # the test's own client is nobody there
TRUST = ssl._create_unverified_context()


def b64(data):
    return base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()


def unb64(text):
    return base64.b64decode(text)


def line_for(user, password, *options):
    return subprocess.run([BIN / "weirctl", "auth", "hash", *options, user], input=password + "\n", capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def lines():
    return {"bob": line_for("bob", "secret"), "ann": line_for("ann", "Käse"), "tim": line_for("tim", "tanstaaf", "--no-scram")}


@pytest.fixture
def passwords(tmp_path, lines):
    path = tmp_path / "passwords"
    path.write_text("# users\n\n" + lines["bob"] + lines["ann"])
    return path


@pytest.fixture
def make_submission(make_node, sink, passwords):
    def make(auth="", more="", **kw):
        delay = "" if "failure_delay" in auth else ", failure_delay: 10ms"  # tests fail often
        return make_node(sink.port, submission=True, extra=OUTSIDE + f"auth: {{password_file: {passwords}{auth}{delay}}}\n" + more, **kw)

    return make


class Client(Smtp):
    """A raw client that can begin TLS."""

    def __init__(self, node, implicit=False, tls=True, source="127.0.0.1"):
        if not implicit:
            super().__init__(node.submission, source=source)
            self.cmd("EHLO client.test")
            if tls:
                self.starttls()
            return
        self.s = TRUST.wrap_socket(socket.create_connection(("127.0.0.1", node.submissions), 30, source_address=(source, 0)))
        self.f = self.s.makefile("rb")
        self.greeting = self.reply()
        self.ehlo = self.cmd("EHLO client.test")

    def starttls(self):
        assert self.cmd("STARTTLS").startswith("220")
        self.s = TRUST.wrap_socket(self.s)
        self.f = self.s.makefile("rb")
        self.ehlo = self.cmd("EHLO client.test")

    def plain(self, user, password):
        return self.cmd("AUTH PLAIN " + b64(f"\0{user}\0{password}"))

    def login(self, user, password):
        assert self.cmd("AUTH LOGIN") == "334 " + b64("Username:")
        assert self.cmd(b64(user)) == "334 " + b64("Password:")
        return self.cmd(b64(password))

    def scram_first(self, user):
        """Gives salt and iterations, or the reply when it is no challenge."""
        self.bare = f"n={user},r={secrets.token_hex(12)}"
        reply = self.cmd("AUTH SCRAM-SHA-256 " + b64("n,," + self.bare))
        if not reply.startswith("334 "):
            return reply
        self.first = unb64(reply[4:]).decode()
        nonce, salt, iterations = re.fullmatch(r"r=(.*),s=(.*),i=(\d+)", self.first).groups()
        assert nonce.startswith(self.bare.split("r=")[1]) and len(nonce) >= 24 + 18
        self.nonce = nonce
        return salt, int(iterations)

    def scram(self, user, password):
        first = self.scram_first(user)
        if isinstance(first, str):
            return first
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), unb64(first[0]), first[1])
        key = hmac.digest(salted, b"Client Key", "sha256")
        unproved = f"c=biws,r={self.nonce}"
        message = f"{self.bare},{self.first},{unproved}".encode()
        signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
        reply = self.cmd(b64(unproved + ",p=" + b64(bytes(a ^ b for a, b in zip(key, signature)))))
        if not reply.startswith("334 "):
            return reply
        assert unb64(reply[4:]).decode() == "v=" + b64(hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256"))
        return self.cmd("")


METHODS = ("plain", "login", "scram")


def outcome(node, method, user, password):
    c = Client(node)
    reply = getattr(c, method)(user, password)
    c.close()
    return reply


def test_auth_is_offered_and_taken_only_under_tls_on_submission(make_submission):
    node = make_submission()
    mx = Smtp(node.port)
    assert "AUTH" not in mx.cmd("EHLO client.test")
    assert mx.cmd("AUTH PLAIN " + b64("\0bob\0secret")).startswith("502 5.5.1")
    assert mx.cmd("MAIL FROM:<bob@cam.example>").startswith("250")
    assert mx.cmd("RCPT TO:<x@example.org>").startswith("550 5.7.1")
    clear = Client(node, tls=False)
    ehlo = clear.cmd("EHLO client.test")
    assert "STARTTLS" in ehlo and "AUTH" not in ehlo
    assert clear.cmd("AUTH PLAIN " + b64("\0bob\0secret")).startswith("538 5.7.11")
    assert clear.cmd("MAIL FROM:<bob@cam.example>").startswith("530 5.7.0")
    clear.starttls()
    for c in (clear, Client(node, implicit=True)):
        assert "250-AUTH PLAIN LOGIN SCRAM-SHA-256" in c.ehlo and "STARTTLS" not in c.ehlo
        assert c.cmd("MAIL FROM:<bob@cam.example>").startswith("530 5.7.0")
        assert c.cmd("AUTH CRAM-MD5").startswith("504 5.5.4")
        assert c.cmd("AUTH PLAIN").startswith("334 ")
        assert c.cmd("*").startswith("501 ")
        assert c.cmd("AUTH PLAIN !!!!").startswith("501 5.5.2")
        assert c.cmd("AUTH PLAIN =").startswith("501 5.5.2")
        assert c.cmd("AUTH LOGIN").startswith("334 ")
        assert c.cmd("A" * 4000).startswith("500 5.5.6")
        assert c.cmd("AUTH SCRAM-SHA-256 " + b64("p=tls-exporter,,n=bob,r=abc")).startswith("501 5.5.2")
        assert c.plain("bob", "secret") == "235 2.7.0 Authentication succeeded"
        assert c.plain("bob", "secret").startswith("503 5.5.1")
        assert c.cmd("MAIL FROM:<bob@cam.example> AUTH=<>").startswith("250")
        assert c.cmd("AUTH PLAIN").startswith("503 5.5.1")
        assert c.cmd("RCPT TO:<x@example.org>").startswith("250")
        c.close()
    assert node.counters()["auth_checks_total"] == 2
    assert "secret" not in node.log_text() and b64("\0bob\0secret") not in node.log_text()


def test_commands_behind_starttls_are_not_run(make_submission):
    node = make_submission()
    c = Client(node, tls=False)
    c.send("STARTTLS\r\nAUTH PLAIN " + b64("\0bob\0secret") + "\r\n")
    with pytest.raises((ssl.SSLError, OSError, AttributeError)):
        assert c.reply().startswith("220")  # or nothing at all any more
        TRUST.wrap_socket(c.s).read(1)
    assert node.counters()["auth_success_total"] == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_user_logs_in_and_relays(make_submission, sink, method):
    node = make_submission()
    for user, password in (("bob", "secret"), ("ann", "Käse")):
        c = Client(node, implicit=user == "ann")
        assert getattr(c, method)(user, password).startswith("235 2.7.0")
        assert c.message(f"{user}@cam.example", ["x@example.org"], HEAD).startswith("250")
        c.close()
    assert wait_for(lambda: sink.count == 2)
    assert all(b" with ESMTPSA\r\n" in m["data"] for m in sink.messages)
    assert re.search(r"event=accepted .*user=bob .*from=bob@cam.example", node.log_text())
    assert node.counters()["auth_success_total"] == 2


def test_ordinary_clients(make_submission, sink, tmp_path):
    node = make_submission()
    for kind in (smtplib.SMTP, smtplib.SMTP_SSL):
        ssl_on = kind is smtplib.SMTP_SSL
        c = kind("127.0.0.1", node.submissions, context=TRUST) if ssl_on else kind("127.0.0.1", node.submission)
        if not ssl_on:
            c.starttls(context=TRUST)
        with pytest.raises(smtplib.SMTPAuthenticationError) as e:
            c.login("bob", "wrong")
        assert e.value.smtp_code == 535
        c.login("bob", "secret")
        c.sendmail("bob@cam.example", ["x@example.org"], HEAD)
        c.quit()
    swaks = ["swaks", "--from", "bob@cam.example", "--to", "x@example.org", "-au", "bob", "-ap"]
    for options in (["--auth", "PLAIN", "-tls"], ["--auth", "LOGIN", "-tls"], ["--auth", "PLAIN", "-tlsc"]):
        port = node.submissions if "-tlsc" in options else node.submission
        p = subprocess.run([*swaks, "secret", "--server", f"127.0.0.1:{port}", *options], capture_output=True, text=True, timeout=60)
        assert p.returncode == 0, p.stdout + p.stderr
    p = subprocess.run([*swaks, "wrong", "--server", f"127.0.0.1:{node.submission}", "-tls"], capture_output=True, text=True, timeout=60)
    assert p.returncode == 28 and "535 5.7.8" in p.stdout
    have_scram = "SCRAM-SHA-256" in subprocess.run(["msmtp", "--version"], capture_output=True, text=True).stdout.upper()
    methods = ["plain", "login"] + ["scram-sha-256"] * have_scram
    for method in methods:
        p = subprocess.run(["msmtp", "--host=127.0.0.1", f"--port={node.submission}", "--tls=on", "--tls-certcheck=off", f"--auth={method}", "--user=bob",
                            "--passwordeval=echo secret", "--from=bob@cam.example", "--file=/dev/null", "x@example.org"],
                           input=HEAD.replace(b"\r\n", b"\n"), capture_output=True, timeout=60)
        assert p.returncode == 0, (method, p.stderr)
    assert wait_for(lambda: sink.count == 5 + len(methods))


def test_unknown_user_and_wrong_password_look_alike_and_cost_the_same(make_submission):
    node = make_submission()
    answers = set()
    for method in METHODS:
        before = node.counters()
        for user in ("bob", "nobody"):
            answers.add(outcome(node, method, user, "wrong"))
        after = node.counters()
        # the same code: both were looked at, with somebody's hash or verifier
        assert after["auth_checks_total"] - before["auth_checks_total"] == 2
        assert after["auth_failures_total"] - before["auth_failures_total"] == 2
    assert answers == {"535 5.7.8 Authentication credentials are invalid"}
    salts = {user: {Client(node).scram_first(user) for _ in range(8)} for user in ("bob", "nobody", "noone")}
    assert all(len(s) == 1 for s in salts.values())  # on every worker, every time
    assert len(set.union(*salts.values())) == 3
    assert {(len(salt), i) for s in salts.values() for salt, i in s} == {(24, 10000)}
    node.stop()
    node.start()  # nor do they change with a restart
    assert {Client(node).scram_first("nobody")} == salts["nobody"]


def test_a_failure_is_answered_at_a_time_that_was_fixed_when_it_was_asked(make_submission, passwords, lines):
    """P19: however long a hash takes. That all of them go by one timer shows by none of them coming before it; auth_delay_test has what the timer is set to."""
    made = subprocess.run(["perl", "-e", 'print crypt("secret", q($6$rounds=1000$abcdefgh))'], capture_output=True, text=True, check=True).stdout
    passwords.write_text(lines["bob"] + lines["tim"] + f"six:{made}\n" + "vic:{SCRAM-SHA-256}" + lines["ann"].split("{SCRAM-SHA-256}")[1] + "gone:!\n")
    node = make_submission(auth=", mechanisms: [plain, login, scram-sha-256], failure_delay: 500ms")

    def took(method, user, password="wrong"):
        c = Client(node)
        begin = time.monotonic()
        reply = getattr(c, method)(user, password)
        took = time.monotonic() - begin
        c.close()
        assert reply.startswith("535 5.7.8"), reply
        return took

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(took, method, user) for method in ("plain", "login") for user in ("bob", "tim", "six", "vic", "gone", "nobody", "n" * 250)]
        jobs += [pool.submit(took, "plain", "bob", "x" * 600)]  # refused before anybody is asked
        assert min(j.result() for j in jobs) > 0.49  # the clock is that of the turn
    passwords.write_text(lines["bob"] + lines["ann"])
    assert wait_for(lambda: all("SCRAM-SHA-256" in Client(node).ehlo for _ in range(8)))  # on both workers
    assert min(took("scram", user) for user in ("bob", "nobody")) > 0.49
    # who goes away meanwhile, or is told to, is no trouble
    for user in ("bob", "nobody"):
        c = Client(node)
        c.send("AUTH PLAIN " + b64(f"\0{user}\0wrong") + "\r\n")
        c.close()
    c = Client(node)
    failures = node.counters()["auth_failures_total"]
    c.send("AUTH PLAIN " + b64("\0bob\0wrong") + "\r\n")
    assert wait_for(lambda: node.counters()["auth_failures_total"] > failures)
    c.s.shutdown(socket.SHUT_WR)
    assert outcome(node, "plain", "bob", "secret").startswith("235")


def test_scram_is_offered_only_when_everybody_can_use_it(make_submission, passwords, lines):
    passwords.write_text(lines["bob"] + lines["tim"])
    node = make_submission(workers=1)  # each reads the file in its own time
    c = Client(node)
    assert "250-AUTH PLAIN LOGIN\n" in c.ehlo
    assert c.cmd("AUTH SCRAM-SHA-256").startswith("534 5.7.9")
    assert outcome(node, "plain", "tim", "tanstaaf").startswith("235")
    passwords.write_text(lines["bob"] + "tim:{SCRAM-SHA-256}" + lines["ann"].split("{SCRAM-SHA-256}")[1] + "gone:!\n")
    assert wait_for(lambda: "SCRAM-SHA-256" in Client(node).ehlo)
    for method in METHODS:  # a verifier is enough for all of them
        assert outcome(node, method, "tim", "Käse").startswith("235"), method
        assert outcome(node, method, "gone", "!").startswith("535"), method


def test_mechanisms_can_be_forbidden(make_submission, passwords, lines):
    node = make_submission(auth=", mechanisms: [scram-sha-256]")
    for more in ("", lines["tim"]):  # one more who has no verifier, and has himself to blame
        passwords.write_text(passwords.read_text() + more)
        time.sleep(1.5 * bool(more))
        c = Client(node)
        assert "250-AUTH SCRAM-SHA-256\n" in c.ehlo
        assert c.plain("bob", "secret").startswith("534 5.7.9")
        assert c.scram("bob", "secret").startswith("235")


def test_the_file_is_read_again_and_bad_lines_never_take_it_down(make_submission, passwords, lines):
    node = make_submission()
    assert outcome(node, "plain", "tim", "tanstaaf").startswith("535")
    new = passwords.with_suffix(".new")
    new.write_text(lines["bob"] + "no hash here\n" + "old:$1$abc$xxxxxxxxxxxxxxxxxxxxxx\n" + lines["tim"] + lines["bob"] + "x:{SCRAM-SHA-256}1,2,3\n")
    new.rename(passwords)
    assert wait_for(lambda: node.counters()["auth_bad_lines"] == 2 * 4)  # two workers
    log = node.log_text()
    for number in (2, 3, 5, 6):
        assert log.count(f"{passwords}:{number}: ") == 2, number
    assert "xxxxxxx" not in log
    check = node.ctl_text("auth", "check", passwords)
    assert check.returncode == 1 and f"{passwords}:3: " in check.stderr and "2 users, 4 bad lines" in check.stdout
    assert outcome(node, "plain", "tim", "tanstaaf").startswith("235")
    assert outcome(node, "plain", "bob", "secret").startswith("235")
    assert outcome(node, "plain", "ann", "Käse").startswith("535")
    passwords.unlink()
    assert wait_for(lambda: node.counters()["auth_down"] == 2)
    assert "password file cannot be read" in node.ctl_text("status").stdout
    assert outcome(node, "plain", "bob", "secret").startswith("235")  # the last good one
    passwords.write_text(lines["ann"])
    assert wait_for(lambda: node.counters()["auth_down"] == 0)
    assert outcome(node, "plain", "ann", "Käse").startswith("235")
    assert outcome(node, "plain", "bob", "secret").startswith("535")


def test_without_a_file_nothing_is_decided(make_submission, passwords):
    passwords.unlink()
    node = make_submission()
    assert outcome(node, "plain", "bob", "secret").startswith("454 4.7.0")


def test_failures_of_a_user_are_limited(make_submission):
    node = make_submission(auth=", failures_per_user: 4")
    for user in ("bob", "nobody"):
        replies = [outcome(node, METHODS[i % 3], user, "wrong")[:9] for i in range(7)]
        assert replies == ["535 5.7.8"] * 4 + ["454 4.7.0"] * 3
    before = node.counters()["auth_checks_total"]
    for method in METHODS:
        assert outcome(node, method, "bob", "secret").startswith("454 4.7.0")  # the right one is not looked at either
        assert outcome(node, method, "BoB", "secret").startswith("454 4.7.0")
    assert node.counters()["auth_checks_total"] == before
    assert outcome(node, "plain", "ann", "Käse").startswith("235")
    row = node.ctl("rate", "explain", "auth-user/BOB")[0]
    assert row["source"] == "auth.failures_per_user" and 3 < float(row["rate"]) <= 4 and int(row["next_allowed_s"]) > 60
    row = node.ctl("rate", "explain", "auth-client/127.0.0.1")[0]
    assert row["source"] == "auth.failures_per_client" and row["limit"] == 100 and 7 < float(row["rate"]) <= 8
    row = node.ctl("rate", "explain", "user/bob")[0]
    assert row["source"] == "rates.limit" and row["mode"] == "monitor"
    assert node.ctl_text("rate", "explain", "nonsense/bob").returncode == 1


def test_failures_of_a_client_are_limited_and_successes_cost_nothing(make_submission):
    node = make_submission(auth=", failures_per_client: 4")
    for i in range(12):
        assert outcome(node, METHODS[i % 3], "bob", "secret").startswith("235")
    replies = [outcome(node, "plain", f"user{i}", "wrong")[:9] for i in range(4)]
    assert replies == ["535 5.7.8"] * 4
    c = Client(node)
    assert c.plain("bob", "secret").startswith("421 4.7.0")
    assert c.reply() is None
    assert node.counters()["auth_limited_total"] == 1


@pytest.mark.parametrize("limit", ["user", "client"])
def test_a_thousand_wrong_passwords_on_two_nodes(make_submission, limit):
    """P19: no more than the limit are tried, however many come at once: of one user from many addresses, and from one address for many users."""
    limits = ", failures_per_user: 20, failures_per_client: none" if limit == "user" else ", failures_per_user: none, failures_per_client: 20"
    # a budget that a busy machine keeps: beyond it a node counts for itself, and the promise is the limit for each node (P14)
    one = make_submission(auth=limits, name="one", more="redis: {budget: 1s}\n")
    two = make_submission(auth=limits, name="two", more=f'redis: {{server: "unix:{one.run}/redis.sock", budget: 1s}}\n')

    def attack(k):
        replies = []
        c = None
        for i in range(63):
            if not c:
                c = Client((one, two)[k % 2], implicit=k % 4 < 2, source=f"127.0.0.{10 + k}" if limit == "user" else "127.0.0.9")
            replies.append((c.plain("bob" if limit == "user" else f"user{k}-{i}", f"wrong{k}-{i}") or "")[:9])
            if limit == "client" and replies[-1].startswith("421") or len(replies) % 15 == 0:
                c.close()
                c = None
        return replies

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        replies = [r for got in pool.map(attack, range(16)) for r in got]
    assert len(replies) == 16 * 63 and set(replies) == {"535 5.7.8", "454 4.7.0" if limit == "user" else "421 4.7.0"}
    tried = sum(n.counters()["auth_checks_total"] for n in (one, two))
    assert replies.count("535 5.7.8") == tried == 20
    last = Client(two, source="127.0.0.77" if limit == "user" else "127.0.0.9")
    assert last.plain("bob", "secret").startswith("454 4.7.0" if limit == "user" else "421 4.7.0")
    if limit == "client":
        assert Client(two, source="127.0.0.10").plain("bob", "secret").startswith("235")


def test_failures_are_counted_locally_without_redis(make_submission):
    node = make_submission(auth=", failures_per_user: 3", workers=1)
    os.kill(node.proc.pid, signal.SIGSTOP)  # nobody starts it again
    os.kill(node.redis_pid(), signal.SIGKILL)
    assert wait_for(lambda: node.counters()["redis_up"] == 0)
    assert [outcome(node, "plain", "bob", "wrong")[:3] for _ in range(5)] == ["535"] * 3 + ["454"] * 2
    os.kill(node.proc.pid, signal.SIGCONT)


def test_a_storm_of_logins_does_not_hold_up_the_worker(make_submission):
    node = make_submission(auth=", failures_per_user: none, failures_per_client: none", workers=1)
    mx = Smtp(node.port)
    mx.cmd("EHLO client.test")
    clients = [Client(node) for _ in range(80)]
    for c in clients:
        c.send("AUTH PLAIN " + b64("\0bob\0secret") + "\r\n")
    slowest = 0
    for _ in range(20):
        start = time.monotonic()
        assert mx.cmd("NOOP").startswith("250")
        slowest = max(slowest, time.monotonic() - start)
    replies = [c.reply()[:3] for c in clients]
    # the queue is bounded: who finds it full is told to come again
    assert set(replies) <= {"235", "454"} and replies.count("235") >= 64
    assert slowest < 1
    gone = [Client(node) for _ in range(20)]
    for c in gone:
        c.send("AUTH PLAIN " + b64("\0bob\0secret") + "\r\n")
        c.close()
    assert outcome(node, "plain", "bob", "secret").startswith("235")


def test_a_half_closed_client_gets_its_answer(make_submission):
    node = make_submission()
    c = Client(node, implicit=True)
    c.send("AUTH PLAIN " + b64("\0bob\0secret") + "\r\n")
    assert c.reply().startswith("235")
    c.send("AUTH PLAIN")  # and one that goes away in mid-command
    c.close()
    assert outcome(node, "plain", "bob", "secret").startswith("235")


def test_a_sender_must_be_the_users_own(make_submission):
    senders = ', senders: [{user: bob, senders: [bob@cam.example, "@lists.example"]}, {user: ann, senders: ["*"]}]'
    node = make_submission(auth=senders)

    def allowed(user, password, sender):
        c = Client(node)
        assert c.plain(user, password).startswith("235")
        reply = c.cmd(f"MAIL FROM:<{sender}>")
        c.close()
        assert reply.startswith(("250 2.1.0", "550 5.7.1")), reply
        return reply.startswith("250")

    for sender, ok in (("bob@cam.example", True), ("Bob@CAM.example", True), ("any@lists.example", True), ("", True), ("ann@cam.example", False),
                       ("bob@example.org", False), ("bob@[127.0.0.1]", False), ("x@sub.lists.example", False)):
        assert allowed("bob", "secret", sender) == ok, sender
    assert allowed("ann", "Käse", "whoever@example.org")
    assert node.counters()["sender_denied_total"] == 4
    assert "rule=P19" in node.log_text()
    config = node.config.read_text().replace(senders, "")
    node.config.write_text(config)
    node.ctl_text("config", "reload")
    assert wait_for(lambda: allowed("bob", "secret", "whoever@cam.example"))  # any sender in our own domains
    assert not allowed("bob", "secret", "bob@example.org")


def test_users_have_rates_of_their_own(make_submission):
    node = make_submission(more="rates: {mode: defer, limit: 3, period: 1h}\n")
    c = Client(node)
    c.plain("bob", "secret")
    assert [c.message("bob@cam.example", ["x@example.org"], HEAD)[:3] for _ in range(4)] == ["250"] * 3 + ["450"]
    c = Client(node)
    c.plain("ann", "Käse")
    assert c.message("ann@cam.example", ["x@example.org"], HEAD).startswith("250")


@pytest.mark.parametrize("text,complaint", [
    ('listen: [{address: "127.0.0.1:2587", role: submission}]', "needs auth.password_file or auth.dovecot"),
    ('listen: [{address: "127.0.0.1:2587", role: submision}]', "write mx, submission, submissions or lmtp"),
    ('listen: [{address: "127.0.0.1:2587", role: submission, tls: implicit}]', "the role is submissions"),
    ('auth: {password_file: /a, dovecot: /b}', "cannot both be there"),
    ('auth: {mechanisms: [cram-md5]}', "write plain, login or scram-sha-256"),
    ('auth: {senders: [{user: bob, senders: [bob]}]}', "is not a sender"),
    ('auth: {senders: [{user: bob, senders: []}, {user: bob, senders: []}]}', "is there twice"),
])
def test_mistakes_in_the_configuration_are_explained(tmp_path, text, complaint):
    file = tmp_path / "weir.yaml"
    file.write_text(text + "\n")
    p = subprocess.run([BIN / "weirctl", "config", "check", file], capture_output=True, text=True)
    assert p.returncode == 1 and complaint in p.stderr, p.stderr


def test_weirctl_auth_hash():
    line = line_for("bob", "secret")
    assert re.fullmatch(r"bob:\$y\$[^:]+:\{SCRAM-SHA-256\}10000,[^,:]+,[^,:]+,[^,:]+\n", line)
    assert line_for("bob", "secret") != line
    for args, password in ((["b:b"], "x"), (["bob"], ""), (["bob"], "x" * 300)):
        p = subprocess.run([BIN / "weirctl", "auth", "hash", *args], input=password + "\n", capture_output=True, text=True)
        assert p.returncode == 1 and p.stderr and not p.stdout


class Dovecot:
    """A real one that only authenticates: bob with a plain password, ann with a SCRAM verifier, slow who always fails for a while."""

    def __init__(self, home):
        self.home, self.socket = home, home / "auth-weir"
        (home / "users").write_text("bob:{PLAIN}secret\nann:{SCRAM-SHA-256}%s\n" % line_for("ann", "Käse").split("{SCRAM-SHA-256}")[1].strip())
        (home / "users").chmod(0o644)
        home.chmod(0o755)
        (home / "dovecot.conf").write_text(textwrap.dedent(f"""\
            base_dir = {home}/base
            state_dir = {home}/base
            log_path = {home}/log
            protocols =
            ssl = no
            first_valid_uid = 1
            auth_mechanisms = plain scram-sha-256
            auth_failure_delay = 0
            passdb {{
              driver = passwd-file
              args = {home}/users
            }}
            userdb {{
              driver = static
              args = uid=65534 gid=65534 home=/nonexistent
            }}
            service auth {{
              unix_listener {self.socket} {{
                mode = 0666
              }}
            }}
            service anvil {{
              chroot =
            }}
            """))
        self.start()

    def start(self):
        self.proc = subprocess.Popen(["dovecot", "-F", "-c", self.home / "dovecot.conf"])
        assert wait_for(self.socket.exists, 20), (self.home / "log").read_text()

    def children(self, name):
        out = subprocess.run(["pgrep", "-P", str(self.proc.pid), "-x", "-f", f"dovecot/{name}.*"], capture_output=True, text=True).stdout.split()
        return [int(pid) for pid in out]

    def stop(self):
        pids = self.children("(auth|anvil|stats|log|config)")
        self.proc.terminate()
        self.proc.wait(20)
        for pid in pids:  # they would stay as long as they have clients
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


@pytest.fixture
def dovecot():
    import pathlib
    import shutil
    import tempfile
    if not have("dovecot") or os.geteuid() != 0:
        pytest.skip("dovecot is not there, or needs root")
    home = pathlib.Path(tempfile.mkdtemp(prefix="weir-dovecot-"))
    d = Dovecot(home)
    yield d
    if d.proc.poll() is None:
        d.stop()
    shutil.rmtree(home)


def test_dovecot_knows_the_passwords(make_node, sink, dovecot):
    node = make_node(sink.port, submission=True, extra=OUTSIDE + f"auth: {{dovecot: {dovecot.socket}, failures_per_user: 3}}\n")
    log = lambda: (dovecot.home / "log").read_text()  # noqa: E731
    assert wait_for(lambda: outcome(node, "plain", "bob", "secret").startswith("235")), log()
    for user, password in (("bob", "secret"), ("ann", "Käse")):
        for method in ("plain", "login"):
            assert outcome(node, method, user, password).startswith("235 2.7.0"), (user, method, log())
    for user in ("bob", "nobody"):
        for method in ("plain", "login"):
            assert outcome(node, method, user, "wrong") == "535 5.7.8 Authentication credentials are invalid", (user, method, log())
    c = Client(node)
    assert c.plain("bob", "secret").startswith("235")
    assert c.message("bob@cam.example", ["x@example.org"], HEAD).startswith("250")
    assert wait_for(lambda: sink.count == 1) and b" with ESMTPSA\r\n" in sink.messages[0]["data"]
    replies = [outcome(node, "plain", "bob", "wrong")[:3] for _ in range(2)]
    assert replies == ["535", "454"]


def test_dovecot_does_not_tell_who_exists(make_node, sink, dovecot):
    """P19: it has SCRAM, but its first answer differs for those who do not exist; that is not passed on."""
    node = make_node(sink.port, workers=1, submission=True, extra=OUTSIDE + f"auth: {{dovecot: {dovecot.socket}, failure_delay: 10ms}}\n")
    assert wait_for(lambda: outcome(node, "plain", "bob", "secret").startswith("235"))  # it has said what it has
    c = Client(node)
    assert "250-AUTH PLAIN LOGIN\n" in c.ehlo
    assert {c.scram_first(user)[:9] for user in ("bob", "ann", "nobody")} == {"534 5.7.9"}
    assert {outcome(node, method, user, "wrong") for method in ("plain", "login") for user in ("bob", "ann", "nobody")} == {"535 5.7.8 Authentication credentials are invalid"}


def test_scram_by_dovecot_where_nothing_else_is_wanted(make_node, sink, dovecot):
    node = make_node(sink.port, submission=True, extra=OUTSIDE + f"auth: {{dovecot: {dovecot.socket}, mechanisms: [scram-sha-256], failures_per_user: 3}}\n")
    assert wait_for(lambda: all("250-AUTH SCRAM-SHA-256\n" in Client(node).ehlo for _ in range(8)))
    # why no stand-in would look the same: one entry has a salt of its own, the other a new one each time, and nobody gets none
    salts = {user: {Client(node).scram_first(user) for _ in range(2)} for user in ("ann", "bob")}
    assert len(salts["ann"]) == 1 and len(salts["bob"]) == 2
    for user, password in (("bob", "secret"), ("ann", "Käse")):
        assert outcome(node, "scram", user, password).startswith("235 2.7.0"), (dovecot.home / "log").read_text()
    assert {outcome(node, "scram", user, "wrong") for user in ("ann", "nobody")} == {"535 5.7.8 Authentication credentials are invalid"}
    c = Client(node)
    c.scram_first("bob")  # his third exchange that comes to no end
    assert c.cmd("*").startswith("501")
    assert c.scram("bob", "secret").startswith("454 4.7.0")


def test_an_exchange_that_loses_dovecot_is_put_off(make_node, sink, dovecot):
    node = make_node(sink.port, submission=True, extra=OUTSIDE + f"auth: {{dovecot: {dovecot.socket}, mechanisms: [scram-sha-256]}}\n")
    assert wait_for(lambda: all("250-AUTH SCRAM-SHA-256\n" in Client(node).ehlo for _ in range(8)))
    waiting = Client(node)
    assert len(waiting.scram_first("bob")) == 2
    dovecot.stop()
    assert wait_for(lambda: node.counters()["auth_down"] == 2)
    assert waiting.cmd(b64("c=biws,r=x,p=y")).startswith("454 4.7.0")
    dovecot.start()
    assert wait_for(lambda: node.counters()["auth_down"] == 0)
    assert outcome(node, "scram", "bob", "secret").startswith("235")


def test_without_dovecot_logins_are_put_off(make_node, sink, dovecot):
    node = make_node(sink.port, submission=True, extra=OUTSIDE + f"auth: {{dovecot: {dovecot.socket}, timeout: 2s, failures_per_user: 50}}\n")
    assert outcome(node, "plain", "bob", "secret").startswith("235")
    dovecot.stop()
    assert wait_for(lambda: node.counters()["auth_down"] == 2)
    assert outcome(node, "plain", "bob", "secret").startswith("454 4.7.0")
    for _ in range(60):  # what nobody decided does not count
        assert outcome(node, "plain", "bob", "wrong").startswith("454 4.7.0")
    dovecot.start()
    assert wait_for(lambda: node.counters()["auth_down"] == 0)
    assert outcome(node, "plain", "bob", "secret").startswith("235")
    # one that does not answer
    pids = dovecot.children("auth")
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    assert outcome(node, "plain", "bob", "secret").startswith("454 4.7.0")
    assert time.monotonic() - start < 8
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    assert wait_for(lambda: outcome(node, "plain", "bob", "secret").startswith("235"))
