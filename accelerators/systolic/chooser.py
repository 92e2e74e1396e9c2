"""Choice of a tiling per layer: a bounded search over tile sizes and orders, and what the exact mapper proposes.

Every candidate of the search is priced in closed form, all at once: busy cycles of each engine (edge tiles included,
same formulas as the simulator) and bytes over the memory port; the estimate of latency is the busiest engine plus the
parts that cannot overlap. The mapper's optimum (`mapped.py`) covers all divisors and knows the least traffic; where it
differs and the closed form does not rule it out, both programs are timed by level A and the better one is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from accelerators.systolic.keys import LayerKey, MachineKey
from accelerators.systolic.layer import Layer
from accelerators.systolic.layer_price import layer_price
from accelerators.systolic.mapped import mapped_tilings
from accelerators.systolic.reduction import (
    Reduction,
    block_channel_words,
    direct,
    direct_runs,
    gather,
    gather_runs,
)
from accelerators.systolic.tile_arch import words_per_block
from accelerators.systolic.tiling import MAX_REUSE, ORDERS, Tiling, activation_words
from accelerators.systolic.timing import matmul_cycles
from dse.core.errors import InfeasibleError, Violation
from dse.program.tile.isa import LOOP_DEPTH, MemoryId
from dse.program.tile.program import Machine
from dse.program.tile.timing import ISSUE_CYCLES, load_cycles, store_cycles
from dse.program.tile.timing_vector import vector_cycles

IntArray = npt.NDArray[np.int64]

OBJECTIVES = ("latency", "traffic", "balanced")
_MAX_CHOICES = 12
#: The closed form is within some percent of level A (tests/unit/systolic/test_tiling.py): what it puts further from
#: its best than this is not timed.
_MARGIN = 1.1
#: A choice proven this close to the best is not searched for a better one.
_GAIN = 1.01

#: Tile sizes (n, y, x, k) of many candidates, flat.
Sizes = tuple[IntArray, IntArray, IntArray, IntArray]


def tile_sizes(extent: int) -> list[int]:
    """Sizes that split `extent` into 1, 2, 3, 4, 6, 8, ... near-equal tiles, at most `_MAX_CHOICES` of them."""
    sizes = {extent, 1}
    parts = 2
    while parts < extent and len(sizes) < _MAX_CHOICES:
        sizes.add(-(-extent // parts))
        if parts % 2 == 0 and parts > 2:
            sizes.add(-(-extent // (parts * 3 // 2)))
        parts *= 2
    return sorted(sizes)


def choose(layer: Layer, machine: Machine, objective: str, gather_allowed: bool) -> Tiling:
    """The best tiling of a layer for an objective ("latency", "traffic" or their product, "balanced").

    Raises
    ------
    InfeasibleError: not even the smallest tile fits; names the memory.
    """
    key = MachineKey(machine)
    return _choose(layer.shape_key(), LayerKey(layer), key, objective, gather_allowed)


@lru_cache(maxsize=4096)
def _choose(_: object, layer_key: LayerKey, key: MachineKey, objective: str, gather_allowed: bool) -> Tiling:
    layer, machine = layer_key.layer, key.machine
    reductions = [direct(layer, machine.rows)]
    gathered = gather(layer, machine.rows) if gather_allowed else None
    if gathered is not None:
        reductions.append(gathered)
    best: tuple[float, float, Tiling] | None = None
    for reduction in reductions:
        for order in ORDERS:
            found = _best_of(layer, machine, reduction, order, objective)
            if found is not None and (best is None or found[:2] < best[:2]):
                best = found
    if best is None:
        violations = _smallest_tile_violations(layer, machine, reductions)
        raise InfeasibleError(f"layer {layer.name!r} does not fit", violations)
    if min(reduction.folds for reduction in reductions) < reductions[0].folds:
        promising = reductions
    else:
        # gathered words that save no pass only cost traffic
        promising = reductions[:1]
    chosen = best[2]
    if best[0] <= _GAIN * min(_least(layer, machine, reduction, objective) for reduction in promising):
        return chosen
    for reduction in promising:
        for proposed in mapped_tilings(layer, reduction, machine, objective):
            if proposed != chosen and _worth_timing(layer, machine, proposed, objective, best[0]):
                chosen = _better(layer_key, key, chosen, proposed, objective)
    return chosen


def _least(layer: Layer, machine: Machine, reduction: Reduction, objective: str) -> float:
    """What no tiling comes below: a pass a cycle, and each touched byte moved once at the width of the port."""
    blocks = -(-layer.out_channels // machine.columns)
    depth = reduction.kernel[0] * reduction.kernel[1] * words_per_block(layer, reduction, machine)
    moved = layer.compulsory_bytes(machine.weight_bits)
    cycles = max(blocks * depth * layer.pixels, layer.input_bytes() / machine.memory_bytes_per_cycle)
    return {"latency": cycles, "traffic": moved, "balanced": cycles * moved}[objective]


def _worth_timing(layer: Layer, machine: Machine, tiling: Tiling, objective: str, least: float) -> bool:
    """Whether the descriptors can express a tiling, at a closed-form value near the least one."""
    n, y, x, k = (np.array([size], np.int64) for size in (tiling.n, tiling.y, tiling.x, tiling.k))
    found = _scored(layer, machine, tiling.reduction, tiling.order, (n, y, x, k), objective)
    return found is not None and float(found[1][0][0]) <= least * _MARGIN


def _better(layer: LayerKey, machine: MachineKey, first: Tiling, second: Tiling, objective: str) -> Tiling:
    """The tiling whose program is better by level A; the first when they are equal."""
    values = []
    for tiling in (first, second):
        price = layer_price(layer, machine, tiling)
        if price is None:
            values.append((math.inf, math.inf))
        elif objective == "traffic":
            values.append((price.bytes, price.cycles))
        else:
            weight = price.bytes if objective == "balanced" else 1
            values.append((price.cycles * weight, price.bytes))
    return second if values[1] < values[0] else first


def _candidates(layer: Layer, machine: Machine, reduction: Reduction) -> Sizes:
    """Tile sizes (n, y, x, k) of all candidates, flat."""
    if layer.groups > 1:
        blocks = -(-layer.out_channels // machine.columns)
        words = max(block_channel_words(layer, block, machine.rows, machine.columns)[1] for block in range(blocks))
        n_sizes, k_sizes = [1], [words]
    else:
        n_sizes, k_sizes = tile_sizes(-(-layer.out_channels // machine.columns)), tile_sizes(reduction.words)
    y_sizes, x_sizes = tile_sizes(layer.out_height), tile_sizes(layer.out_width)
    mesh = np.meshgrid(*(np.array(s, np.int64) for s in (n_sizes, y_sizes, x_sizes, k_sizes)), indexing="ij")
    n, y, x, k = (axis.ravel() for axis in mesh)
    return n, y, x, k


def _best_of(
    layer: Layer, machine: Machine, reduction: Reduction, order: str, objective: str
) -> tuple[float, float, Tiling] | None:
    found = _scored(layer, machine, reduction, order, _candidates(layer, machine, reduction), objective)
    if found is None:
        return None
    (n, y, x, k), scores = found
    pick = int(np.lexsort((scores[1], scores[0]))[0])
    tiling = Tiling(reduction, order, int(n[pick]), int(y[pick]), int(x[pick]), int(k[pick]))
    return float(scores[0][pick]), float(scores[1][pick]), tiling


def _scored(
    layer: Layer, machine: Machine, reduction: Reduction, order: str, sizes: Sizes, objective: str
) -> tuple[Sizes, tuple[npt.NDArray[Any], IntArray]] | None:
    """Those of the candidates that the machine can run, with what the objective compares first and second."""
    n, y, x, k = sizes
    blocks = -(-layer.out_channels // machine.columns)
    grouped = layer.groups > 1
    total_words = int(k[0]) if grouped else reduction.words
    t_n, t_y, t_x = -(-blocks // n), -(-layer.out_height // y), -(-layer.out_width // x)
    t_k = -(-total_words // k)
    totals = {"n": t_n, "b": np.full_like(n, layer.batch), "y": t_y, "x": t_x, "k": t_k}
    w_loads = _loads(totals, ORDERS[order], {"n", "k"})
    a_loads = _loads(totals, ORDERS[order], {"b", "y", "x", "k"} | ({"n"} if grouped else set()))
    fits = _fits(layer, machine, reduction, sizes, w_loads, a_loads, t_n * layer.batch * t_y * t_x)
    looped_n = np.zeros_like(n) if grouped else (blocks // n > 1).astype(np.int64)
    levels = looped_n + (layer.batch > 1) + (layer.out_height // y > 1) + (layer.out_width // x > 1) + (t_k > 3)
    fits &= levels <= LOOP_DEPTH
    if not fits.any():
        return None
    keep = np.flatnonzero(fits)
    kept = n[keep], y[keep], x[keep], k[keep]
    cycles, traffic = _price(layer, machine, reduction, kept, w_loads[keep], a_loads[keep], total_words)
    if objective == "latency":
        return kept, (cycles, traffic)
    if objective == "traffic":
        return kept, (traffic, cycles)
    return kept, (cycles.astype(np.float64) * traffic, cycles)


def _loads(totals: Mapping[str, IntArray], order: Sequence[str], relevant: Set[str]) -> IntArray:
    """How many tiles of an operand each candidate loads: `TileGrid.loads` for all of them at once."""
    inside = np.ones_like(totals["k"])
    for dim in reversed(order):
        inside = inside * totals[dim]
    loads, reuse = np.ones_like(inside), inside
    for position, dim in enumerate(order):
        # the load moves into this loop when a loop from here on changes the tile, or the tile would be used too often
        changes = np.zeros(inside.shape, np.bool_)
        for later in order[position:]:
            if later in relevant:
                changes |= totals[later] > 1
        moves = changes | (reuse > MAX_REUSE)
        loads = np.where(moves, loads * totals[dim], loads)
        reuse = inside // loads
    return loads


def _fits(
    layer: Layer,
    machine: Machine,
    reduction: Reduction,
    sizes: Sizes,
    w_loads: IntArray,
    a_loads: IntArray,
    outputs: IntArray,
) -> npt.NDArray[np.bool_]:
    """Whether the tiles fit; an operand loaded only once may use both halves of its memory."""
    n, y, x, k = sizes

    def capacity(memory: MemoryId, loads: IntArray) -> IntArray:
        return np.where(loads > 1, machine.half(memory), machine.words[memory])

    kernel = reduction.kernel[0] * reduction.kernel[1]
    weights = n * kernel * k * machine.rows
    if reduction.gather:
        activations = y * x * k
    else:
        activations = _extent(layer, y, 0) * _extent(layer, x, 1) * k
    result: npt.NDArray[np.bool_] = (
        (weights <= capacity(MemoryId.WEIGHT, w_loads))
        & (activations <= capacity(MemoryId.ACTIVATION, a_loads))
        & (n * y * x <= capacity(MemoryId.ACCUMULATOR, outputs))
    )
    return result


def _extent(layer: Layer, outputs: IntArray, axis: int) -> IntArray:
    return (outputs - 1) * layer.strides[axis] + (layer.kernel[axis] - 1) * layer.dilations[axis] + 1


def _parts(extent: int, tile: IntArray) -> Iterable[tuple[IntArray, IntArray]]:
    """(count, size) of full and edge tiles along one dimension."""
    yield extent // tile, tile
    yield (extent % tile > 0).astype(np.int64), extent % tile


def _price(
    layer: Layer,
    machine: Machine,
    reduction: Reduction,
    sizes: Sizes,
    w_loads: IntArray,
    a_loads: IntArray,
    total_words: int,
) -> tuple[IntArray, IntArray]:
    """Estimated cycles and bytes over the memory port of each candidate."""
    n, y, x, k = sizes
    port = machine.memory_bytes_per_cycle
    blocks = -(-layer.out_channels // machine.columns)
    kernel = reduction.kernel[0] * reduction.kernel[1]
    matmul, vector = np.zeros_like(n), np.zeros_like(n)
    store_beats = np.zeros_like(n)
    per_word = -(-min(machine.columns, layer.out_channels) // port)
    for count_y, size_y in _parts(layer.out_height, y):
        for count_x, size_x in _parts(layer.out_width, x):
            pixels = np.maximum(size_y * size_x, 1)
            for count_n, size_n in _parts(blocks, n):
                tiles = layer.batch * count_y * count_x * count_n
                depth = np.maximum(size_n, 1)
                vector += tiles * (ISSUE_CYCLES + vector_cycles(depth, pixels, machine))
                store_beats += tiles * size_n * size_y * size_x * per_word
                for count_k, size_k in _parts(total_words, k):
                    busy = matmul_cycles(depth, np.maximum(kernel * size_k, 1), pixels, machine)
                    matmul += tiles * count_k * (ISSUE_CYCLES + busy)
    t_pix = layer.batch * -(-layer.out_height // y) * -(-layer.out_width // x)
    t_out = t_pix * -(-blocks // n)
    t_k = -(-total_words // k)
    a_beats, a_runs = _activation_beats(layer, machine, reduction, y, x)
    a_passes = np.maximum(a_loads // np.maximum(t_pix * t_k, 1), 1)
    if layer.groups > 1:
        a_passes = np.ones_like(a_loads)  # each block loads its own channels
    weight_tiles = -(-blocks // n) * t_k
    w_passes = np.maximum(w_loads // weight_tiles, 1)
    w_words = blocks * kernel * total_words * machine.rows
    w_beats = w_words * w_passes * -(-machine.word_bytes[MemoryId.WEIGHT] // port)
    residual = store_beats if layer.residual else np.zeros_like(store_beats)
    overhead = ISSUE_CYCLES + int(load_cycles(0, 1, machine))
    descriptors = a_loads * a_runs + w_loads + (t_out if layer.residual else 0)
    load_beats = a_beats * a_passes + w_beats + residual
    load = load_beats + overhead * descriptors
    store = store_beats + (ISSUE_CYCLES + int(store_cycles(0, 1, machine))) * t_out
    # not overlapped: the first tiles' load, the last tile's vector and store
    head = a_beats // np.maximum(t_pix * t_k, 1) + w_beats // np.maximum(w_loads, 1) + 2 * overhead
    tail = vector // np.maximum(t_out, 1) + store // np.maximum(t_out, 1)
    cycles = np.maximum(np.maximum(matmul, load), np.maximum(vector, store)) + head + tail
    return cycles, (load_beats + store_beats) * port


def _activation_beats(
    layer: Layer, machine: Machine, reduction: Reduction, y: IntArray, x: IntArray
) -> tuple[IntArray, int]:
    """Beats of loading every activation tile once, and load descriptors per tile."""
    port = machine.memory_bytes_per_cycle
    if reduction.gather:
        runs = gather_runs(layer, machine.rows, 0, reduction.words)
    else:
        runs = direct_runs(layer, machine.rows, 0, reduction.words)
    per_pixel = sum(run.words * -(-run.bytes // port) for run in runs)
    if reduction.gather:
        return np.full_like(y, layer.pixels * per_pixel), len(runs)
    rows, columns = np.zeros_like(y), np.zeros_like(x)
    for count, size in _parts(layer.out_height, y):
        rows += count * np.where(size > 0, _extent(layer, size, 0), 0)
    for count, size in _parts(layer.out_width, x):
        columns += count * np.where(size > 0, _extent(layer, size, 1), 0)
    return layer.batch * rows * columns * per_pixel, len(runs)


def _smallest_tile_violations(layer: Layer, machine: Machine, reductions: Sequence[Reduction]) -> list[Violation]:
    """Which memory cannot hold even one block, one output pixel and one activation word; of the first reduction."""
    broken = [_too_small(layer, machine, reduction) for reduction in reductions]
    if all(broken):
        return broken[0]
    # the smallest tile fits, but its loops nest too deep
    hint = f"layer {layer.name!r} needs tiles as wide, high or deep as the layer: larger memories"
    return [Violation("tile loops", LOOP_DEPTH + 1, LOOP_DEPTH, "levels", hint)]


def _too_small(layer: Layer, machine: Machine, reduction: Reduction) -> list[Violation]:
    k = 1
    if layer.groups > 1:
        blocks = -(-layer.out_channels // machine.columns)
        k = max(block_channel_words(layer, block, machine.rows, machine.columns)[1] for block in range(blocks))
    needs = (
        (MemoryId.WEIGHT, "weight_kib", reduction.kernel[0] * reduction.kernel[1] * k * machine.rows),
        (MemoryId.ACTIVATION, "activation_kib", activation_words(layer, reduction, 1, 1, k)),
        (MemoryId.ACCUMULATOR, "accumulator_kib", 1),
    )
    violations = []
    for memory, name, words in needs:
        if words > machine.half(memory):
            size = 2 * words * machine.word_bytes[memory] / 1024
            have = machine.words[memory] * machine.word_bytes[memory] / 1024
            violations.append(Violation(name, have, size, "KiB", f"smallest tile of {layer.name!r}"))
    return violations
