"""Bayes' rule for Gaussians under a linear measurement, in the singular basis of the measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Measured:
    """Components of one covariance ``R R^T``, as ``y = A x + noise eps`` sees them: ``A R = U S W^T``.

    In these coordinates ``x = m + R W u`` with standard normal ``u``, and the measurement is ``S u + noise eps``: every
    number by itself.

    Attributes:
        which: Which components of the mixture (or of the group) they are, ``(k,)``.
        directions: ``R W``, ``(n, n)``.
        strengths: The diagonal of ``S``, ``(m,)`` with ``m <= n``.
        basis: ``U``, ``(m, m)``.
    """

    which: Tensor
    directions: Tensor
    strengths: Tensor
    basis: Tensor

    def condition(self, residual: Tensor, noise: float, floor: float) -> tuple[Tensor, Tensor, Tensor]:
        """What a measurement says of these components.

        Args:
            residual: ``y - A m_k``, ``(k, m)``.
            noise: Standard deviation of the noise.
            floor: A variance of the measurement below it is rounding: its direction is taken for not measured.

        Returns:
            What is added to the means ``(k, n)``, the posterior covariance ``(n, n)``, and the logarithm of the
            evidence ``log p(y | k)`` ``(k,)``.
        """
        variances = self.strengths**2 + noise**2
        seen, s = variances > floor, variances.clamp(min=floor)
        coordinates = residual @ self.basis
        evidence = -0.5 * (coordinates**2 / s + torch.log(2 * math.pi * s)).sum(1)
        shift = (coordinates * torch.where(seen, self.strengths / s, 0)) @ self.directions[:, : len(s)].T
        # As a square, no rounding can make the covariance negative; without noise, what is measured has none.
        left = torch.ones(len(self.directions), dtype=torch.float64)
        left[: len(s)] = torch.where(seen, noise / s.sqrt(), 1)
        root = self.directions * left
        return shift, root @ root.T, evidence
