"""The element unit in transformers: tables and adds exact, softmax and layer norm within a step of the output."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.systolic import SystolicAccelerator
from accelerators.systolic.attention import VectorLayer
from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.hardware import SystolicHardware
from dse.backend import Decisions
from dse.compiler import prepare, quantize
from dse.compiler.calibration import calibration_images
from dse.core.errors import InfeasibleError
from dse.flow.workload import load_workload
from dse.ir import Graph, Op, Quantization, Tensor
from dse.ir.reference import run_quantized
from dse.program.tile.checker import check
from dse.sim import simulate_a, simulate_c

FAMILY = SystolicAccelerator()


def tensor(name: str, shape: tuple[int, ...], rng: np.random.Generator, scale: float | None = None) -> Tensor:
    of = Quantization((float(np.float32(scale or rng.uniform(0.01, 0.1))),), int(rng.integers(-128, 128)))
    return Tensor(name, shape, "int8", of)


def one_op(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Graph:
    """A quantized graph of one op on random scales."""
    x = tensor("x", shape, rng)
    y = tensor("y", shape, rng)
    inputs, attributes, more = ["x"], {}, []
    if kind == "add":
        more, inputs, attributes = [tensor("b", shape, rng)], ["x", "b"], {"activation": "none"}
    elif kind == "softmax":
        y = Tensor("y", shape, "int8", Quantization((1 / 256,), -128))
        attributes = {"axis": len(shape) - 1, "between_reals": True}
    elif kind == "layer_norm":
        y = Tensor("y", shape, "int8", Quantization((0.03,), int(rng.integers(-20, 20))))
        values = {"gamma": rng.normal(1, 0.3, shape[-1:]), "beta": rng.normal(0, 0.2, shape[-1:])}
        more = [Tensor(n, v.shape, "float32", None, v.astype(np.float32)) for n, v in values.items()]
        inputs, attributes = ["x", "gamma", "beta"], {"axis": len(shape) - 1, "epsilon": 1e-5, "between_reals": True}
    elif kind == "gelu":
        attributes = {"approximate": "none", "between_reals": True}
    else:
        attributes = {"between_reals": True}
    tensors = {item.name: item for item in (x, y, *more)}
    names = tuple(item.name for item in (x, *more) if item.data is None)
    return Graph("one", tensors, (Op("op", kind, tuple(inputs), ("y",), attributes),), names, ("y",))


def run_both(graph: Graph, seed: int, **sizes: object) -> tuple[np.ndarray, np.ndarray, SystolicExecutable]:
    """The output of the program in a random order, and that of the reference."""
    rng = np.random.default_rng(seed)
    columns = int(rng.choice([2, 4, 8]))
    hw = SystolicHardware.model_validate({
        "rows": 4, "columns": columns, "vector_lanes": int(rng.choice([1, 2])), "state_kib": 2, "accumulator_kib": 0.5,
        "memory_bytes_per_cycle": int(rng.choice([1, 4, 16])), **sizes,
    })  # fmt: skip
    executable = FAMILY.lower(graph, hw, Decisions({"fixed_point": True}))
    assert all(isinstance(item, VectorLayer) for item in executable.work)
    for step in executable.program.tile_steps:
        assert check(step, executable.program.machine, executable.program.memory_bytes) == []
    values = {name: rng.integers(-128, 128, graph[name].shape).astype(np.int8) for name in graph.inputs}
    wanted = run_quantized(graph, values, hw.requantize)
    found = executable.run(values, order_seed=seed)
    view = executable.task_graph()
    assert simulate_a(view).total_cycles == simulate_c(view).total_cycles
    return found["y"].astype(int), wanted["y"].astype(int), executable


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["gelu", "erf", "sigmoid", "tanh", "hard_swish", "add"]))
def test_functions_of_one_value_and_adds_are_exact(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(v) for v in rng.integers(1, 12, int(rng.integers(1, 4))))
    found, wanted, _ = run_both(one_op(rng, kind, shape), seed % 1000)
    np.testing.assert_array_equal(found, wanted)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["softmax", "layer_norm"]))
def test_softmax_and_layer_norm_are_within_a_step_of_the_output(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 9)), int(rng.integers(2, 40)))
    found, wanted, _ = run_both(one_op(rng, kind, shape), seed % 1000)
    assert np.abs(found - wanted).max() <= 1


def test_rows_that_do_not_fit_are_infeasible() -> None:
    graph = one_op(np.random.default_rng(0), "layer_norm", (1, 2, 500))
    hw = SystolicHardware(rows=4, columns=4, state_kib=0.5, accumulator_kib=0.5)
    with pytest.raises(InfeasibleError, match=r"layer 'op'.*row words"):
        FAMILY.lower(graph, hw, Decisions({"fixed_point": True}))


@cache
def encoder() -> tuple[Graph, dict[str, np.ndarray]]:
    graph = prepare(load_workload("zoo:encoder_tiny", Path()))
    quantized = quantize(graph, calibration_images(graph, 2, 0))
    rng = np.random.default_rng(4)
    return quantized, {name: rng.integers(-128, 128, quantized[name].shape).astype(np.int8) for name in graph.inputs}


def test_a_transformer_encoder_compiles_bit_for_bit_and_leaves_the_host_less_with_an_element_unit() -> None:
    graph, values = encoder()
    wanted = run_quantized(graph, values, "q31")
    sizes = {"rows": 16, "columns": 16, "weight_kib": 64, "activation_kib": 32, "accumulator_kib": 32,
             "parameter_channels": 512, "vector_lanes": 8}  # fmt: skip
    left = {}
    for state in (0, 16):
        executable = FAMILY.lower(graph, SystolicHardware.model_validate({**sizes, "state_kib": state}), Decisions())
        found = executable.run(values)
        for name in graph.outputs:
            np.testing.assert_array_equal(found[name], wanted[name])
        left[state] = {layer.kind for layer in executable.estimate().layers if layer.kind.startswith("host")}
    assert left[0] - left[16] == {"host add", "host div", "host erf"}
    hw = SystolicHardware.model_validate({**sizes, "state_kib": 16})
    fixed = FAMILY.lower(graph, hw, Decisions({"fixed_point": True}))
    kinds = {layer.kind for layer in fixed.estimate().layers}
    assert {"softmax", "layer_norm"} <= kinds
    assert not {"host softmax", "host layer_norm"} & kinds
    difference = fixed.run(values)[graph.outputs[0]].astype(int) - wanted[graph.outputs[0]]
    # two layers hand their differences of a step on
    assert np.abs(difference).mean() < 2
