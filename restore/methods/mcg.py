"""MCG: *Improving Diffusion Models for Inverse Problems using Manifold Constraints*, 2022, arXiv:2206.00941."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from restore.methods.base import Problem, Self
from restore.methods.dps import DPS
from restore.prior import BasePrior
from restore.samplers import Sampler
from restore.schedule import per_image


@dataclass(kw_only=True)
class MCG(DPS):
    """DPS's gradient step moves the whole picture; then what the operator sees of it is replaced by the measurement.

    ``x_s <- x_s + A^+ (alpha_s y + sigma_s A z - A x_s)``

    That is the paper's, for a measurement without noise. A noisy one cannot be put in place of a state that holds
    less noise. Then the step is Bayes' rule: the sampler's step says ``x_s`` up to its own fresh noise, of variance
    ``c^2 = sigma_s^2 (1 - (alpha_t sigma_s / (alpha_s sigma_t))^2)``, and ``alpha_s y`` says ``A x_s`` up to
    ``alpha_s s_y``. With ``lam = (alpha_s s_y / c)^2``

    ``x_s <- x_s + A^T (A A^T + lam)^{-1} (alpha_s y + u - A x_s)``,
    ``u = sigma_s A z + alpha_s s_y sqrt(2 sigma_s^2 / c^2 - 1) z'``

    where ``z'`` is such that the noise of ``y``, of the state and of ``u`` add up to ``sigma_s^2`` in every direction,
    measured or not. Without noise this is the formula above; where noise is all there is, nothing is replaced.

    DPS's correction and the replacement both use ``y``, and a noisy one would count twice: what is measured would vary
    half as much as it should. So each of them gets half of it, a likelihood to the power of 1/2, which for Gaussian
    noise is twice the variance; together they have the whole once. With a number for ``zeta``, the gradient is not
    that of a likelihood, and the replacement has all of ``y``. The noise ``c`` is that of an ancestral step, whatever
    sampler is given.

    Args:
        zeta: DPS's step size.
        clip: Clip the estimate to the prior's range, as DPS does.
        quasi_newton: Whether DPS's direction follows from what the last step found, too; by default for at most 64
            numbers.

    Raises:
        ValueError: If ``zeta`` is negative, or comes with ``quasi_newton=True``.

    Example:
        >>> MCG(zeta=0.5).name
        'mcg'
    """

    name: ClassVar[str] = "mcg"
    reference: ClassVar[str] = (
        "Improving Diffusion Models for Inverse Problems using Manifold Constraints, 2022, arXiv:2206.00941"
    )
    needs: ClassVar[tuple[str, ...]] = ("linear",)
    takes_poisson: ClassVar[bool] = False

    def bind(
        self: Self, prior: BasePrior, problem: Problem, sampler: Sampler | None, steps: int | None
    ) -> Self:
        """A copy that is ready to run, on a measurement of twice the variance, since it is used twice."""
        assert isinstance(self, MCG)
        if self.zeta is None:
            problem = replace(problem, noise=math.sqrt(2) * problem.noise)
        return super().bind(prior, problem, sampler, steps)

    def constrain(self, x_s: Tensor, x_t: Tensor, x_hat: Tensor, t: float, s: float) -> Tensor:
        """DPS's gradient step, then the replacement."""
        x_s = super().constrain(x_s, x_t, x_hat, t, s)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.prior.schedule(t), self.prior.schedule(s)
        operator, y, noise = (
            self.linear_operator(),
            self.problem.y,
            self.problem.noise,
        )
        seen = alpha_s * y + sigma_s * operator(self.noise_like(x_s))
        share = 1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2  # of fresh noise, c^2 / sigma_s^2
        if sigma_s == 0 or share == 0:
            # The last step adds no noise: only a measurement without noise is still to be put in.
            return x_s + per_image((noise == 0).float(), x_s) * operator.pinv(seen - operator(x_s))
        added = alpha_s * math.sqrt(2 / share - 1) * per_image(noise, y) * self.noise_like(y)
        lam = (alpha_s * noise / sigma_s) ** 2 / share
        return x_s + operator.ridge(seen + added - operator(x_s), lam)
