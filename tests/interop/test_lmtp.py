"""Postfix, Exim and Dovecot's LMTP proxy deliver to Weir by LMTP (RFC 2033): every recipient has a reply of its own, and the client acts on it (section G)."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest
from letters import Report, below_trace, big, head, ugly
from node import Smtp, free_port, have, wait_for
from tap import Tap
from test_mta import send

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*\r\n"
can_lmtp = pytest.mark.where(lambda mta, p: mta.lmtp_client)


def results(session):
    """The codes that the server gave at the end of the data."""
    return re.findall(r"(?m)^(\d\d\d) (?:2\.0\.0 Ok: queued|5\.7\.)", session.said("server").decode())


@can_lmtp
def test_messages_are_byte_for_byte_the_same(world):
    """P8, F5."""
    letters = {"ugly@a.lmtp.to-weir.example": ugly("lmtp"), "big@a.lmtp.to-weir.example": big("lmtp", 10_000_000)}
    for rcpt, data in letters.items():
        send(world.mta.port, "a@origin.example", [rcpt], data, mail=" BODY=8BITMIME" if "ugly" in rcpt else "")
    for rcpt, data in letters.items():
        m = world.arrived(rcpt, 60)
        assert m["from"] == "a@origin.example" and below_trace(m["data"], data), m["data"][:3000]
        assert re.match(rb"Received: from [^;]*\bwith LMTP\r?\n?", m["data"]), m["data"][:500]
        session = world.to_lmtp.session(rcpt)
        assert session.commands("LHLO") and not session.commands("EHLO") and not session.commands("HELO")


@can_lmtp
def test_each_recipient_has_a_reply(world):
    """One of three is refused at RCPT: two replies at the end of the data, and a report of the MTA's about that one."""
    good, bad = ["one@b.lmtp.to-weir.example", "two@b.lmtp.to-weir.example"], "gone@closed.lmtp.to-weir.example"
    sender, data = "partial-lmtp@origin.example", head("partial-lmtp", True) + b"\r\nx\r\n"
    send(world.mta.port, sender, [good[0], bad, good[1]], data)
    for rcpt in good:
        assert below_trace(world.arrived(rcpt)["data"], data)
    r = Report(world.arrived(sender), world.mta.report_type)
    assert list(r.rcpts) == [bad] and r.rcpts[bad]["Action"] == "failed"
    assert "was closed last year" in re.sub(r"\s+", " ", r.rcpts[bad]["Diagnostic-Code"] or r.text.get_content())
    session = world.to_lmtp.session(f"<{bad}>")
    assert len(session.commands("RCPT")) == 3 and results(session) == ["250", "250"]


@can_lmtp
def test_what_is_refused_after_the_data_is_refused_for_each(world):
    """E1: a virus for two: two refusals, one report about both, nothing arrives."""
    rcpts, sender = [f"virus{i}@c.lmtp.to-weir.example" for i in range(2)], "virus-lmtp@origin.example"
    send(world.mta.port, sender, rcpts, head("virus-lmtp", True) + b"\r\n" + EICAR, mail=" RET=HDRS")
    assert wait_for(lambda: {r for m in world.messages(sender) for r in Report(m, world.mta.report_type).rcpts} == set(rcpts), 30)
    for m in world.messages(sender):
        assert all(row["Action"] == "failed" and row["Status"].startswith("5.") for row in Report(m, world.mta.report_type).rcpts.values())
    assert "550" in results(world.to_lmtp.session("<virus1@c."))
    assert not any(world.messages(rcpt) for rcpt in rcpts)


@can_lmtp
def test_more_recipients_than_weir_takes_at_once(world):
    """452 4.5.3 beyond a hundred, to RCPT: those have no reply at the end, and the client comes back with them."""
    rcpts = [f"many{i}@d.lmtp.to-weir.example" for i in range(110)]
    send(world.mta.port, "a@origin.example", rcpts, head("many-lmtp", True) + b"\r\nx\r\n")
    for rcpt in rcpts:
        world.arrived(rcpt, 45)


# ---- Dovecot ----

class Proxy:
    """Dovecot takes LMTP and hands every recipient on, by LMTP too, to where the passdb says."""

    def __init__(self, to):
        self.home, self.port = pathlib.Path(tempfile.mkdtemp(prefix="weir-dovecot-")), free_port()
        self.home.chmod(0o755)
        (self.home / "dovecot.conf").write_text(f"""\
base_dir = {self.home}/base
state_dir = {self.home}/base
log_path = {self.home}/log
protocols = lmtp
ssl = no
lmtp_proxy = yes
passdb {{
  driver = static
  args = nopassword=y proxy=y host=127.0.0.1 port={to} protocol=lmtp
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {self.port}
  }}
}}
""")
        self.proc = subprocess.Popen(["dovecot", "-F", "-c", self.home / "dovecot.conf"])

    def stop(self):
        self.proc.terminate()
        self.proc.wait(20)
        shutil.rmtree(self.home)


@pytest.fixture
def proxied(make_node, sink):
    if not have("dovecot") or not os.path.exists("/usr/lib/dovecot/lmtp") or os.geteuid() != 0:
        pytest.skip("Dovecot's LMTP server is not installed, or needs root")
    port = free_port()
    tap = Tap(port)
    make_node(sink.port, workers=1, listeners=[f'{{address: "127.0.0.1:{port}", role: lmtp}}'],
              extra='mail_domains: [{domain: closed.example, retired: "was closed last year"}]\n')
    proxy = Proxy(tap.port)
    yield proxy, tap, sink
    proxy.stop()
    tap.stop()


def test_through_dovecots_proxy(proxied):
    """The proxy hands Weir's replies on, each to the recipient it is for."""
    proxy, tap, sink = proxied

    def client():
        try:
            return Smtp(proxy.port)
        except OSError:
            return None

    c = wait_for(client)
    assert c.cmd("LHLO client.test").startswith("250")
    data = ugly("dovecot", True)
    assert c.cmd("MAIL FROM:<a@origin.example>").startswith("250")
    answers = {rcpt: c.cmd(f"RCPT TO:<{rcpt}>")[:3] for rcpt in ("one@elsewhere.example", "gone@closed.example", "two@elsewhere.example")}
    assert answers == {"one@elsewhere.example": "250", "gone@closed.example": "550", "two@elsewhere.example": "250"}
    assert c.cmd("DATA").startswith("354")
    c.send(re.sub(rb"(?m)^\.", b"..", data) + b".\r\n")
    replies = [c.reply() for _ in range(2)]
    assert [r[:9] for r in replies] == ["250 2.0.0"] * 2, replies
    assert wait_for(lambda: {r for m in sink.messages for r in m["to"]} == {"one@elsewhere.example", "two@elsewhere.example"})
    assert all(below_trace(m["data"], data) for m in sink.messages)
    assert c.cmd("MAIL FROM:<a@origin.example>").startswith("250")
    for rcpt in ("one@elsewhere.example", "two@elsewhere.example"):
        assert c.cmd(f"RCPT TO:<{rcpt}>").startswith("250")
    assert c.cmd("DATA").startswith("354")
    c.send(head("virus", True) + b"\r\n" + EICAR + b".\r\n")
    assert [c.reply()[:3] for _ in range(2)] == ["550"] * 2
    assert all(s.commands("LHLO") for s in tap.sessions)
