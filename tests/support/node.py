"""A whole Weir node, a recording sink and small SMTP clients for the tests. Everything is on loopback, on free ports, below a temporary directory."""
import asyncio
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("WEIR_BIN", ROOT / "build" / "release"))


given_ports = set()


def free_port():
    """A port that nobody listens on, below those that the kernel gives to connections: it is still free when it is listened on. Processes that run
    tests side by side have ports of their own."""
    side, sides = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = random.randrange(10000 + side, 32768, sides)
        if port in given_ports:
            continue
        given_ports.add(port)
        try:
            with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            return port
        except OSError:
            pass


def wait_for(what, timeout=20.0, step=0.02):
    """Calls what() until it is true; its last value is returned."""
    end = time.monotonic() + timeout
    while True:
        value = what()
        if value or time.monotonic() > end:
            return value
        time.sleep(step)


def connect_to(host, port, timeout, source=None):
    """How the clients below connect; tests of another transport put their own in its place."""
    return socket.create_connection((host, port), timeout, source_address=(source, 0) if source else None)


class Sink:
    """An SMTP or LMTP server that keeps every byte of every message. `decide(kind, text)` may return a reply in place of the good one."""

    def __init__(self, decide=None, lmtp=False, extensions=("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"), keep=True, reduce=bytes,
                 host="127.0.0.1", enter=None):
        """reduce: what is kept of the content of a message; `enter` is called first in the sink's thread, before it listens on `host`."""
        self.setting(decide, lmtp, extensions, keep, reduce)
        self.host, self.enter = host, enter
        self.port = free_port()
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.ready.wait(10)

    def setting(self, decide=None, lmtp=False, extensions=("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"), keep=True, reduce=bytes):
        self.messages, self.count, self.decide, self.lmtp, self.extensions, self.keep, self.reduce = [], 0, decide, lmtp, extensions, keep, reduce
        self.connections, self.peers, self.raw = 0, set(), bytearray()

    def _run(self):
        if self.enter:
            self.enter()
        asyncio.set_event_loop(self.loop)

        async def start():
            self.server = await asyncio.start_server(self._session, self.host, self.port, limit=1 << 24, backlog=1024)
            self.ready.set()

        self.loop.run_until_complete(start())
        self.loop.run_forever()

    def _answer(self, kind, text, good):
        return (self.decide and self.decide(kind, text)) or good

    async def _session(self, r, w):
        self.connections += 1
        self.peers.add(w.get_extra_info("peername")[0])
        try:
            w.write((self._answer("connect", "", "220 sink.test ready") + "\r\n").encode())
            sender, rcpts, begun = "", [], False
            while True:
                line = await r.readline()
                if not line.endswith(b"\n"):  # the end, or what was cut off is no command
                    break
                self.raw += line if self.keep else b""
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                verb = text[:4].upper()
                if verb in ("EHLO", "LHLO"):
                    out = self._answer("ehlo", text, "250-sink.test" + "".join("\r\n250-" + e for e in self.extensions) + "\r\n250 HELP")
                elif verb == "MAIL":
                    sender, rcpts, mail, rcpt_lines = text[10:].split(">")[0].lstrip("<"), [], text, []
                    out = self._answer("mail", text, "250 2.1.0 ok")
                    begun = out.startswith("2")
                elif verb == "RCPT" and not begun:
                    out = "503 5.5.1 MAIL first"
                elif verb == "RCPT":
                    out = self._answer("rcpt", text, "250 2.1.5 ok")
                    if out.startswith("2"):
                        rcpts.append(re.search(r"<(.*?)>", text).group(1))
                        rcpt_lines.append(text)
                elif verb == "DATA":
                    if not rcpts:
                        w.write(b"554 5.5.1 no valid recipients\r\n")
                        continue
                    out = self._answer("data", text, None)
                    if out:
                        w.write((out + "\r\n").encode())
                        continue
                    w.write(b"354 go on\r\n")
                    body = bytearray()
                    while True:
                        line = await r.readline()
                        if not line:
                            return
                        self.raw += line if self.keep else b""
                        if line == b".\r\n":
                            break
                        body += line[1:] if line.startswith(b".") else line
                    replies = []
                    for rcpt in rcpts if self.lmtp else rcpts[:1]:
                        replies.append(self._answer("end", rcpt, "250 2.0.0 taken"))
                    if any(x.startswith("2") for x in replies):
                        self.messages.append({"from": sender, "to": list(rcpts), "data": self.reduce(body), "at": time.monotonic(),
                                              "mail": mail, "rcpt": rcpt_lines})
                        self.count += 1
                    out = "\r\n".join(replies)
                elif verb == "QUIT":
                    w.write(b"221 2.0.0 bye\r\n")
                    await w.drain()
                    break
                else:
                    out = "250 2.0.0 ok"
                if out.startswith("close"):
                    break
                w.write((out + "\r\n").encode())
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            w.close()

    def stop(self):
        async def end():
            self.server.close()
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for t in tasks:
                t.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self.loop)
        self.thread.join(5)


# Tests that are not about them do without the rules that ask DNS.
NO_DNS_RULES = ", ".join(f"{{rule: {r}, mode: off}}" for r in ("client-dns", "sender-domain", "sender-host-name", "sender-unknown", "header-from"))


class Node:
    """weir run with a configuration. `extra` is YAML text that is put behind the basic one."""
    host, client_prefix, transport, transport_mib = "127.0.0.1", [], "io_uring", 0

    def __init__(self, tmp, sink_port=None, extra="", name="node", start=True, routes=None, workers=2, engine="clamav", submission=False,
                 bin=None, env=None, listen="127.0.0.1", prefix=(), listeners=()):
        """`listeners` are more entries of listen, YAML text each; `prefix` is what its commands begin with (ip netns exec ...)."""
        self.dir = pathlib.Path(tmp) / name
        self.dir.mkdir(parents=True)
        self.bin, self.env = bin or BIN, {**os.environ, **(env or {})}
        self.run, self.prefix = self.dir / "run", list(prefix)
        self.port, self.smtps, self.metrics = free_port(), free_port(), free_port()
        ports = f'"{listen}:{self.port}", {{address: "{listen}:{self.smtps}", tls: implicit}}'
        if submission:
            self.submission, self.submissions = free_port(), free_port()
            ports += (f', {{address: "{listen}:{self.submission}", role: submission}}'
                      f', {{address: "{listen}:{self.submissions}", role: submissions}}')
        ports += "".join(", " + entry for entry in listeners)
        if routes is None:
            routes = '[{domain: "*", to: "smtp:[127.0.0.1]:%d", tls: never}]' % (sink_port or 1)
        self.config = self.dir / "weir.yaml"
        self.config.write_text(
            f"hostname: relay.cam.example\nmetrics: 127.0.0.1:{self.metrics}\nworkers: {workers}\n"
            f'listen: [{ports}]\nlocal_domains: [cam.example]\npostmaster: postmaster@cam.example\n'
            + ("" if "spool:" in extra else "spool: {segment: 8M, max: 512M, arena: 48M}\n")
            + ("" if "scan:" in extra else f"scan: {{processes: 2, engine: {engine}}}\n")
            + ("" if "relay_clients:" in extra else "relay_clients: [{network: 127.0.0.0/8, rate: none}]\n")
            + ("" if "policy:" in extra else f"policy: {{rules: [{NO_DNS_RULES}]}}\n")
            + ("" if "delivery:" in extra else "delivery: {retry_first: 1s, retry_max: 2s, idle: 500ms}\n")
            # most tests ask for unknown recipients again and again
            + ("" if "dictionary:" in extra else "dictionary: {slow_after: none, refuse_after: none}\n")
            + f"routes: {routes}\n" + extra)
        self.log_path = self.dir / "log"
        self.proc = None
        if start:
            self.start()

    def start(self):
        self.log = open(self.log_path, "ab")
        self.proc = subprocess.Popen([*self.prefix, self.bin / "weir", "run", "--config", self.config, "--run", self.run], env=self.env, stdout=self.log, stderr=self.log)
        assert wait_for(self.up, 30), self.log_text()[-3000:]
        return self

    def up(self):
        assert self.proc.poll() is None, self.log_text()[-3000:]
        try:
            with self.connect() as s:
                s.settimeout(1)
                if not s.recv(100).startswith(b"220"):
                    return False
        except OSError:
            return False
        workers = [r for r in self.ctl("status", check=False)["processes"] if r["role"] == "dataplane" and r["up"]]
        c = self.counters()
        return workers and c["scanners_connected"] >= 2 * len(workers) and c["redis_up"] >= len(workers)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), 1)

    def smtp(self, **kw):
        return Smtp(self.port, **kw)

    def log_text(self):
        return self.log_path.read_text(errors="replace")

    def ctl(self, *args, check=True):
        p = subprocess.run([self.bin / "weirctl", "--run", self.run, "--json", *args], capture_output=True, text=True, timeout=30)
        assert not check or p.returncode == 0, p.stderr + p.stdout
        return json.loads(p.stdout) if p.stdout.strip() else {"processes": [], "counters": {}}

    def ctl_text(self, *args):
        return subprocess.run([self.bin / "weirctl", "--run", self.run, *args], capture_output=True, text=True, timeout=30)

    def counters(self):
        return {**dict.fromkeys(("scanners_connected", "redis_up"), 0), **self.ctl("status", check=False)["counters"]}

    def queue(self):
        return self.ctl("queue", "list", "--limit", "1000")

    def pids(self, name):
        """Pids of the node's processes with this name, the supervisor's own record."""
        out = subprocess.run(["pgrep", "-f", f"{name} --run {self.run}"], capture_output=True, text=True).stdout.split()
        return [int(p) for p in out]

    def redis_pid(self):
        out = subprocess.run(["pgrep", "-f", f"redis-server unixsocket:{self.run}"], capture_output=True, text=True).stdout.split()
        return int(out[0])

    def stop(self):
        if self.proc and self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
            self.proc.wait(40)
        if self.proc:
            self.log.close()

    def drop_spool(self):
        """Of a node that is stopped: 80 MB and more, and there are hundreds of them."""
        shutil.rmtree(self.run / "spool", ignore_errors=True)

    def kill_all(self):
        """Everything of the node at once, as a power switch would, but for the page cache."""
        os.kill(self.proc.pid, signal.SIGKILL)
        for name in ("weir-dataplane", "weir-scanner", "weir-control"):
            for pid in self.pids(name):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        try:
            os.kill(self.redis_pid(), signal.SIGKILL)
        except (ProcessLookupError, IndexError):
            pass
        self.proc.wait(10)
        self.log.close()


class Smtp:
    """A raw client: sends bytes, reads whole replies."""

    def __init__(self, port, host="127.0.0.1", greet=True, timeout=30, sock=None, source=None):
        self.s = sock or connect_to(host, port, timeout, source)
        self.f = self.s.makefile("rb")
        self.greeting = self.reply() if greet else None

    def reply(self):
        lines = []
        while True:
            line = self.f.readline()
            if not line:
                return None if not lines else "\n".join(lines)
            lines.append(line.decode("latin-1").rstrip("\r\n"))
            if line[3:4] != b"-":
                return "\n".join(lines)

    def send(self, data):
        self.s.sendall(data if isinstance(data, bytes) else data.encode())

    def cmd(self, text):
        self.send(text + "\r\n")
        return self.reply()

    def message(self, sender, rcpts, data):
        """A whole transaction; gives the reply to the end of data, or the first refusal."""
        r = self.cmd(f"MAIL FROM:<{sender}>")
        for rcpt in rcpts if r and r.startswith("2") else []:
            r = self.cmd(f"RCPT TO:<{rcpt}>")
            if not r or not r.startswith("2"):
                return r
        r = self.cmd("DATA") if r and r.startswith("2") else r
        if not r or not r.startswith("354"):
            return r
        self.send(re.sub(rb"(?m)^\.", b"..", data) + b".\r\n")
        return self.reply()

    def close(self):
        self.f.close()
        self.s.close()


def without_trace(data):
    """The message below the Received field that Weir put on top."""
    assert data.startswith(b"Received: from "), data[:200]
    return re.sub(rb"\AReceived: .*?\r\n(?![ \t])", b"", data, count=1, flags=re.S)


def arrives(content):
    """What a message is below the trace: with an empty line before it if it does not begin with a header field."""
    return content if re.match(rb"(>*From [^\r\n]*\r\n)?(\r\n|[!-9;-~]+[ \t]*:|\Z)", content) else b"\r\n" + content


def have(program):
    return shutil.which(program) is not None
