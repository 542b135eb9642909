"""Priors of colours: exact for a Gaussian, draws of the right moments, the luma kept, and how they are trained."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import restore
from operators import Mask
from restore.benchmark import pictures
from restore.benchmark.runs import fingerprint
from restore.checkpoint import describe_network
from restore.colours import (
    UNKNOWN,
    ColourPrior,
    chroma_of,
    colour_network,
    colour_target,
    luma_of,
    picture_of,
    preconditioned,
)
from restore.data import Crops
from restore.images import write_image
from restore.networks import FoldedUNet, colour_unet, photo_unet, set_dropout
from restore.schedule import Schedule
from restore.training import Trainer, TrainingOptions
from restore.training.loss import colour_loss

DEVIATION = 0.4
SMALL = {"steps": 4, "samples": 2, "seed": 0, "progress": False}


class GaussianColours(nn.Module):
    """The network of a Gaussian of colours, pixel by pixel: mean ``slope * luma + offset``, some covariance."""

    channels, multiple = 3, 1
    slope, offset = torch.tensor([0.5, -0.3]), torch.tensor([0.1, 0.2])
    covariance = torch.tensor([[0.09, 0.03], [0.03, 0.04]])

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, z, step):
        t = (step.double() + 1) / self.schedule.steps
        alpha, sigma = (v.reshape(-1, 1, 1, 1).float() for v in self.schedule(t))
        luma, noisy = z[:, :1], z[:, 1:]
        a, g = (v / ((alpha * DEVIATION) ** 2 + sigma**2).sqrt() for v in (alpha * DEVIATION, sigma))
        mean = (self.slope[:, None, None] * luma + self.offset[:, None, None]) / DEVIATION
        covariance = self.covariance / DEVIATION**2
        gain = torch.stack(
            [
                x * covariance @ torch.linalg.inv(x**2 * covariance + y**2 * torch.eye(2))
                for x, y in zip(a.flatten(), g.flatten(), strict=True)
            ]
        )
        chroma = mean + torch.einsum("ncd,ndhw->nchw", gain, noisy - a * mean)
        return (a * noisy - chroma) / g


@pytest.fixture(scope="module")
def gaussian() -> ColourPrior:
    schedule = Schedule.linear()
    return ColourPrior(GaussianColours(schedule), schedule, deviation=DEVIATION)


@pytest.fixture(scope="module")
def prior() -> ColourPrior:
    torch.manual_seed(0)
    return ColourPrior(colour_unet((8, 8)), Schedule.linear(), deviation=0.3)


# ---------------------------------------------------------------- luma and chroma


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_luma_and_chroma_are_the_picture(batch, height, width, seed):
    x = torch.randn(
        batch, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    luma, chroma = luma_of(x), chroma_of(x - luma_of(x))
    assert torch.allclose(picture_of(luma, chroma), x, atol=1e-6)
    assert torch.allclose(luma_of(picture_of(luma, 3 * chroma)), luma, atol=1e-6)
    weights = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)
    assert torch.allclose(luma, (x * weights).sum(1, keepdim=True), atol=1e-6)


def test_grey_has_no_chroma_and_white_noise_has_white_chroma():
    grey = torch.rand(1, 1, 4, 4).repeat(1, 3, 1, 1)
    assert chroma_of(grey - luma_of(grey)).abs().max() < 1e-6
    noise = torch.randn(1, 3, 300, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    covariance = torch.cov(chroma_of(noise).flatten(2)[0])
    assert torch.allclose(covariance, torch.eye(2, dtype=torch.float64), atol=0.02)
    # And it is independent of the noise's part along the weights of the luma, which the prior leaves out.
    assert torch.cov(torch.cat([luma_of(noise), chroma_of(noise)], 1).flatten(2)[0])[0, 1:].abs().max() < 0.02


# ---------------------------------------------------------------- the estimate


@pytest.mark.parametrize("step", [1, 40, 300, 999])
def test_the_estimate_is_the_exact_posterior_mean(gaussian, step):
    """Of a Gaussian of colours, by linear algebra from the joint covariance of picture, state and luma."""
    schedule, network = gaussian.schedule, gaussian.network
    alpha, sigma = schedule(step / 1000)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    axes = chroma_of(torch.eye(3, dtype=torch.float64).reshape(3, 3, 1, 1))[..., 0, 0].mT
    # x = luma (1, 1, 1) + axes^T c, with luma ~ N(0.2, 0.5^2) and c given luma as the network has it.
    along = torch.ones(3, dtype=torch.float64) + axes.mT @ network.slope.double()
    mean = 0.2 * along + axes.mT @ network.offset.double()
    covariance = 0.25 * torch.outer(along, along) + axes.mT @ network.covariance.double() @ axes
    measure = torch.cat([alpha * torch.eye(3, dtype=torch.float64), weights[None]])
    noise = torch.diag(torch.tensor([sigma**2] * 3 + [0.0], dtype=torch.float64))
    x_0 = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    seen = measure @ x_0 + torch.tensor([0.7, -1.1, 0.4, 0.0], dtype=torch.float64) * sigma
    gain = covariance @ measure.mT @ torch.linalg.inv(measure @ covariance @ measure.mT + noise)
    want = mean + gain @ (seen - measure @ mean)
    got = gaussian.given(seen[3].reshape(1, 1, 1, 1).float())(
        seen[:3].reshape(1, 3, 1, 1).float(), step / 1000
    )
    assert torch.allclose(got.flatten().double(), want, atol=2e-4)


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(5, 40), st.integers(5, 40), st.floats(0.01, 1))
def test_every_estimate_has_the_luma(prior, batch, height, width, t):
    luma = torch.rand(batch, 1, height, width) * 2 - 1
    x_hat = prior.given(luma)(torch.randn(batch, 3, height, width), t)
    assert x_hat.shape == (batch, 3, height, width)
    assert torch.allclose(luma_of(x_hat), luma, atol=1e-4)


def test_the_state_counts_by_its_chroma_alone(prior):
    x_t, bound = torch.randn(1, 3, 16, 16), prior.given(torch.zeros(1, 1, 16, 16))
    along = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)
    assert torch.allclose(bound(x_t + 5 * along, 0.5), bound(x_t, 0.5), atol=1e-4)
    assert not torch.allclose(
        bound(x_t + torch.tensor([1.0, -1.0, 0.0]).reshape(3, 1, 1), 0.5), bound(x_t, 0.5)
    )


def test_times_may_differ_and_gradients_flow(prior):
    luma = torch.rand(2, 1, 16, 16)
    x_t = torch.randn(2, 3, 16, 16, requires_grad=True)
    both = prior.given(luma)(x_t, torch.tensor([0.2, 0.7]))
    each = [prior.given(luma[i : i + 1])(x_t[i : i + 1], t) for i, t in enumerate((0.2, 0.7))]
    assert torch.allclose(both, torch.cat(each), atol=1e-5)
    assert torch.autograd.grad(both.sum(), x_t)[0].isfinite().all()


def test_guidance_moves_away_from_what_is_likely_without_the_luma(prior):
    luma, x_t = torch.rand(2, 1, 16, 16), torch.randn(2, 3, 16, 16)
    plain, strong = prior.given(luma)(x_t, 0.6), prior.with_guidance(1.5).given(luma)(x_t, 0.6)
    # An unknown luma is shown as a number; what is estimated has the luma that was given all the same.
    unknown = prior.given(luma)
    unknown.luma = torch.full_like(luma, UNKNOWN)
    blind = unknown(x_t - prior.schedule(0.6)[0] * (luma - UNKNOWN), 0.6)
    assert torch.allclose(strong, plain + 1.5 * (plain - (blind - UNKNOWN + luma)), atol=1e-4)
    assert not torch.allclose(strong, plain, atol=1e-3)
    assert prior.guidance == 0
    assert (prior.evaluations, prior.with_guidance(1.5).evaluations) == (1, 2)


@given(st.floats(1e-3, 1), st.floats(1e-3, 2), st.floats(0.01, 2))
def test_what_the_network_is_shown_has_variance_one(alpha, sigma, deviation):
    chroma = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    z, a, g = preconditioned(chroma[:, :1], (alpha * deviation + sigma) * chroma, alpha, sigma, deviation)
    assert a**2 + g**2 == pytest.approx(1)
    assert float(z[0, 1]) == pytest.approx(a + g)


def test_autocast_of_the_caller_leaves_the_luma(gaussian):
    luma, x_t = torch.rand(1, 1, 8, 8), torch.randn(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = gaussian.given(luma)(x_t, 0.5)
    assert torch.allclose(luma_of(inside), luma, atol=1e-6)


def test_other_precisions(prior):
    luma, x_t = torch.rand(1, 1, 16, 16), torch.randn(1, 3, 16, 16)
    plain = prior.given(luma)(x_t, 0.5)
    for other in (prior.with_dtype("bfloat16"), prior.with_autocast("bfloat16")):
        x_hat = other.given(luma)(x_t, 0.5)
        assert x_hat.dtype == torch.float32
        assert 0 < (x_hat - plain).abs().max() < 0.05
        assert torch.allclose(luma_of(x_hat), luma, atol=1e-5)


def test_one_for_a_class_is_refused():
    config = {**colour_unet((8, 8)).config["config"], "num_class_embeds": 3}
    with pytest.raises(ValueError, match="not for a class as well"):
        ColourPrior(FoldedUNet(config, fold=2), Schedule.linear())


# ---------------------------------------------------------------- draws


@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 1000), ("ddim", 300), ("dpm++", 300)])
def test_draws_have_the_moments_of_the_gaussian(gaussian, sampler, steps):
    luma = torch.full((1, 1, 60, 60), -0.4)
    drawn = restore.sample(
        gaussian.given(luma), (4, 3, 60, 60), steps=steps, sampler=sampler, seed=0, progress=False
    )
    chroma = chroma_of(2 * drawn - 1 - luma).double()
    want = -0.4 * gaussian.network.slope + gaussian.network.offset
    # Draws leave [-1, 1] and are clipped there; few do, of these.
    assert torch.allclose(chroma.mean((0, 2, 3)), want.double(), atol=0.02)
    covariance = torch.cov(chroma.movedim(1, 0).flatten(1))
    assert torch.allclose(covariance, gaussian.network.covariance.double(), rtol=0.1, atol=0.004)


def test_known_colours_are_a_measurement_like_any_other(prior):
    """Colours for a luma that agree with some that are known."""
    truth = torch.rand(1, 3, 16, 16)
    known = torch.zeros(16, 16, dtype=torch.bool)
    known[4:8, 4:8] = True
    bound = prior.given(2 * luma_of(truth) - 1)
    x = restore.solve(truth * known, Mask(known), "ddnm", prior=bound, steps=5, seed=0, progress=False)
    assert torch.allclose(x[..., 4:8, 4:8], truth[..., 4:8, 4:8], atol=1e-4)


def test_a_picture_is_the_same_in_any_batch(prior):
    grey = np.random.default_rng(0).random((3, 40, 32, 1)).astype(np.float32)
    together = restore.colorize(grey, prior=prior, seed=[1, 2, 3], steps=3, draws=2, progress=False)
    alone = restore.colorize(grey[1, ..., 0], prior=prior, seed=2, steps=3, draws=2, progress=False)
    assert np.allclose(together[1], alone, atol=1e-4)


# ---------------------------------------------------------------- colorize


def test_grey_pictures_get_colours_of_their_luma(prior):
    grey = np.linspace(20, 230, 100 * 130).reshape(100, 130).astype(np.uint8)
    drawn = restore.colorize(grey, prior=prior, **SMALL)
    assert drawn.shape == (2, 100, 130, 3)
    assert drawn.dtype == np.uint8
    luma = drawn @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma - grey).max() < 0.6  # Rounding of three channels.
    assert np.abs(drawn[0].astype(float) - drawn[1]).mean() > 1


def test_colours_are_found_at_the_size_that_is_asked_for(prior):
    seen = []
    restore.colorize(
        np.full((200, 260), 99, np.uint8),
        prior=prior,
        callback=lambda state: seen.append(tuple(state.x.shape[-2:])),
        **SMALL,
    )
    restore.colorize(
        np.full((200, 260), 99, np.uint8),
        prior=prior,
        working_size=32,
        callback=lambda state: seen.append(tuple(state.x.shape[-2:])),
        **SMALL,
    )
    assert set(seen[:4]) == {(64, 84)}
    assert set(seen[4:]) == {(32, 40)}


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda p: restore.sample(p, (1, 3, 16, 16), progress=False), ValueError, r"say prior.given\(luma\)"),
        (
            lambda p: restore.solve(
                torch.rand(1, 3, 16, 16), Mask(torch.ones(16, 16)), prior=p, progress=False
            ),
            ValueError,
            "restore.colorize",
        ),
        (
            lambda p: p.given(torch.rand(16, 16)),
            ValueError,
            r"expected a luma \(B, 1, H, W\), got \(16, 16\)",
        ),
        (lambda p: p.given(torch.rand(1, 3, 16, 16)), ValueError, r"got \(1, 3, 16, 16\)"),
        (
            lambda p: p.given(torch.rand(1, 1, 16, 16))(torch.rand(1, 3, 16, 24), 0.5),
            ValueError,
            r"a luma of shape \(1, 1, 16, 16\)",
        ),
        (
            lambda p: restore.sample(p.given(torch.rand(2, 1, 16, 16)), (3, 3, 16, 16), progress=False),
            ValueError,
            "2 lumas for 3 images",
        ),
        (
            lambda p: restore.colorize(np.zeros((16, 16)), method="dps", prior=p),
            ValueError,
            "whose draws need no method: leave out 'dps'",
        ),
        (
            lambda p: restore.colorize(np.zeros((16, 16)), draws=2, samples=3, prior=p, progress=False),
            ValueError,
            r"draws=2 \(--draws\) is of how many draws one picture is made, samples=3 .* give one of the two",
        ),
        (
            lambda p: restore.colorize(np.zeros((16, 16)), draws=0, prior=p, progress=False),
            ValueError,
            "draws must be a whole number of at least 1, not 0",
        ),
        (lambda p: p.with_guidance(-1), ValueError, "guidance is a number from 0 to 1e.06, not -1"),
        (lambda p: p.with_spectrum(restore.load_prior("photo").spectrum), ValueError, "knows of no luma"),
        (
            lambda p: p.given(np.zeros((1, 1, 16, 16))),
            TypeError,
            "tensor of floats in .-1.0, 1.0., not ndarray",
        ),
        (lambda p: p.given(torch.zeros(1, 1, 4, 4, dtype=torch.uint8)), TypeError, "not torch.uint8"),
        (lambda p: p.given(torch.full((1, 1, 4, 4), 90.0)), ValueError, "this one goes from 90 to 90"),
        (lambda p: p.given(torch.full((1, 1, 4, 4), float("nan"))), ValueError, "from nan to nan"),
        (
            lambda p: restore.colorize(np.zeros((16, 16)), noise=0.1, prior=p, progress=False),
            ValueError,
            "leave out the noise",
        ),
        (lambda p: p.save("nowhere", format="diffusers"), ValueError, "no pipeline for a prior of colours"),
        (
            lambda p: ColourPrior(p.network, p.schedule, deviation=0.0),
            ValueError,
            "deviation is the root mean square",
        ),
        (
            lambda p: ColourPrior(photo_unet((8, 8)), p.schedule, deviation=0.3),
            ValueError,
            "takes 3 channels and returns 2",
        ),
    ],
)
def test_what_cannot_be_is_refused(prior, act, error, message):
    with pytest.raises(error, match=message):
        act(prior)


# ---------------------------------------------------------------- training, and files


def crops(count: int = 4, size: int = 16) -> Crops:
    generator = np.random.default_rng(0)
    return Crops.from_arrays([generator.integers(0, 255, (24, 24, 3), np.uint8) for _ in range(count)], size)


def test_the_target_is_what_the_estimate_undoes():
    """With the ``v`` of training in the network's place, the prior's estimate is the clean picture."""
    x_0 = torch.rand(3, 3, 8, 8) * 2 - 1
    schedule = Schedule.linear()
    for t in (0.001, 0.2, 0.9, 1.0):
        alpha, sigma = (torch.full((3,), value) for value in schedule(t))
        noise = torch.randn(3, 3, 8, 8)
        z, v = colour_target(x_0, chroma_of(noise), alpha, sigma, 0.3)

        class Known(nn.Module):
            channels, multiple = 3, 1

            def forward(self, seen, step, z=z, v=v):
                assert torch.allclose(seen, z, atol=1e-4)
                return v

        bound = ColourPrior(Known(), schedule, deviation=0.3).given(luma_of(x_0))
        x_t = alpha[0] * x_0 + sigma[0] * noise
        assert torch.allclose(bound(x_t, t), x_0, atol=1e-3)


def test_the_loss_is_least_for_the_exact_network(gaussian, monkeypatch):
    """Of all multiples of the exact answer of a Gaussian, for pictures of that Gaussian."""
    monkeypatch.setattr("restore.training.loss.BLIND", 0.0)
    network, schedule = gaussian.network, gaussian.schedule
    luma = torch.rand(256, 1, 6, 6) - 0.5
    chroma = network.slope[:, None, None] * luma + network.offset[:, None, None]
    chroma = chroma + torch.einsum(
        "cd,ndhw->nchw", torch.linalg.cholesky(network.covariance), torch.randn(256, 2, 6, 6)
    )
    x_0 = picture_of(luma, chroma)

    def loss(factor: float) -> float:
        return float(
            colour_loss(
                lambda z, step: factor * network(z, step),
                x_0,
                schedule,
                torch.Generator().manual_seed(0),
                deviation=DEVIATION,
            )
        )

    assert loss(1.0) < min(loss(0.9), loss(1.1), loss(0.0))


def test_some_pictures_are_shown_without_their_luma():
    seen = []

    def network(z, step):
        seen.append(z)
        return z[:, 1:]

    colour_loss(network, torch.rand(400, 3, 2, 2), Schedule.linear(), deviation=0.3)
    blind = (seen[0][:, 0] == UNKNOWN).flatten(1)
    assert (blind.all(1) | ~blind.any(1)).all()
    assert 0.08 < float(blind.float().mean()) < 0.22


def test_training_makes_a_prior_of_colours_that_resumes_exactly(tmp_path):
    options = {
        "batch": 4,
        "crop": 16,
        "colours": True,
        "dropout": 0.2,
        "validate_every": 2,
        "sample_every": 4,
    }

    def trainer(out, **more):
        torch.manual_seed(0)  # For the first weights; what else a program draws does not matter.
        chosen = TrainingOptions(steps=4, save_every=2, **options)
        return Trainer(colour_unet((8, 8)), crops(), out, chosen, validation=crops(2), progress=False, **more)

    whole = trainer(tmp_path / "a").run()
    assert isinstance(whole, ColourPrior)
    assert (tmp_path / "a" / "samples" / "0000004.png").is_file()
    loaded = restore.load_prior(tmp_path / "a")
    assert isinstance(loaded, ColourPrior)
    assert (loaded.deviation, loaded.size, loaded.guidance) == (whole.deviation, 16, 0)
    x_t, luma = torch.randn(1, 3, 16, 16), torch.rand(1, 1, 16, 16)
    assert torch.equal(loaded.given(luma)(x_t, 0.5), whole.given(luma)(x_t, 0.5))
    trainer(tmp_path / "b").run(until=2)
    second = trainer(tmp_path / "b", resume=True)
    torch.manual_seed(7)
    resumed = second.run()
    for one, other in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_prior_is_the_same_when_it_was_saved(prior, tmp_path):
    again = restore.load_prior(prior.with_guidance(0.7).save(tmp_path))
    assert isinstance(again, ColourPrior)
    assert again.guidance == 0.7
    assert "no luma yet, guidance 0.7" in repr(again)
    luma, x_t = torch.rand(1, 1, 16, 16), torch.randn(1, 3, 16, 16)
    assert torch.equal(again.given(luma)(x_t, 0.3), prior.with_guidance(0.7).given(luma)(x_t, 0.3))


def test_what_others_call_colours_in_a_description_is_no_prior_of_colours(tmp_path):
    plain = restore.Prior(photo_unet((8, 8)), Schedule.linear(), config={"colours": "many"})
    again = restore.load_prior(plain.save(tmp_path))
    assert type(again) is restore.Prior
    assert again.config["colours"] == "many"


def test_dropout_is_of_the_training_alone(tmp_path):
    def trained(dropout):
        torch.manual_seed(0)
        options = TrainingOptions(steps=1, batch=2, crop=16, colours=True, dropout=dropout, validate_every=0)
        return Trainer(colour_unet((8, 8)), crops(), tmp_path / str(dropout), options, progress=False).run()

    weights = [next(trained(p).network.parameters()) for p in (0.0, 0.5)]
    assert not torch.equal(*weights)
    bound = trained(0.25).given(torch.rand(1, 1, 16, 16))
    x_t = torch.randn(1, 3, 16, 16)
    assert torch.equal(bound(x_t, 0.5), bound(x_t, 0.5))


def test_the_benchmark_runs_colours_alone(prior, tmp_path):
    write_image(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    specs = ["nothing", "dps", "colorize:method=dps,draws=1", "colorize:steps=2,draws=2"]
    options = {"size": 32, "progress": False}
    results = pictures(tmp_path, prior.with_guidance(1.0), specs, ["colour", "x4"], **options)
    assert [(r.task, r.method, r.calls) for r in results] == [
        ("colour", "nothing", 0),
        ("colour", "colorize:steps=2,draws=2", 8),
    ]
    (one,) = pictures(tmp_path, prior, ["default"], ["colour", "x4"], **options)
    assert (one.method, one.calls) == ("colorize", 320)
    assert fingerprint(prior) != fingerprint(prior.with_guidance(1.0))


def test_training_learns_colours_that_follow_from_the_luma(tmp_path):
    """Bright is yellow and dark is blue: after some updates, the estimate at pure noise says so."""
    ramp = np.linspace(0, 255, 24)
    picture = np.stack([ramp, ramp, 255 - ramp], -1)[None].repeat(24, 0).astype(np.uint8)
    torch.manual_seed(0)
    options = TrainingOptions(
        steps=150,
        batch=8,
        crop=16,
        colours=True,
        learning_rate=3e-3,
        warmup=5,
        ema=0.9,
        validate_every=0,
        sample_every=0,
    )
    data = Crops.from_arrays([picture], 16)
    prior = Trainer(colour_unet((16, 16)), data, tmp_path, options, progress=False).run()
    x_0 = data.batch(8, torch.Generator().manual_seed(3))
    x_hat = prior.given(luma_of(x_0))(torch.randn(x_0.shape), 1.0)
    grey = luma_of(x_0).repeat(1, 3, 1, 1)
    assert (x_hat - x_0).square().mean() < 0.1 * (grey - x_0).square().mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colours": True, "spectrum": True}, "choose one of them"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**options)


def test_grey_crops_and_networks_without_blocks_are_refused(tmp_path):
    grey = Crops.from_arrays([np.zeros((24, 24, 1), np.uint8)], 16)
    with pytest.raises(ValueError, match="no colours to train"):
        Trainer(colour_unet((8, 8)), grey, tmp_path, TrainingOptions(colours=True))
    ramp = np.linspace(0, 255, 24 * 24).reshape(24, 24, 1).repeat(3, 2).astype(np.uint8)
    with pytest.raises(ValueError, match="the pictures are grey"):
        Trainer(colour_unet((8, 8)), Crops.from_arrays([ramp], 16), tmp_path, TrainingOptions(colours=True))
    with pytest.raises(TypeError, match="no residual blocks"):
        set_dropout(nn.Conv2d(3, 3, 1), 0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"deviation": None}, "deviation is a number from 0 to 1e.06, not None"),
        ({"deviation": "much"}, "not 'much'"),
        ({"deviation": True}, "not True"),
        ({"deviation": 0}, "must be above 0"),
        ({"deviation": 10**400}, "deviation is a number"),
        ({"guidance": -1}, "guidance is a number"),
        ({"size": 0}, "size is a number of pixels, not 0"),
        ({"size": 2.5}, "size is a number of pixels, not 2.5"),
        ({"edges": 1}, "edges"),
    ],
)
def test_a_damaged_configuration_is_told(prior, tmp_path, changes, message):
    prior.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["colours"] |= changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        restore.load_prior(tmp_path)


# ------------------------------------------------------------------------------ begun with a prior of pictures


@settings(max_examples=10, deadline=None)
@given(
    fold=st.sampled_from([1, 2, 4]),
    layers=st.integers(1, 2),
    heads=st.sampled_from([None, 2]),
    step=st.integers(0, 999),
)
def test_a_network_of_colours_begins_with_what_one_of_pictures_knows(fold, layers, heads, step):
    torch.manual_seed(step)
    pictures = photo_unet((8, 16), layers, fold=fold, attention=heads is not None).double()
    if heads is not None:
        pictures = FoldedUNet(**{**pictures.config, "heads": heads}).double()
        for name, scale in pictures.named_parameters():
            if "norm_q" in name or "norm_k" in name:
                nn.init.uniform_(scale, 0.5, 2)
    before = {name: value.clone() for name, value in pictures.state_dict().items()}
    luma, chroma = torch.randn(2, 1, 16, 24).double(), torch.randn(2, 2, 16, 24).double()
    steps = torch.full((2,), float(step), dtype=torch.float64)
    colours = colour_network(pictures).double()
    found = colours(torch.cat([luma, chroma], 1), steps)
    assert torch.allclose(found, chroma_of(pictures(picture_of(luma, chroma), steps)), atol=1e-9)
    assert all(torch.equal(value, before[name]) for name, value in pictures.state_dict().items())
    assert describe_network(colours)["config"]["out_channels"] == 2 * fold**2


def test_a_network_of_colours_has_its_queries_and_keys_normalised_where_that_of_pictures_had_not():
    torch.manual_seed(0)
    config = photo_unet((8, 16), attention=True).config
    plain = FoldedUNet(**{**config, "qk_norm": False}).double()
    colours = colour_network(plain)
    assert describe_network(colours)["qk_norm"] is True
    scales = [v for k, v in colours.state_dict().items() if "norm_q" in k or "norm_k" in k]
    assert scales
    assert all(torch.equal(scale, torch.ones_like(scale)) for scale in scales)
    luma, chroma, step = (
        torch.randn(2, 1, 16, 24).double(),
        torch.randn(2, 2, 16, 24).double(),
        torch.tensor([9.0]),
    )
    with torch.no_grad():
        found = colours(torch.cat([luma, chroma], 1), step.double())
        wanted = chroma_of(plain(picture_of(luma, chroma), step.double()))
    assert 1e-6 < float((found - wanted).norm() / wanted.norm()) < 0.5  # Nearly what it was, but not quite.
    for other in (
        photo_unet((8, 16)),
        FoldedUNet(photo_unet((8, 16), attention=True).config["config"], norm="group"),
    ):
        assert "qk_norm" not in describe_network(colour_network(other))


@pytest.mark.parametrize(
    "network", [nn.Conv2d(3, 3, 1), photo_unet((8, 8), image_channels=1), colour_unet((8, 8))]
)
def test_what_cannot_become_a_network_of_colours(network):
    with pytest.raises(TypeError, match=r"photo_unet\(\) for 3 channels; this is a"):
        colour_network(network)


def test_colours_in_other_units_cannot_be_trained_on(tmp_path):
    write_image(
        tmp_path / "photos" / "a.png", np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    )
    start = ColourPrior(colour_unet((8, 8)), Schedule.linear(), deviation=0.6)
    with pytest.raises(ValueError, match=r"has colours in units of 0\.6, and not of 0\.3, which"):
        restore.train(tmp_path / "photos", tmp_path / "out", init=start, colours=True)


def test_training_begins_with_a_prior_of_pictures_or_of_colours(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        write_image(tmp_path / "photos" / f"{number}.png", rng.integers(0, 256, (40, 40, 3), np.uint8))
    restore.Prior(photo_unet((8, 8)), Schedule.cosine(100)).save(tmp_path / "pictures")
    still = {
        "learning_rate": 1e-12,
        "weight_decay": 0.0,
        "steps": 1,
        "batch": 2,
        "crop": 16,
        "progress": False,
    }
    run = {**still, "device": "cpu", "colours": True, "validate_every": 0}
    out = restore.train(tmp_path / "photos", tmp_path / "first", init=tmp_path / "pictures", **run)
    begun = colour_network(restore.load_prior(tmp_path / "pictures").network)
    for one, other in zip(out.network.parameters(), begun.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert isinstance(out, ColourPrior)
    assert out.schedule == Schedule.cosine(100)
    again = restore.train(tmp_path / "photos", tmp_path / "second", init=tmp_path / "first", **run)
    for one, other in zip(again.network.parameters(), out.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="is a prior of colours: train it as one"):
        restore.train(
            tmp_path / "photos", tmp_path / "third", init=tmp_path / "first", **{**run, "colours": False}
        )
    for folder, colours, words in (
        ("second", False, "colours was True and is"),
        ("plain", True, "was False"),
    ):
        if folder == "plain":
            restore.train(
                tmp_path / "photos",
                tmp_path / folder,
                init=tmp_path / "pictures",
                **{**run, "colours": False},
            )
        with pytest.raises(ValueError, match=words):
            restore.train(tmp_path / "photos", tmp_path / folder, resume=True, **{**run, "colours": colours})
