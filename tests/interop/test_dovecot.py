"""Delivery into Dovecot by LMTP: a result for each recipient, in the clear and under TLS (F1, F3, F5)."""
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import textwrap

import pytest
from letters import Report, below_trace, big, head, ugly
from node import Node, Sink, free_port, have, wait_for
from tap import Tap
from test_mta import send


class Dovecot:
    """Users one and two; full, whose quota is used up; nobody else."""

    def __init__(self, cert, key):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="weir-dovecot-"))
        self.home.chmod(0o755)
        owner = pwd.getpwnam("nobody")
        self.mail, self.port = self.home / "mail", free_port()
        self.mail.mkdir()
        os.chown(self.mail, owner.pw_uid, owner.pw_gid)
        (self.home / "users").write_text("".join(f"{u}::{owner.pw_uid}:{owner.pw_gid}::{self.mail}/{u}::{more}\n" for u, more in
                                                 (("one", ""), ("two", ""), ("full", "userdb_quota_rule=*:storage=1B"))))
        conf = self.home / "dovecot.conf"
        conf.write_text(textwrap.dedent(f"""\
            base_dir = {self.home}/base
            state_dir = {self.home}/base
            log_path = {self.home}/log
            protocols = lmtp
            ssl = yes
            ssl_cert = <{cert}
            ssl_key = <{key}
            mail_location = maildir:{self.mail}/%n
            mail_plugins = quota
            plugin {{
              quota = count:User quota
              quota_rule = *:storage=1G
              quota_vsizes = yes
            }}
            first_valid_uid = 1
            default_internal_user = dovecot
            auth_username_format = %n
            userdb {{
              driver = passwd-file
              args = {self.home}/users
            }}
            passdb {{
              driver = static
              args = nopassword=y
            }}
            service lmtp {{
              inet_listener lmtp {{
                address = 127.0.0.1
                port = {self.port}
              }}
            }}
            """))
        self.proc = subprocess.Popen(["dovecot", "-F", "-c", conf])

    def messages(self, user):
        new = self.mail / user / "new"
        return [p.read_bytes().replace(b"\r\n", b"\n") for p in new.iterdir()] if new.is_dir() else []

    def stop(self):
        self.proc.terminate()
        self.proc.wait(20)
        shutil.rmtree(self.home)


class World:
    def __init__(self, directory, cert, key):
        self.dovecot, self.sink = Dovecot(cert, key), Sink()
        self.tap = Tap(self.dovecot.port)
        self.node = Node(directory, workers=1, routes=f'[{{domain: plain.example, to: "lmtp:[127.0.0.1]:{self.tap.port}", tls: never}}, '
                         f'{{domain: tls.example, to: "lmtp:[127.0.0.1]:{self.tap.port}", tls: must}}, {{domain: "*", to: "smtp:[127.0.0.1]:{self.sink.port}", tls: never}}]')

    def holds(self, user, data):
        """The user has that message, and it is the same below the trace fields but for Dovecot's line ends."""
        return any(below_trace(m.replace(b"\n", b"\r\n"), data) for m in self.dovecot.messages(user))

    def report(self, rcpt):
        assert wait_for(lambda: [m for m in self.sink.messages if m["to"] == [rcpt]]), self.node.log_text()[-3000:]
        m, = [m for m in self.sink.messages if m["to"] == [rcpt]]
        return Report(m)

    def stop(self):
        for thing in (self.node, self.tap, self.dovecot, self.sink):
            thing.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory, authority):
    if not have("dovecot") or not os.path.exists("/usr/lib/dovecot/lmtp"):
        pytest.skip("Dovecot's LMTP server is not installed")
    if os.geteuid() != 0:
        pytest.skip("Dovecot needs root")
    w = World(tmp_path_factory.mktemp("dovecot"), *authority.issue("dovecot.test"))
    yield w
    w.stop()


@pytest.mark.parametrize("tls", ("plain", "tls"))
def test_byte_for_byte_for_each_recipient(world, tls):
    for data in (ugly(tls), big(tls, 10_000_000)):
        send(world.node.port, "a@origin.example", [f"one@{tls}.example", f"two@{tls}.example"], data)
        for user in ("one", "two"):
            assert wait_for(lambda: world.holds(user, data), 30), (world.dovecot.home / "log").read_text()[-2000:]
    session = world.tap.session(f"one@{tls}.example")
    assert (session is None) == (tls == "tls")
    if session:  # what it offers is used
        offered = session.said("server")
        assert b"PIPELINING" in offered and b"CHUNKING" in offered and session.commands("LHLO") and session.commands("BDAT") and session.pipelined()


def test_each_recipient_has_a_result(world):
    """One has it, one has no room, one does not exist: one copy, and the sender hears of two."""
    data = head("results", True) + b"\r\nx\r\n"
    rcpts = [f"{user}@plain.example" for user in ("one", "full", "unknown")]
    send(world.node.port, "results@origin.example", rcpts, data)
    assert wait_for(lambda: world.holds("one", data))
    r = world.report("results@origin.example")
    assert {a: (row["Action"], row["Status"]) for a, row in r.rcpts.items()} == {rcpts[1]: ("failed", "5.2.2"), rcpts[2]: ("failed", "5.1.1")}
    assert world.dovecot.messages("full") == [] and wait_for(lambda: world.node.queue() == [])


def test_success_is_reported_as_delivered(world):
    """LMTP is the end of the way."""
    send(world.node.port, "success@origin.example", [("two@plain.example", " NOTIFY=SUCCESS ORCPT=rfc822;Two@old.example")], head("success", True) + b"\r\nx\r\n")
    row = world.report("success@origin.example").rcpts["two@plain.example"]
    assert row["Action"] == "delivered" and row["Original-Recipient"] == "rfc822;Two@old.example"
