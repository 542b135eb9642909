"""The options of the ``restore`` command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from restore.cli import commands, repairs


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of the ``restore`` command, or, under the name ``prog``, of a script for one of its commands."""
    from restore.benchmark.command import add_options as benchmark_options

    parser = argparse.ArgumentParser(
        prog="restore",
        description="Repair pictures with a diffusion prior. `restore COMMAND --help` tells more.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], None], repair: bool = False
    ) -> argparse.ArgumentParser:
        text = run.__doc__ or ""
        parents = [common_options()] if repair else []
        sub = subparsers.add_parser(name, prog=prog, help=text, description=text, parents=parents)
        sub.set_defaults(run=run)
        if repair:
            sub.add_argument("image", type=Path, help="the picture")
        return sub

    sub = command("inpaint", repairs.inpaint, repair=True)
    sub.add_argument(
        "mask", type=Path, help="a picture of the same size, white where something is to be filled in"
    )
    sub.add_argument(
        "--invert-mask", action="store_true", help="fill in what is black, and keep what is white"
    )
    sub.add_argument(
        "--resize-mask", action="store_true", help="bring a mask of another size to the picture's"
    )
    sub = command("super-resolve", repairs.super_resolve, repair=True)
    sub.add_argument("--scale", type=int, default=4, help="how many times higher and wider (default: 4)")
    sub.add_argument("--noise", type=float, default=0.0, help="its noise, white being 1 (default: 0)")
    sub = command("deblur", repairs.deblur, repair=True)
    blur = sub.add_mutually_exclusive_group(required=True)
    blur.add_argument("--sigma", type=float, help="a Gaussian blur's standard deviation, in pixels")
    blur.add_argument("--kernel", type=Path, help="a picture of the blur's kernel")
    sub.add_argument("--noise", type=float, default=0.01, help="its noise, white being 1 (default: 0.01)")
    sub = command("colorize", repairs.colorize, repair=True)
    sub.add_argument(
        "--draws",
        type=_count,
        help="without --samples: of how many draws the picture is made (default: 16; 1 is 16 times faster)",
    )

    sub = command("sample", commands.sample)
    sub.add_argument("--prior", default="photo", help="name or folder of the prior (default: photo)")
    sub.add_argument("-o", "--output", type=Path, default=Path("samples.png"), help="default: samples.png")
    sub.add_argument("--count", type=int, default=16, help="default: 16")
    sub.add_argument("--size", type=int, default=64, help="height and width in pixels (default: 64)")
    sub.add_argument("--channels", type=int, default=3, help="default: 3")
    sub.add_argument("--steps", type=int, default=250, help="default: 250")
    sub.add_argument("--seed", type=int, default=0, help="default: 0")
    sub.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    training_options(command("train", commands.train))
    benchmark_options(command("benchmark", commands.benchmark))
    command("methods", commands.methods).set_defaults(output=None)
    sub = command("zoo", commands.zoo)
    sub.set_defaults(output=None)
    sub.add_argument(
        "action", nargs="?", choices=("list", "get", "where"), default="list", help="default: list"
    )
    sub.add_argument("name", nargs="?", help="for get: the prior to download; for where: whose place")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def common_options() -> argparse.ArgumentParser:
    """The options that every repair has, for ``argparse.ArgumentParser(parents=[common_options()])``."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("how")
    group.add_argument(
        "-o", "--output", type=Path, help="the file to write (default: the picture's name with a suffix)"
    )
    group.add_argument(
        "--method",
        help="the method, see `restore methods`, with options as in diffpir:zeta=0.3 (default: what suits the task)",
    )
    group.add_argument("--steps", type=_count, help="number of steps: more is finer and slower")
    group.add_argument(
        "--samples", type=_count, help="so many draws, which differ (default: one good picture)"
    )
    group.add_argument("--seed", type=int, default=0, help="another number gives another result (default: 0)")
    group.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    group.add_argument(
        "--prior",
        help="name, folder or file of the prior (default, in the package: photo, and colours for colorize without "
        "a method)",
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


def training_options(parser: argparse.ArgumentParser) -> None:
    """Adds what :func:`restore.train` can be told."""
    from dataclasses import fields

    from restore.training import TrainingOptions

    parser.add_argument("photos", type=Path, help="a folder of pictures, searched with its sub-folders")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the folder that the prior is written to"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on exactly from the state in the output folder, with the options it had (but for --device)",
    )
    parser.add_argument(
        "--init",
        help="a prior to begin with, by name or folder: photo; for --colours photo as well, or colours. Not looked at "
        "with --resume",
    )
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
