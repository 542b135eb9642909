"""DPIR, against its formula written out densely, and its fixed points under a Gaussian prior in closed form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_guided_methods import CASES, SIZE, bound, measured, prior_of
from toys import PixelPrior

import restore
from operators import Blur, Identity, Mask, gaussian_kernel
from restore.analytic import operator_matrix
from restore.methods import DPIR
from restore.methods.dpir import filled, turned, turned_back


@pytest.mark.parametrize(("operator", "channels"), CASES)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_step_follows_its_formula(operator, channels, noise):
    prior, t = prior_of(channels), 0.5
    y = measured(prior, operator, noise)
    run = bound(DPIR(lam=2.0), prior, operator, y, noise)
    run.start(t)
    x = torch.randn(1, channels, *SIZE, generator=torch.Generator().manual_seed(0))
    alpha, sigma = prior.schedule(t)
    a = operator_matrix(operator, (channels, *SIZE))
    rho = 2.0 * max(noise, 1e-3) ** 2 * alpha**2 / sigma**2
    normal = a.T @ a + rho * torch.eye(x.numel()).double()
    z = torch.linalg.solve(normal, a.T @ y.double().flatten() + rho * x.double().flatten())
    expected = prior(alpha * z.reshape(x.shape).float(), t)
    torch.testing.assert_close(run.step(x, t, 0.4), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("operator", "channels"), CASES)
def test_without_noise_the_end_is_the_mean_of_the_posterior(operator, channels):
    """``z - x_hat(z) = nu^2 C^-1 (x - m)``, which at the fixed point lies in the range of ``A^T``, as the mean's."""
    prior = prior_of(channels)
    y = measured(
        prior, operator, 0.0, seed=4
    )  # A picture as far from the mean as most; the error grows with that.
    method = DPIR(turns=False, last=0.005)
    found = restore.solve(y, operator, method, prior=prior, steps=600, progress=False)[0].double()
    exact = prior.posterior(y[0], operator, 0.0)
    error = (found - exact.mean.reshape(found.shape)).square().mean().sqrt()
    assert error < 0.02 * prior.distribution.covariance.diagonal().mean().sqrt()


@pytest.mark.parametrize(("operator", "channels"), CASES)
def test_with_noise_the_end_is_the_fixed_point(operator, channels):
    """At ``nu = s_y``: ``A^T (y - A z) = lam (z - x)``, ``x = m + C (C + s_y^2)^-1 (z - m)``."""
    prior, noise, lam = prior_of(channels), 0.2, 0.5
    y = measured(prior, operator, noise)
    run = bound(DPIR(lam=lam, turns=False), prior, operator, y, noise)
    x = run.start(1.0)
    for _ in range(300):
        x = run.step(x, 0.0, 0.0)
    a = operator_matrix(operator, (channels, *SIZE))
    mean = prior.distribution.mean.double().flatten()
    covariance = prior.distribution.covariance.double()
    blurred = covariance + noise**2 * torch.eye(len(mean)).double()
    normal = a.T @ a + lam * noise**2 * torch.linalg.inv(blurred)
    z = torch.linalg.solve(normal, a.T @ (y.double().flatten() - a @ mean))
    expected = mean + covariance @ torch.linalg.solve(blurred, z)
    torch.testing.assert_close(x.double().flatten(), expected, atol=2e-3, rtol=0)


def test_nothing_is_removed_below_the_noise_of_each_picture():
    prior = PixelPrior()
    operator, y = Identity(), torch.rand(3, 3, 8, 8)
    problem = restore.methods.Problem(y, operator, torch.tensor([0.0, 0.05, 0.3]), (3, 3, 8, 8), None)
    run, times = DPIR().bind(prior, problem, None, None), []
    run.without_gradient = lambda x_t, t: times.append(t.tolist()) or x_t
    run.step(run.start(1.0), t := prior.schedule.time_of(0.1), 0.0)
    assert times == [pytest.approx([t, t, prior.schedule.time_of(0.3)], abs=1e-6)]


@pytest.mark.parametrize("boundary", ["circular", "reflect"])
def test_rounding_is_not_blown_up(boundary):
    """A blurred picture in 8 bits that is said to have no noise has that of rounding."""
    rows, columns = torch.meshgrid(torch.linspace(0, 9, 48), torch.linspace(0, 9, 48), indexing="ij")
    x = (0.5 + 0.4 * torch.sin(rows * columns)).expand(3, 48, 48)
    blur = Blur(gaussian_kernel(1.6), boundary=boundary)
    y = (255 * blur(x[None])[0]).round() / 255
    found = restore.solve(y, blur, "dpir", steps=8, progress=False)
    assert (found - x).square().mean() < (y - x).square().mean()


class Upright(PixelPrior):
    """Says how it was asked."""

    image_size = (6, 5)


def test_a_prior_for_one_size_is_not_shown_turned_pictures():
    y = torch.rand(3, 6, 5)
    x = restore.solve(y, Identity(), "dpir", prior=Upright(), noise=0.1, steps=9, progress=False)
    assert x.shape == y.shape


def test_priors_of_one_kind_of_picture_see_them_upright():
    faces = restore.load_prior("photo")
    problem = restore.methods.Problem(torch.zeros(1), Identity(), torch.zeros(1), (1, 3, 8, 8), None)
    assert DPIR().bind(faces, problem, None, None).turns_for_prior
    faces.config = {**faces.config, "domain": "faces"}
    assert not DPIR().bind(faces, problem, None, None).turns_for_prior
    assert DPIR(turns=True).bind(faces, problem, None, None).turns_for_prior


def test_the_levels_fall_evenly_in_the_logarithm():
    prior = PixelPrior()
    problem = restore.methods.Problem(torch.zeros(1), Identity(), torch.zeros(1), (1, 3, 8, 8), None)
    times = DPIR(first=0.4, last=0.05).bind(prior, problem, None, 4).times()
    levels = [sigma / alpha for alpha, sigma in map(prior.schedule, times[:-1])]
    span = prior.value_range[1] - prior.value_range[0]
    assert levels == pytest.approx([0.4 * span, 0.2 * span, 0.1 * span, 0.05 * span], rel=1e-6)
    assert times[-1] == 0


def test_eight_ways_to_turn_a_picture():
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    ways = [turned(x, way) for way in range(8)]
    assert len({tuple(way.flatten().tolist()) + tuple(way.shape) for way in ways}) == 8
    for way, picture in enumerate(ways):
        assert torch.equal(turned_back(picture, way), x)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.02, 0.98), st.floats(-3, 3), st.integers(0, 2**31))
@settings(deadline=None, max_examples=60)
def test_holes_are_filled_with_what_is_around_them(height, width, share, level, seed):
    generator = torch.Generator().manual_seed(seed)
    measured = (torch.rand(2, 1, height, width, generator=generator) < share).float().expand(2, 3, -1, -1)
    x = torch.rand(2, 3, height, width, generator=generator)
    known = x * measured
    result = filled(known, measured)
    torch.testing.assert_close(result * measured, known)
    if measured.flatten(1).any(1).all():
        assert (result <= known.flatten(2).max() + 1e-5).all()
        constant = filled(level * measured, measured)  # What surrounds a hole fills it.
        torch.testing.assert_close(constant, torch.full_like(x, level), atol=1e-4, rtol=0)


def test_a_ramp_is_filled_as_a_ramp():
    """Of the 8 columns of a hole in a ramp from 0 to 1 none is off by more than a quarter of the hole's step."""
    x = torch.linspace(0, 1, 64).expand(1, 1, 64, 64).clone()
    measured = torch.ones_like(x)
    measured[..., 28:36] = 0
    assert float((filled(x * measured, measured) - x).abs().max()) < 0.05


def test_the_measured_pixels_stay_and_the_seed_does_not_matter():
    y = torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    kept = torch.rand(12, 20, generator=torch.Generator().manual_seed(1)) < 0.4
    one, other = (restore.solve(y, Mask(kept), "dpir", steps=5, seed=s, progress=False) for s in (0, 1))
    assert torch.equal(one, other)
    torch.testing.assert_close(one * kept, y * kept, atol=1e-3, rtol=0)


def test_draws_are_refused_before_the_first_call():
    prior = PixelPrior()
    with pytest.raises(
        ValueError, match="dpir has one result and no draws, but samples=3: leave samples out"
    ):
        restore.solve(torch.rand(3, 8, 8), Identity(), "dpir", prior=prior, samples=3, progress=False)
    assert prior.calls == 0


@pytest.mark.parametrize("options", [{"lam": 0.0}, {"first": 0.1, "last": 0.2}, {"last": 0.0}])
def test_options_that_make_no_sense(options):
    with pytest.raises(ValueError, match="lam must be above 0 and 0 < last <= first"):
        DPIR(**options)
