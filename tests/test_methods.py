import itertools
import math
import re
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import (
    GaussianNetwork,
    PixelPrior,
    ProbeNetwork,
    Scripted,
    draw,
    exact_moments,
    problem_for,
    smooth_prior,
)

import restore
import restore.analytic
from operators import Blur, Downsample, Gamma, Identity, Mask
from restore.methods import DPS, REGISTRY, TDS, RePaint, SDEdit, as_method, options_of
from restore.methods.base import Method, Problem
from restore.prior import Prior
from restore.randomness import Randomness
from restore.samplers import DDIM, DDPM
from restore.schedule import Schedule
from restore.solve import sampling_loop

EVERY_OTHER = Mask(torch.tensor([[1.0, 0.0, 1.0, 0.0]]).expand(4, 4))


def paper_schedule(t_t=250, jump_length=10, jump_n_sample=10):
    """RePaint's `get_schedule_jump`, transcribed from the paper's figure: levels t, -1 is the clean picture."""
    jumps = dict.fromkeys(range(0, t_t - jump_length, jump_length), jump_n_sample - 1)
    t, levels = t_t, []
    while t >= 1:
        t = t - 1
        levels.append(t)
        if jumps.get(t, 0) > 0:
            jumps[t] -= 1
            for _ in range(jump_length):
                t = t + 1
                levels.append(t)
    levels.append(-1)
    return levels


def bound(method, prior, problem, steps=None, sampler=None):
    return method.bind(prior, problem, sampler, steps)


def down(times):
    return sum(b < a for a, b in itertools.pairwise(times))


# ------------------------------------------------------------------------------ RePaint


def test_repaint_goes_through_4570_transitions_of_which_2410_call_the_network():
    times = bound(RePaint(), PixelPrior(), None).times()
    assert len(times) - 1 == 4570
    assert down(times) == 2410


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 5))
def test_repaint_visits_the_times_of_the_paper(steps, jump, resamplings):
    run = bound(
        RePaint(jump=jump, resamplings=resamplings), PixelPrior(schedule=Schedule.linear(600)), None, steps
    )
    grid = [0.0, *run.prior.schedule.times(steps)[-2::-1]]
    assert run.times() == [grid[level + 1] for level in paper_schedule(steps, jump, resamplings)]


def test_repaint_visits_the_times_of_the_paper_at_its_defaults():
    times = bound(RePaint(), PixelPrior(), None).times()
    assert times == [4 * (level + 1) / 1000 for level in paper_schedule()]


def test_repaint_calls_the_network_2410_times():
    network = ProbeNetwork(1)
    prior = Prior(network, Schedule.linear(), channels=1)
    restore.solve(torch.zeros(1, 2, 2), Mask(torch.eye(2)), "repaint", prior=prior, seed=0, progress=False)
    assert len(network.seen) == 2410
    assert Counter(seen.grad for seen in network.seen) == {False: 2410}
    assert all(seen.inference for seen in network.seen)
    numbers = Counter(float(seen.step[0]) for seen in network.seen)
    # The highest 9 levels are gone through once, all that resampling covers 10 times.
    assert numbers[999.0] == 1
    assert numbers[3.0] == 1
    assert numbers[499.0] == 10


def test_repaint_without_resampling_goes_straight_down():
    assert bound(RePaint(resamplings=1), PixelPrior(), None, 50).times() == Schedule.linear().times(50)


def test_one_step_of_repaint_is_the_formula():
    prior, count = smooth_prior(), 3
    y = EVERY_OTHER(torch.rand(count, 1, 4, 4))
    problem = Problem(y, EVERY_OTHER, torch.zeros(count), (count, 1, 4, 4), Randomness([1, 2, 3]))
    x_t, t, s = torch.randn(count, 1, 4, 4), 0.5, 0.4
    got = bound(RePaint(), prior, problem, 10).step(x_t, t, s)

    again = Randomness([1, 2, 3])
    z, z_measured = again.normal((1, 4, 4)), again.normal((1, 4, 4))
    (a, g), (a_s, g_s) = prior.schedule(t), prior.schedule(s)
    x_hat = prior(x_t, t)
    beta = 1 - a**2 / a_s**2
    mean = a_s * beta / g**2 * x_hat + math.sqrt(1 - beta) * g_s**2 / g**2 * x_t
    unmeasured = mean + math.sqrt(beta) * g_s / g * z
    measured = a_s * y + g_s * z_measured
    m = EVERY_OTHER.mask
    torch.testing.assert_close(got, m * measured + (1 - m) * unmeasured, rtol=1e-5, atol=1e-5)


def test_the_last_step_of_repaint_puts_the_measurement_back():
    y = EVERY_OTHER(torch.rand(1, 1, 4, 4))[0]
    out = draw(RePaint(resamplings=2, jump=2), smooth_prior(), y, EVERY_OTHER, 3, (1, 4, 4), steps=6)
    kept = EVERY_OTHER.mask.bool().expand_as(out)
    assert torch.equal(out[kept], y.expand_as(out)[kept])


#: A seed whose picture of smooth_prior() is as far from the mean as most: .96 of the prior's deviation. Errors of
#: methods that are not exact grow with that distance; of seed 3's picture, at 1.6 of it, RePaint's is .19, not .09.
TYPICAL = 4


def repaint_moments(method, steps, y):
    prior, n = smooth_prior(), 16
    problem = problem_for(y.double(), EVERY_OTHER, n + 1, (1, 4, 4), randomness=Scripted(n + 1))
    run = bound(method, prior, problem, steps)
    sigma = prior.schedule(1.0)[1]
    return exact_moments(run, n, torch.zeros(n), sigma**2 * torch.eye(n))


def test_repaint_fills_in_the_mean_of_the_posterior():
    """A Gaussian prior makes every step affine: mean and covariance of RePaint's result, without any chance."""
    prior = smooth_prior()
    x = prior.distribution.sample(1, seed=TYPICAL)
    y = EVERY_OTHER(x)[0]
    exact = prior.posterior(y, EVERY_OTHER, 0.0)
    missing = (EVERY_OTHER.mask == 0).flatten()
    deviation = exact.variance.flatten().sqrt()[missing]
    far = (prior.distribution.mean - exact.mean).flatten()[missing] / deviation

    mean, covariance = repaint_moments(RePaint(), 250, y)
    off = (mean - exact.mean.flatten())[missing] / deviation
    ratio = covariance.diagonal()[missing] / exact.variance.flatten()[missing]
    torch.testing.assert_close(mean[~missing], y.flatten()[~missing], rtol=0, atol=1e-6)
    assert float(covariance.diagonal()[~missing].abs().max()) < 1e-9
    assert float(far.abs().max()) > 1.0  # the measurement does say something
    assert float(off.pow(2).mean().sqrt()) < 0.12  # Measured: .086, .146 at most, variance .90 to .92.
    assert float(off.abs().max()) < 0.25
    assert float(ratio.min()) > 0.87
    assert float(ratio.max()) < 0.95

    # Without resampling the filled part agrees less with the rest: what the paper's resampling is for.
    straight, _ = repaint_moments(RePaint(resamplings=1), 250, y)
    worse = (straight - exact.mean.flatten())[missing] / deviation
    assert float(worse.norm()) > 2 * float(off.norm())
    # And with finer steps it comes closer to the posterior's mean.
    finer, _ = repaint_moments(RePaint(), 1000, y)
    better = (finer - exact.mean.flatten())[missing] / deviation
    assert float(better.norm()) < 0.5 * float(off.norm())


def test_draws_of_repaint_have_its_exact_moments():
    y = EVERY_OTHER(smooth_prior().distribution.sample(1, seed=3))[0]
    method, count = RePaint(jump=3, resamplings=3), 20_000
    mean, covariance = repaint_moments(method, 20, y)
    flat = draw(method, smooth_prior(), y, EVERY_OTHER, count, (1, 4, 4), steps=20).double().flatten(1)
    deviation = covariance.diagonal().sqrt()
    assert bool(((flat.mean(0) - mean).abs() <= 4.5 * deviation / count**0.5 + 1e-6).all())
    limit = 4.5 * deviation[:, None] * deviation * (2 / count) ** 0.5 + 1e-6
    assert bool(((flat.T.cov() - covariance).abs() < limit).all())


@pytest.mark.parametrize("options", [{"jump": 0}, {"resamplings": 0}, {"jump": -3}])
def test_repaint_refuses_numbers_below_one(options):
    with pytest.raises(ValueError, match="jump and resamplings must be at least 1"):
        RePaint(**options)


# ------------------------------------------------------------------------------ SDEdit


@pytest.mark.parametrize(
    ("strength", "steps", "calls"), [(0.5, 500, 250), (1.0, 20, 20), (0.3, 10, 3), (0.01, 10, 1)]
)
def test_sdedit_makes_its_share_of_the_steps(strength, steps, calls):
    network = ProbeNetwork(1)
    prior = Prior(network, Schedule.linear(), channels=1)
    method = SDEdit(strength=strength)
    restore.solve(torch.zeros(1, 4, 4), Identity(), method, prior=prior, steps=steps, seed=0, progress=False)
    assert len(network.seen) == calls
    assert all(seen.inference and not seen.grad for seen in network.seen)
    assert float(network.seen[0].step[0]) == pytest.approx(1000 * strength - 1)


def test_sdedit_starts_from_the_diffused_picture():
    prior = smooth_prior()
    y = torch.rand(2, 1, 4, 4)
    problem = Problem(y, Identity(), torch.zeros(2), (2, 1, 4, 4), Randomness([4, 5]))
    run = bound(SDEdit(strength=0.4), prior, problem)
    alpha, sigma = prior.schedule(0.4)
    assert run.times()[0] == 0.4
    torch.testing.assert_close(
        run.start(0.4), alpha * y + sigma * Randomness([4, 5]).normal((1, 4, 4)), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(
    "operator", [Identity(), Blur(torch.full((1, 3), 1 / 3)), Downsample(2, filter="box")], ids=repr
)
@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_the_picture_made_from_a_measurement_is_the_linear_estimate(operator, noise):
    """For independent pixels, uniform over [0, 1]: mean 1/2, variance 1/12."""
    y = torch.rand(2, *operator.measurement_shape((1, 4, 4)))
    problem = Problem(y, operator, torch.full((2,), noise), (2, 1, 4, 4), Randomness([0, 1]))
    got = bound(SDEdit(), smooth_prior(), problem).image_from_measurement()
    matrix = restore.analytic.operator_matrix(operator, (1, 4, 4))
    gram = matrix @ matrix.T + 12 * noise**2 * torch.eye(len(matrix), dtype=torch.float64)
    residual = y.double().flatten(1).T - matrix @ torch.full((16, 1), 0.5, dtype=torch.float64)
    expected = 0.5 + (matrix.T @ torch.linalg.solve(gram, residual)).T
    torch.testing.assert_close(got.flatten(1).double(), expected, rtol=1e-3, atol=1e-4)


def test_a_mask_leaves_grey_where_nothing_was_measured():
    y = EVERY_OTHER(torch.rand(1, 1, 4, 4))
    problem = Problem(y, EVERY_OTHER, torch.zeros(1), (1, 1, 4, 4), Randomness([0]))
    got = bound(SDEdit(), smooth_prior(), problem).image_from_measurement()
    kept = EVERY_OTHER.mask.bool()
    torch.testing.assert_close(got[kept], y[kept], rtol=0, atol=1e-4)
    assert torch.equal(got[~kept], torch.full_like(got[~kept], 0.5))


@pytest.mark.parametrize("strength", [0.2, 0.5])
def test_sdedit_draws_what_its_formula_promises(strength):
    """With many steps its draw is one from p(x_0 | x_t0), x_t0 = a y + g z: for a Gaussian in closed form.

    SDEdit does not draw from the posterior: its mean lies between ``y`` and the prior's mean, by the strength alone.
    """
    prior = smooth_prior()
    y = prior.distribution.sample(1, seed=3)[0]
    alpha, sigma = prior.schedule(strength)
    covariance, mean = prior.distribution.covariance, prior.distribution.mean.flatten()
    gain = (
        alpha
        * covariance
        @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(16, dtype=torch.float64))
    )
    expected = mean + alpha * gain @ (y.flatten() - mean)
    spread = covariance - alpha * gain @ covariance + sigma**2 * gain @ gain.T
    count = 6000
    method = SDEdit(strength=strength)
    out = draw(method, prior, y, Identity(), count, (1, 4, 4), steps=500).double().flatten(1)
    deviation = spread.diagonal().sqrt()
    assert float(((out.mean(0) - expected) / deviation).abs().max()) < 0.08
    ratio = out.var(0) / spread.diagonal()
    assert float(ratio.min()) > 0.88
    assert float(ratio.max()) < 1.12


def test_sdedit_at_full_strength_is_the_prior_where_nothing_is_measured():
    prior = smooth_prior()
    y = prior.distribution.sample(1, seed=3)[0]
    out = draw(SDEdit(strength=1.0), prior, y, Identity(), 6000, (1, 4, 4), steps=300).double()
    assert float((out.mean(0) - prior.distribution.mean).abs().max() / 0.2) < 0.06
    ratio = out.var(0) / prior.distribution.variance
    assert float(ratio.min()) > 0.88
    assert float(ratio.max()) < 1.12


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_sdedit_keeps_measured_pixels_exactly(strength):
    y = EVERY_OTHER(torch.rand(1, 1, 4, 4))[0]
    states = []
    problem = problem_for(y, EVERY_OTHER, 2, (1, 4, 4), randomness=Randomness([7, 8]))
    run = bound(SDEdit(strength=strength), smooth_prior(), problem, 10)
    out = sampling_loop(run, lambda: None, lambda m, n, t, s, x: states.append((s, x.clone())))
    kept = EVERY_OTHER.mask.bool().expand_as(out)
    assert torch.equal(out[kept], y.expand_as(out)[kept])
    # Always with the noise of the start.
    first = Randomness([7, 8]).normal((1, 4, 4))
    for s, x in states:
        alpha, sigma = run.prior.schedule(s)
        torch.testing.assert_close(x[kept], (alpha * y + sigma * first)[kept])


def test_sdedit_puts_back_the_pixel_and_not_its_weighted_measurement():
    weights = torch.tensor([[1.0, 0.5], [0.0, -2.0]])
    x = torch.rand(1, 2, 2)
    out = draw(SDEdit(), smooth_prior((2, 2)), weights * x, Mask(weights), 3, (1, 2, 2), steps=6)
    kept = (weights != 0).expand_as(out)
    torch.testing.assert_close(out[kept], x.expand_as(out)[kept])


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, float("nan")])
def test_sdedit_refuses_what_is_no_time(strength):
    with pytest.raises(ValueError, match=r"strength is a time in \(0, 1\]"):
        SDEdit(strength=strength)


# ------------------------------------------------------------------------------ DPS


class Square(Gamma):
    """A non-linear operator whose derivative is known: y = x^2."""

    def __init__(self):
        super().__init__(2.0)

    def forward(self, x):
        return x**2


@pytest.mark.parametrize(
    ("operator", "weight"),
    [(EVERY_OTHER, 0.5), (Downsample(2), 0.7), (Square(), 0.7)],
    ids=["mask", "downsample", "square"],
)
@pytest.mark.parametrize("steps", [1000, 50])
def test_one_step_of_dps_is_the_formula(operator, weight, steps):
    """x_s = ancestral step - zeta_run J^T dA^T (A x_hat - y) / ||y - A x_hat||, all written out by hand."""
    prior, t, s = smooth_prior(), 0.5, 0.45
    y = torch.rand(1, *operator.measurement_shape((1, 4, 4)), dtype=torch.float64)
    x_t = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    problem = Problem(y, operator, torch.zeros(1), (1, 1, 4, 4), Randomness([5]))
    got = bound(DPS(zeta=weight), prior, problem, steps).step(x_t, t, s)

    z = Randomness([5]).normal((1, 4, 4)).double()
    plain = DDPM().step(x_t, prior(x_t, t), t, s, prior.schedule, lambda x: z)
    x_hat = prior(x_t, t)
    jacobian = torch.autograd.functional.jacobian(lambda x: prior(x, t), x_t).reshape(16, 16)
    of_operator = torch.autograd.functional.jacobian(operator, x_hat).reshape(-1, 16)
    residual = (y - operator(x_hat)).flatten()
    gradient = -(jacobian.T @ of_operator.T @ residual) / residual.norm()
    scale = weight * (1000 / steps) * math.sqrt(16 / (3 * 256 * 256))
    torch.testing.assert_close(got, plain - scale * gradient.reshape(1, 1, 4, 4), rtol=1e-6, atol=1e-9)
    assert float(scale * gradient.norm()) > 1e-5


def test_the_gradient_of_dps_by_finite_differences():
    network = ProbeNetwork(2).double()
    prior = Prior(network, Schedule.linear(), "sample", channels=2)
    operator, t = Blur(torch.rand(1, 3), boundary="zero"), 0.6
    y, x_t = torch.rand(1, 2, 3, 4, dtype=torch.float64), torch.randn(1, 2, 3, 4, dtype=torch.float64)
    problem = Problem(y, operator, torch.zeros(1), (1, 2, 3, 4), Randomness([0]))
    run = bound(DPS(zeta=1.0, clip=False), prior, problem, 1000)
    x_s = torch.zeros_like(x_t)
    leaf = x_t.clone().requires_grad_(True)
    with torch.enable_grad():
        x_hat = run.estimate(leaf, t)
    move = run.constrain(x_s, leaf, x_hat, t, 0.5) / math.sqrt(24 / (3 * 256 * 256))
    numeric = torch.zeros(24, dtype=torch.float64)
    for i in range(24):
        e = torch.zeros(24, dtype=torch.float64)
        e[i] = 1e-5
        e = e.reshape(x_t.shape)
        up, low = ((y - operator(prior(x, t))).norm() for x in (x_t + e, x_t - e))
        numeric[i] = (up - low) / 2e-5
    torch.testing.assert_close(move.flatten(), -numeric, rtol=1e-5, atol=1e-7)


def test_the_guidance_of_an_image_does_not_depend_on_its_batch():
    prior = Prior(ProbeNetwork(1), Schedule.linear(), "sample", channels=1)
    y = torch.rand(4, 1, 4, 4) * torch.tensor([0.1, 1.0, 3.0, 0.5]).reshape(4, 1, 1, 1)
    x_t = torch.randn(4, 1, 4, 4)

    def step(rows):
        problem = Problem(y[rows], Identity(), torch.zeros(len(rows)), (len(rows), 1, 4, 4), Randomness(rows))
        return bound(DPS(zeta=40.0), prior, problem, 1000).step(x_t[rows], 0.5, 0.4)

    together = step([0, 1, 2, 3])
    for i in range(4):
        torch.testing.assert_close(together[i : i + 1], step([i]), rtol=1e-5, atol=1e-6)


def test_a_residual_of_zero_is_no_reason_for_nan():
    x_t = torch.randn(2, 1, 2, 2)
    nothing = Mask(torch.zeros(2, 2))
    problem = Problem(torch.zeros(2, 1, 2, 2), nothing, torch.zeros(2), (2, 1, 2, 2), Randomness([0, 1]))
    got = bound(DPS(zeta=1.0), smooth_prior((2, 2)), problem, 1000).step(x_t, 0.5, 0.4)
    plain = bound(
        Method(), smooth_prior((2, 2)), Problem(**{**vars(problem), "randomness": Randomness([0, 1])}), 1000
    ).step(x_t, 0.5, 0.4)
    torch.testing.assert_close(got, plain)  # nothing measured: the prior's own step


def test_what_is_clipped_is_not_pulled():
    """The paper's code differentiates through the clipping."""
    prior = PixelPrior(bounded=True, mean=0.5, deviation=5.0)
    x_t = torch.tensor([9.0, 0.1]).reshape(1, 1, 1, 2)
    problem = Problem(
        torch.full((1, 1, 1, 2), 0.4), Identity(), torch.zeros(1), (1, 1, 1, 2), Randomness([0])
    )

    def moved(**options):
        run = bound(DPS(zeta=100.0, **options), prior, problem, 1000)
        leaf = x_t.clone().requires_grad_(True)
        with torch.enable_grad():
            x_hat = run.estimate(leaf, 0.1)
        return run.constrain(torch.zeros_like(x_t), leaf, x_hat, 0.1, 0.05).flatten()

    assert moved()[0] == 0
    assert abs(float(moved()[1])) > 1e-3
    assert abs(float(moved(clip=False)[0])) > 1e-3


@pytest.mark.parametrize(
    ("zeta", "operator", "steps", "shape", "expected"),
    [
        (0.7, EVERY_OTHER, 1000, (3, 256, 256), 0.7),
        (0.7, Identity(), 250, (3, 256, 256), 2.8),
        (0.7, Identity(), 1000, (3, 512, 512), 1.4),
        (0.7, Identity(), 500, (3, 64, 64), 0.35),
        (0.0, Identity(), 500, (3, 64, 64), 0.0),
    ],
)
def test_the_step_size_for_other_numbers_of_steps_and_sizes(zeta, operator, steps, shape, expected):
    problem = Problem(torch.zeros(1), operator, torch.zeros(1), (1, *shape), None)
    assert bound(DPS(zeta=zeta), PixelPrior(), problem, steps).step_size() == pytest.approx(expected)


def residuals(zeta, steps, y, operator, prior):
    out = draw(DPS(zeta=zeta), prior, y, operator, 400, (1, 4, 4), steps=steps)
    return float(torch.linalg.vector_norm((y.float() - operator(out)).flatten(1), dim=1).mean()), out


@pytest.fixture(scope="module")
def noisy_problem():
    prior, noise = smooth_prior(), 0.1
    generator = torch.Generator().manual_seed(1)
    x = prior.distribution.sample(1, seed=TYPICAL)[0]
    y = EVERY_OTHER((x + noise * torch.randn(1, 4, 4, generator=generator))[None])[0]
    return prior, y, prior.posterior(y, EVERY_OTHER, noise)


def test_the_guidance_is_held_when_the_number_of_steps_changes(noisy_problem):
    prior, y, _ = noisy_problem
    runs = {steps: residuals(1.5, steps, y, EVERY_OTHER, prior) for steps in (100, 250, 1000)}
    found = [residual for residual, _ in runs.values()]
    assert max(found) < 1.6 * min(found)
    for _, out in runs.values():
        assert float((out.mean(0) - runs[1000][1].mean(0)).pow(2).mean().sqrt() / 0.2) < 0.1
    # What a constant step size would have done at 100 steps, a tenth of the guidance:
    naive, out = residuals(0.15, 100, y, EVERY_OTHER, prior)
    assert naive > 3 * max(found)
    assert float((out.mean(0) - runs[1000][1].mean(0)).pow(2).mean().sqrt() / 0.2) > 0.4


def test_dps_comes_near_the_posterior_of_a_gaussian(noisy_problem):
    """Near, as it is an approximation; and only with the right step size, which half and double of it are not."""
    prior, y, exact = noisy_problem

    def quality(zeta):
        out = draw(DPS(zeta=zeta), prior, y, EVERY_OTHER, 1500, (1, 4, 4), steps=1000).double()
        error = (out.mean(0) - exact.mean).pow(2).mean().sqrt() / 0.2
        return float(error), float(out.var(0).mean() / exact.variance.mean())

    prior_error = float((prior.distribution.mean - exact.mean).pow(2).mean().sqrt() / 0.2)
    error, ratio = quality(1.5)
    assert error < 0.13 < prior_error / 3
    assert 0.85 < ratio < 1.2
    for wrong in (0.75, 3.0):
        error, ratio = quality(wrong)
        assert error > 0.14
        assert not 0.75 < ratio < 1.4


@pytest.mark.parametrize("samples", [1, 3])
def test_dps_makes_one_call_and_one_backward_a_step(samples):
    network = ProbeNetwork(1)
    prior = Prior(network, Schedule.linear(), channels=1)
    y = torch.rand(1, 4, 4)
    restore.solve(y, Identity(), "dps", prior=prior, steps=7, samples=samples, seed=0, progress=False)
    assert len(network.seen) == 7
    assert network.backwards == 7
    assert all(seen.grad and not seen.inference for seen in network.seen)
    assert all(seen.shape[0] == samples for seen in network.seen)
    assert all(p.grad is None for p in network.parameters())


def test_no_graph_grows_from_step_to_step():
    states = []
    problem = problem_for(torch.rand(1, 4, 4), Identity(), 1, (1, 4, 4))
    run = bound(DPS(), smooth_prior(), problem, 5)
    sampling_loop(run, lambda: None, lambda m, n, t, s, x: states.append((x, m.x_hat)))
    assert not any(x.requires_grad or x_hat.requires_grad for x, x_hat in states)


@pytest.mark.parametrize("zeta", [-0.1, float("nan")])
def test_dps_refuses_a_negative_step_size(zeta):
    with pytest.raises(ValueError, match="zeta is a step size of at least 0"):
        DPS(zeta=zeta)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_dps_through_a_network_is_dps_on_the_exact_prior(prediction):
    exact = smooth_prior()
    prior = Prior(GaussianNetwork(exact, prediction), exact.schedule, prediction, (0, 1))
    x_t = torch.randn(2, 1, 4, 4)

    def step(which):
        problem = Problem(
            torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)),
            EVERY_OTHER,
            torch.zeros(2),
            (2, 1, 4, 4),
            Randomness([0, 1]),
        )
        return bound(DPS(zeta=30.0, clip=False), which, problem, 1000).step(x_t, 0.5, 0.4)

    torch.testing.assert_close(step(prior), step(exact), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------ all of them


@pytest.mark.parametrize("name", ["sdedit", "repaint", "dps"])
def test_another_sampler_replaces_the_papers(name):
    y = EVERY_OTHER(torch.rand(1, 1, 4, 4))[0]

    def run(sampler, seed=0):
        return draw(
            as_method(name), smooth_prior(), y, EVERY_OTHER, 2, (1, 4, 4), steps=6, sampler=sampler, seed=seed
        )

    assert torch.equal(run(None), run(DDPM()))
    assert not torch.equal(run(None), run(DDIM()))


@pytest.mark.parametrize("name", REGISTRY)
def test_binding_leaves_the_method_as_it_is(name):
    method = as_method(name)
    before = dict(vars(method))
    problem = Problem(torch.zeros(1, 1, 2, 2), Identity(), torch.zeros(1), (1, 1, 2, 2), None)
    run = bound(method, PixelPrior(), problem, 5)
    assert vars(method) == before
    assert run is not method
    assert type(run) is type(method)
    assert run.steps == 5
    assert bound(method, PixelPrior(), problem).steps == method.default_steps


def test_the_table_tells_what_each_method_needs():
    table = {info.name: info for info in restore.methods()}
    assert set(table) == set(REGISTRY)
    assert table["repaint"].needs == ("mask", "noise-free")
    assert table["repaint"].steps == 250
    assert table["repaint"].options == {"jump": 10, "resamplings": 10, "clip": True}
    assert table["dps"].gradient
    assert not table["repaint"].gradient
    assert table["dps"].steps == 100
    assert all(re.search(r"20\d\d, (arXiv:|ICLR)", info.paper) for info in table.values())
    assert options_of(DPS) == {"zeta": None, "clip": True, "quasi_newton": None}


def test_methods_by_name():
    assert as_method("dps", zeta=0.3) == DPS(zeta=0.3)
    assert as_method("RePaint") == RePaint()
    own = SDEdit(strength=0.2)
    assert as_method(own) is own
    assert as_method("dps:zeta=0.3,clip=False") == DPS(zeta=0.3, clip=False)
    assert as_method("dps:zeta=none,clip=true") == DPS(zeta=None, clip=True)
    assert as_method(" tds : particles=8 ,twist=mmps", threshold=0.25) == TDS(
        particles=8, twist="mmps", threshold=0.25
    )
    with pytest.raises(ValueError, match=r"unknown method 'magic'; known are .*dps"):
        as_method("magic")
    with pytest.raises(TypeError, match="dps has no option 'step'; its options are clip=True, zeta=None"):
        as_method("dps", step=3)
    with pytest.raises(TypeError, match=r"came with an instance: set them on it, DPS\(...\)"):
        as_method(DPS(), zeta=0.1)
    with pytest.raises(TypeError, match="name or an instance of Method"):
        as_method(DPS)


@pytest.mark.parametrize(
    ("text", "options", "error", "words"),
    [
        ("dps:zeta", {}, ValueError, "'zeta' is not of the form option=value"),
        ("dps:zeta=1,zeta=2", {}, ValueError, "zeta is given twice"),
        ("dps:zeta=1", {"zeta": 2}, TypeError, "zeta is given in 'dps:zeta=1' and as zeta=2: give it once"),
        ("dps:zeta=large", {}, TypeError, "dps's zeta is a number or none, not 'large'"),
        ("dps:clip=no", {}, TypeError, "dps's clip is true or false, not 'no'"),
        ("mmps:iterations=1.5", {}, TypeError, "mmps's iterations is a whole number or none, not 1.5"),
        ("dps:zeta=1for", {}, TypeError, "not '1for'"),
        ("dps:zeta=[1]", {}, TypeError, r"not \[1\]"),
        ("dps:zeta=-1", {}, ValueError, "at least 0, not -1"),
        ("dps:steps=9", {}, TypeError, "no option 'steps'.*give steps beside the method"),
        ("dps:stepz=1,zeta=2", {}, TypeError, r"no option 'stepz'; its options are [^()]*$"),
        ("magic:zeta=1", {}, ValueError, "unknown method 'magic'"),
        ("dps, zeta=1", {}, ValueError, r"unknown method .* behind a colon, as in 'dps:zeta=1'; known"),
        ("auto:steps=9", {}, TypeError, "'auto' chooses a method and its settings itself: leave steps out"),
        ("auto:", {}, TypeError, "give it to solve as it is"),
    ],
)
def test_options_in_a_methods_name_that_make_no_sense(text, options, error, words):
    with pytest.raises(error, match=words):
        as_method(text, **options)


def test_solve_takes_options_in_the_methods_name():
    y, prior = torch.rand(1, 1, 4, 4), smooth_prior()
    common = {"prior": prior, "steps": 6, "seed": 3, "progress": False}
    named = restore.solve(y, EVERY_OTHER, "dps:zeta=0.3", **common)
    assert torch.equal(named, restore.solve(y, EVERY_OTHER, "dps", zeta=0.3, **common))
    assert not torch.equal(named, restore.solve(y, EVERY_OTHER, "dps", zeta=0.6, **common))
