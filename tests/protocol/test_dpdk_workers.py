"""Several workers over DPDK: a device each, or queues of one device and one address; and what the death of one means to the others."""
import os
import signal
import socket

import pytest
from dpdk import make_dpdk, pid_of  # noqa: F401
from node import wait_for, without_trace
from raw_tcp import ACK, RST, RawPeer

HEAD = b"From: a@cam.example\r\nTo: b@example.org\r\nSubject: test\r\n\r\n"


@pytest.fixture
def one_address(make_dpdk):  # noqa: F811
    """Two workers on the two queues of one device."""
    return make_dpdk.sharing(make_dpdk.wire(2, queues=2))


def talk(c, text):
    """The reply, or None when the connection is gone."""
    try:
        return c.cmd(text)
    except (ConnectionError, socket.timeout):
        return None


def test_workers_share_an_address(one_address):
    """Clients are dealt out by the device; what comes for a worker's own connections is handed to it; neighbours are known to both."""
    node, sink = one_address
    many = [node.smtp() for _ in range(24)]
    for i, c in enumerate(many):
        assert c.cmd("EHLO client.test").startswith("250-")
        assert c.message("a@cam.example", [f"b{i}@example.org"], HEAD + b"x" * 70 + b"\r\n").startswith("250")
    assert wait_for(lambda: sink.count == 24, 60)
    assert sorted(m["to"][0] for m in sink.messages) == sorted(f"b{i}@example.org" for i in range(24))
    assert all(without_trace(m["data"]) == HEAD + b"x" * 70 + b"\r\n" for m in sink.messages)
    p = RawPeer(node, 4000)
    for port in range(40000, 40064):  # about half are not of the worker to whose queue the segment comes; their owner answers
        p.port = port
        p.send(ACK)
        assert p.next().flags & RST
    assert wait_for(lambda: node.counters()["dpdk_given_frames_total"] >= 8), node.counters()
    workers = {line.split(" p=dataplane/")[1].split()[0] for line in node.log_text().splitlines() if "event=accepted" in line}
    assert workers == {"0", "1"}
    assert node.counters()["dpdk_given_lost_frames_total"] == 0


def test_a_workers_death_is_its_own(one_address):
    """Its connections are reset, the other's go on, and new ones come to both when it is back. What it had acknowledged is delivered."""
    node, sink = one_address
    many = [node.smtp(timeout=10) for _ in range(24)]
    for i, c in enumerate(many):
        c.cmd("EHLO client.test")
        assert c.message("a@cam.example", [f"b{i}@example.org"], HEAD).startswith("250")
    other = pid_of(node, 0)
    os.kill(pid_of(node, 1), signal.SIGKILL)
    assert wait_for(lambda: len(node.pids("weir-dataplane")) == 2 and wait_for(node.up, 20), 20)
    replies = [talk(c, "NOOP") for c in many]
    alive = [c for c, r in zip(many, replies) if r]
    assert 0 < len(alive) < 24 and all(r is None or r.startswith("250") for r in replies), replies
    for c in alive:
        assert c.message("a@cam.example", ["b@example.org"], HEAD).startswith("250")
    assert pid_of(node, 0) == other
    for _ in range(12):
        assert node.smtp(timeout=10).cmd("EHLO client.test").startswith("250-")
    assert wait_for(lambda: sink.count >= 24 + len(alive), 60)
    assert {f"b{i}@example.org" for i in range(24)} <= {m["to"][0] for m in sink.messages}


@pytest.mark.long
def test_with_a_device_each_too(make_dpdk):  # noqa: F811
    node, _ = make_dpdk(workers=2)
    mine, others = node.smtp(worker=1), node.smtp(worker=0)
    os.kill(pid_of(node, 1), signal.SIGKILL)
    assert others.cmd("NOOP").startswith("250")
    assert wait_for(lambda: len(node.pids("weir-dataplane")) == 2 and wait_for(node.up, 20), 20)
    assert others.message("a@cam.example", ["b@example.org"], HEAD).startswith(("250", "503"))
    assert talk(mine, "NOOP") is None
    assert wait_for(lambda: node.smtp(worker=1).cmd("EHLO client.test").startswith("250-"))
