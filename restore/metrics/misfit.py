"""Against the measurement: whether a picture explains it, which needs no truth."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restore.images import to_batch
from restore.metrics.pairs import answer, mean_square


def data_misfit(
    image: Any,
    y: Any,
    operator: Callable[[Tensor], Tensor],
    noise: float | Sequence[float] | np.ndarray | Tensor | None = None,
) -> Any:
    """How far a picture is from explaining the measurement: the root mean square of `y - A(x)`.

    With `noise` the misfit is in standard deviations: near 1 where all that is left is noise, well above
    where the picture contradicts the measurement, well below where it has fitted the noise.

    Args:
        image: One picture, or a batch (several draws for one measurement are a batch as well).
        y: The measurement, one for each picture or one for all of them.
        operator: Takes pictures `(B, C, H, W)` in [0, 1] to measurements `(B, C', H', W')`, white being 1.
        noise: Standard deviation in units of `y` as given (0 to 255 if `y` is uint8); one number, or `(B,)`.

    Returns:
        A float, or `(B,)`, in units of `y`, or of the noise.

    Raises:
        ValueError: If the operator's result and `y` differ in shape, or noise is not positive.

    >>> y = np.full((4, 4), 0.5)
    >>> round(data_misfit(np.full((8, 8), 0.52), y, lambda x: x[..., ::2, ::2], noise=0.01), 3)
    2.0
    """
    x, fmt = to_batch(image)
    measured, y_fmt = to_batch(y, check_range=False, name="y")
    if isinstance(operator, nn.Module):
        held = next(itertools.chain(operator.parameters(), operator.buffers()), None)
        x = x if held is None else x.to(held.device)
    with torch.no_grad():
        predicted = operator(x)
    if predicted.shape[1:] != measured.shape[1:] or measured.shape[0] not in (1, predicted.shape[0]):
        raise ValueError(
            f"the operator makes measurements of shape {tuple(predicted.shape)} from pictures of shape "
            f"{tuple(x.shape)}, and y is {tuple(measured.shape)} as (B, C, H, W); expected the same."
        )
    misfit = np.sqrt(mean_square(predicted - measured.to(predicted))) * y_fmt.scale
    if noise is not None:
        sigma = np.asarray(noise.detach().cpu() if isinstance(noise, Tensor) else noise, dtype=np.float64)
        if sigma.shape not in ((), misfit.shape) or not np.all(sigma > 0):
            raise ValueError(
                f"noise is {noise}; expected a positive number, or one for each of {len(misfit)} pictures. "
                "For a measurement without noise leave it out: the misfit is then in units of y."
            )
        misfit = misfit / sigma
    return answer(misfit, fmt)
