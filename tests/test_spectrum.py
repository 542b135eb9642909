"""The Gaussian estimate at high noise: exact where pictures are Gaussian, and at any size."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import restore
from restore import Prior, Schedule
from restore.analytic import GaussianPrior
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
    estimate = SPECTRUM.estimate(x_t / alpha, sigma / alpha)
    torch.testing.assert_close(estimate, gaussian(x_t, t), rtol=1e-5, atol=1e-6)


def test_images_have_noise_levels_of_their_own():
    x = normal(3, 3, 20, 18)
    noise = torch.tensor([0.5, 10.0, 100.0], dtype=torch.float64)
    separate = [SPECTRUM.estimate(x[i : i + 1], float(noise[i])) for i in range(3)]
    torch.testing.assert_close(SPECTRUM.estimate(x, noise), torch.cat(separate))


def test_a_tint_is_told_as_well_from_a_larger_picture_with_more_noise():
    """The coarse of a picture of twice the side is measured four times as often: twice the noise comes to the same."""
    small = normal(1, 3, 8, 8)
    large = small.repeat_interleave(2, -1).repeat_interleave(2, -2)
    one = SPECTRUM.estimate(small, 5.0).mean((-2, -1))
    torch.testing.assert_close(SPECTRUM.estimate(large, 10.0).mean((-2, -1)), one)


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
    assert found.estimate(torch.zeros(2, 1, 9, 7), 50.0).shape == (2, 1, 9, 7)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 200), st.floats(1e-3, 200))
def test_its_share_rises_with_the_noise(a, b):
    low, high = sorted((a, b))
    assert 0 <= SPECTRUM.share(low) <= SPECTRUM.share(high) <= 1
    assert SPECTRUM.share(8.0) == 0
    assert SPECTRUM.share(24.0) == 1
    both = SPECTRUM.share(torch.tensor([low, high], dtype=torch.float64))
    assert both.tolist() == pytest.approx([SPECTRUM.share(low), SPECTRUM.share(high)])


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
        torch.testing.assert_close(prior(x_t, 0.9), SPECTRUM.estimate(x_t / alpha, sigma / alpha))
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
    mean = (plain(x_t, middle) + SPECTRUM.estimate(x_t / alpha, sigma / alpha)) / 2
    torch.testing.assert_close(prior(x_t, middle), mean, rtol=1e-4, atol=1e-4)


def test_times_may_differ_within_a_batch_and_gradients_pass(plain):
    prior = plain.with_spectrum(SPECTRUM)
    x_t, times = normal(3, 3, 16, 16).float().requires_grad_(), [0.2, 0.72, 0.95]
    together = prior(x_t, torch.tensor(times))
    separate = torch.cat([prior(x_t[i : i + 1], t) for i, t in enumerate(times)])
    torch.testing.assert_close(together, separate, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(together.sum(), x_t)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_score_and_noise_follow_the_estimate(plain):
    prior = plain.with_spectrum(SPECTRUM)
    x_t = normal(1, 3, 16, 16).float()
    alpha, sigma = prior.schedule(0.9)
    torch.testing.assert_close(alpha * prior(x_t, 0.9) + sigma * prior.epsilon(x_t, 0.9), x_t)


def test_a_saved_prior_keeps_it(plain, tmp_path):
    plain.with_spectrum(SPECTRUM).save(tmp_path)
    again = restore.load_prior(tmp_path)
    assert again.spectrum == SPECTRUM
    assert restore.load_prior(again.with_spectrum(None).save(tmp_path / "without")).spectrum is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [0.1, 0.2]}, "of several numbers of channels"),
        ({"slope": None}, "describes no spectrum"),
        ({"tint": [0.1, "x", 0.1]}, "describes no spectrum"),
        ({"end": 1.0}, "0 < begin < end"),
        ({"amplitude": [0.1, float("nan"), 0.1]}, "expected numbers"),
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


def test_the_photo_prior_overdoes_tints_without_it_and_not_with_it():
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
    assert errors[0] < 0.8 * errors[1]
