"""Cores on shared channels: copies and pipelines of one program, and where their cycles go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shared_graphs import core_pipelines
from test_graph_rules import pair

from dse.core.errors import UsageError
from dse.program.taskgraph import Arbitration, TaskGraph
from dse.sim import perfetto_trace, simulate_a, simulate_b, simulate_c
from dse.sim.contention import engine_losses
from dse.sim.multicore import Channels, batch_parallel, layer_parallel
from dse.sim.trace import busy_until


def layered(layers: int = 4) -> TaskGraph:
    """Load and multiply, a pair a layer, each layer's load behind the multiply of the layer before."""
    task = np.arange(2 * layers)
    layer, engine = task // 2, task % 2
    duration = np.where(engine == 0, 10 + layer, 20 + 3 * layer)
    multiply, load = task[1::2], task[0::2]
    ones = np.ones(layers, np.int64)
    # semaphore l: loaded of layer l; layers + l: layer l may load
    waits = np.concatenate(
        [np.stack([multiply, layer[1::2], ones], 1), np.stack([load, layers + layer[0::2], ones], 1)]
    )
    signals = np.concatenate(
        [np.stack([load, layer[0::2], ones], 1), np.stack([multiply[:-1], layers + 1 + layer[1:-1:2], ones[1:]], 1)]
    )
    return replace(
        pair(),
        engine=engine,
        issue_cycles=np.full(2 * layers, 2),
        duration_cycles=duration,
        waits=waits,
        signals=signals,
        initial=np.concatenate([np.zeros(layers, np.int64), [1], np.zeros(layers - 1, np.int64)]),
        layer=layer,
        kind=engine,
        resource=np.where(engine == 0, 0, -1),
        service_cycles=np.where(engine == 0, duration - 2, 0),
    )


def test_one_core_is_the_program_itself() -> None:
    graph = layered()
    alone, copied = simulate_b(graph), simulate_b(batch_parallel(graph, 1, Channels()))
    np.testing.assert_array_equal(alone.end, copied.end)
    piped = simulate_b(layer_parallel(graph, [0] * 4, 1, Channels()))
    # the control engine's go is seen one cycle after the start
    np.testing.assert_array_equal(piped.start[: graph.tasks][2:], alone.start[2:])


@pytest.mark.parametrize("cores", [2, 5])
def test_copies_differ_only_by_waiting_for_the_channel(cores: int) -> None:
    graph = layered()
    copies = batch_parallel(graph, cores, Channels())
    free = simulate_b(batch_parallel(graph, cores, Channels(count=cores)))
    shared, reference = simulate_b(copies), simulate_c(copies)
    np.testing.assert_array_equal(shared.end, reference.end)
    np.testing.assert_array_equal(free.end, np.tile(simulate_a(graph).end, cores))
    assert shared.total_cycles > free.total_cycles
    assert shared.contended_cycles().sum() > 0
    assert copies.resources == ("port",)
    assert batch_parallel(graph, cores, Channels(count=2)).resources == ("port0", "port1")


def test_resources_merge_into_one_channel() -> None:
    graph = core_pipelines(2, 4, 0, Arbitration(), channels=2)
    merged = batch_parallel(graph, 2, Channels({"dram0": "memory", "dram1": "memory"}))
    assert merged.resources == ("memory",)
    assert set(merged.resource.tolist()) == {-1, 0}
    assert simulate_b(merged).total_cycles > simulate_b(graph).total_cycles


def test_a_pipeline_runs_layers_of_different_inputs_at_once() -> None:
    graph, inputs = layered(), 12
    stages = [0, 0, 1, 1]
    one = simulate_b(layer_parallel(graph, [0] * 4, inputs, Channels()))
    two = simulate_b(layer_parallel(graph, stages, inputs, Channels(count=2)))
    np.testing.assert_array_equal(
        two.end, simulate_c(layer_parallel(graph, stages, inputs, Channels(count=2))).end
    )  # fmt: skip
    assert two.total_cycles < 0.7 * one.total_cycles
    # every input passes the layers in order, and a core takes inputs one by one
    per_input = graph.tasks
    for number in range(inputs):
        end = two.end[number * per_input : (number + 1) * per_input]
        start = two.start[number * per_input : (number + 1) * per_input]
        assert start[4] > end[:4].max()
        if number:
            before = two.end[(number - 1) * per_input : number * per_input]
            assert start[:4].min() > before[:4].max()
            assert start[4:].min() > before[4:].max()


def test_finite_buffers_hold_the_first_core_back() -> None:
    # the second core is four times as slow
    graph = layered(2)
    graph = replace(graph, duration_cycles=graph.duration_cycles * np.where(graph.layer == 1, 4, 1))
    one, few, many = (
        simulate_b(layer_parallel(graph, [0, 1], 8, Channels(count=2), buffers=buffers)) for buffers in (1, 2, 8)
    )
    first_core = graph.layer == 0
    last_input = np.arange(7 * graph.tasks, 8 * graph.tasks)[first_core]
    assert few.end[last_input].max() > 1.5 * many.end[last_input].max()
    assert few.total_cycles <= many.total_cycles + 8  # the slow core never starves
    assert one.total_cycles > 1.15 * many.total_cycles  # one buffer: the two cores take turns


def test_losses_name_contention_only_where_there_is_some() -> None:
    graph = layered()
    alone = engine_losses(simulate_b(graph), "matmul")
    assert (alone["contention"], alone["busy"]) == (0, int(graph.duration_cycles[graph.engine == 1].sum()))
    shared = simulate_b(batch_parallel(graph, 4, Channels()))
    crowded = [engine_losses(shared, f"core{core}.matmul") for core in range(4)]
    assert all(losses["busy"] == alone["busy"] for losses in crowded)
    assert sum(losses["contention"] for losses in crowded) > 0
    # what the loads lost is what the multiplies waited for beyond the program's own waits
    loads = [engine_losses(shared, f"core{core}.load")["contention"] for core in range(4)]
    assert [losses["contention"] for losses in crowded] == loads
    with pytest.raises(ValueError, match=r"'core9\.load' is no engine"):
        engine_losses(shared, "core9.load")


def test_traces_have_a_track_for_every_channel() -> None:
    timeline = simulate_b(batch_parallel(layered(), 3, Channels(count=2)))
    trace = perfetto_trace(timeline, 100.0)["traceEvents"]
    tracks = {e["tid"]: e["args"]["name"] for e in trace if e["pid"] == 2 and e["name"] == "thread_name"}
    assert tracks == {1: "port0", 2: "port1"}
    slices = [event for event in trace if event["ph"] == "X" and event["pid"] == 2]
    assert timeline.service is not None
    assert [e["args"]["start_cycle"] for e in slices] == timeline.service[:, 2].tolist()
    assert {event["name"] for event in slices} == {"core0.load", "core1.load", "core2.load"}
    tasks = [event for event in trace if event["ph"] == "X" and event["pid"] == 1]
    assert sum(e["args"]["contended_cycles"] for e in tasks) == timeline.contended_cycles().sum() > 0
    for number in range(2):
        total = busy_until(timeline, number, np.array([timeline.total_cycles]))
        mine = timeline.service[timeline.service[:, 0] == number]
        assert total[0] == (mine[:, 3] - mine[:, 2]).sum()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: batch_parallel(layered(), 0, Channels()), "0 cores; the least is 1"),
        (lambda: Channels(count=0), "0 channels; the least is 1"),
        (lambda: batch_parallel(layered(), 2, Channels({"bus": "x"})), "'bus' is no resource .* it has port"),
        (lambda: layer_parallel(layered(), [0, 1], 2, Channels()), "2 layers have a core; the program has 4"),
        (lambda: layer_parallel(layered(), [0, 0, 2, 2], 2, Channels()), "must ascend from 0 without a gap"),
        (lambda: layer_parallel(layered(), [1, 1, 0, 0], 2, Channels()), "must ascend from 0 without a gap"),
        (lambda: layer_parallel(layered(), [0] * 4, 0, Channels()), "0 inputs and 2 buffers"),
        (lambda: layer_parallel(pair(), [0, 1], 1, Channels()), "cores 0 and 1 wait for semaphore 0"),
    ],
)
def test_splits_that_cannot_be_are_refused(make: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()  # type: ignore[operator]
