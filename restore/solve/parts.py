"""Where a problem is computed, in which precision, and in what parts: no result depends on the parts."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from restore.memory import precision, usable_device
from restore.methods.base import Method
from restore.prior import BasePrior, Prior

#: How many pixels are worked on at once, by kind of device: a batch beyond that is done in parts.
PIXELS_AT_ONCE = {"cpu": 2**19, "cuda": 2**22}


def device_for(device: str | torch.device | None, prior: str | Path | BasePrior, y: Tensor) -> torch.device:
    """Where to compute: where the user says, else where ``y`` is on a GPU, else where a given prior is."""
    if device is not None:
        where = usable_device(device)
    elif y.device.type != "cpu":
        where = y.device
    elif isinstance(prior, BasePrior):
        where = prior.device
    else:
        where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if where.type == "cuda" and where.index is None:
        where = torch.device("cuda", torch.cuda.current_device())
    return where


def in_precision(prior: BasePrior, dtype: str | torch.dtype) -> BasePrior:
    """The prior with its network in another precision."""
    named = precision(dtype)
    if not isinstance(prior, Prior):
        raise TypeError(f"{prior.name!r} has no network whose precision could be chosen: leave dtype out")
    return prior.with_autocast(named)


def parts_of(draws: int, shape: tuple[int, ...], device: torch.device, method: Method) -> list[range]:
    """All draws, in parts that fit into memory: results do not depend on the parts."""
    limit = PIXELS_AT_ONCE.get(device.type, PIXELS_AT_ONCE["cpu"])
    limit = (
        limit // 8 if method.gradient else limit
    )  # All activations of the network are kept for a gradient.
    size = max(1, limit // (shape[-2] * shape[-1] * method.states_per_draw))
    return [range(first, min(first + size, draws)) for first in range(0, draws, size)]


def with_labels_of(prior: BasePrior, index: Tensor) -> BasePrior:
    """The prior for some images of the batch: its class labels follow them, where there is one per image."""
    if not isinstance(prior, Prior) or prior.class_labels is None or len(prior.class_labels) == 1:
        return prior
    return prior.with_labels(prior.class_labels[index.cpu()])
