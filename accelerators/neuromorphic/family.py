"""The neuromorphic family: cores on a mesh that exchange spikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import yaml

from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.mapping import ORDERS
from dse.arch import Arch
from dse.arch.arch import MemoryLevel, SpatialAxis
from dse.backend import (
    Accelerator,
    Capabilities,
    Decisions,
    HardwareCost,
    Knob,
    Numerics,
    RtlUnavailable,
)
from dse.core.errors import InfeasibleError, UsageError, Violation, nearest
from dse.ir import Graph

#: What the compiler may choose. time_steps: steps of the stimulus, or that a converted network is shown a sample.
#: input_rate, seed: the stimulus of networks that are spiking already. spread: cores of each layer over the fewest
#: that fit. coding, normalization, percentile, max_pool, compensate: `convert.Conversion`. coding "auto" is "direct"
#: where the cores take payloads.
DECISIONS: Mapping[str, Any] = {
    "time_steps": 16, "input_rate": 0.1, "seed": 0, "slice_order": "channel", "spread": 1.0, "granularity": "layer",
    "coding": "auto", "normalization": "error", "percentile": 99.9, "max_pool": "refuse", "compensate": True,
}  # fmt: skip
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "slice_order": ORDERS, "granularity": ("layer", "channel"), "coding": ("auto", "rate", "direct"),
    "normalization": ("percentile", "error"), "max_pool": ("refuse", "relu", "average"),
}  # fmt: skip
#: Synthetic samples that thresholds are taken from where a network comes without data.
CALIBRATION_SAMPLES = 64


class NeuromorphicAccelerator(Accelerator):
    """Spiking networks on a mesh of cores, simulated event by event."""

    name = "neuromorphic"
    hardware_model = NeuromorphicHardware
    capabilities = Capabilities(
        levels=("A",),
        exact=False,
        rtl=False,
        description="spiking cores on a mesh: LIF, IF, CubaLIF; barrier, tick or asynchronous steps; NIR or converted",
    )

    def arch(self, hw: NeuromorphicHardware) -> Arch:
        synapse_word = hw.lanes * hw.weight_bits
        return Arch(
            name=self.name,
            clock_mhz=hw.clock_mhz,
            levels=(
                MemoryLevel(
                    name="synapses",
                    word_bits=synapse_word,
                    instances=hw.cores,
                    capacity_bytes=int(hw.synapse_kib * 1024),
                ),
            ),
            axes=(SpatialAxis(name="core", size=hw.cores, below="synapses"),),
        )

    def space(self) -> tuple[Knob, ...]:
        return (
            Knob("hardware.mesh_columns", (1, 2, 4, 8, 16)),
            Knob("hardware.mesh_rows", (1, 2, 4, 8, 16)),
            Knob("hardware.neurons_per_core", (64, 128, 256, 512, 1024)),
            Knob("hardware.synapse_kib", (8, 16, 32, 64, 128, 256)),
            Knob("hardware.weight_bits", (4, 6, 8)),
            Knob("hardware.lanes", (1, 2, 4, 8)),
            Knob("hardware.link_buffer", (2, 4, 8, 16, 32)),
            Knob("hardware.synchronization", ("barrier", "asynchronous"), ordered=False),
            Knob("decisions.slice_order", ORDERS, ordered=False),
            Knob("decisions.spread", (1.0, 1.5, 2.0, 3.0, 4.0)),
            Knob("decisions.granularity", ("layer", "channel"), ordered=False),
        )

    def decision_defaults(self) -> Mapping[str, Any]:
        return DECISIONS

    def check(self, hw: NeuromorphicHardware) -> Sequence[Violation]:
        from accelerators.neuromorphic.prices import max_clock_mhz

        found = []
        needed = hw.fraction_bits + hw.weight_bits + 2
        if hw.state_bits < needed:
            hint = "a state holds a weight, the fraction below it, and two bits above it"
            found.append(Violation("state_bits", hw.state_bits, needed, "bits", hint))
        fastest = max_clock_mhz(hw)
        if hw.clock_mhz > fastest:
            found.append(Violation("clock_mhz", hw.clock_mhz, fastest, "MHz", "access time of the slowest memory"))
        return found

    def numerics(self, hw: NeuromorphicHardware) -> Numerics:
        return Numerics(weight_bits=hw.weight_bits, activation_bits=max(1, hw.payload_bits), requantize="q31")

    def lower(self, graph: Graph, hw: NeuromorphicHardware, decisions: Decisions) -> Any:
        from accelerators.neuromorphic.build import build_network
        from accelerators.neuromorphic.executable import NeuromorphicExecutable, Stimulus
        from accelerators.neuromorphic.mapping import fitting_mapping
        from accelerators.neuromorphic.simulate import compile_network
        from dse.ir.spiking import is_spiking

        violations = self.check(hw)
        if violations:
            raise InfeasibleError("this neuromorphic design cannot be built", violations)
        chosen = _checked(decisions)
        converted, scale = None, {}
        if not is_spiking(graph):
            converted = _converted(graph, hw, chosen)
            scale = converted.input_scale(hw.payload_bits)
            graph = converted.graph
        compiled = compile_network(build_network(graph, _precision(hw, chosen), scale))
        mapping = fitting_mapping(compiled.network, compiled, hw, chosen["slice_order"], chosen["spread"])
        if converted is None:
            stimulus = Stimulus(chosen["time_steps"], chosen["input_rate"], chosen["seed"])
            return NeuromorphicExecutable(compiled, hw, mapping, stimulus.inputs(compiled.network))
        samples = _calibration(graph, converted.conversion.coding)
        sample = {name: converted.encode(name, values[0], hw.payload_bits) for name, values in samples.items()}
        return NeuromorphicExecutable(compiled, hw, mapping, sample, converted)

    def cost(self, hw: NeuromorphicHardware) -> HardwareCost:
        from accelerators.neuromorphic.prices import area_um2, max_clock_mhz, static_mw

        return HardwareCost(area_um2(hw), static_mw(hw), max_clock_mhz(hw))

    def rtl(self, hw: NeuromorphicHardware) -> Any | RtlUnavailable:
        return RtlUnavailable("cores are emitted from a mapped network's tables, not from hardware parameters alone")

    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        return _presets()


def _checked(decisions: Decisions) -> dict[str, Any]:
    """All decisions with their defaults.

    Raises
    ------
    UsageError: a value that a decision cannot take.
    """
    chosen = {name: decisions.get(name, default) for name, default in DECISIONS.items()}
    for name, choices in _CHOICES.items():
        if chosen[name] not in choices:
            raise UsageError(f"decisions.{name}: {chosen[name]!r} is not possible{nearest(str(chosen[name]), choices)}")
    bounds = {"time_steps": (1, 100_000), "input_rate": (0, 1), "spread": (1, 1024), "percentile": (50, 100)}
    for name, (low, high) in bounds.items():
        value = chosen[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise UsageError(f"decisions.{name}: {value!r} lies outside {low}..{high}")
    for name in ("time_steps", "seed"):
        if not isinstance(chosen[name], int) or chosen[name] < 0:
            raise UsageError(f"decisions.{name}: {chosen[name]!r} is not a whole number from 0")
    return chosen


def _precision(hw: NeuromorphicHardware, chosen: Mapping[str, Any]) -> Any:
    from accelerators.neuromorphic.build import Precision

    return Precision(hw.weight_bits, hw.state_bits, hw.fraction_bits, hw.payload_bits, hw.decay, chosen["granularity"])


def _converted(graph: Graph, hw: NeuromorphicHardware, chosen: Mapping[str, Any]) -> Any:
    from accelerators.neuromorphic.convert import Conversion, convert

    coding = chosen["coding"]
    if coding == "auto":
        coding = "direct" if hw.payload_bits else "rate"
    if coding == "direct" and not hw.payload_bits:
        raise UsageError("decisions.coding: 'direct' needs cores that take payloads (hardware.payload_bits=8)")
    conversion = Conversion(chosen["time_steps"], chosen["normalization"], chosen["percentile"], coding,
                            chosen["max_pool"], bool(chosen["compensate"]))  # fmt: skip
    return convert(graph, conversion, _calibration(graph, coding))


def _calibration(graph: Graph, coding: str) -> dict[str, Any]:
    """Synthetic samples; their magnitudes where values become rates."""
    from dse.compiler import calibration_images

    samples = calibration_images(graph, CALIBRATION_SAMPLES)
    return {name: np.abs(values) if coding == "rate" else values for name, values in samples.items()}


@cache
def _presets() -> Mapping[str, Mapping[str, Any]]:
    folder = resources.files("accelerators.neuromorphic") / "presets"
    return {
        item.name.removesuffix(".yaml"): yaml.safe_load(item.read_text(encoding="utf-8"))["hardware"]
        for item in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if item.name.endswith(".yaml")
    }
