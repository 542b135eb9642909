"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Calls ``write`` with a temporary path in the same folder, then moves the file to its place.

    Args:
        path: Where the file is to be; its folder is made if there is none.
        write: Writes the file to the path that it is given.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, since a rename is atomic only within one file system; some writers go by the suffix.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)  # With the permissions of any new file.
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # Some writers make theirs private.
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def replace_together(new: Path, folder: Path, names: Sequence[str]) -> None:
    """Moves several files into a folder: all of them, or, if anything goes wrong, the old ones are there again.

    The file that makes the folder what it is comes last in ``names``. Its predecessor is taken away first: should the
    machine stop in between, the folder is none, rather than one of old and new files.

    Args:
        new: The folder with the new files, on the same file system.
        folder: Where they are to be.
        names: Their paths in both.
    """
    for name in names:
        with (new / name).open("rb+") as file:
            os.fsync(file.fileno())
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    aside = {name: folder / f"{name}.{uuid.uuid4().hex[:8]}.old" for name in names}
    try:
        for name in reversed(names):
            if (folder / name).exists():
                os.replace(folder / name, aside[name])
        for name in names:
            os.replace(new / name, folder / name)
    except BaseException:
        for name, old in aside.items():
            if old.exists():
                os.replace(old, folder / name)
            elif not (new / name).exists():
                (folder / name).unlink(missing_ok=True)  # It is new, and nothing was there before.
        raise
    for old in aside.values():
        old.unlink(missing_ok=True)
