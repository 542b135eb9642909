"""The command ``restore benchmark``."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what :func:`restore.benchmark.pictures` can be told."""
    parser.add_argument(
        "folder", type=Path, nargs="?", help="a folder of pictures, searched with its sub-folders"
    )
    parser.add_argument(
        "--posterior",
        action="store_true",
        help="in place of pictures, problems whose posterior is known exactly; --methods are then all by default",
    )
    parser.add_argument("--prior", default="photo", help="name or folder of the prior (default: photo)")
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="methods, classical tools or peers, as ddnm:steps=50,eta=0.85 (default: classical default)",
    )
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="names of tasks (default: all)")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures' centres (default: 256)")
    parser.add_argument("--limit", type=int, help="number of pictures (default: all)")
    parser.add_argument("--samples", type=int, default=1, help="number of draws to average (default: 1)")
    parser.add_argument(
        "--calls",
        type=_numbers,
        default=(),
        help="run every method at these numbers of network calls, e.g. 20,50,100",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("benchmark"),
        help="the folder for table, CSV and sheets; what is in it is not run again (default: benchmark)",
    )
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    """Runs the benchmark that the options ask for, and prints its tables."""
    from restore.benchmark import markdown, pictures
    from restore.benchmark.posterior import run_posterior

    if args.posterior:
        if args.folder is not None:
            raise ValueError("--posterior makes its own problems: leave the folder out")
        if args.tasks or args.limit or args.calls or args.samples != 1 or args.prior != "photo":
            raise ValueError("--posterior takes --methods, --seed, --output and --quiet alone")
        run_posterior(args.methods, seed=args.seed, output=args.output, progress=not args.quiet)
        return
    if args.folder is None:
        raise ValueError("give a folder of pictures, or --posterior")
    results = pictures(
        args.folder,
        args.prior,
        args.methods or ["classical", "default"],
        args.tasks,
        size=args.size,
        limit=args.limit,
        samples=args.samples,
        calls=args.calls,
        seed=args.seed,
        output=args.output,
        device=args.device,
        progress=not args.quiet,
    )
    print(markdown(results), end="")
    print(f"wrote {args.output}")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be whole numbers such as 20,50,100, not {text!r}") from None
