"""Operators that move values: reshaping, slicing, joining, padding, lookup, resizing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dse.ir.moves import slices
from dse.ir.resize import COORDINATES, MODES, ROUNDINGS
from workloads.onnx.folding import reshaped_shape, slice_bounds, squeezed_shape
from workloads.onnx.node import Node


def flatten(node: Node) -> None:
    """Flatten to two dimensions."""
    shape = node.tensor(0).shape
    axis = node.integer("axis", 1)
    axis = axis if axis == len(shape) else node.axis(axis, len(shape))
    node.emit("flatten", (node.inputs[0],), (math.prod(shape[:axis]), math.prod(shape[axis:])), axis=axis)


def reshape(node: Node) -> None:
    """Reshape, Squeeze, Unsqueeze: a new shape for the same values."""
    shape = node.tensor(0).shape
    target = reshaped_shape(node, shape) if node.op_type == "Reshape" else squeezed_shape(node, shape)
    node.emit("reshape", (node.inputs[0],), target, shape=target)


def identity(node: Node) -> None:
    """Identity, and Dropout at inference; its mask is not made, and whoever reads it is told so."""
    training = node.op_type == "Dropout" and node.has(2)
    if training and bool(node.constant(2, "training_mode").any()):
        node.fail("training_mode is set; export the model in eval mode")
    node.emit("identity", (node.inputs[0],), node.tensor(0).shape)


def transpose(node: Node) -> None:
    """Transpose."""
    shape = node.tensor(0).shape
    perm = node.ints("perm", tuple(reversed(range(len(shape)))))
    if sorted(perm) != list(range(len(shape))):
        node.fail(f"perm {list(perm)} is no order of {len(shape)} axes")
    node.emit("transpose", (node.inputs[0],), tuple(shape[axis] for axis in perm), perm=perm)


def concat(node: Node) -> None:
    """Concat."""
    parts = [node.tensor(index) for index in range(len(node.inputs))]
    rank = len(parts[0].shape)
    axis = node.axis(node.integer("axis", 1), rank)
    rest = {part.shape[:axis] + part.shape[axis + 1 :] for part in parts}
    if len(rest) > 1 or any(len(part.shape) != rank for part in parts):
        shapes = ", ".join(str(list(part.shape)) for part in parts)
        node.fail(f"shapes {shapes} cannot be joined along axis {axis}")
    if len({(part.dtype, part.quantization) for part in parts}) > 1:
        node.fail("its operands have different element types or quantizations")
    shape = (*parts[0].shape[:axis], sum(part.shape[axis] for part in parts), *parts[0].shape[axis + 1 :])
    if len(parts) == 1:
        node.emit("identity", (parts[0].name,), shape)
    else:
        names = tuple(part.name for part in parts)
        node.emit("concat", names, shape, quantization=parts[0].quantization, axis=axis)


def split(node: Node) -> None:
    """Split, as one slice per output."""
    shape = node.tensor(0).shape
    axis = node.axis(node.integer("axis", 0), len(shape))
    start = 0
    for name, size in zip(node.outputs, _split_sizes(node, shape[axis]), strict=True):
        if name:
            part = (*shape[:axis], size, *shape[axis + 1 :])
            node.emit(
                "slice", (node.inputs[0],), part, output=name,
                starts=(start,), ends=(start + size,), axes=(axis,), steps=(1,),
            )  # fmt: skip
        start += size


def _split_sizes(node: Node, size: int) -> tuple[int, ...]:
    count = len(node.outputs)
    given = node.integers(1, "split") if node.opset >= 13 and node.has(1) else node.ints("split", ())
    if given:
        if len(given) != count or sum(given) != size or min(given) < 1:
            node.fail(f"split {list(given)} does not divide {size} into {count} parts")
        return given
    each = -(-size // count)
    sizes = [min(each, size - index * each) for index in range(count)]
    # before opset 18 the parts must be equal, since then the last may be smaller
    if min(sizes) < 1 or (node.opset < 18 and size % count):
        node.fail(f"{size} elements cannot be split into {count} parts")
    return tuple(sizes)


def slice_(node: Node) -> None:
    """Slice; bounds are attributes before opset 10, inputs since."""
    shape = node.tensor(0).shape
    starts, ends, axes, steps = slice_bounds(node, len(shape))
    if 0 in steps or len(set(axes)) != len(axes):
        node.fail(f"steps {list(steps)} along axes {list(axes)} must not be 0, and no axis may repeat")
    index = slices(shape, starts, ends, axes, steps)
    sizes = tuple(len(range(*part.indices(size))) for part, size in zip(index, shape, strict=True))
    node.emit("slice", (node.inputs[0],), sizes, starts=starts, ends=ends, axes=axes, steps=steps)


def pad(node: Node) -> None:
    """Pad; widths are attributes before opset 11, inputs since."""
    x = node.tensor(0)
    rank = len(x.shape)
    mode = node.choice("mode", "constant", ("constant", "reflect", "edge"))
    value = node.number("value", 0.0)
    widths = node.ints("pads", ()) if node.opset < 11 else node.integers(1, "pads")
    if node.opset >= 11 and node.has(2):
        value = float(node.constant(2, "constant_value").ravel()[0])
    axes = node.integers(3, "axes") if node.opset >= 18 and node.has(3) else tuple(range(rank))
    if len(widths) != 2 * len(axes):
        node.fail(f"pads {list(widths)} must be two numbers for each of {len(axes)} axes")
    pads = [0] * (2 * rank)
    for position, axis in enumerate(axes):
        at = node.axis(axis, rank)
        pads[at], pads[rank + at] = widths[position], widths[len(axes) + position]
    for size, before, after in zip(x.shape, pads[:rank], pads[rank:], strict=True):
        if min(before, 0) + min(after, 0) + size < 1 or (mode == "reflect" and max(before, after) >= size):
            node.fail(f"pads {before} and {after} ({mode}) do not fit a dimension of {size}")
    shape = tuple(size + pads[axis] + pads[rank + axis] for axis, size in enumerate(x.shape))
    node.emit("pad", (x.name,), shape, pads=tuple(pads), mode=mode, value=value)


def gather(node: Node) -> None:
    """Gather along one axis: slices by index, or the lookup of an embedding."""
    x, indices = node.tensor(0), node.tensor(1)
    axis = node.axis(node.integer("axis", 0), len(x.shape))
    if indices.dtype not in ("int32", "int64"):
        node.fail(f"indices must be INT32 or INT64, not {indices.dtype}")
    size = x.shape[axis]
    if indices.data is not None and indices.data.size and not -size <= indices.data.min() <= indices.data.max() < size:
        node.fail(f"indices {indices.data.min()} to {indices.data.max()} leave the {size} entries of axis {axis}")
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    node.emit("gather", (x.name, indices.name), shape, axis=axis)


def expand(node: Node) -> None:
    """Expand: broadcasting to a constant shape."""
    x, target = node.tensor(0), node.integers(1, "shape")
    try:
        shape = np.broadcast_shapes(x.shape, target)
    except ValueError:
        node.fail(f"{list(x.shape)} does not broadcast to {list(target)}")
    node.emit("expand", (x.name,), shape, shape=shape)


def tile(node: Node) -> None:
    """Tile."""
    x, repeats = node.tensor(0), node.integers(1, "repeats")
    if len(repeats) != len(x.shape) or min(repeats, default=1) < 1:
        node.fail(f"repeats {list(repeats)} must be one positive number for each dimension of {list(x.shape)}")
    shape = tuple(size * count for size, count in zip(x.shape, repeats, strict=True))
    node.emit("tile", (x.name,), shape, repeats=repeats)


def resize(node: Node) -> None:
    """Resize, and Upsample and Resize of opset 10, which sample asymmetrically."""
    x = node.tensor(0)
    rank = len(x.shape)
    old = node.opset < 11
    mode = node.choice("mode", "nearest", MODES if not old else ("nearest", "linear"))
    if node.integer("antialias", 0):
        node.fail("antialias 1 is not supported")
    node.choice("keep_aspect_ratio_policy", "stretch", ("stretch",))
    coordinates = "asymmetric" if old else node.choice(
        "coordinate_transformation_mode", "half_pixel", tuple(COORDINATES)
    )  # fmt: skip
    rounding = "floor" if old else node.choice("nearest_mode", "round_prefer_floor", tuple(ROUNDINGS))
    axes = tuple(node.axis(axis, rank) for axis in node.ints("axes", tuple(range(rank))))
    scales, sizes = _scales_and_sizes(node, axes)
    full_scales, full_sizes = [1.0] * rank, list(x.shape)
    for axis, scale, size in zip(axes, scales, sizes, strict=True):
        full_scales[axis], full_sizes[axis] = scale, size
    node.emit(
        "resize", (x.name,), tuple(full_sizes), mode=mode, coordinates=coordinates, rounding=rounding,
        cubic_a=node.number("cubic_coeff_a", -0.75), exclude_outside=bool(node.integer("exclude_outside", 0)),
        scales=tuple(full_scales),
    )  # fmt: skip


def _scales_and_sizes(node: Node, axes: tuple[int, ...]) -> tuple[list[float], list[int]]:
    """Scale and new size of each resized axis, from whichever of the two is given."""
    shape = node.tensor(0).shape
    at = 1 if node.opset < 11 else 2
    if node.op_type == "Resize" and node.has(3):
        sizes = list(node.integers(3, "sizes"))
        if len(sizes) != len(axes):
            node.fail(f"sizes {sizes} must be one number for each of {len(axes)} axes")
        return [size / shape[axis] for axis, size in zip(axes, sizes, strict=True)], sizes
    if node.op_type == "Upsample" and node.opset < 9:
        value = node.attributes.get("scales", [])
        values = np.asarray(value, np.float32)
    else:
        values = node.constant(at, "scales").astype(np.float32)
    scales = [float(value) for value in values.ravel()]
    if len(scales) != len(axes) or not all(0 < scale < 1e6 for scale in scales):
        node.fail(f"scales {scales} must be one positive number for each of {len(axes)} axes")
    return scales, [int(np.float32(shape[axis]) * np.float32(scale)) for axis, scale in zip(axes, scales, strict=True)]


def depth_to_space(node: Node) -> None:
    """DepthToSpace and SpaceToDepth, as reshape, transpose, reshape."""
    shape, block = node.tensor(0).shape, node.integer("blocksize", 0)
    if len(shape) != 4 or block < 1:
        node.fail(f"needs NCHW maps and a positive blocksize, got {list(shape)} and {block}")
    batch, channels, height, width = shape
    if node.op_type == "SpaceToDepth":
        if height % block or width % block:
            node.fail(f"blocksize {block} does not divide the map {list(shape)}")
        rows, columns = height // block, width // block
        wide, perm = (batch, channels, rows, block, columns, block), (0, 3, 5, 1, 2, 4)
        final = (batch, channels * block * block, rows, columns)
    else:
        if channels % (block * block):
            node.fail(f"blocksize {block} does not divide the channels of {list(shape)}")
        depth = channels // (block * block)
        first = node.choice("mode", "DCR", ("DCR", "CRD")) == "DCR"
        wide = (batch, block, block, depth, height, width) if first else (batch, depth, block, block, height, width)
        perm = (0, 3, 4, 1, 5, 2) if first else (0, 1, 4, 2, 5, 3)
        final = (batch, depth, height * block, width * block)
    name = node.emit("reshape", (node.inputs[0],), wide, output=node.internal("blocks"), shape=wide)
    turned = tuple(wide[axis] for axis in perm)
    name = node.emit("transpose", (name,), turned, output=node.internal("turned"), perm=perm)
    node.emit("reshape", (name,), final, shape=final)


SHAPES: dict[str, Callable[[Node], None]] = {
    "Flatten": flatten, "Reshape": reshape, "Squeeze": reshape, "Unsqueeze": reshape, "Identity": identity,
    "Dropout": identity, "Transpose": transpose, "Concat": concat, "Split": split, "Slice": slice_, "Pad": pad,
    "Gather": gather, "Expand": expand, "Tile": tile, "Resize": resize, "Upsample": resize,
    "DepthToSpace": depth_to_space, "SpaceToDepth": depth_to_space,
}  # fmt: skip
