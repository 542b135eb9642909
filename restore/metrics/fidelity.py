"""Against the truth, pixel by pixel: PSNR and SSIM."""

from __future__ import annotations

from typing import Any

import numpy as np

from restore.metrics.pairs import answer, mean_square, pair, size_of

_SSIM_WINDOW = 11  # a Gaussian of sigma 1.5, cut at 3.5 sigma


def psnr(image: Any, reference: Any, data_range: float | None = None) -> Any:
    """Peak signal-to-noise ratio in dB, `10 log10(data_range^2 / MSE)`, the mean over pixels and channels.

    Args:
        image: One picture or a batch.
        reference: The true picture, of the same shape; one may serve a whole batch.
        data_range: Distance from black to white in units of the reference: 1 for floats, 255 for uint8
            unless given.

    Returns:
        A float, or `(B,)` (a float32 tensor for a tensor, else an array). Infinite for identical pictures.

    Raises:
        ValueError: If shapes differ, `data_range` is not positive, or a picture is not one (see `to_batch`).

    >>> round(psnr(np.full((8, 8), 0.5), np.full((8, 8), 0.6)), 2)
    20.0
    """
    # Data in units of their own say so by their range.
    x, truth, fmt, truth_fmt = pair(image, reference, check_range=data_range is None)
    white = 1.0 if data_range is None else data_range / truth_fmt.scale
    if not white > 0:
        raise ValueError(f"data_range is {data_range}; expected a positive number.")
    error = mean_square(x - truth)
    with np.errstate(divide="ignore"):
        return answer(10.0 * np.log10(white**2 / error), fmt)


def ssim(image: Any, reference: Any) -> Any:
    """Structural similarity of Wang et al. (2004): Gaussian window of sigma 1.5, mean over channels.

    The constants are the paper's (K1 = 0.01, K2 = 0.03, biased covariances), by scikit-image. 1 is identical.

    Args:
        image: One picture or a batch, sides of at least 11.
        reference: The true picture, of the same shape; one may serve a whole batch.

    Returns:
        A float, or `(B,)` (a float32 tensor for a tensor, else an array).

    Raises:
        ValueError: If shapes differ or a side is shorter than the window.

    >>> picture = np.random.default_rng(0).random((16, 16, 3))
    >>> ssim(picture, picture)
    1.0
    """
    from skimage.metrics import structural_similarity

    x, truth, fmt, _ = pair(image, reference)
    if min(x.shape[-2:]) < _SSIM_WINDOW:
        raise ValueError(
            f"the pictures are {size_of(x)}; SSIM looks through a window of {_SSIM_WINDOW} pixels a side: "
            "compare larger pictures, or use psnr."
        )
    values = [
        structural_similarity(
            a.double().cpu().numpy(),
            b.double().cpu().numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(x, truth.expand_as(x), strict=True)
    ]
    return answer(np.array(values), fmt)
