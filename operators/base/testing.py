"""Tests for operators of your own: is it linear, and is its adjoint the transpose?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from operators.base.linear import LinearOperator
from operators.base.operator import Operator, Shape


def dot_test(
    operator: LinearOperator, image_shape: Shape, *, seed: int = 0, dtype: Any = torch.float64
) -> float:
    """How far ``adjoint`` is from being the transpose of ``forward``; for testing operators of your own.

    Args:
        operator: any linear operator.
        image_shape: ``(C, H, W)``.
        seed: of the two random vectors.
        dtype: the precision to test in. The operator's buffers should not be less precise than it needs.

    Returns:
        ``|<A x, y> - <x, A^T y>| / (||A x|| ||y||)``: about 1e-16 in float64 and 1e-7 in float32 if exact.

    >>> from operators import Grayscale
    >>> dot_test(Grayscale(), (3, 5, 7)) < 1e-12
    True
    """
    generator = torch.Generator().manual_seed(seed)
    (x,) = _images(operator, image_shape, 1, generator, dtype)
    with torch.no_grad():
        measured = operator(x)
        y = torch.randn(measured.shape, generator=generator, dtype=dtype).to(operator.device)
        left = (measured.double() * y.double()).sum()
        right = (x.double() * operator.adjoint(y).double()).sum()
        return float((left - right).abs() / (measured.double().norm() * y.double().norm()).clamp_min(1e-300))


def linearity_test(
    operator: Operator, image_shape: Shape, *, seed: int = 0, dtype: Any = torch.float64
) -> float:
    """How far ``forward`` is from being linear; for testing operators of your own.

    Args:
        operator: any operator.
        image_shape: ``(C, H, W)``.
        seed: of the two random images.
        dtype: the precision to test in.

    Returns:
        ``||A(u - 2 v) - A u + 2 A v||`` over the norm of the three terms, for white noise ``u`` and ``v``: about 1e-16
        in float64 and 1e-7 in float32 if linear; 0 if all is measured as 0.

    >>> from operators import Clip, Grayscale
    >>> linearity_test(Grayscale(), (3, 5, 7)) < 1e-12, linearity_test(Clip(), (3, 5, 7)) > 0.1
    (True, True)
    """
    generator = torch.Generator().manual_seed(seed)
    u, v = _images(operator, image_shape, 2, generator, dtype)
    with torch.no_grad():
        terms = [operator(u - 2 * v), -operator(u), 2 * operator(v)]
        size = sum(_norm(term) ** 2 for term in terms) ** 0.5
        return _norm(terms[0] + terms[1] + terms[2]) / size if size else 0.0


def _norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x, dtype=torch.float64))


def _images(
    operator: Operator, shape: Shape, count: int, generator: torch.Generator, dtype: Any
) -> list[Tensor]:
    """Batches of white noise, of as many images as the operator wants, where it is."""
    size = (operator.batch_size or 1, *shape)
    return [torch.randn(size, generator=generator, dtype=dtype).to(operator.device) for _ in range(count)]
