"""Against the truth, as it is seen: LPIPS, whose backbones are downloaded."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from restore.metrics.pairs import answer, pair, size_of

# Each backbone's file, its size, and the smallest side of a picture that its poolings leave room for.
_BACKBONES = {
    "alex": ("alexnet-owt-7be5be79.pth", "233 MB", 31),
    "vgg": ("vgg16-397923af.pth", "528 MB", 16),
    "squeeze": ("squeezenet1_1-b8a52dc0.pth", "4.7 MB", 17),
}


def lpips(image: Any, reference: Any, net: str = "alex") -> Any:
    """Learned perceptual distance of Zhang et al. (2018), by the `lpips` package; 0 means identical.

    The package holds its linear weights; the backbone is downloaded by torchvision at first use (see
    `lpips_available`), and kept in memory for later calls. Gray pictures are compared as RGB.

    Args:
        image: One picture or a batch; sides of at least 31 (`"alex"`), 16 (`"vgg"`) or 17 (`"squeeze"`).
        reference: The true picture, of the same shape; one may serve a whole batch.
        net: `"alex"` (what papers report), `"vgg"` or `"squeeze"`.

    Returns:
        A float, or `(B,)` (a float32 tensor for a tensor, else an array).

    Raises:
        FileNotFoundError: If the backbone is neither on this machine nor to be downloaded: says which file
            to put where.
        ValueError: If the net is unknown, shapes differ, or the pictures are too small or not gray or RGB.
    """
    if net not in _BACKBONES:
        raise ValueError(f"net is {net!r}; expected one of {', '.join(map(repr, _BACKBONES))}.")
    x, truth, fmt, _ = pair(image, reference)
    smallest = _BACKBONES[net][2]
    if min(x.shape[-2:]) < smallest:
        raise ValueError(
            f"the pictures are {size_of(x)}; LPIPS with net={net!r} needs sides of at least {smallest}: "
            "compare larger pictures, or use psnr."
        )
    if x.shape[1] not in (1, 3):
        raise ValueError(f"the pictures have {x.shape[1]} channels; LPIPS compares gray (1) or RGB (3) ones.")
    model = _lpips_model(net).to(x.device)
    values = []
    with torch.inference_mode():
        for a, b in zip(x, truth.expand_as(x), strict=True):  # one by one bounds the memory
            a, b = (p.expand(1, 3, -1, -1) for p in (a, b))
            values.append(model(a, b, normalize=True).item())
    return answer(np.array(values), fmt)


def lpips_available(net: str = "alex") -> bool:
    """Whether `lpips` will work without a download: the package and the backbone's file are here.

    Args:
        net: `"alex"`, `"vgg"` or `"squeeze"`.

    Returns:
        True if so. The file is only looked for, not opened.

    Raises:
        ValueError: If the net is unknown.

    >>> lpips_available("alex") in (True, False)
    True
    """
    if net not in _BACKBONES:
        raise ValueError(f"net is {net!r}; expected one of {', '.join(map(repr, _BACKBONES))}.")
    return importlib.util.find_spec("lpips") is not None and _backbone_file(net).is_file()


def _backbone_file(net: str) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", _BACKBONES[net][0])


@functools.lru_cache(maxsize=3)
def _lpips_model(net: str) -> nn.Module:
    import lpips as package

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's old-style arguments, which are not the user's
            return package.LPIPS(net=net, verbose=False).requires_grad_(False)
    except OSError as err:  # URLError is one, and so are time-outs and refused connections
        if _backbone_file(net).is_file():
            raise
        file, size, _ = _BACKBONES[net]
        raise FileNotFoundError(
            f"LPIPS with net={net!r} needs the backbone {file} ({size}), which is not on this machine and "
            f"could not be downloaded ({err}). Get https://download.pytorch.org/models/{file} and put it at "
            f"{_backbone_file(net)} (the folder follows the variable TORCH_HOME), or do without LPIPS."
        ) from err
