"""A user's own samples and labels: one .npz file, or a folder of .npz or .npy files. Nothing in them is executed.

Samples are taken as they are: normalised as the network was trained, in its layout (N, C, H, W for images).
"""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import DseError, nearest
from dse.ir.graph import Graph

FloatArray = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

#: Bytes of all arrays of a data set, unpacked and as float32, and the number of its files.
MAX_BYTES = 1 << 31
MAX_FILES = 10_000
#: The network's only input, and the labels, in a .npz file.
SAMPLES, LABELS = "x", "y"
#: Kinds of NumPy dtypes that become float32: bool, signed, unsigned, float.
_NUMERIC = "biuf"
#: What reading a damaged archive or array may raise.
_DAMAGED = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


class DatasetError(DseError):
    """A data set cannot be read or does not fit the network: names file, array and what is expected."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples by input name, float32, shape (samples, ...), and the right class of each where it is known."""

    inputs: Mapping[str, FloatArray]
    labels: Labels | None
    source: str

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())))

    def digest(self) -> str:
        """SHA-256 over names, shapes and values."""
        state = hashlib.sha256()
        arrays: list[tuple[str, npt.NDArray[Any]]] = sorted(self.inputs.items())
        if self.labels is not None:
            arrays.append((LABELS, self.labels))
        for name, array in arrays:
            state.update(repr((name, array.shape, array.dtype.str)).encode() + np.ascontiguousarray(array).tobytes())
        return state.hexdigest()


def load_dataset(path: Path, graph: Graph) -> Dataset:
    """Read a data set for a network.

    Parameters
    ----------
    path
        A .npz file with `x` (or one array for each input, by its name) and optionally `y`, the classes counted
        from 0; or a folder: of such files, joined in the order of their names; or of x.npy and optionally y.npy;
        or of .npy files that hold one sample or a batch each, without labels.

    Raises
    ------
    DatasetError: missing, damaged, too large, of another shape or type, or with values not finite.
    """
    if not path.exists():
        raise DatasetError(f"{path}: does not exist; a data set is a .npz file or a folder of .npz or .npy files")
    parts = [_matched(arrays, where, graph) for where, arrays in _read(path, graph)]
    if not parts:
        raise DatasetError(f"{path}: holds no .npz and no .npy file")
    labelled = [labels is not None for _, labels in parts]
    if any(labelled) and not all(labelled):
        raise DatasetError(f"{path}: {labelled.count(False)} of {len(parts)} files have no labels {LABELS!r}")
    inputs = {name: np.concatenate([part[name] for part, _ in parts]) for name in graph.inputs}
    labels = np.concatenate([labels for _, labels in parts if labels is not None]) if all(labelled) else None
    return Dataset(inputs, labels, str(path))


def _read(path: Path, graph: Graph) -> Iterator[tuple[str, dict[str, npt.NDArray[Any]]]]:
    """(place, arrays by name) of each part, with one budget of bytes for all of them."""
    budget = _Budget(str(path))
    if path.is_dir():
        files = sorted(item for item in path.iterdir() if item.suffix.lower() in (".npz", ".npy"))
        if len(files) > MAX_FILES:
            raise DatasetError(f"{path}: holds {len(files)} files, at most {MAX_FILES} are read; join them")
        kinds = {item.suffix.lower() for item in files}
        if len(kinds) > 1:
            raise DatasetError(f"{path}: holds .npz and .npy files; keep one kind")
        if kinds == {".npy"}:
            yield from _npy_folder(files, graph, budget)
            return
    elif path.suffix.lower() == ".npz":
        files = [path]
    else:
        raise DatasetError(f"{path}: is no .npz file; numpy.savez('samples.npz', x=samples, y=labels) writes one")
    for file in files:
        yield str(file), _read_npz(file, budget)


def _npy_folder(files: list[Path], graph: Graph, budget: _Budget) -> Iterator[tuple[str, dict[str, npt.NDArray[Any]]]]:
    named = {file.stem: file for file in files}
    if SAMPLES in named and set(named) <= {SAMPLES, LABELS}:
        yield str(files[0].parent), {name: _read_npy(file, budget) for name, file in named.items()}
        return
    rank = len(graph[graph.inputs[0]].shape)
    for file in files:
        array = _read_npy(file, budget)
        yield str(file), {SAMPLES: array[None] if array.ndim == rank - 1 else array}


class _Budget:
    """Bytes that a data set may still take in memory."""

    def __init__(self, source: str) -> None:
        self._source, self._left = source, MAX_BYTES

    def spend(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._left -= math.prod(shape) * max(dtype.itemsize, 4)
        if self._left < 0:
            raise DatasetError(f"{self._source}: holds more than {MAX_BYTES >> 20} MiB of samples; take a part of them")


def _read_npy(path: Path, budget: _Budget) -> npt.NDArray[Any]:
    try:
        with path.open("rb") as stream:
            return _read_array(stream, path.stat().st_size, str(path), budget)
    except _DAMAGED as error:
        raise DatasetError(f"{path}: is no readable .npy file: {error}") from error


def _read_npz(path: Path, budget: _Budget) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [item for item in archive.infolist() if item.filename.endswith(".npy")]
            if len(members) > MAX_FILES:
                raise DatasetError(f"{path}: holds {len(members)} arrays, at most {MAX_FILES} are read")
            for item in members:
                name = item.filename.removesuffix(".npy")
                with archive.open(item) as stream:
                    arrays[name] = _read_array(stream, item.file_size, f"{path}: array {name!r}", budget)
    except _DAMAGED as error:
        raise DatasetError(f"{path}: is no readable .npz file: {error}") from error
    return arrays


def _read_array(stream: IO[bytes], size: int, where: str, budget: _Budget) -> npt.NDArray[Any]:
    """One array; its header is believed only as far as the file is long."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise DatasetError(f"{where}: is of format {version}, which holds no plain numbers")
    shape, _, dtype = readers[version](stream)
    if dtype.kind not in _NUMERIC:
        raise DatasetError(f"{where}: holds {dtype}; only numbers are read, never objects")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size:
        raise DatasetError(f"{where}: claims shape {list(shape)} of {dtype}, more than its {size} bytes; it is cut off")
    budget.spend(shape, dtype)
    stream.seek(0)
    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def _matched(
    arrays: Mapping[str, npt.NDArray[Any]], where: str, graph: Graph
) -> tuple[dict[str, FloatArray], Labels | None]:
    """Inputs of the network by name, and labels, out of the arrays of one file."""
    single = len(graph.inputs) == 1
    inputs: dict[str, FloatArray] = {}
    for name in graph.inputs:
        key = SAMPLES if single and name not in arrays else name
        if key not in arrays:
            wanted = f"{SAMPLES!r} or {name!r}" if single else f"one array for each of {', '.join(graph.inputs)}"
            raise DatasetError(f"{where}: has no array {key!r} ({wanted}){nearest(key, arrays)}")
        inputs[name] = _samples(arrays[key], f"{where}: {key!r}", graph[name].shape, name)
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) > 1:
        raise DatasetError(f"{where}: inputs differ in their number of samples: {counts}")
    if LABELS not in arrays or LABELS in graph.inputs:
        return inputs, None
    return inputs, _labels(arrays[LABELS], f"{where}: {LABELS!r}", next(iter(counts.values())))


def _samples(array: npt.NDArray[Any], where: str, shape: tuple[int, ...], name: str) -> FloatArray:
    if array.ndim != len(shape) or array.shape[1:] != shape[1:]:
        wanted = ", ".join(["samples", *map(str, shape[1:])])
        raise DatasetError(f"{where} has shape {list(array.shape)}, input {name!r} takes ({wanted})")
    if len(array) < 1:
        raise DatasetError(f"{where} holds no samples")
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise DatasetError(f"{where} holds values that are not finite in float32")
    return values


def _labels(array: npt.NDArray[Any], where: str, count: int) -> Labels:
    if array.dtype.kind not in "iu":
        raise DatasetError(f"{where} holds {array.dtype}; labels are integers, the class of each sample counted from 0")
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.shape != (count,):
        raise DatasetError(f"{where} has shape {list(array.shape)}; {count} samples need ({count})")
    if int(flat.min()) < 0 or int(flat.max()) >= 2**31:
        raise DatasetError(f"{where} holds a class outside 0..{2**31 - 1}")
    return flat.astype(np.int64)
