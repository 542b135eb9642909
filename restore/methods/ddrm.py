"""DDRM: *Denoising Diffusion Restoration Models*, 2022, arXiv:2201.11793."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restore.methods.base import Method
from restore.prior import per_image


@dataclass(kw_only=True)
class DDRM(Method):
    """Every singular direction of the operator is sampled by itself, in the form ``x_t / alpha_t = x_0 + S e``.

    With ``S' = sigma_s / alpha_s`` and ``ybar = U^T y / s``, whose noise is ``s_y / s``, the next state of a
    direction is

    * not measured: ``x_hat + sqrt(1 - eta^2) S' e_hat + eta S' z``;
    * measured, ``S' < s_y / s``: ``x_hat + sqrt(1 - eta^2) S' (ybar - x_hat) / (s_y / s) + eta S' z``;
    * measured, ``S' >= s_y / s``: ``(1 - eta_b) x_hat + eta_b ybar + sqrt(S'^2 - eta_b^2 s_y^2 / s^2) z``.

    Args:
        eta: Share of fresh noise.
        eta_b: How far clearly measured directions go to the measurement.

    Raises:
        ValueError: If one is outside [0, 1].

    Example:
        >>> DDRM()
        DDRM(eta=0.85, eta_b=1.0)
    """

    name: ClassVar[str] = "ddrm"
    reference: ClassVar[str] = "Denoising Diffusion Restoration Models, 2022, arXiv:2201.11793"
    takes_sampler: ClassVar[bool] = False
    spacing: ClassVar[str] = "log"
    needs: ClassVar[tuple[str, ...]] = ("linear", "svd")
    default_steps: ClassVar[int] = 20

    eta: float = 0.85
    eta_b: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.eta <= 1 and 0 <= self.eta_b <= 1):
            raise ValueError(f"eta and eta_b must lie in [0, 1], not {self.eta} and {self.eta_b}")

    def start(self, t: float) -> Tensor:
        """Noise around the measurement, in the directions where it tells more than noise does."""
        alpha, sigma = self.prior.schedule(t)
        svd = self.linear_operator().svd(self.problem.shape[1:])
        assert svd is not None  # solve() has refused operators without one
        deviation = self._deviation(svd.s)
        clear = (svd.s > 0) & (sigma >= alpha * deviation)
        z = svd.vt(self.problem.randomness.normal(self.problem.shape[1:]))
        centre = torch.where(clear, svd.ut(self.problem.y) / svd.s, 0.0)
        spread = torch.where(clear, (sigma**2 - (alpha * deviation) ** 2).clamp(min=0).sqrt(), sigma)
        return svd.v(alpha * centre + spread * z)

    def step(self, x_t: Tensor, t: float, s: float) -> Tensor:
        """One step down, in the singular basis."""
        alpha_t, sigma_t = self.prior.schedule(t)
        alpha_s, sigma_s = self.prior.schedule(s)
        svd = self.linear_operator().svd(self.problem.shape[1:])
        assert svd is not None  # solve() has refused operators without one
        x_hat = self.estimate(x_t, t)
        self.x_hat = x_hat
        level, kept = sigma_s / alpha_s, (1 - self.eta**2) ** 0.5
        deviation = self._deviation(svd.s)
        measured = svd.s > 0
        clear = measured & (level >= deviation)

        estimate = svd.vt(x_hat)
        e_hat = svd.vt((x_t - alpha_t * x_hat) / sigma_t)
        ybar = torch.where(measured, svd.ut(self.problem.y) / svd.s, estimate)
        noisy = estimate + kept * level * (ybar - estimate) / deviation
        mean = torch.where(measured, noisy, estimate + kept * level * e_hat)
        mean = torch.where(clear, estimate + self.eta_b * (ybar - estimate), mean)
        rest = (level**2 - (self.eta_b * deviation) ** 2).clamp(min=0).sqrt()
        spread = torch.where(clear, rest, self.eta * level)
        z = svd.vt(self.noise_like(x_t)) if level else torch.zeros_like(mean)
        return alpha_s * svd.v(mean + spread * z)

    def _deviation(self, s: Tensor) -> Tensor:
        """The noise of ``ybar``; infinite where nothing is measured."""
        return torch.where(s > 0, per_image(self.problem.noise, s) / s, torch.inf)
