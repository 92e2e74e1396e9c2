"""Converters of operators that compute: convolutions, dense layers, arithmetic, pools, activations, LSTM."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dse.ir.graph import Quantization, Tensor
from dse.ir.windows import output_size
from workloads.tflite.movement import as_rows, reshape_to
from workloads.tflite.network import TO_NCHW, Array, Call, nchw

_SAME, _VALID = 0, 1
_INT32 = np.iinfo(np.int32)


def _axis_padding(call: Call, size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int, int]:
    """(before, after, output size) along one axis by TFLite's rule; the odd element of SAME comes after."""
    reach = (kernel - 1) * dilation + 1
    if call.option("Padding") == _SAME:
        outputs = -(-size // stride)
        total = max(0, (outputs - 1) * stride + reach - size)
        return total // 2, total - total // 2, outputs
    if call.option("Padding") != _VALID:
        call.fail(f"padding {call.option('Padding')} is unknown; known: 0 (SAME), 1 (VALID)")
    outputs = output_size(size, kernel, stride, 0, 0, dilation)
    if outputs < 1:
        call.fail(f"a kernel that reaches over {reach} elements does not fit into {size}")
    return 0, 0, outputs


def _geometry(
    call: Call, x: Tensor, kernel: tuple[int, int], dilations: tuple[int, int]
) -> tuple[dict[str, Any], tuple[int, int]]:
    """(strides and pads, output rows and columns) of a window over `x`."""
    strides = call.check("StrideH", call.option("StrideH")), call.check("StrideW", call.option("StrideW"))
    (top, bottom, rows), (left, right, columns) = (
        _axis_padding(call, size, k, stride, dilation)
        for size, k, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    )
    return {"strides": strides, "pads": (top, left, bottom, right)}, (rows, columns)


def _map(call: Call, position: int = 0) -> Tensor:
    x = call.activation_input(position)
    if len(x.shape) != 4:
        call.fail(f"input {x.name!r} must have 4 dimensions, it has the shape {list(x.shape)}")
    return x


def _weights(call: Call, rank: int) -> tuple[Array, Array]:
    """(weights in file order, scales) of input 1; symmetric int8."""
    raw, values = call.raw(1), call.values(1, "the weights")
    if values.dtype != np.int8 or values.ndim != rank:
        call.fail(f"weights {raw.name!r} must be int8 of {rank} dimensions, got {values.dtype} {list(values.shape)}")
    if not raw.scale or any(raw.zero_point):
        call.fail(f"weights {raw.name!r} must be quantized symmetrically (zero point 0)")
    call.network.shape_of(raw)
    return values, np.asarray(raw.scale, np.float32)


def _parameters(call: Call, weights: Array, scales: Array, outputs: int) -> tuple[str, ...]:
    """Add weights (output channel first) and bias as constants and return their names."""
    raw, network = call.raw(1), call.network
    if len(scales) not in (1, outputs):
        call.fail(f"weights {raw.name!r} have {len(scales)} scales for {outputs} output channels")
    quantization = Quantization(tuple(scales.tolist()), 0, 0 if len(scales) > 1 else None)
    names = [network.constant(raw.name or f"weights_{raw.index}", weights, quantization)]
    if call.has(2):
        bias, of_bias = call.values(2, "the bias"), call.raw(2)
        wanted = "int64" if call.activation_input(0).dtype == "int16" else "int32"
        if str(bias.dtype) != wanted or bias.shape != (outputs,):
            call.fail(f"bias must be {wanted} of shape [{outputs}], got {bias.dtype} of shape {list(bias.shape)}")
        if bias.size and not _INT32.min <= bias.min() <= bias.max() <= _INT32.max:
            call.fail(f"bias {of_bias.name!r} holds values beyond 32 bits, which are not supported")
        names.append(network.constant(of_bias.name or f"bias_{of_bias.index}", bias.astype(np.int32), None))
    return tuple(names)


def convolution(call: Call) -> None:
    """CONV_2D (grouped too) and DEPTHWISE_CONV_2D."""
    x = _map(call)
    values, scales = _weights(call, 4)
    depthwise = call.operator.kind == "DEPTHWISE_CONV_2D"
    _, channels, _, _ = x.shape
    if depthwise:
        weights = values.transpose(3, 0, 1, 2)
        groups = channels
        if values.shape[0] != 1 or len(weights) % channels:
            call.fail(f"depthwise weights {list(values.shape)} do not fit an input of {channels} channels")
    else:
        weights = values.transpose(TO_NCHW)
        groups = channels // weights.shape[1]
        if groups * weights.shape[1] != channels or len(weights) % groups:
            call.fail(f"weights {list(values.shape)} do not fit an input of {channels} channels")
    dilations = (
        call.check("DilationHFactor", call.option("DilationHFactor")),
        call.check("DilationWFactor", call.option("DilationWFactor")),
    )
    geometry, (rows, columns) = _geometry(call, x, weights.shape[2:], dilations)
    source = x.name
    if x.name in call.network.padded and not any(geometry["pads"]):
        # an explicit PAD in front becomes the padding of the convolution
        source, geometry["pads"] = call.network.padded[x.name]
    names = _parameters(call, weights, scales, len(weights))
    attributes = {**geometry, "dilations": dilations, "groups": groups, "activation": call.activation()}
    call.emit("conv", (source, *names), attributes, (x.shape[0], rows, columns, len(weights)))


def dense(call: Call) -> None:
    """FULLY_CONNECTED: leading dimensions of the input are rows."""
    x = call.activation_input(0)
    weights, scales = _weights(call, 2)
    outputs, depth = weights.shape
    if call.option("WeightsFormat") != 0:
        call.fail("shuffled weights are not supported")
    if x.elements % depth:
        call.fail(f"weights {list(weights.shape)} do not fit an input of {x.elements} elements")
    rows = x.elements // depth
    file_shape = call.raw(0).shape
    if call.option("KeepNumDims"):
        if file_shape[-1] != depth:
            call.fail(f"keeps dimensions, but the last one of the input is {file_shape[-1]} and not {depth}")
        shape = (*file_shape[:-1], outputs)
    else:
        shape = (rows, outputs)
    flat = call.network.flattened.get(x.name, x.name)
    spatial = call.network.tensors[flat]
    if len(spatial.shape) == 4 and spatial.shape[0] == rows and len(shape) == 2:
        # flatten the map as it lies and turn the weights' columns instead
        _, channels, height, width = spatial.shape
        weights = weights.reshape(outputs, height, width, channels).transpose(0, 3, 1, 2).reshape(outputs, depth)
        source = call.emit_internal("flatten", flat, (rows, depth), axis=1)
    else:
        source = as_rows(call, x, (rows, depth))
    names = _parameters(call, weights, scales, outputs)
    attributes = {"activation": call.activation()}
    if len(shape) == 2:
        call.emit("gemm", (source, *names), attributes, shape)
        return
    result = call.emit_before_output("gemm", (source, *names), attributes, (rows, outputs))
    reshape_to(call, result, shape)


def arithmetic(call: Call) -> None:
    """ADD and MUL of two tensors; one may be a constant that broadcasts."""
    kind = call.operator.kind.lower()
    operands = [call.activation_input(0), call.activation_input(1)]
    shapes = [call.raw(0).shape, call.raw(1).shape]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        call.fail(f"shapes {list(shapes[0])} and {list(shapes[1])} do not fit each other")
    names = []
    for operand, own in zip(operands, shapes, strict=True):
        if own == shape:
            names.append(operand.name)
            continue
        if operand.data is None:
            call.fail(f"broadcasting {operand.name!r} from {list(own)} to {list(shape)} needs it to be constant")
        raw = call.raw(shapes.index(own)).data
        assert raw is not None
        full = np.broadcast_to(raw, shape)
        data = full.transpose(TO_NCHW) if len(shape) == 4 else full
        names.append(call.network.constant(f"{operand.name}.broadcast", data, operand.quantization))
    scales = [call.network.quantization_of(raw).scale[0] for raw in (call.raw(0), call.raw(1), call.raw_output())]
    # the kernels shift instead of multiplying when the flag is set and all scales are powers of two
    powers = all(math.frexp(scale)[0] == 0.5 for scale in scales)
    if kind == "add" and operands[0].dtype == "int16" and call.option("PotScaleInt16") and powers:
        call.fail("adds int16 by shifts (pot_scale_int16), which is not supported; only by multipliers")
    if kind == "add":
        call.emit(kind, tuple(names), {"activation": call.activation()}, shape)
    else:
        _activated(call, kind, tuple(names), {}, shape)


def _activated(
    call: Call, kind: str, inputs: tuple[str, ...], attributes: dict[str, Any], shape: tuple[int, ...]
) -> None:
    """Append an op of a kind that has no activation of its own, and the fused activation as an op behind it."""
    activation = call.activation()
    if activation == "none":
        call.emit(kind, inputs, attributes, shape)
        return
    result = call.emit_before_output(kind, inputs, attributes, nchw(shape))
    if activation == "relu":
        call.emit("relu", (result,), {}, shape)
    else:
        call.emit("clip", (result,), {"low": 0.0, "high": 6.0}, shape)


def pool(call: Call) -> None:
    """AVERAGE_POOL_2D (padding not counted) and MAX_POOL_2D."""
    x = _map(call)
    call.same_quantization(x, call.raw_output())
    kernel = (
        call.check("FilterHeight", call.option("FilterHeight")),
        call.check("FilterWidth", call.option("FilterWidth")),
    )
    geometry, (rows, columns) = _geometry(call, x, kernel, (1, 1))
    attributes = {**geometry, "kernel": kernel, "count_include_pad": False}
    kind = "average_pool" if call.operator.kind == "AVERAGE_POOL_2D" else "max_pool"
    _activated(call, kind, (x.name,), attributes, (x.shape[0], rows, columns, x.shape[1]))


def mean(call: Call) -> None:
    """MEAN over height and width of a map."""
    x = _map(call)
    axes = sorted({axis % 4 if -4 <= axis < 4 else axis for axis in call.integers(1, "the axes")})
    if axes != [1, 2]:
        call.fail(f"averages over axes {axes}; supported are height and width, [1, 2]")
    batch, channels = x.shape[:2]
    if call.option("KeepDims"):
        call.emit("global_average_pool", (x.name,), {}, (batch, 1, 1, channels))
        return
    result = call.emit_before_output("global_average_pool", (x.name,), {}, (batch, channels, 1, 1))
    reshape_to(call, result, (batch, channels))


def softmax(call: Call) -> None:
    """SOFTMAX over the last dimension."""
    x = call.activation_input(0)
    beta = float(call.option("Beta"))
    if beta != 1.0:
        call.fail(f"beta is {beta:g}, only 1 is supported")
    if not x.shape:
        call.fail("needs at least one dimension")
    call.emit("softmax", (x.name,), {"axis": 1 if len(x.shape) == 4 else len(x.shape) - 1}, call.raw(0).shape)


def unary(kind: str, **attributes: Any) -> Callable[[Call], None]:
    """A converter for an operator that maps each element: sigmoid, tanh, or relu with a change of scale."""

    def convert(call: Call) -> None:
        x, y = call.activation_input(0), call.network.quantization_of(call.raw_output())
        expected = {"sigmoid": (1 / 256, -128), "tanh": (1 / 128, 0)}.get(kind)
        if expected is not None and (y.scale[0], y.zero_point) != expected:
            call.fail(f"its output must have scale {expected[0]:g} and zero point {expected[1]}, got {y.scale[0]:g}")
        call.emit(kind, (x.name,), attributes, call.raw(0).shape)

    return convert


def quantize(call: Call) -> None:
    """QUANTIZE between integer types; at the network's input it is the host's work."""
    x = call.activation_input(0)
    dtype = call.network.dtype_of(call.raw_output())
    known = ("int8", "uint8", "int16") if x.dtype == "int8" else ("int8", "int16")
    if dtype not in known:
        call.fail(f"from {x.dtype} to {dtype} is not supported; supported: {', '.join(known)}")
    call.emit("requantize", (x.name,), {"activation": "none"}, call.raw(0).shape, dtype=dtype)
