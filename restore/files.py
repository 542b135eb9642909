"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
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
