"""The systolic family's memory hierarchy and fabric as data, for mapping and estimates."""

from __future__ import annotations

from accelerators.systolic.hardware import SystolicHardware, machine
from accelerators.systolic.structure import ACTIVATION_BITS, partial_sum_bits
from dse.arch import Arch, Compute, MemoryLevel, SpatialAxis
from dse.arch.arch import Role
from dse.program.tile.isa import MemoryId

INPUT: frozenset[Role] = frozenset({"input"})
WEIGHT: frozenset[Role] = frozenset({"weight"})
OUTPUT: frozenset[Role] = frozenset({"output"})


def systolic_arch(hw: SystolicHardware) -> Arch:
    """A design as an Arch: DRAM, one scratchpad per role, and in each PE the register of what is stationary.

    The port has a read and a write channel of the same width. An access of a scratchpad is a word of the array's
    width, once a cycle. In ws rows reduce: partial sums merge on their way down. In os rows are output pixels,
    which share the weights of a column; accumulators are then written once per result.
    """
    weight_stationary = hw.dataflow == "ws"
    register_bits = hw.weight_bits if weight_stationary else partial_sum_bits(hw)
    port = hw.memory_bytes_per_cycle
    memory = MemoryLevel(
        name="memory", word_bits=8, read_words_per_cycle=port, write_words_per_cycle=port, energy_class="dram"
    )
    register = MemoryLevel(
        name="register",
        instances=hw.pes,
        capacity_bytes=-(-register_bits // 8),
        word_bits=register_bits,
        energy_class="register",
        holds=WEIGHT if weight_stationary else OUTPUT,
    )
    pads = _scratchpads(hw)
    rows = SpatialAxis(
        name="rows",
        size=hw.rows,
        below=pads[-1].name,
        reduces=weight_stationary,
        multicast=frozenset() if weight_stationary else WEIGHT,
    )
    columns = SpatialAxis(name="columns", size=hw.columns, below=pads[-1].name, multicast=INPUT)
    return Arch(
        name=f"systolic_{hw.dataflow}_{hw.rows}x{hw.columns}",
        clock_mhz=hw.clock_mhz,
        node_nm=hw.node_nm,
        device=hw.device,
        vdd=hw.vdd,
        prices=hw.prices,
        levels=(memory, *pads, register),
        axes=(rows, columns),
        compute=Compute(input_bits=ACTIVATION_BITS, weight_bits=hw.weight_bits, accumulator_bits=partial_sum_bits(hw)),
    )


def _scratchpads(hw: SystolicHardware) -> tuple[MemoryLevel, ...]:
    """Activation, weight and accumulator memories; capacities are those the machine has, both halves."""
    target = machine(hw)
    return tuple(
        MemoryLevel(
            name=name,
            capacity_bytes=target.words[memory] * target.word_bytes[memory],
            word_bits=8 * target.word_bytes[memory],
            read_words_per_cycle=1,
            write_words_per_cycle=1,
            holds=role,
            shared=False,
            double_buffered=True,
        )
        for name, memory, role in (
            ("activation_spad", MemoryId.ACTIVATION, INPUT),
            ("weight_spad", MemoryId.WEIGHT, WEIGHT),
            ("accumulator", MemoryId.ACCUMULATOR, OUTPUT),
        )
    )
