"""Rules of a user are obeyed by every mapping, or refused with the reason and the nearest choice."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dse.arch import Arch
from dse.arch.arch import load_arch
from dse.arch.rules import Rules, load_rules
from dse.core.errors import ConfigError, InfeasibleError, UsageError
from dse.mapping import Problem, Solution, TensorAccess, best_mapping
from dse.mapping.layers import LayerMapper
from dse.mapping.rules import check_rules, constraints_of

EXAMPLES = Path(__file__).parents[3] / "examples"
#: o[m, p] += w[m, c, r] * x[c, p + r]
CONV = Problem(
    "conv",
    ("M", "C", "P", "R"),
    (8, 6, 10, 3),
    (
        TensorAccess("w", "weight", (((0, 1),), ((1, 1),), ((3, 1),))),
        TensorAccess("x", "input", (((1, 1),), ((2, 1), (3, 1)))),
        TensorAccess("o", "output", (((0, 1),), ((2, 1),))),
    ),
)
ROLES = ["input", "weight", "output"]


def arch(**more: object) -> Arch:
    return Arch.model_validate(
        {
            "name": "chip", "clock_mhz": 100,
            "levels": [
                {"name": "far", "word_bits": 8, "energy_class": "dram"},
                {"name": "near", "word_bits": 8, "capacity_bytes": 256, "energy_class": "register"},
                {"name": "unit", "instances": 12, "word_bits": 8, "capacity_bytes": 32, "energy_class": "register"},
            ],
            "axes": [
                {"name": "rows", "size": 4, "below": "near", "reduces": True, "multicast": ["input", "weight"]},
                {"name": "columns", "size": 3, "below": "near", "reduces": True, "multicast": ["input", "weight"]},
            ],
            **more,
        }
    )  # fmt: skip


def solve(rules: Rules, objective: str = "energy") -> Solution:
    check_rules(rules, arch(), CONV.dims)
    return best_mapping(CONV, arch(), objective, constraints=constraints_of(rules, CONV, arch()))


def units(found: Solution, axis: str) -> dict[str, int]:
    return {dim: n for dim, n in found.mapping.spatial[axis] if n > 1}


def kept(found: Solution, level: str) -> set[str]:
    return {item.role for item in found.cost.traffic if item.level == level}


@pytest.mark.parametrize("objective", ["energy", "latency", "edp"])
def test_rules_are_obeyed(objective: str) -> None:
    assert set(units(solve(Rules(only={"rows": {"C", "R"}}), objective), "rows")) <= {"C", "R"}
    assert "M" not in units(solve(Rules(forbid={"rows": {"M"}}), objective), "rows")
    assert units(solve(Rules(require={"columns": {"R"}}), objective), "columns") == {"R": 3}
    both = units(solve(Rules(require={"rows": {"M", "C"}}), objective), "rows")
    assert set(both) == {"M", "C"}
    assert math.prod(both.values()) <= 4
    assert units(solve(Rules(unroll={"rows": {"M": 2}}), objective), "rows").get("M") == 2
    capped = solve(Rules(most={"rows": {"M": 2, "P": 1}}), objective)
    assert units(capped, "rows").get("M", 1) <= 2
    assert "P" not in units(capped, "rows")
    assert kept(solve(Rules(bypass={"near": {"weight"}}), objective), "near") == {"input", "output"}
    assert kept(solve(Rules(stationary={"unit": "output"}), objective), "unit") == {"output"}
    looped = solve(Rules(loops={"far": {"P"}}), objective).mapping
    assert {dim for dim, n in looped.temporal[0].loops if n > 1} <= {"P"}


def test_a_rule_never_improves_and_a_stationary_tensor_moves_less_into_its_level() -> None:
    free = best_mapping(CONV, arch(), "energy", search_bypass=True)
    for rules in (Rules(only={"rows": {"C"}}), Rules(stationary={"unit": "weight"}), Rules(most={"rows": {"M": 1}})):
        assert solve(rules).value >= free.value * (1 - 1e-12)
    held = solve(Rules(stationary={"unit": "weight"}))
    assert held.cost.at("unit", "w").reads == CONV.macs


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (Rules(only={"row": {"C"}}), "'row' is not an axis of chip; did you mean 'rows'"),
        (Rules(keep={"nera": {"input"}}), "'nera' is not a level of chip; did you mean 'near'"),
        (Rules(forbid={"rows": {"Z"}}), "'Z' is not a dim of any layer"),
        (Rules(require={"rows": {"C"}}, forbid={"rows": {"C"}}), "C is both required and not allowed on axis 'rows'"),
        (Rules(require={"rows": {"C"}}, only={"rows": {"M"}}), "C is both required and not allowed"),
        (Rules(require={"rows": {"R"}}, most={"rows": {"R": 2}}), "the fewest that divide them are 3"),
        (Rules(require={"rows": {"R", "M"}}), "needs 6 units of axis 'rows' for M, R together, which has 4"),
        (Rules(stationary={"unit": "output"}, keep={"unit": {"weight"}}), "cannot keep the weight with only"),
        (Rules(stationary={"unit": "output"}, bypass={"unit": {"output"}}), "cannot be stationary in level 'unit'"),
        (Rules(keep={"near": {"input"}}, bypass={"near": {"input"}}), "told to bypass"),
    ],
)
def test_contradictions_are_refused_with_the_reason(rules: Rules, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        solve(rules)


def test_what_a_layer_lacks_binds_nothing_there() -> None:
    dense = Problem("fc", ("M", "C"), (8, 6), (
        TensorAccess("w", "weight", (((0, 1),), ((1, 1),))), TensorAccess("x", "input", (((1, 1),),)),
        TensorAccess("o", "output", (((0, 1),),)),
    ))  # fmt: skip
    rules = Rules(require={"columns": {"R"}}, unroll={"rows": {"R": 3}}, loops={"far": {"P", "M"}})
    check_rules(rules, arch(), CONV.dims)
    found = best_mapping(dense, arch(), "energy", constraints=constraints_of(rules, dense, arch()))
    assert {dim for dim, n in found.mapping.temporal[0].loops if n > 1} <= {"M"}


def test_nothing_fits_names_the_level_and_the_excess() -> None:
    tiny = arch().model_copy(
        update={"levels": (*arch().levels[:2], arch().levels[2].model_copy(update={"capacity_bytes": 4}))}
    )
    with pytest.raises(InfeasibleError, match="smallest tiles in level unit: 6 words against a bound of 4") as caught:
        LayerMapper(tiny, "energy").solve(CONV, {}, {})
    assert caught.value.violations[0].excess == pytest.approx(0.5)
    # four bytes take an output of four bytes alone
    assert kept(LayerMapper(tiny, "energy", rules=Rules(stationary={"unit": "output"})).solve(CONV, {}, {}), "unit")


def test_rules_stand_in_the_architecture_or_in_a_file_of_their_own(tmp_path: Path) -> None:
    text = (EXAMPLES / "gemmini_like.yaml").read_text(encoding="utf-8")
    path = tmp_path / "arch.yaml"
    path.write_text(text + "constraints:\n  forbid: {rows: [R, S]}\n", encoding="utf-8")
    made = load_arch(path)
    assert made.constraints.forbid == {"rows": frozenset("RS")}
    assert hash(made.constraints) == hash(load_arch(path).constraints)
    own = tmp_path / "rules.yaml"
    own.write_text("stationary: {register: weight}\nmost:\n  rows: {C: 8}\n", encoding="utf-8")
    rules = load_rules(own)
    assert made.constraints.joined(rules).forbid == made.constraints.forbid
    assert made.constraints.joined(rules).most == {"rows": {"C": 8}}
    own.write_text("most:\n  rows: {C: 0}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"rules.yaml:2: .*must be more than 0"):
        load_rules(own)
    own.write_text("stationary: {register: weights}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean 'weight'"):
        load_rules(own)
    own.write_text("keeps: {}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean 'keep'"):
        load_rules(own)
