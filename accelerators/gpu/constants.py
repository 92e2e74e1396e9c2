"""The physical constants of the kernel models: what they mean, their bounds, and their values by architecture.

A constant is taken from the first of: the preset's calibration (of class and type, "gemm/bf16", before that of the
class, "gemm"), the architecture's table in `data/constants.yaml` (likewise), and the default here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from accelerators.gpu.hardware import GpuHardware
from dse.core.errors import UsageError, nearest


@dataclass(frozen=True)
class ConstantRule:
    """Default, bounds and meaning of one constant; a fit stays within the bounds."""

    default: float
    low: float
    high: float
    unit: str
    meaning: str


RULES: Mapping[str, ConstantRule] = {
    "launch_us": ConstantRule(2.5, 0.5, 60, "us", "device time around a kernel: launch, first wave, tail"),
    "host_us": ConstantRule(5, 0, 200, "us", "host time between launches: no call is shorter (eager mode)"),
    "peak_efficiency": ConstantRule(0.9, 0.4, 1, "ratio", "sustained share of the arithmetic peak"),
    "dram_efficiency": ConstantRule(0.85, 0.3, 1, "ratio", "sustained share of the DRAM bandwidth"),
    "l2_efficiency": ConstantRule(1, 0.3, 1.6, "ratio", "reached L2 bandwidth over the preset's figure"),
    "latency_cycles": ConstantRule(600, 250, 2000, "cycles", "loaded memory latency that bytes in flight must cover"),
    "fill_cycles": ConstantRule(1500, 100, 9000, "cycles", "prologue and epilogue of a thread block"),
    "exposure": ConstantRule(0.1, 0, 0.6, "ratio", "share of the shorter resources that does not overlap"),
    "warp_saturation": ConstantRule(6, 2, 24, "warps", "warps that keep an SM's arithmetic busy"),
    "split_us": ConstantRule(2.5, 0, 10, "us", "reduction launch of split-K"),
    "wave_smoothing": ConstantRule(0.7, 0, 1, "ratio", "share of the idle last wave that drift fills"),
    "sm_bytes_clk": ConstantRule(64, 16, 160, "B/clk", "load port of an SM"),
    "narrow_rate": ConstantRule(0.2, 0.02, 1, "ratio", "arithmetic rate of the library's kernels for <= 16 columns"),
    "quantize_bytes": ConstantRule(3, 0, 12, "B", "DRAM bytes an activation element to quantize it before a GEMM"),
    "quantize_row_ns": ConstantRule(0, 0, 20, "ns", "time a row to quantize activations before a GEMM"),
    "implicit_efficiency": ConstantRule(0.9, 0.3, 1, "ratio", "implicit-GEMM convolution over a plain GEMM's rate"),
    "fused_efficiency": ConstantRule(0.75, 0.2, 1, "ratio", "fused Winograd F(2x2) over a plain GEMM's rate"),
    "staged_efficiency": ConstantRule(0.8, 0.2, 1, "ratio", "staged Winograd F(4x4) over a plain GEMM's rate"),
    "transform_passes": ConstantRule(1.3, 0.3, 5, "ratio", "traffic of staged Winograd's transforms over its least"),
    "depthwise_efficiency": ConstantRule(0.5, 0.1, 1, "ratio", "direct depthwise convolution over the fp32 rate"),
    "row_ns": ConstantRule(0, 0, 20, "ns", "time a row of a row-wise kernel, all SMs together"),
    "call_us": ConstantRule(40, 0, 80, "us", "a recurrent layer's fixed time"),
    "step_us": ConstantRule(5, 0, 60, "us", "a time step's pointwise kernels and dependences"),
    "gap_us": ConstantRule(2.5, 0.5, 10, "us", "device time between small kernels queued back to back"),
    "sync_us": ConstantRule(3, 0.5, 20, "us", "grid-wide barrier of a persistent kernel"),
}


#: Classes whose kernels are built around a GEMM start from its constants.
INHERITS: Mapping[str, str] = {"conv": "gemm", "rnn": "gemm", "rnn_train": "gemm", "attention": "gemm"}


def known(name: str) -> ConstantRule:
    """The rule of a constant.

    Raises
    ------
    UsageError: no constant has that name.
    """
    if name not in RULES:
        raise UsageError(f"{name!r} is not a constant of the GPU models{nearest(name, RULES)}")
    return RULES[name]


def constants(hw: GpuHardware, kernel: str, dtype: str) -> dict[str, float]:
    """Every constant as it holds for a kernel class and number type.

    `kernel` is a path from the general to the special ("rnn_train.forward.lstm"); what is said of a longer path wins.
    """
    values = {name: rule.default for name, rule in RULES.items()}
    parts = kernel.split(".")
    base = INHERITS.get(parts[0], "")
    for layer in (_architecture_tables().get(hw.architecture, {}), hw.constants):
        for key in (base, f"{base}/{dtype}"):
            values.update(layer.get(key, {}))
        for length in range(1, len(parts) + 1):
            path = ".".join(parts[:length])
            values.update(layer.get(path, {}))
            values.update(layer.get(f"{path}/{dtype}", {}))
    return values


def check_overrides(overrides: Mapping[str, Mapping[str, float]]) -> None:
    """Refuse calibrated constants that have no meaning.

    Raises
    ------
    UsageError: a name is unknown or a value lies outside its bounds.
    """
    for key, values in overrides.items():
        for name, value in values.items():
            rule = known(name)
            if not rule.low <= value <= rule.high:
                raise UsageError(f"{key}: {name} is {value:g} {rule.unit}, outside {rule.low:g} to {rule.high:g}")


@cache
def _architecture_tables() -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    text = (resources.files("accelerators.gpu") / "data" / "constants.yaml").read_text(encoding="utf-8")
    tables: Mapping[str, Mapping[str, Mapping[str, float]]] = yaml.safe_load(text)["architectures"]
    for table in tables.values():
        check_overrides(table)
    return tables
