"""Legal networks at the corners of what the machine addresses, and what is told where it ends."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from designs import FAMILY
from random_networks import NetworkDraw, random_values

from accelerators.systolic import chooser
from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.hardware import SystolicHardware
from accelerators.systolic.layer import Layer, layer_of
from accelerators.systolic.reduction import direct
from accelerators.systolic.tiling import MAX_REUSE, ORDERS, Tiling, grid
from dse.backend import Decisions
from dse.core.errors import InfeasibleError, ModelError
from dse.ir import Graph, Quantization, Tensor
from dse.ir.reference import run_quantized
from dse.program.tile.checker import check
from dse.program.tile.program import HostStep
from dse.sim import simulate_a, simulate_c

HW = SystolicHardware(rows=4, columns=4, vector_lanes=2)
NO_PADS = (0, 0, 0, 0)


def draw(seed: int = 0, weight_bits: int = 8) -> NetworkDraw:
    return NetworkDraw(np.random.default_rng(seed), weight_bits)


def lowered(graph: Graph, hw: SystolicHardware = HW, **decisions: object) -> SystolicExecutable:
    executable = FAMILY.lower(graph, hw, Decisions(decisions))
    assert isinstance(executable, SystolicExecutable)
    return executable


def assert_right(graph: Graph, hw: SystolicHardware = HW, **decisions: object) -> SystolicExecutable:
    """Values of the reference, in a random order too; a clean check; one number of cycles."""
    executable = lowered(graph, hw, **decisions)
    inputs = random_values(np.random.default_rng(1), graph)
    expected = run_quantized(graph, inputs, hw.requantize)
    for order in (None, 3):
        found = executable.run(inputs, order_seed=order)
        for name in graph.outputs:
            np.testing.assert_array_equal(found[name], expected[name])
    for step in executable.program.tile_steps:
        assert check(step, executable.program.machine, executable.program.memory_bytes) == []
    timing = executable.task_graph()
    assert executable.estimate().cycles == simulate_a(timing).total_cycles == simulate_c(timing).total_cycles
    return executable


def shapes_only(graph: Graph) -> Graph:
    """The same network before quantization."""
    tensors = {name: Tensor(name, tensor.shape, "float32", None, tensor.data) for name, tensor in graph.tensors.items()}
    return replace(graph, tensors=tensors)


def test_a_pixel_that_a_padded_conv_and_a_dense_layer_read_is_found_inside_its_border() -> None:
    net = draw()
    pixel = net.global_pool(net.input((2, 8, 3, 3)))
    assert_right(net.graph(net.conv(pixel, 5), net.gemm(net.flatten(pixel), 3)))


def test_rows_that_a_reshape_regroups_reach_the_dense_layer_behind_it() -> None:
    net = draw()
    x = net.input((4, 6))
    rows = net._op("reshape", (x,), (2, 12), net.quantization(x), {"shape": (2, 12)})
    other = net._op("reshape", (x,), (8, 3), net.quantization(x), {"shape": (8, 3)})
    assert_right(net.graph(net.gemm(rows, 5), net.gemm(other, 7), net.gemm(x, 2)))


def test_a_reshape_of_a_flattened_pixel_regroups_values_not_bytes_of_the_border() -> None:
    net = draw()
    pixel = net.global_pool(net.input((4, 6, 3, 3)))
    flat = net.flatten(pixel)
    rows = net._op("reshape", (flat,), (2, 12), net.quantization(flat), {"shape": (2, 12)})
    assert_right(net.graph(net.gemm(rows, 5), net.conv(pixel, 3)))


@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_weights_that_outlast_a_semaphore_are_loaded_again(dataflow: str) -> None:
    """One weight tile for more than 127 pixel tiles: credits for two of them would overflow 8 bits."""
    net = draw()
    graph = net.graph(net.conv(net.input((1, 3, 96, 96)), 4, (1, 1), pads=NO_PADS))
    executable = assert_right(graph, HW.model_copy(update={"accumulator_kib": 0.25, "dataflow": dataflow}))
    (tiles,) = executable.grids
    assert tiles is not None
    assert tiles.totals["n"] * tiles.totals["y"] * tiles.totals["x"] > MAX_REUSE
    assert tiles.loads("w") > 1
    assert tiles.reuse("w") <= MAX_REUSE
    counted = executable.counts[0]["memory_bytes:weight"]
    assert counted == tiles.loads("w") * tiles.tiling.n * tiles.tiling.k * 4 * 8  # a word of 4 bytes takes a beat of 8


def test_an_activation_tile_that_outlasts_a_semaphore_is_loaded_again() -> None:
    """One activation tile for more than 127 blocks of channels."""
    net = draw()
    graph = net.graph(net.gemm(net.input((1, 4)), 600))
    hw = HW.model_copy(update={"weight_kib": 0.03125, "parameter_channels": 1024, "accumulator_kib": 0.03125})
    executable = assert_right(graph, hw)
    (tiles,) = executable.grids
    assert tiles is not None
    assert tiles.totals["n"] == 150
    assert tiles.reuse("a") <= MAX_REUSE


@pytest.mark.parametrize(
    ("shape", "kernel", "strides"),
    [
        ((1, 16, 9, 700), (3, 1), (300, 1)),  # a row stride of 300 lines leaves 16 bits, but is never taken
        ((1, 8, 1000, 3), (1, 3), (999, 1)),
        ((2, 5, 30, 30), (2, 2), (17, 29)),
    ],
)
def test_strides_far_beyond_the_kernel_compile(shape, kernel, strides) -> None:
    net = draw()
    graph = net.graph(net.conv(net.input(shape), 4, kernel, strides=strides, pads=NO_PADS))
    assert_right(graph, HW.model_copy(update={"activation_kib": 64.0, "clock_mhz": 200.0}))


@pytest.mark.parametrize("requantize", ["q31", "ort"])
def test_residual_adds_of_every_kind_of_operand(requantize: str) -> None:
    """A graph input, the conv's own input, a tensor with itself, two graph inputs, two convs, an output used inside."""
    net = draw(2)
    x, other = net.input((2, 4, 6, 6)), net.input((2, 4, 6, 6))
    first = net.conv(x, 4)
    plus_input = net.add(first, other, "relu")
    second = net.conv(plus_input, 4, (1, 1), pads=NO_PADS)
    plus_own = net.add(plus_input, second)
    twice = net.add(plus_own, plus_own)
    left, right = net.conv(twice, 4), net.conv(twice, 4, (1, 1), pads=NO_PADS)
    graph = net.graph(net.add(left, right, "relu"), net.add(x, other), plus_own, x)
    executable = assert_right(graph, HW.model_copy(update={"requantize": requantize}))
    fused = sum(isinstance(item, Layer) and item.add is not None for item in executable.work)
    assert fused == (3 if requantize == "q31" else 0)


def test_a_conv_that_someone_else_reads_or_that_is_an_output_is_not_fused_away() -> None:
    net = draw()
    x = net.input((1, 4, 5, 5))
    seen, read = net.conv(x, 4), net.conv(x, 4)
    graph = net.graph(net.add(seen, x), seen, net.add(read, x), net.conv(read, 3))
    executable = assert_right(graph)
    assert not any(isinstance(item, Layer) and item.add is not None for item in executable.work)


def test_weights_of_fewer_bits_than_the_array_multiplies_run_but_not_of_more() -> None:
    net = draw(weight_bits=4)
    middle = net.conv(net.input((1, 5, 6, 6)), 6)
    net.weight_bits = 8
    mixed = net.graph(net.conv(middle, 3))
    assert_right(mixed)
    with pytest.raises(ModelError, match="weights of 8 bits, the array multiplies 4-bit"):
        lowered(mixed, HW.model_copy(update={"weight_bits": 4}))


@pytest.mark.parametrize("names", ["", "same"])
def test_ops_need_no_names_of_their_own(names: str) -> None:
    net = draw()
    x = net.input((1, 4, 8, 8))
    graph = net.graph(net.add(net.conv(net.conv(x, 6), 4, (1, 1), pads=NO_PADS), x))
    assert_right(replace(graph, ops=tuple(replace(op, name=names) for op in graph.ops)))


def test_networks_without_a_layer_run_on_the_host_alone() -> None:
    net = draw()
    x = net.input((3, 4, 5, 5))
    executable = assert_right(net.graph(net.max_pool(x), x))
    assert executable.estimate().executed_macs == 0
    nothing = draw()
    assert assert_right(nothing.graph(nothing.input((3, 4)))).estimate().cycles == 0


def test_shapes_alone_give_the_time_and_energy_of_the_quantized_network() -> None:
    net = draw()
    x = net.input((1, 4, 9, 9))
    graph = net.graph(net.add(net.conv(x, 4), x))
    quantized, bare = lowered(graph), lowered(shapes_only(graph))
    assert quantized.counts == bare.counts
    assert quantized.counts[0]["adds"] > 0
    assert quantized.estimate().summary() == bare.estimate().summary()
    with pytest.raises(ModelError, match="to run values, quantize all of it"):
        bare.run({"in0": np.zeros((1, 4, 9, 9), np.int8)})


def test_inputs_that_are_not_int8_are_refused_rather_than_wrapped() -> None:
    net = draw()
    executable = lowered(net.graph(net.conv(net.input((1, 3, 4, 4)), 2)))
    with pytest.raises(ModelError, match=r"'in0' must be int8, got float64; quantize_input\(\)"):
        executable.run({"in0": np.full((1, 3, 4, 4), 300.7)})
    with pytest.raises(ModelError, match=r"'in0' needs shape \(1, 3, 4, 4\), got \(3, 4, 4\)"):
        executable.run({"in0": np.zeros((3, 4, 4), np.int8)})
    with pytest.raises(ModelError, match="got nothing"):
        executable.run({})


def test_sums_that_may_leave_32_bits_are_refused_and_those_that_just_fit_are_right() -> None:
    depth = 66_311  # 127 * 255 * depth = 2**31 - 1_913
    hw = HW.model_copy(update={"rows": 32, "columns": 2, "activation_kib": 64.0, "clock_mhz": 100.0})

    def network(bias: int) -> Graph:
        net = draw(3)
        y = net.gemm(net.input((1, depth)), 1)
        net.tensors["in0"] = replace(net.tensors["in0"], quantization=Quantization((0.01,), -128))
        net.tensors["w0"] = replace(net.tensors["w0"], data=np.full((1, depth), 127, np.int8))
        net.tensors["b0"] = Tensor("b0", (1,), "int32", None, np.array([bias], np.int32))
        net.ops[0] = replace(net.ops[0], inputs=("in0", "w0", "b0"))
        net.tensors[y] = replace(net.tensors[y], quantization=Quantization((1e5,), 0))
        return net.graph(y)

    room = 2**31 - 1 - 127 * 255 * depth
    assert 0 < room < 10_000
    graph = network(room)
    inputs = {"in0": np.full((1, depth), 127, np.int8)}
    found = lowered(graph, hw).run(inputs)
    assert found == run_quantized(graph, inputs, "q31")
    with pytest.raises(ModelError, match=f"sum of channel 0 may reach {2**31}, beyond the 32 bits"):
        lowered(network(room + 1), hw)


def test_what_has_no_lowering_is_named() -> None:
    net = draw()
    x = net.input((1, 4, 5))
    net.tensors["w"] = Tensor("w", (3, 4, 2), "int8", net.quantization(x), np.zeros((3, 4, 2), np.int8))
    attributes = {"strides": (1,), "pads": (0, 0), "dilations": (1,), "groups": 1}
    y = net._op("conv", (x, "w"), (1, 3, 4), net.quantization(x), attributes)
    with pytest.raises(ModelError, match=re.escape("'conv0' reads a tensor of shape [1, 4, 5]")):
        lowered(net.graph(y))


def test_a_product_of_two_activations_is_a_named_host_operation_with_the_references_values() -> None:
    net = draw()
    a, b = net.input((3, 4)), net.input((4, 5))
    graph = net.graph(net._op("matmul", (a, b), (3, 5), net.quantization(a), {}))
    executable = assert_right(graph)
    (step,) = (step for step in executable.program.steps if isinstance(step, HostStep))
    assert (step.name, executable.host_op(step).kind) == ("matmul0", "matmul")


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"vector_lanes": 3}, "vector_lanes"),
        ({"memory_bytes_per_cycle": 6}, "memory_bytes_per_cycle"),
        ({"clock_mhz": 4000.0}, "clock_mhz"),
        ({"weight_kib": 0.0625}, "weight_kib"),
        ({"activation_kib": 0.0625}, "activation_kib"),
        ({"parameter_channels": 4}, "parameter_channels"),
        ({"descriptors": 4}, "descriptors"),
    ],
)
def test_designs_that_cannot_run_a_network_name_the_limit(changes: dict[str, object], limit: str) -> None:
    net = draw()
    graph = net.graph(net.conv(net.input((1, 64, 12, 12)), 30, (5, 5), pads=(2, 2, 2, 2)))
    with pytest.raises(InfeasibleError, match=limit) as caught:
        lowered(graph, HW.model_copy(update=changes), gather=False)
    assert all(violation.excess > 0 for violation in caught.value.violations)


def test_a_network_beyond_the_address_space_is_infeasible() -> None:
    net = draw()
    graph = shapes_only(net.graph(net.conv(net.input((1, 300, 4000, 4000)), 4, (1, 1), pads=NO_PADS)))
    with pytest.raises(InfeasibleError, match=r"memory: .*bytes against a bound of 4\.29"):
        lowered(graph, HW.model_copy(update={"activation_kib": 64.0, "clock_mhz": 100.0}))


def test_loops_that_nest_too_deep_are_told_as_such() -> None:
    """Every dimension needs a loop: batch, channels, rows, columns and more than three chunks of the reduction."""
    net = draw()
    graph = net.graph(net.conv(net.input((3, 64, 9, 9)), 16, (1, 1), pads=NO_PADS))
    hw = SystolicHardware(
        rows=2, columns=2, vector_lanes=2, activation_kib=0.02, weight_kib=0.008, accumulator_kib=0.03
    )
    with pytest.raises(InfeasibleError, match="tile loops: 5 levels against a bound of 4 levels"):
        lowered(graph, hw)


def test_loads_of_a_candidate_are_those_of_its_grid() -> None:
    """The chooser's arrays and the tile grid agree on how often tiles are loaded, whatever is loaded again."""
    rng = np.random.default_rng(5)
    again = 0
    for _ in range(300):
        net = NetworkDraw(rng)
        shape = (int(rng.integers(1, 4)), int(rng.integers(1, 20)), *(int(v) for v in rng.integers(1, 60, 2)))
        net.conv(net.input(shape), int(rng.integers(1, 40)), (1, 1), pads=NO_PADS)
        layer = layer_of(net.graph("t0"), net.ops[0], "in0")
        reduction = direct(layer, 4)
        sizes = [int(rng.integers(1, most + 1)) for most in (10, *shape[2:], reduction.words)]
        tiles = grid(layer, Tiling(reduction, str(rng.choice(list(ORDERS))), *sizes), 4, 4)
        totals = {dim: np.array([count]) for dim, count in tiles.totals.items()}
        for operand in ("w", "a"):
            assert chooser._loads(totals, tiles.order, tiles.relevant(operand)).tolist() == [tiles.loads(operand)]
            assert tiles.reuse(operand) * tiles.loads(operand) == math.prod(tiles.totals.values())
            assert tiles.reuse(operand) <= MAX_REUSE
            natural = max((tiles.order.index(d) + 1 for d in tiles.relevant(operand) if tiles.totals[d] > 1), default=0)
            again += tiles.position(operand) > natural
    assert again > 5
