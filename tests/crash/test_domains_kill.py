"""weir-control is killed again and again while it fetches mail domains by https and makes tables of them: what is in use is always whole, never older than before, and in the end what the
source says (C1, C2)."""
import json
import os
import random
import subprocess
import time

import pytest
from alias_web import GOOD, AliasWeb
from node import BIN, wait_for

KILLS = min(int(os.environ.get("WEIR_KILLS", "40")), 200)
SEED = int(os.environ.get("WEIR_SEED", str(random.randrange(1 << 30))))
DOMAINS = 5


@pytest.fixture
def web(tmp_path):
    (tmp_path / "web").mkdir()
    w = AliasWeb(tmp_path / "web")
    yield w
    w.stop()


def ctl(run, *args):
    p = subprocess.run([BIN / "weirctl", "--run", run, "--json", *args], capture_output=True, text=True, timeout=30)
    return json.loads(p.stdout) if p.stdout.strip() else None


def rounds(run):
    """Which round each domain of the tables in use is of."""
    out = []
    for d in range(DOMAINS):
        entry = (ctl(run, "alias", f"round@d{d}.example") or {}).get("entry")
        out.append(int(entry["targets"][0].split("@")[0][1:]) if entry else -1)
    return out


def test_kills_of_fetches_and_changes(tmp_path, web):
    run = tmp_path / "run"
    run.mkdir()
    rows = "".join(f"  - {{domain: d{d}.example, source: \"{web.url(f'd{d}')}\", ca: {web.ca}}}\n" for d in range(DOMAINS))
    (tmp_path / "weir.yaml").write_text(f"metrics: none\nmanaged: {{fetch_every: 1s, keep: 3}}\ntables: {{keep: 3}}\nmail_domains:\n{rows}")

    def say(i):
        for d in range(DOMAINS):
            web.write(f"d{d}", GOOD + f"round: r{i}@cam.example\n" + "".join(f"u{n}: u{n}@cam.example\n" for n in range(2000)))

    def control():
        return subprocess.Popen([BIN / "weir-control", "--run", run, "--config", tmp_path / "weir.yaml"], stderr=subprocess.DEVNULL)

    print("seed", SEED)
    rnd = random.Random(SEED)
    say(0)
    p = control()
    assert wait_for(lambda: (run / "tables/current").exists() and rounds(run) == [0] * DOMAINS)
    before = rounds(run)
    changes = 0
    for i in range(1, KILLS + 1):
        p.kill()
        p.wait()
        say(i)
        p = control()
        time.sleep(rnd.uniform(0, 1.6))
        p.kill()
        p.wait()
        show = ctl(run, "tables", "show")
        assert {g["generation"]: g["state"] for g in show["generations"]}[show["current"]] == "good", show
        now = rounds(run)
        assert all(b <= a <= i for a, b in zip(now, before)), (now, before)
        changes += now != before
        before = now
        for d in range(DOMAINS):
            log = ctl(run, "domain", "log", f"d{d}.example")
            assert [r["n"] for r in log] == list(range(1, len(log) + 1))
    say("9999")
    p = control()
    assert wait_for(lambda: rounds(run) == [9999] * DOMAINS)
    p.terminate()
    assert p.wait(10) == 0
    print(f"{KILLS} kills, {changes} after a change")
    assert changes
