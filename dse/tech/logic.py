"""Logic: area from measured gate equivalents, energy of arithmetic and registers, clock from gate depth."""

from __future__ import annotations

from functools import cache

import numpy as np

from dse.tech.constants import pe_rows
from dse.tech.technology import REFERENCE, Technology


def logic_area_um2(gates: float, tech: Technology = REFERENCE) -> float:
    """Placed area in um2 of `gates` NAND2 equivalents: cell area over the placement density."""
    return gates * tech.value("nand2_area") / tech.value("placement_density")


def element_gates(product_bits: float, flip_flops: float) -> float:
    """NAND2 equivalents of a processing element: c0 + c1 * product_bits + c2 * flip_flops.

    Parameters
    ----------
    product_bits
        Activation bits times weight bits of its multiplier.
    flip_flops
        Of its registers, the sum's included; each stands with the adder bit or multiplexer before it.

    Source: fitted to `data/pe_gates_45nm.csv` in relative error; every row is met within 5 %.
    """
    constant, per_product_bit, per_flip_flop = _pe_fit()
    return constant + per_product_bit * product_bits + per_flip_flop * flip_flops


def fitted_register_gates() -> float:
    """NAND2 equivalents of a flip-flop with the logic around it (adder bit, multiplexer), from the PE fit."""
    return _pe_fit()[2]


def control_gates(flip_flops: float, product_bits: float = 0) -> float:
    """NAND2 equivalents of control logic, estimated from its flip-flops and multipliers.

    Each flip-flop counts with the next-state logic that the fit of the processing elements gives it.
    `product_bits`: operand widths multiplied, summed over the multipliers.
    """
    return flip_flops * fitted_register_gates() + product_bits * _pe_fit()[1]


def pipeline_gates(flip_flops: float, tech: Technology = REFERENCE) -> float:
    """NAND2 equivalents of bare flip-flops: delay lines, skew, transposers without their multiplexers."""
    return flip_flops * tech.value("flip_flop_gates")


def requantizer_gates(product_bits: float, flip_flops: float, tech: Technology = REFERENCE) -> float:
    """NAND2 equivalents of a requantizer lane, estimated from the synthesised one.

    Multiplier bits beyond the synthesised lane cost what they cost in a processing element, flip-flops beyond it
    are bare pipeline registers; shifter and rounding stay.
    """
    more_bits = product_bits - tech.value("requantizer_product_bits")
    more_registers = flip_flops - tech.value("requantizer_flip_flops")
    return tech.value("requantizer_gates") + _pe_fit()[1] * more_bits + pipeline_gates(more_registers, tech)


def multiply_pj(bits_a: int, bits_b: int, tech: Technology = REFERENCE) -> float:
    """Energy of an integer multiply, proportional to the product of the widths.

    Of the two sources for 8 x 8 bits the one read at its source is used (Aladdin 0.79 pJ, cell library); the other
    (Horowitz 0.2 pJ) is from memory. 16 x 16 bits at 3.17 pJ of the same source confirm the law.
    """
    return tech.value("multiply8_energy_aladdin") * bits_a * bits_b / 64


def add_pj(bits: int, tech: Technology = REFERENCE) -> float:
    """Energy of an integer add, linear in the width (Aladdin: 32 bits 0.21 pJ, 16 bits 0.105 pJ)."""
    return tech.value("add32_energy_aladdin") * bits / 32


def hop_pj(bits: float, tech: Technology = REFERENCE) -> float:
    """Energy to move `bits` from one register into the next: one read and one write."""
    return 2 * tech.value("register_energy") * bits


def logic_stage_ns(fo4: float, tech: Technology = REFERENCE) -> float:
    """Time of a register-to-register path of `fo4` gate delays at nominal supply, margin included."""
    return fo4 * tech.value("fo4_delay") * tech.value("logic_margin") * 1e-3


def mac_clock_mhz(stages: int, tech: Technology = REFERENCE) -> float:
    """Clock that an int8 multiply-accumulate reaches in `stages` pipeline stages at nominal supply, margin included.

    The unpipelined depth is measured, evenly cut, plus a register a stage.

    Raises
    ------
    ValueError: fewer than one stage.
    """
    if stages < 1:
        raise ValueError(f"{stages} pipeline stages: must be at least 1")
    return 1e3 / logic_stage_ns(tech.value("multiply_add_depth") / stages + tech.value("register_depth"), tech)


@cache
def _pe_fit() -> tuple[float, float, float]:
    """Least squares in relative error over the synthesised processing elements."""
    rows = pe_rows()
    gates = np.array([row.gates for row in rows])
    terms = np.array([[1.0, row.activation_bits * row.weight_bits, row.flip_flops] for row in rows])
    solution, *_ = np.linalg.lstsq(terms / gates[:, None], np.ones(len(rows)), rcond=None)
    return float(solution[0]), float(solution[1]), float(solution[2])
