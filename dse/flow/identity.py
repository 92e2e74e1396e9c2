"""What a run is made of: configuration, network, program versions. Two runs of one identity give one result."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dse.config.models import RunConfig
from dse.core import registry
from dse.ir import Graph

#: Of the run folder: its files and their contents.
SCHEMA_VERSION = 1
#: Packages whose arithmetic or sampling a result depends on.
_LIBRARIES = ("numpy", "optuna", "pydantic", "scipy", "numba")


def run_identity(config: RunConfig, graph: Graph, data_digests: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The contents of `run.json`: nested mappings of plain values, without times and places.

    `data_digests` are those of the data sets that the run reads, by what they serve for.
    """
    family = config.accelerator.family
    return {
        "schema": SCHEMA_VERSION,
        "versions": {
            "silicon-dse": version("silicon-dse"),
            "family": registry.provenance(registry.BACKENDS, family),
            "source": source_digest("dse", type(registry.load(registry.BACKENDS, family)).__module__.split(".")[0]),
            "python": ".".join(platform.python_version_tuple()[:2]),
            "machine": platform.machine(),
            **{name: version(name) for name in _LIBRARIES},
        },
        "inputs": {"network": graph_digest(graph), **(data_digests or {})},
        "config": config.model_dump(mode="json"),
    }


def differences(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Every leaf that differs, as 'config.search.trials: 400 in the folder, 500 now', in key order."""
    old, new = _leaves(recorded), _leaves(current)
    return [
        f"{key}: {_shown(old, key)} in the folder, {_shown(new, key)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, _ABSENT) != new.get(key, _ABSENT)
    ]


def graph_digest(graph: Graph) -> str:
    """SHA-256 over ops, shapes and constants: the same network from another place has the same digest."""
    state = hashlib.sha256()
    for op in graph.ops:
        attributes = sorted((name, repr(value)) for name, value in op.attributes.items())
        state.update(repr((op.name, op.kind, op.inputs, op.outputs, attributes)).encode())
    for name in sorted(graph.tensors):
        tensor = graph.tensors[name]
        state.update(repr((name, tensor.shape, tensor.dtype, tensor.quantization)).encode())
        if tensor.data is not None:
            state.update(repr(tensor.data.dtype.str).encode() + tensor.data.tobytes())
    state.update(repr((graph.inputs, graph.outputs)).encode())
    return state.hexdigest()


def source_digest(*packages: str) -> str:
    """SHA-256 over the code and data files of imported top-level packages: an edited model is another version."""
    state = hashlib.sha256()
    for name in sorted(set(packages)):
        module = sys.modules[name]
        roots = [Path(item) for item in getattr(module, "__path__", ())] or [Path(str(module.__file__))]
        for root in sorted(roots):
            files = sorted(root.rglob("*")) if root.is_dir() else [root]
            for path in files:
                if path.suffix in (".py", ".yaml", ".json", ".csv") and path.is_file():
                    state.update(str(path.relative_to(root.parent)).encode() + path.read_bytes())
    return state.hexdigest()[:16]


_ABSENT = object()


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, inner in value.items():
        leaves |= _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    if key not in leaves:
        return "nothing"
    text = json.dumps(leaves[key])
    return text if len(text) <= 60 else text[:57] + "..."
