"""What the ``restore`` command does beside repairs."""

from __future__ import annotations

import argparse


def train(args: argparse.Namespace) -> None:
    """Trains a prior on a folder of pictures."""
    from restore.colours import ColourPrior
    from restore.training import train as run

    apart = ("run", "photos", "output", "quiet", "command")
    given = {k: v for k, v in vars(args).items() if k not in apart and v is not None}
    prior = run(args.photos, args.output, progress=not args.quiet, **given)
    repair = "restore colorize" if isinstance(prior, ColourPrior) else "a repair"
    print(f"wrote {args.output}: give it to {repair} as --prior {args.output}")


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

    print(
        "auto\n    chooses among those below, by the operator, the noise and the budget of network calls\n\n"
        "Options stand behind a name: --method dps:zeta=0.5, --method tds:particles=16,twist=mmps\n"
    )
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
