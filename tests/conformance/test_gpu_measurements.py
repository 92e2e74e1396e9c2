"""The models against public measurements: acceptance figures on rows that no fit has seen."""

from __future__ import annotations

import numpy as np
import pytest

from accelerators.gpu import preset
from accelerators.gpu.measured import Measured
from accelerators.gpu.references import PRESETS, aiconfigurator, deepbench, neusight, read
from accelerators.gpu.validation import Score, by_class, errors, score_gpu, shipped_folder, split

GEMM_FILE = "gemm_a100_h100.csv.gz"


@pytest.mark.parametrize(
    ("gpu", "dtype", "bound"), [("a100_sxm", "bf16", 12), ("h100_sxm", "bf16", 12), ("h100_sxm", "fp8", 17)]
)
def test_gemm_without_a_fit(gpu: str, dtype: str, bound: float) -> None:
    """Odd rows only: the shared constants were found on the even ones."""
    sets = [one for one in aiconfigurator(shipped_folder() / GEMM_FILE)[gpu] if one.dtype == dtype]
    found = np.concatenate([errors(preset(PRESETS[gpu]), one)[1::2] for one in sets])
    assert found.size == 1500
    assert found.mean() <= bound


def test_gemm_calibrated_on_sixty_rows() -> None:
    sets = aiconfigurator(shipped_folder() / GEMM_FILE)
    scores: list[Score] = []
    for gpu in ("a100_sxm", "h100_sxm"):
        scores += score_gpu(gpu, preset(PRESETS[gpu]), sets[gpu], 60, calibrated=True, seed=1)
    found = by_class(scores)
    assert found["a100_sxm", "gemm/bf16", True].count == 2940
    assert found["a100_sxm", "gemm/bf16", True].mape <= 9.5
    assert found["h100_sxm", "gemm/bf16", True].mape <= 9.5
    assert found["h100_sxm", "gemm/fp8", True].mape <= 12


def scored(sets: list[Measured], gpu: str, *keys: str) -> dict[str, Score]:
    chosen = [one for one in sets if any(one.key.startswith(key) for key in keys)]
    scores = score_gpu(gpu, preset(PRESETS[gpu]), chosen, None, calibrated=True, seed=1)
    return {score.op: score for score in scores if score.fitted}


def test_deepbench_gemm_calibrated_on_half() -> None:
    sets = deepbench(shipped_folder() / "deepbench.csv.gz")
    volta, pascal = scored(sets["NV_V100"], "NV_V100", "gemm"), scored(sets["NV_P100"], "NV_P100", "gemm")
    assert volta["gemm/fp32"].mape <= 13
    assert volta["gemm/fp16"].mape <= 13
    assert pascal["gemm/fp32"].mape <= 16


def test_recurrent_inference_calibrated_on_half() -> None:
    sets = deepbench(shipped_folder() / "deepbench.csv.gz")["NV_TitanX_Pascal"]
    assert scored(sets, "NV_TitanX_Pascal", "rnn.")["rnn.forward/fp32"].mape <= 10


def test_eager_fp32_ops_calibrated_on_half() -> None:
    sets = neusight(shipped_folder() / "fp32_ops_a100_v100.csv.gz")["V100-PCIE-32GB"]
    found = scored(sets, "V100-PCIE-32GB", "elementwise", "softmax", "layer_norm", "gemm")
    assert found["elementwise/fp32"].mape <= 5
    assert found["softmax/fp32"].mape <= 11
    assert found["layer_norm/fp32"].mape <= 11
    assert found["gemm.linear/fp32"].mape <= 16
    assert found["gemm.bmm/fp32"].mape <= 16


def test_the_recorded_grids_prove_which_column_is_the_reduction() -> None:
    """The eager file's N is summed over: thread-block grids of every row cover M x K."""
    checked = 0
    for row in read(shipped_folder() / "fp32_ops_a100_v100.csv.gz"):
        if row["op"] in ("linear", "bmm") and "sgemm_" in row["kernel"]:
            tile = row["kernel"].split("sgemm_")[1].split("_")[0].split("x")
            assert int(row["gx"]) == -(-int(float(row["K"])) // int(tile[0]))
            checked += 1
    assert checked == 1600


def test_split_takes_what_was_asked_for() -> None:
    sets = aiconfigurator(shipped_folder() / GEMM_FILE)["h100_sxm"]
    masks = split(sets, 60, seed=2)
    picked: dict[str, int] = {}
    for one, mask in zip(sets, masks, strict=True):
        picked[one.key] = picked.get(one.key, 0) + int(mask.sum())
    assert picked == {"gemm/bf16": 60, "gemm/fp8": 60}
