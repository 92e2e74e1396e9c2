"""Mutates ONNX files and reads each within 2 GiB and 20 s: `python benchmarks/fuzz_onnx.py --count 10000 --seed 0`.

Prints how many were read and refused, and every file that ended otherwise (kept in `--keep`). Exit code 1 if any did.
The base files are those of the test suite (tests/onnx_networks.py, tests/sequence_networks.py) and the networks
inside the `onnx` package.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from onnx_mutation import mutated, outcome
from onnx_networks import RandomCnn
from sequence_networks import crnn, transformer
from wheel_models import NAMES, path_of

_MEMORY = 2 << 30


def base_files() -> list[bytes]:
    """Serialized models that are damaged."""
    models = [RandomCnn(np.random.default_rng(seed)).build() for seed in range(6)] + [crnn(0)]
    encoder = transformer(0, 4, 8, 2, 1)
    encoder.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    wheel = [path_of(name).read_bytes() for name in NAMES if name in ("squeezenet", "shufflenet", "bvlc_alexnet")]
    return [model.SerializeToString() for model in (*models, encoder)] + wheel


def main() -> int:
    """Run the mutations and report."""
    parser = argparse.ArgumentParser(description=__doc__)
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
        path = Path(folder) / "m.onnx"
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
                    (options.keep / f"{options.seed}_{index}.onnx").write_bytes(data)
            slowest = max(slowest, time.monotonic() - begin)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    sys.stdout.write(f"{dict(seen)} slowest {slowest:.1f} s, largest {largest} MiB\n")
    return 0 if set(seen) <= {"read", "refused"} else 1


if __name__ == "__main__":
    sys.exit(main())
