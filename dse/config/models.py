"""The run configuration as types: what a YAML file such as `configs/edge.yaml` may say.

Bounds and defaults live here and nowhere else; `dse schema` publishes them. The values of
`accelerator.hardware` and `search.space` are opaque to this module: the accelerator family that is
named validates them (`dse.config.validation`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from dse.config.expression import ExpressionError, parse_constraint
from dse.core.errors import nearest

Sampler = Literal["auto", "nsga2", "tpe", "random"]
CalibrationMethod = Literal["minmax", "percentile", "mse"]

#: Figures of `Metrics.summary()` that are better when larger; every other objective is minimised.
MAXIMISED = frozenset({"sqnr_db", "utilization", "gmacs_per_s", "accuracy"})
#: Figures an objective may name.
OBJECTIVES = (
    "latency_ms", "energy_uj", "area_mm2", "power_mw", "cycles", "utilization", "gmacs_per_s", "memory_bytes",
    "sqnr_db", "accuracy",
)  # fmt: skip


class EntryError(ValueError):
    """What is wrong with one entry of a mapping or list; `entry` is its key or index, for the line number."""

    def __init__(self, entry: str | int, message: str) -> None:
        self.entry = entry
        super().__init__(message)


class ConfigModel(BaseModel):
    """Base of all configuration: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CalibrationConfig(ConfigModel):
    """Samples that fix the activation ranges of the quantized network: a file's, or seeded synthetic images."""

    images: int = Field(32, ge=1, le=4096, description="seeded calibration images; not read when `file` is given")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the calibration images")
    file: str | None = Field(
        None, min_length=1, description=".npz or folder of samples to calibrate on, relative to this configuration"
    )
    method: CalibrationMethod = Field("minmax", description="how ranges follow from the samples")
    percentile: float = Field(99.99, gt=50, le=100, description="percent of the values kept; of method percentile")


class WorkloadConfig(ConfigModel):
    """The network to accelerate."""

    model: str = Field(min_length=1, description="zoo:NAME, or a file path relative to this configuration")
    dims: dict[str, int] = Field(default_factory=dict, description="values of the model's symbolic dimensions")
    calibration: CalibrationConfig = CalibrationConfig()
    dataset: str | None = Field(
        None,
        min_length=1,
        description=".npz or folder of samples x and classes y that accuracy is measured on, "
        "relative to this configuration",
    )

    @field_validator("dims")
    @classmethod
    def _dims_positive(cls, dims: dict[str, int]) -> dict[str, int]:
        for name, value in dims.items():
            if not 1 <= value < 2**31:
                raise EntryError(name, f"must lie in 1..{2**31 - 1}, not {value}")
        return dims


class AcceleratorConfig(ConfigModel):
    """The accelerator a search starts from: family, preset and the parameters that differ from it."""

    family: str = Field(min_length=1, description="accelerator family, see `dse list accelerators`")
    preset: str | None = Field(None, description="named design of the family to start from, see `dse list presets`")
    hardware: dict[str, Any] = Field(default_factory=dict, description="hardware parameters of the family")
    decisions: dict[str, Any] = Field(default_factory=dict, description="compiler decisions of the family")


class DesignConfig(AcceleratorConfig):
    """A file that describes one design, as shipped presets do: `dse simulate --accelerator my_design.yaml`."""

    description: str = Field("", description="what it is, in one line")
    source: str = Field("", description="where its figures come from")


class RangeConfig(ConfigModel):
    """Evenly spaced choices from `low` to `high`, both included: integers, or reals when a bound is real."""

    low: int | float
    high: int | float
    step: int | float = 1

    @model_validator(mode="after")
    def _ordered(self) -> RangeConfig:
        if self.step <= 0:
            raise ValueError(f"step must be positive, not {self.step}")
        if self.high < self.low:
            raise ValueError(f"high ({self.high}) lies below low ({self.low})")
        if (self.high - self.low) / self.step >= 10_000:
            raise ValueError(f"holds more than 10000 choices; raise step ({self.step})")
        return self

    def choices(self) -> tuple[int | float, ...]:
        """The values, ascending; low + k * step without accumulated rounding."""
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(self.low + index * self.step for index in range(count))


def _choices_kind(value: object) -> str:
    return "range" if isinstance(value, (dict, RangeConfig)) else "list"


#: The choices of one knob: a list of values, or a range. Told apart by shape, so that only one of the two
#: alternatives reports what is wrong.
Choices = Annotated[
    Annotated[list[Any], Tag("list")] | Annotated[RangeConfig, Tag("range")], Discriminator(_choices_kind)
]


class SearchConfig(ConfigModel):
    """What Optuna may vary, for which objectives, under which constraints, and how long."""

    space: dict[str, Choices] = Field(
        default_factory=dict,
        description="choices by knob: hardware.NAME or decisions.NAME; empty = every knob the family offers",
    )
    objectives: list[str] = Field(
        default=["latency_ms", "energy_uj", "area_mm2", "sqnr_db"],
        min_length=1,
        description="figures to optimise",
    )
    constraints: list[str] = Field(
        default_factory=list, description="such as 'rows * columns <= 64' or 'area_mm2 <= 2.5'"
    )
    trials: int = Field(400, ge=1, le=1_000_000, description="distinct designs to simulate, at most")
    batch: int = Field(20, ge=1, le=10_000, description="designs per ask/tell round; part of the result, not of speed")
    sampler: Sampler = Field("auto", description="auto: nsga2, which keeps its front diverse")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the search")

    @field_validator("space")
    @classmethod
    def _space_usable(cls, space: dict[str, list[Any] | RangeConfig]) -> dict[str, list[Any] | RangeConfig]:
        for name, choices in space.items():
            scope, _, rest = name.partition(".")
            if scope not in ("hardware", "decisions") or not rest:
                raise EntryError(name, "a knob is written hardware.NAME or decisions.NAME")
            if isinstance(choices, RangeConfig):
                continue
            if not choices:
                raise EntryError(name, "has no choices")
            if any(not isinstance(choice, (str, int, float, bool)) for choice in choices):
                raise EntryError(name, "may only choose among numbers, words, true and false")
            if len({repr(choice) for choice in choices}) != len(choices):
                raise EntryError(name, "lists a choice twice")
        return space

    @field_validator("objectives")
    @classmethod
    def _objectives_known(cls, objectives: list[str]) -> list[str]:
        for index, name in enumerate(objectives):
            if name not in OBJECTIVES:
                raise EntryError(index, f"{name!r} is not an objective{nearest(name, OBJECTIVES)}")
        if len(set(objectives)) != len(objectives):
            raise ValueError("an objective is listed twice")
        return objectives

    @field_validator("constraints")
    @classmethod
    def _constraints_parse(cls, constraints: list[str]) -> list[str]:
        for index, text in enumerate(constraints):
            try:
                parse_constraint(text)
            except ExpressionError as error:
                raise EntryError(index, str(error)) from error
        return constraints

    def choices(self, knob: str) -> tuple[Any, ...]:
        """The choices of one knob of `space`, ranges expanded."""
        value = self.space[knob]
        return value.choices() if isinstance(value, RangeConfig) else tuple(value)


class EmitConfig(ConfigModel):
    """What becomes hardware once the search is over."""

    winners: int = Field(3, ge=0, le=100, description="designs of the Pareto set to emit as Verilog")
    verify: bool = Field(True, description="run the emitted RTL on layer tiles against reference and prediction")
    cover: list[str] = Field(
        default_factory=list,
        description="hardware parameters whose values shall all have a winner; empty = dataflow and its like",
    )


class TechConfig(ConfigModel):
    """The process that prices are taken at, and prices that the user knows better; `dse show tech` lists them."""

    node_nm: float | None = Field(None, ge=7, le=180, description="technology node in nm")
    device: Literal["HP", "LP"] | None = Field(None, description="high performance or low power devices")
    vdd: float | None = Field(None, gt=0, le=2, description="supply in V; null: the lowest that reaches the clock")
    overrides: dict[str, float] = Field(
        default_factory=dict, description="prices by component, in the units of dse show tech, at this node"
    )


class RunConfig(ConfigModel):
    """One run: a network, an accelerator family, a search, and what is emitted."""

    name: str = Field("run", min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    workload: WorkloadConfig
    accelerator: AcceleratorConfig
    tech: TechConfig = TechConfig()
    search: SearchConfig | None = None
    emit: EmitConfig = EmitConfig()


def schema() -> dict[str, Any]:
    """JSON Schema of a run configuration file, for editors."""
    result = RunConfig.model_json_schema()
    result["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    # `include` is resolved before validation, so the model does not know it
    file_or_files = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    result["properties"]["include"] = {**file_or_files, "description": "files merged under this one"}
    return result
