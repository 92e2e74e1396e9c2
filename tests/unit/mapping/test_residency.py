"""What rests between layers: the choice equals trying everything, room and values are counted as documented."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.arch import Arch
from dse.core.errors import InfeasibleError, ModelError
from dse.ir import Graph, Op, Tensor
from dse.mapping.layers import LayerMapper, objective_keys, total
from dse.mapping.residency import Plan, pass_cost, plan_of, room_of, weights_of
from dse.mapping.residency_search import best_residency, nothing_rests, occupied

CONV = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1, "activation": "none"}


def random_network(rng: random.Random, layers: int) -> Graph:
    """Convolutions of 1 x 1 on 2 x 2 pixels, sums of two earlier tensors, activations in between."""
    shapes: dict[str, tuple[int, ...]] = {"x": (1, 4, 2, 2)}
    ops: list[Op] = []
    inputs = ["x"]
    for k in range(layers):
        source = rng.choice(list(shapes)[-2:] if rng.random() < 0.8 else list(shapes))
        while source.startswith("w"):
            source = rng.choice(list(shapes))
        equal = [n for n in shapes if shapes[n] == shapes[source] and n != source and not n.startswith("w")]
        if equal and rng.random() < 0.35:
            ops.append(Op(f"add{k}", "add", (source, rng.choice(equal)), (f"t{k}",), {"activation": "none"}))
            shapes[f"t{k}"] = shapes[source]
            continue
        if rng.random() < 0.25:
            ops.append(Op(f"relu{k}", "relu", (source,), (f"t{k}",)))
            shapes[f"t{k}"] = shapes[source]
            continue
        channels = rng.choice([4, 8])
        shapes[f"w{k}"] = (channels, shapes[source][1], 1, 1)
        shapes[f"t{k}"] = (1, channels, 2, 2)
        inputs.append(f"w{k}")
        ops.append(Op(f"conv{k}", "conv", (source, f"w{k}"), (f"t{k}",), CONV))
    last = ops[-1].outputs[0]
    channels = shapes[last][1]
    shapes |= {"wz": (4, channels, 1, 1), "z": (1, 4, 2, 2)}
    ops.append(Op("convz", "conv", (last, "wz"), ("z",), CONV))
    used = {name for op in ops for name in (*op.inputs, *op.outputs)}
    tensors = {n: Tensor(n, s) for n, s in shapes.items() if n in used}
    return Graph("net", tensors, tuple(ops), tuple(n for n in ("x", *inputs, "wz") if n in used), ("z",))


def chip(*capacities: int, double: bool = False) -> Arch:
    far = {"name": "far", "word_bits": 8, "energy_class": "dram", "read_words_per_cycle": 1, "write_words_per_cycle": 1}
    levels = [
        {
            "name": f"near{k}", "word_bits": 8, "capacity_bytes": capacity, "double_buffered": double,
            "read_energy_pj": 3 - k, "write_energy_pj": 4 - k, "shared_words_per_cycle": 4,
        }
        for k, capacity in enumerate(capacities)
    ]  # fmt: skip
    return Arch.model_validate(
        {
            "name": "chip", "clock_mhz": 100, "compute": {"accumulator_bits": 16, "mac_energy_pj": 1},
            "levels": [far, *levels],
            "axes": [{"name": "x", "size": 4, "below": f"near{len(capacities) - 1}", "multicast": ["input"]}],
        }
    )  # fmt: skip


def try_everything(plan: Plan, mapper: LayerMapper, objective: str) -> float:
    """The least objective over every choice of a level, or none, for every value."""
    free = [value for value in plan.values.values() if value.levels]
    best = float("inf")
    for levels in product(*(("", *value.levels) for value in free)):
        chosen = {value.name: level for value, level in zip(free, levels, strict=True) if level}
        sums = [0.0, 0.0, 0.0]
        try:
            for place, step in enumerate(plan.steps):
                live = {n: v for n, v in chosen.items() if plan.values[n].first <= place <= plan.values[n].last}
                room = occupied(plan, place, live, mapper)
                sizes = {level.name: level.capacity_bytes or 0 for level in mapper.arch.levels}
                if any(size >= sizes[name] for name, size in room.items()):
                    raise InfeasibleError("no room", [])
                own = {n: v for n, v in live.items() if n in (*step.reads, *step.writes)}
                if step.ways:
                    resident = {t: own[v] for t, v in step.tensors.items() if v in own}
                    made = total(LayerMapper(mapper.arch, objective).best(step.ways, resident, room))
                else:
                    made = pass_cost(step, plan, own, mapper)
                sums = [a + b for a, b in zip(sums, made, strict=True)]
        except InfeasibleError:
            continue
        best = min(best, objective_keys(objective, *sums)[0])
    return best


@settings(max_examples=24, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(["energy", "latency", "edp", "traffic"]))
def test_what_rests_equals_trying_everything(seed: int, objective: str) -> None:
    rng = random.Random(seed)
    graph = random_network(rng, rng.randint(2, 4))
    capacities = rng.choice([(48,), (96,), (200,), (160, 80)])
    mapper = LayerMapper(chip(*capacities, double=rng.random() < 0.3), objective)
    plan = plan_of(graph, mapper)
    found = best_residency(plan, mapper)
    assert found.exact
    assert found.gap == 0
    assert found.value == pytest.approx(try_everything(plan, mapper, objective), rel=1e-9)
    assert found.value <= nothing_rests(plan, mapper).value * (1 + 1e-12)
    sums = (found.energy_pj, found.cycles, found.bits)
    assert found.value == pytest.approx(objective_keys(objective, *sums)[0], rel=1e-9)


def residual() -> Graph:
    """conv -> relu -> (conv -> conv) + shortcut -> conv."""
    shapes = {"x": (1, 4, 2, 2), "a": (1, 4, 2, 2), "ar": (1, 4, 2, 2), "b": (1, 4, 2, 2), "c": (1, 4, 2, 2),
              "s": (1, 4, 2, 2), "z": (1, 4, 2, 2), **{f"w{k}": (4, 4, 1, 1) for k in range(4)}}  # fmt: skip
    ops = (
        Op("first", "conv", ("x", "w0"), ("a",), CONV),
        Op("act", "relu", ("a",), ("ar",)),
        Op("left", "conv", ("ar", "w1"), ("b",), CONV),
        Op("right", "conv", ("b", "w2"), ("c",), CONV),
        Op("join", "add", ("c", "ar"), ("s",), {"activation": "none"}),
        Op("last", "conv", ("s", "w3"), ("z",), CONV),
    )
    tensors = {n: Tensor(n, s, data=np.zeros(s, np.float32) if n.startswith("w") else None) for n, s in shapes.items()}
    return Graph("residual", tensors, ops, ("x",), ("z",))


def test_a_branch_keeps_its_value_until_the_join() -> None:
    mapper = LayerMapper(chip(400), "energy")
    plan = plan_of(residual(), mapper)
    assert [step.op for step in plan.steps] == ["first", "left", "right", "join", "last"]
    # the activation works in place: one value from the first layer to the join
    assert (plan.values["a"].first, plan.values["a"].last) == (0, 3)
    assert plan.values["x"].levels == plan.values["z"].levels == ()
    found = best_residency(plan, mapper)
    assert set(found.resting) == {"a", "b", "c", "s"}
    # sums are 16 bits wide while they are written, 8 bits afterwards
    assert [room_of(plan.values["a"], k, plan, mapper) for k in range(3)] == [32, 16, 16]
    outer = [step.bits for step in found.steps]
    # the first reads x and its weights, the join touches nothing outside, the last writes z
    assert outer == [8 * (16 + 16), 8 * 16, 8 * 16, 0, 8 * 16 + 16 * 16]


def test_passes_move_every_value_once_at_the_prices_of_its_level() -> None:
    mapper = LayerMapper(chip(400), "energy")
    plan = plan_of(residual(), mapper)
    join = plan.steps[3]
    far = 8 * 8.0  # LPDDR4: 8 pJ a bit
    assert pass_cost(join, plan, {}, mapper) == (pytest.approx(3 * 16 * far), 32, 3 * 16 * 8)
    energy, cycles, bits = pass_cost(join, plan, {"a": "near0", "c": "near0", "s": "near0"}, mapper)
    assert (energy, cycles, bits) == (pytest.approx(32 * 3 + 16 * 4), 12, 0)


def test_more_room_is_never_worse_and_no_room_rests_nothing() -> None:
    values = []
    for capacity in (40, 64, 128, 400):
        mapper = LayerMapper(chip(capacity), "edp")
        plan = plan_of(residual(), mapper)
        values.append(best_residency(plan, mapper).value)
    # prices are fixed, so that capacity alone changes
    assert values == sorted(values, reverse=True)
    assert best_residency(plan, mapper).value < values[0]


def test_a_value_rests_only_where_outputs_and_inputs_are_held() -> None:
    arch = chip(400)
    near = arch.levels[1].model_copy(update={"holds": frozenset({"input", "weight"})})
    split = arch.model_copy(update={"levels": (arch.levels[0], near)})
    mapper = LayerMapper(split, "energy")
    plan = plan_of(residual(), mapper)
    assert not any(value.levels for value in plan.values.values())
    assert best_residency(plan, mapper).resting == {}


def test_optima_are_shared_between_rooms_and_layers() -> None:
    mapper = LayerMapper(chip(4000), "energy")
    plan = plan_of(residual(), mapper)
    nothing_rests(plan, mapper)
    assert mapper.searched == 1  # four equal layers
    best_residency(plan, mapper)
    # input, output, both or none at rest: with this much room nothing else is another problem
    assert mapper.searched <= 4


def test_a_network_that_does_not_fit_says_where() -> None:
    mapper = LayerMapper(chip(2), "energy")
    plan = plan_of(residual(), mapper)
    for call in (nothing_rests, best_residency):
        with pytest.raises(InfeasibleError, match="smallest tiles in level near0"):
            call(plan, mapper)
    relu = Op("r", "relu", ("x",), ("y",))
    idle = Graph("idle", {n: Tensor(n, (1, 4)) for n in "xy"}, (relu,), ("x",), ("y",))
    with pytest.raises(ModelError, match="nothing to map"):
        plan_of(idle, mapper)


def test_weights_that_fit_together_stay_when_the_network_runs_again_and_again() -> None:
    for capacity, pinned in ((4000, "near0"), (100, "")):
        mapper = LayerMapper(chip(capacity), "energy")
        plan = plan_of(residual(), mapper)
        assert sum(weights_of(plan, mapper).values()) == 4 * 16
        once, again = best_residency(plan, mapper), best_residency(plan, mapper, steady=True)
        assert (once.pinned, again.pinned) == ("", pinned)
        assert again.value <= once.value
        saved = once.bits - again.bits
        # every weight is read from far once in the first case
        assert saved == (4 * 16 * 8 if pinned else 0)
