"""``method="auto"``: a method for a problem, from what the operator offers, the noise and a budget of network calls.

The rules follow the tables of :doc:`/guide/benchmark` and :doc:`/guide/posterior`; the guide explains each.
"""

from __future__ import annotations

import torch.nn.functional as F

from operators import Blur, Downsample, LinearOperator, Mask, Operator
from restore.methods.base import Method
from restore.methods.diffpir import DiffPIR
from restore.methods.dpir import DPIR
from restore.methods.dps import DPS
from restore.methods.guided import FEW_NUMBERS
from restore.methods.mmps import MMPS

#: Below so many calls, draws fill holes better with gradients through the network than without.
FEW_CALLS = 30
#: A hole is wide if one of its pixels has nothing measured within so many pixels to all sides.
WIDE = 8


def choose(
    operator: Operator, measured: int, *, gaussian: bool = True, calls: int | None = None, draws: bool = False
) -> tuple[Method, int]:
    """A method and its number of steps.

    1. An operator that is not linear, or noise that is not Gaussian: DPS, which needs nothing but a gradient.
    2. A measurement of at most 64 numbers: MMPS, whose draws come nearest to the posterior.
    3. A mask with a wide hole (a pixel with nothing measured within 8 pixels to all sides): DPS, for what fills it
       has to be invented, and its draws have texture at little loss.
    4. One picture from a mask with narrow holes, a blur or a reduction: DPIR, which comes nearest to the truth, in the
       fewest calls, and has no draws. It takes 40 calls for a mask, 20 for the others.
    5. All else: DiffPIR with all noise fresh, of those that draw without a gradient the best for masks, and near the
       best for others. It takes 100 calls for a mask, which still gains from them (and gives way to DPS below 30), 50
       for other operators, and 30 where one without a closed form makes every step slower.

    Of a mask for several pictures, the widest hole decides; ``solve`` asks for every picture by itself.

    Args:
        operator: The operator of the problem.
        measured: How many numbers the measurement of one picture has; the holes of a mask are taken off.
        gaussian: Whether its noise is Gaussian, or none.
        calls: How many network calls there may be; by default what the method needs to look good.
        draws: Whether draws from the posterior are wanted, rather than one picture.

    Raises:
        ValueError: If ``calls`` is below 1.

    Example:
        >>> from operators import Grayscale
        >>> choose(Downsample(4), 64 * 64)
        (DPIR(lam=0.23, first=0.35, last=0.005, turns=None), 20)
        >>> choose(Downsample(4), 64 * 64, draws=True)
        (DiffPIR(lam=1.75, zeta=1.0, clip=True), 50)
        >>> choose(Grayscale(), 64 * 64, calls=20)[1]
        20
    """
    if calls is not None and calls < 1:
        raise ValueError(f"calls must be at least 1, not {calls}")
    if not isinstance(operator, LinearOperator) or not gaussian:
        return DPS(), calls or DPS.default_steps
    if isinstance(operator, Mask):
        measured = round(measured * float((operator.mask != 0).float().flatten(1).mean(1).max()))
    if measured <= FEW_NUMBERS:
        return MMPS(), calls or MMPS.default_steps
    if isinstance(operator, Mask):
        few = draws and calls is not None and calls < FEW_CALLS
        if few or has_wide_hole(operator):
            return DPS(), calls or DPS.default_steps
    if not draws and isinstance(operator, (Mask, Blur, Downsample)):
        return DPIR(), calls or (40 if isinstance(operator, Mask) else 20)
    usual = 100 if isinstance(operator, Mask) else 50 if operator.has_svd else 30
    return DiffPIR(zeta=1.0), calls or usual


def has_wide_hole(operator: Mask) -> bool:
    """Whether some pixel has nothing measured within 8 pixels to all sides.

    Example:
        >>> import torch
        >>> from operators import box_mask, random_mask
        >>> has_wide_hole(Mask(box_mask(64, 20))), has_wide_hole(Mask(random_mask(64, 0.3, seed=0)))
        (True, False)
    """
    measured = (operator.mask != 0).float()
    return bool((F.max_pool2d(measured, 2 * WIDE + 1, stride=1, padding=WIDE) == 0).any())
