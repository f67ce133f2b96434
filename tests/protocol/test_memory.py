"""P7: bounded memory, of the whole node: dataplane, scanners, control and Redis together, in a cgroup that kills who goes beyond the cap."""
import os
import threading
import time

import pytest
from cgroup import MemoryCgroup
from node import Smtp, wait_for
from resources import Crowd

HEAD = b"From: a@cam.example\r\nSubject: memory\r\nMIME-Version: 1.0\r\n"
MIB = 1 << 20
ARENA, SESSIONS, SCANNERS = 16, 3, 2
# What is allowed: 1 MiB for each session, the arena, and what a scanner takes for one message.
SCANNER_MIB = 16
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="needs root"), pytest.mark.skipif("asan" in os.environ.get("WEIR_BIN", ""), reason="the sanitizer keeps freed memory")]


def session(node):
    c = Smtp(node.port, timeout=120)
    assert c.cmd("EHLO client.test").startswith("250")
    return c


def content(node, pieces, mail="MAIL FROM:<a@cam.example>"):
    c = session(node)
    for cmd in (mail, "RCPT TO:<b@example.org>", "DATA"):
        assert c.cmd(cmd)[0] in "23"
    try:
        for p in pieces:
            c.send(p)
        c.send(b"\r\n.\r\n")
        assert c.reply()[0] in "245"
    except ConnectionError:
        pass
    c.close()


def command_without_end(node):
    c = session(node)
    try:
        for _ in range(128):
            c.send(b"N" * 65536)
        c.send(b"\r\n")
        assert c.reply()[:3] == "500"
    except ConnectionError:
        pass
    c.close()


def line_without_end(node):
    content(node, [HEAD + b"\r\n"] + [b"x" * 65536] * 128)


def fields(node):
    content(node, [b"".join(b"X-Field-%d: %s\r\n" % (i, b"v" * 60) for i in range(10000))])


def folded(node):
    content(node, [b"Subject: a\r\n"] + [b" " + b"f" * 900 + b"\r\n"] * 4600)


def recipients(node):
    c = session(node)
    c.cmd("MAIL FROM:<a@cam.example>")
    c.send(b"".join(b"RCPT TO:<%s%d@example.org>\r\n" % (b"r" * 50, i) for i in range(1500)))
    assert all(c.reply().startswith("250") for _ in range(1500))
    assert c.cmd("DATA").startswith("354") and c.cmd(".")[0] in "24"
    c.close()


def size_lied(node):
    content(node, [HEAD + b"\r\n"] + [b"x" * 998 + b"\r\n"] * 4000, mail="MAIL FROM:<a@cam.example> SIZE=100")
    held = [session(node) for _ in range(10)]
    for c in held:
        c.cmd("MAIL FROM:<a@cam.example> SIZE=9000000")
        c.cmd("RCPT TO:<b@example.org>")
        c.cmd("DATA")
        c.send(b"x" * 500 + b"\r\n")
    for c in held:
        c.close()


def deep(node):
    n = 2000
    content(node, [HEAD + b"Content-Type: multipart/mixed; boundary=b0\r\n\r\n"] +
            [b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (i, i + 1) for i in range(n)] +
            [b"--b%d\r\n\r\ntext\r\n" % n] + [b"--b%d--\r\n" % i for i in range(n, -1, -1)])


def parts(node):
    content(node, [HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"] +
            [b"--b\r\nContent-Type: application/octet-stream; name=p%d\r\nContent-Transfer-Encoding: base64\r\n\r\nTVqQAAMAAAAEAAAA\r\n" % i for i in range(20000)] + [b"--b--\r\n"])


def unread(node):
    crowd = Crowd()
    crowd.add(node.port, 5)
    for _ in range(40):
        crowd.say(b"NOOP unread\r\n" * 2000)
        time.sleep(0.01)
    crowd.end()


# Of the last there is one, at first: it takes a scanner many seconds.
ATTACKS = (command_without_end, line_without_end, fields, folded, recipients, size_lied, deep, unread)
CAP = (ARENA + len(ATTACKS) * SESSIONS + SCANNERS * SCANNER_MIB) * MIB


def attack(node, attacks):
    failed = []

    def run(f):
        try:
            f(node)
        except Exception as e:
            failed.append((f.__name__, repr(e)))

    threads = [threading.Thread(target=run, args=(f,)) for f in attacks]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed


@pytest.fixture
def group():
    g = MemoryCgroup()
    yield g
    g.remove()


def test_p7_all_attacks_at_once_in_a_cgroup_of_the_cap(group, make_node, make_sink):
    sink = make_sink(keep=False, reduce=lambda body: b"")
    node = make_node(sink.port, workers=1, prefix=group.prefix(), extra=f"spool: {{segment: 8M, max: 1G, arena: {ARENA}M}}\nscan: {{processes: {SCANNERS}}}\nlimits: {{message_size: 10M, commands: 0, connections_per_client: 1000}}\n")
    names = ("weir-dataplane", "weir-scanner", "weir-control")
    pids = [sorted(node.pids(name)) for name in names]
    most, after, stop = [0], [], threading.Event()

    def watch():
        while not stop.wait(0.02):
            most[0] = max(most[0], group.used())

    before = group.used()
    group.limit(before + CAP * 11 // 10)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for turn in range(3):
            attack(node, ATTACKS * SESSIONS + (() if turn else (parts,)))
            assert wait_for(lambda: node.queue() == [] and node.counters()["sessions_open"] == 0, 60), node.queue()
            assert wait_for(lambda: node.counters()["arena_used_bytes"] == 0, 20)
            assert not turn or wait_for(lambda: group.used() <= after[0] + 4 * MIB, 25, step=0.3), (group.used() >> 20, after)
            after.append(group.used())
    finally:
        stop.set()
        watcher.join()
    print(f"MiB of all processes: {before >> 20} before, at most {most[0] >> 20}, after each turn {[a >> 20 for a in after]}")
    assert most[0] - before <= CAP
    c = session(node)
    assert c.message("a@cam.example", ["b@example.org"], HEAD + b"\r\n").startswith("250")
    c.close()
    assert [sorted(node.pids(name)) for name in names] == pids and group.killed() == 0
