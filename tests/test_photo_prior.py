"""The prior in the package: the weights are those that its card describes, and they denoise a photograph."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import torch
from skimage import data

import restore

FOLDER = Path(restore.__file__).parent / "priors" / "photo"
CARD = (FOLDER / "README.md").read_text()


@pytest.fixture(scope="module")
def prior() -> restore.Prior:
    return restore.load_prior("photo")


def denoised(prior: restore.Prior, x: torch.Tensor, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture in [0, 1] with noise, and what one call of the prior makes of it."""
    y = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    t = prior.schedule.time_of(2 * sigma)
    alpha, _ = prior.schedule(t)
    with torch.inference_mode():
        return y, (prior(alpha * (2 * y - 1), t) + 1) / 2


def decibels(x_hat: torch.Tensor, x: torch.Tensor) -> float:
    return float(-10 * torch.log10((x_hat - x).square().mean()))


def photograph(top: int, left: int, size: int) -> torch.Tensor:
    crop = data.astronaut()[top : top + size, left : left + size]
    return torch.from_numpy(crop.copy()).permute(2, 0, 1)[None] / 255


def test_the_weights_are_those_of_the_card():
    digest = hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest()
    assert f"sha256 `{digest}`" in CARD
    assert (FOLDER / "model.safetensors").stat().st_size <= 16 * 2**20


def test_it_denoises_as_well_as_the_card_says(prior):
    stated = re.search(r"astronaut.*?(\d+\.\d) dB", CARD)
    assert stated
    x = photograph(128, 128, 256)
    _, x_hat = denoised(prior, x, 25 / 255)
    assert decibels(x_hat.clamp(0, 1), x) == pytest.approx(float(stated[1]), abs=0.1)
    assert float(stated[1]) > 29


@pytest.mark.parametrize("sigma", [5, 15, 50, 100])
def test_it_takes_noise_of_every_strength(prior, sigma):
    x = photograph(150, 150, 128)
    y, x_hat = denoised(prior, x, sigma / 255)
    assert decibels(x_hat, x) > decibels(y, x) + {5: 1, 15: 4, 50: 8, 100: 11}[sigma]


def test_a_large_picture_is_denoised_as_well_whole_as_in_parts(prior):
    """What was learned on crops of 64 pixels holds on large pictures, to 0.1 dB: no statistics of the whole picture."""
    x = photograph(0, 0, 512)
    y, whole = denoised(prior, x, 25 / 255)
    t = prior.schedule.time_of(50 / 255)
    alpha, _ = prior.schedule(t)
    parts = torch.empty_like(x)
    for top in range(0, 512, 128):
        for left in range(0, 512, 128):
            window = (..., slice(top, top + 128), slice(left, left + 128))
            with torch.inference_mode():
                parts[window] = (prior(alpha * (2 * y[window] - 1), t) + 1) / 2
    assert decibels(whole, x) > decibels(parts, x) - 0.1
