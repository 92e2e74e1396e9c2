"""A GPU as data: streaming multiprocessors, arithmetic rates, memories, clock and power limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dse.core.errors import UsageError, nearest

Architecture = Literal["kepler", "maxwell", "pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell", "cdna"]

#: Bytes of an operand element and of an output element, and the rate (a field of `Rates`) that multiplies it.
DTYPES: Mapping[str, tuple[int, int, str]] = {
    "fp32": (4, 4, "fp32"),
    "tf32": (4, 4, "tf32"),
    "fp16": (2, 2, "fp16"),
    "bf16": (2, 2, "fp16"),
    "fp16_fp32math": (2, 2, "fp32"),
    "fp8": (1, 2, "fp8"),
    "int8": (1, 4, "int8"),
}


class Rates(BaseModel):
    """Dense arithmetic of one SM: operations a clock, a multiply-accumulate being two; 0 when absent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fp32: float = Field(128, gt=0, le=65536)
    fp16: float = Field(0, ge=0, le=65536)
    tf32: float = Field(0, ge=0, le=65536)
    fp8: float = Field(0, ge=0, le=65536)
    int8: float = Field(0, ge=0, le=65536)


class GpuHardware(BaseModel):
    """One GPU, real or hypothetical.

    `constants` holds what calibration found: by kernel class ("gemm", "conv", ...) or class and type ("gemm/bf16"),
    values that replace the architecture's own; see `accelerators.gpu.constants`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Architecture = Field("ampere", description="generation: tile library, default constants")
    sms: int = Field(108, ge=1, le=1024, description="streaming multiprocessors (compute units)")
    clock_mhz: float = Field(1410, gt=0, le=4000, description="boost clock of the SMs")
    nominal_clock_mhz: float = Field(
        0, ge=0, le=4000, description="clock at which energies of the node hold; 0: the node's usual one"
    )
    rates: Rates = Field(default_factory=Rates, description="operations a clock and SM")
    matrix_flop_clk: float = Field(
        0, ge=0, le=32768, description="16-bit operations a clock and SM of the matrix units in place of those of rates"
    )
    tensor_cores: bool = Field(True, description="16-bit and narrower multiplications run on matrix units")
    register_kib: float = Field(256, gt=0, le=4096, description="register file of an SM")
    shared_kib: float = Field(164, gt=0, le=4096, description="shared memory of an SM")
    l2_mib: float = Field(40, gt=0, le=1024, description="last-level cache")
    l2_gb_s: float = Field(3235, gt=0, le=1e6, description="bandwidth of L2, measured where known")
    dram_gb_s: float = Field(2039, gt=0, le=1e5, description="bandwidth of DRAM by its data sheet")
    dram_gib: float = Field(80, gt=0, le=4096, description="capacity of DRAM")
    dram_standard: Literal["hbm", "gddr", "lpddr"] = Field("hbm", description="prices DRAM interface and bits")
    tdp_w: float = Field(400, gt=0, le=5000, description="power limit: the clock is lowered to keep it")
    node_nm: float = Field(7, gt=1, le=90, description="technology node, scales energy and area")
    library: str = Field("", description="tile library of fp32 GEMMs in place of the architecture's own")
    constants: Mapping[str, Mapping[str, float]] = Field(default_factory=dict, description="calibrated constants")

    @model_validator(mode="before")
    @classmethod
    def _matrix_rates(cls, data: Any) -> Any:
        """One figure scales the matrix units in every type they have: a search turns it as one knob."""
        if not isinstance(data, dict) or not data.get("matrix_flop_clk"):
            return data
        given = data.get("rates", Rates())
        base = given.model_dump() if isinstance(given, Rates) else {**Rates().model_dump(), **given}
        wide = float(data["matrix_flop_clk"])
        own = {"fp16": wide, "tf32": wide / 2, "fp8": 2 * wide, "int8": 2 * wide}
        present = {name: rate for name, rate in own.items() if name == "fp16" or base[name] > 0}
        return {**data, "rates": {**base, **present}}

    @property
    def clock_hz(self) -> float:
        return self.clock_mhz * 1e6

    @property
    def dram_bytes_s(self) -> float:
        return self.dram_gb_s * 1e9

    def operations_clk_sm(self, dtype: str) -> float:
        """Operations a clock and SM in a type of `DTYPES`.

        Raises
        ------
        UsageError: unknown type, or this GPU does not multiply in it.
        """
        if dtype not in DTYPES:
            raise UsageError(f"{dtype!r} is not a number type of the GPU family{nearest(dtype, DTYPES)}")
        rate = float(getattr(self.rates, DTYPES[dtype][2]))
        if rate <= 0:
            present = [name for name, (_, _, field) in DTYPES.items() if getattr(self.rates, field) > 0]
            raise UsageError(
                f"this GPU ({self.architecture}) does not multiply in {dtype}; it has {', '.join(present)}"
            )
        return rate

    def peak_flop_s(self, dtype: str) -> float:
        """Operations a second of the whole GPU at its boost clock; raises as `operations_clk_sm`."""
        return self.operations_clk_sm(dtype) * self.sms * self.clock_hz
