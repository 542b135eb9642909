"""Operators of a user's own: is what says that it is linear linear, and is its adjoint the transpose?"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from operators import FromCallable, LinearOperator, Operator, linearity_test
from restore.quality import QualityWarning

#: How far a linear operator may be from linear, and an adjoint from the transpose: half precision and rounding to whole
#: numbers of 255 may, as long as the measurement of white noise is not smaller than a tenth of it.
TOLERATED = 0.05
#: What a blank picture may be measured as, where white is 1: a quarter of a grey level.
BLANK = 1e-3


def check_linear(operator: Operator, moved: Operator, shape: tuple[int, ...]) -> None:
    """Refuses an operator of a user's own that says it is linear and is not; warns where its adjoint is of another.

    Both would give a wrong result without a word. Operators of this package are tested once and for all, those of users
    once for each shape of pictures, at the price of seven measurements.

    Args:
        operator: The user's operator, which remembers that it was looked at.
        moved: The same, where it is to work.
        shape: ``(C, H, W)`` of its pictures.

    Raises:
        ValueError: If it is not linear.
    """
    if not isinstance(operator, LinearOperator):
        return
    own = [part for part in operator.modules() if _is_own(part)]
    if own:
        operator.remember(("checked", shape), lambda: _check(moved, own, shape))


def _is_own(part: torch.nn.Module) -> bool:
    return isinstance(part, LinearOperator) and (
        isinstance(part, FromCallable) or not type(part).__module__.startswith("operators.")
    )


def _check(operator: Operator, own: list[torch.nn.Module], shape: tuple[int, ...]) -> bool:
    assert isinstance(operator, LinearOperator)
    name = " or ".join(dict.fromkeys(_called(part) for part in own))
    size = (operator.batch_size or 1, *shape)
    blank = torch.zeros(size, dtype=operator.dtype, device=operator.device)
    measured, expected = operator(blank), operator.measurement_shape(shape)
    if tuple(measured.shape[1:]) != tuple(expected):
        raise ValueError(
            f"{name} measures an image of shape {shape} as {tuple(measured.shape[1:])}, and its image_shape says "
            f"{tuple(expected)}: override image_shape, which tells the shape of the image from that of a measurement"
        )
    error = linearity_test(operator, shape, dtype=operator.dtype)
    if not error <= TOLERATED:  # NaN, too.
        raise ValueError(
            f"{name} is declared linear, but A(u - 2 v) and A(u) - 2 A(v) differ by {error:.0%} for two pictures "
            f"of noise u, v: declare it as an Operator (FromCallable without linear=True), or take out of forward what "
            f"is not linear, such as clipping, a constant, or noise. operators.linearity_test measures it"
        )
    if float(measured.abs().max()) > BLANK:
        raise ValueError(
            f"{name} is declared linear, but does not measure a blank image as zero: subtract the offset from forward "
            f"and from y, or declare it as an Operator"
        )
    # By autograd, an adjoint is the transpose.
    if all(type(part).adjoint is LinearOperator.adjoint for part in own if isinstance(part, LinearOperator)):
        return True
    off = _adjoint_error(operator, size)
    if not off <= TOLERATED:
        warnings.warn(
            f"the adjoint of {name} is not the transpose of its forward: <A x, y> and <x, A^T y> differ by "
            f"{off:.0%}, and methods that need it will be off. Leave adjoint out, and it is the exact one, by autograd",
            QualityWarning,
            stacklevel=7,
        )
    return True


def _called(part: torch.nn.Module) -> str:
    return (
        "FromCallable(linear=True)" if type(part).__module__.startswith("operators.") else type(part).__name__
    )


def _adjoint_error(operator: LinearOperator, size: tuple[int, ...]) -> float:
    """How far the adjoint ``B`` is from ``A^T``, by two pairs of vectors, for which the products are large.

    Of unrelated ones, next to nothing is left to be compared. The first pair sees an error of ``B`` in the directions
    that ``A`` measures, the second one in those that it does not.
    """
    x = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=operator.dtype)
    x = x.to(operator.device)
    y = operator(x)
    w = operator.adjoint(y)
    return max(_apart(y, y, x, w), _apart(operator(w), y, w, w))


def _apart(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> float:
    """How far ``<a, b>`` is from ``<c, d>``, as a share of the larger."""
    left, right = (float((p.double() * q.double()).sum()) for p, q in ((a, b), (c, d)))
    return abs(left - right) / (max(abs(left), abs(right)) or 1.0)
