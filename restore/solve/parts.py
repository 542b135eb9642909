"""Where a problem is computed, in which precision, and in what parts: no result depends on the parts."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from restore.memory import precision, states_at_once, usable_device
from restore.methods.base import Method
from restore.prior import BasePrior, Prior


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


def parts_of(
    draws: int, shape: tuple[int, ...], device: torch.device, method: Method, light: bool
) -> list[range]:
    """All draws, in parts that fit into memory: results do not depend on the parts."""
    states = states_at_once(shape[-2] * shape[-1], device, gradient=method.gradient, light=light)
    size = max(1, states // method.states_per_draw)
    return [range(first, min(first + size, draws)) for first in range(0, draws, size)]
