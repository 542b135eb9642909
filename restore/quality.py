"""Where a prior is used on what it was not trained for, it says so, once."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

from torch import nn

#: How far the sides of a picture may be from those of the training, as a factor.
TOLERANCE = 1.5


class QualityWarning(UserWarning):
    """Results will be worse than the prior's best: the picture's size or kind is not what it was trained on."""


class _Trained(Protocol):
    name: str
    network: nn.Module
    config: dict[str, Any]
    tile: int
    _said: set[str]


def judge(prior: _Trained, height: int, width: int) -> None:
    """Warns where results are expected to be worse than the prior's best: once for each reason.

    Args:
        prior: A network's prior. What it was trained on is in its ``config``: ``domain``, e.g. ``"faces"``, and
            ``trained_size``, a side or ``(height, width)`` in pixels.
        height: Height of the picture that it is given.
        width: Its width.
    """
    domain, size = prior.config.get("domain"), prior.config.get("trained_size")
    if domain is not None:
        _say(prior, "domain", f"knows {domain} only: what it adds to other pictures will look like {domain}")
    if size is None or "size" in prior._said:
        return
    trained = (size, size) if isinstance(size, int) else tuple(size)
    seen = tuple(min(side, prior.tile) for side in (height, width))  # Larger pictures go through it in tiles.
    fits = all(1 / TOLERANCE <= side / own <= TOLERANCE for side, own in zip(seen, trained, strict=True))
    # A network of convolutions does the same thing everywhere; attention compares as many pixels as it was trained on.
    if not fits and any(hasattr(m, "to_q") or hasattr(m, "to_qkv") for m in prior.network.modules()):
        _say(
            prior,
            "size",
            f"was trained at {trained[0]} x {trained[1]} pixels and has attention, which sees {seen[0]} x {seen[1]} "
            f"here: expect worse results than at its own size",
        )


def _say(prior: _Trained, reason: str, message: str) -> None:
    if reason not in prior._said:
        prior._said.add(reason)
        warnings.warn(f"the prior {prior.name!r} {message}", QualityWarning, stacklevel=5)
