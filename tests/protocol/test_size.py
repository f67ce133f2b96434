"""A7: 104,857,600 octets and no more, declared or not, by DATA or BDAT; and such a message is scanned by libclamav, outlives a crash and is delivered within bounded memory."""
import hashlib
import threading

import pytest
from node import Smtp, wait_for, without_trace

MOST = 104857600
HEAD = b"From: a@cam.example\r\nSubject: large\r\n\r\n"
LINE = b"%08d " + b"x" * 68 + b"\r\n"
BLOCK = b"".join(LINE % i for i in range(13107))


def pieces(size):
    """A message of so many octets."""
    yield HEAD
    left = size - len(HEAD)
    while left > len(BLOCK) + 2:
        yield BLOCK
        left -= len(BLOCK)
    yield b"y" * (left - 2) + b"\r\n" if left <= 1000 else (BLOCK * 2)[:left // 79 * 79 - 79] + b"y" * (left % 79 + 77) + b"\r\n"


def begin(node, mail="MAIL FROM:<a@cam.example>"):
    c = Smtp(node.port, timeout=300)
    assert f"250-SIZE {MOST}" in c.cmd("EHLO client.test")
    assert c.cmd(mail).startswith("250") and c.cmd("RCPT TO:<b@example.org>").startswith("250")
    return c


def by_data(c, size):
    assert c.cmd("DATA").startswith("354")
    for p in pieces(size):
        c.send(p)
    c.send(b".\r\n")
    return c.reply()


def by_chunks(c, size):
    """The reply that counts: that to the last chunk, or the first refusal."""
    for p in pieces(size):
        c.send(b"BDAT %d\r\n" % len(p) + p)
        r = c.reply()
        if not r.startswith("250"):
            return r
    return c.cmd("BDAT 0 LAST")


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


@pytest.fixture
def large(make_node, make_sink):
    """A node whose next hop is down until `up` is set."""
    up = threading.Event()
    sink = make_sink(decide=lambda kind, text: "450 4.2.0 not now" if kind == "mail" and not up.is_set() else None, keep=False,
                     reduce=lambda body: hashlib.sha1(without_trace(bytes(body))).hexdigest())
    return make_node(sink.port, extra="spool: {segment: 32M, max: 2G, arena: 48M}\n"), sink, up


def test_a7_the_whole_way_of_the_largest_message(large):
    node, sink, up = large
    assert sum(map(len, pieces(MOST))) == MOST and sum(map(len, pieces(MOST + 1))) == MOST + 1
    digest = hashlib.sha1(b"".join(pieces(MOST))).hexdigest()
    top, stop = [0], threading.Event()

    def watch():
        while not stop.wait(0.1):
            try:
                top[0] = max(top[0], *(rss_kib(p) for p in node.pids("weir-dataplane")))
            except (OSError, TypeError, StopIteration):
                pass  # while there is none

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        r = by_chunks(begin(node, f"MAIL FROM:<a@cam.example> SIZE={MOST}"), MOST)
        assert r.startswith("250") and len(node.queue()) == 1, r
        node.kill_all()
        node.start()
        assert len(node.queue()) == 1 and sink.count == 0
        up.set()
        assert wait_for(lambda: sink.count == 1, 120), node.queue()
    finally:
        stop.set()
        watcher.join()
    assert [m["data"] for m in sink.messages] == [digest]
    assert wait_for(lambda: node.queue() == [])
    assert top[0] < (48 + 80) * 1024  # the arena and what a worker has anyway
    print(f"most memory of a worker: {top[0] >> 10} MiB")


def test_a7_one_octet_more_is_refused(large):
    node, sink, up = large
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.cmd(f"MAIL FROM:<a@cam.example> SIZE={MOST + 1}").startswith("552 5.3.4")
    c.close()
    for way in (by_data, by_chunks):
        c = begin(node)
        assert way(c, MOST + 1).startswith("552 5.3.4")
        # and the session goes on as if nothing had been
        assert c.message("a@cam.example", ["b@example.org"], HEAD).startswith("250")
        c.close()
    up.set()
    assert wait_for(lambda: sink.count == 2) and wait_for(lambda: node.queue() == [])
    assert {m["data"] for m in sink.messages} == {hashlib.sha1(HEAD).hexdigest()}
