"""A worker is killed at each kind of operation on its disk, before, in the middle of, and after it, under a load that makes checkpoints and compaction happen.

WEIR_POINT_ROUNDS sets how many rounds over all kinds, each before, after and torn (default: one short round, before or after), WEIR_SEED the random
seed (printed), WEIR_CRASH_REPORT a file for the figures. One kill by hand:
WEIR_KILL_AT=write:17:before build/release/crash/weir run ..."""
import collections
import os
import random
import time

import node as node_module
from load import Load, arrivals, only_number
from node import wait_for

ROUNDS = int(os.environ.get("WEIR_POINT_ROUNDS", "0"))
SEED = int(os.environ.get("WEIR_SEED", str(random.randrange(1 << 30))))
REPORT = os.environ.get("WEIR_CRASH_REPORT")
# Rare operations: the next or the one after it. The others: any of the next thirty.
POINTS = {"fill": 2, "fill_flush": 1, "fill_dir": 1, "claim": 2, "claim_flush": 2, "checkpoint_data": 1, "checkpoint_flush": 1, "checkpoint_header": 1,
          "checkpoint_header_flush": 1, "move_read": 3, "record_read": 5, "read": 3, "write": 30, "flush": 30}
# At a start: what recovery reads and flushes, and the segments that it makes or makes anew.
START = {"start_read": 8, "start_flush": 4, "start_write": 2}
WRITES = {"fill", "claim", "checkpoint_data", "checkpoint_header", "write"}


class Plan:
    """Tells the node's worker where to die, and learns of it."""

    def __init__(self, directory):
        self.file = directory / "kill"
        self.killed_file = directory / "kill.killed"
        self.deaths = []

    def killed(self):
        lines = self.killed_file.read_text().splitlines() if self.killed_file.exists() else []
        return [(point, int(ns) / 1e9) for point, _, ns in (line.split() for line in lines)]

    def put(self, points):
        self.file.with_suffix(".new").write_text(",".join(points))
        self.file.with_suffix(".new").rename(self.file)

    def kill(self, points, patience):
        """True once the worker died at all of the points, one process after the other."""
        before = len(self.killed())
        self.put(points)
        done = wait_for(lambda: len(self.killed()) >= before + len(points), patience, 0.01)
        self.file.unlink(missing_ok=True)
        return done


class Patience:
    """What the sink says to slow@: later, until told otherwise."""

    def __init__(self):
        self.put_off = True

    def __call__(self, kind, text):
        return "451 4.2.0 later" if self.put_off and kind == "rcpt" and "slow@" in text else None


def whens(rnd, kind):
    if not ROUNDS:
        return [rnd.choice(("before", "after"))]
    return ["before", "after"] + ["torn"] * (kind in WRITES)


def lists(rnd):
    """Lists of points; the kinds of the start follow some other kill."""
    out = [[f"{kind}:{rnd.randint(1, most)}:{when}"] for kind, most in POINTS.items() for when in whens(rnd, kind)]
    for kind, most in START.items():
        first = "fill:1:before" if kind == "start_write" else "write:%d:torn" % rnd.randint(1, 10)
        out += [[first, f"{kind}:{rnd.randint(1, most)}:{when}"] for when in whens(rnd, kind)]
    first = [points for points in out if points[0].startswith("fill")]
    rest = [points for points in out if points not in first]
    rnd.shuffle(rest)
    return first + rest  # segments are made at the beginning only


def explained(times, deaths, latest):
    """A second copy comes from a worker that died between the sink's 250 and the outcome's durability. What it had sent the sink may read a little later."""
    return all(any(a - 1 <= d <= min(a + latest, b) for d in deaths) for a, b in zip(times, times[1:]))


def one_round(make_node, make_sink, rnd, round_no):
    patience = Patience()
    sink = make_sink(decide=patience, keep=False, reduce=only_number)
    node = make_node(sink.port, engine="trivial", workers=1, start=False, bin=node_module.BIN / "crash", name=f"round-{round_no}",
                     extra="spool: {segment: 4M, max: 64M, arena: 48M, spill: 256K}\n"
                           "delivery: {retry_first: 1s, retry_max: 2s, idle: 500ms}\n")
    plan = Plan(node.dir)
    node.env["WEIR_KILL_FILE"] = str(plan.file)
    plan.put(["start_write:%d:%s" % (rnd.randint(1, START["start_write"]), rnd.choice(("before", "after")))])
    node.start()
    load = Load(node, clients=6, sizes=(100, 4000, 4000, 30000, 100000, 600000), slow=0.05)
    missed = []
    try:
        for points in lists(rnd):
            if not plan.kill(points, 12 if ROUNDS else 5):
                missed.append(",".join(points))
    finally:
        load.end()
        patience.put_off = False
    assert wait_for(lambda: load.acked <= set(arrivals(sink)) and node.queue() == [], 90, 0.2), (
        f"lost {sorted(load.acked - set(arrivals(sink)))[:20]} of {len(load.acked)}, queue {node.queue()[:3]}\n{node.log_text()[-2000:]}")
    assert "spool-damaged" not in node.log_text()
    node.stop()
    return load, arrivals(sink), plan, missed


def test_kill_points(make_node, make_sink):
    rnd = random.Random(SEED)
    print(f"seed {SEED}")
    per_point, acked, arrived, doubles, missed = collections.Counter(), 0, 0, 0, []
    for round_no in range(max(1, ROUNDS)):
        load, came, plan, late = one_round(make_node, make_sink, rnd, round_no)
        assert set(came) <= load.sent, f"seed {SEED}"
        deaths = [at for _, at in plan.killed()]
        twice = {n: times for n, times in came.items() if len(times) > 1}
        odd = {n: times for n, times in twice.items() if not explained(times, deaths, 5)}
        assert not odd, f"seed {SEED}: doubles without a death to explain them: {odd}, deaths {deaths}"
        for point, _ in plan.killed():
            kind, _, when = point.split(":")
            per_point[f"{kind}:{when}"] += 1
        acked += len(load.acked)
        arrived += sum(map(len, came.values()))
        doubles += len(twice)
        missed += late
    text = "".join(f"{point:34}{n:6}\n" for point, n in sorted(per_point.items()))
    text += (f"kill points, seed {SEED}: {sum(per_point.values())} kills in {max(1, ROUNDS)} rounds, {acked} acknowledged, {arrived} arrived, lost 0, "
             f"{doubles} doubles, all explained; not reached: {missed or 'none'}\n")
    print(text)
    if REPORT:
        with open(REPORT, "a") as f:
            f.write(text)
    kinds = {p.split(":")[0] for p in per_point}
    assert set(POINTS) | set(START) <= kinds, f"seed {SEED}: never reached {(set(POINTS) | set(START)) - kinds}"
