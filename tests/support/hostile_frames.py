"""Frames that no honest host sends: hostile_frames.py DEVICE MAC PORT SEED COUNT.

TCP with odd flags, options, offsets, urgent pointers and fragments, much of it inside handshakes that it half completes; ICMPv6 of all kinds with broken options; ARP for others'
addresses; and a share of each with octets changed or cut off. The target is 10.25.0.10 and fd25::10."""
import random
import socket
import struct
import sys
import time

DEVICE, TARGET, PORT, SEED, COUNT = sys.argv[1], bytes.fromhex(sys.argv[2].replace(":", "")), int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
OWN = bytes.fromhex(open(f"/sys/class/net/{DEVICE}/address").read().strip().replace(":", ""))
SYN, ACK = 2, 16
rnd = random.Random(SEED)


def checksum(b):
    b += b"\0" * (len(b) % 2)
    total = sum(struct.unpack("!%dH" % (len(b) // 2), b))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ip6(text):
    return socket.inet_pton(socket.AF_INET6, text)


def options():
    out = b""
    for _ in range(rnd.randrange(5)):
        kind = rnd.choice([0, 1, 2, 3, 4, 5, 8, rnd.randrange(256)])
        out += bytes([kind]) if kind < 2 else bytes([kind, rnd.choice([2, 3, 4, 10, rnd.randrange(256)])]) + rnd.randbytes(rnd.randrange(9))
    out = out[:40]
    return out + b"\0" * (-len(out) % 4)


def tcp(port, seq, ack, flags, data):
    opt = options() if rnd.random() < 0.6 else b""
    offset = 5 + len(opt) // 4 if rnd.random() < 0.95 else rnd.randrange(16)
    h = struct.pack("!HHIIBBHHH", port, PORT, seq & 0xffffffff, ack & 0xffffffff, offset << 4, flags, rnd.choice([0, 1, 100, 65535]), 0, rnd.randrange(3))
    h += opt + data
    if rnd.random() < 0.3:
        pair = ip6(rnd.choice(["fd25::1", "fd25::77"])) + ip6("fd25::10")
        h = h[:16] + struct.pack("!H", checksum(pair + struct.pack("!II", len(h), 6) + h)) + h[18:]
        return b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(h), 6, 64) + pair + h
    pair = bytes([10, 25, 0, rnd.choice([1, 77, 78]), 10, 25, 0, 10])
    h = h[:16] + struct.pack("!H", checksum(pair + struct.pack("!HH", 6, len(h)) + h)) + h[18:]
    fragment = 0 if rnd.random() < 0.9 else rnd.choice([0x2000, 0x0001, 0x2002, 0x00b9])
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(h), rnd.randrange(9), fragment, 64, 6, 0) + pair
    return b"\x08\x00" + ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + h


def icmp6():
    b = bytes([rnd.choice([1, 2, 3, 128, 130, 131, 133, 134, 135, 136, 137, 143]), rnd.choice([0, 1]), 0, 0]) + rnd.randbytes(4)
    if rnd.random() < 0.5:
        b += ip6("fd25::10") + bytes([rnd.choice([1, 2, 3, 5]), rnd.choice([0, 1, 2])]) + rnd.randbytes(rnd.choice([0, 6, 14]))
    else:
        b += rnd.randbytes(rnd.choice([0, 4, 16, 24, 40, 64]))
    pair = ip6(rnd.choice(["fd25::1", "fe80::1", "::", "fd25::99"])) + ip6(rnd.choice(["fd25::10", "ff02::1", "ff02::1:ff00:10"]))
    b = b[:2] + struct.pack("!H", checksum(pair + struct.pack("!II", len(b), 58) + b)) + b[4:]
    return b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(b), 58, 255) + pair + b


def arp():
    return (b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, rnd.choice([1, 2])) + OWN + bytes([10, 25, 0, rnd.choice([1, 77])]) +
            TARGET + bytes([10, 25, 0, rnd.choice([10, 11])]))


def segment(answered):
    if answered and rnd.random() < 0.8:
        port, seq, ack = rnd.choice(answered)
    else:
        port, seq, ack = rnd.randrange(2000, 2060), rnd.getrandbits(32), rnd.getrandbits(32)
    return tcp(port, ack + rnd.choice([0, 0, 0, 1, 5, 100, 1460, 3000, -1]), seq + rnd.choice([1, 1, 1, 2, 50, 200]),
               rnd.choice([16, 16, 24, 24, 17, 20, 4, 2, 18, 25, 0, 63]),
               rnd.choice([b"", b"EHLO x\r\n", b"NOOP\r\n" * 3, rnd.randbytes(rnd.randrange(1400))]))


def frame(answered):
    r = rnd.random()
    f = (tcp(rnd.randrange(2000, 2060), rnd.getrandbits(32), 0, SYN, b"") if r < 0.15 else segment(answered) if r < 0.75 else icmp6() if r < 0.9 else arp())
    if rnd.random() < 0.15:
        b = bytearray(f)
        for _ in range(rnd.randrange(1, 4)):
            b[rnd.randrange(2, len(b))] = rnd.randrange(256)
        f = bytes(b[:rnd.randrange(2, len(b) + 1)]) if rnd.random() < 0.3 else bytes(b)
    return ((TARGET if rnd.random() < 0.9 else b"\x33\x33\0\0\0\1") + OWN + f)[:1514]


def answers(s, answered):
    """Remembers SYN-ACKs, so that some of what follows belongs to a connection."""
    try:
        while True:
            p = s.recv(2000)
            if len(p) >= 54 and p[12:14] == b"\x08\0" and p[23] == 6 and p[47] & (SYN | ACK) == SYN | ACK:
                answered.append((struct.unpack("!H", p[36:38])[0], *struct.unpack("!II", p[38:46])))
    except BlockingIOError:
        del answered[:-60]


def main():
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind((DEVICE, 3))
    s.setblocking(False)
    answered, sent = [], 0
    for i in range(COUNT):
        try:
            s.send(frame(answered))
            sent += 1
        except OSError:
            pass
        if i % 20 == 0:
            time.sleep(0.0005)
            answers(s, answered)
    print("sent", sent, "connections", len(answered))


main()
