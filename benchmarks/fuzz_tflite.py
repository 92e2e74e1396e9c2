"""Mutates TFLite files and reads each within 2 GiB and 20 s: `python benchmarks/fuzz_tflite.py --count 10000 --seed 0`.

Prints how many were read and refused, and every file that ended otherwise (kept in `--keep`). Exit code 1 if any did.
The base files are small networks of the test suite and, where they are, the networks in `shared/reference/models`
beside the checkout.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fuzz import fuzz
from tflite_mutation import mutated, outcome, small_bytes

_MODELS = Path(__file__).resolve().parents[2] / "shared" / "reference" / "models"


def base_files() -> list[bytes]:
    """Models that are damaged."""
    return [small_bytes(seed) for seed in range(9)] + [path.read_bytes() for path in sorted(_MODELS.glob("*.tflite"))]


if __name__ == "__main__":
    sys.exit(fuzz(__doc__ or "", base_files, mutated, outcome, ".tflite"))
