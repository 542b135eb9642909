"""DPIR: *Plug-and-Play Image Restoration with Deep Denoiser Prior*, 2020, arXiv:2008.13751."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from operators import Mask
from restore.methods.base import Method
from restore.prior import Prior
from restore.schedule import per_image


@dataclass(kw_only=True)
class DPIR(Method):
    """Half-quadratic splitting: the measurement and the denoiser in turn, at falling noise levels, without chance.

    ``z_k = argmin_z ||y - A z||^2 + lam s_y^2 / nu_k^2 ||z - x_{k-1}||^2``,
    ``x_k = x_hat(z_k, nu_k)``, ``nu_k`` evenly in the logarithm from ``first`` down to ``last``, but not below the
    noise of the measurement, at which it stays.

    The network is told that its input has noise of ``nu_k``, and none is added: what it removes is the error of the
    picture so far. There is one result and no draws. It has no detail that was invented, and lies nearer to the truth
    in mean square than a draw of any method, or the mean of a few; where nothing was measured over a wide area it is
    smooth.

    Args:
        lam: How much the estimate is trusted beside the measurement, the paper's 0.23.
        first: First noise level, as a share of the prior's range.
        last: Last noise level, likewise, for measurements with less noise of their own.
        turns: Mirror and turn the picture by another of the eight ways in every call, as the paper does: what the
            network does to one direction only cancels. By default where the prior is for pictures of any size and kind:
            one of faces knows none that stand on their heads.

    Raises:
        ValueError: If ``lam`` is not above 0, or not ``0 < last <= first``.

    Example:
        >>> DPIR(turns=False)
        DPIR(lam=0.23, first=0.35, last=0.005, turns=False)
    """

    name: ClassVar[str] = "dpir"
    reference: ClassVar[str] = (
        "Plug-and-Play Image Restoration with Deep Denoiser Prior, 2020, arXiv:2008.13751"
    )
    takes_sampler: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("linear",)
    default_steps: ClassVar[int] = 40

    lam: float = 0.23
    first: float = 0.35
    last: float = 0.005
    turns: bool | None = None

    number: int = field(init=False, repr=False, compare=False)
    noise_times: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.lam > 0 or not 0 < self.last <= self.first:
            raise ValueError(
                f"lam must be above 0 and 0 < last <= first, not {self.lam}, {self.last} and {self.first}"
            )

    def times(self) -> list[float]:
        """The times of the noise levels."""
        low, high = self.prior.value_range
        levels = torch.logspace(0, 1, self.steps, base=self.last / self.first, dtype=torch.float64)
        schedule = self.prior.schedule
        return [*(schedule.time_of(self.first * (high - low) * float(level)) for level in levels), 0.0]

    def start(self, t: float) -> Tensor:
        """A picture made from the measurement; the holes of a mask are filled smoothly."""
        self.number = 0
        # There is nothing to remove below the noise of a measurement.
        noise_times = [self.prior.schedule.time_of(noise) for noise in self.problem.noise.tolist()]
        self.noise_times = torch.tensor(noise_times, dtype=torch.float64)
        operator = self.problem.operator
        if not isinstance(operator, Mask):
            return self.image_from_measurement()
        # A network that is shown grey letters in a white wall may take them for letters.
        measured = (operator.mask != 0).float().expand_as(self.problem.y)
        return filled(self.problem.y / torch.where(operator.mask != 0, operator.mask, 1), measured)

    def step(self, x_t: Tensor, t: float, s: float) -> Tensor:
        """The measurement, then the denoiser; the state is a picture, and holds no noise."""
        times = self.noise_times.clamp(min=t)
        alpha, _ = self.prior.schedule(times)
        z = self.near_measurement(x_t, times)
        way = self.number % 8 if self.turns_for_prior else 0
        self.number += 1
        x_hat = turned_back(self.without_gradient(turned(per_image(alpha, z) * z, way), times), way)
        self.x_hat = self.prior.clip(x_hat)
        return self.x_hat

    def near_measurement(self, x: Tensor, times: Tensor) -> Tensor:
        """``z_k``. A measurement without noise is at least rounded, which a blur's inverse would blow up."""
        alpha, sigma = self.prior.schedule(times)
        rho = self.lam * (self.believed_noise().cpu() * alpha / sigma) ** 2
        return self.linear_operator().prox(self.problem.y, x, rho.to(x))

    def finish(self, x: Tensor) -> Tensor:
        """The picture; brought to a measurement that has no noise once more."""
        clear = self.problem.noise == 0
        if not bool(clear.any()):
            return x
        low, high = self.prior.value_range
        last = self.prior.schedule.time_of(self.last * (high - low))
        exact = self.near_measurement(x, self.noise_times.clamp(min=last))
        return torch.where(clear.reshape(-1, 1, 1, 1), exact, x)

    @property
    def turns_for_prior(self) -> bool:
        """Whether the pictures of this prior may be turned."""
        if self.turns is not None:
            return self.turns
        domain = self.prior.config.get("domain") if isinstance(self.prior, Prior) else None
        return self.prior.image_size is None and domain in (None, "photographs")


def filled(x: Tensor, measured: Tensor) -> Tensor:
    """A picture whose holes hold what the picture of half the size has there, and so on to where there are no holes.

    Args:
        x: ``(B, C, H, W)``.
        measured: 1 where ``x`` counts, and 0 in the holes, in the same shape.
    """
    if bool(measured.all()) or max(x.shape[-2:]) == 1:
        return x
    total, share = (
        F.avg_pool2d(part, 2, ceil_mode=True, count_include_pad=False) for part in (x * measured, measured)
    )
    coarse = filled(total / share.clamp(min=1e-6), (share > 0).float())
    smooth = F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(measured > 0, x, smooth)


def turned(x: Tensor, way: int) -> Tensor:
    """A picture mirrored and turned in one of eight ways, 0 to 7; 0 leaves it."""
    x = x.flip(-1) if way & 1 else x
    x = x.flip(-2) if way & 2 else x
    return x.transpose(-1, -2) if way & 4 else x


def turned_back(x: Tensor, way: int) -> Tensor:
    """What undoes :func:`turned`."""
    return turned(x.transpose(-1, -2) if way & 4 else x, way & 3)
