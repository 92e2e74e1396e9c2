"""The neuromorphic family: cores on a mesh that exchange spikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from accelerators.neuromorphic.blocks import ORDERS, BlockPlan, plan_mapping
from accelerators.neuromorphic.convert import least_neurons
from accelerators.neuromorphic.decisions import DEFAULTS, checked
from accelerators.neuromorphic.emission_limits import emission_limits
from accelerators.neuromorphic.executable import NeuromorphicExecutable
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.mapper import search_mapping
from accelerators.neuromorphic.mapping import fitting_plan
from accelerators.neuromorphic.placement import PLACEMENTS, place_plan
from accelerators.neuromorphic.prepared import PreparedNetwork, prepared_network
from accelerators.neuromorphic.prices import area_um2, max_clock_mhz, static_mw
from accelerators.neuromorphic.recost import Recoster
from dse.arch import Arch
from dse.arch.arch import MemoryLevel, SpatialAxis
from dse.backend import (
    Accelerator,
    Capabilities,
    Decisions,
    HardwareCost,
    Knob,
    Numerics,
    RtlRun,
    RtlUnavailable,
    Samples,
    VerificationCase,
)
from dse.core.errors import InfeasibleError, UsageError, Violation
from dse.ir import Graph
from dse.program.executable import Executable

#: Networks up to this size are converted and placed even when they turn out too large for the chip.
PLACED_NEURONS = 1 << 20


class NeuromorphicAccelerator(Accelerator):
    """Spiking networks on a mesh of cores, simulated event by event.

    `samples`: a run's data, which networks are converted and measured on.
    """

    name = "neuromorphic"
    own_arithmetic = True
    hardware_model = NeuromorphicHardware
    capabilities = Capabilities(
        levels=("A", "C", "rtl"),
        exact=False,
        rtl=True,
        description="spiking cores on a mesh: LIF, IF, CubaLIF; barrier, tick or asynchronous steps; NIR or converted",
    )

    def __init__(self, samples: Samples | None = None) -> None:
        self.samples = samples

    def with_samples(self, samples: Samples) -> NeuromorphicAccelerator:
        return NeuromorphicAccelerator(samples)

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
            Knob("hardware.state_bits", (16, 20, 24)),
            Knob("hardware.lanes", (1, 2, 4, 8)),
            Knob("hardware.link_buffer", (2, 4, 8, 16, 32)),
            Knob("hardware.synchronization", ("barrier", "asynchronous"), ordered=False),
            Knob("decisions.slice_order", ORDERS, ordered=False),
            Knob("decisions.placement", PLACEMENTS, ordered=False),
            Knob("decisions.spread", (1.0, 1.5, 2.0, 3.0, 4.0)),
            Knob("decisions.granularity", ("layer", "channel"), ordered=False),
        )

    def decision_defaults(self) -> Mapping[str, Any]:
        return DEFAULTS

    def check(self, hw: NeuromorphicHardware) -> Sequence[Violation]:
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

    def lower(self, graph: Graph, hw: NeuromorphicHardware, decisions: Decisions) -> NeuromorphicExecutable:
        violations = [*self.check(hw)]
        if hw.messages == "emitted":
            violations += emission_limits(None, hw)
        if violations:
            raise InfeasibleError("this neuromorphic design cannot be built", violations)
        chosen = checked(decisions)
        neurons, room = least_neurons(graph), hw.cores * hw.neurons_per_core
        # a smaller one is placed first, which tells the cores it would take
        if neurons > max(room, PLACED_NEURONS):
            broken = Violation(
                "neurons", neurons, room, "", f"at least, on {hw.cores:,} cores of {hw.neurons_per_core:,}"
            )
            raise InfeasibleError(f"{graph.source or graph.name} is larger than the chip", [broken])
        prepared = prepared_network(graph, hw, chosen, self.samples)
        compiled = prepared.compiled
        mapping = plan_mapping(compiled.network, _plan(prepared, hw, chosen))
        executable = NeuromorphicExecutable(
            compiled, hw, mapping, prepared.sample, prepared.converted, prepared=prepared
        )
        if hw.messages == "emitted":
            _ = executable.mesh  # refused here, not when its time is asked for
        return executable

    def cost(self, hw: NeuromorphicHardware) -> HardwareCost:
        return HardwareCost(area_um2(hw), static_mw(hw), max_clock_mhz(hw))

    def rtl(self, hw: NeuromorphicHardware) -> Any | RtlUnavailable:
        broken = emission_limits(None, hw)
        if broken:
            return RtlUnavailable("; ".join(map(str, broken)))
        # Amaranth is heavy: only needed when hardware is asked for
        from accelerators.neuromorphic.rtl.mesh import Mesh
        from accelerators.neuromorphic.rtl.shape import CoreImage, hardware_shape

        empty = CoreImage((), (), (), (), (), (), ())
        return Mesh(hardware_shape(hw, 1), [empty] * hw.cores, hw.mesh_columns, hw.mesh_rows, hw.link_buffer)

    def rtl_gap(self, executable: Executable) -> RtlUnavailable | None:
        try:
            _ = _own(executable).mesh
        except InfeasibleError as error:
            return RtlUnavailable(str(error))
        return None

    def verification_cases(self, executable: Executable, values: Mapping[str, Any]) -> Sequence[VerificationCase]:
        from accelerators.neuromorphic.verify import verification_cases

        return verification_cases(_own(executable))

    def run_rtl(self, executable: Executable, inputs: Mapping[str, Any]) -> RtlRun:
        from accelerators.neuromorphic.verify import MeshRun, run_rtl

        if not isinstance(executable, MeshRun):
            raise UsageError("the RTL of a mesh runs verification cases: events in, spikes and potentials out")
        return run_rtl(executable, inputs)

    def emit(self, executable: Executable, cases: Sequence[VerificationCase], folder: Path) -> Sequence[Path]:
        from accelerators.neuromorphic.verify import emit

        return emit(_own(executable).mesh, cases, folder)

    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        return _presets()


def _plan(prepared: PreparedNetwork, hw: NeuromorphicHardware, chosen: Mapping[str, Any]) -> BlockPlan:
    """The mapping that the decisions ask for.

    Raises
    ------
    InfeasibleError: the network does not fit the chip.
    """
    compiled, placement = prepared.compiled, chosen["placement"]
    plan = fitting_plan(compiled.network, compiled, hw, chosen["slice_order"], chosen["spread"])
    if placement == "order" and not chosen["mapping_moves"]:
        return plan
    recoster = Recoster(compiled, prepared.activity, hw)
    if not chosen["mapping_moves"]:
        return place_plan(plan, placement, recoster)
    return search_mapping(recoster, plan, chosen["mapping_moves"], placement=placement).plan


def _own(executable: Executable) -> NeuromorphicExecutable:
    assert isinstance(executable, NeuromorphicExecutable)
    return executable


@cache
def _presets() -> Mapping[str, Mapping[str, Any]]:
    folder = resources.files("accelerators.neuromorphic") / "presets"
    return {
        item.name.removesuffix(".yaml"): yaml.safe_load(item.read_text(encoding="utf-8"))["hardware"]
        for item in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if item.name.endswith(".yaml")
    }
