"""Priors as files: a folder with ``config.json`` and ``model.safetensors``.

Weights are safetensors and configurations JSON: nothing that is read can carry code. Every file is written
beside its place and then moved there, so that an interruption leaves the old file or the new one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restore.files import write_atomically
from restore.memory import precision
from restore.prior import Prior
from restore.schedule import Schedule

CONFIG, WEIGHTS = "config.json", "model.safetensors"


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
    }
    write_atomically(folder / WEIGHTS, lambda path: save_file(weights, path, metadata={"format": "pt"}))
    text = json.dumps(config, indent=2) + "\n"
    write_atomically(folder / CONFIG, lambda path: path.write_text(text, encoding="utf-8"))
    return folder


def describe_network(network: nn.Module) -> dict[str, Any]:
    """The JSON-ready configuration of a network, from which :func:`build_network` makes it again."""
    from restore.networks import FoldedUNet

    if isinstance(network, FoldedUNet):
        return {"class": "FoldedUNet", **network.config}
    config = getattr(network, "config", None)
    if type(network).__module__.startswith("diffusers.") and config is not None:
        kept = {k: v for k, v in dict(config).items() if not k.startswith("_")}
        return {"class": type(network).__name__, "config": json.loads(json.dumps(kept))}
    raise TypeError(
        f"a {type(network).__name__} cannot be saved: only networks of restore.networks and diffusers' models "
        f"can be described by a configuration. Save its state_dict with safetensors yourself."
    )


def build_network(description: dict[str, Any]) -> nn.Module:
    """The network that :func:`describe_network` described, with random weights."""
    kind = description.get("class")
    if kind == "FoldedUNet":
        from restore.networks import FoldedUNet

        return FoldedUNet(**{k: v for k, v in description.items() if k != "class"})
    if kind == "UNet2DModel":
        from diffusers import UNet2DModel

        network: Any = UNet2DModel(**description["config"])
        return network
    raise ValueError(f"unknown network {kind!r}; known are FoldedUNet and UNet2DModel")


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Fills a network from a safetensors file; every tensor must be there and fit.

    Raises:
        ValueError: If the file is damaged, or tensors are missing, unknown, or of another shape; the message
            names them.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{str(path)!r} is damaged or no safetensors file ({error}): fetch it again"
        ) from error
    expected = network.state_dict()
    missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    wrong = [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if found[name].shape != expected[name].shape
    ]
    problems = [
        *(
            f"{len(names)} {word} tensors (first: {names[0]})"
            for word, names in (("missing", missing), ("unknown", unknown))
            if names
        ),
        *(wrong[:3]),
    ]
    if problems:
        raise ValueError(f"{str(path)!r} does not fit the network of its config: {'; '.join(problems)}")
    network.load_state_dict(found)


def load_prior(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    checkpointing: bool = False,
    compile: bool = False,
) -> Prior:
    """Loads a prior.

    Args:
        source: ``"photo"``, the prior in the package (``"./photo"`` is a folder of that name); a folder written by
            :meth:`Prior.save`; a folder of diffusers: a saved ``DDPMPipeline`` or
            ``DDIMPipeline``, or a bare ``UNet2DModel``.
        device: Where to put it.
        dtype: Type of the weights in memory, ``"float32"`` by default; see :meth:`Prior.with_dtype`.
        checkpointing: Spend time to save memory in gradients; see :meth:`Prior.with_checkpointing`.
        compile: Compile the network; see :meth:`Prior.compiled`.

    Returns:
        The prior, in evaluation mode.

    Raises:
        FileNotFoundError: If there is nothing of that name.
        ValueError: If a file is damaged or does not fit its configuration.

    Example:
        >>> prior = load_prior("photo")
        >>> prior.value_range
        (-1.0, 1.0)
    """
    wanted = None if dtype is None else precision(dtype)  # Refused before anything is read.
    prior = _read_prior(source)
    prior = prior if wanted is None else prior.with_dtype(wanted)
    prior = prior.to(device)
    prior = prior.with_checkpointing() if checkpointing else prior
    return prior.compiled() if compile else prior


def _read_prior(source: str | Path) -> Prior:
    if not isinstance(source, (str, Path)):
        raise TypeError(
            f"a prior is a name, a folder or a Prior, not a {type(source).__name__}; a network becomes one by "
            f"restore.Prior(network, schedule, prediction=...)"
        )
    folder = _find(source)
    if (folder / "model_index.json").is_file():
        return _load_pipeline(folder)
    config = _read_json(folder / CONFIG)
    if config.get("format") == "restore-prior-1":
        needed = ("network", "schedule", "prediction", "value_range", "tile", "overlap")
        lacking = [key for key in needed if key not in config]
        if lacking:
            raise ValueError(
                f"{str(folder / CONFIG)!r} lacks {', '.join(lacking)}: the file is damaged, or was edited"
            )
        try:
            network = build_network(config["network"]).float()
            schedule = Schedule.from_config(config["schedule"])
            low, high = config["value_range"]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{str(folder / CONFIG)!r} describes nothing that can be built: {error}"
            ) from error
        load_weights(network, folder / WEIGHTS)
        described = {k: v for k, v in config.items() if k not in (*needed, "format")}
        sizes = {"tile": config["tile"], "overlap": config["overlap"]}
        return Prior(network, schedule, config["prediction"], (low, high), config=described, **sizes)
    if config.get("_class_name") == "UNet2DModel":
        # A bare network does not say how it was trained: DDPM's schedule is what nearly all of them used.
        return _from_diffusers(folder, Schedule.linear(), "epsilon", folder.name)
    raise ValueError(
        f"{str(folder / CONFIG)!r} describes no prior: expected a folder written by Prior.save, "
        f"a diffusers DDPM or DDIM pipeline, or a UNet2DModel; its class is {config.get('_class_name')!r}"
    )


def _find(source: str | Path) -> Path:
    inside = Path(__file__).parent / "priors"
    path = Path(source).expanduser()
    # A bare name is the package's prior even where a folder is called the same; "./photo" is the folder.
    if isinstance(source, str) and source.isidentifier() and (inside / source / CONFIG).is_file():
        return inside / source
    if path.is_dir():
        if (path / CONFIG).is_file() or (path / "model_index.json").is_file():
            return path
        raise FileNotFoundError(
            f"the folder {str(path)!r} has neither {CONFIG} nor model_index.json: it is no prior"
        )
    names = sorted(p.parent.name for p in inside.glob(f"*/{CONFIG}"))
    raise FileNotFoundError(
        f"there is no prior {str(source)!r}: give one of the names {names}, or a folder with {CONFIG} in it"
    )


def _load_pipeline(folder: Path) -> Prior:
    index = _read_json(folder / "model_index.json")
    if "unet" not in index or index["unet"][1] != "UNet2DModel" or "vae" in index or "vqvae" in index:
        raise ValueError(
            f"{str(folder)!r} is a {index.get('_class_name')}: only unconditional pixel-space pipelines "
            f"(DDPMPipeline, DDIMPipeline with a UNet2DModel) can be loaded; "
            f"latent and text-conditioned ones cannot yet"
        )
    config = _read_json(folder / "scheduler" / "scheduler_config.json")
    prediction = config.get("prediction_type", "epsilon")
    if config.get("_class_name") == "FlowMatchEulerDiscreteScheduler":
        # A shift changes the times that it visits, not what the network is shown at a time.
        schedule = Schedule.flow(config.get("num_train_timesteps", 1000))
        return _from_diffusers(folder / "unet", schedule, "flow_prediction", folder.name)
    if prediction not in ("epsilon", "sample", "v_prediction"):
        raise ValueError(
            f"unknown prediction_type {prediction!r} in the scheduler's configuration of {folder.name!r}"
        )
    if "beta_schedule" not in config and config.get("trained_betas") is None:
        raise ValueError(
            f"the scheduler of {str(folder)!r} is a {config.get('_class_name')}: only priors trained with a table "
            f"of betas (DDPMScheduler, DDIMScheduler and their kin) can be loaded"
        )
    schedule = schedule_of_diffusers(config)
    return _from_diffusers(folder / "unet", schedule, prediction, folder.name)


def schedule_of_diffusers(config: dict[str, Any]) -> Schedule:
    """The schedule that a diffusers scheduler's configuration describes.

    Raises:
        ValueError: If its kind of betas is not known.
    """
    if config.get("rescale_betas_zero_snr"):
        # arXiv:2305.08891, algorithm 1: shifted and scaled so that the last step has no signal and the first is kept.
        plain = schedule_of_diffusers({**config, "rescale_betas_zero_snr": False})
        alphas, _ = plain(torch.arange(1, plain.steps + 1, dtype=torch.float64) / plain.steps)
        alphas = (alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])
        bars = torch.cat([torch.ones(1, dtype=torch.float64), alphas**2])
        return Schedule.from_betas(1 - bars[1:] / bars[:-1])
    if config.get("trained_betas") is not None:
        return Schedule.from_betas(config["trained_betas"])
    steps = config.get("num_train_timesteps", 1000)
    kind = config.get("beta_schedule", "linear")
    ends = {"beta_start": config.get("beta_start", 1e-4), "beta_end": config.get("beta_end", 0.02)}
    if kind == "linear":
        return Schedule.linear(steps, **ends)
    if kind == "scaled_linear":
        return Schedule.scaled_linear(steps, **ends)
    if kind == "squaredcos_cap_v2":
        return Schedule.cosine(steps)
    raise ValueError(f"unknown beta_schedule {kind!r}: known are linear, scaled_linear, squaredcos_cap_v2")


def _from_diffusers(folder: Path, schedule: Schedule, prediction: str, name: str) -> Prior:
    from diffusers import UNet2DModel

    _read_json(folder / CONFIG)  # For its messages.
    try:
        network, report = UNet2DModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(folder)!r} is damaged, or was not copied whole: {error}") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        lacking = [*report["missing_keys"], *report["mismatched_keys"]]
        raise ValueError(
            f"{str(folder)!r} lacks {len(lacking)} of the network's tensors (first: {lacking[0]})"
        )
    channels = network.config.in_channels
    return Prior(network, schedule, prediction, channels=channels, config={"name": name})  # type: ignore[arg-type]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{str(path)!r} is missing: the folder is no prior, or was not copied whole"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{str(path)!r} holds no configuration (expected an object, found a {type(content).__name__})"
        )
    return content
