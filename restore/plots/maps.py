"""Maps in colours, with their scale: how much draws deviate, and where two pictures differ."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from restore.images import to_batch
from restore.plots.lettering import LEGIBLE, LIGHT_TEXT, TEXT, font_for, upwards

if TYPE_CHECKING:
    from PIL import Image

# Every fifteenth colour of matplotlib's perceptually uniform maps (CC0), which saves the dependency.
_COLORMAPS = {
    "magma": (
        "000004 090720 1a1042 311165 4a1079 621980 792282 912b81 aa337d "
        "c23b75 d9466b ec5860 f7725c fc8e64 feaa74 fec68a fde2a3 fcfdbf"
    ),
    "viridis": (
        "440154 481769 472a7a 433d84 3d4e8a 355e8d 2e6d8e 297b8e 23898e "
        "1f978b 21a585 2eb37c 46c06f 65cb5e 89d548 b0dd2f d8e219 fde725"
    ),
}


def deviation_map(
    samples: Any, *, maximum: float | None = None, colormap: str = "magma", colorbar: bool = True
) -> Image.Image:
    """Standard deviation of each pixel over draws: bright where the restoration is uncertain.

    Channels are joined by the root of their mean variance.

    Args:
        samples: Draws `(n, ...)` of one picture, as `solve(..., samples=n)` returns, or a list of pictures.
        maximum: Grey levels (of 255) at the upper end of the scale; by default a round number that all but
            one pixel in a thousand stay below.
        colormap: `"magma"` or `"viridis"`.
        colorbar: Add the scale, in grey levels, on the right, enlarging small pictures by whole factors.

    Returns:
        PIL image, RGB.

    Raises:
        ValueError: If there are fewer than two draws, or they differ in shape, or there is one picture in their place.

    >>> deviation_map(np.random.default_rng(0).random((8, 20, 30, 3)), colorbar=False).size
    (30, 20)
    """
    if _is_one_picture(samples):
        raise ValueError(
            "samples is one picture; expected draws of one picture along the first axis, as solve(..., samples=8) "
            "returns, or a list of pictures"
        )
    count = 0
    mean = square = torch.zeros(0)
    shape = None
    for i, sample in enumerate(samples):  # Welford's recursion: only two pictures in memory
        draw = _single(sample, f"samples[{i}]")
        if shape not in (None, draw.shape):
            raise ValueError(
                f"samples[{i}] is {tuple(draw.shape)}, earlier ones {tuple(shape)}; expected one shape."
            )
        if shape is None:
            shape, mean, square = draw.shape, torch.zeros_like(draw), torch.zeros_like(draw)
        count += 1
        step = draw - mean
        mean = mean + step / count
        square = square + step * (draw - mean)
    if count < 2:
        raise ValueError(
            f"a deviation needs at least 2 draws along the first axis of samples; there is {count}."
        )
    deviation = (square / (count - 1)).mean(0).sqrt()
    return _scalar_map(255.0 * deviation.numpy(), maximum, colormap, colorbar)


def difference_map(
    a: Any, b: Any, *, maximum: float | None = None, colormap: str = "magma", colorbar: bool = True
) -> Image.Image:
    """Size of the difference between two pictures, root mean square over channels, as a colour map.

    Args:
        a: A picture.
        b: A picture of the same size; either may be gray where the other is in colour.
        maximum: Grey levels (of 255) at the upper end of the scale; by default a round number that all but
            one pixel in a thousand stay below.
        colormap: `"magma"` or `"viridis"`.
        colorbar: Add the scale, in grey levels, on the right, enlarging small pictures by whole factors.

    Returns:
        PIL image, RGB.

    Raises:
        ValueError: If the pictures differ in size.

    >>> difference_map(np.zeros((20, 30)), np.ones((20, 30)), maximum=255, colorbar=False).getpixel((0, 0))
    (252, 253, 191)
    """
    first, second = _single(a, "a"), _single(b, "b")
    channels = {first.shape[0], second.shape[0]}
    if first.shape[1:] != second.shape[1:] or (len(channels) > 1 and 1 not in channels):
        raise ValueError(
            f"a is {tuple(first.shape)} and b {tuple(second.shape)} as (C, H, W); expected the same size. "
            "Pictures are not resized, since that changes the difference."
        )
    difference = (first - second).square().mean(0).sqrt()
    return _scalar_map(255.0 * difference.numpy(), maximum, colormap, colorbar)


def _is_one_picture(samples: Any) -> bool:
    """Whether it is one picture, ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``, or PIL's: rows would pass for draws."""
    if isinstance(samples, Tensor):
        return samples.ndim < 3 or (samples.ndim == 3 and len(samples) in (1, 3))
    if isinstance(samples, np.ndarray):
        return samples.ndim < 3 or (samples.ndim == 3 and samples.shape[-1] in (1, 3, 4))
    return not hasattr(samples, "__iter__")


def _single(image: Any, name: str) -> Tensor:
    """One picture as a float64 tensor `(C, H, W)` on the CPU."""
    batch, _ = to_batch(image, name=name)
    if batch.shape[0] != 1:
        raise ValueError(
            f"{name} is a batch of {batch.shape[0]}; expected one picture, such as samples[:, 0]."
        )
    return batch[0].cpu().double()


def _scalar_map(values: np.ndarray, maximum: float | None, colormap: str, colorbar: bool) -> Image.Image:
    """Values `(H, W)`, at least 0, in colours, with a scale beside them."""
    from PIL import Image, ImageDraw

    if colormap not in _COLORMAPS:
        raise ValueError(f"colormap is {colormap!r}; expected one of {', '.join(map(repr, _COLORMAPS))}.")
    if maximum is not None and not maximum > 0:
        raise ValueError(f"maximum is {maximum}; expected a positive number of grey levels.")
    top, step = _scale(float(np.quantile(values, 0.999)), maximum)
    picture = Image.fromarray(_colours(values / top, colormap))
    if not colorbar:
        return picture
    width, height = picture.size
    factor = math.ceil(LEGIBLE / height)
    width, height = width * factor, height * factor
    picture = picture.resize((width, height), Image.Resampling.NEAREST)

    size = min(max(round(height * 0.05), 12), 24)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = [k * step for k in range(math.floor(top / step + 1e-9) + 1)]
    labels = [f"{tick:.{decimals}f}" for tick in ticks]
    bar, gap = max(height // 20, 8), max(height // 24, 8)
    text_width = math.ceil(max(font_for(size, label).getlength(label) for label in labels))
    bar_left = width + gap
    labels_left = bar_left + bar + size // 2
    caption = upwards("grey levels", size)
    caption_left = labels_left + text_width + size // 3

    # No margin around it, so that in a sheet the map is as high as the pictures beside it.
    canvas = Image.new("RGB", (caption_left + caption.width, height), "white")
    draw = ImageDraw.Draw(canvas)
    canvas.paste(picture, (0, 0))
    ramp = np.linspace(1.0, 0.0, height)[:, None].repeat(bar, axis=1)
    canvas.paste(Image.fromarray(_colours(ramp, colormap)), (bar_left, 0))
    canvas.paste(caption, (caption_left, (height - caption.height) // 2))
    for tick, label in zip(ticks, labels, strict=True):
        y = round((height - 1) * (1.0 - tick / top))
        draw.line([(bar_left + bar, y), (bar_left + bar + size // 4, y)], LIGHT_TEXT)
        y = min(max(y, size // 2), height - size // 2)  # the outermost labels move inwards
        draw.text((labels_left, y), label, TEXT, font_for(size, label), anchor="lm")
    return canvas


def _scale(largest: float, maximum: float | None) -> tuple[float, float]:
    """Upper end of a scale, and the distance of its ticks: 1, 2 or 5 times a power of ten."""
    reach = max(maximum or largest, 1e-6)
    decade = 10.0 ** math.floor(math.log10(reach / 4))
    step = max(m * decade for m in (1.0, 2.0, 5.0) if m * decade <= reach / 4 * (1 + 1e-9))
    return maximum or math.ceil(largest / step - 1e-9) * step or step, step


def _colours(values: np.ndarray, colormap: str) -> np.ndarray:
    """Values in [0, 1] to uint8 colours: `(H, W)` to `(H, W, 3)`."""
    anchors = np.array([list(bytes.fromhex(code)) for code in _COLORMAPS[colormap].split()], dtype=np.float64)
    positions = np.linspace(0.0, 1.0, len(anchors))
    channels = [np.interp(values, positions, anchors[:, c]) for c in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
