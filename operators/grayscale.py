"""Grayscale: the measurement that colourisation inverts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from operators.arguments import as_buffer, as_column
from operators.base import SVD, LinearOperator, Shape

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as PIL's convert("L")


class Grayscale(LinearOperator):
    """A weighted sum of the channels: ``(B, 3, H, W)`` to ``(B, 1, H, W)``.

    Args:
        weights: "luma" (0.299, 0.587, 0.114: ITU-R 601-2, as PIL), "mean" (a third each, as the papers on
            colourisation), or numbers, one per channel; as many channels as numbers.

    Raises:
        ValueError: for another name, or weights that are all zero or not finite.

    >>> Grayscale("mean")(torch.tensor([0.0, 0.3, 0.9]).reshape(1, 3, 1, 1))
    tensor([[[[0.4000]]]])
    """

    weights: Tensor

    def __init__(self, weights: str | Sequence[float] | Tensor = "luma") -> None:
        super().__init__()
        named = {"luma": LUMA, "mean": (1 / 3, 1 / 3, 1 / 3)}
        if isinstance(weights, str):
            if weights not in named:
                raise ValueError(
                    f'weights should be "luma", "mean", or a number per channel; got {weights!r}'
                )
            weights = torch.tensor(named[weights], dtype=torch.float64)
        elif not isinstance(weights, Tensor):
            weights = torch.as_tensor(weights, dtype=torch.float64)
        weights = as_buffer(weights, "weights")
        if weights.ndim != 1 or not bool(weights.any()):
            raise ValueError(f"weights should be one number per channel, not all 0; got {weights.tolist()}")
        self.register_buffer("weights", weights)

    def measurement_shape(self, image_shape: Shape) -> Shape:
        """``(1, H, W)``; ValueError if the image has another number of channels."""
        channels = len(self.weights)
        if len(image_shape) != 3 or image_shape[0] != channels:
            raise ValueError(
                f"Grayscale takes images of shape ({channels}, H, W); got {tuple(image_shape)}. A "
                "measurement that is grey already is y, not x"
            )
        return 1, *image_shape[1:]

    def image_shape(self, measurement_shape: Shape) -> Shape:
        """``(channels, H, W)``."""
        return len(self.weights), *measurement_shape[1:]

    def forward(self, x: Tensor) -> Tensor:
        """Weigh and add the channels."""
        self.check_images(x)
        return (self._column(x) * x).sum(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        """Spread the grey value over the channels, by their weights."""
        self.check_measurements(y)
        return self._column(y) * y

    def gram_solve(self, r: Tensor, lam: float | Tensor = 0.0) -> Tensor:
        """``r / (|weights|^2 + lam)``."""
        self.check_measurements(r)
        return r / (self._column(r).square().sum() + as_column(lam, r, "lam"))

    def ridge(self, y: Tensor, lam: float | Tensor) -> Tensor:
        """``weights * y / (|weights|^2 + lam)``."""
        return self._column(y) * self.gram_solve(y, lam)

    def svd(self, image_shape: Shape) -> SVD:
        """Per pixel: one axis along the weights, the others (colour) across them, with s = 0."""
        self.measurement_shape(image_shape)

        def build() -> SVD:
            weights = self.weights.double()
            norm = float(weights.norm())
            direction = weights / norm
            sign = math.copysign(1.0, float(direction[0]))
            # Householder's reflection takes the direction to the first axis; it is orthogonal and symmetric,
            # so that, up to this sign, its first row is the direction itself.
            mirror = direction.clone()
            mirror[0] += sign
            reflection = torch.eye(len(weights), dtype=torch.float64, device=weights.device)
            reflection -= 2 * torch.outer(mirror, mirror) / mirror.square().sum()
            q = (-sign * reflection).to(self.dtype)
            s = torch.zeros(1, len(weights), 1, 1, dtype=self.dtype, device=self.device)
            s[:, 0] = norm

            def vt(x: Tensor) -> Tensor:
                return torch.einsum("ij,bjhw->bihw", q.to(x.dtype), x)

            def v(coefficients: Tensor) -> Tensor:
                return torch.einsum("ji,bjhw->bihw", q.to(coefficients.dtype), coefficients)

            def ut(y: Tensor) -> Tensor:
                return torch.cat([y, y.new_zeros(len(y), len(q) - 1, *y.shape[2:])], 1)

            return SVD(s, vt, v, ut, lambda coefficients: coefficients[:, :1])

        return self.remember("svd", build)

    def _column(self, like: Tensor) -> Tensor:
        return self.weights.to(like.dtype).reshape(1, -1, 1, 1)

    def extra_repr(self) -> str:
        """The weights."""
        return ", ".join(f"{w:.4g}" for w in self.weights.tolist())
