"""What is refused of a picture, and the words it is refused with: shapes, types and values that cannot be meant."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Noisy measurements leave [0, 1], so being outside is no error; but white at 255 is. Noise as strong as the
# signal itself stays below 4 in practice, and 8-bit pictures given as floats come nowhere near it from above.
_FLOAT_LIMIT = 4.0


def check_shape(shape: tuple[int, ...], name: str, channels_last: bool) -> None:
    """Refuses what is no picture, or one with its channels at the other end."""
    kind, layouts = (
        ("numpy array", "(H, W), (H, W, C) or (B, H, W, C)")
        if channels_last
        else ("torch tensor", "(H, W), (C, H, W) or (B, C, H, W)")
    )
    if len(shape) not in (2, 3, 4):
        raise ValueError(f"{name} is a {kind} of shape {shape}; expected {layouts}.")
    if 0 in shape:
        raise ValueError(f"{name} is empty: its shape is {shape}.")
    if len(shape) == 2:
        return
    # A picture with its channels at the other end would pass as a strip of 3 pixels with many channels.
    first, last = shape[-3], shape[-1]
    there, here = (last, first) if channels_last else (first, last)
    if here in (1, 3) and there > 16:
        axes = (2, 0, 1) if len(shape) == 3 else (0, 3, 1, 2)
        back = (1, 2, 0) if len(shape) == 3 else (0, 2, 3, 1)
        fix = f"image.transpose{back}" if channels_last else f"image.permute{axes}"
        raise ValueError(
            f"{name} is a {kind} of shape {shape}, which reads as {there} channels: expected {layouts}. "
            f"If its channels are at the other end, pass {fix}."
        )


def dtype_message(name: str, dtype: str, cast: str, is_complex: bool) -> str:
    """What is wrong with a type of numbers, and what to do about it."""
    if is_complex:
        return f"{name} has complex values ({dtype}); expected real ones, such as image.real or abs(image)."
    return (
        f"{name} has values of type {dtype}, whose white is unknown; expected uint8, uint16, bool or floats "
        f"in [0, 1]. For values from 0 to 255 pass {cast}."
    )


def check_finite(values: np.ndarray | Tensor, name: str) -> None:
    """Name the number of NaN and infinite values and the first position, in the layout the user knows."""
    if isinstance(values, Tensor):
        if not values.is_floating_point() or torch.isfinite(values).all():
            return
        array = values.detach().cpu().double().numpy()
    else:
        if values.dtype.kind != "f" or np.isfinite(values).all():
            return
        array = values
    bad = ~np.isfinite(array)
    where = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
    raise ValueError(
        f"{name} holds {int(bad.sum())} values that are NaN or infinite, of {bad.size}; the first, "
        f"{float(array[where])}, at index {where} of shape {bad.shape}. Expected finite numbers: "
        "mark missing pixels with a Mask operator and give them any finite value."
    )


def check_units(batch: Tensor, name: str, check_range: bool) -> None:
    """Refuses floats that are far from [0, 1], unless `check_range` is off."""
    if not check_range:
        return
    low, high = (v.item() for v in torch.aminmax(batch))
    if max(-low, high) > _FLOAT_LIMIT:
        raise ValueError(
            f"{name} has float values from {low:.4g} to {high:.4g}; expected [0, 1], up to noise. "
            "Divide by 255, or pass uint8. (restore.images.to_batch takes other units with check_range=False.)"
        )
