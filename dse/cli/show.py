"""`dse show`: one thing in full."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dse.cli.options import dims_option, parse_dims

if TYPE_CHECKING:
    from dse.flow.accelerator import Design
    from dse.ir import Graph, Op


@click.command("show", short_help="Show a model, a design, a configuration or the constants.")
@click.argument("thing", metavar="MODEL|PRESET|FAMILY|CONFIG.yaml|tech|config")
@dims_option
@click.option("--node", "node_nm", type=float, metavar="NM", help="tech: node in nm, 7 to 180; 45 unless given.")
@click.option("--device", type=click.Choice(["HP", "LP"]), help="tech: high performance or low power devices.")
@click.option("--component", metavar="TEXT", help="tech: only figures whose name or scope contains TEXT.")
@click.option("--json", "as_json", is_flag=True, help="tech: print JSON instead of a table.")
def command(
    thing: str,
    dims: tuple[str, ...],
    node_nm: float | None,
    device: str | None,
    component: str | None,
    as_json: bool,
) -> None:
    """Show a model's layers, a design's parameters and cost, a configuration, or the technology constants.

    MODEL is zoo:NAME or a model file; PRESET and FAMILY come from dse list; CONFIG.yaml is a run configuration
    or a design file; tech is the table of technology constants; config lists every key a configuration may have.
    """
    if thing != "tech" and (node_nm is not None or device or component or as_json):
        raise click.UsageError("--node, --device, --component and --json belong to dse show tech")
    from dse.core import registry
    from dse.flow.accelerator import presets
    from dse.flow.workload import is_model_file

    if thing == "tech":
        from dse.cli.show_tech import show_tech

        show_tech(node_nm, device, component, as_json)
    elif thing == "config":
        _show_config_keys()
    elif Path(thing).suffix.lower() in (".yaml", ".yml") and not is_model_file(thing):
        _show_file(thing)
    elif thing in presets() or thing in registry.names(registry.BACKENDS):
        _show_design(thing)
    elif ":" in thing or Path(thing).suffix:
        _show_model(thing, parse_dims(dims))
    else:
        _refuse(thing)


def _refuse(thing: str) -> None:
    from dse.core import registry
    from dse.core.errors import UsageError, nearest
    from dse.flow.accelerator import presets
    from dse.flow.workload import available_models

    known = [*available_models(), *presets(), *registry.names(registry.BACKENDS), "tech", "config"]
    raise UsageError(f"{thing!r} is nothing that can be shown{nearest(thing, known)}")


def _show_model(spec: str, dims: dict[str, int]) -> None:
    from dse.core.progress import make_reporter
    from dse.core.units import byte_size, count
    from dse.flow.workload import load_workload

    graph = load_workload(spec, Path(), dims)
    reporter = make_reporter()
    columns = ("op", "kind", "output shape", "MACs", "parameters", "attributes")
    reporter.table(spec, columns, [_op_row(graph, op) for op in graph.ops])
    constants = sum(tensor.bytes for tensor in graph.constants())
    totals = [
        ("ops", count(len(graph.ops)), ""),
        ("MACs", count(graph.macs), ""),
        ("parameters", count(graph.parameters), ""),
        ("constants", byte_size(constants), ""),
        *(("input " + name, _shape(graph[name].shape), graph[name].dtype) for name in graph.inputs),
        *(("output " + name, _shape(graph[name].shape), graph[name].dtype) for name in graph.outputs),
    ]
    reporter.table("", ("total", "value", "type"), totals)


def _op_row(graph: Graph, op: Op) -> tuple[str, ...]:
    from dse.core.units import count
    from dse.ir import op_macs

    macs = op_macs(graph, op)
    weights = sum(graph[name].elements for name in op.inputs[1:] if name and graph[name].data is not None)
    attributes = " ".join(f"{key}={_plain(value)}" for key, value in sorted(op.attributes.items()))
    return (
        op.name,
        op.kind,
        _shape(graph[op.outputs[0]].shape),
        count(macs) if macs else "-",
        count(weights) if weights else "-",
        attributes,
    )


def _show_design(spec: str) -> None:
    from dse.core.progress import make_reporter
    from dse.flow.accelerator import resolve_accelerator

    design = resolve_accelerator(spec)
    reporter = make_reporter()
    reporter.table(f"{spec}: parameters", ("parameter", "value", "bounds", "meaning"), _parameter_rows(design))
    cost = design.family.cost(design.hw)
    area = [(name, f"{value * 1e-6:.5f}") for name, value in sorted(cost.area_um2.items(), key=lambda item: -item[1])]
    reporter.table("", ("area of", "mm2"), [*area, ("total", f"{cost.area_mm2:.5f}")])
    static = [(name, f"{value:.4f}") for name, value in sorted(cost.static_mw.items(), key=lambda item: -item[1])]
    reporter.table("", ("static power of", "mW"), [*static, ("total", f"{sum(cost.static_mw.values()):.4f}")])
    reporter.table("", ("limit", "value"), [("highest clock, MHz", f"{cost.max_clock_mhz:.0f}")])
    decisions = [(name, _plain(value)) for name, value in design.decisions.values.items()]
    reporter.table("", ("compiler decision", "value"), decisions)
    for violation in design.family.check(design.hw):
        reporter.message(f"cannot be built: {violation}")


def _parameter_rows(design: Design) -> list[tuple[str, ...]]:
    """One row a hardware parameter: name, value, bounds as JSON Schema states them, meaning."""
    properties = type(design.hw).model_json_schema()["properties"]
    rows: list[tuple[str, ...]] = []
    for name, value in design.hw.model_dump().items():
        rules = properties[name]
        rows.append((name, _plain(value), _bounds(rules), str(rules.get("description", ""))))
    return rows


def _bounds(rules: Mapping[str, Any]) -> str:
    """Bounds of one JSON Schema property, shortly."""
    if "enum" in rules:
        return ", ".join(str(item) for item in rules["enum"])
    if "const" in rules:
        return str(rules["const"])
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    return " ".join(f"{sign} {rules[key]:g}" for key, sign in signs.items() if key in rules)


def _show_file(spec: str) -> None:
    """A design file's parameters and cost, or a run configuration with includes and defaults filled in."""
    import yaml

    from dse.config.loader import load_mapping
    from dse.config.models import RunConfig
    from dse.config.validation import validate

    data, marks, files = load_mapping(Path(spec))
    if "workload" not in data and "family" in data:
        _show_design(spec)
        return
    config = validate(RunConfig, data, marks)
    click.echo("# " + ", ".join(str(path) for path in files))
    click.echo(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), nl=False)


def _show_config_keys() -> None:
    from dse.config.models import RunConfig
    from dse.core.progress import make_reporter

    rows = _key_rows(RunConfig, "")
    make_reporter().table("", ("key", "default", "meaning"), rows)


def _key_rows(model: type, prefix: str) -> list[tuple[str, str, str]]:
    """Every key below `model` with its default; sections are entered, required keys marked."""
    from pydantic import BaseModel
    from pydantic_core import PydanticUndefined

    from dse.config.validation import model_in

    rows: list[tuple[str, str, str]] = []
    assert issubclass(model, BaseModel)
    for name, field in model.model_fields.items():
        section = model_in(field.annotation)
        if section is not None:
            rows += _key_rows(section, f"{prefix}{name}.")
            continue
        required = field.default is PydanticUndefined and field.default_factory is None
        default = "(required)" if required else _plain(field.get_default(call_default_factory=True))
        rows.append((prefix + name, default, field.description or ""))
    return rows


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape) or "scalar"


def _plain(value: object) -> str:
    """A value as YAML would write it on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
