"""The loss L_simple, that of a prior of colours, and the moving average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.colours import DEVIATION, UNKNOWN, colour_target
from restore.networks.about import estimate_of
from restore.schedule import Schedule, per_image

#: The share of pictures whose colours are learned without their luma, for guidance away from those.
BLIND = 0.15


def simple_loss(
    network: Callable[[Tensor, Tensor], Any],
    x_0: Tensor,
    schedule: Schedule,
    generator: torch.Generator | None = None,
) -> Tensor:
    """L_simple: the mean squared error of the predicted noise, at uniform times.

    The times of a batch are spread evenly over the schedule (one uniform offset for all), which leaves each of them
    uniform and takes most of the variance out of the loss.

    Args:
        network: ``network(x_t, step) -> predicted noise``.
        x_0: Clean pictures ``(B, C, H, W)`` in the prior's range.
        schedule: The noise schedule.
        generator: Where the times and the noise come from, on the device of ``x_0``.

    Returns:
        The loss, a scalar.

    Example:
        >>> x_0 = torch.zeros(64, 1, 4, 4)
        >>> loss = simple_loss(lambda x_t, step: torch.zeros_like(x_t), x_0, Schedule.linear())
        >>> 0.5 < float(loss) < 1.5
        True
    """
    step, alpha, sigma = _times(x_0, schedule, generator)
    eps = torch.randn(x_0.shape, generator=generator, device=x_0.device, dtype=x_0.dtype)
    x_t = per_image(alpha, x_0) * x_0 + per_image(sigma, x_0) * eps
    return F.mse_loss(estimate_of(network(x_t, step)).float(), eps)


def colour_loss(
    network: Callable[[Tensor, Tensor], Any],
    x_0: Tensor,
    schedule: Schedule,
    generator: torch.Generator | None = None,
    *,
    deviation: float = DEVIATION,
) -> Tensor:
    """The loss of the network of a :class:`restore.colours.ColourPrior`: of the chroma alone, the luma being known.

    The mean squared error of ``v``, at uniform times. Where noise drowns the colours it is that of the colours, which
    the network then has to tell from the luma; L_simple would count what is left of them in the noise, next to nothing.
    A few pictures are shown without their luma (*Classifier-Free Diffusion Guidance*, 2022, arXiv:2207.12598).

    Args:
        network: ``network(z, step) -> v``.
        x_0: Clean pictures ``(B, 3, H, W)`` in the prior's range.
        schedule: The noise schedule.
        generator: Where the times and the noise come from, on the device of ``x_0``.
        deviation: Root mean square of the chroma of pictures.

    Returns:
        The loss, a scalar.

    Example:
        >>> grey = torch.zeros(64, 3, 4, 4)
        >>> loss = colour_loss(lambda z, step: 0 * z[:, 1:], grey, Schedule.linear())
        >>> bool(0 < loss < 1)
        True
    """
    step, alpha, sigma = _times(x_0, schedule, generator)
    noise = torch.randn(len(x_0), 2, *x_0.shape[-2:], generator=generator, device=x_0.device, dtype=x_0.dtype)
    z, v = colour_target(x_0, noise, alpha, sigma, deviation)
    blind = torch.rand(len(x_0), generator=generator, device=x_0.device) < BLIND
    z[:, :1] = torch.where(blind[:, None, None, None], UNKNOWN, z[:, :1])
    # What colours are joined from is not of the memory layout that networks are fastest with.
    output = network(z.contiguous(memory_format=torch.channels_last), step)
    return F.mse_loss(estimate_of(output).float(), v)


def _times(
    x_0: Tensor, schedule: Schedule, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Uniform times: the step numbers that the network is given, ``alpha`` and ``sigma``, all ``(B,)``."""
    batch = len(x_0)
    offset = torch.rand((), generator=generator, device=x_0.device, dtype=torch.float64)
    even = (torch.arange(batch, device=x_0.device, dtype=torch.float64) + offset) / batch
    step = (even * schedule.steps).long().clamp_(max=schedule.steps - 1)
    alphas, sigmas = _tables(schedule, x_0.device)
    return (step + schedule.first_step).to(x_0.dtype), alphas[step], sigmas[step]


def _tables(schedule: Schedule, device: torch.device) -> tuple[Tensor, Tensor]:
    """``alpha`` and ``sigma`` of every trained step, kept on the device."""
    cache: dict[torch.device, tuple[Tensor, Tensor]] = schedule.__dict__.setdefault("_tables", {})
    if device not in cache:
        alphas, sigmas = schedule(torch.arange(1, schedule.steps + 1, dtype=torch.float64) / schedule.steps)
        cache[device] = alphas.to(device, torch.float32), sigmas.to(device, torch.float32)
    return cache[device]


class EMA:
    """An exponential moving average of a network's weights, which is what is saved and sampled from.

    The decay rises as ``(1 + n) / (10 + n)`` with the number of updates ``n``, so that a short run is not an
    average of its random start.

    Args:
        network: The network that is trained; copied.
        decay: What the decay rises to, in [0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, updates: int) -> None:
        """Moves the average towards the network's weights, after update number ``updates`` (from 0)."""
        weight = 1 - min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(
            list(self.network.parameters()), [p.detach() for p in network.parameters()], weight
        )
