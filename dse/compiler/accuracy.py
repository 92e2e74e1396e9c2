"""How far a quantized network is from its float original."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import UsageError
from dse.ir.graph import Graph
from dse.ir.quantized import dequantize, quantization_of, quantize_inputs
from dse.ir.reference import run_float, run_quantized


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
    noise = float(np.square(wanted - got).sum())
    signal = float(np.square(wanted).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def accuracy(
    graph_float: Graph, graph_int: Graph, mode: str, images: Mapping[str, npt.NDArray[Any]]
) -> dict[str, float]:
    """Compare a quantized network with the float one on real inputs.

    The outputs of `graph_int` are looked up in `graph_float` by name, before any softmax that follows there.

    Returns
    -------
    `sqnr_db`: over all outputs of all images; `top1_agreement`: share of images whose largest logit is the same.
    """
    integers = run_quantized(graph_int, quantize_inputs(graph_int, images), mode)
    reals = run_float(replace(graph_float, outputs=graph_int.outputs), images)
    wanted, got = [], []
    for name in graph_int.outputs:
        count = len(integers[name])
        wanted.append(reals[name].reshape(count, -1))
        got.append(dequantize(integers[name], quantization_of(graph_int, name)).reshape(count, -1))
    same = np.concatenate([a.argmax(axis=1) == b.argmax(axis=1) for a, b in zip(wanted, got, strict=True)])
    return {
        "sqnr_db": sqnr_db(np.concatenate(wanted, axis=1), np.concatenate(got, axis=1)),
        "top1_agreement": float(same.mean()),
    }
