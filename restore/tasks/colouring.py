"""Colours for grey pictures: found in a reduced picture, brought back along the edges of the luma."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from operators import Grayscale
from restore.images import to_batch
from restore.solve.checks import whole_number
from restore.tasks.settings import draws_of, solved

#: Colours are found for a picture whose shorter side is about this.
COLOUR_SIZE = 96


def colorize(
    image: Any,
    *,
    working_size: int = COLOUR_SIZE,
    method: str | None = None,
    steps: int | None = None,
    **settings: Any,
) -> Any:
    """Gives a grey picture plausible colours, and keeps its luma.

    What colour a thing has is told by the whole of it, and a prior that was trained on small crops sees no more than
    that at once. Colours are therefore found for the picture reduced to about ``working_size``, and brought back to
    its full size along the edges of the luma (guided filter, *Guided Image Filtering*, He, Sun and Tang, 2010).

    Args:
        image: The picture: numpy ``(H, W)``, PIL, torch ``(1, H, W)``, or a batch; of a colour picture
            the luma is taken.
        working_size: The shorter side of the reduced picture, in pixels; what is smaller is not reduced.
        method: A method; by default, ``"auto"`` chooses.
        steps: Number of steps.
        **settings: Further arguments of :func:`restore.solve`.

    Returns:
        A colour picture; with ``samples=n``, ``n`` of them.

    Example:
        >>> import numpy as np
        >>> grey = np.full((16, 20), 90, np.uint8)
        >>> colorize(grey, steps=2, seed=0, progress=False).shape
        (16, 20, 3)
    """
    batch, layout = to_batch(image, name="image")
    operator = Grayscale("luma").to(batch.device)
    luma = operator(batch) if batch.shape[1] == 3 else batch
    if luma.shape[1] != 1:
        raise ValueError(
            f"expected a grey picture, or a colour one of 3 channels; got {batch.shape[1]} channels"
        )
    working_size = whole_number(working_size, "working_size")
    samples, settings = draws_of(settings, batch, layout)
    factor = max(1, round(min(luma.shape[-2:]) / working_size))
    rows, columns = (max(1, round(n / factor)) for n in luma.shape[-2:])
    small = luma if factor == 1 else F.interpolate(luma, (rows, columns), mode="area")
    found = solved(small, operator, method, samples, steps=steps, **settings)
    chroma = found - operator(found)
    if factor > 1:
        chroma = _along_edges(luma.repeat(samples or 1, 1, 1, 1), chroma, factor)
    return layout.restore(_in_gamut(luma.repeat(samples or 1, 1, 1, 1), chroma, operator), samples=samples)


def _along_edges(luma: Tensor, chroma: Tensor, factor: int) -> Tensor:
    """The chroma of a reduced picture at the size of its luma, smooth but where the luma has edges."""
    from kornia.filters import guided_blur

    large = F.interpolate(chroma.to(luma.device), luma.shape[-2:], mode="bicubic", align_corners=False)
    return guided_blur(luma, large, 2 * factor + 1, eps=1e-3)


def _in_gamut(luma: Tensor, chroma: Tensor, operator: Grayscale) -> Tensor:
    """The colour picture of a luma in [0, 1]; chroma is paled just where a channel would leave [0, 1]."""
    chroma = chroma.to(luma.device)
    chroma = chroma - operator(chroma)  # Filters may have given it a little luma.
    room = torch.where(chroma > 0, 1 - luma, luma).clamp(min=0)
    share = (room / chroma.abs().clamp(min=1e-8)).amin(1, keepdim=True).clamp(max=1)
    return (luma + share * chroma).clamp(0, 1)  # For rounding.
