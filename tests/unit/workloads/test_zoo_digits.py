"""The digits networks are as accurate as the table says, on the data they claim, and their trainer trains."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.compiler import prepare, quantize
from dse.core.errors import ModelError
from dse.flow.dataset import load_dataset
from dse.ir import Graph
from dse.ir.quantized import quantize_inputs
from dse.ir.reference import run_float, run_quantized
from workloads.onnx import read_model
from workloads.zoo import digits, digits_files, train_digits
from workloads.zoo.digits import CNN, MLP, Layer, Topology
from workloads.zoo.table import networks
from workloads.zoo.train_digits import Recipe, correct, loss_and_gradients, shifted, train

BUILD = {CNN.name: digits.build_cnn, MLP.name: digits.build_mlp}
BOTH = pytest.mark.parametrize("topology", [CNN, MLP], ids=lambda topology: topology.name)


def read(topology: Topology, seed: int, folder: Path) -> Graph:
    path = folder / f"{topology.name}_{seed}.onnx"
    path.write_bytes(BUILD[topology.name](seed).SerializeToString())
    return read_model(path)


@BOTH
@pytest.mark.parametrize("seed", digits.SEEDS)
def test_float_accuracy_is_what_the_table_says(topology: Topology, seed: int, tmp_path: Path) -> None:
    data = digits.dataset(topology)
    graph = read(topology, seed, tmp_path)
    scores = run_float(graph, {"input": data.test_images})[graph.outputs[0]]
    assert int((scores.argmax(axis=1) == data.test_labels).sum()) == networks()[topology.name].correct[seed]
    weights: dict[str, Any] = digits.trained_weights(topology, seed)
    np.testing.assert_allclose(train_digits.logits(topology, weights, data.test_images), scores, atol=1e-4)


@BOTH
def test_onnxruntime_gets_the_same_share_right(topology: Topology) -> None:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(BUILD[topology.name](0).SerializeToString(), providers=["CPUExecutionProvider"])
    data = digits.dataset(topology)
    scores = np.concatenate([session.run(None, {"input": image[None]})[0] for image in data.test_images])
    assert int((scores.argmax(axis=1) == data.test_labels).sum()) == networks()[topology.name].correct[0]


@BOTH
@pytest.mark.parametrize("mode", ["ort", "q31"])
def test_int8_is_within_half_a_point_of_float_in_the_mean_of_five_seeds(
    topology: Topology, mode: str, tmp_path: Path
) -> None:
    data, right = digits.dataset(topology), []
    for seed in digits.SEEDS:
        integers = quantize(prepare(read(topology, seed, tmp_path)), {"input": data.train_images[:200]})
        images = quantize_inputs(integers, {"input": data.test_images})
        scores = run_quantized(integers, images, mode)[integers.outputs[0]]
        right.append(int((scores.argmax(axis=1) == data.test_labels).sum()))
    change = (np.mean(right) - np.mean(networks()[topology.name].correct)) / len(data.test_labels)
    assert abs(change) < 0.005, right


@BOTH
def test_written_data_sets_are_what_a_run_reads(
    topology: Topology, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["digits_files", str(tmp_path / "new" / "folder")])
    digits_files.main()
    written = [Path(line) for line in capsys.readouterr().out.splitlines() if topology.name in line]
    graph, data = read(topology, 0, tmp_path), digits.dataset(topology)
    train, test = (load_dataset(path, graph) for path in written)
    np.testing.assert_array_equal(train.inputs["input"], data.train_images)
    np.testing.assert_array_equal(test.inputs["input"], data.test_images)
    assert test.labels is not None
    np.testing.assert_array_equal(test.labels, data.test_labels)


@BOTH
def test_seeds_are_different_networks_and_others_are_refused(topology: Topology) -> None:
    first, second = (digits.trained_weights(topology, seed) for seed in (0, 1))
    assert first.keys() == second.keys()
    assert all(np.abs(first[name] - second[name]).max() > 0 for name in first)
    with pytest.raises(ModelError, match=rf"zoo:{topology.name}: no weights of seed 5 are stored; seeds 0 to 4"):
        digits.trained_weights(topology, 5)


def test_data_are_scikit_learns_digits_split_without_overlap() -> None:
    images, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    data = digits.dataset(MLP)
    assert data.train_images.shape == (1347, 64)
    assert data.test_images.shape == (450, 64)

    def rows(pixels: Any, classes: Any) -> list[tuple[float, ...]]:
        return sorted(map(tuple, np.column_stack([pixels, classes]).tolist()))

    together = np.concatenate([data.train_images, data.test_images]) * 16
    assert rows(together, np.concatenate([data.train_labels, data.test_labels])) == rows(images, labels)
    # every digit is there to be measured, about as often as every other
    assert np.bincount(data.test_labels).min() > 30


def test_both_networks_see_the_same_split() -> None:
    one, other = digits.dataset(CNN), digits.dataset(MLP)
    np.testing.assert_array_equal(one.test_images.reshape(450, 64), other.test_images)
    assert one.test_images.shape == (450, 1, 8, 8)
    assert one.test_images.min() == 0
    assert one.test_images.max() == 1


# -- the trainer

TINY = Topology("tiny", (2, 4, 4), (
    Layer("conv", "a", 2, 3, relu=True), Layer("pool", "p"), Layer("conv", "b", 3, 2), Layer("dense", "c", 8, 10),
))  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_gradients_equal_finite_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = {
        name: value.astype(np.float64) + rng.normal(0, 0.1, value.shape)
        for name, value in train_digits.initial_weights(TINY, rng).items()
    }
    images, labels = rng.standard_normal((3, *TINY.image)), rng.integers(0, 10, 3)
    _, gradients = loss_and_gradients(TINY, weights, images, labels)
    assert gradients.keys() == weights.keys()
    step, agreeing, checked = 1e-6, 0, 0
    for name, value in weights.items():
        for _ in range(4):
            index = tuple(rng.integers(0, size) for size in value.shape)
            kept, losses = value[index], []
            for moved in (kept + step, kept - step):
                value[index] = moved
                losses.append(loss_and_gradients(TINY, weights, images, labels)[0])
            value[index] = kept
            numeric = (losses[0] - losses[1]) / (2 * step)
            agreeing += abs(numeric - gradients[name][index]) < 1e-6 + 1e-4 * abs(numeric)
            checked += 1
    # a kink of relu or max within the step makes a rare difference meaningless
    assert agreeing >= checked - 1


def test_loss_is_the_cross_entropy_of_a_softmax() -> None:
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = digits.trained_weights(CNN, 0)
    images, labels = rng.random((5, 1, 8, 8)), rng.integers(0, 10, 5)
    loss, _ = loss_and_gradients(CNN, weights, images, labels)
    slow = 0.0
    for scores, label in zip(train_digits.logits(CNN, weights, images), labels, strict=True):
        slow -= np.log(np.exp(scores[label]) / sum(np.exp(score) for score in scores)) / 5
    assert loss == pytest.approx(slow, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_shifting_moves_each_image_by_at_most_a_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.random((4, 1, 8, 8), np.float32) + 0.1
    for before, after in zip(images[:, 0], shifted(images, rng)[:, 0], strict=True):
        moves = []
        for row in (-1, 0, 1):
            for column in (-1, 0, 1):
                wanted = np.zeros((8, 8), np.float32)
                for y in range(8):
                    for x in range(8):
                        if 0 <= y + row < 8 and 0 <= x + column < 8:
                            wanted[y, x] = before[y + row, x + column]
                moves.append(np.array_equal(after, wanted))
        assert sum(moves) == 1


def test_three_passes_teach_most_digits_and_the_seed_decides_the_weights() -> None:
    data, recipe = digits.dataset(MLP), Recipe(epochs=3)
    first, again, other = (train(MLP, data, seed, recipe) for seed in (7, 7, 8))
    assert correct(MLP, first, data.test_images, data.test_labels) > 0.8
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["dense1.weight"], other["dense1.weight"])


def test_the_cnn_learns_from_shifted_images() -> None:
    data = digits.dataset(CNN)
    few = replace(data, train_images=data.train_images[:400], train_labels=data.train_labels[:400])
    weights = train(CNN, few, 0, Recipe(epochs=12, shift=True))
    assert correct(CNN, weights, data.test_images, data.test_labels) > 0.7


def test_the_script_writes_what_the_zoo_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(train_digits, "RECIPES", ((MLP, Recipe(epochs=1)),))
    monkeypatch.setattr(train_digits, "SEEDS", (0, 1))
    monkeypatch.setattr(sys, "argv", ["train_digits", "--data", "--out", str(tmp_path)])
    train_digits.main()
    shipped = Path(digits.__file__).parent / "data"
    for name in ("digits.npz", "digits_mlp.npz"):
        with np.load(tmp_path / name) as written, np.load(shipped / name) as committed:
            if name == "digits.npz":
                assert set(written) == set(committed)
                assert all(np.array_equal(written[key], committed[key]) for key in committed)
            else:
                assert set(written) == {key for key in committed if key[0] in "01"}
                assert {key: written[key].shape for key in written} == {key: committed[key].shape for key in written}
                assert {str(written[key].dtype) for key in written} == {"float16"}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["digits_mlp seed 0", "digits_mlp seed 1", "digits_mlp"]
