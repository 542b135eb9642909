"""Dead leaves: the law of the radii, the statistics of the pictures, and that the seed decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from restore.deadleaves import POINTS, REACH, _outlines, dead_leaves, radii


def generator(seed=0):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------------------------------- the leaves


@pytest.mark.parametrize(("smallest", "largest"), [(1.0, 100.0), (2.0, 5.0), (0.5, 512.0)])
def test_radii_follow_the_inverse_cube(smallest, largest):
    """Their distribution function is (a^-2 - r^-2) / (a^-2 - b^-2)."""
    r = radii(generator(), 20_000, smallest, largest)
    assert smallest <= r.min()
    assert r.max() <= largest
    found = stats.kstest(r, lambda x: (smallest**-2 - x**-2) / (smallest**-2 - largest**-2))
    assert found.pvalue > 1e-4


def test_radii_have_no_scale():
    """What is larger than k times the smallest, divided by k, is distributed as all of them are."""
    r = radii(generator(1), 100_000, 1.0, 1e6)
    for k in (2.0, 5.0):
        part = r[r > k] / k
        assert len(part) == pytest.approx(100_000 / k**2, rel=0.05)
        assert stats.ks_2samp(part, r[:5000]).pvalue > 1e-4


def test_outlines_enclose_about_a_discs_area():
    points = _outlines(generator(), 4000)
    assert points.shape == (4000, POINTS, 2)
    x, y = points[..., 0], points[..., 1]
    area = 0.5 * np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1))
    assert np.median(area) == pytest.approx(np.pi, rel=0.1)
    assert area.min() > 0.3
    assert np.hypot(x, y).max() <= REACH


# ------------------------------------------------------------------------------------------- the pictures


@pytest.fixture(scope="module")
def pile():
    """Grey pictures from the smallest leaf that shows, (24, 128, 128)."""
    return np.stack([dead_leaves(128, seed, smallest=1.0).mean(-1) for seed in range(24)])


def test_the_seed_decides():
    one = dead_leaves(48, 5)
    assert one.shape == (48, 48, 3)
    assert one.dtype == np.uint8
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 (the global state must not matter)
    assert np.array_equal(dead_leaves(48, 5), one)
    assert np.abs(dead_leaves(48, 6).astype(int) - one).mean() > 5


def test_any_shape():
    assert dead_leaves((40, 97), 1).shape == (40, 97, 3)
    assert dead_leaves((97, 40), 1).shape == (97, 40, 3)
    assert dead_leaves(8, 0).shape == (8, 8, 3)


def test_the_power_spectrum_falls_as_that_of_photographs(pile):
    """About f^-2 between the size of the picture and that of the smallest leaves (the lens takes the highest)."""
    window = np.hanning(128)[:, None] * np.hanning(128)
    power = np.zeros((128, 128))
    for picture in pile:
        power += np.abs(np.fft.fft2(window * (picture - picture.mean()))) ** 2
    frequency = np.fft.fftfreq(128, 1 / 128)
    ring = np.rint(np.hypot(frequency[:, None], frequency)).astype(int)
    radial = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    k = np.arange(3, 30)
    slope = np.polyfit(np.log(k), np.log(radial[k]), 1)[0]
    assert -2.6 < slope < -1.7


def test_contrasts_have_heavy_tails_at_every_scale(pile):
    """A Gaussian field's derivatives have a kurtosis of 3 at every scale, those of photographs 10 and more."""
    deviations = []
    for scale in (1, 2, 4):
        side = 128 // scale
        small = pile.reshape(len(pile), side, scale, side, scale).mean((2, 4))
        contrast = np.diff(small, axis=2)
        assert stats.kurtosis(contrast, axis=None, fisher=False) > 4
        deviations.append(contrast.std())
    # No scale is special: the contrast is of the same size at each.
    assert max(deviations) < 2 * min(deviations)


def test_pictures_differ_in_luma_more_than_in_chroma(pile):
    colours = np.stack([dead_leaves(64, seed).reshape(-1, 3) for seed in range(16)]).astype(float)
    luma = colours @ [0.299, 0.587, 0.114]
    assert luma.std() > 30
    assert 60 < luma.mean() < 190
    assert (colours[..., 0] - luma).std() < luma.std() / 1.5
    # And they are no grey pictures, nor all of one hue.
    casts = (colours[..., 0] - colours[..., 2]).mean(1)
    assert casts.std() > 5


def test_given_colours_are_used():
    """Two colours: what is drawn lies near the segment from black through both (shading, texture and edges mix)."""
    red = np.array([[200, 20, 20], [120, 10, 10]], np.uint8)
    picture = dead_leaves(64, 2, colours=red).astype(float).reshape(-1, 3)
    assert (picture[:, 0] >= picture[:, 1]).mean() > 0.99
    assert (np.abs(picture[:, 1] - picture[:, 2]) <= 2).mean() > 0.99
    assert picture[:, 1].mean() < picture[:, 0].mean() / 5


def test_edges_are_those_of_a_lens():
    """Between flat leaves there are intermediate values; without averaging there would be two grey levels alone."""
    two = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)
    picture = dead_leaves(128, 3, colours=two, smallest=8.0)[..., 0]
    assert ((picture > 20) & (picture < 235)).mean() > 0.02
    steps = np.abs(np.diff(picture.astype(int), axis=1))
    assert (steps > 250).mean() < 0.002


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 7}, "size must be at least 8 pixels, not 7"),
        ({"size": (100, 5)}, "size must be at least 8 pixels"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"colours": np.zeros((4, 3))}, "colours must be .* uint8"),
        ({"colours": np.zeros((4, 4), np.uint8)}, r"colours must be \(N, 3\)"),
        ({"colours": np.zeros((0, 3), np.uint8)}, "at least one"),
        ({"smallest": 0.1}, "smallest must be at least 0.5"),
        ({"smallest": 200.0}, "below 128 pixels, not 200"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        dead_leaves(**arguments)
