import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from operators import Downsample, resize_matrix

PIL_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("filter", PIL_FILTERS)
@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    factor=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_equals_pil(filter, size, factor):
    """In PIL's floating mode, whether or not the size divides."""
    x = draw(1, 1, *size)
    y = Downsample(factor, filter, image_size=size)(x)
    target = tuple(math.ceil(n / f) for n, f in zip(size, factor, strict=True))
    assert y.shape[-2:] == target
    picture = Image.fromarray(x[0, 0].float().numpy())
    assert picture.mode == "F"
    expected = np.asarray(picture.resize(target[::-1], PIL_FILTERS[filter]))
    np.testing.assert_allclose(y[0, 0], expected, rtol=0, atol=1e-6)


def test_equals_interpolate():
    x = draw(2, 3, 64, 48)
    expected = torch.nn.functional.interpolate(
        x, (16, 12), mode="bicubic", antialias=True, align_corners=False
    )
    torch.testing.assert_close(Downsample(4)(x), expected, rtol=0, atol=1e-12)


def matlab_imresize(picture, factor):
    """One axis at a time, from the definition: mirror the picture, sample the widened kernel, sum."""

    def keys(t):
        t = abs(t)
        if t <= 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t <= 2 else 0.0

    def along_rows(image):
        n = image.shape[0]
        out = np.zeros((math.ceil(n / factor), image.shape[1]))
        for i in range(len(out)):
            u = (i + 1) * factor + 0.5 * (1 - factor)  # MATLAB's pixels count from 1
            total = 0.0
            for j in range(math.floor(u - 2 * factor) - 1, math.ceil(u + 2 * factor) + 2):
                weight = keys((u - j) / factor)
                k = (j - 1) % (2 * n)
                out[i] += weight * image[k if k < n else 2 * n - 1 - k]
                total += weight
            out[i] /= total
        return out

    return along_rows(along_rows(picture).T).T


@pytest.mark.parametrize(("size", "factor"), [((12, 20), 4), ((9, 15), 3), ((8, 6), 2), ((4, 8), 4)])
def test_symmetric_is_matlabs(size, factor):
    x = draw(1, 1, *size)
    y = Downsample(factor, boundary="symmetric")(x)
    np.testing.assert_allclose(y[0, 0], matlab_imresize(x[0, 0].numpy(), factor), atol=1e-12)


def test_boundaries_differ_at_the_edges_only():
    x = draw(1, 1, 64, 64)
    difference = (Downsample(4)(x) - Downsample(4, boundary="symmetric")(x)).abs()[0, 0]
    assert difference[2:-2, 2:-2].max() < 1e-12
    assert difference.max() > 1e-3


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 40),
    factor=st.integers(1, 8),
    filter=st.sampled_from(list(PIL_FILTERS)),
    boundary=st.sampled_from(["clip", "symmetric"]),
)
def test_matrices(size, factor, filter, boundary):
    """Constants are kept, and a picture turned round gives the result turned round."""
    target = math.ceil(size / factor)
    matrix = resize_matrix(size, target, filter, boundary)
    torch.testing.assert_close(matrix.sum(1), torch.ones(target, dtype=torch.float64))
    if size % factor == 0:
        torch.testing.assert_close(matrix.flip(0, 1), matrix, rtol=0, atol=1e-12)
    if factor == 1:
        torch.testing.assert_close(matrix, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_box_is_the_mean_of_blocks(factor):
    x = draw(1, 2, 24, 48)
    expected = torch.nn.functional.avg_pool2d(x, factor)
    torch.testing.assert_close(Downsample(factor, "box")(x), expected, rtol=0, atol=1e-12)


def test_singular_values_at_four():
    """Known for the bicubic filter, and why its pseudo-inverse is harmless."""
    s = torch.linalg.svdvals(resize_matrix(256, 64))
    assert 0.30 < s.min() < s.max() < 0.55


def test_sizes_that_do_not_divide():
    with pytest.raises(ValueError, match=r"10 x 12 does not divide by \(4, 4\).*image_size=\(10, 12\)"):
        Downsample(4)(draw(1, 1, 10, 12))
    a = Downsample(4, image_size=(10, 12))
    assert a.image_shape((3, 3, 3)) == (3, 10, 12)
    assert a.adjoint(draw(1, 1, 3, 3)).shape == (1, 1, 10, 12)
    with pytest.raises(ValueError, match=r"images of size \(10, 12\); got \(12, 12\)"):
        a(draw(1, 1, 12, 12))
    with pytest.raises(ValueError, match="makes measurements of shape"):
        a.adjoint(draw(1, 1, 3, 4))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda: Downsample(2, "cubic"),
            "filter should be one of bicubic, bilinear, lanczos, box; got 'cubic'",
        ),
        (lambda: Downsample(2, boundary="wrap"), r"\"clip\" \(as PIL\) or \"symmetric\""),
        (lambda: Downsample(0), "factor should be an integer of at least 1"),
        (lambda: Downsample(1.5), "factor should be an integer"),
        (lambda: Downsample(True), "factor should be an integer"),
        (lambda: Downsample((2, 2, 2)), r"two of them \(rows, columns\)"),
    ],
)
def test_refusals(make, match):
    with pytest.raises(ValueError, match=match):
        make()
