"""GEMM estimates: against a slow scalar oracle, bounds, monotonicity, speed of the compiled path."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.gpu import GpuHardware, Rates, gemm, preset
from accelerators.gpu.constants import constants
from accelerators.gpu.gemm import machine_vector
from accelerators.gpu.gemm_kernel import MACHINE, SPLITS, TILE_COLUMNS
from accelerators.gpu.library import library_name, tiles
from dse.core.errors import UsageError

SIZES = st.integers(1, 20_000)


def dram_oracle(a: float, b: float, gm: int, gn: int, rows: float, columns: float, wave: float, l2: float) -> float:
    if a + b <= l2:
        return a + b
    band_a, band_b = a / gm, b / gn
    tall = min(gm, max(1, wave / min(gn, max(1, math.sqrt(wave * columns / rows)))))
    wide = min(gn, max(1, wave / tall))
    spilled = b * gm / tall + a * gn / wide
    kept_a = a * gn / max(1, min(wide, l2 / band_b)) + (b if band_b <= l2 else b * gm / tall)
    kept_b = b * gm / max(1, min(tall, l2 / band_a)) + (a if band_a <= l2 else a * gn / wide)
    return min(
        a + b if min(a, b) <= l2 else math.inf,
        spilled if min(a, b) > l2 else math.inf,
        *([kept_a] if a > l2 else []),
        *([kept_b] if b > l2 else []),
    )


def candidate_seconds(m: int, n: int, k: int, tile: dict[str, float], split: int, hw: dict[str, float]) -> float:
    gm, gn = math.ceil(m / tile["rows"]), math.ceil(n / tile["columns"])
    blocks = gm * gn * split
    depth = math.ceil(k / (split * tile["depth"])) * tile["depth"]
    whole = math.ceil(blocks / hw["sms"])
    busiest = whole - hw["wave_smoothing"] * (whole - blocks / hw["sms"]) * (1 - 1 / whole)
    resident = min(busiest, tile["occupancy"])
    per_second = hw["flop_clk_sm"] * tile["rate"] * min(1, resident * tile["warps"] / hw["warp_saturation"])
    math_s = busiest * 2 * tile["rows"] * tile["columns"] * depth / per_second / hw["clock_hz"]
    inverse = 1 / tile["warp_rows"] + 1 / tile["warp_columns"]
    shared_bytes = tile["rows"] * tile["columns"] * hw["element_bytes"] * inverse * depth
    shared_s = busiest * shared_bytes / hw["shared_bytes_clk"] / hw["clock_hz"]
    block_bytes = (tile["rows"] + tile["columns"]) * depth * hw["element_bytes"]
    flight = resident * tile["stages"] * (tile["rows"] + tile["columns"]) * tile["depth"] * hw["element_bytes"]
    load_s = busiest * block_bytes / min(hw["sm_bytes_clk"], flight / hw["latency_cycles"]) / hw["clock_hz"]
    write = m * n * hw["output_bytes"]
    l2_s = (blocks * block_bytes + write) / hw["l2_bytes_s"]
    wave = max(1, min(gm * gn, hw["sms"] * tile["occupancy"]))
    a, b = m * k * hw["element_bytes"], n * k * hw["element_bytes"]
    read = dram_oracle(a, b, gm, gn, tile["rows"], tile["columns"], wave, hw["l2_bytes"])
    dram_s = (max(0, read - min(hw["l2_hot_bytes"], a + b)) + write) / hw["dram_bytes_s"]
    parts = sorted((math_s, shared_s, load_s, l2_s, dram_s))
    total = parts[-1] + hw["exposure"] * sum(parts[:-1])
    total += math.ceil(busiest / tile["occupancy"]) * hw["fill_cycles"] / hw["clock_hz"]
    return total + (hw["split_seconds"] + m * n * 8.0 * split / hw["l2_bytes_s"] if split > 1 else 0)


def oracle(hw: GpuHardware, dtype: str, m: int, n: int, k: int) -> float:
    held = constants(hw, "gemm", dtype)
    machine = dict(zip(MACHINE, machine_vector(hw, dtype, held), strict=True))
    best = math.inf
    for row in tiles(library_name(hw, dtype), int(machine["element_bytes"]), held["narrow_rate"]):
        tile = dict(zip(TILE_COLUMNS, row, strict=True))
        if not (tile["least_m"] <= m <= tile["most_m"] and tile["least_n"] <= n <= tile["most_n"]):
            continue
        blocks = math.ceil(m / tile["rows"]) * math.ceil(n / tile["columns"])
        for split in SPLITS.tolist():
            too_many = blocks * split > 2 * machine["sms"] * tile["occupancy"]
            if split > 1 and (k < split * tile["split_depth"] or too_many):
                break
            best = min(best, candidate_seconds(m, n, k, tile, split, machine))
    return best


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, SIZES, st.sampled_from([("h100_sxm", "bf16"), ("v100_sxm2", "fp32"), ("p100_pcie", "fp32")]))
def test_compiled_search_equals_the_slow_enumeration(m: int, n: int, k: int, target: tuple[str, str]) -> None:
    hw, dtype = preset(target[0]), target[1]
    found = gemm(hw, m, n, k, dtype=dtype)
    assert found.seconds[0] == pytest.approx(max(oracle(hw, dtype, m, n, k), found.bound_s[0]), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, SIZES, st.integers(1, 64), st.sampled_from(["bf16", "fp8", "tf32", "fp32", "int8"]))
def test_no_gemm_is_faster_than_its_roofline(m: int, n: int, k: int, batch: int, dtype: str) -> None:
    hw = preset("h100_sxm")
    found = gemm(hw, m, n, k, batch=batch, dtype=dtype)
    assert found.seconds[0] >= 2.0 * m * n * k * batch / hw.peak_flop_s(dtype)
    assert found.seconds[0] >= found.bound_s[0]
    assert found.flops[0] >= 2.0 * m * n * k * batch * (1 - 1e-12)


@pytest.mark.parametrize(
    "change", [{"clock_mhz": 2200.0}, {"dram_gb_s": 5000.0}, {"l2_gb_s": 20_000.0}, {"sms": 140}, {"sms": 264}]
)
def test_more_clock_bandwidth_or_sms_are_never_slower(change: dict[str, float]) -> None:
    """Without a power limit, whose effect `test_gpu_power` proves."""
    base = preset("h100_sxm")
    sizes = np.random.default_rng(3).integers(1, 16_384, (3, 2000))
    before, after = gemm(base, *sizes, dtype="bf16"), gemm(base.model_copy(update=change), *sizes, dtype="bf16")
    assert (after.seconds <= before.seconds * (1 + 1e-9)).all()


def test_split_k_is_used_where_tiles_are_few_and_the_reduction_is_long() -> None:
    found = gemm(preset("a100_sxm_80"), [128, 16384], [128, 16384], [65536, 512], dtype="bf16")
    assert found.split[0] > 1
    assert found.split[1] == 1


def test_padding_shows_in_the_executed_operations() -> None:
    hw = preset("a100_sxm_80")
    assert gemm(hw, 4096, 4096, 4097, dtype="bf16").flops[0] > 2.0 * 4096 * 4096 * 4097


def test_a_type_the_gpu_lacks_is_named() -> None:
    with pytest.raises(UsageError, match="does not multiply in fp8"):
        gemm(preset("v100_sxm2"), 64, 64, 64, dtype="fp8")
    with pytest.raises(UsageError, match=r"'bf61' is not a number type.*did you mean 'bf16'"):
        gemm(preset("h100_sxm"), 64, 64, 64, dtype="bf61")
    with pytest.raises(UsageError, match="must be positive"):
        gemm(preset("h100_sxm"), 0, 64, 64)


def test_a_hypothetical_gpu_needs_no_preset() -> None:
    small = GpuHardware(sms=16, rates=Rates(fp16=1024), dram_gb_s=200, l2_mib=4, l2_gb_s=800, tdp_w=60)
    large = small.model_copy(update={"sms": 64})
    assert gemm(large, 8192, 8192, 8192).seconds[0] < gemm(small, 8192, 8192, 8192).seconds[0] / 2
