"""``load_prior``: finds out what a source is, and has it read by the module that knows its kind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from restore.checkpoint import guided_diffusion, lucidrains
from restore.checkpoint.diffusers import INDEX, load_pipeline, load_unet, load_unet_file
from restore.checkpoint.files import CONFIG, SUFFIXES, read_checkpoint, read_json
from restore.checkpoint.foreign import refuse
from restore.checkpoint.hub import fetch, is_hub_id
from restore.checkpoint.native import WEIGHTS, load_native
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
    source: str | Path, *, device: str | torch.device = "cpu", schedule: Schedule | None = None
) -> Prior:
    """Loads a prior.

    Args:
        source: One of

            * ``"photo"``, the prior in the package (``"./photo"`` is a folder of that name);
            * a folder written by :meth:`Prior.save`;
            * a folder of diffusers: a saved ``DDPMPipeline`` or ``DDIMPipeline``, or a bare ``UNet2DModel``;
            * ``"owner/name"``, such a folder on the Hugging Face hub, which is fetched once into the hub's cache;
            * a ``.pt`` of guided-diffusion: OpenAI's for ImageNet of 64 to 256 pixels, DPS's ``ffhq_10m.pt``, and
              others of this architecture;
            * a ``.pt`` of the trainer of denoising-diffusion-pytorch, version 2;
            * a ``.safetensors`` or ``.pt`` of a ``UNet2DModel``, with its ``config.json`` beside it.
        device: Where to put it.
        schedule: With which noise schedule it was trained, where the file does not tell, or tells wrong.

    Returns:
        The prior, in evaluation mode, in float32.

    Raises:
        FileNotFoundError: If there is nothing of that name.
        ValueError: If a file is damaged, would run code, does not fit its configuration, or is of a kind that cannot
            be loaded; the message says which, and why.

    Example:
        >>> prior = load_prior("photo")
        >>> prior.value_range
        (-1.0, 1.0)
    """
    if not isinstance(source, (str, Path)):
        raise TypeError(
            f"a prior is a name, a folder or a Prior, not a {type(source).__name__}; a network becomes one by "
            f"restore.Prior(network, schedule, prediction=...)"
        )
    if is_hub_id(source):
        prior = _load_folder(fetch(str(source)), str(source))
    elif Path(source).expanduser().is_file():
        prior = _load_file(Path(source).expanduser(), schedule)
    else:
        folder = _find(source)
        prior = _load_folder(folder, folder.name)
    if schedule is not None:
        prior.schedule = schedule
    domain = _domain_of(prior.name)
    if domain is not None:
        prior.config.setdefault("domain", domain)
    return prior.to(device)


def _domain_of(name: str) -> str | None:
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((domain for domain, known in _DOMAINS.items() if words & set(known)), None)


def _find(source: str | Path) -> Path:
    inside = Path(__file__).parents[1] / "priors"
    path = Path(source).expanduser()
    # A bare name is the package's prior even where a folder is called the same; "./photo" is the folder.
    if isinstance(source, str) and source.isidentifier() and (inside / source / CONFIG).is_file():
        return inside / source
    if path.is_dir():
        if (path / CONFIG).is_file() or (path / INDEX).is_file():
            return path
        raise FileNotFoundError(f"the folder {str(path)!r} has neither {CONFIG} nor {INDEX}: it is no prior")
    names = sorted(p.parent.name for p in inside.glob(f"*/{CONFIG}"))
    raise FileNotFoundError(
        f"there is no prior {str(source)!r}: give one of the names {names}, a folder with {CONFIG} in it, "
        f"a file of weights, or owner/name on the hub"
    )


def _load_folder(folder: Path, name: str) -> Prior:
    if (folder / INDEX).is_file():
        return load_pipeline(folder, name)
    config = read_json(folder / CONFIG)
    if config.get("format") == "restore-prior-1":
        return load_native(folder, config)
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
        return load_native(path.parent, read_json(beside))
    content = read_checkpoint(path)
    if lucidrains.recognises(content):
        return lucidrains.load(content, path, schedule)
    content = _weights_of(content)
    if guided_diffusion.recognises(content):
        return guided_diffusion.load(content, path, schedule)
    refuse(content, str(path))
    if beside.is_file():
        return load_unet_file(content, path)
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
