"""SMTP servers that do what they should not. A server is good but for the steps of its script: step -> what it does instead.

Steps: connect, ehlo, helo, starttls, mail, rcpt, data, bdat, end, rset, quit; "rcpt2" is the second time. What: a str is said as a line, bytes as they are,
CLOSE ends the connection, Wait(s) and Drip(bytes, s) take their time, a list does one after the other, a callable is given the conversation."""
import re
import ssl
import threading
import time

from server import Server

CLOSE = object()


class Wait:
    def __init__(self, seconds):
        self.seconds = seconds


class Drip:
    """One byte at a time, for ever or until the bytes are used up."""

    def __init__(self, data, seconds=0.2):
        self.data, self.seconds = data, seconds


class Gone(Exception):
    pass


class Conversation:
    def __init__(self, server, s):
        self.server, self.s, self.f = server, s, s.makefile("rb")
        self.count, self.sender, self.rcpts, self.chunks, self.lmtp = {}, None, [], None, False

    def say(self, data):
        self.s.sendall(data if isinstance(data, bytes) else data.encode() + b"\r\n")

    def line(self):
        line = self.f.readline()
        if not line:
            raise Gone
        self.server.heard.append(line)
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def do(self, what):
        if what is CLOSE:
            raise Gone
        if isinstance(what, list):
            for w in what:
                self.do(w)
        elif isinstance(what, Wait):
            time.sleep(what.seconds)
        elif isinstance(what, Drip):
            while True:
                for i in range(len(what.data)):
                    self.say(what.data[i:i + 1])
                    time.sleep(what.seconds)
        elif callable(what):
            what(self)
        else:
            self.say(what)

    def step(self, name, good):
        """True when the good answer was given."""
        n = self.count[name] = self.count.get(name, 0) + 1
        what = self.server.script.get(f"{name}{n}", self.server.script.get(name))
        if callable(what) and not isinstance(what, (Wait, Drip)):
            what = what(self)
        if what is None:
            if good:
                self.say(good)
            return True
        self.do(what)
        return False

    def offered(self):
        tls = isinstance(self.s, ssl.SSLSocket)
        return [e for e in self.server.extensions if e != ("STARTTLS" if tls else "REQUIRETLS")]

    def content(self):
        body = b""
        while True:
            line = self.f.readline()
            if not line:
                raise Gone
            if line == b".\r\n":
                return body
            body += line[1:] if line.startswith(b".") else line

    def taken(self, body):
        self.server.messages.append({"from": self.sender, "to": list(self.rcpts), "data": body})

    def bdat(self, text):
        n, last = int(text.split()[1]), "LAST" in text.upper()
        body = self.f.read(n)
        if len(body) < n:
            raise Gone
        if not self.rcpts:
            self.say("503 5.5.1 no recipients")
            return
        self.chunks = (self.chunks or b"") + body
        if self.step("bdat", None):
            if last and self.step("end", "250 2.0.0 taken"):
                self.taken(self.chunks)
            if last:
                self.chunks, self.rcpts = None, []
            else:
                self.say("250 2.0.0 chunk")
        else:
            self.chunks, self.rcpts = None, []

    def run(self):
        self.step("connect", "220 nasty.test ESMTP")
        while True:
            text = self.line()
            verb = text.split(" ")[0].split(":")[0].upper()
            if verb in ("EHLO", "LHLO"):
                self.lmtp = verb == "LHLO"
                self.step("ehlo", "\r\n".join(["250-nasty.test"] + [f"250-{e}" for e in self.offered()] + ["250 HELP"]))
            elif verb == "STARTTLS" and self.server.context:
                if self.step("starttls", "220 2.0.0 go on"):
                    self.s = self.server.context.wrap_socket(self.s, server_side=True)
                    self.f = self.s.makefile("rb")
            elif verb == "STARTTLS":
                self.step("starttls", "454 4.7.0 no TLS today")
            elif verb == "MAIL":
                self.rcpts = []
                self.sender = re.search(r"<(.*?)>", text).group(1) if self.step("mail", "250 2.1.0 ok") else None
            elif verb == "RCPT":
                if self.sender is None:
                    self.say("503 5.5.1 MAIL first")
                elif self.step("rcpt", "250 2.1.5 ok"):
                    self.rcpts.append(re.search(r"<(.*?)>", text).group(1))
            elif verb == "DATA":
                if not self.rcpts:
                    self.say("554 5.5.1 no recipients")
                elif self.step("data", "354 go on"):
                    body = self.content()
                    if self.step("end", "\r\n".join(["250 2.0.0 taken"] * (len(self.rcpts) if self.lmtp else 1))):
                        self.taken(body)
            elif verb == "BDAT":
                self.bdat(text)
            elif verb == "RSET":
                self.sender, self.rcpts, self.chunks = None, [], None
                self.step("rset", "250 2.0.0 ok")
            elif verb == "QUIT":
                self.step("quit", "221 2.0.0 bye")
                return
            else:
                self.step(verb.lower(), "250 2.0.0 ok")


class Nasty(Server):
    def __init__(self, script=None, extensions=("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"), at_most=None, address="127.0.0.1", port=0, cert=None):
        self.context = None
        if cert:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*cert)
        self.script, self.extensions, self.at_most = script or {}, extensions, at_most
        self.messages, self.heard, self.refused, self.open, self.most, self.connections = [], [], 0, 0, 0, 0
        self.lock = threading.Lock()
        super().__init__(address, port)

    def _session(self, s):
        with self.lock:
            self.connections += 1
            full = self.at_most is not None and self.open >= self.at_most
            self.refused += full
            self.open += not full
            self.most = max(self.most, self.open)
        try:
            s.settimeout(60)
            if full:
                s.sendall(b"421 4.7.0 too many connections\r\n")
            else:
                Conversation(self, s).run()
        except (OSError, Gone, ValueError):
            pass
        finally:
            with self.lock:
                self.open -= not full
            try:
                s.close()
            except OSError:
                pass

    def verbs(self):
        return [line.split(b" ")[0].strip().decode("latin-1").upper() for line in self.heard]
