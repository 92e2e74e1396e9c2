"""The front end for `.nir` files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dse.core.errors import ModelError
from dse.ir.frontend import Frontend
from dse.ir.graph import Graph
from workloads.nir.options import parse_reference
from workloads.nir.reader import read_nir


class NirFrontend(Frontend):
    """Reads spiking networks: `net.nir`, or `nir:net.nir?dt=1e-4&reset=subtract` to say what the file does not."""

    name = "nir"
    prefix = "nir"
    suffixes = (".nir",)

    def load(self, reference: str, folder: Path, dims: Mapping[str, int]) -> Graph:
        """Read the file `reference`, a path relative to `folder` with options behind a question mark.

        Raises
        ------
        ModelError: missing or damaged file, unsupported node, impossible option, or `dims` (NIR has none).
        """
        path, options = parse_reference(reference)
        if dims:
            raise ModelError(f"{path}: has no dimension {next(iter(dims))!r} to bind; NIR files have fixed shapes")
        return read_nir(folder / path, options, source=path)
