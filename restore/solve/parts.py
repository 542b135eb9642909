"""Where a problem is computed, in which precision, and in what parts: no result depends on the parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from operators import Mask, Operator
from restore.memory import precision, states_at_once, usable_device
from restore.methods import choose
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
    draws: Sequence[int], shape: tuple[int, ...], device: torch.device, method: Method, light: bool
) -> list[Sequence[int]]:
    """The draws in parts that fit into memory: results do not depend on the parts."""
    states = states_at_once(shape[-2] * shape[-1], device, gradient=method.gradient, light=light)
    size = max(1, states // method.states_per_draw)
    return [draws[first : first + size] for first in range(0, len(draws), size)]


@dataclass(frozen=True)
class Plan:
    """By which method, and in how many steps, some images of a batch are solved.

    Attributes:
        method: The method.
        steps: Number of steps; None takes the method's own.
        images: Positions of the images in the batch.
    """

    method: Method
    steps: int | None
    images: Sequence[int]

    def draws(self, images: int, samples: int) -> Sequence[int]:
        """Positions of their draws in the flat list of all (draw by draw, image by image).

        Args:
            images: Number of images in the batch.
            samples: Number of draws for each.
        """
        if len(self.images) == images:
            return range(images * samples)
        return [draw * images + image for draw in range(samples) for image in self.images]


def plans_for(
    operator: Operator, shape: tuple[int, ...], *, gaussian: bool, calls: int | None, draws: bool
) -> list[Plan]:
    """What ``method="auto"`` does with a batch: where masks differ, every image has the method that suits its own.

    Args:
        operator: The operator, of one mask or of one for every image.
        shape: Shape of the measurement, ``(B, ...)``.
        gaussian: Whether its noise is Gaussian, or none.
        calls: How many network calls there may be.
        draws: Whether draws are wanted, rather than one picture.
    """

    def chosen(one: Operator) -> tuple[Method, int]:
        return choose(one, math.prod(shape[1:]), gaussian=gaussian, calls=calls, draws=draws)

    if not isinstance(operator, Mask) or operator.batch_size in (None, 1) or operator.batch_size != shape[0]:
        return [Plan(*chosen(operator), range(shape[0]))]
    choices = [chosen(operator.select(torch.tensor([image]))) for image in range(shape[0])]
    return [
        Plan(*choice, [i for i, other in enumerate(choices) if other == choice])
        for n, choice in enumerate(choices)
        if choice not in choices[:n]
    ]
