"""Files that want harm: damaged, oversized, or pointing outside their folder. All end in one ModelError."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_networks import make_model, save, single

from dse.compiler import prepare
from dse.core.errors import ModelError
from dse.ir import Graph
from workloads.onnx import constants as constants_module
from workloads.onnx import read_model
from workloads.onnx import reader as reader_module
from workloads.zoo import small

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as error:
        read_model(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """Cut anywhere: a ModelError and never another exception."""
    data = small.build_mlp().SerializeToString()
    path = tmp_path / "m.onnx"
    read = 0
    for length in range(0, len(data), max(1, len(data) // 400)):
        path.write_bytes(data[:length])
        with contextlib.suppress(ModelError):
            read_model(path)
            read += 1
    assert read == 0


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_never_raise_anything_else(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    data = small.build_tiny_cnn().SerializeToString()
    path = tmp_path / "m.onnx"
    refused = 0
    for _ in range(250):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 6)):
            # the structure lies in the first bytes, behind it come weights
            damaged[rng.randrange(3000 if rng.random() < 0.7 else len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            prepare(read_model(path))
        except ModelError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("content", [b"", b"\0", b"hello world", b"<?xml version='1.0'?>", b"PK\x03\x04" + bytes(100)])
def test_files_that_are_no_onnx(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert "m.onnx" in refusal(path)


def test_missing_files_folders_and_impossible_names(tmp_path: Path) -> None:
    save(single("Relu", (2,)), tmp_path, "resnet.onnx")
    assert "does not exist; did you mean 'resnet.onnx'" in refusal(tmp_path / "resnett.onnx")
    assert "does not exist" in refusal(tmp_path / "nowhere" / "m.onnx")
    (tmp_path / "folder.onnx").mkdir()
    assert "is no ordinary file" in refusal(tmp_path / "folder.onnx")
    assert "m" in refusal(tmp_path / "m\0.onnx")
    assert "File name too long" in refusal(tmp_path / ("m" * 5000))


def test_size_is_checked_before_parsing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of 3 GiB is refused without being read."""
    path = tmp_path / "m.onnx"
    with path.open("wb") as stream:
        stream.truncate(3 << 30)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read although too big"))
    assert "3,221,225,472 bytes" in refusal(path)


@pytest.mark.parametrize("name", [b"the_node", b"Relu", b"batch"])
def test_a_name_that_is_no_text_is_refused(name: bytes, tmp_path: Path) -> None:
    data = single("Relu", ("batch",)).SerializeToString()
    assert name in data
    path = tmp_path / "m.onnx"
    path.write_bytes(data.replace(name, b"\xff\xfe" + name[2:]))
    assert "not UTF-8 text" in refusal(path)


# -- limits --------------------------------------------------------------------------------------------------------


def fill(*shape: int) -> onnx.ModelProto:
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["w"], "fill"), helper.make_node("Add", ["x", "w"], ["y"])]
    return make_model(nodes, {"x": (1,)}, ["y"], {"s": np.array(shape, np.int64)})


@pytest.mark.parametrize(("shape", "words"), [
    ((2**20, 2**20), "elements"), ((2**62, 2**62, 2**62), "elements"), ((2**15, 2**15), "bytes"), ((-1, 4), "negative"),
])  # fmt: skip
def test_huge_fills_are_refused_before_they_are_made(shape: tuple[int, ...], words: str, tmp_path: Path) -> None:
    message = refusal(save(fill(*shape), tmp_path))
    assert words in message
    assert "'w'" in message


def test_a_dimension_bigger_than_its_data_is_refused(tmp_path: Path) -> None:
    model = single("Add", (4,), {"w": np.ones(4)})
    model.graph.initializer[0].dims[0] = 2**40
    assert "'w'" in refusal(save(model, tmp_path))
    model.graph.initializer[0].dims[0] = 1000
    assert "damaged" in refusal(save(model, tmp_path))


def test_constants_count_together_even_when_folding_makes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each addition would take 1 MiB more: the budget (64 MiB here) ends the chain, memory does not."""
    monkeypatch.setattr(constants_module, "MAX_CONSTANT_BYTES", 64 << 20)
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["w0"])]
    nodes += [helper.make_node("Add", [f"w{i}", f"w{i}"], [f"w{i + 1}"], f"n{i}") for i in range(80)]
    nodes.append(helper.make_node("Add", ["x", "w80"], ["y"]))
    model = make_model(nodes, {"x": (1,)}, ["y"], {"s": np.array([2**18])})
    message = refusal(save(model, tmp_path))
    assert "above the limit of 67,108,864" in message
    assert "'w63'" in message or "'w64'" in message


def test_gather_cannot_multiply_data(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["w"]),
        helper.make_node("Gather", ["w", "i"], ["g"], "multiply"),
        helper.make_node("Add", ["x", "g"], ["y"]),
    ]
    weights = {"s": np.array([1, 2**20]), "i": np.zeros(2**14, np.int64)}
    assert "limit" in refusal(save(make_model(nodes, {"x": (1,)}, ["y"], weights), tmp_path))


# -- external data -------------------------------------------------------------------------------------------------


def external(location: str, *, size: int | None = None, offset: int = 0, **more: str) -> onnx.ModelProto:
    """y = x @ w with w stored outside the model file."""
    model = single("MatMul", (2, 3), {"w": WEIGHT})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entries = {
        "location": location,
        "offset": str(offset),
        "length": str(WEIGHT.nbytes if size is None else size),
        **more,
    }
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return model


def weight_of(graph: Graph) -> Any:
    return graph[graph.ops[0].inputs[1]].data


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(b"skip" + WEIGHT.tobytes() + b"more")
    graph = read_model(save(external("data/w.bin", offset=4), tmp_path))
    np.testing.assert_array_equal(weight_of(graph), WEIGHT.T)


@pytest.mark.parametrize("location", ["../w.bin", "a/../../w.bin", "{outside}", "..", "", "C:\\w.bin", "..\\w.bin"])
def test_external_data_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    outside = tmp_path / "w.bin"
    outside.write_bytes(WEIGHT.tobytes())
    assert "inside the model's folder" in refusal(save(external(location.format(outside=outside)), inside))


@pytest.mark.parametrize("link", ["w.bin", "folder"])
def test_external_data_through_a_symbolic_link_is_refused(link: str, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "w.bin").write_bytes(WEIGHT.tobytes())
    if link == "folder":
        os.symlink(outside, inside / "folder")
    else:
        os.symlink(outside / "w.bin", inside / "w.bin")
    message = refusal(save(external("w.bin" if link == "w.bin" else "folder/w.bin"), inside))
    assert "symbolic link" in message


@pytest.mark.parametrize(("model", "words"), [
    (external("missing.bin"), "no external data file 'missing.bin'"),
    (external("w.bin", offset=1000), "shorter"),
    (external("w.bin", offset=-4), "offset -4"),
    (external("w.bin", size=7), "cannot hold its 48 bytes"),
    (external("w.bin", length="many"), "must be integers"),
    (external("folder"), "no external data file"),
])  # fmt: skip
def test_external_data_that_does_not_fit_is_named(model: onnx.ModelProto, words: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "folder").mkdir()
    assert words in refusal(save(model, tmp_path))


def test_external_data_in_constant_nodes_obeys_the_same_rules(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(WEIGHT, "w")
    tensor.CopyFrom(external("../w.bin").graph.initializer[0])
    nodes = [helper.make_node("Constant", [], ["w"], value=tensor), helper.make_node("MatMul", ["x", "w"], ["y"])]
    assert "inside the model's folder" in refusal(save(make_model(nodes, {"x": (2, 3)}, ["y"]), tmp_path))


# -- element types and other forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "word"), [
    (onnx.TensorProto.STRING, "STRING"), (onnx.TensorProto.COMPLEX64, "COMPLEX64"), (77, "77"),
])  # fmt: skip
def test_element_types_that_are_no_numbers_are_refused(kind: int, word: str, tmp_path: Path) -> None:
    model = single("Add", (4,), {"w": np.ones(4)})
    model.graph.initializer[0].data_type = kind
    assert f"element type {word}" in refusal(save(model, tmp_path))


def test_inputs_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    model = single("Relu", (4,))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    assert "'x' must hold floats" in refusal(save(model, tmp_path))
    model.graph.input[0].type.Clear()
    assert "'x' is not a tensor" in refusal(save(model, tmp_path))


def test_duplicates_and_sparse_weights_are_refused(tmp_path: Path) -> None:
    twice = single("Add", (4,), {"w": np.ones(4)})
    twice.graph.initializer.append(twice.graph.initializer[0])
    assert "'w' appears twice" in refusal(save(twice, tmp_path))
    twin = single("Relu", (4,))
    twin.graph.input.append(twin.graph.input[0])
    assert "input 'x' appears twice" in refusal(save(twin, tmp_path))
    sparse = single("Relu", (4,))
    sparse.graph.sparse_initializer.add()
    assert "sparse" in refusal(save(sparse, tmp_path))


def test_a_file_without_opset_or_nodes_is_refused(tmp_path: Path) -> None:
    model = single("Relu", (4,))
    del model.opset_import[:]
    assert "opset" in refusal(save(model, tmp_path))
    model = single("Relu", (4,))
    del model.graph.node[:]
    assert "no network" in refusal(save(model, tmp_path))


def test_the_limits_are_the_documented_ones() -> None:
    assert reader_module.MAX_FILE_BYTES == 2**31 - 1
    assert reader_module.MAX_ELEMENTS == 2**31 - 1
    assert constants_module.MAX_CONSTANT_BYTES == 2**31
