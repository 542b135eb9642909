"""DPS, PiGDM, TMPD and MMPS: corrections by Bayes' rule, against the rule itself written out densely."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal
from toys import PixelPrior, draw, problem_for, smooth_prior

import restore
import restore.methods.mmps
from operators import Blur, Downsample, Gamma, Grayscale, Identity, Mask, PoissonNoise, gaussian_kernel
from restore.analytic import GaussianMixturePrior, GaussianPrior, operator_matrix, smooth_covariance
from restore.benchmark.posterior.problems import correlated_gaussian
from restore.benchmark.posterior.protocols import moment_errors
from restore.methods import DPS, MMPS, TMPD, PiGDM, Problem
from restore.methods.dps import memoryless_bfgs
from restore.methods.guided import Guided
from restore.prior import BasePrior
from restore.randomness import Randomness
from restore.samplers import DDIM, DDPM, DPMSolver
from restore.schedule import Schedule

SIZE = (6, 5)
KEPT = torch.rand(SIZE, generator=torch.Generator().manual_seed(1)) < 0.5
REFLECTED = Blur(gaussian_kernel(0.8, 3), boundary="reflect")
CASES = [
    pytest.param(operator, channels, id=name)
    for name, operator, channels in [
        ("mask", Mask(KEPT), 1),
        ("blur", Blur(gaussian_kernel(0.8, 3)), 1),
        ("reflected", REFLECTED, 1),
        ("downsample", Downsample(2, image_size=SIZE), 1),
        ("grey", Grayscale("mean"), 3),
    ]
]
EXACTLY = {"iterations": 200, "tolerance": 1e-9, "clip": False}
T = 0.4


def prior_of(channels: int = 1, deviation: float = 0.5) -> GaussianPrior:
    covariance = smooth_covariance(SIZE, length=3.0, deviation=deviation)
    return GaussianPrior(
        torch.full((channels, *SIZE), 0.3), torch.kron(torch.eye(channels).double(), covariance)
    )


def two_pictures() -> GaussianMixturePrior:
    """A prior whose covariance given the state depends on the state."""
    means = torch.stack([torch.zeros(1, *SIZE), torch.linspace(0, 1, 30).reshape(1, *SIZE)])
    return GaussianMixturePrior(torch.tensor([0.4, 0.6]), means, smooth_covariance(SIZE, 2.0, 0.3))


def state(channels: int = 1, count: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, *SIZE, generator=generator, dtype=torch.float64)


def measured(prior, operator, noise, seed=3):
    """A noisy measurement of a draw of the prior, ``(1, ...)``."""
    y = operator(prior.distribution.sample(1, seed))
    return y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=y.dtype)


def bound(method, prior, operator, y, noise, steps=None, sampler=None):
    std = torch.as_tensor(noise, dtype=y.dtype).expand(len(y)).clone()
    shape = (len(y), *operator.image_shape(tuple(y.shape[1:])))
    return method.bind(prior, Problem(y, operator, std, shape, Randomness(range(len(y)))), sampler, steps)


def estimate(method, prior, operator, y, noise, x_t, t=T):
    with torch.enable_grad():
        out = bound(method, prior, operator, y, noise).estimate(x_t.clone().requires_grad_(), t)
    return out.detach()


def view_of(run: Guided, x_t, t=T):
    x_t = x_t.clone().requires_grad_()
    return run.view(x_t, run.prior(x_t, t), t, keep=True)


def conditional_mean(prior, operator, y, noise, x_t, t=T):
    """``E[x_0 | x_t, y]``: the state and ``y`` are two linear measurements of ``x_0``; condition on both at once."""
    alpha, sigma = prior.schedule(t)
    mu, covariance = prior.distribution.mean.flatten(), prior.distribution.covariance
    a, n = operator_matrix(operator, tuple(prior.distribution.mean.shape)), len(mu)
    both = torch.cat([alpha * torch.eye(n).double(), a])
    noises = torch.cat([torch.full((n,), sigma**2), torch.full((len(a),), noise**2)]).double()
    gram = both @ covariance @ both.T + torch.diag(noises)
    seen = torch.cat([x_t.double().flatten(), y.double().flatten()])
    solved = torch.linalg.pinv(gram, hermitian=True, rtol=1e-12) @ (seen - both @ mu)
    return (mu + covariance @ both.T @ solved).reshape(prior.distribution.mean.shape)


def jacobian(prior, x_t, t=T):
    """The derivative of the estimate by the state, ``(n, n)``."""
    n = x_t.numel()
    return torch.autograd.functional.jacobian(lambda x: prior(x, t), x_t).reshape(n, n)


def dense(prior, operator, y, x_t, t=T):
    """``A``, ``C`` and ``r`` as matrices, by automatic differentiation of the prior."""
    alpha, sigma = prior.schedule(t)
    a = operator_matrix(operator, tuple(x_t.shape[1:]))
    covariance = sigma**2 / alpha * jacobian(prior, x_t, t).T
    return a, covariance, (y - operator(prior(x_t, t))).flatten()


# ------------------------------------------------------------------------------ MMPS


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
@pytest.mark.parametrize(("operator", "channels"), CASES)
def test_mmps_is_exact_for_a_gaussian(operator, channels, t, noise):
    prior, x_t = prior_of(channels), state(channels)
    y = measured(prior, operator, noise)
    got = estimate(MMPS(**EXACTLY), prior, operator, y, noise, x_t, t)[0]
    expected = conditional_mean(prior, operator, y, noise, x_t, t)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    # That is far from the prior's own estimate: there was something to correct.
    assert float((expected - prior(x_t, t)[0]).abs().max()) > 100 * 1e-5


def test_images_of_a_batch_have_noise_levels_and_masks_of_their_own():
    prior, levels = prior_of(), [0.0, 0.0625, 1.0]
    masks = torch.rand(3, 1, *SIZE, generator=torch.Generator().manual_seed(5)) < 0.5
    x_t = state(count=3)
    y = torch.cat([measured(prior, Mask(m), level) for m, level in zip(masks, levels, strict=True)])
    for method in (MMPS(**EXACTLY), MMPS(clip=False), DPS(clip=False), TMPD(clip=False), PiGDM(clip=False)):
        together = estimate(method, prior, Mask(masks), y, torch.tensor(levels).double(), x_t)
        for i, level in enumerate(levels):
            one = slice(i, i + 1)
            alone = estimate(method, prior, Mask(masks[i]), y[one], level, x_t[one])
            torch.testing.assert_close(together[one], alone, atol=1e-8, rtol=0)


class WithoutPreconditioner(MMPS):
    def precondition(self, view, r):
        return r


def test_the_preconditioner_changes_the_way_and_not_the_end():
    prior, operator, x_t = prior_of(), Blur(gaussian_kernel(0.8, 3)), state()
    y = measured(prior, operator, 0.02)

    def after(method, **options):
        return estimate(method(clip=False, **options), prior, operator, y, 0.02, x_t)

    end = after(MMPS, iterations=200, tolerance=1e-9)
    torch.testing.assert_close(
        after(WithoutPreconditioner, iterations=200, tolerance=1e-9), end, atol=1e-6, rtol=0
    )
    far = float((after(WithoutPreconditioner, iterations=3) - end).norm())
    assert float((after(MMPS, iterations=3) - end).norm()) < 0.9 * far


class Scaled(BasePrior):
    """An estimate of each image that is a multiple of its state, which may be negative."""

    schedule, value_range, bounded, channels, name = Schedule.linear(), (0.0, 1.0), False, 1, "scaled"

    def __init__(self, *gains):
        self.gains = torch.tensor(gains, dtype=torch.float64).reshape(-1, 1, 1, 1)

    def __call__(self, x_t, t):
        return self.gains * x_t


@pytest.mark.parametrize("method", [MMPS(iterations=5), DPS()], ids=["mmps", "dps"])
def test_an_image_whose_covariance_is_not_positive_is_left_alone(method):
    x_t = state(count=2)
    y = torch.zeros(2, 1, *SIZE, dtype=torch.float64)
    got = estimate(method, Scaled(-0.5, 0.5), Identity(), y, 0.01, x_t)
    assert torch.equal(got[0], -0.5 * x_t[0])
    assert float(got[1].norm()) < 0.1 * float(x_t[1].norm())


@pytest.mark.parametrize("method", [MMPS(), DPS(), TMPD(), PiGDM()], ids=lambda m: m.name)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_an_image_without_a_residual_ends_at_once_and_its_neighbour_goes_on(method, noise):
    """Nothing is divided by the residual that is left: not by none at the start, nor by none after an exact step."""
    masks = torch.stack([torch.zeros(1, *SIZE), torch.zeros(1, *SIZE), KEPT[None].float()])
    masks[1, 0, 2, 3] = 1  # One measured pixel: the first iteration solves it.
    prior, x_t = prior_of(), state(count=3)
    y = Mask(masks)(prior.distribution.sample(3, 3))
    got = estimate(method, prior, Mask(masks), y, noise, x_t)
    assert bool(torch.isfinite(got).all())
    torch.testing.assert_close(got[0], prior(x_t, T)[0])
    assert bool(((got[1:] - prior(x_t, T)[1:]).flatten(1).norm(dim=1) > 1e-3).all())


@pytest.mark.parametrize("method", [MMPS, WithoutPreconditioner])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_every_iteration_comes_nearer(method, noise):
    """What is left of ``S u = r`` falls in the norm of ``S^{-1}``, which is what conjugate gradients minimise."""
    prior, operator, x_t = prior_of(), Downsample(2, image_size=SIZE), state()
    y = measured(prior, operator, noise)
    a, c, r = dense(prior, operator, y, x_t)
    s = a @ c @ a.T + noise**2 * torch.eye(len(a)).double()
    left = []
    for iterations in range(1, 10):
        x = estimate(
            method(iterations=iterations, tolerance=1e-12, clip=False), prior, operator, y, noise, x_t
        )
        # x = x_hat + C A^T u, and A has full row rank.
        u = torch.linalg.lstsq(c @ a.T, (x - prior(x_t, T)).flatten()[:, None]).solution[:, 0]
        rest = r - s @ u
        left.append(float(rest @ torch.linalg.solve(s, rest)))
    left = [float(r @ torch.linalg.solve(s, r)), *left]
    assert all(after < before * (1 + 1e-9) for before, after in itertools.pairwise(left))
    assert left[-1] < 0.05 * left[0]


@pytest.mark.parametrize(
    "operator", [Identity(), Downsample(2, image_size=SIZE), REFLECTED], ids=["identity", "down", "blur"]
)
def test_the_log_density_of_mmps_is_that_of_the_whole_covariance(operator):
    prior, noise = two_pictures(), 0.1
    y, x_t = measured(prior, operator, noise).expand(3, -1, -1, -1), state(count=3)
    run = bound(MMPS(), prior, operator, y, noise)
    got = run.log_density(view_of(run, x_t))
    for i in range(3):
        a, c, r = dense(prior, operator, y[i : i + 1], x_t[i : i + 1])
        s = a @ c @ a.T + noise**2 * torch.eye(len(a)).double()
        expected = MultivariateNormal(torch.zeros(len(a)).double(), (s + s.T) / 2).log_prob(r)
        assert float(got[i]) == pytest.approx(float(expected), abs=1e-6)


def test_without_noise_what_is_not_measured_adds_nothing_to_the_log_density():
    """A mask's S has rows of zeros; differences between states are those of the measured pixels alone."""
    prior, x_t, operator = two_pictures(), state(count=2), Mask(KEPT)
    y = measured(prior, operator, 0.0).expand(2, -1, -1, -1)
    run = bound(MMPS(), prior, operator, y, 0.0)
    got = run.log_density(view_of(run, x_t))
    expected = []
    for i in range(2):
        a, c, r = dense(prior, operator, y[i : i + 1], x_t[i : i + 1])
        a, r = a[KEPT.flatten()], r[KEPT.flatten()]
        s = a @ c @ a.T
        expected.append(float(MultivariateNormal(torch.zeros(len(a)).double(), (s + s.T) / 2).log_prob(r)))
    assert float(got[1] - got[0]) == pytest.approx(expected[1] - expected[0], rel=1e-5)


def test_the_log_density_of_a_covariance_that_is_not_positive_is_a_number():
    run = bound(MMPS(), Scaled(-0.5, 0.5), Identity(), torch.zeros(2, 1, *SIZE).double(), 0.1)
    assert bool(torch.isfinite(run.log_density(view_of(run, state(count=2)))).all())


def test_large_measurements_have_the_log_density_of_the_row_sums(monkeypatch):
    prior, operator, noise, x_t = two_pictures(), REFLECTED, 0.1, state()
    y = measured(prior, operator, noise)
    run = bound(MMPS(), prior, operator, y, noise)
    whole = float(run.log_density(view_of(run, x_t)))
    monkeypatch.setattr(restore.methods.mmps, "FEW_NUMBERS", 29)
    a, c, r = dense(prior, operator, y, x_t)
    sums = (a @ c @ a.T).sum(1) + noise**2
    expected = -0.5 * float((r**2 / sums + torch.log(2 * math.pi * sums)).sum())
    assert float(run.log_density(view_of(run, x_t))) == pytest.approx(expected, rel=1e-9)
    assert float(bound(TMPD(), prior, operator, y, noise).log_density(view_of(run, x_t))) == pytest.approx(
        expected, rel=1e-9
    )
    assert abs(whole - expected) > 0.1


# ------------------------------------------------------------------------------ TMPD


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize(("operator", "channels"), CASES)
def test_tmpd_is_its_formula(operator, channels, noise):
    prior, x_t = prior_of(channels), state(channels)
    y = measured(prior, operator, noise)
    a, c, r = dense(prior, operator, y, x_t)
    alpha, sigma = prior.schedule(T)
    floor = 1e-3 * sigma**2 / (alpha**2 + sigma**2)
    variance = (a @ c @ a.T).sum(1).clamp(min=floor) + noise**2
    expected = prior(x_t, T).flatten() + c @ a.T @ (r / variance)
    got = estimate(TMPD(clip=False), prior, operator, y, noise, x_t).flatten()
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)


def test_rows_that_cancel_get_the_least_variance():
    """Of two pixels whose sum is nearly known, the row sums of C are nearly nothing, unlike their variances."""
    prior = GaussianPrior(torch.zeros(1, 1, 2), torch.tensor([[1.0, -0.9999], [-0.9999, 1.0]]))
    run = bound(TMPD(), prior, Identity(), torch.zeros(1, 1, 1, 2).double(), 0.0)
    alpha, sigma = prior.schedule(0.9)
    view = view_of(run, torch.ones(1, 1, 1, 2).double(), 0.9)
    expected = torch.full((1, 1, 1, 2), 1e-3 * sigma**2 / (alpha**2 + sigma**2)).double()
    torch.testing.assert_close(view.row_variance, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize(
    "operator",
    [Identity(), Mask(KEPT), Downsample(2, filter="box"), Blur(torch.eye(3)[1:2].T)],
    ids=["identity", "mask", "box", "delta"],
)
def test_tmpd_is_exact_where_rows_are_not_coupled(operator, noise):
    """Independent pixels, and no pixel in two measurements: A C A^T is diagonal."""
    prior = GaussianPrior(torch.full((1, 6, 4), 0.3), 0.2 * torch.eye(24))
    operator = Mask(KEPT[:, :4]) if isinstance(operator, Mask) else operator
    x_t = state()[..., :4]
    y = measured(prior, operator, noise)
    got = estimate(TMPD(clip=False), prior, operator, y, noise, x_t)[0]
    torch.testing.assert_close(got, conditional_mean(prior, operator, y, noise, x_t), atol=1e-6, rtol=0)


# ------------------------------------------------------------------------------ PiGDM


@pytest.mark.parametrize(("operator", "channels"), CASES)
def test_the_log_density_of_pigdm_up_to_a_constant(operator, channels):
    prior, noise, variance = prior_of(channels), 0.1, 0.3
    y, x_t = measured(prior, operator, noise).expand(3, -1, -1, -1), state(channels, 3)
    run = bound(PiGDM(variance=variance), prior, operator, y, noise)
    got = run.log_density(view_of(run, x_t))
    alpha, sigma = prior.schedule(T)
    a = operator_matrix(operator, tuple(x_t.shape[1:]))
    q2 = variance * sigma**2 / (alpha**2 * variance + sigma**2)
    s = q2 * a @ a.T + noise**2 * torch.eye(len(a)).double()
    r = (y - operator(prior(x_t, T))).flatten(1)
    expected = MultivariateNormal(torch.zeros(len(a)).double(), s).log_prob(r)
    torch.testing.assert_close(got - got[0], expected - expected[0], atol=1e-4, rtol=1e-5)


# ------------------------------------------------------------------------------ DPS, without a step size


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize(("operator", "channels"), CASES)
def test_dps_goes_as_far_as_is_best_along_its_line(operator, channels, noise):
    """Of all multiples of r, tau r solves S u = r best: no other length has a smaller energy u S u / 2 - u r."""
    prior, x_t = prior_of(channels), state(channels)
    y = measured(prior, operator, noise)
    a, c, r = dense(prior, operator, y, x_t)
    s = a @ c @ a.T + noise**2 * torch.eye(len(a)).double()
    run = bound(DPS(clip=False), prior, operator, y, noise)
    length, image = view_of(run, x_t).descent
    torch.testing.assert_close(image.flatten(), c @ a.T @ r, atol=1e-9, rtol=1e-9)
    lengths = float(length) * torch.linspace(0, 3, 3001).double()
    energies = lengths**2 * (r @ s @ r) / 2 - lengths * (r @ r)
    assert int(energies.argmin()) == 1000
    got = estimate(DPS(clip=False), prior, operator, y, noise, x_t)
    torch.testing.assert_close(got, prior(x_t, T) + length * image)
    single = estimate(WithoutPreconditioner(iterations=1, clip=False), prior, operator, y, noise, x_t)
    torch.testing.assert_close(got, single, atol=1e-10, rtol=0)
    if not operator.has_svd:
        single = estimate(MMPS(iterations=1, clip=False), prior, operator, y, noise, x_t)
        torch.testing.assert_close(got, single, atol=1e-10, rtol=0)


def dense_bfgs(p, q):
    """The update as textbooks have it, of a multiple of the identity."""
    one, curvature = torch.eye(len(p)).double(), p @ q
    v = one - torch.outer(q, p) / curvature
    return v.T @ (curvature / (q @ q) * one) @ v + torch.outer(p, p) / curvature


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 12), seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_memoryless_bfgs_is_the_update_of_textbooks(n, seed, scale):
    """And it knows the pair, ``H q = p``; it is symmetric, and positive, so that no step along it goes up."""
    generator = torch.Generator().manual_seed(seed)
    root, p, r, u = (torch.randn(shape, generator=generator).double() for shape in ((n, n), (n,), (n,), (n,)))
    q = scale * (root @ root.T + 0.1 * torch.eye(n)) @ p

    peaks = p.abs().max() / q.abs().max()

    def h(x):
        return peaks * memoryless_bfgs(x[None], p[None], q[None])[0]

    torch.testing.assert_close(h(r), dense_bfgs(p, q) @ r, rtol=1e-8, atol=1e-8 / scale)
    torch.testing.assert_close(h(q), p, rtol=1e-6, atol=1e-8)
    assert float(h(r) @ u) == pytest.approx(float(h(u) @ r), rel=1e-6, abs=1e-7 / scale)
    assert float(r @ h(r)) > 0


def test_a_pair_that_tells_nothing_leaves_the_residual_and_its_neighbours_alone():
    r, p, q = (torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(i)).double() for i in range(3))
    q[0], q[1], p[2], q[2] = q[0] * (q[0] * p[0]).sum().sign(), -p[1], 0, 0
    out = memoryless_bfgs(r, p, q)
    factor = q[0].abs().max() / p[0].abs().max()
    expected = factor * dense_bfgs(p[0].flatten(), q[0].flatten()) @ r[0].flatten()
    torch.testing.assert_close(out[0].flatten(), expected)
    torch.testing.assert_close(out[1:], r[1:])


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_units_of_any_size_give_the_same_direction(scale):
    """In float32, where a square of 1e30 is none any more."""
    r, p, q = (torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(i)) for i in range(3))
    expected = memoryless_bfgs(r, p, q)
    torch.testing.assert_close(memoryless_bfgs(r, p / scale, scale * q), expected)


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize(("operator", "channels"), CASES)
def test_the_second_step_of_dps_goes_by_what_the_first_one_found(operator, channels, noise):
    """Two estimates, and the second against dense matrices: ``x_hat + tau C A^T H r``, as far as is best."""
    prior, times = prior_of(channels), (0.4, 0.35)
    states = [state(channels), state(channels, seed=1)]
    y = measured(prior, operator, noise)
    run = bound(DPS(clip=False, quasi_newton=True), prior, operator, y, noise)
    with torch.enable_grad():
        got = [
            run.estimate(x.clone().requires_grad_(), t).detach() for x, t in zip(states, times, strict=True)
        ]
    first = estimate(DPS(clip=False), prior, operator, y, noise, states[0], times[0])
    torch.testing.assert_close(got[0], first)  # There is nothing to learn from yet.

    parts = [dense(prior, operator, y, x, t) for x, t in zip(states, times, strict=True)]
    matrices = [a @ c @ a.T + noise**2 * torch.eye(len(a)).double() for a, c, _ in parts]
    (_, _, p), (a, c, r) = parts
    direction = dense_bfgs(p, matrices[0] @ p) @ r
    length = (direction @ r) / (direction @ matrices[1] @ direction)
    expected = prior(states[1], times[1]) + (length * c @ a.T @ direction).reshape(states[1].shape)
    torch.testing.assert_close(got[1], expected, atol=1e-8, rtol=1e-6)
    steepest = estimate(DPS(clip=False), prior, operator, y, noise, states[1], times[1])
    assert float((got[1] - steepest).norm()) > 1e-4


@pytest.mark.parametrize("measured", [[64], [65], [64, 65], [1, 81]])
def test_dps_learns_by_itself_where_few_numbers_are_measured(measured):
    """Of 81 pixels so many are measured, in every picture of a batch."""
    kept = torch.stack([(torch.arange(81) < m).reshape(1, 9, 9) for m in measured])
    # Numbers of equal precision make H a multiple of 1: there would be nothing to see.
    operator = Mask(kept * torch.linspace(0.1, 1, 81).reshape(1, 9, 9))

    def second(method, keep=False):
        y, prior = operator(normal(0).sigmoid()), PixelPrior()
        run = bound(method, prior, operator, y, 0.1)
        for seed in (1, 2):
            x_t = normal(seed).requires_grad_()
            with torch.enable_grad():
                out = run.correct(run.view(x_t, prior(x_t, T), T, keep))
        return out

    def normal(seed):
        return torch.randn(len(measured), 1, 9, 9, generator=torch.Generator().manual_seed(seed))

    learnt, steepest, found = (second(DPS(quasi_newton=q)) for q in (True, False, None))
    for i, m in enumerate(measured):
        assert m == 1 or not torch.allclose(learnt[i], steepest[i])
        torch.testing.assert_close(found[i], learnt[i] if m <= 64 else steepest[i])
    # A twist is a function of the state alone.
    assert torch.equal(second(DPS(quasi_newton=True), keep=True), second(DPS(quasi_newton=False), keep=True))


def test_dps_that_learns_finds_the_posterior_several_times_better():
    """The same calls of the prior: the error of the mean, beside that of steepest descent."""
    problem, errors = correlated_gaussian(1), {}
    for learning in (False, True):
        draws = restore.solve(
            problem.y,
            problem.operator,
            DPS(quasi_newton=learning),
            prior=problem.prior,
            noise=problem.noise,
            steps=60,
            samples=1000,
            seed=0,
            progress=False,
        )
        errors[learning] = moment_errors(problem, draws)
    for part in (0, 1):  # measured pixels, missing ones
        assert errors[True][part] < 0.5 * errors[False][part]
    for part in (2, 3):  # their variance
        assert abs(errors[True][part] - 1) < max(0.15, abs(errors[False][part] - 1))


def test_dps_cannot_learn_without_a_covariance():
    with pytest.raises(ValueError, match="True, False or None, not 'no'"):
        DPS(quasi_newton="no")
    with pytest.raises(ValueError, match="leave out zeta or quasi_newton"):
        DPS(zeta=0.5, quasi_newton=True)
    y = torch.full((1, 8, 8), 0.5)
    for prior in (PixelPrior(), PixelPrior(value_range=(-1.0, 1.0))):
        with pytest.raises(ValueError, match=r"linear operator and Gaussian noise, not Gamma: leave it out"):
            restore.solve(y, Gamma(2.0), DPS(quasi_newton=True), prior=prior, steps=2)
    with pytest.raises(ValueError, match="with photon noise"):
        restore.solve(
            y,
            Identity(),
            DPS(quasi_newton=True),
            prior=PixelPrior(),
            noise=PoissonNoise(100),
            steps=2,
        )


def test_dps_listens_less_the_more_noise_there_is():
    prior, operator, x_t = prior_of(), Mask(KEPT), state()
    y = measured(prior, operator, 0.0)
    moves = [
        float((estimate(DPS(clip=False), prior, operator, y, noise, x_t) - prior(x_t, T)).norm())
        for noise in (0.0, 0.3, 1.0, 10.0, 100.0, 1e4)
    ]
    assert moves == sorted(moves, reverse=True)
    assert moves[4] == pytest.approx(moves[3] / 100, rel=0.02)  # by the square of the noise
    assert moves[-1] < 1e-7


@pytest.mark.parametrize("method", [DPS(), MMPS(), TMPD()], ids=lambda m: m.name)
def test_the_correction_does_not_depend_on_the_range_of_the_prior(method):
    """The same prior with pictures in [0, 1] and in [-1, 1]: to the same state belongs another, and the same result."""
    near, wide = PixelPrior(), PixelPrior(value_range=(-1.0, 1.0))
    operator = Downsample(2)
    x_0, e = torch.rand(1, 1, 4, 4).double(), torch.randn(1, 1, 4, 4).double()
    y = torch.rand(1, 1, 2, 2).double()
    # A signal-to-noise ratio that is the same in both: the wide pictures have twice the noise.
    t = near.schedule.time_of(0.3), near.schedule.time_of(0.6)
    results = []
    for prior, time, scale in ((near, t[0], 1.0), (wide, t[1], 2.0)):
        low = prior.value_range[0]
        alpha, sigma = prior.schedule(time)
        x_t = alpha * (low + scale * x_0) + sigma * e
        white = operator(torch.ones_like(x_0))
        out = estimate(method, prior, operator, low * white + scale * y, 0.1 * scale, x_t, time)
        results.append((out - low) / scale)
    torch.testing.assert_close(results[0], results[1], atol=1e-6, rtol=0)


def test_the_length_of_the_step_does_not_depend_on_the_size_of_the_picture():
    """A picture tiled four times is corrected as its tile is."""
    x_t, y = torch.randn(1, 1, 4, 4).double(), torch.rand(1, 1, 2, 2).double()
    small, large = (
        estimate(DPS(), PixelPrior(), Downsample(2, filter="box"), m, 0.1, x, 0.3)
        for x, m in ((x_t, y), (x_t.repeat(1, 1, 2, 2), y.repeat(1, 1, 2, 2)))
    )
    torch.testing.assert_close(large, small.repeat(1, 1, 2, 2))


def test_the_direction_of_dps_by_finite_differences_through_an_operator_that_is_not_linear():
    prior, operator = (
        two_pictures(),
        restore.FromCallable(lambda x: torch.sin(3 * x[..., :4]) + x[..., 1:] ** 2),
    )
    operator.image_shape = lambda shape: (1, *SIZE)
    x_t, y = state(), torch.rand(1, 1, 6, 4, dtype=torch.float64)
    problem = Problem(y, operator, torch.full((1,), 0.1).double(), (1, 1, *SIZE), Randomness([0]))
    run = DPS(clip=False).bind(prior, problem, None, None)
    length, image = view_of(run, x_t).descent

    def misfit(x):
        return (y - operator(prior(x, T))).square().sum() / 2

    numeric = torch.zeros(30).double()
    for i in range(30):
        e = torch.zeros(30).double()
        e[i] = 1e-5
        e = e.reshape(x_t.shape)
        numeric[i] = (misfit(x_t + e) - misfit(x_t - e)) / 2e-5
    alpha, sigma = prior.schedule(T)
    torch.testing.assert_close(image.flatten(), -(sigma**2) / alpha * numeric, atol=1e-7, rtol=1e-5)

    # The length: tau = |r|^2 / (<g, C g> + s^2 |r|^2) with g = A'^T r, by automatic differentiation alone.
    x_hat = prior(x_t, T)
    r = (y - operator(x_hat)).flatten()
    of_operator = torch.autograd.functional.jacobian(operator, x_hat).reshape(24, 30)
    c = sigma**2 / alpha * jacobian(prior, x_t).T
    g = of_operator.T @ r
    assert float(length) == pytest.approx(float(r @ r / (g @ c @ g + 0.1**2 * (r @ r))), rel=1e-9)


def test_the_log_density_of_dps():
    """One number for S, r S r / r r; with neither residual nor noise a number, and a large one."""
    prior, operator, x_t, noise = two_pictures(), REFLECTED, state(), 0.1
    y = measured(prior, operator, noise)
    a, c, r = dense(prior, operator, y, x_t)
    s = a @ c @ a.T + noise**2 * torch.eye(len(a)).double()
    variance = float(r @ s @ r / (r @ r))
    run = bound(DPS(), prior, operator, y, noise)
    expected = -0.5 * float(r @ r) / variance - 0.5 * len(r) * math.log(2 * math.pi * variance)
    got = float(run.log_density(view_of(run, x_t)))
    assert got == pytest.approx(expected, rel=1e-9)
    fitting = bound(DPS(), prior, operator, operator(prior(x_t, T)).detach(), 0.0)
    best = float(fitting.log_density(view_of(fitting, x_t)))
    assert math.isfinite(best)
    assert best > got


def test_the_papers_settings():
    assert DPS.paper("ffhq", task="deblurring") == DPS(zeta=0.3)
    assert DPS.paper("imagenet", task="deblurring") == DPS(zeta=0.4)
    assert DPS.paper("ffhq", task="inpainting").zeta == 0.5
    with pytest.raises(ValueError, match="no setting for 'ffhq' and 'magic'; it has ffhq: inpainting, super"):
        DPS.paper("ffhq", task="magic")
    with pytest.raises(ValueError, match="no setting for 'celeba' and 'deblurring'"):
        DPS.paper("celeba", task="deblurring")


@pytest.mark.parametrize("method", [DPS(), MMPS(), TMPD(), PiGDM()], ids=lambda m: m.name)
def test_guided_methods_visit_levels_evenly_in_their_logarithm(method):
    problem = problem_for(torch.zeros(1, 4, 4), Identity(), 1, (1, 4, 4))
    run = method.bind(smooth_prior(), problem, None, 20)
    lowest = 1 / 3 if isinstance(method, MMPS) else 1.0
    assert run.times() == run.prior.schedule.times(20, spacing="log", lowest=lowest)
    assert run.sampler == type(method).default_sampler
    own = DDIM(0.3)
    assert method.bind(smooth_prior(), problem, own, 20).sampler == own


def test_with_the_papers_step_size_comes_its_sampler_and_its_times():
    problem = problem_for(torch.zeros(1, 4, 4), Identity(), 1, (1, 4, 4))
    run = DPS(zeta=0.3).bind(smooth_prior(), problem, None, 20)
    assert run.sampler == DDPM()
    assert run.times() == run.prior.schedule.times(20)
    assert DPS(zeta=0.3).bind(smooth_prior(), problem, DDIM(), 20).sampler == DDIM()


@pytest.mark.parametrize("options", [{"iterations": 0}, {"tolerance": 0.0}, {"tolerance": float("nan")}])
def test_mmps_refuses_options_that_say_nothing(options):
    with pytest.raises(ValueError, match="iterations must be at least 1 and tolerance above 0"):
        MMPS(**options)


# ------------------------------------------------------------------------------ whole runs


def figures(method, steps, count, seeds):
    """Errors on the correlated Gaussian of the benchmark: mean and variance, measured and missing; over problems."""
    errors = []
    for seed in seeds:
        known = correlated_gaussian(seed)
        drawn = draw(
            method, known.prior, known.y, known.operator, count, (1, 8, 8), noise=known.noise, steps=steps
        )
        errors.append(moment_errors(known, drawn))
    return torch.tensor(errors).mean(0).tolist()


@pytest.mark.parametrize(
    ("method", "steps"),
    [
        (MMPS(), 50),
        pytest.param(MMPS(), 200, marks=pytest.mark.slow),
    ],
    ids=["50", "200"],
)
def test_mmps_draws_from_the_posterior(method, steps):
    """On the three problems of `restore benchmark --posterior`.

    The last step, to time 0, adds no noise, so that the variance of the last level is missing: of the first trained
    level, four percent of what a noise of 0.05 leaves of a measured pixel. Hence MMPS goes lower.
    """
    mean_measured, mean_missing, *ratios = figures(method, steps, 4000, range(3))
    assert mean_measured <= 0.02
    assert mean_missing <= 0.03
    assert all(0.95 <= ratio <= 1.05 for ratio in ratios)


@pytest.mark.parametrize("method", [DPS(), MMPS(), TMPD(), PiGDM()], ids=lambda m: m.name)
def test_a_measurement_that_is_nothing_but_noise_leaves_the_prior(method):
    prior, operator = prior_of(), Mask(KEPT)
    y = 1e4 * torch.randn(1, *SIZE)
    drawn = draw(method, prior, y, operator, 2000, (1, *SIZE), noise=1e4, steps=30, sampler=DPMSolver(1.0))
    exact = draw(MMPS(), prior, y, operator, 2000, (1, *SIZE), noise=1e6, steps=30)
    assert float((drawn.mean(0) - 0.3).abs().max() / 0.5) < 0.1
    assert float((drawn.var(0) / exact.var(0)).mean()) == pytest.approx(1, abs=0.03)
    assert float((drawn.var(0) / 0.25).mean()) == pytest.approx(1, abs=0.08)
