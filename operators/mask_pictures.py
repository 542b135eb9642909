"""Masks from pictures of them: files, PIL images, arrays."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from operators.arguments import as_pair

#: A picture of which more than this share is between black and white is hardly one of a mask, unless it has no more
#: greys than so many, such as a brush of half its strength leaves.
MOST_GREY, FEW_GREYS = 0.5, 4


def mask_from_image(
    picture: Any,
    size: int | Sequence[int] | None = None,
    white: Literal["fill", "keep"] = "fill",
    *,
    transparent: Literal["black", "fill"] = "black",
    resize: bool = False,
) -> Tensor:
    """A mask from a picture of it: a file, a PIL image of any mode, or an array.

    Pixels are black or white by whether they are above half of the brightest possible value. A picture that is mostly
    grey is taken as well, with a warning.

    Args:
        picture: a path; a PIL image; or an array or tensor, ``(H, W)`` or ``(H, W, C)`` with 1 to 4 channels,
            boolean, 8- or 16-bit, or floating in [0, 1]. Integer pictures of only 0 and 1 count 1 as white.
        size: ``(H, W)`` of the image that it is for.
        white: "fill" if white is to be filled in, as in editors and inpainting tools, or "keep" if it is
            measured.
        transparent: "black": the picture lies on a black ground, so that what is transparent counts as black.
            "fill": the hole was made with an eraser; what is more than half transparent is to be filled in,
            and colours do not count.
        resize: resize a picture of another size, instead of refusing it. Of a larger one no scratch is lost: a pixel is
            to be filled in if any of those that it stands for is, and what is measured shrinks by as much. A smaller
            one is enlarged by its nearest pixels.

    Returns:
        ``(H, W)`` boolean, True = measured.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no picture, the size differs, a floating picture is not in [0, 1], or
            ``transparent="fill"`` and the picture has no transparency.

    >>> mask_from_image(np.array([[0, 255, 130]], dtype=np.uint8))
    tensor([[ True, False, False]])
    """
    if white not in ("fill", "keep"):
        raise ValueError(
            f'white should be "fill" (white is to be filled in) or "keep" (measured); got {white!r}'
        )
    if transparent not in ("black", "fill"):
        raise ValueError(f'transparent should be "black" or "fill"; got {transparent!r}')
    values, alpha = _read_picture(picture)
    if transparent == "fill":
        if alpha is None:
            raise ValueError(
                'transparent="fill" needs a picture with transparency (RGBA or LA); this one has none'
            )
        mask = alpha > 0.5
    else:
        brightness = values if alpha is None else values * alpha
        _warn_of_greys(brightness, alpha, picture)
        bright = brightness > 0.5
        mask = ~bright if white == "fill" else bright
    if size is not None and mask.shape != (wanted := as_pair(size, "size")):
        if not resize:
            raise ValueError(
                f"the mask's picture is {mask.shape[0]} x {mask.shape[1]} (rows x columns), the image "
                f"{wanted[0]} x {wanted[1]}: draw the mask at the image's size, or say resize=True "
                f"(in a shell, --resize-mask)"
            )
        for axis, side in enumerate(wanted):
            first = np.arange(side) * mask.shape[axis] // side
            # Where ``first`` repeats, as in an enlargement, it is the pixel itself.
            mask = np.logical_and.reduceat(mask, first, axis=axis)
    return torch.from_numpy(np.ascontiguousarray(mask))


def _warn_of_greys(brightness: np.ndarray, alpha: np.ndarray | None, picture: Any) -> None:
    """Says so where a picture ``(H, W)`` looks like a photograph and not like a mask."""
    grey = brightness[np.abs(brightness - 0.5) < 0.4]
    if grey.size <= MOST_GREY * brightness.size or len(np.unique(grey.round(2))) <= FEW_GREYS:
        return
    hint = (
        'Say transparent="fill" if the hole was made with an eraser'
        if alpha is not None and (alpha <= 0.5).any()
        else "Were the picture and the mask swapped?"
    )
    name = repr(str(picture)) if isinstance(picture, str | os.PathLike) else "the picture"
    warnings.warn(
        f"{grey.size / brightness.size:.0%} of {name} is neither black nor white, as in a photograph and not as in a "
        f"mask; what is brighter than half is taken for white. {hint}",
        stacklevel=3,
    )


def _read_picture(picture: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Luminance and opacity (None: all opaque) of a picture, ``(H, W)``, both in [0, 1]."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(picture, str | os.PathLike):
        try:
            with Image.open(picture) as opened:
                picture = ImageOps.exif_transpose(opened)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"there is no file {str(picture)!r} to read a mask from (looked in {os.getcwd()!r})"
            ) from None
        except IsADirectoryError:
            raise IsADirectoryError(
                f"{str(picture)!r} is a folder; expected the file of a mask's picture"
            ) from None
        except UnidentifiedImageError:
            raise ValueError(
                f"{str(picture)!r} is not a picture that PIL can read; expected a mask as PNG, TIFF or the like"
            ) from None
    if isinstance(picture, Image.Image):
        if picture.mode in ("P", "PA", "RGBa", "La") or "transparency" in picture.info:
            picture = picture.convert("RGBA")
        elif picture.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
            picture = picture.convert("RGB")
        array = np.asarray(picture)
    else:
        array = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else np.asarray(picture)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or array.size == 0:
        raise ValueError(
            f"a picture of a mask has shape (H, W), or (H, W, C) with 1 to 4 channels; got {array.shape}. "
            "For a (C, H, W) tensor: tensor.permute(1, 2, 0)"
        )
    if array.dtype == bool:
        unit = array.astype(np.float64)
    elif array.dtype.kind in "iu":
        # By the values and not by the type: np.array([[0, 255]]) has 64 bits, and 16-bit files come as 32.
        white_level = next((top for top in (1, 255, 65535) if array.max() <= top), 0)
        if array.min() < 0 or not white_level:
            raise ValueError(
                "an integer picture of a mask is in 0..255 (or 0..1, or 0..65535); got values from "
                f"{array.min()} to {array.max()}"
            )
        unit = array / white_level
    else:
        unit = array.astype(np.float64)
        if not (unit.min() >= 0 and unit.max() <= 1):  # so that NaN is refused as well
            raise ValueError(
                f"a floating picture of a mask is in [0, 1]; got values from {array.min():g} to "
                f"{array.max():g}. Divide by 255, or give 8-bit values as uint8"
            )
    colours = unit[:, :, :3] if unit.shape[2] >= 3 else unit[:, :, :1]
    values = colours @ (np.array([0.299, 0.587, 0.114]) if colours.shape[2] == 3 else np.ones(1))
    return values, unit[:, :, -1] if unit.shape[2] in (2, 4) else None
