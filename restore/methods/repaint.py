"""RePaint: *Inpainting using Denoising Diffusion Probabilistic Models*, 2022, arXiv:2201.09865."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operators import Mask
from restore.methods.base import Method


@dataclass(kw_only=True)
class RePaint(Method):
    """After every ancestral step, the measured pixels are replaced by the measurement at that step's noise level.

    ``x_s <- m (alpha_s y + sigma_s z) + (1 - m) x_s``

    So that the filled part comes to agree with the rest, the run goes up again by ``jump`` steps and comes down anew,
    ``resamplings`` times in all, every ``jump`` steps.

    Args:
        jump: Number of steps to go up.
        resamplings: How often every stretch is gone through; 1 goes straight down.
        clip: Clip the estimate to the prior's range, as the paper's code does.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> RePaint(resamplings=5)
        RePaint(jump=10, resamplings=5, clip=True)
    """

    name: ClassVar[str] = "repaint"
    reference: ClassVar[str] = (
        "RePaint: Inpainting using Denoising Diffusion Probabilistic Models, 2022, arXiv:2201.09865"
    )
    needs: ClassVar[tuple[str, ...]] = ("mask", "noise-free")
    default_steps: ClassVar[int] = 250

    jump: int = 10
    resamplings: int = 10
    clip: bool = True

    def __post_init__(self) -> None:
        if self.jump < 1 or self.resamplings < 1:
            raise ValueError(
                f"jump and resamplings must be at least 1, not {self.jump} and {self.resamplings}"
            )

    def times(self) -> list[float]:
        """Down and, ``resamplings - 1`` times at every ``jump``-th step, up again."""
        return down_and_up(self.prior.schedule.times(self.steps), self.jump, self.resamplings)

    def estimate(self, x_t: Tensor, t: float) -> Tensor:
        """``E[x_0 | x_t]``, clipped."""
        x_hat = super().estimate(x_t, t)
        return self.prior.clip(x_hat) if self.clip else x_hat

    def constrain(self, x_s: Tensor, x_t: Tensor, x_hat: Tensor, t: float, s: float) -> Tensor:
        """The paste."""
        assert isinstance(self.problem.operator, Mask)  # solve() has refused all others
        alpha, sigma = self.prior.schedule(s)
        measured = alpha * self.problem.y
        if sigma:
            measured = measured + sigma * self.noise_like(x_s)
        return torch.where(self.problem.operator.mask.bool(), measured, x_s)


def down_and_up(times: Sequence[float], jump: int, passes: int) -> list[float]:
    """Times that go up again: every stretch of ``jump`` steps is gone through ``passes`` times.

    Args:
        times: Times straight down, from noise to 0.
        jump: Number of steps to go up.
        passes: 1 goes straight down.

    Example:
        >>> down_and_up([1.0, 0.75, 0.5, 0.25, 0.0], jump=1, passes=2)
        [1.0, 0.75, 1.0, 0.75, 0.5, 0.75, 0.5, 0.25, 0.5, 0.25, 0.0]
    """
    levels, steps = list(times)[::-1], len(times) - 1  # levels[0] is clean
    # The paper's code counts its trained steps from 0, so the lowest jump starts one level above the clean image.
    jumps = {low + 1: passes - 1 for low in range(0, steps - jump, jump)}
    level, visited = steps, [levels[steps]]
    while level > 0:
        level -= 1
        visited.append(levels[level])
        if jumps.get(level, 0) > 0:
            jumps[level] -= 1
            visited += levels[level + 1 : level + jump + 1]
            level += jump
    return visited
