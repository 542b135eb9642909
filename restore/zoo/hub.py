"""Files of the Hugging Face hub: in the hub's own cache, and at one commit, so that what is there never changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restore.zoo.catalogue import File


def url_of(repo: str, revision: str, file: File) -> str:
    """Where a file can be fetched by hand."""
    from huggingface_hub import hf_hub_url

    url: str = hf_hub_url(repo, file.name, revision=revision)
    return url


def cached_folder(repo: str, revision: str, file: File) -> Path | None:
    """The folder of the hub's cache in which a file lies, if it does; asks nobody."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, file.name, revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def fetch_file(repo: str, revision: str, file: File, progress: bool) -> Path:
    """Downloads a file into the hub's cache, unless it is there; the hub's library resumes, and locks.

    Raises:
        OSError: If it cannot be fetched.
    """
    from huggingface_hub import hf_hub_download

    try:
        with _bars(progress):
            return Path(hf_hub_download(repo, file.name, revision=revision))
    except OSError:
        raise
    except Exception as error:  # The errors of that library and of its network library have no common base.
        raise OSError(f"{url_of(repo, revision, file)} could not be fetched: {error}") from error


def drop(where: Path) -> None:
    """Takes a damaged file out of the cache: the link, and what it points to in the cache's store."""
    where.resolve().unlink(missing_ok=True)
    where.unlink(missing_ok=True)


@contextmanager
def _bars(progress: bool) -> Iterator[None]:
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if progress or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
