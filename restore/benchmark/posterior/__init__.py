"""How near each method comes to a posterior that is known exactly.

A correlated Gaussian picture, half of which is masked, tells whether mean and variance of the draws are right: see
:func:`gaussian_protocol`. A mixture of 25 Gaussians, of which a few linear combinations are measured, tells whether a
method finds the right modes in the right shares: see :func:`mixture_protocol`; its weights are drawn in one of two ways
(two protocols). Every draw is made by :func:`restore.solve`, as users make theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from restore.benchmark.posterior.contenders import Contender, method_contender
from restore.benchmark.posterior.distances import sliced_wasserstein
from restore.benchmark.posterior.problems import KnownProblem, correlated_gaussian, mixture
from restore.benchmark.posterior.protocols import gaussian_protocol, mixture_protocol, moment_errors
from restore.benchmark.posterior.tables import Table
from restore.files import write_atomically
from restore.methods import table as methods_table
from restore.methods.base import Method

__all__ = [
    "Contender",
    "KnownProblem",
    "Table",
    "correlated_gaussian",
    "gaussian_protocol",
    "method_contender",
    "mixture",
    "mixture_protocol",
    "moment_errors",
    "run_posterior",
    "sliced_wasserstein",
]

PROTOCOLS = ("gaussian", "mixture", "flat-mixture")
#: Those that are run where none is named.
USUAL = ("gaussian", "mixture")


def run_posterior(
    methods: Sequence[str | Method] | None = None,
    *,
    protocols: Sequence[str] = USUAL,
    peers: bool = True,
    steps: int | None = None,
    draws: int | None = None,
    problems: int | None = None,
    dimensions: Sequence[int] = (8, 80, 800),
    measurements: Sequence[int] = (1, 2, 4),
    seed: int = 0,
    output: str | Path | None = None,
    progress: bool = True,
) -> list[Table]:
    """Runs the protocols and prints their tables.

    Args:
        methods: Names, with options after a colon (``"tds:particles=64"``), or methods, such as one of your own; all
            methods by default, TDS with four particles for the Gaussian, under which its twist is exact.
        protocols: Some of ``"gaussian"``, ``"mixture"``, and ``"flat-mixture"``, whose components have weights that
            are more alike; the first two by default.
        peers: Whether other packages take part, where they are installed.
        steps: Number of steps for all. By default the Gaussian is done twice, with 200 steps and with each
            method's own default, and the mixture with the latter.
        draws: Number of draws; 4000 (Gaussian) and 1000 (mixture) by default.
        problems: Number of measurements; 3 and 8 by default.
        dimensions: Of the mixture.
        measurements: Numbers of values measured, of the mixture.
        seed: Of problems and draws.
        output: A folder for ``table.md``, which is what is printed, and for ``gaussian.csv`` and ``mixture.csv`` (named
            as the protocols), which hold every single figure. Those of an earlier run there are not overwritten.
        progress: Show a bar.

    Returns:
        The tables that were printed.

    Raises:
        ValueError: If there is no such method or protocol, or a number is too small.
        FileExistsError: If ``output`` holds the table of an earlier run.
        TypeError: If a method has no such option.

    Example:
        >>> tables = run_posterior(["ddrm"], protocols=["gaussian"], steps=2, draws=8, problems=1, peers=False,
        ...                        progress=False)  # doctest: +ELLIPSIS
        **Correlated Gaussian, 8 x 8, half masked: 8 draws, 1 measurements**
        ...
    """
    from tqdm import tqdm

    unknown = sorted(set(protocols) - set(PROTOCOLS))
    if unknown:
        raise ValueError(f"unknown protocol {unknown[0]!r}; known are {', '.join(PROTOCOLS)}")
    if output is not None and (Path(output) / "table.md").exists():
        raise FileExistsError(
            f"{str(output)!r} holds the table of an earlier run: give another folder (-o), or remove it"
        )
    for name, value, least in (("draws", draws, 2), ("problems", problems, 1), ("steps", steps, 1)):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    names = [method.name for method in methods_table()] if methods is None else methods
    contenders = [method_contender(name) for name in names]
    few = [
        method_contender("tds:particles=4") if methods is None and c.name == "tds" else c for c in contenders
    ]
    others: list[Contender] = []
    if peers:
        from restore.benchmark.posterior.peers import peer_contenders

        others = peer_contenders()

    numbers = {k: v for k, v in (("draws", draws), ("problems", problems)) if v is not None}
    tables: dict[str, list[Table]] = {}
    with tqdm(desc="posterior", unit="run", disable=not progress, leave=False, file=sys.stderr) as bar:
        common: dict[str, Any] = {"seed": seed, "advance": bar.update, **numbers}
        if "gaussian" in protocols:
            tables["gaussian"] = [
                gaussian_protocol([*few, *others], each, **common)
                for each in ((200, None) if steps is None else (steps,))
            ]
        sizes: dict[str, Any] = {"dimensions": dimensions, "measurements": measurements}
        for name, flat in (("mixture", False), ("flat-mixture", True)):
            if name in protocols:
                everyone = [*contenders, *others]
                tables[name] = [mixture_protocol(everyone, steps, flat=flat, **sizes, **common)]
    for name, some in tables.items():
        if output is not None:
            whole = Table("", [], records=[record for each in some for record in each.records])
            write_atomically(Path(output) / f"{name}.csv", whole.write_csv)
    found = [each for some in tables.values() for each in some]
    text = "\n\n".join(each.markdown() for each in found)
    if output is not None:
        write_atomically(
            Path(output) / "table.md", lambda path: path.write_text(text + "\n", encoding="utf-8")
        )
    print(text)
    return found
