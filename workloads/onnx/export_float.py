"""Writing ops of an integer network that are computed in float: dequantize, a standard operator, quantize.

onnxruntime executes such a group as written when graph optimizations are off; on, it may put kernels of its own
in the place of some (a softmax between int8 tensors, for one), which round otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir.graph import Graph, Op

_MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class FloatNode:
    """A float operator: its type, attributes, constants by input position behind the operands, domain."""

    op_type: str
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: dict[int, npt.NDArray[Any]] = field(default_factory=dict)
    domain: str = ""


#: Kinds whose operator has the same inputs and takes these attributes under the same names.
_PLAIN: dict[str, tuple[str, tuple[str, ...]]] = {
    "relu": ("Relu", ()), "leaky_relu": ("LeakyRelu", ("alpha",)), "elu": ("Elu", ("alpha",)),
    "selu": ("Selu", ("alpha", "gamma")), "sigmoid": ("Sigmoid", ()),
    "hard_sigmoid": ("HardSigmoid", ("alpha", "beta")),
    "hard_swish": ("HardSwish", ()), "softplus": ("Softplus", ()), "softsign": ("Softsign", ()), "tanh": ("Tanh", ()),
    "erf": ("Erf", ()), "exp": ("Exp", ()), "log": ("Log", ()), "sqrt": ("Sqrt", ()), "reciprocal": ("Reciprocal", ()),
    "abs": ("Abs", ()), "neg": ("Neg", ()), "sign": ("Sign", ()), "floor": ("Floor", ()), "ceil": ("Ceil", ()),
    "round": ("Round", ()), "sin": ("Sin", ()), "cos": ("Cos", ()), "logical_not": ("Not", ()),
    "add": ("Add", ()), "sub": ("Sub", ()), "mul": ("Mul", ()), "div": ("Div", ()), "pow": ("Pow", ()),
    "minimum": ("Min", ()), "maximum": ("Max", ()), "prelu": ("PRelu", ()), "equal": ("Equal", ()),
    "less": ("Less", ()),
    "less_or_equal": ("LessOrEqual", ()), "greater": ("Greater", ()), "greater_or_equal": ("GreaterOrEqual", ()),
    "logical_and": ("And", ()), "logical_or": ("Or", ()), "logical_xor": ("Xor", ()), "where": ("Where", ()),
    "batch_norm": ("BatchNormalization", ("epsilon",)), "layer_norm": ("LayerNormalization", ("axis", "epsilon")),
    "instance_norm": ("InstanceNormalization", ("epsilon",)), "lrn": ("LRN", ("size", "alpha", "beta", "bias")),
    "matmul": ("MatMul", ()), "concat": ("Concat", ("axis",)),
    "softmax": ("Softmax", ("axis",)), "log_softmax": ("LogSoftmax", ("axis",)),
}  # fmt: skip
#: Opset from which all reductions take their axes as an input; ReduceSum has done so since 13.
_REDUCTION_AXES_INPUT = 18
_REDUCTIONS = {
    "reduce_mean": "ReduceMean", "reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
}  # fmt: skip


def float_node(graph: Graph, op: Op, opset: int) -> FloatNode:
    """The float operator of an op at opset 17 or 21.

    Raises
    ------
    ModelError: the kind has none.
    """
    if op.kind in _PLAIN:
        op_type, names = _PLAIN[op.kind]
        return FloatNode(op_type, {name: op.attributes[name] for name in names})
    if op.kind not in _WRITERS:
        raise ModelError(
            f"{graph.source or graph.name}: op {op.name!r} ({op.kind}) has no operator at opset 17; exportable between "
            f"float tensors: {', '.join(sorted((*_PLAIN, *_WRITERS)))}"
        )
    node = _WRITERS[op.kind](graph, op)
    if op.kind in _REDUCTIONS and (op.kind == "reduce_sum" or opset >= _REDUCTION_AXES_INPUT):
        attributes = dict(node.attributes)
        return replace(node, constants={1: np.array(attributes.pop("axes"), np.int64)}, attributes=attributes)
    return node


def _reduction(graph: Graph, op: Op) -> FloatNode:
    attributes = {"axes": list(op.attributes["axes"]), "keepdims": int(op.attributes["keepdims"])}
    return FloatNode(_REDUCTIONS[op.kind], attributes)


def _arg(graph: Graph, op: Op) -> FloatNode:
    attributes = {"axis": int(op.attributes["axes"][0]), "keepdims": int(op.attributes["keepdims"])}
    return FloatNode("ArgMax" if op.kind == "arg_max" else "ArgMin", attributes)


def _gelu(graph: Graph, op: Op) -> FloatNode:
    if op.attributes["approximate"] != "none":
        return FloatNode("FastGelu", {}, {}, _MICROSOFT)
    return FloatNode("Gelu", {}, {}, _MICROSOFT)


def _resize(graph: Graph, op: Op) -> FloatNode:
    attributes: dict[str, Any] = {
        "mode": op.attributes["mode"], "coordinate_transformation_mode": op.attributes["coordinates"],
    }  # fmt: skip
    if op.attributes["mode"] == "nearest":
        attributes["nearest_mode"] = op.attributes["rounding"]
    if op.attributes["mode"] == "cubic":
        attributes["cubic_coeff_a"] = float(op.attributes["cubic_a"])
        attributes["exclude_outside"] = int(op.attributes["exclude_outside"])
    return FloatNode("Resize", attributes, {2: np.array(op.attributes["scales"], np.float32)})


def _conv_transpose(graph: Graph, op: Op) -> FloatNode:
    attributes = op.attributes
    return FloatNode("ConvTranspose", {
        "strides": list(attributes["strides"]), "pads": list(attributes["pads"]),
        "dilations": list(attributes["dilations"]), "group": int(attributes["groups"]),
        "output_padding": list(attributes["output_padding"]),
    })  # fmt: skip


def _pool(graph: Graph, op: Op) -> FloatNode:
    if op.kind == "global_average_pool":
        return FloatNode("GlobalAveragePool")
    attributes = op.attributes
    window = {
        "kernel_shape": list(attributes["kernel"]), "strides": list(attributes["strides"]),
        "pads": list(attributes["pads"]),
    }  # fmt: skip
    if op.kind == "max_pool":
        return FloatNode("MaxPool", window)
    return FloatNode("AveragePool", {**window, "count_include_pad": int(attributes["count_include_pad"])})


def _conv(graph: Graph, op: Op) -> FloatNode:
    attributes = op.attributes
    return FloatNode("Conv", {
        "kernel_shape": list(graph[op.inputs[1]].shape[2:]), "strides": list(attributes["strides"]),
        "pads": list(attributes["pads"]), "dilations": list(attributes["dilations"]),
        "group": int(attributes["groups"]),
    })  # fmt: skip


def _pad(graph: Graph, op: Op) -> FloatNode:
    constants: dict[int, npt.NDArray[Any]] = {1: np.array(op.attributes["pads"], np.int64)}
    if op.attributes["mode"] == "constant":
        constants[2] = np.array(op.attributes["value"], np.float32)
    return FloatNode("Pad", {"mode": op.attributes["mode"]}, constants)


def _clip(graph: Graph, op: Op) -> FloatNode:
    bounds = (np.array(op.attributes[key], np.float32) for key in ("low", "high"))
    return FloatNode("Clip", {}, dict(enumerate(bounds, 1)))


def _gemm(graph: Graph, op: Op) -> FloatNode:
    return FloatNode("Gemm", {"transB": 1})


def _mod(graph: Graph, op: Op) -> FloatNode:
    return FloatNode("Mod", {"fmod": int(graph[op.outputs[0]].dtype == "float32")})


_WRITERS: dict[str, Callable[[Graph, Op], FloatNode]] = {
    **dict.fromkeys(_REDUCTIONS, _reduction), "arg_max": _arg, "arg_min": _arg, "gelu": _gelu, "resize": _resize,
    "conv_transpose": _conv_transpose, "average_pool": _pool, "global_average_pool": _pool, "mod": _mod,
    "max_pool": _pool, "conv": _conv, "gemm": _gemm, "pad": _pad, "clip": _clip,
}  # fmt: skip
