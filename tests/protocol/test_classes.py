"""A5, B9: more than thirty kinds of trouble, each brought by a client of every class, with every rule at its hardest. Class fragile sees a refusal only of what cannot be sorted out later."""
import base64
import os
import re
import signal
import socket
import ssl
import subprocess

import pytest

from node import BIN, Smtp, wait_for
from test_senders import dns  # noqa: F401

EICAR = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*\r\n"
CLASSES = ("robust", "fragile", "submission", "mx")
HARDEST = ", ".join(f"{{rule: {r}, mode: reject}}" for r in ("sender-domain", "sender-host-name", "sender-unknown", "header-from", "rate", "mail-loop", "malware")) \
    + ", {rule: client-dns, class: [robust, fragile, mx], mode: reject}"
FROM = "From: a@cam.example\r\n"


class Trouble:
    """What is brought, and the begin of the answer to each class; `fate`: what becomes of the message of class fragile."""

    def __init__(self, name, robust, fragile, submission, mx, fate=None, sender="a@cam.example", rcpt="b@cam.example", head=FROM, body="body\r\n", params="",
                 source=None, raw=None):
        self.want = dict(zip(CLASSES, (robust, fragile, submission, mx)))
        self.name, self.fate, self.sender, self.rcpt, self.head, self.body, self.params, self.raw = name, fate, sender, rcpt, head, body, params, raw
        self.source = {"robust": "127.0.0.2", "fragile": "127.0.0.200", "submission": "127.0.0.1", "mx": "127.0.0.130", **(source or {})}


def everywhere(name, reply, **kw):
    return Trouble(name, reply, reply, reply, reply, **kw)


def refused(name, reply, fate, **kw):
    """Everybody is refused but class fragile."""
    return Trouble(name, reply, "250", reply, reply, fate, **kw)


UNNAMED = {"robust": "127.0.0.4", "fragile": "127.0.0.204", "mx": "127.0.0.134"}
NO_ANSWER = {"robust": "127.0.0.6", "fragile": "127.0.0.206", "mx": "127.0.0.136"}
FAST = {"robust": "127.0.0.7", "fragile": "127.0.0.207"}
TABLE = [
    Trouble("nothing is wrong", "250", "250", "250", "250", "delivered"),
    Trouble("a bounce", "250", "250", "250", "250", "delivered", sender=""),
    # the sender (A6)
    refused("sender domain missing", "550 5.1.8", "held", sender="a@nothing.elsewhere.example"),
    refused("sender domain without records", "550 5.1.8", "held", sender="a@text.elsewhere.example"),
    refused("sender domain is a host", "550 5.1.8", "held", sender="a@pc.cam.example"),
    refused("sender domain of ours without MX", "550 5.1.8", "held", sender="a@text.cam.example"),
    refused("sender domain takes no mail", "550 5.7.27", "held", sender="a@null.elsewhere.example"),
    refused("sender of one label", "550 5.1.8", "held", sender="a@localhost"),
    refused("sender at a literal", "550 5.1.8", "held", sender="a@[192.0.2.1]"),
    refused("sender unknown", "550 5.1.7", "held", sender="alice@dept.example"),
    refused("sender domain: SERVFAIL", "451 4.4.3", "delivered", sender="a@servfail.example"),
    refused("sender domain: DNS does not answer", "451 4.4.3", "delivered", sender="a@silent.example"),
    # the client (A2)
    Trouble("client without a name", "550 5.7.25", "250", "250", "550 5.7.25", "held", source=UNNAMED),
    Trouble("client's name: SERVFAIL", "451 4.7.25", "250", "250", "451 4.7.25", "delivered", source=NO_ANSWER),
    # the header (B5)
    refused("no From", "550 5.6.0", "held", head="Subject: x\r\n"),
    refused("From is no address", "550 5.6.0", "held", head="From: root\r\n"),
    refused("two From", "550 5.6.0", "held", head=FROM + FROM),
    refused("several From without Sender", "550 5.6.0", "held", head="From: a@cam.example, b@cam.example\r\n"),
    refused("From domain missing", "550 5.1.8", "held", head="From: a@nothing.elsewhere.example\r\n"),
    refused("From unknown", "550 5.1.7", "held", head="From: alice@dept.example\r\n"),
    refused("From domain: SERVFAIL", "451 4.4.3", "delivered", head="From: a@servfail.example\r\n"),
    # the recipient (C6, C8, B2, A1)
    refused("recipient unknown", "550 5.1.1", "bounced", rcpt="alice@dept.example"),
    refused("recipient's domain retired", "550 5.1.6", "bounced", rcpt="bob@old.example"),
    refused("aliases in a loop", "550 5.4.6", "bounced", rcpt="loop1@dept.example"),
    Trouble("relaying", "250", "250", "250", "550 5.7.1", "delivered", rcpt="x@elsewhere.example"),
    # the message
    refused("mail loop", "554 5.4.6", "held", head="Received: from x by y; now\r\n" * 26 + FROM),
    refused("malware", "550 5.7.1", "held", body=EICAR),
    Trouble("over its rate", "550 5.7.1", "250", "250", "250", "delivered", source=FAST),
    # what nobody is spared: size, protocol
    everywhere("too large, declared", "552 5.3.4", params=" SIZE=9999999"),
    everywhere("too large", "552 5.3.4", body="x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 1000),
    everywhere("bare LF", "5", body="a\nb\r\n"),
    everywhere("NUL", "5", body="a\0b\r\n"),
    everywhere("sender malformed", "501 5.1.7", sender="a..b@cam.example"),
    everywhere("recipient malformed", "501 5.1.3", rcpt="b@"),
    everywhere("parameter unknown", "555 5.5.4", params=" HURRY=1"),
    everywhere("RCPT before MAIL", "503 5.5.1", raw="RCPT TO:<b@cam.example>"),
    everywhere("unknown command", "500 5.5.", raw="HURRY"),
]


def hashed(user, password):
    p = subprocess.run([BIN / "weirctl", "auth", "hash", "--no-scram", user], input=password + "\n", capture_output=True, text=True, check=True)
    return p.stdout


@pytest.fixture
def node(make_node, sink, dns, tmp_path):  # noqa: F811
    passwords = tmp_path / "passwords"
    passwords.write_text(hashed("bob", "secret"))
    passwords.chmod(0o600)
    inside = [("127.0.0.2", "robust"), ("127.0.0.4", "robust"), ("127.0.0.6", "robust"), ("127.0.0.200", "fragile"), ("127.0.0.204", "fragile"), ("127.0.0.206", "fragile")]
    clients = ", ".join(f"{{network: {ip}, class: {c}, rate: none}}" for ip, c in inside)
    node = make_node(sink.port, start=False, submission=True, extra=(
        f"relay_clients: [{clients}, {{network: 127.0.0.7, rate: 1}}, {{network: 127.0.0.207, class: fragile, rate: 1}}]\n"
        'mail_domains: [{domain: dept.example, aliases: dept}, {domain: old.example, retired: "closed"}]\n'
        f'dns: {{servers: ["127.0.0.1:{dns.port}"], timeout: 2s}}\n'
        "redis: {budget: 1s}\nlimits: {message_size: 64K}\nscan: {processes: 2, engine: trivial}\nrates: {limit: 1000}\n"
        f"policy: {{rules: [{HARDEST}]}}\n"
        f'auth: {{password_file: {passwords}, senders: [{{user: bob, senders: ["*"]}}]}}\n'))
    (node.dir / "dept").write_text("postmaster: p@cam.example\nwebmaster: p@cam.example\nabuse: p@cam.example\nbob: bob@cam.example\n"
                                   "loop1: loop2@dept.example\nloop2: loop1@dept.example\n")
    return node.start()


def client(node, kind, source):
    if kind != "submission":
        c = Smtp(node.port, source=source)
    else:
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        c = Smtp(node.submissions, sock=tls.wrap_socket(socket.create_connection(("127.0.0.1", node.submissions), 30)))
    assert c.cmd("EHLO client.test").startswith("250")
    if kind == "submission":
        assert c.cmd("AUTH PLAIN " + base64.b64encode(b"\0bob\0secret").decode()).startswith("235")
    return c


def bring(node, t, kind):
    """The answer that ends it."""
    c = client(node, kind, t.source[kind])
    try:
        if t.raw:
            return c.cmd(t.raw)
        for line in (f"MAIL FROM:<{t.sender}>{t.params}", f"RCPT TO:<{t.rcpt}>", "DATA"):
            r = c.cmd(line)
            if r[0] not in "23":
                return r
        c.send(f"{t.head}X-Trouble: {t.name}\r\n\r\n{t.body}.\r\n")
        return c.reply()
    finally:
        c.close()


def fate_of(node, sink, t, before):
    """What became of the one message that came with this trouble."""
    def look():
        new = [m for m in sink.messages[before:] if f"X-Trouble: {t.name}".encode() in m["data"]]
        if any(m["from"] == "" and m["to"] == [t.sender] and t.sender for m in new):
            return "bounced"
        if new:
            return "delivered"
        return "held" if any(r["state"] == "held" for r in node.queue()) else None

    fate = wait_for(look)
    for r in node.queue():
        node.ctl("queue", "delete", r["id"], check=False)  # it may be gone by now
    return fate


def test_every_trouble_against_every_class(node, sink):
    assert len(TABLE) > 30
    got, want = {}, {}
    for t in TABLE:
        for kind in CLASSES:
            before, want[t.name, kind] = len(sink.messages), t.want[kind]
            if t.name == "over its rate":
                bring(node, t, kind)
            r = bring(node, t, kind)
            got[t.name, kind] = t.want[kind] if r.startswith(t.want[kind]) else r
            if kind == "fragile" and r.startswith("250"):
                got[t.name, "fate"], want[t.name, "fate"] = fate_of(node, sink, t, before), t.fate
    assert got == want
    # the guarantee, said the other way round: fragile was refused only what everybody is
    assert all(t.want["fragile"].startswith("250") or len(set(t.want.values())) == 1 for t in TABLE)


def test_no_scanner(make_node, sink):
    """E5: the thirty-first: 451, but held for class fragile."""
    node = make_node(sink.port, extra="relay_clients: [{network: 127.0.0.2, rate: none}, {network: 127.0.0.200, class: fragile, rate: none}]\n")
    os.kill(node.proc.pid, signal.SIGSTOP)
    try:
        for pid in node.pids("weir-scanner"):
            os.kill(pid, signal.SIGKILL)
        t = Trouble("no scanner", "451 4.7.0", "250", None, "451 4.7.0", "held")
        assert {k: re.match(t.want[k], bring(node, t, k)) is not None for k in ("robust", "fragile", "mx")} == dict.fromkeys(("robust", "fragile", "mx"), True)
        assert fate_of(node, sink, t, 0) == "held"
    finally:
        os.kill(node.proc.pid, signal.SIGCONT)
