"""`dse quantize`: a trained model as an integer model, with what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.cli.options import dims_option, parse_dims
from dse.core.errors import ModelError, UsageError

if TYPE_CHECKING:
    from dse.flow.quantize import QuantizeResult

_BITS = {"4": 4, "8": 8}
_ACTIVATION_BITS = {"8": 8, "16": 16}


@click.command("quantize", short_help="Quantize a trained model to int8 or int16, with its accuracy.")
@click.argument("model")
@click.option(
    "--calib",
    type=click.Path(path_type=Path),
    required=True,
    help="Samples that fix the ranges: .npz of x, or folder.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .onnx file to write.")
@click.option(
    "--method",
    type=click.Choice(["minmax", "percentile", "mse"]),
    default="minmax",
    show_default=True,
    help="How activation ranges follow from the samples.",
)
@click.option("--percentile", type=float, default=99.99, show_default=True, help="Of --method percentile.")
@click.option("--weights", type=click.Choice(list(_BITS)), default="8", show_default=True, help="Bits of the weights.")
@click.option(
    "--activations",
    type=click.Choice(list(_ACTIVATION_BITS)),
    default="8",
    show_default=True,
    help="Bits of all activations.",
)
@click.option("--per-tensor", is_flag=True, help="One weight scale a layer instead of one an output channel.")
@click.option(
    "--mixed",
    multiple=True,
    metavar="LAYER=BITS|auto",
    help="4 or 8: weight bits of one layer. 16: bits of what one layer, or an input, puts out. Repeatable. "
    "auto: see above.",
)
@click.option(
    "--max-loss", type=click.FloatRange(0, 100), default=1.0, show_default=True, help="Points --mixed auto may lose."
)
@click.option("--equalize", is_flag=True, help="Balance the channels of consecutive layers first.")
@click.option("--data", type=click.Path(path_type=Path), help="Samples to judge by: .npz with x and y, or folder.")
@dims_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(
    model: str,
    calib: Path,
    output: Path,
    method: str,
    percentile: float,
    weights: str,
    activations: str,
    per_tensor: bool,
    mixed: tuple[str, ...],
    max_loss: float,
    equalize: bool,
    data: Path | None,
    dims: tuple[str, ...],
    as_json: bool,
) -> None:
    """Quantize MODEL and write it with QLinear operators that onnxruntime runs (QuantizeLinear and DequantizeLinear
    around float operators where activations have 16 bits); print what each layer loses.

    The file takes and gives floats under the names of MODEL. With labels y in --data, accuracy in float and int8 is
    printed. --mixed auto gives as many layers 4-bit weights as lose at most --max-loss points on the --calib samples:
    of accuracy where they have labels, else of agreement with the float network.
    """
    from dse.compiler import Recipe
    from dse.core.progress import make_reporter
    from dse.flow.quantize import QuantizeRequest, check_output, quantize_model, write_model
    from dse.flow.workload import load_workload

    layer_bits, output_bits, automatic = _parse_mixed(mixed)
    if automatic and weights != "8":
        raise UsageError(f"--mixed auto chooses between 8 and 4 bits itself; leave out --weights {weights}")
    recipe = Recipe(
        method, percentile, _BITS[weights], not per_tensor, layer_bits, _ACTIVATION_BITS[activations], output_bits
    )
    request = QuantizeRequest(recipe, equalize, max_loss if automatic else None)
    # before minutes of calibration
    check_output(output, Path(model))
    graph = load_workload(model, Path(), parse_dims(dims))
    result = quantize_model(graph, calib, data, request, make_reporter())
    if as_json:
        try:
            write_model(result.with_boundary, output)
        except ModelError:
            # figures hold for networks that no file can express, too
            _print_json(result, model, None)
            raise
        _print_json(result, model, output)
        return
    _print_tables(result, model, calibrated=data is None)
    write_model(result.with_boundary, output)
    make_reporter().message(f"wrote {output}")


def _parse_mixed(items: tuple[str, ...]) -> tuple[dict[str, int], dict[str, int], bool]:
    """LAYER=BITS pairs as mappings, of weights (4, 8) and of activations (16), and whether `auto` is among them."""
    weights: dict[str, int] = {}
    activations: dict[str, int] = {}
    for item in items:
        if item == "auto":
            continue
        name, equals, text = item.rpartition("=")
        if not name or not equals:
            raise UsageError(f"--mixed {item!r} is neither LAYER=BITS, such as conv1=4, nor auto")
        if text not in (*_BITS, "16"):
            raise UsageError(
                f"--mixed {name}: {text!r} bits are not supported; choose one of {', '.join(_BITS)} (weights), "
                "16 (activations)"
            )
        (activations if text == "16" else weights)[name] = int(text)
    return weights, activations, "auto" in items


def _print_json(result: QuantizeResult, model: str, output: Path | None) -> None:
    """`output` is None where the network could not be written."""
    import json

    written = None if output is None else str(output)
    click.echo(json.dumps({"model": model, "output": written, **result.to_dict()}, indent=2))


def _print_tables(result: QuantizeResult, model: str, *, calibrated: bool) -> None:
    from dse.core.progress import make_reporter

    reporter = make_reporter()
    rows = [
        (
            layer.name,
            layer.kind,
            str(layer.bits),
            "-" if layer.weight_bits is None else str(layer.weight_bits),
            _decibel(layer.weight_sqnr_db),
            f"{layer.low:.4g}",
            f"{layer.high:.4g}",
            _decibel(layer.sqnr_db),
        )
        for layer in result.layers
    ]
    columns = ("layer", "kind", "bits", "weight bits", "weights dB", "low", "high", "output dB")
    reporter.table(f"{model}: signal to quantization noise", columns, rows)
    judged = result.judged_on
    title = f"on {judged.count} samples of {judged.source}" + (" (calibrated on them, so flattering)" * calibrated)
    reporter.table(title, ("figure", "value", "unit"), _figures(result))


def _figures(result: QuantizeResult) -> list[tuple[str, str, str]]:
    figures = result.figures
    rows = [("output SQNR", _decibel(figures["sqnr_db"]), "dB")]
    if "accuracy" in figures:
        rows.append(("float accuracy", f"{100 * figures['float_accuracy']:.2f}", "% top-1"))
        rows.append(("quantized accuracy", f"{100 * figures['accuracy']:.2f}", "% top-1"))
    rows.append(("agreement with float", f"{100 * figures['top1_agreement']:.2f}", "% top-1"))
    rows.append(("weights", f"{result.weight_bits / 8192:.2f}", "KiB"))
    rows.append(("bits a weight", f"{result.weight_bits / max(1, result.weights):.2f}", "bits"))
    return rows


def _decibel(value: float | None) -> str:
    return "-" if value is None or abs(value) == float("inf") else f"{value:.1f}"
