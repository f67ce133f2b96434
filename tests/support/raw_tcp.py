"""A TCP peer made by hand: one connection from an address that no kernel has, whose every segment the test decides."""
import random
import select
import socket
import struct
import time
from types import SimpleNamespace

from dpdk import open_in

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
SERVER, PEER = "10.25.0.10", "10.25.0.77"


def checksum(b):
    b += bytes(len(b) % 2)
    total = sum(struct.unpack("!%dH" % (len(b) // 2), b))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def with_sum(b, at, pseudo=b""):
    return b[:at] + struct.pack("!H", checksum(pseudo + b)) + b[at + 2:]


class RawPeer:
    def __init__(self, node, port=None, options=bytes.fromhex("020405b4"), window=65535):
        wire = node.wire
        self.port, self.own = node.port, port or random.randrange(2000, 9000)
        self.window, self.options = window, options
        self.mac = bytes.fromhex(open_in(wire.client_ns, "/sys/class/net/c0/address").replace(":", ""))
        self.to = bytes.fromhex(open_in(wire.node_ns, "/sys/class/net/s0/address").replace(":", ""))
        self.src, self.dst = socket.inet_aton(PEER), socket.inet_aton(SERVER)
        with wire.client():
            self.s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.s.bind(("c0", 3))
        self.seq, self.ack, self.got = random.getrandbits(32), 0, b""
        self.s.send(self.to + self.mac + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 2) + self.mac + self.src + self.to + self.dst)

    def ip(self, protocol, payload):
        h = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + self.src + self.dst
        self.s.send(self.to + self.mac + b"\x08\x00" + with_sum(h, 10) + payload)

    def send(self, flags, data=b"", seq=None, ack=None, options=b"", window=None):
        """What is sent at the own place moves it on."""
        tcp = struct.pack("!HHIIBBHHH", self.own, self.port, (self.seq if seq is None else seq) & 0xffffffff, (self.ack if ack is None else ack) & 0xffffffff,
                          (5 + len(options) // 4) << 4, flags, self.window if window is None else window, 0, 0) + options + data
        self.ip(6, with_sum(tcp, 16, self.src + self.dst + struct.pack("!HH", 6, len(tcp))))
        if seq is None:
            self.seq = (self.seq + len(data) + bool(flags & (SYN | FIN))) & 0xffffffff

    def too_big(self, segment, mtu, seq=None):
        """What a router says of a segment of the server's: IPv4's fragmentation needed."""
        quoted = segment.raw[14:14 + 28]
        if seq is not None:
            quoted = quoted[:24] + struct.pack("!I", seq & 0xffffffff)
        self.ip(1, with_sum(struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted, 2))

    def next(self, timeout=5.0):
        """The next segment to this port, or None."""
        end = time.monotonic() + timeout
        while True:
            if not select.select([self.s], [], [], max(0, end - time.monotonic()))[0]:
                return None
            f, where = self.s.recvfrom(65536)
            if where[2] != 4 and f[12:14] == b"\x08\x00" and f[23] == 6 and f[26:34] == self.dst + self.src and struct.unpack("!HH", f[34:38]) == (self.port, self.own):
                break
        seq, ack, offset, flags, window = struct.unpack("!IIBBH", f[38:50])
        total = struct.unpack("!H", f[16:18])[0]
        segment = f[34:14 + total]
        assert checksum(f[14:34]) == 0 and checksum(f[26:34] + struct.pack("!HH", 6, len(segment)) + segment) == 0
        return SimpleNamespace(seq=seq, ack=ack, flags=flags, window=window, data=segment[(offset >> 4) * 4:], options=segment[20:(offset >> 4) * 4],
                               df=bool(f[20] & 0x40), size=total, raw=f)

    def expect(self, what, timeout=5.0):
        """The next segment of which what(segment) is true."""
        end = time.monotonic() + timeout
        while True:
            segment = self.next(max(0, end - time.monotonic()))
            assert segment, "nothing of the kind came"
            if what(segment):
                return segment

    def syn(self):
        self.send(SYN, options=self.options)
        answer = self.expect(lambda s: s.flags & (SYN | ACK) == SYN | ACK)
        assert answer.ack == self.seq
        self.ack = (answer.seq + 1) & 0xffffffff
        return answer

    def open(self):
        self.syn()
        self.send(ACK)
        self.read_until(b"220 ")
        return self

    def take(self, segment):
        """Acknowledges what comes in order."""
        if segment.seq == self.ack and (segment.data or segment.flags & FIN):
            self.got += segment.data
            self.ack = (self.ack + len(segment.data) + (segment.flags & FIN)) & 0xffffffff
        if segment.data or segment.flags & FIN:
            self.send(ACK)

    def read_until(self, text, timeout=10.0):
        end = time.monotonic() + timeout
        while text not in self.got or not self.got.endswith(b"\r\n"):
            segment = self.next(max(0, end - time.monotonic()))
            assert segment, f"no {text}: {self.got[-200:]}"
            assert not segment.flags & RST, "reset"
            self.take(segment)
        got, self.got = self.got, b""
        return got

    def to_the_end(self):
        """Takes everything, the FIN too."""
        while True:
            segment = self.next()
            assert segment and not segment.flags & RST, segment
            self.take(segment)
            if segment.flags & FIN and self.ack == (segment.seq + len(segment.data) + 1) & 0xffffffff:
                return self.got

    def cmd(self, line, reply=b"250 "):
        self.send(ACK | PSH, line + b"\r\n")
        return self.read_until(reply)

    def quiet(self, seconds=0.3):
        """Everything that comes within that time."""
        end, out = time.monotonic() + seconds, []
        while (left := end - time.monotonic()) > 0:
            segment = self.next(left)
            if segment:
                out.append(segment)
        return out
