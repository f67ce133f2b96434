"""Power loss on a real ext4, see power.py. Only in the long run (make check-crash): WEIR_POWER_STATES sets how many disks that a power loss may leave behind are
recovered, WEIR_SEED the random seed (printed), WEIR_CRASH_REPORT a file for the figures."""
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import power  # noqa: E402

STATES = int(os.environ.get("WEIR_POWER_STATES", "0"))
SECONDS = int(os.environ.get("WEIR_POWER_SECONDS", "6"))
SEED = int(os.environ.get("WEIR_SEED", str(random.randrange(1 << 30))))
REPORT = os.environ.get("WEIR_CRASH_REPORT")


def unfit():
    """Why this machine cannot do it, or None."""
    if not STATES:
        return "only in make check-crash (WEIR_POWER_STATES is not set)"
    if os.geteuid() != 0:
        return "mounting needs root"
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if subprocess.run(["losetup", "-f"], capture_output=True).returncode:
        return "there are no loop devices"
    if not (power.PROGRAMS / "recdisk").exists():
        return "recdisk is not built (libfuse3-dev is missing)"
    return None


pytestmark = pytest.mark.skipif(unfit() is not None, reason=str(unfit()))


@pytest.fixture
def directory():
    """In memory where there is room for it: hundreds of images are written."""
    memory = "/dev/shm"
    roomy = os.path.isdir(memory) and shutil.disk_usage(memory).free > 4 << 30
    at = pathlib.Path(tempfile.mkdtemp(prefix="weir-power-", dir=memory if roomy else "/var/tmp"))
    yield at / "run"
    if not (at / "keep").exists():
        shutil.rmtree(at, ignore_errors=True)


def report(text):
    print(text)
    if REPORT:
        with open(REPORT, "a") as f:
            f.write(text + "\n")


def by_hand(keep, directory, bad):
    """Keeps what is needed, and says how to see one failure again."""
    (keep / "keep").touch()
    (cut, policy, seed), faults = bad[0]
    return (f"seed {SEED}: {len(bad)} states are wrong. The first: {faults[:5]}\n"
            f"Again: /usr/bin/python3 tests/crash/power.py {directory} {cut} {policy} {seed}")


def try_all(directory, rnd, count):
    ledger, recording = power.Ledger(directory / "ledger"), power.Recording(directory)
    wanted, ops = power.choose(recording, ledger, count, rnd), len(recording.ops)
    recording.close()
    bad = [(state, faults) for state, faults in power.try_states(directory, ledger, wanted) if faults]
    return ledger, wanted, ops, bad


def test_what_was_acknowledged_survives_power_loss(directory):
    rnd = random.Random(SEED)
    print(f"seed {SEED}")
    power.record_load(directory, SEED, SECONDS)
    ledger, wanted, ops, bad = try_all(directory, rnd, STATES)
    assert not bad, by_hand(directory.parent, directory, bad)
    again = 0
    for state in rnd.sample(wanted, max(1, STATES // 40)):
        inner, tried = power.power_again(directory, ledger, state, 5, rnd)
        bad = [x for x in tried if x[1]]
        assert not bad, by_hand(directory.parent, inner, bad)
        again += len(tried)
    report(f"power loss, seed {SEED}: {ops} operations recorded, {ledger.acked(ops)} messages acknowledged; {len(wanted)} states of the disk, and "
           f"{again} more after a second power loss during recovery: lost 0, invented 0, wrong 0")


def test_an_early_acknowledgement_is_caught(directory):
    """The control: a disk that says that it has flushed a batch, and has not. A checker that cannot fail proves nothing."""
    power.record_load(directory, SEED, 3, "flush")
    _, wanted, _, bad = try_all(directory, random.Random(SEED), max(20, STATES // 10))
    lost = [state for state, faults in bad if any("is lost" in f for f in faults)]
    print(*[faults[0] for state, faults in bad if state not in lost], sep="\n")
    assert len(lost) > len(wanted) // 10, f"seed {SEED}: {len(lost)} of {len(wanted)}"
    report(f"control without flushes, seed {SEED}: lost messages were noticed in {len(lost)} of {len(wanted)} states")
