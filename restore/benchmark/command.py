"""The command ``restore benchmark``."""

from __future__ import annotations

import argparse
from pathlib import Path

#: What only ``--posterior`` takes, by the names of :func:`restore.benchmark.posterior.run_posterior`.
KNOWN = ("protocols", "draws", "problems", "dimensions", "steps")
#: What pictures alone can be told, and what holds where nothing is.
OF_PICTURES = {
    "prior": "photo",
    "tasks": None,
    "size": 256,
    "limit": None,
    "samples": 1,
    "calls": (),
    "device": None,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what :func:`restore.benchmark.pictures` can be told."""
    parser.add_argument(
        "folder", type=Path, nargs="?", help="a folder of pictures, searched with its sub-folders"
    )
    parser.add_argument(
        "--posterior",
        action="store_true",
        help="in place of pictures, problems whose posterior is known exactly; --methods are then all by default, "
        "and the peers that are installed",
    )
    known = parser.add_argument_group("with --posterior")
    known.add_argument(
        "--protocols",
        nargs="+",
        metavar="NAME",
        help="some of gaussian, mixture and flat-mixture (default: gaussian mixture)",
    )
    known.add_argument("--draws", type=int, help="draws of each posterior (default: 4000 and 1000)")
    known.add_argument("--problems", type=int, help="measurements of each kind (default: 3 and 8)")
    known.add_argument(
        "--dimensions", type=_numbers, help="numbers of values of the mixture, e.g. 8,80 (default: 8,80,800)"
    )
    known.add_argument(
        "--steps", type=int, help="steps of every method (default: 200 for the Gaussian; each method's own)"
    )
    parser.add_argument("--prior", help="name or folder of the prior (default: photo)")
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="methods, classical tools or peers, as ddnm:steps=50,eta=0.85 (default: classical default)",
    )
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="names of tasks (default: all)")
    parser.add_argument("--size", type=int, help="side of the pictures' centres (default: 256)")
    parser.add_argument("--limit", type=int, help="number of pictures (default: all)")
    parser.add_argument("--samples", type=int, help="number of draws to average (default: 1)")
    parser.add_argument(
        "--calls",
        type=_numbers,
        help="run every method at these numbers of network calls, e.g. 20,50,100",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("benchmark"),
        help="the folder for table, CSV and sheets; of pictures, what is in it is not run again, and a table of "
        "posteriors is not overwritten (default: benchmark)",
    )
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(**OF_PICTURES)


def run(args: argparse.Namespace) -> None:
    """Runs the benchmark that the options ask for, and prints its tables."""
    from restore.benchmark import markdown, pictures
    from restore.benchmark.posterior import run_posterior

    if args.posterior:
        if args.folder is not None:
            raise ValueError("--posterior makes its own problems: leave the folder out")
        if any(getattr(args, name) != usual for name, usual in OF_PICTURES.items()):
            raise ValueError(
                f"--posterior takes --methods, {', '.join(map(_flag, KNOWN))}, --seed, --output and --quiet alone"
            )
        given = {name: getattr(args, name) for name in KNOWN if getattr(args, name) is not None}
        run_posterior(
            args.methods,
            peers=args.methods is None,
            seed=args.seed,
            output=args.output,
            progress=not args.quiet,
            **given,
        )
        return
    alone = [_flag(name) for name in KNOWN if getattr(args, name) is not None]
    if alone:
        raise ValueError(f"{alone[0]} is for --posterior; on pictures, write ddnm:steps=50 or use --calls")
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


def _flag(name: str) -> str:
    return f"--{name}"


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be whole numbers such as 20,50,100, not {text!r}") from None
