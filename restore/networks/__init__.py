"""The denoising networks.

:func:`photo_unet` builds a network for photographs, and :func:`colour_unet` a small one of colours,
:class:`FoldedUNet` both. :class:`RMSUNet` is the network of denoising-diffusion-pytorch, for checkpoints of its
trainer.
"""

from __future__ import annotations

from restore.networks.folded import FoldedUNet, PixelNorm, colour_unet, photo_unet, set_dropout, with_scales
from restore.networks.rms import RMSUNet

__all__ = ["FoldedUNet", "PixelNorm", "RMSUNet", "colour_unet", "photo_unet", "set_dropout", "with_scales"]
