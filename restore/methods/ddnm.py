"""DDNM: *Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model*, 2022, arXiv:2212.00490."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restore.methods.base import Method
from restore.methods.repaint import down_and_up
from restore.schedule import per_image


@dataclass(kw_only=True)
class DDNM(Method):
    """The estimate's measured part is replaced by the measurement; what the operator cannot see stays the prior's.

    ``x_hat' = x_hat + A^+ (y - A x_hat)``, then, with ``e_hat`` from before the correction,
    ``x_s = alpha_s x_hat' + sigma_s (eta z + sqrt(1 - eta^2) e_hat)``.

    With noise (DDNM+), every singular direction is corrected only as far as its noise fits into the state's: by
    ``lambda = min(1, s sigma_s sqrt(1 - eta^2) / (alpha_s s_y))`` (1 where ``sigma_s >= alpha_s s_y / s``), and the
    noise that is added makes up the rest, so that the total is ``sigma_s^2``. This needs the operator's singular
    value decomposition.

    Args:
        eta: Share of fresh noise.
        jump: Time travel: number of steps to go up (the paper's l).
        repeats: Time travel: how often every stretch is gone through (the paper's r); 1 goes straight down.

    Raises:
        ValueError: If ``eta`` is outside [0, 1], or a number below 1.

    Example:
        >>> DDNM(repeats=3)
        DDNM(eta=0.85, jump=10, repeats=3)
    """

    name: ClassVar[str] = "ddnm"
    reference: ClassVar[str] = (
        "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model, 2022, arXiv:2212.00490"
    )
    takes_sampler: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("linear", "svd-if-noisy")
    default_steps: ClassVar[int] = 100

    eta: float = 0.85
    jump: int = 10
    repeats: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], not {self.eta}")
        if self.jump < 1 or self.repeats < 1:
            raise ValueError(f"jump and repeats must be at least 1, not {self.jump} and {self.repeats}")

    def times(self) -> list[float]:
        """Down and, ``repeats - 1`` times at every ``jump``-th step, up again."""
        return down_and_up(self.prior.schedule.times(self.steps), self.jump, self.repeats)

    def step(self, x_t: Tensor, t: float, s: float) -> Tensor:
        """One step down with the corrected estimate."""
        alpha_t, sigma_t = self.prior.schedule(t)
        x_hat = self.estimate(x_t, t)
        e_hat = (x_t - alpha_t * x_hat) / sigma_t
        z = self.noise_like(x_t)
        noisy = self.problem.noise > 0
        if not bool(noisy.any()):
            self.x_hat, x_s = self._clear_step(x_hat, e_hat, z, s)
            return x_s
        self.x_hat, x_s = self._noisy_step(x_hat, e_hat, z, s)
        if not bool(noisy.all()):  # An image without noise takes the same step whatever its batch.
            clear_hat, clear_s = self._clear_step(x_hat, e_hat, z, s)
            column = noisy.reshape(-1, 1, 1, 1)
            self.x_hat, x_s = torch.where(column, self.x_hat, clear_hat), torch.where(column, x_s, clear_s)
        return x_s

    def _clear_step(self, x_hat: Tensor, e_hat: Tensor, z: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """The corrected estimate and the next state, for a measurement without noise."""
        alpha_s, sigma_s = self.prior.schedule(s)
        operator = self.linear_operator()
        x_hat = x_hat + operator.pinv(self.problem.y - operator(x_hat))
        return x_hat, alpha_s * x_hat + sigma_s * (self.eta * z + (1 - self.eta**2) ** 0.5 * e_hat)

    def _noisy_step(self, x_hat: Tensor, e_hat: Tensor, z: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """The same for DDNM+, in the operator's singular basis."""
        alpha_s, sigma_s = self.prior.schedule(s)
        svd = self.linear_operator().svd(self.problem.shape[1:])
        assert svd is not None  # solve() has refused operators without one
        kept = (1 - self.eta**2) ** 0.5
        measured = svd.s > 0
        # The noise of y as it is in a measured direction of the image; where nothing is measured, it is beyond any.
        deviation = torch.where(measured, per_image(self.problem.noise, svd.s) / svd.s, torch.inf)
        clear = measured & (sigma_s >= alpha_s * deviation)

        estimate = svd.vt(x_hat)
        target = torch.where(measured, svd.ut(self.problem.y) / svd.s, estimate)
        gain = torch.where(clear, 1.0, kept * sigma_s / (alpha_s * deviation))
        corrected = torch.where(measured, estimate + gain * (target - estimate), estimate)
        x_hat = svd.v(corrected)
        # What y's noise leaves of sigma_s^2: fresh noise fills it. Unmeasured directions keep the estimate's noise.
        rest = (sigma_s**2 - (alpha_s * deviation) ** 2).clamp(min=0).sqrt()
        fresh = torch.where(clear, rest, self.eta * sigma_s)
        old = torch.where(measured, 0.0, kept * sigma_s)
        return x_hat, alpha_s * x_hat + svd.v(fresh * svd.vt(z) + old * svd.vt(e_hat))
