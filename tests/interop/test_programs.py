"""The submission service and the programs that people and servers submit with: swaks, msmtp, curl, nodemailer, python3's smtplib (A9, P8)."""
import json
import re
import smtplib
import ssl
import subprocess

import pytest
from letters import below_trace, big, head, ugly
from mta import unpacked
from node import BIN, Node, Sink, have, wait_for

TRUST = ssl._create_unverified_context()
USER, PASSWORD, SENDER, UTF8 = "bob", "open, Sesame", "bob@cam.example", "grün.ß@elsewhere.example"


def run(*args, data=None, **kw):
    p = subprocess.run([str(a) for a in args], input=data, capture_output=True, timeout=60, **kw)
    assert p.returncode == 0, (p.stdout + p.stderr).decode("utf-8", "replace")[-3000:]
    return p


class Service:
    def __init__(self, directory):
        self.sink = Sink(extensions=("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 100000000"))
        self.dir = directory
        passwords = directory / "passwords"
        passwords.write_bytes(run(BIN / "weirctl", "auth", "hash", USER, data=PASSWORD.encode() + b"\n").stdout)
        self.node = Node(directory, self.sink.port, workers=1, submission=True,
                         extra=f"relay_clients: [{{network: 192.0.2.0/24}}]\nauth: {{password_file: {passwords}}}\n")

    def arrived(self, rcpt, data=None):
        assert wait_for(lambda: [m for m in self.sink.messages if rcpt in m["to"]], 30), self.node.log_text()[-2000:]
        m, = [m for m in self.sink.messages if rcpt in m["to"]]
        assert m["from"] == SENDER and (data is None or below_trace(m["data"], data)), m["data"][:2000]
        assert re.search(rb"with (UTF8SMTPSA|ESMTPSA)", m["data"])  # RFC 3848, RFC 6531 4.3: under TLS, logged in
        return m

    def stop(self):
        self.node.stop()
        self.sink.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    s = Service(tmp_path_factory.mktemp("clients"))
    yield s
    s.stop()


# Each sends `data` to one recipient, logged in by `auth`, over STARTTLS on 587's listener or in TLS on 465's.

def swaks(service, implicit, auth, rcpt, data):
    message = service.dir / "message"
    message.write_bytes(re.sub(rb"(?m)^\.", b"..", data) + b".\r\n")  # it is to do nothing to it
    run("swaks", "--server", "127.0.0.1", "--port", service.node.submissions if implicit else service.node.submission, "-tlsc" if implicit else "-tls",
        "--auth", auth.upper(), "--auth-user", USER, "--auth-password", PASSWORD, "--from", SENDER, "--to", rcpt,
        "--data", f"@{message}", "--no-data-fixup", "--suppress-data", "--no-strip-from")


def msmtp(service, implicit, auth, rcpt, data):
    password = service.dir / "password"
    password.write_text(PASSWORD + "\n")
    run("msmtp", "--file=/dev/null", "--host=127.0.0.1", f"--port={service.node.submissions if implicit else service.node.submission}", "--tls=on",
        f"--tls-starttls={'off' if implicit else 'on'}", "--tls-certcheck=off", f"--auth={auth}", f"--user={USER}", f"--passwordeval=cat {password}",
        f"--from={SENDER}", rcpt, data=data.replace(b"\r\n", b"\n"))


def curl(service, implicit, auth, rcpt, data):
    url = f"smtps://127.0.0.1:{service.node.submissions}" if implicit else f"smtp://127.0.0.1:{service.node.submission}"
    run("curl", "-sS", "--insecure", "--ssl-reqd", "--url", url + "/client.test", "--user", f"{USER}:{PASSWORD}", "--login-options", f"AUTH={auth.upper()}",
        "--mail-from", SENDER, "--mail-rcpt", rcpt, "--upload-file", "-", data=data)


def python3(service, implicit, auth, rcpt, data):
    make = smtplib.SMTP_SSL if implicit else smtplib.SMTP
    c = make("127.0.0.1", service.node.submissions, context=TRUST, timeout=60) if implicit else make("127.0.0.1", service.node.submission, timeout=60)
    if not implicit:
        c.starttls(context=TRUST)
    c.ehlo()
    c.esmtp_features["auth"] = auth.upper()
    c.login(USER, PASSWORD)
    options = ["BODY=8BITMIME"] + ["SMTPUTF8"] * (not rcpt.isascii())
    c.sendmail(SENDER, [rcpt], data, mail_options=options)
    c.quit()


NODE = """
const settings = JSON.parse(process.argv[1]);
const transport = require('nodemailer').createTransport(settings.transport);
transport.sendMail(settings.message).then(r => { if (r.rejected.length) throw r; process.exit(0); }).catch(e => { console.error(e); process.exit(1); });
"""


def nodemailer(service, implicit, auth, rcpt, data):
    if not have("node"):
        pytest.skip("node is not installed")
    modules = unpacked("node-nodemailer") / "usr/share/nodejs"
    message = service.dir / "message"
    message.write_bytes(data)
    settings = {"transport": {"host": "127.0.0.1", "port": service.node.submissions if implicit else service.node.submission, "secure": implicit, "requireTLS": not implicit,
                              "tls": {"rejectUnauthorized": False}, "authMethod": auth.upper(), "auth": {"user": USER, "pass": PASSWORD}, "name": "client.test"},
                "message": {"envelope": {"from": SENDER, "to": [rcpt]}, "raw": {"path": str(message)}}}
    run("node", "-e", NODE, json.dumps(settings), env={"NODE_PATH": str(modules), "PATH": "/usr/bin:/bin:/usr/local/bin"})


# Which mechanisms each can of those that there are.
CLIENTS = {swaks: ("plain", "login"), msmtp: ("plain", "login", "scram-sha-256"), curl: ("plain", "login"), python3: ("plain", "login"),
           nodemailer: ("plain", "login")}
ways = pytest.mark.parametrize("implicit", (False, True), ids=("587", "465"))


@ways
@pytest.mark.parametrize("client, auth", [(c, a) for c, auths in CLIENTS.items() for a in auths], ids=lambda x: getattr(x, "__name__", x))
def test_a_client_logs_in_and_submits_an_ugly_message(service, client, auth, implicit):
    rcpt = f"{client.__name__}.{auth}.{implicit}@elsewhere.example"
    data = ugly(rcpt)
    client(service, implicit, auth, rcpt, data)
    service.arrived(rcpt, data)


@pytest.mark.parametrize("client, implicit", [(c, i % 2 == 0) for i, c in enumerate(CLIENTS)], ids=lambda x: getattr(x, "__name__", ""))
def test_ten_megabytes(service, client, implicit):
    rcpt = f"{client.__name__}.big@elsewhere.example"
    data = big(rcpt, 1_000_000 if client is swaks else 10_000_000)  # swaks would take a minute
    client(service, implicit, "plain", rcpt, data)
    service.arrived(rcpt, data)


@ways
@pytest.mark.parametrize("client", [curl, python3, nodemailer])
def test_utf8_addresses(service, client, implicit):
    """These ask for SMTPUTF8 (RFC 6531) by themselves or when told to."""
    rcpt = f"{client.__name__}.{implicit}.{UTF8}"
    data = head("utf8") + "X-Text: grüße\r\n\r\nGrüße\r\n".encode()
    client(service, implicit, "plain", rcpt, data)
    m = service.arrived(rcpt, data)
    assert "SMTPUTF8" in m["mail"] and "UTF8SMTPSA" in m["data"].decode()


@pytest.mark.parametrize("client", [swaks, msmtp])
def test_utf8_addresses_without_smtputf8_are_refused(service, client):
    """These know nothing of SMTPUTF8 and send the octets all the same: a clear refusal, and nothing leaves (P20)."""
    with pytest.raises(AssertionError, match="5[05]3|501|550"):
        client(service, False, "plain", f"{client.__name__}.{UTF8}", head("utf8") + b"\r\nx\r\n")
