"""What the tests of resources need: how much a process uses, faults, a sink for large messages, crowds of slow clients."""
import hashlib
import os
import pathlib
import selectors
import socket
import subprocess
import threading
import time

from server import Server

SHIMS = pathlib.Path(__file__).resolve().parent / "shim"


def shim(tmp, name):
    """Compiles tests/support/shim/<name>.c for LD_PRELOAD."""
    out = pathlib.Path(tmp) / f"{name}.so"
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-Wall", "-O1", "-shared", "-fPIC", "-o", out, SHIMS / f"{name}.c"], check=True)
    return out


def cpu_seconds(pid):
    """User and system time of a process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_share(pid, seconds):
    """The share of a processor that it takes while it should rest."""
    before, start = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.monotonic() - start)


def memory(pid):
    """KiB: (its own, the arena's and other shared)."""
    rows = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    kib = {k: int(v.split()[0]) for k, v in rows.items() if v.strip().endswith("kB")}
    return kib["RssAnon"], kib["RssShmem"] + kib.get("HugetlbPages", 0)


class Peak:
    """The highest memory of a process while the block runs."""

    def __init__(self, pid):
        self.pid, self.anon, self.shared, self.stop = pid, 0, 0, threading.Event()

    def _run(self):
        while not self.stop.is_set():
            anon, shared = memory(self.pid)
            self.anon, self.shared = max(self.anon, anon), max(self.shared, shared)
            time.sleep(0.02)

    def __enter__(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


class DigestSink(Server):
    """An SMTP server that keeps only a digest of each message (without its first Received field): fast enough for large ones. Content must not begin lines with dots."""

    def __init__(self):
        self.digests, self.lock = [], threading.Lock()
        super().__init__(backlog=512)

    def _session(self, s):
        f = s.makefile("rb", 1 << 20)
        try:
            s.sendall(b"220 sink.test\r\n")
            while line := f.readline():
                verb = line[:4].upper()
                if verb == b"DATA":
                    s.sendall(b"354 go on\r\n")
                    if not self._content(s, f):
                        return
                    s.sendall(b"250 2.0.0 taken\r\n")
                elif verb == b"QUIT":
                    s.sendall(b"221 bye\r\n")
                    return
                else:
                    s.sendall(b"250 ok\r\n")
        except OSError:
            pass
        finally:
            s.close()

    def _content(self, s, f):
        h, first, tail = hashlib.sha1(), True, b""
        while True:
            piece = f.read1(1 << 20)
            if not piece:
                return False
            tail += piece
            if first:
                # the trace field goes up to the first line that does not begin with a blank
                at = tail.find(b"\r\nX-")
                if at < 0:
                    continue
                tail, first = tail[at + 2:], False
            if tail.endswith(b"\r\n.\r\n"):
                h.update(tail[:-3])
                break
            h.update(tail[:-5])
            tail = tail[-5:]
        with self.lock:
            self.digests.append(h.hexdigest())
        return True


class Crowd:
    """Many clients of one thread: each is a socket with what it has yet to send, a piece at every turn, and what it has heard."""

    class Client:
        def __init__(self, s, data=b""):
            self.s, self.heard, self.closed, self.ended_at, self.data = s, b"", False, None, data

    def __init__(self):
        self.clients, self.sel = [], selectors.DefaultSelector()

    def add(self, port, n, host="127.0.0.1", sources=None, greet=True):
        for i in range(n):
            s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            s.settimeout(10)
            if sources:
                s.bind((sources[i % len(sources)], 0))
            s.connect((host, port))
            s.setblocking(False)
            c = self.Client(s)
            self.clients.append(c)
            self.sel.register(s, selectors.EVENT_READ, c)
        return self.clients[-n:]

    def listen(self, seconds):
        """Takes what comes for so long."""
        end = time.monotonic() + seconds
        while True:
            for key, _ in self.sel.select(max(0, min(0.2, end - time.monotonic()))):
                self._read(key.data)
            if time.monotonic() >= end:
                return

    def _read(self, c):
        try:
            data = c.s.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        c.heard += data
        if not data:
            c.closed, c.ended_at = True, time.monotonic()
            self.sel.unregister(c.s)
            c.s.close()

    def wait(self, what, seconds):
        end = time.monotonic() + seconds
        while not what() and time.monotonic() < end:
            self.listen(0.1)
        return what()

    def say(self, data, clients=None):
        """To all that are still there; what the kernel does not take is dropped."""
        for c in clients or self.clients:
            if not c.closed:
                try:
                    c.s.send(data)
                except OSError:
                    pass

    def heard(self, text):
        return sum(text in c.heard for c in self.clients)

    def end(self):
        for c in self.clients:
            if not c.closed:
                self.sel.unregister(c.s)
                c.s.close()
                c.closed = True
        self.clients = []
