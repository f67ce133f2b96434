"""Clients that keep the ledger of what was acknowledged; the sink keeps that of what arrived."""
import collections
import random
import re
import threading
import time

from node import Smtp, without_trace

LINE = b"y" * 76 + b"\r\n"


def content(number, lines):
    return b"X-Number: %d\r\nX-Lines: %d\r\n\r\n" % (number, lines) + LINE * lines


def only_number(data):
    """For Sink(reduce=): the header fields, once the rest was found to be as it was sent."""
    data = bytes(data)
    number, lines = re.search(rb"X-Number: (\d+)\r\nX-Lines: (\d+)\r\n", data).groups()
    assert without_trace(data) == content(int(number), int(lines)), "message %s is not as it was sent" % number
    return b"X-Number: " + number


class Load:
    """Clients that send numbered messages until told to stop, and remember which were acknowledged."""

    def __init__(self, node, clients=8, sizes=(100, 4000, 4000, 60000, 200000, 1500000), slow=0.0):
        """slow: that part of the messages is for slow@example.org, which a sink may put off."""
        self.node, self.stop, self.lock, self.sizes, self.slow = node, threading.Event(), threading.Lock(), sizes, slow
        self.acked, self.sent, self.next = set(), set(), 0
        self.wrong = []  # replies that nobody should get
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(clients)]
        for t in self.threads:
            t.start()

    def connect(self):
        c = Smtp(self.node.port, timeout=20)
        if not c.greeting or not c.greeting.startswith("220") or not (c.cmd("EHLO load.test") or "").startswith("250"):
            raise ConnectionError
        return c

    def run(self, client):
        rnd = random.Random(client)
        c = None
        while not self.stop.is_set():
            try:
                c = c or self.connect()
                with self.lock:
                    self.next += 1
                    number = self.next
                self.sent.add(number)
                to = "slow@example.org" if rnd.random() < self.slow else "b@example.org"
                r = c.message("a@cam.example", [to], content(number, rnd.choice(self.sizes) // len(LINE)))
                if r is None:
                    raise ConnectionError
                if r.startswith("250"):
                    self.acked.add(number)
                elif r.startswith("4"):
                    time.sleep(0.02)
                else:
                    self.wrong.append(r)
            except (OSError, ConnectionError):
                if c:
                    c.close()
                c = None
                time.sleep(0.05)

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join(30)
        assert not self.wrong, self.wrong[:3]


def numbers(sink):
    return collections.Counter(int(re.search(rb"X-Number: (\d+)", m["data"]).group(1)) for m in sink.messages)


def arrivals(sink):
    """When the copies of each message came, by its number."""
    times = collections.defaultdict(list)
    for m in sink.messages:
        times[int(re.search(rb"X-Number: (\d+)", m["data"]).group(1))].append(m["at"])
    return times
