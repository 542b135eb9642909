"""How far two sets of draws are apart."""

from __future__ import annotations

import torch
from torch import Tensor

#: How many projected numbers are sorted at once: 64 MiB of float64 for each of the two sets.
NUMBERS_AT_ONCE = 2**23


def sliced_wasserstein(a: Tensor, b: Tensor, slices: int = 10_000, seed: int = 0) -> float:
    """The sliced Wasserstein-1 distance of two sets of as many draws each.

    Both sets are projected on random directions of length 1. In one dimension, the distance of two sets is the mean
    difference of their sorted numbers. The result is the mean over the directions.

    Args:
        a: Draws, ``(N, ...)``.
        b: Draws, ``(N, ...)``, of the same shape.
        slices: Number of directions.
        seed: Of the directions.

    Raises:
        ValueError: If the shapes differ, or there is no direction.

    Example:
        >>> a = torch.randn(100, 1, 1, 2)
        >>> sliced_wasserstein(a, a)
        0.0
        >>> round(sliced_wasserstein(a, a + torch.tensor([3.0, 4.0])), 1)  # 5 times the mean of |cos| of an angle
        3.2
    """
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"expected two sets of draws of one shape (N, ...); got {a.shape} and {b.shape}")
    if slices < 1:
        raise ValueError(f"slices must be at least 1, not {slices}")
    a, b = a.flatten(1).double(), b.flatten(1).double()
    generator = torch.Generator().manual_seed(seed)
    at_once = max(1, NUMBERS_AT_ONCE // len(a))
    total = 0.0
    for first in range(0, slices, at_once):
        count = min(at_once, slices - first)
        directions = torch.randn(count, a.shape[1], generator=generator, dtype=torch.float64)
        directions = (directions / directions.norm(dim=1, keepdim=True)).to(a.device)
        # Slices by draws: numbers that are sorted lie side by side.
        sorted_a, sorted_b = ((directions @ draws.mT).sort(dim=1).values for draws in (a, b))
        total += float((sorted_a - sorted_b).abs().mean(1).sum())
    return total / slices
