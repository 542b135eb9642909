"""Training on a folder of pictures."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from restore.checkpoint import load_weights
from restore.data import Crops, find_images, split
from restore.prior import Prior
from restore.schedule import Schedule
from restore.training.devices import device_of
from restore.training.options import TrainingOptions
from restore.training.state import STATE
from restore.training.trainer import Trainer


def train(
    photos: str | Path,
    out: str | Path,
    *,
    network: nn.Module | None = None,
    init: str | Path | None = None,
    schedule: Schedule | None = None,
    channels: int = 3,
    device: str | torch.device | None = None,
    resume: bool = False,
    progress: bool = True,
    config: dict[str, Any] | None = None,
    **options: Any,
) -> Prior:
    """Trains a prior on a folder of pictures and saves it.

    Args:
        photos: A folder of pictures of any size, searched with its sub-folders. Sub-folders whose name ends in
            ``-val``, and every twentieth of the other pictures, are only used for validation.
        out: The folder that the prior is written to; :func:`restore.load_prior` loads it.
        network: What to train; by default the network of the prior in the package, or that of a prior of colours, from
            random weights.
        init: A prior folder to take the weights to start with from (a new run, unlike ``resume``).
        schedule: The noise schedule; DDPM's linear one by default.
        channels: 3 for colour, 1 for grey pictures, where ``network`` is not given.
        device: Where to train; a GPU where there is one, by default.
        resume: Go on exactly from the state in ``out``.
        progress: Show a bar with the loss.
        config: Written into the prior's ``config.json`` (name, data, licence).
        **options: See :class:`TrainingOptions`, e.g. ``steps=20_000, batch=32``.

    Returns:
        The trained prior.

    Raises:
        TypeError: If an option is not known; the message lists the known ones.
        FileNotFoundError: If there are no pictures, or nothing to resume.
        FileExistsError: If ``out`` holds a training already.
        ValueError: If an option's value makes no sense or no picture is as large as a crop.
    """
    from accelerate import PartialState

    known = [f.name for f in fields(TrainingOptions)]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise TypeError(f"unknown training option {unknown[0]!r}; known are {', '.join(known)}")
    chosen = TrainingOptions(**options)
    if (Path(out) / STATE).exists() and not resume:  # Before minutes of decoding pictures.
        raise FileExistsError(
            f"{str(out)!r} holds a training already: resume it (--resume) or choose another folder"
        )
    paths, held_out = split(find_images(photos), root=photos)
    if network is None:
        from restore.networks import colour_unet, photo_unet

        with torch.random.fork_rng(
            devices=[]
        ):  # The caller's random numbers go on as if nothing had been drawn.
            torch.manual_seed(chosen.seed)
            network = colour_unet() if chosen.colours else photo_unet(image_channels=channels)
    if init is not None:
        load_weights(network, Path(init) / "model.safetensors")
    where = device_of(device)
    kind: dict[str, Any] = {"channels": channels, "device": where, "scales": chosen.scales}
    crops = Crops(
        paths,
        chosen.sides,
        flip=chosen.flip,
        per_octave=chosen.per_octave,
        whole=chosen.whole,
        scenes=chosen.scenes,
        dead_leaves=chosen.dead_leaves,
        seed=chosen.seed,
        progress=progress and PartialState().is_main_process,
        **kind,
    )
    validation = None
    if held_out and chosen.validate_every:
        # Photographs alone, and always the same, so that losses of different trainings can be compared.
        validation = Crops(held_out, chosen.sides[0], flip=False, **kind)
    trainer = Trainer(
        network,
        crops,
        out,
        chosen,
        schedule=schedule,
        validation=validation,
        resume=resume,
        progress=progress,
        config=config,
    )
    return trainer.run()
