"""How good a restoration is: against the truth, against the measurement, and as a distribution.

Pictures come in any layout that `restore.images.to_batch` takes, white being 1 for floats and 255 for uint8.
Every measure is taken per picture: one number for one picture, `(B,)` for a batch.

>>> import numpy as np
>>> truth = np.full((16, 16), 100, dtype=np.uint8)
>>> round(psnr(truth + np.uint8(5), truth), 2)
34.15
"""

from __future__ import annotations

from restore.metrics.distribution import Calibration, calibration, coverage
from restore.metrics.fidelity import psnr, ssim
from restore.metrics.misfit import data_misfit
from restore.metrics.perceptual import lpips, lpips_available

__all__ = [
    "Calibration",
    "calibration",
    "coverage",
    "data_misfit",
    "lpips",
    "lpips_available",
    "psnr",
    "ssim",
]
