"""Checks and conversions of what callers pass in, shared by the operators.

An error says what was given, what was expected, and what to do about it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_buffer(value: Any, name: str) -> Tensor:
    """A finite, real, floating tensor of its own, made from a tensor, an array or nested lists.

    The copy keeps later changes of the caller's array from reaching the operator. It is made outside of
    inference mode, so that an operator built under ``torch.inference_mode()`` still works with gradients.
    """
    with torch.inference_mode(False):
        try:
            # An array that is read-only, as PIL's are, is copied: torch would warn.
            tensor = torch.as_tensor(np.array(value) if isinstance(value, np.ndarray) else value)
        except (TypeError, ValueError, RuntimeError) as error:
            message = (
                f"{name} should be a tensor, an array or nested lists of numbers; got {type(value).__name__}"
            )
            raise TypeError(message) from error
        if tensor.is_complex():
            raise TypeError(f"{name} should be real; got {tensor.dtype}")
        if tensor.dtype not in (torch.float32, torch.float64):
            tensor = tensor.to(torch.get_default_dtype())
        if tensor.numel() == 0:
            raise ValueError(f"{name} is empty: its shape is {tuple(tensor.shape)}")
        if not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{name} has NaN or infinite entries; clean it first, e.g. with torch.nan_to_num"
            )
        return tensor.detach().clone()


def as_pair(value: Any, name: str, *, minimum: int = 1) -> tuple[int, int]:
    """``(rows, columns)`` from one integer, or from two."""
    several = isinstance(value, Sequence | np.ndarray | Tensor) and not isinstance(value, str)
    two = tuple(value) if several else (value, value)
    whole = [int(v) for v in two if not isinstance(v, bool | str | None) and float(v).is_integer()]
    if len(two) != 2 or len(whole) != 2 or min(whole) < minimum:
        raise ValueError(
            f"{name} should be an integer of at least {minimum}, or two of them (rows, columns); got "
            f"{value!r}"
        )
    return whole[0], whole[1]


def as_generator(seed: int | torch.Generator | None) -> torch.Generator:
    """A generator on the CPU: a fresh one from an integer (0 is a seed), or from entropy for None."""
    if isinstance(seed, torch.Generator):
        return seed
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(int(seed))
    return generator


def as_column(value: float | Tensor, like: Tensor, name: str) -> Tensor:
    """A non-negative number, or one per image, shaped to multiply ``like`` (B, ...): (1 or B, 1, ..., 1)."""
    if not isinstance(value, Tensor):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} should be finite and not negative; got {value}")
        value = torch.tensor(value, dtype=like.dtype)
    # A tensor on an accelerator is not looked into: that would wait for the device at every call.
    elif value.device.type == "cpu" and not bool((value >= 0).all() and value.isfinite().all()):
        raise ValueError(f"{name} should be finite and not negative; got {value.tolist()}")
    if value.ndim > 1 or (value.ndim == 1 and len(value) not in (1, len(like))):
        raise ValueError(
            f"{name} should be one number, or one per image, shape ({len(like)},); got shape "
            f"{tuple(value.shape)}"
        )
    return value.to(like).reshape(-1, *[1] * (like.ndim - 1))
