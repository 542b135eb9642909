"""The two protocols: what is drawn, and what is measured of the draws."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from operators import Mask
from restore.benchmark.posterior.contenders import Contender
from restore.benchmark.posterior.distances import sliced_wasserstein
from restore.benchmark.posterior.problems import KnownProblem, correlated_gaussian, mixture
from restore.benchmark.posterior.tables import Table
from restore.randomness import stream_seed

#: Draws from the posterior itself: what they show is chance, and the floor of every figure.
EXACT = Contender("exact draws", 0, lambda _: "", lambda p, n, _, seed: p.posterior.sample(n, seed))

#: Draws from the prior, which know nothing of the measurement.
PRIOR = Contender(
    "prior, ignoring y", 0, lambda _: "", lambda p, n, _, seed: p.prior.distribution.sample(n, seed)
)


def gaussian_protocol(
    contenders: Sequence[Contender],
    steps: int | None = 200,
    *,
    draws: int = 4000,
    problems: int = 3,
    seed: int = 0,
    advance: Callable[[], object] = lambda: None,
) -> Table:
    """Mean and variance of draws from the posterior of a correlated Gaussian picture, half of which is masked.

    Args:
        contenders: Who takes part.
        steps: Number of steps; None takes each contender's default.
        draws: Number of draws.
        problems: Number of measurements; figures are means over them.
        seed: Of the measurements and the draws.
        advance: Called after each contender's run on a problem.

    Returns:
        A table: root mean square error of the draws' mean, in deviations of the prior, on measured and on missing
        pixels; and the mean over pixels of the draws' variance divided by the true one. The row of the exact draws is
        what chance makes of them.
    """
    title = f"Correlated Gaussian, 8 x 8, half masked: {draws} draws, {problems} measurements"
    measures = ["mean, measured", "mean, missing", "variance, measured", "variance, missing"]
    table = Table(title, ["method", "steps", *measures, "s / 1000 draws"])
    known = [correlated_gaussian(seed + i) for i in range(problems)]
    for contender in [EXACT, PRIOR, *contenders]:
        number = contender.steps if steps is None or not contender.steps else steps
        found: list[dict[str, float]] = []
        seconds = 0.0
        for i, problem in enumerate(known):
            result = _draw(contender, problem, draws, number, seed + i, table)
            advance()
            if isinstance(result, str):
                table.rows.append([f"{contender.name} {result}", str(number or "-"), *["-"] * 5])
                break
            drawn, spent = result
            seconds += spent
            found.append(dict(zip(measures, moment_errors(problem, drawn), strict=True)))
            record: dict[str, str | int | float] = {
                "method": contender.name,
                "steps": number,
                "problem": seed + i,
                "seconds": spent,
            }
            table.records.append({**record, **found[-1]})
        else:
            cells = [f"{statistics.mean(each[m] for each in found):.3f}" for m in measures]
            speed = f"{1000 * seconds / draws / problems:.1f}" if number else "-"
            table.rows.append([contender.name, str(number or "-"), *cells, speed])
    return table


def moment_errors(problem: KnownProblem, drawn: Tensor) -> tuple[float, float, float, float]:
    """Error of the mean on measured and missing pixels, and variance over the true one on both.

    Args:
        problem: A masked picture.
        drawn: ``(n, C, H, W)``.
    """
    assert isinstance(problem.operator, Mask)
    drawn, exact = drawn.double(), problem.posterior
    measured = problem.operator.mask[0].bool().expand(exact.mean.shape)
    error = (drawn.mean(0) - exact.mean) ** 2 / problem.prior.distribution.variance
    ratio = drawn.var(0) / exact.variance
    parts = (measured, ~measured)
    one, two = (float(error[part].mean().sqrt()) for part in parts)
    three, four = (float(ratio[part].mean()) for part in parts)
    return one, two, three, four


def mixture_protocol(
    contenders: Sequence[Contender],
    steps: int | None = None,
    *,
    dimensions: Sequence[int] = (8, 80, 800),
    measurements: Sequence[int] = (1, 2, 4),
    draws: int = 1000,
    problems: int = 8,
    flat: bool = False,
    slices: int = 10_000,
    seed: int = 0,
    advance: Callable[[], object] = lambda: None,
) -> Table:
    """Sliced Wasserstein-1 distance between draws and exact draws, for a mixture of 25 Gaussians.

    See :func:`restore.benchmark.posterior.problems.mixture`.

    Args:
        contenders: Who takes part.
        steps: Number of steps; None takes each contender's default.
        dimensions: Numbers of values of an image.
        measurements: Numbers of values measured, ``d_y``.
        draws: Number of draws in each set.
        problems: Number of random problems of each kind.
        flat: Whether the components' weights are drawn evenly from all that sum to 1; otherwise, they are squares of
            normal numbers, of which more are small.
        slices: Number of directions of the distance.
        seed: Of the problems and the draws.
        advance: Called after each contender's run on a problem.

    Returns:
        A table of means over the problems and their standard errors. The row of the exact draws is the floor.
    """
    kinds = [(d, m) for d in dimensions for m in measurements]
    weights = " of flat weights" if flat else ""
    title = (
        f"Mixture of 25 Gaussians{weights}: sliced Wasserstein distance, {draws} draws, {problems} problems"
    )
    table = Table(title, ["method", "steps", *(f"d = {d}, d_y = {m}" for d, m in kinds)])
    everyone = [EXACT, PRIOR, *contenders]
    table.rows = [
        [c.name, str((c.steps if steps is None or not c.steps else steps) or "-")] for c in everyone
    ]
    for dimension, count in kinds:
        distances: dict[str, list[float] | str] = {c.name: [] for c in everyone}
        for i in range(
            seed, seed + problems
        ):  # One problem at a time: 800 dimensions have large covariances.
            problem = mixture(i, dimension=dimension, measurements=count, flat=flat)
            exact = problem.posterior.sample(draws, stream_seed(i, 3))
            for contender in everyone:
                found = distances[contender.name]
                if isinstance(found, str):
                    advance()
                    continue
                number = contender.steps if steps is None or not contender.steps else steps
                result = _draw(contender, problem, draws, number, i, table)
                advance()
                if isinstance(result, str):
                    distances[contender.name] = result
                    continue
                found.append(sliced_wasserstein(result[0], exact, slices))
                record: dict[str, str | int | float] = {
                    "method": contender.name,
                    "steps": number,
                    "dimension": dimension,
                }
                table.records.append(
                    {
                        **record,
                        "problem": i,
                        "seconds": result[1],
                        "distance": found[-1],
                        "noise": problem.noise,
                    }
                )
        for row, contender in zip(table.rows, everyone, strict=True):
            row.append(_with_error(distances[contender.name]))
    return table


def _with_error(values: list[float] | str) -> str:
    if isinstance(values, str):
        return f"- {values}"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values) / len(values) ** 0.5:.2f}"


def _draw(
    contender: Contender, problem: KnownProblem, draws: int, steps: int, seed: int, table: Table
) -> tuple[Tensor, float] | str:
    """The draws and the seconds they took; or the mark of a footnote that says why there are none."""
    lacking = contender.lacking(problem)
    if lacking:
        return table.note(f"{contender.name.partition(':')[0]} {lacking}")
    begin = time.perf_counter()
    try:
        drawn = contender.draw(problem, draws, steps, seed)
    except FloatingPointError as error:
        return table.note(f"{contender.name}: {error}")
    if not torch.isfinite(drawn).all():
        return table.note(f"{contender.name}: its draws are not finite")
    return drawn, time.perf_counter() - begin
