"""The noise of a measurement: how to draw it, and how likely it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from operators.arguments import as_buffer
from operators.base import PerImage

Generator = torch.Generator | Sequence[torch.Generator] | None


class GaussianNoise(PerImage):
    """White Gaussian noise: ``y = y_clean + std * z``.

    Args:
        std: standard deviation in the units of ``y``, not negative; a number, or one per image, ``(B,)``.

    Raises:
        ValueError: if ``std`` is negative or not finite.

    >>> noise = GaussianNoise(0.1)
    >>> noise.log_likelihood(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    tensor([1.3836])
    """

    per_image: ClassVar[tuple[str, ...]] = ("std",)
    std: Tensor

    def __init__(self, std: Any) -> None:
        super().__init__()
        self.register_buffer("std", _one_or_per_image(std, "std", "a standard deviation", zero=True))

    def sample(self, y_clean: Tensor, generator: Generator = None) -> Tensor:
        """Add noise.

        Args:
            y_clean: ``(B, ...)``.
            generator: one for the batch; or a sequence of B, one per image, so that the noise of an image
                does not depend on its batch. On the device of ``y_clean``.

        Returns:
            The same shape.
        """
        return y_clean + _column(self, self.std, y_clean) * _draw(torch.randn, y_clean, generator)

    def log_likelihood(self, y: Tensor, y_clean: Tensor) -> Tensor:
        """``log p(y | y_clean)`` of every image, in nats.

        Args:
            y: ``(B, ...)``.
            y_clean: the same shape.

        Returns:
            ``(B,)``, differentiable in ``y_clean``.

        Raises:
            ValueError: if the shapes differ, or ``std`` is 0: then there is no density.
        """
        _same_shape(y, y_clean)
        if not bool((self.std > 0).all()):
            raise ValueError("without noise (std=0) there is no likelihood: give the std you believe in")
        std = _column(self, self.std, y)
        return (-0.5 * ((y - y_clean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)

    def extra_repr(self) -> str:
        """The standard deviation."""
        return f"std={self.std.tolist()}"


class PoissonNoise(PerImage):
    """Photon noise: ``y = Poisson(peak * y_clean) / peak``.

    Args:
        peak: photons counted where the image is 1, above 0; a number, or one per image, ``(B,)``. Fewer are
            noisier.

    Raises:
        ValueError: if ``peak`` is not above 0 and finite.

    >>> PoissonNoise(100.0).sample(torch.zeros(1, 1, 1, 2))
    tensor([[[[0., 0.]]]])
    """

    per_image: ClassVar[tuple[str, ...]] = ("peak",)
    peak: Tensor

    def __init__(self, peak: Any) -> None:
        super().__init__()
        self.register_buffer("peak", _one_or_per_image(peak, "peak", "a number of photons", zero=False))

    def sample(self, y_clean: Tensor, generator: Generator = None) -> Tensor:
        """Count photons. Negative values of ``y_clean`` count as 0.

        Args:
            y_clean: ``(B, ...)``, in [0, 1] where 1 means ``peak`` photons.
            generator: one for the batch; or a sequence of B, one per image. On the device of ``y_clean``.

        Returns:
            The same shape: multiples of ``1 / peak``.
        """
        peak = _column(self, self.peak, y_clean)
        rate = (peak * y_clean).clamp_min(0)
        if generator is None or isinstance(generator, torch.Generator):
            return torch.poisson(rate, generator=generator) / peak
        _one_each(generator, y_clean)
        return (
            torch.stack([torch.poisson(r, generator=g) for r, g in zip(rate, generator, strict=True)]) / peak
        )

    def variance(self, y_clean: Tensor) -> Tensor:
        """Variance of every number of the measurement, ``y_clean / peak``, at least that of a thousandth of a photon.

        Args:
            y_clean: ``(B, ...)``.
        """
        peak = _column(self, self.peak, y_clean)
        return (peak * y_clean).clamp_min(1e-3) / peak**2

    def log_likelihood(self, y: Tensor, y_clean: Tensor) -> Tensor:
        """``log p(y | y_clean)`` of every image, in nats: the probability of ``peak * y`` counts.

        Below a thousandth of a photon the logarithm of the rate is continued by its tangent, so that value
        and gradient exist where an iterate is 0 or negative; above it, this is exact.

        Args:
            y: ``(B, ...)``; ``peak * y`` should be whole, as `sample` makes it, but need not be.
            y_clean: the same shape.

        Returns:
            ``(B,)``, differentiable in ``y_clean``.
        """
        _same_shape(y, y_clean)
        peak = _column(self, self.peak, y)
        count, rate, least = peak * y, peak * y_clean, 1e-3
        log_rate = rate.clamp_min(least).log() + (rate - least).clamp(max=0) / least
        return (count * log_rate - rate - torch.lgamma(count + 1)).flatten(1).sum(1)

    def extra_repr(self) -> str:
        """The peak."""
        return f"peak={self.peak.tolist()}"


def _one_or_per_image(value: Any, name: str, meaning: str, *, zero: bool) -> Tensor:
    tensor = as_buffer(value, name)
    if tensor.ndim > 1 or not bool(((tensor >= 0) if zero else (tensor > 0)).all()):
        bound = "not negative" if zero else "above 0"
        raise ValueError(
            f"{name} is {meaning}, {bound}: one number, or one per image, (B,); got {tensor.tolist()}"
        )
    return tensor.reshape(-1)


def _column(noise: PerImage, values: Tensor, like: Tensor) -> Tensor:
    if noise.batch_size not in (None, len(like)):
        raise ValueError(
            f"{type(noise).__name__} is for {noise.batch_size} images, but got {len(like)}: use "
            "noise.select(indices)"
        )
    return values.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def _same_shape(y: Tensor, y_clean: Tensor) -> None:
    if y.shape != y_clean.shape:
        raise ValueError(
            f"y and y_clean should have the same shape; got {tuple(y.shape)} and {tuple(y_clean.shape)}"
        )


def _draw(draw: Any, like: Tensor, generator: Generator) -> Tensor:
    if generator is None or isinstance(generator, torch.Generator):
        return draw(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    _one_each(generator, like)
    return torch.stack(
        [draw(like.shape[1:], generator=g, dtype=like.dtype, device=like.device) for g in generator]
    )


def _one_each(generators: Sequence[torch.Generator], like: Tensor) -> None:
    if len(generators) != len(like):
        raise ValueError(f"got {len(generators)} generators for {len(like)} images: one each, or one for all")
