"""Peers on graphs, and the table that puts them beside our own platforms."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from dse.cli.main import cli
from dse.compiler import prepare
from dse.core.errors import ModelError, UsageError
from dse.flow.compare import compare
from dse.flow.workload import load_workload
from dse.peers.estimates import PEERS, estimate_peer
from dse.peers.scalesim import compute_mode


@pytest.fixture(scope="module")
def resnet8():
    return prepare(load_workload("zoo:resnet8", Path()))


@pytest.mark.parametrize(
    "spec",
    ["vela:ethos-u55-128", "vela:ethos-u65-256@Ethos_U65_Embedded/Shared_Sram", "nvdla_sheet:256", "scalesim:8x8-os"],
)
def test_no_peer_beats_its_own_peak(resnet8, spec):
    found = estimate_peer(resnet8, spec)
    # Winograd takes 2.25 products for one: the only way past the peak
    speedup = 2.25 if spec.startswith("nvdla") else 1.0
    assert found.cycles * found.macs_per_cycle * speedup >= resnet8.macs
    assert found.latency_ms == pytest.approx(found.cycles / found.clock_mhz / 1000)


def test_scalesim_on_a_graph_is_the_sum_of_its_layers():
    graph = prepare(load_workload("zoo:mlp", Path()))
    layers = [graph[op.inputs[1]].shape for op in graph.ops if op.kind == "gemm"]
    expected = sum(compute_mode(1, depth, outputs, 16, 16, "ws").total_cycles + 1 for outputs, depth in layers)
    assert estimate_peer(graph, "scalesim:16x16-ws").cycles == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("velo:ethos-u55-128", "'velo' is not a peer; did you mean 'vela'"),
        ("vela:ethos-u55-129", "'ethos-u55-129' is not an NPU of Vela; did you mean 'ethos-u55-128'"),
        ("vela:ethos-u55-128@Ethos", "'Ethos' is not a system of Vela"),
        ("nvdla_sheet:100", "'100' is not a number of MACs of NVDLA's table"),
        ("scalesim:16x16-rs", "'16x16-rs' is not an array of SCALE-Sim: write it as 32x32-ws"),
    ],
)
def test_a_wrong_peer_or_setting_names_the_nearest(resnet8, spec, message):
    with pytest.raises(UsageError, match=message):
        estimate_peer(resnet8, spec)


def test_a_network_without_anything_a_peer_counts_is_refused(resnet8):
    import dataclasses

    empty = dataclasses.replace(resnet8, ops=(), outputs=resnet8.inputs)
    for spec in ("vela:ethos-u55-32", "nvdla_sheet:32", "scalesim:4x4-ws"):
        with pytest.raises(ModelError):
            estimate_peer(empty, spec)


def test_our_platforms_and_peers_stand_in_one_table_and_one_that_cannot_run_says_why():
    graph = load_workload("zoo:ds_cnn", Path())
    rows = {row.name: row for row in compare(graph, ["gemmini_16x16", "tpu_v1", "vela:ethos-u55-64"])}
    assert rows["gemmini_16x16"].energy_uj is not None
    assert 0 < rows["gemmini_16x16"].utilization <= 1
    assert rows["vela:ethos-u55-64"].kind == "peer"
    assert rows["vela:ethos-u55-64"].energy_uj is None
    assert rows["tpu_v1"].cycles is not None or "does not fit" in rows["tpu_v1"].reason


def test_nothing_to_compare_and_a_platform_that_is_none_are_usage_errors():
    graph = load_workload("zoo:mlp", Path())
    with pytest.raises(UsageError, match="at least one platform"):
        compare(graph, [])
    with pytest.raises(UsageError, match="'gemini_16x16' is neither"):
        compare(graph, ["gemini_16x16"])


def test_the_command_prints_a_table_and_the_same_figures_as_json():
    arguments = ["compare", "--workload", "zoo:mlp", "gemmini_16x16", "scalesim:16x16-ws"]
    table = CliRunner().invoke(cli, arguments)
    assert table.exit_code == 0
    document = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).output)
    assert [row["name"] for row in document["platforms"]] == ["gemmini_16x16", "scalesim:16x16-ws"]
    for row in document["platforms"]:
        assert f"{round(row['cycles']):,}" in table.output


def test_every_peer_says_how_its_setting_is_written():
    assert all(peer.setting and peer.description for peer in PEERS.values())
