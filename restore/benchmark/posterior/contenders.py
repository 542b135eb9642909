"""Who takes part: this package's methods, by the names and options that users give them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from restore.benchmark.names import name_and_options
from restore.benchmark.posterior.problems import KnownProblem
from restore.methods import as_method
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


def method_contender(text: str) -> Contender:
    """A method of this package, drawn from through :func:`restore.solve`.

    Args:
        text: Its name, and options after a colon: ``"tds:particles=64,twist='mmps'"``. Words need no quotation marks.

    Raises:
        ValueError: If there is no such method, or an option is not written ``name=value``.
        TypeError: If the method has no such option.

    Example:
        >>> method_contender("dps:zeta=0.5").name
        'dps:zeta=0.5'
    """
    name, options = name_and_options(text)
    method = as_method(name, **options)

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

    return Contender(text, method.default_steps, lacking, draw)
