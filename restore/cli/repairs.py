"""The repairs of the ``restore`` command: pictures are read, repaired, and written with a sheet beside them."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

#: What the channels of a grey picture may differ by, where white is 255: JPEG's rounding, and a scanner's tint.
TINT = 48
#: A mask that asks for more than this share of a picture, in wide areas, was probably meant the other way round.
MOST_FILLED = 0.6
#: A kernel of so many pixels a side fades towards its border, where the mean is below this share of the most.
LARGE_KERNEL, BRIGHT_BORDER = 64, 0.1


def inpaint(args: argparse.Namespace) -> None:
    """Fills in what is white in a mask."""
    import numpy as np
    import torch

    from operators import Mask, mask_from_image
    from restore.images import read_image
    from restore.methods.auto import has_wide_hole
    from restore.quality import QualityWarning
    from restore.tasks import inpaint as task

    image = read_image(args.image)
    kept = mask_from_image(
        args.mask,
        size=image.shape[:2],
        white="keep" if args.invert_mask else "fill",
        resize=args.resize_mask,
    ).numpy()
    if kept.all():
        fill, keep = ("black", "white") if args.invert_mask else ("white", "black")
        raise ValueError(f"nothing is {fill} in {str(args.mask)!r}: {fill} is filled in, and {keep} is kept")
    if not kept.any():
        fill = "black" if args.invert_mask else "white"
        raise ValueError(
            f"all of {str(args.mask)!r} is {fill}, and {fill} is filled in: nothing of {str(args.image)!r} "
            f"would be kept"
        )
    if (share := float(np.mean(~kept))) > MOST_FILLED and has_wide_hole(Mask(torch.from_numpy(kept))):
        warnings.warn(
            f"{share:.0%} of {str(args.image)!r} is to be filled in, as {str(args.mask)!r} says. "
            f"If the rest was meant, {'leave out' if args.invert_mask else 'say'} --invert-mask",
            QualityWarning,
            stacklevel=2,
        )
    results = task(image, kept, **settings(args))
    grey = np.where(
        kept if image.ndim == 2 else kept[..., None], image, np.asarray(full_scale(image) / 2, image.dtype)
    )
    write_results(args, results, {"to be filled in": grey}, "inpainted")


def told_noise(args: argparse.Namespace) -> float:
    """The noise that was told, where white is 1.

    Raises:
        ValueError: If it is negative, or more than the whole range.
    """
    noise: float = args.noise
    if not noise >= 0:
        raise ValueError(f"--noise is a standard deviation of at least 0, where white is 1; not {noise:g}")
    if noise > 1:
        raise ValueError(
            f"--noise is {noise:g}, where white is 1: for {noise:g} of 255 grey levels give {noise / 255:.2g}"
        )
    return noise


def super_resolve(args: argparse.Namespace) -> None:
    """Enlarges a picture."""
    from restore.images import read_image
    from restore.tasks import super_resolve as task

    image = read_image(args.image)
    results = task(image, args.scale, noise=told_noise(args) * full_scale(image), **settings(args))
    write_results(args, results, {"small": image}, "super-resolved")


def deblur(args: argparse.Namespace) -> None:
    """Undoes a known blur."""
    from operators import gaussian_kernel
    from restore.images import read_image
    from restore.tasks import deblur as task

    image = read_image(args.image)
    kernel = gaussian_kernel(args.sigma) if args.kernel is None else read_kernel(args.kernel)
    results = task(image, kernel, noise=told_noise(args) * full_scale(image), **settings(args))
    write_results(args, results, {"blurred": image}, "deblurred")


def read_kernel(path: Path) -> Any:
    """A blur's kernel from its picture, ``(H, W)`` in [0, 1].

    Raises:
        ValueError: If it is a colour picture, and so no kernel: the picture to be repaired, maybe.
    """
    import numpy as np

    from restore.images import read_image
    from restore.quality import QualityWarning

    pixels = read_image(path)
    if pixels.ndim == 3 and np.ptp(pixels, axis=-1).max() > TINT / 255 * full_scale(pixels):
        raise ValueError(
            f"{str(path)!r} is in colour: a kernel is a grey picture of a blurred point, bright in the middle of black"
        )
    grey = pixels if pixels.ndim == 2 else read_image(path, mode="L")
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if min(grey.shape) >= LARGE_KERNEL and border.mean() > BRIGHT_BORDER * grey.max():
        warnings.warn(
            f"{str(path)!r} is not black at its border, as a kernel of {grey.shape[1]} x {grey.shape[0]} pixels mostly "
            f"is: of a photograph, or a kernel that is inverted, the result means nothing",
            QualityWarning,
            stacklevel=2,
        )
    return grey / full_scale(pixels)


def colorize(args: argparse.Namespace) -> None:
    """Gives a grey picture colours."""
    from restore.images import read_image
    from restore.tasks import colorize as task

    image = read_image(args.image, mode="L")
    results = task(image, draws=args.draws, **settings(args))
    write_results(args, results, {"grey": image}, "colorized")


def full_scale(image: Any) -> float:
    """White in the units of an array: 255, 65535 or 1."""
    import numpy as np

    return float(np.iinfo(image.dtype).max) if image.dtype.kind == "u" else 1.0


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a task of :mod:`restore.tasks` that the common options give."""
    return {
        "method": args.method,
        "steps": args.steps,
        "samples": args.samples,
        "seed": args.seed,
        "device": args.device,
        "progress": not args.quiet,
        **({} if args.prior is None else {"prior": args.prior}),
    }


def write_results(args: argparse.Namespace, results: Any, columns: dict[str, Any], suffix: str) -> list[Path]:
    """Writes every result, and one sheet with everything side by side.

    Args:
        args: The parsed common options, with the picture's path in ``args.image``.
        results: The picture ``(H, W)`` or ``(H, W, C)``, uint8; with ``--samples n`` ``n`` of them.
        columns: Pictures to show before the results on the sheet, by title.
        suffix: Added to the picture's name where no output file was given.

    Returns:
        The files: the results, then the sheet.
    """
    from restore.images import write_image
    from restore.plots import sheet

    if args.samples is None:
        results = [results]
    first = args.output or Path(f"{args.image.stem}-{suffix}.png")
    names = (
        [first]
        if len(results) == 1
        else [first.with_stem(f"{first.stem}-{i}") for i in range(1, len(results) + 1)]
    )
    for name, picture in zip(names, results, strict=True):
        write_image(name, picture)
    titles = [suffix] if len(results) == 1 else [f"{suffix} {i}" for i in range(1, len(results) + 1)]
    shown = [*columns.values(), *results]
    names.append(first.with_name(f"{first.stem}-sheet.png"))
    write_image(names[-1], sheet(shown, [*columns, *titles], height=min(512, max(p.shape[0] for p in shown))))
    print("wrote", ", ".join(str(name) for name in names))
    return names
