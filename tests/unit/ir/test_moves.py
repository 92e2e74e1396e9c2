"""Moves work on a batch that the graph was not read for, and pad int8 with what its scale makes of the value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.core.errors import ModelError
from dse.ir import Graph, Op, Quantization, Tensor
from dse.ir.quantized import dequantize, quantize_array
from dse.ir.reference import run_float, run_op_float, run_quantized


def graph_of(
    op: Op, shapes: dict[str, tuple[int, ...]], constants: dict[str, Any], of: Quantization | None = None
) -> Graph:
    dtype = "float32" if of is None else "int8"
    tensors = {name: Tensor(name, shape, dtype, of) for name, shape in shapes.items()}
    tensors |= {name: Tensor(name, data.shape, str(data.dtype), data=data) for name, data in constants.items()}
    return Graph("net", tensors, (op,), ("x",), ("y",))


@given(
    steps=st.integers(2, 5), directions=st.integers(1, 2), features=st.integers(2, 4), batch=st.integers(1, 4),
    seed=st.integers(0, 100),
)  # fmt: skip
def test_reshapes_keep_each_sample_of_an_inner_batch_to_itself(
    steps: int, directions: int, features: int, batch: int, seed: int
) -> None:
    """What recurrent networks do: (T, B, D, H) to (T, B, D * H), read for a batch of one."""
    flat = (steps, 1, directions * features)
    op = Op("join", "reshape", ("x",), ("y",), {"shape": flat})
    # the batch is no leading dimension here, so the op runs alone, as inside a network
    graph = graph_of(op, {"x": (steps, 1, directions, features), "y": flat}, {})
    x = np.random.default_rng(seed).standard_normal((steps, batch, directions, features)).astype(np.float32)
    got = run_op_float(graph, op, {"x": x})["y"]
    for sample in range(batch):
        alone = run_op_float(graph, op, {"x": x[:, sample : sample + 1]})["y"]
        np.testing.assert_array_equal(got[:, sample : sample + 1], alone)


@pytest.mark.parametrize("after", [(12,), (1, 12), (3, 4), (1, 2, 6), (4, 3, 1)])
def test_an_outermost_batch_stays_outermost(after: tuple[int, ...]) -> None:
    op = Op("r", "reshape", ("x",), ("y",), {"shape": after})
    graph = graph_of(op, {"x": (1, 3, 4), "y": after}, {})
    x = np.arange(60, dtype=np.float32).reshape(5, 3, 4)
    got = run_float(graph, {"x": x})["y"]
    alone = [run_float(graph, {"x": x[index : index + 1]})["y"] for index in range(5)]
    np.testing.assert_array_equal(got, np.concatenate(alone))


@given(batch=st.integers(1, 5), axis=st.integers(1, 2), first=st.booleans())
def test_joined_constants_follow_the_batch(batch: int, axis: int, first: bool) -> None:
    shape = (1, 2, 3)
    constant = np.arange(6, dtype=np.float32).reshape(shape)
    joined = tuple(2 * size if place == axis else size for place, size in enumerate(shape))
    names = ("k", "x") if first else ("x", "k")
    graph = graph_of(Op("join", "concat", names, ("y",), {"axis": axis}), {"x": shape, "y": joined}, {"k": constant})
    x = np.random.default_rng(batch).standard_normal((batch, 2, 3)).astype(np.float32)
    got = run_float(graph, {"x": x})["y"]
    for sample in range(batch):
        parts = {"x": x[sample : sample + 1], "k": constant}
        np.testing.assert_array_equal(got[sample : sample + 1], np.concatenate([parts[n] for n in names], axis=axis))


@given(value=st.floats(-5, 5, width=32), scale=st.sampled_from([0.01, 0.02, 0.05]), zero=st.integers(-128, 127))
def test_int8_padding_holds_the_nearest_code_of_its_value(value: float, scale: float, zero: int) -> None:
    of = Quantization((float(np.float32(scale)),), zero)
    attributes = {"pads": (0, 1, 0, 2), "mode": "constant", "value": value}
    graph = graph_of(Op("p", "pad", ("x",), ("y",), attributes), {"x": (1, 4), "y": (1, 7)}, {}, of)
    codes = np.array([[-128, -1, 0, 127]], np.int8)
    got = run_quantized(graph, {"x": codes}, "ort")["y"]
    np.testing.assert_array_equal(got[0, 1:5], codes[0])
    fill = dequantize(got, of)[0, 0]
    reachable = dequantize(np.arange(-128, 128, dtype=np.int8), of)
    assert abs(fill - value) <= np.abs(reachable - value).min() + 1e-5 * scale
    assert (got[0, [0, 5, 6]] == quantize_array(value, of)).all()


def test_a_misshapen_input_is_named_with_what_is_taken() -> None:
    graph = graph_of(Op("r", "reshape", ("x",), ("y",), {"shape": (12,)}), {"x": (1, 3, 4), "y": (12,)}, {})
    with pytest.raises(ModelError, match=r"input 'x' has shape \[2, 4, 3\], the network takes \[1, 3, 4\]"):
        run_float(graph, {"x": np.zeros((2, 4, 3))})
    with pytest.raises(ModelError, match="no value for input 'x'"):
        run_float(graph, {})
