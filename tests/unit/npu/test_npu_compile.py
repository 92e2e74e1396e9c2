"""What the NPU's compiler refuses, shares, overlaps and counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import random_layer
from npu_designs import random_npu
from random_networks import NetworkDraw, random_network
from recurrent_networks import recurrent_graph

from accelerators.npu import NpuAccelerator
from accelerators.npu.executable import NpuExecutable
from accelerators.npu.graph import KINDS
from accelerators.npu.hardware import NpuHardware, machine
from accelerators.npu.layer import ConvLayer, HostOp, partition
from accelerators.npu.placement import place_tensors
from accelerators.npu.tiles import choose_tiling, input_extent
from accelerators.npu.weights import VANISHING_SCALE, pack_parameters, streams
from dse.backend import Decisions
from dse.compiler import prepare
from dse.core.errors import InfeasibleError, ModelError
from dse.flow.workload import load_workload
from dse.ir import Graph
from dse.ir.requantize import requantize
from dse.program.tile.isa import MemoryId
from dse.sim import simulate_a

FAMILY = NpuAccelerator()


def compiled(graph: Graph, decisions: Decisions | None = None, **changes: object) -> NpuExecutable:
    return FAMILY.lower(graph, NpuHardware.model_validate(changes), decisions or Decisions())


def chain(layers: int) -> Graph:
    draw = NetworkDraw(np.random.default_rng(1))
    x = draw.input((1, 16, 8, 8))
    for _ in range(layers):
        x = draw.conv(x, 16)
    return Graph("chain", draw.tensors, tuple(draw.ops), tuple(draw.inputs), (x,))


@pytest.mark.parametrize("seed", range(30))
def test_tensors_that_are_needed_together_never_share_bytes(seed: int) -> None:
    graph = random_network(seed)
    placed = place_tensors(graph, partition(graph, fuse_add=True))
    assert placed.bound <= placed.peak
    for a in placed.regions:
        for b in placed.regions:
            if a.name < b.name and a.first <= b.last and b.first <= a.last:
                assert a.base + a.bytes <= b.base or b.base + b.bytes <= a.base


@pytest.mark.parametrize("seed", range(30))
def test_tilings_fit_their_memories_and_cover_the_layer_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph, hw = random_layer(rng), random_npu(rng, weight_kib=16.0, activation_kib=16.0, accumulator_kib=8.0)
    layer = partition(graph, fuse_add=False).work[0]
    assert isinstance(layer, ConvLayer)
    target = machine(hw)
    tiling = choose_tiling(layer, hw, target, sparse=False, encoded_share=1.0, buffers=2)
    words = tiling.k * (tiling.n if tiling.diagonal_blocks else 1)
    area = input_extent(layer, tiling.y, 0) * input_extent(layer, tiling.x, 1)
    assert area * words <= target.half(MemoryId.ACTIVATION)
    assert tiling.n * tiling.y * tiling.x <= target.half(MemoryId.ACCUMULATOR)
    for block in range(tiling.blocks):
        first, count = tiling.block_words(block)
        covered = sorted(
            word
            for tile in tiling.weight_tiles()
            if tile.block <= block < tile.block + tile.blocks
            for word in range(tile.word, tile.word + tile.words)
        )
        offset = first - covered[0] if tiling.diagonal_blocks else 0
        assert [word + offset for word in covered] == list(range(first, first + count))
    for extent, size in ((layer.out_height, tiling.y), (layer.out_width, tiling.x)):
        assert [i for low, length in tiling.spans(extent, size) for i in range(low, low + length)] == list(
            range(extent)
        )


@pytest.mark.parametrize("seed", range(12))
def test_plain_streams_hold_every_weight_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph, hw = random_layer(rng), random_npu(rng, weight_kib=16.0, activation_kib=16.0, accumulator_kib=8.0)
    layer = partition(graph, fuse_add=False).work[0]
    assert isinstance(layer, ConvLayer)
    tiling = choose_tiling(layer, hw, machine(hw), sparse=False, encoded_share=1.0, buffers=2)
    found = streams(layer, tiling, None, encode=True, sparse=False).values()
    assert sum(stream.weights for stream in found) == layer.weights
    assert all(0 <= stream.bytes - stream.weights < 16 for stream in found)


def test_weights_of_the_next_layer_come_in_before_this_one_ends() -> None:
    executable = compiled(chain(3), constant_bytes_per_cycle=1)
    timeline = simulate_a(executable.task_graph())
    ends = executable.layer_ends(timeline)
    graph = timeline.graph
    for layer in (1, 2):
        first = timeline.start[(graph.layer == layer) & (graph.kind == KINDS.index("weights"))].min()
        inputs = timeline.start[(graph.layer == layer) & (graph.kind == KINDS.index("load"))].min()
        assert first < ends[layer - 1] < inputs


def test_without_latency_hiding_nothing_loads_while_the_array_works() -> None:
    executable = compiled(chain(2), Decisions({"latency_hiding": False}), dma_channels=1, accumulator_kib=1)
    timeline = simulate_a(executable.task_graph())
    kinds = timeline.graph.kind
    loads = np.isin(kinds, [KINDS.index("load"), KINDS.index("weights")]) & (timeline.end > timeline.start)
    work = kinds == KINDS.index("matmul")
    for start, end in zip(timeline.start[work], timeline.end[work], strict=True):
        during = loads & (timeline.start < end) & (timeline.end > start)
        # parameters of a layer have buffers of their own
        assert during.sum() <= 1


def test_faster_constants_speed_up_a_weight_bound_network() -> None:
    graph = prepare(load_workload("zoo:autoencoder", Path()))
    shared = {"constant_bytes_per_cycle": 1, "parameter_channels": 1024, "weight_kib": 32}
    slow = compiled(graph, **shared).estimate().cycles
    fast = compiled(graph, **{**shared, "constant_bytes_per_cycle": 8}).estimate().cycles
    assert fast < slow / 2


def test_a_small_descriptor_memory_cuts_the_network_into_steps_with_the_same_values() -> None:
    graph = chain(4)
    whole = compiled(graph)
    longest = max(len(queue) for step in whole.program.tile_steps for queue in step.queues.values())
    cut = compiled(graph, descriptors=longest - 1)
    assert len(whole.program.tile_steps) < len(cut.program.tile_steps)
    inputs = {"in0": np.random.default_rng(0).integers(-128, 128, (1, 16, 8, 8)).astype(np.int8)}
    for name, values in whole.run(inputs).items():
        np.testing.assert_array_equal(values, cut.run(inputs)[name])


def test_channels_whose_scale_vanishes_requantize_to_zero_for_every_sum() -> None:
    hw = machine(NpuHardware())
    scales = np.array([VANISHING_SCALE / 2, 0.01], np.float32)
    table = pack_parameters("layer", hw, np.zeros(2, np.int64), scales)
    fields = table.view([("bias", "<i4"), ("multiplier", "<u4"), ("shift", "i1")])[:2]
    sums = np.array([[-(2**31)], [2**31 - 1], [0]], np.int64)
    multiplier, shift = (np.array([int(fields[name][0])], np.int64) for name in ("multiplier", "shift"))
    assert not requantize(sums, multiplier, shift, 0, -128, 127, "q31").any()


def test_recurrent_layers_that_the_family_lacks_are_named() -> None:
    rng = np.random.default_rng(0)
    sizes = (3, 1, 4, 4)
    for graph, match in (
        (recurrent_graph(rng, "gru", sizes), "systolic"),
        (recurrent_graph(rng, "lstm", sizes, direction="reverse"), "forward"),
        (recurrent_graph(rng, "lstm", sizes, outputs=("y", "yc")), "cell state"),
    ):
        with pytest.raises(ModelError, match=match):
            compiled(graph, state_kib=4)
    with pytest.raises(InfeasibleError, match="state_kib"):
        compiled(recurrent_graph(rng, "lstm", sizes))
    with pytest.raises(InfeasibleError, match="weight_spad"):
        compiled(
            recurrent_graph(rng, "lstm", (3, 1, 400, 400)), state_kib=64, accumulator_kib=64, parameter_channels=4096
        )


def test_wrong_inputs_and_networks_without_values_are_refused() -> None:
    graph = chain(1)
    with pytest.raises(ModelError, match="must be int8, got float64"):
        compiled(graph).run({"in0": np.zeros((1, 16, 8, 8))})
    shapes = prepare(load_workload("zoo:tiny_cnn", Path()))
    timed = compiled(shapes)
    assert timed.estimate().cycles > 0
    with pytest.raises(ModelError, match="time and energy only"):
        timed.run({name: np.zeros(shapes[name].shape, np.int8) for name in shapes.inputs})


def test_what_the_array_does_not_do_is_a_named_host_operation() -> None:
    graph = prepare(load_workload("zoo:ds_cnn", Path()))
    work = partition(graph, fuse_add=True).work
    kinds = [item.op.kind for item in work if isinstance(item, HostOp)]
    assert kinds == ["average_pool", "softmax"] or kinds == ["global_average_pool", "softmax"]
    metrics = compiled(graph).estimate()
    assert [layer.kind for layer in metrics.layers if layer.kind.startswith("host")] == [f"host {k}" for k in kinds]
    assert metrics.useful_macs == sum(item.macs for item in work if not isinstance(item, HostOp))
