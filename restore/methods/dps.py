"""DPS: *Diffusion Posterior Sampling for General Noisy Inverse Problems*, 2022, arXiv:2209.14687."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restore.methods.base import Problem, Self
from restore.methods.guided import Guided, View, diagonal_log_density
from restore.prior import BasePrior, per_image
from restore.samplers import DDPM, Sampler

PAPER_STEPS = 1000
PAPER_NUMEL = 3 * 256 * 256
#: The paper's step sizes, by data set and task (its appendix D.1; images in [-1, 1], 1000 steps).
PAPER_ZETA = {
    "ffhq": {
        "inpainting": 0.5,
        "super-resolution": 0.3,
        "deblurring": 0.3,
        "phase retrieval": 0.4,
        "nonlinear deblurring": 1.0,
    },
    "imagenet": {
        "inpainting": 0.5,
        "super-resolution": 0.3,
        "deblurring": 0.4,
        "phase retrieval": 0.4,
        "nonlinear deblurring": 1.0,
    },
}


@dataclass(kw_only=True)
class DPS(Guided):
    """Goes down the gradient of the misfit ``||y - A(x_hat(x_t))||``, taken through the network.

    By default the step's length is found anew at every step, for every image. The gradient of the misfit corrects the
    estimate, as in every guided method:

    ``x_hat' = x_hat + tau C A'^T r``,  ``tau = ||r||^2 / (<A'^T r, C A'^T r> + s_y^2 ||r||^2)``,

    with ``C A'^T r = (sigma_t^2 / alpha_t) grad_{x_t} -||r||^2 / 2``, which is the gradient that DPS takes in any case.
    This ``tau`` is the exact step of steepest descent towards ``(A C A^T + s_y^2)^{-1} r`` (the first iterate of
    MMPS's conjugate gradients), so that nothing is left to tune: it suits any number of steps, sampler, noise level,
    range and size, and goes to 0 as the noise goes to infinity.

    Under photon noise ``r`` is weighed by the variance at every pixel, so that at the end ``A'^T r`` is the gradient of
    the Poisson likelihood.

    With a number for ``zeta`` it is the paper's method, 1000 steps by default: every ancestral step is followed by

    ``x_s <- x_s - zeta_run grad_{x_t} || y - A(x_hat(x_t)) ||_2``.

    The norm is not squared, and it is of each image by itself. ``zeta`` is a distance in the prior's range (the paper's
    is [-1, 1]), for 1000 steps at 3 x 256 x 256. So that it means the same elsewhere, a run uses
    ``zeta (1000 / steps) sqrt(size / (3 x 256 x 256))``: the guidance of all steps together stays as it is when their
    number changes, and a picture of four times the pixels, whose distances are twice as long, is moved twice as far.

    Args:
        zeta: The paper's step size; None finds it. See :meth:`paper`.
        clip: Clip the estimate to the prior's range, as the paper's code does.

    Raises:
        ValueError: If ``zeta`` is negative.

    Example:
        >>> DPS(zeta=0.5)
        DPS(clip=True, zeta=0.5)
    """

    name: ClassVar[str] = "dps"
    reference: ClassVar[str] = (
        "Diffusion Posterior Sampling for General Noisy Inverse Problems, 2022, arXiv:2209.14687"
    )
    default_steps: ClassVar[int] = 100
    takes_poisson: ClassVar[bool] = True

    zeta: float | None = None

    def __post_init__(self) -> None:
        if self.zeta is not None and not self.zeta >= 0:
            raise ValueError(f"zeta is a step size of at least 0, not {self.zeta}")

    @classmethod
    def paper(cls, data: str, task: str) -> DPS:
        """The method with the step size that the paper used, for 1000 ancestral steps.

        Args:
            data: ``"ffhq"`` or ``"imagenet"``.
            task: ``"inpainting"``, ``"super-resolution"``, ``"deblurring"``, ``"phase retrieval"`` or
                ``"nonlinear deblurring"``.

        Raises:
            ValueError: If the paper has no such setting.

        Example:
            >>> DPS.paper("ffhq", task="deblurring")
            DPS(clip=True, zeta=0.3)
        """
        zeta = PAPER_ZETA.get(data, {}).get(task)
        if zeta is None:
            known = "; ".join(f"{name}: {', '.join(tasks)}" for name, tasks in PAPER_ZETA.items())
            raise ValueError(f"the paper has no setting for {data!r} and {task!r}; it has {known}")
        return cls(zeta=zeta)

    def bind(
        self: Self, prior: BasePrior, problem: Problem, sampler: Sampler | None, steps: int | None
    ) -> Self:
        """A copy that is ready to run; the paper's step size comes with the paper's sampler and steps."""
        assert isinstance(self, DPS)
        if self.zeta is not None:
            sampler, steps = sampler or DDPM(), steps or PAPER_STEPS
        return super().bind(prior, problem, sampler, steps)

    def times(self) -> Sequence[float]:
        """As in every guided method; with the paper's step size, evenly in time."""
        return super().times() if self.zeta is None else self.prior.schedule.times(self.steps)

    def estimate(self, x_t: Tensor, t: float) -> Tensor:
        """``E[x_0 | x_t, y]``; with the paper's step size, ``E[x_0 | x_t]``, clipped."""
        if self.zeta is None:
            return super().estimate(x_t, t)
        x_hat = self.prior(x_t, t)
        return self.prior.clip(x_hat) if self.clip else x_hat

    def correct(self, view: View) -> Tensor:
        """The estimate after one step of steepest descent."""
        with torch.no_grad():
            length, image = view.descent
            corrected = view.x_hat.detach() + per_image(length, image) * image
        return self.prior.clip(corrected) if self.clip else corrected

    def log_density(self, view: View) -> Tensor:
        """``log N(y; A x_hat, S)`` of every image, with one number for ``S``: its quotient with the residual."""
        length, _ = view.descent
        length = length.reshape(-1, *[1] * (view.residual.ndim - 1))
        # Without a step there is no quotient: no residual, or nothing that the state could change in it.
        least = view.noise + 1e-3 * view.unit_variance
        variance = torch.where(length > 0, 1 / length, least)
        return diagonal_log_density(view.residual, variance.expand_as(view.residual))

    def constrain(self, x_s: Tensor, x_t: Tensor, x_hat: Tensor, t: float, s: float) -> Tensor:
        """The paper's gradient step."""
        if self.zeta is None:
            return x_s
        with torch.enable_grad():
            norm = self.residual_norm(x_hat)
            (gradient,) = torch.autograd.grad(
                norm.sum(), x_t
            )  # A sum of images' norms: each has its own gradient.
        return x_s - self.step_size() * gradient

    def step_size(self) -> float:
        """``zeta`` for this run's number of steps and size of picture."""
        assert self.zeta is not None
        size = math.prod(self.problem.shape[1:])
        return self.zeta * (PAPER_STEPS / self.steps) * math.sqrt(size / PAPER_NUMEL)
