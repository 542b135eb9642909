"""Parameters that may differ per image of a batch, and quantities that are computed once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
Self = TypeVar("Self", bound="PerImage")

#: How many image shapes an operator remembers the derived quantities of (kernel transforms, decompositions).
REMEMBERED = 8


class PerImage(nn.Module):
    """A module whose buffers may hold one value for all images, or one for each image of a batch.

    The names of such buffers are in ``per_image``; the leading dimension of each is 1 or B.
    """

    per_image: ClassVar[tuple[str, ...]] = ()
    _here: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Even a module without numbers of its own has to know where, and in which precision, it lives.
        self.register_buffer("_here", torch.empty(0), persistent=False)
        self._remembered: dict[Any, tuple[list[Tensor], list[int], Any]] = {}

    @property
    def device(self) -> torch.device:
        """Where the buffers are; changed by ``.to(device)``."""
        return self._here.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of what the module makes itself (`svd`): float32, or as set by ``.double()``."""
        return self._here.dtype

    @property
    def batch_size(self) -> int | None:
        """None if the module is the same for every image; else B, and it takes batches of B images only.

        Raises:
            ValueError: if two buffers (or two parts of a composition) are for different batch sizes.
        """
        sizes = {name: len(getattr(self, name)) for name in self.per_image}
        for name, part in self._modules.items():
            if isinstance(part, PerImage) and part.batch_size is not None:
                sizes[f"{name} ({type(part).__name__})"] = part.batch_size
        different = {size for size in sizes.values() if size != 1}
        if len(different) > 1:
            raise ValueError(
                f"{type(self).__name__} is per image, but its parts are for different batch sizes: {sizes}"
            )
        return different.pop() if different else None

    def select(self: Self, indices: Tensor) -> Self:
        """The same operator for some images of the batch.

        Args:
            indices: 1-D integer tensor of positions in the batch; may repeat and reorder.

        Returns:
            A shallow copy. Buffers with one value per image are indexed; all others are shared.

        >>> from operators import Mask
        >>> masks = torch.ones(3, 1, 4, 4)
        >>> Mask(masks).select(torch.tensor([2, 0])).batch_size
        2
        """
        indices = torch.as_tensor(indices)
        if indices.ndim != 1 or indices.is_floating_point() or indices.dtype == torch.bool:
            raise ValueError(
                "select takes a 1-D tensor of integer positions, e.g. torch.tensor([0, 2]); got "
                f"{indices.dtype} of shape {tuple(indices.shape)}"
            )
        chosen = copy.copy(self)
        chosen._buffers = dict(self._buffers)
        chosen._parameters = dict(self._parameters)
        chosen._modules = dict(self._modules)
        # What was remembered holds for the copy too, unless the copy differs.
        chosen._remembered = self._remembered if self.batch_size is None else {}
        with torch.inference_mode(False):
            for name in self.per_image:
                buffer = getattr(self, name)
                if len(buffer) > 1:
                    chosen._buffers[name] = buffer[indices.to(buffer.device)]
            for name, part in self._modules.items():
                if isinstance(part, PerImage):
                    chosen._modules[name] = part.select(indices)
        return chosen

    def remember(self, key: Any, build: Callable[[], T]) -> T:
        """``build()``, computed once per key, for as long as the buffers stay what they are.

        Built outside of inference mode, so that what a method without gradients computed first is usable by
        one with gradients. Not kept (and differentiable) while a buffer requires a gradient.
        """
        buffers = [b for b in self._buffers.values() if b is not None]
        with torch.inference_mode(False):
            if any(b.requires_grad for b in buffers):
                return build()
            versions = [0 if b.is_inference() else b._version for b in buffers]
            known = self._remembered.get(key)
            if known and known[1] == versions and all(a is b for a, b in zip(known[0], buffers, strict=True)):
                return known[2]
            with torch.no_grad():
                value = build()
            self._remembered.pop(key, None)
            while len(self._remembered) >= REMEMBERED:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered[key] = (buffers, versions, value)
            return value

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._remembered = {}
        with torch.inference_mode(False):
            return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_remembered": {}}
