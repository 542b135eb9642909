import time

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import Blur, disk_kernel, gaussian_kernel, motion_kernel

SCIPY = {"circular": "wrap", "reflect": "mirror", "replicate": "nearest", "zero": "constant"}
METHODS = ["direct", "fft"]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("boundary", SCIPY)
@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    kernel=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 1000),
)
def test_equals_scipy(boundary, method, size, kernel, seed):
    """Odd and even sizes of both; the same origin, and a true convolution."""
    x, k = draw(1, 1, *size, seed=seed), draw(*kernel, seed=seed + 1)
    if boundary == "reflect" and any(n <= s // 2 for n, s in zip(size, kernel, strict=True)):
        with pytest.raises(ValueError, match="mirror at most"):
            Blur(k, boundary)(x)
        return
    expected = scipy.ndimage.convolve(x[0, 0].numpy(), k.numpy(), mode=SCIPY[boundary])
    np.testing.assert_allclose(Blur(k, boundary, method=method)(x)[0, 0], expected, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    more=st.tuples(st.integers(0, 13), st.integers(0, 13)),
)
def test_valid_equals_scipy(method, kernel, more):
    x = draw(1, 1, kernel[0] + more[0], kernel[1] + more[1])
    k = draw(*kernel, seed=1)
    expected = scipy.signal.convolve2d(x[0, 0].numpy(), k.numpy(), mode="valid")
    result = Blur(k, "valid", method=method)(x)
    assert result.shape[-2:] == expected.shape
    np.testing.assert_allclose(result[0, 0], expected, atol=1e-12)


def test_reflect_excludes_the_edge_as_torch_does():
    x, k = draw(1, 1, 5, 6), draw(3, 5, seed=1)
    padded = torch.nn.functional.pad(x, (2, 2, 1, 1), mode="reflect")
    expected = torch.nn.functional.conv2d(padded, k.flip(0, 1)[None, None])
    torch.testing.assert_close(Blur(k, "reflect")(x), expected)


@pytest.mark.parametrize("size", [(3, 3), (4, 5), (2, 6), (13, 12)])
@pytest.mark.parametrize("boundary", ["circular", "zero"])
def test_a_point_becomes_the_kernel(boundary, size):
    k = draw(*size)
    x = torch.zeros(1, 1, 32, 31, dtype=torch.float64)
    x[0, 0, 15, 14] = 1
    top, left = 15 - size[0] // 2, 14 - size[1] // 2
    y = Blur(k, boundary)(x)
    torch.testing.assert_close(y[0, 0, top : top + size[0], left : left + size[1]], k)
    torch.testing.assert_close(y.abs().sum(), k.abs().sum())


@pytest.mark.parametrize("boundary", [*SCIPY, "valid"])
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (2, 1, 4, 5), (2, 3, 4, 5)])
def test_both_methods_agree_on_every_kind_of_kernel(boundary, shape):
    k, x = draw(*shape), draw(2, 3, 13, 11, seed=1)
    direct, fft = (Blur(k, boundary, method=method) for method in METHODS)
    torch.testing.assert_close(direct(x), fft(x), rtol=0, atol=1e-12)
    y = draw(*direct(x).shape, seed=2)
    torch.testing.assert_close(direct.adjoint(y), fft.adjoint(y), rtol=0, atol=1e-12)
    # Which kernel goes to which image and channel: one at a time.
    kernels = k.expand(2, 3, 4, 5)
    for i in range(2):
        for c in range(3):
            one = Blur(kernels[i, c], boundary)(x[i : i + 1, c : c + 1])
            torch.testing.assert_close(direct(x)[i : i + 1, c : c + 1], one, rtol=0, atol=1e-12)


@pytest.mark.parametrize("boundary", SCIPY)
def test_a_constant_picture_stays_as_it_is(boundary):
    x = torch.full((1, 1, 20, 23), 0.7)
    y = Blur(gaussian_kernel(1.5), boundary)(x)
    inside = y[..., 6:-6, 6:-6] if boundary == "zero" else y
    torch.testing.assert_close(inside, torch.full_like(inside, 0.7), rtol=0, atol=1e-6)


def test_the_kernel_is_not_normalised():
    torch.testing.assert_close(
        Blur(torch.tensor([[3.0]]))(torch.ones(1, 1, 2, 2)), torch.full((1, 1, 2, 2), 3.0)
    )


def test_the_kernel_is_the_operators_own():
    k = torch.ones(1, 1)
    blur = Blur(k)
    k.zero_()
    assert blur(torch.ones(1, 1, 2, 2)).all()


@pytest.mark.parametrize("boundary", [*SCIPY, "valid"])
@pytest.mark.parametrize("method", METHODS)
def test_gradient_with_respect_to_the_kernel(boundary, method):
    """For blind deblurring."""
    x = draw(1, 2, 7, 6)

    def measure(kernel):
        blur = Blur(torch.ones(3, 2), boundary, method=method).double()
        blur._buffers["kernel"] = kernel
        return blur(x)

    assert torch.autograd.gradcheck(measure, draw(1, 1, 3, 2, seed=1).requires_grad_(), fast_mode=True)
    blur = Blur(torch.ones(3, 2), boundary, method=method).double()
    blur(x)  # what is remembered has no gradient
    blur.kernel.requires_grad_()
    for _ in range(2):  # a graph that was kept would be gone the second time
        blur(x).sum().backward()
    assert blur.kernel.grad.abs().sum() > 0


def test_wiener_is_the_circular_prox():
    x, k = draw(1, 1, 16, 15), gaussian_kernel(1.0).double()
    blur = Blur(k)
    y = blur(x) + 0.1 * draw(1, 1, 16, 15, seed=1)
    padded = torch.zeros(16, 15, dtype=torch.float64)
    padded[: k.shape[0], : k.shape[1]] = k
    h = torch.fft.fft2(padded.roll((-(k.shape[0] // 2), -(k.shape[1] // 2)), (0, 1)))
    wiener = torch.fft.ifft2(h.conj() * torch.fft.fft2(y) / (h.abs() ** 2 + 0.2)).real
    torch.testing.assert_close(blur.prox(y, torch.zeros_like(x), 0.2), wiener)


def test_transforms_are_computed_once(monkeypatch):
    blur, x = Blur(gaussian_kernel(1.0)), torch.rand(1, 3, 16, 16)
    blur(x)
    calls = []
    original = Blur._wrapped
    monkeypatch.setattr(Blur, "_wrapped", lambda *args: calls.append(1) or original(*args))
    blur(x), blur.adjoint(x), blur.prox(x, x, 0.1)
    assert calls == []
    blur(torch.rand(1, 3, 16, 18))
    assert calls == [1]


def test_many_sizes_are_not_all_remembered():
    blur = Blur(gaussian_kernel(1.0))
    for n in range(10, 40):
        blur(torch.rand(1, 1, n, n))
    assert len(blur._remembered) <= 8


def test_a_large_kernel_is_fast():
    """A prime side; the direct sum takes some 50 times as long."""
    x = torch.rand(1, 3, 251, 251)
    for boundary in ("circular", "reflect"):
        blur = Blur(gaussian_kernel(3.0, 61), boundary)
        blur(x)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            blur(x)
            times.append(time.perf_counter() - start)
        assert min(times) < 0.05


class TestKernels:
    def test_gaussian(self):
        k = gaussian_kernel(3.0, 61)
        assert k.shape == (61, 61)
        assert k.sum() == pytest.approx(1, abs=1e-6)
        assert k.argmax() == 30 * 61 + 30
        rows = torch.arange(61.0) - 30
        assert (k.sum(1) * rows**2).sum().sqrt() == pytest.approx(3, abs=1e-4)
        assert gaussian_kernel((1.0, 2.0)).shape == (9, 17)
        even = gaussian_kernel(1.0, 8)
        assert even.argmax() == 4 * 8 + 4

    def test_disk(self):
        k = disk_kernel(3.3)
        assert k.shape == (7, 7)
        assert k.sum() == pytest.approx(1, abs=1e-6)
        torch.testing.assert_close(k, k.flip(0, 1))
        torch.testing.assert_close(k, k.T)
        assert k[3, 3] == pytest.approx(1 / (np.pi * 3.3**2), rel=1e-2)
        assert disk_kernel(0.01, 3)[1, 1] == 1
        assert disk_kernel(2.0, (9, 11)).shape == (9, 11)

    @pytest.mark.parametrize("intensity", [0.0, 0.3, 1.0])
    def test_motion(self, intensity):
        k = motion_kernel(31, intensity, seed=4)
        assert k.shape == (31, 31)
        assert (k >= 0).all()
        assert k.sum() == pytest.approx(1, abs=1e-5)
        rows = torch.arange(31.0) - 15
        assert (k.sum(1) * rows).sum() == pytest.approx(0, abs=1e-3)
        assert (k.sum(0) * rows).sum() == pytest.approx(0, abs=1e-3)
        assert (k > 0).sum() > 20
        torch.testing.assert_close(motion_kernel(31, intensity, seed=4), k, rtol=0, atol=0)
        assert not torch.equal(motion_kernel(31, intensity, seed=5), k)

    def test_straight_motion(self):
        diagonal = motion_kernel(21, 0, length=20, angle=45)
        torch.testing.assert_close(diagonal, diagonal.T.flip(0, 1))
        assert diagonal[14, 6] > 0.02  # from the bottom left
        assert diagonal[6, 6] == 0
        assert (motion_kernel(21, 0, length=10, angle=90)[:, 10] > 0).sum() == 11
        torch.testing.assert_close(motion_kernel(5, length=0, seed=0)[2, 2], torch.tensor(1.0))

    def test_more_shake_is_less_straight(self):
        def straightness(k):
            rows, columns = torch.meshgrid(torch.arange(61.0) - 30, torch.arange(61.0) - 30, indexing="ij")
            xy = (k * rows * columns).sum()
            spread = torch.stack([(k * rows**2).sum(), xy, xy, (k * columns**2).sum()]).reshape(2, 2)
            low, high = torch.linalg.eigvalsh(spread)
            return 1 - low.clamp_min(0) / high

        still = [straightness(motion_kernel(61, 0.0, seed=s)) for s in range(8)]
        shaken = [straightness(motion_kernel(61, 1.0, seed=s)) for s in range(8)]
        assert min(still) > 0.99
        assert sum(shaken) / 8 < 0.95

    @pytest.mark.parametrize(
        ("make", "match"),
        [
            (lambda: gaussian_kernel(0.0), "std should be one number above 0"),
            (lambda: gaussian_kernel((1.0, -2.0)), "above 0"),
            (lambda: gaussian_kernel(1.0, 0), "size should be an integer of at least 1"),
            (lambda: gaussian_kernel(1.0, 2.5), "integer"),
            (lambda: gaussian_kernel(1.0, "5x5"), "integer"),
            (lambda: disk_kernel(-1.0), "radius should be above 0"),
            (lambda: motion_kernel(5, 2.0), r"intensity should be from 0 .* to 1; got 2"),
            (lambda: motion_kernel(5, length=-1.0), "length should be in pixels"),
        ],
    )
    def test_refusals(self, make, match):
        with pytest.raises(ValueError, match=match):
            make()


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Blur(torch.ones(3, 3), "mirror"), ValueError, "boundary should be one of circular, reflect"),
        (
            lambda: Blur(torch.ones(3, 3), method="fast"),
            ValueError,
            '"auto", "fft" or "direct"; got \'fast\'',
        ),
        (lambda: Blur(torch.ones(3)), ValueError, r"\(h, w\).*got \(3,\)"),
        (lambda: Blur(torch.full((3, 3), float("nan"))), ValueError, "kernel has NaN"),
        (lambda: Blur(torch.zeros(3, 3)), ValueError, "kernel of zeros"),
        (lambda: Blur(torch.ones(0, 3)), ValueError, "empty"),
        (lambda: Blur(torch.ones(3, 3).cfloat()), TypeError, "real"),
        (lambda: Blur("gaussian"), TypeError, "kernel should be a tensor"),
        (lambda: Blur(torch.ones(2, 3, 3))(torch.ones(1, 3, 8, 8)), ValueError, r"\(2, H, W\).*\(3, 8, 8\)"),
        (lambda: Blur(torch.ones(9, 3), "valid")(torch.ones(1, 3, 8, 8)), ValueError, "at least as large"),
        (lambda: Blur(torch.ones(5, 5), "reflect")(torch.ones(1, 1, 2, 9)), ValueError, "replicate"),
    ],
)
def test_refusals(make, error, match):
    with pytest.raises(error, match=match):
        make()
