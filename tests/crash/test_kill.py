"""Kill storms: the client keeps the ledger of what was acknowledged, the sink that of what arrived.

WEIR_KILLS sets how many kills (default 50), WEIR_SEED the random seed (printed)."""
import collections
import os
import random
import re
import signal
import threading
import time

from node import Smtp, wait_for

KILLS = int(os.environ.get("WEIR_KILLS", "50"))
SEED = int(os.environ.get("WEIR_SEED", str(random.randrange(1 << 30))))


class Load:
    """Clients that send numbered messages until told to stop, and remember which were acknowledged."""

    def __init__(self, node, clients=8):
        self.node, self.stop, self.lock = node, threading.Event(), threading.Lock()
        self.acked, self.sent, self.next = set(), set(), 0
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(clients)]
        for t in self.threads:
            t.start()

    def run(self, client):
        rnd = random.Random(client)
        c = None
        while not self.stop.is_set():
            try:
                if c is None:
                    c = Smtp(self.node.port, timeout=20)
                    if not c.greeting or not c.greeting.startswith("220") or not (c.cmd("EHLO load.test") or "").startswith("250"):
                        raise ConnectionError
                with self.lock:
                    self.next += 1
                    number = self.next
                self.sent.add(number)
                size = rnd.choice([100, 4000, 4000, 60000, 200000, 1500000])
                body = b"X-Number: %d\r\n\r\n" % number + (b"y" * 76 + b"\r\n") * (size // 78)
                r = c.message("a@cam.example", ["b@example.org"], body)
                if r is None:
                    raise ConnectionError
                if r.startswith("250"):
                    self.acked.add(number)
                elif not r.startswith("4"):
                    raise AssertionError(r)
            except (OSError, ConnectionError):
                if c:
                    c.close()
                c = None
                time.sleep(0.05)

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join(30)


def numbers(sink):
    return collections.Counter(int(re.search(rb"X-Number: (\d+)", m["data"]).group(1)) for m in sink.messages)



def storm(node, sink, kills, victims, whole_node=False):
    rnd = random.Random(SEED)
    print(f"seed {SEED}")
    load = Load(node)
    deaths = 0
    for _ in range(kills):
        time.sleep(rnd.uniform(0.05, 0.4))
        if whole_node:
            node.kill_all()
            node.start()
            deaths += 1
            continue
        pids = [p for v in victims for p in node.pids(v)]
        if pids:
            try:
                os.kill(rnd.choice(pids), signal.SIGKILL)
                deaths += 1
            except ProcessLookupError:
                pass
    load.end()
    assert wait_for(lambda: load.acked <= set(numbers(sink)) and node.queue() == [], 60), (
        f"seed {SEED}: lost {sorted(load.acked - set(numbers(sink)))[:20]} of {len(load.acked)}, queue {node.queue()[:3]}")
    assert node.ctl("ledger", "--since", "2h")["balanced"], f"seed {SEED}"
    arrived = numbers(sink)
    doubles = {n for n, c in arrived.items() if c > 1}
    assert set(arrived) <= load.sent
    # every double: its first delivery's outcome was not in the log when the worker died; at most what was under way at a death
    assert len(doubles) <= deaths * 2 * 20, f"seed {SEED}: {len(doubles)} doubles at {deaths} deaths"
    print(f"{len(load.acked)} acknowledged, {sum(arrived.values())} arrived, {len(doubles)} double, {deaths} kills")
    return load, arrived, doubles, deaths


def test_kills_of_single_processes(make_node, sink):
    node = make_node(sink.port, engine="trivial")
    load, arrived, doubles, deaths = storm(node, sink, KILLS, ["weir-dataplane", "weir-scanner", "weir-control"])
    assert deaths >= KILLS // 2 and len(load.acked) > KILLS


def test_kills_of_the_whole_node(make_node, sink):
    node = make_node(sink.port, engine="trivial")
    load, arrived, doubles, deaths = storm(node, sink, max(3, KILLS // 10), [], whole_node=True)
    assert len(load.acked) > 10


def test_scanner_and_control_kills_make_no_doubles(make_node, sink):
    node = make_node(sink.port, engine="trivial")
    load, arrived, doubles, deaths = storm(node, sink, 10, ["weir-scanner", "weir-control"])
    assert not doubles
