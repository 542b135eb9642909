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
from restore.methods.naming import check_kind, is_auto, name_and_options
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
    "name_and_options",
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
        method: A name, with options after a colon where there are any (``"dps:zeta=0.3"``); or an instance, which has
            its options already.
        **options: Options of the named method.

    Raises:
        ValueError: If there is no method of that name, or an option has no value.
        TypeError: If an option is not known, given twice, or a word in place of a number, or options come with an
            instance; for ``"auto"``, which :func:`restore.solve` alone knows.

    Example:
        >>> as_method("dps", zeta=0.3)
        DPS(clip=True, zeta=0.3, quasi_newton=None)
        >>> as_method("dps:zeta=0.3") == as_method("dps", zeta=0.3)
        True
    """
    if isinstance(method, Method):
        if options:
            raise TypeError(
                f"the options {sorted(options)} came with an instance: set them on it, {type(method).__name__}(...)"
            )
        return method
    if not isinstance(method, str):
        raise TypeError(f"a method is a name or an instance of Method, not {method!r}")
    name, told = name_and_options(method)
    if is_auto(name):
        without = f"leave {', '.join(told)} out" if told else "give it to solve as it is, 'auto'"
        raise TypeError(f"'auto' chooses a method and its settings itself: {without}, or name a method")
    cls = REGISTRY.get(name.lower())
    if cls is None:
        first, _, rest = (part.strip() for part in name.partition(","))
        meant = first.lower() in REGISTRY and "=" in rest
        colon = f"options stand behind a colon, as in '{first}:{rest}'; " if meant else ""
        raise ValueError(f"unknown method {name!r}; {colon}known are auto, {', '.join(REGISTRY)}")
    if twice := sorted(told.keys() & options.keys()):
        raise TypeError(
            f"{twice[0]} is given in {method!r} and as {twice[0]}={options[twice[0]]!r}: give it once"
        )
    options |= told
    known = options_of(cls)
    unknown = sorted(options.keys() - known.keys())
    if unknown:
        listed = ", ".join(f"{k}={v!r}" for k, v in known.items())
        beside = unknown[0] in ("steps", "sampler", "samples", "seed")
        hint = f" (give {unknown[0]} beside the method, not as its option)" if beside else ""
        raise TypeError(f"{name} has no option {unknown[0]!r}; its options are {listed or 'none'}{hint}")
    for option in fields(cls):
        if option.name in options:
            check_kind(f"{name}'s {option.name}", str(option.type), options[option.name])
    return cls(**options)


class _Methods(ModuleType):
    """So that ``restore.methods()`` lists the methods and ``restore.methods.DPS`` is one."""

    def __call__(self) -> list[MethodInfo]:
        return table()


sys.modules[__name__].__class__ = _Methods
