"""What `dse map` prints: layers, traffic, what rests on the chip, totals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dse.core.progress import make_reporter
from dse.core.units import byte_size, count, percent

if TYPE_CHECKING:
    from dse.flow.map import NetworkMapping
    from dse.mapping.layers import PartMapping

LAYER_COLUMNS = ("layer", "kind", "MACs", "cycles", "util", "limit", "energy uJ", "proof", "mapping")
RESTING_COLUMNS = ("rests", "level", "size", "from", "to")


def print_tables(result: NetworkMapping, model: str) -> None:
    """All tables of a mapped network."""
    reporter = make_reporter()
    rows = [
        (
            layer.name, layer.kind, count(layer.macs), count(layer.part.cycles),
            percent(layer.solution.cost.utilization), layer.solution.cost.limit, f"{layer.part.energy_pj * 1e-6:.3f}",
            proof(layer.solution.gap),
            f"as {layer.same_as}" if layer.same_as else f"{_repeated(layer.part)}{layer.solution.mapping}",
        )
        for layer in result.layers
    ]  # fmt: skip
    reporter.table(
        f"{model} on {result.arch.name}, least {result.objective}, counted {result.mode}", LAYER_COLUMNS, rows
    )
    traffic: dict[tuple[str, str], list[float]] = {}
    for layer in result.layers:
        for item in layer.solution.cost.traffic:
            sums = traffic.setdefault((item.level, item.role), [0.0] * 4)
            for k, value in enumerate((item.reads, item.fills, item.updates, item.energy_pj)):
                sums[k] += layer.repeat * value
    reporter.table(
        "",
        ("level", "tensor", "reads", "fills", "updates", "energy uJ"),
        [(*key, *(count(v) for v in sums[:3]), f"{sums[3] * 1e-6:.3f}") for key, sums in traffic.items()],
    )
    _print_residency(result)
    _print_totals(result)


def proof(gap: float) -> str:
    """How sure a mapping is."""
    return "optimal" if gap == 0 else f"gap {percent(gap)}"


def _repeated(part: PartMapping) -> str:
    times = f"{part.part.repeat} x " if part.part.repeat > 1 else ""
    return f"{times}({part.part.kept} rests in {part.kept_at}) " if part.kept_at else times


def _print_residency(result: NetworkMapping) -> None:
    from dse.mapping.residency import room_of_value

    plan, alone, resting = result.plan, result.alone, result.resting
    if plan is None or alone is None or resting is None:
        return
    reporter = make_reporter()
    rows = [
        (
            name, level, byte_size(room_of_value(plan.values[name], result.arch)),
            plan.steps[plan.values[name].first].op, plan.steps[plan.values[name].last].op,
        )
        for name, level in resting.resting.items()
    ]  # fmt: skip
    if resting.pinned:
        rows.append(("all weights", resting.pinned, byte_size(sum(resting_weights(result).values())), "always", ""))
    title = "what rests on the chip between layers"
    if rows:
        reporter.table(title, RESTING_COLUMNS, rows)
    elif any(value.levels for value in plan.values.values()):
        reporter.table(title, ("nothing",), [("no value fits where it could rest, or none gains by it",)])
    else:
        reporter.table(title, ("nothing",), [("no level of one instance holds both outputs and inputs",)])
    outer = result.arch.levels[0].name
    reporter.table(
        "network, operations between layers included",
        ("", "nothing rests", "with resting", "saved"),
        [
            (f"{outer} MB", *(f"{r.bits / 8e6:.4f}" for r in (alone, resting)), _saved(alone.bits, resting.bits)),
            ("cycles", *(count(r.cycles) for r in (alone, resting)), _saved(alone.cycles, resting.cycles)),
            (
                "energy uJ", *(f"{r.energy_pj * 1e-6:.3f}" for r in (alone, resting)),
                _saved(alone.energy_pj, resting.energy_pj),
            ),
            (f"choice for {result.objective}", "", proof(resting.gap), ""),
        ],
    )  # fmt: skip


def resting_weights(result: NetworkMapping) -> dict[str, int]:
    """Bytes of the weights that stay."""
    from dse.mapping.layers import LayerMapper
    from dse.mapping.residency import weights_of

    assert result.plan is not None
    return weights_of(result.plan, LayerMapper(result.arch, result.objective, mode=result.mode))


def _saved(before: float, after: float) -> str:
    return percent(1 - after / before) if before else "-"


def _print_totals(result: NetworkMapping) -> None:
    from dse.mapping.nests import reason_unmapped

    totals = [
        ("cycles", count(result.cycles)),
        ("latency ms", f"{result.cycles / result.arch.clock_mhz / 1e3:.4f}"),
        ("energy uJ", f"{result.energy_pj * 1e-6:.3f}"),
        *([("network uJ", f"{result.network_pj * 1e-6:.3f}")] if result.network_pj else []),
        *(
            (f"not mapped: {kind}", f"{number} ({reason_unmapped(kind)})")
            for kind, number in sorted(result.unmapped.items())
        ),
    ]
    make_reporter().table("", ("layers alone", "value"), totals)
