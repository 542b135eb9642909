"""Pictures of any size for a function that wants multiples of something, and not too many pixels at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Function = Callable[[Tensor], Tensor]


def on_any_size(function: Function, x: Tensor, *, multiple: int, tile: int, overlap: int) -> Tensor:
    """A function of pictures, on one of any size.

    Args:
        function: Takes ``(B, C, h, w)``, with sides that are multiples of ``multiple``, up to ``tile``, and gives
            pictures as large, of any number of channels.
        x: ``(B, C, H, W)``.
        multiple: A smaller picture is padded by reflection to a multiple of it, and the result is cropped again.
        tile: Larger pictures go through the function in overlapping tiles of this side; a multiple of ``multiple``.
        overlap: How far neighbouring tiles overlap; a multiple of ``multiple``.

    Returns:
        The function's channels, ``(B, ..., H, W)``.

    Example:
        >>> x = torch.rand(1, 1, 19, 5, dtype=torch.float64)
        >>> torch.allclose(on_any_size(torch.sqrt, x, multiple=2, tile=8, overlap=2), x.sqrt())
        True
    """
    height, width = x.shape[-2:]
    x = padded(x, -height % multiple, -width % multiple)
    out = in_tiles(function, x, tile, overlap) if max(x.shape[-2:]) > tile else function(x)
    return out[..., :height, :width]


def padded(x: Tensor, bottom: int, right: int) -> Tensor:
    """Padding by reflection where the picture is large enough for it, by its last rows and columns where not."""
    for amount, axis in ((bottom, -2), (right, -1)):
        while amount:
            size = x.shape[axis]
            step = min(amount, size - 1) if size > 1 else amount
            pad = (0, 0, 0, step) if axis == -2 else (0, step, 0, 0)
            x = F.pad(x, pad, mode="reflect" if size > 1 else "replicate")
            amount -= step
    return x


def in_tiles(function: Function, x: Tensor, tile: int, overlap: int) -> Tensor:
    """Overlapping tiles, blended with weights that fall linearly towards the tiles' edges."""
    rows, columns = (tile_starts(size, tile, overlap) for size in x.shape[-2:])
    total, weight = None, torch.zeros_like(x[:1, :1])
    differentiable = torch.is_grad_enabled() and x.requires_grad
    for top in rows:
        for left in columns:
            window = (..., slice(top, top + tile), slice(left, left + tile))
            part = x[window]
            height, width = part.shape[-2:]
            ramp = _ramp(height, overlap, x)[:, None] * _ramp(width, overlap, x)
            if differentiable:
                # The activations of all tiles at once would be what tiles are to avoid: recompute them.
                out: Tensor = checkpoint(function, part, use_reentrant=False)
                padding = (left, x.shape[-1] - left - width, top, x.shape[-2] - top - height)
                placed = F.pad(out * ramp, padding)
                total = placed if total is None else total + placed
            else:
                out = function(part)
                if total is None:
                    total = out.new_zeros(*out.shape[:2], *x.shape[-2:])
                total[window] += out * ramp
            weight[window] += ramp
    assert total is not None  # A picture has at least one tile.
    return total / weight


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Where the tiles of one axis begin.

    Example:
        >>> tile_starts(40, 16, 4)
        [0, 12, 24]
    """
    if size <= tile:
        return [0]
    count = math.ceil((size - overlap) / (tile - overlap))
    # The last tile ends with the picture. All starts are multiples of the network's, so that every tile meets the
    # same grid of folded pixels and strides as the whole picture would.
    return [min(i * (tile - overlap), size - tile) for i in range(count)]


def _ramp(size: int, overlap: int, like: Tensor) -> Tensor:
    """Weights of a tile: next to nothing in the outer quarter of the overlap, where it lacks its surroundings."""
    edge = torch.arange(1, size + 1, device=like.device, dtype=like.dtype)
    inside = torch.minimum(edge, edge.flip(0)) - overlap / 4
    # Not nothing: along the picture's own border there is no other tile.
    return (inside / (overlap / 2)).clamp(1e-4, 1)
