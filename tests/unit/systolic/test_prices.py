"""Every knob has its price on random designs: more of a thing never costs less, but for one known fault of the fits."""

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
    """Without the memories: of the same KiB a wider word can be the smaller macro in the CACTI fits."""
    more = larger(hw, knob, 2)
    assume(not check_hardware(hw) and not check_hardware(more))
    small, large = hardware_cost(hw), hardware_cost(more)
    for component in ("pe_array", "vector_unit", "sequencers", "dma", "memory_phy"):
        assert large.area_um2[component] >= small.area_um2[component] * (1 - 1e-12), component
    assert large.area_um2["pe_array"] > small.area_um2["pe_array"] or hw.weight_bits == 8 == more.weight_bits


@pytest.mark.xfail(
    strict=True, reason="SRAM fits: at one capacity a 48-bit word makes a smaller macro than a 24-bit word"
)
def test_wider_weights_never_cost_less_total_area() -> None:
    """What the price of precision should hold and does not yet: the memory saves more than the array costs."""
    narrow = SystolicHardware(
        rows=2, columns=6, weight_bits=4, activation_kib=1, weight_kib=94, accumulator_kib=1, vector_lanes=1,
        parameter_channels=16, requantize="ort", memory_bytes_per_cycle=1, clock_mhz=50, descriptors=16,
    )  # fmt: skip
    wide = narrow.model_copy(update={"weight_bits": 8})
    assert hardware_cost(wide).area_mm2 >= hardware_cost(narrow).area_mm2


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
