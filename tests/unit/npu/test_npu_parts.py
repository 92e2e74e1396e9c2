"""Parts of the NPU family: rolled queues, encoded weights, cycles of a tile, prices, presets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import yaml
from builders import random_layer
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_designs import random_npu

from accelerators.npu import NpuAccelerator
from accelerators.npu import family as family_module
from accelerators.npu.cost import area_um2, check_hardware, energy, hardware_cost, unit_energies
from accelerators.npu.hardware import NpuHardware, machine
from accelerators.npu.roll import roll
from accelerators.npu.timing import DIAGONAL, SPARSE, array_steps, constant_cycles, contiguous_runs
from accelerators.npu.weights import code_lengths, is_sparse
from dse.backend import Decisions
from dse.core.errors import InfeasibleError, UsageError
from dse.program.tile.expand import effective, expand
from dse.program.tile.isa import Descriptor, Opcode

FAMILY = NpuAccelerator()


def executed(queue: tuple[Descriptor, ...], hw: NpuHardware) -> list[tuple[object, ...]]:
    """What a queue executes: opcode, fields without addresses, effective addresses, in order."""
    whole = (*queue, Descriptor(Opcode.HALT))
    expanded = expand(whole)
    addresses = [iter(zip(*a.values(), strict=True)) for a in effective(expanded, whole, machine(hw))]
    result = []
    for position in expanded.descriptor:
        d = whole[position]
        rest = sorted((k, v) for k, v in d.values.items() if not k.endswith("_base") and "_inc" not in k)
        result.append((d.op, *rest, *next(addresses[position])))
    return result


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 4), st.sampled_from([0, 8, 64]), st.integers(0, 2)),
        min_size=1,
        max_size=6,
    )
)
def test_rolled_queues_execute_the_same_descriptors_at_the_same_addresses(
    blocks: list[tuple[int, int, int, int]],
) -> None:
    queue = []
    for repeats, body, step, size in blocks:
        for i in range(repeats * 3):
            for j in range(body):
                address = 1000 * j + i * step
                fields = {"n0": 1, "n1": 1, "n2": 1 + size, "run_bytes": 1 + j % 2, "ext_base": address}
                queue.append(Descriptor(Opcode.LOAD, {k: v for k, v in fields.items() if v}))
    hw = NpuHardware()
    rolled = roll(queue)
    assert executed(rolled, hw) == executed(tuple(queue), hw)
    assert len(rolled) <= len(queue)


def test_nested_repetitions_become_nested_loops() -> None:
    queue = [
        Descriptor(Opcode.LOAD, {"n0": 1, "n1": 1, "n2": 1, "run_bytes": 1, "ext_base": 1 + 5000 * i + 8 * j})
        for i in range(10)
        for j in range(20)
    ]
    assert [d.op for d in roll(queue)] == [Opcode.LOOP, Opcode.LOOP, Opcode.LOAD]


@pytest.mark.parametrize("seed", range(8))
def test_code_lengths_are_a_prefix_code_within_a_bit_of_the_entropy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.clip(np.rint(rng.normal(0, 3 * (seed + 1), 4000)), -128, 127).astype(np.int8)
    lengths = code_lengths(values)
    symbols, counts = np.unique(values, return_counts=True)
    used = lengths[symbols.astype(int) + 128]
    assert math.isclose(float((2.0**-used).sum()), 1.0) or (2.0**-used).sum() < 1
    share = counts / counts.sum()
    entropy = -float(share @ np.log2(share))
    assert entropy <= float(share @ used) <= entropy + 1
    assert not lengths[np.setdiff1d(np.arange(256), symbols.astype(int) + 128)].any()


def test_a_single_value_takes_a_bit_and_rare_values_do_not_outgrow_the_decoder() -> None:
    assert code_lengths(np.full(10, 7, np.int8)).sum() == 1
    fibonacci = [1, 1]
    while len(fibonacci) < 24:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    values = np.repeat(np.arange(24), fibonacci).astype(np.int8)
    assert set(code_lengths(values)[128:152]) == {5}


def test_two_zeros_in_four_are_found_along_input_channels() -> None:
    weights = np.ones((2, 8, 3, 3), np.int8)
    assert not is_sparse(weights)
    weights[:, 0::4] = weights[:, 2::4] = 0
    assert is_sparse(weights)
    weights[1, 2, 2, 2] = 1
    assert not is_sparse(weights)


def matmul(**fields: int) -> Descriptor:
    base = {"n_blocks": 2, "n_rows": 3, "n_columns": 3, "n_channels": 4, "height": 5, "width": 7}
    return Descriptor(Opcode.MATMUL, {**base, **fields})


def test_steps_of_a_tile_are_counted_lane_by_lane() -> None:
    hw = NpuHardware(input_channels=8, output_channels=8, pixels=2, weight_banks=8, depthwise_taps=4)
    assert array_steps(matmul(), hw) == 2 * 9 * 4 * 18
    assert array_steps(matmul(flags=SPARSE), hw) == 2 * 9 * 2 * 18
    assert array_steps(matmul(flags=DIAGONAL), hw) == 2 * 3 * 18
    two_cores = hw.model_copy(update={"cores": 2})
    assert array_steps(matmul(), two_cores) == 9 * 4 * 18
    # one pixel: the weights of the next fold bound the fold
    narrow = hw.model_copy(update={"weight_banks": 2})
    assert array_steps(matmul(height=1, width=1), narrow) == 2 * 9 * 4 * 4


def test_constants_take_the_longer_of_memory_and_decoder() -> None:
    hw = NpuHardware(constant_bytes_per_cycle=2, weights_decoded_per_cycle=4, constant_latency_cycles=10)
    assert constant_cycles(100, 100, hw) == 50 + 11
    assert constant_cycles(100, 400, hw) == 100 + 11


def test_runs_that_follow_each_other_are_one_burst() -> None:
    fields = {"n0": 3, "n1": 4, "n2": 2, "run_bytes": 8, "ext_stride2": 8, "ext_stride1": 16, "ext_stride0": 100}
    assert contiguous_runs(Descriptor(Opcode.LOAD, fields)) == (3, 64)
    assert contiguous_runs(Descriptor(Opcode.LOAD, {**fields, "ext_stride1": 17})) == (12, 16)


@pytest.mark.parametrize("name", sorted(FAMILY.presets()))
def test_presets_can_be_built_and_every_field_says_why(name: str) -> None:
    hw = NpuHardware.model_validate(FAMILY.presets()[name])
    assert check_hardware(hw) == []
    folder = family_module.resources.files("accelerators.npu") / "presets"
    text = (folder / f"{name}.yaml").read_text()
    fields = [line for line in text.split("hardware:\n")[1].splitlines() if line.strip()]
    assert all("#" in line and len(line.split("#")[1].strip()) > 3 for line in fields)
    assert yaml.safe_load(text)["source"]
    macs = [int(part) for part in name.split("_") if part.isdigit()]
    assert hw.macs == (macs[0] if macs else hw.macs)


def test_published_sizes_of_the_presets_hold() -> None:
    presets = {name: NpuHardware.model_validate(values) for name, values in FAMILY.presets().items()}
    # 102.4 GOPS at 200 MHz (TVM), 4 TOPS (Coral)
    assert presets["vdla"].macs * 2 * presets["vdla"].clock_mhz * 1e-3 == 102.4
    assert presets["edge_tpu_like"].macs * 2 * presets["edge_tpu_like"].clock_mhz * 1e-6 == pytest.approx(4, rel=0.05)
    assert sum(name.startswith("nvdla_") for name in presets) == 7


@pytest.mark.parametrize("seed", range(6))
def test_more_of_a_knob_costs_area_and_energy_is_the_sum_of_counts_times_units(seed: int) -> None:
    hw = random_npu(np.random.default_rng(seed), depthwise_taps=0)
    area = sum(area_um2(hw).values())
    for name, value in (("cores", 2 * hw.cores), ("pixels", 2 * hw.pixels), ("weight_kib", 64.0)):
        assert sum(area_um2(hw.model_copy(update={name: value})).values()) > area
    cost = hardware_cost(hw)
    assert cost.area_mm2 == pytest.approx(area * 1e-6)
    assert all(value >= 0 for value in cost.static_mw.values())
    counts = {event: index + 1 for index, event in enumerate(unit_energies(hw))}
    expected = sum(counts[event] * sum(parts.values()) for event, parts in unit_energies(hw).items())
    assert sum(energy(counts, hw).values()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"vector_lanes": 3}, "vector_lanes"),
        ({"feature_bytes_per_cycle": 6}, "feature_bytes_per_cycle"),
        ({"depthwise_taps": 9}, "depthwise_taps"),
        ({"clock_mhz": 4000}, "clock_mhz"),
        ({"activation_kib": 4096}, "activation_spad words"),
        ({"vdd": 0.1}, "vdd"),
        ({"feature_storage": "ddr3", "constant_storage": "sram"}, "constant_storage"),
    ],
)
def test_designs_that_cannot_be_built_name_the_limit(changes: dict[str, object], limit: str) -> None:
    hw = NpuHardware.model_validate(changes)
    assert limit in [violation.limit for violation in check_hardware(hw)]
    with pytest.raises(InfeasibleError, match=limit.split()[0]):
        FAMILY.lower(random_layer(np.random.default_rng(0)), hw, Decisions())


def test_wrong_decisions_are_named() -> None:
    graph = random_layer(np.random.default_rng(0))
    with pytest.raises(UsageError, match="latency_hiding"):
        FAMILY.lower(graph, NpuHardware(), Decisions({"latency_hidin": True}))
    with pytest.raises(UsageError, match="true or false"):
        FAMILY.lower(graph, NpuHardware(), Decisions({"latency_hiding": 3}))
    with pytest.raises(InfeasibleError, match="dma_channels"):
        FAMILY.lower(graph, NpuHardware(dma_channels=2), Decisions({"latency_hiding": False}))
