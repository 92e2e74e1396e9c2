"""MACs and loop nests of products of activations, transposed convolutions and recurrent layers, by slow counting."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.ir import Graph, LoopNest, Op, Tensor, loop_nest, op_macs
from dse.ir.reference import run_float
from dse.ir.windows import convolve_transposed

SIZE = st.integers(1, 3)


def graph_of(op: Op, shapes: Mapping[str, tuple[int, ...]], constants: tuple[str, ...] = ()) -> Graph:
    tensors = {
        name: Tensor(name, shape, data=np.zeros(shape, np.float32) if name in constants else None)
        for name, shape in shapes.items()
    }
    inputs = tuple(name for name in op.inputs if name and name not in constants)
    return Graph("net", tensors, (op,), inputs, op.outputs)


def executed(nest: LoopNest, values: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """The nest walked iteration by iteration: the output, and how many multiplications it took."""
    result, count = np.zeros(shape), 0
    for point in itertools.product(*(range(bound) for bound in nest.bounds.values())):
        index = dict(zip(nest.bounds, point, strict=True))
        places = [
            tuple(
                sum(c * index[d] for d, c in axis.items()) + o
                for axis, o in zip(access.axes, access.offsets, strict=True)
            )
            for access in nest.accesses
        ]
        first, second, out = (access.tensor for access in nest.accesses)
        assert out not in values
        result[places[2]] += values[first][places[0]] * values[second][places[1]]
        count += 1
    return result, count


@settings(max_examples=60, deadline=None)
@given(st.lists(SIZE, min_size=0, max_size=2), st.tuples(SIZE, SIZE, SIZE), st.data())
def test_the_nest_of_a_matmul_computes_it(stack: list[int], sizes: tuple[int, int, int], data: st.DataObject) -> None:
    """Stacked axes broadcast: an operand may have 1, or nothing at all, where the other has many."""
    rows, depth, columns = sizes
    heads = []
    for _ in range(2):
        kept = [1 if data.draw(st.booleans()) else size for size in stack]
        heads.append(tuple(kept[data.draw(st.integers(0, len(kept))) :]))
    shapes = {"a": (*heads[0], rows, depth), "b": (*heads[1], depth, columns)}
    shapes["y"] = (*np.broadcast_shapes(*heads), rows, columns)
    graph = graph_of(Op("product", "matmul", ("a", "b"), ("y",)), shapes)
    values = {name: np.random.default_rng(1).standard_normal(shapes[name]).astype(np.float32) for name in "ab"}
    result, count = executed(loop_nest(graph, graph.ops[0]), values, shapes["y"])
    np.testing.assert_allclose(result, np.matmul(values["a"], values["b"]), atol=1e-5)
    np.testing.assert_allclose(run_float(graph, values)["y"], result, atol=1e-5)
    assert graph.macs == op_macs(graph, graph.ops[0]) == count


def slow_transposed(x: np.ndarray, weight: np.ndarray, strides: tuple[int, int], dilations: tuple[int, int],
                    groups: int, size: tuple[int, int]) -> tuple[np.ndarray, int]:  # fmt: skip
    batch, channels = x.shape[:2]
    per_group, count = weight.shape[1], 0
    result = np.zeros((batch, per_group * groups, *size))
    for n, c, h, w in np.ndindex(*x.shape):
        group = c // (channels // groups)
        for m, r, s in np.ndindex(*weight.shape[1:]):
            place = (n, group * per_group + m, h * strides[0] + r * dilations[0], w * strides[1] + s * dilations[1])
            result[place] += x[n, c, h, w] * weight[c, m, r, s]
            count += 1
    return result, count


@settings(max_examples=60, deadline=None)
@given(st.tuples(SIZE, SIZE, SIZE, SIZE), st.tuples(SIZE, SIZE), st.tuples(SIZE, SIZE), st.tuples(SIZE, SIZE), SIZE)
def test_transposed_convolution_adds_every_input_times_its_kernel(
    sizes: tuple[int, int, int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    groups: int,
) -> None:
    per_group, outputs, height, width = sizes
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, per_group * groups, height, width)).astype(np.float32)
    weight = rng.standard_normal((per_group * groups, outputs, *kernel)).astype(np.float32)
    got = convolve_transposed(x, weight, strides, (0, 0, 0, 0), dilations, groups, (0, 0))
    expected, count = slow_transposed(x, weight, strides, dilations, groups, got.shape[2:])
    np.testing.assert_allclose(got, expected, atol=1e-4)
    op = Op("up", "conv_transpose", ("x", "w"), ("y",), {
        "strides": strides, "pads": (0, 0, 0, 0), "dilations": dilations, "groups": groups, "output_padding": (0, 0),
        "activation": "none",
    })  # fmt: skip
    graph = graph_of(op, {"x": x.shape, "w": weight.shape, "y": got.shape}, ("w",))
    assert op_macs(graph, op) == count
    assert graph.parameters == weight.size


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([("lstm", 4), ("gru", 3), ("rnn", 1)]), st.tuples(SIZE, SIZE, SIZE, SIZE), st.sampled_from([1, 2])
)
def test_macs_of_a_recurrent_layer_are_those_of_its_products(
    kind: tuple[str, int], sizes: tuple[int, int, int, int], directions: int
) -> None:
    (name, gates), (steps, batch, features, hidden) = kind, sizes
    products = 0
    for _ in range(directions * steps * gates):
        products += batch * features * hidden + batch * hidden * hidden
    shapes = {
        "x": (steps, batch, features), "w": (directions, gates * hidden, features),
        "r": (directions, gates * hidden, hidden), "y": (steps, directions, batch, hidden),
    }  # fmt: skip
    graph = graph_of(Op("cell", name, ("x", "w", "r"), ("y",)), shapes, ("w", "r"))
    assert graph.macs == products


def test_ops_that_are_no_layers_count_nothing() -> None:
    graph = graph_of(Op("act", "tanh", ("x",), ("y",)), {"x": (2, 3), "y": (2, 3)})
    assert graph.macs == op_macs(graph, graph.ops[0]) == graph.parameters == 0
