"""The classical tools: what users would pick instead, each at the setting that does best on photographs.

Every tool takes a measurement and gives a picture ``(3, H, W)``; its keyword arguments are its options, and can be set
in a benchmark as ``nlm:h=0.6``. The settings were chosen by mean PSNR on the centres of eight Kodak pictures.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import Blur, Mask
from restore.benchmark.standard import Measurement

Array = np.ndarray[Any, Any]


def nothing(measurement: Measurement) -> Tensor:
    """The measurement itself; a grey one three times."""
    return measurement.y.expand_as(measurement.truth)


def nlm(measurement: Measurement, *, h: float = 0.8, patch_size: int = 5, patch_distance: int = 6) -> Tensor:
    """Non-local means (Buades et al. 2005), by scikit-image, in its original, slower form.

    Args:
        measurement: A noisy picture.
        h: How different patches may be, in standard deviations of the noise.
        patch_size: Side of the patches.
        patch_distance: How far away patches are looked for.
    """
    from skimage.restoration import denoise_nl_means

    sigma = measurement.task.noise
    return _picture(
        denoise_nl_means(
            _array(measurement.y),
            patch_size,
            patch_distance,
            h * sigma,
            sigma=sigma,
            fast_mode=False,
            channel_axis=-1,
        )
    )


def tv(measurement: Measurement, *, weight: float = 0.7) -> Tensor:
    """Total variation (Chambolle 2004), by scikit-image.

    Args:
        measurement: A noisy picture.
        weight: How strongly it smooths, in standard deviations of the noise.
    """
    from skimage.restoration import denoise_tv_chambolle

    return _picture(
        denoise_tv_chambolle(_array(measurement.y), weight * measurement.task.noise, channel_axis=-1)
    )


def bm3d(measurement: Measurement) -> Tensor:
    """Block matching and 3D filtering for colour (Dabov et al. 2007), by its authors' package ``bm3d``."""
    from bm3d import bm3d_rgb

    return _picture(bm3d_rgb(_array(measurement.y).astype(np.float64), measurement.task.noise))


def biharmonic(measurement: Measurement) -> Tensor:
    """The smoothest surface through the measured pixels (Damelin and Hoang 2018), by scikit-image."""
    from skimage.restoration import inpaint_biharmonic

    return _picture(inpaint_biharmonic(_array(measurement.y), _hole(measurement), channel_axis=-1))


def telea(measurement: Measurement, *, radius: float = 3) -> Tensor:
    """Fast marching (Telea 2004), by OpenCV, on 8 bits.

    Args:
        measurement: A picture with holes.
        radius: How far around a pixel it looks.
    """
    import cv2

    pixels = np.rint(255 * _array(measurement.y)).astype(np.uint8)
    hole = 255 * _hole(measurement).astype(np.uint8)
    return _picture(cv2.inpaint(pixels, hole, radius, cv2.INPAINT_TELEA) / 255)


def lanczos(measurement: Measurement) -> Tensor:
    """Lanczos interpolation, by Pillow."""
    return _enlarged(measurement, "LANCZOS")


def bicubic(measurement: Measurement) -> Tensor:
    """Bicubic interpolation, by Pillow."""
    return _enlarged(measurement, "BICUBIC")


def wiener(measurement: Measurement, *, balance: float | None = None) -> Tensor:
    """Wiener's filter with a Laplacian as the picture's spectrum, by scikit-image.

    Args:
        measurement: A blurred picture.
        balance: How strongly it smooths: by default 100 times the noise's variance.
    """
    from skimage.restoration import wiener as filtered

    assert isinstance(measurement.operator, Blur)  # No other task names it.
    kernel = measurement.operator.kernel.squeeze().numpy()
    smoothing = 100 * measurement.task.noise**2 if balance is None else balance
    channels = [filtered(channel, kernel, smoothing, clip=True) for channel in measurement.y.numpy()]
    return torch.from_numpy(np.stack(channels)).float()


CLASSICAL: dict[str, Callable[..., Tensor]] = {
    tool.__name__: tool for tool in (nothing, bm3d, nlm, tv, biharmonic, telea, lanczos, bicubic, wiener)
}


def installed(tool: str) -> bool:
    """Whether a classical tool can be run; all but BM3D come with this package.

    Example:
        >>> installed("telea")
        True
    """
    return tool != "bm3d" or importlib.util.find_spec("bm3d") is not None


def _array(x: Tensor) -> Array:
    """``(C, H, W)`` as the ecosystem has it, ``(H, W, C)``."""
    return x.permute(1, 2, 0).numpy()


def _picture(x: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1))).float()


def _hole(measurement: Measurement) -> Array:
    assert isinstance(measurement.operator, Mask)  # No other task names these tools.
    return measurement.operator.mask.squeeze().numpy() == 0


def _enlarged(measurement: Measurement, filter_: str) -> Tensor:
    from PIL import Image

    height, width = measurement.truth.shape[-2:]
    channels = [
        np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling[filter_]))
        for channel in measurement.y.numpy()
    ]
    return torch.from_numpy(np.stack(channels))
