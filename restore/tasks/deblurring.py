"""A known blur, undone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import Blur
from restore.images import to_batch
from restore.tasks.settings import as_colour, draws_of, noise_of, prior_of, solved


def deblur(
    image: Any,
    kernel: Any,
    *,
    noise: float | None = None,
    method: str | None = None,
    steps: int | None = None,
    **settings: Any,
) -> Any:
    """Undoes a known blur.

    Args:
        image: The blurred picture: numpy ``(H, W)`` or ``(H, W, 3)``, PIL, torch ``(C, H, W)``, or a batch.
        kernel: The blur, ``(h, w)``, e.g. ``operators.gaussian_kernel(3.0)``; it is made to sum to 1.
        noise: Standard deviation of the noise in the picture, in its units; a hundredth of its range by default.
        method: A method; by default, ``"auto"`` chooses.
        steps: Number of steps.
        **settings: Further arguments of :func:`restore.solve`.

    Returns:
        The sharp picture; with ``samples=n``, ``n`` of them.

    Raises:
        TypeError: If the kernel is no array.
        ValueError: If the kernel is not of two axes, or does not sum to more than 0.

    Example:
        >>> from operators import gaussian_kernel
        >>> blurred = np.full((16, 20, 3), 200, np.uint8)
        >>> deblur(blurred, gaussian_kernel(1.0), steps=2, seed=0, progress=False).shape
        (16, 20, 3)
    """
    try:
        weights = torch.as_tensor(
            np.array(kernel, dtype=np.float64) if not isinstance(kernel, Tensor) else kernel
        ).double()
    except (TypeError, ValueError):
        raise TypeError(
            f"the kernel is a {type(kernel).__name__}, {kernel!r}; expected an array (h, w) such as "
            f"operators.gaussian_kernel(3.0), or motion_kernel, disk_kernel"
        ) from None
    if weights.ndim != 2:
        raise ValueError(
            f"the kernel has shape {tuple(weights.shape)}; expected one for all channels, (h, w), such as "
            f"operators.gaussian_kernel(3.0)"
        )
    if not float(weights.sum()) > 0:
        raise ValueError(f"a blur's kernel sums to more than 0; this one to {float(weights.sum()):.3g}")
    batch, layout = to_batch(image, name="image")
    settings["prior"] = prior_of(settings)
    colour, back = as_colour(batch, settings["prior"])
    if any(side > 2 * max(batch.shape[-2:]) for side in weights.shape):
        raise ValueError(
            f"the kernel is {weights.shape[0]} x {weights.shape[1]} pixels, and the picture {batch.shape[-2]} x "
            f"{batch.shape[-1]}: of a blur so much wider than the picture nothing can be recovered. Crop the kernel, "
            f"or check its width"
        )
    samples, settings = draws_of(settings, batch, layout)
    level = 0.01 if noise is None else noise_of(noise, batch, layout)
    # The camera saw more than it shows: the picture is a part of a larger blurred scene, of which nothing is assumed.
    # Against reflection at the border, that is worth 2 dB on Kodak pictures blurred by 25 x 25 pixels.
    operator = Blur((weights / weights.sum()).float(), boundary="valid")
    operator.cg_iterations = 25  # A proximal step on the way need not be exact: 0.03 dB from 200.
    settings = {**settings, "noise": level}
    result = solved(colour, operator, method, samples, steps=steps, **settings)
    (top, left), (height, width) = (n - 1 - n // 2 for n in weights.shape[-2:]), batch.shape[-2:]
    return layout.restore(back(result[..., top : top + height, left : left + width]), samples=samples)
