"""Who takes part: this package's methods, by the names and options that users give them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from restore.benchmark.posterior.problems import KnownProblem
from restore.methods import as_method, name_and_options
from restore.methods.base import Method
from restore.methods.naming import is_auto
from restore.solve import solve, suited


@dataclass(frozen=True)
class Contender:
    """Something that claims to draw from a posterior.

    Attributes:
        name: What tables call it.
        steps: Its own default number of steps.
        lacking: What a problem lacks for it, in words; an empty string if it will do.
        draw: ``draw(problem, count, steps, seed)`` gives draws ``(count, C, H, W)``.
    """

    name: str
    steps: int
    lacking: Callable[[KnownProblem], str]
    draw: Callable[[KnownProblem, int, int, int], Tensor]


def method_contender(text: str | Method) -> Contender:
    """A method, drawn from through :func:`restore.solve`.

    Args:
        text: Its name, and options after a colon: ``"tds:particles=64,twist='mmps'"``. Words need no quotation marks.
            Or a method itself, such as one of your own.

    Raises:
        ValueError: If there is no such method, or an option is not written ``name=value``.
        TypeError: If the method has no such option.

    Example:
        >>> method_contender("dps:zeta=0.5").name
        'dps:zeta=0.5'
    """
    if isinstance(text, Method):
        method, label = text, text.name
    else:
        if is_auto(name_and_options(text)[0]):
            raise ValueError(
                "'auto' chooses a method for each problem: name the method to be measured, such as mmps or dps"
            )
        method, label = as_method(text), text

    def lacking(problem: KnownProblem) -> str:
        if not method.draws:
            return "has one result and no draws"
        missing = suited(method, problem.operator, problem.noise > 0)
        return f"needs {' and '.join(missing)}" if missing else ""

    def draw(problem: KnownProblem, count: int, steps: int, seed: int) -> Tensor:
        drawn: Tensor = solve(
            problem.y,
            problem.operator,
            method,
            prior=problem.prior,
            noise=problem.noise,
            steps=steps,
            samples=count,
            seed=seed,
            progress=False,
        )
        return drawn

    return Contender(label, method.default_steps, lacking, draw)
