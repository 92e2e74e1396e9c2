"""The run folder: who may use it, and how its files are written.

run.json               what the run is made of: versions, inputs, configuration (see `dse.flow.identity`)
config.resolved.yaml   the configuration with includes, overrides and defaults applied; can be run again
trials.jsonl           every trial, appended batch by batch
pareto.json, .csv      the Pareto set and the winners chosen from it; holds no times
winners.json           metrics by layer, confirmation and verification of each winner
report.html, plots/    for people
rtl/NAME/              emitted hardware of each winner

Everything but `trials.jsonl` is written to a temporary file and renamed into place.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dse.core.errors import RunFolderError
from dse.flow.identity import SCHEMA_VERSION, differences
from dse.flow.lock import LOCK_NAME, folder_lock

IDENTITY_NAME = "run.json"
_TEMPORARY = ".tmp-"


@dataclass(frozen=True)
class RunFolder:
    """A folder this process holds, checked to belong to the run.

    `interrupted` names the process that was killed in it last, if any; `resumed` whether a record existed.
    """

    path: Path
    resumed: bool
    interrupted: str | None

    @property
    def trials(self) -> Path:
        """The record of the search."""
        return self.path / "trials.jsonl"

    def write_text(self, name: str, text: str) -> Path:
        """Write a file in one step: readers and crashes see the old or the new one, never a part.

        Raises
        ------
        RunFolderError: the disk refuses.
        """
        target = self.path / name
        temporary = self.path / f"{_TEMPORARY}{os.getpid()}-{target.name}"
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as handle:
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(target)
        except OSError as error:
            raise RunFolderError(f"{target}: cannot be written: {error.strerror}") from error
        return target

    def write_json(self, name: str, data: Any) -> Path:
        """JSON with sorted keys, floats in their shortest exact form: equal data gives equal bytes."""
        return self.write_text(name, json.dumps(data, sort_keys=True, indent=1, allow_nan=False) + "\n")

    def write_csv(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
        """A table; floats as in JSON."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        return self.write_text(name, buffer.getvalue())


@contextmanager
def open_run_folder(path: Path, identity: Mapping[str, Any], *, resume: bool) -> Iterator[RunFolder]:
    """Hold a run folder for the length of a `with` block.

    Parameters
    ----------
    identity
        See `run_identity`; written when the run begins, compared when it goes on.
    resume
        Go on with the run that the folder holds; an empty or missing folder begins one, since a run may be
        killed before it wrote anything.

    Raises
    ------
    RunFolderError: not empty (a new run), another identity (a resume; says what differs), in use, not writable.
    """
    _refuse_unsuitable(path, resume)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be made: {error.strerror}") from error
    with folder_lock(path) as interrupted:
        # once more: another run may have begun between the first look and the lock
        _refuse_unsuitable(path, resume)
        for leftover in path.glob(_TEMPORARY + "*"):
            leftover.unlink()
        recorded = (path / IDENTITY_NAME).exists()
        folder = RunFolder(path, recorded, interrupted)
        if recorded:
            _compare(path, identity)
        else:
            folder.write_json(IDENTITY_NAME, identity)
        text = yaml.safe_dump(identity["config"], sort_keys=False, allow_unicode=True)
        folder.write_text("config.resolved.yaml", text)
        yield folder


def _refuse_unsuitable(path: Path, resume: bool) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise RunFolderError(f"{path}: is not a folder; choose another --out")
    names = {item.name for item in path.iterdir()}
    foreign = {name for name in names if name != LOCK_NAME and not name.startswith(_TEMPORARY)}
    if IDENTITY_NAME in names:
        if not resume:
            raise RunFolderError(f"{path}: holds a run; continue it with --resume, or choose another --out")
    elif foreign:
        raise RunFolderError(
            f"{path}: is not empty ({', '.join(sorted(foreign)[:3])}) and holds no run; choose another --out"
        )


def _compare(path: Path, identity: Mapping[str, Any]) -> None:
    source = path / IDENTITY_NAME
    try:
        recorded = json.loads(source.read_text(encoding="utf-8"))
        schema = recorded["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{source}: is damaged; start in another folder") from error
    if schema != SCHEMA_VERSION:
        raise RunFolderError(
            f"{path}: has run folder version {schema}, this program writes version {SCHEMA_VERSION}; "
            "start in another folder"
        )
    # through JSON, as the record went: tuples become lists
    found = differences(recorded, json.loads(json.dumps(identity)))
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise RunFolderError(f"{path}: holds another run; {'; '.join(found[:5])}{more}")
