"""The normalised op kinds: what they take, which attributes they have, and the groups that passes ask about.

Operands follow NumPy's broadcasting where they are elementwise. `activation` is "none", "relu" or "relu6" and applies
after bias (conv, gemm) or after the sum (add). Axes are never negative. One output unless said otherwise.
"""

from __future__ import annotations

#: Layers that multiply and accumulate.
#: conv: x NCHW, weight OIHW, optional bias; strides (2,), pads (top, left, bottom, right), dilations (2,), groups,
#:     activation
#: conv_transpose: x NCHW, weight (C, M / groups, R, S), optional bias; as conv, and output_padding (2,)
#: gemm: x (N, K), weight (M, K), optional bias (M,); activation
#: matmul: two activations, stacks of matrices in the last two axes, the axes before them broadcast
#: lstm, gru, rnn: x (T, B, I), weight (D, gates * H, I), recurrent weight (D, gates * H, H), then optional: bias
#:     (D, 2 * gates * H), sequence lengths (B,), initial h (D, B, H), for lstm also initial c and peepholes (D, 3 * H);
#:     hidden, direction (forward, reverse, bidirectional), activations (one name a gate function and direction), clip,
#:     gru: linear_before_reset, lstm: input_forget, and dynamic_range where x and h are rounded to 8 bits over their
#:     ranges before a product. Outputs: y (T, D, B, H), last h (D, B, H), lstm: last c.
#:     Gate order: lstm i, o, f, c; gru z, r, h
#: conv_integer: as conv on int8 or uint8, zero points of x and weight as third and fourth input; int32 out
#: matmul_integer: as matmul on int8 or uint8 with both zero points; int32 out
#: einsum: any number of factors, multiplied and summed; bounds and axes as in `dse.ir.einsum`
RECURRENT_KINDS = ("lstm", "gru", "rnn")
INTEGER_KINDS = ("conv_integer", "matmul_integer")
MAC_KINDS = ("conv", "conv_transpose", "gemm", "matmul", *RECURRENT_KINDS, *INTEGER_KINDS, "einsum")

#: Functions of one value. clip: low, high. leaky_relu, elu: alpha. hard_sigmoid: alpha, beta. gelu: approximate
#: ("none" or "tanh"). selu: alpha, gamma.
UNARY_KINDS = (
    "relu", "clip", "leaky_relu", "elu", "selu", "sigmoid", "hard_sigmoid", "hard_swish", "softplus", "softsign",
    "gelu", "tanh", "erf", "exp", "log", "sqrt", "reciprocal", "abs", "neg", "sign", "floor", "ceil", "round",
    "sin", "cos", "logical_not",
)  # fmt: skip

#: Functions of two values. add: activation. prelu: x, slope. Division of integers truncates towards zero;
#: modulo has the sign of the divisor for integers.
COMPARISON_KINDS = (
    "equal", "less", "less_or_equal", "greater", "greater_or_equal", "logical_and", "logical_or", "logical_xor",
)  # fmt: skip
BINARY_KINDS = ("add", "sub", "mul", "div", "pow", "mod", "minimum", "maximum", "prelu", *COMPARISON_KINDS)

#: max_pool, average_pool: kernel (2,), strides (2,), pads (4,); average_pool: count_include_pad. On int8, averages
#: round as QLinear operators do, or with between_reals as dequantize, average, quantize do.
POOL_KINDS = ("max_pool", "average_pool", "global_average_pool")

#: axes (sorted), keepdims (bool). arg_max, arg_min: one axis, int64, the first of equals.
REDUCTION_KINDS = ("reduce_mean", "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "arg_max", "arg_min")

#: batch_norm: x, scale, bias, mean, variance; epsilon. layer_norm: x, scale, optional bias; axis, epsilon, over all
#: axes from `axis` on. rms_norm: as layer_norm without bias. instance_norm: x, scale, bias; epsilon.
#: group_norm: x, scale, bias per channel; groups, epsilon. lrn: size, alpha, beta, bias, across channels.
#: softmax, log_softmax: axis.
NORM_KINDS = (
    "batch_norm", "layer_norm", "rms_norm", "instance_norm", "group_norm", "lrn", "softmax", "log_softmax",
)  # fmt: skip

#: Values moved, never changed. flatten: axis. reshape: shape. transpose: perm. concat: axis. slice: starts, ends,
#: axes, steps. pad: pads (before per axis, then after), mode (constant, reflect, edge), value. gather: x, indices;
#: axis. expand: shape. tile: repeats.
MOVE_KINDS = (
    "identity", "flatten", "reshape", "transpose", "concat", "slice", "pad", "gather", "expand", "tile",
)  # fmt: skip

#: resize: mode (nearest, linear, cubic), coordinates, rounding, cubic_a, exclude_outside, scales per axis.
#: where: condition, x, y. cast: to (a dtype). quantize, dequantize: by the quantization of the int8 tensor.
#: requantize: int8 to int8 or uint8 of another quantization; activation.
#: dynamic_quantize: outputs y uint8, scale, zero point, computed from the range of x.
OTHER_KINDS = ("resize", "where", "cast", "quantize", "dequantize", "requantize", "dynamic_quantize")

#: Spiking networks: the graph describes one time step; activations between layers are spikes or currents of that step.
#: neuron: x, then constants of the shape of x without its leading axis: keep, gain, offset, threshold ('' = never
#:     fires and puts out its potential), reset, keep_current ('' = no synaptic current). A step is
#:     u = keep_current * u + gain * x; v = keep * v + u + offset; fires if v > threshold, or >= with `inclusive`; then
#:     v = reset, or v - reset when `subtract`; held still for `refractory` steps; v starts at `initial`.
#: previous: no input; the value that the tensor `source`, produced later, had one step before (0 at first).
#: delay: x, constant steps per element: each element as it was so many steps before (0 at first).
#: sum_pool: kernel (2,), strides (2,), pads (4,).
SPIKING_KINDS = ("neuron", "previous", "delay", "sum_pool")

OP_KINDS = (
    *MAC_KINDS, *UNARY_KINDS, *BINARY_KINDS, *POOL_KINDS, *REDUCTION_KINDS, *NORM_KINDS, *MOVE_KINDS, *OTHER_KINDS,
    *SPIKING_KINDS,
)  # fmt: skip

#: On int8 the output has the quantization of the (first) input: nothing new can appear.
KEEPS_QUANTIZATION = (*(kind for kind in MOVE_KINDS if kind != "concat"), "max_pool", "relu", "clip")
#: Constants of these are parameters whatever their size.
PARAMETER_KINDS = (*MAC_KINDS, "batch_norm", "layer_norm", "rms_norm", "instance_norm", "group_norm", "prelu")
