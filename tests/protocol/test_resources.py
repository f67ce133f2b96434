"""What happens when resources run out, clients are slow, clocks jump: promises P7, P16, P17, P18, P24.

WEIR_LONG=1 makes the crowds and messages as large as the promises say."""
import ctypes
import hashlib
import mmap
import os
import pathlib
import re
import struct
import subprocess
import threading
import time

import pytest
from node import BIN, Smtp, have, wait_for
from resources import Crowd, DigestSink, Peak, cpu_share, memory, shim

LONG = bool(os.environ.get("WEIR_LONG"))
HEAD = b"From: a@cam.example\r\nSubject: test\r\n\r\n"
OPEN_RELAY = "relay_clients: [{network: 0.0.0.0/0, rate: none}, {network: \"::/0\", rate: none}]\n"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def client(node, **kw):
    c = Smtp(node.port, **kw)
    assert c.greeting.startswith("220"), c.greeting
    c.cmd("EHLO client.test")
    return c


def numbered(i, size=200):
    return b"X-Number: %d\r\n\r\n" % i + (b"y" * 76 + b"\r\n") * (size // 78)


def numbers(sink):
    return [int(re.search(rb"X-Number: (\d+)", m["data"]).group(1)) for m in sink.messages if m["from"]]


def worker(node, index=0):
    """Its pid."""
    return wait_for(lambda: next((r["pid"] for r in node.ctl("status", check=False)["processes"]
                                  if r["role"] == "dataplane" and r["instance"] == index and r["up"]), 0))


class Switch:
    """A sink's answer to MAIL: 450 while it is down."""

    def __init__(self):
        self.down, self.tries = True, []

    def __call__(self, kind, text):
        if kind == "mail":
            self.tries.append(time.monotonic())
        return "450 4.2.0 not now" if kind == "mail" and self.down else None


# ---- P17: the disk ----

@pytest.fixture
def small_disk(tmp_path):
    mounted = []

    def make(size):
        where = tmp_path / f"disk{len(mounted)}"
        where.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", where], check=True)
        mounted.append(where)
        return where

    yield make
    for where in mounted:
        subprocess.run(["umount", "-l", where])


@pytest.fixture
def faults(tmp_path):
    """Gives (environment for a node, function that sets the rules)."""
    rules = tmp_path / "faults"

    def put(text):
        (tmp_path / "faults.new").write_text(text)
        os.rename(tmp_path / "faults.new", rules)

    yield {"LD_PRELOAD": str(shim(tmp_path, "disk")), "WEIR_FAULTS": str(rules)}, put


def fill(node, c, size=300000, most=400, first=0):
    """Sends until MAIL is refused; gives the numbers that were taken and the refusal."""
    taken = []
    for i in range(first, first + most):
        r = c.cmd(f"MAIL FROM:<a@cam.example> SIZE={size}")
        if not r.startswith("250"):
            return taken, r
        c.cmd("RSET")
        r = c.message("a@cam.example", ["b@example.org"], numbered(i, size))
        if not r.startswith("250"):
            return taken, r
        taken.append(i)
    return taken, r


@root_only
@pytest.mark.parametrize("size", ["20m", "24m", "64m"])
def test_a_full_disk_is_452_and_empties_itself_again(make_node, make_sink, small_disk, size):
    switch = Switch()
    sink = make_sink(decide=switch)
    disk = small_disk(size)
    node = make_node(sink.port, workers=1, engine="trivial",
                     extra=f"spool: {{directory: {disk}/spool, segment: 4M, max: 8G, arena: 16M}}\ndelivery: {{retry_first: 1h, retry_max: 1h}}\n")
    c, all_taken = client(node), []
    for turn in range(2):
        switch.down = True
        taken, refusal = fill(node, c, first=len(all_taken))
        assert refusal.startswith("452 4.3.1") and len(taken) >= 5, (turn, refusal, len(taken))
        all_taken += taken
        assert node.queue() and node.ctl("status")["counters"]["spool_fenced"] == 0
        switch.down = False
        node.ctl("queue", "retry", "--all")
        assert wait_for(lambda: sorted(numbers(sink)) == all_taken, 40), (turn, len(numbers(sink)), len(all_taken))
        assert wait_for(lambda: node.queue() == [])
        assert wait_for(lambda: c.cmd("MAIL FROM:<a@cam.example> SIZE=300000").startswith("250"), 20)
        c.cmd("RSET")


@root_only
def test_a_disk_that_others_fill_and_free(make_node, make_sink, small_disk):
    switch = Switch()
    sink = make_sink(decide=switch)
    disk = small_disk("48m")
    node = make_node(sink.port, workers=1, engine="trivial",
                     extra=f"spool: {{directory: {disk}/spool, segment: 4M, max: 8G, arena: 16M}}\ndelivery: {{retry_first: 1h, retry_max: 1h}}\n")
    subprocess.run(["dd", "if=/dev/zero", f"of={disk}/ballast", "bs=1M"], stderr=subprocess.DEVNULL)
    time.sleep(1.5)
    c = client(node)
    taken, refusal = fill(node, c)
    assert refusal.startswith("452 4.3.1"), refusal
    os.unlink(disk / "ballast")
    assert wait_for(lambda: c.cmd("MAIL FROM:<a@cam.example> SIZE=300000").startswith("250"), 20)
    c.cmd("RSET")
    more, refusal = fill(node, c, first=len(taken))
    assert refusal.startswith("452 4.3.1") and len(more) >= 5, (refusal, len(more))
    switch.down = False
    node.ctl("queue", "retry", "--all")
    assert wait_for(lambda: sorted(numbers(sink)) == taken + more, 40)


def test_no_space_while_a_segment_is_made(make_node, sink, faults):
    env, put = faults
    node = make_node(sink.port, workers=1, engine="trivial", env=env, extra="spool: {segment: 4M, max: 512M, arena: 16M, partitions: 1}\n")
    before = node.ctl("status")["counters"]["spool_segments"]
    put("full seg-0000000%d\nfull seg-0000000%d\n" % (before, before + 1))
    c = client(node)
    for i in range(40):
        r = c.message("a@cam.example", ["b@example.org"], numbered(i, 300000))
        assert r.startswith("250") or r.startswith("452 4.3.1"), r
    counters = node.ctl("status")["counters"]
    assert counters["spool_segments"] == before and counters["spool_io_errors_total"] >= 1 and counters["spool_fenced"] == 0
    put("")
    assert wait_for(lambda: c.cmd("MAIL FROM:<a@cam.example> SIZE=4000000").startswith("250"), 20)
    c.cmd("RSET")
    assert c.message("a@cam.example", ["b@example.org"], numbered(99, 4000000)).startswith("250")
    assert wait_for(lambda: 99 in numbers(sink))


def test_a_failed_flush_fences_one_worker_and_the_others_go_on(make_node, make_sink, faults):
    switch = Switch()
    sink = make_sink(decide=switch)
    env, put = faults
    node = make_node(sink.port, workers=2, engine="trivial", env=env, extra="delivery: {retry_first: 2s, retry_max: 2s}\n")
    number, acked, unsure = iter(range(10000)), [], []

    def send_one():
        i = next(number)
        try:
            c = Smtp(node.port)
            if c.greeting and c.greeting.startswith("220"):
                c.cmd("EHLO client.test")
                r = c.message("a@cam.example", ["b@example.org"], numbered(i)) or "cut"
            else:
                r = c.greeting or "cut"
            c.close()
        except ConnectionError:
            r = "cut"
        (acked if r.startswith("250") else unsure).append(i)
        return r

    assert all(send_one().startswith("250") for _ in range(20))
    put("sync /p0/\n")
    replies = []
    assert wait_for(lambda: replies.append(send_one()) or replies[-1][:3] in ("451", "421"), 20)
    assert all(r[:3] in ("250", "451", "421") for r in replies), replies
    status = node.ctl_text("status")
    assert status.returncode == 1 and "a partition stopped after a disk error" in status.stdout
    assert node.counters()["spool_fenced"] == 1
    # the kernel gives everything to the other worker, for as long as that is in order
    assert wait_for(lambda: "accepts=no, another worker does" in node.ctl_text("status").stdout, 20)
    assert all(send_one().startswith("250") for _ in range(30))
    put("")
    os.kill(worker(node, 0), 15)  # the next one has read everything back, and its sockets are on the port again
    assert wait_for(lambda: node.counters()["takes_mail"] == 2 and node.counters()["spool_fenced"] == 0, 20)
    assert wait_for(lambda: node.ctl_text("status").returncode == 0, 20)
    assert wait_for(lambda: node.counters()["scanners_connected"] == 4, 20)
    crowd = Crowd()
    crowd.add(node.port, 40)
    assert crowd.wait(lambda: crowd.heard(b"220 ") == 40, 10)
    text = node.ctl_text("status").stdout
    assert min(int(n) for n in re.findall(r"kind=worker .*? sessions=(\d+)", text)) > 0, text
    crowd.end()
    switch.down = False
    assert wait_for(lambda: set(numbers(sink)) >= set(acked), 30), set(acked) - set(numbers(sink))
    got = numbers(sink)
    assert len(got) == len(set(got)) and set(got) <= set(acked) | set(unsure)


def test_fenced_alone_says_421_and_a_second_partition_goes_on(make_node, sink, faults):
    env, put = faults
    node = make_node(sink.port, workers=1, engine="trivial", env=env, extra="spool: {segment: 8M, max: 512M, arena: 48M, partitions: 2}\n")
    c = client(node)
    put("sync /p0/\n")
    assert c.message("a@cam.example", ["b@example.org"], numbered(0))[:3] in ("451", "421")
    c = client(node)
    assert c.message("a@cam.example", ["b@example.org"], numbered(1)).startswith("250")
    assert wait_for(lambda: 1 in numbers(sink))
    put("sync /p0/\nsync /p1/\n")
    assert c.message("a@cam.example", ["b@example.org"], numbered(2))[:3] in ("451", "421")
    assert c.cmd("MAIL FROM:<a@cam.example>").startswith("421 4.3.0") and c.reply() is None
    time.sleep(1.5)
    assert Smtp(node.port).greeting.startswith("421 4.3.0")
    assert cpu_share(worker(node), 1.5) < 0.05
    put("")
    os.kill(worker(node), 15)
    assert wait_for(lambda: node.counters()["takes_mail"] == 1 and node.counters()["scanners_connected"] == 2, 20)
    assert client(node).message("a@cam.example", ["b@example.org"], numbered(3)).startswith("250")
    assert wait_for(lambda: 3 in numbers(sink))


# ---- P17: descriptors ----

def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_without_descriptors_accepting_pauses_and_goes_on(make_node, sink):
    node = make_node(sink.port, workers=1, engine="trivial")
    pid, crowd = worker(node), Crowd()
    subprocess.run(["prlimit", "--pid", str(pid), f"--nofile={descriptors(pid) + 10}:20000"], check=True)
    crowd.add(node.port, 40)
    crowd.listen(1)
    assert 5 <= crowd.heard(b"220 ") <= 10
    node.ctl_text("queue", "list")  # the command socket is out of descriptors as well
    assert cpu_share(pid, 2) < 0.05
    for c in [c for c in crowd.clients if b"220 " in c.heard]:
        crowd.say(b"QUIT\r\n", [c])
    assert crowd.wait(lambda: crowd.heard(b"220 ") > 10, 10)
    subprocess.run(["prlimit", "--pid", str(pid), "--nofile=20000:20000"], check=True)
    assert crowd.wait(lambda: crowd.heard(b"220 ") == 40, 10)
    crowd.end()
    assert client(node).message("a@cam.example", ["b@example.org"], HEAD).startswith("250")
    assert wait_for(lambda: sink.count == 1) and wait_for(lambda: node.ctl_text("queue", "list").returncode == 0)


def test_descriptors_are_kept_for_deliveries(make_node, sink):
    node = make_node(sink.port, workers=1, engine="trivial", wrap=("prlimit", "--nofile=300:300"),
                     extra="limits: {connections_per_client: 1000, connections_per_network: 1000}\n")
    assert "event=few-descriptors" in node.log_text()
    c, crowd, pid = client(node), Crowd(), worker(node)
    crowd.add(node.port, 280)
    crowd.listen(1)
    greeted = crowd.heard(b"220 ")
    assert 20 < greeted < 200 and descriptors(pid) < 280
    assert cpu_share(pid, 1) < 0.05
    assert c.message("a@cam.example", ["b@example.org"], HEAD).startswith("250")
    assert wait_for(lambda: sink.count == 1)
    crowd.say(b"QUIT\r\n")  # those that are not greeted yet say it too early
    assert crowd.wait(lambda: sum(c.closed for c in crowd.clients) >= 200, 20)
    crowd.end()


# ---- P18 ----

TEN_YEARS = 10 * 366 * 86400


@pytest.fixture
def clock(tmp_path):
    """Gives (environment for a node, function that sets how wrong the wall clock is)."""
    path = tmp_path / "clock"
    path.write_bytes(bytes(8))
    f = open(path, "r+b")
    page = mmap.mmap(f.fileno(), 8)

    def jump(seconds):
        page[:] = struct.pack("<q", seconds)

    yield {"LD_PRELOAD": str(shim(tmp_path, "clock")), "WEIR_CLOCK": str(path)}, jump


def test_the_wall_clock_jumps_and_nothing_bounces_or_stalls(make_node, make_sink, clock):
    switch = Switch()
    sink = make_sink(decide=switch)
    env, jump = clock
    node = make_node(sink.port, workers=1, engine="trivial", env=env, extra="delivery: {retry_first: 2s, retry_max: 2s, queue_life: 1d}\n"
                     "relay_clients: [{network: 127.0.0.0/8, rate: 1000}]\nrates: {mode: defer, limit: 1000}\n")

    def attempted():
        """Within the retry time and ten seconds there is another attempt, and nothing was returned."""
        n = len(switch.tries)
        assert wait_for(lambda: len(switch.tries) > n, 12)
        assert len(node.queue()) == 5 and sink.count == 0

    c = client(node)
    for i in range(5):
        assert c.message("a@cam.example", ["b@example.org"], numbered(i)).startswith("250")
    assert wait_for(lambda: len(switch.tries) >= 1)
    for wrong in (TEN_YEARS, -TEN_YEARS, 0):
        jump(wrong)
        attempted()
        assert all(m["age_s"] < 300 for m in node.queue())
    for wrong in (TEN_YEARS, -TEN_YEARS):
        node.stop()
        jump(wrong)
        node.start()
        attempted()
        assert c.s and client(node).cmd("MAIL FROM:<a@cam.example>").startswith("250")
    switch.down = False
    assert wait_for(lambda: sorted(numbers(sink)) == [0, 1, 2, 3, 4], 15)
    assert wait_for(lambda: node.queue() == []) and sink.count == 5


def test_a_rate_survives_a_clock_that_was_ahead(make_node, sink, clock):
    env, jump = clock
    node = make_node(sink.port, workers=1, engine="trivial", env=env, extra="relay_clients: [{network: 127.0.0.0/8}]\n"
                     "rates: {mode: defer, limit: 5, period: 2s}\n")

    def until_deferred(c):
        return [r for _ in range(20) if (r := c.message("a@cam.example", ["b@example.org"], HEAD))][-1]

    c = client(node)
    jump(TEN_YEARS)
    assert until_deferred(c).startswith("450 4.7.1")
    jump(0)
    assert wait_for(lambda: c.message("a@cam.example", ["b@example.org"], HEAD).startswith("250"), 12, step=0.5)
