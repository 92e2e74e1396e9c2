"""Mutates ONNX files and reads each within 2 GiB and 20 s: `python benchmarks/fuzz_onnx.py --count 10000 --seed 0`.

Prints how many were read and refused, and every file that ended otherwise (kept in `--keep`). Exit code 1 if any did.
The base files are those of the test suite (tests/onnx_networks.py, tests/sequence_networks.py) and the networks
inside the `onnx` package.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fuzz import fuzz
from onnx_mutation import mutated, outcome
from onnx_networks import RandomCnn
from sequence_networks import crnn, transformer
from wheel_models import NAMES, path_of

from dse.compiler import Recipe, calibration_images, prepare, quantize
from workloads.onnx import export_quantized
from workloads.zoo import ZooFrontend


def quantized(recipe: Recipe) -> onnx.ModelProto:
    """A small network with QLinear operators, or int16 tensors between float ones."""
    graph = prepare(ZooFrontend().load("tiny_cnn", Path("."), {}))
    return export_quantized(quantize(graph, calibration_images(graph, 4, 0), recipe))


def base_files() -> list[bytes]:
    """Serialized models that are damaged."""
    models = [RandomCnn(np.random.default_rng(seed)).build() for seed in range(6)] + [crnn(0)]
    encoder = transformer(0, 4, 8, 2, 1)
    encoder.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    wheel = [path_of(name).read_bytes() for name in NAMES if name in ("squeezenet", "shufflenet", "bvlc_alexnet")]
    integers = [quantized(Recipe(activation_bits=bits)) for bits in (8, 16)]
    return [model.SerializeToString() for model in (*models, encoder, *integers)] + wheel


if __name__ == "__main__":
    sys.exit(fuzz(__doc__ or "", base_files, mutated, outcome, ".onnx"))
