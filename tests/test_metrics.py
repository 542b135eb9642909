"""Measures with values known in closed form, from the libraries, or by counting."""

from __future__ import annotations

import urllib.error

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import norm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from restore.metrics import calibration, coverage, data_misfit, lpips, lpips_available, perceptual, psnr, ssim

few = settings(max_examples=40, deadline=None)


def picture(*shape, seed=0):
    """A smooth picture with some texture, floats in [0, 1]."""
    rng = np.random.default_rng(seed)
    return np.clip(
        0.5 + 0.3 * np.sin(np.arange(np.prod(shape)).reshape(shape) / 5) + rng.normal(0, 0.05, shape), 0, 1
    )


def noisy(x, sigma, seed=1):
    return np.clip(x + np.random.default_rng(seed).normal(0, sigma, x.shape), 0, 1)


# -------------------------------------------------------------------------------------- psnr and ssim


@few
@given(sigma=st.floats(0.01, 0.4), seed=st.integers(0, 99), shape=st.sampled_from([(9, 5), (7, 8, 3)]))
def test_psnr_is_scikit_images(sigma, seed, shape):
    truth = picture(*shape, seed=seed)
    x = noisy(truth, sigma, seed + 1)
    assert psnr(x, truth) == pytest.approx(peak_signal_noise_ratio(truth, x, data_range=1), abs=1e-4)
    x8, truth8 = (np.rint(255 * a).astype(np.uint8) for a in (x, truth))
    want = peak_signal_noise_ratio(truth8, x8)
    assert psnr(x8, truth8) == pytest.approx(want, abs=1e-4)
    assert psnr(x8, truth8, data_range=255) == pytest.approx(want, abs=1e-4)
    assert psnr(x8 / 255.0, truth8) == pytest.approx(want, abs=1e-4)  # kinds may differ
    assert psnr(x8 * 1.0, truth8 * 1.0, data_range=255) == pytest.approx(want, abs=1e-4)


def test_psnr_limits():
    assert psnr(np.zeros((4, 4)), np.zeros((4, 4))) == np.inf
    assert psnr(np.zeros((4, 4)), np.ones((4, 4))) == 0.0
    with pytest.raises(ValueError, match="data_range is 0"):
        psnr(np.zeros((4, 4)), np.ones((4, 4)), data_range=0)
    with pytest.raises(ValueError, match="Divide by 255"):
        psnr(np.full((4, 4), 255.0), np.ones((4, 4)))


@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 3)])
def test_ssim_is_wangs(shape):
    truth = picture(*shape)
    x = noisy(truth, 0.1)
    want = structural_similarity(
        truth.astype(np.float32).astype(float),
        x.astype(np.float32).astype(float),
        channel_axis=-1 if len(shape) == 3 else None,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert 0.1 < want < 0.99
    assert ssim(x, truth) == pytest.approx(want, abs=1e-6)
    assert ssim(truth, truth) == 1.0


def test_ssim_by_hand():
    """One window only: the formula, with the weights of the 11 x 11 Gaussian."""
    truth, x = picture(11, 11), noisy(picture(11, 11), 0.2)
    g = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    w = np.outer(g, g) / np.outer(g, g).sum()
    mx, mt = (w * x).sum(), (w * truth).sum()
    vx, vt, cov = (w * x * x).sum() - mx**2, (w * truth**2).sum() - mt**2, (w * x * truth).sum() - mx * mt
    want = (2 * mx * mt + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + mt**2 + 1e-4) * (vx + vt + 9e-4))
    assert ssim(x, truth) == pytest.approx(want, abs=1e-5)
    with pytest.raises(ValueError, match=r"10 by 11 pixels.*window of 11"):
        ssim(x[1:], truth[1:])


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_layouts_agree_and_batches_are_per_image(metric):
    truth = picture(3, 16, 18, 3)
    x = np.stack([noisy(t, s) for t, s in zip(truth, (0.02, 0.1, 0.3), strict=True)])
    alone = [metric(a, b) for a, b in zip(x, truth, strict=True)]
    assert all(isinstance(a, float) for a in alone)
    assert alone[0] > alone[1] > alone[2]
    np.testing.assert_allclose(metric(x, truth), alone)
    tx, tt = (torch.from_numpy(a).permute(0, 3, 1, 2) for a in (x, truth))
    batch = metric(tx, tt)
    assert isinstance(batch, torch.Tensor)
    assert batch.shape == (3,)
    np.testing.assert_allclose(batch.numpy(), alone, rtol=1e-5)
    assert metric(tx[1], tt[1]) == pytest.approx(alone[1])
    np.testing.assert_allclose(metric(x, truth[:1])[1], metric(x[1], truth[0]))  # one truth for all
    x8, truth8 = (np.rint(a[0] * 255).astype(np.uint8) for a in (x, truth))
    assert metric(Image.fromarray(x8), Image.fromarray(truth8)) == pytest.approx(metric(x8, truth8))


@pytest.mark.parametrize("metric", [psnr, ssim, lpips])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((40, 40), (40, 41)),
        ((40, 40), (40, 40, 3)),
        ((2, 40, 40, 3), (3, 40, 40, 3)),
        ((40, 40), (2, 40, 40, 1)),
    ],
)
def test_shapes_must_agree(metric, a, b):
    with pytest.raises(ValueError, match="expected the same"):
        metric(np.zeros(a), np.zeros(b))


# ---------------------------------------------------------------------------------------------- lpips


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def refuse(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    perceptual._lpips_model.cache_clear()
    yield tmp_path
    perceptual._lpips_model.cache_clear()


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_lpips_offline_says_what_to_do(no_network, net):
    assert not lpips_available(net)
    with pytest.raises(FileNotFoundError) as caught:
        lpips(np.zeros((40, 40)), np.zeros((40, 40)), net=net)
    message = str(caught.value)
    file = perceptual._BACKBONES[net][0]
    assert str(no_network / "hub" / "checkpoints" / file) in message
    assert f"https://download.pytorch.org/models/{file}" in message
    assert "Name or service not known" in message
    (no_network / "hub" / "checkpoints" / file).touch()
    assert lpips_available(net)


def test_the_files_named_are_those_of_torchvision():
    import torchvision.models as tv

    weights = {"alex": tv.AlexNet_Weights, "vgg": tv.VGG16_Weights, "squeeze": tv.SqueezeNet1_1_Weights}
    for net, choice in weights.items():
        url = f"https://download.pytorch.org/models/{perceptual._BACKBONES[net][0]}"
        assert choice.IMAGENET1K_V1.url == url


def test_lpips_with_the_file_in_place(no_network):
    """A backbone saved where the error says is found, and gives the package's value (random weights)."""
    import torchvision.models as tv

    torch.manual_seed(0)
    folder = no_network / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(tv.squeezenet1_1(weights=None).state_dict(), folder / perceptual._BACKBONES["squeeze"][0])
    assert lpips_available("squeeze")

    x, truth = noisy(picture(2, 33, 40, 3), 0.2), picture(2, 33, 40, 3)
    got = lpips(x, truth, net="squeeze")
    tx, tt = (torch.from_numpy(a).permute(0, 3, 1, 2).float() * 2 - 1 for a in (x, truth))
    with torch.no_grad():
        np.testing.assert_allclose(
            got, perceptual._lpips_model("squeeze")(tx, tt).flatten().numpy(), rtol=1e-4
        )
    assert got.shape == (2,)
    assert got.min() > 0
    assert lpips(truth[0], truth[0], net="squeeze") == 0.0
    gray = [
        lpips(a, b, net="squeeze")
        for a, b in ((x[0, ..., :1], truth[0, ..., :1]), (x[0, ..., 0], truth[0, ..., 0]))
    ]
    want = lpips(x[0][..., [0, 0, 0]], truth[0][..., [0, 0, 0]], net="squeeze")
    assert gray == pytest.approx([want, want])
    assert lpips(x[0, :17, :17], truth[0, :17, :17], net="squeeze") > 0  # the smallest


@pytest.mark.parametrize(("net", "side"), [("alex", 31), ("vgg", 16), ("squeeze", 17)])
def test_lpips_refuses_small_pictures(net, side):
    with pytest.raises(ValueError, match=f"{side - 1} by 40 pixels.*at least {side}"):
        lpips(np.zeros((side - 1, 40)), np.zeros((side - 1, 40)), net=net)


def test_lpips_refuses():
    with pytest.raises(ValueError, match="'alex', 'vgg', 'squeeze'"):
        lpips(np.zeros((40, 40)), np.zeros((40, 40)), net="resnet")
    with pytest.raises(ValueError, match="'resnet'"):
        lpips_available("resnet")
    with pytest.raises(ValueError, match="4 channels"):
        lpips(np.zeros((40, 40, 4)), np.zeros((40, 40, 4)))


# ---------------------------------------------------------------------------------------- data misfit


class Half(nn.Module):
    """Every second pixel."""

    def __init__(self):
        super().__init__()
        self.register_buffer("gain", torch.tensor(0.5))

    def forward(self, x):
        return self.gain * x[..., ::2, ::2]


def test_misfit_units():
    x = torch.rand(2, 3, 8, 8)
    off = torch.tensor([0.1, 0.3]).reshape(2, 1, 1, 1)
    y = Half()(x) + off
    torch.testing.assert_close(data_misfit(x, y, Half()), off.flatten())
    torch.testing.assert_close(data_misfit(x, y, Half(), noise=0.1), torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(data_misfit(x, y, Half(), noise=torch.tensor([0.1, 0.3])), torch.ones(2))
    assert data_misfit(x[0], y[0], Half()) == pytest.approx(0.1, abs=1e-6)
    grey = np.full((4, 4), 100, np.uint8)  # uint8: misfit and noise in grey levels
    assert data_misfit(np.full((8, 8), 210, np.uint8), grey, Half()) == pytest.approx(5, abs=1e-4)
    assert data_misfit(np.full((8, 8), 210, np.uint8), grey, Half(), noise=2) == pytest.approx(2.5, abs=1e-4)


def test_misfit_of_the_truth_is_the_noise():
    x = picture(64, 64, 3)
    y = 0.5 * x[::2, ::2] + np.random.default_rng(0).normal(0, 0.05, (32, 32, 3))
    assert data_misfit(x, y, Half(), noise=0.05) == pytest.approx(1.0, abs=0.05)
    draws = np.stack([x, x + 0.2, x - 0.2])  # several draws of one measurement
    assert data_misfit(draws, y, Half(), noise=0.05) == pytest.approx([1.0, 2.24, 2.24], abs=0.07)


def test_misfit_refuses():
    with pytest.raises(ValueError, match=r"\(1, 1, 4, 4\).*y is \(1, 1, 5, 5\)"):
        data_misfit(np.zeros((8, 8)), np.zeros((5, 5)), Half())
    for noise in (0.0, -1.0, [0.1, 0.2], float("nan")):
        with pytest.raises(ValueError, match="noise is"):
            data_misfit(np.zeros((8, 8)), np.zeros((4, 4)), Half(), noise=noise)


# ---------------------------------------------------------------------------------------- calibration


@few
@given(n=st.integers(2, 24), seed=st.integers(0, 10_000), share=st.floats(0.05, 1.0))
def test_coverage_is_right_for_any_number_of_draws(n, seed, share):
    """Normal draws: every level that n draws can tell is covered as often as it says."""
    rng = np.random.default_rng(seed)
    level = share * (n - 1) / (n + 1)
    draws, truth = rng.normal(size=(n, 96, 96)), rng.normal(size=(96, 96))
    # The standard deviation of a share of 9216 independent pixels is 0.0052 at most.
    assert coverage(draws, truth, level) == pytest.approx(level, abs=0.025)


@pytest.mark.parametrize("n", [3, 9, 19, 39])
def test_coverage_is_exact_at_whole_ranks(n):
    rng = np.random.default_rng(n)
    draws, truth = rng.exponential(size=(n, 200, 200)), rng.exponential(size=(200, 200))
    for i in range(1, (n + 1) // 2):
        level = 1 - 2 * i / (n + 1)
        # 4.5 standard deviations of a binomial share of 40000 pixels
        tolerance = 4.5 * np.sqrt(level * (1 - level) / 40_000)
        assert coverage(draws, truth, level) == pytest.approx(level, abs=tolerance)


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_coverage_of_too_narrow_and_too_wide_draws(width):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(64, 64))
    curve = calibration(width * rng.normal(size=(199, 64, 64)), truth)
    want = 2 * norm.cdf(width * norm.ppf((1 + curve.levels) / 2)) - 1
    np.testing.assert_allclose(curve.coverage, want, atol=0.03)
    assert np.sign(round(curve.bias, 1)) == np.sign(width - 1)
    assert curve.draws == 199
    assert curve.error == pytest.approx(np.abs(curve.coverage - curve.levels).mean())


def test_coverage_by_counting():
    draws = np.arange(19.0).reshape(19, 1, 1) * np.ones((19, 1, 4))
    truth = np.array([[-1.0, 0.0, 18.0, 18.5]])
    assert coverage(draws, truth, 0.9) == 0.5  # lowest to highest, ends included
    assert coverage(draws[::-1], truth, 0.9) == 0.5
    assert coverage(draws, truth, 0.8) == 0.0  # from 1 to 17


def test_coverage_refuses_units_that_do_not_go_together():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    draws = rng.integers(0, 256, (5, 8, 8), dtype=np.uint8)
    expected = coverage(draws, truth, 0.5)
    assert coverage(draws / np.float32(255), truth, 0.5) == expected
    assert coverage(draws, truth / np.float32(255), 0.5) == expected
    with pytest.raises(ValueError, match=r"samples\[0\] has float values from .*Divide by 255"):
        coverage(draws.astype(float), truth, 0.5)
    with pytest.raises(ValueError, match=r"truth has float values from .*Divide by 255"):
        coverage(draws, truth.astype(float), 0.5)
    assert coverage(draws.astype(float), truth.astype(float), 0.5) == expected


def test_coverage_layouts():
    rng = np.random.default_rng(0)
    draws = rng.integers(0, 256, (19, 2, 12, 10, 3), dtype=np.uint8)
    truth = rng.integers(0, 256, (2, 12, 10, 3), dtype=np.uint8)
    both = coverage(draws, truth, 0.5)
    assert both.shape == (2,)
    assert both[0] != both[1]
    assert coverage(draws[:, 1], truth[1], 0.5) == both[1]
    tensors = torch.from_numpy(draws).permute(0, 1, 4, 2, 3)
    assert coverage(tensors, torch.from_numpy(truth).permute(0, 3, 1, 2), 0.5).tolist() == both.tolist()
    pil = [Image.fromarray(d) for d in draws[:, 0]]
    assert coverage(pil, Image.fromarray(truth[0]), 0.5) == both[0]
    assert coverage(draws / 255.0, truth, 0.5).tolist() == both.tolist()
    assert calibration(draws, truth, [0.2, 0.5]).coverage.shape == (2, 2)
    assert calibration(draws, truth, [0.2, 0.5]).error.shape == (2,)
    where = np.zeros((12, 10), bool)
    where[:5] = True
    assert coverage(draws[:, 0], truth[0], 0.5, where=where) == coverage(draws[:, 0, :5], truth[0, :5], 0.5)


def test_default_levels_follow_the_number_of_draws():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(8, 8))
    assert calibration(rng.normal(size=(19, 8, 8)), truth).levels.tolist() == pytest.approx(
        list(np.arange(1, 10) / 10)
    )
    assert calibration(rng.normal(size=(4, 8, 8)), truth).levels.max() == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("draws", "options", "match"),
    [
        (np.zeros((18, 8, 8)), {}, "at least 19 draws"),
        (np.zeros((38, 8, 8)), {"level": 0.95}, "at least 39 draws"),
        (np.zeros((18, 8, 8)), {"level": 90}, "level is 90"),
        (np.zeros((8, 8)), {}, r"samples\[0\]"),
        (np.zeros((19, 8, 9)), {}, r"samples\[0\] is \(1, 1, 8, 9\)"),
        ([], {}, "empty"),
        (np.zeros((19, 8, 8)), {"where": np.zeros((8, 8), bool)}, "no pixel"),
        (np.zeros((19, 8, 8)), {"where": np.zeros((8, 8))}, "booleans"),
        (np.zeros((19, 8, 8)), {"where": np.zeros((8, 9), bool)}, "where is"),
    ],
)
def test_coverage_refuses(draws, options, match):
    with pytest.raises(ValueError, match=match):
        coverage(draws, np.zeros((8, 8)), **options)


def test_level_at_the_limit_is_allowed():
    assert coverage(np.zeros((19, 8, 8)), np.zeros((8, 8)), 0.9) == 1.0
    assert coverage(np.zeros((39, 8, 8)), np.zeros((8, 8)), 0.95) == 1.0
