"""The list of named priors.

A figure is given only where its source says it. The hashes are those of the hub's own pages (large files of a
pinned commit), and of several projects that pin the same file of OpenAI's; None where no source was found.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """One file of a prior.

    Attributes:
        name: Its name in the repository, or on disk.
        url: Where it can be fetched; None for files of the hub, and for those that only a person can fetch.
        sha256: 64 hexadecimal digits; None if none was published, then the file is pinned when it is first seen.
    """

    name: str
    url: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Entry:
    """One named prior.

    Attributes:
        name: What :func:`restore.load_prior` takes.
        description: What it is, in a line.
        trained_on: The pictures it was trained on.
        domain: What it can be asked to repair: ``"photographs"``, ``"faces"``, ``"cats"``, ...
        size: Bytes of its weights, rounded where the source rounds; None if unknown.
        parameters: Number of its weights; None if unknown.
        licence: Licence of the weights, as the source states it.
        picture_size: Height and width in pixels that it was trained at.
        source: The page it comes from.
        format: ``"restore"`` (our folder), ``"diffusers"`` (a pipeline) or ``"guided-diffusion"`` (a ``.pt`` file).
        files: What must be on disk; empty for a prior in the package.
        repo: The hub's repository, if it comes from there.
        revision: The commit of that repository.
        value_range: Range of its pictures.
    """

    name: str
    description: str
    trained_on: str
    domain: str
    size: int | None
    parameters: int | None
    licence: str
    picture_size: int
    source: str
    format: str
    files: tuple[File, ...] = ()
    repo: str | None = None
    revision: str | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)


def _ddpm(repo: str, revision: str, weights: File, trained_on: str, domain: str, size: int) -> Entry:
    """A model of *Denoising Diffusion Probabilistic Models*, 2020, arXiv:2006.11239, as Google publishes it."""
    side = int(repo.rpartition("-")[2])
    small = (File("model_index.json"), File("config.json"), File("scheduler_config.json"))
    return Entry(
        name=repo,
        description=f"DDPM of {domain} at {side} x {side}",
        trained_on=trained_on,
        domain=domain,
        size=size,
        parameters={32: 35_746_307, 256: 113_673_219}[side],
        licence="Apache-2.0",
        picture_size=side,
        source=f"https://huggingface.co/{repo}",
        format="diffusers",
        files=(*small, weights),
        repo=repo,
        revision=revision,
    )


def _adm(name: str, file: File, classes: str, size: int | None, parameters: int) -> Entry:
    """A model of *Diffusion Models Beat GANs on Image Synthesis*, 2021, arXiv:2105.05233, as OpenAI publishes it."""
    return Entry(
        name=name,
        description=f"OpenAI's {classes} model of ImageNet at 256 x 256, with learned variance",
        trained_on="ImageNet, ILSVRC 2012",
        domain="photographs",
        size=size,
        parameters=parameters,
        licence="MIT; its model card: research only",
        picture_size=256,
        source="https://github.com/openai/guided-diffusion",
        format="guided-diffusion",
        files=(file,),
    )


_BIN, _SAFE = "diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"
_OPENAI = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/"

_ENTRIES = (
    Entry(
        name="photo",
        description="in the package, and the default: small, for a laptop's CPU",
        trained_on="3,620 photographs, crops of 64 x 64 to 128 x 128",
        domain="photographs",
        size=14_281_912,
        parameters=7_128_172,
        licence="Apache-2.0",
        picture_size=64,
        source="restore/priors/photo/README.md",
        format="restore",
    ),
    Entry(
        name="colours",
        description="in the package: colours for grey photographs, the default of restore colorize",
        trained_on="the same photographs, 64 x 64, given their luma",
        domain="photographs",
        size=14_278_440,
        parameters=7_126_120,
        licence="Apache-2.0",
        picture_size=64,
        source="restore/priors/colours/README.md",
        format="restore",
    ),
    _ddpm(
        "google/ddpm-celebahq-256",
        "cd5c944777ea2668051904ead6cc120739b86c4d",
        File(_BIN, sha256="efff89712093ad060ce99d9b461bbe542b49d8dd4ce30f23fe5761dca292361d"),
        "CelebA-HQ",
        "faces",
        454_853_117,
    ),
    _ddpm(
        "google/ddpm-cat-256",
        "82ca0d5db4a5ec6ff0e9be8d86852490bc18a3d9",
        File(_SAFE, sha256="0806be43de621861d03d96670492ea2e65943c96155b5d1c81bcc813668946a9"),
        "LSUN cats",
        "cats",
        455_000_000,
    ),
    _ddpm(
        "google/ddpm-church-256",
        "b54479d3b3d9538d2773fa1cd7e4dd7a3c2a0b87",
        File(_BIN, sha256="3111c176c9848d8d9b91d6fb8e2aa2945c220845aced8f47efb44f9deadd412c"),
        "LSUN churches, from outside",
        "churches",
        455_000_000,
    ),
    _ddpm(
        "google/ddpm-bedroom-256",
        "084ce0ce92f01dc98bcdb05da90120c741f1f8bc",
        File(_BIN, sha256="d0c4c246baad16eb12629b6a4d458fecf210483b76796e6fa9cd1756b217966a"),
        "LSUN bedrooms",
        "bedrooms",
        455_000_000,
    ),
    _ddpm(
        "google/ddpm-cifar10-32",
        "267b167dc01f0e4e61923ea244e8b988f84deb80",
        File(_SAFE, sha256="1558dbe3fb093b0857d473e376b711eeda1b186c557be5e85b3a56300cd49f0f"),
        "CIFAR-10",
        "small pictures of ten kinds of things",
        143_000_000,
    ),
    _adm(
        "imagenet-256",
        File(
            "256x256_diffusion_uncond.pt",
            f"{_OPENAI}256x256_diffusion_uncond.pt",
            "a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
        ),
        "unconditional",
        2_211_383_297,
        552_814_086,
    ),
    _adm(
        "imagenet-256-classes",
        File("256x256_diffusion.pt", f"{_OPENAI}256x256_diffusion.pt"),
        "class-conditional",
        None,
        553_838_086,
    ),
    Entry(
        name="ffhq-256",
        description="the model of faces that DPS (2022, arXiv:2209.14687) and most papers after it use",
        trained_on="FFHQ",
        domain="faces",
        size=None,
        parameters=93_563_910,
        licence="none stated (FFHQ: CC BY-NC-SA 4.0)",
        picture_size=256,
        source="https://drive.google.com/drive/folders/1jElnRoFv7b31fG0v6pTSQkelbSX3xGZh",
        format="guided-diffusion",
        files=(File("ffhq_10m.pt"),),
    ),
)


def entries() -> tuple[Entry, ...]:
    """All named priors.

    Example:
        >>> [entry.name for entry in entries() if entry.domain == "faces"]
        ['google/ddpm-celebahq-256', 'ffhq-256']
    """
    return _ENTRIES


def find(name: str) -> Entry:
    """The entry of a name.

    Raises:
        ValueError: If there is none; the message names similar ones.

    Example:
        >>> find("photo").licence
        'Apache-2.0'
        >>> find("google/ddpm-cats-256")
        Traceback (most recent call last):
        ...
        ValueError: the zoo has no 'google/ddpm-cats-256'; did you mean 'google/ddpm-cat-256'? `restore zoo` lists all
    """
    known = {entry.name: entry for entry in entries()}
    if name in known:
        return known[name]
    guess = did_you_mean(name) or f"; it has {', '.join(known)}; "
    raise ValueError(
        f"the zoo has no {name!r}{guess}{'' if guess.endswith(' ') else ' '}`restore zoo` lists all"
    )


def did_you_mean(name: str, also: Iterable[str] = ()) -> str:
    """The end of a message about a name that is not there: the names that are like it, or nothing.

    Args:
        name: What was asked for.
        also: Others that are like it.

    Example:
        >>> did_you_mean("imagnet-256"), did_you_mean("something else")
        ("; did you mean 'imagenet-256'?", '')
    """
    # A repository is also known by its last part.
    whole = {entry.name.rpartition("/")[2]: entry.name for entry in entries()}
    whole |= {full: full for full in whole.values()}
    near = difflib.get_close_matches(name.lower(), whole, n=3, cutoff=0.85)
    names = list(dict.fromkeys([*(whole[n] for n in near), *also]))
    return f"; did you mean {' or '.join(map(repr, names))}?" if names else ""
