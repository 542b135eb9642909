"""Files of the trainer of denoising-diffusion-pytorch, version 2: ``{"step", "model", "opt", "ema", ...}``.

The averaged weights are taken. The noise schedule and what the network predicts are in the file, too: as the
buffers ``betas`` and ``loss_weight`` of its ``GaussianDiffusion``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from restore.checkpoint.files import assemble, only_tensors
from restore.prior import Prediction, Prior
from restore.schedule import Schedule

# Where the tensors of the GaussianDiffusion lie: in the average of a trainer's file, in its model, or bare.
_PLACES = (("ema", "ema_model."), ("model", ""), (None, ""))


def recognises(content: Mapping[str, Any]) -> bool:
    """Whether this is a file of that trainer, or the state_dict of its ``GaussianDiffusion``."""
    return _diffusion(content) is not None


def load(content: Mapping[str, Any], path: Path, schedule: Schedule | None = None) -> Prior:
    """The prior in a file of the trainer.

    Args:
        content: What the file holds.
        path: Where it is from.
        schedule: The schedule of the training, where it is known to be another than the file's.

    Raises:
        ValueError: If tensors are missing, unknown or of another shape, or it is a network of another version.
    """
    from restore.networks import RMSUNet

    tensors = only_tensors(_diffusion(content) or {}, path)
    unet = {n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")}
    config = _config(unet, str(path))
    network = assemble(
        lambda: RMSUNet(**config).float(),
        unet,
        str(path),
        kind="denoising-diffusion-pytorch that its shapes describe",
        config=str(path),
    )
    for name in ("betas", "loss_weight"):
        if name not in tensors:
            raise ValueError(f"{str(path)!r} lacks {name}: it does not tell how the network was trained")
    if tensors["betas"].ndim != 1 or tensors["loss_weight"].shape != tensors["betas"].shape:
        raise ValueError(
            f"{str(path)!r}: betas are {tuple(tensors['betas'].shape)} and loss_weight is "
            f"{tuple(tensors['loss_weight'].shape)}, expected one number a step in both"
        )
    trained = Schedule.from_betas(tensors["betas"])
    prediction = _prediction(tensors["loss_weight"], trained, str(path))
    return Prior(network, schedule or trained, prediction, config={"name": path.stem})


def _diffusion(content: Mapping[str, Any]) -> dict[str, Any] | None:
    for key, prefix in _PLACES:
        part = content if key is None else content.get(key)
        if isinstance(part, Mapping) and f"{prefix}model.init_conv.weight" in part:
            return {n.removeprefix(prefix): v for n, v in part.items() if str(n).startswith(prefix)}
    return None


def _config(unet: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The arguments of :class:`restore.networks.RMSUNet`, read off the shapes."""
    if "downs.0.0.block1.norm.g" not in unet or "downs.0.2.mem_kv" not in unet:
        raise ValueError(
            f"{source!r} is of denoising-diffusion-pytorch before version 2: its group normalisation, and whether its "
            f"convolutions are standardised, cannot be told from the tensors. Train on with version 2, or make the "
            f"network in Python and give it to restore.Prior(network, schedule, prediction=...)"
        )
    if "time_mlp.0.weights" in unet:
        raise ValueError(
            f"{source!r} has random or learned sinusoids of the time: no such network can be loaded"
        )
    try:
        channels = len(unet["final_conv.weight"])
        found = unet["init_conv.weight"].shape[1]
        levels = 1 + max(int(name.split(".")[1]) for name in unet if name.startswith("downs."))
        last = f"downs.{levels - 1}.3.weight"
        widths = [len(unet["init_conv.weight"])]
        widths += [len(unet[f"downs.{i}.3.1.weight"]) for i in range(levels - 1)] + [len(unet[last])]
        dim = unet["time_mlp.1.weight"].shape[1]
        attention = []
        for i in range(levels):
            full = f"downs.{i}.2.to_out.weight" in unet
            _, heads, a, b = unet[f"downs.{i}.2.mem_kv"].shape
            memory, width = (a, b) if full else (b, a)
            attention.append({"full": full, "heads": heads, "width": width, "memory": memory})
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"{source!r} does not fit denoising-diffusion-pytorch: lacks {error}") from None
    if found != channels:
        raise ValueError(
            f"{source!r} takes {found} channels and returns {channels}: networks that are conditioned on their own "
            f"estimate, or learn the variance, cannot be loaded"
        )
    return {"dim": dim, "widths": widths, "attention": attention, "channels": channels}


def _prediction(loss_weight: Tensor, schedule: Schedule, source: str) -> Prediction:
    """What is predicted, by how its errors are weighted: every objective has a weight of its own."""
    t = schedule.time_of(2**0.5)  # Signal-to-noise ratio 1/2, where the three weights are far apart.
    step = round(schedule.step_of(t))
    alpha, sigma = schedule((step + 1) / schedule.steps)
    snr = (alpha / sigma) ** 2
    weights: dict[Prediction, float] = {"epsilon": 1.0, "sample": snr, "v_prediction": snr / (1 + snr)}
    found = float(loss_weight[step])
    for prediction, weight in weights.items():
        if abs(found - weight) < 1e-3 * weight:
            return prediction
    raise ValueError(
        f"{source!r}: its loss_weight is {found:.4g} at step {step}, expected "
        + ", ".join(f"{weight:.4g} ({prediction})" for prediction, weight in weights.items())
    )
