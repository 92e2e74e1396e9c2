"""Writing a quantized graph as ONNX with QLinear operators, to be run by onnxruntime.

Standard QLinearConv and QLinearMatMul, and com.microsoft's QGemm, QLinearAdd, QLinearMul, QLinearAveragePool,
QLinearGlobalAveragePool, QLinearConcat, QLinearLeakyRelu and QLinearSigmoid; what has no such form stays a float
operator between DequantizeLinear and QuantizeLinear (`workloads.onnx.export_float`), as does everything that computes
on int16 activations, at opset 21. No QLinear operator has an
activation: a relu holds because its output saturates there, which `dse.compiler.quantize` arranges. Float ends
(`dse.compiler.with_float_boundary`) become QuantizeLinear, DequantizeLinear and Softmax.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dse.core.errors import ModelError
from dse.ir.graph import Graph, Op
from dse.ir.kinds import RECURRENT_KINDS
from dse.ir.quantized import INT8_MAX, INT8_MIN, RELU6_HIGH, clamp_bounds, quantization_of, quantize_array
from dse.ir.reference_int16 import touches_int16
from workloads.onnx.export_float import FloatNode, float_node

_MICROSOFT = "com.microsoft"
#: QLinearConv is of opset 10, int8 Clip of 12, HardSwish of 14, LayerNormalization of 17.
_OPSET, _IR_VERSION = 17, 8
#: QuantizeLinear and DequantizeLinear of int16 are of opset 21.
_INT16_OPSET, _INT16_IR_VERSION = 21, 10
#: Ops on int16 tensors that onnxruntime runs as they are.
_INT16_MOVES = ("flatten", "reshape", "transpose", "slice", "gather", "expand", "tile", "identity")
_TYPES = {
    "float32": TensorProto.FLOAT, "int8": TensorProto.INT8, "int16": TensorProto.INT16, "int32": TensorProto.INT32,
    "int64": TensorProto.INT64, "bool": TensorProto.BOOL,
}  # fmt: skip


#: Bounds of a relu6, as initializers of these names.
_RELU6 = {"relu6.low": 0.0, "relu6.high": RELU6_HIGH}


class _Exporter:
    """Collects nodes and initializers; scales and zero points are initializers shared per tensor."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: Any) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.array(values, order="C"), name)
        return name

    def tensor(self, name: str) -> str:
        """The tensor itself; a constant becomes an initializer."""
        data = self.graph[name].data
        return name if data is None else self.constant(name, data)

    def scale_and_zero(self, name: str) -> list[str]:
        """Names of the scale and the zero point of a tensor: scalars, or one per channel."""
        quantization, tensor = quantization_of(self.graph, name), self.graph[name]
        shape = () if quantization.axis is None else (len(quantization.scale),)
        return [
            self.constant(f"{name}.scale", np.array(quantization.scale, np.float32).reshape(shape)),
            self.constant(f"{name}.zero_point", np.full(shape, quantization.zero_point, tensor.dtype)),
        ]

    def operand(self, name: str) -> list[str]:
        """Tensor, scale and zero point."""
        return [self.tensor(name), *self.scale_and_zero(name)]

    def island(self, op: Op, node: FloatNode) -> None:
        """A float operator between DequantizeLinear of its operands and QuantizeLinear of its result."""
        inputs = []
        for place, name in enumerate(op.inputs):
            inputs.append(self.tensor(name) if name else "")
            quantization = self.graph[name].quantization if name else None
            if quantization is not None:
                inputs[-1] = f"{op.name}.operand{place}"
                along: dict[str, Any] = {} if quantization.axis is None else {"axis": quantization.axis}
                self.nodes.append(helper.make_node("DequantizeLinear", self.operand(name), [inputs[-1]], **along))
        for place, values in node.constants.items():
            inputs += [""] * (place - len(inputs)) + [self.constant(f"{op.name}.constant{place}", values)]
        (output,) = op.outputs
        whole = self.graph[output].quantization is None
        activation = op.attributes.get("activation", "none")
        result = output if whole else f"{op.name}.real"
        first = result if activation == "none" else f"{op.name}.sum"
        self.nodes.append(
            helper.make_node(node.op_type, inputs, [first], op.name, domain=node.domain, **node.attributes)
        )
        if activation == "relu":
            self.nodes.append(helper.make_node("Relu", [first], [result]))
        elif activation == "relu6":
            bounds = [self.constant(f"{key}", np.array(value, np.float32)) for key, value in _RELU6.items()]
            self.nodes.append(helper.make_node("Clip", [first, *bounds], [result]))
        if not whole:
            self.nodes.append(helper.make_node("QuantizeLinear", [result, *self.scale_and_zero(output)], [output]))

    def node(self, op: Op, op_type: str, inputs: list[str], domain: str = "", **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op_type, inputs, list(op.outputs), op.name, domain=domain, **attributes))


def export_quantized(graph: Graph) -> onnx.ModelProto:
    """A quantized graph (`dse.ir.quantized`) as an ONNX model with inputs and outputs of the same names and types.

    Raises
    ------
    ModelError: a graph that is not quantized, an op that ONNX cannot express, or an activation that is not the
        saturation of its output's quantization.
    """
    exporter = _Exporter(graph)
    wide = any(touches_int16(graph, op) for op in graph.ops)
    opset, ir_version = (_INT16_OPSET, _INT16_IR_VERSION) if wide else (_OPSET, _IR_VERSION)
    for op in graph.ops:
        if op.kind in RECURRENT_KINDS:
            raise ModelError(
                f"{graph.source or graph.name}: op {op.name!r} ({op.kind}) has no integer form in ONNX; "
                "networks with recurrent layers run here, in int8, and cannot be written"
            )
        if op.kind in _FLOAT_WRITERS and graph[op.outputs[0]].dtype == "float32":
            _FLOAT_WRITERS[op.kind](exporter, op)
        elif op.kind not in _WRITERS or op.attributes.get("between_reals") or _float_at_int16(graph, op):
            exporter.island(op, float_node(graph, op, opset))
        else:
            if not touches_int16(graph, op):
                _check_saturation(graph, op)
            _WRITERS[op.kind](exporter, op)
    infos = {
        name: helper.make_tensor_value_info(name, _TYPES[graph[name].dtype], graph[name].shape)
        for name in (*graph.inputs, *graph.outputs)
    }
    proto = helper.make_graph(
        exporter.nodes, graph.name,
        [infos[name] for name in graph.inputs], [infos[name] for name in graph.outputs],
        list(exporter.initializers.values()),
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(_MICROSOFT, 1)]
    return helper.make_model(proto, producer_name="silicon-dse", ir_version=ir_version, opset_imports=opsets)


def _float_at_int16(graph: Graph, op: Op) -> bool:
    """Whether an op on int16 has no integer operator: all do but moves and the quantization of inputs."""
    return touches_int16(graph, op) and op.kind not in (*_INT16_MOVES, "quantize")


def _check_saturation(graph: Graph, op: Op) -> None:
    bounds = clamp_bounds(op, quantization_of(graph, op.outputs[0]))
    if bounds != (INT8_MIN, INT8_MAX):
        raise ModelError(
            f"{graph.source or graph.name}: op {op.name!r} clamps to {bounds}; QLinear operators can only saturate "
            f"at ({INT8_MIN}, {INT8_MAX}): quantize its output with zero point {INT8_MIN}"
        )


def _conv(exporter: _Exporter, op: Op) -> None:
    x, weight, *bias = op.inputs
    inputs = [*exporter.operand(x), *exporter.operand(weight), *exporter.scale_and_zero(op.outputs[0])]
    inputs += [exporter.tensor(name) for name in bias if name]
    attributes = op.attributes
    exporter.node(
        op, "QLinearConv", inputs, kernel_shape=list(exporter.graph[weight].shape[2:]),
        strides=list(attributes["strides"]), pads=list(attributes["pads"]),
        dilations=list(attributes["dilations"]), group=int(attributes["groups"]),
    )  # fmt: skip


def _gemm(exporter: _Exporter, op: Op) -> None:
    x, weight, *bias = op.inputs
    inputs = [*exporter.operand(x), *exporter.operand(weight)]
    inputs.append(exporter.tensor(bias[0]) if bias else "")
    exporter.node(op, "QGemm", [*inputs, *exporter.scale_and_zero(op.outputs[0])], _MICROSOFT, transB=1)


def _pair(exporter: _Exporter, op: Op) -> None:
    graph = exporter.graph
    if graph[op.outputs[0]].elements < 2:
        raise ModelError(
            f"{graph.source or graph.name}: op {op.name!r} {op.kind}s single numbers, which onnxruntime rounds by a "
            "rule of its own; export needs at least 2 elements"
        )
    inputs = [*exporter.operand(op.inputs[0]), *exporter.operand(op.inputs[1])]
    kind = "QLinearAdd" if op.kind == "add" else "QLinearMul"
    exporter.node(op, kind, [*inputs, *exporter.scale_and_zero(op.outputs[0])], _MICROSOFT)


def _global_average_pool(exporter: _Exporter, op: Op) -> None:
    inputs = [*exporter.operand(op.inputs[0]), *exporter.scale_and_zero(op.outputs[0])]
    exporter.node(op, "QLinearGlobalAveragePool", inputs, _MICROSOFT, channels_last=0)


def _average_pool(exporter: _Exporter, op: Op) -> None:
    inputs = [*exporter.operand(op.inputs[0]), *exporter.scale_and_zero(op.outputs[0])]
    exporter.node(
        op, "QLinearAveragePool", inputs, _MICROSOFT, channels_last=0,
        count_include_pad=int(op.attributes["count_include_pad"]), **_window(op),
    )  # fmt: skip


def _max_pool(exporter: _Exporter, op: Op) -> None:
    exporter.node(op, "MaxPool", [exporter.tensor(op.inputs[0])], **_window(op))


def _window(op: Op) -> dict[str, Any]:
    attributes = op.attributes
    return {
        "kernel_shape": list(attributes["kernel"]), "strides": list(attributes["strides"]),
        "pads": list(attributes["pads"]),
    }  # fmt: skip


def _flatten(exporter: _Exporter, op: Op) -> None:
    exporter.node(op, "Flatten", [exporter.tensor(op.inputs[0])], axis=int(op.attributes["axis"]))


def _reshape(exporter: _Exporter, op: Op) -> None:
    shape = exporter.constant(f"{op.name}.shape", np.array(exporter.graph[op.outputs[0]].shape, np.int64))
    exporter.node(op, "Reshape", [exporter.tensor(op.inputs[0]), shape])


def _transpose(exporter: _Exporter, op: Op) -> None:
    exporter.node(op, "Transpose", [exporter.tensor(op.inputs[0])], perm=list(op.attributes["perm"]))


def _concat(exporter: _Exporter, op: Op) -> None:
    inputs = exporter.scale_and_zero(op.outputs[0])
    for name in op.inputs:
        inputs += exporter.operand(name)
    exporter.node(op, "QLinearConcat", inputs, _MICROSOFT, axis=int(op.attributes["axis"]))


def _table(exporter: _Exporter, op: Op) -> None:
    """A function of one value, which onnxruntime looks up in 256 entries."""
    inputs = [*exporter.operand(op.inputs[0]), *exporter.scale_and_zero(op.outputs[0])]
    if op.kind == "leaky_relu":
        exporter.node(op, "QLinearLeakyRelu", inputs, _MICROSOFT, alpha=float(op.attributes["alpha"]))
    else:
        exporter.node(op, "QLinearSigmoid", inputs, _MICROSOFT)


def _matmul(exporter: _Exporter, op: Op) -> None:
    inputs = [item for name in op.inputs for item in exporter.operand(name)]
    exporter.node(op, "QLinearMatMul", [*inputs, *exporter.scale_and_zero(op.outputs[0])])


def _slice(exporter: _Exporter, op: Op) -> None:
    inputs = [exporter.tensor(op.inputs[0])]
    for key in ("starts", "ends", "axes", "steps"):
        inputs.append(exporter.constant(f"{op.name}.{key}", np.array(op.attributes[key], np.int64)))
    exporter.node(op, "Slice", inputs)


def _pad(exporter: _Exporter, op: Op) -> None:
    inputs = [
        exporter.tensor(op.inputs[0]),
        exporter.constant(f"{op.name}.pads", np.array(op.attributes["pads"], np.int64)),
    ]
    if op.attributes["mode"] == "constant":
        fill = quantize_array(op.attributes["value"], quantization_of(exporter.graph, op.inputs[0]))
        inputs.append(exporter.constant(f"{op.name}.fill", fill))
    exporter.node(op, "Pad", inputs, mode=op.attributes["mode"])


def _gather(exporter: _Exporter, op: Op) -> None:
    exporter.node(op, "Gather", [exporter.tensor(name) for name in op.inputs], axis=int(op.attributes["axis"]))


def _repeat(exporter: _Exporter, op: Op) -> None:
    """Expand by its shape, Tile by its repeats."""
    key = "shape" if op.kind == "expand" else "repeats"
    sizes = exporter.constant(f"{op.name}.{key}", np.array(op.attributes[key], np.int64))
    exporter.node(op, op.kind.capitalize(), [exporter.tensor(op.inputs[0]), sizes])


def _identity(exporter: _Exporter, op: Op) -> None:
    exporter.node(op, "Identity", [exporter.tensor(op.inputs[0])])


def _clip(exporter: _Exporter, op: Op) -> None:
    quantization = quantization_of(exporter.graph, op.inputs[0])
    bounds = (0.0, np.inf) if op.kind == "relu" else (op.attributes["low"], op.attributes["high"])
    low, high = quantize_array(bounds, quantization)
    names = [exporter.constant(f"{op.name}.{key}", np.int8(value)) for key, value in (("low", low), ("high", high))]
    exporter.node(op, "Clip", [exporter.tensor(op.inputs[0]), *names])


def _quantize(exporter: _Exporter, op: Op) -> None:
    exporter.node(op, "QuantizeLinear", [op.inputs[0], *exporter.scale_and_zero(op.outputs[0])])


def _dequantize(exporter: _Exporter, op: Op) -> None:
    exporter.node(op, "DequantizeLinear", exporter.operand(op.inputs[0]))


def _softmax(exporter: _Exporter, op: Op) -> None:
    exporter.node(op, "Softmax", [op.inputs[0]], axis=int(op.attributes["axis"]))


_WRITERS: dict[str, Callable[[_Exporter, Op], None]] = {
    "conv": _conv, "gemm": _gemm, "add": _pair, "mul": _pair, "global_average_pool": _global_average_pool,
    "average_pool": _average_pool, "max_pool": _max_pool, "flatten": _flatten, "reshape": _reshape,
    "transpose": _transpose, "concat": _concat, "leaky_relu": _table, "sigmoid": _table,
    "matmul": _matmul, "slice": _slice, "pad": _pad, "gather": _gather, "expand": _repeat, "tile": _repeat,
    "identity": _identity, "relu": _clip, "clip": _clip, "quantize": _quantize,
}  # fmt: skip
#: Ops with a float output, at the end of a network.
_FLOAT_WRITERS = {"dequantize": _dequantize, "softmax": _softmax}
