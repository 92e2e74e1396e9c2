"""The front end for networks that come with the package, written as `zoo:NAME`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from dse.core.errors import ModelError, nearest
from dse.ir.frontend import Frontend
from dse.ir.graph import Graph
from workloads.onnx import read_model
from workloads.zoo import resnet8, resnet50, small


@dataclass(frozen=True)
class _Entry:
    build: Callable[[int], onnx.ModelProto]
    description: str


_ENTRIES = {
    "resnet8": _Entry(resnet8.build, "ResNet-8 of MLPerf Tiny, 3x32x32, 12.50 M MACs, seeded weights"),
    "resnet50": _Entry(
        resnet50.build, "ResNet-50, 3x224x224, 4.089 G MACs, topology of the onnx package, seeded weights"
    ),
    "tiny_cnn": _Entry(small.build_tiny_cnn, "small CNN with depthwise conv, pools and a residual, 3x16x16"),
    "mlp": _Entry(small.build_mlp, "three dense layers 64-48-32-10"),
}


class ZooFrontend(Frontend):
    """Builds a network in Python, writes it as an ONNX file and reads that file as any user's."""

    name = "zoo"
    prefix = "zoo"

    def load(self, reference: str, folder: Path, dims: Mapping[str, int]) -> Graph:
        """Build `zoo:reference`; `folder` is not used.

        Raises
        ------
        ModelError: no such network, or `dims` names a dimension it does not have.
        """
        entry = _ENTRIES.get(reference)
        if entry is None:
            raise ModelError(f"zoo:{reference}: no such network{nearest(reference, _ENTRIES)}")
        with tempfile.TemporaryDirectory(prefix="dse-zoo-") as scratch:
            path = Path(scratch) / f"{reference}.onnx"
            path.write_bytes(entry.build(0).SerializeToString())
            return read_model(path, dims, source=f"zoo:{reference}")

    def available(self) -> Mapping[str, str]:
        """Names of the networks with a line about each."""
        return {name: entry.description for name, entry in _ENTRIES.items()}
