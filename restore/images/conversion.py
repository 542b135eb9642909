"""The way in: from an array, a tensor or PIL images to a float32 tensor `(B, C, H, W)`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from restore.images.checks import check_finite, check_shape, check_units, dtype_message
from restore.images.layout import ImageFormat
from restore.images.pil import is_pil, pil_to_array

if TYPE_CHECKING:
    from PIL import Image


def to_batch(image: Any, *, check_range: bool = True, name: str = "image") -> tuple[Tensor, ImageFormat]:
    """Turn a user's picture or measurement into a float32 tensor `(B, C, H, W)`.

    =====  =============================================  ====================================================
    kind   shapes                                         values
    =====  =============================================  ====================================================
    numpy  `(H, W)`, `(H, W, C)`, `(B, H, W, C)`          uint8, uint16, bool, or floats in [0, 1] up to noise
    torch  `(H, W)`, `(C, H, W)`, `(B, C, H, W)`          the same
    PIL    an image, or a list of images of one size      every mode
    =====  =============================================  ====================================================

    Integers are divided by 255 or 65535. Bool (and PIL mode `"1"`) reads as 0 and 1, and comes back as uint8,
    since what is restored from a black-and-white picture has more levels than two. PIL images with
    transparency are laid on white, palettes and CMYK become RGB, mode `"F"` counts as float. The tensor never
    shares memory with the input, and carries no gradient.

    Args:
        image: The picture, picture batch, or measurement.
        check_range: Refuse floats beyond 4 in magnitude, which are 8-bit values that nobody divided by 255.
            Moderate noise passes. Turn it off for measurements in units of their own.
        name: What error messages call the input.

    Returns:
        The tensor, on the device of a torch input and on the CPU otherwise, and the format to restore with.

    Raises:
        TypeError: If the input is of no known kind, or its type of numbers says nothing about the range.
        ValueError: If it is empty, has a wrong number of axes, looks like it has its channels at the wrong
            end, holds NaN or infinity, or leaves the range.

    >>> batch, layout = to_batch(np.full((2, 5, 3), 51, dtype=np.uint8))
    >>> tuple(batch.shape), round(batch[0, 0, 0, 0].item(), 6), layout.kind
    ((1, 3, 2, 5), 0.2, 'numpy')
    """
    if isinstance(image, Tensor):
        return _from_torch(image, check_range, name)
    if isinstance(image, np.ndarray):
        return _from_numpy(image, check_range, name)
    if is_pil(image):
        return _from_pil([image], False, check_range, name)
    if isinstance(image, (list, tuple)) and image and all(is_pil(i) for i in image):
        return _from_pil(list(image), True, check_range, name)
    hint = ""
    if isinstance(image, (str, os.PathLike)):
        hint = " Read a file with restore.images.read_image(path) first."
    elif isinstance(image, (list, tuple)):
        hint = " Stack pictures of one size into a batch with np.stack or torch.stack."
    raise TypeError(
        f"{name} is a {type(image).__name__}; expected a numpy array, a torch tensor or a PIL image.{hint}"
    )


def _from_numpy(array: np.ndarray, check_range: bool, name: str) -> tuple[Tensor, ImageFormat]:
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise TypeError(
            f"{name} is a masked array with {np.ma.count_masked(array)} masked entries, which hold no "
            "defined value. Fill it, image.filled(0), and say what is missing with a Mask operator."
        )
    array = np.asarray(array)
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind not in "bf" and dtype not in (np.uint8, np.uint16):
        raise TypeError(dtype_message(name, str(dtype), "image.astype(np.uint8)", dtype.kind == "c"))
    check_shape(array.shape, name, channels_last=True)
    check_finite(array, name)

    is_bool = dtype.kind == "b"
    fmt = ImageFormat("numpy", np.dtype(np.uint8) if is_bool else dtype, min(array.ndim, 3), array.ndim == 4)
    values = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))  # a copy: never the user's memory
    if not is_bool:
        values /= fmt.scale
    if array.ndim == 2:
        values = values[..., None]
    batch = (values if array.ndim == 4 else values[None]).movedim(-1, 1).contiguous()
    check_units(batch, name, check_range)
    return batch, fmt


def _from_torch(tensor: Tensor, check_range: bool, name: str) -> tuple[Tensor, ImageFormat]:
    is_bool = tensor.dtype == torch.bool
    if not (is_bool or tensor.is_floating_point() or tensor.dtype in (torch.uint8, torch.uint16)):
        raise TypeError(dtype_message(name, str(tensor.dtype), "image.to(torch.uint8)", tensor.is_complex()))
    check_shape(tuple(tensor.shape), name, channels_last=False)
    tensor = tensor.detach()
    check_finite(tensor, name)

    dtype = torch.uint8 if is_bool else tensor.dtype
    fmt = ImageFormat("torch", dtype, min(tensor.ndim, 3), tensor.ndim == 4, tensor.device)
    batch = tensor.to(torch.float32, copy=True)
    if not is_bool:
        batch /= fmt.scale
    batch = batch.reshape((1,) * (4 - batch.ndim) + tuple(batch.shape)).contiguous()
    check_units(batch, name, check_range)
    return batch, fmt


def _from_pil(
    images: list[Image.Image], batched: bool, check_range: bool, name: str
) -> tuple[Tensor, ImageFormat]:
    arrays = [pil_to_array(image) for image in images]
    kinds = {(a.shape, str(a.dtype)) for a in arrays}
    if len(kinds) > 1:
        found = ", ".join(sorted(f"{shape} {dtype}" for shape, dtype in kinds))
        raise ValueError(f"{name} is a list of unlike PIL images ({found}); a batch needs one size and mode.")
    stack = np.stack([a if a.ndim == 3 else a[..., None] for a in arrays])
    batch, fmt = _from_numpy(stack, check_range, name)
    return batch, ImageFormat("pil", fmt.dtype, arrays[0].ndim, batched)
