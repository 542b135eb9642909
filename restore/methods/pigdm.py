"""PiGDM: *Pseudoinverse-Guided Diffusion Models for Inverse Problems*, 2023 (ICLR, openreview 9_gsMA8MRKQ)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from restore.methods.guided import Guided, View, inner


@dataclass(kw_only=True)
class PiGDM(Guided):
    """The image given the state is taken as Gaussian around the estimate, with one variance for all pixels.

    ``p(y | x_t) = N(A x_hat, q^2 A A^T + s_y^2 I)``, ``q^2 = sigma_t^2 / (alpha_t^2 + sigma_t^2)`` for data of unit
    variance, so that with Tweedie's formula

    ``E[x_0 | x_t, y] = x_hat + (sigma_t^2 / alpha_t) J^T A^T (q^2 A A^T + s_y^2 I)^{-1} (y - A x_hat)``

    where ``J`` is the derivative of ``x_hat`` by ``x_t``. Any sampler goes on from this estimate.

    Args:
        variance: Variance of a pixel of the data, in the prior's units; by default the prior's ``pixel_variance``,
            which is the paper's 1 for images in [-1, 1].
        clip: See :class:`~restore.methods.guided.Guided`.

    Raises:
        ValueError: If the variance is not above 0.

    Example:
        >>> PiGDM()
        PiGDM(clip=True, variance=None)
    """

    name: ClassVar[str] = "pigdm"
    reference: ClassVar[str] = (
        "Pseudoinverse-Guided Diffusion Models for Inverse Problems, 2023, ICLR (openreview 9_gsMA8MRKQ)"
    )
    needs: ClassVar[tuple[str, ...]] = ("linear",)
    default_steps: ClassVar[int] = 100

    variance: float | None = None

    def __post_init__(self) -> None:
        if self.variance is not None and not self.variance > 0:
            raise ValueError(f"a variance is above 0, not {self.variance}")

    def direction(self, view: View) -> Tensor:
        """``A^T (q^2 A A^T + s_y^2)^{-1} r``, which is ``A^T (A A^T + (s_y / q)^2)^{-1} r / q^2``."""
        q2 = self.spread(view)
        return view.linear.ridge(view.residual, self.problem.noise**2 / q2) / q2

    def log_density(self, view: View) -> Tensor:
        """``log N(y; A x_hat, q^2 A A^T + s_y^2)`` of every image; its determinant is that of all states."""
        q2 = self.spread(view)
        solved = view.linear.gram_solve(view.residual, self.problem.noise**2 / q2) / q2
        return -0.5 * inner(view.residual, solved)

    def spread(self, view: View) -> float:
        """``q^2``, the variance of the image given the state, for independent pixels."""
        variance = self.prior.pixel_variance if self.variance is None else self.variance
        return variance * view.sigma**2 / (view.alpha**2 * variance + view.sigma**2)
