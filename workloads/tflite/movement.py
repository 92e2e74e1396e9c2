"""Converters of operators that move data: reshape, transpose, concatenation, slices, padding.

The file speaks of NHWC axes and NHWC memory order; what is appended to the Graph speaks of NCHW.
"""

from __future__ import annotations

from dse.ir.graph import Tensor
from workloads.tflite.network import TO_NCHW, TO_NHWC, Call, nchw, nchw_axis


def _is_turned(shape: tuple[int, ...]) -> bool:
    """Whether NCHW and NHWC order of a Graph shape differ in memory."""
    return len(shape) == 4 and shape[1] > 1 and shape[2] * shape[3] > 1


def _in_file_order(call: Call, name: str) -> str:
    """A tensor whose memory order is the file's, transposing when needed."""
    shape = call.network.tensors[name].shape
    if not _is_turned(shape):
        return name
    return call.emit_internal("transpose", name, tuple(shape[axis] for axis in TO_NHWC), perm=TO_NHWC)


def as_rows(call: Call, x: Tensor, shape: tuple[int, int]) -> str:
    """`x` as a matrix in the file's memory order."""
    source = _in_file_order(call, x.name)
    if call.network.tensors[source].shape == shape:
        return source
    return call.emit_internal("reshape", source, shape, shape=shape)


def reshape_to(call: Call, name: str, shape: tuple[int, ...]) -> str:
    """Emit this operator's output: Graph tensor `name` with its elements in the file's order as `shape`."""
    source = _in_file_order(call, name)
    target = nchw(shape)
    if not _is_turned(target):
        return call.emit("reshape", (source,), {"shape": target}, shape)
    inner = call.emit_internal("reshape", source, shape, shape=shape)
    return call.emit("transpose", (inner,), {"perm": TO_NCHW}, shape)


def reshape(call: Call) -> None:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: the declared shape of the output says all."""
    x, raw = call.activation_input(0), call.raw_output()
    shape = call.network.shape_of(raw)
    call.same_quantization(x, raw)
    elements = 1
    for size in shape:
        elements *= size
    if elements != x.elements:
        call.fail(f"an input of {x.elements} elements cannot take the shape {list(shape)}")
    name = reshape_to(call, x.name, shape)
    if len(x.shape) == 4 and len(shape) == 2 and shape[0] == x.shape[0]:
        call.network.flattened[name] = x.name


def transpose(call: Call) -> None:
    """TRANSPOSE by a constant permutation."""
    x, perm = call.activation_input(0), call.integers(1, "the permutation")
    rank = len(x.shape)
    if sorted(perm) != list(range(rank)):
        call.fail(f"{list(perm)} is no permutation of {rank} axes")
    call.same_quantization(x, call.raw_output())
    file_axes = TO_NCHW if rank == 4 else tuple(range(rank))
    turned = tuple(nchw_axis(perm[axis], rank) for axis in file_axes)
    call.emit("transpose", (x.name,), {"perm": turned}, tuple(call.raw(0).shape[axis] for axis in perm))


def concatenation(call: Call) -> None:
    """CONCATENATION of tensors of one quantization."""
    if call.activation() != "none":
        call.fail("a fused activation is not supported")
    parts = [call.activation_input(position) for position in range(len(call.operator.inputs))]
    if not parts:
        call.fail("has no inputs")
    shapes = [call.raw(position).shape for position in range(len(parts))]
    rank, axis = len(shapes[0]), int(call.option("Axis"))
    if not -rank <= axis < rank:
        call.fail(f"axis {axis} does not exist in a tensor of {rank} dimensions")
    axis %= rank
    for part, shape in zip(parts, shapes, strict=True):
        call.same_quantization(part, call.raw_output())
        if shape[:axis] + shape[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :]:
            call.fail(f"shapes {list(shapes[0])} and {list(shape)} differ outside axis {axis}")
    joined = (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])
    call.emit("concat", tuple(part.name for part in parts), {"axis": nchw_axis(axis, rank)}, joined)


def _slice(
    call: Call, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...], position: int = 0
) -> None:
    """Append a slice (bounds in file order, already within the tensor) for output `position`."""
    x = call.activation_input(0)
    call.same_quantization(x, call.raw_output(position))
    shape = tuple(-(-(stop - start) // step) for start, stop, step in zip(starts, stops, steps, strict=True))
    if any(size < 1 for size in shape):
        call.fail(f"the slice {list(starts)} to {list(stops)} of {list(call.raw(0).shape)} is empty")
    call.emit("slice", (x.name,), _bounds(starts, stops, steps), shape, position=position)


def _bounds(starts: tuple[int, ...], ends: tuple[int, ...], steps: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Attributes of a slice over all axes, from bounds in file order."""
    return {"starts": nchw(starts), "ends": nchw(ends), "axes": tuple(range(len(starts))), "steps": nchw(steps)}


def strided_slice(call: Call) -> None:
    """STRIDED_SLICE with positive strides and no change of rank."""
    shape = call.raw(0).shape
    bounds = [call.integers(position, what) for position, what in ((1, "begin"), (2, "end"), (3, "strides"))]
    begin, end, strides = bounds
    if any(len(bound) != len(shape) for bound in bounds):
        call.fail(f"begin, end and strides must have {len(shape)} entries, as the input {list(shape)}")
    for name in ("EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset"):
        if call.option(name):
            call.fail(f"{name} {call.option(name)} is not supported, only 0")
    starts, stops = [], []
    for axis, size in enumerate(shape):
        call.check("a stride", strides[axis])
        first = begin[axis] + size if begin[axis] < 0 else begin[axis]
        last = end[axis] + size if end[axis] < 0 else end[axis]
        starts.append(0 if call.option("BeginMask") >> axis & 1 else min(max(first, 0), size))
        stops.append(size if call.option("EndMask") >> axis & 1 else min(max(last, 0), size))
    _slice(call, tuple(starts), tuple(stops), strides)


def slice_box(call: Call) -> None:
    """SLICE by a constant begin and size (-1: to the end)."""
    shape, begin, size = call.raw(0).shape, call.integers(1, "begin"), call.integers(2, "size")
    if len(begin) != len(shape) or len(size) != len(shape):
        call.fail(f"begin and size must have {len(shape)} entries, as the input {list(shape)}")
    stops = []
    for axis, extent in enumerate(shape):
        stop = extent if size[axis] == -1 else begin[axis] + size[axis]
        if not 0 <= begin[axis] < stop <= extent:
            call.fail(f"begin {list(begin)} and size {list(size)} leave the input {list(shape)}")
        stops.append(stop)
    _slice(call, begin, tuple(stops), (1,) * len(shape))


def split(call: Call) -> None:
    """SPLIT (equal parts) and SPLIT_V (given sizes): one slice for each output."""
    by_sizes = call.operator.kind == "SPLIT_V"
    data_position, axis_position = (0, 2) if by_sizes else (1, 0)
    shape = call.raw(data_position).shape
    axes = call.integers(axis_position, "the axis")
    if len(axes) != 1 or not -len(shape) <= axes[0] < len(shape):
        call.fail(f"axis {list(axes)} does not exist in a tensor of {len(shape)} dimensions")
    axis, count = axes[0] % len(shape), len(call.operator.outputs)
    if by_sizes:
        sizes = list(call.integers(1, "the sizes"))
        if sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = shape[axis] - sum(sizes) - 1
    else:
        sizes = [shape[axis] // max(count, 1)] * count
    if len(sizes) != count or sum(sizes) != shape[axis] or any(size < 1 for size in sizes):
        call.fail(f"{shape[axis]} elements along axis {axis} cannot be split into {count} parts of sizes {sizes}")
    x = call.activation_input(data_position)
    start = 0
    for position, size in enumerate(sizes):
        starts = tuple(start if index == axis else 0 for index in range(len(shape)))
        stops = tuple(start + size if index == axis else extent for index, extent in enumerate(shape))
        call.same_quantization(x, call.raw_output(position))
        part = (*shape[:axis], size, *shape[axis + 1 :])
        call.emit("slice", (x.name,), _bounds(starts, stops, (1,) * len(shape)), part, position=position)
        start += size


def pad(call: Call) -> None:
    """PAD with the zero point; rows and columns in front of a convolution become the convolution's padding."""
    x, values, shape = call.activation_input(0), call.values(1, "the paddings"), call.raw(0).shape
    if values.shape != (len(shape), 2) or values.dtype.kind != "i":
        call.fail(f"the paddings must be integers of shape [{len(shape)}, 2], got {values.dtype} {list(values.shape)}")
    call.same_quantization(x, call.raw_output())
    before = tuple(call.check("a padding", int(value), low=0) for value in values[:, 0])
    after = tuple(call.check("a padding", int(value), low=0) for value in values[:, 1])
    padded = tuple(low + size + high for low, size, high in zip(before, shape, after, strict=True))
    # `value` is real: 0 is the zero point
    attributes = {"pads": (*nchw(before), *nchw(after)), "mode": "constant", "value": 0.0}
    name = call.emit("pad", (x.name,), attributes, padded)
    if len(shape) == 4 and not (before[0] or after[0] or before[3] or after[3]):
        call.network.padded[name] = (x.name, (before[1], before[2], after[1], after[2]))
