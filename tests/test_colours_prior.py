"""The prior of colours in the package: the weights are those of its card, and it knows colours of photographs."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor

import restore
from restore.colours import ColourPrior, luma_of
from restore.metrics import psnr

FOLDER = Path(restore.__file__).parent / "priors" / "colours"
CARD = (FOLDER / "README.md").read_text()


def photographs(size: int) -> Tensor:
    """Three of scikit-image's, which no prior of ours was trained on, ``(3, 3, size, size)``."""
    pictures = []
    for picture in (data.astronaut(), data.chelsea(), data.coffee()):
        side = min(picture.shape[:2])
        top, left = ((n - side) // 2 for n in picture.shape[:2])
        square = torch.from_numpy(picture[top : top + side, left : left + side].copy())
        pictures.append(F.interpolate(square.permute(2, 0, 1)[None] / 255, (size, size), mode="area"))
    return torch.cat(pictures)


def correlation(one: Tensor, other: Tensor) -> float:
    """Of colours less their mean over the picture."""
    a, b = ((x - x.mean((-2, -1), keepdim=True)).flatten(1) for x in (one, other))
    return float((a * b).sum(1).div(a.norm(dim=1) * b.norm(dim=1)).mean())


def test_the_weights_are_those_of_the_card():
    weights = FOLDER / "model.safetensors"
    assert f"sha256 `{hashlib.sha256(weights.read_bytes()).hexdigest()}`" in CARD
    assert weights.stat().st_size <= 16 * 2**20


def test_it_knows_colours_of_pictures_that_it_never_saw():
    stated = re.search(r"from (\d+\.\d) dB[^.]*grey to (\d+\.\d) dB[^.]*correlation of (\.\d+)", CARD)
    assert stated
    truth = photographs(64)
    grey = luma_of(truth).expand_as(truth)
    mean = restore.colorize(luma_of(truth), samples=8, seed=0, progress=False).mean(0)
    assert float(psnr(grey, truth).mean()) == pytest.approx(float(stated[1]), abs=0.1)
    assert float(psnr(mean, truth).mean()) == pytest.approx(float(stated[2]), abs=0.2)
    assert correlation(mean - grey, truth - grey) == pytest.approx(float(stated[3]), abs=0.03)
    assert float(stated[2]) > float(stated[1]) + 1


def test_it_is_what_colours_grey_pictures_unless_something_else_is_asked_for(monkeypatch):
    asked = []
    load = restore.load_prior
    monkeypatch.setattr(
        "restore.tasks.settings.load_prior",
        lambda name, **options: asked.append(name) or load(name, **options),
    )
    grey = luma_of(photographs(32))[1]
    few = {"steps": 2, "draws": 2, "seed": 0, "progress": False}
    by_default = restore.colorize(grey, **few)
    assert torch.equal(by_default, restore.colorize(grey, method="auto", prior="colours", **few))
    restore.colorize(grey, method="ddnm", **few)
    restore.colorize(grey, noise=0.05, **few)
    photo = restore.colorize(grey, prior="photo", **few)
    assert asked == ["colours", "colours", "photo", "photo", "photo"]
    assert not torch.equal(by_default, photo)


def test_the_luma_is_kept_and_the_picture_is_not_left_grey():
    prior = restore.load_prior("colours")
    assert isinstance(prior, ColourPrior)
    picture = data.chelsea()[:160, :192]
    colour = restore.colorize(picture, seed=0, draws=4, progress=False)
    assert colour.dtype == np.uint8
    luma = [luma_of(torch.from_numpy(x.copy()).permute(2, 0, 1)[None].double()) for x in (picture, colour)]
    assert (
        float((luma[0] - luma[1]).abs().max()) <= 1
    )  # Grey levels: three roundings of a half each, weighted.
    assert np.ptp(colour.astype(int), axis=-1).mean() > 10
