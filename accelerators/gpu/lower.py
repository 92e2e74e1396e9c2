"""From a graph to kernels: one for every op that computes or copies, fewer where ops are fused.

Reshapes are views and cost nothing. Elementwise ops join the kernel that writes their latest operand when nobody else
reads it: with fusion "elementwise" only chains of elementwise ops, with "epilogue" convolutions and products as well,
whose epilogue then also takes bias, activation and the addition of a shortcut. With "none" bias and activation are
kernels of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from accelerators.gpu.kernels import Form, Kernel
from accelerators.gpu.shapes import conv_shape, einsum_shape, matmul_shape, recurrent_shape
from accelerators.gpu.stream import OPERATIONS
from dse.core.errors import ModelError
from dse.ir import Graph
from dse.ir.graph import Op
from dse.ir.kinds import (
    BINARY_KINDS,
    NORM_KINDS,
    POOL_KINDS,
    RECURRENT_KINDS,
    REDUCTION_KINDS,
    SPIKING_KINDS,
    UNARY_KINDS,
)
from dse.ir.loopnest import op_macs

FUSIONS = ("none", "elementwise", "epilogue")
#: Ops that only rename a tensor: no kernel.
VIEWS = ("identity", "flatten", "reshape")
_ELEMENTWISE = (*UNARY_KINDS, *BINARY_KINDS, "batch_norm", "where", "cast", "quantize", "dequantize", "requantize")
_COPIES = ("transpose", "concat", "slice", "pad", "gather", "expand", "tile", "resize", "dynamic_quantize", "lrn")
_PRODUCTS = ("gemm", "matmul", "matmul_integer", "einsum")
_CONVOLUTIONS = ("conv", "conv_integer", "conv_transpose")
_LAYERS: tuple[Form, ...] = ("gemm", "conv", "depthwise")


def lower_graph(graph: Graph, *, batch: int = 1, fusion: str = "epilogue") -> list[Kernel]:
    """Kernels of `batch` inputs of a graph, in order of execution.

    Raises
    ------
    ModelError: an op is of a spiking network.
    """
    kernels: list[Kernel] = []
    writer: dict[str, int] = {}
    uses: dict[str, int] = dict.fromkeys(graph.outputs, 1)
    for op in graph.ops:
        for name in set(op.inputs):
            uses[name] = uses.get(name, 0) + 1
    alias: dict[str, str] = {}
    for op in graph.ops:
        if op.kind in VIEWS:
            alias[op.outputs[0]] = alias.get(op.inputs[0], op.inputs[0])
            uses[alias[op.outputs[0]]] = uses.get(alias[op.outputs[0]], 0) + uses.get(op.outputs[0], 0) - 1
            continue
        latest = _latest(op, writer, alias)
        if latest is not None and _joins(graph, op, kernels[latest], uses, alias, fusion):
            kernels[latest] = _fused(graph, kernels[latest], op, batch, alias)
            writer[op.outputs[0]] = latest
            continue
        for kernel in _split(graph, op, batch, fusion):
            kernels.append(kernel)
            writer[op.outputs[0]] = len(kernels) - 1
    return kernels


def kernel_of(graph: Graph, op: Op, batch: int = 1) -> Kernel:
    """The kernel of one op by itself.

    Raises
    ------
    ModelError: the op is of a spiking network.
    """
    macs = op_macs(graph, op) * batch
    if op.kind in _CONVOLUTIONS:
        form, shape = conv_shape(graph, op, batch)
        return Kernel(op.name, (op,), form, op.kind, shape, macs, transposed=op.kind == "conv_transpose")
    if op.kind in _PRODUCTS:
        shape = einsum_shape(graph, op, batch) if op.kind == "einsum" else matmul_shape(graph, op, batch)
        return Kernel(op.name, (op,), "gemm", op.kind, shape, macs)
    if op.kind in RECURRENT_KINDS:
        shape, weights = recurrent_shape(graph, op, batch)
        return Kernel(op.name, (op,), "recurrent", op.kind, shape, macs, weight_elements=weights)
    if op.kind in SPIKING_KINDS:
        raise ModelError(
            f"{graph.source or graph.name}: op {op.name!r} ({op.kind}) is of a spiking network, which the gpu family "
            "does not run; the neuromorphic family does"
        )
    if op.kind in NORM_KINDS and op.kind not in ("batch_norm", "lrn"):
        kind = "softmax" if "softmax" in op.kind else "layer_norm"
        return Kernel(op.name, (op,), "rows", kind, _rows(graph, op, batch))
    return Kernel(op.name, (op,), "stream", op.kind, _stream(graph, op, batch))


def _split(graph: Graph, op: Op, batch: int, fusion: str) -> list[Kernel]:
    """The kernel of an op; without fusion a layer's bias and activation are one of their own."""
    first = kernel_of(graph, op, batch)
    activation = op.attributes.get("activation", "none")
    biased = op.kind in ("conv", "conv_transpose", "gemm") and len(op.inputs) > 2 and bool(op.inputs[2])
    if fusion == "epilogue" or first.form not in _LAYERS or (activation == "none" and not biased):
        return [first]
    elements = graph[op.outputs[0]].elements * batch
    shape = {"read": elements, "written": elements, "operations": elements * 2}
    tail = Kernel(f"{op.name}.bias_activation", (op,), "stream", "add", shape, part="tail")
    return [replace(first, part="bare"), tail]


def _latest(op: Op, writer: Mapping[str, int], alias: Mapping[str, str]) -> int | None:
    """The last kernel that writes an operand of `op`; None when all are inputs or constants."""
    found = [writer[alias.get(name, name)] for name in op.inputs if alias.get(name, name) in writer]
    return max(found, default=None)


def _joins(
    graph: Graph, op: Op, kernel: Kernel, uses: Mapping[str, int], alias: Mapping[str, str], fusion: str
) -> bool:
    """Whether an elementwise op may run inside the kernel before it."""
    if fusion == "none" or op.kind not in _ELEMENTWISE or len(op.outputs) != 1:
        return False
    output = kernel.output
    if not any(alias.get(name, name) == output for name in op.inputs) or uses[output] != 1 or output in graph.outputs:
        return False
    if graph[output].elements != graph[op.outputs[0]].elements:
        return False
    chain = kernel.form == "stream" and (kernel.part == "tail" or kernel.ops[0].kind in _ELEMENTWISE)
    return chain or (fusion == "epilogue" and kernel.form in _LAYERS)


def _fused(graph: Graph, kernel: Kernel, op: Op, batch: int, alias: Mapping[str, str]) -> Kernel:
    beside = [name for name in op.inputs if name and alias.get(name, name) != kernel.output]
    elements = sum(_operand_elements(graph, name, batch) for name in beside)
    shape = kernel.shape
    if kernel.form == "stream":
        shape = {**shape, "operations": shape["operations"] + _operations(graph, op, batch)}
    return replace(kernel, ops=(*kernel.ops, op), fused_elements=kernel.fused_elements + elements, shape=shape)


def _operand_elements(graph: Graph, name: str, batch: int) -> int:
    """Elements read of an operand: constants once, activations for every input of the batch."""
    tensor = graph[name]
    return tensor.elements * (1 if tensor.data is not None else batch)


def _operations(graph: Graph, op: Op, batch: int) -> int:
    return int(graph[op.outputs[0]].elements * batch * OPERATIONS.get(op.kind, 1.0))


def _rows(graph: Graph, op: Op, batch: int) -> dict[str, int]:
    """Rows and columns that softmax or a normalization works on."""
    shape = graph[op.inputs[0]].shape
    total = graph[op.inputs[0]].elements * batch
    if op.kind in ("softmax", "log_softmax"):
        columns = shape[int(op.attributes["axis"])]
    elif op.kind in ("layer_norm", "rms_norm"):
        columns = 1
        for size in shape[int(op.attributes["axis"]) :]:
            columns *= size
    else:
        groups = int(op.attributes.get("groups", shape[1]))
        columns = graph[op.inputs[0]].elements // (shape[0] * groups)
    return {"rows": max(1, total // columns), "columns": columns}


def _stream(graph: Graph, op: Op, batch: int) -> dict[str, int]:
    """Elements read and written, and operations, of an op that only streams."""
    written = sum(graph[name].elements for name in op.outputs) * batch
    names = [name for name in op.inputs if name]
    read = sum(_operand_elements(graph, name, batch) for name in names)
    if op.kind in ("gather", "slice", "expand", "tile"):
        read = min(read, written)  # a table is not read as a whole
    per_element = 1.0 if op.kind in (*POOL_KINDS, *REDUCTION_KINDS) else 0.0
    operations = max(read * per_element, float(_operations(graph, op, batch)))
    return {"read": read, "written": written, "operations": int(operations)}
