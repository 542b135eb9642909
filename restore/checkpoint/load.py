"""``load_prior``: finds out what a source is, and has it read by the module that knows its kind."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from restore import zoo
from restore.checkpoint import guided_diffusion, lucidrains
from restore.checkpoint.diffusers import INDEX, load_pipeline, load_unet, load_unet_file
from restore.checkpoint.files import CONFIG, SUFFIXES, only_tensors, read_checkpoint, read_json
from restore.checkpoint.foreign import refuse
from restore.checkpoint.hub import fetch, is_hub_id
from restore.checkpoint.native import WEIGHTS, load_native
from restore.memory import precision, usable_device
from restore.prior import Prior
from restore.schedule import Schedule

# What a model was trained on, going by its name: no file of weights says.
_DOMAINS = {
    "faces": ("ffhq", "celeba", "celebahq", "celeb", "faces", "face"),
    "cats": ("cat", "cats"),
    "churches": ("church", "churches"),
    "bedrooms": ("bedroom", "bedrooms"),
}


def load_prior(
    source: str | Path,
    *,
    schedule: Schedule | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    checkpointing: bool = False,
    compile: bool = False,
) -> Prior:
    """Loads a prior.

    Args:
        source: One of

            * ``"photo"``, the prior in the package, or ``"colours"``, the one of colours beside it, which
              :func:`restore.colorize` takes (``"./photo"`` is a folder of that name);
            * a name of :mod:`restore.zoo`, once ``restore zoo get NAME`` has fetched it;
            * a folder written by :meth:`Prior.save`;
            * a folder of diffusers: a saved ``DDPMPipeline`` or ``DDIMPipeline``, or a bare ``UNet2DModel``;
            * ``"owner/name"``, any other such folder on the Hugging Face hub, fetched once into the hub's cache;
            * a ``.pt`` of guided-diffusion: OpenAI's for ImageNet of 64 to 256 pixels, DPS's ``ffhq_10m.pt``, and
              others of this architecture;
            * a ``.pt`` of the trainer of denoising-diffusion-pytorch, version 2;
            * a ``.safetensors`` or ``.pt`` of a ``UNet2DModel``, with its ``config.json`` beside it.
        schedule: With which noise schedule it was trained, where the file does not tell, or tells wrong.
        device: Where to put it.
        dtype: Type of the weights in memory, ``"float32"`` by default; see :meth:`Prior.with_dtype`.
        checkpointing: Spend time to save memory in gradients; see :meth:`Prior.with_checkpointing`.
        compile: Compile the network; see :meth:`Prior.compiled`.

    Returns:
        The prior, in evaluation mode.

    Raises:
        FileNotFoundError: If there is nothing of that name.
        TypeError: If the source is no name and no path.
        ValueError: If the device or the type is unknown, or not there; if a file is damaged, would run code, would
            fill the memory, does not fit its configuration, or is of a kind that cannot be loaded; the message says
            which, and why.

    Example:
        >>> prior = load_prior("photo")
        >>> prior.value_range
        (-1.0, 1.0)
    """
    if not isinstance(source, (str, Path)):
        what = "None" if source is None else f"a {type(source).__name__}"
        raise TypeError(
            f"a prior is a name ('photo' and 'colours' are in the package), a folder, a file of weights or a Prior, "
            f"not {what}; a network becomes one by restore.Prior(network, schedule, prediction=...)"
        )
    wanted = None if dtype is None else precision(dtype)  # Refused before anything is read.
    device = usable_device(device)
    prior = _read(source, schedule)
    if schedule is not None:
        prior.schedule = schedule
    domain = _domain_of(prior.name)
    if domain is not None:
        prior.config.setdefault("domain", domain)
    prior = prior if wanted is None else prior.with_dtype(wanted)
    prior = prior.to(device)
    prior = prior.with_checkpointing() if checkpointing else prior
    return prior.compiled() if compile else prior


def _read(source: str | Path, schedule: Schedule | None) -> Prior:
    inside = Path(__file__).parents[1] / "priors"
    # A bare name is the package's prior even where a folder is called the same; "./photo" is the folder.
    if isinstance(source, str) and source.isidentifier() and (inside / source / CONFIG).is_file():
        return _load_folder(inside / source, source)
    names = [entry.name for entry in zoo.entries()]
    wanted = f"give one of the names {names}, a folder with {CONFIG} in it, a file of weights, or owner/name on the hub"
    if isinstance(source, str) and not source.strip():  # As a path it would be the current folder.
        raise FileNotFoundError(f"there is no prior {source!r}, which is no name: {wanted}")
    path = Path(source).expanduser()
    if path.exists():
        return _load_path(path, path.name, schedule)
    if source in names:
        return _load_named(zoo.find(str(source)), schedule)
    if is_hub_id(source):
        return _load_folder(fetch(str(source)), str(source))
    if str(source) in names:
        raise FileNotFoundError(
            f"there is no file or folder {str(source)!r}; the prior of that name is asked for by a string, "
            f"load_prior({str(source)!r}), not by a {type(source).__name__}"
        )
    beside = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*")], cutoff=0.8)
    meant = zoo.did_you_mean(str(source), [str(path.parent / name) for name in beside])
    raise FileNotFoundError(f"there is no prior {str(source)!r}{meant or ':'} {wanted}")


def _load_named(entry: zoo.Entry, schedule: Schedule | None) -> Prior:
    """The prior of an entry of the zoo, which knows of it what its files do not tell."""
    where, files = zoo.checked(entry.name), zoo.checked_files(entry.name)
    if entry.format == "diffusers":
        prior = load_pipeline(where, entry.name, only=files)  # What else lies there was not checked.
    else:
        prior = _load_path(where, entry.name, schedule)
    prior.name = entry.name
    prior.config |= {"name": entry.name, "domain": entry.domain, "trained_size": entry.picture_size}
    return prior


def _load_path(path: Path, name: str, schedule: Schedule | None) -> Prior:
    if path.is_file():
        return _load_file(path, schedule)
    if (path / CONFIG).is_file() or (path / INDEX).is_file():
        return _load_folder(path, name)
    raise FileNotFoundError(f"the folder {str(path)!r} has neither {CONFIG} nor {INDEX}: it is no prior")


def _domain_of(name: str) -> str | None:
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((domain for domain, known in _DOMAINS.items() if words & set(known)), None)


def _load_folder(folder: Path, name: str) -> Prior:
    if (folder / INDEX).is_file():
        return load_pipeline(folder, name)
    config = read_json(folder / CONFIG)
    if config.get("format") == "restore-prior-1":
        return load_native(folder, config, name)
    if config.get("_class_name") == "UNet2DModel":
        return load_unet(folder, name)
    raise ValueError(
        f"{str(folder / CONFIG)!r} describes no prior: expected a folder written by Prior.save, "
        f"a diffusers DDPM or DDIM pipeline, or a UNet2DModel; its class is {config.get('_class_name')!r}"
    )


def _load_file(path: Path, schedule: Schedule | None) -> Prior:
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{str(path)!r} is no file of weights: expected one of {', '.join(SUFFIXES)}, or a folder"
        )
    beside = path.parent / CONFIG
    if path.name == WEIGHTS and beside.is_file() and "format" in read_json(beside):
        return load_native(path.parent, read_json(beside), path.parent.name)
    content = read_checkpoint(path)
    if lucidrains.recognises(content):
        return lucidrains.load(content, path, schedule)
    content = _weights_of(content)
    if guided_diffusion.recognises(content):
        return guided_diffusion.load(content, path, schedule)
    refuse(content, str(path))
    if beside.is_file():
        return load_unet_file(only_tensors(content, path), path, path.stem)
    first = ", ".join(sorted(content)[:3]) or "nothing"
    raise ValueError(
        f"{str(path)!r} holds no network that is known (it has {first}, ...): expected one of guided-diffusion, "
        f"the trainer's file of denoising-diffusion-pytorch, or a UNet2DModel with its {CONFIG} beside it"
    )


def _weights_of(content: dict[str, Any]) -> dict[str, Any]:
    """The weights in what a trainer saved, the averaged ones if there are any."""
    for key in ("ema", "model_ema", "ema_model", "ema_state_dict", "state_dict", "model"):
        if isinstance(content.get(key), Mapping):
            return {str(name): value for name, value in content[key].items()}
    return content
