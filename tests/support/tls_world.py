"""What outbound TLS policy meets: a signed zone and an unsigned one behind a validating resolver, a web server with policies, mail exchangers with and without TLS,
certificates of a private authority. Everything on loopback, on free ports, below a temporary directory."""
import hashlib
import pathlib
import re
import ssl
import subprocess
import textwrap
import time

from node import free_port
from server import Server


def sh(*args, cwd=None, data=None):
    p = subprocess.run([str(a) for a in args], cwd=cwd, input=data, capture_output=True, timeout=60)
    assert p.returncode == 0, (args, p.stderr.decode()[-2000:])
    return p.stdout


class Authority:
    """Certificates: self-signed ones, or of this authority."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.cert, self.key = self.dir / "ca.pem", self.dir / "ca.key"
        self._key(self.key)
        sh("openssl", "req", "-x509", "-new", "-key", self.key, "-subj", "/CN=Test Authority", "-days", "30", "-out", self.cert,
           "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def _key(self, path, rsa=False):
        kind = ("RSA", "-pkeyopt", "rsa_keygen_bits:2048") if rsa else ("EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        sh("openssl", "genpkey", "-algorithm", *kind, "-out", path)

    def issue(self, *names, chain=False, days=30, rsa=False):
        base = self.dir / names[0]
        key, req, cert, ext = (base.with_name(base.name + x) for x in (".key", ".csr", ".pem", ".ext"))
        self._key(key, rsa)
        sh("openssl", "req", "-new", "-key", key, "-subj", f"/CN={names[0][:60]}", "-out", req)
        ext.write_text("subjectAltName=" + ",".join("DNS:" + n for n in names) + "\nbasicConstraints=CA:FALSE\n")
        sh("openssl", "x509", "-req", "-in", req, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-days", days, "-extfile", ext, "-out", cert)
        if chain:
            cert.write_bytes(cert.read_bytes() + self.cert.read_bytes())
        return cert, key

    def self_signed(self, name):
        base = self.dir / name
        cert, key = base.with_name(base.name + ".pem"), base.with_name(base.name + ".key")
        self._key(key)
        sh("openssl", "req", "-x509", "-new", "-key", key, "-subj", f"/CN={name}", "-days", "1", "-out", cert)
        return cert, key

    @staticmethod
    def spki_sha256(cert):
        pub = sh("openssl", "x509", "-in", cert, "-noout", "-pubkey")
        return hashlib.sha256(sh("openssl", "pkey", "-pubin", "-outform", "DER", data=pub)).hexdigest()

    @staticmethod
    def cert_sha256(cert):
        return hashlib.sha256(sh("openssl", "x509", "-in", cert, "-outform", "DER")).hexdigest()


class TlsSink(Server):
    """A mail exchanger on one loopback address; with STARTTLS when it has a certificate. Remembers for each message whether TLS was on, and the server name asked for."""

    def __init__(self, address, port, cert=None, key=None):
        self.messages, self.context, self.sni = [], None, None
        if cert:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(cert, key)
            self.context.sni_callback = self._sni
        super().__init__(address, port)

    def _sni(self, sock, name, context):
        self.sni = name

    def offers(self, tls):
        """More lines of the answer to EHLO."""
        return []

    def own_answer(self, s, f, tls, text):
        """What a kind of sink of its own answers to a line; None: as every sink does."""

    def _session(self, s):
        try:
            s.settimeout(30)
            f = s.makefile("rb")
            s.sendall(b"220 sink.test ready\r\n")
            sender, rcpts = "", []
            while True:
                text = f.readline().decode("utf-8", "replace").rstrip("\r\n")
                verb = text[:4].upper()
                out = "250 2.0.0 ok"
                if not text:
                    break
                tls = isinstance(s, ssl.SSLSocket)
                if own := self.own_answer(s, f, tls, text):
                    out = own
                elif verb == "EHLO":
                    offers = self.offers(tls) + (["STARTTLS"] if self.context and not tls else [])
                    out = "250-sink.test\r\n250-8BITMIME\r\n" + "".join(f"250-{o}\r\n" for o in offers) + "250 HELP"
                elif text.upper() == "STARTTLS":
                    s.sendall(b"220 2.0.0 go on\r\n")
                    s = self.context.wrap_socket(s, server_side=True)
                    f = s.makefile("rb")
                    continue
                elif verb == "MAIL":
                    sender, rcpts, mail = re.search(r"<(.*?)>", text).group(1), [], text
                elif verb == "RCPT":
                    rcpts.append(re.search(r"<(.*?)>", text).group(1))
                elif verb == "DATA":
                    s.sendall(b"354 go on\r\n")
                    body = b""
                    while True:
                        line = f.readline()
                        if not line:
                            return
                        if line == b".\r\n":
                            break
                        body += line
                    self.messages.append({"from": sender, "to": rcpts, "data": body, "tls": tls, "mail": mail,
                                          "certificate": s.getpeercert() if tls else None})
                elif verb == "QUIT":
                    s.sendall(b"221 2.0.0 bye\r\n")
                    break
                s.sendall((out + "\r\n").encode())
        except (OSError, ValueError):
            pass
        finally:
            s.close()

    def got(self, rcpt):
        return [m for m in self.messages if rcpt in m["to"]]


class Dns:
    """nsd with zones, unbound before it. `signed` zones get keys, a signature and a trust anchor; tamper(text) changes the signed zone's text."""

    def __init__(self, directory, zones, signed=(), tamper=None, stubs=None):
        """stubs: more zones, each with the port of the server that is asked for it."""
        self.dir, self.stubs = pathlib.Path(directory), stubs or {}
        self.auth_port, self.port = free_port(), free_port()
        anchors = []
        for name, text in zones.items():
            (self.dir / name).write_text(f"$ORIGIN {name}.\n$TTL 60\n@ SOA ns root 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n" + textwrap.dedent(text))
            if name in signed:
                anchors.append(self._sign(name, tamper))
        self._start_nsd(zones, signed)
        self._start_unbound(zones, anchors)

    def _sign(self, name, tamper):
        key = sh("ldns-keygen", "-k", "-a", "ECDSAP256SHA256", name, cwd=self.dir).decode().strip()
        sh("ldns-signzone", "-n", name, key, cwd=self.dir)
        out = self.dir / f"{name}.signed"
        if tamper:
            out.write_text(tamper(out.read_text()))
        return (self.dir / f"{key}.ds").read_text().strip()

    def _start_nsd(self, zones, signed):
        conf = self.dir / "nsd.conf"
        conf.write_text(textwrap.dedent(f"""\
            server:
              ip-address: 127.0.0.1@{self.auth_port}
              username: ""
              chroot: ""
              zonesdir: "{self.dir}"
              pidfile: "{self.dir}/nsd.pid"
              database: ""
              xfrdfile: "{self.dir}/xfrd"
              zonelistfile: "{self.dir}/zonelist"
              server-count: 1
            remote-control:
              control-enable: no
            """) + "".join(f"zone:\n  name: {z}\n  zonefile: {z}{'.signed' if z in signed else ''}\n" for z in zones))
        self.nsd = subprocess.Popen(["nsd", "-d", "-c", conf], stderr=open(self.dir / "nsd.log", "wb"))

    def _start_unbound(self, zones, anchors):
        conf = self.dir / "unbound.conf"
        conf.write_text(textwrap.dedent(f"""\
            server:
              interface: 127.0.0.1
              port: {self.port}
              do-ip6: no
              do-daemonize: no
              username: ""
              chroot: ""
              directory: "{self.dir}"
              pidfile: "{self.dir}/unbound.pid"
              logfile: "{self.dir}/unbound.log"
              use-syslog: no
              do-not-query-localhost: no
              module-config: "validator iterator"
              val-log-level: 2
              cache-max-negative-ttl: 1
            """) + "".join(f'  trust-anchor: "{a}"\n' for a in anchors) + "".join(f'  local-zone: "{z}" nodefault\n' for z in zones if z.endswith(".arpa"))
            + "remote-control:\n  control-enable: no\n"
            + "".join(f'stub-zone:\n  name: "{z}"\n  stub-addr: 127.0.0.1@{port}\n'
                      for z, port in [*((z, self.auth_port) for z in zones), *self.stubs.items()]))
        self.unbound = subprocess.Popen(["unbound", "-d", "-c", conf], stderr=open(self.dir / "unbound.err", "wb"))
        time.sleep(1)
        assert self.nsd.poll() is None and self.unbound.poll() is None, (self.dir / "unbound.err").read_text()

    def stop(self):
        for p in (self.unbound, self.nsd):
            p.terminate()
            p.wait(10)


class PolicyServer:
    """nginx that serves https://mta-sts.DOMAIN/.well-known/mta-sts.txt for domains of one certificate."""

    def __init__(self, directory, cert, key, policies):
        self.dir = pathlib.Path(directory)
        self.port = free_port()
        for domain, text in policies.items():
            self.write(domain, text)
        conf = self.dir / "nginx.conf"
        conf.write_text(textwrap.dedent(f"""\
            daemon off;
            master_process off;
            pid {self.dir}/nginx.pid;
            error_log {self.dir}/nginx.err;
            events {{ worker_connections 64; }}
            http {{
              access_log {self.dir}/nginx.log;
              client_body_temp_path {self.dir}/t1; proxy_temp_path {self.dir}/t2; fastcgi_temp_path {self.dir}/t3;
              uwsgi_temp_path {self.dir}/t4; scgi_temp_path {self.dir}/t5;
              default_type text/plain;
              server {{
                listen 127.0.0.1:{self.port} ssl;
                ssl_certificate {cert};
                ssl_certificate_key {key};
                root {self.dir}/www/$host;
                if (-f {self.dir}/www/$host/html) {{ rewrite ^ /page.html break; }}
                types {{ text/html html; }}
              }}
            }}
            """))
        self.proc = subprocess.Popen(["nginx", "-p", self.dir, "-c", conf], stderr=subprocess.DEVNULL)

    def write(self, domain, text, kind="txt"):
        d = self.dir / "www" / f"mta-sts.{domain}" / ".well-known"
        d.mkdir(parents=True, exist_ok=True)
        if kind == "html":
            (d.parent / "html").touch()
            (d.parent / "page.html").write_text(text)
        (d / "mta-sts.txt").write_text(text)

    def requests(self):
        log = self.dir / "nginx.log"
        return log.read_text().count("/.well-known/mta-sts.txt") if log.exists() else 0

    def stop(self):
        self.proc.terminate()
        self.proc.wait(10)
