"""What goes out: BDAT, LIMITS, sizes, and how many connections a destination gets."""
import random
import threading
import time

import pytest
from nasty import Nasty
from node import Smtp, wait_for, without_trace

HEAD = b"From: a@cam.example\r\nSubject: test\r\n\r\n"
BDAT = ("PIPELINING", "8BITMIME", "CHUNKING")


@pytest.fixture
def make_nasty():
    made = []

    def make(*a, **kw):
        made.append(Nasty(*a, **kw))
        return made[-1]

    yield make
    for s in made:
        s.stop()


def send(node, n=1, rcpts=("b@example.org",), body=HEAD + b"x\r\n"):
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    for i in range(n):
        assert c.message("a@cam.example", rcpts, body).startswith("250")
    c.close()


def lines(n):
    rnd = random.Random(n)
    out = bytearray()
    while len(out) < n:
        out += bytes(rnd.choice(b"abcdefghij.  ~!\xe4") for _ in range(rnd.randrange(0, 100))) + b"\r\n"
        if rnd.random() < 0.1:
            out += b".leading dot\r\n.\r\n..\r\n"
    return bytes(out)


@pytest.mark.parametrize("ext", [BDAT, ("8BITMIME", "CHUNKING")], ids=["pipelined", "one by one"])
@pytest.mark.parametrize("size", [0, 10, 4096, 70000, 3 << 20])
def test_chunks_are_byte_for_byte_and_nothing_is_stuffed(make_node, make_nasty, size, ext):
    server = make_nasty(extensions=ext)
    node = make_node(server.port, engine="trivial", workers=1)
    body = HEAD + lines(size)
    send(node, 2, body=body)
    assert wait_for(lambda: len(server.messages) == 2, 30)
    assert all(without_trace(m["data"]) == body for m in server.messages)
    assert wait_for(lambda: node.queue() == [])
    assert "DATA" not in server.verbs() and node.counters()["outbound_bdat_total"] == 2


def test_a_body_without_a_line_end_stays_so(make_node, make_nasty):
    server = make_nasty(extensions=BDAT)
    node = make_node(server.port, engine="trivial", workers=1)
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    c.cmd("MAIL FROM:<a@cam.example>")
    c.cmd("RCPT TO:<b@example.org>")
    c.send(b"BDAT %d LAST\r\n" % (len(HEAD) + 4) + HEAD + b".end")
    assert c.reply().startswith("250")
    assert wait_for(lambda: len(server.messages) == 1)
    assert without_trace(server.messages[0]["data"]) == HEAD + b".end"


def test_a_refused_chunk_stops_a_large_message_and_the_connection_goes_on(make_node, make_nasty):
    server = make_nasty({"bdat1": "452 4.3.1 no room"}, extensions=BDAT)
    node = make_node(server.port, engine="trivial", workers=1, extra="delivery: {retry_first: 1s, retry_max: 1s, idle: 5s}\n")
    body = HEAD + lines(6 << 20)
    send(node, body=body)
    assert wait_for(lambda: len(server.messages) == 1, 20)
    assert without_trace(server.messages[0]["data"]) == body
    assert "RSET" in server.verbs() and server.connections == 1


def test_chunking_can_be_switched_off(make_node, make_nasty):
    server = make_nasty(extensions=BDAT)
    node = make_node(server.port, engine="trivial", workers=1, extra="delivery: {chunking: no}\n")
    send(node)
    assert wait_for(lambda: len(server.messages) == 1)
    assert "BDAT" not in server.verbs()


def test_limits_of_the_next_hop(make_node, make_nasty):
    server = make_nasty(extensions=("PIPELINING", "8BITMIME", "LIMITS MAILMAX=2 RCPTMAX=2 RCPTDOMAINMAX=1"))
    node = make_node(server.port, engine="trivial", workers=1)
    send(node, 2, rcpts=[f"b{i}@{d}.example" for d in ("one", "two") for i in range(3)])
    assert wait_for(lambda: sum(len(m["to"]) for m in server.messages) == 12)
    assert all(len(m["to"]) <= 2 and len({r.split("@")[1] for r in m["to"]}) == 1 for m in server.messages)
    assert len(server.messages) == 8 and server.connections >= 4  # two messages on each


def test_limits_of_our_own_are_what_is_said(make_node, sink):
    node = make_node(sink.port, engine="trivial", extra="limits: {recipients: 100, messages: 3}\n")
    c = Smtp(node.port)
    assert "LIMITS RCPTMAX=100 MAILMAX=3" in c.cmd("EHLO client.test")
    for _ in range(3):
        assert c.message("a@cam.example", ["b@example.org"], HEAD).startswith("250")
    assert c.cmd("MAIL FROM:<a@cam.example>").startswith("421 4.7.0") and c.reply() is None


def test_size_is_declared_and_obeyed(make_node, make_nasty, make_sink):
    server, sink = make_nasty(extensions=("PIPELINING", "SIZE 10000")), make_sink()
    node = make_node(routes=f'[{{domain: small.example, to: "smtp:[127.0.0.1]:{server.port}", tls: never}}, '
                     f'{{domain: "*", to: "smtp:[127.0.0.1]:{sink.port}", tls: never}}]', engine="trivial", workers=1)
    send(node, rcpts=["b@small.example"])
    send(node, rcpts=["b@small.example"], body=HEAD + b"x" * 70 + b"\r\n" * 20000)
    assert wait_for(lambda: sink.count == 1 and server.messages)
    assert b"Status: 5.3.4" in sink.messages[0]["data"] and len(server.messages) == 1
    mails = [x for x in server.heard if x.startswith(b"MAIL")]
    assert len(mails) == 1 and mails[0].endswith(b" SIZE=%d\r\n" % len(server.messages[0]["data"]))


def test_connections_follow_what_the_destination_bears(make_node, make_nasty):
    server = make_nasty({"end": lambda c: time.sleep(0.02)}, at_most=7)
    node = make_node(server.port, engine="trivial", workers=1, extra="delivery: {connections_at_first: 2, connections_per_destination: 20, idle: 2s}\n")
    threads = [threading.Thread(target=send, args=(node, 150)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wait_for(lambda: len(server.messages) == 600, 60)
    assert wait_for(lambda: node.queue() == [], 20)
    c = node.counters()
    assert server.most == 7 and server.refused < 30, (server.most, server.refused)
    assert c["outbound_slowed_total"] >= 1 and c["recipients_deferred_total"] == 0


def test_a_destination_that_says_421_gets_fewer(make_node, make_nasty):
    server = make_nasty({"mail": lambda c: None if c.server.open <= 3 else "421 4.7.0 slow down"})
    node = make_node(server.port, engine="trivial", workers=1,
                     extra="delivery: {connections_at_first: 10, connections_per_destination: 20, retry_first: 1s, retry_max: 2s}\n")
    send(node, 100)
    assert wait_for(lambda: len(server.messages) == 100, 60)
    assert node.counters()["outbound_slowed_total"] >= 1


def test_what_was_held_meanwhile_does_not_go_back_into_the_queue(make_node, make_nasty):
    """P1: the hop turns out not to know BDAT, so that the message is sent again; but an operator holds it by then."""
    asked, go = threading.Event(), threading.Event()

    def not_known(_conversation):
        asked.set()
        go.wait(30)
        return "502 5.5.1 what is BDAT?"

    server = make_nasty({"bdat1": not_known}, extensions=("8BITMIME", "CHUNKING"))
    node = make_node(server.port, engine="trivial", workers=1)
    send(node, rcpts=["held@example.org"])
    assert asked.wait(10)
    ident = node.queue()[0]["id"]
    node.ctl("queue", "hold", ident)
    go.set()
    assert wait_for(lambda: node.counters()["outbound_bdat_unknown_total"] == 1)
    send(node, rcpts=["next@example.org"])
    assert wait_for(lambda: server.messages)
    assert [m["to"] for m in server.messages] == [["next@example.org"]]  # the one that was held would have gone first
    node.ctl("queue", "release", ident)
    assert wait_for(lambda: node.queue() == [])
    assert [m["to"] for m in server.messages] == [["next@example.org"], ["held@example.org"]]
