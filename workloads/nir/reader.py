"""From a NIR file to a Graph of one time step.

Shapes are worked out here, node by node: many exporters leave them out or write ones that do not agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError, UsageError
from dse.ir.graph import Graph, Op, Tensor
from workloads.nir.container import read_container
from workloads.nir.nodes import CONVERTERS
from workloads.nir.options import NirOptions
from workloads.nir.structure import FlatGraph, flatten_graph

Array = npt.NDArray[Any]
_UNUSED_FIELDS = ("metadata", "version")


class StepBuilder:
    """The graph as it grows: tensors by name with the leading batch axis, ops in order."""

    def __init__(self, source: str, options: NirOptions) -> None:
        self.source, self.options = source, options
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[Op] = []

    def constant(self, name: str, data: Array) -> str:
        """A float32 constant; returns its name."""
        self.tensors[name] = Tensor(name, data.shape, data=np.asarray(data, np.float32))
        return name

    def emit(
        self, kind: str, inputs: tuple[str, ...], output: str, shape: tuple[int, ...], /, **attributes: Any
    ) -> str:
        """Append an op named after its output; returns the output."""
        self.tensors[output] = Tensor(output, shape)
        self.ops.append(Op(output, kind, inputs, (output,), attributes))
        return output

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor without its batch axis."""
        return self.tensors[name].shape[1:]


def read_nir(path: Path, options: NirOptions | None = None, *, source: str | None = None) -> Graph:
    """Read a NIR file.

    Parameters
    ----------
    path
        The file; nothing outside it is read and nothing in it is executed.
    options
        Time step, integration and reset; defaults of `NirOptions` when not given.
    source
        How messages call the model.

    Raises
    ------
    ModelError: anything that keeps the file from being read, with the node's name.
    UsageError: the packages nir and h5py are not installed.
    """
    options = options or NirOptions()
    source = path.name if source is None else source
    container = read_container(path, source)
    if container.get("type") != "NIRGraph":
        raise ModelError(f"{source}: its root is {container.get('type')!r}, not a NIRGraph")
    return build_graph(flatten_graph(container, source), options, path.stem, source)


def build_graph(flat: FlatGraph, options: NirOptions, name: str, source: str) -> Graph:
    """The Graph of one time step.

    Raises
    ------
    ModelError: a node's parameters or shapes do not fit, with its name.
    """
    builder = StepBuilder(source, options)
    tensors: dict[str, str] = {}
    inputs, outputs = [], []
    loops = {start for start, _ in flat.delayed}
    shapes = _loop_shapes(flat)
    for node_name in flat.order:
        fields = flat.nodes[node_name]
        if fields["type"] == "Input":
            shape = _input_shape(fields, node_name, source)
            builder.tensors[node_name] = Tensor(node_name, (1, *shape))
            inputs.append(node_name)
            tensors[node_name] = node_name
            continue
        x = _incoming(builder, flat, node_name, tensors, shapes)
        if fields["type"] == "joint":
            tensors[node_name] = x
        elif fields["type"] == "Output":
            outputs.append(x)
        else:
            tensors[node_name] = CONVERTERS[fields["type"]](builder, node_name, _node(fields, node_name, source), x)
    for start in loops:
        if builder.shape(tensors[start]) != shapes[start]:
            raise ModelError(f"{source}: node {start!r} is in a loop and its shape does not follow from its parameters")
    return Graph(
        name, builder.tensors, tuple(builder.ops), tuple(inputs), tuple(dict.fromkeys(outputs)), f"{source} ({options})"
    )


def _input_shape(fields: Mapping[str, Any], name: str, source: str) -> tuple[int, ...]:
    shape = tuple(int(size) for size in np.atleast_1d(fields.get("shape", ())))
    if not shape or min(shape) < 1 or len(shape) > 3 or np.prod(shape, dtype=float) > 1 << 24:
        raise ModelError(f"{source}: Input {name!r} has shape {list(shape)}; 1 to 3 axes of at least 1 are needed")
    return shape


def _loop_shapes(flat: FlatGraph) -> dict[str, tuple[int, ...]]:
    """Shapes of nodes whose output is read before it is computed: those of their parameters."""
    fields = {"Threshold": "threshold", "Delay": "delay", "I": "r", "IF": "r", "LI": "r", "LIF": "r",
              "CubaLI": "r", "CubaLIF": "r"}  # fmt: skip
    return {start: np.shape(flat.nodes[start][fields[flat.nodes[start]["type"]]]) for start, _ in flat.delayed}


def _incoming(
    builder: StepBuilder,
    flat: FlatGraph,
    name: str,
    tensors: Mapping[str, str],
    loop_shapes: Mapping[str, tuple[int, ...]],
) -> str:
    """The sum of all that feeds a node; loops through the value of the step before."""
    feeding = []
    for start in flat.sources[name]:
        if (start, name) in flat.delayed:
            previous = f"{start}.previous"
            if previous not in builder.tensors:
                # a node's tensor carries the node's name
                builder.emit("previous", (), previous, (1, *loop_shapes[start]), source=start)
            feeding.append(previous)
        else:
            feeding.append(tensors[start])
    total = feeding[0]
    for index, other in enumerate(feeding[1:]):
        if builder.shape(other) != builder.shape(total):
            raise ModelError(
                f"{builder.source}: node {name!r} adds inputs of shapes {list(builder.shape(total))} and "
                f"{list(builder.shape(other))}"
            )
        total = builder.emit("add", (total, other), f"{name}.sum{index}", (1, *builder.shape(total)), activation="none")
    return total


def _node(fields: Mapping[str, Any], name: str, source: str) -> Any:
    """The node as the nir package reads it, which checks names and shapes of its parameters."""
    try:
        from nir.ir import dict2NIRNode
    except ImportError as error:
        raise UsageError("reading .nir files needs the package nir: pip install 'silicon-dse[snn]'") from error
    kept = {key: value for key, value in fields.items() if key not in _UNUSED_FIELDS}
    if fields["type"] in ("Conv1d", "Conv2d"):
        # worked out from what feeds the node
        kept["input_shape"] = None
    if fields["type"] == "Flatten":
        kept.pop("input_type", None)
    try:
        return dict2NIRNode(kept)
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{source}: node {name!r} ({fields['type']}) is malformed: {error}") from error
