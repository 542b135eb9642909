"""Operators and covariances as matrices, for small images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from operators import LinearOperator


def operator_matrix(operator: LinearOperator, image_shape: tuple[int, ...]) -> Tensor:
    """A linear operator as a matrix ``(measurements, pixels)`` in float64, for small images.

    Args:
        operator: A linear operator, the same for every image.
        image_shape: ``(C, H, W)``.

    Raises:
        TypeError: If the operator is not linear.

    Example:
        >>> from operators import Grayscale
        >>> operator_matrix(Grayscale("mean"), (3, 1, 1))
        tensor([[0.3333, 0.3333, 0.3333]], dtype=torch.float64)
    """
    if not isinstance(operator, LinearOperator):
        raise TypeError(f"only a linear operator is a matrix; {type(operator).__name__} is not one")
    n = int(np.prod(image_shape))
    columns = [operator(row.reshape(1, *image_shape)).flatten() for row in torch.eye(n, dtype=torch.float64)]
    return torch.stack(columns, dim=1)


def smooth_covariance(size: tuple[int, int], length: float = 2.0, deviation: float = 1.0) -> Tensor:
    """The covariance of a smooth random image, ``deviation^2 exp(-distance / length)``, ``(H W, H W)`` float64.

    Args:
        size: ``(H, W)``.
        length: Correlation length, in pixels.
        deviation: Standard deviation of a pixel.

    Example:
        >>> smooth_covariance((2, 2)).shape
        torch.Size([4, 4])
    """
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    points = torch.stack([rows.flatten(), columns.flatten()], dim=1).double()
    return deviation**2 * torch.exp(-torch.cdist(points, points) / length)
