"""Which layers may have 4-bit weights: chosen by what they cost, while a figure of merit stays above a floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from dse.compiler.accuracy import accuracy
from dse.compiler.calibration_ranges import Ranges
from dse.compiler.quantize import Recipe, quantize_with_ranges, weighted_layers
from dse.compiler.quantize_kinds import weight_tensors
from dse.ir.graph import Graph
from dse.ir.quantized import quantization_of

_FEW, _MANY = 4, 8


@dataclass(frozen=True)
class Assignment:
    """Weight bits by layer, and what was found on the way.

    Parameters
    ----------
    layer_bits
        For every layer with weights: 4 or 8.
    score
        Figure of merit of the whole assignment.
    alone_db
        SQNR of the network's outputs when that layer alone has 4-bit weights, dB.
    """

    layer_bits: Mapping[str, int]
    score: float
    alone_db: Mapping[str, float]


def assign_weight_bits(
    graph: Graph,
    ranges: Ranges,
    recipe: Recipe,
    images: Mapping[str, npt.NDArray[Any]],
    *,
    mode: str,
    score: Callable[[Graph], float],
    floor: float,
) -> Assignment:
    """As many 4-bit weights as keep `score` at or above `floor`: a greedy search, 2 evaluations a layer.

    Layers are tried in the order of the noise they add for each bit they save, judged one at a time; a layer whose
    turn breaks the floor keeps 8 bits.

    Parameters
    ----------
    graph, ranges, recipe
        As in `quantize_with_ranges`; layers that `recipe.layer_bits` names keep what it says.
    images
        Samples by input name on which the layers are ranked.
    mode
        Requantization, one of `dse.ir.requantize.MODES`.
    score
        Figure of merit of a quantized graph, larger is better.
    """
    fixed = dict(recipe.layer_bits)
    bits = {name: fixed.get(name, _MANY) for name in weighted_layers(graph)}
    free = [name for name in bits if name not in fixed]

    def quantized(assignment: Mapping[str, int]) -> Graph:
        return quantize_with_ranges(graph, ranges, replace(recipe, layer_bits=assignment))

    alone_db = {name: accuracy(graph, quantized({**bits, name: _FEW}), mode, images)["sqnr_db"] for name in free}
    weights = {op.name: graph[op.inputs[1]].elements for op in graph.ops if op.name in bits}
    best = score(quantized(bits))
    for name in sorted(free, key=lambda item: (10 ** (-alone_db[item] / 10) / weights[item], item)):
        trial = {**bits, name: _FEW}
        reached = score(quantized(trial))
        if reached >= floor:
            bits, best = trial, reached
    return Assignment(bits, best, alone_db)


def weight_bits_total(graph: Graph) -> int:
    """Bits of all weights of a quantized graph, biases not counted."""
    return sum(graph[name].elements * quantization_of(graph, name).bits for name in weight_tensors(graph))
