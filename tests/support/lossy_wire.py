"""A bad wire: carries frames between two interfaces, lossy_wire.py A B LOSS DELAY_MS REORDER TWICE SEED. Ends with its standard input.

The kernel's own (tc netem) is not on every machine. Each frame waits DELAY_MS; the share LOSS of them is lost, the share REORDER waits three times as long, the share TWICE comes once
more, DELAY_MS later."""
import heapq
import random
import select
import socket
import sys
import time

ETH_P_ALL, PACKET_OUTGOING = 3, 4


def main():
    loss, delay, reorder, twice = float(sys.argv[3]), float(sys.argv[4]) / 1000, float(sys.argv[5]), float(sys.argv[6])
    rnd = random.Random(int(sys.argv[7]))
    ends = []
    for name in sys.argv[1:3]:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 25)
        s.bind((name, ETH_P_ALL))
        s.setblocking(False)
        ends.append(s)
    waiting, count = [], 0
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, to, frame = heapq.heappop(waiting)
            try:
                to.send(frame)
            except OSError:
                pass
        wait = max(0, waiting[0][0] - now) if waiting else 1
        readable, _, _ = select.select([*ends, sys.stdin], [], [], wait)
        if sys.stdin in readable:
            return
        for i, s in enumerate(ends):
            if s not in readable:
                continue
            for _ in range(64):
                try:
                    frame, where = s.recvfrom(65536)
                except BlockingIOError:
                    break
                if where[2] == PACKET_OUTGOING or rnd.random() < loss:
                    continue
                due = time.monotonic() + delay * (3 if rnd.random() < reorder else 1)
                for again in range(2 if rnd.random() < twice else 1):
                    count += 1
                    heapq.heappush(waiting, (due + again * delay, count, ends[1 - i], frame))


main()
