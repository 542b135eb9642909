"""``restore zoo``: what there is, what is here, and how to get the rest."""

from __future__ import annotations

from restore.zoo.cache import fetch, home, how_to_get, path, place_of
from restore.zoo.catalogue import did_you_mean, entries, find


def show() -> None:
    """Prints the table of named priors; offline."""
    rows = [("name", "on disk", "size", "licence", "trained on")]
    rows += [
        (e.name, "yes" if path(e.name) else "no", readable(e.size), e.licence, e.trained_on)
        for e in entries()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    details = [
        f"\n    {e.description}; pictures in {list(e.value_range)}; from {e.source}" for e in entries()
    ]
    for row, detail in zip(rows, ["", *details], strict=True):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(line + detail)
    unpinned = [e.name for e in entries() if e.files and not any(file.sha256 for file in e.files)]
    print(
        "\n`restore zoo get NAME` downloads, `restore zoo where` says where things lie.\n"
        f"No sha256 is published for {', '.join(unpinned)}: the hash of the first file seen is recorded, and "
        f"checked from then on."
    )


def get(name: str, *, progress: bool = True) -> None:
    """Downloads one."""
    print(fetch(name, progress))


def where(name: str | None = None) -> None:
    """Prints the folders, and where each prior lies that is on disk; or, in its first line, the place of one.

    Args:
        name: One of the names, or any ``owner/name`` of the hub: where it lies, or is to be put by hand.
    """
    if name is not None:
        place = place_of(name)
        listed = name in [entry.name for entry in entries()]
        found = path(name) if listed else None
        print(found or place)
        if found is None and not place.exists():
            told = how_to_get(find(name)) if listed else f"Put its files there by hand{did_you_mean(name)}"
            print(f"It is not on this disk. {told}")
        return
    from huggingface_hub import constants

    print(f"files of URLs: {home()} (RESTORE_HOME moves it)")
    print(f"files of the hub: {constants.HF_HUB_CACHE} (HF_HOME moves it)")
    for entry in entries():
        if found := path(entry.name):
            print(f"{entry.name}: {found}")


def readable(size: int | None) -> str:
    """A number of bytes for people.

    Example:
        >>> readable(454_853_117), readable(2_211_383_297), readable(None)
        ('455 MB', '2.21 GB', '?')
    """
    if size is None:
        return "?"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
