"""What every operator is, linear or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from operators.base.per_image import PerImage

if TYPE_CHECKING:
    from operators.base.composition import Composition

Shape = tuple[int, ...]


class Operator(PerImage):
    """A differentiable measurement, linear or not.

    To write one, subclass it and give ``forward``; give ``image_shape`` too if the measurement has another
    shape than the image. Tensors that differ per image are buffers, named in ``per_image``.

    >>> class Square(Operator):
    ...     def forward(self, x):
    ...         return x**2
    >>> Square()(torch.full((1, 1, 1, 2), 3.0))
    tensor([[[[9., 9.]]]])
    """

    linear: ClassVar[bool] = False

    @property
    def has_svd(self) -> bool:
        """Whether `LinearOperator.svd` gives a decomposition. Costs nothing."""
        return False

    def forward(self, x: Tensor) -> Tensor:
        """Measure.

        Args:
            x: images, ``(B, C, H, W)``, floating.

        Returns:
            Measurements, ``(B, ...)``, floating and real.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward(self, x)")

    def image_shape(self, measurement_shape: Shape) -> Shape:
        """The shape ``(C, H, W)`` of the image that a measurement of this shape belongs to.

        Args:
            measurement_shape: without the batch.
        """
        return tuple(measurement_shape)

    def measurement_shape(self, image_shape: Shape) -> Shape:
        """The shape, without the batch, of the measurement of an image of shape ``(C, H, W)``.

        Raises:
            ValueError: if such an image does not fit the operator.
        """
        if type(self).image_shape is Operator.image_shape:
            return tuple(image_shape)
        # A subclass that says the one direction only: the other is learnt, once, by measuring a blank image.
        return self.remember(
            ("measurement_shape", tuple(image_shape)), lambda: self._measure_blank(image_shape)
        )

    def _measure_blank(self, image_shape: Shape) -> Shape:
        blank = torch.zeros(self.batch_size or 1, *image_shape, dtype=self.dtype, device=self.device)
        return tuple(self(blank).shape[1:])

    def check_images(self, x: Tensor) -> None:
        """Refuse what ``forward`` cannot take, in words.

        Raises:
            TypeError: if ``x`` is not a floating tensor.
            ValueError: if its rank, batch, channels or size do not fit.
        """
        self._check_batch(x, "images")
        if x.ndim != 4:
            raise ValueError(
                f"{type(self).__name__} takes images of shape (B, C, H, W); got {tuple(x.shape)}. Add the "
                "missing axes, e.g. with x[None]"
            )
        self.measurement_shape(tuple(x.shape[1:]))

    def check_measurements(self, y: Tensor) -> None:
        """Refuse what ``adjoint`` cannot take, in words.

        Raises:
            TypeError: if ``y`` is not a floating tensor.
            ValueError: if its rank, batch, channels or size do not fit.
        """
        self._check_batch(y, "measurements")
        given = tuple(y.shape[1:])
        fits = self.measurement_shape(self.image_shape(given))
        if given != fits:
            raise ValueError(
                f"{type(self).__name__} makes measurements of shape (B, {', '.join(map(str, fits))}) of such "
                f"images; got {tuple(y.shape)}"
            )

    def _check_batch(self, z: Tensor, what: str) -> None:
        name = type(self).__name__
        if not isinstance(z, Tensor):
            raise TypeError(
                f"{name} takes {what} as a torch tensor; got {type(z).__name__}. Use torch.as_tensor"
            )
        if not z.is_floating_point():
            raise TypeError(
                f"{name} takes floating {what}; got {z.dtype}. For 8-bit pictures: x.float() / 255"
            )
        if z.ndim < 2:
            raise ValueError(
                f"{name} takes a batch of {what}; got shape {tuple(z.shape)}. Add an axis with z[None]"
            )
        size = self.batch_size
        if size not in (None, len(z)):
            raise ValueError(
                f"{name} has parameters for {size} images, but got a batch of {len(z)}: use "
                "operator.select(indices) for some images of the batch"
            )

    def __matmul__(self, other: Operator) -> Composition:
        if not isinstance(other, Operator):
            return NotImplemented
        from operators.base.composition import Composition, LinearComposition

        return (LinearComposition if self.linear and other.linear else Composition)(self, other)
