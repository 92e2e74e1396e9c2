"""Calibration finds constants that made the data; user files are checked; the command writes a usable preset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accelerators.gpu import GpuHardware, Measured, fit_all, load, predict, preset
from accelerators.gpu.calibration import FITTED, fit
from accelerators.gpu.constants import RULES, constants
from accelerators.gpu.userdata import user_rows
from dse.cli.main import run_command_line
from dse.core.errors import UsageError


def made_up(hw: GpuHardware, count: int, truth: dict[str, float], noise: float = 0.0) -> Measured:
    rng = np.random.default_rng(11)
    m, n, k = (2 ** rng.uniform(4, 13, count)).astype(np.int64), *(2 ** rng.uniform(6, 13, (2, count))).astype(np.int64)
    shape = {"m": m, "n": n, "k": k, "batch": np.ones(count, np.int64)}
    rows = Measured("gemm", "gemm/bf16", "bf16", shape, np.ones(count))
    seconds = predict(hw, rows, {**constants(hw, "gemm", "bf16"), **truth}) * np.exp(noise * rng.standard_normal(count))
    return Measured("gemm", "gemm/bf16", "bf16", shape, seconds)


def test_fit_predicts_unseen_made_up_rows() -> None:
    """Constants that trade against each other need not come back one by one; the times they give must."""
    hw = preset("a100_sxm_80")
    rows = made_up(hw, 300, {"launch_us": 6.0, "peak_efficiency": 0.7, "dram_efficiency": 0.6})
    seen, unseen = rows.take(slice(0, 150)), rows.take(slice(150, None))
    before = 100 * np.abs(predict(hw, unseen) / unseen.seconds - 1).mean()
    fitted, (found,) = fit_all(hw, [seen])
    after = 100 * np.abs(predict(fitted, unseen) / unseen.seconds - 1).mean()
    assert before > 20
    assert after < 3
    assert found.cross_validated_mape < 3
    assert found.values["launch_us"] == pytest.approx(6.0, rel=0.1)


def test_a_few_wild_rows_do_not_pull_the_fit() -> None:
    hw = preset("a100_sxm_80")
    rows = made_up(hw, 120, {"peak_efficiency": 0.7, "dram_efficiency": 0.6}, noise=0.02)
    wild = rows.seconds.copy()
    wild[:6] *= 20
    fitted, _ = fit_all(hw, [Measured("gemm", rows.key, "bf16", rows.shape, wild)])
    clean = rows.take(slice(6, None))
    assert 100 * np.abs(predict(fitted, clean) / clean.seconds - 1).mean() < 6


def test_fitted_values_stay_in_their_bounds_and_the_fit_is_deterministic() -> None:
    hw = preset("a100_sxm_80")
    rows = made_up(hw, 60, {"launch_us": 50.0}, noise=0.3)
    first, second = fit(hw, [rows], seed=4), fit(hw, [rows], seed=4)
    assert first == second
    assert set(first.values) == set(FITTED["gemm"])
    assert all(RULES[name].low <= value <= RULES[name].high for name, value in first.values.items())


def write_rows(path: Path, count: int, **changes: str) -> None:
    rows = made_up(preset("a100_sxm_80"), count, {"dram_efficiency": 0.7})
    lines = ["op,dtype,m,n,k,latency_us,protocol"]
    for index in range(count):
        values = {"op": "gemm", "dtype": "bf16", **{name: str(rows.shape[name][index]) for name in ("m", "n", "k")}}
        values |= {"latency_us": f"{rows.seconds[index] * 1e6:.6g}", "protocol": "graph"}
        values |= changes if index == 1 else {}
        lines.append(",".join(values[name] for name in lines[0].split(",")))
    path.write_text("\n".join(lines) + "\n")


def test_the_command_writes_a_preset_that_predicts_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "rows.csv", tmp_path / "mine.yaml"
    write_rows(data, 60)
    arguments = ["calibrate", "gpu", "--data", str(data), "--preset", "a100_sxm_80", "--out", str(out)]
    assert run_command_line(arguments) == 0
    assert "gemm/bf16" in capsys.readouterr().out
    fitted = load(out)
    (rows,) = user_rows(data)
    assert 100 * np.abs(predict(fitted, rows) / rows.seconds - 1).mean() < 3
    assert run_command_line(arguments) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_preset_file_can_be_calibrated_again(tmp_path: Path) -> None:
    data, out, again = tmp_path / "rows.csv", tmp_path / "mine.yaml", tmp_path / "again.yaml"
    write_rows(data, 60)
    for base, target in (("a100_sxm_80", out), (str(out), again)):
        assert run_command_line(["calibrate", "gpu", "--data", str(data), "--preset", base, "--out", str(target)]) == 0
    assert load(again).sms == 108


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op": "gem"}, r"row 2: op is 'gem'; did you mean 'gemm'"),
        ({"dtype": "float"}, r"row 2: dtype is 'float'"),
        ({"m": "-3"}, r"row 2: m must be a whole number of at least 1, not -3"),
        ({"k": "many"}, r"row 2: k must be a whole number, not 'many'"),
        ({"latency_us": "-1"}, r"row 2: latency_us must be positive"),
        ({"latency_us": ""}, r"row 2 has neither 'latency_us' nor 'latency_ms'"),
        ({"protocol": "eagre"}, r"row 2: protocol is 'eagre'; did you mean 'eager'"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    write_rows(tmp_path / "rows.csv", 60, **changes)
    with pytest.raises(UsageError, match=message):
        user_rows(tmp_path / "rows.csv")


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", 59)
    with pytest.raises(UsageError, match="59 rows are too few"):
        user_rows(tmp_path / "rows.csv")


def test_an_unknown_family_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["calibrate", "gpv", "--data", str(tmp_path / "x"), "--preset", "h100_sxm"]) == 2
    assert "did you mean 'gpu'" in capsys.readouterr().err
