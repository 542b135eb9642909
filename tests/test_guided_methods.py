"""PiGDM, DDNM, DDRM and DiffPIR, against formulae written out densely and posteriors known in closed form."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import restore
from operators import Blur, Downsample, Grayscale, Identity, LinearOperator, Mask, gaussian_kernel
from restore.analytic import GaussianPrior, operator_matrix, smooth_covariance
from restore.methods import DDNM, DDRM, DPS, MMPS, TMPD, DiffPIR, PiGDM, Problem
from restore.randomness import Randomness

SIZE = (6, 5)


def prior_of(channels: int = 1, deviation: float = 0.5) -> GaussianPrior:
    covariance = smooth_covariance(SIZE, length=3.0, deviation=deviation)
    return GaussianPrior(
        torch.full((channels, *SIZE), 0.3), torch.kron(torch.eye(channels).double(), covariance)
    )


def operators() -> list[tuple[LinearOperator, int]]:
    mask = torch.rand(SIZE, generator=torch.Generator().manual_seed(1)) < 0.5
    return [
        (Mask(mask), 1),
        (Blur(gaussian_kernel(0.8, 3)), 1),
        (Downsample(2, image_size=SIZE), 1),
        (Grayscale("mean"), 3),
    ]


CASES = [pytest.param(o, c, id=type(o).__name__) for o, c in operators()]


def bound(method, prior, operator, y, noise, count=1, seed=0):
    shape = (count, *prior.distribution.mean.shape)
    std = torch.full((count,), noise)
    problem = Problem(
        y.expand(count, *y.shape[1:]), operator, std, shape, Randomness(range(seed, seed + count))
    )
    return method.bind(prior, problem, None, None)


def measured(prior, operator, noise, seed=3):
    x_0 = prior.distribution.sample(1, seed=seed).float()
    y = operator(x_0)
    return y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("operator", "channels"), CASES)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_pigdm_is_exact_for_independent_pixels(operator, channels, noise):
    """Under N(mu, v I), whose v the prior knows, PiGDM's approximation is the truth: E[x_0 | x_t, y]."""
    v, mu, n = 0.3, 0.2, channels * SIZE[0] * SIZE[1]
    prior = GaussianPrior(torch.full((channels, *SIZE), mu), v * torch.eye(n))
    y = measured(prior, operator, noise)
    run = bound(PiGDM(), prior, operator, y, noise)
    t = 0.4
    alpha, sigma = prior.schedule(t)
    x_t = torch.randn(1, channels, *SIZE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    estimate = run.estimate(x_t, t)

    # Both x_t and y are linear measurements of x_0 with Gaussian noise: condition on the two at once.
    a = operator_matrix(operator, (channels, *SIZE))
    both = torch.cat([alpha * torch.eye(n).double(), a])
    noises = torch.cat([torch.full((n,), sigma**2).double(), torch.full((len(a),), noise**2).double()])
    gain = v * both.T @ torch.linalg.pinv(v * both @ both.T + torch.diag(noises), hermitian=True, rtol=1e-10)
    seen = torch.cat([x_t.detach().double().flatten(), y.double().flatten()])
    expected = mu + gain @ (seen - both @ torch.full((n,), mu).double())
    torch.testing.assert_close(estimate.double().flatten(), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("operator", "channels"), CASES)
def test_ddnm_without_noise_is_consistent_and_follows_its_formula(operator, channels):
    prior = prior_of(channels)
    y = measured(prior, operator, 0.0)
    run = bound(DDNM(eta=0.6), prior, operator, y, 0.0)
    t, s = 0.5, 0.4
    (a_t, g_t), (a_s, g_s) = prior.schedule(t), prior.schedule(s)
    x_t = torch.randn(1, channels, *SIZE, generator=torch.Generator().manual_seed(0))
    x_s = run.step(x_t, t, s)
    x_hat = prior(x_t, t).double().flatten()
    a = operator_matrix(operator, (channels, *SIZE))
    corrected = x_hat + torch.linalg.pinv(a) @ (y.double().flatten() - a @ x_hat)
    e_hat = (x_t.double().flatten() - a_t * x_hat) / g_t
    z = Randomness([0]).normal((channels, *SIZE)).double().flatten()
    expected = a_s * corrected + g_s * (0.6 * z + math.sqrt(1 - 0.6**2) * e_hat)
    torch.testing.assert_close(x_s.double().flatten(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(operator(run.x_hat), y, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("operator", "channels"), CASES)
@pytest.mark.parametrize("s", [0.02, 0.1, 0.3, 0.8])
def test_the_noise_of_ddnm_plus_adds_up(operator, channels, s):
    """If x_hat is the truth, x_s must be the truth diffused: alpha_s x_0 and noise of variance sigma_s^2 in all."""
    prior, noise, count = prior_of(channels), 0.1, 4000
    t = s + 0.1
    (a_t, g_t), (a_s, g_s) = prior.schedule(t), prior.schedule(s)
    x_0 = prior.distribution.sample(1, seed=3).float()
    generator = torch.Generator().manual_seed(5)
    y = operator(x_0.expand(count, -1, -1, -1))
    y = y + noise * torch.randn(y.shape, generator=generator)
    run = bound(DDNM(), prior, operator, y, noise, count)
    e = torch.randn(count, channels, *SIZE, generator=generator)
    run.estimate = lambda x_t, t: x_0.expand_as(x_t)
    x_s = run.step(a_t * x_0 + g_t * e, t, s)
    deviation = (x_s - a_s * x_0) / g_s
    assert float(deviation.mean().abs()) < 0.02
    assert float(deviation.square().mean((1, 2, 3)).mean()) == pytest.approx(1, abs=0.02)
    # In every direction, and not only on the whole.
    spectrum = operator.svd((channels, *SIZE)).vt(deviation)
    assert float((spectrum.square().mean(0) - 1).abs().max()) < 0.15


@pytest.mark.parametrize(("operator", "channels"), CASES)
@pytest.mark.parametrize("s", [0.05, 0.5])
def test_the_papers_ddrm_takes_the_step_of_ddnm_plus(operator, channels, s):
    """With eta_b = 1 they are one formula, found twice: in variance-exploding and in variance-preserving form."""
    prior = prior_of(channels)
    y = measured(prior, operator, 0.1)
    x_t = torch.randn(1, channels, *SIZE, generator=torch.Generator().manual_seed(0))
    steps = [bound(m, prior, operator, y, 0.1).step(x_t, s + 0.1, s) for m in (DDNM(eta=0.85), DDRM.paper())]
    torch.testing.assert_close(steps[0], steps[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("operator", "channels"), CASES)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_diffpir_follows_its_formula(operator, channels, noise):
    prior = prior_of(channels)
    y = measured(prior, operator, noise)
    run = bound(DiffPIR(lam=2.0, zeta=0.36), prior, operator, y, noise)
    t, s = 0.5, 0.4
    (a_t, g_t), (a_s, g_s) = prior.schedule(t), prior.schedule(s)
    x_t = torch.randn(1, channels, *SIZE, generator=torch.Generator().manual_seed(0))
    x_s = run.step(x_t, t, s).double().flatten()
    x_hat = prior(x_t, t).double().flatten()
    a = operator_matrix(operator, (channels, *SIZE))
    rho = max(2.0 * noise**2 * a_t**2 / g_t**2, 1e-10)
    normal = a.T @ a + rho * torch.eye(len(x_hat)).double()
    proximal = torch.linalg.solve(normal, a.T @ y.double().flatten() + rho * x_hat)
    z = Randomness([0]).normal((channels, *SIZE)).double().flatten()
    e_hat = (x_t.double().flatten() - a_t * proximal) / g_t
    expected = a_s * proximal + g_s * (0.8 * e_hat + 0.6 * z)
    torch.testing.assert_close(x_s, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("method", "steps", "mean_error", "low", "high"),
    [
        # The bounds catch a factor of two in any coefficient; what remains is each method's own approximation.
        (PiGDM(), 100, 0.16, 0.45, 1.3),
        (DDNM(), 100, 0.16, 0.65, 1.2),
        (DDRM.paper(), 20, 0.35, 0.4, 1.3),
        (DDRM(), 20, 0.35, 0.35, 1.2),
        (DDRM(), 100, 0.2, 0.55, 1.2),
        (DDRM(eta=0.3), 100, 0.3, 0.75, 1.3),
        (DiffPIR(), 100, 0.25, 0.7, 1.6),
        (DPS(), 100, 0.1, 0.65, 1.2),
        (TMPD(), 100, 0.16, 0.6, 1.3),
        (MMPS(), 20, 0.05, 0.9, 1.1),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_draws_come_near_the_exact_posterior(method, steps, mean_error, low, high):
    prior = prior_of()
    operator, noise = operators()[0][0], 0.05
    # A picture as far from the mean as most: .93 of the deviation. Errors grow with that distance.
    y = measured(prior, operator, noise, seed=4)[0]
    exact = prior.posterior(y, operator, noise)
    draws = restore.solve(
        y, operator, method, prior=prior, noise=noise, steps=steps, samples=500, seed=0, progress=False
    )
    kept = operator.mask[0].bool()
    error = (draws.mean(0) - exact.mean).abs() / 0.5
    ratio = draws.var(0) / exact.variance
    assert float(error[kept].square().mean().sqrt()) < 0.03
    assert float(error[~kept].square().mean().sqrt()) < mean_error
    for part in (kept, ~kept):
        assert low < float(ratio[part].mean()) < high


@pytest.mark.parametrize("eta", [0.0, 0.5, 0.85])
def test_small_steps_of_ddrm_denoise_exactly(eta):
    """A noisy picture is a state of the prior's own, so that draws follow the posterior: mean and variance."""
    prior, noise, draws = prior_of(), 0.2, 400
    y = measured(prior, Identity(), noise)[0]
    exact = prior.posterior(y, Identity(), noise)
    # The more is drawn anew, the more of the variance is lost around estimates that are taken for the truth.
    lost = {0.0: 0.2, 0.5: 0.3, 0.85: 0.5}[eta]
    out = restore.solve(
        y,
        Identity(),
        DDRM(eta=eta),
        prior=prior,
        noise=noise,
        steps=100,
        samples=draws,
        seed=0,
        progress=False,
    )
    assert float((out.mean(0) - exact.mean).square().mean().sqrt()) < 0.06 * 0.5
    assert 1 - lost < float((out.var(0) / exact.variance).mean()) < 1.1


@pytest.mark.parametrize("method", ["pigdm", "diffpir", "ddrm"])
def test_a_measurement_that_is_nothing_but_noise_leaves_the_prior(method):
    prior = prior_of()
    operator = operators()[1][0]
    # DDNM+ and the paper's DDRM are not here: the noise of y is a part of their state's noise at every step, the same
    # each time, so that under a measurement that tells nothing their draws vary 2.8 times as much as the prior's.
    y = 1e4 * torch.randn(500, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    # What DDRM draws anew, it draws around estimates, at the cost of variance: here it is to have little of that.
    options = {"ddrm": {"eta": 0.2}}.get(method, {})
    seeds = list(range(500))
    draws = restore.solve(
        y, operator, method, prior=prior, noise=1e4, steps=100, seed=seeds, progress=False, **options
    )
    assert float((draws.mean(0) - 0.3).abs().max()) < 0.15
    assert float((draws.var(0) / 0.25).mean()) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("method", ["pigdm", "ddnm", "diffpir"])
@pytest.mark.parametrize(("operator", "channels"), CASES)
def test_without_noise_the_result_agrees_with_the_measurement(method, operator, channels):
    prior = prior_of(channels)
    y = measured(prior, operator, 0.0)[0]
    x = restore.solve(y, operator, method, prior=prior, steps=50, seed=0, progress=False)
    # PiGDM is pulled towards the measurement, not projected on it; 0.02 is a twenty-fifth of the prior deviation.
    tolerance = 0.02 if method == "pigdm" else 1e-3
    assert float((operator(x[None])[0] - y).abs().max()) < tolerance


def test_time_travel_visits_more_times_and_calls():
    """100 steps, 10 up, 3 passes: the 280 network calls of the paper."""
    prior = prior_of()
    operator = operators()[0][0]
    run = bound(DDNM(repeats=3), prior, operator, measured(prior, operator, 0.0), 0.0)
    times = run.times()
    assert sum(s < t for t, s in itertools.pairwise(times)) == 280


@pytest.mark.parametrize(
    ("method", "operator", "words"),
    [
        ("ddrm", Blur(gaussian_kernel(1.0, 3), boundary="reflect"), "singular value decomposition"),
        ("ddnm", restore.FromCallable(lambda x: x**2), "linear"),
        ("pigdm", restore.FromCallable(lambda x: x**2), "linear"),
        ("diffpir", restore.FromCallable(lambda x: x**2), "linear"),
    ],
)
def test_refusals_name_what_will_do(method, operator, words):
    prior = prior_of()
    with pytest.raises(ValueError, match=words) as caught:
        restore.solve(torch.zeros(1, *SIZE), operator, method, prior=prior, noise=0.1, progress=False)
    assert "dps" in str(caught.value)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ddnm", {"eta": 2.0}),
        ("ddnm", {"repeats": 0}),
        ("ddrm", {"eta_b": -1.0}),
        ("diffpir", {"zeta": 1.5}),
        ("diffpir", {"lam": 0.0}),
        ("pigdm", {"variance": 0.0}),
    ],
)
def test_options_out_of_range_are_refused(method, options):
    with pytest.raises(ValueError, match=r"must|is above"):
        restore.methods.as_method(method, **options)
