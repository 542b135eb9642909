"""TMPD: *Tweedie Moment Projected Diffusions for Inverse Problems*, 2023, arXiv:2310.06721."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from restore.methods.guided import Guided, View, diagonal_log_density


@dataclass(kw_only=True)
class TMPD(Guided):
    """Tweedie's covariance as a variance for each number of the measurement: the row sums of ``A C A^T``.

    ``p(y | x_t) = N(A x_hat, diag(A C A^T 1) + s_y^2 I)``, ``C = (sigma_t^2 / alpha_t) J^T``. Two backward passes
    through the network a step: one for the variances, one for the correction.

    Args:
        clip: See :class:`~restore.methods.guided.Guided`.

    Example:
        >>> TMPD()
        TMPD(clip=True)
    """

    name: ClassVar[str] = "tmpd"
    reference: ClassVar[str] = (
        "Tweedie Moment Projected Diffusions for Inverse Problems, 2023, arXiv:2310.06721"
    )
    needs: ClassVar[tuple[str, ...]] = ("linear",)
    default_steps: ClassVar[int] = 100

    def direction(self, view: View) -> Tensor:
        """``A^T (r / variance)``."""
        return view.adjoint(view.residual / view.row_variance)

    def log_density(self, view: View) -> Tensor:
        """``log N(y; A x_hat, diag)`` of every image."""
        return diagonal_log_density(view.residual, view.row_variance)
