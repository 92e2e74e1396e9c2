"""Sizes of emitted cores: from a design, from tables, and what does not fit them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from neuro_designs import Bits, random_tables

from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.rtl.shape import bits_of, capacity_violations, hardware_shape, image_of, shape_of
from accelerators.neuromorphic.tables import packed

HW = NeuromorphicHardware(neurons_per_core=30, synapse_kib=1, axons_in=20, axons_out=50, lanes=4, profiles=4)


def test_a_designs_core_is_as_large_as_its_parameters_say() -> None:
    shape = hardware_shape(HW, 500)
    assert (shape.neurons, shape.rows, shape.lanes) == (32, 8, 4)
    assert (shape.axons, shape.packets, shape.profiles) == (20, 50, 4)
    assert shape.synapse_words == HW.synapse_bits // (4 * shape.slot_bits)
    # outputs share the axon field and may need more of it than axons do
    assert shape.widths.axon == 9
    assert hardware_shape(HW, 1).widths.axon == 5
    assert shape.synapse_words * shape.lanes * shape.slot_bits <= HW.synapse_bits


@pytest.mark.parametrize("seed", range(6))
def test_every_limit_is_broken_exactly_when_the_tables_exceed_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, 16, 9, 4, "sparse", Bits(16, 8, 0))
    roomy = hardware_shape(HW, 20)
    assert capacity_violations([tables], roomy) == []
    for field, used, name in (
        ("neurons", tables.neurons, "neurons"), ("axons", tables.axons, "axons"),
        ("synapse_words", len(tables.synapse_weight), "synapse words"), ("packets", len(tables.fanout_core), "packets"),
        ("profiles", len(tables.profiles), "profiles"),
    ):  # fmt: skip
        assert capacity_violations([tables], replace(roomy, **{field: used})) == []
        (violation,) = capacity_violations([tables], replace(roomy, **{field: used - 1}))
        assert violation.limit == f"{name} of an emitted core"
        assert (violation.value, violation.bound) == (used, used - 1)
    waits = max([*(p.refractory for p in tables.profiles), int(tables.initial_waiting.max())])
    short = replace(roomy, widths=replace(roomy.widths, refractory=max(1, waits.bit_length() - 1)))
    limits = [violation.limit for violation in capacity_violations([tables], short)]
    assert limits == (["steps a neuron holds still"] if waits > (1 << short.widths.refractory) - 1 else [])


def test_images_hold_the_tables_words_bit_by_bit() -> None:
    tables = random_tables(np.random.default_rng(3), 12, 5, 2, "sparse", Bits(16, 8, 0))
    for shape in (shape_of([tables], 16, 8, 0), hardware_shape(HW.model_copy(update={"lanes": 2}), 9)):
        image, widths = image_of(tables, shape), shape.widths
        assert len(image.synapses) == len(tables.synapse_weight)
        for word, rows, weights in zip(image.synapses, tables.synapse_row, tables.synapse_weight, strict=True):
            for lane in range(2):
                slot = word >> lane * (widths.weight + widths.row)
                weight = slot & ((1 << widths.weight) - 1)
                assert weight - (weight >> 7 << 8) == weights[lane]
                assert slot >> widths.weight & ((1 << widths.row) - 1) == rows[lane]
        for word, neuron in zip(image.fanouts, range(tables.neurons), strict=True):
            first, count = word & ((1 << bits_of(shape.packets)) - 1), word >> bits_of(shape.packets)
            assert first == tables.fanout_start[neuron]
            assert first + count == tables.fanout_start[neuron + 1]


@pytest.mark.parametrize(("value", "bits"), [(4, 2), (-3, 2), (256, 8)])
def test_a_value_too_wide_for_its_field_is_refused(value: int, bits: int) -> None:
    with pytest.raises(ValueError, match=f"{value} does not fit a field of {bits} bits"):
        packed([(value, bits)])
