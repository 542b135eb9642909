"""Samplers: how a state goes from one time to a less noisy one, given the estimate of the clean image.

A sampler knows nothing of measurements. Methods correct the estimate ``x_hat`` before a sampler's step, or the state
after it.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from restore.schedule import Schedule

Noise = Callable[[Tensor], Tensor]  # Fresh standard normal numbers of the shape of a tensor.


class Sampler(abc.ABC):
    """One downward step of the sampling loop."""

    @abc.abstractmethod
    def step(
        self, x_t: Tensor, x_hat: Tensor, t: float, s: float, schedule: Schedule, noise: Noise
    ) -> Tensor:
        """The state at time ``s``.

        Args:
            x_t: State at time ``t``, ``(B, C, H, W)``.
            x_hat: Estimate of the clean image, in the same shape.
            t: Time of the state.
            s: Time to go to, below ``t``.
            schedule: Signal and noise at each time.
            noise: Gives fresh standard normal numbers of the shape of a tensor.
        """


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

    def step(
        self, x_t: Tensor, x_hat: Tensor, t: float, s: float, schedule: Schedule, noise: Noise
    ) -> Tensor:
        """The state at time ``s``; see :class:`DDIM` for the formula."""
        alpha_t, sigma_t = schedule(t)
        alpha_s, sigma_s = schedule(s)
        if sigma_s == 0:
            return alpha_s * x_hat
        fresh = self.eta * sigma_s * math.sqrt(max(0.0, 1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2))
        kept = math.sqrt(sigma_s**2 - fresh**2)
        # One multiple of x_t and one of x_hat: the same formula with two passes over memory less.
        x_s = x_t * (kept / sigma_t) + x_hat * (alpha_s - kept * alpha_t / sigma_t)
        return x_s + fresh * noise(x_s) if fresh else x_s


@dataclass(frozen=True)
class DDPM(DDIM):
    """The ancestral step of *Denoising Diffusion Probabilistic Models*, 2020, arXiv:2006.11239.

    It draws from ``q(x_s | x_t, x_0 = x_hat)``, whose variance is the smaller of the paper's two choices. This is
    DDIM's step with ``eta = 1``.

    Example:
        >>> DDPM()
        DDPM(eta=1.0)
    """

    eta: float = 1.0


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


SAMPLERS: dict[str, type[DDIM]] = {"ddpm": DDPM, "ddim": DDIM}


def as_sampler(sampler: str | Sampler) -> Sampler:
    """A sampler from its name, ``"ddpm"`` or ``"ddim"``, or the sampler itself.

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
