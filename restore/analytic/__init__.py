"""Priors and posteriors that are known in closed form, to test methods against.

A Gaussian prior, or a mixture of Gaussians, has an exact denoiser, and under a linear operator with Gaussian noise an
exact posterior. What a method makes of them shows how near it comes to the posterior, to as many digits as one cares
to draw samples. A Gaussian tests a method's formulas; a mixture has several modes, of which a method may miss some.
"""

from restore.analytic.gaussian import Gaussian, GaussianPrior
from restore.analytic.matrices import operator_matrix, smooth_covariance
from restore.analytic.mixture import GaussianMixture, GaussianMixturePrior

__all__ = [
    "Gaussian",
    "GaussianMixture",
    "GaussianMixturePrior",
    "GaussianPrior",
    "operator_matrix",
    "smooth_covariance",
]
