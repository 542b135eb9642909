"""MCG, RED-diff and DAPS, against formulae written out and posteriors known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import restore
from operators import JPEG, Blur, Downsample, FromCallable, Grayscale, Mask, gaussian_kernel
from restore.analytic import GaussianPrior, smooth_covariance
from restore.methods import DAPS, DPS, MCG, Problem, REDDiff
from restore.methods.daps import contraction, noise_level
from restore.randomness import Randomness
from restore.schedule import Schedule
from restore.solve import sampling_loop

SIZE = (6, 5)
MASK = Mask(torch.rand(SIZE, generator=torch.Generator().manual_seed(1)) < 0.5)
CASES = [
    pytest.param(operator, channels, id=type(operator).__name__)
    for operator, channels in [
        (MASK, 1),
        (Blur(gaussian_kernel(0.8, 3)), 1),
        (Blur(gaussian_kernel(0.8, 3), boundary="reflect"), 1),
        (Downsample(2, image_size=SIZE), 1),
        (Grayscale("mean"), 3),
    ]
]
METHODS = [MCG(), REDDiff(), DAPS()]


class Silent(Randomness):
    """No noise at all: what a step does on average, where it is linear in its noise."""

    def normal(self, shape):
        return torch.zeros(len(self), *shape)


def prior_of(channels=1, deviation=0.5, value_range=(0.0, 1.0), size=SIZE, schedule=None):
    covariance = torch.kron(torch.eye(channels).double(), smooth_covariance(size, 3.0, deviation))
    low, high = value_range
    prior = GaussianPrior(torch.full((channels, *size), low + 0.3 * (high - low)), covariance, schedule)
    prior.value_range = value_range
    return prior


def measured(prior, operator, noise, seed=3):
    y = operator(prior.distribution.sample(1, seed=seed).float())
    return y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))


def bound(method, prior, operator, y, noise, steps=None, randomness=None):
    count = len(y)
    shape = (count, *prior.distribution.mean.shape)
    problem = Problem(y, operator, torch.full((count,), noise), shape, randomness or Randomness(range(count)))
    return method.bind(prior, problem, None, steps)


def solve(y, operator, method, prior, **options):
    return restore.solve(y, operator, method, prior=prior, progress=False, **options)


# ------------------------------------------------------------------------------ all three


@pytest.mark.parametrize(
    ("method", "noise", "errors", "low", "high"),
    [
        # Errors (measured, missing) in prior deviations. MCG would count a noisy y twice, in its gradient and in its
        # replacement, if they did not share it. RED-diff is a point, and is tested below.
        (MCG(), 0.05, (0.03, 0.3), 0.7, 1.4),
        (MCG(zeta=0.0), 0.05, (0.04, 0.45), 0.7, 1.8),  # the replacement alone
        (DAPS(), 0.05, (0.03, 0.15), 0.75, 1.15),
        (DAPS(), 0.3, (0.15, 0.2), 0.75, 1.15),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_draws_come_near_the_exact_posterior(method, noise, errors, low, high):
    prior = prior_of()
    y = measured(prior, MASK, noise)[0]
    exact = prior.posterior(y, MASK, noise)
    draws = solve(y, MASK, method, prior, noise=noise, steps=100, samples=400, seed=0)
    kept = MASK.mask[0].bool()
    error, ratio = (draws.mean(0) - exact.mean).abs() / 0.5, draws.var(0) / exact.variance
    for part, limit in zip((kept, ~kept), errors, strict=True):
        assert float(error[part].square().mean().sqrt()) < limit
        assert low < float(ratio[part].mean()) < high


@pytest.mark.parametrize("method", [MCG(), DAPS()], ids=lambda m: m.name)
def test_a_measurement_that_is_nothing_but_noise_leaves_the_prior(method):
    prior, operator = prior_of(), Blur(gaussian_kernel(0.8, 3))
    y = 1e4 * torch.randn(400, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    draws = solve(y, operator, method, prior, noise=1e4, steps=60, seed=list(range(400)))
    assert float((draws.mean(0) - 0.3).abs().max()) < 0.15
    assert float((draws.var(0) / 0.25).mean()) == pytest.approx(1, abs=0.25)


def test_red_diff_finds_the_prior_where_y_is_nothing_but_noise():
    prior, operator = prior_of(), Blur(gaussian_kernel(0.8, 3))
    results = []
    for seed in (0, 1):
        y = 1e4 * torch.randn(1, 1, *SIZE, generator=torch.Generator().manual_seed(seed))
        run = bound(REDDiff(), prior, operator, y, 1e4, 500, Silent([0]))
        results.append(sampling_loop(run, lambda: None, lambda *_: None))
    torch.testing.assert_close(results[0], torch.full_like(results[0], 0.3), atol=0.01, rtol=0)
    torch.testing.assert_close(results[0], results[1], atol=1e-3, rtol=0)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize(("operator", "channels"), CASES)
def test_without_noise_the_result_agrees_with_the_measurement(method, operator, channels):
    prior = prior_of(channels)
    y = measured(prior, operator, 0.0)[0]
    x = solve(y, operator, method, prior, steps=50, seed=0)
    assert float((operator(x[None])[0] - y).abs().max()) < 1e-3


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_image_is_solved_by_itself(method):
    """Its own mask, its own noise level (none for one), its own seed: the same alone and in a batch."""
    prior = prior_of()
    masks = torch.rand(3, 1, *SIZE, generator=torch.Generator().manual_seed(2)) < 0.6
    operator, noise = Mask(masks), [0.0, 0.1, 0.4]
    y = operator(prior.distribution.sample(3, seed=1).float())
    together = solve(y, operator, method, prior, noise=noise, steps=12, seed=[5, 6, 7])
    for i in range(3):
        alone = solve(y[i], Mask(masks[i]), method, prior, noise=noise[i], steps=12, seed=5 + i)
        torch.testing.assert_close(together[i], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", [REDDiff(), DAPS()], ids=lambda m: m.name)
def test_per_image_noise_with_an_operator_that_is_not_linear(method):
    prior, operator, noise = prior_of(), FromCallable(torch.tanh), [0.02, 0.2]
    y = operator(prior.distribution.sample(2, seed=1).float())
    together = solve(y, operator, method, prior, noise=noise, steps=12, seed=[5, 6])
    for i in range(2):
        alone = solve(y[i], operator, method, prior, noise=noise[i], steps=12, seed=5 + i)
        torch.testing.assert_close(together[i], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", [REDDiff(), DAPS()], ids=lambda m: m.name)
def test_an_operator_that_is_not_linear_is_inverted(method):
    prior, operator = prior_of(), FromCallable(lambda x: x**3 + x)
    x_0 = prior.distribution.sample(1, seed=1).float()[0]
    x = solve(operator(x_0[None])[0], operator, method, prior, steps=100, seed=0)
    assert float((x - x_0).square().mean().sqrt()) < 0.02


@pytest.mark.parametrize(("method", "steps"), [(REDDiff(), 40), (DAPS(), 10)], ids=["red_diff", "daps"])
def test_jpeg_is_followed(method, steps):
    """What is found compresses to nearly the same pictures, which other pictures of the prior do not."""
    prior, operator = prior_of(deviation=0.15, size=(16, 16)), JPEG(10)
    x_0, other = prior.distribution.sample(8, seed=1).float().clamp(0, 1).split(4)
    y = operator.simulate(x_0)
    x = solve(y, operator, method, prior, noise=0.02, steps=steps, seed=0)
    misfit, without = ((operator(z) - y).square().mean().sqrt() for z in (x, other))
    assert float(misfit) < 0.6 * float(without)  # Measured: .51 for RED-diff, .12 for DAPS.


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("mcg", {"zeta": -1.0}, "zeta"),
        ("red_diff", {"lam": 0.0}, "lam and lr"),
        ("red_diff", {"lr": math.nan}, "lam and lr"),
        ("daps", {"ode_steps": 0}, "ode_steps"),
        ("daps", {"gradient_steps": 0}, "gradient_steps"),
        ("daps", {"sigma_min": 0.0}, "sigma_min"),
        ("daps", {"sigma_max": math.inf}, "sigma_max"),
        ("daps", {"sigma_max": 0.05}, "sigma_max"),
        ("daps", {"variance": 0.0}, "variance"),
    ],
)
def test_options_out_of_range_are_refused(method, options, words):
    with pytest.raises(ValueError, match=words):
        restore.methods.as_method(method, **options)


def test_mcg_refuses_an_operator_that_is_not_linear():
    with pytest.raises(ValueError, match="linear") as caught:
        solve(torch.zeros(1, *SIZE), FromCallable(torch.tanh), "mcg", prior_of())
    assert "red_diff" in str(caught.value)
    assert "daps" in str(caught.value)


# ------------------------------------------------------------------------------ MCG


@pytest.mark.parametrize(("operator", "channels"), CASES)
def test_mcg_without_noise_is_dps_and_then_the_replacement(operator, channels):
    prior = prior_of(channels)
    y, t, s = measured(prior, operator, 0.0), 0.5, 0.4
    x_t = torch.randn(1, channels, *SIZE, generator=torch.Generator().manual_seed(0))
    moved = bound(DPS(zeta=0.3), prior, operator, y, 0.0).step(x_t, t, s)
    got = bound(MCG(zeta=0.3), prior, operator, y, 0.0).step(x_t, t, s)
    alpha, sigma = prior.schedule(s)
    stream = Randomness([0])
    stream.normal((channels, *SIZE))  # the sampler's own
    z = stream.normal((channels, *SIZE))
    expected = moved + operator.pinv(alpha * y + sigma * operator(z) - operator(moved))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("s", [0.02, 0.3, 0.8])
@pytest.mark.parametrize(("operator", "channels"), CASES)
def test_the_noise_of_mcg_adds_up(operator, channels, s):
    """If the estimate is the truth, the next state is the truth diffused, in every pixel: variance sigma_s^2."""
    prior, noise, count, t = prior_of(channels), 0.1, 4000, s + 0.1
    x_0 = prior.distribution.sample(1, seed=3).float()
    generator = torch.Generator().manual_seed(5)
    y = operator(x_0.expand(count, -1, -1, -1))
    y = y + noise * torch.randn(y.shape, generator=generator)
    run = bound(MCG(zeta=0.0), prior, operator, y, noise)
    alpha_t, sigma_t = prior.schedule(t)
    alpha_s, sigma_s = prior.schedule(s)
    run.estimate = lambda x_t, t: x_0 + 0 * x_t
    x_s = run.step(alpha_t * x_0 + sigma_t * torch.randn(count, *x_0.shape[1:], generator=generator), t, s)
    deviation = (x_s - alpha_s * x_0) / sigma_s
    assert float(deviation.mean(0).abs().max()) < 0.07
    assert float(deviation.square().mean()) == pytest.approx(1, abs=0.02)
    assert float((deviation.square().mean(0) - 1).abs().max()) < 0.12


# ------------------------------------------------------------------------------ RED-diff


def in_units(scale):
    """The linear schedule for images in a range of another width: noise scaled as the images are."""
    table = [Schedule.linear()((i + 1) / 1000) for i in range(1000)]
    alphas, sigmas = np.array(table).T
    return Schedule(alphas, scale * sigmas, {"kind": "scaled"})


@pytest.mark.parametrize("size", [(6, 5), (12, 11)])
@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)])
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.5])
def test_the_fixed_point_of_red_diff_is_the_posterior_mean(noise, value_range, size):
    """Without chance, 1000 steps end on the exact mean, in any range, for any size of picture and any noise."""
    scale = value_range[1] - value_range[0]
    prior = prior_of(1, 0.2 * scale, value_range, size, in_units(scale / 2))
    operator = Blur(gaussian_kernel(0.8, 3))
    y = measured(prior, operator, noise * scale)
    exact = prior.posterior(y[0], operator, noise * scale)
    run = bound(REDDiff(), prior, operator, y, noise * scale, 1000, Silent([0]))
    mu = sampling_loop(run, lambda: None, lambda *_: None)[0]
    error = float((mu - exact.mean).square().mean().sqrt()) / (0.2 * scale)
    assert error < (0.01 if noise == 0.02 else 1e-3)


def test_red_diff_with_chance_is_nearer_to_the_mean_than_a_draw():
    prior, noise = prior_of(), 0.05
    y = measured(prior, MASK, noise)[0]
    exact = prior.posterior(y, MASK, noise)
    runs = solve(y, MASK, REDDiff(), prior, noise=noise, steps=1000, samples=20, seed=0)
    error = (runs - exact.mean).square().mean()
    assert float(error) < 0.5 * float(exact.variance.mean())
    assert float((runs.mean(0) - exact.mean).square().mean().sqrt()) < 0.1 * 0.5


def test_the_gradient_of_red_diff_is_the_papers_without_noise():
    """A^T (A mu - y) + lam (sigma / alpha) (e_hat - e), and Adam is torch's."""
    prior, t = prior_of(), 0.4
    y = measured(prior, MASK, 0.0)
    run = bound(REDDiff(), prior, MASK, y, 0.0)
    mu = run.start(1.0)
    reference = mu.clone().requires_grad_(True)
    adam = torch.optim.Adam([reference], lr=0.05, betas=(0.9, 0.99))  # 0.1 for [-1, 1] is 0.05 for [0, 1]
    alpha, sigma = prior.schedule(t)
    stream = Randomness([0])
    for _ in range(5):
        mu = run.step(mu, t, t - 0.1)
        e = stream.normal((1, *SIZE))
        with torch.no_grad():
            e_hat = prior.epsilon(alpha * reference + sigma * e, t)
            data = MASK.adjoint(MASK(reference) - y)
            reference.grad = data + 0.25 * sigma / alpha * (e_hat - e)
        adam.step()
    torch.testing.assert_close(mu, reference.detach(), atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------ DAPS


def test_a_level_of_daps_calls_the_network_ode_steps_times():
    calls = []
    prior = prior_of()

    class Counting(GaussianPrior):
        def __call__(self, x_t, t):
            calls.append(t)
            return super().__call__(x_t, t)

    counting = Counting(prior.distribution.mean, prior.distribution.covariance)
    method = DAPS(ode_steps=3)
    solve(torch.zeros(1, *SIZE), MASK, method, counting, steps=7, seed=0)
    assert len(calls) == 7 * method.calls_per_step == 21
    assert MCG().calls_per_step == REDDiff().calls_per_step == 1


@pytest.mark.parametrize("schedule", [Schedule.linear(), Schedule.cosine(), Schedule.flow()], ids=repr)
def test_the_levels_of_daps_fall_from_100_to_a_tenth(schedule):
    prior = prior_of(value_range=(-1.0, 1.0), schedule=schedule)
    run = bound(DAPS(), prior, MASK, torch.zeros(1, 1, *SIZE), 0.0, steps=20)
    times = run.times()
    levels = [noise_level(*schedule(t)) for t in times]
    roots = np.array(levels[:-1]) ** (1 / 7)
    assert len(times) == 21
    assert times[-1] == 0
    assert levels[0] == pytest.approx(min(100, noise_level(*schedule(1.0))), rel=1e-2)
    assert levels[-2] == pytest.approx(0.1, rel=1e-2)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots).mean(), rtol=0.05)


@pytest.mark.parametrize("ode_steps", [1, 2, 5])
def test_the_ode_of_daps_contracts_a_gaussian_as_promised(ode_steps):
    v, t = 0.3, 0.6
    prior = GaussianPrior(torch.zeros(1, 2, 2), v * torch.eye(4))
    run = bound(DAPS(ode_steps=ode_steps), prior, MASK, torch.zeros(1, 1, 2, 2), 0.0)
    times = run.descent(t, 0.01, ode_steps)
    x_t = torch.randn(1, 1, 2, 2)
    g = contraction([noise_level(*prior.schedule(time)) for time in times], v)
    torch.testing.assert_close(
        run.integrate(x_t, times), g * x_t / prior.schedule(t)[0], rtol=1e-4, atol=1e-5
    )


def test_daps_keeps_the_posterior_of_independent_pixels():
    """One level after another at one noise level: mean and variance stay the posterior's, to the ODE's accuracy."""
    v, noise, count, t = 0.25, 0.3, 20_000, 0.5
    prior = GaussianPrior(torch.zeros(1, 1, 1), v * torch.eye(1))
    alpha, sigma = prior.schedule(t)
    exact_mean, exact_variance = 0.8 * v / (v + noise**2), v * noise**2 / (v + noise**2)
    generator = torch.Generator().manual_seed(0)
    x = exact_mean + exact_variance**0.5 * torch.randn(count, 1, 1, 1, generator=generator)

    class Many(Randomness):
        def normal(self, shape):
            return torch.randn(count, *shape, generator=generator)

    y = torch.full((count, 1, 1, 1), 0.8)
    operator = Mask(torch.ones(1, 1))
    run = bound(DAPS(ode_steps=40, variance=v), prior, operator, y, noise, randomness=Many([]))
    for _ in range(10):
        x = run.step(alpha * x + sigma * run.noise_like(x), t, 0.0)
    assert float(x.mean()) == pytest.approx(exact_mean, abs=0.01)
    assert float(x.var()) == pytest.approx(exact_variance, rel=0.05)


def test_steps_down_the_gradient_find_the_proximal_step():
    """For a linear operator in disguise: the same draw as the closed form, if it is given steps enough."""
    prior, operator = prior_of(), Blur(gaussian_kernel(0.8, 3))
    y, q = measured(prior, operator, 0.2), 0.3
    x_hat = prior.distribution.sample(1, seed=8).float()
    disguised = FromCallable(operator)
    draws = [bound(DAPS(gradient_steps=200), prior, o, y, 0.2).draw(x_hat, q) for o in (operator, disguised)]
    torch.testing.assert_close(draws[0], draws[1], atol=1e-3, rtol=0)
    curvature = bound(DAPS(), prior, disguised, y, 0.2).curvature(x_hat, q)
    assert 0.6 / 0.2**2 < float(curvature) <= 1.001 / 0.2**2  # of a blur, whose norm is 1
