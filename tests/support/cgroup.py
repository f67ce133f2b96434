"""A memory cgroup of the tests' own, of version 1 or 2: what all processes of a node use together, and a limit at which the kernel kills."""
import os
import pathlib
import time

import pytest

ROOT = pathlib.Path("/sys/fs/cgroup")


class MemoryCgroup:
    def __init__(self):
        self.v1 = (ROOT / "memory" / "memory.limit_in_bytes").exists()
        self.dir = (ROOT / "memory" if self.v1 else ROOT) / f"weir-test-{os.getpid()}"
        try:
            if not self.v1:
                (ROOT / "cgroup.subtree_control").write_text("+memory")
            self.dir.mkdir()
            (self.dir / ("memory.limit_in_bytes" if self.v1 else "memory.max")).read_text()
        except OSError as e:
            pytest.skip(f"no memory cgroup can be made here: {e}")

    def prefix(self):
        """What a command begins with that shall live in it."""
        return ["sh", "-c", f'echo $$ >"{self.dir}/cgroup.procs" && exec "$@"', "sh"]

    def limit(self, nbytes):
        (self.dir / ("memory.limit_in_bytes" if self.v1 else "memory.max")).write_text(str(nbytes))

    def used(self):
        """Bytes that belong to somebody: neither the page cache nor the kernel's own, which do not grow without end as these are given back."""
        rows = dict(line.split() for line in (self.dir / "memory.stat").read_text().splitlines())
        return sum(int(rows[k]) for k in (("total_rss", "total_shmem") if self.v1 else ("anon", "shmem")) if k in rows)

    def killed(self):
        rows = dict(line.split() for line in (self.dir / ("memory.oom_control" if self.v1 else "memory.events")).read_text().splitlines())
        return int(rows["oom_kill"])

    def remove(self):
        """When the last process has gone."""
        end = time.monotonic() + 20
        while True:
            try:
                self.dir.rmdir()
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
