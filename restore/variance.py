"""The variance of a step, where a network was trained to predict it.

*Improved Denoising Diffusion Probabilistic Models*, 2021, arXiv:2102.09672. Such a network has twice the channels of
its images; the second half says where the variance lies between the two that DDPM chooses from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from restore.prior import BasePrior
from restore.schedule import Schedule, per_image

if TYPE_CHECKING:
    from restore.prior import Prior


def of_step(output: Tensor, schedule: Schedule, t: float | Tensor, s: float | Tensor | None = None) -> Tensor:
    """``Var[x_s | x_t] = exp(f log beta + (1 - f) log beta~)``, with ``f = (v + 1) / 2`` and the network's ``v``.

    ``beta = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2`` is the noise that the way from ``s`` to ``t`` adds, and
    ``beta~ = beta sigma_s^2 / sigma_t^2`` what of it remains if ``x_0`` is known. A step to 0 takes the ``beta~`` of
    the step before it, since its own is 0. Steps longer than the trained ones are what the authors' code makes
    of the same ``v``.

    Args:
        output: The network's ``v``, ``(B, C, H, W)``, mostly in [-1, 1].
        schedule: Signal and noise at each time.
        t: Time of the state, above 0; one float, or one per image ``(B,)``.
        s: Time that the step goes to; by default a trained step down, ``t - 1/T``.

    Returns:
        Variances, ``(B, C, H, W)``.

    Raises:
        ValueError: If a time is not above 0, the step does not go down, or it goes from 1 to 0, with no step before it.
    """
    late = torch.as_tensor(t, dtype=torch.float64, device="cpu").reshape(-1)
    if s is None:
        early = late - 1 / schedule.steps
        early = torch.where(early * schedule.steps < 1e-6, 0, early)
    else:
        early = torch.as_tensor(s, dtype=torch.float64, device="cpu").reshape(-1)
    if (late <= 0).any() or (early >= late).any() or (early < 0).any():
        raise ValueError(f"a step goes from a time t above 0 down to s, at least 0; got t={t}, s={s}")
    if ((late == 1) & (early == 0)).any():
        raise ValueError("one step from time 1 to 0 has no step before it, and no variance to choose")
    beta, _ = _extremes(schedule, late, early)
    # The step before a step to 0, of the same length.
    last = early == 0
    _, rest = _extremes(
        schedule, torch.where(last, (2 * late).clamp(max=1), late), torch.where(last, late, early)
    )
    share = (output + 1) / 2
    return (share * per_image(beta.log(), output) + (1 - share) * per_image(rest.log(), output)).exp()


def _extremes(schedule: Schedule, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """``beta`` and ``beta~`` of steps from ``t`` to ``s``."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    beta = sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2
    return beta, beta * sigma_s**2 / sigma_t**2


def offers_variance(prior: BasePrior) -> bool:
    """Whether a prior's network predicts the variance, and its estimate is the one that comes with it.

    A subclass that has an estimate of its own, and nothing of its own for the two together, is called for the first.
    """
    from restore.prior import Prior

    if not isinstance(prior, Prior) or not prior.predicts_variance:
        return False
    both, one = (
        next(cls for cls in type(prior).__mro__ if name in vars(cls))
        for name in ("with_variance", "__call__")
    )
    return issubclass(both, one)


class KeepsVariance(BasePrior):
    """A prior that keeps what its network last said of the variance, so that a step costs one call and not two.

    Args:
        prior: One whose network predicts the variance.
    """

    def __init__(self, prior: Prior) -> None:
        self._prior = prior
        self.schedule, self.value_range, self.bounded = prior.schedule, prior.value_range, prior.bounded
        self.channels, self.image_size = prior.channels, prior.image_size
        self.name, self.light = prior.name, prior.light
        self._last: tuple[Tensor, float | None, Tensor] | None = None

    def __call__(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """``E[x_0 | x_t]``, as the prior has it."""
        x_hat, output = self._prior.with_variance(x_t, t)
        self._last = x_t.detach(), t if isinstance(t, float) else None, output
        return x_hat

    def variance(self, x_t: Tensor, t: float, s: float) -> Tensor:
        """The learned variance of the step from ``t`` to ``s``; a network call only if the last one was another's."""
        if self._last is None or self._last[1] != t or not torch.equal(self._last[0], x_t):
            with torch.no_grad():
                self(x_t, t)
        assert self._last is not None
        return of_step(self._last[2], self.schedule, t, s)

    @property
    def pixel_variance(self) -> float:
        """As the prior has it."""
        return self._prior.pixel_variance

    @property
    def device(self) -> torch.device:
        """Where the prior computes."""
        return self._prior.device

    def to(self, device: str | torch.device) -> KeepsVariance:
        """The prior on another device."""
        return KeepsVariance(self._prior.to(device))

    def select(self, index: Tensor) -> KeepsVariance:
        """The prior for some images of its batch."""
        return KeepsVariance(self._prior.select(index))
