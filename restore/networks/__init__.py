"""The denoising networks.

:func:`photo_unet` builds the network of the prior in the package, a :class:`FoldedUNet`. :class:`RMSUNet` is the
network of denoising-diffusion-pytorch, for checkpoints of its trainer.
"""

from __future__ import annotations

from restore.networks.folded import FoldedUNet, PixelNorm, photo_unet
from restore.networks.rms import RMSUNet

__all__ = ["FoldedUNet", "PixelNorm", "RMSUNet", "photo_unet"]
