"""Trains the digits networks in NumPy and writes the weights the zoo ships: `python -m workloads.zoo.train_digits`.

Adam with a cosine schedule and decoupled weight decay on cross entropy. Every
run is seeded. Sums in a BLAS depend on its build, so that retraining gives equal accuracy rather than equal bits.
`--data` rewrites the data set too, from scikit-learn, which nothing else here needs.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.zoo.builder import he_normal
from workloads.zoo.digits import CNN, MLP, SEEDS, Digits, FloatArray, Topology, dataset

Weights = dict[str, npt.NDArray[Any]]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """How to train: passes over the data, images a step, peak learning rate, weight decay a step at that rate.

    `shift` moves images by up to one pixel: a CNN gains by it, a network without convolutions loses.
    """

    epochs: int = 60
    batch: int = 32
    rate: float = 3e-3
    decay: float = 1e-4
    shift: bool = False


RECIPES = ((CNN, Recipe(shift=True)), (MLP, Recipe()))


def initial_weights(topology: Topology, rng: np.random.Generator) -> Weights:
    """He-normal weights and zero biases, float32."""
    weights: Weights = {}
    for layer in topology.layers:
        if layer.kind != "pool":
            window = (3, 3) if layer.kind == "conv" else ()
            weights[f"{layer.name}.weight"] = he_normal(rng, (layer.outside, layer.inside, *window))
            weights[f"{layer.name}.bias"] = np.zeros(layer.outside, np.float32)
    return weights


def logits(topology: Topology, weights: Weights, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Outputs of the network, shape (images, 10)."""
    return _forward(topology, weights, images)[0]


def loss_and_gradients(
    topology: Topology, weights: Weights, images: npt.NDArray[Any], labels: Labels
) -> tuple[float, Weights]:
    """Mean cross entropy in nats of a batch, and its gradient by weight."""
    scores, kept = _forward(topology, weights, images)
    scores = scores - scores.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(scores).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    loss = float((log_total[:, 0] - scores[rows, labels]).mean())
    gradient = np.exp(scores - log_total)
    gradient[rows, labels] -= 1
    return loss, _backward(topology, weights, kept, gradient / len(labels))


def train(topology: Topology, data: Digits, seed: int, recipe: Recipe) -> Weights:
    """Weights after training on the training images, float32."""
    rng = np.random.default_rng(seed)
    weights = initial_weights(topology, rng)
    mean = {name: np.zeros_like(value) for name, value in weights.items()}
    square = {name: np.zeros_like(value) for name, value in weights.items()}
    starts = range(0, len(data.train_images), recipe.batch)
    step, steps = 0, recipe.epochs * len(starts)
    for _ in range(recipe.epochs):
        order = rng.permutation(len(data.train_images))
        for start in starts:
            chosen = order[start : start + recipe.batch]
            images = data.train_images[chosen]
            images = shifted(images, rng) if recipe.shift else images
            _, gradients = loss_and_gradients(topology, weights, images, data.train_labels[chosen])
            step += 1
            rate = recipe.rate * (1 + math.cos(math.pi * step / steps)) / 2
            for name, gradient in gradients.items():
                mean[name] = 0.9 * mean[name] + 0.1 * gradient
                square[name] = 0.999 * square[name] + 0.001 * gradient**2
                move = mean[name] / (1 - 0.9**step) / (np.sqrt(square[name] / (1 - 0.999**step)) + 1e-8)
                weights[name] -= np.float32(rate) * move
                if name.endswith(".weight"):
                    weights[name] *= np.float32(1 - recipe.decay * rate / recipe.rate)
    return weights


def shifted(images: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Every image moved by -1, 0 or 1 pixel along rows and columns; blank pixels come in."""
    count = len(images)
    padded = np.pad(images.reshape(count, 8, 8), ((0, 0), (1, 1), (1, 1)))
    rows, columns = (rng.integers(0, 3, count)[:, None] + np.arange(8) for _ in range(2))
    moved: FloatArray = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.reshape(images.shape)


def correct(topology: Topology, weights: Weights, images: FloatArray, labels: Labels) -> float:
    """Share of images whose largest logit is their label."""
    return float((logits(topology, weights, images).argmax(axis=1) == labels).mean())


# -- layers, forwards and backwards


def _forward(topology: Topology, weights: Weights, x: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], list[Any]]:
    """Outputs, and for every layer (input shape, what its gradient needs, output)."""
    kept: list[Any] = []
    for layer in topology.layers:
        shape = x.shape
        if layer.kind == "pool":
            blocks = x.reshape(*shape[:2], shape[2] // 2, 2, shape[3] // 2, 2).transpose(0, 1, 2, 4, 3, 5)
            blocks = blocks.reshape(*blocks.shape[:4], 4)
            needed = blocks.argmax(axis=-1)
            x = blocks.max(axis=-1)
        else:
            needed = _columns(x) if layer.kind == "conv" else x.reshape(len(x), -1)
            weight = weights[f"{layer.name}.weight"].reshape(layer.outside, -1)
            x = needed @ weight.T + weights[f"{layer.name}.bias"]
            if layer.kind == "conv":
                x = x.reshape(shape[0], *shape[2:], layer.outside).transpose(0, 3, 1, 2)
        x = np.maximum(x, 0) if layer.relu else x
        kept.append((shape, needed, x))
    return x, kept


def _backward(topology: Topology, weights: Weights, kept: list[Any], gradient: npt.NDArray[Any]) -> Weights:
    gradients: Weights = {}
    for layer, (shape, needed, output) in zip(reversed(topology.layers), reversed(kept), strict=True):
        gradient = gradient.reshape(output.shape)
        gradient = gradient * (output > 0) if layer.relu else gradient
        if layer.kind == "pool":
            gradient = _unpooled(gradient, needed, shape)
            continue
        if layer.kind == "conv":
            gradient = gradient.transpose(0, 2, 3, 1).reshape(-1, layer.outside)
        weight = weights[f"{layer.name}.weight"]
        gradients[f"{layer.name}.weight"] = (gradient.T @ needed).reshape(weight.shape)
        gradients[f"{layer.name}.bias"] = gradient.sum(axis=0)
        gradient = gradient @ weight.reshape(layer.outside, -1)
        gradient = _summed_columns(gradient, shape) if layer.kind == "conv" else gradient.reshape(shape)
    return gradients


def _columns(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """3x3 windows with padding 1 as rows: (n, c, h, w) to (n h w, c 9)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * 9)


def _summed_columns(rows: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The gradient of `_columns`: every pixel sums up over the windows it lies in."""
    n, c, h, w = shape
    taps = rows.reshape(n, h, w, c, 3, 3).transpose(4, 5, 0, 3, 1, 2)
    padded = np.zeros((n, c, h + 2, w + 2), rows.dtype)
    for row in range(3):
        for column in range(3):
            padded[:, :, row : row + h, column : column + w] += taps[row, column]
    return padded[:, :, 1:-1, 1:-1]


def _unpooled(gradient: npt.NDArray[Any], chosen: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    n, c, h, w = shape
    blocks = np.zeros((*gradient.shape, 4), gradient.dtype)
    np.put_along_axis(blocks, chosen[..., None], gradient[..., None], axis=-1)
    return blocks.reshape(n, c, h // 2, w // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(shape)


# -- the files the zoo ships


def write_dataset(folder: Path) -> None:
    """Write scikit-learn's digits as `digits.npz`: images uint8 (1797, 8, 8) of values 0 to 16, labels uint8."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped, import-not-found, unused-ignore]

    images, labels = load_digits(return_X_y=True)
    pixels = images.reshape(-1, 8, 8).astype(np.uint8)
    np.savez_compressed(folder / "digits.npz", images=pixels, labels=labels.astype(np.uint8))


def main() -> None:
    """Train every seed of both networks and write the weights."""
    parser = argparse.ArgumentParser(prog="python -m workloads.zoo.train_digits", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data", help="folder of the .npz files")
    parser.add_argument("--data", action="store_true", help="rewrite digits.npz from scikit-learn first")
    arguments = parser.parse_args()
    if arguments.data:
        write_dataset(arguments.out)
    for topology, recipe in RECIPES:
        data, shares = dataset(topology), []
        stored: dict[str, Any] = {}
        for seed in SEEDS:
            half = {name: value.astype(np.float16) for name, value in train(topology, data, seed, recipe).items()}
            stored |= {f"{seed}/{name}": value for name, value in half.items()}
            rounded = {name: value.astype(np.float32) for name, value in half.items()}
            shares.append(correct(topology, rounded, data.test_images, data.test_labels))
            sys.stdout.write(f"{topology.name} seed {seed}: {100 * shares[-1]:.2f} % of the test images\n")
        np.savez_compressed(arguments.out / f"{topology.name}.npz", **stored)
        sys.stdout.write(f"{topology.name}: mean {100 * float(np.mean(shares)):.2f} %\n")


if __name__ == "__main__":
    main()
