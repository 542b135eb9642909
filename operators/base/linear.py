"""Linear operators: forward and adjoint, and from them every inverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from operators.arguments import as_column
from operators.base.operator import Operator, Shape
from operators.krylov import (
    LeastSquaresSolve,
    SymmetricSolve,
    conjugate_gradients,
    damped_least_squares,
)


@dataclass(frozen=True, eq=False)
class SVD:
    """A singular value decomposition ``A = U diag(s) V^T`` whose factors are functions.

    Coefficients have the layout of the image's spectrum: there are as many as the image has values, and those
    of unmeasured directions have ``s = 0``. V is orthogonal (``sum vt(x)^2 = sum x^2``; the coefficients of
    white noise are white noise), and all the operators here have real coefficients, the Fourier ones too.
    Singular values below the operator's ``rtol`` (see `LinearOperator`) are exactly zero.

    Attributes:
        s: singular values, real, at least 0, broadcastable to the coefficients; the leading dimension is 1 or
            B.
        vt: image ``(B, C, H, W)`` -> coefficients.
        v: coefficients -> image; the inverse of ``vt``.
        ut: measurement -> coefficients, zero where ``s`` is 0.
        u: coefficients -> measurement; disregards those where ``s`` is 0.
    """

    s: Tensor
    vt: Callable[[Tensor], Tensor]
    v: Callable[[Tensor], Tensor]
    ut: Callable[[Tensor], Tensor]
    u: Callable[[Tensor], Tensor]


class LinearOperator(Operator):
    """A linear measurement. A subclass has to give ``forward`` alone; all else follows, if more slowly.

    Attributes:
        cg_iterations: the most steps of conjugate gradients, where there is no closed form.
        cg_tolerance: the relative residual at which they stop; None: 1e-6 in float32, 1e-12 in float64.
        rtol: singular values below ``rtol`` times the largest count as zero in the pseudo-inverse, and where
            ``lam`` is 0. None: 100 times the machine epsilon (1.2e-5 in float32). A larger value, such as
            0.03, regularises the pseudo-inverse of a blur.

    >>> class Differences(LinearOperator):
    ...     def forward(self, x):
    ...         return x - x.roll(1, dims=-1)
    >>> A, x = Differences(), torch.tensor([[[[0.0, 1.0, 3.0]]]])
    >>> A(x)
    tensor([[[[-3.,  1.,  2.]]]])
    >>> A.adjoint(A(x))
    tensor([[[[-4., -1.,  5.]]]])
    >>> bool((A(A.pinv(A(x))) - A(x)).abs().max() < 1e-5)
    True
    """

    linear: ClassVar[bool] = True
    cg_iterations: int = 200
    cg_tolerance: float | None = None
    rtol: float | None = None

    @property
    def has_svd(self) -> bool:
        """Whether `svd` gives a decomposition. Costs nothing."""
        return type(self).svd is not LinearOperator.svd

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``: by default the vector-Jacobian product of ``forward``, by autograd.

        Args:
            y: ``(B, ...)``, the shape of a measurement.

        Returns:
            ``(B, C, H, W)``. Differentiable with respect to ``y`` if ``y`` requires a gradient.

        Raises:
            ValueError: if ``forward`` of a blank image has another shape than ``y`` (then ``image_shape`` is
                to be given), or is not zero (then it is affine, not linear).
        """
        self._check_batch(y, "measurements")
        name, shape = type(self).__name__, self.image_shape(tuple(y.shape[1:]))
        differentiable = torch.is_grad_enabled() and y.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros(len(y), *shape, dtype=y.dtype, device=y.device, requires_grad=True)
            blank = self(x)
            if blank.shape != y.shape:
                raise ValueError(
                    f"{name}.image_shape says that a measurement of shape {tuple(y.shape[1:])} is of an "
                    f"image of shape {shape}, but the measurement of such an image has shape "
                    f"{tuple(blank.shape[1:])}: override image_shape"
                )
            if not blank.requires_grad:
                raise ValueError(
                    f"{name}.forward cannot be differentiated (does it leave torch, or detach?): override "
                    "adjoint"
                )
            self.remember(("linear", shape), lambda: self._refuse_offset(blank))
            cotangent = y if differentiable else y.detach()
            (image,) = torch.autograd.grad(
                blank, x, cotangent, create_graph=differentiable, materialize_grads=True
            )
        return image

    def _refuse_offset(self, blank: Tensor) -> bool:
        if bool(blank.any()):
            raise ValueError(
                f"{type(self).__name__} is declared linear, but does not measure a blank image as zero: "
                "subtract the offset from forward and from y, or declare it as an Operator"
            )
        return True

    def gram_solve(self, r: Tensor, lam: float | Tensor = 0.0) -> Tensor:
        """``(A A^T + lam I)^{-1} r``: in closed form where there is one, otherwise by conjugate gradients.

        Args:
            r: ``(B, ...)``, the shape of a measurement.
            lam: not negative; a number, or a tensor ``(B,)`` with one for each image. Where it is 0 the
                inverse is the pseudo-inverse.

        Returns:
            The shape of ``r``; differentiable with respect to ``r``.

        Warns:
            ConvergenceWarning: see `conjugate_gradients`.
        """
        lam = as_column(lam, r, "lam")
        svd = self.svd(self.image_shape(tuple(r.shape[1:]))) if self.has_svd else None
        if svd is not None:
            coefficients, column = svd.ut(r), _column_like(lam, svd.s)
            inside = svd.u(coefficients * self._inverse(svd.s**2, svd.s, column))
            outside = r - svd.u(coefficients)
            return inside + torch.where(lam > 0, outside / torch.where(lam > 0, lam, 1), 0)

        options: dict[str, Any] = {"iterations": self.cg_iterations, "tolerance": self.cg_tolerance}

        def solve(b: Tensor) -> Tensor:
            damped = conjugate_gradients(
                lambda z: self(self.adjoint(z)) + lam * z, torch.where(lam > 0, b, 0), **options
            )
            if bool((lam > 0).all()):
                return damped
            # (A A^T)^+ = (A^T)^+ A^+: least squares twice, which any b is fit for, in the range of A or not.
            image = damped_least_squares(self, self.adjoint, b, torch.zeros_like(lam), **options)
            return torch.where(
                lam > 0,
                damped,
                damped_least_squares(self.adjoint, self, image, torch.zeros_like(lam), **options),
            )

        return SymmetricSolve.apply(r, solve)

    def svd(self, image_shape: Shape) -> SVD | None:
        """The singular value decomposition for images of this shape, if there is a fast one.

        Args:
            image_shape: ``(C, H, W)``.

        Returns:
            None by default. In the operator's own precision and on its device (see ``.double()``, ``.to``);
            computed once, and kept until the operator changes.
        """
        return None

    def pinv(self, y: Tensor) -> Tensor:
        """``A^+ y``, the least-norm image among those that fit ``y`` best.

        Args:
            y: ``(B, ...)``.

        Returns:
            ``(B, C, H, W)``. Where ``A`` is badly conditioned, see ``rtol`` and ``cg_iterations``.

        >>> from operators import Grayscale
        >>> Grayscale("mean").pinv(torch.full((1, 1, 1, 1), 0.5)).flatten()
        tensor([0.5000, 0.5000, 0.5000])
        """
        return self.ridge(y, 0.0)

    def prox(self, y: Tensor, x: Tensor, lam: float | Tensor) -> Tensor:
        """``argmin_z ||y - A z||^2 + lam ||z - x||^2``, the image near ``x`` that fits ``y``.

        Args:
            y: ``(B, ...)``.
            x: ``(B, C, H, W)``.
            lam: not negative; a number, or one per image, ``(B,)``. 0 gives the nearest image that fits.

        Returns:
            ``x + A^T (A A^T + lam I)^{-1} (y - A x)``, of the shape of ``x``.

        >>> from operators import Identity
        >>> Identity().prox(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), lam=1.0)
        tensor([[[[0.5000]]]])
        """
        return x + self.ridge(y - self(x), lam)

    def ridge(self, y: Tensor, lam: float | Tensor) -> Tensor:
        """``A^T (A A^T + lam I)^+ y``, what `pinv` and `prox` are made of.

        It is ``argmin_z ||y - A z||^2 + lam ||z||^2``.

        Not ``adjoint(gram_solve(y, lam))`` in so many words: one division by ``s`` loses half the digits that
        a division by ``s^2`` and a multiplication by ``s`` lose.

        Args:
            y: ``(B, ...)``.
            lam: not negative; a number, or one per image, ``(B,)``.
        """
        if self.has_svd and (svd := self.svd(self.image_shape(tuple(y.shape[1:])))) is not None:
            lam = _column_like(as_column(lam, y, "lam"), svd.s)
            return svd.v(svd.ut(y) * svd.s * self._inverse(svd.s**2, svd.s, lam))
        if type(self).gram_solve is not LinearOperator.gram_solve:
            return self.adjoint(self.gram_solve(y, lam))
        return self._iterated_ridge(y, lam)

    def _iterated_ridge(self, y: Tensor, lam: float | Tensor) -> Tensor:
        lam = as_column(lam, y, "lam")

        def solve(forward: Callable, adjoint: Callable, b: Tensor) -> Tensor:
            return damped_least_squares(
                forward, adjoint, b, lam, iterations=self.cg_iterations, tolerance=self.cg_tolerance
            )

        return LeastSquaresSolve.apply(y, self, self.adjoint, solve)

    def _inverse(self, squared: Tensor, s: Tensor, lam: Tensor) -> Tensor:
        """``1 / (s^2 + lam)``; zero where ``lam`` is 0 and ``s`` below `rtol` times the image's largest."""
        kept = (s > self._cut(s)) | (lam > 0)
        return kept / torch.where(kept, squared + lam, 1)

    def _cut(self, s: Tensor) -> Tensor:
        rtol = 100 * torch.finfo(s.dtype).eps if self.rtol is None else self.rtol
        return rtol * s.flatten(1).amax(1).reshape(-1, *[1] * (s.ndim - 1))


def _column_like(column: Tensor, like: Tensor) -> Tensor:
    return column.reshape(-1, *[1] * (like.ndim - 1))
