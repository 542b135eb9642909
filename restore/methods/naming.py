"""How a method is written in one word, in the shell and in tables: ``tds:particles=64,twist=mmps``."""

from __future__ import annotations

import ast
import warnings
from typing import Any


def is_auto(method: object) -> bool:
    """Whether the method is left to the library: none is named, or ``"auto"``."""
    return method is None or (isinstance(method, str) and method.strip().lower() == "auto")


def name_and_options(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of what is written ``"name:option=value,option=value"``; words need no quotation marks.

    Raises:
        ValueError: If an option has no value, or two.

    Example:
        >>> name_and_options("tds:particles=64,twist=mmps")
        ('tds', {'particles': 64, 'twist': 'mmps'})
    """
    name, _, given = text.partition(":")
    options: dict[str, Any] = {}
    for item in filter(None, given.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(
                f"{text!r}: {item!r} is not of the form option=value, as in tds:particles=64,twist=mmps"
            )
        if key.strip() in options:
            raise ValueError(f"{text!r}: {key.strip()} is given twice")
        options[key.strip()] = _value(value)
    return name.strip(), options


def check_kind(what: str, kind: str, given: Any) -> None:
    """Refuses what is of no use as an option, such as a word in place of a number; ``kind`` is its annotation."""
    number = "int" in kind or "float" in kind
    fraction = isinstance(given, float) and kind.startswith("int")
    flag = number and isinstance(given, bool) and "bool" not in kind
    nothing = number and given is None and "None" not in kind
    if "str" in kind or not (
        fraction or flag or nothing or isinstance(given, (str, list, tuple, dict, set, complex))
    ):
        return
    words = {"bool": "true or false", "int": "a whole number", "float": "a number"}
    expected = " or ".join(words.get(part, part.lower()) for part in kind.split(" | "))
    raise TypeError(f"{what} is {expected}, not {given!r}")


def _value(text: str) -> Any:
    """A number, True, False or None, or a word in quotation marks; anything else is a word."""
    words = {"true": True, "false": False, "none": None}
    text = text.strip()
    if text.lower() in words:
        return words[text.lower()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # Of "1for" and the like.
            return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
