"""Downsampling as PIL and MATLAB do it: exact, with an exact adjoint and pseudo-inverse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from operators.arguments import as_column, as_pair
from operators.base import SVD, LinearOperator, Shape


class Downsample(LinearOperator):
    """A smaller picture, with the anti-aliased filters of PIL and MATLAB.

    Resizing is separable: ``y = R_h x R_w^T`` with a small matrix per axis, which gives the exact adjoint,
    and from two small decompositions all inverses in closed form.

    The measurement has ``ceil(size / factor)`` rows and columns. Where the size does not divide, the filter
    is stretched so that the picture is covered exactly, as ``PIL.Image.resize`` does for that target size;
    the image's size cannot then be told from the measurement's, and has to be given as ``image_size``.

    Args:
        factor: an integer of at least 1, or two, ``(rows, columns)``.
        filter: "bicubic" (Keys' kernel with a = -0.5), "bilinear", "lanczos" (three lobes) or "box" (the mean
            of each block), each widened by the factor.
        boundary: what the filter does at the edges. "clip", as PIL: it is cut off and made to sum to 1 again.
            "symmetric", as MATLAB's ``imresize``: the picture is mirrored. Inside they agree.
        image_size: ``(H, W)`` of the images; only needed, and then only images of this size are taken, where
            ``factor`` does not divide it.

    Raises:
        ValueError: for an unknown filter or boundary, or a factor that is no positive integer.

    >>> A = Downsample(2, filter="box")
    >>> A(torch.tensor([[[[0.0, 1.0], [1.0, 1.0]]]]))
    tensor([[[[0.7500]]]])
    >>> Downsample(4, image_size=(30, 41)).measurement_shape((3, 30, 41))
    (3, 8, 11)
    """

    def __init__(
        self,
        factor: int | Sequence[int],
        filter: Literal["bicubic", "bilinear", "lanczos", "box"] = "bicubic",
        boundary: Literal["clip", "symmetric"] = "clip",
        image_size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.factor = as_pair(factor, "factor")
        if filter not in FILTERS:
            raise ValueError(f"filter should be one of {', '.join(FILTERS)}; got {filter!r}")
        if boundary not in ("clip", "symmetric"):
            raise ValueError(
                f'boundary should be "clip" (as PIL) or "symmetric" (as MATLAB); got {boundary!r}'
            )
        self.filter, self.boundary = filter, boundary
        self.image_size = None if image_size is None else as_pair(image_size, "image_size")

    def measurement_shape(self, image_shape: Shape) -> Shape:
        """``(C, ceil(H / factor), ceil(W / factor))``; ValueError if the image does not fit."""
        if len(image_shape) != 3:
            raise ValueError(f"Downsample takes images of shape (C, H, W); got {tuple(image_shape)}")
        c, *size = image_shape
        if self.image_size is not None and tuple(size) != self.image_size:
            raise ValueError(f"this Downsample is for images of size {self.image_size}; got {tuple(size)}")
        if self.image_size is None and any(n % f for n, f in zip(size, self.factor, strict=True)):
            raise ValueError(
                f"an image of {size[0]} x {size[1]} does not divide by {self.factor}: crop it, or say "
                f"Downsample(..., image_size=({size[0]}, {size[1]}))"
            )
        return c, *(-(-n // f) for n, f in zip(size, self.factor, strict=True))

    def image_shape(self, measurement_shape: Shape) -> Shape:
        """``(C, H * factor, W * factor)``, or with the ``image_size`` that was given."""
        c, *size = measurement_shape
        return c, *(self.image_size or (n * f for n, f in zip(size, self.factor, strict=True)))

    def forward(self, x: Tensor) -> Tensor:
        """Resize."""
        self.check_images(x)
        rows, columns = self._matrices(x)
        return rows @ x @ columns.mT

    def adjoint(self, y: Tensor) -> Tensor:
        """The two matrices, transposed."""
        self.check_measurements(y)
        rows, columns = self._matrices(y, measured=True)
        return rows.mT @ y @ columns

    def gram_solve(self, r: Tensor, lam: float | Tensor = 0.0) -> Tensor:
        """In the basis of the two axes' left singular vectors."""
        self.check_measurements(r)
        (uh, sh, _), (uw, sw, _) = self._factors(r)
        s = torch.outer(sh, sw)[None, None]
        inverse = self._inverse(s**2, s, as_column(lam, r, "lam"))
        return uh @ ((uh.mT @ r @ uw) * inverse) @ uw.mT

    def ridge(self, y: Tensor, lam: float | Tensor) -> Tensor:
        """``A^T (A A^T + lam I)^+ y`` in the basis of the two axes' singular vectors."""
        self.check_measurements(y)
        (uh, sh, vh), (uw, sw, vw) = self._factors(y)
        s = torch.outer(sh, sw)[None, None]
        inverse = s * self._inverse(s**2, s, as_column(lam, y, "lam"))
        return vh @ ((uh.mT @ y @ uw) * inverse) @ vw.mT

    def svd(self, image_shape: Shape) -> SVD:
        """The outer product of the two axes' decompositions; unmeasured directions come last."""
        m, n = self.measurement_shape(image_shape)[1:], tuple(image_shape[1:])

        def build() -> SVD:
            axes = [self._decompose(*sizes, full=True) for sizes in zip(m, n, strict=True)]
            (uh, sh, vh), (uw, sw, vw) = [tuple(t.to(self.device, self.dtype) for t in axis) for axis in axes]
            s = torch.zeros(1, 1, *n, dtype=self.dtype, device=self.device)
            s[..., : m[0], : m[1]] = torch.outer(sh, sw)
            s = torch.where(s > self._cut(s), s, 0)
            kept = (s > 0).to(s.dtype)

            def ut(y: Tensor) -> Tensor:
                inner = uh.to(y.dtype).mT @ y @ uw.to(y.dtype)
                padded = torch.nn.functional.pad(inner, (0, n[1] - m[1], 0, n[0] - m[0]))
                return padded * kept

            def u(coefficients: Tensor) -> Tensor:
                inner = (coefficients * kept)[..., : m[0], : m[1]]
                return uh.to(inner.dtype) @ inner @ uw.to(inner.dtype).mT

            return SVD(
                s,
                lambda x: vh.to(x.dtype).mT @ x @ vw.to(x.dtype),
                lambda c: vh.to(c.dtype) @ c @ vw.to(c.dtype).mT,
                ut,
                u,
            )

        return self.remember(("svd", n, self.rtol), build)

    def _matrices(self, z: Tensor, *, measured: bool = False) -> tuple[Tensor, Tensor]:
        """The two axes' matrices for images (or measurements) like z; computed in float64, then rounded."""
        shape = self.image_shape(tuple(z.shape[1:])) if measured else tuple(z.shape[1:])
        m, n = self.measurement_shape(shape)[1:], shape[1:]

        def build() -> tuple[Tensor, Tensor]:
            rows, columns = (
                resize_matrix(*two, self.filter, self.boundary) for two in zip(n, m, strict=True)
            )
            return rows.to(z.device, z.dtype), columns.to(z.device, z.dtype)

        return self.remember(("matrices", n, z.dtype, z.device), build)

    def _factors(self, y: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """``U, s, V`` of each axis, measured directions only, for measurements like y."""
        m, n = tuple(y.shape[-2:]), self.image_shape(tuple(y.shape[1:]))[1:]

        def build() -> list[tuple[Tensor, Tensor, Tensor]]:
            axes = [self._decompose(*sizes, full=False) for sizes in zip(m, n, strict=True)]
            return [(u.to(y), s.to(y), v.to(y)) for u, s, v in axes]

        return self.remember(("factors", n, y.dtype, y.device), build)

    def _decompose(self, m: int, n: int, *, full: bool) -> tuple[Tensor, Tensor, Tensor]:
        matrix = resize_matrix(n, m, self.filter, self.boundary)
        u, s, vt = torch.linalg.svd(matrix, full_matrices=full)
        return u, s, vt.mT

    def extra_repr(self) -> str:
        """Factor, filter and boundary."""
        return f"{self.factor}, filter={self.filter!r}, boundary={self.boundary!r}"


def resize_matrix(
    size: int,
    target: int,
    filter: Literal["bicubic", "bilinear", "lanczos", "box"] = "bicubic",
    boundary: Literal["clip", "symmetric"] = "clip",
) -> Tensor:
    """The matrix that resizes one axis from ``size`` to ``target`` pixels.

    Args:
        size: pixels before.
        target: pixels after; at most ``size``.
        filter: see `Downsample`.
        boundary: see `Downsample`.

    Returns:
        ``(target, size)`` float64; every row sums to 1.

    >>> resize_matrix(4, 2, "box")
    tensor([[0.5000, 0.5000, 0.0000, 0.0000],
            [0.0000, 0.0000, 0.5000, 0.5000]], dtype=torch.float64)
    """
    function, support = FILTERS[filter]
    scale = size / target
    matrix = torch.zeros(target, size, dtype=torch.float64)
    for i in range(target):
        # Coordinates of pixel edges; the centre of pixel j lies at j + 1/2. A pixel of the small picture
        # gathers the pixels whose centres lie within the widened filter.
        centre = (i + 0.5) * scale
        reach = support * scale
        first, last = math.floor(centre - reach + 0.5), math.floor(centre + reach + 0.5)
        if boundary == "clip":
            first, last = max(first, 0), min(last, size)
        pixels = torch.arange(first, last)
        weights = function((pixels.double() + 0.5 - centre) / scale)
        if boundary == "symmetric":
            pixels = pixels % (2 * size)
            pixels = torch.minimum(pixels, 2 * size - 1 - pixels)
        matrix[i].index_add_(0, pixels, weights / weights.sum())
    return matrix


def _bicubic(t: Tensor) -> Tensor:
    """Keys (1981), a = -0.5."""
    t = t.abs()
    near, far = (1.5 * t - 2.5) * t**2 + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, 0))


def _bilinear(t: Tensor) -> Tensor:
    return (1 - t.abs()).clamp_min(0)


def _lanczos(t: Tensor) -> Tensor:
    return torch.where(t.abs() < 3, torch.sinc(t) * torch.sinc(t / 3), 0)


def _box(t: Tensor) -> Tensor:
    """Half open, so that a pixel whose centre is on the border of two blocks belongs to one of them."""
    return ((t > -0.5) & (t <= 0.5)).double()


FILTERS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "bicubic": (_bicubic, 2.0),
    "bilinear": (_bilinear, 1.0),
    "lanczos": (_lanczos, 3.0),
    "box": (_box, 0.5),
}
