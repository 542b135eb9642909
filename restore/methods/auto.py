"""``method="auto"``: a method for a problem, from what the operator offers, the noise and a budget of network calls.

The rules follow the tables of :doc:`/guide/benchmark` and :doc:`/guide/posterior`; the guide explains each.
"""

from __future__ import annotations

from operators import LinearOperator, Mask, Operator
from restore.methods.base import Method
from restore.methods.diffpir import DiffPIR
from restore.methods.dps import DPS
from restore.methods.mmps import MMPS

#: Below so many calls, holes are filled better with gradients through the network than without.
FEW_CALLS = 30
#: Measurements of at most so many numbers leave so much open that the shares of the solutions are what matters.
FEW_NUMBERS = 64


def choose(
    operator: Operator, measured: int, *, gaussian: bool = True, calls: int | None = None
) -> tuple[Method, int]:
    """A method and its number of steps.

    1. An operator that is not linear, or noise that is not Gaussian: DPS, which needs nothing but a gradient.
    2. A measurement of at most 64 numbers: MMPS, whose draws come nearest to the posterior.
    3. A mask with few network calls to spend (below 30): DPS; a call with gradient costs two without.
    4. All else: DiffPIR with all noise fresh, which needs no gradient and is the best at 30 calls and more. It takes
       100 calls for a mask, which still gains from them, 50 for other operators, and 30 where one without a closed
       form makes every step slower.

    Args:
        operator: The operator of the problem.
        measured: How many numbers the measurement of one picture has.
        gaussian: Whether its noise is Gaussian, or none.
        calls: How many network calls there may be; by default what the method needs to look good.

    Raises:
        ValueError: If ``calls`` is below 1.

    Example:
        >>> from operators import Grayscale
        >>> choose(Grayscale(), 64 * 64)
        (DiffPIR(lam=1.75, zeta=1.0, clip=True), 50)
        >>> choose(Grayscale(), 64 * 64, calls=20)[1]
        20
    """
    if calls is not None and calls < 1:
        raise ValueError(f"calls must be at least 1, not {calls}")
    if not isinstance(operator, LinearOperator) or not gaussian:
        return DPS(), calls or DPS.default_steps
    if measured <= FEW_NUMBERS:
        return MMPS(), calls or MMPS.default_steps
    if isinstance(operator, Mask) and calls is not None and calls < FEW_CALLS:
        return DPS(), calls
    usual = 100 if isinstance(operator, Mask) else 50 if operator.has_svd else 30
    return DiffPIR(zeta=1.0), calls or usual
