"""Blur: convolution with a point-spread function."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.arguments import as_buffer, as_column
from operators.base import SVD, LinearOperator, Shape

BOUNDARIES = ("circular", "reflect", "replicate", "zero", "valid")

#: Kernels with more values than this are faster by FFT (measured on a CPU, images of 64 to 512 pixels).
DIRECT_AT_MOST = 25


class Blur(LinearOperator):
    """Convolution of every channel with a kernel.

    ``y[i] = sum_j kernel[j] x[i - (j - c)]`` with ``c = size // 2``.

    A true convolution: a bright point becomes the kernel, not its mirror image
    (``torch.nn.functional.conv2d`` correlates). The convention is that of ``scipy.ndimage.convolve``, even
    sizes included.

    The kernel is used as it is, not made to sum to 1: one of sum 2 brightens twofold. Those of the makers in
    this package (`gaussian_kernel`, `motion_kernel`, `disk_kernel`) sum to 1.

    Args:
        kernel: ``(h, w)``; ``(C, h, w)``, one per channel; or ``(B, 1 or C, h, w)``, one per image of a
            batch. Any sizes, odd or even. If it requires a gradient (``blur.kernel.requires_grad_()``),
            measurements are differentiable with respect to it.
        boundary: what lies beyond the image's edge.

            - "circular": the opposite edge. Has a fast decomposition (FFT), so that every inverse is in
              closed form.
            - "reflect": the image mirrored about its outermost pixel's centre, ``c b | a b c``, as in torch
              (scipy calls it "mirror"). The kernel's reach must be below the image's size.
            - "replicate": the outermost pixel (scipy: "nearest").
            - "zero": black (scipy: "constant").
            - "valid": nothing. The measurement is smaller, by the kernel's size less one: only pixels that do
              not depend on what lies beyond, as in a real photograph.
        method: "fft", "direct", or "auto", the one that is faster for this kernel.

    Raises:
        TypeError: if the kernel is not real numbers.
        ValueError: for another rank, NaN, a kernel of zeros, an unknown boundary or method.

    >>> A = Blur(torch.tensor([[0.5, 0.5, 0.0]]), boundary="zero")
    >>> A(torch.tensor([[[[0.0, 0.0, 1.0, 0.0]]]]))
    tensor([[[[0.0000, 0.5000, 0.5000, 0.0000]]]])
    """

    per_image: ClassVar[tuple[str, ...]] = ("kernel",)
    kernel: Tensor

    def __init__(
        self,
        kernel: Any,
        boundary: Literal["circular", "reflect", "replicate", "zero", "valid"] = "circular",
        *,
        method: Literal["auto", "fft", "direct"] = "auto",
    ) -> None:
        super().__init__()
        if boundary not in BOUNDARIES:
            raise ValueError(f"boundary should be one of {', '.join(BOUNDARIES)}; got {boundary!r}")
        if method not in ("auto", "fft", "direct"):
            raise ValueError(f'method should be "auto", "fft" or "direct"; got {method!r}')
        kernel = as_buffer(kernel, "the kernel")
        if kernel.ndim not in (2, 3, 4):
            raise ValueError(
                "a kernel has shape (h, w), (C, h, w) for one per channel, or (B, 1, h, w) for one per "
                f"image; got {tuple(kernel.shape)}"
            )
        if not bool(kernel.flatten(-2).any(-1).all()):
            raise ValueError("a kernel of zeros measures nothing: check how it was made")
        self.register_buffer("kernel", kernel.reshape(*[1] * (4 - kernel.ndim), *kernel.shape))
        self.boundary, self.method = boundary, method

    def measurement_shape(self, image_shape: Shape) -> Shape:
        """The image's shape; for "valid", less by the kernel's size less one."""
        _, channels, h, w = self.kernel.shape
        if len(image_shape) != 3 or channels not in (1, image_shape[0]):
            raise ValueError(
                f"the kernel is for images of shape ({channels if channels > 1 else 'C'}, H, W); got one of "
                f"shape {tuple(image_shape)}. One kernel per image is (B, 1, h, w)"
            )
        c, height, width = image_shape
        if self.boundary == "valid":
            if height < h or width < w:
                raise ValueError(
                    f'boundary="valid" needs an image at least as large as the kernel, {h} x {w}; got '
                    f"{height} x "
                    f"{width}. Crop the kernel, or choose another boundary"
                )
            return c, height - h + 1, width - w + 1
        if self.boundary == "reflect" and (h // 2 >= height or w // 2 >= width):
            raise ValueError(
                f'boundary="reflect" can mirror at most size - 1 pixels, but a kernel of {h} x {w} reaches '
                f'{h // 2} and {w // 2} pixels beyond an image of {height} x {width}: choose "replicate" or '
                '"circular"'
            )
        return c, height, width

    def image_shape(self, measurement_shape: Shape) -> Shape:
        """The measurement's shape; for "valid", more by the kernel's size less one."""
        if self.boundary != "valid":
            return tuple(measurement_shape)
        c, height, width = measurement_shape
        return c, height + self.kernel.shape[-2] - 1, width + self.kernel.shape[-1] - 1

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        self.check_images(x)
        size = x.shape[-2:]
        if self._on_the_circle(size):
            return self._filter(x, self._circular_transform(size, x.dtype))
        padded = x
        for axis, (before, after) in zip((-2, -1), self._reach(), strict=True):
            padded = _extend(padded, axis, before, after, self.boundary)
        h, w = self.kernel.shape[-2:]
        if not self._by_fft():
            kernel = self.kernel.to(x.dtype).flip(-2, -1)
            return _each_channel(F.conv2d, padded, kernel)
        transform, fast = self._padded_transform(padded.shape[-2:], x.dtype)
        spectrum = torch.fft.rfft2(padded, s=fast) * transform
        return torch.fft.irfft2(spectrum, s=fast)[..., h - 1 : padded.shape[-2], w - 1 : padded.shape[-1]]

    def adjoint(self, y: Tensor) -> Tensor:
        """Correlate, then fold what lies beyond the edge back to where it came from."""
        self.check_measurements(y)
        _, *size = self.image_shape(tuple(y.shape[1:]))
        if self._on_the_circle(size):
            return self._filter(y, self._circular_transform(size, y.dtype).conj())
        h, w = self.kernel.shape[-2:]
        if not self._by_fft():
            x = _each_channel(F.conv_transpose2d, y, self.kernel.to(y.dtype).flip(-2, -1))
        else:
            height, width = y.shape[-2] + h - 1, y.shape[-1] + w - 1
            transform, fast = self._padded_transform((height, width), y.dtype)
            spectrum = torch.fft.rfft2(F.pad(y, (w - 1, 0, h - 1, 0)), s=fast) * transform.conj()
            x = torch.fft.irfft2(spectrum, s=fast)[..., :height, :width]
        for axis, (before, after) in zip((-2, -1), self._reach(), strict=True):
            x = _fold(x, axis, before, after, self.boundary)
        return x

    @property
    def has_svd(self) -> bool:
        """True for the circular boundary."""
        return self.boundary == "circular"

    def gram_solve(self, r: Tensor, lam: float | Tensor = 0.0) -> Tensor:
        """``(A A^T + lam I)^{-1} r``: by FFT for "circular", otherwise by conjugate gradients."""
        if not self.has_svd:
            return super().gram_solve(r, lam)
        self.check_measurements(r)
        transform = self._circular_transform(r.shape[-2:], r.dtype)
        magnitude = transform.abs()
        return self._filter(r, self._inverse(magnitude**2, magnitude, as_column(lam, r, "lam")))

    def ridge(self, y: Tensor, lam: float | Tensor) -> Tensor:
        """``A^T (A A^T + lam I)^+ y``: by FFT for "circular", where it is Wiener's filter."""
        if not self.has_svd:
            return self._iterated_ridge(y, lam)
        self.check_measurements(y)
        transform = self._circular_transform(y.shape[-2:], y.dtype)
        magnitude = transform.abs()
        inverse = self._inverse(magnitude**2, magnitude, as_column(lam, y, "lam"))
        return self._filter(y, transform.conj() * inverse)

    def svd(self, image_shape: Shape) -> SVD | None:
        """For the circular boundary: V is the Hartley transform, s the modulus of the kernel's FFT.

        The Hartley transform, real part minus imaginary part of the orthonormal 2-D FFT, is orthogonal, real
        and its own inverse. A convolution mixes its coefficients at w and -w, which share one singular value;
        that rotation and the kernel's phase are in U.
        """
        _, *size = self.measurement_shape(image_shape)
        if not self.has_svd:
            return None

        def build() -> SVD:
            full = torch.fft.fft2(self._wrapped(size, torch.float64))
            s = full.abs()
            # Equal at w and -w to the last digit: both are kept, or neither.
            s = torch.maximum(s, s.flip(-2, -1).roll((1, 1), (-2, -1)))
            s = torch.where(s > self._cut(s.to(self.dtype)), s, 0)
            half = slice(size[1] // 2 + 1)  # what the transform of real images keeps
            phase = torch.where(s > 0, full / s.clamp_min(1e-300), 0)[..., half].to(self.dtype.to_complex())

            measured = (s > 0).to(self.dtype)  # a transform leaves rounding errors where zeros belong

            def ut(y: Tensor) -> Tensor:
                return _hartley(self._filter(y, phase.conj())) * measured

            def u(coefficients: Tensor) -> Tensor:
                return self._filter(_hartley(coefficients), phase)

            return SVD(s.to(self.dtype), _hartley, _hartley, ut, u)

        return self.remember(("svd", tuple(size), self.rtol), build)

    def _on_the_circle(self, size: Any) -> bool:
        """Whether to convolve by an FFT of the image's own size: if that is fast, or the kernel is larger.

        Otherwise the image is extended, as for the other boundaries: three times faster if a side is prime.
        """
        h, w = self.kernel.shape[-2:]
        if self.boundary != "circular":
            return False
        return h > size[0] or w > size[1] or (self._by_fft() and all(_fast_size(n) == n for n in size))

    def _by_fft(self) -> bool:
        if self.method == "auto":
            return self.kernel.shape[-2] * self.kernel.shape[-1] > DIRECT_AT_MOST
        return self.method == "fft"

    def _reach(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """How many pixels (before, after) the image's edges a measured pixel depends on, per axis."""
        if self.boundary == "valid":
            return (0, 0), (0, 0)
        h, w = self.kernel.shape[-2:]
        return (h - 1 - h // 2, h // 2), (w - 1 - w // 2, w // 2)

    def _wrapped(self, size: Any, dtype: torch.dtype) -> Tensor:
        """The kernel on the circle of the image's size, its centre at the origin."""
        kernel = self.kernel.to(dtype)
        for axis, n in zip((-2, -1), size, strict=True):
            length = kernel.shape[axis]
            kernel = _pad_axis(kernel, axis, 0, -length % n)
            kernel = kernel.unflatten(axis, (-1, n)).sum(axis - 1).roll(-(length // 2), axis)
        return kernel

    def _circular_transform(self, size: Any, dtype: torch.dtype) -> Tensor:
        size = tuple(size)

        def build() -> Tensor:
            return torch.fft.rfft2(self._wrapped(size, torch.float64)).to(dtype.to_complex())

        return self.remember(("circular", size, dtype), build)

    def _padded_transform(self, size: Any, dtype: torch.dtype) -> tuple[Tensor, tuple[int, int]]:
        """The transform for a padded image, at the next size that is fast: the excess is cropped anyway."""
        fast = (_fast_size(size[0]), _fast_size(size[1]))

        def build() -> Tensor:
            return torch.fft.rfft2(self.kernel.double(), s=fast).to(dtype.to_complex())

        return self.remember(("padded", fast, dtype), build), fast

    def _filter(self, z: Tensor, transform: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(z) * transform, s=tuple(z.shape[-2:]))

    def extra_repr(self) -> str:
        """Kernel and boundary."""
        return f"kernel {tuple(self.kernel.shape)}, boundary={self.boundary!r}"


def _hartley(z: Tensor) -> Tensor:
    spectrum = torch.fft.fft2(z, norm="ortho")
    return spectrum.real - spectrum.imag


def _each_channel(convolve: Any, z: Tensor, kernel: Tensor) -> Tensor:
    """Every channel of every image with its own kernel: all of them are groups of one convolution."""
    b, c, *_ = z.shape
    kernel = kernel.expand(b, c, -1, -1).reshape(b * c, 1, *kernel.shape[-2:])
    return convolve(z.reshape(1, b * c, *z.shape[-2:]), kernel, groups=b * c).unflatten(1, (b, c))[0]


def _fast_size(n: int) -> int:
    """The next number without a prime factor above 7; a prime size is several times slower."""
    while True:
        rest = n
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


# F.pad would do for the extension, but its gradient on a GPU is not deterministic; slices are.


def _extend(x: Tensor, axis: int, before: int, after: int, boundary: str) -> Tensor:
    """The image, extended along an axis by what lies beyond its edges."""
    if before == after == 0:
        return x
    n = x.shape[axis]
    if boundary == "zero":
        return _pad_axis(x, axis, before, after)
    if boundary == "replicate":
        repeats = [-1] * x.ndim
        repeats[axis] = before
        first = x.narrow(axis, 0, 1).expand(repeats)
        repeats[axis] = after
        return torch.cat([first, x, x.narrow(axis, n - 1, 1).expand(repeats)], axis)
    if boundary == "circular":
        return torch.cat([x.narrow(axis, n - before, before), x, x.narrow(axis, 0, after)], axis)
    first, last = x.narrow(axis, 1, before), x.narrow(axis, n - 1 - after, after)
    return torch.cat([first.flip(axis), x, last.flip(axis)], axis)


def _fold(x: Tensor, axis: int, before: int, after: int, boundary: str) -> Tensor:
    """The transpose of `_extend`: what lies beyond the edges is added to where it was taken from."""
    if before == after == 0:
        return x
    n = x.shape[axis] - before - after
    first, middle, last = x.split([before, n, after], axis)
    if boundary == "zero":
        return middle
    if boundary == "replicate":
        first, last = first.sum(axis, keepdim=True), last.sum(axis, keepdim=True)
        return middle + _pad_axis(first, axis, 0, n - 1) + _pad_axis(last, axis, n - 1, 0)
    if boundary == "circular":
        return middle + _pad_axis(first, axis, n - before, 0) + _pad_axis(last, axis, 0, n - after)
    first, last = first.flip(axis), last.flip(axis)
    return middle + _pad_axis(first, axis, 1, n - 1 - before) + _pad_axis(last, axis, n - 1 - after, 1)


def _pad_axis(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    return F.pad(x, (before, after) if axis == -1 else (0, 0, before, after))
