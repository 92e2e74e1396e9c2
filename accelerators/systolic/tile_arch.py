"""A layer and a machine in the words of the tile program, for the exact mapper: what one tile may be, and its price.

A loop nest over blocks of output channels (n), images (b), output rows and columns (y, x), activation words (k) and
kernel positions (r, s); one iteration is one array pass over one pixel. A level's word is what its operand has there:
an activation word of `rows` channels, a block of `rows` weight words, a row of the accumulators. Memory moves beats of
its port. So capacities, beats and passes are those of the machine, padding of ragged channels included. What the nest
does not show (descriptors' issue, edge tiles of the array, the vector unit, the way out of the array) the chooser adds.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelerators.systolic.layer import Layer
from accelerators.systolic.reduction import Reduction, block_channel_words, direct_runs, gather_runs
from accelerators.systolic.tiling import ORDERS
from dse.arch import Arch, Compute, MemoryLevel
from dse.mapping import AccessEnergy, Constraints, Problem, TensorAccess
from dse.program.tile.isa import MemoryId
from dse.program.tile.program import Machine
from dse.program.tile.timing import ISSUE_CYCLES, load_cycles

DIMS = ("n", "b", "y", "x", "k", "r", "s")
_N, _B, _Y, _X, _K, _R, _S = range(7)


@dataclass(frozen=True)
class Residency:
    """Operands that are loaded once and may therefore fill both halves of their memory."""

    weights: bool = False
    activations: bool = False


def tile_problem(layer: Layer, reduction: Reduction, machine: Machine) -> Problem:
    """The loop nest of a layer's array passes under a reduction."""
    window: tuple[tuple[tuple[int, int], ...], ...] = (((_Y, 1),), ((_X, 1),))
    if not reduction.gather:
        window = tuple(
            ((out, layer.strides[axis]), (inner, layer.dilations[axis]))
            for axis, (out, inner) in enumerate(((_Y, _R), (_X, _S)))
        )
    # the blocks of a grouped layer read channels of their own
    own = (((_N, 1),),) if layer.groups > 1 else ()
    return Problem(
        "layer",
        DIMS,
        (
            -(-layer.out_channels // machine.columns), layer.batch, layer.out_height, layer.out_width,
            words_per_block(layer, reduction, machine), *reduction.kernel,
        ),
        (
            TensorAccess("weights", "weight", (((_N, 1),), ((_K, 1),), ((_R, 1),), ((_S, 1),))),
            TensorAccess("activations", "input", (*own, ((_B, 1),), *window, ((_K, 1),))),
            TensorAccess("sums", "output", (((_N, 1),), ((_B, 1),), ((_Y, 1),), ((_X, 1),))),
        ),
    )  # fmt: skip


def words_per_block(layer: Layer, reduction: Reduction, machine: Machine) -> int:
    """Activation words over which a block of output channels reduces."""
    if layer.groups == 1:
        return reduction.words
    blocks = -(-layer.out_channels // machine.columns)
    return max(block_channel_words(layer, block, machine.rows, machine.columns)[1] for block in range(blocks))


def tile_arch(layer: Layer, reduction: Reduction, machine: Machine, resident: Residency) -> Arch:
    """The machine's levels for a layer: memory, a scratchpad per operand, and the array where weights rest (ws)."""
    port = machine.memory_bytes_per_cycle
    beat = 8 * port
    runs = (gather_runs if reduction.gather else direct_runs)(layer, machine.rows, 0, reduction.words)
    activation_bits = max(1, round(beat * sum(run.words * -(-run.bytes // port) for run in runs) / reduction.words))
    weight_bits = beat * machine.rows * -(-machine.word_bytes[MemoryId.WEIGHT] // port)
    output_bits = beat * -(-min(machine.columns, layer.out_channels) // port)
    memory = MemoryLevel(
        name="memory",
        word_bits=beat,
        read_words_per_cycle=1,
        write_words_per_cycle=1,
        transfer_cycles=ISSUE_CYCLES + int(load_cycles(0, 1, machine)),
        energy_class="dram",
    )
    bits = {"input": activation_bits, "weight": weight_bits, "output": output_bits}
    words = {
        "input": machine.words[MemoryId.ACTIVATION] * (2 if resident.activations else 1),
        "weight": machine.words[MemoryId.WEIGHT] / machine.rows * (2 if resident.weights else 1),
        "output": machine.words[MemoryId.ACCUMULATOR],
    }
    partitions = {role: max(1, int(words[role] * bits[role] / 8)) for role in words}
    scratchpads = MemoryLevel.model_validate(
        {
            "name": "scratchpads", "word_bits": 8, "shared": False, "double_buffered": True, "window_reuse": False,
            "capacity_bytes": max(partitions.values()), "partitions": partitions,
        }
    )  # fmt: skip
    levels = [memory, scratchpads]
    if machine.dataflow == "ws":
        # a pass needs its block's weights once, a weight word a cycle
        array = {
            "name": "array", "word_bits": weight_bits, "capacity_bytes": -(-weight_bits // 8), "holds": ["weight"],
            "write_words_per_cycle": 1 / machine.rows, "window_reuse": False,
        }  # fmt: skip
        levels.append(MemoryLevel.model_validate(array))
    compute = Compute(input_bits=activation_bits, weight_bits=weight_bits, accumulator_bits=output_bits)
    return Arch(name=f"tiles_{machine.dataflow}", clock_mhz=1, levels=tuple(levels), compute=compute)


def tile_rules(layer: Layer, machine: Machine, resident: Residency) -> Constraints:
    """What the descriptors can express: all operands have one tile, loops around tiles come in two orders.

    Kernel positions lie inside a tile, images outside; in ws the array keeps a block's weights during its pixels.
    """
    outer = {"n", "b", "y", "x", "k"}
    if layer.groups > 1:
        outer -= {"k"}
    if resident.weights:
        outer -= {"n", "k"}
    if resident.activations:
        outer -= {"b", "y", "x", "k"} | ({"n"} if layer.groups > 1 else set())
    inner = {"n", "k", "r", "s"} - ({"n"} if layer.groups > 1 else set())
    if machine.dataflow == "os":
        inner |= {"y", "x"}
    loops = {"memory": frozenset(outer), "scratchpads": frozenset(inner)}
    if machine.dataflow == "ws":
        loops["array"] = frozenset({"y", "x"})
    return Constraints(loops=loops, order={"memory": tuple(ORDERS.values())})


def traffic_prices(arch: Arch) -> AccessEnergy:
    """A beat of the memory port costs 1, nothing else does: energy is traffic."""
    beats = tuple(float(level.name == "memory") for level in arch.levels)
    return AccessEnergy(beats, beats, 0.0)
