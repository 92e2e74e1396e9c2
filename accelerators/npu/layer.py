"""Work items: convolutions and dense layers for the array, recurrent layers, and what is left to the host."""

from __future__ import annotations

from dataclasses import dataclass

from dse.core.errors import ModelError
from dse.ir import Graph, Op
from dse.ir.kinds import OP_KINDS

_VIEWS = ("flatten", "reshape", "identity")
_ARRAY = ("conv", "gemm")


@dataclass(frozen=True)
class ConvLayer:
    """A convolution over `batch` maps; a dense layer is one whose kernel covers its whole input map.

    `pads` are (top, left, bottom, right). `residual` and `add` are the second operand and the op of an add that the
    vector unit does behind the layer.
    """

    name: str
    op: Op
    input: str
    output: str
    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    groups: int
    out_height: int
    out_width: int
    residual: str | None = None
    add: Op | None = None

    @property
    def macs(self) -> int:
        return self.batch * self.out_height * self.out_width * self.weights

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.out_channels * (self.in_channels // self.groups) * self.kernel[0] * self.kernel[1]

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input, self.residual) if self.residual else (self.input,)

    @property
    def kind(self) -> str:
        """What tables call it."""
        return self.op.kind + ("+add" if self.add else "")

    def border(self) -> tuple[int, int, int, int]:
        """Padding that windows really reach (top, left, bottom, right)."""
        top, left = self.pads[:2]
        reach = [
            max(0, (outputs - 1) * stride + (kernel - 1) * dilation + 1 - pad - size)
            for outputs, stride, kernel, dilation, pad, size in zip(
                (self.out_height, self.out_width), self.strides, self.kernel, self.dilations, (top, left),
                (self.height, self.width), strict=True,
            )
        ]  # fmt: skip
        return top, left, reach[0], reach[1]

    def touched_input_bytes(self) -> int:
        """Input bytes that some output reads, each once."""
        sizes = [
            len({o * s + k * d - p for o in range(outputs) for k in range(kernel)} & set(range(size)))
            for outputs, s, kernel, d, p, size in zip(
                (self.out_height, self.out_width), self.strides, self.kernel, self.dilations, self.pads[:2],
                (self.height, self.width), strict=True,
            )
        ]  # fmt: skip
        return self.batch * self.in_channels * sizes[0] * sizes[1]


@dataclass(frozen=True)
class LstmLayer:
    """One direction of an LSTM: `steps` x `batch` x `inputs` in, `hidden` units."""

    name: str
    op: Op
    input: str
    output: str
    last: str
    steps: int
    batch: int
    inputs_per_step: int
    hidden: int
    kind: str = "lstm"

    @property
    def macs(self) -> int:
        return self.steps * self.batch * self.weights

    @property
    def weights(self) -> int:
        """Number of weights."""
        return 4 * self.hidden * (self.inputs_per_step + self.hidden)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name for name in (self.output, self.last) if name)


@dataclass(frozen=True)
class HostOp:
    """An op left to the host."""

    op: Op
    inputs: tuple[str, ...]
    output: str


Work = ConvLayer | LstmLayer | HostOp


def outputs_of(item: Work) -> tuple[str, ...]:
    """Tensors that a work item writes."""
    return item.outputs if isinstance(item, LstmLayer) else (item.output,)


@dataclass(frozen=True)
class Partition:
    """Work in execution order, and for every tensor the one whose bytes it shares."""

    work: tuple[Work, ...]
    source: dict[str, str]


def partition(graph: Graph, *, fuse_add: bool) -> Partition:
    """Assign every op of a prepared graph.

    Raises
    ------
    ModelError: an op kind that neither the array nor the host knows.
    """
    source: dict[str, str] = {name: name for name in graph.inputs}
    adds = _adds_behind_convs(graph) if fuse_add else {}
    fused = {add.outputs[0] for add, _ in adds.values()}
    work: list[Work] = []
    for op in graph.ops:
        output = op.outputs[0]
        if output in fused:
            continue
        if op.kind in _ARRAY:
            add, other = adds.get(output, (None, ""))
            layer = _conv_layer(graph, op, source[op.inputs[0]], add, source[other] if add else None)
            work.append(layer)
            source[output] = source[layer.output] = layer.output
        elif op.kind == "lstm":
            lstm = _lstm_layer(graph, op, source[op.inputs[0]])
            work.append(lstm)
            source |= {name: name for name in lstm.outputs}
        elif op.kind in ("gru", "rnn"):
            raise ModelError(f"{_where(graph, op)}: of the recurrent layers the npu family has lstm; systolic has all")
        elif op.kind in _VIEWS and _is_view(graph, op, source[op.inputs[0]]):
            source[output] = source[op.inputs[0]]
        elif op.kind in OP_KINDS and op.kind != "dynamic_quantize":
            reads = tuple(source[name] for name in op.inputs if name and graph[name].data is None)
            work.append(HostOp(op, reads, output))
            source[output] = output
        else:
            raise ModelError(f"{_where(graph, op)} runs neither on the array nor on the host")
    return Partition(tuple(work), source)


def _where(graph: Graph, op: Op) -> str:
    return f"{graph.source or graph.name}: op {op.name!r} ({op.kind})"


def _is_view(graph: Graph, op: Op, data: str) -> bool:
    """Whether an op only sees the bytes of `data` under another shape: maps lie as NHWC, all else row by row."""
    before, after = graph[data].shape, graph[op.outputs[0]].shape
    if op.kind == "identity" or graph[op.inputs[0]].shape == after:
        return True
    if is_map(graph, data):
        flat = len(after) == 2 and after[0] == before[0]
        # a dense layer undoes the flattening
        readers = graph.consumers(op.outputs[0])
        dense = bool(readers) and op.outputs[0] not in graph.outputs and all(r.kind == "gemm" for r in readers)
        return flat and (before[2:] == (1, 1) or dense)
    return len(after) != 4


def _conv_layer(graph: Graph, op: Op, source: str, add: Op | None, residual: str | None) -> ConvLayer:
    output = add.outputs[0] if add is not None else op.outputs[0]
    if op.kind == "gemm":
        rows, depth = graph[op.inputs[0]].shape
        outputs, shape = graph[op.inputs[1]].shape[0], graph[source].shape
        if is_map(graph, source):
            batch, channels, height, width = shape
            return ConvLayer(
                op.name, op, source, output, batch, channels, height, width, outputs, (height, width), (1, 1), (1, 1),
                (0, 0, 0, 0), 1, 1, 1, residual, add,
            )  # fmt: skip
        # rows of features are the rows of a map of one column
        return ConvLayer(
            op.name, op, source, output, 1, depth, rows, 1, outputs, (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1, rows, 1,
            residual, add,
        )  # fmt: skip
    shape = graph[op.inputs[0]].shape
    if len(shape) != 4:
        raise ModelError(f"{_where(graph, op)} reads shape {list(shape)}; the npu family takes (batch, channels, h, w)")
    batch, channels, height, width = shape
    out_channels, _, kernel_h, kernel_w = graph[op.inputs[1]].shape
    out_h, out_w = graph[op.outputs[0]].shape[2:]
    a = op.attributes
    return ConvLayer(
        op.name, op, source, output, batch, channels, height, width, out_channels, (kernel_h, kernel_w),
        tuple(a["strides"]), tuple(a["dilations"]), tuple(a["pads"]), int(a["groups"]), out_h, out_w, residual, add,
    )  # fmt: skip


def _lstm_layer(graph: Graph, op: Op, source: str) -> LstmLayer:
    where = _where(graph, op)
    named = {place: name for place, name in enumerate(op.inputs) if name}
    if op.attributes.get("direction", "forward") != "forward":
        raise ModelError(f"{where} runs {op.attributes['direction']}; the npu family runs sequences forward")
    if any(place in named for place in (4, 7)) or op.attributes.get("input_forget"):
        raise ModelError(f"{where} has lengths, peepholes or coupled gates; the npu family has plain cells")
    if any(place in named and (graph[named[place]].data is None or graph[named[place]].data.any()) for place in (5, 6)):  # type: ignore[union-attr]
        raise ModelError(f"{where} has a first state; the npu family starts from zero")
    names = (*op.outputs, "", "", "")
    used = [name if name and (graph.consumers(name) or name in graph.outputs) else "" for name in names[:3]]
    if used[2]:
        raise ModelError(f"{where}: its last cell state {used[2]!r} is read; the npu family keeps it on chip")
    steps, batch, inputs = graph[op.inputs[0]].shape
    hidden = graph[op.inputs[2]].shape[2]
    return LstmLayer(op.name, op, source, used[0], used[1], steps, batch, inputs, hidden)


def _adds_behind_convs(graph: Graph) -> dict[str, tuple[Op, str]]:
    """Output of a conv -> (add, other operand) for adds that can run behind it.

    The conv is the later producer, feeds only the add, and has no activation of its own.
    """
    order = {op.outputs[0]: index for index, op in enumerate(graph.ops)}
    found: dict[str, tuple[Op, str]] = {}
    for add in graph.ops:
        if add.kind != "add" or len(set(add.inputs)) != 2:
            continue
        tensors = [graph[name] for name in add.inputs]
        if any(t.data is not None or len(t.shape) != 4 for t in tensors) or tensors[0].shape != tensors[1].shape:
            continue
        first, second = sorted(add.inputs, key=lambda name: order.get(name, -1))
        conv = graph.producer(second)
        if (
            conv is not None
            and conv.kind == "conv"
            and conv.attributes.get("activation", "none") == "none"
            and len(graph.consumers(second)) == 1
            and second not in graph.outputs
        ):
            found[second] = (add, first)
    return found


def is_map(graph: Graph, name: str) -> bool:
    """Whether a tensor lies in memory as NHWC; all others, an lstm's outputs too, lie row by row."""
    producer = graph.producer(name)
    return len(graph[name].shape) == 4 and (producer is None or producer.kind != "lstm")
