"""Accelerator: what a family provides. The engine knows nothing else about it.

A family is a class registered under the entry point `dse.backends`. Call order during a search trial:
`check(hw)` (analytic, microseconds) -> `lower(graph, hw, decisions)` -> `Executable.estimate()`.
For a winner: `Executable.task_graph()` -> a simulator -> `metrics`; `rtl(hw)`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dse.arch import Arch
from dse.core.errors import UsageError, Violation
from dse.ir import Graph
from dse.program.executable import Executable


@dataclass(frozen=True)
class Knob:
    """One dimension of the search space: a hardware parameter or a compiler decision.

    `name` is "hardware.rows" or "decisions.gather"; `choices` are the values it may take, in the order that
    makes neighbours similar (numbers ascending) when `ordered`.
    """

    name: str
    choices: tuple[Any, ...]
    ordered: bool = True


@dataclass(frozen=True)
class Decisions:
    """What the compiler may choose: named values, family-specific, with the family's defaults for the rest."""

    values: Mapping[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any) -> Any:
        return self.values.get(name, default)


@dataclass(frozen=True)
class Capabilities:
    """What a family offers: printed by `dse list accelerators`."""

    levels: tuple[str, ...]
    exact: bool  # level A equals level C and the RTL, cycle for cycle
    rtl: bool
    description: str


@dataclass(frozen=True)
class Numerics:
    """The arithmetic a design computes in: decides which quantized network it runs."""

    weight_bits: int
    activation_bits: int
    requantize: str  # one of dse.ir.requantize.MODES


@dataclass(frozen=True)
class HardwareCost:
    """What a piece of hardware costs before it runs anything: area and static power by component."""

    area_um2: Mapping[str, float]
    static_mw: Mapping[str, float]
    max_clock_mhz: float

    @property
    def area_mm2(self) -> float:
        return math.fsum(self.area_um2.values()) * 1e-6


@dataclass(frozen=True, eq=False)
class VerificationCase:
    """A piece of a network, compiled for the same design, small enough to run on its RTL.

    `inputs` are the values of the real network there, `expected` what the reference network computes from them.
    """

    name: str
    executable: Executable
    inputs: Mapping[str, Any]
    expected: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class RtlRun:
    """What the RTL did with a case: outputs by name and cycles from start to done."""

    outputs: Mapping[str, Any]
    cycles: int


@dataclass(frozen=True, eq=False)
class Samples:
    """Data of a run, for families that make their own integers (`Accelerator.own_arithmetic`).

    Parameters
    ----------
    calibration, test
        Float samples by input name, shape (samples, ...); None: as many synthetic ones as `images`, of `seed`, and for
        the test of seed + 1.
    labels
        int64, shape (samples,): the right class of each test sample.
    """

    images: int
    seed: int
    calibration: Mapping[str, Any] | None = None
    test: Mapping[str, Any] | None = None
    labels: Any | None = None


@dataclass(frozen=True)
class RtlUnavailable:
    """Why a family emits no RTL for a design."""

    reason: str


class Accelerator(ABC):
    """An accelerator family."""

    name: str
    hardware_model: type[BaseModel]
    capabilities: Capabilities
    #: Whether `lower` makes the integers itself: it is then given float networks, and accuracy is among its metrics.
    own_arithmetic: bool = False

    def with_samples(self, samples: Samples) -> Accelerator:
        """The family for one run's data; only families of `own_arithmetic` look at it."""
        return self

    @abstractmethod
    def arch(self, hw: Any) -> Arch:
        """The memory hierarchy and fabric of one design, as data."""

    @abstractmethod
    def space(self) -> tuple[Knob, ...]:
        """Knobs a search may turn, hardware and decisions, with their default choices."""

    @abstractmethod
    def decision_defaults(self) -> Mapping[str, Any]:
        """Every decision by name, with its default."""

    @abstractmethod
    def check(self, hw: Any) -> Sequence[Violation]:
        """Limits a design breaks before it sees a network; empty when buildable."""

    @abstractmethod
    def numerics(self, hw: Any) -> Numerics:
        """The arithmetic of a design."""

    @abstractmethod
    def lower(self, graph: Graph, hw: Any, decisions: Decisions) -> Executable:
        """Compile a network.

        Raises
        ------
        InfeasibleError: the network does not fit (which limit, by how much).
        ModelError: an op has no lowering and no host fallback.
        """

    @abstractmethod
    def cost(self, hw: Any) -> HardwareCost:
        """Area, static power and the clock limit of a design."""

    @abstractmethod
    def rtl(self, hw: Any) -> Any | RtlUnavailable:
        """An Amaranth component of the design, or why there is none."""

    def rtl_gap(self, executable: Executable) -> RtlUnavailable | None:
        """Why the RTL of its design cannot run a compiled program, or None when it can (or there is no RTL at all)."""
        return None

    def verification_cases(self, executable: Executable, values: Mapping[str, Any]) -> Sequence[VerificationCase]:
        """Pieces of a compiled network to run on the RTL; none for a design without RTL.

        `values` are all tensors of the reference run by name.
        """
        return ()

    def run_rtl(self, executable: Executable, inputs: Mapping[str, Any]) -> RtlRun:
        """Simulate the RTL of the executable's design on its program, cycle by cycle."""
        raise UsageError(f"the {self.name} family emits no RTL")

    def emit(self, executable: Executable, cases: Sequence[VerificationCase], folder: Path) -> Sequence[Path]:
        """Write the hardware of an executable's design, with a self-checking testbench that runs the cases."""
        raise UsageError(f"the {self.name} family emits no RTL")

    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """Named designs shipped with the family: hardware parameters by preset name."""
        return {}
