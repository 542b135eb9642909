"""Folders of diffusers: unconditional pixel-space pipelines, and bare networks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore.checkpoint.files import (
    CONFIG,
    assemble,
    check_depth,
    only_tensors,
    read_checkpoint,
    read_json,
)
from restore.prior import Prior
from restore.schedule import Schedule

INDEX = "model_index.json"
SCHEDULER = "scheduler_config.json"
#: The form of a learned variance that guided-diffusion's networks have: a place between the two of DDPM.
RANGE = "learned_range"
FLOW = "FlowMatchEulerDiscreteScheduler"
STEM = "diffusion_pytorch_model"
#: The files that may hold the weights, the better ones first: early repositories have no safetensors.
WEIGHTS = (f"{STEM}.safetensors", f"{STEM}.safetensors.index.json", f"{STEM}.bin")
# How the matrices of attention are called, and how they were before 2023.
_BEFORE = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def check_pipeline(folder: Path, name: str) -> None:
    """Refuses a pipeline of another kind, going by its index alone.

    Raises:
        ValueError: If it is latent, conditioned on text, or has no ``UNet2DModel``.
    """
    index = read_json(folder / INDEX)
    parts = {key: value for key, value in index.items() if isinstance(value, list) and any(value)}
    if parts.get("unet", [None, None])[1] == "UNet2DModel" and not {"vae", "vqvae"} & parts.keys():
        return
    why = []
    if {"vae", "vqvae", "vae_encoder", "movq"} & parts.keys():
        why.append("latent (its network sees codes, not pixels)")
    if any("text_encoder" in part for part in parts):
        why.append("conditioned on text")
    what = f"; this one is {' and '.join(why)}" if why else ""
    raise ValueError(
        f"{name!r} is a {index.get('_class_name')}: only unconditional pixel-space pipelines "
        f"(DDPMPipeline, DDIMPipeline with a UNet2DModel) can be loaded; "
        f"latent and text-conditioned ones cannot yet{what}"
    )


def load_pipeline(folder: Path, name: str, only: Collection[Path] | None = None) -> Prior:
    """The prior in a pipeline's folder: with a folder for each part, or everything in one, as early ones have it.

    Args:
        folder: Where it is.
        name: What messages call it.
        only: The files that may be read, where only some were checked; by default all that are there.
    """
    check_pipeline(folder, str(folder))
    nested = folder / "scheduler" / SCHEDULER
    config = read_json(
        nested if _is_there(nested, only) or not _is_there(folder / SCHEDULER, only) else folder / SCHEDULER
    )
    flow = config.get("_class_name") == FLOW
    if not flow and "beta_schedule" not in config and config.get("trained_betas") is None:
        raise ValueError(
            f"the scheduler of {name!r} is a {config.get('_class_name')}: only priors trained with a table "
            f"of betas (DDPMScheduler, DDIMScheduler and their kin), or as a flow ({FLOW}), can be loaded"
        )
    unet = folder / "unet"
    inside = _is_there(unet / CONFIG, only) or not _is_there(folder / CONFIG, only)
    return load_unet(unet if inside else folder, name, config, only)


def load_unet(
    folder: Path, name: str, scheduler: dict[str, Any] | None = None, only: Collection[Path] | None = None
) -> Prior:
    """The prior in the folder of a ``UNet2DModel``.

    Args:
        folder: Where its ``config.json`` and weights are.
        name: What messages call it.
        scheduler: The configuration of its scheduler. Without one, that of a file beside the network is taken, or
            DDPM's linear schedule and noise prediction: what nearly all of them were trained with.
        only: As for :func:`load_pipeline`.
    """
    _check_network(read_json(folder / CONFIG), folder)
    path = next((folder / file for file in WEIGHTS if _is_there(folder / file, only)), None)
    if path is None:
        raise FileNotFoundError(
            f"{str(folder)!r} has no weights (expected {WEIGHTS[0]} or {WEIGHTS[-1]}): it was not copied whole"
        )
    content = _all_shards(path) if path.suffix == ".json" else only_tensors(read_checkpoint(path), path)
    return load_unet_file(content, path, name, scheduler)


def load_unet_file(
    content: Mapping[str, Tensor], path: Path, name: str, scheduler: dict[str, Any] | None = None
) -> Prior:
    """The prior in the state_dict of a ``UNet2DModel`` with ``config.json`` beside it.

    Args:
        content: The tensors.
        path: The file that they were read from.
        name: What messages call it.
        scheduler: As for :func:`load_unet`.
    """
    from diffusers import UNet2DModel

    place = path.parent / CONFIG
    config = read_json(place)
    _check_network(config, path.parent)
    schedule, prediction, variance = _training_of(path.parent, name, scheduler)
    check_depth(config, content, str(place))
    model: Any = UNet2DModel
    network = assemble(
        lambda: model.from_config(config),
        _renamed(content),
        str(path),
        kind=f"the {CONFIG} beside it",
        config=str(place),
    )
    return _prior(network, schedule, prediction, name, variance)


def _is_there(path: Path, only: Collection[Path] | None) -> bool:
    return path.is_file() and (only is None or path in only)


def _all_shards(index: Path) -> dict[str, Tensor]:
    """The tensors of weights that diffusers has cut into several files."""
    places = read_json(index).get("weight_map")
    names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
    if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise ValueError(
            f"{str(index)!r} does not say in which files of this folder the tensors are (its weight_map)"
        )
    found: dict[str, Tensor] = {}
    for name in names:
        found |= only_tensors(read_checkpoint(index.parent / name), index.parent / name)
    return found


def _renamed(content: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, those of attention as they are called today."""
    found = {}
    for name, value in content.items():
        block, _, kind = name.rpartition(".")
        for now, before in _BEFORE.items():
            if ".attentions." in block and block.endswith(f".{before}"):
                block = f"{block.removesuffix(before)}{now}"
        found[f"{block}.{kind}" if block else kind] = value
    return found


def _check_network(config: dict[str, Any], folder: Path) -> None:
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise ValueError(
            f"{str(folder / CONFIG)!r} describes no prior: its class is {config['_class_name']!r}, expected UNet2DModel"
        )
    if config.get("time_embedding_type", "positional") == "fourier":
        raise ValueError(
            f"the network of {str(folder)!r} is told the noise level instead of a step (an NCSN++ of score-based "
            f"models): only networks that were trained with a table of betas can be loaded"
        )


def _training_of(folder: Path, name: str, scheduler: dict[str, Any] | None) -> tuple[Schedule, str, str]:
    """With which schedule a network was trained, what it predicts, and in which form the variance if it does."""
    if scheduler is None:
        scheduler = read_json(folder / SCHEDULER) if (folder / SCHEDULER).is_file() else {}
    try:
        if scheduler.get("_class_name") == FLOW:
            # A shift changes the times that it visits, not what the network is shown at a time.
            return Schedule.flow(scheduler.get("num_train_timesteps", 1000)), "flow_prediction", RANGE
        schedule = schedule_of_diffusers(scheduler)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the scheduler's configuration of {name!r} makes no schedule: {error}") from error
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "sample", "v_prediction"):
        raise ValueError(
            f"unknown prediction_type {prediction!r} in the scheduler's configuration of {name!r}"
        )
    return schedule, prediction, "learned" if scheduler.get("variance_type") == "learned" else RANGE


def _prior(network: Any, schedule: Schedule, prediction: str, name: str, variance: str) -> Prior:
    channels, config = network.config.in_channels, {"name": name}
    if network.config.out_channels == 2 * channels and variance != RANGE:
        config["variance_type"] = variance  # Which is not what Prior.variance reads.
    return Prior(network, schedule, prediction, channels=channels, config=config)  # type: ignore[arg-type]


def schedule_of_diffusers(config: dict[str, Any]) -> Schedule:
    """The schedule that a diffusers scheduler's configuration describes.

    Raises:
        ValueError: If its kind of betas is not known.
    """
    if config.get("rescale_betas_zero_snr"):
        # arXiv:2305.08891, algorithm 1: shifted and scaled so that the last step has no signal and the first is kept.
        plain = schedule_of_diffusers({**config, "rescale_betas_zero_snr": False})
        alphas, _ = plain(torch.arange(1, plain.steps + 1, dtype=torch.float64) / plain.steps)
        alphas = (alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])
        bars = torch.cat([torch.ones(1, dtype=torch.float64), alphas**2])
        return Schedule.from_betas(1 - bars[1:] / bars[:-1])
    if config.get("trained_betas") is not None:
        return Schedule.from_betas(config["trained_betas"])
    steps = config.get("num_train_timesteps", 1000)
    kind = config.get("beta_schedule", "linear")
    ends = {"beta_start": config.get("beta_start", 1e-4), "beta_end": config.get("beta_end", 0.02)}
    if kind == "linear":
        return Schedule.linear(steps, **ends)
    if kind == "scaled_linear":
        return Schedule.scaled_linear(steps, **ends)
    if kind == "squaredcos_cap_v2":
        return Schedule.cosine(steps)
    raise ValueError(f"unknown beta_schedule {kind!r}: known are linear, scaled_linear, squaredcos_cap_v2")
