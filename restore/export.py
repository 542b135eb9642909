"""Priors for others: a folder of ours, a folder that diffusers' own pipelines load, and the Hugging Face Hub."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.checkpoint import describe_network, save_prior
from restore.colours import ColourPrior
from restore.files import replace_together, write_atomically
from restore.memory import twin
from restore.networks import FoldedUNet
from restore.networks.about import outputs_of

if TYPE_CHECKING:
    from restore.prior import Prior

#: What tells a folder of one format from one of the other.
MARKS = {"restore": "config.json", "diffusers": "model_index.json"}

#: Licences by the Hub's names; any other is "other" there, with a name of its own.
LICENCES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "unlicense", "openrail", "creativeml-openrail-m"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0", "agpl-3.0"),
)


def save(prior: Prior, folder: str | Path, format: str) -> Path:
    """What :meth:`restore.Prior.save` does.

    Args:
        prior: The prior.
        folder: Where to.
        format: ``"restore"`` or ``"diffusers"``.

    Raises:
        ValueError: If the format is unknown, or the folder holds a prior in the other one.
        TypeError: If the network cannot be described by a configuration.
        NotADirectoryError: If there is a file of that name.
    """
    if not str(folder):
        raise ValueError(
            "the folder has no name: say where the prior is to be saved, '.' for the current folder"
        )
    file = next((p for p in (Path(folder), *Path(folder).parents) if p.is_file()), None)
    if file is not None:
        raise NotADirectoryError(
            f"{str(file)!r} is a file, and a prior is saved as a folder: choose another name for it"
        )
    if format not in MARKS:
        raise ValueError(f"format must be one of {', '.join(MARKS)}, not {format!r}")
    for other, mark in MARKS.items():
        if other != format and (Path(folder) / mark).exists():
            raise ValueError(
                f"{str(folder)!r} holds a prior in the format {other!r} ({mark}): two in one folder would be taken "
                f"for each other; choose another folder"
            )
    describe_network(prior.network)  # Refuses what goes into neither format.
    return save_prior(prior, folder) if format == "restore" else save_pipeline(prior, folder)


def save_pipeline(prior: Prior, folder: str | Path) -> Path:
    """Writes a prior as a ``DDPMPipeline`` of diffusers.

    ``DDPMPipeline.from_pretrained(folder)`` and ``DDIMPipeline.from_pretrained(folder)`` load it, and draw what
    :func:`restore.sample` draws with the samplers ``"ddpm"`` and ``"ddim"`` from the same first state, where the number
    of steps divides that of the schedule. (Their first state is noise of deviation 1, ours of the schedule's last
    sigma, which is 0.99998 for DDPM's.) A network that predicts its variance goes with ``DDPMPipeline`` alone, which
    uses it. A flow becomes a ``DDPMPipeline`` with a ``FlowMatchEulerDiscreteScheduler``, whose Euler steps are those
    of ``"ddim"`` if it takes all steps of the schedule; with fewer, it spaces them a little differently.

    The format has no place for the description, the name, the tiles and the spectrum of a prior; they are not kept. (At
    high noise, the pipeline asks the network where a prior with a spectrum does not.)

    Args:
        prior: A prior of a ``UNet2DModel``, for images in [-1, 1].
        folder: Made if it does not exist; files of an earlier save are replaced.

    Returns:
        The folder.

    Raises:
        TypeError: If the network is none of diffusers'.
        ValueError: If diffusers has no scheduler or pipeline for this prior, as for one of colours; the message says
            what to do.

    Example:
        >>> from diffusers import UNet2DModel
        >>> import restore
        >>> network = UNet2DModel(
        ...     sample_size=16, block_out_channels=(8, 8), norm_num_groups=4,
        ...     down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        ... )
        >>> folder = save_pipeline(restore.Prior(network, restore.Schedule.linear()), tempfile.mkdtemp())
        >>> sorted(path.name for path in folder.iterdir())
        ['model_index.json', 'scheduler', 'unet']
    """
    from diffusers import DDPMPipeline

    if isinstance(prior, ColourPrior):
        raise ValueError("diffusers has no pipeline for a prior of colours: save it with format='restore'")
    pipeline: Any = DDPMPipeline(_plain_unet(prior), _scheduler_of(prior))
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        pipeline.save_pretrained(temporary)
        new = Path(temporary)
        names = [str(file.relative_to(new)) for file in new.rglob("*") if file.is_file()]
        # Weights, their configurations, and the index last: without it the folder is no pipeline.
        names.sort(key=lambda name: (name == MARKS["diffusers"], name.endswith(".json")))
        replace_together(new, folder, names)
    return folder


def push_to_hub(
    prior: Prior, repo_id: str, *, private: bool = True, token: str | None = None, format: str = "restore"
) -> str:
    """Uploads a prior, with a model card, to the Hugging Face Hub.

    The card (``README.md``) is made of ``prior.config``, the licence included: set
    ``prior.config["licence"] = "CC-BY-4.0"`` before, and tell there what the pictures were.

    Args:
        prior: The prior.
        repo_id: ``"name/of-the-prior"``; the repository is made if there is none.
        private: Whether nobody else may see it. A repository that is public already is refused then.
        token: An access token; by default the one that ``hf auth login`` has stored.
        format: As in :meth:`restore.Prior.save`.

    Returns:
        The address of the repository.

    Raises:
        TypeError: If the prior cannot be saved. Nothing has been sent then.
        ValueError: The same, or if the repository is public and ``private`` is set.
    """
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        save(prior, folder, format)
        text = model_card(prior, repo_id)
        write_atomically(Path(folder) / "README.md", lambda path: path.write_text(text, encoding="utf-8"))
        api = HfApi(token=token)
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.repo_info(repo_id).private:
            raise ValueError(f"{repo_id!r} exists and is public: choose another name, or say private=False")
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=f"Prior {prior.name}")
    return str(address)


def model_card(prior: Prior, repo_id: str) -> str:
    """The text of a model card: YAML for the Hub, and for people what ``prior.config`` tells.

    Args:
        prior: The prior.
        repo_id: Where it will be.

    Example:
        >>> import restore
        >>> "license: apache-2.0" in model_card(restore.load_prior("photo"), "me/photo")
        True
    """
    from huggingface_hub import ModelCardData

    licence = str(prior.config.get("licence", "")).strip()
    names: dict[str, Any] = {}
    if licence:
        first = re.split(r"[\s;,]", licence.lower())[0]
        slug = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
        names = {"license": first} if first in LICENCES else {"license": "other", "license_name": slug}
    data = ModelCardData(
        **names, library_name="restore", tags=["diffusion", "image-restoration", "inverse-problems"]
    )
    low, high = prior.value_range
    purpose = (
        "of colours for a luma (restore.colours)"
        if isinstance(prior, ColourPrior)
        else "for repairing pictures"
    )
    return f"""---
{data.to_yaml()}
---

# {prior.name}

{prior.config.get("description", f"A diffusion prior {purpose}.")}

Licence: {licence or "none was given; ask its author before you use it"}

```python
import restore
from huggingface_hub import snapshot_download

prior = restore.load_prior(snapshot_download("{repo_id}"))
```

Predicts {prior.prediction}; {prior.schedule}; images in [{low:g}, {high:g}]. What its author tells of it:

```json
{json.dumps(prior.config, indent=2)}
```
"""


def _plain_unet(prior: Prior) -> Any:
    """The network as a ``UNet2DModel`` that a pipeline can sample from."""
    from diffusers import UNet2DModel

    network: Any = prior.network
    kind: Any = UNet2DModel
    remedy = "save the prior without format=: restore.load_prior reads that"
    if isinstance(network, FoldedUNet):
        if network.fold != 1 or network.config["norm"] != "group":
            raise ValueError(
                f"diffusers has no network like this FoldedUNet: no pipeline folds {network.fold} x {network.fold} "
                f"pixels into channels, and its blocks know group normalisation alone (this one's is "
                f"{network.config['norm']!r}). Train a UNet2DModel, restore.train(..., network=UNet2DModel(...)), or "
                f"{remedy}"
            )
        width = network.unet.config.attention_head_dim
        heads = network.config.get("heads")
        if heads and any(m.inner_dim != heads * width for m in network.modules() if hasattr(m, "to_q")):
            raise ValueError(
                f"diffusers has no network like this FoldedUNet: every attention of it has {heads} heads, those of a "
                f"UNet2DModel have heads of one width; {remedy}"
            )
        network = network.unet
    if type(network) is not kind:
        raise TypeError(
            f"a pipeline of diffusers holds a UNet2DModel, not a {type(network).__name__}; {remedy}"
        )
    if network.class_embedding is not None:
        raise ValueError(
            f"the network is conditional on a class, and diffusers' DDPMPipeline hands no labels to it; {remedy}"
        )
    if network.config.sample_size is None:
        raise ValueError(
            "the network does not say how large its pictures are, and diffusers' pipelines draw no other size: "
            "prior.network.register_to_config(sample_size=64) says it"
        )
    if prior.value_range != (-1.0, 1.0):
        raise ValueError(
            f"diffusers' pipelines take the network's images to be in [-1, 1]; this prior's are in "
            f"{list(prior.value_range)}; {remedy}"
        )
    # Safetensors takes memory in the usual order alone. The user's network stays where and as it is.
    return twin(network, lambda tensor: tensor.cpu().contiguous())


def _scheduler_of(prior: Prior) -> Any:
    """The scheduler of diffusers that takes the steps of our samplers."""
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

    schedule, config = prior.schedule, prior.schedule.to_config()
    if prior.prediction == "flow_prediction" and config["kind"] == "flow":
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=schedule.steps)
    if prior.prediction == "flow_prediction" or schedule.betas is None:
        raise ValueError(
            f"diffusers has no scheduler for {prior.prediction} with {schedule}: flows go with Schedule.flow, and the "
            f"other three predictions with a table of betas. Save the prior without format=: restore.load_prior reads "
            f"that"
        )
    betas: dict[str, Any] = {"trained_betas": schedule.betas.tolist()}
    if config["kind"] in ("linear", "scaled_linear"):
        betas = {"beta_schedule": config["kind"], **{k: config[k] for k in ("beta_start", "beta_end")}}
    if config["kind"] == "cosine" and (config["offset"], config["max_beta"]) == (0.008, 0.999):
        betas = {"beta_schedule": "squaredcos_cap_v2"}
    learned = outputs_of(prior.network) == 2 * (prior.channels or 0)
    return DDPMScheduler(
        num_train_timesteps=schedule.steps,
        **betas,
        prediction_type=prior.prediction,
        variance_type="learned_range" if learned else "fixed_small",
        clip_sample=False,  # Our samplers do not clip either.
        # Our steps: from the last one down, each T/n below the one before. "leading" would begin at T - T/n.
        timestep_spacing="trailing",
    )
