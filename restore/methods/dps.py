"""DPS: *Diffusion Posterior Sampling for General Noisy Inverse Problems*, 2022, arXiv:2209.14687."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from operators import LinearOperator, Mask
from restore.methods.base import Problem, Self
from restore.methods.guided import FEW_NUMBERS, Guided, View, diagonal_log_density, inner
from restore.prior import BasePrior
from restore.samplers import DDPM, Sampler
from restore.schedule import per_image

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

    Where the measured numbers differ much in variance, one such step falls short. But consecutive steps face nearly the
    same ``S = A C A^T + s_y^2``, and each has found ``q = S p`` for the direction ``p`` it took. So the next one can go
    along ``C A^T H r`` instead, where ``H`` is what the pair ``(p, q)`` tells of ``S^{-1}``: the memoryless BFGS update
    (Shanno, *Conjugate Gradient Methods with Inexact Searches*, 1978), with ``H q = p``. Its length is exact again, and
    the network is not called once more. Where the prior is exact this comes near to MMPS. A network's ``J`` is not, and
    least of all where ``S`` is small, which is what ``H`` makes large: large pictures get worse. Hence it is done for
    measurements of at most 64 numbers (the holes of a mask are none), unless ``quasi_newton`` says otherwise.

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
        quasi_newton: Whether the direction of a step follows from what the last one found, too; by default for linear
            operators, Gaussian noise and at most 64 numbers. Not in a twist of TDS, which knows no earlier step.

    Raises:
        ValueError: If ``zeta`` is negative; or if ``quasi_newton=True`` comes with ``zeta``, or (at the start of a run)
            with an operator that is not linear or with photon noise.

    Example:
        >>> DPS(zeta=0.5)
        DPS(clip=True, zeta=0.5, quasi_newton=None)
    """

    name: ClassVar[str] = "dps"
    reference: ClassVar[str] = (
        "Diffusion Posterior Sampling for General Noisy Inverse Problems, 2022, arXiv:2209.14687"
    )
    default_steps: ClassVar[int] = 100
    takes_poisson: ClassVar[bool] = True

    zeta: float | None = None
    quasi_newton: bool | None = None

    _learning: Tensor | None = field(init=False, repr=False, compare=False)
    _pair: tuple[Tensor, Tensor] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.zeta is not None and not self.zeta >= 0:
            raise ValueError(f"zeta is a step size of at least 0, not {self.zeta}")
        if self.quasi_newton not in (None, True, False):
            raise ValueError(f"quasi_newton is True, False or None, not {self.quasi_newton!r}")
        if self.zeta is not None and self.quasi_newton:
            raise ValueError(
                f"zeta={self.zeta} is the paper's step, down the gradient: leave out zeta or quasi_newton"
            )

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
            DPS(clip=True, zeta=0.3, quasi_newton=None)
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
        run = super().bind(prior, problem, sampler, steps)
        assert isinstance(run, DPS)
        operator, poisson = problem.operator, problem.poisson is not None
        able = isinstance(operator, LinearOperator) and not poisson
        if self.quasi_newton and not able:
            name = type(getattr(operator, "operator", operator)).__name__
            raise ValueError(
                f"quasi_newton=True needs a linear operator and Gaussian noise, not {name}"
                f"{' with photon noise' if poisson else ''}: leave it out"
            )
        learning = torch.full_like(problem.noise, bool(self.quasi_newton), dtype=torch.bool)
        if self.quasi_newton is None and able and self.zeta is None:
            learning = numbers_measured(problem) <= FEW_NUMBERS
        run._learning = learning if bool(learning.any()) else None
        run._pair = None
        return run

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
        """The estimate after one step down the misfit."""
        with torch.no_grad():
            # A twist is a density of the state alone, whatever came before it.
            steepest = self._learning is None or view.keep
            length, image = view.descent if steepest else self.quasi_newton_step(view)
            corrected = view.x_hat.detach() + per_image(length, image) * image
        return self.prior.clip(corrected) if self.clip else corrected

    def quasi_newton_step(self, view: View) -> tuple[Tensor, Tensor]:
        """Length ``(B,)`` and direction ``C A^T p`` of a step, ``p = H r``; and what it tells the next one of ``S``."""
        p = view.residual
        if self._pair is not None:
            assert self._learning is not None
            learns = self._learning.reshape(-1, *[1] * (p.ndim - 1))
            p = torch.where(learns, memoryless_bfgs(p, *self._pair), p)
        length, image = view.along(p)
        # Where there was no step, there is nothing to learn.
        stepped = per_image((length > 0).float(), p)
        self._pair = p, stepped * (view.linear(image) + view.noise * p)
        return length, image

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


def numbers_measured(problem: Problem) -> Tensor:
    """How many numbers the measurement of every image has, without the holes of a mask, ``(B,)``."""
    seen = torch.ones_like(problem.y, dtype=torch.bool)
    if isinstance(problem.operator, Mask):
        seen = (problem.operator.mask != 0).expand_as(problem.y)
    return seen.flatten(1).sum(1)


def memoryless_bfgs(r: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """``H r``, ``H`` being the BFGS update of a multiple of the identity by one pair; ``r`` where the pair is no good.

    ``H = V^T gamma V + p p^T / <p, q>``, ``V = 1 - q p^T / <p, q>``, ``gamma = <p, q> / <q, q>``; so ``H q = p``, and
    ``H`` is positive where ``<p, q>`` is. All that is for ``p`` and ``q`` whose largest number is 1: else the
    result would be some multiple of it, which is the same direction.

    Args:
        r: Of every image, ``(B, ...)``.
        p: Where the step went, in the same shape.
        q: ``S p``, likewise.
    """
    p, q = unit_peak(p), unit_peak(q)
    curvature = inner(p, q)
    good = curvature > 0  # The prior may be inexact; and where there was no step, both are 0.
    curvature, square = torch.where(good, curvature, 1), torch.where(good, inner(q, q), 1)
    along = inner(p, r) / curvature
    rest = per_image(curvature / square, r) * (r - per_image(along, q) * q)
    learnt = rest + per_image(along - inner(q, rest) / curvature, p) * p
    return torch.where(good.reshape(-1, *[1] * (r.ndim - 1)), learnt, r)


def unit_peak(x: Tensor) -> Tensor:
    """Every image divided by the absolute value of its largest number; 0 stays."""
    peak = x.flatten(1).abs().amax(1)
    return x / per_image(torch.where(peak > 0, peak, 1), x)
