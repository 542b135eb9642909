"""The physics of imaging: what turns an image into a measurement, and what can be said about the way back.

An operator acts on floating images ``(B, C, H, W)``. A linear one has ``forward``, ``adjoint``,
``gram_solve``, ``svd``, ``pinv`` and ``prox``; operators compose with ``@``. Masks, kernels and noise levels
may differ per image. This package knows nothing of priors or methods: it never imports ``restore``.

>>> import torch
>>> A = Downsample(2) @ Blur(gaussian_kernel(1.0), boundary="reflect")
>>> y = A(torch.rand(1, 3, 32, 24))
>>> y.shape, A.pinv(y).shape
(torch.Size([1, 3, 16, 12]), torch.Size([1, 3, 32, 24]))
"""

from operators.base import (
    SVD,
    Composition,
    Identity,
    LinearComposition,
    LinearOperator,
    Operator,
    dot_test,
    linearity_test,
)
from operators.blur import Blur
from operators.downsample import Downsample, resize_matrix
from operators.grayscale import Grayscale
from operators.kernels import disk_kernel, gaussian_kernel, motion_kernel
from operators.krylov import ConvergenceWarning, conjugate_gradients, damped_least_squares
from operators.mask import Mask, box_mask, freeform_mask, random_mask
from operators.mask_pictures import mask_from_image
from operators.matrix import Matrix
from operators.noise import GaussianNoise, PoissonNoise
from operators.nonlinear import JPEG, Clip, FromCallable, Gamma, PhaseRetrieval, Saturation

__all__ = [
    "JPEG",
    "SVD",
    "Blur",
    "Clip",
    "Composition",
    "ConvergenceWarning",
    "Downsample",
    "FromCallable",
    "Gamma",
    "GaussianNoise",
    "Grayscale",
    "Identity",
    "LinearComposition",
    "LinearOperator",
    "Mask",
    "Matrix",
    "Operator",
    "PhaseRetrieval",
    "PoissonNoise",
    "Saturation",
    "box_mask",
    "conjugate_gradients",
    "damped_least_squares",
    "disk_kernel",
    "dot_test",
    "freeform_mask",
    "gaussian_kernel",
    "linearity_test",
    "mask_from_image",
    "motion_kernel",
    "random_mask",
    "resize_matrix",
]
