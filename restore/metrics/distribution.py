"""As a distribution: whether the truth lies among the draws as often as it should."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restore.images import to_batch
from restore.images.checks import check_units


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Share of true pixels inside the central intervals of the draws, level by level.

    Attributes:
        levels: `(L,)` nominal shares.
        coverage: `(L,)` shares found, or `(B, L)` for a batch.
        draws: Number of draws.
    """

    levels: np.ndarray
    coverage: np.ndarray
    draws: int

    @property
    def error(self) -> Any:
        """Mean of `|coverage - levels|`: a float, or `(B,)`. 0 is calibrated."""
        error = np.abs(self.coverage - self.levels).mean(axis=-1)
        return float(error) if error.ndim == 0 else error

    @property
    def bias(self) -> Any:
        """Mean of `coverage - levels`: below 0 where draws are too alike (overconfident)."""
        bias = (self.coverage - self.levels).mean(axis=-1)
        return float(bias) if bias.ndim == 0 else bias


def coverage(samples: Any, truth: Any, level: float = 0.9, *, where: Any = None) -> Any:
    """Share of true pixels that lie inside the central interval of the draws, which should be `level`.

    Below `level` the draws are too much alike (overconfident); above it they spread too widely.

    How many draws there are is allowed for. A true value that is exchangeable with `n` draws lies between the
    `j`-th lowest and the `j`-th highest, ends included, with probability `1 - 2 j / (n + 1)`; the shares
    found at these levels are joined by straight lines. So the expected share equals `level` for any number of
    draws and any distribution, where the usual quantiles of few draws would look overconfident.

    Args:
        samples: The draws, one more axis in front than `truth`: what `solve(..., samples=n)` returns. A list
            of pictures will do.
        truth: The true picture, or a batch.
        level: Nominal share in (0, 1), at most `(n - 1) / (n + 1)`: 19 draws for 0.9, 39 for 0.95.
        where: Boolean picture of the pixels to count (`(H, W)`, or as large as the truth), such as the
            missing ones. Pixels that the measurement holds fixed equal in all draws count as inside.

    Returns:
        A float, or an array `(B,)` for a batch.

    Raises:
        ValueError: If there are too few draws for the level, or shapes differ.

    >>> rng = np.random.default_rng(0)
    >>> draws, truth = rng.normal(size=(19, 64, 64)), rng.normal(size=(64, 64))
    >>> round(coverage(draws, truth, 0.9), 2), round(coverage(draws / 2, truth, 0.9), 2)
    (0.9, 0.63)
    """
    share = calibration(samples, truth, [level], where=where).coverage[..., 0]
    return float(share) if share.ndim == 0 else share


def calibration(
    samples: Any, truth: Any, levels: Sequence[float] | np.ndarray | None = None, *, where: Any = None
) -> Calibration:
    """Coverage at several levels: a calibration curve, on the diagonal for draws from the true posterior.

    Args:
        samples: The draws, one more axis in front than `truth`.
        truth: The true picture, or a batch.
        levels: Nominal shares. By default 0.1 to 0.9, as far as the number of draws reaches.
        where: Boolean picture of the pixels to count.

    Returns:
        The curve. See `coverage` for how it is computed.

    Raises:
        ValueError: If there are too few draws for a level, shapes differ, or no pixel is counted.

    >>> rng = np.random.default_rng(0)
    >>> curve = calibration(rng.normal(size=(9, 64, 64)), rng.normal(size=(64, 64)), levels=[0.2, 0.8])
    >>> curve.coverage.round(1)
    array([0.2, 0.8])
    """
    x, fmt = to_batch(truth, check_range=False, name="truth")
    counted = _counted(where, tuple(x.shape))
    depth, n = _depth(samples, x.cpu(), integers=fmt.scale > 1)
    largest = (n - 1) / (n + 1)
    if levels is None:
        nominal = np.arange(1, 10) / 10
        nominal = nominal[nominal <= largest + 1e-9]
        if not len(nominal):
            raise ValueError(f"{n} draw(s) have no interval that can be judged; draw at least 2, better 19.")
    else:
        nominal = np.asarray(levels, dtype=np.float64).reshape(-1)
    for level in nominal:
        if not 0 < level < 1:
            raise ValueError(f"level is {level}; expected a share between 0 and 1, such as 0.9.")
        if level > largest + 1e-9:
            needed = int(np.ceil((1 + level) / (1 - level) - 1e-9))
            raise ValueError(
                f"{n} draws cannot tell an interval of {level:g}: from the lowest to the highest they span "
                f"{largest:.3g}. Take at least {needed} draws, or a level up to {largest:.3g}."
            )

    rank = np.arange(n // 2, 0, -1)  # from the narrowest interval to the widest
    exact = np.concatenate([[0.0], 1.0 - 2.0 * rank / (n + 1)])
    shares = np.empty((x.shape[0], len(nominal)))
    for b in range(x.shape[0]):
        inside = [0.0, *((depth[b][counted[b]] >= j).mean() for j in rank)]
        shares[b] = np.interp(nominal, exact, inside)
    return Calibration(nominal, shares if fmt.batched else shares[0], n)


def _depth(samples: Any, truth: Tensor, integers: bool) -> tuple[np.ndarray, int]:
    """How deep the truth `(B, C, H, W)` lies among the draws, and the number of draws.

    The depth is the lesser of two counts: draws not above the truth, and draws not below it. It is at least
    `j` where the truth lies between the `j`-th lowest and the `j`-th highest draw.

    Beside integers, whose white is known, floats are of pictures in [0, 1]; floats beside floats may be anything.
    """
    if not isinstance(samples, (np.ndarray, Tensor, list, tuple)):
        raise TypeError(
            f"samples is a {type(samples).__name__}; expected draws along a first axis, or a list."
        )
    not_above = torch.zeros(truth.shape, dtype=torch.int32)
    not_below = torch.zeros(truth.shape, dtype=torch.int32)
    for i, sample in enumerate(samples):
        draw, fmt = to_batch(sample, check_range=integers, name=f"samples[{i}]")
        check_units(truth, "truth", check_range=fmt.scale > 1 and not integers)
        draw = draw.cpu()
        if draw.shape != truth.shape:
            raise ValueError(
                f"samples[{i}] is {tuple(draw.shape)} and the truth {tuple(truth.shape)} as (B, C, H, W); "
                "expected the same. The draws lie along the first axis of samples: (n, H, W, C) in numpy, "
                "(n, C, H, W) in torch."
            )
        not_above += draw <= truth
        not_below += draw >= truth
    if len(samples) == 0:
        raise ValueError("samples is empty; expected at least 2 draws.")
    return torch.minimum(not_above, not_below).numpy(), len(samples)


def _counted(where: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The pixels to count, `(B, C, H, W)` booleans."""
    if where is None:
        return np.ones(shape, dtype=bool)
    if isinstance(where, (np.ndarray, Tensor)) and where.dtype not in (np.bool_, torch.bool):
        raise ValueError(f"where has type {where.dtype}; expected booleans, True for pixels that count.")
    chosen = to_batch(where, name="where")[0].cpu().numpy() > 0.5
    try:
        chosen = np.broadcast_to(chosen, shape)
    except ValueError:
        raise ValueError(
            f"where is {chosen.shape} and the truth {shape} as (B, C, H, W); expected the same, or (H, W)."
        ) from None
    if not chosen.any(axis=(1, 2, 3)).all():
        raise ValueError("where leaves no pixel to count in at least one picture.")
    return chosen
