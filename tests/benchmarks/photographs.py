"""Repairs of photographs, beside the classical tools in the same run: mean PSNR / SSIM, seconds, data misfit.

    python tests/benchmarks/photographs.py FOLDER [--tasks random box ...] [--images 8] [--sheets OUT]

Every picture's centre 256 x 256 is used. Figures depend on the seed alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage.restoration import denoise_nl_means, inpaint_biharmonic, wiener

import restore
from operators import (
    Blur,
    Downsample,
    Grayscale,
    LinearOperator,
    Mask,
    box_mask,
    gaussian_kernel,
    random_mask,
)
from restore.data import find_images
from restore.images import read_image, write_image
from restore.metrics import data_misfit, psnr, ssim
from restore.plots import sheet

SIZE = 256
Array = np.ndarray[Any, Any]


def text_mask(share: float = 0.15) -> torch.Tensor:
    """Lines of writing that cover a share of the picture; True where it is kept."""
    for size in range(10, 40):
        picture = Image.new("L", (SIZE, SIZE))
        draw = ImageDraw.Draw(picture)
        for line in range(0, SIZE, size + 4):
            draw.text(
                (2, line),
                "the quick brown fox jumps over the lazy dog " * 3,
                255,
                ImageFont.load_default(size),
            )
        covered = np.asarray(picture) > 127
        if covered.mean() >= share:
            break
    return torch.from_numpy(~covered)


@dataclass(frozen=True)
class Task:
    """A measurement, the classical tool for it, and the settings of ours.

    Attributes:
        operator: What is measured.
        noise: Standard deviation of the noise, white being 1.
        classical: Its name, and what it makes of ``y`` ``(H, W, C)`` in [0, 1].
        runs: Methods and their options, the default of the task first.
    """

    operator: LinearOperator
    noise: float
    classical: tuple[str, Callable[[Array], Array]]
    runs: list[tuple[str, dict[str, Any]]]


def tasks() -> dict[str, Task]:
    """The tasks of the scoreboard."""
    kernel = gaussian_kernel(3.0)

    def filled(mask: torch.Tensor) -> tuple[str, Callable[[Array], Array]]:
        return "biharmonic", lambda y: inpaint_biharmonic(y, ~mask.numpy(), channel_axis=-1)

    def wiener_(y: Array) -> Array:
        return np.stack([wiener(y[..., c], kernel.numpy(), 0.01, clip=True) for c in range(3)], -1)

    def lanczos(y: Array) -> Array:
        return cv2.resize(y.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_LANCZOS4)

    ddnm = ("ddnm", {"steps": 100})
    kept = random_mask(SIZE, 0.3, seed=0), text_mask(), box_mask(SIZE, 64)
    return {
        "70 % of pixels lost": Task(Mask(kept[0]), 0.0, filled(kept[0]), [ddnm]),
        "text overlay 15 %": Task(Mask(kept[1]), 0.0, filled(kept[1]), [ddnm]),
        "64x64 box": Task(Mask(kept[2]), 0.0, filled(kept[2]), [ddnm]),
        "x4 super-resolution": Task(
            Downsample(4), 0.0, ("Lanczos", lanczos), [("ddnm", {"steps": 100, "eta": 1.0})]
        ),
        "blur std 3, noise 0.01": Task(
            Blur(kernel), 0.01, ("Wiener", wiener_), [("diffpir", {"steps": 30, "zeta": 1.0})]
        ),
        "colourisation": Task(Grayscale(), 0.0, ("grey", lambda y: np.repeat(y, 3, -1)), [ddnm]),
    }


def denoising(prior: restore.Prior, pictures: list[Array]) -> None:
    """One call of the prior against noise of 25/255, beside non-local means."""
    t = prior.schedule.time_of(2 * 25 / 255)
    alpha, _ = prior.schedule(t)
    ours, theirs = [], []
    for i, picture in enumerate(pictures):
        x = torch.from_numpy(picture).permute(2, 0, 1)[None]
        y = x + 25 / 255 * torch.randn(x.shape, generator=torch.Generator().manual_seed(i))
        with torch.inference_mode():
            x_hat = (prior(alpha * (2 * y - 1), t) + 1) / 2
        ours.append(psnr(x_hat.clamp(0, 1)[0], x[0]))
        noisy = y[0].permute(1, 2, 0).numpy()
        sigma = 25 / 255
        clean = denoise_nl_means(
            noisy, h=0.8 * sigma, sigma=sigma, patch_size=5, patch_distance=6, channel_axis=-1
        )
        theirs.append(psnr(np.clip(clean, 0, 1).astype(np.float32), picture))
    print(
        f"| denoise, 25/255 | non-local means | {np.mean(theirs):.2f} | prior | 1 | {np.mean(ours):.2f} | | |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--tasks", nargs="*", default=[], help="words in the names of the tasks to run (default: all)"
    )
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--prior", default="photo")
    parser.add_argument("--device")
    parser.add_argument("--sheets", type=Path, help="a folder for a sheet of pictures a task")
    args = parser.parse_args()
    pictures = []
    for path in find_images(args.folder)[: args.images]:
        picture = read_image(path, mode="RGB").astype(np.float32) / 255
        top, left = (picture.shape[0] - SIZE) // 2, (picture.shape[1] - SIZE) // 2
        pictures.append(picture[top : top + SIZE, left : left + SIZE])
    prior = restore.load_prior(args.prior)
    print("| task | classical | PSNR / SSIM | method | calls | PSNR / SSIM | misfit | s an image |")
    print("|---|---|---|---|---|---|---|---|")
    if not args.tasks or "denoise" in args.tasks:
        denoising(prior, pictures)
    for name, task in tasks().items():
        if args.tasks and not any(word in name for word in args.tasks):
            continue
        run_task(name, task, pictures, prior, args)


def run_task(
    name: str, task: Task, pictures: list[Array], prior: restore.Prior, args: argparse.Namespace
) -> None:
    """One row a method; and a sheet, if asked for."""
    ys = []
    for i, picture in enumerate(pictures):
        y = task.operator(torch.from_numpy(picture).permute(2, 0, 1)[None])[0]
        y = y + task.noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(i))
        ys.append(y.permute(1, 2, 0).numpy())
    tool, apply = task.classical
    theirs = [np.clip(apply(y), 0, 1).astype(np.float32) for y in ys]
    shown = [pictures, ys, theirs]
    titles = ["truth", "measurement", tool]
    for method, options in task.runs:
        calls = 0

        def count(state: Any) -> None:
            nonlocal calls
            calls += 1

        start = time.perf_counter()
        ours = [
            restore.solve(
                y, task.operator, method, prior=prior, noise=task.noise, seed=0, progress=False, callback=count,
                device=args.device, **options,
            )
            for y in ys
        ]  # fmt: skip
        took = (time.perf_counter() - start) / len(ys)
        misfit = np.mean([data_misfit(x, y, task.operator) for x, y in zip(ours, ys, strict=True)])
        print(
            f"| {name} | {tool} | {scores(theirs, pictures)} | {method} | {calls // len(ys)} "
            f"| {scores(ours, pictures)} | {misfit:.4f} | {took:.1f} |",
            flush=True,
        )
        shown.append(ours)
        titles.append(method)
    if args.sheets:
        cells = [column[i] for i in range(len(pictures)) for column in shown]
        names = [title for _ in pictures for title in titles]
        picture = sheet([np.clip(c, 0, 1) for c in cells], names, columns=len(shown), height=256)
        write_image(args.sheets / f"{name.replace(' ', '-').replace('%', 'percent')}.png", picture)


def scores(found: list[Array], truth: list[Array]) -> str:
    """Mean PSNR and SSIM."""
    pairs = list(zip(found, truth, strict=True))
    return f"{np.mean([psnr(a, b) for a, b in pairs]):.2f} / {np.mean([ssim(a, b) for a, b in pairs]):.3f}"


if __name__ == "__main__":
    main()
