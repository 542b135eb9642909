"""Writing on pictures: fonts, titles that fit a width, text that reads upwards."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

TEXT, LIGHT_TEXT = (32, 32, 32), (112, 112, 112)
LEGIBLE = 192  # pixels: the height below which writing beside a picture would dwarf it


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


def font_for(size: int, text: str) -> Any:
    """PIL's own font, the same everywhere; for letters that it lacks (Greek), one of the system's."""
    return _built_in_font(size) if text.isascii() else _system_font(size)


def title_lines(title: str, size: int, width: int) -> list[tuple[str, tuple[int, int, int]]]:
    """A title broken into lines that fit the width, each with its colour."""
    font = font_for(size, title)
    lines: list[tuple[str, tuple[int, int, int]]] = []
    for i, paragraph in enumerate(str(title).split("\n")):
        line = ""
        broken = []
        for word in _fitting(paragraph.split(), width, font):
            if line and font.getlength(f"{line} {word}") > width:
                broken.append(line)
                line = word
            else:
                line = f"{line} {word}".strip()
        lines += [(text, TEXT if i == 0 else LIGHT_TEXT) for text in (*broken, line)]
    return lines


def _fitting(words: list[str], width: int, font: Any) -> Iterator[str]:
    """The words, with those that are too long in parts: they end at a sign such as a comma, where there is one."""
    for word in words:
        while len(word) > 1 and font.getlength(word) > width:
            fits = max(1, sum(font.getlength(word[:n]) <= width for n in range(1, len(word))))
            signs = [n for n in range(1, fits + 1) if word[n - 1] in ":,/_=-."]
            end = signs[-1] if signs else fits
            yield word[:end]
            word = word[end:]
        yield word


def upwards(text: str, size: int) -> Image.Image:
    """Text that reads from bottom to top."""
    from PIL import Image, ImageDraw

    font = font_for(size, text)
    image = Image.new("RGB", (math.ceil(font.getlength(text)), round(1.4 * size)), "white")
    ImageDraw.Draw(image).text((0, 0), text, LIGHT_TEXT, font)
    return image.transpose(Image.Transpose.ROTATE_90)
