"""The protocol suite: every case of the tables in every way in which it makes sense, all against one node, whose sink keeps each byte."""
import collections
import concurrent.futures
import itertools
import re
import socket
import threading
import time

import cases_bare_lf
import cases_content
import cases_params
import cases_session
import cases_traps
import pytest
from node import BIN, Node, Sink, arrives, free_port, wait_for, without_trace
from suite import OPEN, TEXT, Connection, act, as_bytes, connect, expect, expect_closed, run_case

CASES = cases_session.CASES + cases_params.CASES + cases_content.CASES + cases_bare_lf.CASES + cases_traps.CASES
RUNS = [(case, way) for case in CASES for way in case.runs()]
LIMITS = "limits: {message_size: 64K, recipients: 100, errors: 20, commands: 1000, connections_per_own_client: 5000, tls_handshakes: 0}\n"


INSIDE = "relay_clients: [{network: %s, rate: none}]\nscan: {processes: 2, engine: trivial}\n"
EXTENSIONS = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN")


def normalising(ip, port):
    return f'{{address: "{ip}:{port}", bare_lf: normalise}}'


class Suite:
    """One node and one sink; what each session saw, and which messages came of it."""

    def __init__(self, node, sink, runs=RUNS, cut_runs=None, stuck=("starttls", "implicit")):
        self.node, self.sink, self.runs, self.cut_runs, self.stuck = node, sink, runs, list(cuts()) if cut_runs is None else cut_runs, stuck
        self.names = itertools.count()
        self.failed = {}
        self.pids_before = self.pids()
        self.name = {}

    def pids(self):
        return [sorted(self.node.pids(name)) for name in ("weir-dataplane", "weir-scanner", "weir-control")]

    def run(self, key, function, *args):
        """Runs function(..., me) with a name of its own and remembers how it ended."""
        self.name[key] = me = f"c{next(self.names)}.test"
        self.failed[key] = None
        try:
            function(*args, me)
        except (AssertionError, OSError, ValueError) as e:
            self.failed[key] = f"{type(e).__name__}: {e}"

    def run_all(self):
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            jobs = [pool.submit(self.run, (case.name, way), run_case, case, way, self.node) for case, way in self.runs]
            jobs += [pool.submit(self.run, cut, run_cut, self.node, *cut) for cut in self.cut_runs]
            jobs += [pool.submit(self.run, ("stuck", way), stuck_handshake, self.node, way) for way in self.stuck]
            for job in jobs:
                job.result()
        self.queue = wait_for(lambda: self.node.queue() == [], 20) or self.node.queue()
        time.sleep(0.3)
        self.arrived = collections.defaultdict(list)
        for m in self.sink.messages:
            found = re.match(rb"Received: from (c\d+\.test)", m["data"])
            self.arrived[found.group(1).decode() if found else None].append(m)

    def of(self, key):
        return self.arrived[self.name[key]]

    def stop(self):
        self.node.stop()
        self.sink.stop()


# ---- P2: cuts of a transaction at every byte, before and after its end ----

BEGIN = b"EHLO @ME@\r\nMAIL FROM:<a@cam.example>\r\nRCPT TO:<b@example.org>\r\n"
WHOLE = {"data": BEGIN + b"DATA\r\n" + TEXT + b".\r\n", "bdat": BEGIN + b"BDAT 20\r\n" + TEXT[:20] + b"BDAT %d LAST\r\n" % (len(TEXT) - 20) + TEXT[20:]}
CUTS = ("half-close", "truncate", "close", "reset", "close_notify")
CUT_WAYS = ("plain", "starttls")


def cuts():
    for method, how, way in itertools.product(WHOLE, CUTS, CUT_WAYS):
        if how in ("close_notify", "truncate") and way == "plain":
            continue
        for at in range(len(WHOLE[method]) + 3):
            yield method, how, way, at


def run_cut(node, method, how, way, at, me):
    c = connect(way, node)
    try:
        # the name stands for one byte that is not cut
        c.send((WHOLE[method] + b"NOO").replace(b"@ME@", b"\xff")[:at].replace(b"\xff", me.encode()))
        act(c, how)
        if how in ("half-close", "close_notify", "truncate"):
            expect_closed(c, False)
    finally:
        c.close()


def stuck_handshake(node, way, me):
    """P23: the client is silent where its ClientHello should be."""
    c = Connection(node.smtps if way == "implicit" else node.port)
    if way == "starttls":
        c.reply()
        c.send(b"STARTTLS\r\n")
        assert c.reply()[0].startswith(b"220")
    begun = time.monotonic()
    assert c.reply() is None
    assert 9 < time.monotonic() - begun < 15
    c.close()


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    sink = Sink(extensions=EXTENSIONS)
    normalise = free_port()
    node = Node(tmp_path_factory.mktemp("suite"), sink.port, engine="trivial", listeners=[normalising("127.0.0.1", normalise)], extra=LIMITS + INSIDE % "127.0.0.0/16")
    node.normalise = normalise
    s = Suite(node, sink)
    try:
        s.run_all()
        yield s
    finally:
        s.stop()


@pytest.mark.parametrize("case,way", RUNS, ids=[f"{case.name}-{way}" for case, way in RUNS])
def test_case(suite, case, way):
    key = case.name, way
    assert not suite.failed[key], suite.failed[key]
    came = suite.of(key)
    assert sorted(without_trace(m["data"]) for m in came) == sorted(map(arrives, case.gets))
    if case.to:
        assert came[0]["to"] == case.to
    if case.mail:
        assert re.sub(r" SIZE=\d+", "", came[0]["mail"]) == case.mail
    if case.rcpt:
        assert came[0]["rcpt"] == case.rcpt


@pytest.mark.parametrize("method,how,way", sorted({c[:3] for c in cuts()}))
def test_cut_at_every_byte(suite, method, how, way):
    end = len(WHOLE[method].replace(b"@ME@", b"\xff"))
    for at in range(len(WHOLE[method]) + 3):
        key = method, how, way, at
        assert not suite.failed[key], (at, suite.failed[key])
        came = [without_trace(m["data"]) for m in suite.of(key)]
        if at < end:
            assert came == [], f"cut at {at} of {end}"
        elif how in ("half-close", "close_notify"):
            assert came == [TEXT], f"cut at {at} of {end}"
        else:
            assert came in ([], [TEXT]), f"cut at {at} of {end}"


@pytest.mark.parametrize("way", ["plain", "starttls", "implicit"])
def test_who_does_not_read_is_held_back(suite, way):
    """P7: TCP holds him back, nothing piles up here."""
    c = connect(way, suite.node)
    c.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for step in OPEN:
        c.send(as_bytes(step[0]))
        expect(c, step[1], b"")
    c.s.settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
        for _ in range(1200):
            c.send(b"RCPT TO:<b@example.org>\r\n" * 1000)
            sent += 1000
    assert sent < 1000000  # 25 MB; the kernel's buffers take some
    c.close()


@pytest.mark.parametrize("way", ["plain", "starttls", "implicit"])
def test_who_reads_late_gets_every_reply(suite, way):
    c = connect(way, suite.node)
    c.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sender = threading.Thread(target=lambda: [c.send(b"EHLO late.test\r\nMAIL FROM:<a@cam.example>\r\n" + b"RCPT TO:<b@example.org>\r\n" * 1000 + b"RSET\r\n")
                                              for _ in range(150)])
    sender.start()
    time.sleep(0.5)
    for _ in range(150):
        assert c.reply()[-1].startswith(b"250 ") and c.reply()[0].startswith(b"250 2.1.0")
        assert collections.Counter(c.reply()[0][:9] for _ in range(1000)) == {b"250 2.1.5": 100, b"452 4.5.3": 900}
        assert c.reply()[0].startswith(b"250 2.0.0")
    sender.join(10)
    c.close()


def test_the_table(suite):
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 200


def test_nothing_is_left_and_nothing_else_arrived(suite):
    assert suite.queue is True
    known = set(suite.name.values())
    for name, messages in suite.arrived.items():
        assert name in known or all(b"multipart/report" in m["data"] for m in messages), (name, messages[:1])


@pytest.mark.parametrize("way", ["starttls", "implicit"])
def test_a_stuck_handshake_ends(suite, way):
    assert not suite.failed["stuck", way], suite.failed["stuck", way]


FIELD = (rb"Received: from [!-~]+ \(\[(?:127|10)\.[0-9.]+\]\)\r\n\tby relay\.cam\.example \(Weir\) with (UTF8SMTPS?|ESMTPS?|SMTPS?)( \([^()]*\))?\r\n"
         rb"\tid [0-9A-Z]+(\r\n\tfor <[^<>\0-\x1f]+>|\r\n\tfor <.*\".*>)?;\r\n\t[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} 20[0-9]{2} [0-9:]{8} \+0000\r\n")


def test_received_fields(suite):
    """Whatever a client calls itself: one field, of printable ASCII but for an SMTPUTF8 address, with the protocol of RFC 3848 and RFC 6531."""
    for case, way in suite.runs:
        for m in suite.of((case.name, way)):
            found = re.match(FIELD, m["data"])
            assert found, m["data"][:300]
            assert case.name.startswith("starttls") or found.group(1).endswith(b"S") == (way in ("starttls", "implicit"))
            assert found.group().isascii() or found.group(1).startswith(b"UTF8")


def test_log_lines_cannot_be_forged(suite):
    """P24: no control character, nothing but ASCII, and no line that is not ours."""
    for line in suite.node.log_path.read_bytes().splitlines():
        assert re.fullmatch(rb"[ -~]*", line), line


def test_no_process_died(suite):
    assert suite.pids() == suite.pids_before
    assert "Sanitizer" not in suite.node.log_text() and "runtime error" not in suite.node.log_text()


@pytest.mark.skipif("asan" in str(BIN), reason="the sanitizer keeps freed memory")
def test_memory_is_bounded(suite):
    """P7: after all of it a worker has its arena of 48 MiB and what it has anyway, and no session is left."""
    for pid in suite.node.pids("weir-dataplane"):
        with open(f"/proc/{pid}/status") as f:
            assert next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) < (48 + 80) * 1024
    assert wait_for(lambda: suite.node.counters()["sessions_open"] == 0)


def test_strangers_reach_only_our_domains(suite):
    outside = {suite.name[case.name, way] for case, way in suite.runs if case.outside}
    reached = {rcpt for name in outside for m in suite.arrived[name] for rcpt in m["to"]}
    assert reached and all(r.lower().endswith("@cam.example") or r.lower() == "postmaster" for r in reached), reached


def test_every_byte_that_was_sent_on(suite):
    """P3: no bare CR, bare LF or NUL ever leaves."""
    raw = bytes(suite.sink.raw)
    assert raw and b"\0" not in raw and not re.search(rb"\r(?!\n)|(?<!\r)\n", raw)
