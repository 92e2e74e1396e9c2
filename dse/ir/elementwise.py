"""Elementwise functions of the reference: activations, arithmetic with broadcasting, comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import special

from dse.ir.rational import logistic, tanh
from dse.ir.windows import Array

Attributes = Mapping[str, Any]
_SQRT_HALF, _SQRT_2_OVER_PI, _GELU_CUBIC = 0.7071067811865476, 0.7978845608028654, 0.044715


def _gelu(x: Array, attributes: Attributes) -> Array:
    if attributes.get("approximate", "none") == "tanh":
        inner = x.dtype.type(_SQRT_2_OVER_PI) * (x + x.dtype.type(_GELU_CUBIC) * x * x * x)
        return np.asarray(x.dtype.type(0.5) * x * (1 + tanh(inner)))
    return np.asarray(x.dtype.type(0.5) * x * (1 + special.erf(x * x.dtype.type(_SQRT_HALF))), x.dtype)


def _exponential(x: Array, alpha: float) -> Array:
    """alpha * (exp(x) - 1) of the negative values, 0 elsewhere."""
    return np.asarray(x.dtype.type(alpha) * np.expm1(np.minimum(x, x.dtype.type(0))))


def _selu(x: Array, attributes: Attributes) -> Array:
    positive = np.maximum(x, x.dtype.type(0))
    return np.asarray(x.dtype.type(attributes["gamma"]) * (positive + _exponential(x, attributes["alpha"])))


def _hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    return np.asarray(np.clip(x * x.dtype.type(alpha) + x.dtype.type(beta), x.dtype.type(0), x.dtype.type(1)))


def _clip(x: Array, attributes: Attributes) -> Array:
    # bounds of infinity have no integer form
    low, high = attributes["low"], attributes["high"]
    lower = None if np.isinf(low) else x.dtype.type(low)
    upper = None if np.isinf(high) else x.dtype.type(high)
    return x if lower is None and upper is None else np.clip(x, lower, upper)


#: kind -> function(x, attributes); floats stay float32, integers stay what they are.
UNARY: dict[str, Callable[[Array, Attributes], Array]] = {
    "relu": lambda x, _: np.maximum(x, x.dtype.type(0)),
    "clip": _clip,
    "leaky_relu": lambda x, a: np.where(x < 0, x * x.dtype.type(a["alpha"]), x),
    "elu": lambda x, a: np.maximum(x, x.dtype.type(0)) + _exponential(x, a["alpha"]),
    "selu": _selu,
    "sigmoid": lambda x, _: logistic(x),
    "hard_sigmoid": lambda x, a: _hard_sigmoid(x, a["alpha"], a["beta"]),
    "hard_swish": lambda x, _: x * _hard_sigmoid(x, 1 / 6, 0.5),
    "softplus": lambda x, _: np.logaddexp(x, x.dtype.type(0)),
    "softsign": lambda x, _: x / (1 + np.abs(x)),
    "gelu": _gelu,
    "tanh": lambda x, _: tanh(x),
    "erf": lambda x, _: np.asarray(special.erf(x), x.dtype),
    "exp": lambda x, _: np.exp(x),
    "log": lambda x, _: np.log(x),
    "sqrt": lambda x, _: np.sqrt(x),
    "reciprocal": lambda x, _: x.dtype.type(1) / x,
    "abs": lambda x, _: np.abs(x),
    "neg": lambda x, _: np.negative(x),
    "sign": lambda x, _: np.sign(x),
    "floor": lambda x, _: np.floor(x),
    "ceil": lambda x, _: np.ceil(x),
    "round": lambda x, _: np.rint(x),
    "sin": lambda x, _: np.sin(x),
    "cos": lambda x, _: np.cos(x),
    "logical_not": lambda x, _: np.logical_not(x),
}


def divide(x: Array, y: Array) -> Array:
    """x / y; integers truncate towards zero.

    Raises
    ------
    ValueError: an integer divisor is zero.
    """
    if x.dtype.kind == "f":
        return np.asarray(x / y)
    if not y.all():
        raise ValueError("division by zero")
    return np.asarray(np.sign(x) * np.sign(y) * (np.abs(x) // np.abs(y))).astype(x.dtype)


def _modulo(x: Array, y: Array) -> Array:
    if x.dtype.kind == "f":
        return np.asarray(np.fmod(x, y))
    if not y.all():
        raise ValueError("division by zero")
    return np.asarray(np.mod(x, y))


#: kind -> function(x, y) with broadcasting.
BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": divide,
    # the exponent may be of another type: the result keeps the base's
    "pow": lambda x, y: np.asarray(np.power(x, y), x.dtype),
    "mod": _modulo,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "prelu": lambda x, slope: np.where(x < 0, x * slope, x),
    "equal": np.equal,
    "less": np.less,
    "less_or_equal": np.less_equal,
    "greater": np.greater,
    "greater_or_equal": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}
