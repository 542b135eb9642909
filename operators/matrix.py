"""A matrix as an operator, for problems that are small enough to write their matrix down."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from operators.arguments import as_buffer
from operators.base import SVD, LinearOperator, Shape


class Matrix(LinearOperator):
    """``y = M x`` with the image flattened: ``(B, C, H, W)`` to ``(B, 1, 1, m)``.

    It is decomposed once and whole, with all ``n`` right singular vectors, in ``O(n^3)`` time and ``O(n^2)`` memory:
    for images of up to a few thousand values.

    Args:
        matrix: ``(m, n)`` with ``n = C H W``, as a tensor, an array or nested lists; or ``(B, m, n)``, one per
            image.
        shape: ``(C, H, W)`` of the images; ``(1, 1, n)``, a row, if you give none.

    Raises:
        ValueError: if the matrix has another rank, or its width is not that of such images.

    >>> mean_and_difference = Matrix([[0.5, 0.5], [1.0, -1.0]])
    >>> y = mean_and_difference(torch.tensor([[[[0.2, 0.6]]]]))
    >>> y
    tensor([[[[ 0.4000, -0.4000]]]])
    >>> mean_and_difference.pinv(y)
    tensor([[[[0.2000, 0.6000]]]])
    """

    per_image = ("matrix",)
    matrix: Tensor

    def __init__(
        self, matrix: Tensor | np.ndarray | Sequence[Sequence[float]], shape: Shape | None = None
    ) -> None:
        super().__init__()
        buffer = as_buffer(matrix, "matrix")
        if buffer.ndim not in (2, 3):
            raise ValueError(f"matrix should have shape (m, n) or (B, m, n); got {tuple(buffer.shape)}")
        n = buffer.shape[-1]
        self.shape = (1, 1, n) if shape is None else tuple(shape)
        if len(self.shape) != 3 or math.prod(self.shape) != n:
            raise ValueError(f"shape should be (C, H, W) with C H W = {n}, the matrix's columns; got {shape}")
        self.register_buffer("matrix", buffer.reshape(-1, *buffer.shape[-2:]))

    def measurement_shape(self, image_shape: Shape) -> Shape:
        """``(1, 1, m)``; ValueError for images of another shape than the operator's."""
        if tuple(image_shape) != self.shape:
            raise ValueError(f"this Matrix takes images of shape {self.shape}; got {tuple(image_shape)}")
        return 1, 1, self.matrix.shape[1]

    def image_shape(self, measurement_shape: Shape) -> Shape:
        """The shape that was given, ``(C, H, W)``."""
        return self.shape

    def forward(self, x: Tensor) -> Tensor:
        """``M x``."""
        self.check_images(x)
        return _times(self.matrix, x).reshape(len(x), 1, 1, -1)

    def adjoint(self, y: Tensor) -> Tensor:
        """``M^T y``."""
        self.check_measurements(y)
        return _times(self.matrix.mT, y).reshape(len(y), *self.shape)

    def svd(self, image_shape: Shape) -> SVD:
        """The matrix's own; unmeasured directions come last."""
        self.measurement_shape(image_shape)
        n = self.matrix.shape[2]

        def build() -> SVD:
            factors = torch.linalg.svd(self.matrix.double(), full_matrices=True)
            left, values, right = (factor.to(self.dtype) for factor in factors)
            rank = values.shape[1]
            values = torch.where(values > self._cut(values), values, 0)
            left = left[..., :rank] * (values[:, None] > 0)  # What is not measured has no direction in y.
            s = torch.nn.functional.pad(values, (0, n - rank)).reshape(-1, *self.shape)

            def ut(y: Tensor) -> Tensor:
                return torch.nn.functional.pad(_times(left.mT, y), (0, n - rank)).reshape(-1, *self.shape)

            def u(coefficients: Tensor) -> Tensor:
                return _times(left, coefficients.flatten(1)[:, :rank]).reshape(len(coefficients), 1, 1, -1)

            return SVD(
                s,
                lambda x: _times(right, x).reshape(x.shape),
                lambda coefficients: _times(right.mT, coefficients).reshape(coefficients.shape),
                ut,
                u,
            )

        return self.remember(("svd", self.rtol), build)

    def extra_repr(self) -> str:
        """Rows, columns, and the shape of the images."""
        return f"{self.matrix.shape[1]} x {self.matrix.shape[2]}, images {self.shape}"


def _times(matrix: Tensor, z: Tensor) -> Tensor:
    """Every image's matrix ``(1 or B, m, n)`` times its numbers ``(B, ...)``: ``(B, m)``."""
    if len(matrix) == 1:  # One product instead of B.
        return z.flatten(1) @ matrix[0].to(z.dtype).mT
    return torch.einsum("bmn,bn->bm", matrix.to(z.dtype), z.flatten(1))
