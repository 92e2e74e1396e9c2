"""Loading a run configuration: includes, command-line overrides, validation."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dse.config.marked_yaml import MAX_BYTES, KeyPath, Mark, Marks, parse
from dse.config.models import RunConfig
from dse.config.validation import at, validate
from dse.core.errors import ConfigError

#: Files one configuration may be put together from.
MAX_FILES = 50
#: What a message calls a value given as key=value.
COMMAND_LINE = "command line"
#: Mappings whose keys hold dots themselves: a dotted override names one of their keys, not a path.
_DOTTED_MAPPINGS = {("search", "space")}


@dataclass(frozen=True)
class LoadedConfig:
    """A validated configuration and where its values came from.

    Parameters
    ----------
    files
        Every file read, the one that was asked for first.
    marks
        File and line of every value, by path.
    """

    config: RunConfig
    files: tuple[Path, ...]
    marks: Marks = field(repr=False)

    @property
    def folder(self) -> Path:
        """Folder of the file that was asked for."""
        return self.files[0].parent

    @property
    def model_folder(self) -> Path:
        """What a relative `workload.model` is relative to: the file that says it, or the working folder."""
        mark = self.marks.get(("workload", "model"))
        return self.folder if mark is None else Path.cwd() if mark.file == COMMAND_LINE else Path(mark.file).parent


def load_config(path: Path, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read a run configuration.

    Parameters
    ----------
    path
        A YAML file. Its top level may hold `include:` with a file or a list of files, relative to it; these
        are merged in order (mappings deeply, everything else replaced), the including file last.
    overrides
        `dotted.key=value`, the value parsed as YAML; applied last, in order.

    Raises
    ------
    ConfigError: a file cannot be read or parsed, includes form a cycle, or a value is wrong.
    """
    data, marks, files = load_mapping(path)
    for override in overrides:
        apply_override(data, marks, override)
    return LoadedConfig(validate(RunConfig, data, marks), files, marks)


def load_mapping(path: Path) -> tuple[dict[str, Any], dict[KeyPath, Mark], tuple[Path, ...]]:
    """One YAML file with its includes merged, not yet validated: data, marks, files read.

    Raises
    ------
    ConfigError: see `load_config`.
    """
    files: list[Path] = []
    data, marks = _read_merged(path, (), files)
    return data, marks, tuple(files)


def apply_override(data: dict[str, Any], marks: dict[KeyPath, Mark], override: str) -> None:
    """Set one `dotted.key=value` in `data`, in place; missing mappings on the way are made.

    Raises
    ------
    ConfigError: not key=value, the value is not YAML, or the way leads through a value that has no keys.
    """
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"{override!r} is not key=value, such as search.trials=100", file=COMMAND_LINE)
    try:
        value, value_marks = parse(text, COMMAND_LINE)
    except ConfigError as error:
        raise ConfigError(str(error).split(": ", 1)[1], file=COMMAND_LINE, key=key) from error
    for dotted in _DOTTED_MAPPINGS:
        if tuple(parts[: len(dotted)]) == dotted and len(parts) > len(dotted):
            parts = [*dotted, ".".join(parts[len(dotted) :])]
    node: dict[str, Any] = data
    mark = Mark(COMMAND_LINE, 0)
    for depth, part in enumerate(parts[:-1], start=1):
        if node.get(part) is None:
            node[part] = {}
            marks[tuple(parts[:depth])] = mark
        child = node[part]
        if not isinstance(child, dict):
            raise ConfigError(f"{'.'.join(parts[:depth])} is {child!r}, which has no keys", file=COMMAND_LINE, key=key)
        node = child
    _forget(marks, tuple(parts))
    node[parts[-1]] = value
    marks.update({(*parts, *path): mark for path in value_marks})
    marks[tuple(parts)] = mark


def _read_merged(path: Path, stack: tuple[Path, ...], files: list[Path]) -> tuple[dict[str, Any], dict[KeyPath, Mark]]:
    resolved = path.resolve()
    if resolved in stack:
        chain = " -> ".join(item.name for item in (*stack[stack.index(resolved) :], resolved))
        raise ConfigError(f"includes itself: {chain}", file=str(path))
    if len(files) >= MAX_FILES:
        raise ConfigError(f"includes more than {MAX_FILES} files", file=str(stack[0]))
    data, marks = parse(_read_text(path), str(path))
    files.append(path)
    if not isinstance(data, dict):
        shown = "is empty" if data is None else f"holds {type(data).__name__} {str(data)[:40]!r}"
        raise ConfigError(f"{shown}; a configuration is made of key: value lines", file=str(path))
    includes = data.pop("include", None)
    if includes is None:
        return data, marks
    entries = includes if isinstance(includes, list) else [includes]
    merged: dict[str, Any] = {}
    merged_marks: dict[KeyPath, Mark] = {}
    for entry in entries:
        if not isinstance(entry, str) or not entry:
            raise at(("include",), marks, f"must be a file or a list of files, not {entry!r}")
        target = path.parent / entry
        if not target.exists():
            raise at(("include",), marks, f"file {entry!r} does not exist")
        _merge(merged, merged_marks, *_read_merged(target, (*stack, resolved), files), ())
    _forget(marks, ("include",))
    _merge(merged, merged_marks, data, marks, ())
    return merged, merged_marks


def _merge(
    base: dict[str, Any],
    base_marks: dict[KeyPath, Mark],
    top: dict[str, Any],
    marks: dict[KeyPath, Mark],
    path: KeyPath,
) -> None:
    """Lay `top` over `base`, in place, and the marks with it."""
    for key, value in top.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], base_marks, value, marks, here)
        else:
            _forget(base_marks, here)
            base[key] = value
            base_marks.update({item: mark for item, mark in marks.items() if item[: len(here)] == here})
        base_marks[here] = marks[here]
    if () in marks:
        base_marks[()] = marks[()]


def _forget(marks: dict[KeyPath, Mark], path: KeyPath) -> None:
    """Drop the marks of a value that is being replaced, and of everything inside it."""
    for item in [item for item in marks if item[: len(path)] == path]:
        del marks[item]


def _read_text(path: Path) -> str:
    """A regular file of bounded size, as UTF-8 text."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError("is not a regular file", file=str(path))
        if status.st_size > MAX_BYTES:
            raise ConfigError(f"is {status.st_size} bytes long; a configuration may have {MAX_BYTES}", file=str(path))
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError("does not exist", file=str(path)) from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 text (byte {error.start})", file=str(path)) from error
    except ValueError as error:  # a NUL in the path
        raise ConfigError(f"cannot be read: {error}", file=repr(str(path))) from error
