"""Problems whose posterior is known exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators import LinearOperator, Mask, Matrix
from restore.analytic import Gaussian, GaussianMixture, GaussianMixturePrior, GaussianPrior
from restore.randomness import stream_seed


@dataclass(frozen=True)
class KnownProblem:
    """One measurement, all that made it, and the exact posterior.

    Attributes:
        prior: The prior, with its exact denoiser.
        operator: What measured.
        y: The measurement of one image, ``(C', H', W')`` float32.
        noise: Standard deviation of the noise in ``y``.
        posterior: The exact distribution of the image given ``y``.
    """

    prior: GaussianPrior | GaussianMixturePrior
    operator: LinearOperator
    y: Tensor
    noise: float
    posterior: Gaussian | GaussianMixture


def correlated_gaussian(
    seed: int = 0, *, size: int = 8, deviation: float = 0.15, length: float = 1.5, noise: float = 0.05
) -> KnownProblem:
    """A picture with correlated Gaussian pixels, half of which are measured.

    The prior's mean is 0.5 and its deviation small, so that nearly all of its pictures lie in [0, 1], as the defaults
    of all packages expect. Its covariance is ``deviation^2 exp(-distance^2 / (2 length^2))``, and ``1e-4 deviation^2``
    more for each pixel by itself, so that no picture is impossible.

    Args:
        seed: Of the picture, the mask and the noise.
        size: Height and width.
        deviation: Standard deviation of a pixel.
        length: Correlation length, in pixels.
        noise: Standard deviation of the noise.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, 1))
    pixels = torch.cartesian_prod(torch.arange(size), torch.arange(size)).double()
    correlation = torch.exp(-(torch.cdist(pixels, pixels) ** 2) / (2 * length**2))
    covariance = deviation**2 * (correlation + 1e-4 * torch.eye(size * size, dtype=torch.float64))
    prior = GaussianPrior(torch.full((1, size, size), 0.5), covariance)
    kept = torch.randperm(size * size, generator=generator) < size * size // 2
    operator = Mask(kept.reshape(1, size, size))
    image = prior.distribution.sample(1, stream_seed(seed, 2))
    return _measured(prior, operator, image, noise, generator)


def mixture(seed: int = 0, *, dimension: int = 8, measurements: int = 1, flat: bool = False) -> KnownProblem:
    """The mixture of 25 Gaussians of *Monte Carlo guided Diffusion for Bayesian linear inverse problems*, 2023.

    As in the paper (arXiv:2308.07983) and its code: the means are ``(8 i, 8 j)`` with ``i, j`` in -2 ... 2, repeated
    along the dimensions; covariances are the identity; weights are squares of standard normal numbers, divided by
    their sum. The matrix has the singular vectors of one with standard normal entries, and singular values that
    are uniform in (0, 1); the noise is uniform between 0 and the largest of them. The image is a draw of the prior.

    Args:
        seed: Of the weights, the matrix, the noise and the image.
        dimension: Number of values of the image, even.
        measurements: Number of values measured.
        flat: Draw the weights evenly from all that sum to 1, instead: fewer of them are nearly 0, so that more
            components fit a measurement.

    Raises:
        ValueError: If the dimension is odd, or there are more measurements than dimensions.
    """
    if dimension % 2 or not 0 < measurements <= dimension:
        raise ValueError(
            f"expected an even dimension and at most as many measurements; got a dimension of {dimension} and "
            f"{measurements} of measurements"
        )
    generator = torch.Generator().manual_seed(stream_seed(seed, dimension, measurements))
    random: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    centres = 8 * torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3)).double()
    means = centres.repeat(1, dimension // 2).reshape(25, 1, 1, dimension)
    weights = _flat_weights(random) if flat else torch.randn(25, **random) ** 2
    prior = GaussianMixturePrior(weights / weights.sum(), means, 1.0)
    entries = torch.randn(measurements, dimension, **random)
    left, _, right = torch.linalg.svd(entries, full_matrices=False)
    values = torch.rand(measurements, **random)
    noise = float(torch.rand(1, **random) * values.max())
    operator = Matrix((left * values.sort(descending=True).values) @ right)
    image = prior.distribution.sample(1, stream_seed(seed, dimension, measurements, 1))
    return _measured(prior, operator, image, noise, generator)


def _flat_weights(random: dict[str, Any]) -> Tensor:
    """Exponential numbers: divided by their sum, they are even on the simplex (Dirichlet's distribution of ones)."""
    return -torch.rand(25, **random).log()


def _measured(
    prior: GaussianPrior | GaussianMixturePrior,
    operator: LinearOperator,
    image: Tensor,
    noise: float,
    generator: torch.Generator,
) -> KnownProblem:
    y = operator(image.double())[0]
    y = (y + noise * torch.randn(y.shape, generator=generator, dtype=torch.float64)).float()
    if isinstance(operator, Mask):
        y = y * operator.mask[0].expand(y.shape)  # What is not measured has no noise either.
    return KnownProblem(prior, operator, y, noise, prior.posterior(y, operator, noise))
