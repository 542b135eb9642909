import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import OneStream, PixelPrior, Scripted, draw, exact_moments, problem_for, smooth_prior

from restore.methods.base import Method
from restore.randomness import Randomness
from restore.samplers import DDIM, DDPM, DPMSolver, Sampler, as_sampler, renoise
from restore.schedule import Schedule
from restore.solve import sampling_loop

BETAS = np.linspace(1e-4, 0.02, 1000)
ALPHA_BAR = np.cumprod(1 - BETAS)


def nothing(x):
    raise AssertionError("drew fresh noise")


def ones(x):
    return torch.ones_like(x)


def column(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


# ------------------------------------------------------------------------------ one step


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 999), st.floats(-2, 2), st.floats(-1, 1))
def test_ddpm_is_the_textbook_posterior_written_with_betas(step, x_t, x_0):
    """Ho et al., equation 7: mean and variance of q(x_{t-1} | x_t, x_0)."""
    beta, bar, before = BETAS[step], ALPHA_BAR[step], ALPHA_BAR[step - 1]
    mean = math.sqrt(before) * beta / (1 - bar) * x_0 + math.sqrt(1 - beta) * (1 - before) / (1 - bar) * x_t
    variance = (1 - before) / (1 - bar) * beta
    schedule = Schedule.linear()
    move = (column(x_t), column(x_0), (step + 1) / 1000, step / 1000, schedule)
    centre = float(DDPM().step(*move, torch.zeros_like))
    assert centre == pytest.approx(mean, abs=1e-9)
    assert float(DDPM().step(*move, ones)) - centre == pytest.approx(math.sqrt(variance), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 1000), st.floats(0, 1), st.floats(0.1, 0.99))
def test_ddim_is_the_formula_of_its_paper(step, eta, share):
    """Song et al., equations 12 and 16, for any pair of steps."""
    later, earlier = step, max(1, int(step * share))
    bar, before = ALPHA_BAR[later - 1], ALPHA_BAR[earlier - 1]
    x_t, x_0 = 0.83, -0.31
    c = eta * math.sqrt((1 - before) / (1 - bar)) * math.sqrt(1 - bar / before)
    noise = (x_t - math.sqrt(bar) * x_0) / math.sqrt(1 - bar)
    expected = math.sqrt(before) * x_0 + math.sqrt(1 - before - c**2) * noise
    move = (column(x_t), column(x_0), later / 1000, earlier / 1000, Schedule.linear())
    centre = float(DDIM(eta).step(*move, torch.zeros_like))
    assert centre == pytest.approx(expected, abs=1e-9)
    assert float(DDIM(eta).step(*move, ones)) - centre == pytest.approx(c, abs=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_marginal_is_kept_if_the_estimate_is_the_truth(eta):
    """If x_hat = x_0, then x_s = alpha_s x_0 + noise of variance sigma_s^2, whatever eta."""
    schedule = Schedule.linear()
    for t, s in ((1.0, 0.8), (0.5, 0.49), (0.3, 0.001)):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        x_0 = column(0.7, 0.7)
        x_t = alpha_t * x_0 + sigma_t * column(0.0, 1.0)
        out = DDIM(eta).step(x_t, x_0, t, s, schedule, torch.zeros_like).flatten()
        fresh = DDIM(eta).step(x_t, x_0, t, s, schedule, ones).flatten()[0] - out[0]
        assert float(out[0]) == pytest.approx(alpha_s * 0.7, abs=1e-9)
        assert float((out[1] - out[0]) ** 2 + fresh**2) == pytest.approx(sigma_s**2, rel=1e-9)


def test_without_eta_nothing_is_left_to_chance():
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    out = DDIM().step(x, 0.5 * x, 0.5, 0.4, Schedule.linear(), nothing)
    assert torch.equal(out, DDIM(0.0).step(x, 0.5 * x, 0.5, 0.4, Schedule.linear(), nothing))


@pytest.mark.parametrize("sampler", [DDPM(), DDIM(), DDIM(0.7)])
def test_the_last_step_is_the_estimate(sampler):
    x_hat = torch.rand(1, 3, 2, 2)
    assert torch.equal(
        sampler.step(torch.randn(1, 3, 2, 2), x_hat, 0.01, 0.0, Schedule.linear(), nothing), x_hat
    )


@pytest.mark.parametrize("schedule", [Schedule.linear(), Schedule.cosine(), Schedule.flow()], ids=repr)
def test_going_up_gives_the_marginal_of_the_later_time(schedule):
    for s, t in ((0.0, 0.4), (0.2, 0.21), (0.3, 0.9)):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        x_s = alpha_s * 0.6 + sigma_s * column(0.0, 1.0)
        out = renoise(x_s, s, t, schedule, torch.zeros_like).flatten()
        fresh = renoise(x_s, s, t, schedule, ones).flatten()[0] - out[0]
        assert float(out[0]) == pytest.approx(alpha_t * 0.6, abs=1e-9)
        assert float((out[1] - out[0]) ** 2 + fresh**2) == pytest.approx(sigma_t**2, rel=1e-9)


def test_going_up_one_trained_step_adds_its_beta():
    k = 400
    move = (column(0.5), k / 1000, (k + 1) / 1000, Schedule.linear())
    centre = float(renoise(*move, torch.zeros_like))
    assert centre == pytest.approx(math.sqrt(1 - BETAS[k]) * 0.5, rel=1e-9)
    assert float(renoise(*move, ones)) - centre == pytest.approx(math.sqrt(BETAS[k]), rel=1e-6)


# ------------------------------------------------------------------------------ whole runs, exactly


class WithoutMeasurement(Method):
    """The base method, in float64."""


def moments(sampler: Sampler, steps: int, size=(2, 2)):
    """Exact mean and covariance of the sampler's result, from the matrices of its own steps."""
    prior = smooth_prior(size)
    n = size[0] * size[1]
    problem = problem_for(torch.zeros(1, 1, 1), None, n + 1, (1, *size), randomness=Scripted(n + 1))
    run = WithoutMeasurement().bind(prior, problem, sampler, steps)
    sigma = prior.schedule(run.times()[0])[1]
    return prior, *exact_moments(run, n, torch.zeros(n), sigma**2 * torch.eye(n))


def textbook_moments(prior, eta, steps):
    """The same by hand, in the prior's eigenbasis, from the betas."""
    variances, vectors = torch.linalg.eigh(prior.distribution.covariance)
    centre = prior.distribution.mean.flatten() @ vectors
    bars = [1.0, *ALPHA_BAR[np.rint(np.linspace(0, 1, steps + 1) * 1000).astype(int)[1:] - 1]]
    mean, variance = torch.zeros_like(centre), (1 - bars[-1]) * torch.ones_like(centre)
    for bar, before in zip(bars[:0:-1], bars[-2::-1], strict=True):
        gain = math.sqrt(bar) * variances / (bar * variances + 1 - bar)
        c2 = eta**2 * (1 - before) / (1 - bar) * (1 - bar / before)
        kept = math.sqrt(max(0.0, 1 - before - c2) / (1 - bar))
        # x_s = sqrt(before) x_hat + kept (x_t - sqrt(bar) x_hat) + c z
        weight = math.sqrt(before) - kept * math.sqrt(bar)
        mean = kept * mean + weight * (centre + gain * (mean - math.sqrt(bar) * centre))
        variance = (kept + weight * gain) ** 2 * variance + c2
    return vectors @ mean, vectors @ torch.diag(variance) @ vectors.T


@pytest.mark.parametrize("steps", [1, 5, 40])
@pytest.mark.parametrize("sampler", [DDPM(), DDIM(0.0), DDIM(0.5)], ids=repr)
def test_a_run_has_the_moments_that_the_textbook_gives(sampler, steps):
    prior, mean, covariance = moments(sampler, steps)
    expected_mean, expected_covariance = textbook_moments(prior, getattr(sampler, "eta", 1.0), steps)
    torch.testing.assert_close(mean, expected_mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(covariance, expected_covariance, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampler", [DDPM(), DDIM(0.0), DDIM(0.5)], ids=repr)
def test_with_more_steps_a_run_comes_to_the_prior(sampler):
    errors = []
    for steps in (10, 100, 1000):
        prior, mean, covariance = moments(sampler, steps)
        scale = prior.distribution.covariance.abs().max()
        errors.append(float((covariance - prior.distribution.covariance).abs().max() / scale))
        mean_error = float((mean - prior.distribution.mean.flatten()).abs().max() / scale.sqrt())
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 4
    assert errors[2] < 0.04
    assert mean_error < 0.01


def test_ddpm_with_few_steps_has_too_little_variance():
    """Known of the smaller variance of the two: what makes 10-step ancestral pictures smooth."""
    prior, _, covariance = moments(DDPM(), 10)
    assert bool((covariance.diagonal() < prior.distribution.covariance.diagonal()).all())


@pytest.mark.parametrize("sampler", [DDPM(), DDIM(0.0), DDIM(0.6)], ids=repr)
def test_many_draws_have_the_exact_moments(sampler):
    """Monte Carlo through the real loop, with real noise."""
    prior, mean, covariance = moments(sampler, 25)
    count = 40_000
    drawn = draw(Method(), prior, torch.zeros(1, 1, 1), None, count, (1, 2, 2), steps=25, sampler=sampler)
    flat = drawn.double().flatten(1)
    deviation = covariance.diagonal().sqrt()
    assert float(((flat.mean(0) - mean) / deviation).abs().max()) < 4.5 / count**0.5
    limit = 4.5 * deviation[:, None] * deviation * (2 / count) ** 0.5
    assert bool(((flat.T.cov() - covariance).abs() < limit).all())


def test_a_step_draws_fresh_noise_once():
    stream = OneStream(3)
    calls = []

    def noise(x):
        calls.append(x.shape)
        return stream.normal_like(x)

    DDPM().step(torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2), 0.5, 0.4, Schedule.linear(), noise)
    assert len(calls) == 1


# ------------------------------------------------------------------------------ DPM-Solver++


class LogTimes(Method):
    """The base method at levels that are even in their logarithm."""

    def times(self):
        return self.prior.schedule.times(self.steps, spacing="log")


class Impulses(Randomness):
    """Picture 0 gets no noise; picture ``k + 1`` a one, in draw ``k`` alone: what it does is the draw's coefficient."""

    def __init__(self, count):
        super().__init__([])
        self.count, self.drawn = count, 0

    def normal(self, shape):
        values = torch.zeros(self.count, *shape, dtype=torch.float64)
        values[self.drawn + 1] = 1.0
        self.drawn += 1
        return values


def pixel_moments(sampler, steps, prior):
    """Exact mean and variance of a pixel's result: a run is affine in all its noise, whatever the sampler remembers."""
    count = steps + 2
    problem = problem_for(torch.zeros(1, 1, 1), None, count, (1, 1, 1), randomness=Impulses(count))
    run = LogTimes().bind(prior, problem, sampler, steps)
    result = sampling_loop(run, lambda: None, lambda *_: None).flatten()
    coefficients = result[1:] - result[0]
    return float(result[0]), float(coefficients.square().sum())


@pytest.mark.parametrize("deviation", [0.25, 0.05])
@pytest.mark.parametrize(
    ("eta", "steps", "within"), [(0.0, 20, 0.03), (1.0, 20, 0.07), (1.0, 40, 0.03)], ids=repr
)
def test_few_steps_of_dpm_solver_have_the_variance_of_the_prior(eta, steps, within, deviation):
    prior = PixelPrior(mean=0.4, deviation=deviation)
    mean, variance = pixel_moments(DPMSolver(eta), steps, prior)
    # The last step adds no noise: that of the last level, which is all that is left to a pixel then, is missing.
    alpha, sigma = prior.schedule(0.001)
    left = alpha**2 * prior.variance / (alpha**2 * prior.variance + sigma**2)
    assert variance == pytest.approx(left * deviation**2, rel=within)
    assert mean == pytest.approx(0.4, abs=0.03 * deviation)
    # What ancestral steps at the same levels do not have.
    _, ancestral = pixel_moments(DDPM(), steps, prior)
    assert ancestral < 0.8 * deviation**2


def ode_error(sampler, steps, start=0.9, end=0.05):
    """Distance to the probability-flow ODE of a Gaussian, whose deviation from the mean is scaled like its spread."""
    prior = PixelPrior()
    schedule, x = prior.schedule, column(-1.3)

    def spread(t):
        alpha, sigma = schedule(t)
        return math.sqrt(alpha**2 * prior.variance + sigma**2)

    first, last = (sigma / alpha for alpha, sigma in map(schedule, (start, end)))
    times = [schedule.time_of(level) for level in np.geomspace(first, last, steps + 1)]
    exact = schedule(times[-1])[0] * prior.mean + spread(times[-1]) / spread(times[0]) * (
        -1.3 - schedule(times[0])[0] * prior.mean
    )
    solver = sampler.fresh()
    for t, s in itertools.pairwise(times):
        x = solver.step(x, prior(x, t), t, s, schedule, nothing)
    return abs(float(x) - exact)


def test_dpm_solver_is_of_second_order_and_ddim_of_first():
    """Twice the steps: a quarter of the error, and half of it."""
    for steps in (160, 320):
        assert ode_error(DPMSolver(), steps) / ode_error(DPMSolver(), 2 * steps) == pytest.approx(4, rel=0.06)
        assert ode_error(DDIM(), steps) / ode_error(DDIM(), 2 * steps) == pytest.approx(2, rel=0.02)
    assert ode_error(DPMSolver(), 40) < ode_error(DDIM(), 40) / 10


def test_the_second_step_of_dpm_solver_written_out():
    schedule, (r, t, s) = Schedule.linear(), (0.7, 0.5, 0.3)
    for eta in (0.0, 0.4, 1.0):
        solver, x_t, before, x_hat = DPMSolver(eta), column(0.83), column(0.2), column(-0.31)
        solver.kernel(column(1.1), before, r, t, schedule)
        l_r, l_t, l_s = (math.log(a / g) for a, g in map(schedule, (r, t, s)))
        (a_s, g_s), g_t, h = schedule(s), schedule(t)[1], l_s - l_t
        line = -0.31 + h / (2 * (l_t - l_r)) * (-0.31 - 0.2)
        mean = g_s / g_t * math.exp(-eta * h) * 0.83 + a_s * (1 - math.exp(-(1 + eta) * h)) * line
        got, std = solver.kernel(x_t, x_hat, t, s, schedule)
        assert float(got) == pytest.approx(mean, rel=1e-12)
        assert std == pytest.approx(g_s * math.sqrt(1 - math.exp(-2 * eta * h)), rel=1e-12)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_first_step_of_dpm_solver_is_of_first_order(eta):
    """Without a last step, or with one that ended elsewhere (after going up again), it is DDIM's."""
    schedule, x_t, x_hat = Schedule.linear(), column(0.83, -0.2), column(-0.31, 0.4)
    solver = DPMSolver(eta)
    for before in (None, (0.9, 0.7), (0.5, 0.3)):
        if before is not None:
            solver.kernel(x_t, 5 * x_hat, *before, schedule)
        mean, std = solver.kernel(x_t, x_hat, 0.5, 0.4, schedule)
        expected, expected_std = DDIM(eta).kernel(x_t, x_hat, 0.5, 0.4, schedule)
        torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-12)
        assert std == pytest.approx(expected_std, rel=1e-12)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_dpm_solver_ends_with_the_estimate_and_starts_from_pure_noise(eta):
    x_t, x_hat, flow = column(0.83), column(-0.31), Schedule.flow()
    solver = DPMSolver(eta)
    mean, std = solver.kernel(x_t, x_hat, 1.0, 0.8, flow)  # no logarithm of no signal
    assert (mean, std) == DDIM(eta).kernel(x_t, x_hat, 1.0, 0.8, flow)
    solver.kernel(x_t, 2 * x_hat, 0.8, 0.5, flow)
    assert torch.equal(solver.step(x_t, x_hat, 0.5, 0.0, flow, nothing), x_hat)


def test_a_run_of_dpm_solver_knows_nothing_of_the_last_one():
    sampler = DPMSolver()

    def result():
        return draw(
            Method(), smooth_prior((2, 2)), torch.zeros(1, 1, 1), None, 3, (1, 2, 2), steps=5, sampler=sampler
        )

    assert torch.equal(result(), result())
    sampler.kernel(column(0.8), column(0.3), 0.7, 0.5, Schedule.linear())
    fresh = sampler.fresh()
    assert fresh == sampler
    one, other = (
        s.kernel(column(0.8), column(0.1), 0.5, 0.4, Schedule.linear())[0] for s in (fresh, sampler)
    )
    assert not torch.equal(one, other)
    assert torch.equal(one, DPMSolver().kernel(column(0.8), column(0.1), 0.5, 0.4, Schedule.linear())[0])


def test_the_memory_of_dpm_solver_follows_the_states():
    schedule, order = Schedule.linear(), torch.tensor([2, 2, 0])
    x_t, before, x_hat = torch.randn(3, 3, 1, 2, 2).unbind()
    straight, moved = DPMSolver(1.0), DPMSolver(1.0)
    straight.kernel(x_t, before[order], 0.7, 0.5, schedule)
    moved.kernel(x_t, before, 0.7, 0.5, schedule)
    moved.reorder(order)
    expected = straight.kernel(x_t, x_hat, 0.5, 0.4, schedule)[0]
    assert torch.equal(moved.kernel(x_t, x_hat, 0.5, 0.4, schedule)[0], expected)
    DPMSolver().reorder(order)  # nothing remembered, nothing to move
    assert DDPM().reorder(order) is None


# ------------------------------------------------------------------------------ names


def test_samplers_by_name():
    assert as_sampler("ddpm") == DDPM()
    assert as_sampler("DDIM") == DDIM(0.0)
    assert as_sampler("DPM++") == DPMSolver(0.0)
    own = DDIM(0.85)
    assert as_sampler(own) is own
    with pytest.raises(ValueError, match="unknown sampler 'euler'; known are ddpm, ddim"):
        as_sampler("euler")
    with pytest.raises(TypeError, match="a sampler is a name or a Sampler, not a int"):
        as_sampler(3)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_an_eta_that_is_no_share_is_refused(eta):
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
        DDIM(eta)
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
        DPMSolver(eta)
