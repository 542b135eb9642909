"""What priors know of colours: draws for the luma of pictures, beside their true colours.

    python tests/benchmarks/colours.py PICTURES [--priors photo colours] [--size 64] [--draws 16] [--limit 32]

Of every picture the centre is taken, as large a square as there is, reduced to ``--size`` pixels. For every prior, the
means over pictures of: PSNR of the mean of the draws, of single draws, and of the picture that ``restore.colorize``
makes of them; the chroma of that in CIELAB; and the correlation of the mean draw's colours with the true ones after the
mean colour of both was subtracted: what is known of the colour of things, beyond the tint of the whole.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from skimage.color import rgb2lab
from torch import Tensor

import restore
from restore.colours import luma_of
from restore.data import find_images, split
from restore.images import read_image, to_batch
from restore.metrics import psnr


def squares(folder: Path, size: int, limit: int | None, held_out: bool) -> Tensor:
    """The centres of pictures, reduced, ``(N, 3, size, size)``; of many, some that are spread over the folder."""
    paths = find_images(folder)
    paths = split(paths, root=folder)[1] if held_out else paths
    if limit is not None and len(paths) > limit:
        paths = [paths[round(i)] for i in np.linspace(0, len(paths) - 1, limit)]
    found = []
    for path in paths:
        picture = to_batch(read_image(path, mode="RGB"))[0]
        side = min(picture.shape[-2:])
        top, left = ((n - side) // 2 for n in picture.shape[-2:])
        square = picture[..., top : top + side, left : left + side]
        found.append(F.interpolate(square, (size, size), mode="area"))
    return torch.cat(found)


def correlation(chroma: Tensor, truth: Tensor) -> float:
    """Of colours, each less its mean over the picture; the mean over pictures that have any."""
    a, b = ((x - x.mean((-2, -1), keepdim=True)).flatten(1) for x in (chroma, truth))
    return float((a * b).sum(1).div(a.norm(dim=1) * b.norm(dim=1) + 1e-12).mean())


def colourfulness(pictures: Tensor) -> float:
    """The mean distance from grey in CIELAB."""
    lab = rgb2lab(pictures.clamp(0, 1).numpy(), channel_axis=1)
    return float(np.hypot(lab[:, 1], lab[:, 2]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--priors", nargs="+", default=["photo", "colours"])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--working-size", type=int, help="of restore.colorize")
    parser.add_argument("--limit", type=int)
    parser.add_argument(
        "--held-out", action="store_true", help="only those that training leaves for validation"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    truth = squares(args.folder, args.size, args.limit, args.held_out)
    luma = luma_of(truth)
    grey = luma.repeat(1, 3, 1, 1)
    print(
        f"{len(truth)} pictures of {args.size} x {args.size}; chroma of the truth {colourfulness(truth):.1f}"
    )
    print(
        "| prior | mean of draws, dB | one draw, dB | colorize, dB | its chroma | correlation | s a picture |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|")
    print(f"| grey | {psnr(grey, truth).mean():.2f} | | | 0.0 | | |")
    for name in args.priors:
        prior, start = restore.load_prior(name), time.perf_counter()
        options = {
            "prior": prior,
            "seed": args.seed,
            "steps": args.steps,
            "working_size": args.working_size,
            "progress": False,
        }
        draws = restore.colorize(luma, samples=args.draws, **options)
        seconds = (time.perf_counter() - start) / len(truth)
        one = restore.colorize(luma, draws=args.draws, **options)
        single = torch.stack([psnr(draw, truth).mean() for draw in draws]).mean()
        known = correlation(draws.mean(0) - grey, truth - grey)
        print(
            f"| {name} | {psnr(draws.mean(0), truth).mean():.2f} | {single:.2f} | {psnr(one, truth).mean():.2f} | "
            f"{colourfulness(one):.1f} | {known:.3f} | {seconds:.2f} |"
        )


if __name__ == "__main__":
    main()
