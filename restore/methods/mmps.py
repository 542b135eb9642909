"""MMPS: *Learning Diffusion Priors from Observations by Expectation Maximization*, 2024, arXiv:2405.13712."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restore.methods.guided import FEW_NUMBERS, Guided, View, diagonal_log_density, inner
from restore.samplers import DPMSolver, Sampler
from restore.schedule import per_image

#: The most iterations for priors that are formulas, and for networks.
EXACT, INEXACT = 10, 1


@dataclass(kw_only=True)
class MMPS(Guided):
    """Moment matching: the image given the state has the covariance that Tweedie's formula gives.

    ``p(y | x_t) = N(A x_hat, S)``, ``S = A C A^T + s_y^2 I``, ``C = (sigma_t^2 / alpha_t) J^T``, so that

    ``E[x_0 | x_t, y] = x_hat + C A^T S^{-1} (y - A x_hat)``.

    ``S`` is never built: ``S u = r`` is solved by conjugate gradients, each of whose iterations costs one backward
    pass through the network. Under a Gaussian prior this estimate is exact.

    Args:
        iterations: The most iterations of conjugate gradients; each image stops where it has converged. By default 10
            for a prior in closed form, and 1 for a network: its Jacobian is neither symmetric nor positive, and
            further iterations follow its errors.
        tolerance: The residual, relative to ``r``, at which it has.
        clip: See :class:`~restore.methods.guided.Guided`.

    Raises:
        ValueError: If ``iterations`` is below 1 or ``tolerance`` not above 0.

    Example:
        >>> MMPS(iterations=5)
        MMPS(clip=True, iterations=5, tolerance=0.01)
    """

    name: ClassVar[str] = "mmps"
    reference: ClassVar[str] = (
        "Learning Diffusion Priors from Observations by Expectation Maximization, 2024, arXiv:2405.13712"
    )
    needs: ClassVar[tuple[str, ...]] = ("linear",)
    default_steps: ClassVar[int] = 100
    default_sampler: ClassVar[Sampler] = DPMSolver(eta=1.0)

    iterations: int | None = None
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        if (self.iterations is not None and self.iterations < 1) or not self.tolerance > 0:
            raise ValueError(
                f"iterations must be at least 1 and tolerance above 0, not {self.iterations} and {self.tolerance}"
            )

    def times(self) -> Sequence[float]:
        """As of every guided method, but to a lower level: the last step adds no noise, and would take its variance."""
        return self.prior.schedule.times(self.steps, spacing=self.spacing, lowest=1 / 3)

    def correct(self, view: View) -> Tensor:
        """``x_hat + C A^T u``, where ``S u = r`` is solved directly if the density needs all of ``S`` anyway."""
        with torch.no_grad():
            if view.keep and view.residual[0].numel() <= FEW_NUMBERS:
                variances, directions = view.spectrum
                u = directions @ (coordinates(view, directions) / variances)[..., None]
                x = view.x_hat.detach() + (view.columns * u[..., None, None].to(view.columns)).sum(1)
            else:
                x = self.conjugate_gradients(view)
        return self.prior.clip(x) if self.clip else x

    def conjugate_gradients(self, view: View) -> Tensor:
        """The corrected estimate, gathered on the way to ``S u = r``."""
        with torch.no_grad():
            x = view.x_hat.detach().clone()
            r = view.residual
            p = z = self.precondition(view, r)
            rho = inner(r, z)
            goal, active = self.tolerance**2 * rho, rho > 0
            for _ in range(self.iterations or (EXACT if self.prior.light else INEXACT)):
                image = view.covariance(view.adjoint(p))
                q = view.linear(image) + view.noise * p
                curvature = inner(p, q)
                # J is symmetric and positive as far as the network is exact: an image for which it is not ends here.
                active = active & (curvature > 0)
                length = torch.where(active, rho / curvature, 0)
                x = x + per_image(length, x) * image
                r = r - per_image(length, r) * q
                z = self.precondition(view, r)
                rho, before = inner(r, z), rho
                active = active & (rho > goal)
                if not bool(active.any()):
                    break
                # An image that has come to an end may have no residual left to divide by.
                p = z + per_image(torch.where(active, rho / before, 0), r) * p
        return x

    def precondition(self, view: View, r: Tensor) -> Tensor:
        """``S^{-1} r`` as it would be for independent pixels, where that has a closed form; else ``r``."""
        if not view.linear.has_svd:
            return r
        low, high = self.prior.value_range
        variance = (
            high - low
        ) ** 2 / 12  # Of pixels anywhere in the range. It need not be right: it saves iterations.
        q2 = variance * view.sigma**2 / (view.alpha**2 * variance + view.sigma**2)
        # Without noise, the pseudo-inverse would drop what is measured faintly.
        return view.linear.gram_solve(r, (self.problem.noise**2 / q2).clamp(min=1e-6)) / q2

    def log_density(self, view: View) -> Tensor:
        """``log N(y; A x_hat, S)`` of every image: with all of ``S`` for few numbers, else with its row sums."""
        if view.residual[0].numel() > FEW_NUMBERS:
            return diagonal_log_density(view.residual, view.row_variance)
        variances, directions = view.spectrum
        return diagonal_log_density(coordinates(view, directions), variances).to(view.residual)


def coordinates(view: View, directions: Tensor) -> Tensor:
    """The residual in an orthonormal basis ``(B, m, m)``, float64 ``(B, m)``."""
    return (directions.mT @ view.residual.double().flatten(1)[..., None])[..., 0]
