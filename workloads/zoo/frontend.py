"""The front end for networks that come with the package, written as `zoo:NAME`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import onnx

from dse.core.errors import ModelError, nearest
from dse.ir.frontend import Frontend
from dse.ir.graph import Graph
from workloads.onnx import read_model
from workloads.zoo import (
    dense_prediction,
    digits,
    imagenet,
    mlperf_tiny,
    mobile,
    packaged,
    recurrent,
    resnet8,
    small,
    transformer,
)
from workloads.zoo.table import Network, networks

#: Builders by name; each takes the seed of the weights. What they build is in `data/networks.yaml`.
BUILDERS: Mapping[str, Callable[[int], onnx.ModelProto]] = {
    "resnet8": resnet8.build,
    "ds_cnn": mlperf_tiny.build_ds_cnn,
    "mobilenet_v1_025_96": mlperf_tiny.build_mobilenet_v1_025_96,
    "autoencoder": mlperf_tiny.build_autoencoder,
    "resnet18": imagenet.build_resnet18,
    "mobilenet_v1": mobile.build_mobilenet_v1,
    "mobilenet_v2": mobile.build_mobilenet_v2,
    "efficientnet_b0": mobile.build_efficientnet_b0,
    "squeezenet1_0": imagenet.build_squeezenet1_0,
    "squeezenet1_1": imagenet.build_squeezenet1_1,
    "vgg16": imagenet.build_vgg16,
    "alexnet": imagenet.build_alexnet,
    "tiny_yolo_v2": dense_prediction.build_tiny_yolo_v2,
    "tiny_yolo_v3": dense_prediction.build_tiny_yolo_v3,
    "unet_small": dense_prediction.build_unet_small,
    "lstm_kws": recurrent.build_lstm_kws,
    "bilstm_kws": recurrent.build_bilstm_kws,
    "gru_kws": recurrent.build_gru_kws,
    "lstm_lm": recurrent.build_lstm_lm,
    "crnn": recurrent.build_crnn,
    "encoder_tiny": transformer.build_encoder_tiny,
    **{name: partial(packaged.build, name) for name in packaged.FILES},
    "tiny_cnn": small.build_tiny_cnn,
    "mlp": small.build_mlp,
    "digits_cnn": digits.build_cnn,
    "digits_mlp": digits.build_mlp,
}


class ZooFrontend(Frontend):
    """Builds a network in Python, writes it as an ONNX file and reads that file as any user's."""

    name = "zoo"
    prefix = "zoo"

    def load(self, reference: str, folder: Path, dims: Mapping[str, int]) -> Graph:
        """Build `zoo:reference` with the weights of seed 0; `folder` is not used.

        Raises
        ------
        ModelError: no such network, or `dims` names a dimension it does not have.
        """
        build = BUILDERS.get(reference)
        if build is None:
            raise ModelError(f"zoo:{reference}: no such network{nearest(reference, BUILDERS)}")
        with tempfile.TemporaryDirectory(prefix="dse-zoo-") as scratch:
            path = Path(scratch) / f"{reference}.onnx"
            path.write_bytes(build(0).SerializeToString())
            return read_model(path, dims, source=f"zoo:{reference}")

    def available(self) -> Mapping[str, str]:
        """Names of the networks with a line about each."""
        return {name: _line(row) for name, row in networks().items()}


def _line(row: Network) -> str:
    weights = "trained weights" if row.correct else "seeded weights"
    shape = "x".join(str(size) for size in row.input)
    return f"{row.description}, {shape}, {_short(row.macs)} MACs, {_short(row.parameters)} parameters, {weights}"


def _short(count: int) -> str:
    """Three or four digits and a unit, as 4.089 G."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return str(count)
