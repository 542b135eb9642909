"""Pictures of pictures: comparison sheets, grids of samples, maps of deviation and difference.

Everything is drawn with numpy and PIL and comes back as a PIL image; `restore.images.write_image` saves it.

>>> y, x = np.zeros((16, 16)), np.ones((64, 64, 3))
>>> sheet({"measured": y, "restored": x}, height=96).mode
'RGB'
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from restore.images import ImageFormat, to_batch

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["deviation_map", "difference_map", "grid", "sheet"]

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
_TEXT, _LIGHT_TEXT = (32, 32, 32), (112, 112, 112)
_LEGIBLE = 192  # pixels: the height below which writing beside a picture would dwarf it


# ----------------------------------------------------------------------------------------------------------
# Side by side
# ----------------------------------------------------------------------------------------------------------


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
        titles: A title each. In a title of several lines the first stands out.
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
    height = height or min(max(max(p.shape[0] for p in pictures), _LEGIBLE), 512)

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
    lines = [_title_lines(t, size, column_widths[i % columns]) for i, t in enumerate(titles or [])]
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
                    draw.text((centre, top + k * leading), text, colour, _font(size, text), anchor="ma")
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

    >>> grid(torch.rand(6, 3, 8, 10), columns=3, pad=1).size
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


# ----------------------------------------------------------------------------------------------------------
# Maps
# ----------------------------------------------------------------------------------------------------------


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
        ValueError: If there are fewer than two draws, or they differ in shape.

    >>> deviation_map(np.random.default_rng(0).random((8, 20, 30, 3)), colorbar=False).size
    (30, 20)
    """
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
    factor = math.ceil(_LEGIBLE / height)
    width, height = width * factor, height * factor
    picture = picture.resize((width, height), Image.Resampling.NEAREST)

    size = min(max(round(height * 0.05), 12), 24)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = [k * step for k in range(math.floor(top / step + 1e-9) + 1)]
    labels = [f"{tick:.{decimals}f}" for tick in ticks]
    bar, gap = max(height // 20, 8), max(height // 24, 8)
    text_width = math.ceil(max(_font(size, label).getlength(label) for label in labels))
    bar_left = width + gap
    labels_left = bar_left + bar + size // 2
    caption = _upwards("grey levels", size)
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
        draw.line([(bar_left + bar, y), (bar_left + bar + size // 4, y)], _LIGHT_TEXT)
        y = min(max(y, size // 2), height - size // 2)  # the outermost labels move inwards
        draw.text((labels_left, y), label, _TEXT, _font(size, label), anchor="lm")
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


# ----------------------------------------------------------------------------------------------------------
# Writing
# ----------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _built_in_font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=64)
def _system_font(size: int) -> Any:
    from PIL import ImageFont

    for name in (
        "DejaVuSans.ttf",
        "NotoSans-Regular.ttf",
        "LiberationSans-Regular.ttf",
        "Arial.ttf",
        "arial.ttf",
    ):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return _built_in_font(size)


def _font(size: int, text: str) -> Any:
    """PIL's own font, the same everywhere; for letters that it lacks (Greek), one of the system's."""
    return _built_in_font(size) if text.isascii() else _system_font(size)


def _title_lines(title: str, size: int, width: int) -> list[tuple[str, tuple[int, int, int]]]:
    """A title broken into lines that fit the width, each with its colour."""
    font = _font(size, title)
    lines: list[tuple[str, tuple[int, int, int]]] = []
    for i, paragraph in enumerate(str(title).split("\n")):
        line = ""
        broken = []
        for word in paragraph.split():
            if line and font.getlength(f"{line} {word}") > width:
                broken.append(line)
                line = word
            else:
                line = f"{line} {word}".strip()
        for text in (*broken, line):
            while len(text) > 1 and font.getlength(text) > width:
                text = text.removesuffix("...")[:-1] + "..." if len(text) > 4 else text[:-1]
            lines.append((text, _TEXT if i == 0 else _LIGHT_TEXT))
    return lines


def _upwards(text: str, size: int) -> Image.Image:
    """Text that reads from bottom to top."""
    from PIL import Image, ImageDraw

    font = _font(size, text)
    image = Image.new("RGB", (math.ceil(font.getlength(text)), round(1.4 * size)), "white")
    ImageDraw.Draw(image).text((0, 0), text, _LIGHT_TEXT, font)
    return image.transpose(Image.Transpose.ROTATE_90)
