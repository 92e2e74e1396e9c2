"""Tilings that the exact mapper finds optimal for a layer on a machine, by its nest of array passes (`tile_arch.py`).

Operands are double-buffered; where one fits its memory whole, but not half of it, a second search leaves it there.
"""

from __future__ import annotations

from accelerators.systolic.layer import Layer
from accelerators.systolic.reduction import Reduction
from accelerators.systolic.tile_arch import (
    DIMS,
    Residency,
    tile_arch,
    tile_problem,
    tile_rules,
    traffic_prices,
    words_per_block,
)
from accelerators.systolic.tiling import Tiling, activation_words
from dse.core.errors import InfeasibleError
from dse.mapping import Mapping, best_mapping
from dse.program.tile.isa import MemoryId
from dse.program.tile.program import Machine

#: What the mapper minimises for an objective of the family; energy is traffic here.
_OBJECTIVES = {"latency": "latency", "traffic": "energy", "balanced": "edp"}


def mapped_tilings(layer: Layer, reduction: Reduction, machine: Machine, objective: str) -> list[Tiling]:
    """The mapper's optima for an objective, one for every choice of operands that lie on chip whole.

    Empty where the smallest tile of divisors does not fit.
    """
    found = []
    for resident in _residencies(layer, reduction, machine):
        mapping = _optimum(layer, reduction, machine, objective, resident)
        if mapping is not None:
            found.append(tiling_of(mapping, layer, reduction, machine))
    return list(dict.fromkeys(found))


def tiling_of(mapping: Mapping, layer: Layer, reduction: Reduction, machine: Machine) -> Tiling:
    """The tiling that a mapping of the layer's nest stands for: what its loops at memory leave of every dim."""
    problem = tile_problem(layer, reduction, machine)
    outer = dict(mapping.temporal[0].loops)
    size = {dim: bound // outer.get(dim, 1) for dim, bound in zip(DIMS, problem.bounds, strict=True)}
    order = [dim for dim, _ in mapping.temporal[0].loops]
    pixels = [order.index(dim) for dim in ("b", "y", "x") if dim in order]
    pixels_outer = "n" in order and pixels and pixels[0] < order.index("n")
    return Tiling(
        reduction, "pixels_outer" if pixels_outer else "channels_outer", size["n"], size["y"], size["x"], size["k"]
    )


def _residencies(layer: Layer, reduction: Reduction, machine: Machine) -> list[Residency]:
    """Nothing on chip whole, and each operand that fits its whole memory but not a half."""
    kernel = reduction.kernel[0] * reduction.kernel[1]
    per_block = kernel * words_per_block(layer, reduction, machine) * machine.rows
    weights = -(-layer.out_channels // machine.columns) * per_block
    activations = layer.batch * activation_words(
        layer, reduction, layer.out_height, layer.out_width, words_per_block(layer, reduction, machine)
    )
    found = [Residency()]
    if machine.half(MemoryId.WEIGHT) < weights <= machine.words[MemoryId.WEIGHT]:
        found.append(Residency(weights=True))
    if layer.groups == 1 and machine.half(MemoryId.ACTIVATION) < activations <= machine.words[MemoryId.ACTIVATION]:
        found.append(Residency(activations=True))
    return found


def _optimum(
    layer: Layer, reduction: Reduction, machine: Machine, objective: str, resident: Residency
) -> Mapping | None:
    arch = tile_arch(layer, reduction, machine, resident)
    try:
        return best_mapping(
            tile_problem(layer, reduction, machine),
            arch,
            _OBJECTIVES[objective],
            constraints=tile_rules(layer, machine, resident),
            energy=traffic_prices(arch),
        ).mapping
    except InfeasibleError:
        return None
