"""The sampling loop, and what a callback sees of it.

Every method of the package runs through :func:`sampling_loop`; what differs are the method's hooks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from restore.methods.base import Method
from restore.prior import BasePrior


@dataclass(frozen=True)
class State:
    """What a callback is shown after every downward step.

    Attributes:
        step: Number of the step in this part of the batch, from 1.
        steps: How many there are.
        t: Time that the step started from.
        s: Time that it went to.
        x: The state at ``s`` in the prior's range, ``(B, C, H, W)``; of TDS, all particles, picture by picture.
        x_hat: The estimate of the clean image, in [0, 1] up to the estimate's error, in the shape of ``x``.
        draws: Positions of these pictures in the flat list of all draws (draw by draw, image by image).
        details: What the method tells beside it, such as TDS's ``"effective_sample_size"``, ``(B,)`` each.
    """

    step: int
    steps: int
    t: float
    s: float
    x: Tensor
    x_hat: Tensor
    draws: Sequence[int]
    details: dict[str, Tensor]


Callback = Callable[[State], object]


def sampling_loop(
    method: Method,
    advance: Callable[[], object],
    report: Callable[[Method, int, float, float, Tensor], object],
) -> Tensor:
    """The sampling loop: every method of the package runs through here.

    Args:
        method: A method that is bound to its problem.
        advance: Called after every downward step.
        report: Called after every downward step with the method, the step's number, ``t``, ``s`` and the state.

    Returns:
        The result in the prior's range, ``(B, C, H, W)``.

    Raises:
        FloatingPointError: If the state stops being finite.
    """
    times = method.times()
    number, total = 0, downward(times)
    with torch.no_grad():
        x = method.start(times[0])
        for t, s in pairwise(times):
            if s > t:
                x = method.step_up(x, t, s)
                continue
            x = method.step(x, t, s)
            number += 1
            # A sum is finite only if all its terms are: one number to wait for.
            if not math.isfinite(float(x.sum())):
                raise FloatingPointError(
                    f"the state is not finite after step {number} of {total} (t = {t:.3f}) of {method.name}: "
                    f"take more steps or a weaker guidance"
                )
            advance()
            report(method, number, t, s, x)
        return method.finish(x)


def downward(times: Sequence[float]) -> int:
    """How many of a schedule's steps go down; only these count as steps."""
    return sum(s < t for t, s in pairwise(times))


def reporter(
    callback: Callback | None, prior: BasePrior, steps: int, draws: Sequence[int]
) -> Callable[[Method, int, float, float, Tensor], object]:
    """What the loop calls after a step, to show the user's callback a :class:`State`."""
    low, high = prior.value_range

    def report(method: Method, number: int, t: float, s: float, x: Tensor) -> None:
        if callback is not None:
            callback(
                State(number, steps, t, s, x, (method.x_hat - low) / (high - low), draws, method.report())
            )

    return report


def progress_bar(total: int, name: str, shown: bool) -> Any:
    """The bar; one that is not shown costs nothing."""
    from tqdm import tqdm

    return tqdm(total=total, desc=name, unit="step", disable=not shown, leave=False)
