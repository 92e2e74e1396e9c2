"""Pools, concatenations, sums, products and tables of maps on the element unit: values, safety, time and bytes."""

from __future__ import annotations

from collections import Counter

import numpy as np
from designs import FAMILY, random_hardware
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_networks import random_network, random_values

from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.hardware import SystolicHardware
from accelerators.systolic.maps import MapLayer
from accelerators.systolic.partition import HostOp
from dse.backend import Decisions
from dse.core.errors import InfeasibleError
from dse.ir import Graph, Op, Quantization, Tensor
from dse.ir.reference import run_quantized
from dse.program.tile.checker import check
from dse.program.tile.isa import MemoryId, Opcode
from dse.sim import simulate_a, simulate_c

seeds = st.integers(0, 2**32 - 1)
KINDS = ("max_pool", "average_pool", "global_average_pool", "concat", "relu", "sigmoid", "add", "mul")


def map_tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...], like: Tensor | None = None) -> Tensor:
    """An int8 map on random scales, or on those of another."""
    if like is not None:
        return Tensor(name, shape, "int8", like.quantization)
    scale = float(np.float32(rng.choice([0.0625, rng.uniform(0.01, 0.1)])))
    return Tensor(name, shape, "int8", Quantization((scale,), int(rng.choice([-128, rng.integers(-128, 128)]))))


def one_map_op(rng: np.random.Generator, kind: str) -> Graph:
    """A quantized graph of one op on maps, and a trivial pool behind it."""
    batch, channels = int(rng.integers(1, 3)), int(rng.integers(1, 20))
    height, width = int(rng.integers(1, 24)), int(rng.integers(1, 24))
    x = map_tensor(rng, "x", (batch, channels, height, width))
    operands, shape, attributes = [x], x.shape, {}
    if kind in ("max_pool", "average_pool"):
        kernel = tuple(int(rng.integers(1, min(4, size) + 1)) for size in (height, width))
        strides = tuple(int(value) for value in rng.integers(1, 4, 2))
        pads = tuple(int(rng.integers(0, kernel[i % 2])) for i in range(4)) if kind == "max_pool" else (0, 0, 0, 0)
        out = [(s + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i, s in enumerate((height, width))]
        shape = (batch, channels, *out)
        attributes = {"kernel": kernel, "strides": strides, "pads": pads, "count_include_pad": False}
    elif kind == "global_average_pool":
        shape = (batch, channels, 1, 1)
    elif kind == "concat":
        parts = int(rng.integers(1, 4))
        operands += [map_tensor(rng, f"x{i}", (batch, int(rng.integers(1, 20)), height, width)) for i in range(parts)]
        shape = (batch, sum(item.shape[1] for item in operands), height, width)
        attributes = {"axis": 1}
    elif kind in ("add", "mul"):
        single = bool(rng.random() < 0.3)
        operands.append(map_tensor(rng, "b", (batch, channels, 1, 1) if single else x.shape))
        attributes = {"activation": "none"} if kind == "add" else {}
        if single and rng.random() < 0.5:
            operands.reverse()
    keeps = kind in ("max_pool", "relu") or (kind == "concat" and rng.random() < 0.2)
    y = map_tensor(rng, "y", shape, like=x if keeps else None)
    if kind == "concat" and keeps:
        operands = [map_tensor(rng, item.name, item.shape, like=x) for item in operands]
    names = tuple(item.name for item in operands)
    tensors = {item.name: item for item in (*operands, y)}
    tensors["z"] = map_tensor(rng, "z", y.shape, like=y)
    # a pool of one pixel behind it: without any, tensors of four axes would lie row by row
    one = {"kernel": (1, 1), "strides": (1, 1), "pads": (0, 0, 0, 0)}
    ops = (Op("op", kind, names, ("y",), attributes), Op("end", "max_pool", ("y",), ("z",), one))
    return Graph("maps", tensors, ops, names, ("y", "z"))


def element_hardware(rng: np.random.Generator) -> SystolicHardware:
    """A small design with an element unit whose memories hold a few pixels, or many."""
    return random_hardware(rng, state_kib=1.0, accumulator_kib=float(rng.choice([0.25, 0.5, 2])))


def compiled(seed: int) -> tuple[Graph, SystolicExecutable]:
    rng = np.random.default_rng(seed)
    hw = element_hardware(rng)
    graph = one_map_op(rng, str(rng.choice(KINDS)))
    executable = FAMILY.lower(graph, hw, Decisions())
    assert isinstance(executable, SystolicExecutable)
    return graph, executable


@settings(max_examples=150, deadline=None)
@given(seed=seeds, order=seeds)
def test_ops_on_maps_equal_the_reference_in_any_legal_order_and_check_clean(seed: int, order: int) -> None:
    graph, executable = compiled(seed)
    inputs = random_values(np.random.default_rng(order), graph)
    expected = run_quantized(graph, inputs, executable.hw.requantize)
    found = executable.run(inputs, order_seed=order)
    for name in graph.outputs:
        np.testing.assert_array_equal(found[name], expected[name])
    for step in executable.program.tile_steps:
        assert check(step, executable.program.machine, executable.program.memory_bytes) == []


@settings(max_examples=80, deadline=None)
@given(seed=seeds)
def test_levels_agree_and_every_byte_that_is_needed_moves(seed: int) -> None:
    _, executable = compiled(seed)
    item = executable.work[0]
    assume(isinstance(item, MapLayer))
    assert isinstance(item, MapLayer)
    view = executable.task_graph()
    fast, slow = simulate_a(view), simulate_c(view)
    np.testing.assert_array_equal(fast.start, slow.start)
    np.testing.assert_array_equal(fast.end, slow.end)
    layer = executable.metrics(fast).layers[0]
    assert layer.memory_bytes >= layer.compulsory_bytes
    assert layer.useful_macs == layer.executed_macs == 0
    written = sum(row.write_bytes for row in layer.traffic if row.level == "memory")
    assert written >= item.elements
    assert min(layer.energy_pj.values()) >= 0


def test_what_the_element_unit_takes_and_what_it_leaves_to_the_host_with_a_reason() -> None:
    """Largest values, tables and parts of a concatenation always go there; what stays says why."""
    seen: Counter[str] = Counter()
    for seed in range(300):
        graph, executable = compiled(seed)
        item = executable.work[0]
        kind = graph.ops[0].kind
        if isinstance(item, HostOp):
            seen[f"{kind} on the host"] += 1
            assert item.reason
            assert kind in ("average_pool", "global_average_pool", "add", "mul") or "fit" in item.reason, item.reason
            continue
        assert isinstance(item, MapLayer)
        seen[kind] += 1
        step = executable.program.tile_steps[0]
        loads = [d for d in step.queues["load"] if d.op == Opcode.LOAD]
        seen["padding"] += any(d["memory"] == MemoryId.RESIDUAL and not d["ext_stride2"] and d["n1"] * d["n2"] > 1
                               for d in loads)  # fmt: skip
        seen["loop"] += any(d.op == Opcode.LOOP for d in step.queues["load"])
        seen["one pixel for all"] += any(item.broadcast)
        seen["batch"] += item.batch > 1
        seen["moved without a table"] += kind == "concat" and not any(d["memory"] == MemoryId.TABLE for d in loads)
    wanted = (*KINDS, "padding", "loop", "one pixel for all", "batch", "moved without a table",
              "average_pool on the host")  # fmt: skip
    assert all(seen[name] >= 2 for name in wanted), seen


@settings(max_examples=40, deadline=None)
@given(seed=seeds, order=seeds)
def test_whole_networks_with_an_element_unit_equal_the_reference(seed: int, order: int) -> None:
    rng = np.random.default_rng(seed)
    hw = random_hardware(
        rng, activation_kib=8.0, weight_kib=float(rng.choice([2, 8])), state_kib=1.0, parameter_channels=256
    )
    graph = random_network(seed, weight_bits=hw.weight_bits)
    decisions = Decisions({"prefetch": "auto", "fuse_layers": str(rng.choice(["off", "auto"]))})
    try:
        executable = FAMILY.lower(graph, hw, decisions)
    except InfeasibleError:
        assume(False)
    inputs = random_values(np.random.default_rng(order), graph)
    expected = run_quantized(graph, inputs, hw.requantize)
    found = executable.run(inputs, order_seed=order)
    for name in graph.outputs:
        np.testing.assert_array_equal(found[name], expected[name])
    plain = FAMILY.lower(graph, hw.model_copy(update={"state_kib": 0.0}), decisions)
    assert sum(isinstance(item, HostOp) for item in executable.work) <= sum(
        isinstance(item, HostOp) for item in plain.work
    )
