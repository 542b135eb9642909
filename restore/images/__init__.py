"""Pictures in and out: files, numpy arrays, torch tensors and PIL images, and their value ranges.

Inside the package a picture is a float32 tensor `(B, C, H, W)` whose white is 1. `to_batch` makes that
tensor from whatever the user has, with an `ImageFormat` that turns a result into the same kind again.

>>> import numpy as np, torch
>>> y = np.zeros((4, 6), dtype=np.uint8)             # a gray numpy picture
>>> batch, layout = to_batch(y)
>>> batch.shape
torch.Size([1, 1, 4, 6])
>>> colour = layout.restore(torch.ones(1, 3, 8, 12))  # the result is larger, and in colour
>>> colour.shape, colour.dtype, colour.max()
((8, 12, 3), dtype('uint8'), np.uint8(255))
"""

from __future__ import annotations

from restore.images.conversion import to_batch
from restore.images.layout import ImageFormat
from restore.images.reading import read_image
from restore.images.writing import check_destination, known_suffix, write_image

__all__ = ["ImageFormat", "check_destination", "known_suffix", "read_image", "to_batch", "write_image"]
