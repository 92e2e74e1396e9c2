"""`trials.jsonl`: every trial of a search, one JSON row a line, only ever appended to.

It holds no times, so the same search writes the same bytes. A kill leaves at most one torn line at its end, which is
cut off when the file is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from dse.core.errors import RunFolderError
from dse.search import Evaluation, Trial


class TrialLog:
    """The record of a search: what it held when it was opened, and the way to extend it.

    Call order: `open`; `known` feeds the search; `record` takes its batches from the first on: those already in
    the file are compared, the rest is appended and forced to disk. Use in a `with` block.
    """

    def __init__(self, path: Path, lines: list[bytes], handle: IO[bytes], torn_bytes: int) -> None:
        self.path, self.torn_bytes = path, torn_bytes
        self._lines, self._handle, self._position = lines, handle, 0
        self.known = {item.digest: item for item in (self._decode(index) for index in range(len(lines)))}

    @classmethod
    def open(cls, path: Path) -> TrialLog:
        """Open or create the record; a torn last line is cut off.

        Raises
        ------
        RunFolderError: a line in the middle is damaged, or the file cannot be written.
        """
        try:
            data = path.read_bytes() if path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                os.truncate(path, len(whole))
            return cls(path, whole.splitlines(), path.open("ab"), len(data) - len(whole))
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be opened: {error.strerror}") from error

    def record(self, batch: Sequence[Trial]) -> None:
        """Take the next trials of the search.

        Raises
        ------
        RunFolderError: the file says otherwise at this place, or the disk refuses.
        """
        fresh = []
        for trial in batch:
            line = encode_row(trial)
            if self._position < len(self._lines):
                if self._lines[self._position] != line:
                    raise RunFolderError(
                        f"{self.path}:{self._position + 1}: does not hold what the search proposes there; "
                        "the file was edited or the program behaves differently: start in another folder"
                    )
            else:
                fresh.append(line + b"\n")
            self._position += 1
        if fresh:
            try:
                self._handle.write(b"".join(fresh))
                self._handle.flush()
                os.fsync(self._handle.fileno())
            except OSError as error:
                raise RunFolderError(f"{self.path}: cannot be written: {error.strerror}") from error

    def _decode(self, index: int) -> Evaluation:
        try:
            row = json.loads(self._lines[index])
            return Evaluation(row["values"], row["digest"], row["status"], row["violations"], row["summary"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{self.path}:{index + 1}: is damaged; start in another folder") from error

    def __enter__(self) -> TrialLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handle.close()


def trial_row(trial: Trial) -> dict[str, Any]:
    """A trial as plain data."""
    item = trial.evaluation
    return {
        "trial": trial.number,
        "digest": item.digest,
        "status": item.status,
        "values": dict(item.values),
        "violations": dict(item.violations),
        "summary": dict(item.summary),
    }


def encode_row(trial: Trial) -> bytes:
    """One line without its end; floats in the shortest form that reads back to the same value."""
    return json.dumps(trial_row(trial), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
