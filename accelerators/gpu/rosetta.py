"""The Rosetta-Stone table: what deep-learning frameworks reached on K80, P100 and V100, beside what the GPU allows.

Recorded figures: ilkarman/DeepLearningFrameworks (MIT). Its networks are rebuilt here layer by layer. Two of our
figures stand beside each record: the roofline of the layers (each at its cheapest algorithm, operands moved once, boost
clock, no launches, no data loading), which nothing can beat, and the models' time of the same layers one by one.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from accelerators.gpu.constants import constants
from accelerators.gpu.conv import ConvProblems, Direction, convolution
from accelerators.gpu.gemm import gemm
from accelerators.gpu.hardware import GpuHardware
from accelerators.gpu.presets import preset
from accelerators.gpu.recurrent import GATES, RecurrentProblems, recurrent
from dse.validate import Comparison, Suite

_FLOAT_BYTES = 4
#: Columns of the table, the preset each stands for, and how many GPUs worked. A K80 board holds two GPUs; one ran.
GPUS: Mapping[str, tuple[str, int]] = {
    "K80": ("k80", 1), "P100": ("p100_pcie", 1), "V100x1_real": ("v100_pcie", 1), "V100x4_real": ("v100_pcie", 4),
    "V100x1_synth": ("v100_pcie", 1), "V100x4_synth": ("v100_pcie", 4),
}  # fmt: skip
#: Further GPUs that the notes give our times for.
_SHOWN = ("a100_sxm_80", "h100_sxm", "b200_sxm", "mi210", "rtx_4090", "l40s", "t4", "jetson_agx_orin")


@dataclass(frozen=True)
class Conv:
    """A convolution of one image: channels in, filters, output edge, kernel edge, stride."""

    channels: int
    filters: int
    size: int
    kernel: int = 3
    stride: int = 1


@dataclass(frozen=True)
class Task:
    """What was timed: layers of a network, how many images or sequences at once, how many in all, trained or not.

    `batch` and `samples` are those of the notebooks, from memory (M) where the table does not say them.
    """

    convs: tuple[Conv, ...]
    dense: tuple[tuple[int, int], ...]
    batch: int
    samples: int
    training: bool
    gru: tuple[int, int, int] | None = None  # hidden, inputs, steps
    seconds_per_unit: float = 1.0


def _resnet50() -> tuple[Conv, ...]:
    layers = [Conv(3, 64, 112, 7, 2)]
    channels = 64
    for width, size, blocks, stride in ((64, 56, 3, 1), (128, 28, 4, 2), (256, 14, 6, 2), (512, 7, 3, 2)):
        for block in range(blocks):
            step = stride if block == 0 else 1
            layers += [Conv(channels, width, size * step, 1), Conv(width, width, size, 3, step)]
            layers.append(Conv(width, 4 * width, size, 1))
            if block == 0:
                layers.append(Conv(channels, 4 * width, size, 1, step))
            channels = 4 * width
    return tuple(layers)


def _densenet121() -> tuple[Conv, ...]:
    layers, channels, growth = [Conv(3, 64, 112, 7, 2)], 64, 32
    for size, blocks in ((56, 6), (28, 12), (14, 24), (7, 16)):
        for _ in range(blocks):
            layers += [Conv(channels, 4 * growth, size, 1), Conv(4 * growth, growth, size)]
            channels += growth
        if size > 7:
            channels //= 2
            layers.append(Conv(2 * channels, channels, size, 1))
    return tuple(layers)


def tasks() -> Mapping[str, Task]:
    """Tasks by the first words of the table's column `task`."""
    cifar = (Conv(3, 50, 32), Conv(50, 50, 32), Conv(50, 100, 16), Conv(100, 100, 16))
    return {
        "CNN VGG-style": Task(cifar, ((6400, 512), (512, 10)), batch=64, samples=10 * 50_000, training=True),
        "ResNet50 features": Task(_resnet50(), (), batch=32, samples=1000, training=False),
        "GRU IMDB": Task((), ((100, 2),), batch=64, samples=3 * 25_000, training=True, gru=(100, 125, 150)),
        # minutes; 5 epochs over the 87,306 images of the training part
        "DenseNet121": Task(_densenet121(), ((1024, 14),), batch=64, samples=5 * 87_306, training=True,
                            seconds_per_unit=60),
    }  # fmt: skip


def roofline_s(hw: GpuHardware, task: Task) -> float:
    """Seconds that no program can beat: every layer at its fewest multiplications and its compulsory bytes."""
    peak, total = hw.peak_flop_s("fp32"), 0.0
    for conv in task.convs:
        pixels = task.batch * conv.size**2
        macs = pixels * conv.channels * conv.filters * conv.kernel**2
        # F(4x4) is the cheapest Winograd that libraries have
        saving = 4.0 if (conv.kernel, conv.stride) == (3, 1) else 1.0
        moved = pixels * (conv.channels + conv.filters) + conv.channels * conv.filters * conv.kernel**2
        total += max(2 * macs / saving / peak, moved * _FLOAT_BYTES / hw.dram_bytes_s)
    for inputs, outputs in task.dense:
        total += _product_s(hw, task.batch, inputs, outputs)
    if task.gru:
        hidden, inputs, steps = task.gru
        # a persistent kernel reads its weights once
        total += 2.0 * task.batch * steps * GATES["gru"] * hidden * (hidden + inputs) / peak
    return total * _passes(task) * task.samples / task.batch


def layers_s(hw: GpuHardware, task: Task) -> float:
    """Seconds that the models give the same layers, each a call queued on a stream; gradients where it trains."""
    directions: tuple[Direction, ...] = ("forward", "backward_data", "backward_weights")
    used = directions if task.training else directions[:1]
    total = 0.0
    for direction in used:
        if task.convs:
            found = convolution(hw, _problems(task), dtype="fp32", direction=direction)
            launch = constants(hw, f"conv.{direction}", "fp32")["launch_us"] * 1e-6
            total += float(found.seconds.sum()) + launch * len(task.convs)
        for inputs, outputs in task.dense:
            launch = constants(hw, "gemm", "fp32")["launch_us"] * 1e-6
            total += float(gemm(hw, outputs, task.batch, inputs, dtype="fp32").seconds[0]) + launch
        if task.gru:
            hidden, inputs, steps = task.gru
            shape = [np.array([value], np.int64) for value in (hidden, task.batch, steps, inputs, 1)]
            layer = RecurrentProblems(*shape)
            mode = recurrent(hw, layer, cell="gru", dtype="fp32", training=task.training, direction=direction)
            total += float(mode.seconds[0])
    return total * task.samples / task.batch


def rosetta_suite() -> Suite:
    """Frameworks against our roofline (none may be faster) and our times of the layers (for information)."""
    rows = [
        {"task": row["task"], "framework": row["framework"], "column": column, "figure": row[column]}
        for row in _table()
        for column in GPUS
        if row[column]
    ]
    return Suite(
        name="rosetta",
        source="ilkarman/DeepLearningFrameworks",
        rows=rows,
        run=_compare,
        label=lambda row: f"{_key(row['task'])} {row['framework']} {row['column']}",
        notes=tuple(_notes()),
    )


def _compare(row: Mapping[str, str]) -> list[Comparison]:
    task = tasks()[_key(row["task"])]
    name, gpus = GPUS[row["column"]]
    recorded = float(row["figure"]) * task.seconds_per_unit
    bound, ours = (function(preset(name), task) / gpus for function in (roofline_s, layers_s))
    return [
        Comparison("s below the roofline", max(0.0, bound - recorded), 0.0, bound=0.0),
        Comparison("roofline, s", bound, recorded),
        Comparison("layers, s", ours, recorded),
    ]


def _notes() -> list[str]:
    lines = []
    for name, task in tasks().items():
        shown = ", ".join(f"{gpu} {layers_s(preset(gpu), task):.3g} s" for gpu in _SHOWN)
        what = "trained on" if task.training else "run on"
        lines.append(f"{name}, fp32, batch {task.batch}, {what} {task.samples} samples, layers alone: {shown}")
    return lines


def _passes(task: Task) -> int:
    """A layer is computed once, and twice more for its two gradients."""
    return 3 if task.training else 1


def _product_s(hw: GpuHardware, m: int, k: int, n: int) -> float:
    moved = (m * k + k * n + m * n) * _FLOAT_BYTES
    return max(2.0 * m * n * k / hw.peak_flop_s("fp32"), moved / hw.dram_bytes_s)


def _problems(task: Task) -> ConvProblems:
    columns = [
        (task.batch, c.channels, _input(c), _input(c), c.filters, c.kernel, c.kernel, c.stride, c.stride,
         c.kernel // 2, c.kernel // 2)
        for c in task.convs
    ]  # fmt: skip
    return ConvProblems(*np.array(columns, np.int64).T)


def _input(conv: Conv) -> int:
    return conv.size * conv.stride


def _key(task: str) -> str:
    return next(name for name in tasks() if task.startswith(name))


@cache
def _table() -> list[dict[str, str]]:
    text = (resources.files("accelerators.gpu") / "data" / "rosetta_stone.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def fastest_over_roofline() -> float:
    """The smallest ratio of a recorded time to its roofline over the whole table."""
    ratios = [math.inf]
    for row in rosetta_suite().rows:
        comparison = _compare(row)[1]
        ratios.append(comparison.recorded / comparison.predicted)
    return min(ratios)
