import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import OneStream, Scripted, draw, exact_moments, problem_for, smooth_prior

from restore.methods.base import Method
from restore.samplers import DDIM, DDPM, Sampler, as_sampler, renoise
from restore.schedule import Schedule

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
    expected_mean, expected_covariance = textbook_moments(prior, sampler.eta, steps)
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


# ------------------------------------------------------------------------------ names


def test_samplers_by_name():
    assert as_sampler("ddpm") == DDPM()
    assert as_sampler("DDIM") == DDIM(0.0)
    own = DDIM(0.85)
    assert as_sampler(own) is own
    assert DDPM().eta == 1.0
    with pytest.raises(ValueError, match="unknown sampler 'euler'; known are ddpm, ddim"):
        as_sampler("euler")
    with pytest.raises(TypeError, match="a sampler is a name or a Sampler, not a int"):
        as_sampler(3)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_an_eta_that_is_no_share_is_refused(eta):
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
        DDIM(eta)
