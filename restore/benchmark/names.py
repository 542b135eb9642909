"""How contenders are named: ``ddnm``, ``ddnm:steps=50,eta=0.85``, ``wiener:balance=0.05``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from restore.benchmark.classical import CLASSICAL
from restore.benchmark.peers import PEERS
from restore.methods import REGISTRY, Method, as_method, name_and_options
from restore.methods.naming import check_kind, is_auto
from restore.tasks import colorize

#: One call of the prior: its estimate of the clean picture at the noise of the measurement.
ONE_CALL = "one-call"
COLORIZE = "colorize"


@dataclass(frozen=True)
class Spec:
    """A contender as the user named it.

    Attributes:
        name: Of a method, a classical tool, a peer; or ``default``, ``classical``, ``one-call``, ``colorize``.
        options: What was given with it.
        method: The method, where an instance was given.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    method: Method | None = None


def parse(text: str | Method) -> Spec:
    """The contender that a user named, with its options checked.

    Args:
        text: ``"name"`` or ``"name:option=value,option=value"``; or a method.

    Raises:
        ValueError: If nothing has that name, or an option has no value.
        TypeError: If it has no such option, or one that is a number is given a word.

    Example:
        >>> parse("ddnm:steps=50,eta=0.85").options
        {'steps': 50, 'eta': 0.85}
    """
    if isinstance(text, Method):
        return Spec(text.name, method=text)
    name, options = name_and_options(text)
    known = ["default", "classical", ONE_CALL, COLORIZE, "auto", *REGISTRY, *CLASSICAL, *PEERS]
    if name not in known:
        raise ValueError(f"unknown method {name!r}; known are {', '.join(known)}")
    if name in REGISTRY:
        as_method(name, **{k: v for k, v in options.items() if k not in ("steps", "sampler")})
        return Spec(name, options)
    tool = colorize if name == COLORIZE else CLASSICAL.get(name) or PEERS.get(name)
    able = ["steps"] if name == "auto" else [] if tool is None else [p.name for p in own_options(tool)]
    unknown = sorted(options.keys() - set(able))
    if unknown:
        raise TypeError(
            f"{name} has no option {unknown[0]!r}; its options are {', '.join(able) or 'none at all'}"
        )
    for option in [] if tool is None else own_options(tool):
        # What is left out, or none where that is the default, is its own.
        if (value := options.get(option.name, option.default)) is not option.default:
            check_kind(f"{name}: {option.name}", str(option.annotation).removesuffix(" | None"), value)
    if name == COLORIZE and not is_auto(options.get("method")):
        as_method(options["method"])
    return Spec(name, options)


def own_options(tool: Callable[..., Any]) -> list[inspect.Parameter]:
    """The options of a tool: what it takes by keyword alone, less the prior, which is the benchmark's."""
    found = inspect.signature(tool).parameters.values()
    return [p for p in found if p.kind is p.KEYWORD_ONLY and p.name != "prior"]


def complete(tool: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """All options of a tool: those given, and its own for the rest."""
    return {p.name: options.get(p.name, p.default) for p in own_options(tool)}


def label(name: str, options: dict[str, Any]) -> str:
    """What tables call a contender: as a user would name it."""
    return f"{name}:{','.join(f'{k}={v}' for k, v in options.items())}" if options else name
