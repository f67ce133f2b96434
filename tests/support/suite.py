"""The protocol suite's machine: what a case is, a connection that can do what no good client does, and the run of one case.

A case is a list of steps. A tuple is something to send (text gets CRLF, bytes go as they are) and the replies that must follow, each written
"code enhanced regex": the enhanced code must be there exactly when it is named, the regex is searched in the whole reply. Everything else is one of
the actions below. @ME@ stands for the name that the case says in EHLO; by it a message at the sink finds its case again.
"""
import dataclasses
import re
import socket
import ssl
import struct
import time

HALF = "half-close"      # no more from us: FIN, or close_notify and FIN
NOTIFY = "close_notify"  # of TLS only: TCP stays open
TRUNCATE = "truncate"    # FIN, TLS or not
CUT = "close"            # both directions, in order
RESET = "reset"          # RST
CLOSED = "closed"        # the server ends the connection without another reply
GONE = "gone"            # the server ends the connection; what it says before does not matter
QUIET = "quiet"          # no reply comes for a while
PAUSE = "pause"          # so that what was sent and what follows are two segments
TLS = "handshake"
GREETING = "greeting"    # the first reply; without this step it is read before the first one

ANYBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANYBODY.check_hostname, ANYBODY.verify_mode = False, ssl.CERT_NONE

WAYS = ("plain", "burst", "bytes", "starttls", "implicit")
PLAIN = ("plain",)
ACTIONS = {HALF, TRUNCATE, NOTIFY, CUT, RESET, CLOSED, GONE, QUIET, PAUSE, TLS, GREETING}
ENDS = {HALF, CUT, RESET, CLOSED, GONE, NOTIFY}
BYTES_MOST = 2500        # a longer case is not sent byte by byte

HELLO = ("EHLO @ME@", "250")
MAIL = ("MAIL FROM:<a@cam.example>", "250 2.1.0")
RCPT = ("RCPT TO:<b@example.org>", "250 2.1.5")
DATA = ("DATA", "354")
HEAD = b"From: a@cam.example\r\nSubject: suite\r\n\r\n"
TEXT = HEAD + b"x\r\n"
OPEN = [HELLO, MAIL, RCPT]
TAKEN = "250 2.0.0"
SENT = [DATA, (TEXT + b".\r\n", TAKEN)]


class Past(bytes):
    """Bytes that go past TLS, as a man in the middle would send them."""


class Notified(bytes):
    """The same, in one segment with a close_notify before them."""


@dataclasses.dataclass
class Case:
    name: str
    steps: list
    gets: tuple = ()          # bodies of the messages that arrive, in order of their sending
    to: list = None           # recipients of the first of them, when they matter
    mail: str = None          # MAIL of the first of them, as the sink saw it
    rcpt: list = None         # RCPTs of the first of them
    ways: tuple = WAYS
    outside: bool = False     # from an address that may only send to our own domains
    at: str = "port"          # which listener of the node, without implicit TLS
    quit: bool = True         # QUIT must be understood after the last step

    def runs(self):
        """The ways in which it makes sense to run it."""
        sends = [s[0] for s in self.steps if isinstance(s, tuple)]
        only_sends = len(sends) == len(self.steps) or (len(sends) == len(self.steps) - 1 and self.steps[-1] in (CLOSED, GONE))
        size = sum(len(as_bytes(s)) for s in sends)
        for way in self.ways:
            if (way != "burst" or only_sends) and (way != "bytes" or size <= BYTES_MOST):
                yield way


def as_bytes(data):
    return data if isinstance(data, bytes) else data.encode() + b"\r\n"


class Connection:
    """TCP or TLS over it; TLS by hand, so that its records and plain bytes can be mixed."""

    @staticmethod
    def open(port, source, timeout):
        """Tests of another transport put their own in its place."""
        return socket.create_connection(("127.0.0.1", port), timeout, source_address=(source, 0))

    rest = staticmethod(time.sleep)

    def __init__(self, port, source="127.0.0.1", timeout=20):
        self.s = self.open(port, source, timeout)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buf, self.tls, self.ended = b"", None, False

    def start_tls(self):
        self.cin, self.cout = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = ANYBODY.wrap_bio(self.cin, self.cout)
        while True:
            try:
                self.tls.do_handshake()
                self.push()
                return
            except ssl.SSLWantReadError:
                self.push()
                data = self.s.recv(65536)
                if not data:
                    raise ConnectionError("closed in the handshake")
                self.cin.write(data)

    def push(self):
        data = self.cout.read()
        if data:
            self.s.sendall(data)

    def send(self, data):
        try:
            if not self.tls:
                self.s.sendall(data)
                return
            for i in range(0, len(data), 16384):
                self.tls.write(data[i:i + 16384])
                self.push()
        except (ConnectionError, ssl.SSLError):
            pass  # it has closed already: what it said before is still to be read

    def send_raw(self, data):
        """Past TLS."""
        try:
            self.s.sendall(data)
        except ConnectionError:
            pass

    def recv(self):
        """Some bytes; b"" at the end of the connection, however it came."""
        try:
            if not self.tls:
                return self.s.recv(65536)
            while True:
                try:
                    return self.tls.read(65536)
                except ssl.SSLWantReadError:
                    data = self.s.recv(65536)
                    if not data:
                        return b""
                    self.cin.write(data)
        except TimeoutError:
            raise
        except (ConnectionError, ssl.SSLError):
            return b""

    def line(self):
        while b"\n" not in self.buf and not self.ended:
            data = self.recv()
            self.ended = not data
            self.buf += data
        line, nl, self.buf = self.buf.partition(b"\n")
        return line + nl

    def reply(self):
        """A whole reply as its lines, None at the end."""
        lines = []
        while True:
            line = self.line()
            if not line:
                return None if not lines else lines
            lines.append(line)
            if line[3:4] != b"-":
                return lines

    def notify(self):
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        return self.cout.read()

    def truncate(self):
        """FIN without close_notify."""
        self.s.shutdown(socket.SHUT_WR)

    def half_close(self):
        try:
            if self.tls:
                self.s.sendall(self.notify())
            self.s.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def reset(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.s.close()

    def close(self):
        self.s.close()


def check_reply(lines):
    """What holds for each reply, whatever it answers. Gives code, enhanced code (None without one) and text."""
    for line in lines:
        assert re.fullmatch(rb"[2-5][0-5][0-9]([ -][ -~]*)?\r\n", line), f"not a reply line: {line!r}"
        assert len(line) <= 512, f"a reply of {len(line)} octets"
        assert line[:3] == lines[0][:3], f"several codes in one reply: {lines!r}"
    code = lines[0][:3].decode()
    found = [re.match(rb"[245]\.\d{1,3}\.\d{1,3}(?= )", line[4:]) for line in lines]
    enhanced = found[0].group().decode() if found[0] else None
    assert len({f.group() if f else None for f in found}) == 1, f"enhanced codes differ between lines: {lines!r}"
    assert not enhanced or enhanced[0] == code[0], f"classes differ (RFC 2034 4): {lines[0]!r}"
    return code, enhanced, "\n".join(line[4:].decode().rstrip("\r\n") for line in lines)


def expect(c, want, sent):
    parts = want.split(" ", 2)
    has_enhanced = len(parts) > 1 and re.fullmatch(r"\d\.\d+\.\d+", parts[1])
    pattern = want.split(" ", 2 if has_enhanced else 1)[2 if has_enhanced else 1:]
    lines = c.reply()
    shown = sent if len(sent) < 80 else sent[:40] + b"..." + sent[-30:]
    assert lines is not None, f"after {shown!r}: closed, wanted {want!r}"
    code, enhanced, text = check_reply(lines)
    got = f"{code} {enhanced}" if enhanced else code
    assert got == (f"{parts[0]} {parts[1]}" if has_enhanced else parts[0]), f"after {shown!r}: {lines!r}, wanted {want!r}"
    if pattern:
        assert re.search(pattern[0], text), f"after {shown!r}: {text!r} lacks {pattern[0]!r}"


def greeting(c):
    lines = c.reply()
    assert lines, "closed instead of a greeting"
    code, enhanced, text = check_reply(lines)
    assert code == "220" and not enhanced and re.match(r"relay\.cam\.example ESMTP ", text), lines


def expect_closed(c, quiet):
    while (lines := c.reply()) is not None:
        assert not quiet or not re.match(rb"[2-5]\d\d[ -]", lines[0]), f"wanted the end, not {lines!r}"


def expect_quiet(c):
    c.s.settimeout(0.15)
    try:
        assert not c.reply(), "wanted no reply"
        raise AssertionError("closed, wanted nothing")
    except TimeoutError:
        pass
    c.s.settimeout(20)


def act(c, step):
    if step == HALF:
        c.half_close()
    elif step == NOTIFY:
        c.send_raw(c.notify())
    elif step == TRUNCATE:
        c.truncate()
    elif step == CUT:
        c.close()
    elif step == RESET:
        c.reset()
    elif step in (CLOSED, GONE):
        expect_closed(c, step == CLOSED)
    elif step == QUIET:
        expect_quiet(c)
    elif step == PAUSE:
        c.rest(0.004)
    elif step == TLS:
        c.start_tls()
    elif step == GREETING:
        greeting(c)


def connect(way, node, source="127.0.0.1", greet=True, at="port"):
    c = Connection(node.smtps if way == "implicit" else getattr(node, at), source)
    if way == "implicit":
        c.start_tls()
    if way == "starttls" or greet:
        greeting(c)
    if way == "starttls":
        c.send(b"STARTTLS\r\n")
        expect(c, "220 2.0.0", b"STARTTLS")
        c.start_tls()
    return c


def run_case(case, way, node, me):
    """Runs it; raises AssertionError when the node did not do what the table says. What arrives is looked at later."""
    for step in case.steps:
        assert isinstance(step, tuple) or step in ACTIONS, step
    c = connect(way, node, "127.9.0.1" if case.outside else "127.0.0.1", greet=GREETING not in case.steps, at=case.at)
    try:
        sends = [as_bytes(s[0]).replace(b"@ME@", me.encode()) if isinstance(s, tuple) else b"" for s in case.steps]
        if way == "burst":
            c.send(b"".join(sends))
        for step, data in zip(case.steps, sends):
            if not isinstance(step, tuple):
                act(c, step)
                continue
            if isinstance(step[0], Past):
                c.send_raw(data)
            elif isinstance(step[0], Notified):
                c.send_raw(c.notify() + data)
            elif way == "bytes":
                for i in range(len(data)):
                    c.send(data[i:i + 1])
            elif way != "burst":
                c.send(data)
            for want in step[1:]:
                expect(c, want, data)
        if case.quit and case.steps[-1] not in ENDS:
            c.send(b"QUIT\r\n")
            expect(c, "221 2.0.0", b"QUIT")
            expect_closed(c, True)
    finally:
        c.close()
