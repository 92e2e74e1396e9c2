"""An NPU's memory hierarchy and fabric as data, for mapping and estimates."""

from __future__ import annotations

from accelerators.npu.hardware import NpuHardware, machine
from dse.arch import Arch, Compute, MemoryLevel, SpatialAxis
from dse.arch.arch import Role
from dse.program.tile.isa import MemoryId

_ROLES: tuple[tuple[str, MemoryId, frozenset[Role]], ...] = (
    ("activation_spad", MemoryId.ACTIVATION, frozenset({"input"})),
    ("weight_spad", MemoryId.WEIGHT, frozenset({"weight"})),
    ("accumulator", MemoryId.ACCUMULATOR, frozenset({"output"})),
)


def npu_arch(hw: NpuHardware) -> Arch:
    """A design as an Arch: memory, one scratchpad per role, three spatial axes.

    Input channels reduce in a tree; output channels share activations, pixels share weights.
    """
    target, port = machine(hw), hw.feature_bytes_per_cycle
    memory = MemoryLevel(
        name="memory", word_bits=8, read_words_per_cycle=port, write_words_per_cycle=port, energy_class="dram"
    )
    pads = tuple(
        MemoryLevel(
            name=name,
            capacity_bytes=target.words[memory_id] * target.word_bytes[memory_id],
            word_bits=8 * target.word_bytes[memory_id],
            read_words_per_cycle=1,
            write_words_per_cycle=1,
            holds=role,
            shared=False,
            double_buffered=True,
        )
        for name, memory_id, role in _ROLES
    )
    inner = pads[-1].name
    axes = (
        SpatialAxis(name="input_channels", size=hw.input_channels, below=inner, reduces=True),
        SpatialAxis(
            name="output_channels",
            size=hw.cores * hw.output_channels,
            below=inner,
            multicast=frozenset[Role]({"input"}),
        ),
        SpatialAxis(name="pixels", size=hw.pixels, below=inner, multicast=frozenset[Role]({"weight"})),
    )
    return Arch(
        name=f"npu_{hw.cores}x{hw.output_channels}x{hw.input_channels}x{hw.pixels}",
        clock_mhz=hw.clock_mhz,
        node_nm=hw.node_nm,
        device=hw.device,
        vdd=hw.vdd,
        prices=hw.prices,
        levels=(memory, *pads),
        axes=axes,
        compute=Compute(input_bits=8, weight_bits=8, accumulator_bits=32),
    )
