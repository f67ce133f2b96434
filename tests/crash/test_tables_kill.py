"""weir-control is killed again and again while it compiles and switches tables: what is in use is always whole, and never older than before (C1)."""
import json
import os
import random
import subprocess
import time

from node import BIN, wait_for

KILLS = min(int(os.environ.get("WEIR_KILLS", "40")), 200)
SEED = int(os.environ.get("WEIR_SEED", str(random.randrange(1 << 30))))


def show(run):
    p = subprocess.run([BIN / "weirctl", "--run", run, "--json", "tables", "show"], capture_output=True, text=True, timeout=30)
    return json.loads(p.stdout)


def lookup(run, addr):
    p = subprocess.run([BIN / "weirctl", "--run", run, "--json", "alias", addr], capture_output=True, text=True, timeout=30)
    return json.loads(p.stdout)["entry"] if p.stdout else None


def test_kills_of_the_switch(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "weir.yaml").write_text("metrics: none\nmail_domains: [{domain: dept.example, aliases: dept}]\ntables: {keep: 3}\n")

    def control(i):
        lines = "".join(f"u{n}: u{n}@example.org\n" for n in range(20000))
        (tmp_path / "dept.new").write_text(f"round: r{i}@example.org\n" + lines)
        os.replace(tmp_path / "dept.new", tmp_path / "dept")
        return subprocess.Popen([BIN / "weir-control", "--run", run, "--config", tmp_path / "weir.yaml"], stderr=subprocess.DEVNULL)

    print("seed", SEED)
    rnd = random.Random(SEED)
    p = control(0)
    assert wait_for(lambda: show(run)["current"] == 1)
    before, changed = 1, 0
    for i in range(1, KILLS + 1):
        p.kill()
        p.wait()
        p = control(i)
        time.sleep(rnd.uniform(0, 0.15))
        p.kill()
        p.wait()
        now = show(run)
        assert now["current"] >= before and {g["generation"]: g["state"] for g in now["generations"]}[now["current"]] == "good", now
        assert all(g["state"] == "good" for g in now["generations"])
        got = lookup(run, "round@dept.example")["targets"][0]
        assert got == f"r{i}@example.org" if now["current"] > before else got != f"r{i}@example.org"
        changed += now["current"] > before
        before = now["current"]
    p = control("last")
    assert wait_for(lambda: lookup(run, "round@dept.example")["targets"] == ["rlast@example.org"])
    p.terminate()
    assert p.wait(10) == 0
    assert len(show(run)["generations"]) <= 3
    print(f"{KILLS} kills, {changed} after the switch")
    assert 0 < changed
