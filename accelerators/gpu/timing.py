"""Time, energy and traffic of a list of kernels: one call of a kernel model for all kernels of a form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from accelerators.gpu.constants import constants
from accelerators.gpu.conv import ConvProblems, convolution, depthwise
from accelerators.gpu.estimate import GRID, Estimate
from accelerators.gpu.gemm_kernel import TERMS, FloatArray, IntArray
from accelerators.gpu.hardware import DTYPES, GpuHardware
from accelerators.gpu.kernels import Kernel
from accelerators.gpu.power import under_power_limit
from accelerators.gpu.protocol import Protocol
from accelerators.gpu.recurrent import RecurrentProblems, persistent_fits, recurrent
from accelerators.gpu.stream import row_wise
from accelerators.gpu.tiling import ANY_TILE, TileLimits, product
from dse.core.errors import InfeasibleError, Violation

_CONV_FIELDS = tuple(ConvProblems.__dataclass_fields__)
#: How much fewer multiplications Winograd needs than a direct convolution (`accelerators.gpu.conv`).
WINOGRAD_SAVING: Mapping[str, float] = {"winograd_2x2": 2.25, "winograd_4x4": 4.0}


@dataclass(frozen=True)
class Settings:
    """Decisions that kernel times depend on; `rnn` "auto" takes the persistent form where it fits and is faster."""

    dtype: str
    protocol: Protocol = "graph"
    winograd: bool = True
    rnn: str = "auto"
    limits: TileLimits = ANY_TILE


@dataclass(frozen=True, eq=False)
class KernelTimes:
    """What n kernels take; arrays of n unless said otherwise.

    `core_s` at the boost clock, `kernel_s` under the power limit, `observed_s` with what the protocol adds.
    `terms` (n, 7) and `grid` (n, 6) as in `Estimate`, zero where a kernel is no grid of tiles; `stage_s` what a kernel
    does beside its tiles (Winograd's transforms, operands of fused ops). `energy_j` dynamic, by component.
    """

    core_s: FloatArray
    kernel_s: FloatArray
    observed_s: FloatArray
    flops: FloatArray
    useful_macs: FloatArray
    dram_bytes: FloatArray
    least_bytes: FloatArray
    bound_s: FloatArray
    stage_s: FloatArray
    terms: FloatArray
    grid: FloatArray
    energy_j: Mapping[str, FloatArray]
    algorithm: tuple[str, ...]


def time_kernels(hw: GpuHardware, kernels: Sequence[Kernel], settings: Settings) -> KernelTimes:
    """Estimate every kernel.

    Raises
    ------
    InfeasibleError: no tile that the decisions allow fits, or persistent weights do not.
    UsageError: the GPU does not multiply in the type.
    """
    parts: list[tuple[IntArray, Estimate]] = []
    for form, estimate in _FORMS.items():
        index = np.array([i for i, kernel in enumerate(kernels) if _form(kernel) == form], np.int64)
        if index.size:
            parts.append((index, estimate(hw, [kernels[i] for i in index], settings)))
    return _joined(hw, kernels, parts, settings)


def _joined(
    hw: GpuHardware, kernels: Sequence[Kernel], parts: Sequence[tuple[IntArray, Estimate]], settings: Settings
) -> KernelTimes:
    count = len(kernels)
    seconds, flops, dram, l2, bound = (np.zeros(count) for _ in range(5))
    terms, grid = np.zeros((count, len(TERMS))), np.zeros((count, len(GRID)))
    algorithm = [""] * count
    for index, found in parts:
        seconds[index], flops[index], bound[index] = found.seconds, found.flops, found.bound_s
        dram[index], l2[index] = found.dram_bytes, found.l2_bytes
        if len(found.grid):
            terms[index], grid[index] = found.terms, found.grid
        for place, name in zip(index, found.algorithm, strict=True):
            algorithm[place] = name
    # what fused ops and warm recurrent weights read comes on top, in full: no overlap is claimed for it
    extra = np.array([kernel.fused_elements + kernel.weight_elements for kernel in kernels], float)
    extra *= DTYPES[settings.dtype][0]
    held = constants(hw, "gemm", settings.dtype)
    extra_s = extra / (hw.dram_bytes_s * held["dram_efficiency"])
    tiled = terms.any(axis=1)
    stage = extra_s + np.where(tiled, seconds - _tile_seconds(terms, kernels, hw, settings), 0.0)
    whole = Estimate(seconds + extra_s, flops, dram + extra, l2 + extra, bound, np.ones(count))
    limited = under_power_limit(hw, whole, settings.dtype)
    least = _least_bytes(kernels, settings.dtype, dram)
    direct = np.array([kernel.macs for kernel in kernels], float)
    saving = np.array([WINOGRAD_SAVING.get(name, 1.0) for name in algorithm])
    return KernelTimes(
        core_s=whole.seconds,
        kernel_s=limited.seconds,
        observed_s=_observed(hw, kernels, limited.seconds, settings),
        flops=np.maximum(flops, 2.0 * direct / saving),
        useful_macs=direct / saving,
        dram_bytes=np.maximum(whole.dram_bytes, least),
        least_bytes=least,
        bound_s=bound,
        stage_s=np.maximum(stage, 0.0),
        terms=terms,
        grid=grid,
        energy_j={name: joules for name, joules in limited.energy_j.items() if name != "static"},
        algorithm=tuple(algorithm),
    )


def class_key(kernel: Kernel) -> str:
    """The class of kernels, as in `constants` and in the validation's scores, that a kernel belongs to."""
    if kernel.form == "rows":
        return kernel.kind
    return {"conv": "conv.forward", "depthwise": "conv.forward", "recurrent": f"rnn.forward.{kernel.kind}",
            "stream": "elementwise"}.get(kernel.form, "gemm")  # fmt: skip


def _observed(hw: GpuHardware, kernels: Sequence[Kernel], kernel_s: FloatArray, settings: Settings) -> FloatArray:
    """With the launches. A replayed graph launches every kernel as it does a GEMM: no library call stands before it."""
    found: dict[str, tuple[float, float]] = {}
    for kernel in kernels:
        key = "gemm" if settings.protocol == "graph" else class_key(kernel)
        if key not in found:
            held = constants(hw, key, settings.dtype)
            found[key] = (held["launch_us"] * 1e-6, held["host_us"] * 1e-6)
    keys = ["gemm" if settings.protocol == "graph" else class_key(kernel) for kernel in kernels]
    launch, host = (np.array([found[key][i] for key in keys]) for i in (0, 1))
    total = kernel_s + launch
    observed: FloatArray = np.maximum(total, host) if settings.protocol == "eager" else total
    return observed


def _tile_seconds(terms: FloatArray, kernels: Sequence[Kernel], hw: GpuHardware, settings: Settings) -> FloatArray:
    """What the grid of tiles takes by itself: its terms put together as `gemm_kernel` does."""
    exposure = {form: constants(hw, form, settings.dtype)["exposure"] for form in ("gemm", "conv")}
    share = np.array([exposure["conv" if kernel.form == "conv" else "gemm"] for kernel in kernels])
    busy = terms[:, :5]
    longest = busy.max(axis=1)
    return np.asarray(longest + share * (busy.sum(axis=1) - longest) + terms[:, 5] + terms[:, 6])


def _least_bytes(kernels: Sequence[Kernel], dtype: str, moved: FloatArray) -> FloatArray:
    """Bytes that a kernel cannot do without: each operand element once, each result once."""
    element, output, _ = DTYPES[dtype]
    least = np.zeros(len(kernels))
    for index, kernel in enumerate(kernels):
        s = kernel.shape
        if kernel.form == "gemm":
            least[index] = ((s["m"] + s["n"]) * s["k"] * element + s["m"] * s["n"] * output) * s["batch"]
        elif kernel.form == "conv":
            out = _output(s)
            inputs = min(s["height"] * s["width"], out * s["kernel_height"] * s["kernel_width"])
            read = min(inputs, out) * s["channels"] * s["batch"] + s["channels"] * s["filters"]
            least[index] = (read * element + out * s["filters"] * s["batch"] * output) * s["groups"]
        elif kernel.form == "recurrent":
            least[index] = s["hidden"] * s["batch"] * s["steps"] * s["directions"] * element
        else:
            least[index] = moved[index]
        least[index] += (kernel.fused_elements + kernel.weight_elements) * element
    return least


def _output(s: Mapping[str, int]) -> int:
    """Output pixels of a convolution's shape."""
    height = (s["height"] + 2 * s["pad_height"] - s["kernel_height"]) // s["stride_height"] + 1
    width = (s["width"] + 2 * s["pad_width"] - s["kernel_width"]) // s["stride_width"] + 1
    return height * width


def _form(kernel: Kernel) -> str:
    """The key of `_FORMS` that estimates a kernel."""
    if kernel.form == "conv":
        return "grouped" if kernel.shape["groups"] > 1 else "transposed" if kernel.transposed else "conv"
    if kernel.form in ("rows", "recurrent"):
        return kernel.kind
    return kernel.form


def _column(kernels: Sequence[Kernel], name: str) -> IntArray:
    return np.array([kernel.shape[name] for kernel in kernels], np.int64)


def _tiled(settings: Settings):  # type: ignore[no-untyped-def]
    return partial(product, limits=settings.limits)


def _gemm(hw: GpuHardware, kernels: Sequence[Kernel], settings: Settings) -> Estimate:
    m, n, k, batch = (_column(kernels, name) for name in ("m", "n", "k", "batch"))
    found = product(hw, m, n, k, batch=batch, dtype=settings.dtype, limits=settings.limits)
    return replace(found, algorithm=("gemm",) * len(kernels))


def _problems(kernels: Sequence[Kernel]) -> ConvProblems:
    return ConvProblems(**{name: _column(kernels, name) for name in _CONV_FIELDS})


def _conv(hw: GpuHardware, kernels: Sequence[Kernel], settings: Settings) -> Estimate:
    return convolution(
        hw, _problems(kernels), dtype=settings.dtype, winograd=settings.winograd, product=_tiled(settings)
    )


def _transposed(hw: GpuHardware, kernels: Sequence[Kernel], settings: Settings) -> Estimate:
    return convolution(
        hw, _problems(kernels), dtype=settings.dtype, winograd=settings.winograd, direction="backward_data",
        product=_tiled(settings),
    )  # fmt: skip


def _grouped(hw: GpuHardware, kernels: Sequence[Kernel], settings: Settings) -> Estimate:
    """Groups are products of their own: an implicit GEMM each, side by side."""
    held = constants(hw, "conv", settings.dtype)
    pixels = np.array([_output(kernel.shape) * kernel.shape["batch"] for kernel in kernels], np.int64)
    window = _column(kernels, "kernel_height") * _column(kernels, "kernel_width")
    depth = _column(kernels, "channels") * window
    inputs = _column(kernels, "height") * _column(kernels, "width") * _column(kernels, "batch")
    distinct = np.minimum(inputs * _column(kernels, "channels"), pixels * depth)
    found = product(
        hw, pixels, _column(kernels, "filters"), depth, batch=_column(kernels, "groups"), a_elements=distinct,
        dtype=settings.dtype, kernel="conv", efficiency=held["implicit_efficiency"], values=held,
        limits=settings.limits,
    )  # fmt: skip
    return replace(found, algorithm=("grouped_gemm",) * len(kernels))


def _depthwise(hw: GpuHardware, kernels: Sequence[Kernel], settings: Settings) -> Estimate:
    return depthwise(hw, _problems(kernels), dtype=settings.dtype)


def _softmax(hw: GpuHardware, kernels: Sequence[Kernel], settings: Settings) -> Estimate:
    kind = kernels[0].kind
    return row_wise(hw, _column(kernels, "rows"), _column(kernels, "columns"), kind=kind, dtype=settings.dtype)


def _stream(hw: GpuHardware, kernels: Sequence[Kernel], settings: Settings) -> Estimate:
    held = constants(hw, "elementwise", settings.dtype)
    moved = (_column(kernels, "read") + _column(kernels, "written")).astype(float) * DTYPES[settings.dtype][0]
    operations = _column(kernels, "operations").astype(float)
    arithmetic = operations / (hw.rates.fp32 * hw.sms * hw.clock_hz * held["peak_efficiency"])
    rates = (hw.dram_bytes_s * held["dram_efficiency"], hw.l2_gb_s * 1e9 * held["l2_efficiency"])
    seconds = np.maximum.reduce([arithmetic, *(moved / rate for rate in rates)])
    bound = moved / hw.dram_bytes_s
    return Estimate(seconds, operations, moved, moved, bound, np.ones_like(moved), ("stream",) * moved.size)


def _recurrent(hw: GpuHardware, kernels: Sequence[Kernel], settings: Settings) -> Estimate:
    """Layers of one cell; directions run one after the other."""
    cell, dtype = kernels[0].kind, settings.dtype
    names = ("hidden", "batch", "steps", "inputs")
    ones = np.ones(len(kernels), np.int64)
    problems = RecurrentProblems(**{name: _column(kernels, name) for name in names}, layers=ones)
    fits = persistent_fits(hw, problems, cell, dtype)
    if settings.rnn == "persistent" and not fits.all():
        largest = float(_column(kernels, "hidden")[~fits].max())
        hint = "persistent weights must fit registers and shared memory; decisions.rnn=auto falls back"
        raise InfeasibleError("a persistent recurrent layer does not fit", (Violation("hidden", largest, 1, "", hint),))
    standard = recurrent(
        hw, problems, cell=cell, dtype=dtype, mode="unfused" if settings.rnn == "unfused" else "standard"
    )
    found, chosen = standard, np.array(standard.algorithm)
    if settings.rnn in ("auto", "persistent") and fits.any():
        fields = {name: getattr(problems, name)[fits] for name in RecurrentProblems.__dataclass_fields__}
        kept = RecurrentProblems(**fields)
        faster = recurrent(hw, kept, cell=cell, dtype=dtype, mode="persistent")
        better = settings.rnn == "persistent"
        use = np.flatnonzero(fits)[(faster.seconds < standard.seconds[fits]) | better]
        rows = np.searchsorted(np.flatnonzero(fits), use)
        columns = {name: getattr(standard, name).copy() for name in _ESTIMATED}
        for name, values in columns.items():
            values[use] = getattr(faster, name)[rows]
        chosen = chosen.astype(object)
        chosen[use] = "persistent"
        found = Estimate(**columns, launches=standard.launches)
    directions = _column(kernels, "directions")
    scaled = {name: getattr(found, name) * directions for name in _ESTIMATED}
    return Estimate(**scaled, launches=found.launches, algorithm=tuple(str(name) for name in chosen))


_ESTIMATED = ("seconds", "flops", "dram_bytes", "l2_bytes", "bound_s")
_FORMS = {
    "gemm": _gemm, "conv": _conv, "transposed": _transposed, "grouped": _grouped, "depthwise": _depthwise,
    "softmax": _softmax, "layer_norm": _softmax, "stream": _stream,
    "lstm": _recurrent, "gru": _recurrent, "rnn": _recurrent,
}  # fmt: skip
