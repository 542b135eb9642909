"""The loss L_simple, and the moving average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.schedule import Schedule, per_image


def simple_loss(
    network: Callable[[Tensor, Tensor], Tensor],
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
    batch = len(x_0)
    offset = torch.rand((), generator=generator, device=x_0.device, dtype=torch.float64)
    even = (torch.arange(batch, device=x_0.device, dtype=torch.float64) + offset) / batch
    step = (even * schedule.steps).long().clamp_(max=schedule.steps - 1)
    alphas, sigmas = _tables(schedule, x_0.device)
    eps = torch.randn(x_0.shape, generator=generator, device=x_0.device, dtype=x_0.dtype)
    x_t = per_image(alphas[step], x_0) * x_0 + per_image(sigmas[step], x_0) * eps
    return F.mse_loss(network(x_t, (step + schedule.first_step).to(x_0.dtype)).float(), eps)


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
