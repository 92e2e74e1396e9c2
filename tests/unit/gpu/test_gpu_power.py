"""Power under the limit, area, and the shipped presets."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.gpu import (
    GpuHardware,
    area_mm2,
    gemm,
    load,
    preset,
    preset_documents,
    static_watts,
    under_power_limit,
)
from accelerators.gpu.constants import RULES, check_overrides, constants
from accelerators.gpu.library import libraries
from dse.core.errors import UsageError


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 16_384), st.integers(1, 16_384), st.integers(1, 16_384), st.floats(15, 1500))
def test_power_never_exceeds_the_limit_and_time_never_falls_for_it(m: int, n: int, k: int, tdp: float) -> None:
    hw = preset("h100_sxm").model_copy(update={"tdp_w": tdp})
    free = gemm(hw, m, n, k, dtype="bf16")
    found = under_power_limit(hw, free, "bf16")
    assert found.power_w[0] <= tdp * (1 + 1e-6)
    assert found.seconds[0] >= free.seconds[0] * (1 - 1e-9)
    assert found.power_w[0] >= static_watts(hw) * (1 - 1e-9)
    assert sum(part[0] for part in found.energy_j.values()) == pytest.approx(found.power_w[0] * found.seconds[0])


def test_a_higher_limit_is_never_slower() -> None:
    sizes = np.random.default_rng(5).integers(64, 8192, (3, 300))
    times = []
    for tdp in (30, 72, 150, 600):
        hw = preset("l4").model_copy(update={"tdp_w": float(tdp)})
        times.append(under_power_limit(hw, gemm(hw, *sizes, dtype="fp32"), "fp32").seconds)
    for lower, higher in pairwise(times):
        assert (higher <= lower * (1 + 1e-6)).all()


def test_small_cards_throttle_on_fp32_and_large_ones_do_not() -> None:
    def clock(name: str) -> float:
        hw = preset(name)
        return float(under_power_limit(hw, gemm(hw, 8192, 8192, 8192, dtype="fp32"), "fp32").clock_scale[0])

    assert clock("t4") < 0.9
    assert clock("l4") < 0.9
    assert clock("v100_sxm2") == 1.0


@pytest.mark.parametrize(("name", "mm2"), [("h100_sxm", 814), ("a100_sxm_80", 826), ("v100_sxm2", 815), ("t4", 545),
                                           ("p100_sxm2", 610), ("l40s", 609), ("a10", 628)])  # fmt: skip
def test_area_is_within_a_quarter_of_published_dies(name: str, mm2: float) -> None:
    """Die sizes from memory; the published dies hold some SMs that the products disable."""
    assert sum(area_mm2(preset(name)).values()) == pytest.approx(mm2, rel=0.25)


def test_area_grows_with_every_resource() -> None:
    base = preset("h100_sxm")
    area = sum(area_mm2(base).values())
    for change in (
        {"sms": 140},
        {"l2_mib": 60.0},
        {"shared_kib": 256.0},
        {"register_kib": 300.0},
        {"dram_gb_s": 4000.0},
    ):
        assert sum(area_mm2(base.model_copy(update=change)).values()) > area


def test_every_preset_loads_and_gives_a_source_for_every_field() -> None:
    documents = preset_documents()
    assert len(documents) >= 37
    for name, document in documents.items():
        hw = preset(name)
        assert isinstance(hw, GpuHardware)
        missing = set(document["hardware"]) - set(document["sources"])
        assert not missing, f"{name}: {missing}"
        assert gemm(hw, 256, 256, 256, dtype="fp32").seconds[0] > 0
        assert 0 < sum(area_mm2(hw).values()) < 4000


@pytest.mark.parametrize(("name", "dtype", "tera"), [("h100_sxm", "bf16", 989), ("a100_sxm_80", "bf16", 312),
                                                      ("v100_sxm2", "fp16", 125), ("mi300x", "fp16", 1307),
                                                      ("b200_sxm", "bf16", 2250), ("l40s", "bf16", 362)])  # fmt: skip
def test_presets_reproduce_published_peaks(name: str, dtype: str, tera: float) -> None:
    assert preset(name).peak_flop_s(dtype) * 1e-12 == pytest.approx(tera, rel=0.02)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'h100_sxm'"):
        preset("h100_smx")


def test_calibrated_constants_win_from_general_to_special() -> None:
    hw = preset("h100_sxm").model_copy(
        update={
            "constants": {"gemm": {"split_us": 1.0}, "gemm/bf16": {"split_us": 2.0}, "gemm.linear": {"split_us": 3.0}}
        }
    )
    assert constants(hw, "gemm", "fp8")["split_us"] == 1.0
    assert constants(hw, "gemm", "bf16")["split_us"] == 2.0
    assert constants(hw, "gemm.linear", "bf16")["split_us"] == 3.0
    assert constants(hw, "conv", "bf16")["split_us"] == 2.0


def test_constants_without_meaning_or_beyond_their_bounds_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'launch_us'"):
        check_overrides({"gemm": {"lunch_us": 1.0}})
    with pytest.raises(UsageError, match=r"peak_efficiency is 1\.5"):
        check_overrides({"gemm": {"peak_efficiency": 1.5}})
    assert all(rule.low <= rule.default <= rule.high for rule in RULES.values())


def test_a_file_that_is_no_preset_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "x.yaml"
    file.write_text("family: systolic\nhardware: {}\n")
    with pytest.raises(UsageError, match="family: gpu"):
        load(file)
    file.write_text("family: gpu\nhardware: {sms: 0}\n")
    with pytest.raises(UsageError, match="sms"):
        load(file)


def test_tile_libraries_cover_every_problem() -> None:
    for name, table in libraries().items():
        for m in (1, 5, 64, 65, 129, 5000):
            for n in (1, 5, 16, 17, 64, 65, 5000):
                inside = (table[:, 8] <= m) & (m <= table[:, 9]) & (table[:, 10] <= n) & (n <= table[:, 11])
                assert inside.any(), (name, m, n)
