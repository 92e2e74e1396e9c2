"""The nine networks of the `onnx` package in int8, tensor by tensor against onnxruntime.

    python benchmarks/wheel_int8.py --inputs 2 --inputs-small 100

Weights are seeded He-normal ones. Each network is quantized here, written as ONNX and run by onnxruntime with and
without its graph optimizations; every int8 tensor inside is compared with our reference. Prints values that differ out
of all, and the seconds. Exit code 1 if any differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from int8_parity import LEVELS, differences, every_tensor
from wheel_models import NAMES, quantized

from dse.compiler import calibration_images
from dse.ir.quantized import quantize_inputs

#: A second or more per input.
LARGE = ("bvlc_alexnet", "densenet121", "inception_v2", "vgg19", "zfnet512")


def main() -> int:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2, help="inputs for large networks")
    parser.add_argument("--inputs-small", type=int, default=100, help="inputs for the others")
    parser.add_argument("--model", action="append", choices=NAMES, help="only these; repeatable")
    arguments = parser.parse_args()
    failed = False
    for name in arguments.model or NAMES:
        graph = every_tensor(quantized(name))
        count = arguments.inputs if name in LARGE else arguments.inputs_small
        images = quantize_inputs(graph, calibration_images(graph, count, 9))
        for level in LEVELS:
            start = time.perf_counter()
            found = differences(graph, images, level)
            wrong, total = (sum(pair[place] for pair in found.values()) for place in (0, 1))
            failed |= wrong > 0
            first = next((item for item, pair in found.items() if pair[0]), "")
            print(  # noqa: T201
                f"{name:14} {count:4} inputs  {level:12} {wrong} of {total:,} differ"
                f"{f', first at {first}' if first else ''}  {time.perf_counter() - start:.0f} s",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
