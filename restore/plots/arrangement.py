"""Pictures beside each other: sheets with titles, and grids pixel for pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from restore.images import ImageFormat, to_batch
from restore.plots.lettering import LEGIBLE, font_for, title_lines

if TYPE_CHECKING:
    from PIL import Image


def sheet(
    images: Any,
    titles: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    height: int | None = None,
    max_width: int = 4096,
) -> Image.Image:
    """Pictures beside each other at one height, with titles above: measurement, restoration, truth.

    Small pictures are enlarged without smoothing from a factor of 2 on, so that the pixels of a coarse
    measurement show; large ones are reduced with antialiasing. Values outside [0, 1] show as black or white.

    Args:
        images: Pictures of any kind and size, gray or colour; a batch; or a mapping from title to picture.
        titles: A title each. In a title of several lines the first stands out; what is too long for
            its picture goes on in the next line.
        columns: Pictures in a row; by default up to five, in rows as even as can be.
        height: Height of each picture in pixels. By default that of the tallest, within 192 and 512.
        max_width: Pictures are made smaller than `height` where the sheet would be wider than this.

    Returns:
        PIL image, RGB.

    Raises:
        ValueError: If there is nothing to show, titles and pictures differ in number, an option is not
            positive, or a picture is not a picture (see `restore.images.to_batch`).
        TypeError: If a picture is of no known kind.

    >>> sheet([np.zeros((40, 30)), np.ones((80, 60, 3))], titles=["y", "x"], height=100).size[1] > 100
    True
    """
    from PIL import Image, ImageDraw

    if isinstance(images, Mapping):
        if titles is not None:
            raise ValueError("titles were given twice: as keys of the mapping and as titles. Leave one out.")
        images, titles = list(images.values()), [str(key) for key in images]
    pictures = _pictures(images)
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"there are {len(titles)} titles for {len(pictures)} pictures; expected one each.")
    for name, value in (("columns", columns), ("height", height), ("max_width", max_width)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; expected a positive number.")
    columns = min(columns or _even_columns(len(pictures), 5), len(pictures))
    height = height or min(max(max(p.shape[0] for p in pictures), LEGIBLE), 512)

    rows = [range(i, min(i + columns, len(pictures))) for i in range(0, len(pictures), columns)]
    while True:
        margin = min(max(height // 16, 6), 24)
        widths = [max(1, round(p.shape[1] * height / p.shape[0])) for p in pictures]
        column_widths = [max(widths[j::columns]) for j in range(columns)]
        total = sum(column_widths) + margin * (columns + 1)
        if total <= max_width or height == 1:
            break
        height = max(1, min(height - 1, int(height * max_width / total)))

    size = min(max(round(height * 0.06), 12), 28)
    leading = round(size * 1.35)
    lines = [title_lines(t, size, column_widths[i % columns]) for i, t in enumerate(titles or [])]
    heads = [
        leading * max((len(lines[i]) for i in row), default=0) + size // 3 if lines else 0 for row in rows
    ]
    canvas = Image.new("RGB", (total, sum(heads) + (height + margin) * len(rows) + margin), "white")
    draw = ImageDraw.Draw(canvas)
    top = margin
    for row, head in zip(rows, heads, strict=True):
        left = margin
        for j, i in enumerate(row):
            centre = left + column_widths[j] / 2
            if lines:
                for k, (text, colour) in enumerate(lines[i]):
                    draw.text((centre, top + k * leading), text, colour, font_for(size, text), anchor="ma")
            picture = _resized(pictures[i], widths[i], height)
            canvas.paste(picture, (round(centre - widths[i] / 2), top + head))
            left += column_widths[j] + margin
        top += head + height + margin
    return canvas


def grid(images: Any, columns: int | None = None, pad: int = 2) -> Image.Image:
    """Pictures of one size in a grid, pixel for pixel: the samples of a training run.

    Args:
        images: A batch, `(B, C, H, W)` in torch or `(B, H, W, C)` in numpy, or a list of pictures.
        columns: Pictures in a row; by default the grid is about square.
        pad: White pixels between pictures and around them.

    Returns:
        PIL image, RGB.

    Raises:
        ValueError: If there is nothing to show, sizes differ, or an option is out of range.

    >>> grid(np.zeros((6, 8, 10, 3)), columns=3, pad=1).size
    (34, 19)
    """
    from PIL import Image

    pictures = _pictures(images)
    sizes = sorted({p.shape[:2] for p in pictures})
    if len(sizes) > 1:
        raise ValueError(
            f"the pictures differ in size, {sizes[0]} and {sizes[-1]}; use plots.sheet for these."
        )
    if pad < 0 or (columns is not None and columns < 1):
        raise ValueError(
            f"columns is {columns} and pad {pad}; expected columns of at least 1, pad of at least 0."
        )
    columns = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    rows = math.ceil(len(pictures) / columns)
    height, width = sizes[0]
    canvas = np.full((rows * (height + pad) + pad, columns * (width + pad) + pad, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = (
            n * (side + pad) + pad for n, side in zip(divmod(i, columns), (height, width), strict=True)
        )
        canvas[top : top + height, left : left + width] = picture
    return Image.fromarray(canvas)


def _pictures(images: Any) -> list[np.ndarray]:
    """Every picture as uint8 `(H, W, 3)`."""
    rgb = []
    sequence = isinstance(images, (list, tuple))
    for i, image in enumerate(images if sequence else [images]):
        name = f"images[{i}]" if sequence else "images"
        batch, _ = to_batch(image, name=name)
        if batch.shape[1] not in (1, 3):
            raise ValueError(
                f"{name} has {batch.shape[1]} channels; expected 1 (gray) or 3 (RGB). "
                "For a stack of gray pictures pass list(images)."
            )
        if sequence and batch.shape[0] != 1:
            raise ValueError(
                f"{name} is a batch of {batch.shape[0]}; expected one picture: pass list(batch)."
            )
        batch = batch.cpu().expand(-1, 3, -1, -1)
        rgb.extend(ImageFormat("numpy", np.dtype(np.uint8), batched=True).restore(batch))
    if not rgb:
        raise ValueError("there is nothing to show: images is empty.")
    return rgb


def _even_columns(count: int, most: int) -> int:
    return math.ceil(count / math.ceil(count / most))


def _resized(picture: np.ndarray, width: int, height: int) -> Image.Image:
    from PIL import Image

    image = Image.fromarray(picture)
    if image.size == (width, height):
        return image
    factor = height / picture.shape[0]
    # Between 1 and 2 single pixels cannot be told anyway, and unequal ones look broken.
    how = Image.Resampling.NEAREST if factor >= 2 else Image.Resampling.LANCZOS
    return image.resize((width, height), how)
