"""Recurrent layers on the array: bits of the integer reference in any engine order, one program for any length."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from recurrent_networks import element_hardware, random_recurrent, recurrent_graph

from accelerators.systolic import SystolicAccelerator
from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.hardware import SystolicHardware
from dse.backend import Decisions
from dse.compiler import prepare, quantize
from dse.compiler.calibration import calibration_images
from dse.core.errors import InfeasibleError, ModelError
from dse.flow.workload import load_workload
from dse.ir import Graph, Op, Tensor
from dse.ir.reference import run_quantized
from dse.program.tile.checker import check
from dse.program.tile.encode import encode_queue
from dse.sim import simulate_a, simulate_c

FAMILY = SystolicAccelerator()
KEYWORD = {"state_kib": 8, "parameter_channels": 512, "vector_lanes": 4}


def lowered(graph: Graph, hw: SystolicHardware) -> SystolicExecutable:
    return FAMILY.lower(graph, hw, Decisions())


def inputs_of(graph: Graph, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-128, 128, graph[name].shape).astype(np.int8) for name in graph.inputs}


def assert_exact(graph: Graph, executable: SystolicExecutable, order: int) -> None:
    values = inputs_of(graph, order)
    wanted = run_quantized(graph, values, executable.hw.requantize)
    found = executable.run(values, order_seed=order)
    for name in graph.outputs:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_programs_equal_the_integer_reference_in_random_orders(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph, hw = random_recurrent(rng), element_hardware(rng)
    try:
        executable = lowered(graph, hw)
    except InfeasibleError:
        assume(False)
    for step in executable.program.tile_steps:
        assert check(step, executable.program.machine, executable.program.memory_bytes) == []
    assert_exact(graph, executable, seed % 10_000)
    view = executable.task_graph()
    assert simulate_a(view).total_cycles == simulate_c(view).total_cycles


def test_random_layers_cover_what_they_claim() -> None:
    """Resident and streamed weights, chunks, several pieces, every kind, both GRUs, both directions."""
    seen: set[str] = set()
    for seed in range(120):
        rng = np.random.default_rng(seed)
        graph, hw = random_recurrent(rng), element_hardware(rng)
        try:
            executable = lowered(graph, hw)
        except InfeasibleError:
            continue
        op = graph.ops[0]
        seen |= {op.kind, op.attributes["direction"], hw.dataflow, hw.requantize, *graph.outputs}
        seen |= {f"linear {op.attributes['linear_before_reset']}"} if op.kind == "gru" else set()
        for step in executable.program.tile_steps:
            seen.add(step.notes["mapping"].rsplit(", ", 1)[1])
            whole = -(-op.attributes["hidden"] // hw.columns) * hw.columns
            seen |= set() if f" {whole} units a chunk" in step.notes["mapping"] else {"chunks"}
    for wanted in ("lstm", "gru", "rnn", "forward", "reverse", "bidirectional", "ws", "os", "ort", "q31", "y", "yh",
                   "linear 0", "linear 1", "weights resident", "weights streamed every step", "chunks"):  # fmt: skip
        assert wanted in seen, wanted


def test_first_states_are_constants_of_the_program() -> None:
    rng = np.random.default_rng(5)
    for kind in ("lstm", "gru", "rnn"):
        graph = quantize(
            recurrent_graph(rng, kind, (4, 2, 5, 6)), {"x": rng.normal(0, 1, (4, 2, 5)).astype(np.float32)}
        )
        states = {"h0": rng.integers(-100, 100, (1, 2, 6)).astype(np.int8),
                  "c0": rng.integers(-9000, 9000, (1, 2, 6)).astype(np.int16)}  # fmt: skip
        tensors = dict(graph.tensors) | {n: Tensor(n, v.shape, str(v.dtype), None, v) for n, v in states.items()}
        names = ("h0", "c0") if kind == "lstm" else ("h0",)
        op = replace(graph.ops[0], inputs=(*graph.ops[0].inputs[:4], "", *names))
        started = Graph("started", tensors, (op,), graph.inputs, graph.outputs)
        executable = lowered(started, SystolicHardware(rows=4, columns=4, state_kib=4))
        assert_exact(started, executable, 3)
        other = run_quantized(graph, inputs_of(graph, 3), "q31")
        assert any((other[n] != executable.run(inputs_of(started, 3))[n]).any() for n in graph.outputs)


# -- networks of the zoo -------------------------------------------------------------------------------------------


@cache
def keyword(name: str) -> Graph:
    graph = prepare(load_workload(f"zoo:{name}", Path()))
    return quantize(graph, calibration_images(graph, 2, 0))


@pytest.mark.parametrize("name", ["lstm_kws", "gru_kws", "bilstm_kws"])
@pytest.mark.parametrize(
    "sizes",
    [{"rows": 16, "columns": 16, "weight_kib": 128}, {"rows": 8, "columns": 8, "weight_kib": 16, "requantize": "ort"},
     {"rows": 4, "columns": 32, "weight_kib": 32, "dataflow": "os"}],
    ids=["16x16 resident", "8x8 streamed", "4x32 os"],
)  # fmt: skip
def test_keyword_spotters_equal_the_reference_bit_for_bit(name: str, sizes: dict[str, object]) -> None:
    graph = keyword(name)
    executable = lowered(graph, SystolicHardware.model_validate({**KEYWORD, "activation_kib": 4, **sizes}))
    assert_exact(graph, executable, 11)
    metrics = executable.estimate()
    assert metrics.useful_macs == graph.macs
    kinds = {layer.kind for layer in metrics.layers}
    assert kinds & {"lstm", "gru"}
    assert not any("host" in kind for kind in kinds if kind.endswith(("lstm", "gru")))


def keyword_cycles(**sizes: object) -> tuple[int, dict[str, float]]:
    """Cycles of a time step of the LSTM spotter, and where the array's cycles went in the whole layer."""
    hw = SystolicHardware.model_validate({**KEYWORD, "accumulator_kib": 64, "activation_kib": 16, **sizes})
    layer = next(layer for layer in lowered(keyword("lstm_kws"), hw).estimate().layers if layer.kind == "lstm")
    return layer.cycles // 49, dict(layer.losses)


def test_program_size_does_not_depend_on_the_number_of_steps() -> None:
    rng, sizes, bytes_of = np.random.default_rng(2), (2, 3, 49, 5000), set()
    for steps in sizes:
        for kind in ("lstm", "gru", "rnn"):
            graph = recurrent_graph(np.random.default_rng(7), kind, (steps, 1, 10, 12))
            values = {"x": rng.normal(0, 1, (steps, 1, 10)).astype(np.float32)}
            quantized = quantize(graph, values) if steps < 100 else graph
            hw = SystolicHardware(rows=4, columns=4, state_kib=4, weight_kib=1)
            step = lowered(quantized, hw).program.tile_steps[0]
            bytes_of.add((kind, sum(len(encode_queue(queue)) for queue in step.queues.values())))
    assert len(bytes_of) == 3, bytes_of


def test_cycles_of_a_step_fall_as_the_array_grows_until_weight_bandwidth_binds() -> None:
    resident = [keyword_cycles(rows=n, columns=n, weight_kib=128)[0] for n in (4, 8, 16, 32)]
    assert resident == sorted(resident, reverse=True)
    assert resident[0] > 5 * resident[-1]
    streamed = [keyword_cycles(rows=n, columns=n, weight_kib=16, memory_bytes_per_cycle=4) for n in (4, 8, 16, 32)]
    cycles = [item[0] for item in streamed]
    # 40,704 bytes of weights a step at 4 bytes a cycle
    assert min(cycles) >= 40_704 // 4
    shares = [losses["memory_stall"] / sum(losses.values()) for _, losses in streamed]
    assert shares[0] < 0.5 < shares[2]
    # a larger array then only reads more padding
    assert cycles[3] > 0.9 * cycles[2]


# -- what is refused -----------------------------------------------------------------------------------------------


def test_layers_that_do_not_fit_say_which_memory_and_by_how_much() -> None:
    graph = recurrent_graph(np.random.default_rng(0), "lstm", (3, 1, 8, 64))
    small = SystolicHardware(rows=4, columns=4, state_kib=0.125)
    with pytest.raises(InfeasibleError, match=r"layer 'cell'.*state_memory words"):
        lowered(graph, small)
    with pytest.raises(InfeasibleError, match=r"state_kib.*element unit"):
        lowered(graph, SystolicHardware(rows=4, columns=4))
    with pytest.raises(InfeasibleError, match="tables: 5"):
        lowered(graph, SystolicHardware(rows=4, columns=4, state_kib=4, tables=4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda op: replace(op, inputs=(*op.inputs, "lengths")), "sequence lengths"),
        (lambda op: replace(op, inputs=(*op.inputs, "", "h")), "starts from the computed state 'h'"),
        (lambda op: replace(op, inputs=(*op.inputs, "", "", "", "b")), "peepholes or coupled gates"),
        (lambda op: op.with_attributes(input_forget=1), "peepholes or coupled gates"),
    ],
    ids=["lengths", "computed state", "peepholes", "coupled"],
)
def test_what_the_cells_do_not_cover_is_refused(change: object, message: str) -> None:
    graph = recurrent_graph(np.random.default_rng(0), "lstm", (3, 1, 8, 6))
    tensors = dict(graph.tensors) | {
        "lengths": Tensor("lengths", (1,), "int64", None, np.array([2])), "h": Tensor("h", (1, 1, 6)),
    }  # fmt: skip
    op: Op = change(graph.ops[0])  # type: ignore[operator]
    changed = Graph("changed", tensors, (op,), ("x", "h"), graph.outputs)
    with pytest.raises(ModelError, match=message):
        lowered(changed, SystolicHardware(rows=4, columns=4, state_kib=4))


def test_a_cell_state_that_is_read_is_refused() -> None:
    graph = recurrent_graph(np.random.default_rng(0), "lstm", (3, 1, 8, 6), outputs=("y", "yc"))
    with pytest.raises(ModelError, match="last cell state 'yc' is read"):
        lowered(graph, SystolicHardware(rows=4, columns=4, state_kib=4))


def test_designs_with_an_element_unit_have_cases_for_the_hardware() -> None:
    graph = keyword("lstm_kws")
    executable = lowered(graph, SystolicHardware.model_validate({**KEYWORD, "weight_kib": 64}))
    assert FAMILY.rtl_gap(executable) is None
    values = inputs_of(graph)
    values |= run_quantized(graph, values, "q31", keep=True)
    cases = {case.name.split()[0]: case for case in FAMILY.verification_cases(executable, values)}
    case = cases["lstm"]
    (x,) = case.inputs.values()
    assert len(x) == 2
    # walking forwards, the piece computes what the network does
    for name, wanted in case.expected.items():
        if len(wanted.shape) == 4:
            np.testing.assert_array_equal(wanted, values[name][:2])


def test_an_element_unit_has_its_price() -> None:
    plain, more = (FAMILY.cost(SystolicHardware(state_kib=size)) for size in (0, 4))
    added = set(more.area_um2) - set(plain.area_um2)
    assert added == {"state_memory", "table_memory", "element_unit"}
    assert all(more.area_um2[name] > 0 for name in added)
    assert all(more.area_um2[name] == plain.area_um2[name] for name in plain.area_um2)
    assert sum(more.static_mw.values()) > sum(plain.static_mw.values())
    larger = FAMILY.cost(SystolicHardware(state_kib=16))
    assert larger.area_um2["state_memory"] > more.area_um2["state_memory"]
    executable = lowered(keyword("lstm_kws"), SystolicHardware.model_validate({**KEYWORD, "weight_kib": 64}))
    spent = executable.estimate().energy_pj
    assert min(spent[name] for name in added) > 0
