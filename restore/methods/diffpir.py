"""DiffPIR: *Denoising Diffusion Models for Plug-and-Play Image Restoration*, 2023, arXiv:2305.08995."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from restore.methods.base import Method


@dataclass(kw_only=True)
class DiffPIR(Method):
    """The estimate is replaced by the image between it and the measurement: a proximal step, then new noise.

    ``x_hat' = argmin_x ||y - A x||^2 + rho ||x - x_hat||^2``, ``rho = lam s_y^2 alpha_t^2 / sigma_t^2``;
    ``e_hat' = (x_t - alpha_t x_hat') / sigma_t``;
    ``x_s = alpha_s x_hat' + sigma_s (sqrt(1 - zeta) e_hat' + sqrt(zeta) z)``.

    Args:
        lam: How much the estimate is trusted beside the measurement. The paper's 7 for deblurring is for a noise level
            and a state in different ranges; it is 7 / 4 in one.
        zeta: Share of fresh noise.
        clip: Clip the network's estimate to the prior's range, as the paper's code does.

    Raises:
        ValueError: If ``lam`` is not above 0, or ``zeta`` outside [0, 1].

    Example:
        >>> DiffPIR(zeta=1.0)
        DiffPIR(lam=1.75, zeta=1.0, clip=True)
    """

    name: ClassVar[str] = "diffpir"
    reference: ClassVar[str] = (
        "Denoising Diffusion Models for Plug-and-Play Image Restoration, 2023, arXiv:2305.08995"
    )
    takes_sampler: ClassVar[bool] = False
    spacing: ClassVar[str] = "log"
    needs: ClassVar[tuple[str, ...]] = ("linear",)
    default_steps: ClassVar[int] = 100

    lam: float = 1.75
    zeta: float = 0.3
    clip: bool = True

    def __post_init__(self) -> None:
        if not self.lam > 0 or not 0 <= self.zeta <= 1:
            raise ValueError(f"lam must be above 0 and zeta in [0, 1], not {self.lam} and {self.zeta}")

    def start(self, t: float) -> Tensor:
        """The diffused measurement, as an image."""
        alpha, sigma = self.prior.schedule(t)
        return alpha * self.image_from_measurement() + sigma * self.problem.randomness.normal(
            self.problem.shape[1:]
        )

    def step(self, x_t: Tensor, t: float, s: float) -> Tensor:
        """Estimate, proximal step, noise."""
        alpha_t, sigma_t = self.prior.schedule(t)
        alpha_s, sigma_s = self.prior.schedule(s)
        x_hat = self.estimate(x_t, t)
        if self.clip:
            x_hat = self.prior.clip(x_hat)
        rho = self.lam * (self.problem.noise * alpha_t / sigma_t) ** 2
        self.x_hat = self.linear_operator().prox(self.problem.y, x_hat, rho)
        if sigma_s == 0:
            return alpha_s * self.x_hat
        e_hat = (x_t - alpha_t * self.x_hat) / sigma_t
        noise = (1 - self.zeta) ** 0.5 * e_hat + self.zeta**0.5 * self.noise_like(x_t)
        return alpha_s * self.x_hat + sigma_s * noise
