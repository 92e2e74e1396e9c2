"""From what a user wrote (`zoo:resnet8`, `model.onnx`) to a Graph, through the front ends that are registered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dse.core import registry
from dse.core.errors import ModelError, UsageError, nearest
from dse.ir import Graph
from dse.ir.frontend import Frontend


def load_workload(spec: str, folder: Path, dims: Mapping[str, int] | None = None) -> Graph:
    """Read a network.

    Parameters
    ----------
    spec
        `PREFIX:NAME` of a front end with that prefix, or a path (relative to `folder`) whose suffix one claims.
    dims
        Values of symbolic dimensions by name.

    Raises
    ------
    UsageError: no front end takes `spec`.
    ModelError: the file is missing, damaged or uses something unsupported.
    """
    loaded, broken = frontends()
    prefix, colon, name = spec.partition(":")
    for frontend in loaded:
        if colon and frontend.prefix == prefix:
            available = frontend.available()
            if available and name not in available:
                raise UsageError(f"{prefix} has no model {name!r}{nearest(name, available)}")
            return frontend.load(name, folder, dims or {})
    for frontend in loaded:
        if spec.lower().endswith(frontend.suffixes):
            path = folder / spec
            if not path.is_file():
                raise ModelError(f"{path}: {'is not a file' if path.exists() else 'does not exist'}")
            return frontend.load(spec, folder, dims or {})
    raise UsageError(_nobody_reads(spec, loaded, broken))


def is_model_file(spec: str) -> bool:
    """Whether a front end claims the suffix of `spec`."""
    return any(spec.lower().endswith(frontend.suffixes) for frontend in frontends()[0])


def frontends() -> tuple[list[Frontend], list[str]]:
    """Every front end that can be loaded, and for each other one why not: a broken plug-in stops no one else."""
    loaded: list[Frontend] = []
    broken: list[str] = []
    for name in registry.names(registry.FRONTENDS):
        try:
            loaded.append(registry.load(registry.FRONTENDS, name))
        except UsageError as error:
            broken.append(str(error))
    return loaded, broken


def available_models() -> dict[str, str]:
    """Models that need no file, as `PREFIX:NAME`, with a line of description each."""
    return {
        f"{frontend.prefix}:{name}": text
        for frontend in frontends()[0]
        if frontend.prefix
        for name, text in sorted(frontend.available().items())
    }


def _nobody_reads(spec: str, loaded: list[Frontend], broken: list[str]) -> str:
    models = [f"{item.prefix}:{name}" for item in loaded if item.prefix for name in item.available()]
    suffixes = sorted(suffix for item in loaded for suffix in item.suffixes)
    known = f"a model is one of the built-in ones{nearest(spec, models)} or a file ending in {', '.join(suffixes)}"
    return f"no front end reads {spec!r}; {known}" + "".join(f"; note: {reason}" for reason in broken)
