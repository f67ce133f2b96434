"""Power loss on a real file system: a recording of all that a disk was told, the disks that a cut may leave behind, and what must be on them.

By hand, from what a failed test has kept: power.py DIRECTORY CUT POLICY SEED"""
import bisect
import collections
import contextlib
import mmap
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "build" / "release" / "crash"
IMAGE_BYTES = 80 << 20
SECTOR = 512
DATA, BARRIER = 1, 2
POLICIES = ("drop", "keep", "some", "late", "torn")
ONE_MORE = 59999  # the seed of the message that is put after a recovery


def run(*argv, timeout=60, check=True):
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=timeout)
    if check and p.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}: exit {p.returncode}\n{p.stdout}{p.stderr}")
    return p.stdout


# ---- disks ----


def unmount(at):
    """A loop device lets go of its file, and the kernel of what a process had under way, a little after the end."""
    for _ in range(100):
        if subprocess.run(["umount", at], capture_output=True).returncode == 0:
            return
        time.sleep(0.05)
    run("umount", "-l", at, check=False)


@contextlib.contextmanager
def mounted(image, at):
    """A loop device of its own for each image: one that is used again was seen to show the old one's blocks."""
    at.mkdir(exist_ok=True)
    loop = run("losetup", "-f", "--show", image).strip()
    try:
        run("mount", "-t", "ext4", "-o", "noatime,errors=remount-ro", loop, at)
        try:
            yield at / "p0"
        finally:
            unmount(at)
    finally:
        run("losetup", "-d", loop)


def make_image(path):
    with open(path, "wb") as f:
        f.truncate(IMAGE_BYTES)
    run("mkfs.ext4", "-q", "-F", "-J", "size=4", "-m", "0", path)


@contextlib.contextmanager
def recorded(directory):
    """directory/base is below a disk that remembers: directory/record and directory/position. Gives the file that is the disk."""
    shutil.copyfile(directory / "base", directory / "image")
    at = directory / "fuse"
    at.mkdir()
    server = subprocess.Popen([PROGRAMS / "recdisk", directory / "image", directory / "record", directory / "position", at])
    try:
        end = time.monotonic() + 10
        while not (at / "disk").exists():
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError("recdisk does not start")
            time.sleep(0.02)
        yield at / "disk"
    finally:
        unmount(at)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
        (directory / "image").unlink()


class Recording:
    def __init__(self, directory):
        self.base = directory / "base"
        self.file = open(directory / "record", "rb")
        self.bytes = mmap.mmap(self.file.fileno(), 0, prot=mmap.PROT_READ)
        self.ops, at = [], 0
        while at < len(self.bytes):
            op, off, n = struct.unpack_from("=QQQ", self.bytes, at)
            self.ops.append((op, off, n, at + 24))
            at += 24 + n

    def close(self):
        self.bytes.close()
        self.file.close()

    def data(self, op):
        return self.bytes[op[3]:op[3] + op[2]]

    def states(self, wanted, directory):
        """wanted: (cut, policy, seed) in ascending order. Gives each of them back, with an image as that cut leaves it: a file of its own each time."""
        durable = directory / "durable"
        shutil.copyfile(self.base, durable)
        at, pending = 0, []
        with open(durable, "r+b", buffering=0) as disk:
            for cut, policy, seed in wanted:
                for op in self.ops[at:cut]:
                    if op[0] == DATA:
                        pending.append(op)
                        continue
                    for p in pending:
                        disk.seek(p[1])
                        disk.write(self.data(p))
                    pending = []
                at = cut
                image = directory / f"state-{cut}-{policy}-{seed}"
                shutil.copyfile(durable, image)
                self.leave(pending, policy, random.Random(seed), image)
                yield (cut, policy, seed), image
                image.unlink(missing_ok=True)
        durable.unlink()

    def leave(self, pending, policy, rnd, image):
        """What was written after the last flush may be there, wholly or in part."""
        with open(image, "r+b", buffering=0) as disk:
            for i, op in enumerate(pending):
                keep = {"drop": False, "keep": True, "late": i >= len(pending) // 2}.get(policy, rnd.random() < 0.5)
                if policy == "torn" and keep:
                    self.leave_parts(disk, op, rnd)
                elif keep:
                    disk.seek(op[1])
                    disk.write(self.data(op))

    def leave_parts(self, disk, op, rnd):
        data, sectors = self.data(op), op[2] // SECTOR
        first, way = rnd.randrange(sectors), rnd.randrange(3)
        for i in range(sectors):
            if (i < first, i >= first, rnd.random() < 0.5)[way]:
                disk.seek(op[1] + i * SECTOR)
                disk.write(data[i * SECTOR:(i + 1) * SECTOR])


# ---- the ledger ----


class Message:
    def __init__(self, line, pos, seed, size, nrcpt, state):
        self.line, self.pos, self.seed, self.size, self.nrcpt, self.state = line, pos, seed, size, nrcpt, state
        self.acked = float("inf")
        self.acts = []  # (line, position before, kind, arguments)

    def ways(self, certain, cut, kind):
        """How the acts of a kind may have been cut off: after the last one that is certain, or after any later one that had begun."""
        acts = [a for a in self.acts if a[2] == kind and a[1] <= cut]
        least = sum(a[0] < certain for a in acts)
        return [acts[:n] for n in range(least, len(acts) + 1)]

    def rcpt_ways(self, certain, cut, number):
        acts = [a for a in self.acts if a[2] == "rcpt" and a[3][0] == number and a[1] <= cut]
        for n in range(sum(a[0] < certain for a in acts), len(acts) + 1):
            yield (acts[n - 1][3][1] if n else 0, sum(a[3][1] == 0 for a in acts[:n]))


class Ledger:
    def __init__(self, path):
        self.messages = {}
        self.news = []  # (position, line): at that position all acts before that line were durable
        for line, text in enumerate(path.read_text().splitlines()):
            word, *args = text.split()
            args = [int(a) for a in args]
            if word == "put":
                self.messages[args[0]] = Message(line, *args[1:])
            elif word == "ack":
                self.messages[args[0]].acked = args[1]
                self.news.append((args[1], self.messages[args[0]].line))
            elif word == "quiet":
                self.news.append((args[0], line))
            else:
                self.messages[args[0]].acts.append((line, args[1], word, args[2:]))
        best = 0
        for i, (pos, line) in enumerate(self.news):
            best = max(best, line)
            self.news[i] = (pos, best)

    def certain(self, cut):
        """Acts of lines before this one were durable."""
        i = bisect.bisect_right(self.news, (cut, float("inf")))
        return self.news[i - 1][1] if i else 0

    def acked(self, cut):
        return sum(m.acked <= cut for m in self.messages.values())

    def faults(self, cut, listing):
        """What is wrong with what was recovered from a cut."""
        found, out, certain = {}, [], self.certain(cut)
        for line in listing.splitlines():
            word, *args = line.split()
            if word == "message":
                found[int(args[0])] = args[1:]
            elif word == "unreadable" or word == "damaged" and args != ["0"]:
                out.append(line)
        for i, m in self.messages.items():
            if i in found:
                out += self.faults_of(i, m, found.pop(i), certain, cut)
            elif m.acked <= cut and not any(m.ways(certain, cut, "forget")):
                out.append(f"message {i} was acknowledged at {m.acked} and is lost")
        return out + [f"message {i} was never put: {args}" for i, args in found.items() if int(args[0]) != ONE_MORE]

    def faults_of(self, i, m, args, certain, cut):
        seed, size, state, body, rcpts = args
        out = []
        if m.pos > cut:
            out.append(f"message {i} comes from the future")
        if (int(seed), int(size), body) != (m.seed, m.size, "good"):
            out.append(f"message {i} is not as it was put: {args}")
        if all(m.ways(certain, cut, "forget")):
            out.append(f"message {i} was done, and that was durable")
        if int(state) not in {way[-1][3][0] if way else m.state for way in m.ways(certain, cut, "state")}:
            out.append(f"message {i} is in state {state}: {m.ways(certain, cut, 'state')}")
        for n, rcpt in enumerate(rcpts.split(",")):
            if tuple(map(int, rcpt.split(":"))) not in set(m.rcpt_ways(certain, cut, n)):
                out.append(f"recipient {n} of message {i} is {rcpt}, and not one of {list(m.rcpt_ways(certain, cut, n))}")
        return out


# ---- a test ----


def record_load(directory, seed, seconds, lie=None):
    directory.mkdir(parents=True)
    make_image(directory / "base")
    with recorded(directory) as disk, mounted(disk, directory / "mount") as spool:
        run(PROGRAMS / "spool_load", spool, directory / "ledger", directory / "position", seed, seconds, *[lie] * bool(lie), timeout=seconds + 60)


def recover(image, at):
    """What is found, and whether the store then goes on as it should: a second start finds the same, and the message that was put meanwhile."""
    with mounted(image, at) as spool:
        if not spool.exists():
            return "", [f"there is no spool, but {sorted(p.name for p in at.iterdir())}"]
        first = run(PROGRAMS / "spool_list", spool, ONE_MORE, timeout=20).splitlines()
        second = run(PROGRAMS / "spool_list", spool, timeout=20).splitlines()
    put = [line.split()[1] for line in first if line.startswith("put ")]
    messages = {line for line in first if line.startswith("message ")}
    again = {line for line in second if line.startswith("message ") and line.split()[1] not in put}
    faults = [] if messages == again else [f"a second start differs: {sorted(messages ^ again)[:4]}"]
    if put and not any(line.startswith(f"message {put[0]} {ONE_MORE} ") for line in second):
        faults.append("what was put after the recovery is lost")
    return "\n".join(first), faults


def choose(recording, ledger, count, rnd):
    """Half of the cuts right where something was acknowledged, the others anywhere; all policies."""
    acks = [m.acked for m in ledger.messages.values() if m.acked <= len(recording.ops)]
    first = min(acks, default=len(recording.ops))  # before that the spool may not be there
    cuts = [rnd.choice(acks) if acks and i % 2 else rnd.randrange(first, len(recording.ops) + 1) for i in range(count)]
    return sorted((cut, POLICIES[i % len(POLICIES)], rnd.randrange(1 << 30)) for i, cut in enumerate(cuts))


def try_states(directory, ledger, wanted):
    """Gives (state, faults) for each of the wanted states. A recording of a recovery says which cut the ledger is to be asked about."""
    recording = Recording(directory)
    at_cut = int((directory / "at_cut").read_text()) if (directory / "at_cut").exists() else None
    for state, image in recording.states(wanted, directory):
        try:
            listing, faults = recover(image, directory / "at")
            faults += ledger.faults(state[0] if at_cut is None else at_cut, listing)
        except (RuntimeError, subprocess.TimeoutExpired) as e:
            faults = [str(e)]
        yield state, faults
    recording.close()


def power_again(directory, ledger, state, count, rnd):
    """The power goes again while the spool is being recovered from the state."""
    inner = directory / f"again-{state[0]}-{state[2]}"
    inner.mkdir()
    shutil.copyfile(directory / "ledger", inner / "ledger")
    (inner / "at_cut").write_text(str(state[0]))
    recording = Recording(directory)
    for _, image in recording.states([state], inner):
        image.rename(inner / "base")
    recording.close()
    with recorded(inner) as disk, mounted(disk, inner / "mount") as spool:
        run(PROGRAMS / "spool_list", spool, ONE_MORE)
    recording = Recording(inner)
    ops = len(recording.ops)
    recording.close()
    wanted = sorted((rnd.randrange(1, ops + 1), rnd.choice(POLICIES), rnd.randrange(1 << 30)) for _ in range(count))
    faults = list(try_states(inner, ledger, wanted))
    if not any(f for _, f in faults):
        shutil.rmtree(inner)
    return inner, faults


def main(directory, cut, policy, seed):
    directory = pathlib.Path(directory)
    for state, faults in try_states(directory, Ledger(directory / "ledger"), [(int(cut), policy, int(seed))]):
        print(state, collections.Counter(f.split(" ")[-1] for f in faults) if len(faults) > 20 else "")
        print("\n".join(faults[:20]) or "nothing is wrong")
        return 1 if faults else 0


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
