"""DPS: *Diffusion Posterior Sampling for General Noisy Inverse Problems*, 2022, arXiv:2209.14687."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operators import Mask
from restore.methods.base import Method

PAPER_STEPS = 1000
PAPER_NUMEL = 3 * 256 * 256


@dataclass(kw_only=True)
class DPS(Method):
    """Every ancestral step is followed by a step down the gradient of the residual's norm.

    ``x_s <- x_s - zeta_run grad_{x_t} || y - A(x_hat(x_t)) ||_2``

    The norm is not squared, and it is of each image by itself. ``zeta`` is the paper's step size, a distance in the
    prior's range (the paper's is [-1, 1]), for 1000 steps at 3 x 256 x 256. So that it means the same elsewhere, a run
    uses ``zeta (1000 / steps) sqrt(size / (3 x 256 x 256))``: the guidance of all steps together stays as it is when
    their number changes, and a picture of four times the pixels, whose distances are twice as long, is moved twice as
    far. With few steps each is large, and a strong guidance overshoots: then take more steps or a smaller ``zeta``.

    Args:
        zeta: Step size. By default the paper's: 0.5 for a mask, 0.3 for anything else.
        clip: Clip the estimate to the prior's range, as the paper's code does.

    Raises:
        ValueError: If ``zeta`` is negative.

    Example:
        >>> DPS(zeta=0.5)
        DPS(zeta=0.5, clip=True)
    """

    name: ClassVar[str] = "dps"
    paper: ClassVar[str] = (
        "Diffusion Posterior Sampling for General Noisy Inverse Problems, 2022, arXiv:2209.14687"
    )
    gradient: ClassVar[bool] = True
    default_steps: ClassVar[int] = PAPER_STEPS

    zeta: float | None = None
    clip: bool = True

    def __post_init__(self) -> None:
        if self.zeta is not None and not self.zeta >= 0:
            raise ValueError(f"zeta is a step size of at least 0, not {self.zeta}")

    def estimate(self, x_t: Tensor, t: float) -> Tensor:
        """``E[x_0 | x_t]``, clipped."""
        x_hat = self.prior(x_t, t)
        return self.prior.clip(x_hat) if self.clip else x_hat

    def constrain(self, x_s: Tensor, x_t: Tensor, x_hat: Tensor, t: float, s: float) -> Tensor:
        """The gradient step."""
        with torch.enable_grad():
            norm = self.residual_norm(x_hat)
            (gradient,) = torch.autograd.grad(
                norm.sum(), x_t
            )  # A sum of images' norms: each has its own gradient.
        return x_s - self.step_size() * gradient

    def step_size(self) -> float:
        """``zeta`` for this run's number of steps and size of picture."""
        zeta = (0.5 if isinstance(self.problem.operator, Mask) else 0.3) if self.zeta is None else self.zeta
        size = math.prod(self.problem.shape[1:])
        return zeta * (PAPER_STEPS / self.steps) * math.sqrt(size / PAPER_NUMEL)
