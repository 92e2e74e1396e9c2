"""Cycles on AccelForge's architectures are at least as good as the ones it found itself.

Source: AccelForge 1.0.467 run on ResNet-18 (20 layers unfused, 7.71 M cycles) on a 16 x 16 weight-stationary array
that must not be filled, and on the 3 x 3 convolution of ResNet-50's third stage on 14 x 12 units (688,128 cycles).
Its memories move any number of words a cycle, so the examples' bounded external port is opened here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dse.arch import Arch
from dse.arch.arch import load_arch
from dse.flow.map import map_network
from dse.flow.workload import load_workload
from dse.mapping import Problem, TensorAccess, best_mapping

EXAMPLES = Path(__file__).parents[2] / "examples"
OPEN = {"read_words_per_cycle": None, "write_words_per_cycle": None, "shared_words_per_cycle": None}


def opened(name: str) -> Arch:
    arch = load_arch(EXAMPLES / name)
    return arch.model_copy(update={"levels": tuple(level.model_copy(update=OPEN) for level in arch.levels)})


@pytest.mark.parametrize("objective", ["latency", "edp"])
def test_resnet18_on_the_gemmini_like_array(objective: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = map_network(load_workload("zoo:resnet18", Path(), {}), opened("gemmini_like.yaml"), objective)
    with capsys.disabled():
        sys.stdout.write(
            f"\nResNet-18, gemmini_like, least {objective}: {result.cycles:,} cycles (AccelForge 7.71 M)\n"
        )
    assert result.gap == 0
    assert result.cycles <= 7_710_000


@pytest.mark.parametrize("objective", ["latency", "edp"])
def test_conv3_x_on_the_eyeriss_like_array(objective: str, capsys: pytest.CaptureFixture[str]) -> None:
    window = (((2, 1), (4, 1)), ((3, 1), (5, 1)))
    problem = Problem(
        "conv3_x",
        ("M", "C", "P", "Q", "R", "S"),
        (128, 128, 28, 28, 3, 3),
        (
            TensorAccess("w", "weight", (((0, 1),), ((1, 1),), ((4, 1),), ((5, 1),))),
            TensorAccess("i", "input", (((1, 1),), *window)),
            TensorAccess("o", "output", (((0, 1),), ((2, 1),), ((3, 1),))),
        ),
    )
    found = best_mapping(problem, opened("eyeriss_like.yaml"), objective)
    with capsys.disabled():
        sys.stdout.write(
            f"\nconv3_x, eyeriss_like, least {objective}: {found.cost.cycles:,} cycles (AccelForge 688,128)\n"
        )
    assert found.gap == 0
    assert found.cost.cycles <= 688_128
