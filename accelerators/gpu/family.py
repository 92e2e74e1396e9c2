"""The GPU family as a back end: what `dse` finds behind the entry point `gpu`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accelerators.gpu.area import area_mm2
from accelerators.gpu.constants import check_overrides
from accelerators.gpu.executable import GpuExecutable
from accelerators.gpu.hardware import DTYPES, GpuHardware
from accelerators.gpu.lower import FUSIONS, lower_graph
from accelerators.gpu.power import fastest_clock_mhz, static_watts
from accelerators.gpu.presets import preset_documents, preset_hardware
from accelerators.gpu.protocol import PROTOCOLS
from accelerators.gpu.tiling import TileLimits
from accelerators.gpu.timing import Settings
from dse.arch import Arch
from dse.arch.arch import Compute, MemoryLevel, SpatialAxis
from dse.backend import Accelerator, Capabilities, Decisions, HardwareCost, Knob, Numerics, RtlUnavailable
from dse.core.errors import InfeasibleError, UsageError, Violation, nearest
from dse.ir import Graph

#: What the compiler may choose. dtype "auto": fp16 on matrix units, else fp32. batch: inputs of one pass. protocol: how
#: kernels are launched (`accelerators.gpu.protocol`). tile "auto", split_k 0, stages 0: the fastest for each kernel;
#: split_k 1 forbids it, more parts are used where they pay. rnn "auto": persistent where it fits and is faster.
DECISIONS: Mapping[str, Any] = {
    "dtype": "auto", "batch": 1, "protocol": "graph", "fusion": "epilogue", "tile": "auto", "split_k": 0, "stages": 0,
    "winograd": True, "rnn": "auto",
}  # fmt: skip
RNN_MODES = ("auto", "standard", "persistent", "unfused")
_WORDS: Mapping[str, tuple[str, ...]] = {
    "dtype": ("auto", *DTYPES), "protocol": PROTOCOLS, "fusion": FUSIONS, "rnn": RNN_MODES,
}  # fmt: skip
_NUMBERS: Mapping[str, tuple[int, int]] = {"batch": (1, 65536), "split_k": (0, 64), "stages": (0, 16)}
_NO_RTL = (
    "the gpu family models finished GPUs by their kernels and describes no circuit; there is nothing to emit. "
    "The systolic family emits RTL"
)


class GpuAccelerator(Accelerator):
    """GPUs as data: kernels of thread-block tiles in waves over SMs, under a power limit."""

    name = "gpu"
    hardware_model = GpuHardware
    capabilities = Capabilities(
        levels=("A", "C"),
        exact=True,
        rtl=False,
        description="GPU kernels as grids of thread-block tiles; calibrated constants, power limit, expected error",
    )
    # values are floating-point: there is nothing to quantize before
    own_arithmetic = True

    def arch(self, hw: GpuHardware) -> Arch:
        macs = max(hw.rates.fp16 if hw.tensor_cores else hw.rates.fp32, hw.rates.fp32) / 2
        standard = {"hbm": "hbm2", "gddr": "ddr4", "lpddr": "lpddr4"}[hw.dram_standard]
        return Arch(
            name=self.name,
            clock_mhz=hw.clock_mhz,
            levels=(
                MemoryLevel(name="dram", word_bits=256, energy_class="dram", standard=standard,
                            shared_words_per_cycle=hw.dram_bytes_s / hw.clock_hz / 32),
                MemoryLevel(name="l2", word_bits=256, capacity_bytes=int(hw.l2_mib * 2**20),
                            shared_words_per_cycle=hw.l2_gb_s * 1e9 / hw.clock_hz / 32),
                MemoryLevel(name="shared", word_bits=1024, instances=hw.sms,
                            capacity_bytes=int(hw.shared_kib * 1024), shared_words_per_cycle=1),
            ),
            axes=(SpatialAxis(name="sm", size=hw.sms, below="l2"),),
            compute=Compute(input_bits=16, weight_bits=16, macs_per_cycle=macs),
        )  # fmt: skip

    def space(self) -> tuple[Knob, ...]:
        return (
            Knob("hardware.sms", (32, 48, 64, 80, 96, 112, 128, 144, 160)),
            Knob("hardware.matrix_flop_clk", (512, 1024, 2048, 4096, 8192)),
            Knob("hardware.shared_kib", (64, 96, 128, 164, 196, 228, 256)),
            Knob("hardware.l2_mib", (4, 8, 16, 32, 48, 64, 96)),
            Knob("hardware.dram_gb_s", (400, 800, 1200, 1600, 2000, 2400, 3200, 4000)),
            Knob("hardware.clock_mhz", (800, 1000, 1200, 1400, 1600, 1800, 2000)),
            Knob("decisions.tile", ("auto", "64x64", "64x128", "128x64", "128x128", "128x256"), ordered=False),
            Knob("decisions.split_k", (0, 1, 2, 4, 8)),
            Knob("decisions.stages", (0, 2, 3, 4, 6, 8)),
            Knob("decisions.fusion", FUSIONS),
            Knob("decisions.winograd", (False, True)),
            Knob("decisions.rnn", RNN_MODES, ordered=False),
        )

    def decision_defaults(self) -> Mapping[str, Any]:
        return DECISIONS

    def check(self, hw: GpuHardware) -> Sequence[Violation]:
        found = []
        fastest = fastest_clock_mhz(hw)
        if hw.clock_mhz > fastest:
            hint = f"what the voltage range of {hw.node_nm:g} nm reaches"
            found.append(Violation("clock_mhz", hw.clock_mhz, fastest, "MHz", hint))
        return found

    def numerics(self, hw: GpuHardware) -> Numerics:
        return Numerics(weight_bits=16, activation_bits=16, requantize="float")

    def lower(self, graph: Graph, hw: GpuHardware, decisions: Decisions) -> GpuExecutable:
        violations = self.check(hw)
        if violations:
            raise InfeasibleError("this GPU cannot be built", violations)
        check_overrides(hw.constants)
        chosen = _checked(decisions)
        tile = "" if chosen["tile"] == "auto" else chosen["tile"]
        settings = Settings(
            dtype=_dtype(hw, chosen["dtype"]),
            protocol=chosen["protocol"],
            winograd=chosen["winograd"],
            rnn=chosen["rnn"],
            limits=TileLimits(tile, chosen["split_k"], chosen["stages"]),
        )
        kernels = lower_graph(graph, batch=chosen["batch"], fusion=chosen["fusion"])
        return GpuExecutable(graph, hw, settings, kernels, chosen["batch"])

    def cost(self, hw: GpuHardware) -> HardwareCost:
        area = {name: value * 1e6 for name, value in area_mm2(hw).items()}
        return HardwareCost(area, {"board": static_watts(hw) * 1e3}, fastest_clock_mhz(hw))

    def rtl(self, hw: GpuHardware) -> Any | RtlUnavailable:
        return RtlUnavailable(_NO_RTL)

    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        return {name: preset_hardware(name) for name in preset_documents()}


def _dtype(hw: GpuHardware, dtype: str) -> str:
    if dtype != "auto":
        hw.operations_clk_sm(dtype)
        return dtype
    return "fp16" if hw.tensor_cores and hw.rates.fp16 > 0 else "fp32"


def _checked(decisions: Decisions) -> dict[str, Any]:
    """All decisions with their defaults.

    Raises
    ------
    UsageError: a value that a decision cannot take.
    """
    chosen = {name: decisions.get(name, default) for name, default in DECISIONS.items()}
    for name, words in _WORDS.items():
        if chosen[name] not in words:
            raise UsageError(f"decisions.{name}: {chosen[name]!r} is not possible{nearest(str(chosen[name]), words)}")
    for name, (low, high) in _NUMBERS.items():
        value = chosen[name]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UsageError(f"decisions.{name}: {value!r} is not a whole number of {low}..{high}")
    if not isinstance(chosen["winograd"], bool):
        raise UsageError(f"decisions.winograd: {chosen['winograd']!r} is neither true nor false")
    return chosen
