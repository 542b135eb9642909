"""Named priors: what they were trained on, where they come from, and whether they are on this disk.

Nothing is downloaded unless it is asked for, by :func:`fetch` or ``restore zoo get NAME``; everything else works
offline. A file is only ever used after its sha256 was compared with the published one, or, where none was published,
with that of the first time it was seen on this machine.
"""

from restore.zoo.cache import checked, checked_files, fetch, home, path, place_of
from restore.zoo.catalogue import Entry, File, did_you_mean, entries, find

__all__ = [
    "Entry",
    "File",
    "checked",
    "checked_files",
    "did_you_mean",
    "entries",
    "fetch",
    "find",
    "home",
    "path",
    "place_of",
]
