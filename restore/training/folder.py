"""Training on a folder of pictures."""

from __future__ import annotations

import copy
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from restore.checkpoint import build_network, load_prior
from restore.checkpoint.files import fill
from restore.colours import DEVIATION, ColourPrior, colour_network
from restore.data import Crops, find_images, split
from restore.networks import about, with_scales
from restore.prior import Prior
from restore.schedule import Schedule
from restore.training.devices import device_of
from restore.training.options import TrainingOptions
from restore.training.state import STATE, check_options, read_about
from restore.training.trainer import Trainer


def train(
    photos: str | Path,
    out: str | Path,
    *,
    network: nn.Module | None = None,
    init: str | Path | Prior | None = None,
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
        init: A prior to begin with, or its name or folder: a new run from its weights, unlike ``resume``. Where colours
            are trained, it may be one of pictures, with a network of :func:`restore.networks.photo_unet`.
        schedule: The noise schedule; that of ``init``, or DDPM's linear one, by default.
        channels: 3 for colour, 1 for grey pictures, where neither ``network`` nor ``init`` tells.
        device: Where to train; a GPU where there is one, by default.
        resume: Go on exactly from the state in ``out``, with its network, its schedule, its ``config``, and all options
            that are not given again; ``init`` is not looked at. Of options, the number of steps, how often something is
            saved, sampled or validated, and ``compile`` may be others than they were. The device is not remembered.
        progress: Show a bar with the loss.
        config: Written into the prior's ``config.json`` (name, data, licence); as it was, where a training is resumed.
        **options: See :class:`TrainingOptions`, e.g. ``steps=20_000, batch=32``.

    Returns:
        The trained prior.

    Raises:
        TypeError: If an option is not known (the message lists the known ones), or no prior of colours can begin with
            the network of ``init``.
        FileNotFoundError: If there are no pictures, no prior ``init``, or nothing to resume.
        FileExistsError: If ``out`` holds a training already.
        ValueError: If an option's value makes no sense, no picture is as large as a crop, ``init`` is of another
            kind than what is trained, or a resumed training has made more than ``steps`` already.
    """
    from accelerate import PartialState

    known = [f.name for f in fields(TrainingOptions)]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise TypeError(f"unknown training option {unknown[0]!r}; known are {', '.join(known)}")
    before: dict[str, Any] = {}
    if resume:  # What is not said is as it was.
        before = read_about(Path(out) / STATE)
        options = {k: v for k, v in before["options"].items() if k in known} | options
    chosen = TrainingOptions(**options)
    if resume:
        check_options(Path(out) / STATE, before, chosen)
        if before["step"] == chosen.steps:
            warnings.warn(
                f"{str(out)!r} has made all its {chosen.steps} updates: give a larger number of steps (--steps) "
                f"to go on",
                stacklevel=2,
            )
    if (Path(out) / STATE).exists() and not resume:  # Before minutes of decoding pictures.
        raise FileExistsError(
            f"{str(out)!r} holds a training already: resume it (--resume) or choose another folder"
        )
    paths, held_out = split(find_images(photos), root=photos)
    with torch.random.fork_rng(devices=[]):  # The caller's random numbers go on as if nothing had been drawn.
        torch.manual_seed(chosen.seed)
        if resume:
            network, schedule = _as_before(before, network, schedule)
        elif init is not None:
            network, schedule = _begun(init, network, schedule, chosen.colours)
        elif network is None:
            from restore.networks import colour_unet, photo_unet

            network = colour_unet() if chosen.colours else photo_unet(image_channels=channels)
    channels = about.channels_of(network) or channels
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


def _as_before(
    told: dict[str, Any], network: nn.Module | None, schedule: Schedule | None
) -> tuple[nn.Module, Schedule]:
    """The network and the schedule of a training that goes on: what it began with need not be said again."""
    network = build_network(told["network"]) if network is None else network
    return network, schedule or Schedule.from_config(told["schedule"])


def _begun(
    init: str | Path | Prior, network: nn.Module | None, schedule: Schedule | None, colours: bool
) -> tuple[nn.Module, Schedule]:
    """The network, with the weights of a prior, and the schedule of a training that begins with that prior.

    Raises:
        ValueError: If what the prior estimates, or how, is not what is trained here.
        TypeError: If it is of pictures, its network no ``photo_unet``, and colours are trained.
    """
    prior = init if isinstance(init, Prior) else load_prior(init)
    name = repr(prior.name if isinstance(init, Prior) else str(init))
    of_colours = isinstance(prior, ColourPrior)
    if of_colours and not colours:
        raise ValueError(
            f"{name} is a prior of colours: train it as one (colours=True, --colours), or begin with another"
        )
    kind = "v_prediction" if of_colours else "epsilon"
    if prior.prediction != kind or prior.value_range != (-1.0, 1.0):
        raise ValueError(
            f"the prior {name} predicts {prior.prediction!r} of pictures in {list(prior.value_range)}; what is "
            f"trained here predicts {kind!r} of pictures in [-1, 1]: begin with such a one"
        )
    lacking = ""
    if prior.needs_labels:
        lacking = "is conditional on a class"
    elif isinstance(prior, ColourPrior):
        if prior.deviation != DEVIATION:
            lacking = f"has colours in units of {prior.deviation:g}, and not of {DEVIATION:g}"
    elif about.outputs_of(prior.network) not in (None, prior.channels):
        lacking = "predicts its variance, too"
    if lacking:
        raise ValueError(f"the prior {name} {lacking}, which cannot be trained here: begin with another")
    found = copy.deepcopy(prior.network)
    if colours and not of_colours:
        found = colour_network(found)
    if network is None:
        network = found.requires_grad_(True)
    else:
        fill(network, with_scales(found.state_dict(), network), name)
    return network, schedule or prior.schedule
