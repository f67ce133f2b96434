"""The kernel shares a worker's device: what is not the worker's goes to its tap interface (dpdk.kernel), and the other way."""
import contextlib
import os
import signal
import socket

import pytest
from dpdk import make_dpdk, open_in, run  # noqa: F401
from node import wait_for, without_trace
from test_dpdk import ECHO

HEAD = b"From: a@cam.example\r\nTo: b@example.org\r\nSubject: test\r\n\r\n"
HOST4, HOST6 = "10.25.0.20", "fd25::20"


def sysctl(ns, **values):
    for key, value in values.items():
        run("ip", "netns", "exec", ns, "sysctl", "-qw", f"net.ipv4.conf.{key.replace('__', '.')}={value}")


@pytest.fixture
def hosted(make_dpdk):  # noqa: F811
    """A node whose kernel has addresses of its own behind the worker. What af_packet lets the kernel see, too, it must not take: strict reverse paths, no ARP for others."""
    wire = make_dpdk.wire(1)
    sysctl(wire.node_ns, all__arp_ignore=1, all__rp_filter=1, default__rp_filter=1)
    sink = make_dpdk.keep(wire.sink())
    node = make_dpdk.node(wire, sink.port, dpdk=", kernel: weir%w", start=False)
    node.start()
    node.sink = sink
    run("ip", "-n", wire.node_ns, "addr", "add", HOST4 + "/24", "dev", "weir0")
    run("ip", "-n", wire.node_ns, "addr", "add", HOST6 + "/64", "dev", "weir0", "nodad")
    return node


@contextlib.contextmanager
def host_server(node, address):
    """A program of the host's own: sends back what it gets."""
    with node.wire.node():
        s = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    with s:
        yield s


def talk(client, listener, n):
    """n octets there and back, between two sockets in two namespaces."""
    server, peer = listener.accept()
    with client, server:
        for s in (client, server):
            s.settimeout(30)
        data = os.urandom(n)
        client.sendall(data)
        got = b""
        while len(got) < n:
            got += server.recv(65536)
        server.sendall(got)
        back = b""
        while len(back) < n:
            back += client.recv(65536)
        assert back == data
    return peer[0]


def mail(node, worker=0):
    c = node.smtp(worker)
    c.cmd("EHLO client.test")
    before = node.sink.count
    assert c.message("a@cam.example", ["b@example.org"], HEAD + b"x" * 70 + b"\r\n").startswith("250")
    assert wait_for(lambda: node.sink.count == before + 1, 30)
    assert without_trace(node.sink.messages[-1]["data"]) == HEAD + b"x" * 70 + b"\r\n"


def test_the_host_has_its_own_traffic(hosted):
    """In and out, both families, beside mail; and a worker's death takes nothing from it but time."""
    wire = hosted.wire
    mac = open_in(wire.node_ns, "/sys/class/net/s0/address")
    assert open_in(wire.node_ns, "/sys/class/net/weir0/address") == mac
    for address, client in ((HOST4, "10.25.0.1"), (HOST6, "fd25::1")):
        echo = wire.in_client("python3", "-c", ECHO, address, capture_output=True, text=True, timeout=20)
        assert echo.returncode == 0, echo.stderr
        with host_server(hosted, address) as s, wire.client():
            assert talk(socket.create_connection(s.getsockname()[:2], 10), s, 50000) == client
        with wire.client():
            far = socket.create_server((client, 0), family=socket.AF_INET6 if ":" in client else socket.AF_INET)
        with far, wire.node():
            assert talk(socket.create_connection(far.getsockname()[:2], 10, source_address=(address, 0)), far, 50000) == address
        mail(hosted)
    assert wait_for(lambda: hosted.counters()["dpdk_frames_to_kernel_total"] >= 100 and hosted.counters()["dpdk_frames_from_kernel_total"] >= 100, 10), hosted.counters()
    assert hosted.counters()["dpdk_kernel_lost_frames_total"] == 0
    with host_server(hosted, HOST4) as s:
        with wire.client():
            held = socket.create_connection(s.getsockname()[:2], 10)
        os.kill(hosted.pids("weir-dataplane")[0], signal.SIGKILL)
        assert wait_for(hosted.up, 20)
        talk(held, s, 1000)  # interface, addresses and connection are still there
    mail(hosted)


def test_the_kernel_hears_nothing_of_the_workers_addresses(hosted):
    """It would answer their SYNs with resets. Nor does the worker answer for the kernel's."""
    with hosted.wire.node():
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        ear.bind(("weir0", 3))
    with ear:
        mail(hosted)
        with host_server(hosted, HOST4) as s, hosted.wire.client():
            talk(socket.create_connection(s.getsockname()[:2], 10), s, 1000)
        ear.setblocking(False)
        ends = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = ear.recv(2000)
                if frame[12:14] == b"\x08\0" and frame[23] == 6:
                    ends |= {socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])}
    assert ends == {HOST4, "10.25.0.1"}


@pytest.mark.long
def test_workers_of_one_device_share_it(make_dpdk):  # noqa: F811
    """One address, two queues of one device, one interface with a queue for each worker."""
    wire = make_dpdk.wire(2, queues=2)
    sysctl(wire.node_ns, all__arp_ignore=1, all__rp_filter=1, default__rp_filter=1)
    node, node.sink = make_dpdk.sharing(wire, dpdk=", kernel: weir")
    run("ip", "-n", wire.node_ns, "addr", "add", HOST4 + "/24", "dev", "weir")
    with host_server(node, HOST4) as s, wire.client():
        for _ in range(8):
            talk(socket.create_connection(s.getsockname()[:2], 10), s, 5000)
    mail(node)
