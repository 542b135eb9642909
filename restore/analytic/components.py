"""The Gaussian components of a mixture, in groups: all formulas of one group share one decomposition.

Under ``x_t = alpha x_0 + sigma eps`` component ``k`` becomes ``N(alpha m_k, alpha^2 S_k + sigma^2 I)``, so that its
covariance keeps the eigenvectors of ``S_k``. The formulas are products of matrices, ``|x|^2 - 2 x.m + |m|^2``; nothing
of the size states x components x pixels is ever built. Such differences lose digits, so the products are in
float64 whatever the states are in: what is left is the rounding of the states themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from restore.analytic.conditioning import Measured

#: Below it a variance is taken for this: where neither signal nor noise is left, nothing is divided by zero.
TINY = 1e-300
#: A covariance with a smaller ratio of eigenvalues is singular, as far as float64 can tell.
SINGULAR = 1e-12


@dataclass(frozen=True, eq=False)
class Isotropic:
    """Components whose covariances are ``v_k I``.

    Attributes:
        means: ``(K, n)``, float64.
        variances: ``(K,)``, float64.
    """

    means: Tensor
    variances: Tensor

    @cached_property
    def alike(self) -> bool:
        """Whether all components have one variance."""
        return bool((self.variances == self.variances[0]).all())

    def log_densities(self, x: Tensor, alpha: Tensor, sigma: Tensor, whole: bool = True) -> Tensor:
        """``log N(x; alpha m_k, alpha^2 S_k + sigma^2 I)``, float64 ``(B, K)``.

        Args:
            x: States ``(B, n)``.
            alpha: Signal, ``(1, 1)`` or ``(B, 1)``, float64.
            sigma: Noise, likewise.
            whole: False leaves out what is the same for all components, for their shares: most of the work.
        """
        means, s = self.means.to(x.device), self._noisy(alpha, sigma)
        if not whole and self.alike:
            return ((x.double() @ means.T) * alpha - alpha**2 * means.square().sum(1) / 2) / s
        # The states' own norm is nearly the same for all components: its sum alone needs float64.
        squares = x.square().sum(1, keepdim=True, dtype=torch.float64) - 2 * alpha * (x.double() @ means.T)
        distances = (squares + alpha**2 * means.square().sum(1)).clamp(min=0)
        return -0.5 * (distances / s + x.shape[1] * torch.log(2 * math.pi * s))

    def denoise(self, x: Tensor, shares: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``sum_k shares_k E[x_0 | x, k]`` in the dtype of ``x`` ``(B, n)``; shares are float64 ``(B, K)``."""
        gains = alpha * self.variances.to(x.device) / self._noisy(alpha, sigma)
        if self.alike:  # Then it does not depend on the shares how much is kept, and shares add up to 1.
            return gains[:, :1].to(x) * x + (1 - alpha * gains[:, :1]).to(x) * (
                shares.to(x) @ self.means.to(x)
            )
        own, drawn = (shares * gains).sum(1, keepdim=True), shares * (1 - alpha * gains)
        return own.to(x) * x + drawn.to(x) @ self.means.to(x)

    def colour(self, z: Tensor, which: Tensor) -> Tensor:
        """Draws from the components ``which`` ``(B,)`` out of standard normal numbers ``(B, n)``."""
        return self.means[which] + self.variances[which].sqrt()[:, None] * z

    def regular(self, alpha: Tensor, sigma: Tensor) -> bool:
        """Whether the noisy components have densities: none has a direction without variance."""
        return bool(self._noisy(alpha, sigma).min() > TINY)

    def measured(self, matrix: Tensor) -> list[Measured]:
        """The components as a measurement by ``matrix`` ``(m, n)`` sees them, those of one variance together."""
        basis, strengths, directions = torch.linalg.svd(matrix)
        distinct, group = self.variances.unique(return_inverse=True)
        return [
            Measured((group == i).nonzero().flatten(), v.sqrt() * directions.T, v.sqrt() * strengths, basis)
            for i, v in enumerate(distinct)
        ]

    def _noisy(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha**2 * self.variances.to(alpha) + sigma**2).clamp(min=TINY)


@dataclass(frozen=True, eq=False)
class Dense:
    """Components that share one covariance matrix. The methods are those of :class:`Isotropic`.

    Attributes:
        means: ``(K, n)``, float64.
        covariance: ``(n, n)``, float64.
    """

    means: Tensor
    covariance: Tensor

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues ``(n,)`` and eigenvectors ``(n, n)``; computed when first asked for."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return values.clamp(min=0), vectors

    @cached_property
    def root(self) -> Tensor:
        """The symmetric root ``R`` of the covariance, ``R R = S``, which may be singular.

        There is one of them only. Of eigenvectors alone, whose signs are up to LAPACK, the same random numbers would
        make other pictures on another processor.
        """
        values, vectors = self.spectrum
        return (vectors * values.sqrt()) @ vectors.T

    def log_densities(self, x: Tensor, alpha: Tensor, sigma: Tensor, whole: bool = True) -> Tensor:
        """Float64 ``(B, K)``; see :meth:`Isotropic.log_densities`."""
        vectors, s = self.spectrum[1].to(x.device), self._noisy(alpha, sigma)
        states, means = x.double() @ vectors, self.means.to(x.device) @ vectors
        scaled = states / s
        squares = (states * scaled).sum(1, keepdim=True) - 2 * alpha * (scaled @ means.T)
        distances = (squares + alpha**2 * ((1 / s) @ means.square().T)).clamp(min=0)
        return -0.5 * (distances + torch.log(2 * math.pi * s).sum(1, keepdim=True))

    def denoise(self, x: Tensor, shares: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``sum_k shares_k E[x_0 | x, k]``; see :meth:`Isotropic.denoise`."""
        values, vectors = (part.to(x.device) for part in self.spectrum)
        gains = (alpha * values / self._noisy(alpha, sigma)).to(x)
        mean = shares.to(x) @ self.means.to(x)
        centred = shares.sum(1, keepdim=True).to(x) * x - alpha.to(x) * mean
        return mean + (gains * (centred @ vectors.to(x))) @ vectors.to(x).T

    def colour(self, z: Tensor, which: Tensor) -> Tensor:
        """Draws; see :meth:`Isotropic.colour`."""
        return self.means[which] + z @ self.root

    def regular(self, alpha: Tensor, sigma: Tensor) -> bool:
        """Whether they have densities; see :meth:`Isotropic.regular`."""
        s = self._noisy(alpha, sigma)
        return bool((s.amin(1) > (SINGULAR * s.amax(1)).clamp(min=TINY)).all())

    def measured(self, matrix: Tensor) -> list[Measured]:
        """The components as a measurement sees them; see :meth:`Isotropic.measured`."""
        basis, strengths, directions = torch.linalg.svd(matrix @ self.root)
        return [Measured(torch.arange(len(self.means)), self.root @ directions.T, strengths, basis)]

    def _noisy(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha**2 * self.spectrum[0].to(alpha) + sigma**2).clamp(min=TINY)
