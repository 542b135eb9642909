"""How much texture fills a hole: contrasts between near pixels in the box, beside those of the truth.

    python tests/benchmarks/texture.py PICTURES [--methods biharmonic dps diffpir] [--size 256] [--limit 8]

The task is ``box`` of ``restore benchmark``. For pixels of the hole that are 1, 2 and 4 apart, in rows and in columns,
the root mean square of their differences is divided by that of the truth; means over the pictures. 1 is as much
contrast as there was; what is filled smoothly has less.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore.benchmark import pictures
from restore.benchmark.runs import centre
from restore.data import find_images
from restore.images import read_image, to_batch

APART = (1, 2, 4)


def contrast(x: Tensor, apart: int) -> float:
    """The root mean square difference of pixels that are so far apart in ``(C, H, W)``."""
    differences = [x[..., apart:, :] - x[..., :-apart, :], x[..., apart:] - x[..., :-apart]]
    return float(torch.cat([d.flatten() for d in differences]).square().mean().sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="of pictures")
    parser.add_argument(
        "--methods", nargs="+", default=["biharmonic", "telea", "default", "diffpir:zeta=1.0"]
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    paths = find_images(args.folder)[: args.limit]
    truths = {p.relative_to(args.folder).as_posix(): centre(p, args.size) for p in paths}
    ratios: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        options = {"size": args.size, "limit": args.limit, "output": place}
        for result in pictures(args.folder, methods=args.methods, tasks=["box"], **options):
            found = to_batch(read_image(Path(place) / result.file))[0][0]
            hole = slice(round(3 * args.size / 8), round(5 * args.size / 8))
            inside, truth = (x[:, hole, hole] for x in (found, truths[result.picture]))
            ratios.setdefault(result.title, []).append(
                [contrast(inside, n) / contrast(truth, n) for n in APART]
            )
    print("| method | " + " | ".join(f"{n} apart" for n in APART) + " |")
    print("|---|" + "--:|" * len(APART))
    for name, of_pictures in ratios.items():
        print(f"| {name} | " + " | ".join(f"{mean:.2f}" for mean in np.mean(of_pictures, 0)) + " |")


if __name__ == "__main__":
    main()
