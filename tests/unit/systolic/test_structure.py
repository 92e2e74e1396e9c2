"""The flip-flops that area and clock tree are priced by are those of the elaborated RTL."""

from __future__ import annotations

import re

import pytest
from amaranth.back import rtlil

from accelerators.systolic.element_cost import SERIAL_FLIP_FLOPS
from accelerators.systolic.hardware import SystolicHardware, machine
from accelerators.systolic.rtl import MatmulEngine
from accelerators.systolic.structure import LANES, element_flip_flops, flip_flops
from dse.rtl.machine import TileMachine
from dse.rtl.requantize import AddQ31, RequantizeOrt, RequantizeQ31
from dse.tech.constants import pe_rows

_MODULE = re.compile(r"^module (\S+)")
_CELL = re.compile(r"^\s*cell (\S+)")
_WIDTH = re.compile(r"^\s*parameter \\WIDTH (\d+)")


def elaborated_flip_flops(component: object) -> int:
    """Bits of all registers of a design, its hierarchy unfolded, out of Yosys' intermediate language."""
    own: dict[str, int] = {}
    children: dict[str, list[str]] = {}
    module = cell = ""
    for line in rtlil.convert(component).splitlines():
        if found := _MODULE.match(line):
            module = found[1]
            own[module], children[module] = 0, []
        elif found := _CELL.match(line):
            cell = found[1]
            if not cell.startswith("$"):
                children[module].append(cell)
        elif (found := _WIDTH.match(line)) and cell in ("$dff", "$adff", "$sdff", "$dffe", "$sdffe"):
            own[module] += int(found[1])

    def total(name: str) -> int:
        return own[name] + sum(total(child) for child in children[name])

    used = {child for names in children.values() for child in names}
    (top,) = (name for name in own if name not in used)
    return total(top)


@pytest.mark.parametrize(
    "knobs",
    [
        {"dataflow": "ws", "rows": 2, "columns": 4, "vector_lanes": 1},
        {"dataflow": "os", "rows": 4, "columns": 4, "vector_lanes": 1, "weight_bits": 4},
        {
            "dataflow": "ws",
            "rows": 4,
            "columns": 2,
            "vector_lanes": 2,
            "requantize": "ort",
            "memory_bytes_per_cycle": 16,
        },
        {"dataflow": "ws", "rows": 3, "columns": 4, "vector_lanes": 2, "state_kib": 1},
        {"dataflow": "os", "rows": 4, "columns": 2, "vector_lanes": 1, "state_kib": 1, "requantize": "ort",
         "memory_bytes_per_cycle": 2},
    ],
    ids=lambda knobs: f"{knobs['dataflow']}_{knobs['rows']}x{knobs['columns']}",
)  # fmt: skip
def test_flip_flops_of_a_whole_machine_are_met_within_two_percent(knobs) -> None:
    hw = SystolicHardware(**knobs)
    target = machine(hw)
    emitted = flip_flops(hw) - (SERIAL_FLIP_FLOPS if hw.state_kib else 0)
    assert emitted == pytest.approx(elaborated_flip_flops(TileMachine(target, MatmulEngine(target))), rel=0.02)


@pytest.mark.parametrize(("mode", "lane"), [("q31", RequantizeQ31), ("ort", RequantizeOrt)])
def test_lane_registers_are_counted_on_the_lane(mode: str, lane: type) -> None:
    assert LANES[mode].flip_flops == elaborated_flip_flops(lane())


def test_add_registers_are_counted_on_the_add_lane() -> None:
    assert LANES["q31"].add_flip_flops == elaborated_flip_flops(AddQ31())


@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_the_emitted_element_is_close_to_the_synthesised_one_that_prices_it(dataflow: str) -> None:
    # the prototype's int8 element with a 32-bit sum; ours has a narrower sum and no shadow weight in ws
    prototype = next(
        row for row in pe_rows() if (row.dataflow, row.weight_bits, row.accumulator_bits) == (dataflow, 8, 32)
    )
    ours = element_flip_flops(SystolicHardware(dataflow=dataflow))
    assert 0.7 * prototype.flip_flops <= ours <= prototype.flip_flops
