"""Which function reads which ONNX operator."""

from __future__ import annotations

from collections.abc import Callable

from workloads.onnx.arithmetic import ARITHMETIC
from workloads.onnx.integers import INTEGERS
from workloads.onnx.layers import conv, conv_transpose, gemm, matmul
from workloads.onnx.node import Node
from workloads.onnx.norms import batch_norm, group_norm, instance_norm, layer_norm, lrn, softmax
from workloads.onnx.pools import global_pool, pool
from workloads.onnx.qlinear import QLINEAR
from workloads.onnx.sequences import dynamic_quantize_lstm, recurrent
from workloads.onnx.shapes import SHAPES

#: Operators that become ops, by ONNX name; those of other domains with their domain in front.
LIVE: dict[str, Callable[[Node], None]] = {
    **ARITHMETIC, **SHAPES, **QLINEAR, **INTEGERS,
    "Conv": conv, "ConvTranspose": conv_transpose, "Gemm": gemm, "MatMul": matmul,
    "BatchNormalization": batch_norm, "LayerNormalization": layer_norm, "RMSNormalization": layer_norm,
    "InstanceNormalization": instance_norm, "GroupNormalization": group_norm, "LRN": lrn,
    "Softmax": softmax, "LogSoftmax": softmax,
    "MaxPool": pool, "AveragePool": pool, "GlobalAveragePool": global_pool, "GlobalMaxPool": global_pool,
    "LSTM": recurrent, "GRU": recurrent, "RNN": recurrent, "com.microsoft.DynamicQuantizeLSTM": dynamic_quantize_lstm,
}  # fmt: skip
