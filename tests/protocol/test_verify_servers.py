"""Rule B2 against real servers and real DNS: Postfix, Exim, Dovecot's LMTP, nsd."""
import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import textwrap

import pytest
from node import ROOT, Sink, free_port, have, wait_for
from test_routes import nsd  # noqa: F401 (a fixture)
from test_verify import OUTSIDE, PATIENT, Tap, domain_record, rcpt, record, routes

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def home():
    d = pathlib.Path(tempfile.mkdtemp(prefix="weir-verify-"))
    d.chmod(0o755)
    yield d
    shutil.rmtree(d, ignore_errors=True)


@pytest.fixture
def postfix(home):
    if not have("postfix"):
        pytest.skip("postfix is not installed")
    port = free_port()
    for name in ("conf", "queue", "data"):
        (home / name).mkdir()
    os.chown(home / "data", pwd.getpwnam("postfix").pw_uid, -1)
    (home / "conf" / "main.cf").write_text(textwrap.dedent(f"""\
        compatibility_level = 3.6
        queue_directory = {home}/queue
        data_directory = {home}/data
        myhostname = postfix.test
        mynetworks =
        inet_interfaces = 127.0.0.1
        inet_protocols = ipv4
        mydestination =
        relay_domains = cam.example
        relay_recipient_maps = inline:{{ bob@cam.example=x }}
        relay_transport = discard:
        """))
    master = pathlib.Path("/usr/share/postfix/master.cf.dist").read_text()
    master = re.sub(r"(?m)^smtp +inet .*", f"127.0.0.1:{port} inet n - n - 100 smtpd", master)
    (home / "conf" / "master.cf").write_text(re.sub(r"(?m)^(\w+ +\w+ +[-\w]+ +[-\w]+ +)y", r"\1n", master))
    p = subprocess.run(["postfix", "-c", home / "conf", "start"], capture_output=True, text=True, timeout=60)
    assert p.returncode == 0, p.stderr
    yield port
    subprocess.run(["postfix", "-c", home / "conf", "stop"], capture_output=True, timeout=60)


@pytest.fixture
def dovecot(home):
    if not os.path.exists("/usr/lib/dovecot/lmtp"):
        pytest.skip("Dovecot's LMTP server is not installed")
    port, nobody = free_port(), pwd.getpwnam("nobody")
    (home / "mail").mkdir()
    os.chown(home / "mail", nobody.pw_uid, nobody.pw_gid)
    (home / "users").write_text(f"bob@cam.example::{nobody.pw_uid}:{nobody.pw_gid}::{home}/mail/bob::\n")
    (home / "dovecot.conf").write_text(textwrap.dedent(f"""\
        base_dir = {home}/base
        state_dir = {home}/base
        log_path = {home}/log
        protocols = lmtp
        ssl = no
        mail_location = maildir:{home}/mail/%n
        first_valid_uid = 1
        default_internal_user = dovecot
        userdb {{
          driver = passwd-file
          args = username_format=%u {home}/users
        }}
        passdb {{
          driver = static
          args = nopassword=y
        }}
        service lmtp {{
          inet_listener lmtp {{
            address = 127.0.0.1
            port = {port}
          }}
        }}
        """))
    p = subprocess.Popen(["dovecot", "-F", "-c", home / "dovecot.conf"])
    yield port
    p.terminate()
    p.wait(20)


@pytest.fixture
def exim(home):
    """Debian's package, unpacked beside Postfix, with which it conflicts; its user is there in a mount namespace only."""
    unpacked, port, user = ROOT / "build" / "counterparts", free_port(), 64201
    p = subprocess.run([ROOT / "tests" / "support" / "counterparts", unpacked, "exim4-daemon-light"], capture_output=True, text=True, timeout=120)
    if p.returncode:
        pytest.skip(f"Exim cannot be fetched: {p.stderr[-300:]}")
    for name, line in (("passwd", f"Debian-exim:x:{user}:{user}::/nonexistent:/usr/sbin/nologin\n"), ("group", f"Debian-exim:x:{user}:\n")):
        (home / name).write_text("".join(x for x in open(f"/etc/{name}") if not x.startswith("Debian-exim:")) + line)
    for name in ("spool", "logs"):
        (home / name).mkdir()
        os.chown(home / name, user, user)
    (home / "exim.conf").write_text(textwrap.dedent(f"""\
        spool_directory = {home}/spool
        log_file_path = {home}/logs/%s
        pid_file_path = {home}/spool/exim.pid
        primary_hostname = exim.test
        local_interfaces = 127.0.0.1
        daemon_smtp_ports = {port}
        host_lookup =
        rfc1413_query_timeout = 0s
        keep_environment =
        tls_advertise_hosts =
        acl_smtp_rcpt = rcpt
        begin acl
        rcpt:
          require verify = recipient
          accept domains = cam.example
          deny message = relay not permitted
        begin routers
        users:
          driver = accept
          domains = cam.example
          local_parts = bob
          transport = nowhere
          cannot_route_message = Unknown user
        begin transports
        nowhere:
          driver = appendfile
          file = /dev/null
        """))
    bind = 'mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group || exit 100; shift; exec "$@"'
    with open(home / "out", "wb") as out:
        p = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", bind, "sh", home, unpacked / "exim4-daemon-light/usr/sbin/exim4",
                              "-C", home / "exim.conf", "-bdf"], stdout=out, stderr=out)
    if wait_for(lambda: p.poll() is not None or listens(port), 20) and p.poll() == 100:
        pytest.skip("no mount namespaces here")
    assert p.poll() is None, (home / "out").read_text()
    yield port
    p.terminate()
    p.wait(20)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


@pytest.fixture(params=["postfix", "exim", "dovecot"])
def server(request):
    """Only bob is there."""
    return "lmtp" if request.param == "dovecot" else "smtp", request.getfixturevalue(request.param)


@needs_root
def test_b2_real_servers(server, make_node):
    kind, port = server
    tap = Tap(port)
    node = make_node(routes=routes(tap.port, kind), extra=OUTSIDE + PATIENT)
    assert wait_for(lambda: rcpt(node, "bob@cam.example").startswith("250"))
    for _ in range(5):
        assert rcpt(node, "bob@cam.example").startswith("250")
        no = rcpt(node, "nobody@cam.example")
        assert no.startswith("550 5.1.1") and re.search("(?i)user (unknown|doesn't exist)|unknown user|unrouteable address", no), no
    assert record(node, "bob@cam.example").startswith("W1 yes ") and domain_record(node).startswith("W1 yes ")
    assert record(node, "nobody@cam.example").startswith("W1 no ") and " 550 " in record(node, "nobody@cam.example")
    said = bytes(tap.said)
    assert said.count(b"RCPT TO:") == 3 and said.count(b"MAIL FROM:<>") == 2 and b"DATA" not in said
    assert tap.connections <= 2
    tap.stop()


@pytest.mark.parametrize("domain, answer, kept", [
    ("null.example", "550 5.1.10", "no"),
    ("nowhere.example", "550 5.1.2", "no"),
    ("implicit.example", "250", "yes"),
    ("both.example", "250", "yes"),
])
def test_b2_by_mx(nsd, make_node, domain, answer, kept):  # noqa: F811
    """The exchangers are those of deliveries: null MX and no such domain are known for the whole domain (verify.domain_no); a dead first exchanger is passed over."""
    sink = Sink(decide=lambda k, t: "550 5.1.1 no" if k == "rcpt" and "bob" not in t else None)
    node = make_node(routes=f"[{{domain: {domain}, to: mx, recipients: verify}}]",
                     extra=OUTSIDE + PATIENT + f'dns: {{servers: ["127.0.0.1:{nsd}"]}}\ndelivery: {{port: {sink.port}, connect_timeout: 2s}}\n')
    node.config.write_text(node.config.read_text().replace("local_domains: [cam.example]", f"local_domains: [cam.example, {domain}]"))
    assert node.ctl_text("config", "reload").returncode == 0
    assert wait_for(lambda: rcpt(node, f"bob@{domain}").startswith(answer)), rcpt(node, f"bob@{domain}")
    assert domain_record(node, domain).startswith(f"W1 {kept} ")
    probes = node.counters()["verify_probes_total"]
    if kept == "no":
        answers = [rcpt(node, f"user{i}@{domain}") for i in range(5)]
        assert all(a.startswith(answer) for a in answers) and sink.connections == 0, answers
        assert node.counters()["verify_probes_total"] == probes, "the domain is known"
    else:
        assert sink.connections == 1
    sink.stop()
