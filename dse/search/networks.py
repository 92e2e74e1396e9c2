"""The quantized networks that the designs of one run execute: one for each arithmetic, made once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dse.backend import Accelerator, Numerics
from dse.compiler import Recipe, accuracy, calibration_images, is_quantized, quantize, require_activation_bits
from dse.core.errors import InfeasibleError, Violation
from dse.ir import Graph
from dse.ir.quantized import quantization_of
from dse.search.space import HARDWARE, SearchSpace

#: Digits kept of a measured accuracy figure: below these, the order of a floating-point sum would show.
ACCURACY_DECIMALS = 6
#: Stands for a figure without bound: the ratio of a signal to no noise at all. Beyond what 32 bits could resolve.
ACCURACY_CEILING = 300.0


@dataclass(frozen=True, eq=False)
class Network:
    """A network in one arithmetic, and how well it does there, such as {"sqnr_db": 31.2}."""

    graph: Graph
    accuracy: Mapping[str, float]


class Networks(Protocol):
    """Gives the network that a design with the given arithmetic executes."""

    def get(self, numerics: Numerics) -> Network:
        """The network for `numerics`."""


@dataclass(frozen=True, eq=False)
class FloatNetworks:
    """The float network for every arithmetic: for families that make their own integers and measure them."""

    graph: Graph

    def get(self, numerics: Numerics) -> Network:
        """The network as it is; its accuracy is among the metrics of each design."""
        return Network(self.graph, {})


@dataclass
class QuantizedNetworks:
    """Quantizes a float network on demand; picklable, so that workers inherit what the parent has made.

    Parameters
    ----------
    graph
        Prepared network, constants with data; one that is quantized already keeps its integers.
    images, seed
        Synthetic calibration set, where `calibration` is None. Where `test` is None too, figures are measured on as
        many other images (seed + 1), since figures taken on the calibration set would flatter.
    recipe
        How to quantize; the arithmetic's weight bits replace its own.
    calibration, test
        Samples by input name, shape (samples, ...).
    labels
        int64, shape (samples,): the right class of each test sample; gives the figure `accuracy`.
    """

    graph: Graph
    images: int
    seed: int
    recipe: Recipe = field(default_factory=Recipe)
    calibration: Mapping[str, npt.NDArray[Any]] | None = None
    test: Mapping[str, npt.NDArray[Any]] | None = None
    labels: npt.NDArray[np.int64] | None = None
    _made: dict[Numerics, Network] = field(default_factory=dict)

    def get(self, numerics: Numerics) -> Network:
        """The network quantized for `numerics`, with its measured accuracy."""
        if numerics not in self._made:
            calibration, test = self.calibration, self.test
            if calibration is None:
                calibration = calibration_images(self.graph, self.images, self.seed)
            if test is None:
                test = calibration_images(self.graph, self.images, self.seed + 1)
            if is_quantized(self.graph):
                quantized = _as_it_is(self.graph, numerics)
            else:
                quantized = quantize(self.graph, calibration, replace(self.recipe, weight_bits=numerics.weight_bits))
            measured = accuracy(self.graph, quantized, numerics.requantize, test, self.labels)
            rounded = {name: round(min(value, ACCURACY_CEILING), ACCURACY_DECIMALS) for name, value in measured.items()}
            self._made[numerics] = Network(quantized, rounded)
        return self._made[numerics]


def _as_it_is(graph: Graph, numerics: Numerics) -> Graph:
    """A model that came quantized, where its weights fit the arithmetic.

    Raises
    ------
    InfeasibleError: they do not.
    """
    require_activation_bits(graph, numerics.activation_bits, f"activations of {numerics.activation_bits} bits")
    bits = max(quantization_of(graph, op.inputs[1]).bits for op in graph.ops if op.kind in ("conv", "gemm"))
    if bits > numerics.weight_bits:
        hint = "the network came quantized; start from the float model to have others"
        limit = Violation("bits of the network's weights", bits, numerics.weight_bits, "bits", hint)
        raise InfeasibleError(f"{graph.source or graph.name} on weights of {numerics.weight_bits} bits", (limit,))
    return graph


def reachable_numerics(family: Accelerator, space: SearchSpace) -> list[Numerics]:
    """Every arithmetic that turning a single hardware knob of the first design leads to, in a stable order.

    What only a combination of knobs reaches is made on demand later, as is what lies behind a refused combination.
    """
    first = {knob.name: knob.choices[0] for knob in space.knobs}
    points = [first]
    for knob in space.knobs:
        if knob.name.startswith(HARDWARE):
            points += [{**first, knob.name: choice} for choice in knob.choices[1:]]
    found: dict[Numerics, None] = {}
    for point in points:
        try:
            hw, _ = space.design(family, point)
        except InfeasibleError:
            continue
        found[family.numerics(hw)] = None
    return sorted(found, key=repr)
