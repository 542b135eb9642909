"""Colours for grey pictures: found in a reduced picture, brought back along the edges of the luma."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from operators import Grayscale
from restore.colours import ColourPrior
from restore.images import to_batch
from restore.methods import Method, as_method
from restore.methods.naming import is_auto
from restore.prior import BasePrior
from restore.solve.checks import whole_number
from restore.tasks.settings import draws_of, prior_of, solved

#: Colours are found for a picture whose shorter side is about this.
COLOUR_SIZE = 96
#: One picture is made of so many draws, of so many network calls each. More calls make draws of one hue.
DRAWS, CALLS = 16, 20
#: How saturated it is, as a share of what draws are: what is wrong is worse if it is strong.
SATURATION = 0.8
#: Over what part of the shorter side a thing has one colour, and how much its luma varies (as a variance).
THING, SHADES = 1 / 8, 0.02
#: A picture that is larger than the working size by less than this is not reduced.
SMALLEST_REDUCTION = 1.5


class FromPrior(Method):
    """Draws from a prior that knows the luma: there is nothing left to measure."""

    name = "colours"
    spacing = "log"


def colorize(
    image: Any,
    *,
    prior: str | Path | BasePrior | None = None,
    working_size: int | None = None,
    draws: int | None = None,
    method: str | Method | None = None,
    steps: int | None = None,
    **settings: Any,
) -> Any:
    """Gives a grey picture plausible colours, and keeps its luma.

    What colour a thing has is told by the whole of it, and a prior that was trained on small crops sees no more than
    that at once. Colours are therefore found for the picture reduced to about ``working_size``, and brought back to
    its full size along the edges of the luma (guided filter, *Guided Image Filtering*, He, Sun and Tang, 2010).

    A prior of colours (:class:`restore.colours.ColourPrior`), such as the one in the package, knows the luma, and
    colours are drawn from it as they are. A prior of pictures is asked for those that have this luma, by a method.

    A single draw may be lucky with its colours or not, and lies in blotches; the mean of many is pale. Without
    ``samples``, the result is the mean of half of ``draws`` draws, those nearest to the mean of all. It is made
    nearly as saturated as they are, and evened out where the luma has no edges (the same filter), since things have one
    colour. With ``samples``, draws are as they are.

    Args:
        image: The picture: numpy ``(H, W)``, PIL, torch ``(1, H, W)``, or a batch; of a colour picture
            the luma is taken.
        prior: A name, a folder (see :func:`restore.load_prior`), or a prior, of colours or of pictures. By default
            ``"colours"``, in the package; ``"photo"`` where a method or noise is given, which are for pictures.
        working_size: The shorter side of the reduced picture, in pixels; what is smaller is not reduced. By default 96,
            and for a prior of colours that of its training.
        draws: Of how many draws one picture is made, 16 by default. Each costs as many network calls.
        method: A method, for a prior of pictures; by default, ``"auto"`` chooses. One that has no draws is run once.
        steps: Number of steps; 20 by default, where no method is named.
        **settings: Further arguments of :func:`restore.solve`.

    Returns:
        A colour picture; with ``samples=n``, ``n`` draws, each as it is.

    Raises:
        ValueError: If the picture has two channels or more than three; if both ``draws`` and ``samples`` are given; if
            a prior of colours is given a method, or noise, which it would leave in the luma.

    Example:
        >>> import numpy as np
        >>> grey = np.full((16, 20), 90, np.uint8)
        >>> colorize(grey, steps=2, seed=0, progress=False).shape
        (16, 20, 3)
    """
    batch, layout = to_batch(image, name="image")
    operator = Grayscale("luma").to(batch.device)
    luma = operator(batch) if batch.shape[1] == 3 else batch
    if luma.shape[1] != 1:
        raise ValueError(
            f"expected a grey picture, or a colour one of 3 channels; got {batch.shape[1]} channels"
        )
    samples, settings = draws_of(settings, batch, layout)
    if draws is not None and samples is not None:
        raise ValueError(
            f"draws={draws} (--draws) is of how many draws one picture is made, samples={samples} (--samples) how many "
            f"draws are returned as they are: give one of the two"
        )
    draws = whole_number(DRAWS if draws is None else draws, "draws")
    method = "auto" if method is None else method
    automatic = is_auto(method)
    noisy = bool(torch.as_tensor(settings.get("noise", 0.0)).any())
    if prior is None:
        prior = "colours" if automatic and not noisy else "photo"
    prior = prior_of({**settings, "prior": prior})
    if working_size is None:
        working_size = prior.size if isinstance(prior, ColourPrior) else COLOUR_SIZE
    factor = min(luma.shape[-2:]) / whole_number(working_size, "working_size")
    small = luma if factor < SMALLEST_REDUCTION else _reduced(luma, factor, getattr(prior, "multiple", 1))
    if isinstance(prior, ColourPrior):
        _check_colours(prior, automatic, method, noisy)
        low, high = prior.value_range
        prior, method = prior.given(low + (high - low) * small), FromPrior()
    drawn = samples or (draws if automatic or as_method(method).draws else None)
    if automatic and steps is None:
        steps = CALLS
    found = solved(small, operator, method, drawn, steps=steps, **{**settings, "prior": prior})
    chroma = found - operator(found)
    if samples is None and drawn:
        chroma = _evened(small.to(chroma), _typical(chroma.unflatten(0, (drawn, len(luma)))))
    luma = luma.repeat(samples or 1, 1, 1, 1)
    if chroma.shape[-2:] != luma.shape[-2:]:
        chroma = _along_edges(luma, chroma, max(1, round(factor)))
    return layout.restore(_in_gamut(luma, chroma, operator), samples=samples)


def _check_colours(prior: ColourPrior, automatic: bool, method: Any, noisy: bool) -> None:
    """Refuses what a prior of colours would pass over silently."""
    if not automatic:
        raise ValueError(
            f"{prior.name!r} is a prior of colours, whose draws need no method: leave out {method!r}, or give a prior "
            f"of pictures, such as 'photo'"
        )
    if noisy:
        raise ValueError(
            f"{prior.name!r} is a prior of colours, and the luma is kept with its noise: leave out the noise, or give "
            f"a prior of pictures, such as 'photo'"
        )


def _reduced(luma: Tensor, factor: float, multiple: int) -> Tensor:
    """The luma at about its size over ``factor``, in sides that the network takes.

    What it does not take is padded, and so small a picture would be padding by a tenth, where colours are made up.
    """
    sides = [multiple * max(1, round(n / factor / multiple)) for n in luma.shape[-2:]]
    return F.interpolate(luma, sides, mode="area")


def _typical(chroma: Tensor) -> Tensor:
    """Of draws ``(n, B, 3, h, w)``, for each of ``B`` pictures the mean of the half that is nearest to their mean.

    A mean is paler than draws: it is made nearly as saturated as they are, by a factor of 3 at most.
    """
    distance = (chroma - chroma.mean(0)).square().mean((-3, -2, -1))
    nearest = distance.argsort(0)[: (len(chroma) + 1) // 2]
    mean = chroma.gather(0, nearest[:, :, None, None, None].expand(-1, -1, *chroma.shape[2:])).mean(0)
    factor = SATURATION * _saturation(chroma).mean(0) / _saturation(mean).clamp(min=1e-8)
    return mean * factor.clamp(max=3)


def _saturation(chroma: Tensor) -> Tensor:
    """The root mean square of the chroma of each picture, ``(..., 1, 1, 1)``."""
    return chroma.square().mean((-3, -2, -1), keepdim=True).sqrt()


def _evened(luma: Tensor, chroma: Tensor) -> Tensor:
    """The chroma of a picture, evened out over each thing that its luma shows, and as saturated as it was."""
    from kornia.filters import guided_blur

    radius = max(1, round(THING * min(luma.shape[-2:])))
    even = guided_blur(luma, chroma, 2 * radius + 1, eps=SHADES, border_type="replicate")
    return even * (_saturation(chroma) / _saturation(even).clamp(min=1e-8)).clamp(max=2)


def _along_edges(luma: Tensor, chroma: Tensor, factor: int) -> Tensor:
    """The chroma of a reduced picture at the size of its luma, smooth but where the luma has edges."""
    from kornia.filters import guided_blur

    large = F.interpolate(chroma.to(luma.device), luma.shape[-2:], mode="bicubic", align_corners=False)
    return guided_blur(luma, large, 2 * factor + 1, eps=1e-3)


def _in_gamut(luma: Tensor, chroma: Tensor, operator: Grayscale) -> Tensor:
    """The colour picture of a luma in [0, 1]; chroma is paled just where a channel would leave [0, 1]."""
    chroma = chroma.to(luma.device)
    chroma = chroma - operator(chroma)  # Filters may have given it a little luma.
    room = torch.where(chroma > 0, 1 - luma, luma).clamp(min=0)
    share = (room / chroma.abs().clamp(min=1e-8)).amin(1, keepdim=True).clamp(max=1)
    return (luma + share * chroma).clamp(0, 1)  # For rounding.
