"""The loop of the fuzzers: damage a file, read it within bounds of memory and time, count what happens."""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

_MEMORY = 2 << 30


def fuzz(
    description: str,
    base_files: Callable[[], Sequence[bytes]],
    mutated: Callable[[bytes, random.Random], bytes],
    outcome: Callable[[Path], str],
    suffix: str,
) -> int:
    """Runs `--count` mutations of `base_files()` and reports; 1 if any was neither read nor refused.

    Parameters
    ----------
    mutated
        Damages one file.
    outcome
        "read" or "refused"; whatever it raises is a finding.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=None, help="folder for files that ended in an exception")
    options = parser.parse_args()
    files, rng = base_files(), random.Random(options.seed)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
    seen: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"m{suffix}"
        for index in range(options.count):
            data = mutated(rng.choice(files), rng)
            path.write_bytes(data)
            begin = time.monotonic()
            try:
                seen[outcome(path)] += 1
            except Exception as error:
                seen[type(error).__name__] += 1
                sys.stdout.write(f"{index}: {type(error).__name__}: {error}\n")
                if options.keep is not None:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{options.seed}_{index}{suffix}").write_bytes(data)
            slowest = max(slowest, time.monotonic() - begin)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    sys.stdout.write(f"{dict(seen)} slowest {slowest:.1f} s, largest {largest} MiB\n")
    return 0 if set(seen) <= {"read", "refused"} else 1
