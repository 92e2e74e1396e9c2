"""One run at a time in a run folder: a lock that dies with its process.

The kernel holds the lock, not the file's existence: a killed run leaves the file behind but no lock, so that nothing
stale ever blocks a resume. The file says who held it, for messages.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dse.core.errors import RunFolderError

LOCK_NAME = ".lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[str | None]:
    """Hold `folder` for the length of a `with` block.

    Yields
    ------
    Who held it last, when that run was killed before it could let go; else None.

    Raises
    ------
    RunFolderError: another process holds it (named), or the folder is not writable.
    """
    path = folder / LOCK_NAME
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        try:
            held = _try_lock(handle)
        except OSError as error:
            raise RunFolderError(f"{folder}: its file system cannot lock files: {error.strerror}") from error
        holder = os.pread(handle, 200, 0).decode(errors="replace").strip() if hasattr(os, "pread") else ""
        if not held:
            raise RunFolderError(
                f"{folder}: {holder or 'another process'} is running in it; wait for it, or choose another --out"
            )
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        try:
            yield holder or None
        finally:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            # one byte far behind the text, which stays readable for others
            os.lseek(handle, 1 << 20, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True
