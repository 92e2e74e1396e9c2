"""One network on several cores: splits, channels and DRAM parts, from the function and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dse.cli.simulate import command
from dse.core.errors import UsageError
from dse.flow.accelerator import Design, resolve_accelerator
from dse.flow.multicore import balanced_stages, simulate_cores
from dse.flow.simulate import simulate
from dse.flow.workload import load_workload
from dse.ir import Graph
from dse.sim import simulate_a


@pytest.fixture(scope="module")
def network() -> Graph:
    return load_workload("zoo:resnet8", Path())


@pytest.fixture(scope="module")
def design() -> Design:
    return resolve_accelerator("gemmini_16x16")


def test_sharing_one_channel_costs_and_more_channels_help(network: Graph, design: Design) -> None:
    one = simulate_cores(network, design, 1)
    assert one.speedup == 1
    assert one.single_cycles == one.timeline.total_cycles >= simulate(network, design).metrics.cycles
    few, many = simulate_cores(network, design, 4), simulate_cores(network, design, 4, channels=4)
    assert 1 < few.speedup < many.speedup <= 4
    contention = [sum(cycles["contention"] for cycles in result.losses(0).values()) for result in (few, many)]
    assert contention[0] > contention[1]
    assert max(few.channel_busy().values()) <= 1
    assert list(many.channel_busy()) == ["memory0", "memory1", "memory2", "memory3"]
    for cycles in few.losses(3).values():
        assert sum(cycles.values()) == few.timeline.total_cycles


@pytest.mark.parametrize("options", [{}, {"split": "layers"}, {"dram": "lpddr4_3200"}, {"channels": 2}])
def test_level_b_equals_level_c_with_shared_channels(network: Graph, design: Design, options: dict) -> None:
    b, c = (simulate_cores(network, design, 3, level=level, **options) for level in ("B", "C"))
    np.testing.assert_array_equal(b.timeline.end, c.timeline.end)
    np.testing.assert_array_equal(b.timeline.service, c.timeline.service)
    assert (b.single_cycles, b.speedup) == (c.single_cycles, c.speedup)


def test_a_pipeline_of_layers_is_balanced_and_faster_than_one_core(network: Graph, design: Design) -> None:
    result = simulate_cores(network, design, 3, split="layers", inputs=20, channels=3)
    assert (result.inputs, result.cores) == (20, 3)
    assert 1.5 < result.speedup <= 3
    program = design.family.lower(network, design.hw, design.decisions).task_graph()
    stages = balanced_stages(program, 3)
    assert stages == sorted(stages)
    ends = simulate_a(program).end
    finish = [int(ends[np.isin(program.layer, np.flatnonzero(np.array(stages) <= core))].max()) for core in range(3)]
    longest = max(np.diff([0, *finish]))
    layers = len(stages)
    for first in range(1, layers - 1):  # no other cut is better
        for second in range(first + 1, layers):
            cut = [0, *(int(ends[program.layer < border].max()) for border in (first, second)), finish[-1]]
            assert longest <= max(np.diff(cut))


def test_a_slower_part_makes_the_network_slower(network: Graph, design: Design) -> None:
    port = simulate_cores(network, design, 1)
    assert simulate_cores(network, design, 1, dram="lpddr4_3200").single_cycles > port.single_cycles
    two = simulate_cores(network, design, 2, dram="lpddr4_3200")
    assert two.timeline.contended_cycles().sum() > 0


def test_choices_that_do_not_exist_are_named(network: Graph, design: Design) -> None:
    with pytest.raises(UsageError, match="'layer' is no split over cores; did you mean 'layers'"):
        simulate_cores(network, design, 2, split="layer")
    with pytest.raises(UsageError, match="level 'A' does not model shared channels"):
        simulate_cores(network, design, 2, level="A")
    with pytest.raises(UsageError, match="3 inputs for 2 cores"):
        simulate_cores(network, design, 2, inputs=3)
    with pytest.raises(UsageError, match="'lpddr9' is no DRAM part"):
        simulate_cores(network, design, 2, dram="lpddr9")
    with pytest.raises(UsageError, match="99 cores for a program of"):
        simulate_cores(network, design, 99, split="layers")


def test_the_command_prints_rate_channels_and_losses_and_writes_a_trace(tmp_path: Path) -> None:
    base = ["--workload", "zoo:resnet8", "--accelerator", "gemmini_16x16", "--cores", "2"]
    shown = CliRunner().invoke(command, [*base, "--trace", str(tmp_path / "trace.json")])
    assert shown.exit_code == 0, shown.output
    for word in ("level B", "speed-up", "memory", "core0.matmul", "contention"):
        assert word in shown.output
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {event["args"]["name"] for event in events if event["name"] == "process_name"} >= {"shared resources"}
    printed = json.loads(CliRunner().invoke(command, [*base, "--level", "C", "--json"]).output)
    assert (printed["level"], printed["cores"], printed["inputs"]) == ("C", 2, 2)
    assert printed["first_core_cycles"]["core0.load"]["contention"] > 0


def test_level_b_of_one_core_gives_the_figures_of_level_a(network: Graph, design: Design) -> None:
    a, b = (simulate(network, design, level=level).metrics for level in ("A", "B"))
    assert b.level == "B"
    assert {**b.to_dict(), "level": "A"} == a.to_dict()
