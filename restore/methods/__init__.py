"""The methods: how a measurement guides the sampling.

Called as a function, this module lists them: ``restore.methods()``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

from restore.methods.auto import choose
from restore.methods.base import Method, Problem
from restore.methods.daps import DAPS
from restore.methods.ddnm import DDNM
from restore.methods.ddrm import DDRM
from restore.methods.diffpir import DiffPIR
from restore.methods.dpir import DPIR
from restore.methods.dps import DPS
from restore.methods.mcg import MCG
from restore.methods.mmps import MMPS
from restore.methods.pigdm import PiGDM
from restore.methods.red_diff import REDDiff
from restore.methods.repaint import RePaint
from restore.methods.sdedit import SDEdit
from restore.methods.tds import TDS
from restore.methods.tmpd import TMPD

REGISTRY: dict[str, type[Method]] = {
    cls.name: cls
    for cls in (SDEdit, RePaint, MCG, DPS, PiGDM, TMPD, MMPS, TDS, DDNM, DDRM, DiffPIR, DPIR, DAPS, REDDiff)
}

__all__ = [
    "DAPS",
    "DDNM",
    "DDRM",
    "DPIR",
    "DPS",
    "MCG",
    "MMPS",
    "REGISTRY",
    "TDS",
    "TMPD",
    "DiffPIR",
    "Method",
    "MethodInfo",
    "PiGDM",
    "Problem",
    "REDDiff",
    "RePaint",
    "SDEdit",
    "as_method",
    "choose",
    "options_of",
    "table",
]


@dataclass(frozen=True)
class MethodInfo:
    """What one method is.

    Attributes:
        name: What ``solve`` calls it.
        needs: What it needs of the operator and the measurement.
        gradient: Whether every step differentiates through the network.
        steps: Number of steps by default.
        options: Names and default values of its options.
        draws: Whether its results are draws, which differ with the seed.
        paper: Where it is from.
    """

    name: str
    needs: tuple[str, ...]
    gradient: bool
    steps: int
    options: dict[str, Any]
    draws: bool
    paper: str


def table() -> list[MethodInfo]:
    """All methods: names, what each needs, its paper.

    Example:
        >>> [method.name for method in table()][:4]
        ['sdedit', 'repaint', 'mcg', 'dps']
    """
    return [
        MethodInfo(c.name, c.needs, c.gradient, c.default_steps, options_of(c), c.draws, c.reference)
        for c in REGISTRY.values()
    ]


def options_of(method: type[Method]) -> dict[str, Any]:
    """Names and default values of a method's options."""
    return {f.name: f.default for f in fields(method) if f.init}


def as_method(method: str | Method, **options: Any) -> Method:
    """A method from its name and options, or the method itself.

    Args:
        method: A name, or an instance (which has its options already).
        **options: Options of the named method.

    Raises:
        ValueError: If there is no method of that name.
        TypeError: If an option is not known, or options come with an instance.

    Example:
        >>> as_method("dps", zeta=0.3)
        DPS(clip=True, zeta=0.3, quasi_newton=None)
    """
    if isinstance(method, Method):
        if options:
            raise TypeError(
                f"the options {sorted(options)} came with an instance: set them on it, {type(method).__name__}(...)"
            )
        return method
    if not isinstance(method, str):
        raise TypeError(f"a method is a name or an instance of Method, not {method!r}")
    cls = REGISTRY.get(method.lower())
    if cls is None:
        raise ValueError(f"unknown method {method!r}; known are auto, {', '.join(REGISTRY)}")
    known = options_of(cls)
    unknown = sorted(options.keys() - known.keys())
    if unknown:
        listed = ", ".join(f"{k}={v!r}" for k, v in known.items())
        raise TypeError(f"{method} has no option {unknown[0]!r}; its options are {listed}")
    return cls(**options)


class _Methods(ModuleType):
    """So that ``restore.methods()`` lists the methods and ``restore.methods.DPS`` is one."""

    def __call__(self) -> list[MethodInfo]:
        return table()


sys.modules[__name__].__class__ = _Methods
