"""Other people's MTAs between Weir and a sink: Postfix, Exim, OpenSMTPD. Each has configuration, queue and run directory of its own below a temporary one, and ports
on the loopback. What is compiled into a program (users, /var/spool/smtpd) is bound over in a mount namespace of its own, so that the system's own files stay out of it.

Where they send: *.to-mta.example to the sink, plain.to-weir.example to Weir in the clear, tls.to-weir.example to Weir with TLS or not at all,
*.lmtp.to-weir.example to Weir by LMTP where they can, everything else to Weir.
What they refuse: bad@ for good, later@ until allow_later() is called."""
import fcntl
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile

import pytest
from node import ROOT, free_port, wait_for

UNPACKED = ROOT / "build" / "counterparts"
# the users that Debian's packages would have made, for the namespaces only
USERS = {"Debian-exim": 64201, "opensmtpd": 64202, "opensmtpq": 64203}
BIND = ('for f in etc/passwd etc/group etc/resolv.conf run var/spool var/lib; do [ ! -e "/$f" ] || mount --bind "$1/$f" "/$f" || exit 100; done; '
        'shift; exec "$@"')


def unpacked(package):
    """Where Debian's package lies, not installed; skips the test where it cannot be fetched."""
    p = subprocess.run([ROOT / "tests" / "support" / "counterparts", UNPACKED, package], capture_output=True, text=True, timeout=120)
    if p.returncode:
        pytest.skip(f"{package} cannot be fetched: {(p.stderr.strip() or p.stdout.strip())[-300:]}")
    return UNPACKED / package


class Mta:
    name, features, client_features = None, (), ()  # what it offers, and what it uses when it is offered
    tls_server, report_type = True, "multipart/report"
    hides_8bitmime = False  # can be told not to offer it
    lmtp_client = True

    def __init__(self, cert, key, sink_port, weir_port, lmtp_port):
        if os.geteuid() != 0:
            pytest.skip("other MTAs need root")
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"weir-{self.name}-"))
        self.dir.chmod(0o755)
        self.port, self.bare, self.proc = free_port(), free_port(), None
        self.cert, self.key, self.sink_port, self.weir_port, self.lmtp_port = self.dir / "cert.pem", self.dir / "key.pem", sink_port, weir_port, lmtp_port
        shutil.copy(cert, self.cert)
        shutil.copy(key, self.key)
        for f in ("run", "var/spool", "var/lib", "etc"):
            (self.dir / f).mkdir(parents=True)
        for name in ("passwd", "group"):
            more = "".join(f"{u}:x:{i}:{i}::/nonexistent:/usr/sbin/nologin\n" if name == "passwd" else f"{u}:x:{i}:\n" for u, i in USERS.items())
            known = [line for line in pathlib.Path("/etc", name).read_text().splitlines(True) if line.split(":")[0] not in USERS]
            (self.dir / "etc" / name).write_text("".join(known) + more)
        (self.dir / "etc" / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")  # nobody there, said at once
        self.out, self.log_path = self.dir / "out", self.dir / "out"
        try:
            self.configure()
            self.start()
        except BaseException:
            self.stop()
            raise

    def configure(self):
        raise NotImplementedError

    def command(self):
        raise NotImplementedError

    def inside(self, *args):
        """A command that sees the MTA's own files in the place of the system's."""
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", BIND, "sh", str(self.dir), *map(str, args)]

    def start(self):
        with open(self.out, "ab") as out:
            self.proc = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.dir, start_new_session=True)
        up = wait_for(lambda: self.proc.poll() is not None or all(self.listens(p) for p in (self.port, self.bare)), 30)
        if self.proc.poll() == 100:
            pytest.skip(f"no mount namespaces here: {self.out.read_text()[-200:]}")
        assert up and self.proc.poll() is None, self.out.read_text()[-1000:] + self.log_text()[-3000:]

    @staticmethod
    def listens(port):
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return True
        except OSError:
            return False

    def allow_later(self):
        raise NotImplementedError

    def flush(self):
        """Tries everything in its queue now, where it does not do so by itself every second."""

    def log_text(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def stop(self):
        if self.proc and self.proc.poll() is None:
            self.proc.terminate()
            try:
                self.proc.wait(20)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait(20)
        shutil.rmtree(self.dir, ignore_errors=True)


class Postfix(Mta):
    name = "postfix"
    features = ("PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE", "STARTTLS")
    client_features = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE", "STARTTLS")
    hides_8bitmime = True

    def configure(self):
        if not shutil.which("postfix"):
            pytest.skip("postfix is not installed")
        postfix = pwd.getpwnam("postfix")
        for name in ("conf", "queue", "data"):
            (self.dir / name).mkdir()
        os.chown(self.dir / "data", postfix.pw_uid, postfix.pw_gid)
        self.access = self.dir / "conf" / "access"
        self.access.write_text("bad@ 550 5.1.1 no such user\nlater@ 450 4.2.1 not now\n")
        (self.dir / "conf" / "transport").write_text(f".to-mta.example sink:[127.0.0.1]:{self.sink_port}\ntls.to-weir.example tls:[127.0.0.1]:{self.weir_port}\n"
                                                       f".lmtp.to-weir.example lmtp:inet:[127.0.0.1]:{self.lmtp_port}\n")
        (self.dir / "conf" / "main.cf").write_text(f"""\
compatibility_level = 3.6
queue_directory = {self.dir}/queue
data_directory = {self.dir}/data
maillog_file = /dev/stdout
maillog_file_prefixes = /dev
myhostname = postfix.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = [127.0.0.1]:{self.weir_port}
transport_maps = texthash:{self.dir}/conf/transport
parent_domain_matches_subdomains =
smtpd_recipient_restrictions = check_recipient_access texthash:{self.access}, permit_mynetworks, reject
smtpd_tls_chain_files = {self.key}, {self.cert}
smtpd_tls_security_level = may
smtpd_tls_received_header = yes
smtp_tls_security_level = none
smtp_dns_support_level = disabled
notify_classes = bounce, 2bounce
double_bounce_sender = double-bounce
2bounce_notice_recipient = postmaster@cam.example
bounce_notice_recipient = postmaster@cam.example
bounce_queue_lifetime = 1h
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 1s
smtp_connection_cache_on_demand = no
smtpd_client_connection_count_limit = 0
default_destination_recipient_limit = 1000
default_destination_concurrency_failed_cohort_limit = 100
message_size_limit = 12000000
mailbox_size_limit = 0
in_flow_delay = 0
""")
        master = pathlib.Path("/usr/share/postfix/master.cf.dist").read_text()
        lines = [f"127.0.0.1:{self.port} inet n - n - - smtpd",
                 f"127.0.0.1:{self.bare} inet n - n - - smtpd",
                 "  -o smtpd_discard_ehlo_keywords=pipelining,chunking,8bitmime,smtputf8,dsn,size,enhancedstatuscodes,starttls",
                 "sink unix - - n - - smtp", "tls unix - - n - - smtp", "  -o smtp_tls_security_level=encrypt"]
        for line in master.splitlines():
            words = line.split()
            if len(words) >= 8 and not line.startswith(("#", " ")) and words[:2] != ["smtp", "inet"]:
                lines.append(" ".join([*words[:4], "n", *words[5:]]))  # no chroot
        (self.dir / "conf" / "master.cf").write_text("\n".join(lines) + "\n")
        subprocess.run(["postfix", "-c", self.dir / "conf", "check"], check=True, capture_output=True, timeout=30)

    def command(self):
        daemons = subprocess.run(["postconf", "-hd", "daemon_directory"], check=True, capture_output=True, text=True).stdout.strip()
        return [f"{daemons}/master", "-c", str(self.dir / "conf"), "-d"]

    def allow_later(self):
        self.access.write_text("bad@ 550 5.1.1 no such user\n")
        subprocess.run(["postfix", "-c", self.dir / "conf", "reload"], check=True, capture_output=True, timeout=30)


class Exim(Mta):
    name = "exim"
    features = ("PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE", "STARTTLS")
    client_features = ("PIPELINING", "CHUNKING", "SMTPUTF8", "DSN", "SIZE", "STARTTLS")  # it sends eight bits without saying so

    def configure(self):
        self.bin = unpacked("exim4-daemon-light") / "usr/sbin/exim4"
        for name in ("spool", "logs"):
            (self.dir / name).mkdir()
            os.chown(self.dir / name, USERS["Debian-exim"], USERS["Debian-exim"])
        os.chown(self.key, USERS["Debian-exim"], USERS["Debian-exim"])
        self.log_path = self.dir / "logs" / "main"
        self.later = self.dir / "later"
        self.later.touch()
        full = "${if eq{$received_port}{%d}{*}{}}" % self.port
        (self.dir / "exim.conf").write_text(f"""\
exim_path = {self.bin}
spool_directory = {self.dir}/spool
log_file_path = {self.dir}/logs/%s
pid_file_path = {self.dir}/spool/exim.pid
primary_hostname = exim.test
qualify_domain = exim.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = {self.port} : {self.bare}
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
tls_certificate = {self.cert}
tls_privatekey = {self.key}
tls_advertise_hosts = {full}
pipelining_advertise_hosts = {full}
chunking_advertise_hosts = {full}
dsn_advertise_hosts = {full}
smtputf8_advertise_hosts = {full}
accept_8bitmime = true
message_size_limit = 12000000
smtp_accept_max_per_connection = 10000
remote_max_parallel = 4
acl_smtp_rcpt = rcpt
acl_smtp_data = accept
acl_smtp_predata = accept
log_selector = +all
begin acl
rcpt:
  deny local_parts = bad
    message = no such user
  defer local_parts = later
    condition = ${{if exists{{{self.later}}}}}
    message = not now
  accept
begin routers
sink:
  driver = accept
  domains = *.to-mta.example
  transport = sink
tls:
  driver = accept
  domains = tls.to-weir.example
  transport = weir_tls
lmtp:
  driver = accept
  domains = *.lmtp.to-weir.example
  transport = lmtp
weir:
  driver = accept
  transport = weir
begin transports
sink:
  driver = smtp
  hosts = 127.0.0.1
  hosts_override
  allow_localhost
  port = {self.sink_port}
  max_rcpt = 1000
  hosts_avoid_tls = *
weir:
  driver = smtp
  hosts = 127.0.0.1
  hosts_override
  allow_localhost
  port = {self.weir_port}
  max_rcpt = 1000
  hosts_avoid_tls = *
weir_tls:
  driver = smtp
  hosts = 127.0.0.1
  hosts_override
  allow_localhost
  port = {self.weir_port}
  max_rcpt = 1000
  hosts_require_tls = *
  tls_verify_certificates =
lmtp:
  driver = smtp
  protocol = lmtp
  hosts = 127.0.0.1
  hosts_override
  allow_localhost
  port = {self.lmtp_port}
  max_rcpt = 1000
  hosts_avoid_tls = *
begin retry
* * F,1h,1s
""")

    def command(self):
        return self.inside(self.bin, "-C", self.dir / "exim.conf", "-bdf", "-q1s")

    def allow_later(self):
        self.later.unlink()


class OpenSmtpd(Mta):
    name = "opensmtpd"
    features = ("8BITMIME", "DSN", "SIZE", "STARTTLS")
    client_features = ("DSN", "STARTTLS")  # it heeds SIZE, but does not say it
    # Debian 12's 6.8 offers STARTTLS and then fails every handshake: it is older than its OpenSSL (OpenSMTPD issue 1239)
    tls_server = False
    lmtp_client = False  # only for users of its own host
    report_type = "multipart/mixed"  # with a message/delivery-status in it

    def configure(self):
        self.sbin = unpacked("opensmtpd") / "usr/sbin"
        (self.dir / "var/lib/opensmtpd/empty").mkdir(parents=True)
        self.later = self.dir / "later"
        self.later.write_text("later@plain.to-mta.example\n")
        self.key.chmod(0o600)
        (self.dir / "smtpd.conf").write_text(f"""\
pki test cert "{self.cert}"
pki test key "{self.key}"
table later file:{self.later}
table bad {{ "bad@plain.to-mta.example", "bad@tls.to-mta.example", "bad@bare.to-mta.example" }}
filter later phase rcpt-to match rcpt-to <later> reject "450 4.2.1 not now"
filter bad phase rcpt-to match rcpt-to <bad> reject "550 5.1.1 no such user"
filter refuse chain {{ later, bad }}
smtp max-message-size 12000000
mta limit conn-delay-host 0 conn-delay-source 0 conn-delay-connector 0 conn-delay-relay 0 conn-delay-domain 0 reconn-delay-route 0 session-transaction-delay 0 max-conn-per-connector 20 max-conn-per-route 20
listen on 127.0.0.1 port {self.port} hostname opensmtpd.test tls pki test filter refuse
listen on 127.0.0.1 port {self.bare} hostname opensmtpd.test no-dsn filter refuse
action sink relay host smtp+notls://127.0.0.1:{self.sink_port} helo opensmtpd.test
action weir relay host smtp+notls://127.0.0.1:{self.weir_port} helo opensmtpd.test
action secure relay host smtp+tls://127.0.0.1:{self.weir_port} tls no-verify helo opensmtpd.test
match from any for domain "*.to-mta.example" action sink
match from any for domain "tls.to-weir.example" action secure
match from any for any action weir
""")

    def command(self):
        return self.inside(self.sbin / "smtpd", "-d", "-f", self.dir / "smtpd.conf")

    def control(self, *args):
        return subprocess.run(self.inside("setpriv", "--regid", USERS["opensmtpq"], "--clear-groups", self.sbin / "smtpctl", *args), capture_output=True, text=True, timeout=30)

    def allow_later(self):
        self.later.write_text("nobody@plain.to-mta.example\n")
        p = self.control("update", "table", "later")
        assert p.returncode == 0, p.stderr + p.stdout

    def flush(self):
        self.control("schedule", "all")
