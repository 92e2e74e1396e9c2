"""The front end for `.tflite` files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dse.ir.frontend import Frontend
from dse.ir.graph import Graph
from workloads.tflite.reader import read_model


class TfliteFrontend(Frontend):
    """Reads int8 TFLite models whose weights are constants."""

    name = "tflite"
    suffixes = (".tflite",)

    def load(self, reference: str, folder: Path, dims: Mapping[str, int]) -> Graph:
        """Read the model file `reference`, a path taken relative to `folder`.

        Raises
        ------
        ModelError: missing, damaged or oversized file, unsupported op, or `dims` given (shapes are fixed in the file).
        """
        return read_model(folder / reference, dims, source=reference)
