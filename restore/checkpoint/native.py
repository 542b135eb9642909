"""Our own format: a folder with ``config.json`` and ``model.safetensors``.

Weights are safetensors and configurations JSON: nothing that is read can carry code. Every file is written
beside its place and then moved there, so that an interruption leaves the old file or the new one. Between the two
files it leaves the new weights beside the old configuration; so the weights carry theirs, and ``config.json`` says to
which weights it belongs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from restore.checkpoint.files import (
    CONFIG,
    assemble,
    check_depth,
    only_tensors,
    parse_json,
    read_checkpoint,
)
from restore.colours import ColourPrior
from restore.files import write_atomically
from restore.prior import Prior
from restore.schedule import Schedule

WEIGHTS = "model.safetensors"
#: Where the weights' metadata has the configuration that they were saved with.
DESCRIPTION = "restore"
#: What tells, in a configuration, with which weights it was saved.
ID = "saved_with"


def save_prior(prior: Prior, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
    """Writes a prior as a folder.

    Args:
        prior: A prior whose network is one of ``restore.networks`` or a diffusers model.
        folder: Made if it does not exist; files of an earlier save are replaced.
        dtype: Weights are stored in this type, e.g. ``torch.float16`` for half the size.

    Returns:
        The folder.

    Raises:
        TypeError: If the network cannot be described by a configuration.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    weights = {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for name, value in prior.network.state_dict().items()
    }
    config = {
        **prior.config,
        "format": "restore-prior-1",
        "network": describe_network(prior.network),
        "schedule": prior.schedule.to_config(),
        "prediction": prior.prediction,
        "value_range": list(prior.value_range),
        "tile": prior.tile,
        "overlap": prior.overlap,
        **({"spectrum": prior.spectrum.to_config()} if prior.spectrum is not None else {}),
        **({"colours": prior.told()} if isinstance(prior, ColourPrior) else {}),
    }
    told = json.dumps(config)
    metadata = {
        DESCRIPTION: told
    }  # Alone: several are written in any order, and equal priors are equal files.
    text = json.dumps({**config, ID: _id_of(told)}, indent=2) + "\n"
    write_atomically(folder / WEIGHTS, lambda path: save_file(weights, path, metadata=metadata))
    write_atomically(folder / CONFIG, lambda path: path.write_text(text, encoding="utf-8"))
    return folder


def describe_network(network: nn.Module) -> dict[str, Any]:
    """The JSON-ready configuration of a network, from which :func:`build_network` makes it again."""
    from restore.networks import FoldedUNet, RMSUNet

    if isinstance(network, (FoldedUNet, RMSUNet)):
        return {"class": type(network).__name__, **network.config}
    config = getattr(network, "config", None)
    if type(network).__module__.startswith("diffusers.") and config is not None:
        kept = {k: v for k, v in dict(config).items() if not k.startswith("_")}
        return {"class": type(network).__name__, "config": json.loads(json.dumps(kept))}
    raise TypeError(
        f"a {type(network).__name__} cannot be saved: a folder holds no code, and only networks of restore.networks "
        f"and diffusers' models can be built again from what it says. Keep your class in your program, save its "
        f"weights, safetensors.torch.save_file(prior.network.state_dict(), 'weights.safetensors'), and later make the "
        f"network, load them into it, and say restore.Prior(network, schedule, prediction=...) again"
    )


def build_network(description: dict[str, Any]) -> nn.Module:
    """The network that :func:`describe_network` described, with random weights."""
    kind = description.get("class")
    if kind in ("FoldedUNet", "RMSUNet"):
        from restore import networks

        ours: nn.Module = getattr(networks, kind)(**{k: v for k, v in description.items() if k != "class"})
        return ours
    if kind == "UNet2DModel":
        from diffusers import UNet2DModel

        network: Any = UNet2DModel(**description["config"])
        return network
    raise ValueError(f"unknown network {kind!r}; known are FoldedUNet, RMSUNet and UNet2DModel")


def load_native(folder: Path, config: dict[str, Any], name: str) -> Prior:
    """The prior that :func:`save_prior` wrote.

    Args:
        folder: Its folder.
        config: What its ``config.json`` says.
        name: What messages call it, where that does not tell; nothing leaves it at what they call any prior.

    Raises:
        ValueError: If a file is damaged or does not fit its configuration.
    """
    path = folder / WEIGHTS
    found = only_tensors(read_checkpoint(path), path)
    config, source = _written_with(path, config), str(folder / CONFIG)
    needed = ("network", "schedule", "prediction", "value_range", "tile", "overlap")
    lacking = [key for key in needed if key not in config]
    if lacking:
        raise ValueError(f"{source!r} lacks {', '.join(lacking)}: the file is damaged, or was edited")
    _check_kinds(config, source)
    described = {k: v for k, v in config.items() if k not in (*needed, "format", ID)}
    try:
        network = config["network"]
        check_depth(network.get("config", network), found, source)
        schedule = Schedule.from_config(config["schedule"])
        low, high = config["value_range"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{source!r} describes nothing that can be built: {error}") from error
    network = assemble(
        lambda: build_network(network).float(), found, str(path), kind="its config", config=source
    )
    try:
        sizes = {"tile": config["tile"], "overlap": config["overlap"]}
        if isinstance(described.get("colours"), dict) and config["prediction"] == "v_prediction":
            told = described.pop("colours")
            prior: Prior = ColourPrior(network, schedule, (low, high), **told, config=described, **sizes)
        else:
            prior = Prior(network, schedule, config["prediction"], (low, high), config=described, **sizes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source!r} describes nothing that can be built: {error}") from error
    if name and "name" not in described:
        prior.name = name
    return prior


def _check_kinds(config: dict[str, Any], source: str) -> None:
    """Refuses values of the wrong kind, each by its name."""

    def side(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value > 0

    def pair(value: Any, fits: Callable[[Any], bool]) -> bool:
        return isinstance(value, list) and len(value) == 2 and all(map(fits, value))

    def number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    size = config.get("trained_size")
    expected = {
        "network": ("an object that describes it", isinstance(config["network"], dict)),
        "schedule": ("an object that describes it", isinstance(config["schedule"], dict)),
        "value_range": ("two numbers, [low, high]", pair(config["value_range"], number)),
        "tile": ("a whole number of pixels", side(config["tile"])),
        "overlap": ("a whole number of pixels", side(config["overlap"])),
        "trained_size": ("a side in pixels, or two", size is None or side(size) or pair(size, side)),
        "name": ("a word", isinstance(config.get("name"), (str, type(None)))),
    }
    for key, (words, fits) in expected.items():
        if not fits:
            raise ValueError(
                f"{source!r} describes nothing that can be built: {key} is {config[key]!r}; expected {words}"
            )


def _id_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _written_with(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of these weights: the file's, or their own where the file is of a save before theirs."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        told = (file.metadata() or {}).get(DESCRIPTION)
    # One that was edited keeps its id, and holds.
    if told is None or ID not in config or config[ID] == _id_of(told):
        return config
    return parse_json(told, str(path))
