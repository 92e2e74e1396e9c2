"""From checked statements to a Graph: weights drawn, layers recognised, batch axes added where an op needs them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dse.core.errors import ModelError
from dse.ir.graph import Graph, Op, Tensor
from workloads.einsum.recognise import Layer, recognise
from workloads.einsum.statement import Statement

#: Bytes of all weights together.
MAX_WEIGHT_BYTES = 1 << 30


class Builder:
    """Builds one Graph. A tensor that an op wants with a batch axis of 1 exists twice, joined by a reshape."""

    def __init__(
        self,
        name: str,
        source: str,
        bounds: Mapping[str, int],
        shapes: Mapping[str, tuple[int, ...]],
        weights: tuple[str, ...],
        seed: int,
    ) -> None:
        self.name, self.source, self.bounds, self.shapes = name, source, bounds, shapes
        self.weights, self.seed = weights, seed
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[Op] = []
        #: tensor of a statement -> the same with a leading axis of 1
        self.batched: dict[str, str] = {}

    def build(self, statements: tuple[Statement, ...]) -> Graph:
        """The Graph of `statements`; outputs are the tensors that no statement reads.

        Raises
        ------
        ModelError: the weights are too big.
        """
        written = {statement.tensor for statement in statements}
        read = {factor.tensor for statement in statements for factor in statement.factors}
        inputs = tuple(name for name in self.shapes if name not in written and name not in self.weights)
        outputs = tuple(statement.tensor for statement in statements if statement.tensor not in read)
        for name in inputs:
            self.tensors[name] = Tensor(name, self.shapes[name])
        self._draw_weights(statements)
        for statement in statements:
            layer = recognise(statement, self.bounds, self.shapes, self.weights)
            if layer is None:
                self._einsum(statement)
            else:
                self._layer(statement, layer)
        ops = self._with_own_batch(self._live(outputs), inputs, outputs)
        used = {*inputs, *outputs, *(name for op in ops for name in (*op.inputs, *op.outputs))}
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in used}
        return Graph(self.name, tensors, tuple(ops), inputs, outputs, self.source)

    def _draw_weights(self, statements: tuple[Statement, ...]) -> None:
        """He-normal values: a standard deviation of sqrt(2 / summed products of the first statement that reads it)."""
        if sum(4 * math.prod(self.shapes[name]) for name in self.weights) > MAX_WEIGHT_BYTES:
            raise ModelError(f"{self.source}: weights above {MAX_WEIGHT_BYTES:,} bytes in total")
        for position, name in enumerate(self.weights):
            reader = next(item for item in statements if any(factor.tensor == name for factor in item.factors))
            summed = math.prod(self.bounds[dim] for dim in reader.dims if dim not in reader.output)
            rng = np.random.default_rng([self.seed, position])
            data = rng.standard_normal(self.shapes[name], np.float32) * np.float32(math.sqrt(2 / summed))
            self.tensors[name] = Tensor(name, data.shape, data=data)

    def _einsum(self, statement: Statement) -> None:
        # activations first: a layer's first operand is what flows through the network
        factors = sorted(statement.factors, key=lambda factor: factor.tensor in self.weights)
        attributes = {
            "bounds": {dim: self.bounds[dim] for dim in statement.dims},
            "axes": tuple(factor.axes for factor in factors),
            "output": statement.output,
        }
        self._append(statement.tensor, "einsum", tuple(factor.tensor for factor in factors), attributes)

    def _layer(self, statement: Statement, layer: Layer) -> None:
        weight, name = self._weight(layer), statement.tensor
        if layer.batched:
            self._append(name, layer.kind, (layer.x, weight), layer.attributes)
            return
        source, inner = self._with_batch(layer.x), self._unique(f"{name}.batched")
        self.tensors[inner] = Tensor(inner, (1, *self.shapes[name]))
        self.ops.append(Op(name, layer.kind, (source, weight), (inner,), layer.attributes))
        self.batched[name] = inner
        self._append(name, "reshape", (inner,), {"shape": self.shapes[name]}, op=f"{name}.unbatch")

    def _weight(self, layer: Layer) -> str:
        """The weights in the op's order of axes."""
        data = self.tensors[layer.weight].data
        assert data is not None
        if layer.weight_axes == tuple(range(data.ndim)):
            return layer.weight
        turned = data.transpose([axis for axis in layer.weight_axes if axis is not None])
        for position, axis in enumerate(layer.weight_axes):
            if axis is None:
                turned = np.expand_dims(turned, position)
        name = self._unique(f"{layer.weight}.{layer.kind}")
        self.tensors[name] = Tensor(name, turned.shape, data=np.ascontiguousarray(turned))
        return name

    def _with_batch(self, name: str) -> str:
        if name not in self.batched:
            shape = (1, *self.shapes[name])
            inner = self._unique(f"{name}.batched")
            self.tensors[inner] = Tensor(inner, shape)
            self.ops.append(Op(f"{name}.batch", "reshape", (name,), (inner,), {"shape": shape}))
            self.batched[name] = inner
        return self.batched[name]

    def _append(
        self, output: str, kind: str, inputs: tuple[str, ...], attributes: Mapping[str, Any], *, op: str = ""
    ) -> None:
        self.tensors[output] = Tensor(output, self.shapes[output])
        self.ops.append(Op(op or output, kind, inputs, (output,), attributes))

    def _unique(self, wish: str) -> str:
        name, number = wish, 1
        while name in self.tensors or name in self.shapes:
            number += 1
            name = f"{wish}_{number}"
        return name

    def _with_own_batch(self, ops: list[Op], inputs: tuple[str, ...], outputs: tuple[str, ...]) -> list[Op]:
        """Inputs that are read, and outputs that are written, with a batch axis only get it themselves."""
        renamed: dict[str, str] = {}
        for op in list(ops):
            own, inner = (op.inputs[0], op.outputs[0]) if op.inputs[0] in inputs else (op.outputs[0], op.inputs[0])
            if op.kind != "reshape" or self.batched.get(own) != inner:
                continue
            touching = [other for other in ops if own in (*other.inputs, *other.outputs)]
            if own in (*inputs, *outputs) and touching == [op]:
                ops.remove(op)
                renamed[inner] = own
                self.tensors[own] = replace(self.tensors[own], shape=self.tensors[inner].shape)

        def names(old: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(renamed.get(name, name) for name in old)

        return [replace(op, inputs=names(op.inputs), outputs=names(op.outputs)) for op in ops]

    def _live(self, outputs: tuple[str, ...]) -> list[Op]:
        """Ops that an output depends on: reshapes between two layers that both want the batch axis are gone."""
        needed, kept = set(outputs), []
        for op in reversed(self.ops):
            if needed.intersection(op.outputs):
                needed.update(op.inputs)
                kept.append(op)
        return kept[::-1]
