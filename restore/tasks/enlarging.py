"""Enlargement: a picture that, made smaller again, is the given one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import Downsample, LinearOperator
from restore.images import to_batch
from restore.tasks.settings import as_colour, draws_of, prior_of, seeded, solved
from restore.tasks.windows import by_patches

#: A larger picture than this (in pixels) is put together from patches.
PIXELS_AT_ONCE = 16_000_000


def super_resolve(
    image: Any, scale: int = 4, *, method: str | None = None, steps: int | None = None, **settings: Any
) -> Any:
    """Enlarges a picture: finds one that looks like a photograph and, made smaller again, is the given one.

    Args:
        image: The small picture: numpy ``(H, W)`` or ``(H, W, 3)``, PIL, torch ``(C, H, W)``, or a batch.
        scale: How many times higher and wider, at least 2.
        method: A method; by default, ``"auto"`` chooses.
        steps: Number of steps.
        **settings: Further arguments of :func:`restore.solve`; ``noise`` if the picture is noisy.

    Returns:
        A picture of ``scale`` times the height and width; with ``samples=n``, ``n`` of them.

    Example:
        >>> import numpy as np
        >>> small = np.full((8, 10, 3), 200, np.uint8)
        >>> super_resolve(small, 2, steps=2, seed=0, progress=False).shape
        (16, 20, 3)
    """
    if (
        isinstance(scale, bool)
        or not isinstance(scale, (int, float, np.number))
        or scale % 1
        or not scale >= 2
    ):
        raise ValueError(f"scale must be a whole number of at least 2, not {scale!r}")
    batch, layout = to_batch(image, name="image")
    settings["prior"] = prior_of(settings)
    colour, back = as_colour(batch, settings["prior"])
    samples, settings = draws_of(settings, batch, layout)

    def enlarge(part: Tensor, number: int = 0) -> Tensor:
        operator = Downsample(int(scale))
        x = solved(part, operator, method, samples, steps=steps, **seeded(settings, number))
        return _consistent(x, part, operator, settings)

    if colour.shape[-2] * colour.shape[-1] * scale**2 <= PIXELS_AT_ONCE:
        result = enlarge(colour)
    else:
        result = by_patches(colour, int(scale), samples or 1, enlarge)
    return layout.restore(back(result), samples=samples)


def _consistent(x: Tensor, y: Tensor, operator: LinearOperator, settings: dict[str, Any]) -> Tensor:
    """``x`` moved by as little as makes ``A x = y``, where ``y`` has no noise; values stay in [0, 1]."""
    noise = torch.as_tensor(settings.get("noise", 0.0), device=x.device).expand(len(y))
    if bool((noise > 0).all()):
        return x
    draws = len(x) // len(y)
    operator = operator.to(x.device)
    y, exact = y.to(x.device).repeat(draws, 1, 1, 1), x
    for _ in range(10):  # Clipping undoes a little of it, and less each time.
        exact = (exact + operator.pinv(y - operator(exact))).clamp(0, 1)
    return torch.where((noise > 0).repeat(draws).reshape(-1, 1, 1, 1), x, exact)
