"""A9, F4: a next hop that demands a login gets that of the route, and nobody else does."""
import base64
import re

import pytest
from login_sink import MECHANISMS, LoginSink
from node import Smtp, free_port, wait_for
from tls_world import Authority

HEAD = b"From: a@cam.example\r\nSubject: x\r\n\r\n"
USER, PASSWORD = "relay,of=cam", "correct horse, battery=staple"
LONG = "x" * 250


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def cert(ca):
    return ca.issue("smarthost.test")


@pytest.fixture
def hop(cert):
    s = LoginSink("127.0.0.1", free_port(), *cert, {USER: PASSWORD, "second": "its own", LONG: LONG})
    yield s
    s.stop()


@pytest.fixture
def secret(tmp_path):
    def write(name, text):
        f = tmp_path / name
        f.touch(0o600)
        f.write_text(text)
        return f
    return write


def route(hop, secret, user=USER, password=PASSWORD, domain="*", name="password"):
    return f'{{domain: "{domain}", to: "smtp:[127.0.0.1]:{hop.port}", tls: must, user: "{user}", password_file: {secret(name, password + chr(10))}}}'


def send(node, rcpt):
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.message("a@cam.example", [rcpt], HEAD).startswith("250")
    c.close()


def waits(node, rcpt):
    """Why it waits."""
    m = wait_for(lambda: next((q for q in node.queue() if q["to"] == rcpt and q["state"] == "deferred"), None))
    assert m, node.log_text()[-3000:]
    return m["reason"]


def nowhere(node, *passwords):
    """No password, in no spelling, is in what the node says or keeps for others to read."""
    said = node.log_text() + str(node.queue()) + node.ctl_text("route", "b@x.example").stdout + (node.run / "snapshot").read_bytes().decode("latin-1")
    for p in passwords:
        assert p not in said and base64.b64encode(p.encode()).decode().rstrip("=") not in said


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_each_mechanism(make_node, hop, secret, mechanism):
    hop.mechanisms = ("X-OTHER", mechanism, "GSSAPI")
    node = make_node(routes=f"[{route(hop, secret)}]", engine="trivial", workers=1)
    send(node, "b@one.example")
    send(node, "b@two.example")
    assert wait_for(lambda: hop.got("b@one.example") and hop.got("b@two.example")), node.log_text()[-3000:]
    assert set(hop.logins) == {(mechanism, USER)} and all(m["mail"].endswith(" AUTH=<>") for m in hop.messages)
    assert node.counters()["outbound_logins_total"] >= 1 and node.counters()["outbound_login_failures_total"] == 0
    nowhere(node, PASSWORD)


def test_the_best_of_what_is_offered_under_tls(make_node, hop, secret):
    """What is said before TLS counts for nothing; what does not fit into a line comes when it is asked for."""
    hop.plain = ("LOGIN",)
    node = make_node(routes=f"[{route(hop, secret, LONG, LONG)}]", engine="trivial", workers=1, extra="delivery: {idle: 0s, retry_first: 1s, retry_max: 1s}\n")
    for left in (MECHANISMS, ("LOGIN", "PLAIN"), ("LOGIN",)):
        hop.mechanisms, n = left, len(left)
        send(node, f"b@n{n}.example")
        assert wait_for(lambda: hop.got(f"b@n{n}.example")), node.log_text()[-3000:]
    assert [mech for mech, name in hop.logins] == ["SCRAM-SHA-256", "PLAIN", "LOGIN"]
    assert "AUTH PLAIN" in [text for tls, text in hop.lines] and not any(text.startswith("AUTH") for tls, text in hop.lines if not tls)
    assert all(len(text) <= 510 for tls, text in hop.lines if text.startswith("AUTH"))


def test_a_mechanism_that_is_not_taken_after_all(make_node, hop, secret):
    hop.refuse = ("SCRAM-SHA-256",)
    node = make_node(routes=f"[{route(hop, secret)}]", engine="trivial", workers=1)
    send(node, "b@next.example")
    assert wait_for(lambda: hop.got("b@next.example")), node.log_text()[-3000:]
    assert hop.logins[0][0] == "PLAIN"


@pytest.mark.parametrize("how, reason", [("wrong", "refuses the login: 535 no such user or password"), ("454 4.7.0 not now", "refuses the login: 454 not now"),
                                         ("none", "offers none of"), ("500 5.5.1 not a command: AGFiYwBkZWY=", "refuses the login: 500 ")])
def test_a_login_that_fails_defers(make_node, hop, secret, how, reason):
    """Nothing is returned for it; when the hop is right again, all goes."""
    if how == "none":
        hop.mechanisms = ()
    hop.users["wrong"], hop.answer = "another", how if how[0].isdigit() else None
    node = make_node(routes=f"[{route(hop, secret, 'wrong')}]", engine="trivial", workers=1)
    send(node, "b@waits.example")
    why = waits(node, "b@waits.example")
    assert why.startswith("451 4.7.0 127.0.0.1 ") or why.startswith("451 4.7.0 [127.0.0.1] ")
    assert reason in why and "AGFi" not in node.log_text()
    assert re.search(r"event=next-hop-login-refused .*user=wrong", node.log_text()) and node.counters()["outbound_login_failures_total"] >= 1
    assert not any(text.startswith("MAIL") for tls, text in hop.lines)
    nowhere(node, PASSWORD)
    hop.users["wrong"], hop.answer, hop.mechanisms = PASSWORD, None, MECHANISMS
    assert wait_for(lambda: hop.got("b@waits.example"), 30)
    assert "event=bounced" not in node.log_text()


def first(change):
    return lambda step, challenge: base64.b64encode(change(base64.b64decode(challenge).decode()).encode()).decode() if step == "first" else challenge


HOSTILE = {
    "not base64": (lambda step, c: "?" + c, "not base64"),
    "long": (lambda step, c: "A" * 900, "too long|malformed"),
    "very long": (lambda step, c: "A" * 100000, "not SMTP"),
    "another nonce": (first(lambda m: "r=x" + m[3:]), "does not continue ours"),
    "our nonce": (first(lambda m: re.sub("r=(.{24})[^,]*", r"r=\1", m)), "does not continue ours"),
    "no salt": (first(lambda m: re.sub("s=[^,]*", "s=", m)), "malformed"),
    "few iterations": (first(lambda m: m.replace("i=4096", "i=1")), "iterations"),
    "endless iterations": (first(lambda m: m.replace("i=4096", "i=4294967295")), "iterations"),
    "an extension that must be understood": (first(lambda m: "m=x," + m), "malformed"),
    "it does not know the password": (lambda step, c: base64.b64encode(b"v=" + base64.b64encode(bytes(32))).decode() if step == "final" else c, "has not shown that it knows"),
    "an error in its last word": (lambda step, c: base64.b64encode(b"e=other-error").decode() if step == "final" else c, "has not shown that it knows"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_challenges(make_node, hop, secret, name):
    hop.tamper, reason = HOSTILE[name]
    hop.mechanisms = ("SCRAM-SHA-256",)
    node = make_node(routes=f"[{route(hop, secret)}]", engine="trivial", workers=1)
    send(node, "b@waits.example")
    assert re.search(reason, waits(node, "b@waits.example"))
    assert not hop.messages
    hop.tamper = lambda step, c: c
    assert wait_for(lambda: hop.got("b@waits.example"), 30)


def test_235_without_proof_is_none(make_node, hop, secret):
    """Whoever only says that the login is good has not shown that it is the hop that we know."""
    hop.mechanisms = ("SCRAM-SHA-256",)
    hop.scram = lambda s, f, text: ("anybody", True)
    node = make_node(routes=f"[{route(hop, secret)}]", engine="trivial", workers=1)
    send(node, "b@waits.example")
    assert "has not shown that it knows" in waits(node, "b@waits.example") and not hop.messages


def test_without_tls_nothing_is_said(make_node, hop, secret):
    hop.context, hop.plain = None, MECHANISMS
    node = make_node(routes=f"[{route(hop, secret)}]", engine="trivial", workers=1)
    send(node, "b@waits.example")
    assert "TLS is required" in waits(node, "b@waits.example")
    assert not any(text.startswith(("AUTH", "MAIL")) for tls, text in hop.lines)


def test_connections_are_for_one_login_each(make_node, hop, secret):
    """The same host, two users and nobody: what is open for one is not used for the other."""
    routes = [route(hop, secret, domain="one.example"), route(hop, secret, "second", "its own", "two.example", "second"),
              f'{{domain: none.example, to: "smtp:[127.0.0.1]:{hop.port}", tls: must}}']
    node = make_node(routes=f"[{', '.join(routes)}]", engine="trivial", workers=1)
    for turn in range(2):
        for domain in ("one", "two", "none"):
            send(node, f"b{turn}@{domain}.example")
    assert wait_for(lambda: len(hop.messages) == 4)
    assert sorted(hop.logins) == sorted([("SCRAM-SHA-256", USER), ("SCRAM-SHA-256", "second")] * 2)
    assert wait_for(lambda: "530 5.7.0 log in first" in node.log_text())  # that is the hop's word about the mail, as ever


def test_a_changed_password_is_taken_over(make_node, hop, secret):
    """The file is watched; one that cannot be used leaves the old password."""
    hop.users["wrong"] = "the new one"
    node = make_node(routes=f"[{route(hop, secret, 'wrong', 'the old one')}]", engine="trivial", workers=1,
                     extra="tls: {watch: 1s}\ndelivery: {idle: 0s, retry_first: 1s, retry_max: 1s}\n")
    send(node, "b@first.example")
    assert "535" in waits(node, "b@first.example")
    file = secret("password", "")
    assert wait_for(lambda: "event=tls-certificates-refused" in node.log_text())
    file.write_text("the new one")
    assert wait_for(lambda: hop.got("b@first.example"), 30), node.log_text()[-2000:]
    assert "event=next-hop-logins" in node.log_text()
    nowhere(node, "the new one", "the old one")


def test_mistakes_are_found_with_the_configuration(make_node, tmp_path, sink, secret):
    node = make_node(sink.port, engine="trivial")
    good, two, empty, open_ = secret("good", "x\n"), secret("two", "x\ny\n"), secret("empty", "\n"), secret("open", "x\n")
    open_.chmod(0o644)
    for more, what in ((f"tls: must, user: a", "user and password_file are a name and the name of a file, and belong together"),
                       (f"tls: must, password_file: {good}", "belong together"),
                       (f'tls: must, user: "", password_file: {good}', "1 to 255 octets"),
                       (f"user: a, password_file: {good}", "goes nowhere without TLS; write tls: verify"),
                       (f"tls: may, user: a, password_file: {good}", "goes nowhere without TLS; write tls: verify"),
                       (f"tls: must, user: a, password_file: {open_}", "others may read it (mode 644); chmod o="),
                       (f"tls: must, user: a, password_file: {tmp_path}/none", "none cannot be read"),
                       (f"tls: must, user: a, password_file: {two}", "must have one line"),
                       (f"tls: must, user: a, password_file: {empty}", "must have one line")):
        file = tmp_path / "try.yaml"
        file.write_text(f'hostname: relay.cam.example\nroutes:\n- {{domain: x.example, to: "smtp:mx.example:25", {more}}}\n')
        p = node.ctl_text("config", "check", str(file))
        assert p.returncode == 1 and re.search(f"try.yaml:3: .*{re.escape(what)}", p.stderr), (more, p.stderr)
    file.write_text(f"hostname: relay.cam.example\nroutes:\n- {{domain: x.example, to: mx, tls: verify, user: a, password_file: {good}}}\n")
    assert "try.yaml:3: user: a password is for hosts that are named" in node.ctl_text("config", "check", str(file)).stderr
    file.write_text(f'hostname: relay.cam.example\nroutes:\n- {{domain: x.example, to: "smtp:mx.example:25", tls: verify, user: a, password_file: {good}}}\n')
    assert node.ctl_text("config", "check", str(file)).returncode == 0
