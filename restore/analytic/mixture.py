"""Mixtures of Gaussians: several modes, and still everything in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from operators import LinearOperator
from restore.analytic.components import SINGULAR, TINY, Dense, Isotropic
from restore.analytic.matrices import operator_matrix
from restore.prior import BasePrior
from restore.randomness import stream_seed
from restore.schedule import Schedule


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A mixture of Gaussian distributions of images, ``sum_k w_k N(m_k, S_k)``.

    Args:
        weights: ``(K,)``, at least 0; they are divided by their sum.
        means: ``(K, C, H, W)``.
        covariances: One variance for all pixels of all components; or one a component ``(K,)``; or one covariance
            matrix of the flattened image for all components, ``(n, n)`` with ``n = C H W``; or one each ``(K, n, n)``.
            Components that share a covariance are cheaper, by a factor of ``K``.

    Attributes:
        weights: ``(K,)``, with sum 1, float64.
        means: ``(K, C, H, W)``, float64.
        covariances: ``(K,)``, ``(n, n)`` or ``(K, n, n)``, float64.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, a weight or a variance is negative, all weights are 0,
            or a covariance is not symmetric positive semi-definite.

    Example:
        >>> two = GaussianMixture(torch.tensor([1, 3]), torch.tensor([0.0, 4.0]).reshape(2, 1, 1, 1), 1.0)
        >>> two.mean.item(), two.variance.item()  # 1 within the components, 3 between them
        (3.0, 4.0)
        >>> two.sample(5).shape
        torch.Size([5, 1, 1, 1])
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor | float

    def __post_init__(self) -> None:
        weights, means, covariances = (
            torch.as_tensor(value).detach().to("cpu", torch.float64)
            for value in (self.weights, self.means, self.covariances)
        )
        if weights.ndim != 1 or means.ndim != 4 or len(weights) != len(means) or not means.numel():
            raise ValueError(
                f"expected weights (K,) and means (K, C, H, W); got {tuple(weights.shape)} and {tuple(means.shape)}"
            )
        count, n = len(weights), means[0].numel()
        covariances = covariances.expand(count) if covariances.ndim == 0 else covariances
        if covariances.shape not in {(count,), (n, n), (count, n, n)}:
            raise ValueError(
                f"expected one variance, or covariances ({count},), ({n}, {n}) or ({count}, {n}, {n}) for {count} "
                f"components of {n} pixels; got {tuple(covariances.shape)}"
            )
        for name, value in (("weights", weights), ("means", means), ("covariances", covariances)):
            if not torch.isfinite(value).all():
                raise ValueError(
                    f"{name} must be finite; {int((~torch.isfinite(value)).sum())} numbers are not"
                )
        if weights.min() < 0 or weights.sum() <= 0:
            raise ValueError(f"weights must be at least 0, and not all 0; got {weights.tolist()}")
        _check_covariances(covariances)
        object.__setattr__(self, "weights", weights / weights.sum())
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "covariances", covariances)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        channels, height, width = self.means.shape[1:]
        return channels, height, width

    @property
    def mean(self) -> Tensor:
        """The mean of the whole, ``(C, H, W)``."""
        return torch.tensordot(self.weights, self.means, dims=1)

    @property
    def covariance(self) -> Tensor:
        """The covariance of the whole, ``(n, n)``: that within the components and that between them."""
        within = torch.as_tensor(self.covariances)
        if within.ndim != 2:
            within = torch.tensordot(self.weights, within, dims=1)
        if within.ndim == 0:
            within = within * torch.eye(self.mean.numel(), dtype=torch.float64)
        centred = (self.means - self.mean).flatten(1)
        return within + centred.T @ (self.weights[:, None] * centred)

    @property
    def variance(self) -> Tensor:
        """Variance of every pixel, ``(C, H, W)``."""
        return self.covariance.diagonal().reshape(self.shape)

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Independent draws, ``(count, C, H, W)`` float64."""
        generator = torch.Generator().manual_seed(stream_seed(seed, 1))
        drawn = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        generator.manual_seed(stream_seed(seed))
        x = torch.randn(count, math.prod(self.shape), generator=generator, dtype=torch.float64)
        for group, span in self._groups:
            mine = (drawn >= span.start) & (drawn < span.stop)
            if mine.any():  # A group that is not drawn need not be decomposed.
                x[mine] = group.colour(x[mine], drawn[mine] - span.start)
        return x.reshape(count, *self.shape)

    def log_density(self, x: Tensor) -> Tensor:
        """The logarithm of the density, float64 ``(B,)``, for images ``(B, C, H, W)``; differentiable in them.

        Raises:
            ValueError: If the images have another shape, or the covariance of a component is singular.
        """
        one = torch.ones(1, 1, dtype=torch.float64, device=x.device)
        return self._noisy_log_density(x, one, 0 * one)

    # ---------------------------------------------------------------- under noise, for the prior

    @cached_property
    def _groups(self) -> list[tuple[Isotropic | Dense, slice]]:
        """Components with a common decomposition, and which they are."""
        means, covariances = self.means.flatten(1), torch.as_tensor(self.covariances)
        if covariances.ndim == 3:
            return [(Dense(means[k : k + 1], c), slice(k, k + 1)) for k, c in enumerate(covariances)]
        return [((Isotropic if covariances.ndim == 1 else Dense)(means, covariances), slice(0, len(means)))]

    def _log_joint(self, x: Tensor, alpha: Tensor, sigma: Tensor, whole: bool = True) -> Tensor:
        """``log w_k p(alpha x_0 + sigma eps = x | k)``, float64 ``(B, K)``; up to a term of all ``k``, if not whole."""
        whole = whole or len(self._groups) > 1
        densities = [group.log_densities(self._flat(x), alpha, sigma, whole) for group, _ in self._groups]
        return self.weights.to(x.device).log() + torch.cat(densities, dim=1)

    def _noisy_log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        if not all(group.regular(alpha, sigma) for group, _ in self._groups):
            raise ValueError(
                "a component's covariance is singular, so there is no density: some directions have no variance. "
                "A posterior without noise is such; ask for its samples, or give the measurement a little noise"
            )
        return self._log_joint(x.double(), alpha, sigma).logsumexp(1)

    def _denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``E[x_0 | alpha x_0 + sigma eps = x]``."""
        if len(self.weights) == 1:
            shares = torch.ones(len(x), 1, dtype=torch.float64, device=x.device)
        else:
            shares = self._log_joint(x, alpha, sigma, whole=False).softmax(1)
        parts = [group.denoise(self._flat(x), shares[:, span], alpha, sigma) for group, span in self._groups]
        return sum(parts[1:], parts[0]).reshape(x.shape)

    def _flat(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1:] != self.shape:
            raise ValueError(
                f"expected images of shape (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}"
            )
        return x.flatten(1)


class GaussianMixturePrior(BasePrior):
    """A mixture of Gaussians as a prior, with its exact denoiser and its exact posterior.

    ``E[x_0 | x_t] = sum_k r_k(x_t) E[x_0 | x_t, k]``, where ``r_k`` is the probability that ``x_t`` comes from
    component ``k``, and each term is that of :class:`GaussianPrior`. It is differentiable in ``x_t``, in float32 or
    float64; the probabilities are computed in float64 in both. With isotropic components a call costs two products of
    states ``(B, n)`` and means ``(n, K)``.

    Its images are in the units of the user, and unbounded: ``solve`` neither scales nor clips them.

    Args:
        weights: As for :class:`GaussianMixture`.
        means: ``(K, C, H, W)``.
        covariances: As for :class:`GaussianMixture`.
        schedule: Signal and noise at each time; DDPM's linear one by default.

    Attributes:
        distribution: The :class:`GaussianMixture`.

    Raises:
        ValueError: As :class:`GaussianMixture` does.

    Example:
        Of two points, a state near the first shows the first:

        >>> prior = GaussianMixturePrior(torch.ones(2), torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1), 0.0)
        >>> round(prior(torch.full((1, 1, 1, 1), -0.9), 0.1).item(), 3)
        -1.0
        >>> from operators import Identity
        >>> prior.posterior(torch.full((1, 1, 1), 0.5), Identity(), noise=1.0).weights
        tensor([0.2689, 0.7311], dtype=torch.float64)
    """

    value_range = (0.0, 1.0)
    bounded = False
    light = True
    name = "mixture"

    def __init__(
        self, weights: Tensor, means: Tensor, covariances: Tensor | float, schedule: Schedule | None = None
    ) -> None:
        self.distribution = GaussianMixture(weights, means, covariances)
        self.schedule = schedule or Schedule.linear()
        self.channels = self.distribution.shape[0]
        self.image_size = self.distribution.shape[1:]

    def __call__(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """``E[x_0 | x_t]`` for ``x_t`` ``(B, C, H, W)``, exactly; ``t`` is a float or ``(B,)``."""
        return self.distribution._denoise(x_t, *self._column(x_t, t))

    def log_density(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """``log p(x_t)`` of noisy states, float64 ``(B,)``; its gradient is :meth:`score`.

        Raises:
            ValueError: If at ``t = 0`` the covariance of a component is singular.
        """
        return self.distribution._noisy_log_density(x_t, *self._column(x_t, t))

    def posterior(self, y: Tensor, operator: LinearOperator, noise: float) -> GaussianMixture:
        """The exact distribution of the image given one measurement.

        A mixture again: each component by Bayes' rule, and ``w_k`` times its evidence
        ``N(y; A m_k, A S_k A^T + noise^2 I)`` for a weight. Without noise it is the limit of little noise, in which
        the pseudo-inverse stands for the inverse. Where a component then leaves directions of the measurement no
        variance, its evidence is degenerate: zero if ``y`` differs from its mean there, and without bound if not. In
        the limit, components that explain ``y`` in fewer dimensions get all the weight, and of a ``y`` that none
        can explain, those that come nearest to it.

        Args:
            y: The measurement ``(C', H', W')`` of one image.
            operator: A linear operator.
            noise: Standard deviation of the Gaussian noise in ``y``, at least 0.

        Raises:
            TypeError: If the operator is not linear.
            ValueError: If the measurement is not that of an image of this prior's shape, or not finite, or the noise
                is negative or not finite.
        """
        prior, shape = self.distribution, self.distribution.shape
        matrix, y = operator_matrix(operator, shape).cpu(), y.detach().to("cpu", torch.float64).flatten()
        if len(matrix) != len(y):
            raise ValueError(f"the operator measures {len(matrix)} numbers of such an image, y has {len(y)}")
        if not torch.isfinite(y).all():
            raise ValueError("y must be finite: of what was not measured, give zeros")
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise is a standard deviation: finite and at least 0, not {noise}")
        # What no image can change (the holes of a mask) says nothing: only the operator's range is left.
        left, strengths, right = torch.linalg.svd(matrix, full_matrices=False)
        reached = strengths > SINGULAR * strengths[:1].sum()
        matrix, y = strengths[reached, None] * right[reached], left[:, reached].T @ y
        parts = [
            (part, part.which + span.start)
            for group, span in prior._groups
            for part in group.measured(matrix)
        ]
        # One floor for all components: their evidences are compared.
        strongest = max(float(part.strengths[:1].sum()) for part, _ in parts)  # Singular values fall.
        floor = max(SINGULAR * (strongest**2 + noise**2), TINY)
        means, evidence = prior.means.flatten(1).clone(), torch.zeros_like(prior.weights)
        covariances: list[Tensor] = [torch.empty(0)] * len(means)
        for part, which in parts:
            shift, covariance, log_evidence = part.condition(y - means[which] @ matrix.T, noise, floor)
            means[which] += shift
            evidence[which] = log_evidence
            for k in which.tolist():
                covariances[k] = covariance
        shared = covariances[0] if len(parts) == 1 else torch.stack(covariances)
        weights = (prior.weights.log() + evidence).softmax(0)
        return GaussianMixture(weights, means.reshape(-1, *shape), shared)

    def _column(self, x_t: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise, float64 ``(1, 1)`` or ``(B, 1)``, on the states' device."""
        alpha, sigma = (
            torch.as_tensor(value, dtype=torch.float64, device=x_t.device).reshape(-1, 1)
            for value in self.schedule(t)
        )
        return alpha, sigma


def _check_covariances(covariances: Tensor) -> None:
    """Variances ``(K,)`` or matrices ``(..., n, n)``: the former at least 0, the latter symmetric semi-definite."""
    if covariances.ndim == 1:
        if covariances.min() < 0:
            raise ValueError(f"a variance is at least 0; got {covariances.tolist()}")
        return
    for matrix in covariances.reshape(-1, *covariances.shape[-2:]):
        scale = float(matrix.abs().max()) or 1.0
        if float((matrix - matrix.T).abs().max()) > 1e-9 * scale:
            raise ValueError("a covariance must be symmetric")
        # Cholesky's decomposition exists just for regular ones, and is a tenth of the work of eigenvalues.
        shifted = matrix / scale + 1e-9 * torch.eye(len(matrix), dtype=torch.float64)
        if torch.linalg.cholesky_ex(shifted).info:
            least = float(torch.linalg.eigvalsh(matrix).min())
            raise ValueError(f"a covariance has no negative eigenvalue; the least of this one is {least:.3g}")
