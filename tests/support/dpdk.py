"""A node whose TCP is lwIP on DPDK's af_packet: the node in one network namespace, clients and sink in another, a veth pair for each worker between them."""
import contextlib
import ctypes
import os
import pathlib
import re
import socket
import subprocess
import threading

import node as node_module
import pytest
from node import BIN, Node, Sink, Smtp, have

CLONE_NEWNET = 0x40000000
HERE = pathlib.Path(__file__).resolve().parent
libc = ctypes.CDLL(None, use_errno=True)


def why_not():
    """The reason that these tests cannot run here, or None."""
    version = subprocess.run([BIN / "weirctl", "version"], capture_output=True, text=True).stdout.strip()
    if " with DPDK" not in version.split("(")[0]:
        return f"this build has no DPDK: {version}"
    if os.geteuid() != 0 or not have("ip") or not have("ethtool"):
        return "network namespaces need root, ip and ethtool"
    probe = subprocess.run(["unshare", "--net", "ip", "link", "add", "weirprobe0", "type", "veth", "peer", "name", "weirprobe1"], capture_output=True)
    return None if probe.returncode == 0 else "no network namespaces or veth devices here"


def run(*cmd):
    subprocess.run([str(c) for c in cmd], check=True, capture_output=True)


def open_in(ns, path):
    return subprocess.run(["ip", "netns", "exec", ns, "cat", path], capture_output=True, text=True, check=True).stdout.strip()


class Wire:
    """Namespaces <name>n (node) and <name>c (clients); pair w has the clients' end 10.25.w.1 and fd25:w::1, the worker's is 10.25.w.10 and fd25:w::10."""

    def __init__(self, name, workers, offloads=False, bad=None, queues=1):
        """bad: (loss, delay in ms, reorder, twice or without it) of lossy_wire.py, for the first worker's pair. queues: of each end; more than one is for all workers."""
        self.node_ns, self.client_ns, self.far_ns, self.workers, self.bad = name + "n", name + "c", None, workers, None
        self.close()
        for ns in (self.node_ns, self.client_ns):
            run("ip", "netns", "add", ns)
            run("ip", "-n", ns, "link", "set", "lo", "up")
        for w in range(workers if queues == 1 else 1):
            node_end, client_end = f"s{w}", f"c{w}"
            run("ip", "-n", self.node_ns, "link", "add", node_end, "numtxqueues", queues, "numrxqueues", queues, "type", "veth",
                "peer", "name", client_end, "numtxqueues", queues, "numrxqueues", queues, "netns", self.client_ns)
            run("ip", "netns", "exec", self.node_ns, "sysctl", "-qw", f"net.ipv6.conf.{node_end}.disable_ipv6=1")
            if not offloads:
                run("ip", "netns", "exec", self.client_ns, "ethtool", "-K", client_end, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
            run("ip", "-n", self.client_ns, "addr", "add", f"10.25.{w}.1/24", "dev", client_end)
            run("ip", "-n", self.client_ns, "addr", "add", f"fd25:{w}::1/64", "dev", client_end, "nodad")
            run("ip", "-n", self.node_ns, "link", "set", node_end, "up")
            run("ip", "-n", self.client_ns, "link", "set", client_end, "up")
        if bad:
            self.put_between(bad)

    def add_clients(self, *last):
        """More addresses of the clients' end."""
        for n in last:
            run("ip", "-n", self.client_ns, "addr", "add", f"10.25.0.{n}/24", "dev", "c0")

    def put_between(self, bad):
        """The clients' end goes on as c0, but behind a second pair and the bad wire."""
        ns = self.client_ns
        mac = open_in(ns, "/sys/class/net/c0/address")
        run("ip", "-n", ns, "addr", "flush", "dev", "c0")
        run("ip", "-n", ns, "link", "set", "c0", "down")
        run("ip", "-n", ns, "link", "set", "c0", "name", "x0")
        run("ip", "-n", ns, "link", "add", "c0", "address", mac, "type", "veth", "peer", "name", "y0")
        for dev in ("x0", "y0"):
            run("ip", "netns", "exec", ns, "sysctl", "-qw", f"net.ipv6.conf.{dev}.disable_ipv6=1")
            run("ip", "netns", "exec", ns, "ethtool", "-K", dev, "gro", "off")
        run("ip", "-n", ns, "link", "set", "x0", "address", "02:00:00:00:00:01")
        run("ip", "netns", "exec", ns, "ethtool", "-K", "c0", "tx", "off", "tso", "off", "gso", "off", "gro", "off")
        run("ip", "-n", ns, "addr", "add", "10.25.0.1/24", "dev", "c0")
        run("ip", "-n", ns, "addr", "add", "fd25:0::1/64", "dev", "c0", "nodad")
        for dev in ("x0", "y0", "c0"):
            run("ip", "-n", ns, "link", "set", dev, "up")
        self.bad = subprocess.Popen(["ip", "netns", "exec", ns, "/usr/bin/python3", HERE / "lossy_wire.py", "x0", "y0", *map(str, (*bad, 0)[:4]), "1"],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.bad.stdout.readline() == b"ready\n"

    def add_far(self, mtu):
        """A third namespace, 10.77.0.2 and fd77::2, to which the clients' one is the router. Its kernel thinks that 1,500 octets get there."""
        self.far_ns = self.client_ns[:-1] + "f"
        run("ip", "netns", "add", self.far_ns)
        run("ip", "-n", self.far_ns, "link", "set", "lo", "up")
        run("ip", "-n", self.client_ns, "link", "add", "r0", "mtu", mtu, "type", "veth", "peer", "name", "f0", "netns", self.far_ns)
        run("ip", "-n", self.far_ns, "link", "set", "f0", "mtu", 1500)
        run("ip", "netns", "exec", self.client_ns, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.icmp_ratelimit=0")
        for ns, dev, n in ((self.client_ns, "r0", 1), (self.far_ns, "f0", 2)):
            run("ip", "netns", "exec", ns, "ethtool", "-K", dev, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
            run("ip", "-n", ns, "addr", "add", f"10.77.0.{n}/24", "dev", dev)
            if dev == "f0" or mtu >= 1280:
                run("ip", "-n", ns, "addr", "add", f"fd77::{n}/64", "dev", dev, "nodad")
            run("ip", "-n", ns, "link", "set", dev, "up")
        run("ip", "-n", self.far_ns, "route", "add", "default", "via", "10.77.0.1")
        run("ip", "-n", self.far_ns, "-6", "route", "add", "default", "via", "fd77::1")

    def enter(self, ns):
        """The calling thread changes its namespace; sockets stay in that in which they were made."""
        fd = os.open(f"/run/netns/{ns}", os.O_RDONLY)
        try:
            if libc.setns(fd, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(fd)

    def client(self):
        return self.inside(self.client_ns)

    def node(self):
        return self.inside(self.node_ns)

    @contextlib.contextmanager
    def inside(self, ns):
        """What is made meanwhile by this thread, processes too, is in that namespace."""
        here = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        self.enter(ns)
        try:
            yield
        finally:
            libc.setns(here, CLONE_NEWNET)
            os.close(here)

    def sink(self, host="10.25.0.1", far=False, **kw):
        return Sink(host=host, enter=lambda: self.enter(self.far_ns if far else self.client_ns), **kw)

    def in_client(self, *cmd, **kw):
        return subprocess.run(["ip", "netns", "exec", self.client_ns, *map(str, cmd)], **kw)

    def close(self):
        if self.bad:
            self.bad.communicate(b"end", timeout=10)
            self.bad = None
        for ns in (self.node_ns, self.client_ns, *([self.far_ns] if self.far_ns else [])):
            subprocess.run(["ip", "netns", "del", ns], capture_output=True)


class DpdkNode(Node):
    host, transport, transport_mib = "10.25.0.10", "DPDK", 64  # 16,384 packet buffers, and DPDK's drivers

    def __init__(self, tmp, wire, sink_port=None, extra="", dpdk="", device="net_af_packet0,iface=s%w,framecnt=4096", shared=False, **kw):
        """shared: all workers have the first one's addresses."""
        self.wire, self.client_prefix = wire, ["ip", "netns", "exec", wire.client_ns]
        kw = {"engine": "trivial", **kw, "workers": wire.workers}
        if "relay_clients:" not in extra:
            extra += 'relay_clients: [{network: 10.25.0.0/16, rate: none}, {network: "fd25::/16", rate: none}]\n'
        routes = kw.pop("routes", None) or '[{domain: "*", to: "smtp:[10.25.0.1]:%d", tls: never}]' % (sink_port or 1)
        addresses = 'ipv4: 10.25.%w.10/24, gateway4: 10.25.%w.1, ipv6: "fd25:%w::10/64", gateway6: "fd25:%w::1"'
        super().__init__(
            tmp, routes=routes, listen="0.0.0.0", prefix=["ip", "netns", "exec", wire.node_ns],
            extra=f'transport: dpdk\ndpdk: {{devices: "{device}", {addresses.replace("%w", "0") if shared else addresses}{dpdk}}}\n' + extra, **kw)

    def connect(self, worker=0, v6=False, timeout=1):
        with self.wire.client():
            return socket.create_connection((f"fd25:{worker}::10" if v6 else f"10.25.{worker}.10", self.port), timeout)

    def smtp(self, worker=0, v6=False, timeout=30, **kw):
        s = self.connect(worker, v6, 10)
        s.settimeout(timeout)
        return Smtp(self.port, sock=s, **kw)


def pid_of(node, worker):
    return next(p for p in node.pids("weir-dataplane") if f"--worker\0{worker}\0" in open(f"/proc/{p}/cmdline").read())


class Maker:
    """Makes wires, sinks and nodes, and ends them in reverse order."""

    def __init__(self, tmp):
        self.made, self.tmp = [], tmp

    def keep(self, thing):
        self.made.append(thing)
        return thing

    def wire(self, workers, **kw):
        return self.keep(Wire(f"weir{os.getpid() % 10000}-{len(self.made)}", workers, **kw))

    def node(self, wire, sink_port, tmp=None, **kw):
        return self.keep(DpdkNode(tmp or self.tmp("weir", numbered=True), wire, sink_port, **kw))

    def __call__(self, workers=1, sink=True, offloads=False, bad=None, sink_args=None, **kw):
        wire = self.wire(workers, offloads=offloads, bad=bad)
        the_sink = self.keep(wire.sink(**(sink_args or {}))) if sink else None
        return self.node(wire, the_sink.port if the_sink else None, **kw), the_sink

    def sharing(self, wire, **kw):
        """Workers on the queues of the wire's one device, and their sink. Skips where veth has no AF_XDP."""
        sink = self.keep(wire.sink())
        node = self.node(wire, sink.port, device="net_af_xdp0,iface=s0,start_queue=%w,queue_count=1", shared=True, start=False, **kw)
        try:
            node.start()
        except AssertionError:
            if "xdp" not in node.log_text().lower():
                raise
            pytest.skip("no AF_XDP on veth here")
        return node, sink

    def end(self):
        for thing in reversed(self.made):
            thing.close() if isinstance(thing, Wire) else thing.stop()
        for node in (thing for thing in self.made if isinstance(thing, DpdkNode)):
            log = node.log_text()
            assert not any(text in log for text in ("ERROR: AddressSanitizer", "runtime error", "check failed")), log[-5000:]
            node.drop_spool()


@pytest.fixture
def make_dpdk(tmp_path_factory):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    maker = Maker(tmp_path_factory.mktemp)
    yield maker
    maker.end()


def elsewhere(text):
    """What is said of clients, balancers and destinations on the loopback, for those in the clients' namespace: 127.x.y.N is 10.25.0.N. DNS stays where it is."""
    text = re.sub(r"\b127\.0\.0\.0/(8|16)\b", "10.25.0.0/16", text)
    return "".join(line if line.startswith("dns:") else re.sub(r"\b127\.\d+\.\d+\.(\d+)\b", r"10.25.0.\1", line) for line in text.splitlines(True))


# A file of tests that imports these in place of conftest's runs over DPDK.


@pytest.fixture(autouse=True)
def over_the_wire(make_dpdk, monkeypatch):
    """Clients that know only a port connect to the first worker."""
    wire, has = make_dpdk.wire(1), {"10.25.0.1"}

    def connect(host, port, timeout, source=None):
        source = elsewhere(source or "127.0.0.1")
        if source not in has:
            wire.add_clients(source.rsplit(".", 1)[1])
            has.add(source)
        with wire.client():
            return socket.create_connection(("10.25.0.10", port), timeout, source_address=(source, 0))

    monkeypatch.setattr(node_module, "connect_to", connect)
    return wire


@pytest.fixture
def make_sink(make_dpdk, over_the_wire):
    return lambda **kw: make_dpdk.keep(over_the_wire.sink(**kw))


@pytest.fixture
def sink(make_sink):
    return make_sink()


@pytest.fixture
def make_node(make_dpdk, over_the_wire):
    def make(sink_port=None, **kw):
        for key in ("extra", "routes"):
            if kw.get(key):
                kw[key] = elsewhere(kw[key])
        kw["listeners"] = [entry.replace("127.0.0.1:", "0.0.0.0:") for entry in kw.get("listeners", ())]
        return make_dpdk.node(over_the_wire, sink_port, **{"engine": "clamav", **kw})

    return make


@pytest.fixture
def node(make_node, sink):
    return make_node(sink.port)
