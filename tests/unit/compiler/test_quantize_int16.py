"""Activations of 16 bits by layer: what becomes int16, what it gains, how it is written, and what refuses it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_networks import RandomCnn, save

from dse.compiler import (
    Recipe,
    accuracy,
    calibrated_ranges,
    calibration_images,
    layer_noise,
    observe_ranges,
    prepare,
    quantize,
    require_activation_bits,
    strip_softmax,
)
from dse.compiler.quantize import activation_quantization, ranged_ops
from dse.core.errors import InfeasibleError, UsageError
from dse.ir import Graph
from dse.ir.quantized import quantization_of
from workloads.onnx import read_model
from workloads.zoo import ZooFrontend


def network(name: str = "tiny_cnn") -> Graph:
    return strip_softmax(prepare(ZooFrontend().load(name, Path("."), {})))


def bits(graph: Graph) -> dict[str, int]:
    """Activation bits of inputs and ops by name."""
    made = {op.name: quantization_of(graph, op.outputs[0]).bits for op in graph.ops}
    return {name: quantization_of(graph, name).bits for name in graph.inputs} | made


def test_all_activations_have_16_bits_on_symmetric_scales() -> None:
    graph = network()
    found = quantize(graph, calibration_images(graph, 4, 0), Recipe(activation_bits=16))
    assert set(bits(found).values()) == {16}
    for op in found.ops:
        of_y = quantization_of(found, op.outputs[0])
        assert (of_y.zero_point, found[op.outputs[0]].dtype) == (0, "int16")
        if op.kind in ("conv", "gemm"):
            assert found[op.inputs[1]].dtype == "int8"
            assert found[op.inputs[2]].dtype == "int32"


def test_one_layer_at_16_bits_changes_it_and_what_keeps_its_scale_only() -> None:
    graph = network()
    layers = [op.name for op in graph.ops if op.kind == "conv"]
    found = bits(quantize(graph, calibration_images(graph, 4, 0), Recipe(output_bits={layers[0]: 16})))
    wide = {name for name, count in found.items() if count == 16}
    follows = {op.name for op in graph.ops if op.kind == "max_pool" and op.inputs[0] == graph.ops[0].outputs[0]}
    assert wide == {layers[0], *follows}
    assert set(found) - wide


@pytest.mark.parametrize("seed", range(4))
def test_16_bits_are_less_noisy_as_a_whole_and_in_the_first_layer(seed: int, tmp_path: Path) -> None:
    """As a whole, and at the first layer, which has the noise of its input, weights and output only."""
    graph = strip_softmax(prepare(read_model(save(RandomCnn(np.random.default_rng(seed)).build(), tmp_path))))
    images, test = calibration_images(graph, 16, 0), calibration_images(graph, 16, 1)
    narrow, wide = (quantize(graph, images, Recipe(activation_bits=count)) for count in (8, 16))
    assert accuracy(graph, wide, "q31", test)["sqnr_db"] > accuracy(graph, narrow, "q31", test)["sqnr_db"]
    first = next(op.name for op in graph.ops if op.kind == "conv")
    before, row = (
        next(item for item in layer_noise(graph, found, "q31", test) if item.name == first) for found in (narrow, wide)
    )
    assert (before.bits, row.bits, row.weight_bits) == (8, 16, 8)
    assert row.weight_sqnr_db == before.weight_sqnr_db
    assert row.sqnr_db > before.sqnr_db
    assert row.high == pytest.approx(-row.low * 32767 / 32768)


def test_modes_agree_at_16_bits() -> None:
    """There is one rule, so the figures of the arithmetics are one."""
    graph = network()
    wide = quantize(graph, calibration_images(graph, 4, 0), Recipe(activation_bits=16))
    test = calibration_images(graph, 4, 1)
    assert accuracy(graph, wide, "ort", test) == accuracy(graph, wide, "q31", test)


def test_mse_leaves_16_bit_tensors_their_whole_range() -> None:
    graph = network()
    images = calibration_images(graph, 8, 0)
    seen = observe_ranges(graph, images)
    narrow = calibrated_ranges(graph, images, Recipe("mse"))
    cut = [op for op in graph.ops if narrow[op.outputs[0]] != seen[op.outputs[0]] and op.name in ranged_ops(graph)]
    assert cut
    wide = calibrated_ranges(graph, images, Recipe("mse", output_bits={cut[0].name: 16}))
    assert {name for name in seen if wide[name] != narrow[name]} == {cut[0].outputs[0]}
    assert wide[cut[0].outputs[0]] == seen[cut[0].outputs[0]]


@pytest.mark.parametrize("extent", [(-3.0, 1.0), (0.0, 5.0), (-2.0, 0.0), (0.5, 0.75)])
def test_16_bits_span_the_range_and_hold_zero(extent: tuple[float, float]) -> None:
    found = activation_quantization(*extent, bits=16)
    assert (found.zero_point, found.bits) == (0, 16)
    assert found.scale[0] * 32767 == pytest.approx(max(abs(extent[0]), abs(extent[1])))
    assert activation_quantization(0.0, 0.0, bits=16).scale == (1.0,)


def test_names_that_take_no_bits_are_refused_with_the_nearest() -> None:
    graph = network()
    images = calibration_images(graph, 2, 0)
    keeps = next(op.name for op in graph.ops if op.name not in ranged_ops(graph))
    with pytest.raises(UsageError, match="takes no activation bits of its own: it keeps the bits of what it reads"):
        quantize(graph, images, Recipe(output_bits={keeps: 16}))
    with pytest.raises(UsageError, match="has no input or op 'inputt'; did you mean 'input'"):
        quantize(graph, images, Recipe(output_bits={"inputt": 16}))
    with pytest.raises(UsageError, match="'input': activations of 12 bits are not supported; choose one of 8, 16"):
        Recipe(output_bits={"input": 12})
    with pytest.raises(UsageError, match="activations of 4 bits are not supported; choose one of 8, 16"):
        Recipe(activation_bits=4)


def test_recurrent_layers_stay_at_8_bits_and_say_so() -> None:
    graph = network("gru_kws")
    images = calibration_images(graph, 2, 0)
    layer = next(op for op in graph.ops if op.kind == "gru")
    with pytest.raises(UsageError, match=rf"{layer.name}.*takes no activation bits of its own: its integers have 8"):
        quantize(graph, images, Recipe(output_bits={layer.name: 16}))
    with pytest.raises(UsageError, match="and recurrent layers take 8; give 8 bits to what comes before"):
        quantize(graph, images, Recipe(activation_bits=16))
    last = next(op for op in reversed(graph.ops) if op.kind == "gemm")
    mixed = quantize(graph, images, Recipe(output_bits={last.name: 16}))
    assert bits(mixed)[last.name] == 16
    assert np.isfinite(accuracy(graph, mixed, "q31", images)["sqnr_db"])


def test_hardware_of_8_bits_refuses_with_the_layer() -> None:
    graph = network()
    layer = next(op.name for op in graph.ops if op.kind == "conv")
    images = calibration_images(graph, 2, 0)
    require_activation_bits(quantize(graph, images), 8, "systolic")
    require_activation_bits(graph, 8, "systolic")
    wide = quantize(graph, images, Recipe(output_bits={layer: 16}))
    require_activation_bits(wide, 16, "a wider array")
    with pytest.raises(InfeasibleError, match=rf"on systolic.*activation of {layer} \(conv\)") as error:
        require_activation_bits(wide, 8, "systolic")
    assert error.value.violations[0].hint == "quantize with activations of 8 bits there"
    with pytest.raises(InfeasibleError, match="activation of input input"):
        require_activation_bits(quantize(graph, images, Recipe(output_bits={"input": 16})), 8, "systolic")
