"""Entry of `dse` and `python -m dse`."""

from __future__ import annotations

import sys
from pathlib import Path


def drop_working_folder(path: list[str], home: Path, working: Path, program: Path) -> list[str]:
    """`path` (as sys.path) without the folder the user happens to stand in.

    A folder `workloads/` or `accelerators/` of the user's own, with an `__init__.py`, would otherwise be
    imported instead of ours. Spawned workers inherit the cleaned list.

    Parameters
    ----------
    home
        Folder that holds the `dse` package; never dropped, since an editable install puts a checkout there.
    working, program
        The working folder and the folder of the started script.
    """
    unwanted = {working.resolve(), program.resolve()} - {home.resolve()}
    return [entry for entry in path if (Path(entry).resolve() if entry else working.resolve()) not in unwanted]


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    home = Path(__file__).resolve().parents[1]
    program = Path(sys.argv[0]).parent
    try:
        sys.path[:] = drop_working_folder(sys.path, home, Path.cwd(), program)
    except FileNotFoundError:  # the working folder was deleted: nothing can be imported from it
        sys.path[:] = [entry for entry in sys.path if entry]
    from dse.cli.main import run_command_line

    sys.exit(run_command_line(sys.argv[1:]))


if __name__ == "__main__":
    main()
