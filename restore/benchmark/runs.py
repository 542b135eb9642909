"""The benchmark of pictures: every contender on every task and picture, and what has been done already is kept."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import operators
import restore
from restore.benchmark import report
from restore.benchmark.contenders import Contender, CountedPrior, Resources, contenders
from restore.benchmark.names import COLORIZE, parse
from restore.benchmark.report import Ledger, Result, Run
from restore.benchmark.standard import Measurement, chosen_tasks, measure
from restore.checkpoint import load_prior
from restore.colours import ColourPrior
from restore.data import find_images
from restore.files import write_atomically
from restore.images import read_image, to_batch, write_image
from restore.methods import Method
from restore.metrics import data_misfit, lpips, lpips_available, psnr, ssim
from restore.prior import BasePrior, Prior
from restore.randomness import whole_seed
from restore.solve.parts import device_for

#: The prior in the package; its colours of grey pictures are from another one, as those of ``restore.colorize``.
PACKAGED = "photo"
#: How many pictures a sheet shows.
SHOWN = 8


def pictures(
    folder: str | Path,
    prior: str | Path | BasePrior = "photo",
    methods: Sequence[str | Method] = ("classical", "default"),
    tasks: Sequence[str] | None = None,
    *,
    size: int = 256,
    limit: int | None = None,
    samples: int = 1,
    calls: Sequence[int] = (),
    seed: int = 0,
    output: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> list[Result]:
    """Restores pictures from the standard tasks' measurements, and compares with the truth.

    The same seed gives the same numbers, whatever part of the pictures, tasks and methods is run.

    Args:
        folder: A folder of pictures, searched with its sub-folders; the centre of each is used.
        prior: A name, a folder (see :func:`restore.load_prior`), or a prior for colour pictures. A prior of colours
            (:class:`restore.colours.ColourPrior`) runs the task ``"colour"`` alone. Where it is ``"photo"``, the
            ``"colorize"`` of that task takes ``"colours"``, as :func:`restore.colorize` does.
        methods: Who restores: methods such as ``"ddnm"`` or ``"ddnm:steps=50,eta=0.85"``, or instances; classical
            tools such as ``"telea"``; peers such as ``"deepinv-diffpir"``; ``"default"`` and ``"classical"``, which
            are the usual for each task.
        tasks: Names out of ``restore.benchmark.TASKS``; all of them by default.
        size: Side of the centre in pixels, a multiple of 4 and at least 32.
        limit: Number of pictures, the first by name; all of them by default.
        samples: How many draws to take the mean of. A mean of draws has a higher PSNR than a draw and is smoother.
        calls: Run every method at these numbers of network calls, instead of its own number of steps.
        seed: A whole number.
        output: A folder for results.csv, table.md, the pictures and a sheet a task. A later run with the same folder
            goes on from what is there. Nothing is written without it.
        device: Where to compute; a GPU by default if there is one.
        progress: Show a bar, and say what is left out, on the standard error.

    Returns:
        One result for every task, picture and contender, in this order.

    Raises:
        FileNotFoundError: If there is no such folder, or no picture in it, or no such prior.
        ValueError: If a task or method is not known, no method is for any of the tasks, a picture is smaller than
            ``size``, or a number makes no sense.
        TypeError: If a method has no such option, one that is a number is given a word, or the seed is not a whole
            number.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_image(f"{folder}/grey.png", np.full((40, 50, 3), 128, np.uint8))
        ...     results = pictures(folder, methods=["bicubic", "nothing"], tasks=["x4"], size=32, progress=False)
        >>> [result.method for result in results]
        ['bicubic']
    """
    for name, value in (("samples", samples), ("limit", limit), *(("calls", n) for n in calls)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    seed = whole_seed(seed)
    if size % 4 or size < 32:
        raise ValueError(f"size must be a multiple of 4 and at least 32, not {size}")
    specs, chosen = [parse(method) for method in methods], chosen_tasks(tasks)
    if calls and any("steps" in spec.options for spec in specs):
        raise ValueError("calls decides the number of steps: leave out either calls or the steps of a method")
    root = Path(folder).expanduser()
    truths = {
        path.relative_to(root).as_posix() if path != root else path.name: centre(path, size)
        for path in find_images(root)[:limit]
    }
    place = None if output is None else Path(output).expanduser()
    if place is not None and place.exists() and not place.is_dir():
        raise NotADirectoryError(
            f"the output {str(place)!r} is a file; expected a folder, or a new name for one"
        )
    where = device_for(device, "photo" if isinstance(prior, BasePrior) else prior, torch.empty(0))
    loaded = prior if isinstance(prior, BasePrior) else load_prior(prior)
    counted = CountedPrior.of(loaded)
    # The prior in the package is two: what would be said of colours by one alone is not what users get.
    two = isinstance(prior, str) and prior == PACKAGED and any(task.repair == COLORIZE for task in chosen)
    colours = CountedPrior.of(load_prior("colours")) if two else counted
    identities, code = {id(one): fingerprint(one) for one in (counted, colours)}, code_version()
    resources = Resources(counted, colours, samples, tuple(calls), where)
    first, first_truth = next(iter(truths.items()))
    plan, reasons = [], []
    for task in chosen:
        able, left_out = contenders(specs, measure(task, first_truth, first, seed), resources)
        plan.append((task, able))
        reasons += left_out
    if not any(able for _, able in plan):
        raise ValueError(f"there is nothing to run: {'; '.join(reasons)}")
    if progress and reasons:
        print("left out:", "; ".join(reasons), file=sys.stderr)

    ledger = Ledger(None if place is None else place / "results.csv")
    results: list[Result] = []
    with _bar(len(truths) * sum(len(able) for _, able in plan), progress) as bar:
        for task, able in plan:
            of_task = []
            for name, truth in truths.items():
                measurement = measure(task, truth, name, seed)
                for contender in able:
                    bar.set_postfix_str(f"{task.name}, {name}, {contender.label}")
                    run = Run(
                        picture=name,
                        task=task.name,
                        method=contender.label,
                        settings=contender.settings,
                        prior=identities[id(contender.prior)] if contender.prior else "",
                        device=where.type if contender.prior else "cpu",
                        size=size,
                        samples=contender.samples,
                        seed=seed,
                        code=code,
                    )
                    of_task.append(_result(run, contender, measurement, ledger, place))
                    bar.update()
            results += of_task
            if place is not None:
                shown = {name: measure(task, truth, name, seed) for name, truth in [*truths.items()][:SHOWN]}
                report.write_sheet(place, task, shown, of_task)
    if place is not None:
        write_atomically(place / "table.md", lambda path: path.write_text(report.markdown(results)))
    return results


def _result(
    run: Run,
    contender: Contender,
    measurement: Measurement,
    ledger: Ledger,
    place: Path | None,
) -> Result:
    """The result of a run: the one that is there already, or a new one, written down."""
    picture = None if place is None else place / run.file
    known = ledger.find(run) if picture is not None and picture.is_file() else None
    if known is not None:
        return known
    calls, start = contender.calls, time.perf_counter()
    try:
        x = contender.restore(measurement).detach().cpu().float().clamp(0, 1)
    except FloatingPointError:
        x = torch.full_like(measurement.truth, math.nan)
    seconds = time.perf_counter() - start
    result = Result(**vars(run), **_measures(x, measurement), calls=contender.calls - calls, seconds=seconds)
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_image(picture, x.nan_to_num())  # Before the row: what is in the table can be looked at.
    ledger.add(result)
    return result


def _measures(x: Tensor, measurement: Measurement) -> dict[str, Any]:
    """How good a picture is; not a number, each, where it is none, so that one that fails stops no table."""
    truth = measurement.truth
    if not x.isfinite().all():
        return dict.fromkeys(("psnr", "ssim", "lpips", "misfit"), math.nan)
    return {
        "psnr": psnr(x, truth),
        "ssim": ssim(x, truth),
        "lpips": lpips(x, truth) if lpips_available() else None,
        "misfit": data_misfit(x, measurement.y, measurement.operator, noise=measurement.misfit_unit),
    }


def centre(path: Path, size: int) -> Tensor:
    """The centre of a picture file, ``(3, size, size)`` in [0, 1].

    Raises:
        ValueError: If the picture is smaller.
    """
    picture = to_batch(read_image(path, mode="RGB"))[0][0]
    top, left = ((n - size) // 2 for n in picture.shape[-2:])
    if top < 0 or left < 0:
        raise ValueError(
            f"{str(path)!r} has {picture.shape[-2]} x {picture.shape[-1]} pixels, and {size} x {size} are wanted: "
            f"take a smaller size, or the picture out of the folder"
        )
    return picture[:, top : top + size, left : left + size]


def fingerprint(prior: BasePrior) -> str:
    """A prior's name and, for a network, eight digits that change with its weights and its spectrum.

    Example:
        >>> fingerprint(load_prior("photo")).startswith("photo-")
        True
    """
    if not isinstance(prior, Prior):
        return prior.name
    digest = hashlib.sha256(f"{prior.prediction} {prior.schedule} {prior.value_range}".encode())
    if prior.spectrum is not None:
        digest.update(repr(prior.spectrum).encode())
    if isinstance(prior, ColourPrior):
        digest.update(repr(prior.told()).encode())
    for name, tensor in sorted(prior.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"{prior.name}-{digest.hexdigest()[:8]}"


def code_version() -> str:
    """The package's version, and eight digits that change with any of its source files, the operators' included.

    Example:
        >>> code_version().startswith(restore.__version__)
        True
    """
    digest = hashlib.sha256()
    for package in (operators, restore):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{restore.__version__}-{digest.hexdigest()[:8]}"


def _bar(total: int, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc="benchmark", disable=not progress)
