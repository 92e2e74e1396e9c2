"""Random chains of convolutions, and their compilation as one fused group under a plan of the test's choice."""

from __future__ import annotations

import numpy as np
import pytest
from designs import FAMILY, random_hardware
from random_networks import NetworkDraw

from accelerators.systolic import lower as lowering
from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.fusion import FusedGroup, GroupPlan, plan_group
from accelerators.systolic.hardware import SystolicHardware, machine
from accelerators.systolic.layer import Layer
from accelerators.systolic.partition import partition
from accelerators.systolic.reduction import direct, gather
from accelerators.systolic.work import Fused, Price, Work
from dse.backend import Decisions
from dse.ir import Graph


def random_chain(rng: np.random.Generator, weight_bits: int) -> Graph:
    """Two to four convolutions in a row: pointwise, depthwise, dense and strided ones; then a residual add, fully
    connected layers, or nothing."""
    draw = NetworkDraw(rng, weight_bits)
    x = draw.input((1, int(rng.integers(1, 9)), int(rng.integers(8, 30)), int(rng.integers(3, 12))))
    first = x
    for _ in range(int(rng.integers(2, 5))):
        kind = str(rng.choice(["point", "depth", "dense", "valid"]))
        channels, outputs = draw.shape(x)[1], int(rng.integers(1, 13))
        stride = int(rng.choice([1, 1, 2])) if min(draw.shape(x)[2:]) > 3 else 1
        activation = str(rng.choice(["none", "relu"]))
        if kind == "point":
            x = draw.conv(x, outputs, (1, 1), pads=(0, 0, 0, 0), activation=activation)
        elif kind == "depth":
            x = draw.conv(x, channels, (3, 3), strides=(stride, stride), groups=channels, activation=activation)
        elif kind == "dense":
            x = draw.conv(x, outputs, (3, 3), strides=(stride, stride), activation=activation)
        elif min(draw.shape(x)[2:]) > 2:
            x = draw.conv(x, outputs, (2, 3), pads=(0, 0, 0, 0), activation=activation)
        else:
            x = draw.conv(x, outputs, (1, 2), pads=(0, 1, 0, 0), activation=activation)
    if rng.random() < 0.2:
        x = draw.gemm(draw.flatten(x), int(rng.integers(1, 12)))
        if rng.random() < 0.5:
            x = draw.gemm(x, int(rng.integers(1, 12)), "relu")
    elif rng.random() < 0.4:
        if draw.shape(x) != draw.shape(first):
            first = draw.input(draw.shape(x))
        producer = draw.ops[-1]
        if producer.attributes["activation"] == "none":
            x = draw.add(x, first, str(rng.choice(["none", "relu"])))
    return draw.graph(x)


def wide_hardware(rng: np.random.Generator) -> SystolicHardware:
    """A random design whose memories hold stripes of a chain, sometimes just so; its lanes divide rows and columns."""
    rows, columns = int(rng.integers(2, 9)), int(rng.integers(2, 9))
    lanes = [lane for lane in range(1, 9) if rows % lane == 0 and columns % lane == 0]
    return random_hardware(
        rng,
        rows=rows,
        columns=columns,
        vector_lanes=int(rng.choice(lanes)),
        activation_kib=float(rng.choice([2, 4, 16])),
        weight_kib=float(rng.choice([2, 8, 32])),
        accumulator_kib=float(rng.choice([1, 4])),
        parameter_channels=256,
    )


def random_plan(rng: np.random.Generator, graph: Graph, hw: SystolicHardware) -> GroupPlan | None:
    """A plan of random stripe height for all layers of a chain, rolling and resident as drawn; None: none fits."""
    parts = partition(graph, fuse_residual=hw.requantize == "q31")
    layers = tuple(item for item in parts.work if isinstance(item, Layer))
    target = machine(hw)
    gathered = gather(layers[0], hw.rows)
    reduction = gathered if gathered is not None and rng.random() < 0.5 else direct(layers[0], hw.rows)
    height = int(rng.integers(1, layers[-1].out_height + 1))
    resident, rolling = bool(rng.random() < 0.6), bool(rng.random() < 0.7)
    return plan_group(FusedGroup(layers), target, reduction, height, resident=resident, rolling=rolling)


def compile_fused(graph: Graph, hw: SystolicHardware, plan: GroupPlan) -> SystolicExecutable:
    """The program of a chain with its layers fused under `plan`; the rest of the graph stays as it is."""

    def forced(graph: Graph, parts: object, machine: object, tiling: object) -> tuple[Work, ...]:
        members = {layer.output for layer in plan.group.layers}
        rest = [item for item in parts.work if item.output not in members]  # type: ignore[attr-defined]
        return (Fused(plan.group, plan, Price(0, 0)), *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lowering, "fuse", forced)
        executable = FAMILY.lower(graph, hw, Decisions({"fuse_layers": "auto"}))
    assert isinstance(executable, SystolicExecutable)
    return executable
