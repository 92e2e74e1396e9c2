"""`dse quantize`: a trained network and samples of its user, to a quantized model file and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dse.compiler import (
    LayerNoise,
    Recipe,
    accuracy,
    assign_weight_bits,
    calibrated_ranges,
    equalize,
    float_accuracy,
    layer_noise,
    prepare,
    quantize_with_ranges,
    require_quantizable,
    strip_softmax,
    weight_bits_total,
    weight_tensors,
    with_float_boundary,
)
from dse.core.errors import UsageError
from dse.core.progress import Reporter
from dse.flow.dataset import Dataset, load_dataset
from dse.flow.workload import frontends
from dse.ir import Graph
from dse.ir.frontend import Frontend

#: Requantization of the figures and of the file: onnxruntime's.
MODE = "ort"


@dataclass(frozen=True)
class QuantizeRequest:
    """What to do.

    Parameters
    ----------
    recipe
        How; layers that it does not name may still change with `most_points_lost`.
    equalized
        Equalize consecutive layers first.
    most_points_lost
        None, or: give as many layers 4-bit weights as lose at most so many points of accuracy on the calibration
        samples (of agreement with the float network where they have no labels).
    """

    recipe: Recipe
    equalized: bool = False
    most_points_lost: float | None = None


@dataclass(frozen=True, eq=False)
class QuantizeResult:
    """A quantized network and how it does.

    Parameters
    ----------
    graph
        int8, ending at the logits; `with_boundary` takes and gives floats, softmax included.
    layers
        Noise of each op.
    figures
        `sqnr_db`, `top1_agreement`; with labels `accuracy` and `float_accuracy`; 0 .. 1 where they are shares.
    judged_on
        Samples the figures were taken on.
    weight_bits, weights
        Bits of all weights, and their number.
    """

    graph: Graph
    with_boundary: Graph
    layers: Sequence[LayerNoise]
    figures: dict[str, float]
    judged_on: Dataset
    weight_bits: int
    weights: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a ratio without bound is null."""
        return {
            "judged_on": {"source": self.judged_on.source, "samples": self.judged_on.count},
            "figures": {name: _finite(value) for name, value in self.figures.items()},
            "weight_bits": self.weight_bits,
            "weights": self.weights,
            "layers": [{name: _finite(value) for name, value in asdict(layer).items()} for layer in self.layers],
        }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and abs(value) == float("inf") else value


def quantize_model(
    graph: Graph, calibration: Path, data: Path | None, request: QuantizeRequest, reporter: Reporter
) -> QuantizeResult:
    """Calibrate, quantize and judge a network as read from a file.

    Parameters
    ----------
    calibration, data
        Data sets (`dse.flow.dataset`); figures are taken on `data`, or on the calibration samples without it.

    Raises
    ------
    DatasetError: a data set that cannot be read or does not fit.
    UsageError, ModelError: a layer that does not exist, an op without integer form.
    """
    reporter.stage("calibrate and quantize")
    original = prepare(graph)
    prepared = equalize(original) if request.equalized else original
    logits = strip_softmax(prepared)
    require_quantizable(logits)
    samples = load_dataset(calibration, prepared)
    test = samples if data is None else load_dataset(data, prepared)
    recipe = request.recipe
    ranges = calibrated_ranges(logits, samples.inputs, recipe)
    if request.most_points_lost is not None:
        recipe = _mixed(prepared, logits, ranges, recipe, samples, request.most_points_lost)
    quantized = quantize_with_ranges(logits, ranges, recipe)
    reporter.stage("evaluate")
    figures = accuracy(prepared, quantized, MODE, test.inputs, test.labels)
    if test.labels is not None:
        figures["float_accuracy"] = float_accuracy(original, test.inputs, test.labels)
    layers = layer_noise(prepared, quantized, MODE, test.inputs)
    reporter.close()
    return QuantizeResult(
        quantized,
        with_float_boundary(quantized, prepared),
        layers,
        figures,
        test,
        weight_bits_total(quantized),
        sum(quantized[name].elements for name in weight_tensors(quantized)),
    )


def _mixed(
    prepared: Graph, logits: Graph, ranges: Any, recipe: Recipe, samples: Dataset, most_points_lost: float
) -> Recipe:
    """The recipe with 4-bit weights wherever the calibration samples say that they cost little."""

    def score(candidate: Graph) -> float:
        figures = accuracy(prepared, candidate, MODE, samples.inputs, samples.labels)
        return figures.get("accuracy", figures["top1_agreement"])

    reference = 1.0 if samples.labels is None else float_accuracy(prepared, samples.inputs, samples.labels)
    floor = reference - most_points_lost / 100
    found = assign_weight_bits(
        logits, ranges, replace(recipe, weight_bits=8), samples.inputs, mode=MODE, score=score, floor=floor
    )
    return replace(recipe, layer_bits=found.layer_bits)


def check_output(path: Path, model: Path) -> None:
    """Nothing when a quantized model can be written to `path`.

    Raises
    ------
    UsageError: no front end writes such files, or it is the file of the model itself.
    """
    _writer(path)
    if path.exists() and model.exists() and path.samefile(model):
        raise UsageError(f"{path}: is the model itself; name another file, such as {path.stem}.int8{path.suffix}")


def write_model(graph: Graph, path: Path) -> None:
    """Write a quantized graph through the front end that owns the suffix of `path`.

    Raises
    ------
    UsageError: no front end writes such files.
    ModelError: the format has no form for an op.
    """
    frontend = _writer(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    frontend.write(graph, path)


def _writer(path: Path) -> Frontend:
    writers = {suffix: item for item in frontends()[0] if item.writes for suffix in item.suffixes}
    if path.suffix.lower() not in writers:
        raise UsageError(f"{path}: quantized models are written to files ending in {', '.join(sorted(writers))}")
    return writers[path.suffix.lower()]
