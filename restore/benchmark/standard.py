"""The standard tasks: what is measured of a picture, and who is asked to undo it.

A measurement depends on the picture, its name, the task and the seed alone: not on which other pictures, tasks or
methods are run beside it.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators import (
    Blur,
    Downsample,
    Grayscale,
    Identity,
    LinearOperator,
    Mask,
    box_mask,
    gaussian_kernel,
    random_mask,
)
from restore.randomness import Randomness, stream_seed

#: Where there is no noise, a misfit is counted in grey levels.
GREY_LEVEL = 1 / 255
#: Size of the letters of the text overlay, as a share of the picture's side.
LETTERS = 0.208


@dataclass(frozen=True)
class Task:
    """What is measured, and what is run where the user asks for the usual.

    Attributes:
        name: What the command line calls it.
        title: What tables call it.
        operator: Makes the operator for pictures of ``size`` pixels a side, from a seed.
        noise: Standard deviation of the noise, white being 1.
        repair: The name of the function of :mod:`restore.tasks` that does it; None for one call of the prior.
        classical: The classical tools for it.
    """

    name: str
    title: str
    operator: Callable[[int, int], LinearOperator]
    noise: float
    repair: str | None
    classical: tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """One picture, measured.

    Attributes:
        task: The task.
        truth: The picture in [0, 1], ``(3, H, W)``.
        y: The measurement, ``(C, h, w)``.
        operator: What made it.
        seed: For whoever restores it and needs chance.
    """

    task: Task
    truth: Tensor
    y: Tensor
    operator: LinearOperator
    seed: int

    @property
    def misfit_unit(self) -> float:
        """What a misfit is counted in: the noise, or a grey level where there is none."""
        return self.task.noise or GREY_LEVEL


@functools.lru_cache(maxsize=4)
def text_mask(size: int, share: float = 0.15) -> Tensor:
    """Heavy lines of writing that cover a share of a picture.

    The letters are a good fifth of the picture high, so that their strokes are as hard to fill at any size. The
    distance between the lines is the one of those tried that comes closest to the share.

    Args:
        size: Side of the picture.
        share: Share of its pixels to cover.

    Returns:
        ``(size, size)`` boolean, False under the writing.

    Example:
        >>> round(float((~text_mask(256)).float().mean()), 2)
        0.15
    """
    spacings = np.linspace(0.8, 2.0, 49)
    masks = [_written(size, float(spacing)) for spacing in spacings]
    return torch.from_numpy(~min(masks, key=lambda covered: abs(covered.mean() - share)))


def _written(size: int, spacing: float) -> np.ndarray:
    """Lines of writing, ``spacing`` times the letters' size apart, ``(size, size)`` boolean."""
    from PIL import Image, ImageDraw, ImageFont

    letters = round(LETTERS * size)
    picture, font = Image.new("L", (size, size)), ImageFont.load_default(letters)
    words = "the quick brown fox jumps over the lazy dog "
    for line in range(9):
        where, start = (0, round(line * spacing * letters)), 5 * line % len(words)
        ImageDraw.Draw(picture).text(where, words[start:] + words, 255, font)
    return np.asarray(picture) > 127


FILLERS = ("biharmonic", "telea")
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "denoise",
            "denoise, sigma 25/255",
            lambda size, seed: Identity(),
            25 / 255,
            None,
            ("nothing", "bm3d", "nlm", "tv"),
        ),
        Task(
            "random",
            "70 % of pixels lost",
            lambda size, seed: Mask(random_mask(size, 0.3, seed=seed)),
            0.0,
            "inpaint",
            FILLERS,
        ),
        Task(
            "box",
            "box of a quarter's side",
            lambda size, seed: Mask(box_mask(size, size // 4)),
            0.0,
            "inpaint",
            FILLERS,
        ),
        Task(
            "text",
            "text overlay, 15 %",
            lambda size, seed: Mask(text_mask(size)),
            0.0,
            "inpaint",
            FILLERS,
        ),
        Task(
            "x4",
            "x4 super-resolution",
            lambda size, seed: Downsample(4),
            0.0,
            "super_resolve",
            ("lanczos", "bicubic"),
        ),
        Task(
            "blur",
            "blur of std 3, noise 0.01",
            lambda size, seed: Blur(gaussian_kernel(3.0)),
            0.01,
            "deblur",
            ("nothing", "wiener"),
        ),
        Task(
            "blur-noisy",
            "blur of std 3, noise 0.025",
            lambda size, seed: Blur(gaussian_kernel(3.0)),
            0.025,
            "deblur",
            ("nothing", "wiener"),
        ),
        Task("colour", "colourisation", lambda size, seed: Grayscale(), 0.0, "colorize", ("nothing",)),
    )
}


def chosen_tasks(names: Sequence[str] | None) -> list[Task]:
    """The tasks of these names, in the order of the table; all of them for None.

    Raises:
        ValueError: If there is no task of a name.

    Example:
        >>> [task.title for task in chosen_tasks(["x4", "box"])]
        ["box of a quarter's side", 'x4 super-resolution']
    """
    unknown = sorted(set(names or ()) - TASKS.keys())
    if unknown:
        raise ValueError(f"unknown task {unknown[0]!r}; known are {', '.join(TASKS)}")
    return [task for name, task in TASKS.items() if names is None or name in names]


def measure(task: Task, picture: Tensor, name: str, seed: int) -> Measurement:
    """Measures a picture ``(3, H, W)`` in [0, 1], square; ``name`` and ``seed`` decide on mask and noise."""
    own, noise, restorer = (
        stream_seed(seed, zlib.crc32(name.encode()), zlib.crc32(task.name.encode()), n) for n in range(3)
    )
    operator = task.operator(picture.shape[-1], own)
    y = operator(picture[None])[0]
    if task.noise:
        y = y + task.noise * Randomness([noise]).normal(y.shape)[0]
    return Measurement(task, picture, y, operator, restorer)
