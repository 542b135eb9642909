"""Inpainting: pixels that were measured, and pixels that were not. True, or 1, means measured (kept)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from operators.arguments import as_buffer, as_column, as_generator, as_pair
from operators.base import SVD, LinearOperator, Shape
from operators.mask_pictures import mask_from_image


class Mask(LinearOperator):
    """Keeps some pixels and sets the others to zero: ``y = mask * x``.

    The measurement has the image's shape. ``True``, or 1, means measured; other numbers are weights.

    Args:
        mask: ``(H, W)``; ``(C, H, W)`` with ``C`` 1 or the image's; or ``(B, C, H, W)`` with ``B`` 1 or the
            batch. Boolean or real. A picture in which white is to be filled in: see `from_hole_image`.

    Raises:
        ValueError: if the mask has another rank, NaN, or looks like a picture (values up to 255).

    >>> A = Mask(torch.tensor([[True, False]]))
    >>> A(torch.tensor([[[[0.2, 0.7]]]]))
    tensor([[[[0.2000, 0.0000]]]])
    """

    per_image: ClassVar[tuple[str, ...]] = ("mask",)
    mask: Tensor

    def __init__(self, mask: Any) -> None:
        super().__init__()
        if isinstance(mask, str | os.PathLike):
            raise TypeError(
                f"the mask is a path, {str(mask)!r}: use Mask.from_hole_image(path) if white is to be filled in, "
                "Mask.from_keep_image(path) if white is measured"
            )
        mask = as_buffer(mask, "the mask")
        if mask.ndim not in (2, 3, 4):
            raise ValueError(
                "a mask has shape (H, W), (C, H, W) or (B, C, H, W); got "
                f"{tuple(mask.shape)}. One mask per image: stack them to (B, 1, H, W)"
            )
        if mask.max() in (255, 65535):
            raise ValueError(
                f"the mask's values go up to {mask.max():g}, like a picture's: use "
                "Mask.from_hole_image(picture) if white is to be filled in, Mask.from_keep_image(picture) if "
                "white is measured, or mask > 0"
            )
        self.register_buffer("mask", mask.reshape(*[1] * (4 - mask.ndim), *mask.shape))

    @classmethod
    def from_hole_image(cls, picture: Any, size: Any = None, **options: Any) -> Mask:
        """From a picture, or its file, in which *white is to be filled in*.

        That is what white means in editors and inpainting tools.

        Takes the arguments of `mask_from_image`, but ``white``.

        >>> import numpy as np
        >>> Mask.from_hole_image(np.array([[0, 255]], dtype=np.uint8)).mask
        tensor([[[[1., 0.]]]])
        """
        return cls(mask_from_image(picture, size, white="fill", **options))

    @classmethod
    def from_keep_image(cls, picture: Any, size: Any = None, **options: Any) -> Mask:
        """From a picture, or its file, in which *white is measured* (kept).

        Takes the arguments of `mask_from_image`, but ``white``.

        >>> import numpy as np
        >>> Mask.from_keep_image(np.array([[0, 255]], dtype=np.uint8)).mask
        tensor([[[[0., 1.]]]])
        """
        return cls(mask_from_image(picture, size, white="keep", **options))

    def measurement_shape(self, image_shape: Shape) -> Shape:
        """The image's shape; ValueError if the mask does not fit it."""
        _, c, h, w = self.mask.shape
        if len(image_shape) != 3 or tuple(image_shape[1:]) != (h, w):
            raise ValueError(
                f"the mask is {h} x {w} (rows x columns), but the image has shape {tuple(image_shape)}: give "
                "a mask of the image's size (mask_from_image(..., resize=True) resizes)"
            )
        if c not in (1, image_shape[0]):
            raise ValueError(
                f"the mask has {c} channels, the image {image_shape[0]}: give 1 channel or as many as the "
                "image. One mask per image is (B, 1, H, W)"
            )
        return tuple(image_shape)

    def image_shape(self, measurement_shape: Shape) -> Shape:
        """The measurement's shape."""
        return tuple(measurement_shape)

    def forward(self, x: Tensor) -> Tensor:
        """``mask * x``."""
        self.check_images(x)
        return self.mask.to(x.dtype) * x

    def adjoint(self, y: Tensor) -> Tensor:
        """``mask * y``: a diagonal is its own transpose."""
        self.check_measurements(y)
        return self.mask.to(y.dtype) * y

    def gram_solve(self, r: Tensor, lam: float | Tensor = 0.0) -> Tensor:
        """``r / (mask^2 + lam)``."""
        self.check_measurements(r)
        m = self.mask.to(r.dtype)
        return r * self._inverse(m**2, m.abs(), as_column(lam, r, "lam"))

    def ridge(self, y: Tensor, lam: float | Tensor) -> Tensor:
        """``mask * y / (mask^2 + lam)``."""
        return self.mask.to(y.dtype) * self.gram_solve(y, lam)

    def svd(self, image_shape: Shape) -> SVD:
        """The pixels are the singular directions: s = abs(mask), V = 1, and U carries the sign."""
        self.measurement_shape(image_shape)

        def build() -> SVD:
            m = self.mask.to(self.dtype)
            s = torch.where(m.abs() > self._cut(m.abs()), m.abs(), 0)
            sign = torch.sign(m) * (s > 0)
            return SVD(s, lambda x: x, lambda c: c, lambda y: sign * y, lambda c: sign * c)

        return self.remember(("svd", self.rtol), build)

    def extra_repr(self) -> str:
        """Size, and how much is measured."""
        return f"{tuple(self.mask.shape)}, {float((self.mask != 0).float().mean()):.0%} measured"


def box_mask(
    size: int | Sequence[int], box: int | Sequence[int], *, seed: int | torch.Generator | None = None
) -> Tensor:
    """A mask with a rectangular hole.

    Args:
        size: of the image, ``(H, W)`` or one side.
        box: the hole, in pixels: a side; ``(height, width)``; or ``(top, left, height, width)``.
        seed: a hole without a place is put in the middle, or, with a seed or a generator, at a random place.

    Returns:
        ``(H, W)`` boolean, False in the hole.

    Raises:
        ValueError: if the hole does not lie within the image.

    >>> box_mask((3, 4), (1, 2)).int()
    tensor([[1, 1, 1, 1],
            [1, 0, 0, 1],
            [1, 1, 1, 1]], dtype=torch.int32)
    """
    h, w = as_pair(size, "size")
    if isinstance(box, Sequence) and len(box) == 4:
        (top, left), (height, width) = (
            as_pair(box[:2], "the box's corner", minimum=0),
            as_pair(box[2:], "box"),
        )
    else:
        height, width = as_pair(box, "box")
        top, left = (h - height) // 2, (w - width) // 2
        if seed is not None and height <= h and width <= w:
            generator = as_generator(seed)
            top = int(torch.randint(h - height + 1, (), generator=generator))
            left = int(torch.randint(w - width + 1, (), generator=generator))
    if top < 0 or left < 0 or top + height > h or left + width > w:
        raise ValueError(
            f"a box of {height} x {width} at row {top}, column {left} does not lie within an image of {h} x "
            f"{w}"
        )
    mask = torch.ones(h, w, dtype=torch.bool)
    mask[top : top + height, left : left + width] = False
    return mask


def random_mask(
    size: int | Sequence[int],
    keep: float = 0.3,
    *,
    batch: int | None = None,
    seed: int | torch.Generator | None = None,
) -> Tensor:
    """A mask that keeps pixels at random, the same ones in every channel.

    Args:
        size: of the image, ``(H, W)`` or one side.
        keep: the fraction of pixels that are measured, in [0, 1]; met exactly, up to rounding.
        batch: how many different masks, one per image.
        seed: an integer or a generator; None draws another mask every time.

    Returns:
        ``(H, W)`` boolean, or ``(batch, 1, H, W)``. The first of a batch is the mask without ``batch``.

    >>> random_mask((10, 10), keep=0.3, seed=0).sum()
    tensor(30)
    """
    h, w = as_pair(size, "size")
    if not 0 <= keep <= 1:
        raise ValueError(f"keep is the fraction of pixels that are measured, from 0 to 1; got {keep}")
    generator = as_generator(seed)
    count = round(keep * h * w)
    masks = torch.zeros(1 if batch is None else batch, 1, h * w, dtype=torch.bool)
    for mask in masks:
        mask[0, torch.randperm(h * w, generator=generator)[:count]] = True
    return masks.reshape(-1, 1, h, w) if batch is not None else masks.reshape(h, w)


def freeform_mask(
    size: int | Sequence[int],
    keep: float = 0.75,
    *,
    batch: int | None = None,
    seed: int | torch.Generator | None = None,
) -> Tensor:
    """A mask with holes like the strokes of a brush.

    The free-form masks of Yu et al. (2019, arXiv:1806.03589). Strokes are drawn until the holes cover ``1 -
    keep`` of the image. Their width and length scale with it.

    Args:
        size: of the image, ``(H, W)`` or one side.
        keep: the fraction of pixels that stay measured, at most; in [0, 1].
        batch: how many different masks, one per image.
        seed: an integer or a generator; None draws another mask every time.

    Returns:
        ``(H, W)`` boolean, or ``(batch, 1, H, W)``, False under the strokes.

    >>> mask = freeform_mask((32, 48), keep=0.75, seed=0)
    >>> bool(0.4 < mask.float().mean() <= 0.75)
    True
    """
    h, w = as_pair(size, "size")
    if not 0 <= keep <= 1:
        raise ValueError(f"keep is the fraction of pixels that stay measured, from 0 to 1; got {keep}")
    generator = as_generator(seed)
    masks = []
    for _ in range(1 if batch is None else batch):
        mask = torch.ones(h, w, dtype=torch.bool)
        while mask.float().mean() > keep:
            _draw_stroke(mask, generator)
        masks.append(mask)
    return torch.stack(masks)[:, None] if batch is not None else masks[0]


def _draw_stroke(mask: Tensor, generator: torch.Generator) -> None:
    """Clear one stroke: straight pieces with round ends, that turn a little back and forth at each joint."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))

    h, w = mask.shape
    side = math.sqrt(h * w)
    radius = max(0.5, side * uniform(0.02, 0.05))
    row, column = uniform(0, h - 1), uniform(0, w - 1)
    heading, turn = uniform(0, 2 * math.pi), uniform(0.3, 1.2)
    for joint in range(int(uniform(3, 9))):
        length = side * uniform(0.05, 0.2)
        end_row = min(max(row + length * math.sin(heading), 0), h - 1)
        end_column = min(max(column + length * math.cos(heading), 0), w - 1)
        # Only the rectangle around the piece is looked at, for large images.
        top, bottom = int(min(row, end_row) - radius), math.ceil(max(row, end_row) + radius) + 1
        left, right = int(min(column, end_column) - radius), math.ceil(max(column, end_column) + radius) + 1
        top, left = max(top, 0), max(left, 0)
        rows = torch.arange(top, min(bottom, h), dtype=torch.float64)[:, None] - row
        columns = torch.arange(left, min(right, w), dtype=torch.float64)[None, :] - column
        along_row, along_column = end_row - row, end_column - column
        squared = max(along_row**2 + along_column**2, 1e-12)
        nearest = ((rows * along_row + columns * along_column) / squared).clamp(0, 1)
        outside = (rows - nearest * along_row) ** 2 + (columns - nearest * along_column) ** 2 > radius**2
        mask[top : min(bottom, h), left : min(right, w)] &= outside
        row, column = end_row, end_column
        heading += (
            (1 if joint % 2 else -1) * turn + uniform(-0.5, 0.5) + (math.pi if uniform(0, 1) < 0.1 else 0)
        )
