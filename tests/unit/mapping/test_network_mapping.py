"""Whole networks: equal layers are searched once, tables and drawings tell what was found, errors name the level."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from dse.arch import Arch, MemoryLevel
from dse.arch.arch import load_arch
from dse.cli.map import OBJECTIVE_NAMES, command
from dse.core.errors import InfeasibleError, ModelError, UsageError
from dse.flow.map import map_network
from dse.flow.map_data import mapping_data
from dse.ir import Graph, Op, Tensor
from dse.mapping.draw import loop_nest_lines
from dse.mapping.tables import OBJECTIVES

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))
CONV = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1, "activation": "none"}


def network() -> Graph:
    """Two equal convs, a relu between them, and a dense layer on a flattened tensor."""
    shapes = {
        "x": (1, 8, 6, 6), "a": (1, 8, 6, 6), "b": (1, 8, 6, 6), "c": (1, 8, 6, 6), "f": (1, 288), "y": (1, 10),
        "w1": (8, 8, 3, 3), "w2": (8, 8, 3, 3), "w3": (10, 288),
    }  # fmt: skip
    ops = (
        Op("first", "conv", ("x", "w1"), ("a",), CONV),
        Op("between", "relu", ("a",), ("b",)),
        Op("second", "conv", ("b", "w2"), ("c",), CONV),
        Op("flat", "flatten", ("c",), ("f",), {"axis": 1}),
        Op("dense", "gemm", ("f", "w3"), ("y",), {"activation": "none"}),
    )
    tensors = {name: Tensor(name, shape) for name, shape in shapes.items()}
    return Graph("net", tensors, ops, ("x", "w1", "w2", "w3"), ("y",))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_architecture_maps_a_network(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60
    arch = load_arch(path)
    result = map_network(network(), arch, "edp")
    assert [layer.op for layer in result.layers] == ["first", "second", "dense"]
    assert result.unmapped == {"relu": 1, "flatten": 1}
    assert result.macs == 2 * 8 * 8 * 9 * 36 + 2880
    assert all(layer.solution.gap == 0 for layer in result.layers)
    for layer in result.layers:
        assert layer.solution.cost.cycles >= layer.problem.macs / arch.peak_macs_per_cycle


def test_equal_layers_share_one_search_but_keep_their_tensors() -> None:
    first, second, _ = map_network(network(), load_arch(EXAMPLES[0]), "energy").layers
    assert (first.same_as, second.same_as) == ("", "first")
    assert second.solution.mapping is first.solution.mapping
    assert {item.tensor for item in second.solution.cost.traffic} == {"b", "w2", "c"}
    assert second.solution.cost.energy_pj == first.solution.cost.energy_pj


def test_the_plain_data_sums_up_and_is_json() -> None:
    result = map_network(network(), load_arch(EXAMPLES[0]), "latency")
    data = json.loads(json.dumps(mapping_data(result, "net")))
    assert data["cycles"] == sum(layer["cycles"] for layer in data["layers"])
    for layer in data["layers"]:
        parts = [item["energy_pj"] for item in layer["traffic"]]
        assert layer["energy_pj"] == pytest.approx(sum(parts) + layer["mac_energy_pj"])


def test_the_drawing_shows_every_level_and_loop_once() -> None:
    arch = load_arch(EXAMPLES[0])
    solution = map_network(network(), arch, "edp").layers[0].solution
    lines = loop_nest_lines(solution.mapping, arch, solution.cost)
    loops = [loop for part in solution.mapping.temporal for loop in part.loops if loop[1] > 1]
    parallel = [loop for part in solution.mapping.spatial.values() for loop in part if loop[1] > 1]
    assert sum(line.lstrip().startswith("for ") for line in lines) == len(loops)
    assert sum(line.lstrip().startswith("parallel ") for line in lines) == len(parallel)
    for level in arch.levels:
        assert any(line.lstrip().startswith(level.name) for line in lines)
    assert lines[-1].strip() == "multiply-accumulate"


def test_what_cannot_fit_names_level_and_excess() -> None:
    levels = (
        MemoryLevel(name="DRAM", word_bits=8, energy_class="dram"),
        MemoryLevel(name="tiny", word_bits=8, capacity_bytes=2, energy_class="register"),
    )
    arch = Arch(name="small", clock_mhz=100, levels=levels)
    with pytest.raises(InfeasibleError, match="smallest tiles in level tiny: 6 words against a bound of 2 words"):
        map_network(network(), arch, "edp")


def test_a_network_without_anything_to_map_is_refused() -> None:
    tensors = {name: Tensor(name, (1, 4)) for name in "xy"}
    graph = Graph("idle", tensors, (Op("r", "relu", ("x",), ("y",)),), ("x",), ("y",))
    with pytest.raises(ModelError, match="nothing to map"):
        map_network(graph, load_arch(EXAMPLES[0]), "edp")


def test_the_command_offers_the_mappers_objectives() -> None:
    assert OBJECTIVE_NAMES == OBJECTIVES


def test_the_command_prints_tables_drawings_and_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dse.flow.workload.load_workload", lambda *_: network())
    arguments = ["net", "--accelerator", str(EXAMPLES[0])]
    runner = CliRunner()
    text = runner.invoke(command, [*arguments, "--layer", "dense"], catch_exceptions=False).output
    assert "as first" in text
    assert "multiply-accumulate" in text
    data = runner.invoke(command, [*arguments, "--json", "--objective", "traffic"], catch_exceptions=False).stdout
    assert json.loads(data)["objective"] == "traffic"
    for bad, message in (
        (["--layer", "dens"], "did you mean 'dense'"),
        (["--only", "rows"], "is not AXIS=DIM"),
        (["--forbid", "row=C"], "did you mean 'rows'"),
        (["--forbid", "rows=Z"], "'Z' is not a dim of any layer"),
    ):
        with pytest.raises(UsageError, match=message):
            runner.invoke(command, [*arguments, *bad], catch_exceptions=False)
