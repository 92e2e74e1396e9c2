"""The front end for `.einsum.yaml` files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dse.ir.frontend import Frontend
from dse.ir.graph import Graph
from workloads.einsum.reader import read_model


class EinsumFrontend(Frontend):
    """Reads kernels such as `O[k,p,q] += I[c,p+r,q+s] * W[k,c,r,s]` with the extents of their dims."""

    name = "einsum"
    suffixes = (".einsum.yaml",)

    def load(self, reference: str, folder: Path, dims: Mapping[str, int]) -> Graph:
        """Read the file `reference`, a path taken relative to `folder`; `dims` replaces extents given in it.

        Raises
        ------
        ModelError: missing or damaged file, a statement that is malformed or reads outside what is written.
        """
        return read_model(folder / reference, dims, source=reference)
