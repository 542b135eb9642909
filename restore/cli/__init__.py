"""The ``restore`` command, which the example scripts are, too.

Its options are in ``parser``, the repairs in ``repairs``, all else that it does in ``commands``.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence

from restore.cli.parser import build_parser

__all__ = ["build_parser", "guarded", "main"]


#: How what was stopped goes on; a repair is begun anew.
GOES_ON = {
    "train": "; it goes on with --resume",
    "benchmark": "; it goes on with the same command",
    "zoo": "; a download goes on with the same command",
}


def guarded(run: Callable[[], object], goes_on: str = "") -> int:
    """Runs something; mistakes and warnings are told in a line instead of a traceback. Returns the exit status.

    Args:
        run: What to run.
        goes_on: The end of what is said when a person stops it.
    """
    formatted = warnings.formatwarning
    warnings.formatwarning = _one_line
    try:
        run()
        sys.stdout.flush()
    except BrokenPipeError:
        # ``restore methods | head``: who reads has seen enough. Nor is there a last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nstopped{goes_on}", file=sys.stderr)
        return 130
    finally:
        warnings.formatwarning = formatted
    return 0


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as a user of the shell wants it: what it says, and not the line of Python that it came from."""
    return f"warning: {' '.join(str(message).split())}\n"


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

    return guarded(run, GOES_ON.get(args.command, ""))
