"""How well priors take noise from pictures that they were not trained on, in one call, whole and in tiles.

    python tests/benchmarks/denoising.py PHOTOS [--priors photo] [--sizes 128 512] [--tile 128] [--noise 25]

Of the pictures that training leaves for validation, those of at least a size are taken, their centres, with the same
noise for every prior. The mean PSNR of the estimate of one call, of the whole square and of its tiles, each alone: what
was learned from small crops is to hold on large pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import restore
from restore.benchmark.contenders import denoised
from restore.benchmark.runs import centre
from restore.data import find_images, split
from restore.metrics import psnr


def in_tiles(prior: restore.Prior, y: Tensor, noise: float, side: int) -> Tensor:
    """What is :func:`denoised` of tiles, each alone."""
    rows = [
        torch.cat([denoised(prior, tile, noise) for tile in row.split(side, -1)], -1)
        for row in y.split(side, -2)
    ]
    return torch.cat(rows, -2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--priors", nargs="+", default=["photo"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--tile", type=int, default=128)
    parser.add_argument("--noise", type=float, default=25, help="standard deviation, where white is 255")
    parser.add_argument("--limit", type=int, help="so many pictures of each size")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    held_out = split(find_images(args.folder), root=args.folder)[1]
    noise = args.noise / 255
    print("| prior | side | pictures | noisy, dB | whole, dB | in tiles, dB |\n|---|--:|--:|--:|--:|--:|")
    for size in args.sizes:
        generator = torch.Generator().manual_seed(args.seed)
        large = [path for path in held_out if min(Image.open(path).size) >= size][: args.limit]
        truths = [centre(path, size)[None] for path in large]
        pairs = [(x, x + noise * torch.randn(x.shape, generator=generator)) for x in truths]
        if not pairs:
            parser.error(f"no picture that is held out has {size} x {size} pixels: give smaller --sizes")
        for name in args.priors:
            prior = restore.load_prior(name)
            told = [name, str(size), str(len(pairs))]
            for restored in (
                lambda y: y,
                lambda y, prior=prior: denoised(prior, y, noise),
                lambda y, prior=prior: in_tiles(prior, y, noise, args.tile),
            ):
                quality = [float(psnr(restored(y).clamp(0, 1), x).mean()) for x, y in pairs]
                told.append(f"{sum(quality) / len(quality):.2f}")
            print("| " + " | ".join(told) + " |")


if __name__ == "__main__":
    main()
