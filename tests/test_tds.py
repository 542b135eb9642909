"""TDS: weights known by hand, resampling, and posteriors of several modes."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch.distributions import Normal
from toys import OneStream, PixelPrior, ProbeNetwork, draw, problem_for, smooth_prior

import restore
from operators import Blur, Downsample, Identity, Mask, gaussian_kernel
from restore.analytic import GaussianMixturePrior
from restore.benchmark.posterior.problems import correlated_gaussian
from restore.benchmark.posterior.protocols import moment_errors
from restore.methods import DDNM, DPS, MMPS, TDS, TMPD, PiGDM
from restore.prior import Prior
from restore.quality import QualityWarning
from restore.samplers import DDIM, DDPM, DPMSolver
from restore.schedule import Schedule
from restore.solve import sampling_loop

POINTS = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)


def two_modes(spread: float = 0.04) -> GaussianMixturePrior:
    """One pixel: near -1 with probability 0.3, near 1 with 0.7."""
    return GaussianMixturePrior(torch.tensor([0.3, 0.7]), POINTS, spread)


def bound(method, prior, y, count, noise=0.5, sampler=None, steps=20, operator=None, shape=None):
    """``count`` states of the problem ``y``, which is of one picture."""
    shape = shape or tuple(y.shape)
    problem = problem_for(y.float(), operator or Identity(), count, shape, noise, OneStream(count))
    return method.bind(prior, problem, sampler, steps)


# ------------------------------------------------------------------------------ weights


def by_hand(x_t, alpha, sigma, y, noise, variance, spread=0.04):
    """``x_hat``, PiGDM's estimate and its ``log p(y | x_t)`` of the two modes, from scalars alone."""
    total = alpha**2 * spread + sigma**2
    gain = alpha * spread / total
    odds = 0.7 / 0.3 * math.exp(2 * alpha * x_t / total)  # of the mode at 1
    p = odds / (1 + odds)
    x_hat = gain * x_t + (1 - alpha * gain) * (2 * p - 1)
    slope = gain + (1 - alpha * gain) * 2 * p * (1 - p) * 2 * alpha / total
    q2 = variance * sigma**2 / (alpha**2 * variance + sigma**2)
    r = y - x_hat
    corrected = x_hat + sigma**2 / alpha * slope * r / (q2 + noise**2)
    return x_hat, corrected, -0.5 * r**2 / (q2 + noise**2)


def test_weights_of_two_modes_by_hand():
    """Two steps of three particles: w = p(x_s | x_t) twist(x_s) / (q(x_s | x_t) twist(x_t)), and nothing resampled."""
    prior, y, noise, variance, (t, s, u) = two_modes(), 0.6, 0.3, 0.3, (0.4, 0.3, 0.2)
    method = TDS(particles=3, twist=PiGDM(variance=variance, clip=False), threshold=0.0)
    run = bound(method, prior, torch.full((1, 1, 1), y), 3, noise, DDPM())
    schedule = prior.schedule
    x_t = torch.tensor([-0.8, 0.1, 1.4]).reshape(3, 1, 1, 1)
    x_s = run.step(x_t, t, s)

    (a_t, g_t), (a_s, g_s) = schedule(t), schedule(s)
    std = g_s * math.sqrt(1 - (a_t * g_s / (a_s * g_t)) ** 2)
    kept = g_s**2 * a_t / (a_s * g_t**2)
    first, second = [], []
    for before, after in zip(x_t.flatten().tolist(), x_s.flatten().tolist(), strict=True):
        x_hat, corrected, log_twist = by_hand(before, a_t, g_t, y, noise, variance)
        p, q = (
            Normal(kept * before + (a_s - kept * a_t) * mean, std).log_prob(torch.tensor(after))
            for mean in (x_hat, corrected)
        )
        first.append(log_twist)
        second.append(float(p - q) + by_hand(after, a_s, g_s, y, noise, variance)[2])
    weights = torch.tensor(first).softmax(0)
    expected = float(1 / weights.square().sum())
    assert float(run.report()["effective_sample_size"]) == pytest.approx(expected, rel=1e-5)
    assert 1.05 < expected < 2.95

    run.step(x_s, s, u)
    weights = torch.tensor(second).softmax(0)
    assert float(run.report()["effective_sample_size"]) == pytest.approx(
        float(1 / weights.square().sum()), rel=1e-4
    )


# ------------------------------------------------------------------------------ resampling


def weighted(*weights, threshold=0.5):
    """A run whose pictures have these weights of their particles."""
    weights = torch.tensor(weights)
    pictures, particles = weights.shape
    method = TDS(particles=particles, twist="pigdm", threshold=threshold)
    run = bound(method, two_modes(), torch.zeros(1, 1, 1), pictures * particles)
    run._log_weight = weights.log()
    return run


def test_systematic_resampling_keeps_counts_and_order():
    shares = torch.tensor([0.05, 0.42, 0.13, 0.0, 0.4])
    run, total, rounds = weighted(shares.tolist()), torch.zeros(5), 1000
    for k in range(rounds):
        chosen = run._systematic(torch.tensor([(k + 0.5) / rounds]), 5)[0]
        assert bool((chosen.diff() >= 0).all())
        counts = chosen.bincount(minlength=5)
        assert bool((counts >= (5 * shares - 1e-6).floor()).all())
        assert bool((counts <= (5 * shares + 1e-6).ceil()).all())
        total += counts
    torch.testing.assert_close(total / rounds, 5 * shares, atol=2e-3, rtol=0)
    assert run._systematic(torch.tensor([1.0]), 5).max() == 4  # A uniform number may round to 1.


def test_only_pictures_that_need_it_are_resampled_and_each_from_its_own():
    run = weighted([0.0, 0.0, 1.0, 0.0], [0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.4, 0.3, 0.2, 0.1])
    order = run._resampled()
    assert order.tolist() == [2] * 4 + [4, 5, 6, 7] + [8] * 4 + [12, 13, 14, 15]
    assert run.report()["effective_sample_size"].tolist() == pytest.approx([1, 4, 1, 1 / 0.3])
    # Those that were have equal weights, the others the weights they had.
    torch.testing.assert_close(
        run._log_weight.softmax(1), torch.tensor([[0.25] * 4, [0.25] * 4, [0.25] * 4, [0.4, 0.3, 0.2, 0.1]])
    )
    assert run._resampled() is None


def test_the_result_is_a_particle_drawn_by_its_weight():
    shares, pictures = [0.1, 0.6, 0.3], 20_000
    run = weighted(*([shares] * pictures))
    x = torch.arange(3.0).repeat(pictures).reshape(-1, 1, 1, 1)
    picked = run.finish(x).flatten()
    assert len(picked) == pictures
    found = picked.long().bincount(minlength=3) / pictures
    torch.testing.assert_close(found, torch.tensor(shares), atol=4 * 0.5 / pictures**0.5, rtol=0)


# ------------------------------------------------------------------------------ posteriors


def share_of_the_right(x):
    return float((x[:, 0, 0, 0] > 0).float().mean())


def test_particles_make_up_for_a_bad_twist():
    """PiGDM with a variance a hundredth of the prior's is far too sure of the measurement."""
    prior, y, noise = two_modes(), torch.full((1, 1, 1), -0.1), 0.6
    exact = prior.posterior(y, Identity(), noise)
    expected = float(exact.weights[1])
    twist, errors = PiGDM(variance=0.01, clip=False), []
    for particles in (1, 4, 64):
        method, draws = TDS(particles=particles, twist=twist), 3000
        out = draw(method, prior, y, Identity(), draws * particles, (1, 1, 1), noise=noise, steps=40)
        assert out.shape == (draws, 1, 1, 1)
        errors.append(abs(share_of_the_right(out) - expected))
    assert 0.2 < expected < 0.8
    assert errors[0] > 0.1
    assert errors[1] < errors[0]
    assert errors[2] < 0.035  # of which chance: .009


def test_four_modes_in_two_dimensions():
    """One pixel is measured, badly: the shares of all modes are known from the exact posterior."""
    means = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]]).reshape(4, 1, 1, 2)
    prior = GaussianMixturePrior(torch.tensor([0.1, 0.2, 0.3, 0.4]), means, 0.05)
    y, noise, draws = torch.tensor([[[-0.1, 0.0]]]), 0.6, 2000
    operator = Mask(torch.tensor([[1.0, 0.0]]))
    expected = prior.posterior(y, operator, noise).weights

    def distance(particles):
        method = TDS(particles=particles, twist=PiGDM(variance=0.01, clip=False))
        out = draw(method, prior, y, operator, draws * particles, (1, 1, 2), noise=noise, steps=40)
        index = 2 * (out[:, 0, 0, 0] > 0).long() + (out[:, 0, 0, 1] > 0).long()
        return float((index.bincount(minlength=4) / draws - expected).abs().sum() / 2)

    few, many = distance(1), distance(32)
    assert few > 0.06
    assert many < 0.04
    assert many < few / 2


@pytest.mark.parametrize("twist", ["mmps", "pigdm", "tmpd", "dps"])
def test_any_guided_method_will_do_for_a_twist(twist):
    prior, y, noise = two_modes(0.1), torch.full((1, 1, 1), 0.2), 0.5
    exact = prior.posterior(y, Identity(), noise)
    out = draw(
        TDS(particles=16, twist=twist), prior, y, Identity(), 16 * 2000, (1, 1, 1), noise=noise, steps=40
    )
    assert share_of_the_right(out) == pytest.approx(float(exact.weights[1]), abs=0.04)
    assert float(out.mean()) == pytest.approx(float(exact.mean), abs=0.09)
    assert float(out.var()) == pytest.approx(float(exact.variance), rel=0.15)


class Apart(OneStream):
    """Noise of pictures alone: TDS's single numbers come from elsewhere."""

    def normal(self, shape):
        return torch.zeros(self.count, 1) if tuple(shape) == (1,) else super().normal(shape)


@pytest.mark.parametrize(
    # Of few numbers, TDS solves MMPS's equation directly; and a twist knows no earlier step.
    "twist",
    [MMPS(iterations=30, tolerance=1e-6), PiGDM(), TMPD(), DPS(quasi_newton=False)],
    ids=lambda m: m.name,
)
def test_a_single_particle_is_the_twists_own_run(twist):
    prior, y = smooth_prior(), torch.rand(1, 4, 4)
    results = []
    for method in (TDS(particles=1, twist=twist), twist):
        problem = problem_for(y, Blur(gaussian_kernel(0.8, 3)), 5, (1, 4, 4), 0.1, Apart(5))
        run = method.bind(prior, problem, DPMSolver(1.0), 10)
        results.append(sampling_loop(run, lambda: None, lambda *_: None))
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)


def test_a_measurement_that_is_nothing_but_noise_leaves_the_prior():
    prior, draws = two_modes(0.1), 4000
    y = torch.full((1, 1, 1), 3e3)
    out = draw(TDS(particles=4), prior, y, Identity(), 4 * draws, (1, 1, 1), noise=1e4, steps=40)
    assert share_of_the_right(out) == pytest.approx(0.7, abs=4 * 0.46 / draws**0.5 + 0.01)
    assert float(out.var()) == pytest.approx(float(prior.distribution.variance), rel=0.08)


def test_a_measurement_without_noise_is_met():
    """Of a mask, and few numbers: S has no inverse where nothing is measured."""
    prior = smooth_prior()
    kept = Mask(torch.eye(4))
    y = kept(prior.distribution.sample(1, seed=3))[0]
    exact = prior.posterior(y, kept, 0.0)
    sizes = []
    problem = problem_for(y.float(), kept, 8 * 400, (1, 4, 4), 0.0, OneStream(8 * 400))
    run = TDS(particles=8, twist=MMPS(iterations=16)).bind(prior, problem, None, 30)
    out = sampling_loop(run, lambda: None, lambda *_: sizes.append(run.report()["effective_sample_size"]))
    measured = kept.mask.bool().expand_as(out)
    assert float((out - y)[measured].abs().max()) < 1e-3
    error = (out.mean(0) - exact.mean)[~measured[0]] / 0.2
    assert float(error.square().mean().sqrt()) < 0.06
    # A Gaussian's twist is exact: weights hardly differ but for the size of the steps.
    assert bool(torch.isfinite(torch.stack(sizes)).all())
    assert float(torch.stack(sizes).mean()) > 4


@pytest.mark.slow
def test_tds_draws_from_the_posterior():
    """The figures of the issue, on the three problems of `restore benchmark --posterior`."""
    errors = []
    for seed in range(3):
        known = correlated_gaussian(seed)
        out = draw(
            TDS(particles=2, twist=MMPS(iterations=10, tolerance=0.01)),
            known.prior,
            known.y,
            known.operator,
            2 * 1500,
            (1, 8, 8),
            noise=known.noise,
            steps=50,
        )
        errors.append(moment_errors(known, out))
    mean_measured, mean_missing, *ratios = torch.tensor(errors).mean(0).tolist()
    assert mean_measured <= 0.02
    assert mean_missing <= 0.03
    assert all(0.95 <= ratio <= 1.05 for ratio in ratios)


# ------------------------------------------------------------------------------ in a batch


#: The weights of particles make up to 4e-4 of float32's rounding, which differs with a batch's size and the processor;
#: another particle would be another by .1.
ROUNDING = 1e-3


def solved(y, noise, seed, **options):
    return restore.solve(
        y,
        Identity(),
        TDS(particles=5, twist=PiGDM(variance=0.05)),
        prior=GaussianMixturePrior(torch.tensor([0.3, 0.7]), POINTS.expand(2, 1, 2, 2), 0.04),
        noise=noise,
        steps=10,
        seed=seed,
        progress=False,
        **options,
    )


def test_a_result_does_not_depend_on_batch_samples_or_parts(monkeypatch):
    y, noise, seeds = torch.randn(3, 1, 2, 2), [0.4, 0.8, 0.2], [7, 8, 9]
    together = solved(y, noise, seeds, samples=3)
    for i in range(3):
        alone = solved(y[i], noise[i], seeds[i], samples=1)
        torch.testing.assert_close(together[0, i], alone[0], atol=ROUNDING, rtol=0)
    # Two draws, of five particles and four pixels, at once; of a closed form, four times as many as of a network.
    monkeypatch.setitem(restore.memory.PIXELS_AT_ONCE, "cpu", 10)
    states = []
    parts = solved(y, noise, seeds, samples=3, callback=states.append)
    torch.testing.assert_close(parts, together, atol=ROUNDING, rtol=0)
    assert [state.draws for state in states[::10]] == [range(i, min(i + 2, 9)) for i in range(0, 9, 2)]


def test_callbacks_are_told_the_effective_sample_size():
    states = []
    y = torch.tensor([-3.0, 0.2]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    solved(y, 0.2, 0, callback=states.append)
    assert len(states) == 10
    sizes = torch.stack([state.details["effective_sample_size"] for state in states])
    assert sizes.shape == (10, 2)
    assert bool(((sizes >= 1 - 1e-5) & (sizes <= 5 + 1e-5)).all())
    assert float(sizes.min()) < 4.5
    assert not torch.equal(sizes[:, 0], sizes[:, 1])
    assert states[0].x.shape == (10, 1, 2, 2)  # five particles of two pictures


@pytest.mark.parametrize("twist", ["mmps", "dps", "tmpd", "pigdm"])
def test_particles_in_parts_are_the_particles_at_once(twist, monkeypatch):
    """Five particles of two pictures, three at a time: parts end within a picture, and noise levels follow."""
    y, batches = torch.tensor([-0.4, 0.2]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2), []
    prior = GaussianMixturePrior(torch.tensor([0.3, 0.7]), POINTS.expand(2, 1, 2, 2), 0.04)
    whole = type(prior).__call__
    monkeypatch.setattr(
        type(prior), "__call__", lambda self, x, t: batches.append(len(x)) or whole(self, x, t)
    )

    def results():
        batches.clear()
        options = {"prior": prior, "noise": [0.5, 0.9], "steps": 8, "seed": 0, "progress": False}
        return restore.solve(y, Identity(), TDS(particles=5, twist=twist), **options)

    together = results()
    assert set(batches) == {10}
    monkeypatch.setitem(restore.memory.PIXELS_AT_ONCE, "cpu", 3)  # states of four pixels, of a closed form
    parts = results()
    assert set(batches) == {3, 2}
    torch.testing.assert_close(parts, together, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(("twist", "passes"), [("dps", 1), ("pigdm", 1), ("tmpd", 2), ("mmps", 4)])
def test_a_twist_is_differentiated_once_for_both_proposal_and_weight(twist, passes, monkeypatch):
    """Of a measurement of four numbers: what MMPS needs for its density solves its equation, too."""
    backwards, grad = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: backwards.append(1) or grad(*a, **k))
    prior, y = smooth_prior(), torch.rand(1, 4, 4)
    kept = Mask(torch.eye(4))
    options = {"operator": Downsample(2, image_size=(4, 4))} if twist == "mmps" else {"operator": kept}
    y = options["operator"](y[None])[0]
    bound(TDS(particles=2, twist=twist), prior, y, 2, shape=(1, 4, 4), **options).step(
        torch.randn(2, 1, 4, 4), 0.5, 0.4
    )
    assert len(backwards) == passes


def test_particles_that_are_of_no_use_are_told_of_once(monkeypatch):
    monkeypatch.setitem(restore.memory.PIXELS_AT_ONCE, "cpu", 4)  # a draw at a time
    prior, options = smooth_prior(), {"steps": 6, "seed": 0, "samples": 3, "progress": False}
    bad = PiGDM(
        variance=1e-4, clip=False
    )  # far too sure of itself, so that the weights have much to make up for
    with pytest.warns(QualityWarning) as caught:
        restore.solve(
            10 * torch.rand(1, 4, 4),
            Identity(),
            TDS(particles=4, twist=bad),
            prior=prior,
            noise=0.01,
            **options,
        )
    (message,) = [str(w.message) for w in caught if w.category is QualityWarning]
    assert "one of the 4 particles of a draw had nearly all the weight" in message
    assert "method='pigdm'" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error", QualityWarning)
        restore.solve(torch.rand(1, 4, 4), Identity(), TDS(particles=4), prior=prior, noise=0.5, **options)


def test_labels_follow_their_particles():
    network = ProbeNetwork(1)
    prior = Prior(network, Schedule.linear(), channels=1).with_labels([3, 7])
    restore.solve(
        torch.rand(2, 1, 4, 4),
        Identity(),
        TDS(particles=3, twist="pigdm"),
        prior=prior,
        noise=0.1,
        steps=4,
        samples=2,
        seed=0,
        progress=False,
    )
    assert len(network.seen) == 4
    assert all(seen.labels.tolist() == [3, 3, 3, 7, 7, 7] * 2 for seen in network.seen)


# ------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("twist", ["ddnm", "sdedit", DDNM(), TDS()], ids=str)
def test_a_twist_that_is_no_guided_method_is_refused(twist):
    with pytest.raises(
        TypeError,
        match=r"a twist is a guided method \(mmps, pigdm, tmpd, or dps without zeta and quasi_newton\), not",
    ):
        TDS(twist=twist)


@pytest.mark.parametrize(
    "options", [{"particles": 0}, {"threshold": 2.0}, {"threshold": -0.1}, {"threshold": float("nan")}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"a whole number of at least 1 and threshold in \[0, 1\], not"):
        TDS(**options)


@pytest.mark.parametrize("sampler", ["dpm++", "ddim", DDIM(0.0)])
def test_a_sampler_without_noise_has_no_densities_to_weigh_by(sampler):
    prior = PixelPrior()
    with pytest.raises(ValueError, match=r"its sampler needs fresh noise, such as DPMSolver\(eta=1.0\)"):
        restore.solve(
            torch.zeros(1, 2, 2),
            Identity(),
            "tds",
            prior=prior,
            noise=0.1,
            steps=5,
            sampler=sampler,
            progress=False,
        )
    assert prior.calls == 0


def test_an_operator_that_is_not_linear_is_refused_and_dps_named():
    prior = PixelPrior()
    with pytest.raises(ValueError, match=r"tds needs a linear operator.*dps"):
        restore.solve(
            torch.zeros(1, 2, 2), restore.FromCallable(torch.sin), "tds", prior=prior, progress=False
        )
    assert prior.calls == 0


@pytest.mark.parametrize(
    "twist",
    [DPS(zeta=0.5), DPS(quasi_newton=True), "mcg"],
    ids=["dps with zeta", "dps that learns", "mcg"],
)
def test_a_twist_whose_own_steps_would_be_dropped_is_refused(twist):
    with pytest.raises(TypeError, match="dps without zeta"):
        TDS(twist=twist)
