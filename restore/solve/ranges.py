"""Value ranges: the user's [0, 1] outside, the prior's own inside. No other file converts.

A range that cannot be meant, such as 0 to 255 in floats, is refused here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from operators import Blur, Downsample, Grayscale, Identity, LinearOperator, Mask, Operator, PoissonNoise
from restore.prior import BasePrior


def in_range_of(
    prior: BasePrior,
    y: Tensor,
    operator: Operator,
    noise: Tensor,
    shape: tuple[int, ...],
    poisson: PoissonNoise | None = None,
) -> tuple[Tensor, Operator, Tensor]:
    """Measurement, operator and noise level for images in the prior's range instead of [0, 1].

    With ``x_prior = low + scale x`` a linear operator stays as it is, and ``A x_prior = low A 1 + scale y``. Any
    other operator is given its images in [0, 1], and so is one under photon noise, whose counts know no offset.
    """
    low, high = prior.value_range
    scale = high - low
    if not isinstance(operator, LinearOperator):
        return scale * y, _in_unit_range(operator, low, high), scale * noise
    with torch.no_grad():
        white = operator(torch.ones(operator.batch_size or 1, *shape, device=y.device))
    brightest, darkest = float(y.abs().max()), float(y.min())
    too_bright = brightest > 4 * max(1.0, float(white.abs().max()))
    # Values scatter as far as their noise: noise beyond all of them is in other units.
    loudest = float(noise.max())
    if prior.bounded and loudest > 2 * max(1.0, brightest):
        raise ValueError(
            f"noise is {loudest:.4g}, where white is 1 and y goes no further than {brightest:.4g}: noise is a standard "
            f"deviation in the units of y (divide by 255, or give y as uint8)"
        )
    # Strong noise may have made it so; but noise goes down as far as it goes up.
    noisy = float(noise.max()) > brightest / 20 and darkest < -brightest / 4
    # Bicubic reduction undershoots a little below black, and noise does; half the range below is another range.
    if (
        prior.bounded
        and darkest < -0.5 - 6 * float(noise.max())
        and isinstance(operator, (Mask, Grayscale, Downsample))
    ):
        raise ValueError(
            f"y goes down to {darkest:.4g}: images are in [0, 1] (for [-1, 1], give (y + 1) / 2), or of dtype uint8"
        )
    # Of an operator of one's own nobody knows how bright its measurements are.
    pictorial = isinstance(operator, (Mask, Blur, Downsample, Grayscale, Identity))
    if prior.bounded and pictorial and too_bright and not noisy:
        raise ValueError(
            f"y goes up to {brightest:.4g}, where a white picture measures {float(white.max()):.4g}: images are in "
            f"[0, 1] (divide by 255) or of dtype uint8"
        )
    if poisson is not None:
        return scale * y, _in_unit_range(operator, low, high), scale * noise
    return low * white + scale * y, operator, scale * noise


def _in_unit_range(operator: Operator, low: float, high: float) -> Operator:
    return operator if (low, high) == (0, 1) else _InUnitRange(operator, low, high)


class _InUnitRange(Operator):
    """A non-linear operator, for images in another range than [0, 1]; its measurements are scaled alike."""

    def __init__(self, operator: Operator, low: float, high: float) -> None:
        super().__init__()
        self.operator, self.low, self.scale = operator, low, high - low

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.operator((x - self.low) / self.scale)

    def image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.operator.image_shape(measurement_shape)


def to_unit(prior: BasePrior, x: Tensor) -> Tensor:
    """The result in [0, 1]."""
    low, high = prior.value_range
    return (prior.clip(x) - low) / (high - low)
