"""tanh and the logistic function as onnxruntime's CPU kernels compute them: quotients of polynomials in float32.

They differ from the correctly rounded values by up to five units in the last place. That matters where a function
saturates: on a symmetric int8 range tanh(8) lies within an ulp of a tie between 127 and 128, and the wrong ulp is
another code. Coefficients: `MlasTanhConstants` and `MlasLogisticConstants` of onnxruntime/core/mlas/lib/tanh.cpp and
logistic.cpp (after Eigen); every step is a fused multiply-add. Measured over 400,001 arguments from -20 to 20 on
onnxruntime 1.32, x86-64: no difference in tanh, one in the logistic function
(tests/unit/ir/test_rational.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

#: Arguments beyond have the value at the bound.
_TANH_BOUND, _LOGISTIC_BOUND = 9.0, 18.0
#: Coefficients from the highest power of x squared down to the constant.
_TANH_ODD = (
    -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08, 1.48572235717979e-05,
    6.37261928875436e-04, 4.89352455891786e-03,
)  # fmt: skip
_TANH_EVEN = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
_LOGISTIC_ODD = (
    4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05, 8.51377133304701e-03, 2.48287947061529e-01,
)  # fmt: skip
_LOGISTIC_EVEN = (
    6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06, 1.70198817374094e-03, 1.16817656904453e-01,
    9.93151921023180e-01,
)  # fmt: skip


def tanh(x: npt.NDArray[Any]) -> FloatArray:
    """tanh of float32 values, any shape."""
    return _quotient(x, _TANH_BOUND, _TANH_ODD, _TANH_EVEN)


def logistic(x: npt.NDArray[Any]) -> FloatArray:
    """1 / (1 + exp(-x)) of float32 values, any shape, in 0 .. 1."""
    half = _quotient(x, _LOGISTIC_BOUND, _LOGISTIC_ODD, _LOGISTIC_EVEN)
    return np.asarray(np.clip(half + np.float32(0.5), np.float32(0), np.float32(1)), np.float32)


def _quotient(x: npt.NDArray[Any], bound: float, odd: tuple[float, ...], even: tuple[float, ...]) -> FloatArray:
    """x * odd(x * x) / even(x * x), for x clipped to +-bound."""
    inside = np.clip(np.asarray(x, np.float32), np.float32(-bound), np.float32(bound))
    square = inside * inside
    return np.asarray((_polynomial(square, odd) * inside) / _polynomial(square, even), np.float32)


def _polynomial(x: FloatArray, coefficients: tuple[float, ...]) -> FloatArray:
    """Horner's rule with fused multiply-adds: a product of two float32 is exact in float64."""
    wide = x.astype(np.float64)
    result = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = (result * wide + np.float64(np.float32(coefficient))).astype(np.float32)
    return result
