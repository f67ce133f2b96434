"""A smart host that demands a login (A9, F4): Postfix's submission with Dovecot's passwords behind it, each mechanism that Weir has on a port of its own."""
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from letters import below_trace, head
from mta import Postfix
from node import Node, Sink, free_port, have, wait_for
from test_mta import send

USER, PASSWORD = "relay@cam.example", "it is = , a Secret"
MECHANISMS = ("SCRAM-SHA-256", "PLAIN", "LOGIN")


class Dovecot:
    """Only its passwords."""

    def __init__(self, owner):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="weir-sasl-"))
        self.home.chmod(0o755)
        self.socket = self.home / "auth"
        (self.home / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
        (self.home / "users").chmod(0o644)
        (self.home / "dovecot.conf").write_text(f"""\
base_dir = {self.home}/base
state_dir = {self.home}/base
log_path = {self.home}/log
protocols =
ssl = no
auth_mechanisms = plain login scram-sha-256
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = {self.home}/users
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}}
service auth {{
  unix_listener {self.socket} {{
    mode = 0600
    user = {owner}
  }}
}}
service anvil {{
  chroot =
}}
""")
        self.proc = subprocess.Popen(["dovecot", "-F", "-c", self.home / "dovecot.conf"])
        assert wait_for(self.socket.exists, 20), (self.home / "log").read_text()

    def stop(self):
        self.proc.terminate()
        self.proc.wait(20)
        shutil.rmtree(self.home)


class Submission(Postfix):
    """A port for each mechanism; mail is only for whoever has logged in, and that only under TLS."""

    def configure(self):
        super().configure()
        self.dovecot = Dovecot("postfix")
        self.by = {mech: free_port() for mech in MECHANISMS}
        with open(self.dir / "conf" / "main.cf", "a") as f:
            f.write(f"smtpd_sasl_type = dovecot\nsmtpd_sasl_path = {self.dovecot.socket}\nsmtpd_sasl_authenticated_header = yes\nbroken_sasl_auth_clients = yes\n")
        with open(self.dir / "conf" / "master.cf", "a") as f:
            for mech, port in self.by.items():
                f.write(f"127.0.0.1:{port} inet n - n - - smtpd\n  -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_mechanism_filter={mech.lower()}\n"
                        "  -o smtpd_tls_security_level=encrypt -o smtpd_tls_auth_only=yes -o smtpd_error_sleep_time=0\n"
                        "  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject\n")

    def stop(self):
        super().stop()
        if hasattr(self, "dovecot"):
            self.dovecot.stop()


class World:
    def __init__(self, directory, cert, key):
        self.mta = self.node = None
        self.sink = Sink()
        try:
            self.mta = Submission(cert, key, self.sink.port, 1, 1)
            self.passwords = {}
            for name, text in (("good", PASSWORD), ("bad", "wrong")):
                self.passwords[name] = directory / name
                self.passwords[name].touch(0o600)
                self.passwords[name].write_text(text + "\n")
            routes = [f'{{domain: {mech.lower()}.{name}.to-mta.example, to: "smtp:[127.0.0.1]:{port}", tls: must, user: {USER}, password_file: {file}}}'
                      for mech, port in self.mta.by.items() for name, file in self.passwords.items()]
            self.node = Node(directory, routes=f"[{', '.join(routes)}]", name="login", workers=1, engine="trivial")
        except BaseException:
            self.stop()
            raise

    def stop(self):
        for thing in (self.node, self.mta, self.sink):
            if thing:
                thing.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory, authority):
    if not have("dovecot") or os.geteuid() != 0:
        pytest.skip("Dovecot is not installed, or needs root")
    w = World(tmp_path_factory.mktemp("login"), *authority.issue("smarthost.test", rsa=True))
    yield w
    w.stop()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_postfix_takes_the_login(world, mechanism):
    rcpt = f"bob@{mechanism.lower()}.good.to-mta.example"
    data = head("login", True) + b"\r\nx\r\n"
    send(world.node.port, "a@origin.example", [rcpt], data)
    found = wait_for(lambda: [m for m in world.sink.messages if rcpt in m["to"]], 30)
    assert found, world.node.log_text()[-3000:] + world.mta.log_text()[-3000:]
    assert below_trace(found[0]["data"], data) and b"Authenticated sender: " + USER.encode() in found[0]["data"]
    assert f"sasl_method={mechanism}, sasl_username={USER}" in world.mta.log_text()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_postfix_refuses_it_and_mail_waits(world, mechanism):
    rcpt = f"bob@{mechanism.lower()}.bad.to-mta.example"
    send(world.node.port, "a@origin.example", [rcpt], head("login", True) + b"\r\nx\r\n")
    m = wait_for(lambda: next((q for q in world.node.queue() if q["to"] == rcpt and q["state"] == "deferred"), None))
    assert m and m["reason"].startswith("451 4.7.0 ") and "refuses the login: 535 " in m["reason"], world.node.log_text()[-3000:]
    assert world.node.counters()["outbound_login_failures_total"] >= 1
    world.node.ctl("queue", "delete", m["id"])
