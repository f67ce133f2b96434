"""Scanners that die, lie and hang: no message passes unscanned, none is lost, other mail goes on, the worker lives."""
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from node import BIN, Smtp, wait_for

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "support" / "scripted_scanner.py"
HEAD = b"From: a@cam.example\r\nSubject: test\r\n\r\n"


def scripted(node, mode):
    p = subprocess.Popen([sys.executable, SCRIPT, node.run, mode], stdout=subprocess.PIPE)
    if mode != "die_at_accept":
        assert p.stdout.readline() == b"linked\n"
    return p


def without_real_scanners(node):
    """Nobody starts them again before the node goes on."""
    os.kill(node.proc.pid, signal.SIGSTOP)
    for pid in node.pids("weir-scanner"):
        os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: node.counters()["scanners_connected"] == 0)


def go_on(node):
    os.kill(node.proc.pid, signal.SIGCONT)


class Client(threading.Thread):
    """Sends one message; its reply and time are there after join()."""

    def __init__(self, node, data):
        super().__init__(daemon=True)
        self.node, self.data, self.answer = node, data, None
        self.start()

    def run(self):
        start = time.monotonic()
        c = Smtp(self.node.port)
        c.cmd("EHLO client.test")
        self.answer = c.message("a@cam.example", ["b@example.org"], HEAD + self.data + b"\r\n")
        c.close()
        self.took = time.monotonic() - start


def reply_of(client, timeout=30):
    client.join(timeout)
    assert client.answer, "no answer in time"
    return client.answer


def worker_pid(node):
    pids = node.pids("weir-dataplane")
    assert len(pids) == 1
    return pids[0]


@pytest.fixture
def one(make_node, sink):
    node = make_node(sink.port, workers=1, engine="trivial")
    yield node
    go_on(node)


class Pool:
    """Keeps so many poisonable scanners running."""

    def __init__(self, node, n):
        self.node, self.stop, self.deaths = node, False, 0
        self.running = [scripted(node, "poison") for _ in range(n)]
        self.thread = threading.Thread(target=self.keep, daemon=True)
        self.thread.start()

    def keep(self):
        while not self.stop:
            for i, p in enumerate(self.running):
                if p.poll() is not None:
                    self.deaths += 1
                    self.running[i] = scripted(self.node, "poison")
            time.sleep(0.005)

    def end(self):
        self.stop = True
        self.thread.join(5)
        for p in self.running:
            p.kill()
            p.wait()


def test_a_message_that_kills_scanners_twice_is_held_and_others_flow(one, sink):
    without_real_scanners(one)
    pool = Pool(one, 2)
    worker, others, poisoned = worker_pid(one), [], []
    try:
        for i in range(120):
            others.append(Client(one, b"good %d" % i))
            if i in (30, 60):
                poisoned.append(Client(one, b"POISON %d" % i))
            time.sleep(0.01)
        assert all(reply_of(c).startswith("250") for c in others + poisoned)
        assert sorted(c.took for c in others)[118] < 2
        held = one.queue()
        assert [m["state"] for m in held] == ["held", "held"] and pool.deaths == 4, (held, pool.deaths)
        assert wait_for(lambda: sink.count == 120)
        assert not any(b"POISON" in m["data"] for m in sink.messages)
        c = one.counters()
        assert c["scan_suspect_total"] == 2 and worker_pid(one) == worker
        assert one.log_text().count("suspect: scanners died on it") >= 2
    finally:
        pool.end()
    one.kill_all()  # a held one stays held over a death of everything
    one.start()
    assert [m["state"] for m in one.queue()] == ["held", "held"] and sink.count == 120


@pytest.mark.parametrize("mode", ["die_at_accept", "job_then_die", "read_then_die", "cut_memory"])
def test_a_scanner_that_dies_costs_no_message(one, sink, mode):
    without_real_scanners(one)
    worker = worker_pid(one)
    scanner = scripted(one, mode)
    client = Client(one, b"hello")
    assert scanner.wait(20) == 0
    time.sleep(0.3)
    assert client.answer is None and sink.count == 0  # it waits for another scanner, unscanned and unanswered
    go_on(one)
    assert reply_of(client).startswith("250") and wait_for(lambda: sink.count == 1)
    assert worker_pid(one) == worker and one.queue() == []


@pytest.mark.parametrize("mode", ["foreign_answers", "impossible_position", "garbage"])
def test_a_scanner_that_lies_is_ended_and_its_job_done_by_another(one, sink, mode):
    without_real_scanners(one)
    worker = worker_pid(one)
    scanner = scripted(one, mode)
    client = Client(one, b"hello")
    assert scanner.wait(20) == -signal.SIGKILL
    assert client.answer is None and sink.count == 0
    go_on(one)
    assert reply_of(client).startswith("250") and wait_for(lambda: sink.count == 1)
    assert one.counters()["scanners_ended_total"] == 1 and worker_pid(one) == worker


@pytest.mark.parametrize("mode", ["wrong_verdict", "answers_twice"])
def test_a_bad_verdict_is_no_verdict(one, sink, mode):
    without_real_scanners(one)
    scanner = scripted(one, mode)
    assert reply_of(Client(one, b"hello")).startswith("451 4.7.0")
    assert scanner.wait(20) == -signal.SIGKILL
    go_on(one)
    assert wait_for(lambda: one.counters()["scanners_connected"] == 2)
    assert reply_of(Client(one, b"hello")).startswith("250") and wait_for(lambda: sink.count == 1)
    assert not any(line.startswith("event=forged") for line in one.log_text().splitlines())


def test_a_scanner_that_hangs_is_ended_and_others_flow(make_node, sink):
    one = make_node(sink.port, workers=1, extra="scan: {processes: 2, engine: trivial, timeout: 3s}\n")
    scanner, real = scripted(one, "hang"), one.pids("weir-scanner")
    for pid in real:
        os.kill(pid, signal.SIGSTOP)
    first = [Client(one, b"first %d" % i) for i in range(6)]  # two for each of three
    assert wait_for(lambda: one.counters()["scan_jobs_total"] == 6)
    for pid in real:
        os.kill(pid, signal.SIGCONT)
    time.sleep(1.2)  # seen to be stalled by now
    others = [Client(one, b"hello %d" % i) for i in range(100)]
    assert all(reply_of(c).startswith("250") and c.took < 2 for c in others)
    replies = [reply_of(c) for c in first]
    bad = [r for r in replies if not r.startswith("250")]
    assert len(bad) == 2 and all(r.startswith("451 4.7.0") for r in bad), replies
    assert scanner.wait(20) == -signal.SIGKILL
    assert wait_for(lambda: sink.count == 104) and one.counters()["scanners_ended_total"] == 1


def test_a_scanner_cannot_stop_the_worker_with_wakeups(one, sink):
    scanner = scripted(one, "deaf")
    clients = [Client(one, b"hello %d" % i) for i in range(20)]
    time.sleep(1)
    late = [Client(one, b"later %d" % i) for i in range(20)]
    assert scanner.wait(20) == 0
    assert all(reply_of(c).startswith("250") for c in clients + late)
    assert wait_for(lambda: sink.count == 40)
    assert Smtp(one.port).greeting.startswith("220")


def test_a_real_scanner_killed_in_the_middle(one, sink):
    """One of two is stopped with jobs in its hands, then killed: the other does them."""
    victim = one.pids("weir-scanner")[-1]
    os.kill(victim, signal.SIGSTOP)
    clients = [Client(one, b"z" * 70000) for _ in range(40)]
    time.sleep(0.5)
    assert any(c.answer is None for c in clients) and any(c.answer for c in clients)
    os.kill(victim, signal.SIGKILL)
    assert all(reply_of(c).startswith("250") for c in clients)
    assert wait_for(lambda: sink.count == 40) and one.counters()["scan_requeued_total"] >= 1


def test_a_worker_of_another_version_costs_no_descriptors(tmp_path):
    """During an upgrade a scanner asks a worker that it does not understand, again and again."""
    run = tmp_path / "run"
    run.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(run / "scan-0"))
        listener.listen()
        listener.settimeout(20)
        scanner = subprocess.Popen([BIN / "weir-scanner", "--run", run, "--spool", tmp_path, "--engine", "trivial", "--processes", "1"],
                                   stderr=subprocess.DEVNULL)
        try:
            for i in range(15):
                peer, _ = listener.accept()
                hello = struct.pack("<QIIQQ", 0x4e41435352494557, 1, 0, 4096, 4096)
                socket.send_fds(peer, [hello], [listener.fileno()] * (1 + i % 5))
                pid = struct.unpack("iii", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
                peer.close()
            listener.accept()[0].close()
            assert len(os.listdir(f"/proc/{pid}/fd")) < 12
        finally:
            scanner.terminate()
            scanner.wait(20)


def test_a_pool_that_is_told_to_end_while_it_begins(tmp_path):
    """Workers that were just forked must not miss it: with so many some always are."""
    for d in ("run", "spool"):
        (tmp_path / d).mkdir()
    for tenth in range(1, 6):
        p = subprocess.Popen([f"{BIN}/weir-scanner", "--run", tmp_path / "run", "--spool", tmp_path / "spool", "--engine", "trivial",
                              "--processes", "250"], stderr=subprocess.PIPE, start_new_session=True)
        try:
            assert b"started" in p.stderr.readline()
            time.sleep(tenth / 100)
            p.terminate()
            p.communicate(timeout=60)
            assert p.returncode == 0
        finally:
            if p.poll() is None:
                os.killpg(p.pid, signal.SIGKILL)
