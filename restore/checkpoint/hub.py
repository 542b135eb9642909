"""Pipelines of diffusers on the Hugging Face hub, through its ordinary cache."""

from __future__ import annotations

import re
from pathlib import Path

from restore import zoo
from restore.checkpoint.diffusers import INDEX, SCHEDULER, STEM, check_pipeline
from restore.checkpoint.files import CONFIG, SUFFIXES
from restore.checkpoint.native import WEIGHTS

_DESCRIPTIONS = [INDEX, CONFIG, SCHEDULER, f"scheduler/{SCHEDULER}", f"unet/{CONFIG}"]
# The files that may hold the weights, the better ones first: early repositories have no safetensors.
_WEIGHTS = [
    [f"{folder}{name}" for folder in ("", "unet/") for name in names]
    for names in ([f"{STEM}.safetensors", WEIGHTS], [f"{STEM}.bin"])
]


def is_hub_id(source: object) -> bool:
    """Whether a source is of the form ``owner/name``, and no path of this machine.

    Example:
        >>> is_hub_id("google/ddpm-cat-256"), is_hub_id("photo"), is_hub_id("./google/ddpm"), is_hub_id("a/b.pt")
        (True, False, False, False)
    """
    if not isinstance(source, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source):
        return False
    path = Path(source)
    return not (path.suffix in SUFFIXES or ".." in source or path.exists() or path.parent.is_dir())


def fetch(name: str) -> Path:
    """The folder of a prior on the hub: put there by hand, from the hub's cache or, where that lacks it, from the hub.

    What describes it is fetched first: of a pipeline that cannot be loaded, no weights are.

    Args:
        name: ``owner/name``.

    Returns:
        Its folder: :func:`restore.zoo.place_of` names it, or its snapshot in the cache.

    Raises:
        FileNotFoundError: If it is neither in the cache nor can be fetched; the message says which files to fetch and
            where to put them.
        ValueError: If it is a pipeline of another kind.
    """
    by_hand = zoo.place_of(name)
    if by_hand.is_dir():
        return by_hand
    why: Path | str = ""
    for local in (True, False):  # What is there already is used without asking the hub.
        folder = why = _snapshot(name, _DESCRIPTIONS, local)
        if isinstance(folder, str):
            continue
        if (folder / INDEX).is_file():
            check_pipeline(folder, name)
        for weights in _WEIGHTS:
            folder = why = _snapshot(name, [*_DESCRIPTIONS, *weights], local)
            if isinstance(folder, Path):
                if _is_whole(folder, weights):
                    return folder
                why = "it has no weights of a UNet2DModel, or lacks a configuration"
    raise FileNotFoundError(_how_to_get(name, str(why)))


def _snapshot(name: str, patterns: list[str], local: bool) -> Path | str:
    """The folder of the snapshot, or why there is none."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=local))
    except Exception as error:  # Not there, not allowed, no connection, HF_HUB_OFFLINE: of many classes.
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def _is_whole(folder: Path, weights: list[str]) -> bool:
    present = {name for name in [*_DESCRIPTIONS, *weights] if (folder / name).is_file()}
    described = INDEX not in present or {SCHEDULER, f"scheduler/{SCHEDULER}"} & present
    return bool(described and {CONFIG, f"unet/{CONFIG}"} & present and present & set(weights))


def _how_to_get(name: str, why: str) -> str:
    from huggingface_hub import constants

    inside = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    return (
        f"there is no prior {name!r} on this machine (looked in {str(inside)!r}), and it could not be fetched from "
        f"the hub ({why}). Where there is a connection, `hf download {name} --local-dir FOLDER` fetches it; the files "
        f"that are needed are {INDEX}, {SCHEDULER}, {CONFIG} and {STEM}.safetensors, as the repository has them or in "
        f"the folders scheduler and unet. Copy FOLDER to this machine as {str(zoo.place_of(name))!r}, or anywhere and "
        f"give its path instead of the name{zoo.did_you_mean(name)}"
    )
