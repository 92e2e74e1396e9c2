"""What one step of the program computes: a convolution-shaped layer, with an optional residual add behind it.

A dense layer is a 1 x 1 convolution over `rows` image rows of one pixel, or, when its input is a flattened
feature map, a convolution whose kernel covers the whole map.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelerators.systolic.recurrent import sequence_outputs
from dse.core.errors import ModelError
from dse.ir import Graph, Op


@dataclass(frozen=True)
class Layer:
    """A convolution in the terms of the tile machine.

    `height`, `width` are of the input without padding; `pads` are (top, left, bottom, right); `image_step` says
    whether output rows are separate images of the placement (a dense layer's batch). `residual` and
    `add` name the second operand and the op of a fused residual add.
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
    image_step: bool = False
    residual: str | None = None
    add: Op | None = None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layer itself, without any padding of the array."""
        per_output = self.in_channels // self.groups * self.kernel[0] * self.kernel[1]
        return self.batch * self.out_channels * self.out_height * self.out_width * per_output

    @property
    def pixels(self) -> int:
        return self.batch * self.out_height * self.out_width

    def shape_key(self) -> tuple[object, ...]:
        """Equal for layers that may share a tiling."""
        return (
            self.batch, self.in_channels, self.height, self.width, self.out_channels, self.kernel, self.strides,
            self.dilations, self.pads, self.groups, self.out_height, self.out_width, self.residual is not None,
        )  # fmt: skip

    def compulsory_bytes(self, weight_bits: int) -> int:
        """Bytes any schedule must move: each touched input and each weight, output and residual element once."""
        inputs = self.input_bytes()
        per_output = self.in_channels // self.groups * self.kernel[0] * self.kernel[1]
        weights = (self.out_channels * per_output * weight_bits + 7) // 8
        outputs = self.pixels * self.out_channels
        return inputs + weights + outputs * (2 if self.residual else 1)

    def input_bytes(self) -> int:
        """Bytes of the input that some output reads, each once."""
        rows = _touched(self.height, self.out_height, self.kernel[0], self.strides[0], self.dilations[0], self.pads[0])
        columns = _touched(self.width, self.out_width, self.kernel[1], self.strides[1], self.dilations[1], self.pads[1])
        return self.batch * self.in_channels * rows * columns


def _touched(size: int, outputs: int, kernel: int, stride: int, dilation: int, pad: int) -> int:
    """How many of `size` positions along one axis some output reads."""
    positions = {o * stride + k * dilation - pad for k in range(kernel) for o in range(outputs)}
    return sum(1 for position in positions if 0 <= position < size)


def layer_of(graph: Graph, op: Op, source: str, *, residual: str | None = None, add: Op | None = None) -> Layer:
    """The layer of a conv or gemm op whose input data lies in tensor `source` (behind reshapes).

    Raises
    ------
    ModelError: a convolution over other than two spatial axes.
    """
    output = add.outputs[0] if add is not None else op.outputs[0]
    if op.kind == "gemm":
        rows, depth = graph[op.inputs[0]].shape
        outputs = graph[op.inputs[1]].shape[0]
        shape = graph[source].shape
        flattened = len(shape) == 4 and shape[2:] != (1, 1) and source not in sequence_outputs(graph)
        spatial = shape[2:] if flattened else (1, 1)
        return Layer(
            name=op.name, op=op, input=source, output=output,
            batch=rows if flattened else 1,
            in_channels=shape[1] if flattened else depth,
            height=spatial[0] if flattened else rows,
            width=spatial[1] if flattened else 1,
            out_channels=outputs,
            kernel=(spatial[0], spatial[1]) if flattened else (1, 1),
            strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0), groups=1,
            out_height=1 if flattened else rows, out_width=1,
            image_step=not flattened, residual=residual, add=add,
        )  # fmt: skip
    if len(graph[op.inputs[0]].shape) != 4:
        raise ModelError(
            f"{graph.source or graph.name}: conv {op.name!r} reads a tensor of shape "
            f"{list(graph[op.inputs[0]].shape)}; the systolic family takes (batch, channels, height, width)"
        )
    batch, channels, height, width = graph[op.inputs[0]].shape
    out_channels, _, kernel_h, kernel_w = graph[op.inputs[1]].shape
    _, _, out_h, out_w = graph[op.outputs[0]].shape
    return Layer(
        name=op.name, op=op, input=source, output=output, batch=batch, in_channels=channels, height=height,
        width=width, out_channels=out_channels, kernel=(kernel_h, kernel_w), strides=tuple(op.attributes["strides"]),
        dilations=tuple(op.attributes["dilations"]), pads=tuple(op.attributes["pads"]),
        groups=int(op.attributes["groups"]), out_height=out_h, out_width=out_w, residual=residual, add=add,
    )  # fmt: skip
