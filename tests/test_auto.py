"""``method="auto"``, and photon noise: what solve() decides and hands on before the loop."""

from __future__ import annotations

import math

import pytest
import torch
from toys import PixelPrior

import restore
from operators import (
    Blur,
    Downsample,
    FromCallable,
    GaussianNoise,
    Grayscale,
    Identity,
    Mask,
    PoissonNoise,
    box_mask,
    gaussian_kernel,
)
from restore.methods import DPIR, MCG, MMPS, REGISTRY, DiffPIR, choose
from restore.methods.auto import has_wide_hole
from restore.methods.dps import DPS
from restore.solve import suited

MASK = Mask(torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) < 0.5)
WIDE = Mask(box_mask(32, 20))


@pytest.mark.parametrize(
    ("operator", "measured", "options", "kind", "steps"),
    [
        (FromCallable(lambda x: x**2), 768, {}, DPS, 100),
        (MASK, 768, {"gaussian": False}, DPS, 100),
        (MASK, 768, {"calls": 20}, DPIR, 20),
        (MASK, 768, {"calls": 20, "draws": True}, DPS, 20),
        (MASK, 768, {"draws": True}, DiffPIR, 100),
        (MASK, 768, {}, DPIR, 40),
        (WIDE, 768, {}, DPS, 100),
        (WIDE, 768, {"draws": True}, DPS, 100),
        (MASK, 64, {}, MMPS, 100),
        (Grayscale(), 256, {"calls": 20}, DiffPIR, 20),
        (Blur(gaussian_kernel(1.0, 3), boundary="valid"), 768, {}, DPIR, 20),
        (Blur(gaussian_kernel(1.0, 3), boundary="valid"), 768, {"draws": True}, DiffPIR, 30),
        (Downsample(4), 768, {"calls": 200}, DPIR, 200),
        (Downsample(4), 768, {"draws": True}, DiffPIR, 50),
    ],
)
def test_the_choice(operator, measured, options, kind, steps):
    method, number = choose(operator, measured, **options)
    assert type(method) is kind
    assert number == steps
    assert not suited(method, operator, noisy=True, poisson=not options.get("gaussian", True))


@pytest.mark.parametrize(("side", "wide"), [(16, False), (17, True)])
def test_a_hole_is_wide_from_8_pixels_to_all_sides(side, wide):
    """The pixel in the middle of a square of 2 * 8 + 1 has a measured pixel within 9, and none within 8."""
    mask = torch.ones(1, 1, 64, 64)
    mask[..., 20 : 20 + side, 30 : 30 + side] = 0
    assert has_wide_hole(Mask(mask)) == wide


def test_the_holes_of_a_mask_are_no_numbers():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., ::16, ::16] = 1  # 16 pixels of 3 channels
    assert type(choose(Mask(mask), 3 * 64 * 64)[0]) is MMPS


def test_no_budget_is_no_budget():
    with pytest.raises(ValueError, match="calls must be at least 1, not 0"):
        choose(MASK, 768, calls=0)


@pytest.mark.parametrize(
    ("operator", "noise"),
    [(MASK, 0.0), (MASK, 0.1), (Grayscale(), 0.0), (FromCallable(torch.square), 0.1), (Downsample(8), 0.0)],
)
def test_solve_takes_what_auto_chooses(operator, noise):
    y = operator(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)))[0]
    options = {"prior": PixelPrior(), "noise": noise, "seed": 0, "progress": False}
    method, steps = choose(operator, y.numel(), calls=7)
    expected = restore.solve(y, operator, method, steps=steps, **options)
    assert torch.equal(restore.solve(y, operator, "auto", steps=7, **options), expected)


def test_auto_takes_no_options():
    for name, options in (("auto", {"zeta": 1.0}), ("AUTO", {"sampler": "ddim"})):
        with pytest.raises(TypeError, match=f"chooses its settings itself: leave {next(iter(options))} out"):
            restore.solve(torch.rand(3, 16, 16), MASK, name, prior=PixelPrior(), progress=False, **options)


# ------------------------------------------------------------------------------ noise models


def test_gaussian_noise_is_its_deviation():
    y = torch.rand(1, 3, 16, 16)
    options = {"prior": PixelPrior(), "steps": 5, "seed": 0, "progress": False}
    one = restore.solve(y, MASK, "diffpir", noise=0.2, **options)
    assert torch.equal(one, restore.solve(y, MASK, "diffpir", noise=GaussianNoise(0.2), **options))


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_methods_that_know_no_photon_noise_refuse_it(name):
    prior, y = PixelPrior(), torch.rand(1, 3, 16, 16)
    options = {"prior": prior, "steps": 3, "seed": 0, "noise": PoissonNoise(30.0), "progress": False}
    if REGISTRY[name].takes_poisson:
        assert torch.isfinite(restore.solve(y, MASK, name, **options)).all()
    else:
        with pytest.raises(ValueError, match=r"needs .*Gaussian noise.*Methods that will do: .*dps"):
            restore.solve(y, MASK, name, **options)
        assert prior.calls == 0
    assert not MCG.takes_poisson  # Though its parent does.


def test_photon_noise_of_8_bit_pictures_is_refused():
    with pytest.raises(ValueError, match="floats in"):
        restore.solve(
            torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
            MASK,
            "dps",
            prior=PixelPrior(),
            noise=PoissonNoise(9.0),
            progress=False,
        )


@pytest.mark.parametrize("method", ["dps", "red_diff"])
def test_what_lies_in_the_holes_of_photon_noise_is_no_measurement(method):
    clean = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    noise = PoissonNoise(100.0)
    y = noise.sample(MASK(clean), torch.Generator().manual_seed(0))
    options = {"prior": PixelPrior(), "noise": noise, "steps": 5, "seed": 0, "progress": False}
    black = restore.solve(y, MASK, method, **options)
    assert torch.equal(black, restore.solve(torch.where(MASK.mask > 0, y, 1.0), MASK, method, **options))


def test_photon_noise_stays_the_users_own():
    noise = PoissonNoise(100.0)
    before = dict(noise.named_buffers())
    restore.solve(
        torch.rand(1, 3, 16, 16), MASK, "dps", prior=PixelPrior(), noise=noise, steps=2, progress=False
    )
    assert all(value is before[name] for name, value in noise.named_buffers())


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)], ids=str)
def test_dps_weighs_photons_as_their_posterior_does(value_range):
    """Where many photons were counted the posterior is a known Gaussian: dark pixels are trusted more."""
    mean, deviation, peak, count = 0.5, 0.3, 1000.0, 400
    prior = PixelPrior(mean, deviation, value_range)
    y = torch.tensor([0.04, 0.9]).reshape(1, 1, 1, 2)
    options = {"noise": PoissonNoise(peak), "steps": 100, "samples": count, "seed": 0, "progress": False}
    found = restore.solve(y, Identity(), "dps", prior=prior, **options)[:, 0].double().flatten(1)
    noise = y / peak
    gain = deviation**2 / (deviation**2 + noise)
    expected = (mean + gain * (y - mean)).flatten()
    truth = (gain * noise).sqrt().flatten()
    # One step for two curvatures is not exact; with one weight for both, the dark pixel would be some 4 away.
    assert float(((found.mean(0) - expected) / truth).abs().max()) < 1.5
    ratio = float(found[:, 1].std() / found[:, 0].std())
    assert ratio == pytest.approx(math.sqrt(0.9 / 0.04), rel=0.5)


def test_the_likelihood_of_a_problem_is_that_of_its_noise():
    from toys import problem_for

    noise, clean = PoissonNoise(50.0), torch.rand(2, 1, 3, 3) + 0.1
    y = noise.sample(clean, torch.Generator().manual_seed(0))
    problem = problem_for(y[:1, 0], Identity(), 2, (1, 3, 3))
    from dataclasses import replace

    problem = replace(problem, y=2 * y, poisson=noise, scale=2.0)
    prior = PixelPrior()
    run = DPS().bind(prior, problem, None, None)
    torch.testing.assert_close(run.log_likelihood(2 * clean), noise.log_likelihood(y, clean))
    leaf = clean.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(noise.log_likelihood(y, leaf).sum(), leaf)
    torch.testing.assert_close(run.uphill(2 * clean), gradient / 2)
    # Where the residual is no larger than the noise, DPS's pull is that gradient, up to the mean variance.
    variance = problem.variance(2 * clean)
    small = 0.1 * (y - clean)
    view = run.view(2 * clean, 2 * clean, 0.5)
    torch.testing.assert_close(view.noise, variance)
    pull = replace(view, residual=2 * small).weighed
    mean_variance = variance.flatten(1).mean(1).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(pull / mean_variance, 0.1 * gradient / 2, rtol=1e-4, atol=1e-4)
    # Where it is far larger, all pixels count alike.
    far = 1e3 * torch.ones_like(small)
    torch.testing.assert_close(replace(view, residual=far).weighed, far, rtol=1e-3, atol=0)


@pytest.mark.parametrize("samples", [None, 2])
def test_every_picture_of_a_batch_has_the_method_of_its_own_mask(samples):
    """A wide hole in one picture changes nothing in another: results do not depend on the batch."""
    generator = torch.Generator().manual_seed(1)
    narrow = [torch.rand(1, 32, 32, generator=generator) < 0.5 for _ in range(2)]
    masks = torch.stack([narrow[0], box_mask(32, 20).reshape(1, 32, 32), narrow[1]])
    y = torch.rand(3, 3, 32, 32, generator=generator) * masks
    seen = []

    def run(index, callback=None):
        return restore.solve(
            y[index],
            Mask(masks[index]),
            "auto",
            prior=PixelPrior(),
            steps=5 if samples is None else 30,  # Fewer, and draws are DPS's in any case.
            samples=samples,
            seed=[10 + i for i in index],
            progress=False,
            callback=callback,
        )

    together = run([0, 1, 2], seen.append)
    for i in range(3):
        alone = run([i])
        torch.testing.assert_close(together[..., i, :, :, :], alone[..., 0, :, :, :])
    draws = 3 * (samples or 1)
    assert sorted(i for state in seen if state.step == 1 for i in state.draws) == list(range(draws))
    narrow_ones = {i for i in range(draws) if i % 3 != 1}
    for state in seen:
        assert set(state.draws) <= narrow_ones or not set(state.draws) & narrow_ones
    if samples is None:
        expected = restore.solve(
            y[[0, 2]], Mask(masks[[0, 2]]), DPIR(), prior=PixelPrior(), steps=5, seed=[10, 12], progress=False
        )
        torch.testing.assert_close(together[[0, 2]], expected)
