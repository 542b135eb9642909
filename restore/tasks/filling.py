"""Holes: what a mask leaves out is filled in, and nothing else is touched."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import Mask
from restore.images import to_batch
from restore.tasks.settings import as_colour, draws_of, prior_of, seeded, solved
from restore.tasks.windows import MARGIN, hole_windows


def inpaint(
    image: Any, mask: Any, *, method: str | None = None, steps: int | None = None, **settings: Any
) -> Any:
    """Fills in what a mask leaves out; every other pixel stays exactly as it is.

    Only the surroundings of the holes go through the network, so that a small hole in a large photograph costs
    little.

    Args:
        image: The picture: numpy ``(H, W)`` or ``(H, W, 3)``, PIL, torch ``(C, H, W)``, or a batch; what lies in
            the holes is not looked at.
        mask: ``(H, W)``, for all pictures: True, or above 0, where the picture is kept. Masks drawn in an editor,
            white where something is to be filled in, are read by ``operators.mask_from_image``.
        method: A method that can fill holes; by default, ``"auto"`` chooses.
        steps: Number of steps.
        **settings: Further arguments of :func:`restore.solve`, e.g. ``seed=0, samples=4, prior="photo"``.

    Returns:
        The picture with the holes filled; with ``samples=n``, ``n`` of them.

    Raises:
        TypeError: If the mask is no array.
        ValueError: If the mask is not of the picture's size, or nothing of the picture is kept.

    Example:
        >>> image = np.full((32, 32, 3), 200, np.uint8)
        >>> mask = np.ones((32, 32), bool)
        >>> mask[10:14, 10:14] = False
        >>> filled = inpaint(image, mask, steps=2, seed=0, progress=False)
        >>> bool((filled == image)[mask].all())
        True
    """
    batch, layout = to_batch(image, name="image")
    if isinstance(mask, (str, os.PathLike)):
        raise TypeError(
            f"the mask is a path, {str(mask)!r}: read it with operators.mask_from_image(path), for which white is "
            f"to be filled in"
        )
    if mask is None:
        raise TypeError("the mask is None; expected (height, width), True where the picture is kept")
    # Mask refuses pictures of a mask (0 and 255), of which nobody knows what white means.
    kept = Mask(mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))).mask.cpu()
    kept = kept.squeeze((0, 1)) > 0
    if kept.shape != batch.shape[-2:]:
        raise ValueError(
            f"the mask has shape {tuple(kept.shape)}, the picture {tuple(batch.shape[-2:])}: "
            f"give one of the picture's size, (height, width)"
        )
    if not kept.any():
        raise ValueError(
            "the mask keeps nothing of the picture: True (or white, after mask_from_image) means kept"
        )
    settings["prior"] = prior_of(settings)
    colour, back = as_colour(batch, settings["prior"])
    samples, settings = draws_of(settings, batch, layout)
    result = torch.where(kept.to(batch.device), colour, 0).repeat(samples or 1, 1, 1, 1)
    # A network that was trained on whole pictures of one size is shown as much of this one.
    least = max(getattr(settings["prior"], "trained_size", None) or (1,))
    for number, (rows, columns) in enumerate(hole_windows(kept.numpy(), MARGIN, least)):
        part = kept[rows, columns]
        y = torch.where(part.to(batch.device), colour[..., rows, columns], 0)
        filled = solved(y, Mask(part), method, samples, steps=steps, **seeded(settings, number))
        hole = ~part.to(batch.device)
        target = result[..., rows, columns]
        result[..., rows, columns] = torch.where(hole, filled, target)
    result = torch.where(kept.to(batch.device), batch.repeat(samples or 1, 1, 1, 1), back(result))
    return layout.restore(result, samples=samples)
