"""What the exact mapper adds to the systolic compiler's own choice of tilings: cycles and bytes by level A, CPU time.

python benchmarks/tilings.py [zoo:MODEL ...]
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

from accelerators.systolic import chooser
from accelerators.systolic.chooser import choose
from accelerators.systolic.hardware import SystolicHardware, machine
from accelerators.systolic.keys import LayerKey, MachineKey
from accelerators.systolic.layer import Layer
from accelerators.systolic.layer_price import layer_price
from accelerators.systolic.partition import partition
from accelerators.systolic.tiling import Tiling
from accelerators.systolic.work import Price
from dse.flow.workload import load_workload
from dse.program.tile.program import Machine

#: Rows and columns, KiB of activations, weights and accumulators, lanes, bytes a cycle.
SIZES = {"8x8": (8, 16, 16, 8, 4, 8), "16x16": (16, 128, 128, 64, 16, 16), "32x32": (32, 64, 128, 64, 32, 16)}


def main(models: list[str]) -> None:
    """Print a line per model, size and objective."""
    for model in models:
        graph = load_workload(model, Path())
        for name, (side, activations, weights, sums, lanes, port) in SIZES.items():
            hw = SystolicHardware(
                rows=side, columns=side, activation_kib=activations, weight_kib=weights, accumulator_kib=sums,
                vector_lanes=lanes, memory_bytes_per_cycle=port, parameter_channels=2048, descriptors=1024,
            )  # fmt: skip
            layers = [item for item in partition(graph, fuse_residual=True).work if isinstance(item, Layer)]
            for objective in ("latency", "traffic"):
                _compare(model, name, layers, machine(hw), objective)


def _compare(model: str, name: str, layers: list[Layer], target: Machine, objective: str) -> None:
    shapes = {layer.shape_key(): layer for layer in layers}
    number = Counter(layer.shape_key() for layer in layers)
    proposals = chooser.mapped_tilings
    chooser.mapped_tilings = lambda *_: []
    without, spent_without = _choose_all(shapes, target, objective)
    chooser.mapped_tilings = proposals
    with_mapper, spent = _choose_all(shapes, target, objective)
    before = _total(shapes, number, target, without)
    after = _total(shapes, number, target, with_mapper)
    better = sum(with_mapper[key] != without[key] for key in shapes)
    sys.stdout.write(
        f"{model:18} {name:6} {objective:8} {better:2} of {len(shapes)} layers by the mapper: "
        f"{before.cycles:,} -> {after.cycles:,} cycles ({100 * (after.cycles / before.cycles - 1):+.2f} %), "
        f"{before.bytes:,} -> {after.bytes:,} bytes ({100 * (after.bytes / before.bytes - 1):+.2f} %); "
        f"{1e3 * spent_without:.0f} -> {1e3 * spent:.0f} CPU ms\n"
    )


def _choose_all(
    shapes: dict[tuple[object, ...], Layer], target: Machine, objective: str
) -> tuple[dict[tuple[object, ...], Tiling], float]:
    # the first round compiles, or loads what was compiled before
    for _ in range(2):
        chooser._choose.cache_clear()
        layer_price.cache_clear()
        begin = time.process_time()
        chosen = {key: choose(layer, target, objective, True) for key, layer in shapes.items()}
        spent = time.process_time() - begin
    return chosen, spent


def _total(
    shapes: dict[tuple[object, ...], Layer],
    number: Counter[tuple[object, ...]],
    target: Machine,
    chosen: dict[tuple[object, ...], Tiling],
) -> Price:
    cycles = moved = 0
    for key, layer in shapes.items():
        price = layer_price(LayerKey(layer), MachineKey(target), chosen[key])
        if price is None:
            raise SystemExit(f"{layer.name}: the queues of {chosen[key].describe()} outgrow descriptor memory")
        cycles += price.cycles * number[key]
        moved += price.bytes * number[key]
    return Price(cycles, moved)


if __name__ == "__main__":
    main(sys.argv[1:] or ["zoo:resnet8", "zoo:mobilenet_v2", "zoo:resnet50"])
