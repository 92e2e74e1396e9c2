"""Reading the HDF5 of a NIR file, untrusted, into plain nested dictionaries of arrays.

HDF5 can point outside the file (external and soft links, external and virtual storage) and ask for filters that the
library would load as plug-ins. None of that is followed: hard links, the built-in filters and bounded sizes only.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from dse.core.errors import ModelError, UsageError

#: Bounds on what one file may hold.
MAX_FILE_BYTES = 1 << 31
MAX_ELEMENTS = 1 << 28
MAX_ENTRIES = 100_000
MAX_DEPTH = 32
#: Filters that HDF5 itself brings: deflate, shuffle, fletcher32.
_FILTERS = (1, 2, 3)


def read_container(path: Path, source: str) -> dict[str, Any]:
    """The group `node` of a NIR file: groups as dictionaries, datasets as arrays, texts as str.

    Raises
    ------
    ModelError: missing, damaged or oversized file, or something in it that is not followed.
    UsageError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise UsageError(
            "reading .nir files needs the packages nir and h5py: pip install 'silicon-dse[snn]'"
        ) from error
    if not path.is_file():
        raise ModelError(f"{source}: the model file {'is no ordinary file' if path.exists() else 'does not exist'}")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ModelError(f"{source}: a file of {size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
    try:
        with h5py.File(path, "r") as file:
            link = file.get("node", getlink=True) if "node" in file else None
            if not isinstance(link, h5py.HardLink) or not isinstance(file["node"], h5py.Group):
                raise ModelError(f"{source}: is an HDF5 file without a NIR graph (no group 'node')")
            return _Walker(h5py, source).group(file["node"], "node", 0)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ModelError(f"{source}: is not a NIR file, or is damaged or cut off: {reason}") from error


class _Walker:
    """Budget of one file and what it has spent."""

    def __init__(self, h5py: Any, source: str) -> None:
        self.h5py, self.source = h5py, source
        self.elements = self.entries = 0

    def group(self, group: Any, where: str, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise ModelError(f"{self.source}: graphs are nested deeper than {MAX_DEPTH} levels at {where!r}")
        result: dict[str, Any] = {}
        for name in group:
            self.entries += 1
            if self.entries > MAX_ENTRIES:
                raise ModelError(f"{self.source}: holds more than {MAX_ENTRIES:,} entries")
            here = f"{where}/{name}"
            if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
                raise ModelError(f"{self.source}: {here!r} is a link to elsewhere, which is not followed")
            item = group[name]
            if isinstance(item, self.h5py.Group):
                result[name] = self.group(item, here, depth + 1)
            elif isinstance(item, self.h5py.Dataset):
                result[name] = self.dataset(item, here)
            else:
                raise ModelError(f"{self.source}: {here!r} is neither a group nor a dataset")
        return result

    def dataset(self, item: Any, where: str) -> Any:
        creation = item.id.get_create_plist()
        if item.is_virtual or creation.get_external_count():
            raise ModelError(f"{self.source}: {where!r} keeps its data in another file, which is not followed")
        for index in range(creation.get_nfilters()):
            if creation.get_filter(index)[0] not in _FILTERS:
                raise ModelError(f"{self.source}: {where!r} uses a filter that HDF5 does not bring itself")
        if item.shape is None:
            raise ModelError(f"{self.source}: {where!r} holds no value")
        self.elements += math.prod(item.shape)
        if self.elements > MAX_ELEMENTS:
            raise ModelError(
                f"{self.source}: claims {self.elements:,} values up to {where!r}; at most {MAX_ELEMENTS:,} are read"
            )
        if self.h5py.check_string_dtype(item.dtype) is not None:
            return _text(item[()], self.source, where)
        if item.dtype.kind not in "fiub":
            raise ModelError(f"{self.source}: {where!r} holds {item.dtype}, not numbers or text")
        value = item[()]
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ModelError(f"{self.source}: {where!r} holds values that are not finite")
        return value


def _text(value: Any, source: str, where: str) -> Any:
    try:
        if isinstance(value, np.ndarray):
            return [[_decoded(entry) for entry in row] for row in value.reshape(len(value), -1)]
        return _decoded(value)
    except UnicodeDecodeError as error:
        raise ModelError(f"{source}: {where!r} is not UTF-8 text") from error


def _decoded(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
