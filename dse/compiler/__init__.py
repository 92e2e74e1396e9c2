"""Compiler passes on graphs: what turns a network as read into the integer network that hardware runs."""

from dse.compiler.accuracy import accuracy, sqnr_db
from dse.compiler.calibration import calibration_images, observe_ranges
from dse.compiler.fold import fold_batch_norm, fold_constants, fuse_bias
from dse.compiler.fuse import fuse_activation, name_global_pools, prepare, remove_identity
from dse.compiler.quantize import quantize, strip_softmax

__all__ = [
    "accuracy", "calibration_images", "fold_batch_norm", "fold_constants", "fuse_activation", "fuse_bias",
    "name_global_pools", "observe_ranges", "prepare", "quantize", "remove_identity", "sqnr_db", "strip_softmax",
]  # fmt: skip
