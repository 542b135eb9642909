"""DAPS: *Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing*, 2024, arXiv:2407.01521."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from restore.methods.base import Method
from restore.schedule import per_image

RHO = 7  # Levels are evenly spaced in their seventh root, in the paper and in EDM (arXiv:2206.00364).
POWER_STEPS = 4
FAINT = 1e-4  # A signal below this is none: no schedule of trained networks but a flow's end has less.


@dataclass(kw_only=True)
class DAPS(Method):
    """At every noise level: a clean picture, a draw around it that agrees with ``y``, and new noise of the next level.

    With ``nu = sigma_t / alpha_t`` falling from 100 to 0.1, for images in [-1, 1]:

    1. ``x_hat``: a few steps of the probability-flow ODE from ``x_t`` down to 0;
    2. a draw from ``exp(-||y - A x||^2 / 2 s_y^2 - ||x - x_hat||^2 / 2 q^2)``;
    3. ``x_s = alpha_s x + sigma_s z``.

    The second is ``x = argmin ||y + s_y z' - A x||^2 / s_y^2 + ||x - x_hat||^2 / q^2``. For a linear operator that is
    one closed proximal step; for any other, steps down the gradient. Their length starts as the inverse of the greatest
    curvature, found by power iterations on differences of gradients; it grows where a step leads down and shrinks
    where not, for every image by itself.

    A draw in full would start from ``x_hat + q z``. But where ``x_hat`` solves the ODE from a state with fresh noise,
    it varies already as a draw does: more noise would be too much (it doubles the variance of what is not measured).
    Let data of variance ``v`` be multiplied by ``g`` on its way from ``x_t / alpha_t`` to ``x_hat``. Then the
    three steps keep the mean of the posterior if and only if ``q^2 = v (1 - g)``, and its variance if
    ``v = g^2 (v + nu^2)``, which is what the ODE does: ``g = sqrt(v / (v + nu^2))``. At low noise ``q^2`` is then
    ``nu^2 / 2``, whatever ``v`` is; the paper's is ``nu^2``. So that a few steps come near the ODE, they are of second
    order (Adams and Bashforth's), by the change of the estimated noise since the step before. One step alone gives
    the mean of ``x_0`` in place of a draw; then too little variance is left, down to half.

    ``steps`` is the number of levels. Each calls the network ``ode_steps`` times: 1000 calls by default.

    Args:
        ode_steps: Steps of the ODE at every level.
        sigma_max: The first noise level, for images in [-1, 1]; that of the schedule's end if this is beyond it.
        sigma_min: The last noise level.
        variance: Variance ``v`` of the data, in the prior's units; by default 1 for images in [-1, 1].
        gradient_steps: Steps down the gradient at every level, for operators that are not linear.

    Raises:
        ValueError: If a number of steps is below 1, a variance not above 0, or the levels do not fall.

    Example:
        >>> DAPS(ode_steps=2).calls_per_step
        2
    """

    name: ClassVar[str] = "daps"
    reference: ClassVar[str] = (
        "Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing, 2024, arXiv:2407.01521"
    )
    takes_sampler: ClassVar[bool] = False
    default_steps: ClassVar[int] = 200

    ode_steps: int = 5
    sigma_max: float = 100.0
    sigma_min: float = 0.1
    variance: float | None = None
    gradient_steps: int = 20

    def __post_init__(self) -> None:
        if self.ode_steps < 1 or self.gradient_steps < 1:
            raise ValueError(
                f"ode_steps and gradient_steps must be at least 1, not {self.ode_steps} and {self.gradient_steps}"
            )
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                f"0 < sigma_min < sigma_max must hold, not {self.sigma_min} and {self.sigma_max}"
            )
        if self.variance is not None and not 0 < self.variance < math.inf:
            raise ValueError(f"a variance must be above 0, not {self.variance}")

    @property
    def calls_per_step(self) -> int:
        """Network calls that one level makes."""
        return self.ode_steps

    def times(self) -> list[float]:
        """The times of the noise levels, and 0."""
        low, high = self.prior.value_range
        first = self.prior.schedule.time_of(self.sigma_max * (high - low) / 2)
        return self.descent(first, self.sigma_min, self.steps)

    def descent(self, t: float, lowest: float, count: int) -> list[float]:
        """``count`` times from ``t`` down to a noise level (for images in [-1, 1]), and then 0."""
        low, high = self.prior.value_range
        lowest = lowest * (high - low) / 2
        alpha, sigma = self.prior.schedule(t)
        roots = np.linspace(noise_level(alpha, sigma) ** (1 / RHO), lowest ** (1 / RHO), count)
        return [t, *(self.prior.schedule.time_of(float(root**RHO)) for root in roots[1:]), 0.0]

    def step(self, x_t: Tensor, t: float, s: float) -> Tensor:
        """One level: the ODE, the draw, the next level's noise."""
        low, high = self.prior.value_range
        alpha_s, sigma_s = self.prior.schedule(s)
        times = self.descent(t, min(0.01, self.sigma_min / 10), self.ode_steps)
        self.x_hat = self.integrate(x_t, times)
        variance = (high - low) ** 2 / 4 if self.variance is None else self.variance
        levels = [noise_level(*self.prior.schedule(time)) for time in times]
        x = self.draw(self.x_hat, math.sqrt(variance * (1 - contraction(levels, variance))))
        return alpha_s * x + sigma_s * self.noise_like(x) if s > 0 else x

    def integrate(self, x: Tensor, times: list[float]) -> Tensor:
        """The solution of the probability-flow ODE from ``x`` at the first time, at the last of them."""
        solver = AdamsBashforth()
        for t, s in pairwise(times):
            (alpha_t, sigma_t), (alpha_s, sigma_s) = self.prior.schedule(t), self.prior.schedule(s)
            e_hat = (x - alpha_t * self.prior.clip(self.estimate(x, t))) / sigma_t
            rise = solver.step(e_hat, noise_level(alpha_t, sigma_t), noise_level(alpha_s, sigma_s))
            x = alpha_s * (x / max(alpha_t, FAINT) + rise)
        return x

    def draw(self, x_hat: Tensor, q: float) -> Tensor:
        """A picture around ``x_hat`` that agrees with the measurement; see the class."""
        assert self.problem.operator is not None
        y, noise = self.problem.y, self.problem.noise
        y = y + per_image(noise, y) * self.noise_like(y)
        if self.problem.operator.linear:
            return self.linear_operator().prox(y, x_hat, (noise / q) ** 2)
        return self.descend(x_hat, y, q)

    def descend(self, x_hat: Tensor, y: Tensor, q: float) -> Tensor:
        """Steps from ``x_hat`` down ``-log p(y | x) + ||x - x_hat||^2 / 2 q^2``; one that leads up is not taken."""

        def height(x: Tensor) -> Tensor:
            return (x - x_hat).flatten(1).square().sum(1) / (2 * q**2) - self.log_likelihood(x, y)

        x, lowest, length = x_hat, height(x_hat), 1 / (1 / q**2 + self.curvature(x_hat, q))
        for _ in range(self.gradient_steps):
            trial = x + per_image(length, x) * (self.uphill(x, y) - (x - x_hat) / q**2)
            value = height(trial)
            lower = value <= lowest
            x, lowest = torch.where(lower.reshape(-1, 1, 1, 1), trial, x), torch.where(lower, value, lowest)
            length = torch.where(lower, 1.5 * length, length / 4)
        return x

    def curvature(self, x: Tensor, scale: float) -> Tensor:
        """The greatest curvature of the log-likelihood of every image, ``(B,)``, over ``scale`` a pixel."""
        here, direction = self.uphill(x), self.noise_like(x)
        length = torch.linalg.vector_norm(direction.flatten(1), dim=1)
        greatest = torch.zeros_like(length)
        for _ in range(POWER_STEPS):
            change = (here - self.uphill(x + scale * direction)) / scale
            ratio = torch.linalg.vector_norm(change.flatten(1), dim=1) / length
            greatest = torch.maximum(greatest, ratio)
            direction = change / per_image(ratio.clamp(min=torch.finfo(x.dtype).tiny), x)
        return greatest


class AdamsBashforth:
    """Steps of second order for ``d(x / alpha) / d nu = e_hat``; the first is Euler's, which is DDIM's."""

    def __init__(self) -> None:
        self.before: tuple[Any, float] | None = None

    def step(self, slope: Any, level: float, lower: float) -> Any:
        """How much ``x / alpha`` changes from one noise level to a lower, given the slope at the first."""
        width, change = lower - level, slope
        if self.before is not None:
            earlier, last_width = self.before
            change = slope + width / (2 * last_width) * (slope - earlier)
        self.before = slope, width
        return width * change


def noise_level(alpha: float, sigma: float) -> float:
    """``sigma / alpha``, and a level beyond all pictures where no signal is left."""
    return sigma / max(alpha, FAINT)


def contraction(levels: list[float], variance: float) -> float:
    """What :class:`DAPS` multiplies data of a variance by, on its way down through noise levels, the last being 0.

    Example:
        >>> round(contraction([2.0, 0.0], variance=1.0), 6)
        0.2
        >>> fine = [2 * (1 - i / 1000) for i in range(1001)]
        >>> round(contraction(fine, variance=1.0) ** 2, 3)  # the ODE: v / (v + nu^2)
        0.2
    """
    x, solver = 1.0, AdamsBashforth()
    for level, lower in pairwise(levels):
        x += solver.step(x * level / (variance + level**2), level, lower)
    return x
