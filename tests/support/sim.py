"""The worker over a simulated network (tests/sim): its world in the hands of a test, both ends of every connection, and time.

A world begins anew for each conversation and is the same for the same seed. What a test waits for passes in simulated time. Of the cases' own machinery nothing is
other than over real sockets: suite.Connection gets a socket that is an end in the world, and the sink's sessions are node.Sink's.
"""
import collections
import contextlib
import dataclasses
import os
import signal
import socket
import struct
import subprocess
import types
import zlib

from node import BIN, Node, Sink, free_port, wait_for
from suite import Connection

MS, S = 10**6, 10**9
PATIENCE_S = 600  # simulated: longer than any loss takes to be made good, and than any time of the table
SEED = int(os.environ.get("WEIR_SIM_SEED", "1"))


@dataclasses.dataclass(frozen=True)
class Network:
    """struct sim_options but for the seed; times in ns."""
    name: str
    delay: int = 0
    jitter: int = 0
    segment: int = 0
    window: int = 0
    loss: int = 0  # in a thousand

    def pack(self, seed):
        return struct.pack("=QQQIIIxxxx", seed, self.delay, self.jitter, self.segment, self.window, self.loss)

    def for_size(self, n):
        """Millions of segments of one byte would show no more than thousands: the segments of what is large are larger."""
        least = n // 2500
        return dataclasses.replace(self, segment=max(self.segment or 1460, least), window=max(self.window, 4 * least) if self.window else 0)


CALM = Network("calm")
TINY = Network("tiny", jitter=MS, segment=3)                                              # no reply, no command in one piece
BAD = Network("bad", delay=20 * MS, jitter=30 * MS, segment=50, window=300, loss=50)       # far, lossy, little under way
CUTS = {"not": 0, "reset": 1, "eof": 2, "silent": 3}  # enum sim_cut_how


class Wait:
    """What a session of the sink awaits when it wants to read."""
    def __await__(self):
        yield


class Stream:
    """asyncio's reader and writer, as far as Sink._session uses them, on an end in the world."""

    def __init__(self, world, end):
        self.world, self.end, self.buf, self.ended = world, end, bytearray(), False

    async def readline(self):
        while b"\n" not in self.buf and not self.ended:
            await Wait()
        n = self.buf.find(b"\n") + 1 or len(self.buf)
        line = bytes(self.buf[:n])
        del self.buf[:n]
        return line

    async def drain(self):
        pass

    def get_extra_info(self, what):
        return ("127.0.0.1", 0)

    def write(self, data):
        self.world.order("S", self.end, data=data)

    def close(self):
        self.world.order("C", self.end)


class SimSink(Sink):
    """The same server, without a thread or a socket."""

    def __init__(self, world, port, **kw):
        self.world, self.sessions = world, {}
        self.setting(**kw)
        world.order("L", arg=port)
        world.sink = self

    def take(self, what, end, data):
        if what == "A":
            if self.world.cut_once:
                self.world.cut_no_more()
            stream = Stream(self.world, end)
            self.sessions[end] = stream, self._session(stream, stream)
        stream, session = self.sessions[end]
        stream.buf += data
        stream.ended = stream.ended or what in "EX"
        with contextlib.suppress(StopIteration, RuntimeError):  # it has ended, now or before
            session.send(None)


class SimSocket:
    """What suite.Connection does with a socket."""

    def __init__(self, world, port, source):
        self.world, self.got, self.end_seen, self.timeout, self.linger = world, bytearray(), None, PATIENCE_S, False
        self.end = struct.unpack("=i", world.order("D", arg=port, data=socket.inet_aton(source), answer=True))[0]
        if self.end < 0:
            raise ConnectionRefusedError

    def setsockopt(self, level, option, value):
        self.linger = self.linger or option == socket.SO_LINGER

    def settimeout(self, seconds):
        """The shorter times of the suite are for machines where seconds cost something."""
        self.timeout = PATIENCE_S if seconds > 1 else 20

    def sendall(self, data):
        self.world.order("S", self.end, data=data)

    def shutdown(self, how):
        self.world.order("F", self.end)

    def recv(self, n):
        until = self.world.now + self.timeout * S
        while not self.got and not self.end_seen:
            if self.world.now >= until:
                raise TimeoutError
            for what, data in self.world.run(until - self.world.now, self.end):
                self.got += data
                self.end_seen = what if what in "EX" else None
        if not self.got and self.end_seen == "X":
            raise ConnectionResetError
        data = bytes(self.got[:n])
        del self.got[:n]
        return data

    def close(self):
        if self.end is not None:
            self.world.order("X" if self.linger else "C", self.end)
        self.end = None


class Died(AssertionError):
    pass


State = collections.namedtuple("State", "sessions connections queue unsent")


class World:
    def __init__(self, program, *what):
        self.s, self.now, self.sink, self.orders, self.what, self.where = program.s, S, None, bytearray(), what, ""
        self.cut_once = False
        self.order("N", data=self.draw(CALM), answer=True)

    def receive(self):
        def exactly(n):
            data = bytearray()
            while len(data) < n:
                got = self.s.recv(n - len(data))
                if not got:
                    raise Died("the program ended")
                data += got
            return bytes(data)

        return exactly(struct.unpack("=I", exactly(4))[0])

    def order(self, what, end=-1, arg=0, data=b"", answer=False):
        self.orders += struct.pack("=ciQI", what.encode(), end, arg, len(data)) + data
        if not answer:
            return None
        self.s.sendall(self.orders)
        self.orders.clear()
        got = self.receive()
        if got.startswith(b"ended ") and (what != "E" or got != b"ended 0"):
            raise Died(f"the worker died, {got.decode()}: see its log")
        return got

    def run(self, ns, end=-1, what="R"):
        """Time goes on, at most so long, until there is something to read. Gives what end has to say; the sink takes its own."""
        answer = self.order(what, end, min(ns, 10**18), answer=True)
        self.now, self.why = struct.unpack_from("=Q", answer)[0], chr(answer[8])
        at, mine = 9, []
        while at < len(answer):
            kind, who, n = struct.unpack_from("=cII", answer, at)
            data = answer[at + 9:at + 9 + n]
            at += 9 + n
            if who == end:
                mine.append((kind.decode(), data))
            else:
                self.sink.take(kind.decode(), who, data)
        return mine

    def rest(self, seconds):
        until = self.now + int(seconds * S)
        while self.now < until:
            self.run(until - self.now)

    def state(self, end=-1):
        return State(*struct.unpack("=QQQQ", self.order("Q", end, answer=True)))

    def settle(self, hours=1):
        """Until the worker has nothing to do any more: every session ended, every message delivered."""
        until = self.now + hours * 3600 * S
        while self.now < until:
            self.run(until - self.now, what="I")
            if self.why == "i":
                return
        raise AssertionError(f"after {hours} hours there is still something to do: {self.state()}")

    def draw(self, network, *more):
        """The seed is what the conversation is called: it does not depend on what was before."""
        seed = zlib.crc32("/".join(map(str, (SEED, *self.what, network.name, *more))).encode())
        self.where = " ".join(map(str, (*self.what, *more, "network", network.name, "seed", seed)))
        return network.pack(seed)

    def network(self, network, *more):
        """Another one, for the conversation that begins now."""
        self.order("O", data=self.draw(network, *more))

    def cut(self, how, by_dialler, at, once=False):
        """Connections that begin from now on (once: the next one that the worker dials) end after so many octets of one side."""
        self.order("K", arg=at, data=bytes([CUTS[how], by_dialler]))
        self.cut_once = once

    def cut_no_more(self):
        self.cut("not", False, 0)


class Program:
    """The configuration, published as for any node, and the program that makes worlds with it."""

    def __init__(self, tmp, extensions, extra="", **kw):
        """extensions: of the sink. What is small here makes a world cheap: there is one for each conversation."""
        self.extensions, self.sink_port = extensions, free_port()
        extra += f"spool: {{segment: 4M, max: 64M, arena: 16M}}\nclients: {{evidence: 16}}\ntls: {{ca_file: {tmp}/node/run/tls-cert.pem}}\n"
        self.node = node = Node(tmp, self.sink_port, start=False, workers=1, engine="trivial", extra=extra, **kw)
        (node.run / "spool").mkdir(parents=True)
        make_certificate(node.run)
        self.log = open(node.log_path, "ab")
        control = subprocess.Popen([BIN / "weir-control", "--config", node.config, "--run", node.run], stdout=self.log, stderr=self.log)
        try:
            assert wait_for(lambda: (node.run / "snapshot").exists() or control.poll() is not None) and control.poll() is None, node.log_text()
        finally:
            control.terminate()
            control.wait(20)
        self.start()

    def start(self):
        self.s, theirs = socket.socketpair()
        self.s.settimeout(300)
        self.process = subprocess.Popen([BIN / "sim" / "weir-sim", "--run", self.node.run], stdin=theirs, stdout=self.log, stderr=self.log, start_new_session=True)
        theirs.close()

    @contextlib.contextmanager
    def world(self, *what, **sink):
        """A world that is known by `what`, and connections in it."""
        usual = Connection.open, Connection.rest
        world = World(self, *what)
        SimSink(world, self.sink_port, **{"extensions": self.extensions, **sink})
        Connection.open, Connection.rest = staticmethod(lambda port, source, timeout: SimSocket(world, port, source)), staticmethod(world.rest)
        try:
            yield world
            world.order("E", answer=True)
        except Exception as e:
            self.kill()
            self.start()
            raise AssertionError(f"{e}\n  over net_sim: {world.where}; it comes again with WEIR_SIM_SEED={SEED}") from e
        finally:
            Connection.open, Connection.rest = map(staticmethod, usual)

    def kill(self):
        """With the world that it is in."""
        self.s.close()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)

    def stop(self):
        self.kill()
        self.log.close()


def make_certificate(run_dir):
    """RSA, as its signatures are all of one length: with others the same seed would not cut a handshake at the same places."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=relay.cam.example", "-days", "2", "-keyout", run_dir / "tls-key.pem", "-out",
                    run_dir / "tls-cert.pem"], check=True, capture_output=True)
