"""A mail exchanger that takes mail only of whoever has logged in: SCRAM-SHA-256, PLAIN, LOGIN, right or in wrong ways that a test chooses."""
import base64
import hashlib
import hmac
import os

from tls_world import TlsSink

MECHANISMS = ("SCRAM-SHA-256", "PLAIN", "LOGIN")
GOOD, BAD = "235 2.7.0 welcome", "535 5.7.8 no such user or password"


def b64(data):
    return base64.b64encode(data).decode()


class LoginSink(TlsSink):
    def __init__(self, address, port, cert, key, users, mechanisms=MECHANISMS, plain=()):
        """users: name: password. plain: mechanisms that it claims to have before TLS. `answer` is said in place of the end of a login, `tamper(step, challenge)` may
        change challenges (steps: hello, first, final), `refuse` has mechanisms that are offered but not taken."""
        self.users, self.mechanisms, self.plain = users, mechanisms, plain
        self.answer, self.tamper, self.refuse = None, lambda step, challenge: challenge, ()
        self.lines, self.logins, self.who = [], [], {}
        super().__init__(address, port, cert, key)

    def offers(self, tls):
        mechs = self.mechanisms if tls else self.plain
        return ["AUTH " + " ".join(mechs)] if mechs else []

    def own_answer(self, s, f, tls, text):
        self.lines.append((tls, text))
        if text.startswith("AUTH "):
            return self.auth(s, f, text.split(" "))
        if text.startswith("MAIL ") and s not in self.who:
            return "530 5.7.0 log in first"
        if text.startswith("MAIL "):
            self.logins.append(self.who[s])
        return None

    def ask(self, s, f, step, challenge):
        s.sendall(f"334 {self.tamper(step, b64(challenge))}\r\n".encode())
        return base64.b64decode(f.readline().strip())

    def auth(self, s, f, words):
        if words[1] in self.refuse:
            return "504 5.5.4 not this one"
        first = base64.b64decode(words[2]) if len(words) > 2 else None
        if words[1] == "LOGIN":
            name, password = (self.ask(s, f, "hello", what).decode() for what in (b"Username:", b"Password:"))
            good = self.users.get(name) == password
        elif words[1] == "PLAIN":
            _, name, password = (first or self.ask(s, f, "hello", b"")).decode().split("\0")
            good = self.users.get(name) == password
        else:
            name, good = self.scram(s, f, (first or self.ask(s, f, "hello", b"")).decode())
        if good:
            self.who[s] = (words[1], name)
        return self.answer or (GOOD if good else BAD)

    def scram(self, s, f, first):
        bare = first.removeprefix("n,,")
        name, nonce = (a.split("=", 1)[1] for a in bare.split(","))
        name = name.replace("=2C", ",").replace("=3D", "=")
        salt = os.urandom(16)
        server_first = f"r={nonce}{b64(os.urandom(9))},s={b64(salt)},i=4096"
        final = self.ask(s, f, "first", server_first.encode()).decode()
        salted = hashlib.pbkdf2_hmac("sha256", self.users.get(name, "?").encode(), salt, 4096)
        message = f"{bare},{server_first},{final.rpartition(',p=')[0]}".encode()
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        if bytes(a ^ b for a, b in zip(client_key, signature)) != base64.b64decode(final.rpartition(",p=")[2]):
            return name, False
        shown = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        return name, self.ask(s, f, "final", b"v=" + b64(shown).encode()) == b""
