"""The ``restore`` command, and what the example scripts share with it: options, reading, writing."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

#: A mask that asks for more than this share of a picture, in wide areas, was probably meant the other way round.
MOST_FILLED = 0.6


def common_options() -> argparse.ArgumentParser:
    """The options that every repair has, for ``argparse.ArgumentParser(parents=[common_options()])``."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("how")
    group.add_argument(
        "-o", "--output", type=Path, help="the file to write (default: the picture's name with a suffix)"
    )
    group.add_argument("--method", help="the method, see `restore methods` (default: what suits the task)")
    group.add_argument("--steps", type=_count, help="number of steps: more is finer and slower")
    group.add_argument(
        "--samples", type=_count, help="so many draws, which differ (default: one good picture)"
    )
    group.add_argument("--seed", type=int, default=0, help="another number gives another result (default: 0)")
    group.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    group.add_argument(
        "--prior", default="photo", help="name, folder or file of the prior (default: photo, in the package)"
    )
    group.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a task of :mod:`restore.tasks` that the common options give."""
    return {
        "method": args.method,
        "steps": args.steps,
        "samples": args.samples,
        "seed": args.seed,
        "device": args.device,
        "prior": args.prior,
        "progress": not args.quiet,
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


def noise_of(args: argparse.Namespace) -> float:
    """The noise that was told, where white is 1.

    Raises:
        ValueError: If it is more than the whole range.
    """
    noise: float = args.noise
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
    results = task(image, args.scale, noise=noise_of(args) * full_scale(image), **settings(args))
    write_results(args, results, {"small": image}, "super-resolved")


def deblur(args: argparse.Namespace) -> None:
    """Undoes a known blur."""
    from operators import gaussian_kernel
    from restore.images import read_image
    from restore.tasks import deblur as task

    image = read_image(args.image)
    kernel = gaussian_kernel(args.sigma) if args.kernel is None else read_image(args.kernel, mode="L") / 255.0
    results = task(image, kernel, noise=noise_of(args) * full_scale(image), **settings(args))
    write_results(args, results, {"blurred": image}, "deblurred")


def colorize(args: argparse.Namespace) -> None:
    """Gives a grey picture colours."""
    from restore.images import read_image
    from restore.tasks import colorize as task

    image = read_image(args.image, mode="L")
    results = task(image, **({} if args.draws is None else {"draws": args.draws}), **settings(args))
    write_results(args, results, {"grey": image}, "colorized")


def full_scale(image: Any) -> float:
    """White in the units of an array: 255, 65535 or 1."""
    import numpy as np

    return float(np.iinfo(image.dtype).max) if image.dtype.kind == "u" else 1.0


def train(args: argparse.Namespace) -> None:
    """Trains a prior on a folder of pictures."""
    from restore.training import train as run

    apart = ("run", "photos", "output", "quiet", "command")
    given = {k: v for k, v in vars(args).items() if k not in apart and v is not None}
    run(args.photos, args.output, progress=not args.quiet, **given)
    print(f"wrote {args.output}: give it to a repair as --prior {args.output}")


def sample(args: argparse.Namespace) -> None:
    """Draws pictures from a prior."""
    from restore.images import write_image
    from restore.plots import grid
    from restore.solve import sample as draw

    shape = (args.count, args.channels, args.size, args.size)
    pictures = draw(
        args.prior, shape, steps=args.steps, seed=args.seed, device=args.device, progress=not args.quiet
    )
    write_image(args.output, grid(pictures.clamp(0, 1)))
    print("wrote", args.output)


def benchmark(args: argparse.Namespace) -> None:
    """Runs priors and methods on the standard tasks, beside the classical tools."""
    from restore.benchmark.command import run

    run(args)


def methods(args: argparse.Namespace) -> None:
    """Lists the methods."""
    from restore.methods import table

    for method in table():
        needs = ", ".join(method.needs) or "any differentiable operator"
        options = ", ".join(f"{k}={v}" for k, v in method.options.items())
        print(
            f"{method.name}\n    {method.paper}\n    needs: {needs}\n    steps: {method.steps}; options: {options}\n"
        )


def zoo(args: argparse.Namespace) -> None:
    """Lists the named priors, downloads one, or says where they lie."""
    from restore.zoo import command

    if args.action == "get":
        if args.name is None:
            raise ValueError("get what? `restore zoo` lists the names, `restore zoo get NAME` downloads one")
        command.get(args.name, progress=not args.quiet)
    elif args.action == "where":
        command.where(args.name)
    elif args.name is not None:
        raise ValueError(f"list takes no name: `restore zoo get {args.name}` downloads one")
    else:
        command.show()


def training_options(parser: argparse.ArgumentParser) -> None:
    """Adds what :func:`restore.train` can be told."""
    from dataclasses import fields

    from restore.training import TrainingOptions

    parser.add_argument("photos", type=Path, help="a folder of pictures, searched with its sub-folders")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the folder that the prior is written to"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on exactly from the state in the output folder"
    )
    parser.add_argument("--init", type=Path, help="a prior folder to take the first weights from")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    described = _attributes(TrainingOptions.__doc__ or "")
    for option in fields(TrainingOptions):
        flag, text = (
            "--" + option.name.replace("_", "-"),
            f"{described[option.name]} (default: {option.default})",
        )
        if isinstance(option.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            kind = str if "str" in str(option.type) else type(option.default)
            parser.add_argument(flag, type=kind, default=None, help=text)


def _attributes(docstring: str) -> dict[str, str]:
    """The descriptions in a docstring's list of attributes: the help text is written in one place only."""
    texts: dict[str, str] = {}
    name = ""
    for line in docstring.partition("Attributes:")[2].splitlines():
        head, colon, rest = line.strip().partition(": ")
        if colon and head.isidentifier():
            name, texts[head] = head, rest
        elif name and line.strip():
            texts[name] += " " + line.strip()
    return {k: v.replace("``", "").replace("%", "%%").rstrip(".") for k, v in texts.items()}


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of the ``restore`` command, or, under the name ``prog``, of a script for one of its commands."""
    from restore.benchmark.command import add_options as benchmark_options

    parser = argparse.ArgumentParser(
        prog="restore",
        description="Repair pictures with a diffusion prior. `restore COMMAND --help` tells more.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], None], repair: bool = False
    ) -> argparse.ArgumentParser:
        text = run.__doc__ or ""
        parents = [common_options()] if repair else []
        sub = commands.add_parser(name, prog=prog, help=text, description=text, parents=parents)
        sub.set_defaults(run=run)
        if repair:
            sub.add_argument("image", type=Path, help="the picture")
        return sub

    sub = command("inpaint", inpaint, repair=True)
    sub.add_argument(
        "mask", type=Path, help="a picture of the same size, white where something is to be filled in"
    )
    sub.add_argument(
        "--invert-mask", action="store_true", help="fill in what is black, and keep what is white"
    )
    sub.add_argument(
        "--resize-mask", action="store_true", help="bring a mask of another size to the picture's"
    )
    sub = command("super-resolve", super_resolve, repair=True)
    sub.add_argument("--scale", type=int, default=4, help="how many times higher and wider (default: 4)")
    sub.add_argument("--noise", type=float, default=0.0, help="its noise, white being 1 (default: 0)")
    sub = command("deblur", deblur, repair=True)
    blur = sub.add_mutually_exclusive_group(required=True)
    blur.add_argument("--sigma", type=float, help="a Gaussian blur's standard deviation, in pixels")
    blur.add_argument("--kernel", type=Path, help="a picture of the blur's kernel")
    sub.add_argument("--noise", type=float, default=0.01, help="its noise, white being 1 (default: 0.01)")
    sub = command("colorize", colorize, repair=True)
    sub.add_argument(
        "--draws",
        type=_count,
        help="without --samples: of how many draws the picture is the most typical (default: 16; 1 is 16 times faster)",
    )

    sub = command("sample", sample)
    sub.add_argument("--prior", default="photo", help="name or folder of the prior (default: photo)")
    sub.add_argument("-o", "--output", type=Path, default=Path("samples.png"), help="default: samples.png")
    sub.add_argument("--count", type=int, default=16, help="default: 16")
    sub.add_argument("--size", type=int, default=64, help="height and width in pixels (default: 64)")
    sub.add_argument("--channels", type=int, default=3, help="default: 3")
    sub.add_argument("--steps", type=int, default=250, help="default: 250")
    sub.add_argument("--seed", type=int, default=0, help="default: 0")
    sub.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    training_options(command("train", train))
    benchmark_options(command("benchmark", benchmark))
    command("methods", methods).set_defaults(output=None)
    sub = command("zoo", zoo)
    sub.set_defaults(output=None)
    sub.add_argument(
        "action", nargs="?", choices=("list", "get", "where"), default="list", help="default: list"
    )
    sub.add_argument("name", nargs="?", help="for get: the prior to download; for where: whose place")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def guarded(run: Callable[[], object]) -> int:
    """Runs something; a user's mistake is told in one line instead of a traceback. Returns the exit status."""
    try:
        run()
        sys.stdout.flush()
    except (
        BrokenPipeError
    ):  # ``restore methods | head``: who reads has seen enough. Nor is there a last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nstopped; a training goes on with --resume, a benchmark or a download with the same command",
            file=sys.stderr,
        )
        return 130
    return 0


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """The ``restore`` command; returns its exit status: 0, or 2 after a mistake that it told.

    Args:
        arguments: The command line, ``sys.argv[1:]`` by default.
        prog: The name of a script that stands for one of the commands, for its help.
    """
    args = build_parser(prog).parse_args(arguments)

    def run() -> None:
        if args.output is not None and args.command not in ("train", "benchmark"):
            from restore.images import check_destination

            check_destination(args.output)  # Now, and not when the work is done.
            for kind in ("image", "mask", "kernel"):
                source = getattr(args, kind, None)
                both = source is not None and args.output.exists() and source.exists()
                if both and args.output.samefile(source):
                    raise ValueError(
                        f"the output {str(args.output)!r} is the {kind} itself: give another file"
                    )
        args.run(args)

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
