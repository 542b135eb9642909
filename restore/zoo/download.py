"""One file from one URL: resumed where it broke off, compared with its sha256, there whole or not at all.

While it arrives it is called ``NAME.part``, and ``NAME.part.json`` beside it says which version of the server's file
it is a part of. A download goes on only if the server confirms that version (``If-Range`` with its ``ETag``);
otherwise it starts over, so that two versions are never glued together. Both lie there until the finished file does.
A server that sends more than it promised is not believed: what came from it is deleted.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import ipaddress
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from restore.files import write_atomically

BLOCK = 1 << 20  # bytes read at a time
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 4  # without any progress between them
REDIRECTS = 5  # in one request


class _Broken(Exception):
    """What may be better the next time."""


def download(
    url: str, path: Path, *, sha256: str | None = None, progress: bool = True, pause: float = 1.0
) -> str:
    """Fetches a file.

    Two processes that want the same file do not disturb each other: the second waits for the lock, which the
    operating system takes back from a process that dies, and then finds the file there.

    Args:
        url: ``https``; ``http`` from this machine only.
        path: Where the file is to be. If it is there, and its hash is right, nothing is fetched; if it is wrong, the
            file is replaced once the new one has arrived.
        sha256: The hash it must have; None accepts what comes.
        progress: Whether to show a bar.
        pause: Seconds before the second attempt; each further pause is twice as long.

    Returns:
        The sha256 of the file.

    Raises:
        OSError: If the server refuses, or cannot be reached, or the disk is full. What has arrived by then is kept.
            If it sends more than it promised; that is deleted.
        ValueError: If the URL is not safe, or the file has another hash than expected; then it is deleted.
    """
    from filelock import FileLock

    _check_scheme(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with FileLock(path.with_name(f"{path.name}.lock")):
        if path.is_file():
            found = hash_of(path)
            if sha256 in (None, found):
                return found
        _fetch_whole(url, part, progress, pause)
        found = hash_of(part)
        if sha256 not in (None, found):
            _forget(part)
            raise ValueError(
                f"{url} gave a file with the sha256 {found}, expected {sha256}: it was damaged on the way, or is not "
                f"the file it was. It was deleted; try again later"
            )
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        _forget(part)
    return found


def hash_of(path: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _fetch_whole(url: str, part: Path, progress: bool, pause: float) -> None:
    failures, furthest = 0, 0
    while True:
        try:
            return _fetch_more(url, part, progress)
        except _Broken as error:
            size = part.stat().st_size if part.is_file() else 0
            # Counted without progress alone: a server that breaks off again and again still gets there.
            failures = 1 if size > furthest else failures + 1
            furthest = max(furthest, size)
            if failures >= ATTEMPTS:
                raise OSError(
                    f"{url} could not be fetched: {error}. What has arrived is kept; the next try goes on from there"
                ) from error
            time.sleep(pause * 2 ** (failures - 1))


def _fetch_more(url: str, part: Path, progress: bool) -> None:
    """One request; appends to the part what is missing, or starts over."""
    have, version, promised = _state_of(part, url)
    if version and have == promised:
        return  # It was interrupted after the last byte.
    headers = {"User-Agent": "restore"}
    if have and version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    try:
        with _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
            start, total = _extent(response, have)
            if start and total != promised:
                _forget(part)
                raise _Broken(f"the server's file had {promised:,} bytes, and now has {total:,}")
            if start == 0:
                _write_version(part, url, response, total)
            _check_space(part, total - start)
            with part.open("ab" if start else "wb") as file:
                arrived = _copy(response, file, start, total, part.name.removesuffix(".part"), progress)
        if arrived > total:
            _forget(part)
            raise OSError(
                f"{url} sent more than the {total:,} bytes it promised: something is wrong with the server, or on the "
                f"way. What came was deleted; try again later"
            )
        if arrived < total:  # http.client ends a short answer without an error.
            raise _Broken(f"the connection was lost after {arrived:,} of {total:,} bytes")
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # The part is not shorter than the file, whatever was promised.
            _forget(part)
            raise _Broken("the part did not fit the server's file") from error
        if error.code >= 500 or error.code in (408, 429):
            raise _Broken(f"the server says {error.code} {error.reason}") from error
        raise OSError(f"{url}: the server says {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise OSError(f"{url}: the server cannot prove who it is ({error.reason})") from error
        raise _Broken(str(error.reason)) from error
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _Broken(f"the connection was lost ({error or type(error).__name__})") from error


def _copy(response: Any, file: Any, start: int, total: int, name: str, progress: bool) -> int:
    """Writes what arrives, and ends where more comes than is to come. Returns the length that there would be then."""
    from tqdm import tqdm

    bar = tqdm(
        total=total, initial=start, desc=name, unit="B", unit_scale=True, disable=None if progress else True
    )
    arrived = start
    with bar:
        for block in _blocks(response):
            arrived += len(block)
            if arrived > total:
                break
            file.write(block)
            bar.update(len(block))
    return arrived


def _blocks(response: Any) -> Iterator[bytes]:
    # Each as soon as it is there: what has arrived before the line goes dead is kept.
    while block := response.read1(BLOCK):
        yield block


def _extent(response: Any, have: int) -> tuple[int, int]:
    """First byte of an answer, and length of the whole file."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            raise _Broken(f"the server sent another range ({response.headers.get('Content-Range')})")
        return have, int(match[2])
    length = response.headers.get("Content-Length")
    if length is None or not length.isdecimal():
        raise OSError(
            f"{response.url} does not say how long it is: a broken download could not be told from a whole one"
        )
    return 0, int(length)


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{needed:,} bytes are to come, and {free:,} are free: make space, or set RESTORE_HOME to another folder",
            str(part.parent),
        )


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def _write_version(part: Path, url: str, response: Any, total: int) -> None:
    part.unlink(missing_ok=True)  # First: what is there belongs to another version.
    text = json.dumps({"url": url, "etag": response.headers.get("ETag"), "size": total}) + "\n"
    write_atomically(_version_file(part), lambda path: path.write_text(text, encoding="utf-8"))


def _state_of(part: Path, url: str) -> tuple[int, str | None, int]:
    """Bytes that have arrived, the version they are of (None if they cannot be gone on from), and its length."""
    try:
        saved = json.loads(_version_file(part).read_text(encoding="utf-8"))
        etag, promised = saved["etag"] if saved["url"] == url else None, int(saved["size"])
        have = part.stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return 0, None, 0
    # A weak one (W/"...") promises the same meaning, not the same bytes.
    exact = isinstance(etag, str) and etag.startswith('"') and have <= promised
    return (have, etag, promised) if exact else (0, None, 0)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_SafeRedirects)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, but never from https to http."""

    max_redirections = REDIRECTS

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _check_scheme(newurl)
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise ValueError(f"{req.full_url} sends on to {newurl}, which anybody on the way can change")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(parts.hostname or "")):
        return
    raise ValueError(f"{url} is not fetched: only https is, and http from this machine")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
