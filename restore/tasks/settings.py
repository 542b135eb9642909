"""What may be said to any repair: noise in the picture's units, the prior, draws, a seed for each part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from operators import Operator, PoissonNoise
from restore.checkpoint import load_prior
from restore.images import ImageFormat
from restore.methods.base import Method
from restore.prior import BasePrior
from restore.randomness import stream_seed
from restore.solve import solve
from restore.solve.checks import noise_levels, whole_number
from restore.solve.parts import device_for


def noise_of(noise: Any, batch: Tensor, layout: ImageFormat) -> Tensor:
    """The standard deviation of the noise of each picture where white is 1, ``(B,)``: repairs know no other noise."""
    if isinstance(noise, PoissonNoise):
        raise TypeError("a repair takes noise as a standard deviation; for photon noise, use restore.solve")
    return noise_levels(noise, batch, layout)


def draws_of(
    settings: dict[str, Any], batch: Tensor, layout: ImageFormat
) -> tuple[int | None, dict[str, Any]]:
    """The number of draws, and the other settings, with the noise in the units that ``to_batch`` made."""
    others = {k: v for k, v in settings.items() if k != "samples"}
    if "noise" in others:
        others["noise"] = noise_of(others["noise"], batch, layout)
    samples = settings.get("samples")
    return None if samples is None else whole_number(samples, "samples"), others


def solved(
    y: Tensor, operator: Operator, method: str | Method | None, samples: int | None, **settings: Any
) -> Tensor:
    """The draws of each picture one after the other, ``(n B, C, H, W)``; without ``samples``, one picture each."""
    x: Tensor = solve(y, operator, "auto" if method is None else method, samples=samples, **settings)
    return x if samples is None else x.flatten(0, 1)


def prior_of(settings: dict[str, Any]) -> BasePrior:
    """The prior, loaded once for all parts of a picture."""
    prior = settings.get("prior", "photo")
    if isinstance(prior, BasePrior):
        return prior
    return load_prior(prior, device=device_for(settings.get("device"), prior, torch.empty(0)))


def seeded(settings: dict[str, Any], number: int) -> dict[str, Any]:
    """The settings for a part of a picture: each part has noise of its own, the first as if it were alone."""
    seed = settings.get("seed")
    if seed is None or number == 0:
        return settings
    own = [stream_seed(s, number) for s in seed] if isinstance(seed, Sequence) else stream_seed(seed, number)
    return {**settings, "seed": own}


def as_colour(batch: Tensor, prior: BasePrior) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A grey picture as a colour one for a colour prior, and the way back."""
    if batch.shape[1] == 1 and prior.channels == 3:
        return batch.repeat(1, 3, 1, 1), lambda x: x.mean(1, keepdim=True)
    return batch, lambda x: x
