"""Operators made of operators, and the one that does nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.arguments import as_column
from operators.base.linear import SVD, LinearOperator
from operators.base.operator import Operator, Shape


class Composition(Operator):
    """``(outer @ inner)(x) = outer(inner(x))``; made by ``@``.

    Attributes:
        outer: applied last.
        inner: applied first.
    """

    def __init__(self, outer: Operator, inner: Operator) -> None:
        super().__init__()
        self.outer, self.inner = outer, inner
        # Moved as one from here on; and parts for different batches are refused now rather than later.
        self.register_buffer("_here", inner._here, persistent=False)
        _ = self.batch_size

    def forward(self, x: Tensor) -> Tensor:
        """``outer(inner(x))``."""
        return self.outer(self.inner(x))

    def image_shape(self, measurement_shape: Shape) -> Shape:
        """The image of the inner operator, whose measurement is the image of the outer one."""
        return self.inner.image_shape(self.outer.image_shape(measurement_shape))

    def measurement_shape(self, image_shape: Shape) -> Shape:
        """The shape after both operators."""
        return self.outer.measurement_shape(self.inner.measurement_shape(image_shape))


class LinearComposition(Composition, LinearOperator):
    """A composition of two linear operators: linear. Its inverses are found by conjugate gradients.

    >>> from operators import Downsample, Grayscale
    >>> A = Downsample(2) @ Grayscale()
    >>> A(torch.ones(1, 3, 8, 6)).shape, A.image_shape((1, 4, 3))
    (torch.Size([1, 1, 4, 3]), (3, 8, 6))
    """

    outer: LinearOperator
    inner: LinearOperator

    def adjoint(self, y: Tensor) -> Tensor:
        """``inner^T outer^T y``."""
        return self.inner.adjoint(self.outer.adjoint(y))


class Identity(LinearOperator):
    """``A x = x``: plain denoising.

    >>> Identity()(torch.ones(1, 1, 1, 2))
    tensor([[[[1., 1.]]]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        self.check_images(x)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        """``y`` itself."""
        self.check_measurements(y)
        return y

    def gram_solve(self, r: Tensor, lam: float | Tensor = 0.0) -> Tensor:
        """``r / (1 + lam)``."""
        return r / (1 + as_column(lam, r, "lam"))

    def ridge(self, y: Tensor, lam: float | Tensor) -> Tensor:
        """``y / (1 + lam)``."""
        return self.gram_solve(y, lam)

    def svd(self, image_shape: Shape) -> SVD:
        """All singular values are 1."""

        def same(z: Tensor) -> Tensor:
            return z

        s = torch.ones(1, *[1] * len(image_shape), dtype=self.dtype, device=self.device)
        return SVD(s, same, same, same, same)
