"""Parts of large pictures: rectangles around the holes, and patches that fade into each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

#: Pixels around a hole that are shown with it; patches overlap by as many.
MARGIN = 64
#: Side of a patch, in pixels.
PATCH = 1024


def hole_windows(kept: np.ndarray, margin: int, least: int = 1) -> list[tuple[slice, slice]]:
    """Rectangles that hold all holes of a mask, with a margin around each; rectangles do not overlap.

    Args:
        kept: ``(H, W)`` boolean, False in the holes.
        margin: Pixels around each hole, as far as the picture goes.
        least: Height and width of a rectangle are at least this, as far as the picture goes.

    Returns:
        Rows and columns of each rectangle; none if there is no hole.

    Example:
        >>> kept = np.ones((100, 100), bool)
        >>> kept[50, 20] = False
        >>> hole_windows(kept, 8)
        [(slice(42, 59, None), slice(12, 29, None))]
    """
    from skimage.measure import label, regionprops

    boxes = [
        _grown(region.bbox, margin, least, kept.shape) for region in regionprops(label(~kept, connectivity=2))
    ]
    merged = True
    while merged:  # Two rectangles that overlap become the one around both, until none do.
        merged, rest = False, boxes
        boxes = []
        for box in rest:
            for i, other in enumerate(boxes):
                if box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]:
                    (top, left), (bottom, right) = map(min, box[:2], other[:2]), map(max, box[2:], other[2:])
                    boxes[i] = (top, left, bottom, right)
                    merged = True
                    break
            else:
                boxes.append(box)
    return [(slice(top, bottom), slice(left, right)) for top, left, bottom, right in boxes]


def _grown(
    box: tuple[int, ...], margin: int, least: int, shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
    def along(start: int, end: int, size: int) -> tuple[int, int]:
        start, end = max(start - margin, 0), min(end + margin, size)
        length = min(max(end - start, least), size)
        start = min(max(start - (length - (end - start)) // 2, 0), size - length)
        return start, start + length

    (top, bottom), (left, right) = along(box[0], box[2], shape[0]), along(box[1], box[3], shape[1])
    return top, left, bottom, right


def by_patches(y: Tensor, scale: int, samples: int, enlarge: Callable[[Tensor, int], Tensor]) -> Tensor:
    """A picture too large for the memory, put together from patches that fade into each other."""
    number, side, overlap = 0, PATCH // scale, MARGIN // scale
    height, width = y.shape[-2:]
    result = torch.zeros(samples * len(y), y.shape[1], height * scale, width * scale)
    weight = torch.zeros(height * scale, width * scale)
    for top in _starts(height, side, overlap):
        for left in _starts(width, side, overlap):
            part = y[..., top : top + side, left : left + side]
            fade = _fade(part.shape[-2] * scale, overlap * scale)[:, None] * _fade(
                part.shape[-1] * scale, overlap * scale
            )
            rows = slice(top * scale, (top + part.shape[-2]) * scale)
            columns = slice(left * scale, (left + part.shape[-1]) * scale)
            result[..., rows, columns] += enlarge(part, number).cpu() * fade
            number += 1
            weight[rows, columns] += fade
    return result.div_(weight)


def _starts(size: int, side: int, overlap: int) -> list[int]:
    return (
        [0]
        if size <= side
        else sorted({min(i, size - side) for i in range(0, size - overlap, side - overlap)})
    )


def _fade(size: int, overlap: int) -> Tensor:
    edge = torch.arange(1, size + 1)
    return torch.minimum(edge, edge.flip(0)).clamp(max=max(overlap, 1)).float()
