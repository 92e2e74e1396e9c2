"""Cost of systolic designs: every knob has its price, limits are told, energy is counts times units."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from importlib import resources
from itertools import pairwise

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.systolic.arch import systolic_arch
from accelerators.systolic.cost import (
    EventCounts,
    check_hardware,
    critical_path_ns,
    energy,
    hardware_cost,
    unit_energies,
    unit_parts,
)
from accelerators.systolic.element_cost import ELEMENT_EVENTS
from accelerators.systolic.hardware import SystolicHardware, machine
from dse.core.errors import InfeasibleError
from dse.program.tile.isa import MemoryId
from dse.tech import value

COMPONENTS = {
    "pe_array", "activation_spad", "weight_spad", "accumulator", "output_buffer", "residual_buffer",
    "parameter_memory", "descriptor_memory", "vector_unit", "sequencers", "dma", "memory_phy",
}  # fmt: skip
BASE = SystolicHardware()
PRESETS = resources.files("accelerators.systolic") / "presets"

designs = st.builds(
    SystolicHardware,
    rows=st.sampled_from([2, 3, 4, 8, 16, 32]),
    columns=st.sampled_from([4, 8, 16, 32]),
    dataflow=st.sampled_from(["ws", "os"]),
    weight_bits=st.sampled_from([4, 8]),
    activation_kib=st.sampled_from([2, 8, 16, 32]),
    weight_kib=st.sampled_from([2, 8, 16, 32]),
    accumulator_kib=st.sampled_from([1, 4, 8, 16]),
    vector_lanes=st.sampled_from([1, 2, 4]),
    memory_bytes_per_cycle=st.sampled_from([1, 4, 8, 16]),
    requantize=st.sampled_from(["ort", "q31"]),
    memory_standard=st.sampled_from(["lpddr4", "ddr3", "ddr4", "hbm2"]),
    clock_mhz=st.sampled_from([100, 300, 500, 700]),
)
counts = st.builds(EventCounts, **{item.name: st.integers(0, 10**9) for item in fields(EventCounts)})


def changed(**knobs: object) -> SystolicHardware:
    return SystolicHardware(**{**BASE.model_dump(), **knobs})


def area(hw: SystolicHardware) -> float:
    return hardware_cost(hw).area_mm2


def static_mw(hw: SystolicHardware) -> float:
    return math.fsum(hardware_cost(hw).static_mw.values())


@settings(max_examples=150, deadline=None)
@given(hw=designs)
def test_every_component_has_an_area_and_all_prices_are_positive(hw: SystolicHardware) -> None:
    cost = hardware_cost(hw)
    assert set(cost.area_um2) == COMPONENTS
    assert set(cost.static_mw) == COMPONENTS | {"clock_tree"}
    assert min(cost.area_um2.values()) > 0
    assert min(cost.static_mw.values()) > 0
    units = unit_energies(hw)
    assert set(units) == {item.name for item in fields(EventCounts)}
    for event, unit in units.items():
        # the designs drawn have no element unit (tests/unit/systolic/test_recurrent.py prices one)
        assert unit > 0 or (event == "adds" and hw.requantize == "ort") or event in ELEMENT_EVENTS, event


@settings(max_examples=100, deadline=None)
@given(hw=designs, done=counts)
def test_energy_is_the_sum_of_counts_times_units(hw: SystolicHardware, done: EventCounts) -> None:
    units = unit_energies(hw)
    expected = math.fsum(count * units[event] for event, count in asdict(done).items())
    assert math.fsum(energy(done, hw).values()) == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_energy_falls_to_the_components_that_the_event_touches() -> None:
    spent = {name for name, pj in energy(EventCounts(memory_read_bytes=64), BASE).items() if pj}
    assert spent == {"memory", "dma"}
    spent = {name for name, pj in energy(EventCounts(weight_reads=1), BASE).items() if pj}
    assert spent == {"weight_spad", "pe_array"}
    assert math.fsum(energy(EventCounts(), BASE).values()) == 0


@pytest.mark.parametrize(
    ("knob", "values"),
    [
        ("rows", [2, 4, 8, 16, 32]),
        ("columns", [4, 8, 16, 32]),
        ("weight_bits", [4, 8]),
        ("activation_kib", [4, 8, 16, 32, 64]),
        ("weight_kib", [4, 8, 16, 32, 64]),
        ("accumulator_kib", [2, 4, 8, 16, 32]),
        ("vector_lanes", [1, 2, 4, 8]),
        ("parameter_channels", [256, 1024, 4096]),
        ("memory_bytes_per_cycle", [1, 2, 4, 8, 16]),
        ("descriptors", [64, 256, 1024]),
        ("clock_mhz", [100, 200, 400, 700]),
    ],
)
def test_more_of_any_knob_costs_area_and_standing_power(knob: str, values: list[float]) -> None:
    # slow enough for the largest memories, so that only the knob changes
    slow = {} if knob == "clock_mhz" else {"clock_mhz": 100}
    series = [changed(**slow, **{knob: setting}) for setting in values]
    for smaller, larger in pairwise(series):
        assert area(larger) > area(smaller)
        assert static_mw(larger) > static_mw(smaller)


def test_a_faster_clock_costs_energy_per_operation_but_not_per_external_byte() -> None:
    units = [unit_energies(changed(clock_mhz=clock)) for clock in (250, 400, 600, 800)]
    for slower, faster in pairwise(units):
        assert faster["macs_executed"] > slower["macs_executed"] * 1.05
        assert faster["activation_reads"] > slower["activation_reads"]
    parts = [unit_parts(changed(clock_mhz=clock))["memory_read_bytes"]["memory"] for clock in (250, 800)]
    assert parts == [8 * value("lpddr4_energy")] * 2


def test_larger_buffers_cost_access_energy_and_clock() -> None:
    small, large = changed(activation_kib=8, clock_mhz=200), changed(activation_kib=128, clock_mhz=200)
    assert unit_energies(large)["activation_reads"] > 1.5 * unit_energies(small)["activation_reads"]
    assert hardware_cost(large).max_clock_mhz < hardware_cost(small).max_clock_mhz


def test_a_slower_memory_needs_a_higher_supply_at_the_same_clock() -> None:
    fast, slow = changed(clock_mhz=400), changed(clock_mhz=400, weight_kib=256)
    assert critical_path_ns(slow) > critical_path_ns(fast)
    assert unit_energies(slow)["macs_executed"] > unit_energies(fast)["macs_executed"]


def test_four_bit_weights_halve_the_multiplier_and_the_weight_traffic() -> None:
    four, eight = unit_energies(changed(weight_bits=4)), unit_energies(BASE)
    assert four["macs_executed"] < 0.7 * eight["macs_executed"]
    assert four["weight_reads"] < 0.8 * eight["weight_reads"]


def test_mac_energy_is_its_parts_at_nominal_supply() -> None:
    hw = changed(clock_mhz=1e3 / critical_path_ns(BASE))  # the clock that nominal supply just reaches
    sums = 8 + 8 + 3
    expected = 0.79 + 0.21 * sums / 32 + 2 * 0.009 * (8 + 16 + sums)
    assert unit_energies(hw)["macs_executed"] == pytest.approx(expected, rel=1e-6)


def test_output_stationary_arrays_pay_for_drain_registers_and_transposer() -> None:
    ws, os = hardware_cost(BASE), hardware_cost(changed(dataflow="os"))
    assert os.area_um2["pe_array"] > 1.2 * ws.area_um2["pe_array"]
    assert os.static_mw["clock_tree"] > ws.static_mw["clock_tree"]


def test_a_lane_group_drives_only_the_macros_that_hold_it() -> None:
    wide = {"columns": 32, "accumulator_kib": 64, "clock_mhz": 100}
    some, every = (unit_energies(changed(**wide, vector_lanes=lanes))["output_writes"] for lanes in (8, 32))
    assert some == pytest.approx(every / 4)


def test_both_channels_of_the_port_are_paid_for() -> None:
    cost = hardware_cost(changed(memory_bytes_per_cycle=8, clock_mhz=500))
    assert cost.area_um2["memory_phy"] == pytest.approx(2 * 4.0 * value("lpddr4_phy_area") * 1e6)


@pytest.mark.parametrize(
    ("knobs", "limit", "nearest"),
    [
        ({"vector_lanes": 3}, "vector_lanes", 2),
        ({"vector_lanes": 16}, "vector_lanes", 8),
        ({"memory_bytes_per_cycle": 12}, "memory_bytes_per_cycle", 8),
        ({"rows": 2, "activation_kib": 256, "clock_mhz": 100}, "activation_spad words", 65536),
        ({"columns": 4, "accumulator_kib": 2048, "clock_mhz": 100}, "accumulator words", 65536),
        ({"accumulator_kib": 0.03}, "accumulator bytes", 64),
        ({"rows": 64, "weight_kib": 0.25, "activation_kib": 16}, "weight_spad words", 64),
    ],
)
def test_designs_that_cannot_be_built_name_the_limit_and_the_nearest_valid_value(knobs, limit, nearest) -> None:
    broken = {violation.limit: violation for violation in check_hardware(changed(**knobs))}
    assert limit in broken
    assert broken[limit].bound == nearest
    assert broken[limit].excess > 0
    assert check_hardware(BASE) == []


@settings(max_examples=100, deadline=None)
@given(hw=designs, factor=st.floats(1.001, 4))
def test_the_clock_limit_is_reachable_and_sharp(hw: SystolicHardware, factor: float) -> None:
    limit = hardware_cost(changed(**{**hw.model_dump(), "clock_mhz": 100})).max_clock_mhz
    at_limit = SystolicHardware(**{**hw.model_dump(), "clock_mhz": limit * (1 - 1e-9)})
    assert all(violation.limit != "clock_mhz" for violation in check_hardware(at_limit))
    assert hardware_cost(at_limit).max_clock_mhz == pytest.approx(limit)
    beyond = SystolicHardware(**{**hw.model_dump(), "clock_mhz": min(4000, limit * factor)})
    violation = next(v for v in check_hardware(beyond) if v.limit == "clock_mhz")
    assert violation.bound == pytest.approx(limit)
    for price in (hardware_cost, unit_energies):
        with pytest.raises(InfeasibleError, match="clock_mhz"):
            price(beyond)


@pytest.mark.parametrize("name", ["gemmini_16x16", "tpu_v1"])
def test_presets_can_be_built_and_every_field_says_why(name: str) -> None:
    text = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
    preset = yaml.safe_load(text)
    assert set(preset) == {"family", "description", "source", "hardware"}
    hw = SystolicHardware(**preset["hardware"])
    assert check_hardware(hw) == []
    assert set(preset["hardware"]) == set(SystolicHardware.model_fields) - {"node_nm", "device", "vdd", "prices"}
    # a preset runs near what its memories allow, since published clocks lie above what 45 nm reaches
    assert hw.clock_mhz < hardware_cost(hw).max_clock_mhz < 1.4 * hw.clock_mhz


def test_the_tpu_preset_has_the_published_proportions() -> None:
    hw = SystolicHardware(**yaml.safe_load((PRESETS / "tpu_v1.yaml").read_text(encoding="utf-8"))["hardware"])
    parts = hardware_cost(hw).area_um2
    total = sum(parts.values())
    # die shares of TPU v1 (ISCA 2017): matrix unit 24 %, unified buffer 29 %, accumulators 6 %, control 2 %; half
    # of the die is host interface, pads and wiring, which are not modelled, and the buffer has 16 of 24 MiB
    assert 0.25 < parts["pe_array"] / total < 0.55
    assert 0.6 < parts["pe_array"] / (parts["activation_spad"] * 24 / 16) / (24 / 29) < 1.8
    assert 0.05 < parts["accumulator"] / total < 0.12
    assert parts["sequencers"] / total < 0.02


@settings(max_examples=60, deadline=None)
@given(hw=designs)
def test_arch_has_the_machines_capacities_and_peak(hw: SystolicHardware) -> None:
    arch = systolic_arch(hw)
    target = machine(hw)
    level = {item.name: item for item in arch.levels}
    assert list(level) == ["memory", "activation_spad", "weight_spad", "accumulator", "register"]
    assert arch.peak_macs_per_cycle == hw.rows * hw.columns
    for name, memory in (("activation_spad", MemoryId.ACTIVATION), ("weight_spad", MemoryId.WEIGHT)):
        assert level[name].capacity_bytes == target.words[memory] * target.word_bytes[memory]
        assert level[name].word_bits == 8 * target.word_bytes[memory]
    assert level["memory"].read_words_per_cycle == hw.memory_bytes_per_cycle
    assert level["register"].holds == ({"weight"} if hw.dataflow == "ws" else {"output"})
    assert [axis.reduces for axis in arch.axes] == [hw.dataflow == "ws", False]
