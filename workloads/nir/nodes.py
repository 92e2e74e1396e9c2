"""The node types of NIR as ops of one time step.

Neurons become `neuron` ops: with dt the step and tau a time constant, a membrane keeps `1 - dt / tau` of itself
(Euler) or `exp(-dt / tau)`, and takes in the rest, `gain = r * (1 - keep)`, of its input and of its leak potential.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir.windows import output_size

if TYPE_CHECKING:
    from workloads.nir.reader import StepBuilder

Array = npt.NDArray[Any]
#: A delay may last this many steps.
MAX_DELAY_STEPS = 4096


def fail(builder: StepBuilder, name: str, node: Any, message: str) -> NoReturn:
    """Raise ModelError about one node."""
    raise ModelError(f"{builder.source}: node {name!r} ({type(node).__name__}) {message}")


# -- linear nodes ----------------------------------------------------------------------------------------------


def _dense(builder: StepBuilder, name: str, node: Any, x: str) -> str:
    weight = np.asarray(node.weight)
    if weight.ndim != 2 or builder.shape(x) != (weight.shape[1],):
        fail(builder, name, node, f"has weights of shape {list(weight.shape)} for an input of {list(builder.shape(x))}")
    inputs = [x, builder.constant(f"{name}.weight", weight)]
    if hasattr(node, "bias"):
        inputs.append(builder.constant(f"{name}.bias", _sized(builder, name, node, node.bias, weight.shape[0])))
    return builder.emit("gemm", tuple(inputs), name, (1, weight.shape[0]), activation="none")


def _sized(builder: StepBuilder, name: str, node: Any, values: Any, size: int) -> Array:
    array = np.asarray(values, np.float64).reshape(-1)
    if array.size != size:
        fail(builder, name, node, f"has a bias of {array.size} values for {size} outputs")
    return array


def _conv(builder: StepBuilder, name: str, node: Any, x: str) -> str:
    flat = type(node).__name__ == "Conv1d"
    weight, shape = np.asarray(node.weight), builder.shape(x)
    if weight.ndim != (3 if flat else 4) or len(shape) != weight.ndim - 1 or 0 in weight.shape:
        fail(builder, name, node, f"has weights of shape {list(weight.shape)} for an input of {list(shape)}")
    groups = int(node.groups)
    if groups < 1 or shape[0] != weight.shape[1] * groups or weight.shape[0] % groups:
        fail(builder, name, node, f"has {groups} groups, weights of {list(weight.shape)}, {shape[0]} input channels")
    if flat:
        weight, shape = weight[:, :, None, :], (shape[0], 1, shape[1])
        x = builder.emit("reshape", (x,), f"{name}.rows", (1, *shape), shape=(1, *shape))
    kernel = weight.shape[2:]
    strides, dilations = _pair(node.stride, flat, 1), _pair(node.dilation, flat, 1)
    pads = _padding(builder, name, node, kernel, dilations, strides, flat)
    if min(*strides, *dilations) < 1 or min(pads) < 0:
        fail(builder, name, node, f"has stride {strides}, dilation {dilations}, padding {pads}")
    spatial = tuple(
        output_size(shape[i + 1], kernel[i], strides[i], pads[i], pads[i + 2], dilations[i]) for i in (0, 1)
    )
    if min(spatial) < 1:
        fail(builder, name, node, f"has a kernel of {list(kernel)} that does not fit an input of {list(shape[1:])}")
    inputs = (
        x,
        builder.constant(f"{name}.weight", weight),
        builder.constant(f"{name}.bias", _sized(builder, name, node, node.bias, weight.shape[0])),
    )
    result = f"{name}.maps" if flat else name
    builder.emit("conv", inputs, result, (1, weight.shape[0], *spatial), strides=strides, pads=pads,
                 dilations=dilations, groups=groups, activation="none")  # fmt: skip
    if flat:
        shape = (1, weight.shape[0], spatial[1])
        builder.emit("reshape", (result,), name, shape, shape=shape)
    return name


def _pair(value: Any, flat: bool, filler: int) -> tuple[int, int]:
    numbers = [int(item) for item in np.atleast_1d(value)]
    if flat:
        return filler, numbers[0]
    return (numbers[0], numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def _padding(
    builder: StepBuilder, name: str, node: Any, kernel: tuple[int, ...], dilations: tuple[int, int],
    strides: tuple[int, int], flat: bool,
) -> tuple[int, int, int, int]:  # fmt: skip
    if not isinstance(node.padding, str):
        rows, columns = _pair(node.padding, flat, 0)
        return rows, columns, rows, columns
    if node.padding == "valid":
        return 0, 0, 0, 0
    if strides != (1, 1):
        fail(builder, name, node, f"has padding 'same' with stride {strides}; 'same' needs stride 1")
    # an odd remainder goes behind, as PyTorch does it
    total = [dilations[i] * (kernel[i] - 1) for i in (0, 1)]
    before = [size // 2 for size in total]
    return before[0], before[1], total[0] - before[0], total[1] - before[1]


def _scale(builder: StepBuilder, name: str, node: Any, x: str) -> str:
    scale = _fitted(builder, name, node, node.scale, builder.shape(x), "scale")
    return builder.emit("mul", (x, builder.constant(f"{name}.scale", scale[None])), name, (1, *builder.shape(x)))


def _flatten(builder: StepBuilder, name: str, node: Any, x: str) -> str:
    shape = builder.shape(x)
    start, end = int(node.start_dim), int(node.end_dim)
    end = end + len(shape) if end < 0 else end
    if not 0 <= start <= end < len(shape):
        # axes counted with the batch axis, of a vector that needs no flattening
        if len(shape) == 1 and start == 1:
            return x
        fail(builder, name, node, f"flattens axes {start}..{node.end_dim} of an input of {list(shape)}")
    merged = (1, *shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :])
    return builder.emit("reshape", (x,), name, merged, shape=merged)


def _pool(builder: StepBuilder, name: str, node: Any, x: str) -> str:
    shape = builder.shape(x)
    kernel, strides, pads = (_pair(value, False, 1) for value in (node.kernel_size, node.stride, node.padding))
    if len(shape) != 3 or min(*kernel, *strides) < 1 or min(pads) < 0:
        fail(builder, name, node, f"pools {kernel} at stride {strides}, padding {pads}, over {list(shape)}")
    around = (*pads, *pads)
    spatial = tuple(output_size(shape[i + 1], kernel[i], strides[i], pads[i], pads[i]) for i in (0, 1))
    if min(spatial) < 1:
        fail(builder, name, node, f"has a window of {kernel} that does not fit an input of {list(shape[1:])}")
    attributes: dict[str, Any] = {"kernel": kernel, "strides": strides, "pads": around}
    if type(node).__name__ == "SumPool2d":
        return builder.emit("sum_pool", (x,), name, (1, shape[0], *spatial), **attributes)
    return builder.emit("average_pool", (x,), name, (1, shape[0], *spatial), count_include_pad=True, **attributes)


# -- nodes with state ------------------------------------------------------------------------------------------


def _fitted(builder: StepBuilder, name: str, node: Any, values: Any, shape: tuple[int, ...], field: str) -> Array:
    """A parameter in the shape of the input: as it is, of as many values, or one for all."""
    array = np.asarray(values, np.float64)
    if array.size == 1:
        return np.full(shape, array.reshape(-1)[0])
    if array.shape != shape and array.size != int(np.prod(shape)):
        fail(builder, name, node, f"has {field} of shape {list(array.shape)} for an input of {list(shape)}")
    return array.reshape(shape)


def _kept(builder: StepBuilder, name: str, node: Any, tau: Array, field: str) -> Array:
    """What remains of a state after one step."""
    dt = builder.options.dt
    if (tau <= 0).any():
        fail(builder, name, node, f"has {field} {tau.min():g} s; time constants are positive")
    if builder.options.integration == "exponential":
        return np.asarray(np.exp(-dt / tau))
    # float32 parameters: tau may lie a rounding below dt and mean dt
    if (dt > tau * (1 + 1e-5)).any():
        fail(builder, name, node, f"has {field} {tau.min():g} s, shorter than a step of {dt:g} s: Euler integration "
             "would oscillate; give a smaller dt or integration=exponential")  # fmt: skip
    return np.maximum(1 - dt / tau, 0.0)


def _neuron(builder: StepBuilder, name: str, node: Any, x: str) -> str:
    kind, shape = type(node).__name__, builder.shape(x)

    def parameter(field: str) -> Array:
        return _fitted(builder, name, node, getattr(node, field), shape, field)

    keep, gain, offset = _membrane(builder, name, node, parameter)
    names = [builder.constant(f"{name}.keep", keep), builder.constant(f"{name}.gain", gain),
             builder.constant(f"{name}.offset", offset)]  # fmt: skip
    attributes: dict[str, Any] = {}
    if kind in ("IF", "LIF", "CubaLIF", "Threshold"):
        threshold = parameter("threshold" if kind == "Threshold" else "v_threshold")
        subtract = builder.options.reset == "subtract" and kind != "Threshold"
        reset = np.zeros(shape) if kind == "Threshold" else threshold if subtract else parameter("v_reset")
        names += [builder.constant(f"{name}.threshold", threshold), builder.constant(f"{name}.reset", reset)]
        attributes["subtract"] = subtract
    else:
        names += ["", ""]
    if kind.startswith("Cuba"):
        keep_current = _kept(builder, name, node, parameter("tau_syn"), "tau_syn")
        names.append(builder.constant(f"{name}.keep_current", keep_current))
    return builder.emit("neuron", (x, *names), name, (1, *shape), model=kind, **attributes)


def _membrane(
    builder: StepBuilder, name: str, node: Any, parameter: Callable[[str], Array]
) -> tuple[Array, Array, Array]:
    """keep, gain and offset of the membrane potential."""
    kind = type(node).__name__
    if kind == "Threshold":
        ones = np.ones_like(parameter("threshold"))
        return 0 * ones, ones, 0 * ones
    r = parameter("r")
    if kind in ("I", "IF"):
        gain = r * builder.options.dt if builder.options.integrators == "currents" else r
        return np.ones_like(r), gain, np.zeros_like(r)
    cuba = kind.startswith("Cuba")
    field = "tau_mem" if cuba else "tau"
    keep = _kept(builder, name, node, parameter(field), field)
    taken = 1 - keep
    gain, offset = r * taken, parameter("v_leak") * taken
    if cuba:
        gain = gain * parameter("w_in") * (1 - _kept(builder, name, node, parameter("tau_syn"), "tau_syn"))
    return keep, gain, offset


def _delay(builder: StepBuilder, name: str, node: Any, x: str) -> str:
    seconds = _fitted(builder, name, node, node.delay, builder.shape(x), "delay")
    steps = np.rint(seconds / builder.options.dt)
    if steps.min() < 0 or steps.max() > MAX_DELAY_STEPS:
        fail(
            builder, name, node, f"delays by {steps.min():g} to {steps.max():g} steps; 0 to {MAX_DELAY_STEPS} are held"
        )
    return builder.emit("delay", (x, builder.constant(f"{name}.steps", steps)), name, (1, *builder.shape(x)))


CONVERTERS: Mapping[str, Callable[[Any, str, Any, str], str]] = {
    "Affine": _dense, "Linear": _dense, "Conv1d": _conv, "Conv2d": _conv, "Scale": _scale, "Flatten": _flatten,
    "SumPool2d": _pool, "AvgPool2d": _pool, "Delay": _delay,
    **dict.fromkeys(("I", "LI", "IF", "LIF", "CubaLI", "CubaLIF", "Threshold"), _neuron),
}  # fmt: skip
