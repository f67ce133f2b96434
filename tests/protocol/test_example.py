"""The example organisation, played with as README says: every command of its section Play says what README promises (A1, A2, A5, A6, A9, A12, B2, C1-C4, C6-C10, D2, E1, F2, P5, P19)."""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess

import pytest
from node import BIN, ROOT, free_port, wait_for

PORTS = (2443, 2524, 2525, 2553, 2587, 2925)


def play():
    """The lines of README's section Play: what sets up the shell, and [(command, what it says)]. A command's comment is "WHAT IT SAYS: why"; one without only has to succeed."""
    text = re.search(r"^## Play\n(.*?)^## ", (ROOT / "README.md").read_text(), re.S | re.M).group(1)
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    before = [line for line in lines if re.match(r"export |\w+\(\)", line)]
    return before, [re.fullmatch(r"(.*?)(?: +# (.+?): .*)?", line).groups() for line in lines if line not in before]


class Example:
    def __init__(self, directory):
        self.dir = pathlib.Path(directory) / "example"
        self.port = {p: free_port() for p in PORTS}
        self.env = {**os.environ, "BUILD": str(BIN), "EXAMPLE_DIR": str(self.dir), **{f"PORT_{p}": str(n) for p, n in self.port.items()}}
        self.log_path = pathlib.Path(directory) / "log"
        self.proc = None

    def begin(self):
        with open(self.log_path, "ab") as log:  # Ctrl-C would be ignored by whatever was begun in the background
            self.proc = subprocess.Popen([ROOT / "deploy/example/run"], env=self.env, stdout=log, stderr=log,
                                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        return self

    def start(self):
        self.begin()
        assert wait_for(self.up, 60), self.log_text()
        return self

    def up(self):
        assert self.proc.poll() is None, self.log_text()
        domain, status = self.ctl("domain", "show", "lab.cam.example"), self.ctl("status")
        return domain and status and domain["fetched"] and status["counters"].get("scanners_connected", 0) >= 2

    def ctl(self, *args):
        p = subprocess.run([BIN / "weirctl", "--run", self.dir / "relay", "--json", *args], capture_output=True, text=True, timeout=30)
        return json.loads(p.stdout) if p.returncode == 0 and p.stdout.strip() else None

    def here(self, text):
        """README's words with the directory and the ports of this example."""
        text = text.replace("run/example/", f"{self.dir}/").replace("$PWD/build/release", str(BIN))
        return re.sub("|".join(rf"\b{p}\b" for p in PORTS), lambda m: str(self.port[int(m.group())]), text)

    def says(self, before, command):
        script = "\n".join(self.here(line) for line in [*before, command])
        p = subprocess.run(["bash", "-c", script], cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        return p.returncode, p.stdout + p.stderr

    def log_text(self):
        return self.log_path.read_text(errors="replace")[-4000:]

    def processes(self):
        """Pids of all that was started in its directory."""
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(entry / "cwd").startswith(str(self.dir)):
                    found.append(int(entry.name))
            except OSError:
                pass  # it has ended
        return found

    def stop(self, sig=signal.SIGINT):
        self.proc.send_signal(sig)
        return self.proc.wait(60)


@pytest.fixture
def example(tmp_path_factory):
    e = Example(tmp_path_factory.mktemp("ex"))  # a short name: Unix sockets
    yield e
    e.stop()
    assert e.processes() == []


def test_every_command_says_what_readme_says(example):
    example.start()
    before, rows = play()
    assert len(before) == 5 and len(rows) > 20 and sum(1 for _, said in rows if said) > 18
    for command, said in rows:
        if said is None:
            status, out = example.says(before, command)
            assert status == 0, (command, out)
            continue
        outputs = []

        def as_promised():
            outputs.append(example.says(before, command)[1])
            return said in outputs[-1]

        # again: mail needs a moment until it is there, and workers until they have a new table
        assert wait_for(as_promised, 30, step=0.3), (command, said, outputs[-1], example.log_text())


def test_it_ends_as_a_whole_and_begins_again_with_what_was_changed(example):
    example.start()
    assert len(example.processes()) >= 8
    again = subprocess.run([ROOT / "deploy/example/run"], env=example.env, capture_output=True, text=True, timeout=30)
    assert again.returncode == 1 and "it runs already" in again.stderr
    with open(example.dir / "aliases/dept", "a") as f:
        f.write("deputy: prof@cam.example\n")
    assert example.stop() == 0, example.log_text()
    assert example.processes() == []
    example.start()
    assert example.ctl("alias", "deputy@dept.cam.example")["entry"]["line"] == 8
    assert example.stop(signal.SIGTERM) == 0, example.log_text()
    assert example.processes() == []


@pytest.mark.parametrize("port", [2443, 2525])
def test_a_port_that_somebody_has_ends_it_with_a_word_about_it(example, port):
    with socket.create_server(("127.0.0.1", example.port[port])):
        assert example.begin().proc.wait(60) == 1
    assert f"PORT_{port}" in example.log_text() or f"cannot listen on 127.0.0.1 port {example.port[port]}" in example.log_text()
    assert example.processes() == []


@pytest.mark.parametrize("begun", ["log/dns", "log/www", "pid/outside", "pid/relay", "relay/snapshot"])
def test_ctrl_c_while_it_starts_leaves_nothing(example, begun):
    example.begin()
    assert wait_for((example.dir / begun).exists, 60, step=0.001), example.log_text()
    assert example.stop() == 0, example.log_text()
    assert example.processes() == []
