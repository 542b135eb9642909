"""Samplers: how a state goes from one time to a less noisy one, given the estimate of the clean image.

A sampler knows nothing of measurements. Methods correct the estimate ``x_hat`` before a sampler's step, or the state
after it.
"""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

from torch import Tensor

from restore.schedule import Schedule

if TYPE_CHECKING:
    from restore.prior import BasePrior, Prior
    from restore.variance import KeepsVariance

Noise = Callable[[Tensor], Tensor]  # Fresh standard normal numbers of the shape of a tensor.


class Sampler(abc.ABC):
    """One downward step of the sampling loop."""

    def fresh(self) -> Sampler:
        """The sampler for a new run: itself, or a copy without memory if it has one."""
        return self

    def attach(self, prior: BasePrior) -> tuple[Sampler, BasePrior]:
        """The sampler for a new run with a prior, and the prior as the run is to call it: mostly, as they are.

        Raises:
            ValueError: If the sampler needs what the prior does not have.
        """
        return self.fresh(), prior

    @abc.abstractmethod
    def kernel(
        self, x_t: Tensor, x_hat: Tensor, t: float, s: float, schedule: Schedule
    ) -> tuple[Tensor, float | Tensor]:
        """Mean ``(B, C, H, W)`` and standard deviation of the Gaussian that the state at time ``s`` is drawn from.

        The deviation is one number, 0 where the state is its mean, or one per number of the state.

        Args:
            x_t: State at time ``t``, ``(B, C, H, W)``.
            x_hat: Estimate of the clean image, in the same shape.
            t: Time of the state.
            s: Time to go to, below ``t``.
            schedule: Signal and noise at each time.
        """

    def step(
        self, x_t: Tensor, x_hat: Tensor, t: float, s: float, schedule: Schedule, noise: Noise
    ) -> Tensor:
        """The state at time ``s``: a draw from :meth:`kernel`.

        Args:
            x_t: State at time ``t``, ``(B, C, H, W)``.
            x_hat: Estimate of the clean image, in the same shape.
            t: Time of the state.
            s: Time to go to, below ``t``.
            schedule: Signal and noise at each time.
            noise: Gives fresh standard normal numbers of the shape of a tensor.
        """
        mean, std = self.kernel(x_t, x_hat, t, s, schedule)
        return mean + std * noise(mean) if isinstance(std, Tensor) or std else mean

    def reorder(self, index: Tensor) -> None:
        """Makes what is remembered follow the states, whose row ``i`` is now what row ``index[i]`` was."""
        return  # Most remember nothing.


@dataclass(frozen=True)
class DDIM(Sampler):
    """The step of *Denoising Diffusion Implicit Models*, 2020, arXiv:2010.02502.

    With ``e_hat = (x_t - alpha_t x_hat) / sigma_t``,

    ``x_s = alpha_s x_hat + sqrt(sigma_s^2 - c^2) e_hat + c z``,
    ``c = eta sigma_s sqrt(1 - (alpha_t sigma_s / (alpha_s sigma_t))^2)``.

    Args:
        eta: Share of the noise that is fresh: 0 follows the probability-flow ODE without chance, 1 is DDPM's step.

    Raises:
        ValueError: If ``eta`` is outside [0, 1].

    Example:
        >>> DDIM(eta=0.85)
        DDIM(eta=0.85)
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1] (0: no fresh noise, 1: DDPM), not {self.eta}")

    def kernel(
        self, x_t: Tensor, x_hat: Tensor, t: float, s: float, schedule: Schedule
    ) -> tuple[Tensor, float]:
        """Mean and deviation of the state at time ``s``; see :class:`DDIM` for the formula."""
        alpha_t, sigma_t = schedule(t)
        alpha_s, sigma_s = schedule(s)
        if sigma_s == 0:
            return alpha_s * x_hat, 0.0
        fresh = self.eta * sigma_s * math.sqrt(max(0.0, 1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2))
        kept = math.sqrt(sigma_s**2 - fresh**2)
        # One multiple of x_t and one of x_hat: the same formula with two passes over memory less.
        return x_t * (kept / sigma_t) + x_hat * (alpha_s - kept * alpha_t / sigma_t), fresh


@dataclass(frozen=True)
class DDPM(Sampler):
    """The ancestral step of *Denoising Diffusion Probabilistic Models*, 2020, arXiv:2006.11239.

    Its mean is that of ``q(x_s | x_t, x_0 = x_hat)``. For its variance the paper has two choices: that of ``q``, exact
    for a single image (``"small"``), and the noise that the way from ``s`` to ``t`` adds,
    ``sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2``, exact for images of standard normal numbers (``"large"``). Some
    networks predict it (``"learned"``; :func:`restore.variance.of_step`), as guided-diffusion's do. With ``"small"``
    it is DDIM's step with ``eta = 1``.

    Args:
        variance: ``"small"``, ``"large"`` or ``"learned"``; None takes the learned one where there is one, as the
            published code of such networks does, else the small one.

    Raises:
        ValueError: If the variance is none of these, or the prior of a run has none to offer.

    Example:
        >>> DDPM(variance="large")
        DDPM(variance='large')
    """

    variance: Literal["small", "large", "learned"] | None = None
    _prior: KeepsVariance | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.variance not in (None, "small", "large", "learned"):
            raise ValueError(f"variance must be 'small', 'large', 'learned' or None, not {self.variance!r}")

    def attach(self, prior: BasePrior) -> tuple[DDPM, BasePrior]:
        """With the learned variance, a sampler that asks the prior for it, and a prior that keeps it ready."""
        from restore.variance import KeepsVariance, offers_variance

        learned = offers_variance(prior)
        if self.variance == "learned" and not learned:
            raise ValueError(
                f"{self!r}: {prior.name!r} predicts no variance; take DDPM(variance='small') or DDPM()"
            )
        if not learned or self.variance in ("small", "large"):
            return self, prior
        attached, keeping = copy.copy(self), KeepsVariance(cast("Prior", prior))
        object.__setattr__(attached, "_prior", keeping)
        return attached, keeping

    def kernel(
        self, x_t: Tensor, x_hat: Tensor, t: float, s: float, schedule: Schedule
    ) -> tuple[Tensor, float | Tensor]:
        """Mean and deviation of the state at time ``s``; see :class:`DDPM` for the formula."""
        mean, small = DDIM(1.0).kernel(x_t, x_hat, t, s, schedule)
        (_, sigma_t), (_, sigma_s) = schedule(t), schedule(s)
        if sigma_s == 0:
            return mean, 0.0
        if self._prior is not None:
            return mean, self._prior.variance(x_t, t, s).sqrt()
        return mean, small * sigma_t / sigma_s if self.variance == "large" else small


@dataclass
class DPMSolver(Sampler):
    """A second-order multistep solver: ten steps of it do what hundreds of first-order ones do.

    *DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models*, 2022, arXiv:2211.01095
    (algorithm 2; its stochastic form is in the appendix). In ``l = log(alpha / sigma)``, with ``h = l_s - l_t``, the
    estimate is continued as a straight line through this step's and the last one's, ``h'`` before:

    ``d = x_hat + h / (2 h') (x_hat - x_hat')``,
    ``x_s = (sigma_s / sigma_t) e^{-eta h} x_t + alpha_s (1 - e^{-(1 + eta) h}) d + sigma_s sqrt(1 - e^{-2 eta h}) z``.

    The first step, one after going up again, and the last one, to time 0, are of first order.

    Args:
        eta: 0 follows the probability-flow ODE without chance, 1 the reverse SDE.

    Raises:
        ValueError: If ``eta`` is outside [0, 1].

    Example:
        >>> DPMSolver(eta=1.0)
        DPMSolver(eta=1.0)
    """

    eta: float = 0.0
    _last: tuple[float, float, Tensor] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1] (0: no fresh noise, 1: the SDE), not {self.eta}")

    def fresh(self) -> DPMSolver:
        """The same solver without the memory of an earlier run."""
        return type(self)(self.eta)

    def kernel(
        self, x_t: Tensor, x_hat: Tensor, t: float, s: float, schedule: Schedule
    ) -> tuple[Tensor, float]:
        """Mean and deviation of the state at time ``s``; see :class:`DPMSolver` for the formula."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        if sigma_s == 0 or alpha_t == 0:
            self._last = None
            return DDIM(self.eta).kernel(x_t, x_hat, t, s, schedule)
        h = math.log(alpha_s / sigma_s) - math.log(alpha_t / sigma_t)
        line = x_hat
        if self._last is not None and self._last[0] == t:
            _, before, previous = self._last
            line = x_hat + h / (2 * before) * (x_hat - previous)
        self._last = s, h, x_hat
        kept = sigma_s / sigma_t * math.exp(-self.eta * h)
        mean = x_t * kept - line * (alpha_s * math.expm1(-(1 + self.eta) * h))
        return mean, sigma_s * math.sqrt(-math.expm1(-2 * self.eta * h))

    def reorder(self, index: Tensor) -> None:
        """The last estimates follow their states."""
        if self._last is not None:
            *times, previous = self._last
            self._last = (times[0], times[1], previous[index])


def renoise(x_s: Tensor, s: float, t: float, schedule: Schedule, noise: Noise) -> Tensor:
    """Goes up from time ``s`` to a noisier ``t``: ``x_t = (a_t/a_s) x_s + sqrt(g_t^2 - (a_t/a_s)^2 g_s^2) z``.

    Args:
        x_s: State at time ``s``.
        s: Its time.
        t: A later (noisier) time.
        schedule: Signal ``a`` and noise ``g`` at each time.
        noise: Gives fresh standard normal numbers of the shape of a tensor.
    """
    alpha_t, sigma_t = schedule(t)
    alpha_s, sigma_s = schedule(s)
    kept = alpha_t / alpha_s
    return kept * x_s + math.sqrt(max(0.0, sigma_t**2 - (kept * sigma_s) ** 2)) * noise(x_s)


SAMPLERS: dict[str, type[Sampler]] = {"ddpm": DDPM, "ddim": DDIM, "dpm++": DPMSolver}


def as_sampler(sampler: str | Sampler) -> Sampler:
    """A sampler from its name, ``"ddpm"``, ``"ddim"`` or ``"dpm++"``, or the sampler itself.

    Raises:
        ValueError: If there is none of that name.
        TypeError: If it is neither a name nor a sampler.
    """
    if isinstance(sampler, Sampler):
        return sampler
    if not isinstance(sampler, str):
        raise TypeError(f"a sampler is a name or a Sampler, not a {type(sampler).__name__}")
    if sampler.lower() not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}; known are {', '.join(SAMPLERS)}")
    return SAMPLERS[sampler.lower()]()
