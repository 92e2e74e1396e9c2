"""Compiler passes on graphs: what turns a network as read into the integer network that hardware runs."""

from dse.compiler.accuracy import LayerNoise, accuracy, float_accuracy, layer_noise, sqnr_db
from dse.compiler.calibration import calibration_images
from dse.compiler.calibration_ranges import METHODS, calibrate, observe_ranges
from dse.compiler.equalize import equalize
from dse.compiler.fold import fold_batch_norm, fold_constants, fuse_bias
from dse.compiler.fuse import fuse_activation, name_global_pools, prepare, remove_identity
from dse.compiler.quantize import Recipe, calibrated_ranges, quantize, quantize_with_ranges, strip_softmax
from dse.compiler.quantize_boundary import with_float_boundary
from dse.compiler.quantize_kinds import is_quantized, require_activation_bits, require_quantizable, weight_tensors
from dse.compiler.quantize_mixed import assign_weight_bits, weight_bits_total

__all__ = [
    "METHODS", "LayerNoise", "Recipe", "accuracy", "assign_weight_bits", "calibrate", "calibrated_ranges",
    "calibration_images", "equalize", "float_accuracy", "fold_batch_norm", "fold_constants", "fuse_activation",
    "fuse_bias", "is_quantized", "layer_noise", "name_global_pools", "observe_ranges", "prepare", "quantize",
    "quantize_with_ranges", "remove_identity", "require_activation_bits", "require_quantizable", "sqnr_db",
    "strip_softmax", "weight_bits_total", "weight_tensors", "with_float_boundary",
]  # fmt: skip
