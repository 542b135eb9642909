"""SDEdit: *Guided Image Synthesis and Editing with Stochastic Differential Equations*, 2021, arXiv:2108.01073."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operators import Mask
from restore.methods.base import Method


@dataclass(kw_only=True)
class SDEdit(Method):
    """An image made from the measurement is diffused to a time ``t0`` and sampled back from there.

    ``x_{t0} = alpha_{t0} x_y + sigma_{t0} z``, then the prior's own steps. With a mask, the measured pixels are put
    back after every step, at that step's noise level and always with the same noise ``z``.

    Args:
        strength: The time ``t0`` in (0, 1]: more is truer to the prior, less is truer to the measurement.
        clip: Clip the estimate to the prior's range.

    Raises:
        ValueError: If ``strength`` is outside (0, 1].

    Example:
        >>> SDEdit(strength=0.4)
        SDEdit(strength=0.4, clip=True)
    """

    name: ClassVar[str] = "sdedit"
    reference: ClassVar[str] = (
        "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations, 2021, arXiv:2108.01073"
    )
    needs: ClassVar[tuple[str, ...]] = ("linear",)
    default_steps: ClassVar[int] = 500

    strength: float = 0.5
    clip: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength is a time in (0, 1], not {self.strength}")

    def times(self) -> list[float]:
        """From ``t0`` down: the last ``strength * steps`` of ``steps`` steps."""
        return self.prior.schedule.times(max(1, round(self.strength * self.steps)), start=self.strength)

    def start(self, t: float) -> Tensor:
        """The diffused image; its noise is kept for the measured pixels."""
        alpha, sigma = self.prior.schedule(t)
        self._noise = self.problem.randomness.normal(self.problem.shape[1:])
        return alpha * self.image_from_measurement() + sigma * self._noise

    def estimate(self, x_t: Tensor, t: float) -> Tensor:
        """``E[x_0 | x_t]``, clipped."""
        x_hat = super().estimate(x_t, t)
        return self.prior.clip(x_hat) if self.clip else x_hat

    def constrain(self, x_s: Tensor, x_t: Tensor, x_hat: Tensor, t: float, s: float) -> Tensor:
        """Measured pixels, where there are such."""
        if not isinstance(self.problem.operator, Mask):
            return x_s
        alpha, sigma = self.prior.schedule(s)
        mask = self.problem.operator.mask
        # A weight is taken out again: the pixel itself is put back, not its measurement.
        pixels = self.problem.y / torch.where(mask != 0, mask, 1)
        return torch.where(mask != 0, alpha * pixels + sigma * self._noise, x_s)
