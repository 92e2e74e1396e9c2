"""One design: limits found before and after compiling, figures, and equality with the family's own answer."""

from __future__ import annotations

import itertools
import pickle

import pytest
from analytic_family import AnalyticFamily, FixedNetworks, small_graph

from dse.backend import Decisions
from dse.core.errors import ConfigError
from dse.search import Evaluator, build_space
from dse.search.evaluate import parse_constraints
from dse.search.networks import ACCURACY_CEILING, QuantizedNetworks, reachable_numerics

FAMILY = AnalyticFamily()
SPACE = build_space(FAMILY, hardware={}, decisions={"reuse": 1}, choices={}, marks={})
BASE = {
    "hardware.lanes": 4, "hardware.buffer_kib": 8, "hardware.style": "wide", "hardware.weight_bits": 8,
    "hardware.clock_mhz": 100.0, "decisions.reuse": 2,
}  # fmt: skip


def evaluator(*constraints: str) -> Evaluator:
    return Evaluator(FAMILY, SPACE, FixedNetworks(), parse_constraints(FAMILY, constraints, {}))


def test_figures_are_the_familys_own_with_the_networks_accuracy() -> None:
    found = evaluator().evaluate(BASE)
    hw, _ = SPACE.design(FAMILY, BASE)
    expected = FAMILY.lower(small_graph(), hw, Decisions({"reuse": 2})).estimate().summary()
    assert found.feasible
    assert found.summary == {**expected, "sqnr_db": 30.0}


def test_each_kind_of_limit_is_reported_with_its_excess() -> None:
    judge = evaluator("lanes * buffer_kib <= 64", "sqnr_db >= 20", "latency_ms <= 1e-6")
    wiring = judge.evaluate({**BASE, "hardware.lanes": 32, "hardware.buffer_kib": 16})
    assert wiring.status == "rejected"
    assert wiring.violations == {"wiring": 3.0, "lanes * buffer_kib <= 64": 7.0}
    lowering = judge.evaluate({**BASE, "hardware.buffer_kib": 1, "decisions.reuse": 4})
    assert (lowering.status, dict(lowering.violations), lowering.summary) == ("infeasible", {"reuse": 3.0}, {})
    figures = judge.evaluate({**BASE, "hardware.weight_bits": 4})
    assert figures.status == "infeasible"
    assert figures.violations["sqnr_db >= 20"] == pytest.approx(0.25)
    assert figures.violations["latency_ms <= 1e-6"] > 1
    model = judge.evaluate({**BASE, "hardware.lanes": 1, "hardware.style": "deep"})
    assert model.status == "rejected"


def test_screening_and_evaluation_agree_on_every_design() -> None:
    judge = evaluator("rows_free <= 1".replace("rows_free", "lanes / buffer_kib"), "area_mm2 <= 0.1")
    names = list(BASE)
    choices = {knob.name: knob.choices for knob in SPACE.knobs}
    seen = set()
    for point in itertools.product(*(choices[name] for name in names)):
        values = dict(zip(names, point, strict=True))
        screened, full = judge.screen(values), judge.evaluate(values)
        seen.add(full.status)
        assert (full.status == "rejected") == (screened is not None)
        assert full.feasible == (not full.violations)
        assert all(excess > 0 for excess in full.violations.values())
    assert seen == {"ok", "infeasible", "rejected"}


def test_a_constraint_over_an_unknown_name_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"'lane'.*did you mean 'lanes'"):
        parse_constraints(FAMILY, ["lane * 2 <= 64"], {})
    with pytest.raises(ConfigError, match="style"):
        evaluator("style <= 64").screen(BASE)


def test_an_evaluator_survives_the_way_to_a_worker() -> None:
    judge = evaluator("area_mm2 <= 0.1")
    assert pickle.loads(pickle.dumps(judge)).evaluate(BASE) == judge.evaluate(BASE)


def test_every_arithmetic_of_the_space_is_found_beforehand() -> None:
    assert [item.weight_bits for item in reachable_numerics(FAMILY, SPACE)] == [4, 8]


def test_quantized_networks_are_made_once_and_measured_finitely() -> None:
    from pathlib import Path

    from dse.compiler import prepare
    from dse.flow.workload import load_workload

    networks = QuantizedNetworks(prepare(load_workload("zoo:mlp", Path())), 8, 0)
    four, eight = (networks.get(item) for item in reachable_numerics(FAMILY, SPACE))
    assert four is networks.get(reachable_numerics(FAMILY, SPACE)[0])
    assert 0 < four.accuracy["sqnr_db"] < eight.accuracy["sqnr_db"] <= ACCURACY_CEILING
    weights = [four.graph[op.inputs[1]] for op in four.graph.ops if op.kind == "gemm"]
    assert {weight.quantization.bits for weight in weights if weight.quantization} == {4}
