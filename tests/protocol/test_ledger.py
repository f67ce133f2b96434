"""weirctl ledger and weirctl trace on a whole node: every fate, kills in the middle of traffic, and damage on purpose."""
import ctypes
import os
import pathlib
import random
import signal
import struct
import threading
import time

import pytest
from node import Smtp, wait_for

DATA = b"Subject: test\r\n\r\nhello\r\n"
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


def moods(kind, text):
    """bad@ does not exist, later@ comes back another time."""
    if kind == "rcpt" and "bad" in text:
        return "550 5.1.1 no such user"
    if kind == "rcpt" and "later" in text:
        return "451 4.2.1 later"


def ledger(node, *args, good=True):
    """The proof from an hour ago on, so that the turn of an hour is no matter."""
    p = node.ctl_text("ledger", *(args or ("--since", "1h")))
    assert (p.returncode == 0) == good, p.stdout + p.stderr
    return node.ctl("ledger", *(args or ("--since", "1h")), check=good)


def total(node, *args, **kw):
    return ledger(node, *args, **kw)["total"]


def send(node, sender, rcpts, data=DATA):
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    r = c.message(sender, rcpts, data)
    c.close()
    return r


def id_of(reply):
    assert reply.startswith("250"), reply
    return reply.split()[-1]


def files(node):
    return [p for p in sorted((node.run / "spool").glob("p*/ledger-*")) if p.stat().st_size > 0]


def frames(data):
    """(offset, bytes) of every frame."""
    at, found = 0, []
    while at + 40 <= len(data):
        magic, n = struct.unpack_from("<II", data, at)
        if magic == 0x31474C57:
            found.append((at, n))
            at += n
        else:
            at += 8
    return found


@pytest.fixture
def moody(make_sink, make_node):
    return make_node(make_sink(decide=moods).port, engine="trivial", extra="delivery: {retry_first: 3600s, retry_max: 7200s, idle: 500ms}\n")


def test_every_fate_is_in_the_table(moody):
    node = moody
    assert total(node) == dict.fromkeys(total(node), 0)
    send(node, "me@cam.example", ["a@x.example", "b@x.example", "bad@x.example", "later@x.example"])
    held, gone = id_of(send(node, "me@cam.example", ["later1@x.example"])), id_of(send(node, "me@cam.example", ["later2@x.example", "later3@x.example"]))
    many = id_of(send(node, "me@cam.example", [f"r{i}@x.example" for i in range(900)]))
    assert send(node, "me@cam.example", ["a@x.example"], b"Subject: v\r\n\r\n" + EICAR + b"\r\n").startswith("550")
    assert wait_for(lambda: len(node.queue()) == 3)
    node.ctl("queue", "hold", held)
    node.ctl("queue", "delete", gone)
    j = ledger(node)
    assert j["balanced"] and j["problems"] == [] and sum(j["deleted_by"].values()) == 2
    assert j["clients"] == {"messages": 4, "recipients": 907, "delivered": 902, "bounced": 1, "held": 1, "queued": 1, "deleted": 2, "unexplained": 0}
    assert j["own"]["messages"] == 1 and j["own"]["delivered"] == 1
    # another hour has nothing of this, and the table is the same without the node
    assert total(node, "--hour", "2020-01-01T00")["recipients"] == 0
    node.stop()
    now = ledger(node)
    assert now == {**j, "since": now["since"], "until": now["until"]}
    node.start()
    assert total(node) == j["total"]
    node.ctl("queue", "release", held)
    assert wait_for(lambda: total(node)["held"] == 0 and total(node)["queued"] == 2)
    assert many


def test_trace_tells_the_story(moody):
    node = moody
    first = id_of(send(node, "me@cam.example", ["a@x.example", "bad@x.example", "later@x.example"]))
    node.ctl("queue", "hold", first)
    node.ctl("queue", "release", first)
    refused = send(node, "me@cam.example", ["virus@x.example"], b"Subject: v\r\n\r\n" + EICAR + b"\r\n").split()[-1]
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    c.cmd("MAIL FROM:<me@cam.example>")
    assert wait_for(lambda: len(node.ctl("trace", first, check=False).get("messages", [{"events": []}])[0]["events"]) >= 6)
    (m,) = node.ctl("trace", first)["messages"]
    events = {e["event"]: e for e in m["events"]}
    assert events["accepted"]["client"] == "127.0.0.1" and events["accepted"]["helo"] == "client.test"
    assert events["accepted"]["from"] == "me@cam.example" and events["accepted"]["verdict"] == "clean" and int(events["accepted"]["size"]) == len(DATA)
    assert events["delivered"]["to"] == "a@x.example" and events["delivered"]["remote"] == "127.0.0.1" and events["delivered"]["reply"].startswith("250")
    assert events["bounced"]["to"] == "bad@x.example" and events["bounced"]["reply"] == "550 5.1.1 no such user"
    assert events["deferred"]["to"] == "later@x.example" and events["deferred"]["attempt"] == "1"
    assert "held by" in events["held"]["reason"] and "released by" in events["released"]["reason"]
    assert any("later@x.example" in row for row in m["queue"])
    by_address = node.ctl("trace", "LATER@x.example", "--since", "1h")["messages"]
    assert [x["id"] for x in by_address] == [first]
    (v,) = node.ctl("trace", "virus@x.example")["messages"]
    assert v["id"] == refused and v["events"][0]["event"] == "refused" and "malware" in v["events"][0]["reply"]
    text = node.ctl_text("trace", first, "--log", node.log_path).stdout
    assert "log: ts=" in text and "event=delivered" in text
    assert node.ctl_text("trace", "nobody@nowhere.example").returncode == 1
    node.stop()
    assert [e["event"] for e in node.ctl("trace", first)["messages"][0]["events"]] == [e["event"] for e in m["events"]]


def test_trace_by_what_the_sender_wrote(make_node, sink, tmp_path):
    """C6, C7: an alias, a list, a long-form domain; and by Message-ID and client."""
    (tmp_path / "dept").write_text("head: ann@cam.example\nlist: bob@cam.example, ann@cam.example, out@far.example\npostmaster: ann@cam.example\n")
    node = make_node(sink.port, engine="trivial", extra=f"mail_domains: [{{domain: dept.cam.example, aliases: {tmp_path}/dept}}, "
                     f"{{domain: short.example, aliases: {tmp_path}/dept, unlisted: deliver}}, {{domain: long.example, long_form_of: short.example}}]\n")
    assert wait_for(lambda: node.counters()["tables_generation"] > 0)
    c = Smtp(node.port, source="127.0.0.44")
    c.cmd("EHLO client.test")
    sent = {}
    for n, (rcpts, orcpt) in enumerate(((["Head@dept.cam.example"], ""), (["list@dept.cam.example", "own@cam.example"], " ORCPT=rfc822;before@else.example"), (["bob@long.example"], ""))):
        assert c.cmd("MAIL FROM:<s@x.example>").startswith("250")
        for rcpt in rcpts:
            assert c.cmd(f"RCPT TO:<{rcpt}>{orcpt}").startswith("250")
        c.cmd("DATA")
        c.send(f"Message-ID:\r\n <m{n}.ABC@x.example>\r\nSubject: x\r\n\r\nx\r\n.\r\n")
        sent[n] = c.reply().split()[-1]

    def found(what):
        return {m["id"]: m["events"] for m in node.ctl("trace", what, check=False).get("messages", [])}

    assert wait_for(lambda: [e["event"] for e in found(sent[2]).get(sent[2], [])].count("delivered") == 1)
    for what, which in (("head@dept.cam.example", {0}), ("LIST@dept.cam.example", {1}), ("own@cam.example", {1}), ("ann@cam.example", {0, 1}), ("bob@long.example", {2}), ("bob@short.example", {2}),
                        ("bob@cam.example", {1}), ("out@far.example", {1}), ("<m1.ABC@x.example>", {1}), ("m2.ABC@x.example", {2}), ("127.0.0.44", {0, 1, 2}),
                        ("s@x.example", {0, 1, 2}), ("<m1.abc@x.example>", set()), ("m1.ABC@x.exampl", set()), ("nobody@dept.cam.example", set())):
        assert set(found(what)) == {sent[n] for n in which}, what
    events = found("list@dept.cam.example")[sent[1]]
    assert events[0]["event"] == "accepted" and events[0]["message_id"] == "<m1.ABC@x.example>"
    assert [(e["to"], e["nrcpt"]) for e in events if e["event"] == "expanded"] == [("list@dept.cam.example", "3")]
    assert sorted(e["to"] for e in events if e["event"] == "delivered") == ["ann@cam.example", "bob@cam.example", "out@far.example", "own@cam.example"]
    assert events == found(sent[1])[sent[1]]  # whatever it is found by
    assert node.ctl_text("ledger").returncode == 0


def test_trace_of_a_refused_attempt(make_node, sink):
    node = make_node(sink.port, engine="trivial", extra="relay_clients: []\n")
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    c.cmd("MAIL FROM:<someone@else.example>")
    assert c.cmd("RCPT TO:<victim@far.example>").startswith("5")
    (e,) = wait_for(lambda: node.ctl("trace", "victim@far.example", check=False).get("rejected"))
    assert e["event"] == "rejected" and e["client"] == "127.0.0.1" and e["from"] == "someone@else.example" and e["reply"].startswith("5")


class Load:
    """Clients that send until told to stop; counts what was acknowledged."""

    def __init__(self, node, clients=6):
        self.node, self.stop, self.acked = node, threading.Event(), set()
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(clients)]
        for t in self.threads:
            t.start()

    def run(self, i):
        rnd = random.Random(i)
        c = None
        while not self.stop.is_set():
            try:
                if c is None:
                    c = Smtp(self.node.port, timeout=20)
                    c.cmd("EHLO load.test")
                rcpts = [f"{rnd.choice(['r', 'r', 'bad', 'later'])}{k}@x.example" for k in range(rnd.choice([1, 1, 5, 40]))]
                r = c.message("me@cam.example", rcpts, b"Subject: x\r\n\r\n" + b"y" * rnd.choice([10, 4000, 150000]) + b"\r\n")
                if r is None:
                    raise ConnectionError
                if r.startswith("250"):
                    self.acked.add((r.split()[-1], len(rcpts)))
            except OSError:
                c = None
                time.sleep(0.05)

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join(30)


@pytest.mark.parametrize("whole", [False, True], ids=["worker", "node"])
def test_kills_in_the_middle_of_traffic(moody, whole):
    node, rnd = moody, random.Random(7)
    load = Load(node)
    for _ in range(8 if not whole else 4):
        time.sleep(rnd.uniform(0.2, 0.8))
        if whole:
            node.kill_all()
            assert ledger(node)["balanced"]  # before anything was repaired
            node.start()
            continue
        for pid in node.pids("weir-dataplane")[:1]:
            os.kill(pid, signal.SIGKILL)
    assert ledger(node)["balanced"]  # in the middle of traffic
    load.end()
    wait_for(node.up)
    wait_for(lambda: ledger(node)["clients"]["messages"] >= len(load.acked), 10)  # the newest rows are written once a second
    j = ledger(node)
    acked = sum(n for _, n in load.acked)
    assert j["clients"]["messages"] >= len(load.acked) > 20 and j["clients"]["recipients"] >= acked
    for message, _ in random.Random(1).sample(sorted(load.acked), 10):
        assert [e["event"] for e in node.ctl("trace", message)["messages"][0]["events"]].count("accepted") == 1
    node.stop()
    assert total(node) == j["total"] or total(node)["recipients"] >= j["total"]["recipients"]


def test_the_last_frames_are_made_again_from_the_log(moody):
    node = moody
    for i in range(20):
        id_of(send(node, "me@cam.example", [f"a{i}@x.example", f"later{i}@x.example"]))
    assert wait_for(lambda: total(node)["delivered"] == 20)
    before = total(node)
    node.kill_all()
    for path in files(node):
        data = path.read_bytes()
        at = frames(data)[len(frames(data)) // 2][0]
        path.write_bytes(data[:at] + bytes(len(data) - at))
    assert total(node) == before  # the log has them
    node.start()
    assert total(node) == before
    assert any(b"\x02\0\0\0" == path.read_bytes()[a + 32:a + 36] for path in files(node) for a, _ in frames(path.read_bytes()))


def break_it(node, change):
    """Changes the ledger of a running node; what the proof says then."""
    path = max(files(node), key=lambda p: p.stat().st_size)
    data = path.read_bytes()
    path.write_bytes(change(data, frames(data)))
    j = ledger(node, good=False)
    path.write_bytes(data)
    assert ledger(node)["balanced"]
    return j


def busy(node):
    for i in range(12):
        id_of(send(node, "me@cam.example", [f"a{i}@x.example", f"later{i}@x.example"]))
        time.sleep(0.12)  # a frame of its own
    assert wait_for(lambda: total(node)["delivered"] == 12)


def without(data, at, n, number):
    """Takes a frame out without a trace: those behind it move up."""
    page = at // 65536 * 65536 + 65536
    return data[:at] + data[at + n:page] + bytes(n if page <= len(data) else 0) + data[page:]


def test_damage_is_found(moody):
    node = moody
    busy(node)
    good = ledger(node)
    # a byte
    j = break_it(node, lambda d, f: d[:f[3][0] + 60] + bytes([d[f[3][0] + 60] ^ 1]) + d[f[3][0] + 61:])
    assert any("not what was written" in p["problem"] for p in j["problems"]) and not j["balanced"]
    # a frame, cut out neatly
    j = break_it(node, lambda d, f: without(d, *f[3], 3))
    assert any("missing" in p["problem"] for p in j["problems"])
    # the end
    j = break_it(node, lambda d, f: d[:f[-2][0]] + bytes(len(d) - f[-2][0]))
    assert any("missing at the end" in p["problem"] for p in j["problems"])
    assert ledger(node)["total"] == good["total"]


def find_row(data, kind, state=None):
    """(frame, row offset, row bytes) of the first row of a kind."""
    for at, n in frames(data):
        used = struct.unpack_from("<I", data, at + 36)[0]
        row = at + 40
        while row < at + 40 + used:
            t, s, length = struct.unpack_from("<BBH", data, row)
            if t == kind and state in (None, s):
                return (at, n), row, length
            row += length
    raise AssertionError


def test_a_message_that_does_not_balance_is_named(moody):
    """The forger knows the checksum: the sums themselves have to tell."""
    hash_of = ctypes.CDLL("libxxhash.so.0").XXH3_64bits_withSeed
    hash_of.restype, hash_of.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
    node = moody
    busy(node)
    partition = int(max(files(node), key=lambda p: p.stat().st_size).parent.name[1:])

    def forge(kind, state, change):
        def do(data, _):
            (at, n), row, length = find_row(data, kind, state)
            frame = bytearray(data[at:at + n])
            change(frame, row - at)
            frame[8:16] = bytes(8)
            frame[8:16] = struct.pack("<Q", hash_of(bytes(frame), len(frame), partition + 1))
            return data[:at] + bytes(frame) + data[at + n:]
        return do

    def to_state(value):
        return lambda frame, row: frame.__setitem__(row + 1, value)

    # a delivery that says it was only an attempt: no outcome, and not in the queue
    j = break_it(node, forge(5, 1, to_state(0)))
    assert any("no outcome" in p["problem"] and p.get("id") for p in j["problems"])
    # an attempt that says it was a delivery: has an outcome, and is in the queue
    j = break_it(node, forge(5, 0, to_state(1)))
    assert any("in the queue" in p["problem"] and p.get("id") for p in j["problems"])
    # another recipient's
    j = break_it(node, forge(5, 1, lambda frame, row: frame.__setitem__(row + 24, 9)))
    assert any("two outcomes" in p["problem"] for p in j["problems"])
    # an acceptance that says it is something else
    j = break_it(node, forge(3, None, lambda frame, row: frame.__setitem__(row, 6)))
    assert any("never accepted" in p["problem"] and p.get("id") for p in j["problems"])


def test_usage(moody):
    for args in (["--hour", "yesterday"], ["--until", "now"], ["--hour", "2026-11-21T08", "--since", "1h"], ["x"]):
        assert moody.ctl_text("ledger", *args).returncode == 2, args
    assert moody.ctl_text("trace").returncode == 2
    assert moody.ctl_text("ledger", "--spool", pathlib.Path("/nowhere")).returncode == 1
