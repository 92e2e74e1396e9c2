"""What becomes of each op kind when a network is quantized, and which ops stand in the way.

Most kinds have integer rules. The rest become islands of float32 in the integer network: their operands dequantized,
the op computed in float, its result quantized, which is what onnxruntime does with an operator that has no int8
kernel. Hardware leaves islands to the host.
"""

from __future__ import annotations

from dse.compiler.quantize_recurrent import check_recurrent
from dse.core.errors import InfeasibleError, ModelError, Violation
from dse.ir.graph import Graph, Op
from dse.ir.kinds import BINARY_KINDS, NORM_KINDS, RECURRENT_KINDS, REDUCTION_KINDS, UNARY_KINDS

#: Their output is on the scale and zero point of what they read.
KEEPS_INPUT = (
    "max_pool", "average_pool", "global_average_pool", "flatten", "reshape", "transpose", "slice", "pad", "gather",
    "expand", "tile", "identity", "relu", "clip",
)  # fmt: skip
#: Integer rules with an output range of their own.
INTEGER = ("conv", "gemm", "matmul", "add", "mul", "concat", "leaky_relu", "sigmoid", *RECURRENT_KINDS)
#: Computed in float between int8 tensors.
ISLANDS = tuple(
    kind
    for kind in (*UNARY_KINDS, *BINARY_KINDS, *NORM_KINDS, *REDUCTION_KINDS, "resize", "where", "conv_transpose")
    if kind not in (*KEEPS_INPUT, *INTEGER)
)
_WHOLE = ("int64", "int32", "bool")


def is_island(graph: Graph, op: Op) -> bool:
    """Whether an op of a float graph is computed in float between int8 tensors; among them sums and products of
    operands of unequal shape, for which QLinear operators have rules of their own."""
    if op.kind in ("add", "mul"):
        shape = graph[op.outputs[0]].shape
        return any(graph[name].data is None and graph[name].shape != shape for name in op.inputs)
    return op.kind in ISLANDS


def stays_whole(graph: Graph, op: Op) -> bool:
    """Whether an op gives indices, shapes or truth values, which are not quantized."""
    return graph[op.outputs[0]].dtype in _WHOLE


def is_quantized(graph: Graph) -> bool:
    """Whether a network is int8 from its first layer to its last already: every conv and gemm holds int8 weights."""
    layers = [op for op in graph.ops if op.kind in ("conv", "gemm")]
    return bool(layers) and all(graph[op.inputs[1]].quantization is not None for op in layers)


def require_activation_bits(graph: Graph, bits: int, where: str) -> None:
    """Nothing when no activation of a network that came quantized has more than `bits` bits.

    Parameters
    ----------
    where
        The hardware, for the message.

    Raises
    ------
    InfeasibleError: one has; named with the op that makes it.
    """
    makers = {name: f"{op.name} ({op.kind})" for op in graph.ops for name in op.outputs}
    makers |= {name: f"input {name}" for name in graph.inputs}
    for name, maker in makers.items():
        quantization = graph[name].quantization
        if quantization is not None and quantization.bits > bits:
            hint = "quantize with activations of 8 bits there"
            limit = Violation(f"bits of the activation of {maker}", quantization.bits, bits, "bits", hint)
            raise InfeasibleError(f"{graph.source or graph.name} on {where}", (limit,))


def weight_tensors(graph: Graph) -> list[str]:
    """Names of the weights of all layers, each once per layer that reads it: of a recurrent layer both matrices."""
    names: list[str] = []
    for op in graph.ops:
        if op.kind in ("conv", "gemm"):
            names.append(op.inputs[1])
        elif op.kind in RECURRENT_KINDS:
            names += op.inputs[1:3]
    return names


def require_quantizable(graph: Graph) -> None:
    """Nothing when `quantize` knows every op of a graph that ends at its logits; asked before a long calibration.

    Raises
    ------
    ModelError: a tensor is quantized already, or an op has no integer form.
    """
    name = graph.source or graph.name
    done = next((item for item in sorted(graph.tensors) if graph[item].quantization is not None), None)
    if done is not None:
        raise ModelError(
            f"{name}: tensor {done!r} is quantized already ({graph[done].dtype}); "
            "quantization starts from the float model; `dse run` and `dse simulate` take a quantized one as it is"
        )
    for op in graph.ops:
        if stays_whole(graph, op):
            continue
        if op.kind not in (*KEEPS_INPUT, *INTEGER, *ISLANDS):
            raise ModelError(
                f"{name}: op {op.name!r} ({op.kind}) has no int8 form; "
                f"quantizable: {', '.join((*INTEGER, *KEEPS_INPUT, *ISLANDS))} (prepare() folds batch norms)"
            )
        if op.kind in RECURRENT_KINDS:
            check_recurrent(graph, op)
        if op.kind in ("conv", "gemm", "conv_transpose") and graph[op.inputs[1]].data is None:
            raise ModelError(
                f"{name}: op {op.name!r} ({op.kind}) computes its weights at run time; they must be constant"
            )
