"""What lies between neurons, multiplied into synapses, is what the ops compute."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.neuromorphic.linear import ConvLayer, composed, offset_of, paths_into
from dse.core.errors import ModelError
from dse.ir import Graph, Op, Tensor
from dse.ir.reference import run_float
from dse.ir.windows import output_size


class Chain:
    """A graph of linear ops in a row, from input x."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.tensors, self.ops, self.last = {"x": Tensor("x", (1, *shape))}, list[Op](), "x"
        self.rng = np.random.default_rng(len(shape))

    def add(
        self, kind: str, shape: tuple[int, ...], constants: tuple[np.ndarray, ...] = (), /, **attributes: object
    ) -> None:
        name = f"t{len(self.ops)}"
        names = []
        for index, data in enumerate(constants):
            names.append(f"{name}.c{index}")
            self.tensors[names[-1]] = Tensor(names[-1], data.shape, data=data.astype(np.float32))
        self.tensors[name] = Tensor(name, (1, *shape))
        self.ops.append(Op(name, kind, (self.last, *names), (name,), attributes))
        self.last = name

    def conv(self, outputs: int, kernel: int, stride: int, pad: int, groups: int = 1) -> None:
        channels, height, width = self.tensors[self.last].shape[1:]
        weight = self.rng.normal(size=(outputs, channels // groups, kernel, kernel))
        size = [output_size(extent, kernel, stride, pad, pad) for extent in (height, width)]
        self.add("conv", (outputs, *size), (weight, self.rng.normal(size=outputs)), strides=(stride, stride),
                 pads=(pad,) * 4, dilations=(1, 1), groups=groups, activation="none")  # fmt: skip

    def pool(self, kernel: int) -> None:
        channels, height, width = self.tensors[self.last].shape[1:]
        self.add("average_pool", (channels, height // kernel, width // kernel), kernel=(kernel, kernel),
                 strides=(kernel, kernel), pads=(0, 0, 0, 0), count_include_pad=True)  # fmt: skip

    def graph(self) -> Graph:
        return Graph("chain", self.tensors, tuple(self.ops), ("x",), (self.last,))


def synapses(graph: Graph) -> list[ConvLayer | object]:
    return [weights for path in paths_into(graph, graph.outputs[0]) for _, weights in composed(graph, path)]


def check(graph: Graph) -> list[ConvLayer | object]:
    """Synapses and offset give what the ops give."""
    found = synapses(graph)
    x = np.random.default_rng(1).normal(size=(1, *graph["x"].shape[1:])).astype(np.float32)
    total = offset_of(graph, graph.outputs[0])
    for weights in found:
        matrix = weights.matrix() if isinstance(weights, ConvLayer) else weights
        total = total + matrix.T @ x.reshape(-1)  # type: ignore[attr-defined]
    wanted = run_float(graph, {"x": x})[graph.outputs[0]]
    np.testing.assert_allclose(total, wanted.reshape(-1), atol=1e-4)
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.sampled_from([1, 2]), st.integers(1, 2))
def test_a_pool_and_a_convolution_make_one_kernel(kernel: int, stride: int, pad: int, groups: int, pool: int) -> None:
    chain = Chain((2, 8, 12))
    chain.pool(pool)
    chain.conv(4, kernel, stride, pad, groups)
    (weights,) = check(chain.graph())
    assert isinstance(weights, ConvLayer)
    assert weights.taps == weights.matrix().nnz


def test_pools_with_a_remainder_and_stacked_layers_become_matrices() -> None:
    chain = Chain((2, 7, 9))
    chain.pool(2)
    chain.conv(3, 3, 1, 1)
    assert not isinstance(check(chain.graph())[0], ConvLayer)
    chain = Chain((2, 6, 6))
    chain.conv(3, 3, 1, 1)
    chain.pool(2)
    chain.add("reshape", (27,), shape=(1, 27))
    chain.add("gemm", (5,), (chain.rng.normal(size=(5, 27)), chain.rng.normal(size=5)), activation="none")
    chain.add("mul", (5,), (chain.rng.normal(size=(1, 5)),))
    assert not isinstance(check(chain.graph())[0], ConvLayer)


def test_one_factor_leaves_a_kernel_a_kernel() -> None:
    chain = Chain((2, 5, 5))
    chain.add("mul", (2, 5, 5), (np.full((), 0.25),))
    chain.conv(3, 3, 2, 1)
    assert isinstance(check(chain.graph())[0], ConvLayer)


def test_neurons_are_numbered_by_channel_then_row_then_column() -> None:
    weight = np.zeros((2, 1, 1, 1))
    weight[1] = 7
    layer = ConvLayer(weight, (1, 2, 3), (2, 2, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1)
    matrix = layer.matrix().tocoo()
    taps = {(int(s), int(t)) for s, t, v in zip(matrix.row, matrix.col, matrix.data, strict=True) if v}
    assert taps == {(place, 6 + place) for place in range(6)}


def test_what_is_not_linear_is_named() -> None:
    chain = Chain((4,))
    chain.add("sigmoid", (4,))
    with pytest.raises(ModelError, match=r"op 't0' \(sigmoid\) is neither a neuron nor linear"):
        synapses(chain.graph())
    chain = Chain((4,))
    chain.add("gemm", (4,), (np.eye(4),), activation="relu")
    with pytest.raises(ModelError, match=r"op 't0' \(gemm with relu\) is neither"):
        synapses(chain.graph())
