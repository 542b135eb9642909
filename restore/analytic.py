"""Priors and posteriors that are known in closed form, to test methods against.

A Gaussian prior has an exact denoiser, and under a linear operator with Gaussian noise an exact posterior. What a
method makes of them shows how near it comes to the posterior, to as many digits as one cares to draw samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators import LinearOperator
from restore.prior import BasePrior, per_image
from restore.randomness import stream_seed
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
        generator = torch.Generator().manual_seed(stream_seed(seed))
        # A root from the eigenvalues, as a posterior's covariance may be singular.
        values, vectors = torch.linalg.eigh(self.covariance)
        root = vectors * values.clamp(min=0).sqrt()
        z = torch.randn(count, len(root), generator=generator, dtype=torch.float64)
        return self.mean + (z @ root.T).reshape(count, *self.mean.shape)

    def log_density(self, x: Tensor) -> Tensor:
        """The logarithm of the density, ``(B,)``, for images ``(B, C, H, W)``; the covariance must be regular."""
        normal = torch.distributions.MultivariateNormal(self.mean.flatten(), self.covariance)
        return normal.log_prob(x.double().flatten(1))


class GaussianPrior(BasePrior):
    """A Gaussian prior with its exact denoiser.

    ``E[x_0 | x_t] = mu + alpha Sigma (alpha^2 Sigma + sigma^2 I)^{-1} (x_t - alpha mu)``

    Its images are in the units of the user, and unbounded: ``solve`` neither scales nor clips them.

    Args:
        mean: ``(C, H, W)``.
        covariance: ``(n, n)`` with ``n = C H W``, symmetric and positive semi-definite.
        schedule: Signal and noise at each time; DDPM's linear one by default.

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
    name = "gaussian"

    def __init__(self, mean: Tensor, covariance: Tensor, schedule: Schedule | None = None) -> None:
        mean, covariance = mean.double(), covariance.double()
        n = mean.numel()
        if mean.ndim != 3 or covariance.shape != (n, n):
            raise ValueError(
                f"expected a mean (C, H, W) and a covariance (n, n) with n = C H W; "
                f"got {tuple(mean.shape)} and {tuple(covariance.shape)}"
            )
        if not torch.allclose(covariance, covariance.T, atol=1e-9 * float(covariance.abs().max())):
            raise ValueError("a covariance must be symmetric")
        values, vectors = torch.linalg.eigh(covariance)
        if values.min() < -1e-9 * values.max():
            raise ValueError(
                f"a covariance has no negative eigenvalue; the least of this one is {values.min():.3g}"
            )
        self.distribution = Gaussian(mean, covariance)
        self.schedule = schedule or Schedule.linear()
        self.channels = mean.shape[0]
        self.image_size = (mean.shape[1], mean.shape[2])
        self._values, self._vectors = values.clamp(min=0), vectors

    def __call__(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """``E[x_0 | x_t]`` for ``x_t`` ``(B, C, H, W)``, exactly."""
        alpha, sigma = self.schedule(t)
        mean = self.distribution.mean.to(x_t)
        values, vectors = self._values.to(x_t), self._vectors.to(x_t)
        a, g = (per_image(v, x_t.flatten(1)) for v in (alpha, sigma))
        centred = (x_t - per_image(alpha, x_t) * mean).flatten(1) @ vectors
        # Where neither signal nor noise is left in a direction (a flat prior at time 0), there is nothing to add.
        gain = a * values / (a**2 * values + g**2).clamp(min=torch.finfo(x_t.dtype).tiny)
        return mean + ((gain * centred) @ vectors.T).reshape(x_t.shape)

    def posterior(self, y: Tensor, operator: LinearOperator, noise: float) -> Gaussian:
        """The exact distribution of the image given one measurement.

        Args:
            y: The measurement ``(C', H', W')`` of one image.
            operator: A linear operator.
            noise: Standard deviation of the Gaussian noise in ``y``, at least 0.

        Raises:
            TypeError: If the operator is not linear.
            ValueError: If the measurement is not that of an image of this prior's shape.
        """
        mean, covariance = self.distribution.mean, self.distribution.covariance
        matrix = operator_matrix(operator, tuple(mean.shape))
        if matrix.shape[0] != y.numel():
            raise ValueError(
                f"the operator measures {matrix.shape[0]} numbers of such an image, y has {y.numel()}"
            )
        cross = matrix @ covariance
        of_y = cross @ matrix.T + noise**2 * torch.eye(len(matrix), dtype=torch.float64)
        # The pseudo-inverse: without noise, pixels that the operator sets to zero have no variance.
        gain = cross.T @ torch.linalg.pinv(of_y, hermitian=True, rtol=1e-12)
        residual = y.double().flatten() - matrix @ mean.flatten()
        posterior = covariance - gain @ cross
        return Gaussian(mean + (gain @ residual).reshape(mean.shape), (posterior + posterior.T) / 2)


def operator_matrix(operator: LinearOperator, image_shape: tuple[int, ...]) -> Tensor:
    """A linear operator as a matrix ``(measurements, pixels)`` in float64, for small images.

    Args:
        operator: A linear operator, the same for every image.
        image_shape: ``(C, H, W)``.

    Raises:
        TypeError: If the operator is not linear.

    Example:
        >>> from operators import Grayscale
        >>> operator_matrix(Grayscale("mean"), (3, 1, 1))
        tensor([[0.3333, 0.3333, 0.3333]], dtype=torch.float64)
    """
    if not isinstance(operator, LinearOperator):
        raise TypeError(f"only a linear operator is a matrix; {type(operator).__name__} is not one")
    n = int(np.prod(image_shape))
    columns = [operator(row.reshape(1, *image_shape)).flatten() for row in torch.eye(n, dtype=torch.float64)]
    return torch.stack(columns, dim=1)


def smooth_covariance(size: tuple[int, int], length: float = 2.0, deviation: float = 1.0) -> Tensor:
    """The covariance of a smooth random image, ``deviation^2 exp(-distance / length)``, ``(H W, H W)`` float64.

    Args:
        size: ``(H, W)``.
        length: Correlation length, in pixels.
        deviation: Standard deviation of a pixel.

    Example:
        >>> smooth_covariance((2, 2)).shape
        torch.Size([4, 4])
    """
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    points = torch.stack([rows.flatten(), columns.flatten()], dim=1).double()
    return deviation**2 * torch.exp(-torch.cdist(points, points) / length)
