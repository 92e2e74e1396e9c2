"""A network on a chip: limits with their excess, prices, presets, message timing, and the family's contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from spiking_networks import random_drive, random_mapping, random_network

from accelerators.neuromorphic import NeuromorphicAccelerator
from accelerators.neuromorphic.blocks import block_mapping
from accelerators.neuromorphic.build import Precision, build_network
from accelerators.neuromorphic.cost import cost_of
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.mapping import fitting_mapping, message_table
from accelerators.neuromorphic.network import CLASSES
from accelerators.neuromorphic.prices import EVENTS, area_um2, price_table, prices_of
from accelerators.neuromorphic.simulate import compile_network, run_network
from dse.backend import Decisions
from dse.compiler import prepare
from dse.core.errors import InfeasibleError, ModelError, UsageError
from dse.flow.accelerator import resolve_accelerator
from dse.flow.simulate import simulate
from dse.flow.workload import load_workload
from dse.ir import Graph, Op, Tensor
from dse.sim import simulate_a, simulate_c

FAMILY = NeuromorphicAccelerator()
WIDE = NeuromorphicHardware()


def constants(tensors: dict[str, Tensor], name: str, size: int, **values: float) -> tuple[str, ...]:
    """Constants of a neuron op by name; what has no value is absent."""
    names = []
    for key in ("keep", "gain", "offset", "threshold", "reset"):
        names.append(f"{name}.{key}" if key in values else "")
        if key in values:
            tensors[names[-1]] = Tensor(names[-1], (size,), data=np.full(size, values[key], np.float32))
    return tuple(names)


def layered(sizes: tuple[int, ...], *, loop: int = 0, skip: bool = False, silent: bool = False) -> Graph:
    """Dense layers of IF neurons; `loop` n: the last one feeds the one n - 1 before it; `skip`: input into the last."""
    rng = np.random.default_rng(0)
    tensors = {"x": Tensor("x", (1, sizes[0]))}
    ops: list[Op] = []

    def dense(source: str, inside: int, outside: int, name: str) -> str:
        tensors[f"{name}.w"] = Tensor(f"{name}.w", (outside, inside), data=rng.normal(size=(outside, inside)))
        tensors[name] = Tensor(name, (1, outside))
        ops.append(Op(name, "gemm", (source, f"{name}.w"), (name,), {"activation": "none"}))
        return name

    def plus(a: str, b: str, name: str) -> str:
        tensors[name] = Tensor(name, tensors[a].shape)
        ops.append(Op(name, "add", (a, b), (name,), {"activation": "none"}))
        return name

    source, last = "x", len(sizes) - 1
    for index in range(1, len(sizes)):
        current = dense(source, sizes[index - 1], sizes[index], f"d{index}")
        if loop and index == last - loop + 1:
            tensors["back"] = Tensor("back", (1, sizes[last]))
            ops.append(Op("back", "previous", (), ("back",), {"source": f"n{last}"}))
            current = plus(current, dense("back", sizes[last], sizes[index], "r"), f"s{index}")
        if skip and index == last and index > 1:
            current = plus(current, dense("x", sizes[0], sizes[index], "skip"), "sum")
        values = {"keep": 1.0, "gain": 1.0, "offset": 0.0, "threshold": 1.0, "reset": 0.0}
        if silent and index < last:
            del values["threshold"], values["reset"]
        tensors[f"n{index}"] = Tensor(f"n{index}", (1, sizes[index]))
        names = constants(tensors, f"n{index}", sizes[index], **values)
        ops.append(Op(f"n{index}", "neuron", (current, *names), (f"n{index}",), {}))
        source = f"n{index}"
    return Graph("layers", tensors, tuple(ops), ("x",), (source,))


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({"mesh_columns": 1, "mesh_rows": 1, "neurons_per_core": 8}, r"cores: 13 cores against a bound of 1 cores"),
        ({"fan_in": 39}, r"fan_in: 60 synapses of neuron \d+ against a bound of 39"),
        ({"charge_bits": 8}, r"charge_bits: 1\d bits against a bound of 8 bits"),
        ({"axons_in": 20}, r"axons_in: \d+ of core \d+ against a bound of 20"),
        ({"synapse_kib": 0.01}, r"synapse_bits: \d+ of core \d+ against a bound of 81"),
        ({"neurons_per_core": 8, "fan_out": 1}, r"fan_out: \d+ packets of neuron 0 against a bound of 1"),
        ({"neurons_per_core": 64, "axons_out": 1, "mesh_columns": 8, "mesh_rows": 1}, r"axons_out: \d+ of core"),
    ],
)
def test_what_does_not_fit_is_named_with_limit_and_excess(change: dict[str, Any], limit: str) -> None:
    hw = WIDE.model_copy(update=change)
    with pytest.raises(InfeasibleError, match=limit) as caught:
        FAMILY.lower(layered((40, 60, 40)), hw, Decisions({}))
    assert all(violation.excess > 0 for violation in caught.value.violations)


def test_a_state_too_narrow_for_its_weights_is_refused() -> None:
    hw = NeuromorphicHardware(state_bits=8, fraction_bits=4, weight_bits=8)
    assert FAMILY.check(hw)[0].limit == "state_bits"
    assert not FAMILY.check(WIDE)
    assert [v.limit for v in FAMILY.check(WIDE.model_copy(update={"clock_mhz": 4000}))] == ["clock_mhz"]


def test_layers_are_spread_until_their_memories_hold_them() -> None:
    network = build_network(layered((40, 60, 40)), Precision())
    compiled = compile_network(network)
    one = fitting_mapping(network, compiled, WIDE)
    assert len(np.unique(one.core)) == 2
    tight = fitting_mapping(network, compiled, WIDE.model_copy(update={"synapse_kib": 1.0}))
    assert len(np.unique(tight.core)) > 4
    spread = fitting_mapping(network, compiled, WIDE, spread=3.0)
    assert len(np.unique(spread.core)) == 6


@pytest.mark.parametrize("order", ["channel", "spatial", "round_robin"])
def test_slices_are_equal_and_cover_a_layer(order: str) -> None:
    network = random_network(np.random.default_rng(4))
    slices = [min(3, p.size) for p in network.populations]
    mapping = block_mapping(network, slices, order)
    first = 0
    for population, count in zip(network.populations, slices, strict=True):
        held = np.bincount(mapping.core[population.first : population.first + population.size] - first)
        assert len(held) == count
        assert held.max() - held.min() <= 1
        first += count


def test_a_layer_that_skips_arrives_in_step_with_the_rest() -> None:
    network = build_network(layered((6, 5, 4, 3), skip=True), Precision())
    skips = [p for p in network.projections if p.source == 0 and p.target == 2]
    assert [p.delay for p in skips] == [2]
    assert [p.lag for p in network.populations] == [0, 1, 2]


def test_loops_shorter_than_their_neurons_are_refused() -> None:
    assert build_network(layered((4, 4, 4), loop=1), Precision()).largest_delay == 1
    with pytest.raises(ModelError, match="a loop of n populations needs a delay of n steps"):
        build_network(layered((4, 4, 4), loop=2), Precision())
    with pytest.raises(ModelError, match="neuron 'n1' never fires, yet feeds 'n2'"):
        build_network(layered((4, 4, 4), silent=True), Precision())


def test_every_price_has_scope_evidence_and_source() -> None:
    for chip in price_table().values():
        entries = [*chip["prices"].values(), *(chip[key] for key in ("core_area_mm2", "sync_ns") if key in chip)]
        for entry in entries:
            assert entry["evidence"] in ("measured", "simulated", "calibrated", "assumed")
            assert entry["scope"]
            assert entry["source"]
        assert set(chip["prices"]) <= {"synapse", *EVENTS}


def test_published_prices_are_what_the_table_says() -> None:
    calibrated = prices_of(NeuromorphicHardware(prices="loihi_calibrated"))
    assert calibrated.synapse_energy == (35_500, 33_600, 24_000)
    assert calibrated.time["spike_out"] == 30_000
    assert [calibrated.sync_ps(tiles) for tiles in (1, 2, 11, 16, 32)] == [600_000, 1_000_000, 1_400_000, 1_400_000,
                                                                            1_800_000]  # fmt: skip
    odin = prices_of(NeuromorphicHardware(prices="odin", clock_mhz=100))
    assert odin.synapse_time == (20_000,) * 3


def test_every_knob_of_our_core_has_its_price() -> None:
    base = WIDE
    for name, value in {"neurons_per_core": 1024, "synapse_kib": 256, "lanes": 4, "link_buffer": 64, "mesh_rows": 8,
                        "state_bits": 32, "axons_in": 8192, "axons_out": 16384}.items():  # fmt: skip
        larger = base.model_copy(update={name: value})
        assert sum(area_um2(larger).values()) > sum(area_um2(base).values()), name
    assert prices_of(base.model_copy(update={"synapse_kib": 256})).synapse_energy > prices_of(base).synapse_energy


def test_presets_are_buildable_and_say_where_they_come_from() -> None:
    for name, values in FAMILY.presets().items():
        hw = NeuromorphicHardware(**values)
        assert not FAMILY.check(hw), name
        cost = FAMILY.cost(hw)
        assert cost.area_mm2 > 0
        assert resolve_accelerator(name).family.name == "neuromorphic"
    loihi = NeuromorphicHardware(**FAMILY.presets()["loihi"])
    assert loihi.cores == 128
    assert FAMILY.cost(loihi).area_mm2 == pytest.approx(60)


def test_full_links_hold_senders_back() -> None:
    """Enough messages in flight fill one-message buffers; deep ones never do."""
    waited = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        network = random_network(rng)
        hw = NeuromorphicHardware(mesh_columns=3, mesh_rows=3, link_buffer=1, prices="loihi_calibrated")
        mapping, compiled = random_mapping(rng, network, hw), compile_network(network)
        activity = run_network(compiled, random_drive(rng, network, 10))
        messages, prices = message_table(compiled, mapping, hw.cores), prices_of(hw)
        deep = hw.model_copy(update={"link_buffer": 4096})
        simple = hw.model_copy(update={"messages": "simple"})
        times = [cost_of(network, activity, mapping, messages, h, prices).step_ps for h in (simple, deep, hw)]
        assert (times[0] <= times[1]).all()
        waited += int((times[2] != times[1]).sum())
    assert waited > 0


def test_a_run_reports_parts_that_sum_up_and_its_timeline_ends_with_it() -> None:
    executable = FAMILY.lower(layered((40, 60, 40)), WIDE, Decisions({"time_steps": 12, "input_rate": 0.3}))
    metrics = executable.estimate()
    graph = executable.task_graph()
    assert simulate_a(graph).total_cycles == simulate_c(graph).total_cycles == metrics.cycles
    assert metrics.useful_macs == sum(executable._cost.counts[f"synapse_{kind}"] for kind in CLASSES) > 0
    assert executable.metrics(simulate_a(graph)).summary() == metrics.summary()
    idle = executable.task_graph({"x": np.zeros((12, 40), np.int32)})
    assert simulate_a(idle).total_cycles < metrics.cycles
    spikes = executable.run(executable.sample)["n2"]
    assert spikes.shape == (12, 40)
    assert set(np.unique(spikes)) == {0, 1}


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ({"slice_order": "diagonal"}, "decisions.slice_order: 'diagonal' is not possible"),
        ({"input_rate": 2}, "decisions.input_rate: 2 lies outside 0..1"),
        ({"time_steps": 1.5}, "decisions.time_steps: 1.5 is not a whole number"),
        ({"seed": -1}, "decisions.seed: -1 is not a whole number from 0"),
    ],
)
def test_decisions_out_of_range_are_named(decisions: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FAMILY.lower(layered((4, 4, 4)), WIDE, Decisions(decisions))


def test_inputs_that_are_no_events_are_refused() -> None:
    executable = FAMILY.lower(layered((4, 4, 4)), WIDE, Decisions({}))
    for values, message in ((np.zeros((3, 5), int), r"needs shape \(steps, 4\), got \[3, 5\]"),
                            (np.zeros((3, 4)), "must hold integers"), (np.full((3, 4), 2), r"holds payloads 2\.\.2"),
                            (np.full((3, 4), -1), r"payloads -1\.\.-1")):  # fmt: skip
        with pytest.raises(ModelError, match=message):
            executable.activity({"x": values})


def test_direct_coding_needs_payloads_and_runs_a_zoo_network(tmp_path: Path) -> None:
    graph = load_workload("zoo:digits_mlp", tmp_path)
    with pytest.raises(UsageError, match="'direct' needs cores that take payloads"):
        FAMILY.lower(prepare(graph), WIDE, Decisions({"coding": "direct"}))
    result = simulate(graph, resolve_accelerator("mesh_4x4"))
    assert result.metrics.level == "A"
    assert result.metrics.energy_pj["static"] > 0
    (tmp_path / "d.yaml").write_text(yaml.safe_dump({"family": "neuromorphic", "hardware": {"mesh_rows": 2}}))
    assert resolve_accelerator(str(tmp_path / "d.yaml")).hw.mesh_rows == 2


def test_a_network_far_larger_than_the_chip_is_refused_from_its_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is simulated: its activations alone would fill memory."""
    graph = load_workload("zoo:mobilenet_v2", Path())
    design = resolve_accelerator("loihi")
    monkeypatch.setattr("accelerators.neuromorphic.family.prepared_network", lambda *_: pytest.fail("was converted"))
    with pytest.raises(InfeasibleError, match=r"larger than the chip: neurons: .* against a bound of 131072"):
        simulate(graph, design)
