"""NIR files that are broken, hostile or use what we lack: one clear line, nothing outside the file touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from dse.core.errors import ModelError
from workloads.nir import NirFrontend, container, read_nir


def good(path: Path) -> Path:
    neuron = nir.LIF(np.ones(3), np.ones(3), np.zeros(3), np.ones(3))
    nodes = {"input": nir.Input(np.array([2])), "w": nir.Affine(np.ones((3, 2)), np.zeros(3)), "n": neuron,
             "output": nir.Output(np.array([3]))}  # fmt: skip
    nir.write(path / "net.nir", nir.NIRGraph(nodes, [("input", "w"), ("w", "n"), ("n", "output")]))
    return path / "net.nir"


def changed(path: Path, change: Callable[[Any], None]) -> Path:
    with h5py.File(good(path), "a") as file:
        change(file["node"])
    return path / "net.nir"


def replaced(name: str, value: Any) -> Callable[[Any], None]:
    def change(node: Any) -> None:
        if name in node:
            del node[name]
        if value is not None:
            node[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced("nodes/n/type", b"Izhikevich"), r"node 'n' has the unsupported type 'Izhikevich'; supported: Input"),
        (replaced("nodes/n/tau", None), r"node 'n' \(LIF\) is malformed"),
        (replaced("nodes/n/tau", np.ones(2)), r"node 'n' \(LIF\) is malformed: All parameters"),
        (replaced("nodes/n/tau", -np.ones(3)), r"node 'n' \(LIF\) has tau -1 s; time constants are positive"),
        (replaced("nodes/n/tau", np.full(3, np.nan)), r"'node/nodes/n/tau' holds values that are not finite"),
        (replaced("nodes/w/weight", np.ones((3, 4))), r"'w' \(Affine\) has weights of shape \[3, 4\] for an input of"),
        (replaced("nodes/w/bias", np.ones(5)), r"'w' \(Affine\) has a bias of 5 values for 3 outputs"),
        (replaced("nodes/surprise", np.ones(5)), r"node 'surprise' has the unsupported type None"),
        (replaced("edges", None), r"node '\w+' \(\w+\) has no edge into it"),
        (replaced("nodes", None), r"the graph needs groups 'nodes' and 'edges'"),
        (replaced("nodes/input/shape", np.array([0])), r"Input 'input' has shape \[0\]"),
        (replaced("nodes/input", None), r"names no node; did you mean|names no node;"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_nir(changed(tmp_path, change))


def test_links_out_of_the_file_are_not_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["weight"] = np.ones((3, 2))

    def link(node: Any) -> None:
        del node["nodes/w/weight"]
        node["nodes/w/weight"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "weight")

    with pytest.raises(ModelError, match="'node/nodes/w/weight' is a link to elsewhere, which is not followed"):
        read_nir(changed(tmp_path, link))

    def soft(node: Any) -> None:
        node["nodes/w/again"] = h5py.SoftLink("/node/nodes")

    with pytest.raises(ModelError, match="is a link to elsewhere"):
        read_nir(changed(tmp_path, soft))

    def storage(node: Any) -> None:
        del node["nodes/w/bias"]
        node.create_dataset("nodes/w/bias", (3,), "f4", external=[(str(tmp_path / "secret.h5"), 0, 12)])

    with pytest.raises(ModelError, match="keeps its data in another file"):
        read_nir(changed(tmp_path, storage))


def test_claims_of_size_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    def bomb(node: Any) -> None:
        del node["nodes/w/weight"]
        node.create_dataset("nodes/w/weight", (1 << 20, 1 << 20), "f8", chunks=(1024, 1024), compression="gzip")

    with pytest.raises(ModelError, match=f"at most {container.MAX_ELEMENTS:,} are read"):
        read_nir(changed(tmp_path, bomb))


def test_a_graph_inside_itself_ends(tmp_path: Path) -> None:
    def loop(node: Any) -> None:
        node["nodes/again"] = node

    with pytest.raises(ModelError, match="nested deeper than"):
        read_nir(changed(tmp_path, loop))


def test_a_loop_without_a_neuron_is_named(tmp_path: Path) -> None:
    nodes = {"input": nir.Input(np.array([2])), "a": nir.Linear(np.eye(2)), "b": nir.Linear(np.eye(2)),
             "output": nir.Output(np.array([2]))}  # fmt: skip
    edges = [("input", "a"), ("a", "b"), ("b", "a"), ("b", "output")]
    nir.write(tmp_path / "net.nir", nir.NIRGraph(nodes, edges, type_check=False))
    with pytest.raises(ModelError, match="the loop a -> b -> a holds no neuron"):
        read_nir(tmp_path / "net.nir")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_files_cut_off_end_in_one_line(tmp_path: Path, share: float) -> None:
    data = good(tmp_path).read_bytes()
    (tmp_path / "net.nir").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelError, match=r"net\.nir: is not a NIR file, or is damaged"):
        read_nir(tmp_path / "net.nir")


def test_damaged_bytes_never_end_in_anything_but_a_model_error(tmp_path: Path) -> None:
    data = good(tmp_path).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            broken[place] = int(rng.integers(0, 256))
        (tmp_path / "net.nir").write_bytes(broken)
        try:
            read_nir(tmp_path / "net.nir")
        except ModelError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("net.nir?dt=0", "dt='0' is not a time step"),
        ("net.nir?dt=soon", "dt='soon' is not a time step"),
        ("net.nir?reset=hard", "reset='hard' is not possible"),
        ("net.nir?rest=value", "'rest' is no option of a NIR file; did you mean 'reset'"),
        ("other.nir", "the model file does not exist"),
    ],
)
def test_options_and_names_that_do_not_exist(tmp_path: Path, reference: str, message: str) -> None:
    good(tmp_path)
    with pytest.raises(ModelError, match=message):
        NirFrontend().load(reference, tmp_path, {})


def test_options_reach_the_graph_and_dimensions_are_refused(tmp_path: Path) -> None:
    good(tmp_path)
    graph = NirFrontend().load("net.nir?dt=0.01&reset=subtract", tmp_path, {})
    assert "dt=0.01" in graph.source
    assert "reset=subtract" in graph.source
    assert graph["n.keep"].data is not None
    np.testing.assert_allclose(graph["n.keep"].data, 0.99)
    with pytest.raises(ModelError, match="no dimension 'N'"):
        NirFrontend().load("net.nir", tmp_path, {"N": 1})
