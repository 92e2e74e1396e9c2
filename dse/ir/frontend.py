"""Front end: what a reader of network files provides. Registered under the entry point `dse.frontends`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from dse.core.errors import UsageError
from dse.ir.graph import Graph


class Frontend(ABC):
    """Reads one kind of network description into a Graph.

    A model is written `PREFIX:NAME` (a front end with that prefix, such as `zoo:resnet8`) or as a path whose
    suffix one front end claims (`model.onnx`).
    """

    name: str
    prefix: str | None = None
    suffixes: tuple[str, ...] = ()
    #: Whether `write` can be used.
    writes: bool = False

    @abstractmethod
    def load(self, reference: str, folder: Path, dims: Mapping[str, int]) -> Graph:
        """Read `reference` (the name behind the prefix, or a path taken relative to `folder`).

        `dims` binds symbolic dimensions by name.

        Raises
        ------
        ModelError: not readable, unsupported (naming node, op, opset and what is supported).
        """

    def available(self) -> Mapping[str, str]:
        """Models that need no file, with a one-line description each (the zoo)."""
        return {}

    def write(self, graph: Graph, path: Path) -> None:
        """Write a quantized graph (`dse.ir.quantized`, quantize and dequantize ops at its ends or not) to a file.

        Raises
        ------
        UsageError: this front end only reads.
        ModelError: the format has no form for an op.
        """
        raise UsageError(f"the {self.name} front end writes no files")
