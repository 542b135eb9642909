"""Training on a folder of pictures."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from restore.checkpoint import build_network, load_prior
from restore.checkpoint.files import fill
from restore.colours import ColourPrior, colour_network
from restore.data import Crops, find_images, split
from restore.prior import Prior
from restore.schedule import Schedule
from restore.training.devices import device_of
from restore.training.options import TrainingOptions
from restore.training.state import STATE, read_about
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
        network: What to train; by default that of ``init``, or the network of the prior in the package, or that of a
            prior of colours, from random weights.
        init: A prior to begin with, by its name or folder: a new run from its weights, unlike ``resume``. Where colours
            are trained, it may be one of pictures.
        schedule: The noise schedule; that of ``init``, or DDPM's linear one, by default.
        channels: 3 for colour, 1 for grey pictures, where ``network`` is not given.
        device: Where to train; a GPU where there is one, by default.
        resume: Go on exactly from the state in ``out``, with its network and its schedule.
        progress: Show a bar with the loss.
        config: Written into the prior's ``config.json`` (name, data, licence).
        **options: See :class:`TrainingOptions`, e.g. ``steps=20_000, batch=32``.

    Returns:
        The trained prior.

    Raises:
        TypeError: If an option is not known; the message lists the known ones.
        FileNotFoundError: If there are no pictures, no prior ``init``, or nothing to resume.
        FileExistsError: If ``out`` holds a training already.
        ValueError: If an option's value makes no sense, no picture is as large as a crop, or ``init`` is of another
            kind than what is trained.
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
    if resume and network is None:
        # As it was: what it began with, and that it did, need not be said again.
        about, init = read_about(Path(out) / STATE), None
        if about["options"].get("colours", False) != chosen.colours:
            what, how = ("pictures", "without") if chosen.colours else ("colours", "with")
            raise ValueError(
                f"{str(out)!r} is a training of {what}: resume it {how} colours=True (--colours)"
            )
        network = build_network(about["network"])
        schedule = schedule or Schedule.from_config(about["schedule"])
    begun = None if init is None else _begun(init, chosen.colours)
    if begun is not None:
        network, schedule = _network_of(begun, network, chosen.colours, str(init)), schedule or begun.schedule
    if network is None:
        from restore.networks import colour_unet, photo_unet

        with torch.random.fork_rng(
            devices=[]
        ):  # The caller's random numbers go on as if nothing had been drawn.
            torch.manual_seed(chosen.seed)
            network = colour_unet() if chosen.colours else photo_unet(image_channels=channels)
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


def _begun(init: str | Path, colours: bool) -> Prior:
    """The prior that a training begins with; refused, where the trainer's loss is of something else."""
    prior = load_prior(init)
    if isinstance(prior, ColourPrior) and not colours:
        raise ValueError(
            f"{str(init)!r} is a prior of colours: train it as one (colours=True, --colours), or begin with another"
        )
    kind = "v_prediction" if isinstance(prior, ColourPrior) else "epsilon"
    if prior.prediction != kind or prior.value_range != (-1.0, 1.0):
        raise ValueError(
            f"the prior {str(init)!r} predicts {prior.prediction!r} of pictures in {list(prior.value_range)}; what is "
            f"trained here predicts {kind!r} of pictures in [-1, 1]: begin with such a one"
        )
    return prior


def _network_of(prior: Prior, network: nn.Module | None, colours: bool, source: str) -> nn.Module:
    """The network of a prior, to be trained; or ``network`` with its weights."""
    found = prior.network
    if colours and not isinstance(prior, ColourPrior):
        found = colour_network(found)
    if network is None:
        return found.requires_grad_(True)
    fill(network, found.state_dict(), source)
    return network
