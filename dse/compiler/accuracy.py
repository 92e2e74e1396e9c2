"""How far a quantized network is from its float original: as a whole, layer by layer, and on labelled samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.compiler.calibration_batches import batches
from dse.core.errors import UsageError
from dse.ir.graph import Graph
from dse.ir.kinds import RECURRENT_KINDS
from dse.ir.quantized import dequantize, integer_limits, quantization_of, quantize_inputs
from dse.ir.reference import run_float, run_quantized

Inputs = Mapping[str, npt.NDArray[Any]]
Labels = npt.NDArray[np.int64]
Reals = npt.NDArray[Any]


@dataclass
class _Noise:
    """Sums of squares of a signal and of its error, over as many batches as come."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, wanted: Reals, got: Reals) -> None:
        wide = np.asarray(wanted, np.float64)
        self.signal += float(np.square(wide).sum())
        self.noise += float(np.square(wide - np.asarray(got, np.float64)).sum())

    @property
    def db(self) -> float:
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal > 0 else -math.inf


def sqnr_db(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Signal to quantization noise ratio in dB: 10 log10(sum(reference**2) / sum((reference - test)**2)).

    Infinite when both are equal.

    Raises
    ------
    UsageError: the shapes differ.
    """
    wanted, got = np.asarray(reference, np.float64), np.asarray(test, np.float64)
    if wanted.shape != got.shape:
        raise UsageError(f"SQNR compares arrays of one shape, got {wanted.shape} and {got.shape}")
    noise = _Noise()
    noise.add(wanted, got)
    return noise.db


def accuracy(
    graph_float: Graph, graph_int: Graph, mode: str, images: Inputs, labels: Labels | None = None
) -> dict[str, float]:
    """Compare a quantized network with the float one, and with the truth where that is known.

    The outputs of `graph_int` are looked up in `graph_float` by name, before any softmax that follows there.

    Parameters
    ----------
    graph_float
        The network to be near: the float one, or a quantized one that stands for itself in mode `ort`.
    mode
        Requantization, one of `dse.ir.requantize.MODES`.
    labels
        int64, shape (images,): the right class of each.

    Returns
    -------
    `sqnr_db`: over all outputs of all images; `top1_agreement`: share of images whose largest logit is the same.
    With labels also `accuracy`: share of images whose largest logit is the right one, 0 .. 1.

    Raises
    ------
    UsageError: labels that do not fit images or classes, or a network with more than one output to label.
    """
    reference = replace(graph_float, outputs=graph_int.outputs)
    noise, same, right = _Noise(), [], []
    for part in batches(graph_int, images):
        batch = {name: array[part] for name, array in images.items()}
        integers = run_quantized(graph_int, quantize_inputs(graph_int, batch), mode)
        reals = _reals(reference, batch)
        for name in graph_int.outputs:
            wanted = reals[name].reshape(len(integers[name]), -1)
            got = dequantize(integers[name], quantization_of(graph_int, name)).reshape(wanted.shape)
            noise.add(wanted, got)
            same.append(wanted.argmax(axis=1) == got.argmax(axis=1))
            if labels is not None:
                right.append(_right(graph_int, got, labels, part, images))
    figures = {"sqnr_db": noise.db, "top1_agreement": float(np.concatenate(same).mean())}
    if labels is not None:
        figures["accuracy"] = float(np.concatenate(right).mean())
    return figures


def _reals(graph: Graph, inputs: Inputs) -> dict[str, Reals]:
    """Real outputs of a float network; of a quantized one, those of its integers in mode `ort`."""
    if all(graph[name].quantization is None for name in graph.inputs):
        return run_float(graph, inputs)
    integers = run_quantized(graph, quantize_inputs(graph, inputs), "ort")
    return {name: dequantize(values, quantization_of(graph, name)) for name, values in integers.items()}


def float_accuracy(graph: Graph, images: Inputs, labels: Labels) -> float:
    """Share of images whose largest output of the float network is the right one, 0 .. 1.

    Raises
    ------
    UsageError: see `accuracy`.
    """
    right = []
    for part in batches(graph, images):
        batch = {name: array[part] for name, array in images.items()}
        (outputs,) = run_float(replace(graph, outputs=graph.outputs[:1]), batch).values()
        right.append(_right(graph, outputs.reshape(len(outputs), -1), labels, part, images))
    return float(np.concatenate(right).mean())


def _right(graph: Graph, logits: Reals, labels: Labels, part: slice, images: Inputs) -> npt.NDArray[np.bool_]:
    name = graph.source or graph.name
    if len(graph.outputs) != 1:
        raise UsageError(f"{name} has {len(graph.outputs)} outputs; labels tell the right one only where there is one")
    count = len(next(iter(images.values())))
    if labels.shape != (count,):
        raise UsageError(f"{count} samples need as many labels, shape ({count},), got shape {labels.shape}")
    if not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        wrong = int(labels.min()) if labels.min() < 0 else int(labels.max())
        raise UsageError(f"label {wrong} is not a class of {name}, whose output has {logits.shape[1]} (0 is the first)")
    return np.asarray(logits.argmax(axis=1) == labels[part])


@dataclass(frozen=True)
class LayerNoise:
    """What quantization does to one op.

    Parameters
    ----------
    name, kind
        Of the op.
    bits
        Of its output: 8 or 16.
    weight_bits, weight_sqnr_db
        Of its weights alone (a recurrent layer: of its input weights); None when it has none.
    low, high
        Real values that its output can take.
    sqnr_db
        Of its output, with the noise of everything before it.
    """

    name: str
    kind: str
    bits: int
    weight_bits: int | None
    weight_sqnr_db: float | None
    low: float
    high: float
    sqnr_db: float


def layer_noise(graph_float: Graph, graph_int: Graph, mode: str, images: Inputs) -> list[LayerNoise]:
    """The noise of every op of a quantized network, in order; parameters as in `accuracy`.

    Both graphs name ops and activations alike (`dse.compiler.quantize` keeps the names).
    """
    noise = {op.outputs[0]: _Noise() for op in graph_int.ops}
    for part in batches(graph_int, images):
        batch = {name: array[part] for name, array in images.items()}
        integers = run_quantized(graph_int, quantize_inputs(graph_int, batch), mode, keep=True)
        reals = run_float(graph_float, batch, keep=True)
        for name, sums in noise.items():
            sums.add(reals[name], dequantize(integers[name], quantization_of(graph_int, name)))
    before = {op.name: op for op in graph_float.ops}
    rows = []
    for op in graph_int.ops:
        of_y = quantization_of(graph_int, op.outputs[0])
        ends = dequantize(np.array(integer_limits(of_y)), of_y)
        bits, weight_db = None, None
        if op.kind in ("conv", "gemm", *RECURRENT_KINDS):
            bits = quantization_of(graph_int, op.inputs[1]).bits
            weight_db = _weight_sqnr_db(graph_float, before[op.name].inputs[1], graph_int, op.inputs[1])
        rows.append(
            LayerNoise(
                op.name, op.kind, of_y.bits, bits, weight_db, float(ends[0]), float(ends[1]), noise[op.outputs[0]].db
            )
        )
    return rows


def _weight_sqnr_db(graph_float: Graph, name_float: str, graph_int: Graph, name_int: str) -> float:
    real, integers = graph_float[name_float].data, graph_int[name_int].data
    assert real is not None
    assert integers is not None
    return sqnr_db(real, dequantize(integers, quantization_of(graph_int, name_int)))
