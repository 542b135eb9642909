"""The common repairs: what is kept is kept exactly, any picture goes in, and the prior in the package helps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.filters import guided_blur
from PIL import Image
from skimage import data
from skimage.transform import resize

import restore
from operators import Blur, Downsample, GaussianNoise, Grayscale, box_mask, gaussian_kernel
from restore import tasks
from restore.metrics import psnr
from restore.prior import Prior
from restore.schedule import Schedule
from restore.tasks.colouring import _evened, _typical

FAST = {"steps": 3, "seed": 0, "progress": False}


@pytest.fixture(scope="module")
def prior() -> restore.Prior:
    return restore.load_prior("photo")


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """96 x 80, uint8: the eye of scikit-image's cat."""
    return (
        (resize(data.chelsea()[60:252, 110:270], (96, 80), anti_aliasing=True) * 255).round().astype(np.uint8)
    )


@st.composite
def masks(draw):
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    kept = np.ones((rows, columns), bool)
    for _ in range(draw(st.integers(0, 6))):
        kept[draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))] = False
    return kept


@settings(max_examples=60, deadline=None)
@given(masks(), st.integers(0, 6), st.integers(1, 20))
def test_windows_hold_every_hole_with_its_margin_and_do_not_overlap(kept, margin, least):
    cover = np.zeros(kept.shape, int)
    for rows, columns in tasks.hole_windows(kept, margin, least):
        cover[rows, columns] += 1
        for window, size in ((rows, kept.shape[0]), (columns, kept.shape[1])):
            assert window.stop - window.start >= min(least, size)
    assert cover.max() <= 1
    for row, column in zip(*np.nonzero(~kept), strict=True):
        around = cover[max(row - margin, 0) : row + margin + 1, max(column - margin, 0) : column + margin + 1]
        assert around.all()


def test_inpainting_keeps_every_other_pixel(prior, photograph):
    kept = box_mask((96, 80), (10, 20, 9, 7)).numpy()
    filled = restore.inpaint(photograph, kept, prior=prior, **FAST)
    assert filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[kept], photograph[kept])
    # What lies in the hole has no say, and is replaced.
    other = np.where(kept[..., None], photograph, 7).astype(np.uint8)
    np.testing.assert_array_equal(restore.inpaint(other, kept, prior=prior, **FAST), filled)
    assert (filled[~kept] != 7).any()


def test_a_network_with_attention_is_shown_a_window_of_the_size_it_knows(monkeypatch):
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=160,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        attention_head_dim=8,
    )
    sizes = []
    real = network.forward
    monkeypatch.setattr(
        network, "forward", lambda x, *a, **k: sizes.append(tuple(x.shape[-2:])) or real(x, *a, **k)
    )
    kept = np.ones((300, 170), bool)
    kept[150, 3] = False
    image = np.full((300, 170, 3), 90, np.uint8)
    restore.inpaint(image, kept, prior=Prior(network, Schedule.linear()), steps=1, seed=0, progress=False)
    assert set(sizes) == {(160, 160)}


def test_only_the_surroundings_of_a_hole_are_worked_on(prior, monkeypatch):
    sizes = []
    real = prior.network.forward
    monkeypatch.setattr(
        prior.network, "forward", lambda x, *a, **k: sizes.append(x.shape) or real(x, *a, **k)
    )
    image = np.full((700, 900, 3), 90, np.uint8)
    kept = np.ones((700, 900), bool)
    kept[350, 450] = kept[20, 30] = False
    restore.inpaint(image, kept, prior=prior, **FAST)
    assert max(h * w for *_, h, w in sizes) <= 144 * 144


def test_a_mask_without_holes_changes_nothing(photograph):
    np.testing.assert_array_equal(restore.inpaint(photograph, np.ones((96, 80), bool), **FAST), photograph)


@pytest.mark.parametrize("kind", ["grey numpy", "PIL", "torch", "batch", "float64"])
def test_inpainting_gives_back_what_it_was_given(prior, photograph, kind):
    kept = box_mask((96, 80), 5)
    image = {
        "grey numpy": photograph[..., 0],
        "PIL": Image.fromarray(photograph),
        "torch": torch.from_numpy(photograph).permute(2, 0, 1) / 255,
        "batch": np.stack([photograph, photograph[::-1]]),
        "float64": photograph / 255.0,
    }[kind]
    filled = restore.inpaint(image, kept, prior=prior, samples=2, **FAST)
    assert len(filled) == 2
    for draw in filled:
        assert type(draw) is type(image)
        if kind != "PIL":
            assert draw.dtype == image.dtype
        assert np.shape(draw) == np.shape(image)
    (single,) = map(np.asarray, restore.inpaint(image, kept, prior=prior, samples=1, **FAST))
    # A hundredth: networks add up a batch of two and one of one in another order, and few steps make much of it.
    level = 2.5 if single.dtype == np.uint8 else 1e-2
    np.testing.assert_allclose(np.asarray(filled[0], float), np.asarray(single, float), atol=level)
    assert (np.asarray(filled[1]) != single).any()


def test_enlarging_agrees_with_the_small_picture(prior, photograph):
    small = photograph[:21, :17]
    large = restore.super_resolve(small, 3, prior=prior, **FAST)
    assert large.shape == (63, 51, 3)
    again = Downsample(3)(torch.from_numpy(large).permute(2, 0, 1)[None].float())[0].permute(1, 2, 0).numpy()
    # Rounding to 8 bits is 0.29 on average; clipping may cost a little more at single pixels.
    assert np.abs(again - small).mean() < 0.5
    grey = restore.super_resolve(small[..., 0], 2, prior=prior, **FAST)
    assert grey.shape == (42, 34)


def test_large_pictures_are_put_together_from_patches(prior, photograph, monkeypatch):
    monkeypatch.setattr("restore.tasks.enlarging.PIXELS_AT_ONCE", 1000)
    monkeypatch.setattr("restore.tasks.windows.PATCH", 64)
    monkeypatch.setattr("restore.tasks.windows.MARGIN", 16)
    small = photograph[:40, :30]
    large = restore.super_resolve(small, 2, prior=prior, samples=2, **FAST)
    assert large.shape == (2, 80, 60, 3)
    again = Downsample(2)(torch.from_numpy(large).permute(0, 3, 1, 2).float()).permute(0, 2, 3, 1).numpy()
    assert np.abs(again - small).mean() < 1.0


def test_colours_keep_the_luma(prior, photograph):
    grey = np.asarray(Image.fromarray(photograph).convert("L")).astype(np.float32) / 255
    for size in (96, 24):  # As it is, and by way of a reduced picture.
        colour = restore.colorize(grey, prior=prior, working_size=size, **FAST)
        assert colour.shape == (96, 80, 3)
        assert colour.min() >= 0
        assert colour.max() <= 1
        luma = Grayscale()(torch.from_numpy(colour).permute(2, 0, 1)[None])[0, 0].numpy()
        assert np.abs(luma - grey).max() < 1e-3
        assert np.ptp(colour, axis=-1).mean() > 0.01
    np.testing.assert_array_equal(
        restore.colorize(photograph, prior=prior, working_size=24, **FAST),
        restore.colorize(np.asarray(Image.fromarray(photograph)), prior=prior, working_size=24, **FAST),
    )


def test_one_picture_is_made_of_the_typical_half_of_the_draws(prior, photograph):
    # Mid-grey, where every colour has room.
    grey = 0.4 + 0.2 * np.asarray(Image.fromarray(photograph).convert("L")).astype(np.float32) / 255
    options = {"prior": prior, "working_size": 96, "steps": 10, "seed": 0, "progress": False}
    drawn = restore.colorize(grey, samples=5, **options) - grey[..., None]
    one = restore.colorize(grey, draws=5, **options) - grey[..., None]

    def made_of(draws):
        """Their mean, of .8 of the saturation of all, evened out where the luma is even."""
        mean = draws.mean(0) * 0.8 * np.sqrt(np.square(drawn).mean((1, 2, 3))).mean()
        mean /= np.sqrt(np.square(draws.mean(0)).mean())
        batch = (torch.from_numpy(x)[None] for x in (grey[None], mean.transpose(2, 0, 1)))
        even = guided_blur(*batch, 2 * 10 + 1, 0.02, "replicate")[0].permute(1, 2, 0).numpy()
        return even * np.sqrt(np.square(mean).mean() / np.square(even).mean())

    order = np.square(drawn - drawn.mean(0)).mean((1, 2, 3)).argsort()
    expected = made_of(drawn[order[:3]])
    np.testing.assert_allclose(one, expected, atol=1e-2)  # But for what leaves [0, 1].
    for others in (order[2:], order[[0, 1, 3]], order, order[:1]):
        assert np.abs(one - expected).max() < 0.2 * np.abs(one - made_of(drawn[others])).max()


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_colours_are_evened_out_over_things_and_as_saturated_as_before(height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    luma, chroma = (torch.rand(2, n, height, width, generator=generator) for n in (1, 3))
    even = guided_blur(luma, chroma, 2 * max(1, round(min(height, width) / 8)) + 1, 0.02, "replicate")
    found, was, plain = (x.square().mean((1, 2, 3)).sqrt() for x in (_evened(luma, chroma), chroma, even))
    torch.testing.assert_close(found, torch.minimum(was, 2 * plain), rtol=1e-3, atol=1e-6)
    # One colour stays as it is, and none stays none.
    flat = chroma[..., :1, :1].expand_as(chroma)
    torch.testing.assert_close(_evened(luma, flat), flat, rtol=1e-4, atol=1e-4)
    assert torch.equal(_evened(luma, 0 * chroma), 0 * chroma)


def test_colours_stay_on_their_side_of_an_edge():
    side = torch.arange(64) < 32
    luma = torch.where(side, 0.1, 0.9).expand(1, 1, 64, 64)
    colours = torch.where(side, 0.3, -0.3).expand(1, 3, 64, 64)
    noise = 0.3 * torch.randn(colours.shape, generator=torch.Generator().manual_seed(0))
    found = _evened(luma, colours + noise)
    blotches = found / found[..., side].mean() * 0.3 - colours
    assert blotches.std() < 0.1 * noise.std()


def test_the_typical_half_of_the_draws_of_each_picture():
    red = torch.tensor([1.0, -0.5, -0.1]).reshape(3, 1, 1).expand(3, 2, 2)
    # Their mean is .3; .2 and .1 are nearest; they are of .3, of which .8 are .24.
    first = torch.stack([k * red for k in (0.1, 0.2, 0.6)])
    # Their mean is -.07, -.2 and -.8 are nearest, with a mean of -.5; they are of .6.
    second = torch.stack([k * red for k in (0.8, -0.8, -0.2)])
    # The half is of both signs, and pale: by a factor of 3 at most.
    third = torch.stack([k * red for k in (0.5, -0.4, 5.0)])
    grey = torch.zeros_like(first)
    found = _typical(torch.stack([first, second, third, grey], 1))
    torch.testing.assert_close(found, torch.stack([0.24 * red, -0.48 * red, 0.15 * red, 0 * red]))


def test_colours_are_found_in_sides_that_the_network_takes(prior, photograph):
    """A small picture that is padded would have colours that come from its padding."""
    assert prior.multiple > 1
    sizes = []
    restore.colorize(
        np.asarray(Image.fromarray(photograph).convert("L")),
        prior=prior,
        working_size=37,
        callback=lambda state: sizes.append(tuple(state.x.shape[-2:])),
        **FAST,
    )
    assert all(side % prior.multiple == 0 for size in sizes for side in size)
    assert abs(min(sizes[0]) - 37) <= prior.multiple / 2


@pytest.mark.parametrize("method", ["dpir", "DPIR", restore.methods.DPIR()], ids=str)
def test_a_method_without_draws_colours_once(prior, photograph, method):
    grey = np.asarray(Image.fromarray(photograph[:16, :16]).convert("L"))
    calls = []
    restore.colorize(
        grey,
        method=method,
        steps=2,
        prior=prior,
        callback=lambda state: calls.append(len(state.x)),
        progress=False,
    )
    assert calls == [1, 1]


def test_what_a_method_without_draws_found_is_left_as_it_is(prior, photograph):
    grey = 0.4 + 0.2 * np.asarray(Image.fromarray(photograph[:32, :32]).convert("L")).astype(np.float32) / 255
    settings = {"prior": prior, "steps": 4, "seed": 0, "progress": False}
    colour = restore.colorize(torch.from_numpy(grey)[None], method="dpir", **settings)
    found = restore.solve(torch.from_numpy(grey)[None], Grayscale(), "dpir", **settings)
    chroma = found - Grayscale()(found[None])[0]
    torch.testing.assert_close(colour - torch.from_numpy(grey), chroma, atol=1e-3, rtol=0)


def test_noise_is_in_the_units_of_the_picture(prior, photograph):
    """8 of 255 for 8-bit pictures: the result agrees with the measurement as well as that, in every task."""
    small = photograph[:32, :24]
    noisy = (
        np.clip(small + 8 * np.random.default_rng(0).normal(size=small.shape), 0, 255)
        .round()
        .astype(np.uint8)
    )
    large = restore.super_resolve(noisy, 2, noise=8.0, prior=prior, steps=20, seed=0, progress=False)
    again = Downsample(2)(torch.from_numpy(large).permute(2, 0, 1)[None].float())[0].permute(1, 2, 0).numpy()
    assert 3 < np.abs(again - noisy).mean() < 12
    kept = box_mask((32, 24), 4)
    bytes_, floats = (
        np.asarray(restore.inpaint(image, kept, noise=noise, prior=prior, **FAST), float)
        for image, noise in ((noisy, 8.0), (noisy / np.float32(255), 8 / 255))
    )
    np.testing.assert_allclose(bytes_, floats * 255, atol=0.51)


def test_deblurring_takes_kernels_that_do_not_sum_to_one(prior, photograph):
    kernel = gaussian_kernel(1.0)
    a = restore.deblur(photograph, kernel, prior=prior, **FAST)
    b = restore.deblur(photograph, 17 * kernel.numpy(), prior=prior, **FAST)
    np.testing.assert_allclose(a.astype(int), b.astype(int), atol=1)
    with pytest.raises(ValueError, match="sums to more than 0"):
        restore.deblur(photograph, torch.zeros(3, 3), **FAST)


def test_the_prior_in_the_package_does_better_than_leaving_things_as_they_are(prior, photograph):
    image = photograph / np.float32(255)
    kept = np.random.default_rng(0).random((96, 80)) < 0.5
    hole = np.where(kept[..., None], image, np.float32(0.5))
    filled = restore.inpaint(hole, kept, prior=prior, steps=20, seed=0, progress=False)
    assert psnr(filled, image) > psnr(hole, image) + 8

    # A part of a larger blurred scene, as a camera sees it: what lies beyond the border is not known.
    kernel = gaussian_kernel(2.0)
    edge = kernel.shape[-1] // 2
    scene = torch.from_numpy(image).permute(2, 0, 1)[None]
    blurred = Blur(kernel, boundary="valid")(scene)[0].permute(1, 2, 0).numpy()
    noisy = blurred + np.random.default_rng(0).normal(0, 0.01, blurred.shape).astype(np.float32)
    truth = image[edge:-edge, edge:-edge]
    sharp = restore.deblur(noisy, kernel, noise=0.01, prior=prior, seed=0, progress=False)
    assert sharp.shape == truth.shape
    assert psnr(sharp, truth) > psnr(noisy.clip(0, 1), truth) + 1.0
    # At the border, too, and there is no shift: even kernels have their centre at the larger half.
    assert psnr(sharp[:8], truth[:8]) > psnr(noisy[:8].clip(0, 1), truth[:8])


def test_deblurring_with_an_even_kernel_does_not_shift_the_picture(prior, photograph):
    kernel = torch.zeros(4, 6)
    kernel[2, 3] = 1  # The centre: no blur at all.
    same = restore.deblur(photograph, kernel, prior=prior, steps=10, seed=0, progress=False)
    assert psnr(same, photograph) > 30


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: restore.inpaint(x, np.ones((9, 9), bool)), "give one of the picture's size"),
        (lambda x: restore.inpaint(x, np.zeros((96, 80), bool)), "keeps nothing"),
        (lambda x: restore.inpaint(x, np.eye(96, 80, dtype=np.uint8) * 255), "white is to be filled in"),
        (lambda x: restore.inpaint(x / 127.5 - 1, np.eye(96, 80)), r"for \[-1, 1\], give"),
        (lambda x: restore.super_resolve(x, 1), "at least 2"),
        (lambda x: restore.super_resolve(x, 2.5), "whole number"),
        (lambda x: restore.colorize(x, method="nothing", progress=False), "unknown method"),
    ],
)
def test_mistakes_are_told(photograph, call, words):
    with pytest.raises(ValueError, match=words):
        call(photograph)


def test_photon_noise_is_for_solve(photograph):
    for repair in (
        lambda noise: restore.inpaint(photograph, box_mask((96, 80), 5), noise=noise, **FAST),
        lambda noise: restore.deblur(photograph, gaussian_kernel(1.0, 3), noise=noise, **FAST),
    ):
        with pytest.raises(TypeError, match=r"for photon noise, use restore\.solve"):
            repair(restore.PoissonNoise(30.0))


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (
            lambda x, **o: restore.inpaint(x, "mask.png", **o),
            TypeError,
            "'mask.png': read it with .*mask_from_image",
        ),
        (lambda x, **o: restore.inpaint(x, None, **o), TypeError, "the mask is None; expected"),
        (
            lambda x, **o: restore.inpaint(x, x[..., 0] > 9, samples=0, **o),
            ValueError,
            "samples must be .* not 0",
        ),
        (
            lambda x, **o: restore.inpaint(x, x[..., 0] > 9, samples="2", **o),
            ValueError,
            "samples must be .* not '2'",
        ),
        (lambda x, **o: restore.super_resolve(x, "2", **o), ValueError, "at least 2, not '2'"),
        (lambda x, **o: restore.super_resolve(x, None, **o), ValueError, "at least 2, not None"),
        (lambda x, **o: restore.super_resolve(x, 2.5, **o), ValueError, "at least 2, not 2.5"),
        (
            lambda x, **o: restore.super_resolve(x, 2, noise="x", **o),
            TypeError,
            "standard deviation.*not 'x'",
        ),
        (
            lambda x, **o: restore.super_resolve(x, 2, noise=None, **o),
            TypeError,
            "standard deviation.*not None",
        ),
        (
            lambda x, **o: restore.deblur(x, np.ones((1, 1)), noise="x", **o),
            TypeError,
            "standard deviation.*not 'x'",
        ),
        (
            lambda x, **o: restore.deblur(x, "motion", **o),
            TypeError,
            "the kernel is a str, 'motion'; expected",
        ),
        (lambda x, **o: restore.deblur(x, 3.0, **o), ValueError, r"kernel has shape \(\); expected"),
        (
            lambda x, **o: restore.deblur(x, np.ones((3, 3, 3)), **o),
            ValueError,
            r"kernel has shape \(3, 3, 3\)",
        ),
        (
            lambda x, **o: restore.colorize(x, working_size=0, **o),
            ValueError,
            "working_size must be .* not 0",
        ),
        (lambda x, **o: restore.colorize(x, device="gpu", **o), ValueError, "device is 'cpu'.*not 'gpu'"),
    ],
)
def test_mistakes_are_told_before_the_first_call(prior, monkeypatch, call, kind, words):
    monkeypatch.setattr(prior.network, "forward", lambda *_, **__: pytest.fail("asked the network"))
    with pytest.raises(kind, match=words):
        call(np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3), prior=prior, **FAST)


def test_noise_may_be_given_as_an_operator_gives_it(prior, photograph):
    small = photograph[:16, :16]
    noisy = [restore.super_resolve(small, 2, noise=n, prior=prior, **FAST) for n in (8.0, GaussianNoise(8.0))]
    np.testing.assert_array_equal(*noisy)


def test_a_small_picture_without_noise_is_matched_beside_a_noisy_one(prior):
    small = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.tensor([0.0, 0.05])
    both = restore.super_resolve(small, 2, prior=prior, noise=noise, seed=0, steps=2, progress=False)
    alone = restore.super_resolve(small[:1], 2, prior=prior, seed=0, steps=2, progress=False)
    torch.testing.assert_close(both[:1], alone, atol=1e-3, rtol=0)


def test_a_kernel_far_larger_than_the_picture_is_refused():
    with pytest.raises(ValueError, match="the kernel is 3001 x 3001 pixels, and the picture 16 x 16"):
        restore.deblur(np.zeros((16, 16, 3), np.uint8), np.ones((3001, 3001)), progress=False)
