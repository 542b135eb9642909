"""The Gaussian estimate at high noise: exact where pictures are Gaussian, and at any size."""

import json

import pytest
import torch
from diffusers import UNet2DModel
from hypothesis import given, settings
from hypothesis import strategies as st

import restore
from restore import Prior, Schedule
from restore.analytic import GaussianPrior
from restore.benchmark.runs import fingerprint
from restore.data import Crops
from restore.networks import photo_unet
from restore.spectrum import Spectrum
from restore.training import TrainingOptions
from restore.training.trainer import SPECTRUM_CROPS, Trainer

THIRD = (1 / 3**0.5,) * 3
SPECTRUM = Spectrum(
    mean=(0.1, -0.1, 0.2),
    directions=(THIRD, (0.5**0.5, -(0.5**0.5), 0.0), (-(6**-0.5), -(6**-0.5), 2 * 6**-0.5)),
    tint=(0.5, 0.2, 0.1),
    amplitude=(0.3, 0.1, 0.05),
    slope=(1.0, 1.2, 0.8),
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(height, width):
    """Of pictures ``(3, height, width)``, pixel by pixel, from the definition: cosines times directions of colour."""

    def cosines(size):
        at = (torch.arange(size, dtype=torch.float64) + 0.5) / size
        rows = torch.cos(torch.pi * torch.arange(size)[:, None] * at)
        return rows / rows.norm(dim=1, keepdim=True)

    total = torch.zeros(3 * height * width, 3 * height * width, dtype=torch.float64)
    rows, columns, scale = cosines(height), cosines(width), (height * width) ** 0.5
    for c in range(3):
        colour = torch.tensor(SPECTRUM.directions[c], dtype=torch.float64)
        for i in range(height):
            for j in range(width):
                mode = torch.einsum("c,h,w->chw", colour, rows[i], columns[j]).flatten()
                frequency = scale * ((i / height) ** 2 + (j / width) ** 2) ** 0.5
                power = (
                    SPECTRUM.amplitude[c] * frequency ** -SPECTRUM.slope[c] if i or j else SPECTRUM.tint[c]
                )
                total += scale**2 * power**2 * torch.outer(mode, mode)
    return total


@pytest.fixture(scope="module")
def gaussian():
    mean = torch.tensor(SPECTRUM.mean)[:, None, None].expand(3, 5, 4)
    return GaussianPrior(mean, covariance(5, 4))


@pytest.mark.parametrize("t", [0.01, 0.3, 0.7, 1.0])
def test_the_estimate_is_the_posterior_mean_of_its_gaussian(gaussian, t):
    alpha, sigma = gaussian.schedule(t)
    x_t = normal(3, 3, 5, 4)
    estimate = SPECTRUM.estimate(x_t, alpha, sigma)
    torch.testing.assert_close(estimate, gaussian(x_t, t), rtol=1e-5, atol=1e-6)


def test_so_is_its_gradient(gaussian):
    x_t = normal(1, 3, 5, 4).requires_grad_()
    weights, gradients = normal(1, 3, 5, 4, seed=1), []
    alpha, sigma = gaussian.schedule(0.8)
    for each in (SPECTRUM.estimate(x_t, alpha, sigma), gaussian(x_t, 0.8)):
        gradients.append(torch.autograd.grad((each * weights).sum(), x_t)[0])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_at_the_end_of_a_flow_there_is_noise_alone():
    """There alpha is 0, and the mean is all that can be told."""
    estimate = SPECTRUM.estimate(normal(2, 3, 6, 8), 0.0, 1.0)
    mean = torch.tensor(SPECTRUM.mean, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(estimate, mean.expand(2, 3, 6, 8), rtol=0, atol=1e-7)
    assert SPECTRUM.share(0.0, 1.0) == 1
    assert SPECTRUM.share(1.0, 0.0) == 0


def test_images_have_noise_levels_of_their_own():
    x = normal(3, 3, 20, 18)
    alpha = torch.tensor([0.9, 0.1, 0.01], dtype=torch.float64)
    sigma = (1 - alpha**2).sqrt()
    separate = [SPECTRUM.estimate(x[i : i + 1], float(alpha[i]), float(sigma[i])) for i in range(3)]
    torch.testing.assert_close(SPECTRUM.estimate(x, alpha, sigma), torch.cat(separate))


def test_a_tint_is_told_as_well_from_a_larger_picture_with_more_noise():
    """The coarse of a picture of twice the side is measured four times as often: twice the noise comes to the same."""
    small = normal(1, 3, 8, 8)
    large = small.repeat_interleave(2, -1).repeat_interleave(2, -2)
    one = SPECTRUM.estimate(small, 1.0, 5.0).mean((-2, -1))
    torch.testing.assert_close(SPECTRUM.estimate(large, 1.0, 10.0).mean((-2, -1)), one)


def test_what_is_left_out_of_large_pictures_is_nearly_its_mean(monkeypatch):
    """The finest frequencies, which only sides above 64 pixels have, at the least noise where it has a say."""
    x_t = normal(1, 3, 200, 150)
    told = SPECTRUM.estimate(x_t, 1.0, SPECTRUM.begin)
    monkeypatch.setattr("restore.spectrum.FREQUENCIES", 200)
    whole = SPECTRUM.estimate(x_t, 1.0, SPECTRUM.begin)
    assert 0 < float((told - whole).square().sum()) < 0.01 * float(whole.square().sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype):
    """With a million pixels the variance of their sum is beyond float16."""
    x_t = normal(1, 3, 1024, 1024)
    low = SPECTRUM.estimate(x_t.to(dtype), 6e-3, 1.0)
    assert low.dtype == dtype
    torch.testing.assert_close(low.double(), SPECTRUM.estimate(x_t, 6e-3, 1.0), rtol=0.1, atol=0.02)


def test_pictures_of_one_colour_have_no_tint_to_tell():
    still = Spectrum((0.1,), ((1.0,),), (0.0,), (0.0,), (1.0,))
    x_t = normal(2, 1, 16, 16)
    assert torch.equal(still.estimate(x_t, 0.0, 1.0), torch.full_like(x_t, 0.1))
    torch.testing.assert_close(still.estimate(x_t, 1.0, 0.0), torch.full_like(x_t, 0.1))


def test_it_may_be_used_with_a_gradient_after_it_was_without():
    with torch.inference_mode():
        SPECTRUM.estimate(normal(1, 3, 11, 13), 0.1, 1.0)
    x_t = normal(1, 3, 11, 13).requires_grad_()
    SPECTRUM.estimate(x_t, 0.1, 1.0).sum().backward()
    assert x_t.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 4, 8, 8), (3, 8, 8)])
def test_a_state_of_other_channels_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected a state \(B, 3, H, W\)"):
        SPECTRUM.estimate(torch.zeros(shape), 0.1, 1.0)


def test_the_spectrum_of_pictures_is_found():
    gaussian = GaussianPrior(torch.tensor(SPECTRUM.mean)[:, None, None].expand(3, 16, 16), covariance(16, 16))
    found = Spectrum.of(gaussian.distribution.sample(4000, 1))
    assert found.mean == pytest.approx(SPECTRUM.mean, abs=0.03)
    # Directions come in the order of what varies least, with either sign.
    told = torch.tensor(found.directions[::-1]) @ torch.tensor(SPECTRUM.directions).mT
    torch.testing.assert_close(told.abs(), torch.eye(3), atol=0.05, rtol=0)
    assert found.tint[::-1] == pytest.approx(SPECTRUM.tint, rel=0.05)
    assert found.amplitude[::-1] == pytest.approx(SPECTRUM.amplitude, rel=0.05)
    assert found.slope[::-1] == pytest.approx(SPECTRUM.slope, abs=0.03)


def test_grey_pictures_have_one_direction():
    found = Spectrum.of(torch.rand(20, 1, 16, 20, generator=torch.Generator().manual_seed(0)))
    assert abs(found.directions[0][0]) == 1
    assert found.estimate(torch.zeros(2, 1, 9, 7), 0.02, 1.0).shape == (2, 1, 9, 7)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 200), st.floats(1e-3, 200))
def test_its_share_rises_with_the_noise(a, b):
    low, high = sorted((a, b))
    assert 0 <= SPECTRUM.share(1.0, low) <= SPECTRUM.share(1.0, high) <= 1
    assert SPECTRUM.share(0.5, 4.0) == 0
    assert SPECTRUM.share(0.5, 12.0) == 1
    both = SPECTRUM.share(torch.ones(2), torch.tensor([low, high], dtype=torch.float64))
    assert both.tolist() == pytest.approx([float(SPECTRUM.share(1.0, n)) for n in (low, high)])


# ------------------------------------------------------------------------------------------- in a prior


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    return Prior(photo_unet((16, 16), layers=1), Schedule.linear(), config={"name": "tiny"})


def test_at_low_noise_the_prior_is_the_network(plain):
    prior = plain.with_spectrum(SPECTRUM)
    x_t = normal(2, 3, 16, 16).float()
    assert torch.equal(prior(x_t, 0.4), plain(x_t, 0.4))
    assert plain.spectrum is None
    assert torch.equal(prior.with_spectrum(None)(x_t, 0.9), plain(x_t, 0.9))


def test_at_high_noise_the_network_is_not_asked(plain):
    prior = plain.with_spectrum(SPECTRUM)
    x_t, asked = normal(2, 3, 16, 16).float(), []
    handle = plain.network.register_forward_hook(lambda *_: asked.append(1))
    try:
        alpha, sigma = prior.schedule(0.9)
        torch.testing.assert_close(prior(x_t, 0.9), SPECTRUM.estimate(x_t, alpha, sigma))
        assert not asked
        prior(x_t, 0.72)
        assert asked
    finally:
        handle.remove()


def test_between_it_is_a_mean_that_ends_in_both(plain):
    prior = plain.with_spectrum(SPECTRUM)
    x_t = normal(1, 3, 16, 16).float()
    begin, end = (plain.schedule.time_of(noise) for noise in (8.0, 24.0))
    for t, limit in ((begin + 1e-6, plain(x_t, begin)), (end - 1e-6, prior(x_t, end))):
        torch.testing.assert_close(prior(x_t, t), limit, rtol=1e-2, atol=1e-2)
    middle = plain.schedule.time_of(192**0.5)
    alpha, sigma = plain.schedule(middle)
    mean = (plain(x_t, middle) + SPECTRUM.estimate(x_t, alpha, sigma)) / 2
    torch.testing.assert_close(prior(x_t, middle), mean, rtol=1e-4, atol=1e-4)


def test_times_may_differ_within_a_batch_and_gradients_pass(plain):
    prior = plain.with_spectrum(SPECTRUM)
    x_t, times = normal(3, 3, 16, 16).float().requires_grad_(), [0.2, 0.72, 0.95]
    together = prior(x_t, torch.tensor(times))
    separate = torch.cat([prior(x_t[i : i + 1], t) for i, t in enumerate(times)])
    torch.testing.assert_close(together, separate, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(together.sum(), x_t)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_score_and_noise_are_those_of_the_gaussian(plain):
    gaussian = GaussianPrior(torch.tensor(SPECTRUM.mean)[:, None, None].expand(3, 16, 16), covariance(16, 16))
    prior = plain.with_spectrum(SPECTRUM)
    x_t = normal(1, 3, 16, 16)
    torch.testing.assert_close(prior.epsilon(x_t, 0.9), gaussian.epsilon(x_t, 0.9), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(prior.score(x_t, 0.9), gaussian.score(x_t, 0.9), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("schedule", [Schedule.flow(), Schedule.cosine()], ids=repr)
def test_a_whole_run_with_any_schedule(plain, schedule):
    prediction = "flow_prediction" if schedule == Schedule.flow() else "epsilon"
    prior = Prior(plain.network, schedule, prediction).with_spectrum(SPECTRUM)
    drawn = restore.sample(prior, (2, 3, 16, 16), steps=5, seed=0, progress=False)
    assert torch.isfinite(drawn).all()
    x_t = normal(2, 3, 16, 16).float()
    assert torch.isfinite(prior(x_t, torch.tensor([1.0, 0.1]))).all()


def test_a_network_that_predicts_the_variance_has_the_same_estimate():
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=16, in_channels=3, out_channels=6, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    prior = Prior(network, Schedule.linear()).with_spectrum(SPECTRUM)
    x_t = normal(1, 3, 16, 16).float()
    for t in (0.3, 0.72, 0.9):
        torch.testing.assert_close(prior.with_variance(x_t, t)[0], prior(x_t, t))


def test_what_is_no_spectrum_for_a_prior_is_refused(plain):
    grey = Spectrum((0.1,), ((1.0,),), (0.1,), (0.1,), (1.0,))
    with pytest.raises(ValueError, match="of pictures of 1 channels, the prior of 3"):
        plain.with_spectrum(grey)
    with pytest.raises(TypeError, match="expected a Spectrum"):
        plain.with_spectrum(SPECTRUM.to_config())
    with pytest.raises(AttributeError):
        plain.spectrum = SPECTRUM
    network = UNet2DModel(
        sample_size=16, block_out_channels=(8, 8), norm_num_groups=4, num_class_embeds=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    with pytest.raises(ValueError, match="conditional on a class"):
        Prior(network, Schedule.linear()).with_spectrum(SPECTRUM)
    assert "spectrum" in repr(plain.with_spectrum(SPECTRUM))
    assert "spectrum" not in repr(plain)


def test_the_benchmark_tells_priors_with_and_without_it_apart(plain):
    assert fingerprint(plain) != fingerprint(plain.with_spectrum(SPECTRUM))
    assert fingerprint(plain) == fingerprint(plain.with_spectrum(SPECTRUM).with_spectrum(None))


def test_a_saved_prior_keeps_it(plain, tmp_path):
    plain.with_spectrum(SPECTRUM).save(tmp_path)
    again = restore.load_prior(tmp_path)
    assert again.spectrum == SPECTRUM
    assert restore.load_prior(again.with_spectrum(None).save(tmp_path / "without")).spectrum is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [0.1, 0.2]}, "of one number of channels"),
        ({"slope": None}, "expected a list of numbers"),
        ({"tint": [0.1, "x", 0.1]}, "expected a list of numbers"),
        ({"tint": "123"}, "expected a list of numbers"),
        ({"tint": [0.1, -0.1, 0.1]}, "deviations of at least 0"),
        ({"end": 1.0}, "0 < begin < end"),
        ({"begin": True}, "expected a list of numbers"),
        ({"amplitude": [0.1, float("nan"), 0.1]}, "finite numbers"),
        ({"directions": [[5, 0, 0], [0, 0, 0], [1, 1, 1]]}, "orthogonal directions"),
        ({"mean": [], "directions": [], "tint": [], "amplitude": [], "slope": []}, "one number of channels"),
    ],
)
def test_a_damaged_spectrum_is_refused_with_the_name_of_the_file(plain, tmp_path, change, message):
    plain.with_spectrum(SPECTRUM).save(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    config["spectrum"].update(change)
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as error:
        restore.load_prior(tmp_path)
    assert "config.json" in str(error.value)


def test_a_lack_of_pictures_is_refused():
    for shape in ((1, 3, 32, 32), (9, 3, 32, 15), (3, 32, 32)):
        with pytest.raises(ValueError, match="at least 2 pictures"):
            Spectrum.of(torch.zeros(shape))
    with pytest.raises(ValueError, match="some are not"):
        Spectrum.of(torch.full((3, 1, 16, 16), float("nan")))
    with pytest.raises(ValueError, match="0 < begin < end, got 30"):
        Spectrum.of(torch.rand(9, 1, 16, 16), begin=30.0)


def test_pictures_that_are_alike_in_every_place_are_refused():
    """A disc in the middle, as a face would be; the same disc anywhere is welcome."""
    line = torch.linspace(-1, 1, 32)
    centres = normal(100, 2, seed=4).float()

    def discs(spread):
        rows = line[:, None] - spread * centres[:, :1, None]
        columns = line - spread * centres[:, 1:, None]
        return (rows**2 + columns**2 < 0.25).float()[:, None] + 0.1 * normal(100, 1, 32, 32).float()

    Spectrum.of(discs(0.7))
    with pytest.raises(ValueError, match="the same in all"):
        Spectrum.of(discs(0.05))


def test_a_trainer_measures_it_and_its_prior_has_it(tmp_path):
    pictures = (normal(6, 40, 40, 3).cumsum(1).cumsum(2) * 3 + 128).clamp(0, 255).byte().numpy()
    crops = Crops.from_arrays(list(pictures), 16)
    torch.manual_seed(0)
    network = photo_unet((16, 16), layers=1)
    options = TrainingOptions(steps=1, batch=2, spectrum=True, validate_every=0, sample_every=0)
    prior = Trainer(network, crops, tmp_path, options, progress=False).run()
    some = crops.batch(SPECTRUM_CROPS, torch.Generator().manual_seed(7))
    expected = Spectrum.of(some)
    assert prior.spectrum.tint == pytest.approx(expected.tint, rel=0.1)
    assert prior.spectrum.slope == pytest.approx(expected.slope, rel=0.1)
    assert restore.load_prior(tmp_path).spectrum == prior.spectrum
    with pytest.raises(ValueError, match="spectrum was True and is False"):
        Trainer(network, crops, tmp_path, TrainingOptions(steps=2, batch=2), resume=True, progress=False)


def test_the_photo_prior_finds_tints_better_with_it_than_without():
    """The photographs of scikit-image at high noise: the estimate's mean colour is nearer to the truth with it."""
    from skimage import data

    prior = restore.load_prior("photo")
    assert prior.spectrum is not None
    x_0 = (
        torch.stack(
            [
                torch.nn.functional.interpolate(
                    torch.from_numpy(picture).permute(2, 0, 1)[None].double() / 127.5 - 1,
                    (64, 64),
                    mode="area",
                )[0]
                for picture in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket())
            ]
        )
        .float()
        .repeat(4, 1, 1, 1)
    )
    noise = normal(*x_0.shape, seed=3).float()
    errors = []
    for each in (prior, prior.with_spectrum(None)):
        alpha, sigma = each.schedule(0.9)
        means = (each(alpha * x_0 + sigma * noise, 0.9) - x_0).mean((-2, -1))
        errors.append(float(means.square().mean()))
    assert errors[0] < 0.85 * errors[1]
