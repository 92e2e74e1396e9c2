"""The mapper's nest is the machine's: its traffic is the program's, its optimum that of all tilings it stands for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from builders import random_layer

from accelerators.systolic import chooser
from accelerators.systolic.chooser import choose
from accelerators.systolic.hardware import SystolicHardware, machine
from accelerators.systolic.keys import LayerKey, MachineKey
from accelerators.systolic.layer import Layer, layer_of
from accelerators.systolic.layer_price import layer_price
from accelerators.systolic.mapped import mapped_tilings, tiling_of
from accelerators.systolic.reduction import Reduction, direct, gather
from accelerators.systolic.tile_arch import Residency, tile_arch, tile_problem, tile_rules, traffic_prices
from accelerators.systolic.tiling import MAX_REUSE, ORDERS, Tiling, grid
from accelerators.systolic.work import Price
from dse.mapping import best_mapping
from dse.program.tile.isa import MemoryId
from dse.program.tile.program import Machine

HW = SystolicHardware(
    rows=4, columns=4, activation_kib=1, weight_kib=1, accumulator_kib=0.5, vector_lanes=2, memory_bytes_per_cycle=4,
    descriptors=65536,
)  # fmt: skip


def drawn(seed: int, dataflow: str, *, kind: str = "conv") -> tuple[Layer, Machine]:
    graph = random_layer(np.random.default_rng(seed), kind=kind)
    layer = layer_of(graph, graph.ops[0], "x")
    return layer, machine(HW.model_copy(update={"dataflow": dataflow}))


def priced(layer: Layer, target: Machine, tiling: Tiling) -> Price:
    price = layer_price(LayerKey(layer), MachineKey(target), tiling)
    assert price is not None
    return price


def fitting(layer: Layer, target: Machine, reduction: Reduction) -> list[Tiling]:
    """Every tiling of divisors in both orders whose tiles fit halves of their memories and are not loaded again."""
    blocks = -(-layer.out_channels // target.columns)
    extents = (blocks, layer.out_height, layer.out_width, reduction.words)
    lists = [[n for n in range(1, extent + 1) if extent % n == 0] for extent in extents]
    found = []
    for order, (n, y, x, k) in itertools.product(ORDERS, itertools.product(*lists)):
        tiling = Tiling(reduction, order, n, y, x, k)
        height, width = (
            (size - 1) * layer.strides[axis] + (layer.kernel[axis] - 1) * layer.dilations[axis] + 1
            for axis, size in enumerate((y, x))
        )
        words = {
            MemoryId.ACTIVATION: y * x * k if reduction.gather else height * width * k,
            MemoryId.WEIGHT: n * k * target.rows * reduction.kernel[0] * reduction.kernel[1],
            MemoryId.ACCUMULATOR: n * y * x,
        }
        tiles = grid(layer, tiling, target.rows, target.columns)
        reuse = max(tiles.reuse("a"), tiles.reuse("w"))
        if all(words[memory] <= target.half(memory) for memory in words) and reuse <= MAX_REUSE:
            found.append(tiling)
    return found


@pytest.mark.parametrize("dataflow", ["ws", "os"])
@pytest.mark.parametrize("seed", range(8))
def test_no_tiling_of_divisors_moves_fewer_bytes_than_the_mapper_finds(seed: int, dataflow: str) -> None:
    layer, target = drawn(seed, dataflow)
    for reduction in filter(None, (direct(layer, 4), gather(layer, 4))):
        tilings = fitting(layer, target, reduction)
        rules, arch = tile_rules(layer, target, Residency()), tile_arch(layer, reduction, target, Residency())
        if not tilings:
            continue
        found = best_mapping(
            tile_problem(layer, reduction, target), arch, "energy", constraints=rules, energy=traffic_prices(arch)
        )
        tiling = tiling_of(found.mapping, layer, reduction, target)
        bytes_moved = priced(layer, target, tiling).bytes
        least = min(priced(layer, target, other).bytes for other in tilings)
        # activation words of few channels take fewer beats: the nest knows their mean, the program each one
        assert bytes_moved <= least * (1 if layer.in_channels % 4 == 0 else 1.02)


@pytest.mark.parametrize("dataflow", ["ws", "os"])
@pytest.mark.parametrize("seed", range(12))
def test_the_nest_never_promises_more_cycles_than_the_program_takes(seed: int, dataflow: str) -> None:
    layer, target = drawn(seed, dataflow)
    reduction = direct(layer, 4)
    arch = tile_arch(layer, reduction, target, Residency())
    found = best_mapping(
        tile_problem(layer, reduction, target), arch, "latency", energy=traffic_prices(arch),
        constraints=tile_rules(layer, target, Residency()),
    )  # fmt: skip
    tiling = tiling_of(found.mapping, layer, reduction, target)
    assert found.cost.compute_cycles <= priced(layer, target, tiling).cycles
    passes = reduction.folds * -(-layer.out_channels // 4) * layer.pixels
    assert found.cost.compute_cycles == passes


@pytest.mark.parametrize("objective", ["latency", "traffic", "balanced"])
@pytest.mark.parametrize(("seed", "kind"), [(s, k) for s in range(8) for k in ("conv", "grouped", "gemm")])
def test_the_mapper_only_ever_improves_the_program(
    seed: int, kind: str, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, target = drawn(seed, "ws", kind=kind)
    chooser._choose.cache_clear()
    with_mapper = priced(layer, target, choose(layer, target, objective, True))
    chooser._choose.cache_clear()
    monkeypatch.setattr(chooser, "mapped_tilings", lambda *_: [])
    without = priced(layer, target, choose(layer, target, objective, True))
    chooser._choose.cache_clear()

    def value(price: Price) -> tuple[int, int]:
        if objective == "traffic":
            return price.bytes, price.cycles
        return price.cycles * (price.bytes if objective == "balanced" else 1), price.bytes

    assert value(with_mapper) <= value(without)


def test_an_operand_that_fits_only_whole_is_loaded_once() -> None:
    layer, _ = drawn(3, "ws")
    reduction = direct(layer, 4)
    weights = -(-layer.out_channels // 4) * reduction.folds * 4
    tight = machine(HW.model_copy(update={"weight_kib": weights * 4 / 1024}))
    assert tight.half(MemoryId.WEIGHT) < weights <= tight.words[MemoryId.WEIGHT]
    found = mapped_tilings(layer, reduction, tight, "traffic")
    resident = [tiling for tiling in found if grid(layer, tiling, 4, 4).loads("w") == 1]
    assert resident
    assert min(priced(layer, tight, tiling).bytes for tiling in found) == min(
        priced(layer, tight, tiling).bytes for tiling in resident
    )


def test_a_layer_without_a_tile_that_fits_has_no_proposal() -> None:
    layer, _ = drawn(0, "ws")
    tiny = machine(HW.model_copy(update={"weight_kib": 0.01}))
    assert mapped_tilings(layer, direct(layer, 4), tiny, "latency") == []
