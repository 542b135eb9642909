"""The Gaussian: a mixture of one component, under names of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from operators import LinearOperator
from restore.analytic.mixture import GaussianMixture, GaussianMixturePrior
from restore.prior import BasePrior
from restore.schedule import Schedule


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian distribution of images.

    Attributes:
        mean: ``(C, H, W)``, float64.
        covariance: ``(n, n)`` with ``n = C H W``, float64, of the flattened image.
    """

    mean: Tensor
    covariance: Tensor

    @property
    def variance(self) -> Tensor:
        """Variance of every pixel, ``(C, H, W)``."""
        return self.covariance.diagonal().reshape(self.mean.shape)

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Independent draws, ``(count, C, H, W)`` float64."""
        return self._mixture().sample(count, seed)

    def log_density(self, x: Tensor) -> Tensor:
        """The logarithm of the density, float64 ``(B,)``, for images ``(B, C, H, W)``.

        Raises:
            ValueError: If the images have another shape, or the covariance is singular.
        """
        return self._mixture().log_density(x)

    def _mixture(self) -> GaussianMixture:
        return GaussianMixture(torch.ones(1), self.mean[None], self.covariance)


class GaussianPrior(BasePrior):
    """A Gaussian prior with its exact denoiser.

    ``E[x_0 | x_t] = mu + alpha Sigma (alpha^2 Sigma + sigma^2 I)^{-1} (x_t - alpha mu)``

    Its images are in the units of the user, and unbounded: ``solve`` neither scales nor clips them.

    Args:
        mean: ``(C, H, W)``.
        covariance: ``(n, n)`` with ``n = C H W``, symmetric and positive semi-definite.
        schedule: Signal and noise at each time; DDPM's linear one by default.

    Attributes:
        distribution: The :class:`Gaussian`.

    Raises:
        ValueError: If the shapes do not fit, or the covariance is not symmetric positive semi-definite.

    Example:
        >>> prior = GaussianPrior(torch.zeros(1, 2, 2), torch.eye(4))
        >>> x_t = torch.ones(1, 1, 2, 2)
        >>> alpha, _ = prior.schedule(0.5)
        >>> bool(torch.allclose(prior(x_t, 0.5), alpha * x_t))
        True
    """

    value_range = (0.0, 1.0)
    bounded = False
    light = True
    name = "gaussian"

    def __init__(self, mean: Tensor, covariance: Tensor, schedule: Schedule | None = None) -> None:
        mean, covariance = torch.as_tensor(mean), torch.as_tensor(covariance)
        if mean.ndim != 3 or covariance.shape != (mean.numel(), mean.numel()):
            raise ValueError(
                f"expected a mean (C, H, W) and a covariance (n, n) with n = C H W; "
                f"got {tuple(mean.shape)} and {tuple(covariance.shape)}"
            )
        self._mixture = GaussianMixturePrior(torch.ones(1), mean[None], covariance, schedule)
        self.distribution = _only(self._mixture.distribution)
        self.schedule = self._mixture.schedule
        self.channels, self.image_size = self._mixture.channels, self._mixture.image_size

    @cached_property
    def pixel_variance(self) -> float:
        """Variance of a pixel, the mean of all; of a prior that knows its one picture exactly, any would do."""
        return float(self.distribution.covariance.diagonal().mean()) or 1.0

    def __call__(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """``E[x_0 | x_t]`` for ``x_t`` ``(B, C, H, W)``, exactly."""
        return self._mixture(x_t, t)

    def log_density(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """``log p(x_t)`` of noisy states; see :meth:`GaussianMixturePrior.log_density`."""
        return self._mixture.log_density(x_t, t)

    def posterior(self, y: Tensor, operator: LinearOperator, noise: float) -> Gaussian:
        """The exact distribution of the image given one measurement; see :meth:`GaussianMixturePrior.posterior`.

        Args:
            y: The measurement ``(C', H', W')`` of one image.
            operator: A linear operator.
            noise: Standard deviation of the Gaussian noise in ``y``, at least 0.

        Raises:
            TypeError: If the operator is not linear.
            ValueError: If the measurement is not that of an image of this prior's shape, or not finite, or the noise
                is negative or not finite.
        """
        return _only(self._mixture.posterior(y, operator, noise))


def _only(mixture: GaussianMixture) -> Gaussian:
    """A mixture of one component, as a Gaussian; its covariance is one for all components."""
    return Gaussian(mixture.means[0], torch.as_tensor(mixture.covariances))
