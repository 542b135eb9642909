"""What is on disk beside the prior: all that a resumed run needs, and the log of the losses."""

from __future__ import annotations

import json
import time
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restore.checkpoint import describe_network
from restore.files import write_atomically
from restore.schedule import Schedule
from restore.training.loss import EMA
from restore.training.options import TrainingOptions

STATE = "training.safetensors"
LOG = "log.jsonl"


def save_state(
    path: Path,
    step: int,
    network: nn.Module,
    ema: EMA,
    optimizer: torch.optim.Optimizer,
    options: TrainingOptions,
    schedule: Schedule,
    config: dict[str, Any],
) -> None:
    """Writes the state after ``step`` updates; the file replaces its predecessor at once."""
    from safetensors.torch import save_file

    state = {f"network.{k}": v for k, v in network.state_dict().items()}
    state |= {f"ema.{k}": v for k, v in ema.network.state_dict().items()}
    for name, parameter in network.named_parameters():
        moments = optimizer.state.get(parameter, {})
        state |= {f"{k}.{name}": moments[k] for k in ("exp_avg", "exp_avg_sq") if k in moments}
    state = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    about = {
        "step": step,
        "options": asdict(options),
        "network": describe_network(network),
        "schedule": schedule.to_config(),
        "config": config,
    }
    # One file holds all that a resumed run needs: two could be of different steps after an interruption.
    metadata = {"restore": json.dumps(about)}
    write_atomically(path, lambda temporary: save_file(state, temporary, metadata=metadata))


def read_about(path: Path) -> dict[str, Any]:
    """What a state is of: its ``step``, ``options``, ``network``, ``schedule`` and ``config``, without its tensors.

    Raises:
        FileNotFoundError: If there is none.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise FileNotFoundError(f"nothing to resume: there is no {str(path)!r}; train without resume first")
    with safe_open(path, framework="pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["restore"])
    return about


def check_options(path: Path, about: dict[str, Any], options: TrainingOptions) -> None:
    """Refuses options with which a training would not go on as it was.

    Args:
        path: Where its state is.
        about: What that is of (:func:`read_about`).
        options: Those it is to go on with.

    Raises:
        ValueError: If they are others than before, or it has made more updates than are to be made.
    """
    step = int(about["step"])
    if step > options.steps:
        raise ValueError(
            f"{str(path.parent)!r} has made {step} updates, more than steps={options.steps} (--steps): give the number "
            f"in all, not of those to come"
        )
    # A training that is older than an option went on as that option's default does.
    before = {f.name: f.default for f in fields(options) if f.default is not MISSING} | about["options"]
    free = {"steps", "save_every", "sample_every", "validate_every", "compile"}
    now = asdict(options)
    changed = [k for k in now if k not in free and before[k] != now[k]]
    # An option that is no more was off by default.
    gone = [k for k in before if k not in now and before[k]]
    if changed or gone:
        told = ", ".join(
            [f"{k} was {before[k]} and is {now[k]}" for k in changed]
            + [f"{k} was {before[k]} and is no longer an option" for k in gone]
        )
        raise ValueError(
            f"cannot go on exactly with other options ({told}): leave them out, or start anew from the "
            f"saved prior (init=, --init)"
        )


def load_state(
    path: Path,
    network: nn.Module,
    ema: EMA,
    optimizer: torch.optim.Optimizer,
    options: TrainingOptions,
    schedule: Schedule,
) -> int:
    """Reads a state into a network, its average and its optimizer; returns the number of updates.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is of another network, schedule or other options, or has more updates than are to be made.
    """
    from safetensors.torch import load_file

    about, state = read_about(path), load_file(path)
    check_options(path, about, options)
    before, now = about["network"], json.loads(json.dumps(describe_network(network)))
    if before != now:
        other = ", ".join(k for k in {**before, **now} if before.get(k) != now.get(k))
        raise ValueError(f"{str(path)!r} is the state of another network, of which {other} differ: {before}")
    if Schedule.from_config(about["schedule"]) != schedule:
        raise ValueError(
            f"{str(path)!r} is the state of a training with another schedule: {about['schedule']}"
        )
    step = int(about["step"])

    def part(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}

    network.load_state_dict(part("network."))
    ema.network.load_state_dict(part("ema."))
    first, second = part("exp_avg."), part("exp_avg_sq.")
    for name, parameter in network.named_parameters():
        if name in first:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step), device=parameter.device),
                # In the parameter's own memory order: fused AdamW reads both as flat memory.
                "exp_avg": torch.empty_like(parameter).copy_(first[name]).detach(),
                "exp_avg_sq": torch.empty_like(parameter).copy_(second[name]).detach(),
            }
    return step


class Log:
    """One line of JSON an entry, in the order of the updates.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, entry: dict[str, Any]) -> None:
        """Adds an entry."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def losses(self, recent: list[float], last: int, since: float) -> None:
        """Adds the losses of the updates up to number ``last``, and the seconds since a monotonic time."""
        seconds = round(time.monotonic() - since, 1)
        for number, value in enumerate(recent, last - len(recent) + 1):
            self.note({"step": number, "loss": value, **({"seconds": seconds} if number == last else {})})

    def cut(self, step: int) -> None:
        """Drops what an interrupted run logged after its last checkpoint, at update number ``step``."""
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            # A line without its end was being written when the run was interrupted.
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_atomically(self.path, lambda p: p.write_text("".join(kept), encoding="utf-8"))
