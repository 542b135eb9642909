"""RED-diff: *A Variational Perspective on Solving Inverse Problems with Diffusion Models*, 2023, arXiv:2305.04391."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from restore.methods.base import Method
from restore.schedule import per_image

DECAY = 0.9, 0.99  # Adam's, of the gradient and of its square: the paper's.


@dataclass(kw_only=True)
class REDDiff(Method):
    """Not a sampler but an optimiser: the state is a picture ``mu``, which Adam improves while ``t`` descends.

    The posterior is approximated by a point. For any noise level ``nu = sigma_t / alpha_t`` one may ask which ``mu``
    minimises

    ``-log p(y | mu) + KL(N(alpha_t mu, sigma_t^2) || p(x_t))``,

    and the gradient of the second term is ``(alpha_t / sigma_t) E[e_hat - e] = E[mu - x_hat(x_t)] / nu^2`` at
    ``x_t = alpha_t mu + sigma_t e``, without a derivative of the network. As ``t`` goes to 0 this is the posterior's
    mode. The paper minimises ``||y - A mu||^2 / 2 + lam (sigma_t / alpha_t) <e_hat - e, mu>``, whose gradient is

    ``A^T (A mu - y) + lam (mu - x_hat)``;

    beside the above, it takes ``lam nu^2`` for the variance of ``y``: a tolerance that ends at 0. If ``y`` has noise
    of its own, the variance is ``s_y^2 + lam nu^2``. Written so that the prior's part stays as it is, the gradient is

    ``w A^T (A mu - y) + lam (mu - x_hat)``, ``w = lam nu^2 / (s_y^2 + lam nu^2)``.

    Without noise ``w`` is 1, the paper's; with noise the end is the posterior's mode under the true noise; and the
    measurement fades as its noise grows. No number in this depends on the size of the picture or of the measurement.

    For a linear operator without noise, the result is finally projected on the measurement, which Adam only nears.

    Args:
        lam: Weight of the prior, the paper's 0.25.
        lr: Adam's step for images in [-1, 1], the paper's 0.1; it is scaled to the prior's range.

    Raises:
        ValueError: If one of them is not above 0.

    Example:
        >>> REDDiff(lr=0.2)
        REDDiff(lam=0.25, lr=0.2)
    """

    name: ClassVar[str] = "red_diff"
    reference: ClassVar[str] = (
        "A Variational Perspective on Solving Inverse Problems with Diffusion Models, 2023, arXiv:2305.04391"
    )
    takes_sampler: ClassVar[bool] = False
    takes_poisson: ClassVar[bool] = True
    default_steps: ClassVar[int] = 1000

    lam: float = 0.25
    lr: float = 0.1

    number: int = field(init=False, repr=False, compare=False)
    first: Tensor = field(init=False, repr=False, compare=False)
    second: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.lam > 0 or not self.lr > 0:
            raise ValueError(f"lam and lr must be above 0, not {self.lam} and {self.lr}")

    def start(self, t: float) -> Tensor:
        """A picture made from the measurement; mid-grey for an operator that is not linear."""
        low, high = self.prior.value_range
        grey = torch.full(self.problem.shape, (low + high) / 2, device=self.problem.y.device)
        self.number, self.first, self.second = 0, torch.zeros_like(grey), torch.zeros_like(grey)
        linear = self.problem.operator is not None and self.problem.operator.linear
        return self.image_from_measurement() if linear else grey

    def step(self, x_t: Tensor, t: float, s: float) -> Tensor:
        """One step of Adam from ``mu``, which is what the loop calls ``x_t``."""
        mu, (alpha, sigma) = x_t, self.prior.schedule(t)
        self.x_hat = self.prior.clip(self.estimate(alpha * mu + sigma * self.noise_like(mu), t))
        # w s_y^2, for the likelihood holds 1 / s_y^2.
        variance, tolerance = self.believed_noise() ** 2, self.lam * sigma**2
        weight = variance * tolerance / (alpha**2 * variance + tolerance)
        gradient = self.lam * (mu - self.x_hat) - per_image(weight, mu) * self.uphill(mu)
        return mu - self.adam(gradient)

    def adam(self, gradient: Tensor) -> Tensor:
        """Adam's step for this gradient, pixel by pixel: no image knows of another."""
        low, high = self.prior.value_range
        self.number += 1
        self.first = torch.lerp(gradient, self.first, DECAY[0])
        self.second = torch.lerp(gradient**2, self.second, DECAY[1])
        mean, square = (
            moment / (1 - decay**self.number)
            for moment, decay in zip((self.first, self.second), DECAY, strict=True)
        )
        return self.lr * (high - low) / 2 * mean / (square.sqrt() + 1e-8)

    def finish(self, x: Tensor) -> Tensor:
        """The picture; projected on a linear measurement that has no noise."""
        if self.problem.operator is None or not self.problem.operator.linear:
            return x
        operator, low, high = self.linear_operator(), *self.prior.value_range
        lam = self.believed_noise() ** 2 / ((high - low) ** 2 / 12)
        exact = operator.prox(self.problem.y, x, lam)
        clear = (self.problem.noise == 0).reshape(-1, 1, 1, 1)
        return torch.where(clear, exact, x)
