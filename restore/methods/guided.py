"""What the methods share that correct the estimate by Bayes' rule, with a Gaussian for ``p(y | x_t)``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from operators import LinearOperator, Operator
from restore.methods.base import Method
from restore.samplers import DDIM, Sampler

#: Measurements of at most so many numbers leave so much open that the shares of the solutions are what matters; and
#: the whole of their covariance can be had.
FEW_NUMBERS = 64


@dataclass
class View:
    """The state as the measurement sees it: all that a guided method may use at one step.

    What costs a backward pass is kept: a twist asks for it twice, to correct the estimate and for the density.

    Attributes:
        x_hat: The prior's estimate, ``(B, C, H, W)``, with the graph that leads to the state.
        residual: ``r = y - A(x_hat)``, ``(B, ...)``.
        noise: Variance of the noise in every entry of ``y``, broadcastable to ``r``.
        covariance: ``v -> C v`` with ``C = (sigma_t^2 / alpha_t) J^T``, the covariance of the image given the state
            (Tweedie's second formula; ``J`` is symmetric for an exact prior). One backward pass; ``last=True`` says
            that none will follow, which frees memory on the way.
        operator: The operator.
        alpha: ``alpha_t``.
        sigma: ``sigma_t``.
        keep: Whether the density is asked for as well as the correction.
    """

    x_hat: Tensor
    residual: Tensor
    noise: Tensor
    covariance: Callable[..., Tensor]
    operator: Operator
    alpha: float
    sigma: float
    keep: bool = False

    @property
    def linear(self) -> LinearOperator:
        """The operator, for methods that need a linear one."""
        assert isinstance(self.operator, LinearOperator)  # solve() has refused all others
        return self.operator

    def adjoint(self, r: Tensor) -> Tensor:
        """``A'(x_hat)^T r``: the adjoint of the operator, or of its derivative where it is not linear."""
        if isinstance(self.operator, LinearOperator):
            return self.operator.adjoint(r)
        with torch.enable_grad():
            x = self.x_hat.detach().requires_grad_(True)
            (image,) = torch.autograd.grad((self.operator(x) * r).sum(), x, materialize_grads=True)
        return image

    def marginal(self, r: Tensor) -> Tensor:
        """``S r`` with ``S = A C A^T + s_y^2``, the covariance of ``y`` given the state. One backward pass."""
        return self.linear(self.covariance(self.adjoint(r))) + self.noise * r

    @cached_property
    def descent(self) -> tuple[Tensor, Tensor]:
        """The step of steepest descent down the misfit: length ``tau`` ``(B,)``, direction ``C A'^T r``.

        One backward pass. See :class:`restore.methods.DPS` for the formula.
        """
        return self.along(self.weighed)

    def along(self, pull: Tensor) -> tuple[Tensor, Tensor]:
        """The exact step down the misfit along ``C A'^T p``: length ``(B,)``, and direction. One backward pass.

        Args:
            pull: ``p``, in the shape of the residual.
        """
        gradient = self.adjoint(pull)
        image = self.covariance(gradient, last=True)
        misfit = inner(self.residual, pull)
        # C is positive as far as the prior is exact; where it is not, there is no step that would go down.
        spread = inner(gradient, image)
        curvature = spread + inner(pull, self.noise * pull)
        return torch.where((spread > 0) & (curvature > 0), misfit / curvature, 0), image

    @property
    def weighed(self) -> Tensor:
        """The residual, each of its numbers by how far it can be trusted: all alike but under photon noise.

        Beside the noise, a residual holds what the estimate does not know yet, as much as it is larger than the noise.
        """
        if self.noise[0].numel() == 1:
            return self.residual

        def mean(x: Tensor) -> Tensor:
            return x.flatten(1).mean(1).reshape(-1, *[1] * (x.ndim - 1))

        unknown = (mean(self.residual**2) - mean(self.noise)).clamp(min=0)
        return self.residual * (unknown + mean(self.noise)) / (unknown + self.noise)

    @cached_property
    def columns(self) -> Tensor:
        """``C A^T`` as images ``(B, m, C, H, W)``, for measurements of few numbers: m backward passes."""
        shape, m = self.residual.shape, self.residual[0].numel()
        units = torch.eye(m, device=self.residual.device, dtype=self.residual.dtype)
        return torch.stack(
            [self.covariance(self.adjoint(unit.reshape(1, *shape[1:]).expand(shape))) for unit in units],
            dim=1,
        )

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues ``(B, m)`` of the whole ``S``, and eigenvectors ``(B, m, m)``, float64; from :attr:`columns`."""
        seen = [self.linear(column).flatten(1) for column in self.columns.unbind(1)]
        noise = self.noise.expand_as(self.residual).flatten(1).double()
        matrix = torch.stack(seen, dim=2).double() + torch.diag_embed(noise)
        # J is symmetric only as far as the prior is exact.
        values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
        # At least the noise; and where there is none, S has no inverse in a direction that nothing is measured of.
        floor = noise.amin(1, keepdim=True).clamp(min=1e-6 * self.unit_variance)
        return values.maximum(floor), vectors

    @cached_property
    def row_variance(self) -> Tensor:
        """The row sums of ``S``, as a variance for every number of the measurement. One backward pass."""
        sums = self.linear(self.covariance(self.adjoint(torch.ones_like(self.residual))))
        # A row whose entries cancel would have no variance, and an infinite pull.
        return sums.clamp(min=1e-3 * self.unit_variance) + self.noise

    @property
    def unit_variance(self) -> float:
        """What the state leaves of the variance of a pixel that has variance 1: the scale of what is negligible."""
        level = (self.sigma / self.alpha) ** 2
        return level / (1 + level)


@dataclass(kw_only=True)
class Guided(Method):
    """Corrects the estimate by Bayes' rule, under ``p(y | x_t) = N(A x_hat, S)``.

    ``E[x_0 | x_t, y] = x_hat + (sigma_t^2 / alpha_t) grad_{x_t} log p(y | x_t) = x_hat + C A^T S^{-1} (y - A x_hat)``,
    ``C = (sigma_t^2 / alpha_t) J^T``, where ``J`` is the derivative of ``x_hat`` by ``x_t``. Methods differ in ``S``.
    Any sampler goes on from this estimate.

    Args:
        clip: Clip the network's estimate, and the corrected one, to the prior's range. Without, the error that a
            network has at high noise, where its estimate is a difference divided by a small ``alpha``, makes runs
            diverge.
    """

    gradient: ClassVar[bool] = True
    spacing: ClassVar[str] = "log"
    default_sampler: ClassVar[Sampler] = DDIM(eta=1.0)

    clip: bool = True

    def direction(self, view: View) -> Tensor:
        """``A^T S^{-1} r``, ``(B, C, H, W)``; not asked of a method that has a :meth:`correct` of its own."""
        raise NotImplementedError

    def log_density(self, view: View) -> Tensor:
        """``log N(y; A x_hat, S)`` of every image, ``(B,)``, up to what is the same for all states."""
        raise NotImplementedError

    def estimate(self, x_t: Tensor, t: float) -> Tensor:
        """``E[x_0 | x_t, y]`` under the approximation."""
        x_hat = self.prior(x_t, t)
        x_hat = self.prior.clip(x_hat) if self.clip else x_hat
        if self.prior.schedule(t)[0] == 0:
            return x_hat.detach()  # A state of noise alone tells nothing that a measurement could correct.
        return self.correct(self.view(x_t, x_hat, t))

    def view(self, x_t: Tensor, x_hat: Tensor, t: float, keep: bool = False) -> View:
        """The state as the measurement sees it; ``x_hat`` with its graph, which ``keep`` keeps from being freed."""
        operator = self.problem.operator
        assert operator is not None
        alpha, sigma = self.prior.schedule(t)

        def covariance(v: Tensor, last: bool = False) -> Tensor:
            with torch.enable_grad():
                # Of a number: given a vector, autograd would first import a computer algebra system.
                product = (x_hat * v).sum()
            (product,) = torch.autograd.grad(product, x_t, retain_graph=keep or not last)
            return sigma**2 / alpha * product

        with torch.no_grad():
            measured = operator(x_hat)
            residual, noise = self.problem.y - measured, self.problem.variance(measured)
        return View(x_hat, residual, noise, covariance, operator, alpha, sigma, keep)

    def correct(self, view: View) -> Tensor:
        """The corrected estimate."""
        with torch.no_grad():
            corrected = view.x_hat.detach() + view.covariance(self.direction(view), last=True)
        return self.prior.clip(corrected) if self.clip else corrected


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of every image with its partner, ``(B,)``."""
    return (a * b).flatten(1).sum(1)


def diagonal_log_density(residual: Tensor, variance: Tensor) -> Tensor:
    """``log N(r; 0, diag(variance))`` of every image, ``(B,)``, in nats."""
    terms = residual**2 / variance + torch.log(2 * math.pi * variance)
    return -0.5 * terms.flatten(1).sum(1)
