"""Where the files of named priors lie, and whether they are what they should be.

A file of a URL lies in ``$RESTORE_HOME``, or else where ``torch.hub`` keeps its checkpoints, under its own name: what
other programs have put there is found. A file of the hub lies in the hub's own cache (``HF_HOME`` moves it).

Hashing two gigabytes takes seconds. So beside each file lies ``NAME.sha256.json`` (for the hub's cache, which is not
ours, in our folder) with its hash, size and time: it is hashed again only if size or time have changed.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path

from restore.files import write_atomically
from restore.zoo import hub
from restore.zoo.catalogue import Entry, File, entries, find
from restore.zoo.download import download, hash_of


def home() -> Path:
    """The folder of downloaded files: ``$RESTORE_HOME``, or else ``torch.hub``'s folder of checkpoints."""
    import torch

    chosen = os.environ.get("RESTORE_HOME")
    return Path(chosen).expanduser() if chosen else Path(torch.hub.get_dir()) / "checkpoints"


def place_of(name: str) -> Path:
    """Where files that were fetched by hand are to be put: a file, or for a repository of the hub its folder.

    ``restore zoo where NAME`` prints it, the messages about what is not there name it, and loading looks there.

    Args:
        name: One of :func:`restore.zoo.entries`, or any other ``owner/name`` of the hub.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> place_of("someone/their-prior").name
        'someone--their-prior'
    """
    if name not in [entry.name for entry in entries()] and name.count("/") == 1:
        return home() / name.replace("/", "--")
    entry = find(name)
    if not entry.files:
        return Path(__file__).parent.parent / "priors" / entry.name
    return home() / (entry.files[0].name if entry.repo is None else entry.repo.replace("/", "--"))


def path(name: str) -> Path | None:
    """Where a named prior lies on this disk, unchecked; None if it is not there, or not whole.

    Raises:
        ValueError: If the zoo has no such name.

    Example:
        >>> path("photo").name
        'photo'
    """
    entry = find(name)
    if not entry.files:
        return place_of(name)
    files = _files(entry)
    return None if files is None else _where([found for _, found in files], entry)


def checked(name: str) -> Path:
    """Where a named prior lies, after its hashes were compared.

    Raises:
        FileNotFoundError: If it is not on this disk; the message says how to get it.
        ValueError: If the zoo has no such name, or a file has another hash than it should.
    """
    files = checked_files(name)
    return _where(files, find(name)) if files else place_of(name)


def checked_files(name: str) -> list[Path]:
    """The files of a named prior, after their hashes were compared; none for a prior in the package.

    What else lies in their folder was not checked, and is not to be read.

    Raises:
        FileNotFoundError, ValueError: As :func:`checked`.
    """
    entry = find(name)
    if not entry.files:
        return []
    files = _files(entry)
    if files is None:
        raise FileNotFoundError(f"the prior {name!r} is not on this disk. {how_to_get(entry)}")
    for file, found in files:
        _check(entry, file, found)
    return [found for _, found in files]


def fetch(name: str, progress: bool = True) -> Path:
    """Downloads a named prior, unless it is there, and checks it.

    Args:
        name: One of :func:`restore.zoo.entries`.
        progress: Whether to show a bar.

    Returns:
        Where it lies: a folder, or a ``.pt`` file.

    Raises:
        ValueError: If the zoo has no such name, or what arrived has another hash than it should; it is deleted then.
        OSError: If it cannot be fetched; the message says how to fetch it by hand.
        FileNotFoundError: If only a person can fetch it; the message says how.
    """
    entry = find(name)
    if path(name) is not None:
        try:
            return checked(name)
        except ValueError:
            pass  # Damaged: it is fetched again.
    try:
        for file in entry.files:
            if entry.repo is not None and entry.revision is not None:
                _fetch_from_hub(entry, entry.repo, entry.revision, file, progress)
            elif file.url is not None:
                _fetch_from_url(entry, file, file.url, progress)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise OSError(f"{str(error).rstrip('.')}. {how_to_get(entry, command=False)}") from error
    return checked(name)


def how_to_get(entry: Entry, *, command: bool = True) -> str:
    """Says how to get an entry: the command, or the exact files and where to put them."""
    target = place_of(entry.name)
    if entry.repo is not None and entry.revision is not None:
        urls = [hub.url_of(entry.repo, entry.revision, file) for file in entry.files]
        manual = f"fetch {', '.join(urls)} and put them into the folder {str(target)!r}"
    elif entry.files[0].url is not None:
        manual = f"fetch {entry.files[0].url} and put it at {str(target)!r}"
    else:
        # A page for people: no program may rely on what is behind it.
        return (
            f"It cannot be fetched by a program: open {entry.source} in a browser, fetch {entry.files[0].name} and "
            f"put it at {str(target)!r}"
        )
    if command:
        return f"`restore zoo get {entry.name}` downloads it. Or by hand: {manual}"
    return f"By hand: {manual}"


def _files(entry: Entry) -> list[tuple[File, Path]] | None:
    """Where each file of an entry lies; None unless all are there."""
    for folder in _folders(entry):
        found = [(file, folder / file.name) for file in entry.files]
        if all(where.is_file() for _, where in found):
            return found
    return None


def _where(files: list[Path], entry: Entry) -> Path:
    return files[0].parent if entry.repo is not None else files[0]


def _folders(entry: Entry) -> list[Path]:
    if entry.repo is None or entry.revision is None:
        return [home()]
    cached = hub.cached_folder(entry.repo, entry.revision, entry.files[0])
    by_hand = place_of(entry.name)
    return [by_hand] if cached is None else [cached, by_hand]


def _fetch_from_url(entry: Entry, file: File, url: str, progress: bool) -> None:
    target, record = home() / file.name, _record(entry, file)
    first_seen = _recorded(record)
    try:
        found = download(url, target, sha256=file.sha256 or first_seen, progress=progress)
    except ValueError as error:
        if file.sha256 is None and first_seen is not None:
            raise ValueError(
                f"{error}. That hash is of the file that was first seen; to accept another one delete {str(record)!r}"
            ) from error
        raise
    _write_record(record, target, found)


def _fetch_from_hub(entry: Entry, repo: str, revision: str, file: File, progress: bool) -> None:
    where = hub.fetch_file(repo, revision, file, progress)
    try:
        _check(entry, file, where)
    except ValueError:
        hub.drop(where)  # It was damaged on this disk: once more.
        where = hub.fetch_file(repo, revision, file, progress)
        try:
            _check(entry, file, where)
        except ValueError:
            hub.drop(where)
            raise


def _record(entry: Entry, file: File) -> Path:
    prefix = "" if entry.repo is None else f"{entry.repo.replace('/', '--')}--"
    return home() / f"{prefix}{file.name}.sha256.json"


def _check(entry: Entry, file: File, where: Path) -> None:
    """Compares a file's hash with the published one, or with that of the first time."""
    record = _record(entry, file)
    stored = _recorded(record, where)
    found = stored or hash_of(where)
    expected = file.sha256 or _recorded(record) or found
    if found != expected:
        whose = "published" if file.sha256 else f"recorded when it was first seen, in {str(record)!r},"
        raise ValueError(
            f"{str(where)!r} has the sha256 {found}, but {expected} was {whose}: it is damaged or another file. "
            f"`restore zoo get {entry.name}` fetches it again"
        )
    if stored is None:
        with suppress(OSError):  # A folder that only others may write: then it is hashed every time.
            _write_record(record, where, found)


def _recorded(record: Path, where: Path | None = None) -> str | None:
    """The hash in a record; with a file, only if that file has not changed since."""
    try:
        saved = json.loads(record.read_text(encoding="utf-8"))
        unchanged = where is None or [saved["size"], saved["time_ns"]] == _stamp(where)
        return str(saved["sha256"]) if unchanged else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_record(record: Path, where: Path, sha256: str) -> None:
    size, time_ns = _stamp(where)
    text = json.dumps({"sha256": sha256, "size": size, "time_ns": time_ns}) + "\n"
    write_atomically(record, lambda path: path.write_text(text, encoding="utf-8"))


def _stamp(where: Path) -> list[int]:
    state = where.stat()
    return [state.st_size, state.st_mtime_ns]
