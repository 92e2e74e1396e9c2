"""What a step costs, exactly: its descriptors emitted as they would be in the program, and timed by level A."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from accelerators.systolic.emit import LayerEmitter, LayerImage
from accelerators.systolic.events import step_counts
from accelerators.systolic.keys import LayerKey, MachineKey
from accelerators.systolic.tiling import TileGrid, Tiling, grid
from accelerators.systolic.timing_graph import program_graph
from accelerators.systolic.work import Price
from dse.program.tile.isa import Descriptor
from dse.program.tile.program import Machine, TensorPlacement, TileProgram, TileStep
from dse.sim import simulate_a


@lru_cache(maxsize=4096)
def layer_price(key: LayerKey, machine_key: MachineKey, tiling: Tiling) -> Price | None:
    """Cycles and bytes of a layer on its own; None when its queues outgrow descriptor memory."""
    layer, machine = key.layer, machine_key.machine
    layer_grid: TileGrid = grid(layer, tiling, machine.rows, machine.columns)
    place = stand_in(layer.out_channels, layer.out_height, layer.out_width)
    bases = {(n.start, k.start): 0 for n in layer_grid.segments["n"] for k in layer_grid.segments["k"]}
    image = LayerImage(
        stand_in(layer.in_channels, layer.height, layer.width), place, place if layer.residual else None, bases, 0,
        {"add": 1, "add_shift": 1} if layer.add else {},
    )  # fmt: skip
    return step_price(LayerEmitter(layer_grid, machine, image, 0).emit(), machine)


def stand_in(channels: int, height: int, width: int) -> TensorPlacement:
    """A placement for pricing: neither cycles nor bytes depend on addresses."""
    return TensorPlacement("", 1 << 20, 1, channels, height, width)


def step_price(queues: Mapping[str, tuple[Descriptor, ...]], machine: Machine) -> Price | None:
    """Cycles and bytes of a step; None when a queue outgrows descriptor memory."""
    if any(len(queue) > machine.descriptors for queue in queues.values()):
        return None
    step = TileStep("", (), queues, 0, 0)
    cycles = simulate_a(program_graph(TileProgram(machine, (step,), {}, 0, None))).total_cycles
    counts = step_counts(step, machine)
    return Price(cycles, counts["memory_read_bytes"] + counts["memory_write_bytes"])
