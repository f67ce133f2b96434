"""Tables are compiled by a process of their own: weir-control answers meanwhile, whatever becomes of it (C1, C9)."""
import fcntl
import json
import os
import signal
import subprocess
import urllib.request

import pytest
from node import BIN, free_port, wait_for

CONFIG = """metrics: "127.0.0.1:%d"
mail_domains:
  - {domain: dept.example, aliases: dept}
  - {domain: list.example, source: command}
"""


class Control:
    """weir-control alone. Who has the lock of the tables keeps its compiler waiting."""

    def __init__(self, path):
        self.dir, self.run, self.port = path, path / "run", free_port()
        self.run.mkdir()
        (path / "dept").write_text("one: a@example.org\n")
        (path / "weir.yaml").write_text(CONFIG % self.port)
        self.orders = []
        self.start()

    def start(self):
        self.log = open(self.dir / "log", "ab")
        self.proc = subprocess.Popen([BIN / "weir-control", "--run", self.run, "--config", self.dir / "weir.yaml"], stderr=self.log)
        assert wait_for(lambda: (self.run / "snapshot").exists() and self.compiling() is None)

    def ctl(self, *args):
        return subprocess.run([BIN / "weirctl", "--run", self.run, *args], capture_output=True, text=True, timeout=60)

    def order(self, *args):
        p = subprocess.Popen([BIN / "weirctl", "--run", self.run, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.orders.append(p)
        return p

    def json(self, *args):
        return json.loads(self.ctl("--json", *args).stdout)

    def tables(self):
        return self.json("tables", "show")

    def compiling(self):
        return self.tables()["compiling"]

    def compiler(self):
        out = subprocess.run(["pgrep", "-P", str(self.proc.pid)], capture_output=True, text=True).stdout.split()
        return int(out[0]) if out else 0

    def lookup(self, addr):
        entry = self.json("alias", addr)["entry"]
        return entry and entry["targets"]

    def metrics(self):
        return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=20).read().decode()

    def locked(self):
        f = open(self.run / "tables" / "lock", "r+")
        fcntl.flock(f, fcntl.LOCK_EX)
        return f

    def stop(self):
        for p in self.orders:
            p.kill()
            p.wait()
        self.proc.kill()
        self.proc.wait()
        self.log.close()


@pytest.fixture
def control(tmp_path):
    c = Control(tmp_path)
    yield c
    c.stop()


def finished(p):
    return p.communicate(timeout=60)[0]


def changes(c):
    return len(c.json("domain", "log", "list.example"))


def test_it_answers_while_tables_are_compiled(control):
    c = control
    lock = c.locked()
    (c.dir / "dept").write_text("one: b@example.org\n")
    waiting = [c.order("tables", "compile"), c.order("config", "reload")]
    assert wait_for(lambda: c.compiling() is not None)
    # the socket, metrics, and what is shown
    assert c.ctl("clients", "set", "192.0.2.7", "--class", "robust").returncode == 0
    assert c.ctl("clients", "list").stdout.count("192.0.2.7") == 1
    assert 'weir_tables_compiling{role="control",instance="0"} 1\n' in c.metrics()
    assert "being compiled" in c.ctl("tables", "show").stdout
    assert "being compiled" in c.ctl("status").stdout
    assert [p.poll() for p in waiting] == [None, None]
    assert c.lookup("one@dept.example") == ["a@example.org"]
    lock.close()
    assert "generation 2" in finished(waiting[0]) and waiting[0].returncode == 0
    finished(waiting[1])
    assert waiting[1].returncode == 0
    assert c.lookup("one@dept.example") == ["b@example.org"]
    # the registry that changed while the reload waited is in what it published
    assert c.ctl("clients", "list").stdout.count("192.0.2.7") == 1
    assert wait_for(lambda: c.compiling() is None)
    assert "being compiled" not in c.ctl("status").stdout


def test_changes_that_come_meanwhile_go_together(control):
    c = control
    before = c.tables()["current"]
    lock = c.locked()
    first = c.order("tables", "compile")
    assert wait_for(lambda: c.compiling() is not None)
    orders = [c.order("domain", "alias", "set", "list.example", f"u{i}", f"u{i}@example.org") for i in range(6)]
    assert wait_for(lambda: changes(c) == 6)  # kept at once
    assert all(p.poll() is None for p in orders)
    lock.close()
    finished(first)
    assert sorted(finished(p).split()[2] for p in orders) == list("123456")
    assert [c.lookup(f"u{i}@list.example") for i in range(6)] == [[f"u{i}@example.org"] for i in range(6)]
    # the one that ran, which may have seen some of them, and one for all others
    assert c.tables()["current"] <= before + 2


def test_a_compiler_that_dies_is_said_and_made_good(control):
    c = control
    lock = c.locked()
    order = c.order("domain", "alias", "set", "list.example", "new", "new@example.org")
    assert wait_for(lambda: c.compiler())
    os.kill(c.compiler(), signal.SIGKILL)
    said = finished(order)
    assert "ended before its time (signal 9)" in said and "is kept, but no tables could be made" in said and order.returncode == 1
    assert c.lookup("new@list.example") is None
    lock.close()
    assert wait_for(lambda: c.lookup("new@list.example") == ["new@example.org"], 60)


def test_a_rollback_ends_what_is_compiled(control):
    c = control
    for target in ("b", "c"):
        (c.dir / "dept").write_text(f"one: {target}@example.org\n")
        assert c.ctl("tables", "compile").returncode == 0
    before = c.tables()["current"]
    (c.dir / "dept").write_text("one: d@example.org\n")
    lock = c.locked()
    order = c.order("tables", "compile")
    assert wait_for(lambda: c.compiler())
    os.kill(c.compiler(), signal.SIGSTOP)
    lock.close()
    p = c.ctl("tables", "rollback")
    assert p.returncode == 0 and f"generation {before - 1}" in p.stdout
    assert f"a rollback to generation {before - 1} came before" in finished(order) and order.returncode == 1
    assert c.lookup("one@dept.example") == ["b@example.org"]
    # the pin holds until somebody compiles by command
    assert c.ctl("config", "reload").returncode == 0 and c.lookup("one@dept.example") == ["b@example.org"]
    assert c.ctl("tables", "compile").returncode == 0 and c.lookup("one@dept.example") == ["d@example.org"]


def test_the_compiler_ends_with_who_started_it(control):
    c = control
    lock = c.locked()
    c.order("tables", "compile")
    assert wait_for(lambda: c.compiler())
    pid = c.compiler()
    c.proc.kill()
    c.proc.wait()
    assert wait_for(lambda: not os.path.exists(f"/proc/{pid}") or "Z" in open(f"/proc/{pid}/stat").read().rsplit(")")[1].split()[0])
    lock.close()
    c.start()
    assert c.lookup("one@dept.example") == ["a@example.org"]


def test_errors_at_a_reload_by_signal_are_whole_in_the_log(control):
    c = control
    (c.dir / "dept").write_text("no colon\nx: y\none: a@b@c\n")
    c.proc.send_signal(signal.SIGHUP)
    assert wait_for(lambda: all(f"dept:{n}: " in (c.dir / "log").read_text() for n in (1, 2, 3)))
    assert c.lookup("one@dept.example") == ["a@example.org"]


def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(control):
    c = control
    (c.dir / "dept").unlink()
    os.mkfifo(c.dir / "dept")
    p = c.ctl("tables", "compile")
    assert p.returncode == 1 and "not a file" in p.stderr
