"""What a method is: a few hooks on the one sampling loop of :mod:`restore.solve`.

A method says where it starts, which times it visits, how it corrects the estimate of the clean image, and how it
corrects the next state. Everything a method sees is in the prior's own range: ``solve`` alone converts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from operators import LinearOperator, Operator, PoissonNoise
from restore.prior import BasePrior
from restore.randomness import Randomness
from restore.samplers import DDPM, Sampler, renoise

Self = TypeVar("Self", bound="Method")


@dataclass(frozen=True)
class Problem:
    """A measurement in the prior's range, with all that is known of it.

    Attributes:
        y: The measurement, ``(B, ...)`` float32; zeros of no elements where there is none.
        operator: What made it; None where there is no measurement.
        noise: Standard deviation of the noise in ``y``, ``(B,)``, at least 0.
        shape: Shape of the images, ``(B, C, H, W)``.
        randomness: One stream of random numbers per image.
        poisson: Photon noise, where that is the noise of ``y``; its variance follows the brightness.
        scale: Length of the prior's range in which ``y`` is 1 unit long, for the variance of photon noise.
    """

    y: Tensor
    operator: Operator | None
    noise: Tensor
    shape: tuple[int, ...]
    randomness: Randomness
    poisson: PoissonNoise | None = None
    scale: float = 1.0

    def select(self, index: Tensor, randomness: Randomness) -> Problem:
        """The problem of some images of its batch.

        Args:
            index: Positions of the images, ``(N,)``; one may come more than once.
            randomness: Their streams.
        """
        return replace(
            self,
            y=self.y[index],
            operator=None if self.operator is None else self.operator.select(index),
            noise=self.noise[index],
            shape=(len(index), *self.shape[1:]),
            randomness=randomness,
            poisson=None if self.poisson is None else self.poisson.select(index),
        )

    def variance(self, y_clean: Tensor) -> Tensor:
        """Variance of the noise in every number of the measurement, broadcastable to ``(B, ...)``.

        Args:
            y_clean: What would be measured without noise; the brighter, the more photon noise there is.
        """
        if self.poisson is None:
            return (self.noise**2).reshape(-1, *[1] * (y_clean.ndim - 1))
        return self.scale**2 * self.poisson.variance(y_clean / self.scale)


@dataclass(kw_only=True)
class Method:
    """The sampling loop's hooks. By itself it samples from the prior, without a measurement.

    Subclasses are dataclasses whose fields are their options. An instance holds options alone; :meth:`bind` makes the
    copy that also holds one run's problem.

    Attributes:
        name: What users call it.
        reference: Title, year and number of the paper.
        needs: What it needs of the operator: any of ``"linear"``, ``"svd"``, ``"svd-if-noisy"``, ``"mask"``,
            ``"noise-free"``.
        gradient: Whether it differentiates through the network.
        default_steps: Number of steps if the user gives none: the paper's.
        default_sampler: The sampler of the paper.
        spacing: How the levels of noise lie; see :meth:`restore.schedule.Schedule.times`.
        takes_sampler: Whether a sampler makes its steps; some methods have a step of their own.
        takes_poisson: Whether the noise may be photon noise.
        draws: Whether results are draws that differ with the seed; else there is one result.
    """

    name: ClassVar[str] = "prior"
    reference: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    gradient: ClassVar[bool] = False
    default_steps: ClassVar[int] = 1000
    default_sampler: ClassVar[Sampler] = DDPM()
    spacing: ClassVar[str] = "uniform"
    takes_sampler: ClassVar[bool] = True
    takes_poisson: ClassVar[bool] = False
    draws: ClassVar[bool] = True

    prior: BasePrior = field(init=False, repr=False, compare=False)
    problem: Problem = field(init=False, repr=False, compare=False)
    sampler: Sampler = field(init=False, repr=False, compare=False)
    steps: int = field(init=False, repr=False, compare=False)
    x_hat: Tensor = field(init=False, repr=False, compare=False)

    def bind(
        self: Self, prior: BasePrior, problem: Problem, sampler: Sampler | None, steps: int | None
    ) -> Self:
        """A copy that is ready to run on one problem; the method itself stays as it is."""
        run = copy.copy(self)
        run.problem = problem
        run.sampler, run.prior = self.default_sampler if sampler is None else sampler, prior
        if self.takes_sampler:
            run.sampler, run.prior = run.sampler.attach(prior)
        run.steps = self.default_steps if steps is None else steps
        return run

    @property
    def states_per_draw(self) -> int:
        """How many states a draw has, one after the other in the batch."""
        return 1

    @property
    def calls_per_step(self) -> int:
        """Network calls that one downward step makes."""
        return 1

    # ---------------------------------------------------------------- the hooks

    def times(self) -> Sequence[float]:
        """The times to visit, from noisy to clean; they may go up again."""
        return self.prior.schedule.times(self.steps, spacing=self.spacing)

    def start(self, t: float) -> Tensor:
        """The first state, at time ``t``: noise."""
        _, sigma = self.prior.schedule(t)
        return sigma * self.problem.randomness.normal(self.problem.shape[1:])

    def step(self, x_t: Tensor, t: float, s: float) -> Tensor:
        """One downward step, from time ``t`` to ``s``."""
        if self.gradient:
            x_t = x_t.detach().requires_grad_(True)
        with torch.set_grad_enabled(self.gradient):
            x_hat = self.estimate(x_t, t)
        self.x_hat = x_hat.detach()
        x_s = self.sampler.step(x_t.detach(), self.x_hat, t, s, self.prior.schedule, self.noise_like)
        return self.constrain(x_s, x_t, x_hat, t, s)

    def step_up(self, x_s: Tensor, s: float, t: float) -> Tensor:
        """One upward step, from time ``s`` to a noisier ``t``: fresh noise."""
        return renoise(x_s, s, t, self.prior.schedule, self.noise_like)

    def estimate(self, x_t: Tensor, t: float) -> Tensor:
        """The estimate of the clean image that the sampler goes by."""
        return self.prior(x_t, t) if self.gradient else self.without_gradient(x_t, t)

    def constrain(self, x_s: Tensor, x_t: Tensor, x_hat: Tensor, t: float, s: float) -> Tensor:
        """The sampler's next state, corrected by the measurement."""
        return x_s

    def finish(self, x: Tensor) -> Tensor:
        """The result, from the last state."""
        return x

    def report(self) -> dict[str, Tensor]:
        """What callbacks are told of the step beside its state: names, and one number per picture, ``(B,)``."""
        return {}

    # ---------------------------------------------------------------- what they are written with

    def noise_like(self, x: Tensor) -> Tensor:
        """Fresh standard normal numbers, from the stream of each image."""
        return self.problem.randomness.normal_like(x)

    def without_gradient(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """``E[x_0 | x_t]`` as a number, at one time or a time for every image ``(B,)``."""
        with torch.inference_mode():
            x_hat = self.prior(x_t, t)
        return x_hat.clone()  # What is made in inference mode could not be used outside of it.

    def linear_operator(self) -> LinearOperator:
        """The operator, for methods that need a linear one."""
        assert isinstance(self.problem.operator, LinearOperator)  # solve() has refused all others
        return self.problem.operator

    def image_from_measurement(self) -> Tensor:
        """A picture made from ``y`` without the prior, ``(B, C, H, W)``.

        It is the linear estimate that minimises the expected squared error if pixels are independent and uniform
        over the prior's range: ``A^T (A A^T + s_y^2 / v)^{-1} y``, the pseudo-inverse where there is no noise.
        """
        low, high = self.prior.value_range
        operator, mean = self.linear_operator(), (low + high) / 2
        variance, noise = (high - low) ** 2 / 12, self.believed_noise()
        centre = torch.full(self.problem.shape, mean, device=self.problem.y.device)
        residual = self.problem.y - operator(centre)
        return centre + operator.ridge(residual, noise**2 / variance)

    def believed_noise(self) -> Tensor:
        """The noise level of ``y``, ``(B,)``, but at least a thousandth of the prior's range.

        That is what rounding to 8 bits leaves: what is divided by less is rounding, not picture.
        """
        low, high = self.prior.value_range
        return self.problem.noise.clamp(min=1e-3 * (high - low))

    def log_likelihood(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """``log p(y | x)`` of every image, up to a constant, ``(B,)``.

        For Gaussian noise ``-||y - A(x)||^2 / (2 s_y^2)``, where ``s_y`` is :meth:`believed_noise`: a measurement
        without noise has no density, and gets the floor. For photon noise, the probability of the counts.

        Args:
            x: Images, ``(B, C, H, W)``; differentiable in them.
            y: A measurement in place of the problem's own.
        """
        problem = self.problem
        if problem.poisson is None:
            return -((self.residual_norm(x, y) / self.believed_noise()) ** 2) / 2
        assert problem.operator is not None
        y = problem.y if y is None else y
        return problem.poisson.log_likelihood(y / problem.scale, problem.operator(x) / problem.scale)

    def uphill(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The gradient of :meth:`log_likelihood` in ``x``, in its shape."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.log_likelihood(leaf, y).sum(), leaf)
        return gradient

    def residual_norm(self, x_hat: Tensor, y: Tensor | None = None) -> Tensor:
        """``||y - A(x_hat)||_2`` of every image by itself, ``(B,)``."""
        assert self.problem.operator is not None
        residual = (self.problem.y if y is None else y) - self.problem.operator(x_hat)
        return torch.linalg.vector_norm(residual.flatten(1), dim=1)
