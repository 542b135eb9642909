"""What priors know of colours: draws for the luma of pictures, beside their true colours.

    python tests/benchmarks/colours.py PICTURES [--priors photo colours] [--size 64] [--draws 16] [--limit 32]
    python tests/benchmarks/colours.py PICTURES --priors colours --known [--squares 3] [--held-out] [--of caltech101/]

Of every picture the centre is taken, as large a square as there is, reduced to ``--size`` pixels. For every prior, the
means over pictures of: PSNR of the mean of the draws, of single draws, and of the picture that ``restore.colorize``
makes of them; the chroma of that in CIELAB; and the correlation of the mean draw's colours with the true ones after the
mean colour of both was subtracted: what is known of the colour of things, beyond the tint of the whole.

``--known`` draws nothing, and tells what priors of colours know before anything is drawn: of the energy of all the
chroma, the share that is in the estimate of one call at the highest noise. 1 is all of it, 0 what a grey picture has.
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
from restore.colours import ColourPrior, luma_of
from restore.data import find_images, split
from restore.images import read_image, to_batch
from restore.metrics import psnr


def chosen(folder: Path, limit: int | None, part: int | None, beginning: str = "") -> list[Path]:
    """The pictures of a folder, or those of a part of its split; of many, some that are spread over them.

    With ``beginning``, those alone whose paths in the folder begin with it.
    """
    folder = folder.expanduser()
    paths = find_images(folder)
    paths = paths if part is None else split(paths, root=folder)[part]
    paths = [path for path in paths if path.relative_to(folder).as_posix().startswith(beginning)]
    if not paths:
        raise SystemExit(f"no picture of {str(folder)!r} that is asked for begins with {beginning!r}")
    if limit is not None and len(paths) > limit:
        paths = [paths[round(i)] for i in np.linspace(0, len(paths) - 1, limit)]
    return paths


def squares(paths: list[Path], size: int, count: int) -> Tensor:
    """Squares ``(N, 3, size, size)`` of pictures, reduced: the centre of each, or so many from one end to the other.

    Of a square picture there is one, whatever the number.
    """
    found = []
    for path in paths:
        picture = to_batch(read_image(path, mode="RGB"))[0]
        side = min(picture.shape[-2:])
        one = count == 1 or side == max(picture.shape[-2:])
        for where in [0.5] if one else np.linspace(0, 1, count):
            top, left = (int((n - side) * where) for n in picture.shape[-2:])
            square = picture[..., top : top + side, left : left + side]
            found.append(F.interpolate(square, (size, size), mode="area"))
    return torch.cat(found)


@torch.no_grad()
def share_known(prior: ColourPrior, luma: Tensor, truth: Tensor, seed: int, noises: int = 3) -> float:
    """The share of the chroma's energy in the estimate at the highest noise; of estimates, the mean over noises."""
    generator = torch.Generator().manual_seed(seed)
    low, high = prior.value_range
    wrong = 0.0
    for part, picture in zip(luma.split(32), truth.split(32), strict=True):
        given = prior.given(low + (high - low) * part)
        draws = torch.randn(noises, *picture.shape, generator=generator).to(prior.device)
        estimate = (torch.stack([given(noise, 1.0) for noise in draws]).mean(0).cpu() - low) / (high - low)
        wrong += float((estimate - picture).square().sum())
    return 1 - wrong / float((truth - luma).square().sum())


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
        "--squares",
        type=int,
        default=1,
        choices=range(1, 10),
        metavar="N",
        help="of each picture (default: its centre)",
    )
    parser.add_argument("--known", action="store_true", help="what is known before anything is drawn")
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        "--held-out",
        dest="part",
        action="store_const",
        const=1,
        help="those that training leaves for validation",
    )
    part.add_argument("--trained-on", dest="part", action="store_const", const=0, help="the others")
    parser.add_argument(
        "--of",
        default="",
        metavar="NAME",
        help="those whose paths in PICTURES begin so, as flowers or caltech101/",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    truth = squares(chosen(args.folder, args.limit, args.part, args.of), args.size, args.squares)
    luma = luma_of(truth)
    if args.known:
        priors = {name: restore.load_prior(name) for name in args.priors}
        for name, prior in priors.items():
            if not isinstance(prior, ColourPrior):
                parser.error(
                    f"--known is asked of priors of colours, and {name} is none: say --priors colours"
                )
        print(f"{len(truth)} squares of {args.size} x {args.size}\n\n| prior | chroma known |\n|---|--:|")
        for name, prior in priors.items():
            print(f"| {name} | {share_known(prior, luma, truth, args.seed):.3f} |")
        return
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
