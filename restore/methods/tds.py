"""TDS: *Practical and Asymptotically Exact Conditional Sampling in Diffusion Models*, 2023, arXiv:2306.17775."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from restore.memory import states_at_once
from restore.methods.base import Method, Problem, Self
from restore.methods.guided import Guided, inner
from restore.prior import BasePrior
from restore.quality import QualityWarning
from restore.samplers import DDPM, DPMSolver, Sampler

#: Below this effective sample size, one particle has nearly all the weight.
ALONE = 1.5


@dataclass(kw_only=True)
class TDS(Method):
    """Twisted diffusion sampler: particles that a guided method proposes, and that are weighted for its error.

    A guided method's approximation of ``p(y | x_t)``, the *twist*, gives a corrected estimate and thus a proposal
    ``q(x_s | x_t, y)`` beside the prior's own step ``p(x_s | x_t)``. The weight of a particle,

    ``w_s = w_t  p(x_s | x_t) twist(x_s) / (q(x_s | x_t, y) twist(x_t))``,

    makes up for the difference. Where the effective sample size ``(sum w)^2 / sum w^2`` of a picture falls below a
    share of its particles, they are resampled (systematically). The result is one particle, drawn by its weight. In
    the limit of many particles and steps it is an exact draw from the posterior, whatever the twist.

    Every picture, and every draw of ``samples=n``, has particles of its own: a run costs ``particles`` times what its
    twist costs. The network sees as many of them at once as fit into memory; results do not depend on it. On
    photographs, where likelihoods of hundreds of thousands of numbers are compared, one particle takes all the weight
    after a few steps; a :class:`~restore.quality.QualityWarning` tells of it. It is for measurements of few numbers.

    Args:
        particles: Particles per draw.
        twist: A guided method, by name (``"mmps"``, ``"pigdm"``, ``"tmpd"``, ``"dps"``) or as an instance.
        threshold: Share of the particles that the effective sample size must not fall below.

    Raises:
        TypeError: If the twist is no guided method.
        ValueError: If there are no particles, the threshold is outside [0, 1], or (at the start of a run) the sampler
            adds no noise.

    Example:
        >>> TDS(particles=4).twist
        MMPS(clip=True, iterations=None, tolerance=0.01)
    """

    name: ClassVar[str] = "tds"
    reference: ClassVar[str] = (
        "Practical and Asymptotically Exact Conditional Sampling in Diffusion Models, 2023, arXiv:2306.17775"
    )
    needs: ClassVar[tuple[str, ...]] = ("linear",)
    gradient: ClassVar[bool] = True
    default_steps: ClassVar[int] = 100
    default_sampler: ClassVar[Sampler] = DPMSolver(eta=1.0)

    particles: int = 64
    twist: str | Guided = "mmps"
    threshold: float = 0.5

    _proposal: Sampler = field(init=False, repr=False, compare=False)
    _log_weight: Tensor = field(init=False, repr=False, compare=False)
    _ess: Tensor = field(init=False, repr=False, compare=False)
    _alone: Tensor = field(init=False, repr=False, compare=False)
    _chunks: list[tuple[Tensor, Guided]] = field(init=False, repr=False, compare=False)
    _said: set[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from restore.methods import as_method

        twist = as_method(self.twist)
        # A twist is an approximation of p(y | x_t): what replaces states, takes steps of a chosen size, or knows
        # earlier states is none.
        options = (getattr(twist, "zeta", None) is not None, getattr(twist, "quasi_newton", None))
        if not isinstance(twist, Guided) or twist.name == "mcg" or any(options):
            raise TypeError(
                f"a twist is a guided method (mmps, pigdm, tmpd, or dps without zeta and quasi_newton), "
                f"not {self.twist!r}"
            )
        if self.particles != int(self.particles) or self.particles < 1 or not 0 <= self.threshold <= 1:
            raise ValueError(
                f"particles must be a whole number of at least 1 and threshold in [0, 1], "
                f"not {self.particles} and {self.threshold}"
            )
        self.twist, self.particles = twist, int(self.particles)
        self._said = set()  # Copies that are bound to a run share it: a warning is given once.

    @property
    def states_per_draw(self) -> int:
        """The particles."""
        return self.particles

    @property
    def guide(self) -> Guided:
        """The twist, as a method."""
        assert isinstance(self.twist, Guided)
        return self.twist

    def bind(
        self: Self, prior: BasePrior, problem: Problem, sampler: Sampler | None, steps: int | None
    ) -> Self:
        """A copy that is ready to run, with the twist bound to the same problem."""
        if isinstance(sampler, DDPM) and sampler.variance == "learned":
            raise ValueError(
                f"tds weighs draws by densities of one deviation for all their numbers: take DDPM(variance='small') "
                f"or DDPM(), which is the same here, not {sampler}"
            )
        if isinstance(sampler, DDPM) and sampler.variance is None:
            sampler = replace(sampler, variance="small")
        run = super().bind(prior, problem, sampler, steps)
        assert isinstance(run, TDS)
        run.twist = run.guide.bind(prior, problem, sampler, run.steps)
        (t, s, *_), zero = run.times(), torch.zeros(())
        if s > 0 and run.sampler.fresh().kernel(zero, zero, t, s, prior.schedule)[1] == 0:
            raise ValueError(
                f"tds weighs draws by their densities: its sampler needs fresh noise, such as DPMSolver(eta=1.0) or "
                f"DDPM(), not {run.sampler}"
            )
        # The solver remembers estimates: the prior's and the proposal's are two histories.
        run._proposal = run.sampler.fresh()
        pictures = problem.shape[0] // run.particles
        run._log_weight = torch.zeros(pictures, run.particles, device=problem.y.device)
        run._ess = torch.full((pictures,), float(run.particles), device=problem.y.device)
        run._alone = torch.zeros(pictures, device=problem.y.device)
        height, width = problem.shape[-2:]
        at_once = states_at_once(height * width, problem.y.device, gradient=True, light=prior.light)
        run._chunks = [
            (
                index,
                run.guide.bind(
                    prior.select(index), problem.select(index, problem.randomness), sampler, steps
                ),
            )
            for index in torch.arange(problem.shape[0], device=problem.y.device).split(at_once)
        ]
        return run

    def times(self) -> Sequence[float]:
        """The twist's."""
        return self.guide.times()

    def step(self, x_t: Tensor, t: float, s: float) -> Tensor:
        """Weigh by the twist, resample, propose."""
        x_hat, corrected, log_twist = self._twisted(x_t, t)
        self._log_weight = self._log_weight + log_twist
        order = self._resampled()
        if order is not None:
            x_t, x_hat, corrected = x_t[order], x_hat[order], corrected[order]
            log_twist = log_twist.flatten()[order].reshape(log_twist.shape)
            self.sampler.reorder(order)
            self._proposal.reorder(order)

        self.x_hat = corrected
        mean, _ = self.sampler.kernel(x_t, x_hat, t, s, self.prior.schedule)
        proposed, std = self._proposal.kernel(x_t, corrected, t, s, self.prior.schedule)
        if not isinstance(std, Tensor) and std == 0:  # The last step, to the estimate.
            return proposed
        z = self.noise_like(x_t)
        shift = (proposed - mean) / std
        # log p(x_s | x_t) - log q(x_s | x_t, y); and the twist of x_t gives way to that of x_s, which is yet to come.
        change = -inner(z, shift) - 0.5 * inner(shift, shift)
        self._log_weight = self._log_weight + change.reshape(log_twist.shape) - log_twist
        return proposed + std * z

    def _twisted(self, x_t: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """The prior's estimate, the twist's, and ``log p(y | x_t)`` as the twist has it, ``(pictures, particles)``."""
        found = [_twisted(guide, x_t[index], t) for index, guide in self._chunks]
        x_hat, corrected, log_twist = (torch.cat(parts) for parts in zip(*found, strict=True))
        return x_hat, corrected, log_twist.reshape(self._log_weight.shape)

    def _resampled(self) -> Tensor | None:
        """Which state each state is to be replaced by, ``(B,)``; None where no picture needs it."""
        uniform = self._uniform()  # Always drawn: what one picture draws must not hang on its neighbours.
        self._ess = 1 / torch.softmax(self._log_weight, dim=1).square().sum(1)
        self._alone += self._ess < ALONE
        poor = self._ess < self.threshold * self.particles
        if not bool(poor.any()):
            return None
        same = torch.arange(self.particles, device=poor.device).expand_as(self._log_weight)
        chosen = torch.where(poor[:, None], self._systematic(uniform, self.particles), same)
        self._log_weight = torch.where(poor[:, None], 0, self._log_weight)
        first = self.particles * torch.arange(len(poor), device=poor.device)
        return (first[:, None] + chosen).flatten()

    def _systematic(self, uniform: Tensor, count: int) -> Tensor:
        """``count`` particles of every picture: equidistant points in the cumulated weights, ``(pictures, count)``."""
        points = (torch.arange(count, device=uniform.device) + uniform[:, None]) / count
        cumulated = torch.softmax(self._log_weight.double(), dim=1).cumsum(1)
        return torch.searchsorted(cumulated, points.double()).clamp(max=self.particles - 1)

    def _uniform(self) -> Tensor:
        """One number in (0, 1) per picture, from its stream."""
        normal = self.problem.randomness.normal((1,)).reshape(self._log_weight.shape)
        return torch.special.ndtr(normal[:, 0])

    def finish(self, x: Tensor) -> Tensor:
        """One particle of every picture, drawn by its weight; and a warning, if there was mostly one to draw from."""
        steps = len(self.times()) - 1
        if self.particles > 1 and bool((self._alone > steps / 2).any()) and "alone" not in self._said:
            self._said.add("alone")
            warnings.warn(
                f"in {int(self._alone.max())} of {steps} steps one of the {self.particles} particles of a draw had "
                f"nearly all the weight (an effective sample size below {ALONE}): the others were for nothing, and the "
                f"draw is hardly better than the twist's own. That is so where many numbers are measured, or few very "
                f"precisely. method={self.guide.name!r} makes such draws at a {self.particles}th of the cost; more "
                f"steps or many more particles may raise the size",
                QualityWarning,
                stacklevel=5,
            )
        chosen = self._systematic(self._uniform(), 1)[:, 0]
        rows = self.particles * torch.arange(len(chosen), device=x.device) + chosen
        return x[rows]

    def report(self) -> dict[str, Tensor]:
        """The effective sample size of every picture before it was resampled, from 1 to the number of particles."""
        return {"effective_sample_size": self._ess}


def _twisted(guide: Guided, x_t: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """The prior's estimate, the twist's, and ``log p(y | x_t)`` ``(B,)``, of states that are worked on at once."""
    x_t = x_t.detach().requires_grad_(True)
    with torch.enable_grad():
        x_hat = guide.prior(x_t, t)
        x_hat = guide.prior.clip(x_hat) if guide.clip else x_hat
    if guide.prior.schedule(t)[0] == 0:  # Of noise alone no state is better than another.
        return x_hat.detach(), x_hat.detach(), x_hat.new_zeros(len(x_hat))
    view = guide.view(x_t, x_hat, t, keep=True)
    with torch.no_grad():
        log_twist = guide.log_density(view)
        return x_hat.detach(), guide.correct(view), log_twist
