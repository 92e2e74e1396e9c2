"""Data sets: every layout is read, nothing is executed, and what does not fit is named."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.flow import dataset as dataset_module
from dse.flow.dataset import Dataset, DatasetError, load_dataset
from dse.ir import Graph, Op, Tensor

SHAPE = (3, 4, 5)


def network(inputs: tuple[str, ...] = ("image",)) -> Graph:
    """Takes (1, 3, 4, 5) maps."""
    tensors = {name: Tensor(name, (1, *SHAPE)) for name in (*inputs, "y_out")}
    operands = inputs if len(inputs) == 2 else (inputs[0], inputs[0])
    return Graph("net", tensors, (Op("sum", "add", operands, ("y_out",)),), inputs, ("y_out",))


def samples(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


def npy(array: npt.NDArray[Any], *, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def test_an_npz_gives_samples_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, x=samples(6), y=np.arange(6))
    found = load_dataset(path, network())
    np.testing.assert_array_equal(found.inputs["image"], samples(6))
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.count == 6
    np.savez_compressed(path, image=samples(6))
    assert load_dataset(path, network()).labels is None


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16", "float64", "bool", ">f4"])
def test_numbers_of_any_type_become_float32_of_the_same_value(dtype: str, tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 2, (3, *SHAPE)).astype(dtype)
    np.savez(tmp_path / "s.npz", x=np.asfortranarray(array))
    values = load_dataset(tmp_path / "s.npz", network()).inputs["image"]
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, array.astype(np.float64))


def test_networks_of_two_inputs_name_their_arrays(tmp_path: Path) -> None:
    graph = network(("a", "b"))
    np.savez(tmp_path / "s.npz", a=samples(2), b=samples(2, 1))
    assert set(load_dataset(tmp_path / "s.npz", graph).inputs) == {"a", "b"}
    np.savez(tmp_path / "s.npz", a=samples(2), x=samples(2, 1))
    with pytest.raises(DatasetError, match=r"has no array 'b' \(one array for each of a, b\)"):
        load_dataset(tmp_path / "s.npz", graph)
    np.savez(tmp_path / "s.npz", a=samples(2), b=samples(3))
    with pytest.raises(DatasetError, match="differ in their number of samples"):
        load_dataset(tmp_path / "s.npz", graph)


def test_folders_join_their_files_in_the_order_of_names(tmp_path: Path) -> None:
    whole = samples(7)
    for name, part in (("b", slice(3, 7)), ("a", slice(0, 3))):
        np.savez(tmp_path / f"{name}.npz", x=whole[part], y=np.arange(7)[part])
    (tmp_path / "notes.txt").write_text("not read")
    found = load_dataset(tmp_path, network())
    np.testing.assert_array_equal(found.inputs["image"], whole)
    assert found.labels is not None
    assert found.labels.tolist() == list(range(7))
    np.savez(tmp_path / "c.npz", x=whole)
    with pytest.raises(DatasetError, match="1 of 3 files have no labels"):
        load_dataset(tmp_path, network())


def test_folders_of_npy_files_hold_x_and_y_or_samples(tmp_path: Path) -> None:
    whole = samples(4)
    pair, loose = tmp_path / "pair", tmp_path / "loose"
    pair.mkdir()
    loose.mkdir()
    np.save(pair / "x.npy", whole)
    np.save(pair / "y.npy", np.array([[3], [2], [1], [0]], np.uint8))
    found = load_dataset(pair, network())
    assert found.labels is not None
    assert found.labels.tolist() == [3, 2, 1, 0]
    np.save(loose / "1.npy", whole[0])
    np.save(loose / "2.npy", whole[1:])
    loaded = load_dataset(loose, network())
    np.testing.assert_array_equal(loaded.inputs["image"], whole)
    assert loaded.labels is None
    np.savez(loose / "3.npz", x=whole)
    with pytest.raises(DatasetError, match=r"holds \.npz and \.npy files"):
        load_dataset(loose, network())


def test_the_digest_is_of_the_contents(tmp_path: Path) -> None:
    def digest(name: str, **arrays: npt.NDArray[Any]) -> str:
        np.savez(tmp_path / name, **arrays)
        return load_dataset(tmp_path / name, network()).digest()

    first = digest("a.npz", x=samples(2), y=np.array([0, 1]))
    assert first == digest("b.npz", x=samples(2), y=np.array([0, 1], np.uint8))
    assert len({first, digest("c.npz", x=samples(2)), digest("d.npz", x=samples(2), y=np.array([1, 0])),
                digest("e.npz", x=samples(2, 1), y=np.array([0, 1]))}) == 4  # fmt: skip


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": samples(2)[:, :2]}, r"'x' has shape \[2, 2, 4, 5\], input 'image' takes \(samples, 3, 4, 5\)"),
        ({"x": samples(2)[0]}, r"'x' has shape \[3, 4, 5\]"),
        ({"x": samples(0)}, "'x' holds no samples"),
        ({"x": np.full((1, *SHAPE), np.nan)}, "not finite"),
        ({"x": np.full((1, *SHAPE), 1e300)}, "not finite in float32"),
        ({"z": samples(2)}, "has no array 'x' \\('x' or 'image'\\)"),
        ({"x": samples(2), "y": np.array([0.0, 1.0])}, "'y' holds float64; labels are integers"),
        ({"x": samples(2), "y": np.array([0, 1, 2])}, r"'y' has shape \[3\]; 2 samples need \(2\)"),
        ({"x": samples(2), "y": np.array([0, -1])}, "'y' holds a class outside"),
        ({"x": np.full((1, *SHAPE), "text")}, "only numbers are read"),
        ({"x": np.zeros((1, *SHAPE), np.complex64)}, "holds complex64; only numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_named(arrays: dict[str, npt.NDArray[Any]], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(DatasetError, match=message):
        load_dataset(tmp_path / "s.npz", network())


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    trace = tmp_path / "executed"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(trace), "w")

    array = np.array([Bomb()], object)
    np.savez(tmp_path / "s.npz", x=array)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.npy").write_bytes(npy(array, allow_pickle=True))
    for path in (tmp_path / "s.npz", tmp_path / "folder"):
        with pytest.raises(DatasetError, match="never objects"):
            load_dataset(path, network())
    assert not trace.exists()


@pytest.mark.parametrize("shape", ["(1000000000000, 3, 4, 5)", "(-1, 3, 4, 5)", "(2, 3, 4, 5)"])
def test_headers_that_claim_more_than_the_file_holds_are_refused(shape: str, tmp_path: Path) -> None:
    data = npy(samples(1)).replace(b"(1, 3, 4, 5), }".ljust(len(shape) + 4), f"{shape}, }}".encode())
    assert shape.encode() in data
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
        archive.writestr("x.npy", data)
    for path in (tmp_path / "folder", tmp_path / "s.npz"):
        with pytest.raises(DatasetError):
            load_dataset(path, network())


def test_what_unpacks_to_more_than_the_limit_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "MAX_BYTES", 100_000)
    np.savez_compressed(tmp_path / "s.npz", x=np.zeros((500, *SHAPE), np.uint8))
    assert (tmp_path / "s.npz").stat().st_size < 2000
    with pytest.raises(DatasetError, match="holds more than 0 MiB of samples"):
        load_dataset(tmp_path / "s.npz", network())
    parts = tmp_path / "parts"
    parts.mkdir()
    for index in range(3):
        np.savez(parts / f"{index}.npz", x=samples(150))
    with pytest.raises(DatasetError, match="holds more than"):
        load_dataset(parts, network())
    monkeypatch.setattr(dataset_module, "MAX_FILES", 2)
    with pytest.raises(DatasetError, match="holds 3 files, at most 2"):
        load_dataset(parts, network())


def test_paths_that_are_no_data_set_are_refused(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("1,2")
    (tmp_path / "s.npz").write_text("no archive")
    for name, message in (("missing.npz", "does not exist"), ("s.csv", "is no .npz file"), ("s.npz", "no readable")):
        with pytest.raises(DatasetError, match=message):
            load_dataset(tmp_path / name, network())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"holds no \.npz and no .npy file"):
        load_dataset(tmp_path / "empty", network())


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_files_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    stream = io.BytesIO()
    compress = data.draw(st.booleans())
    (np.savez_compressed if compress else np.savez)(stream, x=samples(2), y=np.array([0, 1]))
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(len(content) // 2, len(content)))
    path = tmp_path_factory.mktemp("mutated") / "s.npz"
    path.write_bytes(bytes(content[:cut]))
    try:
        result: Dataset | str = load_dataset(path, network())
    except DatasetError as error:
        result = str(error)
    # any other exception is a failure; an error names the file
    assert isinstance(result, Dataset) or str(path) in result
