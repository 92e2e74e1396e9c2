"""Mutated TFLite files: each is read or refused in one clear sentence, in bounded time."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("tflite", reason="the tflite package is not installed")

from tflite_mutation import mutated, outcome, small_bytes

from workloads.tflite import read_model


@pytest.mark.parametrize("seed", range(3))
def test_mutations_end_in_a_network_or_a_sentence(seed: int, tmp_path: Path) -> None:
    data, rng, path = small_bytes(seed), random.Random(seed), tmp_path / "m.tflite"
    seen: Counter[str] = Counter()
    for _ in range(200):
        path.write_bytes(mutated(data, rng))
        seen[outcome(path)] += 1
    # a mutator that breaks nothing, or everything, would prove nothing
    assert min(seen["read"], seen["refused"]) >= 10


@pytest.mark.parametrize("seed", range(3))
def test_the_files_that_are_damaged_are_whole(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(small_bytes(seed))
    assert outcome(path) == "read"
    kinds = [op.kind for op in read_model(path).ops]
    assert ("requantize" in kinds) == (seed == 2)
    assert "conv" in kinds
