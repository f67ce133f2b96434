"""A scanner that does what it is told: scripted_scanner.py RUN-DIR MODE. Speaks the link protocol of spool/store/scan.h to worker 0 with its own hands.

Its exit code says what it found when it had the choice: 0 as it should be, 3 not. Most modes end by the worker's SIGKILL."""
import fcntl
import mmap
import os
import random
import socket
import struct
import sys
import time

RING, JOB, RESULT, HEADER = 256, 64, 96, 192
JOBS = 4096
PAGE = 170  # pieces
RESULTS = JOBS + (HEADER + RING * JOB + 4095) // 4096 * 4096
CLEAN, INFECTED, ERROR = 1, 2, 3


class Link:
    def __init__(self, run_dir):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(f"{run_dir}/scan-0")

    def hello(self):
        data, fds, _, _ = socket.recv_fds(self.sock, 64, 8)
        assert data[:8] == b"WEIRSCAN", data
        self.arena_fd, self.link_fd, self.spool_fd = fds
        self.arena = mmap.mmap(self.arena_fd, struct.unpack_from("<Q", data, 16)[0], prot=mmap.PROT_READ)
        self.mem = mmap.mmap(self.link_fd, struct.unpack_from("<Q", data, 24)[0])
        self.taken = self.given = 0

    def u64(self, off, value=None):
        if value is not None:
            self.mem[off:off + 8] = struct.pack("<Q", value & (1 << 64) - 1)
        return struct.unpack_from("<Q", self.mem, off)[0]

    def wake(self):
        self.sock.send(b".")

    def take(self):
        """The next job: (job, list offset, pieces)."""
        while self.u64(JOBS) == self.taken:
            self.sock.settimeout(0.002)
            try:
                if not self.sock.recv(64):
                    sys.exit(0)  # the worker is gone
            except TimeoutError:
                pass
        job, _, _, where, n = struct.unpack_from("<QQQQI", self.mem, JOBS + HEADER + self.taken % RING * JOB)
        self.taken += 1
        self.u64(JOBS + 64, self.taken)
        self.u64(0, job)  # working
        return job, where, n

    def body(self, where, n):
        out = b""
        for i in range(n):
            if i and i % PAGE == 0:
                where = struct.unpack_from("<Q", self.arena, where + 24 * PAGE)[0]
            off, length, partition = struct.unpack_from("<QII", self.arena, where + 24 * (i % PAGE))
            assert partition == 0xffffffff
            out += self.arena[off:off + length]
        return out

    def answer(self, job, verdict, name=b""):
        struct.pack_into("<QIIQQ64s", self.mem, RESULTS + HEADER + self.given % RING * RESULT, job & (1 << 64) - 1, verdict, 0, 0, 0, name)
        self.given += 1
        self.u64(RESULTS, self.given)
        self.wake()


def linger():
    time.sleep(60)
    sys.exit(3)


def poison(link):
    """Dies on what has POISON in it, says clean to all else."""
    while True:
        job, where, n = link.take()
        if b"POISON" in link.body(where, n):
            os._exit(1)
        link.answer(job, CLEAN)
        link.u64(0, 0)


def job_then_die(link):
    link.take()
    os._exit(0)


def read_then_die(link):
    job, where, n = link.take()
    link.body(where, n)
    os._exit(0)


def foreign_answers(link):
    job, _, _ = link.take()
    for wrong in (job + 1, job - 1, job + (1 << 32), job - (1 << 32), job | 1 << 63, 0, (1 << 64) - 1):
        link.answer(wrong, CLEAN)
    linger()


def wrong_verdict(link):
    link.answer(link.take()[0], 77, b"\xff" * 64)
    linger()


def answers_twice(link):
    job, _, _ = link.take()
    link.answer(job, ERROR, b"x\r\nevent=forged")
    link.answer(job, CLEAN)
    linger()


def impossible_position(link):
    link.take()
    link.u64(RESULTS, 1 << 40)
    link.wake()
    linger()


def garbage(link):
    link.take()
    rnd = random.Random(5)
    for _ in range(20):
        link.mem[0:len(link.mem)] = rnd.randbytes(len(link.mem))
        link.wake()
        time.sleep(0.01)
    linger()


def cut_memory(link):
    link.take()
    for fd in (link.link_fd, link.arena_fd):
        try:
            os.ftruncate(fd, 0)
            sys.exit(3)
        except PermissionError:
            pass
    try:
        mmap.mmap(link.arena_fd, 4096)
        sys.exit(3)
    except PermissionError:
        os._exit(0)


def deaf(link):
    """Never reads its socket, wakes the worker all the time, says that it sleeps, and lets nothing be non-blocking."""
    fcntl.fcntl(link.sock, fcntl.F_SETFL, 0)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        link.mem[JOBS + 128:JOBS + 132] = struct.pack("<I", 1)
        link.wake()
    os._exit(0)


def hang(link):
    link.take()
    linger()


def main():
    run_dir, mode = sys.argv[1:3]
    link = Link(run_dir)
    if mode == "die_at_accept":
        os._exit(0)
    link.hello()
    print("linked", flush=True)
    globals()[mode](link)


main()
