"""Energy of hops against a count by hand and against a walk over every word."""

from __future__ import annotations

import pytest

from dse.arch import Arch, MemoryLevel, SpatialAxis
from dse.mapping import Mapping, Problem, TemporalLevel, TensorAccess, evaluate
from dse.mapping.network import network_energy_pj

#: o[m, n] += w[m, k] * x[k, n]
GEMM = Problem(
    "gemm",
    ("M", "N", "K"),
    (6, 4, 10),
    (
        TensorAccess("x", "input", (((2, 1),), ((1, 1),))),
        TensorAccess("w", "weight", (((0, 1),), ((2, 1),))),
        TensorAccess("o", "output", (((0, 1),), ((1, 1),))),
    ),
)


def arch(hop_columns: float, hop_rows: float) -> Arch:
    return Arch(
        name="grid", clock_mhz=100,
        levels=(MemoryLevel(name="far", word_bits=8, energy_class="dram"),
                MemoryLevel(name="near", word_bits=8, capacity_bytes=64, instances=6)),
        axes=(SpatialAxis(name="columns", size=3, below="far", multicast=frozenset({"input"}), hop_pj=hop_columns),
              SpatialAxis(name="rows", size=2, below="far", reduces=True, hop_pj=hop_rows)),
    )  # fmt: skip


MAPPING = Mapping(
    (TemporalLevel("far", (("N", 4),)), TemporalLevel("near", (("M", 2), ("K", 5)))),
    {"columns": (("M", 3),), "rows": (("K", 2),)},
)


def test_without_a_price_of_a_hop_the_network_costs_nothing() -> None:
    assert network_energy_pj(GEMM, arch(0, 0), MAPPING) == {"x": 0, "w": 0, "o": 0}


def test_hops_along_the_columns_by_hand() -> None:
    found = network_energy_pj(GEMM, arch(1.0, 0), MAPPING)
    # 40 inputs leave once each and run past all three columns, which share them: 8 bits each
    assert found["x"] == 40 * 3 * 8
    # 60 weights go to one column of three: half the way on average
    assert found["w"] == 60 * 1.5 * 8
    # 24 results of 32 bits come back half the way
    assert found["o"] == 24 * 1.5 * 32


def test_hops_along_the_rows_by_hand() -> None:
    found = network_energy_pj(GEMM, arch(0, 1.0), MAPPING)
    # an input is for one row of two; it branches off in each of three columns
    assert found["x"] == 40 * 3 * 1 * 8
    assert found["w"] == 60 * 1 * 8
    # one of the two partial sums moves on to the other, the result half the way out
    assert found["o"] == 24 * (1 + 1) * 32


@pytest.mark.parametrize(("columns", "rows"), [(0.5, 0), (0, 0.25), (0.5, 0.25)])
def test_energy_is_linear_in_the_price_of_a_hop_and_stays_beside_the_cost_of_the_mapping(columns, rows) -> None:
    one, two = network_energy_pj(GEMM, arch(columns, 0), MAPPING), network_energy_pj(GEMM, arch(0, rows), MAPPING)
    both = network_energy_pj(GEMM, arch(columns, rows), MAPPING)
    assert both == pytest.approx({name: one[name] + two[name] for name in both})
    assert evaluate(GEMM, arch(columns, rows), MAPPING).energy_pj == evaluate(GEMM, arch(0, 0), MAPPING).energy_pj
