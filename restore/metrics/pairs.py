"""What all measures share: two pictures of one shape go in, one number a picture comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from restore.images import ImageFormat, to_batch


def pair(
    image: Any, reference: Any, check_range: bool = True
) -> tuple[Tensor, Tensor, ImageFormat, ImageFormat]:
    """Two pictures, or a batch and one, as batches of one shape on one device, with their formats."""
    x, fmt = to_batch(image, check_range=check_range)
    truth, truth_fmt = to_batch(reference, check_range=check_range, name="reference")
    if x.shape[1:] != truth.shape[1:] or truth.shape[0] not in (1, x.shape[0]):
        raise ValueError(
            f"image is {tuple(x.shape)} and reference {tuple(truth.shape)} as (B, C, H, W); expected "
            "the same. Crop or convert one of them: they are not resized, since that changes the result."
        )
    return x, truth.to(x.device), fmt, truth_fmt


def mean_square(error: Tensor) -> np.ndarray:
    """Mean of squares per picture, `(B,)`, summed in float64."""
    return error.detach().cpu().double().square().flatten(1).mean(1).numpy()


def answer(values: np.ndarray, fmt: ImageFormat) -> Any:
    """A float for one picture; for a batch `(B,)`, of the kind that the user gave."""
    if not fmt.batched:
        return float(values[0])
    return torch.from_numpy(values).float().to(fmt.device) if fmt.kind == "torch" else values


def size_of(batch: Tensor) -> str:
    """Height and width, in words."""
    return f"{batch.shape[-2]} by {batch.shape[-1]} pixels"
