"""Kill storms: the client keeps the ledger of what was acknowledged, the sink that of what arrived.

WEIR_KILLS sets how many kills (default 50), WEIR_SEED the random seed (printed), WEIR_CRASH_REPORT a file for the figures."""
import os
import random
import signal
import time

from load import Load, numbers
from node import wait_for

REPORT = os.environ.get("WEIR_CRASH_REPORT")
KILLS = int(os.environ.get("WEIR_KILLS", "50"))
SEED = int(os.environ.get("WEIR_SEED", str(random.randrange(1 << 30))))


def drained(node, load, sink):
    """What a thousand kills left in the queue takes its time: as long as something comes, it is waited for."""
    def done():
        return node.queue() == [] and load.acked <= set(numbers(sink))

    while not done():
        before = sink.count
        if not wait_for(lambda: sink.count > before or done(), 60):
            return False
    return True


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
    assert drained(node, load, sink), (
        f"seed {SEED}: lost {sorted(load.acked - set(numbers(sink)))[:20]} of {len(load.acked)}, queue {node.queue()[:3]}")
    assert node.ctl("ledger", "--since", "2h")["balanced"], f"seed {SEED}"
    arrived = numbers(sink)
    doubles = {n for n, c in arrived.items() if c > 1}
    assert set(arrived) <= load.sent
    # every double: its first delivery's outcome was not in the log when the worker died; at most what was under way at a death
    assert len(doubles) <= deaths * 2 * 20, f"seed {SEED}: {len(doubles)} doubles at {deaths} deaths"
    text = (f"kills at random over {node.transport}, {'the whole node' if whole_node else ' or '.join(victims)}, seed {SEED}: {deaths} kills, {len(load.acked)} acknowledged, "
            f"{sum(arrived.values())} arrived, lost 0, {len(doubles)} doubles")
    print(text)
    if REPORT:
        with open(REPORT, "a") as f:
            f.write(text + "\n")
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
