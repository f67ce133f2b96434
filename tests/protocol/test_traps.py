"""The traps of promises.md in delivery and in waiting; the others are cases of the suite (cases_traps.py). And every order of commands around BDAT."""
import collections
import itertools
import re
import threading

import cases_traps
from node import Smtp, arrives, free_port, wait_for, without_trace

TEXT = b"From: a@cam.example\r\nSubject: x\r\n\r\nx\r\n"


def send(node, rcpts, text=TEXT):
    s = Smtp(node.port)
    s.cmd("EHLO x.example")
    assert s.message("a@cam.example", rcpts, text).startswith("250")


def test_each_trap_has_its_case():
    found = {int(n) for n in re.findall(r"trap[-_](\d+)[-_]", " ".join([c.name for c in cases_traps.CASES] + list(globals())))}
    assert found == set(range(1, 11))


def test_trap_8_the_remote_dies_after_the_dot(make_node, make_sink):
    """P1: who was answered for is not sent to again; of an LMTP server whose answers break off in nonsense, only the rest is."""
    seen = collections.Counter()
    dying = threading.Event()

    def decide(kind, text):
        if kind != "end":
            return None
        seen[text] += 1
        if text == "second@example.org" and not dying.is_set():
            dying.set()
            return "close"
        return None

    sink = make_sink(decide=decide, lmtp=True)
    node = make_node(None, engine="trivial", routes=f'[{{domain: "*", to: "lmtp:[127.0.0.1]:{sink.port}", tls: never}}]')
    send(node, ["first@example.org", "second@example.org"])
    assert wait_for(lambda: node.queue() == [] and node.counters()["recipients_delivered_total"] == 2, 40)
    assert dying.is_set() and seen["second@example.org"] == 2 and seen["first@example.org"] == 1


def test_trap_9_one_failed_message_holds_up_no_other(make_node, make_sink):
    """F1: for the same hop, on the same connections."""
    sink = make_sink(decide=lambda kind, text: "451 4.2.0 not this one" if kind == "rcpt" and "bad@" in text else None)
    node = make_node(sink.port, engine="trivial", extra="delivery: {retry_first: 1h, retry_max: 2h, connections_per_destination: 1}\n")
    for i in range(10):
        send(node, ["bad@example.org"])
        send(node, [f"good{i}@example.org"])
    assert wait_for(lambda: sink.count == 10)
    assert sorted(m["to"][0] for m in sink.messages) == [f"good{i}@example.org" for i in range(10)]
    assert len(node.queue()) == 10


def test_trap_10_a_client_that_never_reads(make_node, sink):
    """P7: it asks for 5,000 answers at a time and takes none; others are served, and what it sent is done."""
    port = free_port()
    node = make_node(sink.port, engine="trivial", workers=1, listeners=[f'{{address: "127.0.0.1:{port}", role: lmtp}}'])
    deaf = Smtp(port, greet=False)
    deaf.s.settimeout(1)
    rcpts = b"".join(b"RCPT TO:<r%d@example.org>\r\n" % i for i in range(5000))
    try:
        for _ in range(200):
            deaf.send(b"LHLO deaf.example\r\nMAIL FROM:<a@cam.example>\r\n" + rcpts + b"DATA\r\n" + TEXT + b".\r\n")
        raise AssertionError("it was never held back")
    except TimeoutError:
        pass
    before = sink.count
    send(node, ["b@example.org"])
    assert wait_for(lambda: any(m["to"] == ["b@example.org"] for m in sink.messages[before:]), 60)
    pid = node.pids("weir-dataplane")[0]
    with open(f"/proc/{pid}/status") as f:
        assert next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) < (48 + 100) * 1024


# ---- every order ----

CHUNK = b"QUIT\r\n"
WORDS = {"mail": b"MAIL FROM:<a@cam.example>\r\n", "rcpt": b"RCPT TO:<b@example.org>\r\n", "data": b"DATA\r\n", "chunk": b"BDAT 6\r\n" + CHUNK, "last": b"BDAT 6 LAST\r\n" + CHUNK,
         "empty": b"BDAT 0\r\n", "last-empty": b"BDAT 0 LAST\r\n", "nul": b"BDAT 1\r\n\0", "rset": b"RSET\r\n", "noop": b"NOOP\r\n", "ehlo": b"EHLO order.example\r\n"}


class Model:
    """What RFC 5321 and RFC 3030 make of a sequence of commands."""

    def __init__(self):
        self.replies, self.sent, self.messages = [], b"", []
        self.forget()

    def forget(self):
        self.mail = self.rcpt = self.begun = False
        self.content = b""

    def say(self, word):
        self.sent += WORDS[word]
        self.replies += getattr(self, "on_" + word.replace("-", "_"))()

    def on_mail(self):
        if self.mail:
            return ["503 5.5.1"]
        self.mail = True
        return ["250 2.1.0"]

    def on_rcpt(self):
        if not self.mail or self.begun:
            return ["503 5.5.1"]
        self.rcpt = True
        return ["250 2.1.5"]

    def on_data(self):
        if not self.mail or self.begun:
            return ["503 5.5.1"]
        if not self.rcpt:
            return ["554 5.5.1"]
        self.sent += TEXT + b".\r\n"
        self.messages.append(TEXT)
        self.forget()
        return ["354 End d", "250 2.0.0"]

    def chunk(self, octets, last):
        if not self.mail:
            return ["503 5.5.1"]
        if not self.rcpt:
            return ["554 5.5.1"]
        self.begun = True
        self.content += octets
        if b"\0" in octets:
            self.forget()
            return ["554 5.6.0"]
        if last:
            self.messages.append(self.content)
            self.forget()
        return ["250 2.0.0"]

    def on_chunk(self):
        return self.chunk(CHUNK, False)

    def on_last(self):
        return self.chunk(CHUNK, True)

    def on_empty(self):
        return self.chunk(b"", False)

    def on_last_empty(self):
        return self.chunk(b"", True)

    def on_nul(self):
        return self.chunk(b"\0", False)

    def on_rset(self):
        self.forget()
        return ["250 2.0.0"]

    def on_noop(self):
        return ["250 2.0.0"]

    def on_ehlo(self):
        self.forget()
        return ["250-relay"]


def test_every_order_of_commands_around_bdat(make_node, sink):
    """P9, P20: each sequence of three of eleven commands, from nothing and within a transaction, all pipelined; replies and messages are the model's."""
    node = make_node(sink.port, engine="trivial", extra="limits: {errors: 0, commands: 0}\n")
    begins = [(), ("mail",), ("mail", "rcpt"), ("mail", "rcpt", "chunk")]
    sequences = [begin + middle for begin in begins for middle in itertools.product(WORDS, repeat=3)]
    messages = []
    for part in range(0, len(sequences), 500):
        s = Smtp(node.port)
        s.cmd("EHLO order.example")
        models = []
        for sequence in sequences[part:part + 500]:
            m = Model()
            for word in (*sequence, "rset"):
                m.say(word)
            models.append((sequence, m))
            messages += m.messages
        sender = threading.Thread(target=s.send, args=(b"".join(m.sent for _, m in models),))
        sender.start()
        for sequence, m in models:
            got = [s.reply()[:9] for _ in m.replies]
            assert got == m.replies, sequence
        sender.join()
        assert s.cmd("QUIT").startswith("221")
    assert wait_for(lambda: sink.count == len(messages), 60)
    assert collections.Counter(without_trace(m["data"]) for m in sink.messages) == collections.Counter(map(arrives, messages))
