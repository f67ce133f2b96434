"""TLS of the server and its upkeep (P23), borders of TLS in both directions (P4), what happens when TLS with a remote host fails (F4)."""
import os
import re
import signal
import socket
import ssl
import subprocess
import threading

import pytest
from node import Node, Smtp, free_port, have, wait_for
from tls_world import Authority, TlsSink, sh

pytestmark = pytest.mark.skipif(not have("openssl"), reason="openssl is not installed")

TEXT = b"From: a@cam.example\r\nSubject: test\r\n\r\ntext\r\n"


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


def certificate(ca, tmp, name, *names, rsa=False, days=30):
    """A certificate and its key in files of their own, self-signed when names is empty."""
    key, req, cert, ext = (tmp / (name + x) for x in (".key", ".csr", ".pem", ".ext"))
    sh("openssl", "genpkey", *(("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048") if rsa else
                               ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")), "-out", key)
    sh("openssl", "req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", req)
    ext.write_text("subjectAltName=" + ",".join("DNS:" + n for n in names or [name]) + "\nbasicConstraints=CA:FALSE\n")
    sh("openssl", "x509", "-req", "-in", req, "-CA", ca.cert, "-CAkey", ca.key, "-CAcreateserial", "-days", days, "-extfile", ext, "-out", cert)
    key.chmod(0o600)
    return cert, key


def anybody(version=None, ciphers=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    if version:
        c.minimum_version = c.maximum_version = version
    if ciphers:
        c.set_ciphers(ciphers)
    return c


def serial(s):
    """Which certificate a TLS socket got, by its common name."""
    der = s.getpeercert(True)
    return re.search(rb"CN ?= ?([\w.-]+)", sh("openssl", "x509", "-inform", "DER", "-noout", "-subject", data=der)).group(1).decode()


def served(node, name=None, context=None):
    with (context or anybody()).wrap_socket(socket.create_connection((node.host, node.smtps), 10), server_hostname=name) as s:
        assert s.recv(100).startswith(b"220")
        return serial(s)


def starttls(c, context=None, **how):
    """Begins TLS on a client's connection."""
    assert c.cmd("EHLO client.test").startswith("250")
    assert c.cmd("STARTTLS").startswith("220")
    c.s = (context or anybody()).wrap_socket(c.s, **how)
    c.f = c.s.makefile("rb")


# ---- certificates ----

@pytest.fixture(scope="module")
def many(ca, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("many")
    first, rsa = certificate(ca, tmp, "first", "relay.cam.example"), certificate(ca, tmp, "first-rsa", "relay.cam.example", rsa=True)
    wild, other = certificate(ca, tmp, "wild", "*.dept.example"), certificate(ca, tmp, "other", "mail.dept.example")
    more = ", ".join(f"{{certificate: {c}, key: {k}}}" for c, k in (rsa, wild, other))
    n = Node(tmp, engine="trivial", extra=f"tls:\n  certificate: {first[0]}\n  key: {first[1]}\n  certificates: [{more}]\n")
    yield n
    n.stop()


@pytest.mark.parametrize("name, cn", [(None, "first"), ("nobody.example", "first"), ("relay.cam.example", "first"), ("a.dept.example", "wild"),
                                      ("mail.dept.example", "other"), ("MAIL.Dept.Example", "other"), ("a.b.dept.example", "first")])
def test_the_name_asked_for_chooses_the_certificate(many, name, cn):
    assert served(many, name) == cn
    c = Smtp(many.port)
    starttls(c, server_hostname=name)
    assert serial(c.s) == cn
    c.close()


def test_rsa_and_ecdsa_for_one_name(many):
    for ciphers, cn in (("aRSA", "first-rsa"), ("aECDSA", "first")):
        assert served(many, "relay.cam.example", anybody(ssl.TLSVersion.TLSv1_2, ciphers)) == cn


def config_check(node, text):
    file = node.dir / "try.yaml"
    file.write_text(text)
    return node.ctl_text("config", "check", str(file))


def test_certificates_are_checked_with_the_configuration(many, ca, tmp_path):
    """Each error with file and line; what is only doubtful is a warning."""
    good, other = certificate(ca, tmp_path, "good"), certificate(ca, tmp_path, "another")
    weak = tmp_path / "weak.key"
    sh("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", weak)
    sh("openssl", "req", "-x509", "-new", "-key", weak, "-subj", "/CN=weak", "-out", tmp_path / "weak.pem")
    (tmp_path / "junk.pem").write_text("not a certificate\n")
    short = tmp_path / "short.keys"
    short.write_bytes(b"k" * 79)

    def tls(cert, key, more=""):
        return f"hostname: relay.cam.example\ntls:\n  certificate: {good[0]}\n  key: {good[1]}\n  certificates:\n  - {{certificate: {cert}, key: {key}}}\n{more}"

    for text, line, what in (
            (tls(tmp_path / "none.pem", good[1]), 6, "none.pem cannot be read"),
            (tls(good[0], tmp_path / "none.key"), 6, "none.key cannot be read"),
            (tls(good[0], other[1]), 6, "does not belong to the certificate"),
            (tls(tmp_path / "junk.pem", good[1]), 6, "has no certificate in PEM form"),
            (tls(good[0], good[0]), 6, "has no private key in PEM form"),
            (tls(tmp_path / "weak.pem", weak), 6, "too weak"),
            (f"hostname: a.example\ntls: {{certificates: [{good[0]}]}}\n", 2, "an entry is {certificate: FILE, key: FILE}"),
            (f"hostname: a.example\ntls:\n  certificate: {good[0]}\n", 3, "certificate is there without tls.key"),
            (f"hostname: a.example\ntls:\n  key: {good[1]}\n", 3, "key is there without tls.certificate"),
            (tls(*good, f"  ticket_key_file: {short}\n"), 7, "a key has 80"),
            (tls(*good, "  min_version: 1.1\n"), 7, "write 1.2 or 1.3"),
            (tls(*good, "  ciphers: ECDHE+AESGCM:ECDHE+CHACHA21\n"), 7, 'ciphers: "ECDHE+CHACHA21" is no cipher of TLS 1.2'),
            (tls(*good, "  ciphers: aNULL\n"), 7, "ciphers: no cipher is left"),
            (tls(*good, f"  ca_file: {tmp_path}/none.pem\n"), 7, "none.pem cannot be read"),
            (tls(*good, f"  ca_file: {good[1]}\n"), 7, "has no certificate in PEM form")):
        p = config_check(many, text)
        assert p.returncode == 1 and re.search(rf"try.yaml:{line}: tls.*{re.escape(what)}", p.stderr), p.stderr
    old = certificate(ca, tmp_path, "old", days=0)
    soon = certificate(ca, tmp_path, "soon", days=5)
    soon[1].chmod(0o644)
    p = config_check(many, tls(*old, f"  - {{certificate: {soon[0]}, key: {soon[1]}}}\n"))
    assert p.returncode == 0, p.stderr
    assert re.search(r"try.yaml:6: warning: tls: .*old.pem has expired", p.stderr) and re.search(r"try.yaml:7: warning: tls: .*soon.pem expires in [45] days", p.stderr)
    assert re.search(r"try.yaml:7: warning: tls: everybody can read the key in .*soon.key", p.stderr)


# ---- renewal ----

@pytest.fixture
def renewing(ca, tmp_path, make_node, sink):
    """A node with a certificate in files that the test overwrites."""
    cert, key = certificate(ca, tmp_path, "live")
    n = make_node(sink.port, engine="trivial", extra=f"tls: {{certificate: {cert}, key: {key}, watch: 1s}}\n")
    return n, cert, key


def put(pair, cert, key):
    """As certbot does: new files are moved over the old ones, one after the other."""
    for new, old in zip(pair, (cert, key)):
        tmp = old.with_suffix(".tmp")
        tmp.write_bytes(new.read_bytes())
        tmp.chmod(0o600)
        tmp.rename(old)


def test_a_renewed_certificate_is_taken_over_by_itself(renewing, ca, tmp_path, sink):
    node, cert, key = renewing
    old, under_tls = Smtp(node.port), Smtp(node.port)
    starttls(under_tls)
    assert serial(under_tls.s) == "live"
    assert under_tls.cmd("EHLO client.test").startswith("250")
    under_tls.send("MAIL FROM:<a@cam.example>\r\nRCPT TO:<b@cam.example>\r\nDATA\r\n")
    assert [under_tls.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
    put(certificate(ca, tmp_path, "renewed"), cert, key)
    # every worker: a connection may come to any of them
    assert wait_for(lambda: all(served(node) == "renewed" for _ in range(8)), 20), node.log_text()[-2000:]
    assert "event=tls-certificates " in node.log_text()
    starttls(old)
    assert serial(old.s) == "renewed", "a session of before has a handshake of now"
    under_tls.send(TEXT + b".\r\n")
    assert under_tls.reply().startswith("250"), "no connection was lost"
    assert wait_for(lambda: sink.count == 1)
    old.close(), under_tls.close()


def test_reload_takes_a_renewed_certificate(ca, tmp_path, make_node):
    cert, key = certificate(ca, tmp_path, "live")
    node = make_node(engine="trivial", extra=f"tls: {{certificate: {cert}, key: {key}, watch: 1d}}\n")
    put(certificate(ca, tmp_path, "renewed"), cert, key)
    assert served(node) == "live"
    assert node.ctl_text("config", "reload").returncode == 0
    assert wait_for(lambda: all(served(node) == "renewed" for _ in range(8)), 20)


def test_a_bad_renewal_keeps_the_old_certificate_and_says_so(renewing, ca, tmp_path):
    node, cert, key = renewing
    new = certificate(ca, tmp_path, "renewed")
    key_before = key.read_bytes()
    put((new[0], key), cert, key)  # only the half of it
    assert wait_for(lambda: "event=tls-certificates-refused " in node.log_text(), 20)
    assert "does not belong to the certificate" in node.log_text()
    assert wait_for(lambda: "cannot be used: the earlier ones stay" in node.ctl_text("status").stdout)
    assert node.counters()["tls_certificate_refused"] == 1
    p = node.ctl_text("config", "reload")
    assert p.returncode == 1 and re.search(r"weir.yaml:\d+: tls: the key in .*does not belong", p.stderr)
    assert served(node) == "live" and key.read_bytes() == key_before
    # a worker that starts meanwhile has the good one, too
    for pid in node.pids("weir-dataplane"):
        os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: node.up(), 20) and served(node) == "live"
    put(new, cert, key)
    assert wait_for(lambda: all(served(node) == "renewed" for _ in range(8)), 20)
    assert wait_for(lambda: node.counters()["tls_certificate_refused"] == 0)


def test_the_end_of_a_certificate_is_announced(renewing, ca, tmp_path):
    node, cert, key = renewing
    assert "expires within" not in node.ctl_text("status").stdout
    assert 29 * 86400 < node.counters()["tls_certificate_left_seconds"] <= 30 * 86400
    put(certificate(ca, tmp_path, "soon", days=5), cert, key)
    assert wait_for(lambda: node.counters()["tls_certificate_left_seconds"] <= 5 * 86400, 20)
    assert "! a server certificate expires within 14 days" in node.ctl_text("status").stdout
    with socket.create_connection(("127.0.0.1", node.metrics), 10) as s:
        s.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        metrics = b"".join(iter(lambda: s.recv(65536), b"")).decode()
    assert re.search(r'weir_tls_certificate_left_seconds\{role="control",instance="0"\} 4[0-9]{5}\n', metrics)
    put(certificate(ca, tmp_path, "old", days=0), cert, key)
    assert wait_for(lambda: "! a server certificate has expired" in node.ctl_text("status").stdout, 20)


# ---- resumption ----

def again(node, context, session):
    with context.wrap_socket(socket.create_connection((node.host, node.smtps), 10), session=session) as s:
        assert s.recv(100).startswith(b"220")
        return s.session, s.session_reused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_by_any_worker(node, version):
    context, session = anybody(version), None
    session, reused = again(node, context, session)
    assert not reused
    for _ in range(16):  # over two workers
        session, reused = again(node, context, session)
        assert reused
    assert node.counters()["tls_resumed_total"] >= 16


def test_ticket_keys_are_secret_kept_over_restarts_and_replaced(make_node):
    node = make_node(engine="trivial", extra="tls: {ticket_life: 1s, watch: 1s}\n")
    assert (node.run / "tls").stat().st_mode & 0o777 == 0o600
    first = (node.run / "tls").read_bytes()
    assert wait_for(lambda: (node.run / "tls").read_bytes() != first, 20)
    for life, wanted in (("12h", True), ("0s", False)):
        node.config.write_text(re.sub(r"ticket_life: \w+", f"ticket_life: {life}", node.config.read_text()))
        before = (node.run / "tls").read_bytes()
        assert node.ctl_text("config", "reload").returncode == 0
        [control] = node.pids("weir-control")
        if wanted:  # ends and starts with the same keys
            kept = (node.run / "tls").read_bytes()
            os.kill(control, signal.SIGKILL)
            assert wait_for(lambda: node.pids("weir-control") not in ([], [control]) and "control" in str(node.ctl("status", check=False)), 20)
            assert wait_for(lambda: node.up(), 20) and (node.run / "tls").read_bytes() == kept
        else:
            assert wait_for(lambda: (node.run / "tls").read_bytes() != before)
        context = anybody(ssl.TLSVersion.TLSv1_2)

        def resumes():
            session, _ = again(node, context, None)
            return all(again(node, context, session)[1] for _ in range(8))

        def never_resumes():
            session, _ = again(node, context, None)
            return session is None or not any(again(node, context, session)[1] for _ in range(8))

        assert wait_for(resumes if wanted else never_resumes, 20)


def test_nodes_that_share_ticket_keys_resume_each_others_sessions(make_node, tmp_path):
    keys = tmp_path / "ticket.keys"
    keys.write_bytes(os.urandom(160))
    keys.chmod(0o600)
    one, two, own = (make_node(engine="trivial", name=n, extra=f"tls: {{ticket_key_file: {keys}}}\n" if n != "own" else "") for n in ("one", "two", "own"))
    context = anybody(ssl.TLSVersion.TLSv1_3)
    session, _ = again(one, context, None)
    session, reused = again(two, context, session)
    assert reused
    _, reused = again(own, context, session)
    assert not reused


# ---- defaults ----

@pytest.fixture(scope="module")
def scanned(ca, tmp_path_factory):
    """With an RSA certificate, too: without one most of what is bad cannot even be tried."""
    tmp = tmp_path_factory.mktemp("scanned")
    ec, rsa = certificate(ca, tmp, "relay.cam.example"), certificate(ca, tmp, "relay.cam.example-rsa", "relay.cam.example", rsa=True)
    n = Node(tmp, engine="trivial", extra=f"tls: {{certificates: [{{certificate: {ec[0]}, key: {ec[1]}}}, {{certificate: {rsa[0]}, key: {rsa[1]}}}]}}\n"
             "limits: {errors: 0, tls_handshakes: 0}\n")
    yield n
    n.stop()


@pytest.mark.skipif(not have("sslscan"), reason="sslscan is not installed")
@pytest.mark.parametrize("way", ["starttls", "implicit"])
def test_sslscan_finds_nothing_bad(scanned, way):
    port = scanned.port if way == "starttls" else scanned.smtps
    p = subprocess.run(["sslscan", "--no-colour", *(["--starttls-smtp"] if way == "starttls" else []), f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=300)
    out = p.stdout
    for version, wanted in (("SSLv2", "disabled"), ("SSLv3", "disabled"), ("TLSv1.0", "disabled"), ("TLSv1.1", "disabled"), ("TLSv1.2", "enabled"), ("TLSv1.3", "enabled")):
        assert re.search(rf"^{re.escape(version)} +{wanted}$", out, re.M), out
    assert "vulnerable to heartbleed" in out and not re.search(r"(?<!not )vulnerable to heartbleed", out), out
    assert re.search(r"[Rr]enegotiation (not supported|disabled)|Secure session renegotiation supported", out) and "Insecure" not in out, out
    ciphers = re.findall(r"^(?:Preferred|Accepted) +(TLSv1\.\d) +(\d+) bits +(\S+)", out, re.M)
    assert len(ciphers) > 6 and all(int(bits) >= 128 for _, bits, _ in ciphers), out
    assert {c for v, _, c in ciphers if v == "TLSv1.3"} == {"TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"}
    assert all(re.fullmatch(r"ECDHE-(RSA|ECDSA)-(AES\d+-GCM-SHA\d+|CHACHA20-POLY1305|AES\d+-SHA(256|384))", c) for v, _, c in ciphers if v == "TLSv1.2"), ciphers
    assert any("ECDHE-RSA" in c for _, _, c in ciphers) and any("ECDHE-ECDSA" in c for _, _, c in ciphers)
    groups = set(re.findall(r"^TLSv1\.3 +\d+ bits +(\S+)", out.split("Server Key Exchange Group(s)")[1], re.M))
    assert "x25519" in groups and not any("ffdhe" in g for g in groups), groups


def test_compression_is_not_taken(scanned):
    """sslscan cannot ask, as its OpenSSL has none: a hello of our own offers deflate and null, and gets null."""
    def block(kind, data):
        return kind.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data

    extensions = (block(10, b"\x00\x02\x00\x17") + block(11, b"\x01\x00") + block(13, b"\x00\x04\x04\x03\x04\x01"))
    body = b"\x03\x03" + b"r" * 32 + b"\x00" + b"\x00\x02\xc0\x2b" + b"\x02\x01\x00" + len(extensions).to_bytes(2, "big") + extensions
    hello = b"\x01" + len(body).to_bytes(3, "big") + body
    with socket.create_connection(("127.0.0.1", scanned.smtps), 10) as s:
        s.sendall(b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello)
        answer = s.makefile("rb").read(5 + 4 + 2 + 32 + 1 + 32 + 3)
    assert answer[0] == 0x16 and answer[5] == 2, answer
    session = answer[43]
    assert answer[44 + session:47 + session] == b"\xc0\x2b\x00"


def test_the_server_chooses_the_cipher(scanned):
    worst_first = "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    with anybody(ssl.TLSVersion.TLSv1_2, worst_first).wrap_socket(socket.create_connection(("127.0.0.1", scanned.smtps), 10)) as s:
        assert s.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


def test_a_client_cannot_renegotiate(scanned):
    p = subprocess.Popen(["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{scanned.smtps}", "-crlf"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT)
    try:
        seen = b""
        while b"220 relay" not in seen:
            seen += p.stdout.read1(4096)
        p.stdin.write(b"R\n")
        p.stdin.flush()
        out = b""
        while chunk := p.stdout.read1(4096):
            out += chunk
        assert b"RENEGOTIATING" in out and b"no renegotiation" in out, out
    finally:
        p.kill()
        p.wait()


def test_the_oldest_version_can_be_chosen(make_node):
    node = make_node(engine="trivial", extra='tls: {min_version: "1.3"}\n')
    with pytest.raises(ssl.SSLError):
        again(node, anybody(ssl.TLSVersion.TLSv1_2), None)
    again(node, anybody(ssl.TLSVersion.TLSv1_3), None)


@pytest.mark.skipif(not have("posttls-finger"), reason="postfix is not installed")
def test_postfix_likes_it(scanned, ca, tmp_path):
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    p = subprocess.run(["posttls-finger", "-c", "-l", "verify", "-F", ca.cert, f"[127.0.0.1]:{scanned.port}", "relay.cam.example"], capture_output=True, text=True, timeout=60, env={**os.environ, "MAIL_CONFIG": str(tmp_path)})
    out = p.stdout + p.stderr
    assert "Verified TLS connection established" in out and "TLSv1.3" in out, out


# ---- handshakes ----

def test_handshakes_of_a_client_are_limited(make_node):
    """By each worker, so there is one."""
    node = make_node(engine="trivial", workers=1, extra="limits: {tls_handshakes: 3}\n")
    for _ in range(2):
        c = Smtp(node.port)
        starttls(c)
        c.close()
    assert served(node)
    c = Smtp(node.port)
    assert c.cmd("EHLO client.test").startswith("250")
    assert c.cmd("STARTTLS").startswith("421 4.7.0 ") and c.reply() is None
    c.close()
    # pipelined: what was asked before gets its answers
    c = Smtp(node.port)
    c.send("EHLO client.test\r\nNOOP\r\nSTARTTLS\r\n")
    assert [c.reply()[:3] for _ in range(3)] == ["250", "250", "421"] and c.reply() is None
    c.close()
    with pytest.raises(OSError):
        served(node)
    assert node.counters()["tls_limited_total"] == 3
    other = Smtp(node.port, source="127.0.0.9")
    starttls(other)
    other.close()
    plain = Smtp(node.port)  # without TLS it may go on
    assert plain.cmd("EHLO client.test").startswith("250") and plain.cmd("MAIL FROM:<a@cam.example>").startswith("250")
    plain.close()


def test_a_thousand_stalled_handshakes_beside_load(make_node, sink):
    node = make_node(sink.port, engine="trivial", extra="limits: {connections_per_own_client: 2000, tls_handshakes: 0}\n")
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"A" * 40
    stalled = []
    for i in range(1000):
        s = socket.create_connection(("127.0.0.1", node.smtps), 30)
        if i % 2:
            s.sendall(hello)
        stalled.append(s)
    assert wait_for(lambda: node.counters()["sessions_open"] >= 1000)
    for i in range(20):
        c = Smtp(node.port)
        if i % 2:
            starttls(c)
        assert c.cmd("EHLO client.test").startswith("250")
        assert all(c.message("a@cam.example", ["b@cam.example"], TEXT).startswith("250") for _ in range(10))
        c.close()
    assert wait_for(lambda: sink.count == 200, 60)
    for s in stalled:  # each is closed, and gets nothing but the end
        s.settimeout(60)
        try:
            assert s.recv(100) == b""
        except ConnectionResetError:
            pass
        s.close()
    c = node.counters()
    assert c["sessions_timeout_total"] >= 1000 and c["tls_failures_total"] >= 1000


# ---- remote hosts ----

class Remote:
    """A server whose sessions are `script(sock, reader, context)`, one thread each."""

    def __init__(self, script, context=None, host="127.0.0.1"):
        self.host, self.port, self.errors, self.sessions = host, free_port(), [], 0
        self.script, self.context = script, context
        self.listener = socket.create_server((host, self.port), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.sessions += 1
            threading.Thread(target=self._session, args=(s,), daemon=True).start()

    def _session(self, s):
        s.settimeout(30)
        try:
            self.script(s, s.makefile("rb"), self.context)
        except (OSError, ValueError) as e:
            self.errors.append(e)
        finally:
            s.close()

    def stop(self):
        self.listener.close()


def until_starttls(s, f):
    s.sendall(b"220 remote.test\r\n")
    assert f.readline().startswith(b"EHLO")
    s.sendall(b"250-remote.test\r\n250 STARTTLS\r\n")
    line = f.readline()
    if not line.startswith(b"STARTTLS"):
        plain_session(s, f, line)
        return False
    return True


def plain_session(s, f, line):
    """Takes mail in the clear."""
    while line:
        verb = line[:4].upper()
        if verb == b"DATA":
            s.sendall(b"354 go on\r\n")
            while f.readline() not in (b".\r\n", b""):
                pass
        s.sendall(b"221 2.0.0 bye\r\n" if verb == b"QUIT" else b"250 2.0.0 ok\r\n")
        if verb == b"QUIT":
            return
        line = f.readline()


@pytest.fixture
def remote():
    made = []

    def make(script, context=None):
        made.append(Remote(script, context))
        return made[-1]

    yield make
    for r in made:
        r.stop()


@pytest.fixture
def tls_sink(ca, tmp_path):
    s = TlsSink("127.0.0.1", free_port(), *certificate(ca, tmp_path, "remote.test"))
    yield s
    s.stop()


def server_context(ca, tmp):
    cert, key = certificate(ca, tmp, "remote.test")
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(cert, key)
    return c


def to(make_node, far, tls, extra=""):
    return make_node(engine="trivial", workers=1, routes=f'[{{domain: "*", to: "smtp:[{far.host}]:{far.port}", tls: {tls}}}]',
                     extra=f"delivery: {{retry_first: 1h, connect_timeout: 1s, idle: 0s, reply_timeout: 10s, final_timeout: 10s{extra}}}\n")


def fate(node, rcpt):
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.message("a@cam.example", [rcpt], TEXT).startswith("250")
    c.close()
    found = wait_for(lambda: [x for x in node.log_text().splitlines() if f"to={rcpt}" in x and re.search(r"event=(delivered|deferred|bounced) ", x)], 40)
    assert found, node.log_text()[-3000:]
    return found[0]


def junk(s, f, context):
    """Says yes to STARTTLS and does not mean it."""
    if until_starttls(s, f):
        s.sendall(b"220 2.0.0 go on\r\n")
        s.recv(4096)
        s.sendall(b"500 5.5.1 what is this\r\n")


def silent(s, f, context):
    if until_starttls(s, f):
        s.sendall(b"220 2.0.0 go on\r\n")
        while s.recv(4096):
            pass


def refuses(s, f, context):
    """STARTTLS is offered and then refused (RFC 3207 4)."""
    if until_starttls(s, f):
        s.sendall(b"454 4.7.0 TLS is not available\r\n")
        plain_session(s, f, f.readline())


@pytest.mark.parametrize("script", [junk, silent, refuses])
def test_opportunistic_tls_that_fails_is_done_without(make_node, remote, script):
    node = to(make_node, remote(script), "may")
    line = fate(node, "b@example.org")
    assert "event=delivered" in line and "tls_policy=may " in line and "tls=none" in line, line
    if script is not refuses:
        assert "event=tls-fallback " in node.log_text()


@pytest.mark.parametrize("script", [junk, silent, refuses])
def test_mandatory_tls_that_fails_defers(make_node, remote, script):
    node = to(make_node, remote(script), "must")
    line = fate(node, "b@example.org")
    assert "event=deferred" in line and re.search(r" 4\.7\.\d ", line), line
    assert "event=tls-fallback " not in node.log_text()


def sessions_then(at, answer):
    """Takes a message under TLS; at the command `at` it ends TLS and gives its answer in the clear, behind the close_notify or a forged record."""
    def script(s, f, context):
        if not until_starttls(s, f):
            return
        s.sendall(b"220 2.0.0 go on\r\n")
        # by hand, so that plaintext can be put behind
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(into, out, server_side=True)

        def flush():
            s.sendall(out.read())

        def pump(call):
            while True:
                try:
                    r = call()
                    flush()
                    return r
                except ssl.SSLWantReadError:
                    flush()
                    data = s.recv(16384)
                    if not data:
                        raise OSError("closed")
                    into.write(data)

        pump(tls.do_handshake)
        buf, in_data = b"", False
        while True:
            while b"\r\n" not in buf:
                buf += pump(lambda: tls.read(16384))
            line, buf = buf.split(b"\r\n", 1)
            if in_data and line != b".":
                continue
            verb = b"END" if in_data else line[:4].upper()
            if verb == at:
                if answer != "forged":
                    try:
                        tls.unwrap()
                    except ssl.SSLWantReadError:
                        pass
                    s.sendall(out.read() + b"250 2.0.0 taken\r\n")
                else:
                    s.sendall(b"\x17\x03\x03\x00\x20" + b"f" * 32 + b"250 2.0.0 taken\r\n")
                s.sendall(b"250 2.0.0 taken\r\n" * 8)
                while s.recv(4096):
                    pass
                return
            in_data = verb == b"DATA"
            tls.write(b"354 go on\r\n" if in_data else b"250 2.0.0 ok\r\n")
            flush()
    return script


@pytest.mark.parametrize("how", ["close_notify", "forged"])
@pytest.mark.parametrize("at", [b"EHLO", b"MAIL", b"RCPT", b"DATA", b"END"])
def test_replies_behind_the_end_of_tls_are_not_read(make_node, remote, ca, tmp_path, at, how):
    """P4: a server, or who sits before it, ends TLS and goes on in the clear."""
    node = to(make_node, remote(sessions_then(at, how), server_context(ca, tmp_path)), "must")
    line = fate(node, "b@example.org")
    assert "event=deferred" in line, line


def test_replies_behind_the_220_are_not_read(make_node, remote, ca, tmp_path):
    """What is in the same packet as the reply to STARTTLS was not said under TLS (P4)."""
    def script(s, f, context):
        if not until_starttls(s, f):
            return
        s.sendall(b"220 2.0.0 go on\r\n250-forged.test\r\n250 8BITMIME\r\n")
        s = context.wrap_socket(s, server_side=True)
        plain_session(s, s.makefile("rb"), s.recv(4096))

    server = remote(script, server_context(ca, tmp_path))
    line = fate(to(make_node, server, "must"), "b@example.org")
    assert "event=deferred" in line and server.sessions >= 1, line


def test_sessions_of_remote_hosts_are_resumed(make_node, tls_sink):
    """Each message on a connection of its own. With what was not verified a session that must be is not begun: tls_server_test has all combinations."""
    node = to(make_node, tls_sink, "must")
    for i in range(4):
        assert "event=delivered" in fate(node, f"b{i}@example.org")
    assert len(tls_sink.messages) == 4 and all(m["tls"] for m in tls_sink.messages)
    c = node.counters()
    assert c["outbound_tls_total"] == 4 and c["outbound_tls_resumed_total"] == 3
    node.stop()
    off = to(make_node, tls_sink, "must", extra=", tls_sessions: 0")
    for i in range(2):
        assert "event=delivered" in fate(off, f"c{i}@example.org")
    assert off.counters()["outbound_tls_resumed_total"] == 0
