"""What is checked of a problem, all before the first network call: does the method suit it, does the prior."""

from __future__ import annotations

import copy
import operator as operator_
import warnings
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import (
    Blur,
    Downsample,
    GaussianNoise,
    Grayscale,
    Identity,
    LinearOperator,
    Mask,
    Operator,
    PoissonNoise,
)
from restore.colours import ColourPrior
from restore.images import ImageFormat
from restore.methods import REGISTRY, options_of
from restore.methods.base import Method
from restore.prior import BasePrior, Prior
from restore.quality import QualityWarning

#: Standard deviation of what rounding to whole numbers changes.
ROUNDING = 12**-0.5

DECOMPOSITION = "an operator with a fast singular value decomposition"


def suited(
    method: type[Method] | Method, operator: Operator, noisy: bool, poisson: bool = False
) -> list[str]:
    """What a method lacks for a problem, in words; nothing if it will do.

    Args:
        method: A method.
        operator: The operator of the problem.
        noisy: Whether its measurement is noisy.
        poisson: Whether by photon noise.
    """
    mask = operator if isinstance(operator, Mask) else None
    binary = mask is not None and bool(((mask.mask == 0) | (mask.mask == 1)).all())
    held = {
        "linear": (isinstance(operator, LinearOperator), "a linear operator"),
        "svd": (operator.has_svd, DECOMPOSITION),
        "svd-if-noisy": (operator.has_svd or not noisy, DECOMPOSITION),
        "mask": (binary, "a Mask of zeros and ones"),
        "noise-free": (not noisy, "a measurement without noise (noise=0)"),
    }
    lacking = [words for need, (there, words) in held.items() if need in method.needs and not there]
    return (
        [*lacking, "Gaussian noise (this is photon noise)"]
        if poisson and not method.takes_poisson
        else lacking
    )


def check_method(method: Method, operator: Operator, noise: Tensor, poisson: PoissonNoise | None) -> None:
    """Refuses a method that lacks something for the problem, and names those that will do."""
    noisy = bool((noise > 0).any())
    lacking = suited(method, operator, noisy, poisson is not None)
    if lacking:
        able = [n for n, other in REGISTRY.items() if not suited(other, operator, noisy, poisson is not None)]
        because = noisy and not {"noise-free", "svd-if-noisy"}.isdisjoint(method.needs)
        given = f"{type(operator).__name__}{' with noise' if because else ''}"
        # A border of the picture, and not "valid", which is none: a circular blur measures as many pixels.
        bordered = isinstance(operator, Blur) and operator.boundary != "valid" and lacking == [DECOMPOSITION]
        raise ValueError(
            f"{method.name} needs {' and '.join(lacking)}; got {given}. Methods that will do: {', '.join(able)}"
            + (
                '. Blur has a decomposition with boundary="circular", for borders that wrap'
                if bordered
                else ""
            )
        )


def check_prior(prior: BasePrior, shape: tuple[int, ...], y: Tensor, operator: Operator) -> None:
    """Refuses a prior of other channels or another size than the picture's."""
    if len(shape) != 3:
        raise ValueError(f"the picture would have shape {shape}; expected (channels, height, width)")
    if prior.channels not in (None, shape[0]):
        raise ValueError(
            f"the prior {prior.name!r} makes pictures of {prior.channels} channels, but {type(operator).__name__} "
            f"with a measurement of shape {tuple(y.shape[1:])} is of a picture of {shape[0]}. For a grey picture, give "
            f"its values three times; for colour, leave transparency (a fourth channel) out"
        )
    if prior.image_size not in (None, tuple(shape[1:])):
        raise ValueError(
            f"the prior {prior.name!r} is for pictures of {prior.image_size} (height, width), not {shape[1:]}"
        )


def check_condition(prior: BasePrior, images: int) -> None:
    """Refuses a conditional prior without labels or luma, or with those for another number of images."""
    if not isinstance(prior, Prior):
        return
    if isinstance(prior, ColourPrior) and len(prior.given_luma) not in (1, images):
        raise ValueError(
            f"the prior has {len(prior.given_luma)} lumas for {images} images: give one, or one per image"
        )
    labels = prior.class_labels
    if labels is None and prior.needs_labels:
        raise ValueError(
            f"the prior {prior.name!r} is conditional on a class and has no labels: say prior.with_labels(3), for all "
            f"images, or give one label per image"
        )
    if labels is not None and len(labels) not in (1, images):
        raise ValueError(
            f"the prior has {len(labels)} class labels for {images} images: give one, or one per image"
        )


def noise_levels(noise: Any, y: Tensor, layout: ImageFormat) -> Tensor:
    """The standard deviation of the noise of every image, ``(B,)``, where white is 1."""
    if isinstance(noise, PoissonNoise):
        if layout.scale != 1:
            raise ValueError("photon noise is in units of white, not of 255: give y as floats in [0, 1]")
        # Of a whole image; that of each number is Problem.variance.
        return copy.deepcopy(noise).to(y.device).variance(y.clamp_min(0)).flatten(1).mean(1).sqrt()
    noise = noise.std if isinstance(noise, GaussianNoise) else noise
    try:
        std = torch.as_tensor(noise, dtype=torch.float64).detach().cpu().flatten()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"noise is a standard deviation, a number or one per image, or a PoissonNoise; not {noise!r}"
        ) from None
    if len(std) not in (1, len(y)):
        raise ValueError(f"noise has {len(std)} numbers for {len(y)} images: give one, or one per image")
    if not (torch.isfinite(std) & (std >= 0)).all():
        raise ValueError(f"noise is a standard deviation: finite and at least 0, not {std.tolist()}")
    if layout.scale != 1 and ((std > 0) & (std < ROUNDING)).any():
        least = float(std[std > 0].min())
        warnings.warn(
            f"noise is {least:.3g} of {layout.scale:g}, less than rounding to whole numbers makes: noise is in the "
            f"units of y. For {least:.3g} of white, give {least * layout.scale:.3g}",
            stacklevel=4,
        )
    return (std / layout.scale).float().expand(len(y)).clone()


def with_rounding(std: Tensor, y: Tensor, layout: ImageFormat, operator: Operator, method: Method) -> Tensor:
    """The noise of every image, with the rounding of what a blur or the like made of it, ``(B,)``.

    A measurement in whole numbers (of 255 or of 65535, also where it has been divided by them) or in half precision is
    not free of noise. An inverse that takes it for exact blows its rounding up to where nothing of the picture is left,
    save for the operators that lose nothing but what they leave out.

    Args:
        std: The noise that the user told, ``(B,)``, where white is 1.
        y: Measurements, ``(B, ...)``, where white is 1.
        layout: What the user gave them as.
        operator: What made them.
        method: What is to solve them; one that takes no noise gets none, and a warning is given.
    """
    harmless = isinstance(operator, (Identity, Mask, Grayscale, Downsample)) or not isinstance(
        operator, LinearOperator
    )
    if harmless:
        return std
    found = std.maximum(_rounding(y, layout).to(std))
    if not suited(method, operator, noisy=True):
        return found
    if bool((found > std).any()):
        able = [name for name, other in REGISTRY.items() if not suited(other, operator, noisy=True)]
        warnings.warn(
            f"the measurement is rounded, and {method.name} takes it for exact: with this {type(operator).__name__} it "
            f"may blow the rounding up to ripples. Methods that do not: {', '.join(able)}",
            QualityWarning,
            stacklevel=4,
        )
    return std


def _rounding(y: Tensor, layout: ImageFormat) -> Tensor:
    """Standard deviation of what rounding has changed in every measurement, ``(B,)``; 0 where it is not rounded."""
    if layout.dtype in (torch.float16, torch.bfloat16, np.dtype(np.float16)):
        half = torch.bfloat16 if layout.dtype == torch.bfloat16 else torch.float16
        return torch.full((len(y),), ROUNDING * torch.finfo(half).eps / 2)  # Just below white.
    std = torch.zeros(len(y))
    for white in (65535, 255):  # What is a whole number of 255 is one of 65535, too.
        levels = y.cpu().double().flatten(1) * white
        rounded = ((levels - levels.round()).abs() < 1e-6 * white).all(1)
        std = torch.where(rounded, ROUNDING / white, std)
    return std


def warn_of_masks(mask: Mask, images: int) -> None:
    """Says so where a mask measures nothing, or looks like a mask for every picture and is one for every channel."""
    channels = mask.mask.shape[1]
    if images == channels > 1 == len(mask.mask) and bool((mask.mask != mask.mask[:, :1]).any()):
        warnings.warn(
            f"the mask has {channels} layers for {images} pictures, and is taken for one mask with a layer for every "
            f"channel. If it is a mask for every picture, give it the shape (B, 1, H, W), mask[:, None]",
            QualityWarning,
            stacklevel=4,
        )
    empty = (mask.mask == 0).flatten(1).all(1)
    if bool(empty.any()):
        which = (
            "the mask measures"
            if len(empty) == 1
            else f"mask {int(empty.nonzero()[0])} of the batch measures"
        )
        warnings.warn(
            f"{which} nothing: the result is what the prior makes up. A Mask is 1 where the picture is known, and 0 "
            f"where it is to be filled in",
            QualityWarning,
            stacklevel=4,
        )


def check_spelling(options: Iterable[str], arguments: Sequence[str]) -> None:
    """Refuses what no method has as an option and is nearly an argument of ``solve``."""
    known = {option for method in REGISTRY.values() for option in options_of(method)}
    for option in options:
        near = get_close_matches(option, arguments, n=1)
        if option not in known and near:
            raise TypeError(f"there is no argument {option!r}: did you mean {near[0]!r}?")


def check_counts(y: Tensor) -> None:
    """Refuses negative numbers under photon noise."""
    negative = int((y < 0).sum())
    if negative:
        raise ValueError(
            f"{negative} of the {y.numel()} values of y are negative, the smallest {float(y.min()):.4g}, and photons "
            f"are counted from 0 up: give y = counts / peak as they were counted, with nothing subtracted, or "
            f"y.clip(0). For noise that goes below 0, give its standard deviation instead of PoissonNoise"
        )


def whole_number(value: object, name: str) -> int:
    """A number of something, at least 1."""
    try:
        number = operator_.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if isinstance(value, bool) or number < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return number
