"""Programs of tiles against the GEMM model they are made from, and the Rosetta-Stone table."""

from __future__ import annotations

import numpy as np
import pytest

from accelerators.gpu import gemm, preset
from accelerators.gpu.estimate import GRID
from accelerators.gpu.gemm_kernel import TERMS
from accelerators.gpu.rosetta import fastest_over_roofline, layers_s, roofline_s, rosetta_suite, tasks
from accelerators.gpu.tiling import TileLimits, product
from dse.validate import run_suite

SIZES = np.random.default_rng(7).integers(16, 5000, (3, 400))


@pytest.mark.parametrize("gpu", ["h100_sxm", "a100_sxm_80", "v100_sxm2", "t4", "p100_pcie", "titan_x_pascal"])
def test_free_choices_give_the_gemm_model(gpu: str) -> None:
    hw = preset(gpu)
    for dtype in ("fp32", "fp16") if hw.tensor_cores else ("fp32",):
        found, expected = product(hw, *SIZES, dtype=dtype), gemm(hw, *SIZES, dtype=dtype)
        assert np.allclose(found.seconds, expected.seconds, rtol=1e-12)
        assert np.allclose(found.flops, expected.flops)


def test_the_grid_covers_the_product() -> None:
    found = product(preset("a100_sxm_80"), *SIZES)
    rows, columns, depth, split, occupancy, blocks = found.grid.T
    assert len(GRID) == 6
    assert np.array_equal(blocks, np.ceil(SIZES[0] / rows) * np.ceil(SIZES[1] / columns) * split)
    assert (split * depth <= SIZES[2] + split * depth).all()
    assert (occupancy >= 1).all()


def test_no_resource_is_busy_longer_than_the_kernel() -> None:
    found = product(preset("h100_sxm"), *SIZES)
    assert (found.terms[:, :5].max(axis=1) <= found.seconds * (1 + 1e-12)).all()
    assert found.terms.shape[1] == len(TERMS)


def test_deeper_stages_need_shared_memory_and_hide_latency() -> None:
    hw = preset("a100_sxm_80")
    shallow, deep = (product(hw, 256, 256, 4096, limits=TileLimits("64x64", 1, stages)).seconds[0] for stages in (2, 4))
    assert deep < shallow
    small = hw.model_copy(update={"shared_kib": 40.0})
    slower = product(small, 4096, 4096, 4096, limits=TileLimits("64x64", 1, 2))
    assert slower.seconds[0] >= product(hw, 4096, 4096, 4096, limits=TileLimits("64x64", 1, 2)).seconds[0]


def test_split_k_pays_off_for_few_tiles_and_long_reductions() -> None:
    hw = preset("a100_sxm_80")
    whole, parted = (product(hw, 128, 128, 65536, limits=TileLimits(split=s)) for s in (1, 16))
    assert parted.seconds[0] < whole.seconds[0] / 2
    assert (whole.launches[0], parted.launches[0]) == (1, 2)


def test_no_framework_is_faster_than_the_roofline() -> None:
    result = run_suite(rosetta_suite())
    assert (result.count, result.beyond) == (80, 0)
    # nor faster than our times of the layers alone
    assert all(item.predicted < item.recorded for _, item in result.comparisons if item.quantity == "layers, s")
    assert fastest_over_roofline() > 1


def test_the_tables_networks_are_the_ones_it_names() -> None:
    macs = {
        name: sum(c.channels * c.filters * c.kernel**2 * c.size**2 for c in task.convs)
        for name, task in tasks().items()
    }
    # counts of the zoo's networks, less their classifiers
    assert macs["ResNet50 features"] == 4_089_184_256 - 2048 * 1000
    assert macs["DenseNet121"] == pytest.approx(2_834_162_664 - 1024 * 1000, rel=1e-6)


@pytest.mark.parametrize("name", list(tasks()))
def test_layers_take_longer_than_their_roofline(name: str) -> None:
    for gpu in ("k80", "p100_pcie", "v100_pcie", "h100_sxm"):
        assert layers_s(preset(gpu), tasks()[name]) > roofline_s(preset(gpu), tasks()[name])
