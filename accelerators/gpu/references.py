"""The public measurement files as `Measured` sets: which column means what, and how the times were taken."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from accelerators.gpu.measured import SHAPES, Measured
from dse.core.errors import UsageError

Row = Mapping[str, str]
#: Names of GPUs in the files, and the preset that stands for each.
PRESETS: Mapping[str, str] = {
    "a100_sxm": "a100_sxm_80", "h100_sxm": "h100_sxm", "h200_sxm": "h200_sxm", "b200_sxm": "b200_sxm", "l40s": "l40s",
    "NV_V100": "v100_sxm2", "NV_P100": "p100_pcie", "NV_TitanX_Pascal": "titan_x_pascal", "NV_T4": "t4",
    "V100-PCIE-32GB": "v100_pcie", "A100-PCIE-40GB": "a100_pcie_40", "A100-PCIE-80GB": "a100_pcie_80", "L4": "l4",
    "P100-PCIE-16GB": "p100_pcie", "Tesla-P4": "p4", "Tesla-T4": "t4", "H100-PCIE": "h100_pcie",
}  # fmt: skip
_BINARY = ("add", "mul", "div", "pow")
_FRAMEWORKS = {"trtllm": "trtllm_fp8", "sglang": "sglang_fp8", "vllm": "vllm_fp8"}
_DEEPBENCH_TYPES = {"fp16_storage_fp32math": "fp16_fp32math"}
_DIRECTIONS = {"fwd": "forward", "bwd_in": "backward_data", "bwd_w": "backward_weights"}


def read(path: Path) -> list[Row]:
    """Rows of a CSV file, plain or gzipped; lines that start with # are comments.

    Raises
    ------
    UsageError: it cannot be read or has no rows.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        rows: list[Row] = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise UsageError(f"{path}: measurements cannot be read: {error}") from error
    if not rows:
        raise UsageError(f"{path}: measurements have no rows")
    return rows


def collect(rows: Iterable[Row], classify: Callable[[Row], tuple[str, Measured] | None]) -> dict[str, list[Measured]]:
    """Sets by GPU name: rows alike in all but shape and time are put together."""
    groups: dict[tuple[str, ...], list[Measured]] = {}
    for row in rows:
        found = classify(row)
        if found is not None:
            gpu, one = found
            identity: tuple[str, ...] = (gpu, one.op, one.key, one.dtype, one.protocol, one.direction, one.environment,
                        str(one.training))  # fmt: skip
            groups.setdefault(identity, []).append(one)
    sets: dict[str, list[Measured]] = {}
    for identity, ones in groups.items():
        first = ones[0]
        shape = {name: np.concatenate([one.shape[name] for one in ones]) for name in first.shape}
        joined = Measured(
            first.op, first.key, first.dtype, shape, np.concatenate([one.seconds for one in ones]), first.protocol,
            first.direction, first.environment, first.training,
        )  # fmt: skip
        sets.setdefault(identity[0], []).append(joined)
    return sets


def aiconfigurator(path: Path) -> dict[str, list[Measured]]:
    """GEMM kernels under CUDA graphs (ai-dynamo/aiconfigurator), sets by GPU name."""

    def classify(row: Row) -> tuple[str, Measured] | None:
        dtype = {"bfloat16": "bf16", "fp8": "fp8"}.get(row["dtype"])
        if dtype is None:
            return None
        # tokens are the rows of a row-major product
        shape = _shape("gemm", m=row["M"], n=row["N"], k=row["K"], batch=1)
        where = _FRAMEWORKS.get(row["fw"], "") if dtype == "fp8" else ""
        return row["gpu"], Measured("gemm", f"gemm/{dtype}", dtype, shape, _seconds(row), "graph", environment=where)

    return collect(read(path), classify)


def neusight(path: Path) -> dict[str, list[Measured]]:
    """fp32 kernels in eager mode (sitar-lab/NeuSight), sets by GPU name."""

    def classify(row: Row) -> tuple[str, Measured] | None:
        op = row["op"]
        if op in ("linear", "bmm"):
            # the recorded grids of all 1,600 rows cover M x K tiles: the file's N is the reduction.
            # cuBLAS is column-major: the product's columns are its rows
            shape = _shape("gemm", m=row["K"], n=row["M"], k=row["N"], batch=row["B"] or 1)
            return row["gpu"], Measured("gemm", f"gemm.{op}/fp32", "fp32", shape, _seconds(row), "eager")
        if op == "conv":
            size, kernel = row["hw"], row["ksize"]
            shape = _shape(
                "conv", batch=row["B"], channels=row["Cin"], height=size, width=size, filters=row["Cout"],
                kernel_height=kernel, kernel_width=kernel, stride_height=row["stride"], stride_width=row["stride"],
                pad_height=row["pad"], pad_width=row["pad"],
            )  # fmt: skip
            return row["gpu"], Measured("conv", "conv.eager/fp32", "fp32", shape, _seconds(row), "eager")
        if op in ("softmax", "ln"):
            kind = "softmax" if op == "softmax" else "layer_norm"
            shape = _shape(kind, rows=row["B"], columns=row["H"])
            return row["gpu"], Measured(kind, f"{kind}/fp32", "fp32", shape, _seconds(row), "eager")
        count = int(float(row["B"])) * int(float(row["H"]))
        shape = _shape("elementwise", elements=count, inputs=2 if op in _BINARY else 1)
        return row["gpu"], Measured("elementwise", f"elementwise.{op}/fp32", "fp32", shape, _seconds(row), "eager")

    return collect(read(path), classify)


def deepbench(path: Path) -> dict[str, list[Measured]]:
    """GEMM, convolution and recurrent calls queued on a stream (baidu-research/DeepBench), sets by GPU name."""

    def classify(row: Row) -> tuple[str, Measured] | None:
        op, train = row["op"], row["suite"] == "train"
        dtype = _DEEPBENCH_TYPES.get(row["dtype"], row["dtype"])
        direction = _DIRECTIONS.get(row["dir"])
        if direction is None or float(row["latency_ms"]) <= 0:
            return None
        if op == "gemm":
            shape = _shape("gemm", m=row["M"], n=row["N"], k=row["K"], batch=1)
            return row["gpu"], Measured("gemm", f"gemm/{dtype}", dtype, shape, _seconds(row), "stream")
        if op == "conv2d":
            # pseudo-fp16 convolutions run faster than fp32's peak: cuDNN multiplies packed halves
            dtype = "fp16" if dtype == "fp16_fp32math" else dtype
            key = f"conv.{direction}/{dtype}"
            return row["gpu"], Measured("conv", key, dtype, _conv_shape(row), _seconds(row), "stream", direction)
        if op in ("lstm", "gru", "rnn"):
            shape = _shape("lstm", hidden=row["hidden"], batch=row["N"], steps=row["T"], inputs=0, layers=1)
            key = f"{'rnn_train' if train else 'rnn'}.{direction}.{op}/{dtype}"
            return row["gpu"], Measured(op, key, dtype, shape, _seconds(row), "stream", direction, training=train)
        return None

    return collect(read(path), classify)


def _conv_shape(row: Row) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    return _shape(
        "conv", batch=row["N"], channels=row["C"], height=row["H"], width=row["W"], filters=row["K"],
        kernel_height=row["R"], kernel_width=row["S"], stride_height=row["stride_h"], stride_width=row["stride_w"],
        pad_height=row["pad_h"], pad_width=row["pad_w"],
    )  # fmt: skip


def _shape(op: str, **columns: str | int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    return {name: np.array([int(float(columns[name]))], dtype=np.int64) for name in SHAPES[op]}


def _seconds(row: Row) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array([float(row["latency_ms"]) * 1e-3])
