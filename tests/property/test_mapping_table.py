"""A table answers every design of its topology as a search of that design would, whatever it was asked before."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_samples import random_arch, random_problem

from dse.arch import Arch
from dse.core.errors import InfeasibleError, UsageError
from dse.mapping import Constraints, CountMode, MappingTable, Problem, best_mapping
from dse.mapping.lookup import TABLE_OBJECTIVES


def topology(seed: int, levels: int) -> tuple[Problem, Arch]:
    rng = random.Random(seed)
    problem = random_problem(rng, 6)
    while problem.macs > 200:
        problem = random_problem(rng, 6)
    return problem, random_arch(rng, levels=levels, capacity=True)


def design(rng: random.Random, arch: Arch) -> Arch:
    """Capacities no larger, any rates and prices."""
    levels = [
        level.model_copy(
            update={
                "capacity_bytes": level.capacity_bytes and max(1, int(level.capacity_bytes * rng.choice([1, 0.6]))),
                "partitions": {role: rng.choice([size, size // 2]) for role, size in level.partitions.items()},
                "transfer_cycles": level.transfer_cycles and rng.choice([0, 2.5]),
                "read_words_per_cycle": rng.choice([None, 0.3, 1, 5]),
                "write_words_per_cycle": rng.choice([None, 0.7, 2]),
                "shared_words_per_cycle": rng.choice([None, 1.5]),
                "read_energy_pj": rng.choice([0, 1, 7, 50]),
                "write_energy_pj": rng.choice([0, 2, 9, 80]),
            }
        )
        for level in arch.levels
    ]  # fmt: skip
    compute = arch.compute.model_copy(update={"mac_energy_pj": rng.choice([0.5, 2.0])})
    return arch.model_copy(update={"levels": tuple(levels), "compute": compute})


def outcome(energy_pj: float, cycles: int, objective: str) -> float:
    return {"energy": energy_pj, "latency": cycles, "edp": energy_pj * cycles, "ed2p": energy_pj * cycles**2}[objective]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    levels=st.sampled_from([1, 2, 3, 3, 4]),
    mode=st.sampled_from(["timeloop", "native"]),
)
def test_the_table_answers_every_design_as_a_search_does(seed: int, levels: int, mode: CountMode) -> None:
    problem, arch = topology(seed, levels)
    rng = random.Random(seed)
    table = MappingTable(problem, arch, mode)
    for varied in (arch, *(design(rng, arch) for _ in range(3))):
        for objective in TABLE_OBJECTIVES:
            try:
                searched = best_mapping(problem, varied, objective, mode=mode)
            except InfeasibleError:
                with pytest.raises(InfeasibleError, match="no mapping of"):
                    table.best(varied, objective)
                continue
            answer = table.best(varied, objective)
            assert outcome(answer.energy_pj, answer.cycles, objective) == pytest.approx(searched.value, rel=1e-9)
            cost = answer.cost()
            assert cost.energy_pj == pytest.approx(answer.energy_pj, rel=1e-9)
            assert cost.cycles == answer.cycles
            assert answer.searched is None


def test_answers_do_not_depend_on_what_was_asked_before() -> None:
    problem, arch = topology(7, 3)
    designs = [design(random.Random(seed), arch) for seed in range(6)]
    one, other = MappingTable(problem, arch), MappingTable(problem, arch)
    forward = [(a.energy_pj, a.cycles) for a in (one.best(varied, "edp") for varied in designs)]
    backward = [(a.energy_pj, a.cycles) for a in (other.best(varied, "edp") for varied in reversed(designs))]
    assert forward == backward[::-1]


def test_a_design_asked_again_lists_nothing_new() -> None:
    problem, arch = topology(7, 3)
    table = MappingTable(problem, arch)
    first = table.best(arch, "edp")
    listed = table.listed
    assert listed > 0
    assert table.best(arch, "edp").mapping == first.mapping
    assert table.listed == listed


def test_a_table_without_patience_searches_and_says_so() -> None:
    problem, arch = topology(7, 3)
    patient, hasty = MappingTable(problem, arch), MappingTable(problem, arch, patience=0)
    assert hasty.best(arch, "edp").searched is not None
    assert hasty.best(arch, "edp").energy_pj == pytest.approx(patient.best(arch, "edp").energy_pj)
    assert hasty.listed == 0


def test_a_table_obeys_its_constraints() -> None:
    problem, arch = next(made for made in (topology(seed, 3) for seed in range(99)) if made[1].axes)
    name, dims = arch.axes[0].name, frozenset(problem.dims)
    rules = Constraints(forbid={name: dims})
    answer = MappingTable(problem, arch, constraints=rules).best(arch, "latency")
    assert answer.mapping.spatial[name] == ()
    assert answer.cycles == best_mapping(problem, arch, "latency", constraints=rules).cost.cycles


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": 3, "capacity_bytes": 10**6}, "words a tile, the table goes up to"),
        ({"levels": 3, "word_bits": 64}, "differs in more than capacity"),
        ({"levels": 3, "transfer_cycles": 2.0}, "has transfer_cycles, the table's level has none"),
        ({"axes": ()}, "has other axes; build a table for it"),
    ],
)
def test_a_design_of_another_topology_is_refused(change: dict[str, object], message: str) -> None:
    made = (topology(seed, 3) for seed in range(99))
    problem, arch = next((problem, arch) for problem, arch in made if arch.axes and not arch.levels[-1].transfer_cycles)
    if "levels" in change:
        update = {key: value for key, value in change.items() if key != "levels"}
        levels = (*arch.levels[:-1], arch.levels[-1].model_copy(update=update))
        other = arch.model_copy(update={"levels": levels})
    else:
        other = arch.model_copy(update=change)
    with pytest.raises(UsageError, match=message):
        MappingTable(problem, arch).best(other, "edp")
    with pytest.raises(UsageError, match="did you mean 'energy'"):
        MappingTable(problem, arch).best(arch, "enrgy")
