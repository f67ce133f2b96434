"""The kill storms again over the DPDK transport: a worker's death takes its whole TCP with it, nothing that was acknowledged, and nothing of the other workers'."""
import os
import signal

import pytest
from dpdk import make_dpdk, make_node, make_sink, node, over_the_wire, pid_of, sink  # noqa: F401
from node import wait_for
from test_kill import *  # noqa: F401,F403
from test_kill import storm

IN_CHECK = {"test_kills_of_workers", "test_a_workers_deaths_are_its_own"}
HEAD = b"From: a@cam.example\r\nTo: b@example.org\r\nSubject: test\r\n\r\n"


def test_kills_of_workers(make_node, sink):  # noqa: F811
    """P1, P2: what test_kill.py does a thousand times, ten times, with the whole of TCP dying each time."""
    load, arrived, doubles, deaths = storm(make_node(sink.port, engine="trivial"), sink, 10, ["weir-dataplane"])
    assert deaths >= 2 and len(load.acked) > 5


def begin_data(node, worker, rcpt):  # noqa: F811
    c = node.smtp(worker=worker)
    c.cmd("EHLO client.test")
    c.cmd("MAIL FROM:<a@cam.example>")
    c.cmd(f"RCPT TO:<{rcpt}>")
    assert c.cmd("DATA").startswith("354")
    c.send(HEAD)
    return c


def serves(node, worker):  # noqa: F811
    """Asked by new SYNs each time: the kernel's own come later and later."""
    try:
        with node.connect(worker) as s:
            return s.recv(4) == b"220 "
    except OSError:
        return False


def test_a_workers_deaths_are_its_own(make_dpdk):  # noqa: F811
    """Of two workers with a device each one dies three times. Its connections are reset and what they had not ended is nothing (P2); the other's go on, in the middle of a message, too."""
    node, sink = make_dpdk(workers=2)  # noqa: F811
    steady, long_one = node.smtp(worker=0), begin_data(node, 0, "whole@example.org")
    steady.cmd("EHLO client.test")
    survivor, acked = pid_of(node, 0), set()
    for i in range(3):
        c = node.smtp(worker=1)
        c.cmd("EHLO client.test")
        assert c.message("a@cam.example", [f"acked{i}@example.org"], HEAD).startswith("250")
        acked.add(f"acked{i}@example.org")
        half = begin_data(node, 1, f"half{i}@example.org")
        os.kill(pid_of(node, 1), signal.SIGKILL)
        long_one.send(f"line {i}\r\n")
        assert steady.message("a@cam.example", [f"steady{i}@example.org"], HEAD).startswith("250")
        acked.add(f"steady{i}@example.org")
        assert wait_for(lambda: serves(node, 1), 30)
        with pytest.raises(ConnectionResetError):
            half.send(b"the end\r\n.\r\n")
            half.reply()
    long_one.send(b".\r\n")
    assert long_one.reply().startswith("250") and pid_of(node, 0) == survivor
    acked.add("whole@example.org")
    assert wait_for(lambda: acked <= {m["to"][0] for m in sink.messages} and node.queue() == [], 60)
    assert {m["to"][0] for m in sink.messages} == acked
    assert [m["data"].count(b"line ") for m in sink.messages if m["to"] == ["whole@example.org"]] == [3]
    assert node.ctl("ledger", "--since", "2h")["balanced"]
