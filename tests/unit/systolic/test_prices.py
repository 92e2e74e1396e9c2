"""Every knob has its price on random designs: more of a thing never costs less, at every node."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from accelerators.systolic.cost import check_hardware, hardware_cost, unit_energies, unit_parts
from accelerators.systolic.hardware import SystolicHardware

designs = st.builds(
    SystolicHardware,
    rows=st.integers(2, 40),
    columns=st.sampled_from([2, 3, 4, 6, 8, 12, 16, 24, 32]),
    dataflow=st.sampled_from(["ws", "os"]),
    weight_bits=st.sampled_from([4, 8]),
    activation_kib=st.floats(0.5, 128),
    weight_kib=st.floats(0.5, 128),
    accumulator_kib=st.floats(0.5, 64),
    vector_lanes=st.sampled_from([1, 2]),
    parameter_channels=st.integers(16, 2048),
    memory_bytes_per_cycle=st.sampled_from([1, 2, 4, 8, 16, 32]),
    requantize=st.sampled_from(["ort", "q31"]),
    memory_standard=st.sampled_from(["lpddr4", "ddr3", "ddr4", "hbm2"]),
    clock_mhz=st.floats(50, 200),
    descriptors=st.integers(16, 4096),
)
#: Knobs of which more is a larger machine.
SIZES = ("activation_kib", "weight_kib", "accumulator_kib", "parameter_channels", "descriptors",
         "memory_bytes_per_cycle", "vector_lanes")  # fmt: skip


def larger(hw: SystolicHardware, knob: str, factor: float) -> SystolicHardware:
    """The design with more of one knob, as far as the knob's own rules allow."""
    value = getattr(hw, knob)
    if knob in ("memory_bytes_per_cycle", "vector_lanes", "weight_bits"):
        more = 8 if knob == "weight_bits" else 2 * value
    elif knob == "columns":
        more = 2 * value  # lanes still divide them
    else:
        more = type(value)(math.ceil(value * factor) if isinstance(value, int) else value * factor)
    return SystolicHardware.model_validate({**hw.model_dump(), knob: more})


@pytest.mark.parametrize("knob", SIZES)
@settings(max_examples=40, deadline=None)
@given(hw=designs, factor=st.floats(1.01, 4))
def test_more_of_a_knob_never_costs_less_area_or_standing_power(knob: str, hw: SystolicHardware, factor: float) -> None:
    more = larger(hw, knob, factor)
    assume(not check_hardware(hw) and not check_hardware(more))
    small, large = hardware_cost(hw), hardware_cost(more)
    assert large.area_mm2 >= small.area_mm2 * (1 - 1e-12)
    assert math.fsum(large.static_mw.values()) >= math.fsum(small.static_mw.values()) * (1 - 1e-12)


@pytest.mark.parametrize("knob", ["rows", "columns", "weight_bits"])
@settings(max_examples=40, deadline=None)
@given(hw=designs)
def test_a_wider_array_never_costs_less(knob: str, hw: SystolicHardware) -> None:
    """Without the memories: of the same KiB, rounded to whole words, a wider one may hold less."""
    more = larger(hw, knob, 2)
    assume(not check_hardware(hw) and not check_hardware(more))
    small, large = hardware_cost(hw), hardware_cost(more)
    for component in ("pe_array", "vector_unit", "sequencers", "dma", "memory_phy"):
        assert large.area_um2[component] >= small.area_um2[component] * (1 - 1e-12), component
    assert large.area_um2["pe_array"] > small.area_um2["pe_array"] or hw.weight_bits == 8 == more.weight_bits


def test_wider_weights_never_cost_less_total_area() -> None:
    """The fits once had a smaller macro for a 48-bit word than for a 24-bit word, and precision a negative price."""
    narrow = SystolicHardware(
        rows=2, columns=6, weight_bits=4, activation_kib=1, weight_kib=94, accumulator_kib=1, vector_lanes=1,
        parameter_channels=16, requantize="ort", memory_bytes_per_cycle=1, clock_mhz=50, descriptors=16,
    )  # fmt: skip
    wide = narrow.model_copy(update={"weight_bits": 8})
    assert hardware_cost(wide).area_mm2 > hardware_cost(narrow).area_mm2


@settings(max_examples=60, deadline=None)
@given(hw=designs, kib=st.sampled_from([1, 3, 8, 24, 96]))
def test_wider_weights_cost_more_area_and_energy_a_word_where_the_memory_holds_the_same(
    hw: SystolicHardware, kib: int
) -> None:
    # KiB that whole words of both widths fill, so that rounding to words changes nothing
    narrow = hw.model_copy(update={"weight_bits": 4, "weight_kib": kib, "columns": 16, "vector_lanes": 1})
    wide = narrow.model_copy(update={"weight_bits": 8})
    assume(not check_hardware(narrow) and not check_hardware(wide))
    cheap, dear = hardware_cost(narrow), hardware_cost(wide)
    assert dear.area_um2["weight_spad"] >= cheap.area_um2["weight_spad"] * (1 - 1e-12)
    assert dear.area_mm2 > cheap.area_mm2
    assert unit_energies(wide)["weight_reads"] >= unit_energies(narrow)["weight_reads"]


@settings(max_examples=40, deadline=None)
@given(hw=designs, step=st.sampled_from([(7, 10), (14, 16), (22, 28), (28, 32), (32, 45), (45, 65), (65, 90)]))
def test_a_larger_node_costs_more_area_and_energy(hw: SystolicHardware, step: tuple[float, float]) -> None:
    small, large = (hw.model_copy(update={"node_nm": node, "clock_mhz": 20.0}) for node in step)
    assume(not check_hardware(small) and not check_hardware(large))
    assert hardware_cost(large).area_mm2 > hardware_cost(small).area_mm2
    for event in ("macs_executed", "activation_reads", "weight_reads", "requantized"):
        assert unit_energies(large)[event] > unit_energies(small)[event]


def test_a_supply_outside_the_range_of_the_node_is_a_violation_with_the_limit() -> None:
    found = check_hardware(SystolicHardware(vdd=1.2))
    assert [(item.limit, item.value, item.bound) for item in found] == [("vdd", 1.2, 0.94)]
    assert not check_hardware(SystolicHardware(vdd=0.9, clock_mhz=200))


def test_a_replaced_price_reaches_the_cost() -> None:
    plain, replaced = SystolicHardware(), SystolicHardware(prices={"lpddr4_energy": 4.0, "sram_area_factor": 2.0})
    assert hash(plain) != hash(replaced)
    assert unit_parts(replaced)["memory_read_bytes"]["memory"] == 0.5 * unit_parts(plain)["memory_read_bytes"]["memory"]
    assert hardware_cost(replaced).area_um2["parameter_memory"] > hardware_cost(plain).area_um2["parameter_memory"]


@settings(max_examples=60, deadline=None)
@given(hw=designs, factor=st.floats(1.01, 8))
def test_a_faster_clock_never_costs_less_energy_an_operation(hw: SystolicHardware, factor: float) -> None:
    faster = hw.model_copy(update={"clock_mhz": hw.clock_mhz * factor})
    assume(not check_hardware(hw) and not check_hardware(faster))
    slow, fast = unit_energies(hw), unit_energies(faster)
    assert all(fast[event] >= slow[event] * (1 - 1e-12) for event in slow)
    bought, had = hardware_cost(faster), hardware_cost(hw)
    assert bought.area_um2["memory_phy"] > had.area_um2["memory_phy"]  # bandwidth is bytes a cycle times clock
    assert bought.static_mw["clock_tree"] > had.static_mw["clock_tree"]


@settings(max_examples=60, deadline=None)
@given(hw=designs)
def test_bandwidth_is_paid_for_in_the_phy(hw: SystolicHardware) -> None:
    series = [hw.model_copy(update={"memory_bytes_per_cycle": width}) for width in (1, 2, 4, 8, 16, 32)]
    assume(not any(check_hardware(design) for design in series))
    costs = [hardware_cost(design) for design in series]
    for narrow, wide in pairwise(costs):
        assert wide.area_um2["memory_phy"] > narrow.area_um2["memory_phy"]
        assert wide.static_mw["memory_phy"] > narrow.static_mw["memory_phy"]


@settings(max_examples=60, deadline=None)
@given(hw=designs, factor=st.floats(1.5, 8))
def test_an_access_of_a_larger_memory_never_costs_less(hw: SystolicHardware, factor: float) -> None:
    assume(not check_hardware(hw))
    for knob, reads in (("activation_kib", "activation_reads"), ("weight_kib", "weight_reads")):
        more = larger(hw, knob, factor)
        assume(not check_hardware(more))
        assert unit_energies(more)[reads] >= unit_energies(hw)[reads] * (1 - 1e-12)


@settings(max_examples=100, deadline=None)
@given(hw=designs)
def test_writing_a_word_beat_by_beat_costs_no_less_than_at_once(hw: SystolicHardware) -> None:
    """A beat drives the macros that hold it, so that all beats of a word drive every macro at least once."""
    assume(not check_hardware(hw))
    whole = hw.model_copy(update={"memory_bytes_per_cycle": 256})
    assume(not check_hardware(whole))
    for event, component, word in (
        ("activation_writes", "activation_spad", hw.rows),
        ("residual_writes", "residual_buffer", hw.columns),
    ):
        # supply is what differs besides: a wider port does not change the slowest path
        beat, at_once = unit_parts(hw)[event][component], unit_parts(whole)[event][component]
        beats = math.ceil(word / hw.memory_bytes_per_cycle)
        assert beat <= at_once * (1 + 1e-12)
        assert beats * beat >= at_once * (1 - 1e-12)
