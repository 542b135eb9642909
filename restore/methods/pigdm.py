"""PiGDM: *Pseudoinverse-Guided Diffusion Models for Inverse Problems*, 2023 (ICLR, openreview 9_gsMA8MRKQ)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restore.methods.base import Method
from restore.samplers import DDIM, Sampler


@dataclass(kw_only=True)
class PiGDM(Method):
    """The image given the state is taken as Gaussian around the estimate, with one variance for all pixels.

    ``p(y | x_t) = N(A x_hat, q^2 A A^T + s_y^2 I)``, ``q^2 = sigma_t^2 / (alpha_t^2 + sigma_t^2)`` for data of unit
    variance, so that with Tweedie's formula

    ``E[x_0 | x_t, y] = x_hat + (sigma_t^2 / alpha_t) J^T A^T (q^2 A A^T + s_y^2 I)^{-1} (y - A x_hat)``

    where ``J`` is the derivative of ``x_hat`` by ``x_t``. Any sampler goes on from this estimate.

    Args:
        variance: Variance of the data, in the prior's units; 1 is the paper's.
        clip: Clip the network's estimate, and the corrected one, to the prior's range. Without, the error that a
            network has at high noise, where its estimate is a difference divided by a small ``alpha``, makes runs
            diverge.

    Raises:
        ValueError: If the variance is not above 0.

    Example:
        >>> PiGDM()
        PiGDM(variance=1.0, clip=True)
    """

    name: ClassVar[str] = "pigdm"
    paper: ClassVar[str] = (
        "Pseudoinverse-Guided Diffusion Models for Inverse Problems, 2023, ICLR (openreview 9_gsMA8MRKQ)"
    )
    needs: ClassVar[tuple[str, ...]] = ("linear",)
    gradient: ClassVar[bool] = True
    default_steps: ClassVar[int] = 100
    default_sampler: ClassVar[Sampler] = DDIM(eta=1.0)

    variance: float = 1.0
    clip: bool = True

    def __post_init__(self) -> None:
        if not self.variance > 0:
            raise ValueError(f"a variance is above 0, not {self.variance}")

    def estimate(self, x_t: Tensor, t: float) -> Tensor:
        """``E[x_0 | x_t, y]`` under the approximation."""
        alpha, sigma = self.prior.schedule(t)
        x_hat = self.prior(x_t, t)
        if self.clip:
            x_hat = self.prior.clip(x_hat)
        if alpha == 0:
            return x_hat.detach()  # A state of noise alone tells nothing that a measurement could correct.
        operator = self.linear_operator()
        with torch.no_grad():
            q2 = self.variance * sigma**2 / (alpha**2 * self.variance + sigma**2)
            residual = self.problem.y - operator(x_hat)
            # (q^2 A A^T + s_y^2)^{-1} = (A A^T + (s_y / q)^2)^{-1} / q^2
            direction = operator.ridge(residual, self.problem.noise**2 / q2) / q2
        (gradient,) = torch.autograd.grad(x_hat, x_t, direction)
        x_hat = (x_hat + sigma**2 / alpha * gradient).detach()
        return self.prior.clip(x_hat) if self.clip else x_hat
