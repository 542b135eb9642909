"""Measurements that are not linear, and any function as a measurement. Images are in [0, 1]."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from operators.arguments import as_buffer
from operators.base import LinearOperator, Operator, Shape


class FromCallable(Operator):
    """Any differentiable function of ``(B, C, H, W)`` as an operator.

    Args:
        function: maps images to measurements ``(B, ...)``, without mixing the images of a batch. A
            ``torch.nn.Module`` is a function too, and moves with ``.to(device)``.
        image_shape: how to know the image from the measurement: None if both have the same shape; the shape
            ``(C, H, W)`` if it is always the same; or a function from the one shape to the other.
        linear: the function is linear. What comes back is then a `LinearOperator`, whose adjoint is by
            autograd and whose inverses are by conjugate gradients.

    >>> A = FromCallable(lambda x: x[..., ::2], image_shape=lambda s: (*s[:2], 2 * s[2]), linear=True)
    >>> A.linear, A.adjoint(torch.ones(1, 1, 1, 2))
    (True, tensor([[[[1., 0., 1., 0.]]]]))
    """

    def __new__(
        cls,
        function: Callable[[Tensor], Tensor] | None = None,  # not given when a copy is made
        *,
        image_shape: Sequence[int] | Callable[[Shape], Shape] | None = None,
        linear: bool = False,
    ) -> FromCallable:
        """A `LinearOperator` if the function is linear."""
        return super().__new__(LinearFromCallable if linear else cls)

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        *,
        image_shape: Sequence[int] | Callable[[Shape], Shape] | None = None,
        linear: bool = False,
    ) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(f"FromCallable takes a function of images; got {type(function).__name__}")
        if image_shape is not None and not callable(image_shape) and len(tuple(image_shape)) != 3:
            raise ValueError(f"image_shape should be (C, H, W), a function, or None; got {image_shape!r}")
        self.function = function
        self._image_shape = image_shape

    def forward(self, x: Tensor) -> Tensor:
        """The function."""
        self.check_images(x)
        return self.function(x)

    def image_shape(self, measurement_shape: Shape) -> Shape:
        """As given at construction."""
        if self._image_shape is None:
            return tuple(measurement_shape)
        if callable(self._image_shape):
            return tuple(self._image_shape(tuple(measurement_shape)))
        return tuple(self._image_shape)

    def measurement_shape(self, image_shape: Shape) -> Shape:
        """The image's, if ``image_shape`` was None; otherwise learnt, once, from a blank image."""
        if self._image_shape is None:
            return tuple(image_shape)
        if not callable(self._image_shape) and tuple(image_shape) != tuple(self._image_shape):
            raise ValueError(
                f"this FromCallable is for images of shape {self.image_shape(())}; got {image_shape}"
            )
        return self.remember(
            ("measurement_shape", tuple(image_shape)), lambda: self._measure_blank(image_shape)
        )

    def _measure_blank(self, image_shape: Shape) -> Shape:
        blank = torch.zeros(1, *image_shape, dtype=self.dtype, device=self.device)
        return tuple(self.function(blank).shape[1:])

    def extra_repr(self) -> str:
        """The function's name."""
        return getattr(self.function, "__name__", type(self.function).__name__)


class LinearFromCallable(FromCallable, LinearOperator):
    """What ``FromCallable(function, linear=True)`` gives."""


class JPEG(Operator):
    """JPEG compression, with 4:2:0 chroma as most files have it.

    ``forward`` is a differentiable imitation (kornia's; Shin and Song, 2017), for the gradient. It is near a
    real codec's output, not equal to it: 37 dB at quality 10. To make a measurement from a clean picture, use
    `simulate`, which is a real codec.

    Args:
        quality: 1 (smallest file) to 100; a number, or one per image, ``(B,)``.

    >>> JPEG(quality=50)(torch.rand(2, 3, 20, 17)).shape
    torch.Size([2, 3, 20, 17])
    """

    per_image: ClassVar[tuple[str, ...]] = ("quality",)
    quality: Tensor

    def __init__(self, quality: float | Sequence[float] | Tensor) -> None:
        super().__init__()
        quality = as_buffer(quality, "quality").reshape(-1)
        if not bool(((quality >= 1) & (quality <= 100)).all()):
            raise ValueError(f"quality should be from 1 to 100; got {quality.tolist()}")
        self.register_buffer("quality", quality)

    def measurement_shape(self, image_shape: Shape) -> Shape:
        """The image's shape; ValueError if it has neither 1 nor 3 channels."""
        if len(image_shape) != 3 or image_shape[0] not in (1, 3):
            raise ValueError(
                f"JPEG takes images of shape (3, H, W), or (1, H, W) for grey ones; got {image_shape}"
            )
        return tuple(image_shape)

    def image_shape(self, measurement_shape: Shape) -> Shape:
        """The measurement's shape."""
        return tuple(measurement_shape)

    def forward(self, x: Tensor) -> Tensor:
        """A differentiable imitation of compressing and decompressing; images of any size, in [0, 1]."""
        from kornia.enhance import jpeg_codec_differentiable

        self.check_images(x)
        grey = x.shape[1] == 1
        colour = x.expand(-1, 3, -1, -1) if grey else x
        decoded = jpeg_codec_differentiable(colour, self.quality.to(x.dtype))
        return decoded.mean(1, keepdim=True) if grey else decoded

    def simulate(self, x: Tensor) -> Tensor:
        """Compress and decompress by a real codec (PIL's). Not differentiable.

        Args:
            x: ``(B, 1 or 3, H, W)`` in [0, 1]; rounded to 8 bits first, as any picture that is saved.

        Returns:
            The same shape, dtype and device.
        """
        from PIL import Image

        self.check_images(x)
        pictures = (x.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        decoded = []
        for picture, quality in zip(pictures, self.quality.expand(len(x)).tolist(), strict=True):
            file = io.BytesIO()
            Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture).save(
                file, "JPEG", quality=round(quality), subsampling="4:2:0"
            )
            decoded.append(np.atleast_3d(np.asarray(Image.open(file))))
        return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(x) / 255

    def extra_repr(self) -> str:
        """The quality."""
        return f"quality={self.quality.tolist()}"


class Clip(Operator):
    """Values beyond the sensor's range are cut off: ``y = clip(x, low, high)``.

    The gradient is zero where the value is cut off, which is the truth: such a pixel says nothing more.

    Args:
        low: below this, ``low`` is measured.
        high: above this, ``high`` is measured.

    >>> Clip(0.2, 0.8)(torch.tensor([[[[0.0, 0.5, 1.0]]]]))
    tensor([[[[0.2000, 0.5000, 0.8000]]]])
    """

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        if not low < high:
            raise ValueError(f"low should be below high; got low={low}, high={high}")
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        """Clip."""
        self.check_images(x)
        return x.clamp(self.low, self.high)

    def extra_repr(self) -> str:
        """The range."""
        return f"{self.low}, {self.high}"


class Saturation(Clip):
    """Over-exposure: ``y = clip(scale * x, 0, 1)``; high dynamic range is the inverse problem.

    Papers that have images in [-1, 1] scale about mid-grey instead: that is ``Saturation(scale,
    centre=0.5)``.

    Args:
        scale: of the exposure, above 0.
        centre: the value that the exposure leaves as it is.

    >>> Saturation(2.0)(torch.tensor([[[[0.1, 0.4, 0.9]]]]))
    tensor([[[[0.2000, 0.8000, 1.0000]]]])
    """

    def __init__(self, scale: float = 2.0, *, centre: float = 0.0) -> None:
        super().__init__(0.0, 1.0)
        if not 0 < scale < math.inf:
            raise ValueError(f"scale should be above 0; got {scale}")
        self.scale, self.centre = scale, centre

    def forward(self, x: Tensor) -> Tensor:
        """Scale, then clip."""
        return super().forward(self.centre + self.scale * (x - self.centre))

    def extra_repr(self) -> str:
        """The exposure."""
        return f"scale={self.scale}, centre={self.centre}"


class Gamma(Operator):
    """A tone curve: ``y = x ** gamma``.

    Below 0.001 (a quarter of an 8-bit level) the curve is a straight line through zero: the power has an
    infinite slope there if ``gamma`` is below 1, and no value at all below zero, where iterates of a method
    may well be.

    Args:
        gamma: above 0. 1/2.2 goes from linear light to a screen's values, roughly.

    >>> Gamma(2.0)(torch.tensor([[[[0.0, 0.5, 1.0]]]]))
    tensor([[[[0.0000, 0.2500, 1.0000]]]])
    """

    def __init__(self, gamma: float) -> None:
        super().__init__()
        if not 0 < gamma < math.inf:
            raise ValueError(f"gamma should be above 0; got {gamma}")
        self.gamma = gamma

    def forward(self, x: Tensor) -> Tensor:
        """The curve."""
        self.check_images(x)
        knee = 1e-3
        # The power never sees a value below the knee: its gradient there would be NaN even if not chosen.
        return torch.where(x > knee, x.clamp_min(knee) ** self.gamma, x * knee ** (self.gamma - 1))

    def extra_repr(self) -> str:
        """The exponent."""
        return f"{self.gamma}"


class PhaseRetrieval(Operator):
    """The modulus of the oversampled Fourier transform, as in coherent diffraction imaging.

    The phase is lost. The image is padded by zeros to ``oversample`` times its sides; orthonormal 2-D FFT;
    modulus. An image, the same rotated by 180 degrees, and shifted copies within the padding all have the
    same measurement.

    Args:
        oversample: ratio of the padded side to the image's, at least 1. 2 measures the whole autocorrelation;
            more adds nothing. (In the code of DPS the number means something else: its 2.0 is a ratio of
            1.5.)

    >>> PhaseRetrieval(2.0)(torch.ones(1, 3, 5, 4)).shape
    torch.Size([1, 3, 10, 8])
    """

    def __init__(self, oversample: float = 2.0) -> None:
        super().__init__()
        if not 1 <= oversample < math.inf:
            raise ValueError(f"oversample should be at least 1; got {oversample}")
        self.oversample = oversample

    def measurement_shape(self, image_shape: Shape) -> Shape:
        """``(C, ceil(oversample H), ceil(oversample W))``."""
        c, *size = image_shape
        return c, *(math.ceil(self.oversample * n - 1e-9) for n in size)

    def image_shape(self, measurement_shape: Shape) -> Shape:
        """The inverse of `measurement_shape`."""
        c, *size = measurement_shape
        return c, *(math.floor(n / self.oversample + 1e-9) for n in size)

    def forward(self, x: Tensor) -> Tensor:
        """Pad, transform, take the modulus."""
        self.check_images(x)
        size = self.measurement_shape(tuple(x.shape[1:]))[1:]
        return torch.fft.fft2(x, s=size, norm="ortho").abs()

    def extra_repr(self) -> str:
        """The ratio."""
        return f"oversample={self.oversample}"
