"""What a benchmark writes: rows of a CSV as they come, a Markdown table, a sheet of pictures a task."""

from __future__ import annotations

import csv
import io
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from restore.benchmark.standard import TASKS, Measurement, Task
from restore.images import read_image, write_image
from restore.plots import sheet
from restore.plots.lettering import LEGIBLE


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a result belongs to: two runs that are equal in all of this give the same picture.

    Attributes:
        picture: The picture's path in the folder.
        task: Name of the task.
        method: Name of the contender, with the options that tell it from others.
        settings: All of its settings.
        prior: Name and fingerprint of the prior, where one is used.
        device: Kind of device that drew the random numbers.
        size: Side of the picture, in pixels.
        samples: How many draws were averaged.
        seed: Seed of the benchmark.
        code: Version and fingerprint of the code that ran; see :func:`restore.benchmark.runs.code_version`.
    """

    picture: str
    task: str
    method: str
    settings: str
    prior: str
    device: str
    size: int
    samples: int
    seed: int
    code: str

    @property
    def file(self) -> Path:
        """Where its picture is kept in the folder of results."""
        own = repr([getattr(self, f.name) for f in fields(Run)])
        words = [re.sub(r"[^\w.=-]+", "-", word) for word in (self.task, self.picture, self.method)]
        return Path("pictures", *words[:2], f"{words[2]}-{zlib.crc32(own.encode()):08x}.png")

    @property
    def title(self) -> str:
        """What tables call it."""
        return self.method if self.samples == 1 else f"{self.method}, mean of {self.samples}"


@dataclass(frozen=True, kw_only=True)
class Result(Run):
    """How good a restored picture is.

    Attributes:
        psnr: In dB, clipped to [0, 1]; infinite where the picture is exactly the truth.
        ssim: As :func:`restore.metrics.ssim` has it.
        lpips: With AlexNet, where its weights are on this machine.
        misfit: Root mean square of ``y - A x``: in standard deviations of the noise; in grey levels (of 255) where
            there is none.
        calls: Pictures that went through the network for it: all draws together.
        seconds: Time it took, all draws together.
    """

    psnr: float
    ssim: float
    lpips: float | None
    misfit: float
    calls: int
    seconds: float

    @property
    def run(self) -> Run:
        """What it belongs to."""
        return Run(**{f.name: getattr(self, f.name) for f in fields(Run)})


COLUMNS = [f.name for f in fields(Result)]
#: Columns that hold whole numbers and real ones; all others are words.
_WHOLE, _REAL = ("size", "samples", "seed", "calls"), ("psnr", "ssim", "lpips", "misfit", "seconds")


class Ledger:
    """The results so far, in memory and, as they come, in a CSV file.

    Args:
        path: The file; an existing one is gone on with. None keeps them in memory alone.

    Raises:
        ValueError: If there is a file with other columns.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._known: dict[Run, Result] = {}
        if path is not None and path.is_file():
            self._known = {result.run: result for result in read_results(path)}
            whole = path.read_bytes().rpartition(b"\n")
            if whole[2]:  # A run was stopped in the middle of a row.
                path.write_bytes(whole[0] + whole[1])

    def find(self, run: Run) -> Result | None:
        """The result of a run, if there is one."""
        return self._known.get(run)

    def add(self, result: Result) -> None:
        """Writes a result down, at once."""
        self._known[result.run] = result
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [] if self.path.is_file() else [COLUMNS]
        rows.append(["" if value is None else value for value in asdict(result).values()])
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        with self.path.open("a", newline="") as file:
            file.write(text.getvalue())


def read_results(path: str | Path) -> list[Result]:
    """The results in a CSV file; a row that is not finished is left out.

    Raises:
        ValueError: If the file has other columns.
    """
    text = Path(path).read_text()
    header, *rows = csv.reader(io.StringIO(text[: text.rfind("\n") + 1])) or [[]]
    if header != COLUMNS:
        raise ValueError(
            f"{str(path)!r} has the columns {','.join(header)}, expected {','.join(COLUMNS)}: it is of another "
            f"version; give another folder, or move it away"
        )
    return [_from_row(dict(zip(header, row, strict=True))) for row in rows]


def _from_row(row: dict[str, str]) -> Result:
    values: dict[str, Any] = dict(row)
    values |= {name: int(row[name]) for name in _WHOLE}
    values |= {name: float(row[name]) if row[name] else None for name in _REAL}
    return Result(**values)


def markdown(results: Sequence[Result]) -> str:
    """A table with a row for every task and method: means over the pictures.

    Args:
        results: What :func:`restore.benchmark.pictures` returned, or :func:`read_results`.
    """
    groups: dict[tuple[str, ...], list[Result]] = {}
    # Priors are told apart where a task was done by several: one may be for a task of its own.
    priors: dict[str, set[str]] = {}
    for r in results:
        priors.setdefault(r.task, set()).add(r.prior)
        groups.setdefault((r.task, r.title, r.settings, r.prior, r.device, str(r.size)), []).append(r)
    perceptual = any(r.lpips is not None for r in results)
    head = [
        "task",
        "method",
        "PSNR",
        "SSIM",
        *(["LPIPS"] if perceptual else []),
        "misfit",
        "calls",
        "s",
        "pictures",
    ]
    rows = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for group in groups.values():
        first = group[0]
        alone = len(priors[first.task] - {""}) < 2 or not first.prior
        name = first.title if alone else f"{first.title} ({first.prior})"
        known = [r.lpips for r in group if r.lpips is not None]
        rows.append(
            [
                TASKS[first.task].title,
                name,
                _mean_psnr([r.psnr for r in group]),
                f"{np.mean([r.ssim for r in group]):.3f}",
                *([f"{np.mean(known):.3f}" if known else ""] if perceptual else []),
                f"{np.mean([r.misfit for r in group]):.2f}",
                f"{np.mean([r.calls for r in group]):.0f}",
                f"{np.mean([r.seconds for r in group]):.1f}",
                str(len(group)),
            ]
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _mean_psnr(values: Sequence[float]) -> str:
    """The mean in dB; pictures that came back exactly are infinitely good, and counted beside it."""
    rest = [value for value in values if value != math.inf]
    exact = len(values) - len(rest)
    if not rest:
        return "exact"
    return f"{np.mean(rest):.2f}" + (f" ({exact} exact)" if exact else "")


def write_sheet(
    place: Path, task: Task, measurements: Mapping[str, Measurement], results: Sequence[Result]
) -> None:
    """Writes ``sheets/TASK.png``: truth, measurement and every result, a row a picture.

    Args:
        place: The folder of results.
        task: The task.
        measurements: Those to show, by the picture's name.
        results: The results of the task, for these pictures at least.
    """
    cells: list[Any] = []
    titles: list[str] = []
    columns = 0
    for name, measurement in measurements.items():
        shown = [r for r in results if r.picture == name]
        columns = 2 + len(shown)
        cells += [measurement.truth, measurement.y.clamp(0, 1), *(read_image(place / r.file) for r in shown)]
        titles += [f"truth\n{name}", f"measurement\n{task.title}"]
        titles += [f"{r.title}\n{r.psnr:.2f} dB / {r.ssim:.3f}" for r in shown]
    side = max(m.truth.shape[-1] for m in measurements.values())
    height = side * math.ceil(LEGIBLE / side)  # Small pictures by whole factors, so that captions have room.
    (place / "sheets").mkdir(parents=True, exist_ok=True)
    write_image(place / "sheets" / f"{task.name}.png", sheet(cells, titles, columns=columns, height=height))
