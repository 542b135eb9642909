"""Priors and networks whose answers are known, for the tests of the sampling core."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from operators import Operator
from restore.analytic import GaussianPrior, smooth_covariance
from restore.methods.base import Method, Problem
from restore.prior import BasePrior
from restore.randomness import Randomness
from restore.samplers import Sampler
from restore.schedule import Schedule, per_image
from restore.solve import sampling_loop


class PixelPrior(BasePrior):
    """Independent Gaussian pixels, in any value range; pixel by pixel, so that batches cannot matter.

    ``mean`` and ``deviation`` are in [0, 1]. It counts its calls and the pictures in each.
    """

    name = "pixels"

    def __init__(
        self,
        mean: float = 0.4,
        deviation: float = 0.25,
        value_range: tuple[float, float] = (0.0, 1.0),
        *,
        bounded: bool = False,
        channels: int | None = None,
        schedule: Schedule | None = None,
        broken_from: int | None = None,
    ) -> None:
        low, high = value_range
        self.value_range, self.bounded, self.channels = value_range, bounded, channels
        self.mean, self.variance = low + (high - low) * mean, ((high - low) * deviation) ** 2
        self.schedule = schedule or Schedule.linear()
        self.broken_from = broken_from
        self.batches: list[int] = []
        self.grad_modes: list[bool] = []

    @property
    def calls(self) -> int:
        return len(self.batches)

    def __call__(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        self.batches.append(len(x_t))
        self.grad_modes.append(torch.is_grad_enabled())
        if self.broken_from is not None and self.calls >= self.broken_from:
            return x_t * math.nan
        alpha, sigma = (per_image(v, x_t) for v in self.schedule(t))
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return self.mean + gain * (x_t - alpha * self.mean)


class GaussianNetwork(nn.Module):
    """The exact denoiser of a Gaussian, as a network that predicts any of the four quantities.

    It is given step numbers, as a trained network is: step ``k`` is time ``(k + 1) / T``; of a flow, ``k / T``.
    """

    def __init__(self, prior: GaussianPrior, prediction: str, learned_variance: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))  # So that there is a gradient to be frozen.
        self.exact, self.prediction, self.learned_variance = prior, prediction, learned_variance
        self.channels = prior.channels
        self.calls = 0

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        self.calls += 1
        schedule = self.exact.schedule
        time = (step.double() + 1 - schedule.first_step) / schedule.steps
        alpha, sigma = (per_image(v, x) for v in self.exact.schedule(time))
        x_hat = self.exact(x, time)
        noise = (x - alpha * x_hat) / sigma
        out = {
            "epsilon": noise,
            "sample": x_hat,
            "v_prediction": alpha * noise - sigma * x_hat,
            "flow_prediction": noise - x_hat,
        }[self.prediction]
        return (
            torch.cat([out, 1e3 * torch.ones_like(out)], dim=1) if self.learned_variance else self.scale * out
        )


class ProbeNetwork(nn.Module):
    """A small smooth network that writes down how it was called; ``diffusers``' interface, ``.sample`` included."""

    def __init__(self, channels: int = 3, multiple: int = 1, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv.weight.data = 0.2 * torch.randn(self.conv.weight.shape, generator=generator)
        self.conv.bias.data.zero_()
        self.channels, self.multiple = channels, multiple
        self.seen: list[SimpleNamespace] = []
        self.backwards = 0

    def forward(self, x: Tensor, step: Tensor, class_labels: Tensor | None = None) -> SimpleNamespace:
        assert x.shape[-1] % self.multiple == 0
        assert x.shape[-2] % self.multiple == 0
        self.seen.append(
            SimpleNamespace(
                shape=tuple(x.shape),
                step=step.clone(),
                labels=None if class_labels is None else class_labels.clone(),
                grad=torch.is_grad_enabled(),
                inference=torch.is_inference_mode_enabled(),
            )
        )
        out = torch.tanh(self.conv(x)) + 0.001 * step.reshape(-1, 1, 1, 1)
        if class_labels is not None:
            out = out + class_labels.reshape(-1, 1, 1, 1)
        if out.requires_grad:
            out.register_hook(self._count)
        return SimpleNamespace(sample=out)

    def _count(self, gradient: Tensor) -> None:
        self.backwards += 1


class OneStream(Randomness):
    """One generator for a whole batch: thousands of draws at once, for statistics."""

    def __init__(self, count: int, seed: int = 0) -> None:
        super().__init__([])
        self.count, self.generator = count, torch.Generator().manual_seed(seed)

    def normal(self, shape) -> Tensor:
        return torch.randn(self.count, *shape, generator=self.generator)


class Scripted(Randomness):
    """Noise that is zero but for one call, where one unit vector per picture is given: for exact propagation."""

    def __init__(self, count: int) -> None:
        super().__init__([])
        self.count, self.calls, self.hot = count, 0, -1

    def normal(self, shape) -> Tensor:
        value = 1.0 if self.calls == self.hot else 0.0
        self.calls += 1
        return torch.full((self.count, *shape), value, dtype=torch.float64)


def smooth_prior(size: tuple[int, int] = (4, 4), deviation: float = 0.2, mean: float = 0.5) -> GaussianPrior:
    return GaussianPrior(torch.full((1, *size), mean), smooth_covariance(size, 2.0, deviation))


def problem_for(
    y: Tensor,
    operator: Operator | None,
    count: int,
    shape: tuple[int, int, int],
    noise: float = 0.0,
    randomness: Randomness | None = None,
) -> Problem:
    """One measurement ``(C, H, W)``, ``count`` times."""
    return Problem(
        y.expand(count, *y.shape[-3:]).clone(),
        operator,
        torch.full((count,), noise),
        (count, *shape),
        OneStream(count) if randomness is None else randomness,
    )


def draw(
    method: Method,
    prior: BasePrior,
    y: Tensor,
    operator: Operator | None,
    count: int,
    shape: tuple[int, int, int],
    *,
    noise: float = 0.0,
    steps: int | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
) -> Tensor:
    """Many draws from one method, from one stream, in the prior's own range."""
    problem = problem_for(y.float(), operator, count, shape, noise, OneStream(count, seed))
    return sampling_loop(method.bind(prior, problem, sampler, steps), lambda: None, lambda *_: None)


def exact_moments(run: Method, n: int, start_mean: Tensor, start_covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance at the end of a run whose every step is affine in state and noise; no chance involved.

    The steps are the run's own: their matrices are read off by giving them unit vectors, and noise that is
    zero but for one of its draws.

    Args:
        run: A method bound to a problem of ``n + 1`` float64 pictures with :class:`Scripted` randomness.
        n: Number of pixels.
        start_mean: ``(n,)``, of the first state.
        start_covariance: ``(n, n)``.
    """
    random = run.problem.randomness
    shape = run.problem.shape
    probes = torch.cat([torch.zeros(1, n), torch.eye(n)]).double().reshape(shape)
    mean, covariance = start_mean.double(), start_covariance.double()
    times = list(run.times())
    known: dict[tuple[float, float], tuple[Tensor, Tensor, Tensor]] = {}
    with torch.no_grad():
        for t, s in itertools.pairwise(times):
            if (t, s) not in known:
                move = run.step if s < t else run.step_up
                random.calls, random.hot = 0, -1
                out = move(probes, t, s).flatten(1)
                matrix, offset, noises = (out[1:] - out[0]).T, out[0], random.calls
                added = torch.zeros(n, n, dtype=torch.float64)
                for hot in range(noises):
                    random.calls, random.hot = 0, hot
                    added += torch.diag((move(probes, t, s).flatten(1)[0] - offset) ** 2)
                known[t, s] = matrix, offset, added
            matrix, offset, added = known[t, s]
            mean = matrix @ mean + offset
            covariance = matrix @ covariance @ matrix.T + added
    return mean, covariance
