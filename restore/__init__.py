"""restore: repair pictures with diffusion models.

>>> import restore
>>> [method.name for method in restore.methods()][:4]
['sdedit', 'repaint', 'mcg', 'dps']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from operators import (
    JPEG,
    Blur,
    Downsample,
    FromCallable,
    GaussianNoise,
    Grayscale,
    Identity,
    LinearOperator,
    Mask,
    Matrix,
    Operator,
    PoissonNoise,
)
from restore import methods
from restore.checkpoint import load_prior
from restore.prior import Prior
from restore.schedule import Schedule
from restore.solve import sample, solve
from restore.tasks import colorize, deblur, inpaint, super_resolve

if TYPE_CHECKING:
    from restore.training import train

__version__ = "0.1.0"

__all__ = [
    "JPEG",
    "Blur",
    "Downsample",
    "FromCallable",
    "GaussianNoise",
    "Grayscale",
    "Identity",
    "LinearOperator",
    "Mask",
    "Matrix",
    "Operator",
    "PoissonNoise",
    "Prior",
    "Schedule",
    "colorize",
    "deblur",
    "inpaint",
    "load_prior",
    "methods",
    "sample",
    "solve",
    "super_resolve",
    "train",
]

# What only some users need is imported when it is first asked for.
_LAZY = {"train": "restore.training"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'restore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
