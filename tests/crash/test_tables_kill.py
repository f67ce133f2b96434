"""weir-control, and the compiler that it starts, are killed again and again while tables are compiled and switched: what is in use is
always whole, and never older than before (C1)."""
import json
import os
import random
import signal
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
        time.sleep(rnd.uniform(0, 0.4))
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


def compiler_of(p):
    out = subprocess.run(["pgrep", "-P", str(p.pid)], capture_output=True, text=True).stdout.split()
    return int(out[0]) if out else 0


def kill_compiler(p):
    try:
        os.kill(compiler_of(p) or 1 << 30, signal.SIGKILL)  # it may have ended already
    except ProcessLookupError:
        pass


def test_kills_of_the_compiler_alone(tmp_path):
    """weir-control lives on, says what became of the order, and makes good what is wanted."""
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "weir.yaml").write_text("metrics: none\nmail_domains: [{domain: dept.example, aliases: dept}]\ntables: {keep: 3}\n")
    lines = "".join(f"u{n}: u{n}@example.org\n" for n in range(100000))

    def write(i):
        (tmp_path / "dept.new").write_text(f"round: r{i}@example.org\n" + lines)
        os.replace(tmp_path / "dept.new", tmp_path / "dept")

    def is_used(i):
        return lookup(run, "round@dept.example")["targets"] == [f"r{i}@example.org"]

    print("seed", SEED)
    rnd = random.Random(SEED)
    write(0)
    p = subprocess.Popen([BIN / "weir-control", "--run", run, "--config", tmp_path / "weir.yaml"], stderr=subprocess.DEVNULL)
    try:
        assert wait_for(lambda: (run / "snapshot").exists() and show(run)["current"] == 1)
        before, killed = 1, 0
        for i in range(1, KILLS // 2 + 1):
            write(i)
            order = subprocess.Popen([BIN / "weirctl", "--run", run, "tables", "compile"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert wait_for(lambda: compiler_of(p) or order.poll() is not None)
            time.sleep(rnd.uniform(0, 0.3))
            kill_compiler(p)
            said = order.communicate(timeout=60)[0]
            now = show(run)
            assert p.poll() is None
            assert now["current"] >= before and all(g["state"] == "good" for g in now["generations"]), now
            assert is_used(i) if order.returncode == 0 else "ended before its time (signal 9)" in said, said
            killed += order.returncode != 0
            before = now["current"]
        write("last")
        assert subprocess.run([BIN / "weirctl", "--run", run, "tables", "compile"], capture_output=True, timeout=60).returncode == 0
        assert is_used("last")
        print(f"{KILLS // 2} rounds, {killed} compilations killed")
        assert killed
    finally:
        p.terminate()
        assert p.wait(10) == 0
