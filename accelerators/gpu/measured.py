"""Measured kernels as arrays, and what our models say about them under the protocol they were taken with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import yaml

from accelerators.gpu.constants import constants
from accelerators.gpu.conv import ConvProblems, convolution
from accelerators.gpu.estimate import Estimate
from accelerators.gpu.gemm import gemm
from accelerators.gpu.gemm_kernel import FloatArray, IntArray
from accelerators.gpu.hardware import GpuHardware
from accelerators.gpu.power import under_power_limit
from accelerators.gpu.protocol import Protocol, observed_seconds
from accelerators.gpu.recurrent import RecurrentProblems, recurrent
from accelerators.gpu.stream import elementwise, row_wise
from dse.core.errors import UsageError, nearest

#: Shape columns of every op; those with a default may be left out of a file.
SHAPES: Mapping[str, tuple[str, ...]] = {
    "gemm": ("m", "n", "k", "batch"),
    "conv": ("batch", "channels", "height", "width", "filters", "kernel_height", "kernel_width", "stride_height",
             "stride_width", "pad_height", "pad_width"),
    "elementwise": ("elements", "inputs"),
    "softmax": ("rows", "columns"),
    "layer_norm": ("rows", "columns"),
    "lstm": ("hidden", "batch", "steps", "inputs", "layers"),
    "gru": ("hidden", "batch", "steps", "inputs", "layers"),
    "rnn": ("hidden", "batch", "steps", "inputs", "layers"),
}  # fmt: skip
DEFAULTS: Mapping[str, int] = {"batch": 1, "inputs": 0, "layers": 1}


@dataclass(frozen=True, eq=False)
class Measured:
    """Rows of one op, type and way of measuring.

    `key` names the constants they are fitted by ("gemm/bf16", "elementwise.gelu/fp32"); `shape` holds the columns of
    `SHAPES`, int64 (n,); `seconds` float64 (n,). `direction` as in `convolution` and `recurrent`; `environment` one
    of `environments()`.
    """

    op: str
    key: str
    dtype: str
    shape: Mapping[str, IntArray]
    seconds: FloatArray
    protocol: Protocol = "graph"
    direction: str = "forward"
    environment: str = ""
    training: bool = False
    transposed: bool = False

    def __len__(self) -> int:
        return self.seconds.size

    def take(self, index: Any) -> Measured:
        """Some of the rows: `index` a boolean mask or positions."""
        return replace(self, shape={k: v[index] for k, v in self.shape.items()}, seconds=self.seconds[index])


@dataclass(frozen=True)
class Environment:
    """A framework's way to a kernel: its tile library and the constants it fixes."""

    library: str
    constants: Mapping[str, float]


@cache
def environments() -> Mapping[str, Environment]:
    """Environments by name, from `data/environments.yaml`."""
    text = (resources.files("accelerators.gpu") / "data" / "environments.yaml").read_text(encoding="utf-8")
    return {
        name: Environment(entry.get("library", ""), entry.get("constants", {}))
        for name, entry in yaml.safe_load(text)["environments"].items()
    }


def environment(name: str) -> Environment:
    """An environment by name; '' is plain library calls.

    Raises
    ------
    UsageError: no environment has that name.
    """
    if name and name not in environments():
        raise UsageError(f"{name!r} is not a known environment{nearest(name, environments())}")
    return environments()[name] if name else Environment("", {})


def values_for(hw: GpuHardware, rows: Measured) -> dict[str, float]:
    """The constants that hold for measured rows: those of their key, the environment's over them."""
    kernel, _, dtype = rows.key.partition("/")
    return {**constants(hw, kernel, dtype), **environment(rows.environment).constants}


def estimate(hw: GpuHardware, rows: Measured, values: Mapping[str, float]) -> Estimate:
    """The model's estimate of measured rows with given constants, protocol not yet added.

    Raises
    ------
    UsageError: the rows' op is none of `SHAPES`.
    """
    s = rows.shape
    if rows.op == "gemm":
        return gemm(
            hw, s["m"], s["n"], s["k"], batch=s["batch"], dtype=rows.dtype, values=values,
            library=environment(rows.environment).library,
        )  # fmt: skip
    if rows.op == "conv":
        problems = ConvProblems(**{name: s[name] for name in SHAPES["conv"]})
        return convolution(hw, problems, dtype=rows.dtype, direction=rows.direction, values=values)  # type: ignore[arg-type]
    if rows.op == "elementwise":
        # a call with two inputs moves half as much again as one with one
        return elementwise(hw, s["elements"] * (s["inputs"] + 1) / 2, dtype=rows.dtype, values=values)
    if rows.op in ("softmax", "layer_norm"):
        return row_wise(hw, s["rows"], s["columns"], kind=rows.op, dtype=rows.dtype, values=values)
    if rows.op in ("lstm", "gru", "rnn"):
        layers = RecurrentProblems(**{name: s[name] for name in SHAPES["lstm"]})
        return recurrent(
            hw, layers, cell=rows.op, dtype=rows.dtype, training=rows.training, values=values,
            direction=rows.direction,  # type: ignore[arg-type]
        )  # fmt: skip
    raise UsageError(f"{rows.op!r} is not an op with a measured form{nearest(rows.op, SHAPES)}")


def predict(hw: GpuHardware, rows: Measured, values: Mapping[str, float] | None = None) -> FloatArray:
    """Seconds that the rows' protocol would report: float64 (n,)."""
    held = values_for(hw, rows) if values is None else {**values, **environment(rows.environment).constants}
    found = estimate(hw, rows, held)
    kernel = under_power_limit(hw, found, rows.dtype).seconds if rows.op in ("gemm", "conv") else found.seconds
    if rows.op == "gemm" and rows.dtype in ("fp8", "int8") and rows.environment:
        activations = rows.shape["m"] * rows.shape["k"] * rows.shape["batch"]
        kernel = kernel + activations * held["quantize_bytes"] / (hw.dram_bytes_s * held["dram_efficiency"])
        kernel = kernel + rows.shape["m"] * held["quantize_row_ns"] * 1e-9
    return observed_seconds(kernel, rows.protocol, held["launch_us"], held["host_us"])
