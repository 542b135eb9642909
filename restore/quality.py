"""Where a prior is used on what it was not trained for, it says so."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

#: How far the sides of a picture may be from those of the training, as a factor.
TOLERANCE = 1.5


class QualityWarning(UserWarning):
    """Results will be worse than they could be.

    The picture's size or kind is not what the prior was trained on, or the particles of TDS are of no use.
    """


class _Trained(Protocol):
    name: str
    config: dict[str, Any]
    schedule: Any
    tile: int
    said: set[str]

    @property
    def trained_size(self) -> tuple[int, int] | None: ...


def judge(prior: _Trained, height: int, width: int, *, steps: int | None = None) -> None:
    """Warns where results are expected to be worse than the prior's best; what was said once is not said again.

    :func:`restore.solve` and :func:`restore.sample` ask it, once for each picture, before the first network call.

    Args:
        prior: A network's prior. What it was trained on is in its ``config["domain"]``, e.g. ``"faces"``, and its
            ``trained_size``.
        height: Height of the picture.
        width: Its width.
        steps: The number of steps that was asked for.

    Example:
        >>> import restore
        >>> faces = restore.Prior(restore.networks.photo_unet((8, 8)), restore.Schedule.linear())
        >>> faces.config["domain"] = "faces"
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     judge(faces, 64, 64)
        ...     judge(faces, 64, 64)
        >>> [str(warning.message)[:36] for warning in caught]
        ["the prior 'prior' knows faces only: "]
    """
    messages, domain, trained = [], prior.config.get("domain"), prior.trained_size
    if domain not in (None, "photographs"):  # Those are of everything.
        messages.append(f"knows {domain} only: what it adds to other pictures will look like {domain}")
    if trained is not None and not all(
        1 / TOLERANCE <= side / own <= TOLERANCE for side, own in zip((height, width), trained, strict=True)
    ):
        fate = (
            f"it sees tiles of {prior.tile} x {prior.tile}, each as if it were a whole picture"
            if max(height, width) > prior.tile
            else "it sees the whole at a size it does not know"
        )
        messages.append(
            f"was trained on pictures of {trained[0]} x {trained[1]}, this one is {height} x {width}: {fate}. Results "
            f"may be worse than at its own size"
        )
    if steps is not None and steps > prior.schedule.steps:
        messages.append(
            f"was trained at {prior.schedule.steps} levels of noise, and steps={steps} asks for more: that takes "
            f"longer and gains nothing. Take at most {prior.schedule.steps}"
        )
    for message in messages:
        if message not in prior.said:
            prior.said.add(message)
            warnings.warn(f"the prior {prior.name!r} {message}", QualityWarning, stacklevel=3)
