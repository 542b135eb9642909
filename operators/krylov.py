"""Conjugate gradients for a batch of independent systems.

Every image of the batch is a system of its own: it has its own step sizes and its own end, and stops moving
once it has converged, so that its solution does not depend on its neighbours.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Linear = Callable[[Tensor], Tensor]


class ConvergenceWarning(UserWarning):
    """Conjugate gradients stopped far from the solution; the result is a rough one."""


def conjugate_gradients(
    apply: Linear, b: Tensor, *, iterations: int = 200, tolerance: float | None = None
) -> Tensor:
    """Solve ``M x = b`` for a symmetric positive (semi-)definite ``M``, image by image.

    Starts from zero; a singular system is solved in the least-norm sense if ``b`` lies in the range of ``M``.
    Not differentiable by itself (autograd would record every iteration): see `LinearOperator.gram_solve`,
    whose backward is another solve.

    Args:
        apply: ``M``; maps ``(B, ...)`` to the same shape without mixing images.
        b: right-hand sides, ``(B, ...)``, floating.
        iterations: the most steps to take.
        tolerance: an image has converged when the norm of its residual is below ``tolerance`` times the norm
            of its ``b``. Default: 1e-6 in float32, 1e-12 in float64.

    Returns:
        ``(B, ...)``. An image whose ``b`` is not finite comes out as NaN.

    Warns:
        ConvergenceWarning: if some image's residual is above one percent of its ``b`` at the end.

    >>> b = torch.tensor([[2.0, 3.0]])
    >>> conjugate_gradients(lambda x: 2 * x, b)
    tensor([[1.0000, 1.5000]])
    """
    tolerance = default_tolerance(b.dtype) if tolerance is None else tolerance
    scale = _scale(b)
    r = b / scale
    x, p, rho = torch.zeros_like(r), r, _dot(r, r)
    target = tolerance**2 * rho
    start, active = rho, rho > target
    for i in range(iterations):
        if _looks_up(i, b) and not bool(active.any()):
            break
        q = apply(p)
        curvature = _dot(p, q)
        active = active & (curvature > 0)
        alpha = torch.where(active, rho / curvature, 0)
        x = x + alpha * p
        r = r - alpha * q
        rho, previous = torch.where(active, _dot(r, r), rho), rho
        p = torch.where(active, r + rho / previous * p, p)
        active = active & (rho > target)
    if bool((active & (rho > 1e-4 * start)).any()):
        worst = float((rho / start)[active].amax().sqrt())
        warnings.warn(
            f"conjugate gradients left a residual of {worst:.0%} after {iterations} iterations: raise the "
            "operator's cg_iterations, or lam",
            ConvergenceWarning,
            stacklevel=2,
        )
    return torch.where(start.isfinite(), x, torch.nan) * scale


def damped_least_squares(
    forward: Linear,
    adjoint: Linear,
    y: Tensor,
    damping: Tensor,
    *,
    iterations: int = 200,
    tolerance: float | None = None,
) -> Tensor:
    """``argmin_x ||y - A x||^2 + damping ||x||^2``, image by image, by CGLS (Björck, 1996).

    With ``damping = 0`` this is the pseudo-inverse, ``A^+ y``, whether or not ``y`` lies in the range of
    ``A``: the iteration sees the data only through ``A^T y``. Where ``A`` is badly conditioned it ends before
    the smallest singular values are reached, which is a regularisation of its own.

    Args:
        forward: ``A``, linear, from ``(B, ...)`` to ``(B, ...)``, not mixing images.
        adjoint: ``A^T``.
        y: data, ``(B, ...)``, floating.
        damping: broadcastable, one value per image, not negative.
        iterations: the most steps to take.
        tolerance: an image has converged when its gradient ``A^T (y - A x) - damping x`` has shrunk by this
            factor. Default: 1e-6 in float32, 1e-12 in float64.

    Returns:
        ``(B, ...)`` of the image's shape. An image whose ``y`` is not finite comes out as NaN.

    >>> double = lambda x: 2 * x
    >>> damped_least_squares(double, double, torch.tensor([[2.0, 3.0]]), torch.zeros(1, 1))
    tensor([[1.0000, 1.5000]])
    """
    tolerance = default_tolerance(y.dtype) if tolerance is None else tolerance
    scale = _scale(y)
    r = y / scale
    p = gradient = adjoint(r)
    x, gamma = torch.zeros_like(p), _dot(p, p)
    scale, finite = _like(scale, p), _like(_dot(r, r).isfinite(), p)
    damping = _like(damping, p)
    target = tolerance**2 * gamma
    active = gamma > target
    for i in range(iterations):
        if _looks_up(i, y) and not bool(active.any()):
            break
        q = forward(p)
        curvature = _like(_dot(q, q), p) + damping * _dot(p, p)
        active = active & (curvature > 0)
        alpha = torch.where(active, gamma / curvature, 0)
        x = x + alpha * p
        r = r - _like(alpha, r) * q
        gradient = adjoint(r) - damping * x
        gamma, previous = torch.where(active, _dot(gradient, gradient), gamma), gamma
        p = torch.where(active, gradient + gamma / previous * p, p)
        active = active & (gamma > target)
    return torch.where(finite, x, torch.nan) * scale


class SymmetricSolve(torch.autograd.Function):
    """``r -> solve(r)`` for a symmetric inverse: its backward is the same solve, not a tape of iterations."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, solve: Linear) -> Tensor:
        """Solve."""
        ctx.solve = solve
        return solve(r)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Solve again; the matrix is its own transpose."""
        return SymmetricSolve.apply(grad, ctx.solve), None


class LeastSquaresSolve(torch.autograd.Function):
    """``y -> (A^T A + lam)^+ A^T y``. Its transpose is the same problem with ``A`` and ``A^T`` exchanged."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, forward: Linear, adjoint: Linear, solve: Callable) -> Tensor:
        """Solve."""
        ctx.forward, ctx.adjoint, ctx.solve = forward, adjoint, solve
        return solve(forward, adjoint, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Solve the transposed problem."""
        return LeastSquaresSolve.apply(grad, ctx.adjoint, ctx.forward, ctx.solve), None, None, None


def default_tolerance(dtype: torch.dtype) -> float:
    """The relative residual worth iterating for, in this precision."""
    return 1e-12 if dtype == torch.float64 else 1e-6


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of every image with its partner, (B, 1, ..., 1)."""
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))


def _scale(b: Tensor) -> Tensor:
    """The largest entry of every image: squares of scaled entries neither overflow nor vanish."""
    peak = b.flatten(1).abs().amax(1).reshape(-1, *[1] * (b.ndim - 1))
    return torch.where(peak > 0, peak, 1)


def _like(column: Tensor, like: Tensor) -> Tensor:
    """A value per image, with as many axes as ``like``: measurement and image may differ in rank."""
    return column.reshape(-1, *[1] * (like.ndim - 1))


def _looks_up(i: int, b: Tensor) -> bool:
    """Whether to ask, at step i, if all is done: on an accelerator the answer has to be waited for."""
    return b.device.type == "cpu" or i % 10 == 0
