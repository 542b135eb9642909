"""The common repairs in one call each, with everything practical around :func:`restore.solve`.

They take grey pictures too, keep what was measured, and get along with photographs of many megapixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from operators import Blur, Downsample, Grayscale, LinearOperator, Mask, PoissonNoise
from restore.checkpoint import load_prior
from restore.images import ImageFormat, to_batch
from restore.prior import BasePrior
from restore.randomness import stream_seed
from restore.solve import solve

MARGIN = 64
#: Colours are found for a picture whose shorter side is about this.
COLOUR_SIZE = 96
#: A larger picture than this (in pixels) is put together from patches, whose side is PATCH and which overlap by MARGIN.
PIXELS_AT_ONCE = 16_000_000
PATCH = 1024


def inpaint(
    image: Any, mask: Any, *, method: str | None = None, steps: int | None = None, **settings: Any
) -> Any:
    """Fills in what a mask leaves out; every other pixel stays exactly as it is.

    Only the surroundings of the holes go through the network, so that a small hole in a large photograph costs
    little.

    Args:
        image: The picture: numpy ``(H, W)`` or ``(H, W, 3)``, PIL, torch ``(C, H, W)``, or a batch; what lies in
            the holes is not looked at.
        mask: ``(H, W)``, for all pictures: True, or above 0, where the picture is kept. Masks drawn in an editor,
            white where something is to be filled in, are read by ``operators.mask_from_image``.
        method: A method that can fill holes; by default, ``"auto"`` chooses.
        steps: Number of steps.
        **settings: Further arguments of :func:`restore.solve`, e.g. ``seed=0, samples=4, prior="photo"``.

    Returns:
        The picture with the holes filled; with ``samples=n``, ``n`` of them.

    Raises:
        ValueError: If the mask is not of the picture's size, or nothing of the picture is kept.

    Example:
        >>> image = np.full((32, 32, 3), 200, np.uint8)
        >>> mask = np.ones((32, 32), bool)
        >>> mask[10:14, 10:14] = False
        >>> filled = inpaint(image, mask, steps=2, seed=0, progress=False)
        >>> bool((filled == image)[mask].all())
        True
    """
    batch, layout = to_batch(image, name="image")
    # Mask refuses pictures of a mask (0 and 255), of which nobody knows what white means.
    kept = Mask(mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))).mask.cpu()
    kept = kept.squeeze((0, 1)) > 0
    if kept.shape != batch.shape[-2:]:
        raise ValueError(
            f"the mask has shape {tuple(kept.shape)}, the picture {tuple(batch.shape[-2:])}: "
            f"give one of the picture's size, (height, width)"
        )
    if not kept.any():
        raise ValueError(
            "the mask keeps nothing of the picture: True (or white, after mask_from_image) means kept"
        )
    settings["prior"] = _prior(settings)
    colour, back = _as_colour(batch, settings["prior"])
    samples, settings = _draws(settings, layout)
    result = torch.where(kept.to(batch.device), colour, 0).repeat(samples or 1, 1, 1, 1)
    # A network that was trained on whole pictures of one size is shown as much of this one.
    least = max(getattr(settings["prior"], "trained_size", None) or (1,))
    for number, (rows, columns) in enumerate(hole_windows(kept.numpy(), MARGIN, least)):
        part = kept[rows, columns]
        y = torch.where(part.to(batch.device), colour[..., rows, columns], 0)
        own = {**_seeded(settings, number), "samples": samples or 1}
        filled = solve(y, Mask(part), method or "auto", steps=steps, **own)
        hole = ~part.to(batch.device)
        target = result[..., rows, columns]
        result[..., rows, columns] = torch.where(hole, filled.flatten(0, 1), target)
    result = torch.where(kept.to(batch.device), batch.repeat(samples or 1, 1, 1, 1), back(result))
    return layout.restore(result, samples=samples)


def super_resolve(
    image: Any, scale: int = 4, *, method: str | None = None, steps: int | None = None, **settings: Any
) -> Any:
    """Enlarges a picture: finds one that looks like a photograph and, made smaller again, is the given one.

    Args:
        image: The small picture: numpy ``(H, W)`` or ``(H, W, 3)``, PIL, torch ``(C, H, W)``, or a batch.
        scale: How many times higher and wider, at least 2.
        method: A method; by default, ``"auto"`` chooses.
        steps: Number of steps.
        **settings: Further arguments of :func:`restore.solve`; ``noise`` if the picture is noisy.

    Returns:
        A picture of ``scale`` times the height and width; with ``samples=n``, ``n`` of them.

    Example:
        >>> small = np.full((8, 10, 3), 200, np.uint8)
        >>> super_resolve(small, 2, steps=2, seed=0, progress=False).shape
        (16, 20, 3)
    """
    if isinstance(scale, bool) or int(scale) != scale or scale < 2:
        raise ValueError(f"scale must be a whole number of at least 2, not {scale}")
    batch, layout = to_batch(image, name="image")
    settings["prior"] = _prior(settings)
    colour, back = _as_colour(batch, settings["prior"])
    samples, settings = _draws(settings, layout)

    def enlarge(part: Tensor, number: int = 0) -> Tensor:
        operator = Downsample(int(scale))
        own = {**_seeded(settings, number), "samples": samples or 1}
        x = solve(part, operator, method or "auto", steps=steps, **own).flatten(0, 1)
        return _consistent(x, part, operator, settings)

    if colour.shape[-2] * colour.shape[-1] * scale**2 <= PIXELS_AT_ONCE:
        result = enlarge(colour)
    else:
        result = _by_patches(colour, int(scale), samples or 1, enlarge)
    return layout.restore(back(result), samples=samples)


def deblur(
    image: Any,
    kernel: Any,
    *,
    noise: float | None = None,
    method: str | None = None,
    steps: int | None = None,
    **settings: Any,
) -> Any:
    """Undoes a known blur.

    Args:
        image: The blurred picture: numpy ``(H, W)`` or ``(H, W, 3)``, PIL, torch ``(C, H, W)``, or a batch.
        kernel: The blur, ``(h, w)``, e.g. ``operators.gaussian_kernel(3.0)``; it is made to sum to 1.
        noise: Standard deviation of the noise in the picture, in its units; a hundredth of its range by default.
        method: A method; by default, ``"auto"`` chooses.
        steps: Number of steps.
        **settings: Further arguments of :func:`restore.solve`.

    Returns:
        The sharp picture; with ``samples=n``, ``n`` of them.

    Raises:
        ValueError: If the kernel does not sum to more than 0.

    Example:
        >>> from operators import gaussian_kernel
        >>> blurred = np.full((16, 20, 3), 200, np.uint8)
        >>> deblur(blurred, gaussian_kernel(1.0), steps=2, seed=0, progress=False).shape
        (16, 20, 3)
    """
    weights = torch.as_tensor(
        np.array(kernel, dtype=np.float64) if not isinstance(kernel, Tensor) else kernel
    ).double()
    if not float(weights.sum()) > 0:
        raise ValueError(f"a blur's kernel sums to more than 0; this one to {float(weights.sum()):.3g}")
    batch, layout = to_batch(image, name="image")
    settings["prior"] = _prior(settings)
    colour, back = _as_colour(batch, settings["prior"])
    samples, settings = _draws(settings, layout)
    level = 0.01 if noise is None else _deviation(noise) / layout.scale
    # The camera saw more than it shows: the picture is a part of a larger blurred scene, of which nothing is assumed.
    # Against reflection at the border, that is worth 2 dB on Kodak pictures blurred by 25 x 25 pixels.
    operator = Blur((weights / weights.sum()).float(), boundary="valid")
    operator.cg_iterations = 25  # A proximal step on the way need not be exact: 0.03 dB from 200.
    settings = {**settings, "noise": level, "samples": samples or 1}
    result = solve(colour, operator, method or "auto", steps=steps, **settings).flatten(0, 1)
    (top, left), (height, width) = (n - 1 - n // 2 for n in weights.shape[-2:]), batch.shape[-2:]
    return layout.restore(back(result[..., top : top + height, left : left + width]), samples=samples)


def colorize(
    image: Any,
    *,
    working_size: int = COLOUR_SIZE,
    method: str | None = None,
    steps: int | None = None,
    **settings: Any,
) -> Any:
    """Gives a grey picture plausible colours, and keeps its luma.

    What colour a thing has is told by the whole of it, and a prior that was trained on small crops sees no more than
    that at once. Colours are therefore found for the picture reduced to about ``working_size``, and brought back to
    its full size along the edges of the luma (guided filter, *Guided Image Filtering*, He, Sun and Tang, 2010).

    Args:
        image: The picture: numpy ``(H, W)``, PIL, torch ``(1, H, W)``, or a batch; of a colour picture
            the luma is taken.
        working_size: The shorter side of the reduced picture, in pixels; what is smaller is not reduced.
        method: A method; by default, ``"auto"`` chooses.
        steps: Number of steps.
        **settings: Further arguments of :func:`restore.solve`.

    Returns:
        A colour picture; with ``samples=n``, ``n`` of them.

    Example:
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
    samples, settings = _draws(settings, layout)
    with_samples = {**settings, "samples": samples or 1}
    factor = max(1, round(min(luma.shape[-2:]) / working_size))
    rows, columns = (max(1, round(n / factor)) for n in luma.shape[-2:])
    small = luma if factor == 1 else F.interpolate(luma, (rows, columns), mode="area")
    found = solve(small, operator, method or "auto", steps=steps, **with_samples).flatten(0, 1)
    chroma = found - operator(found)
    if factor > 1:
        chroma = _along_edges(luma.repeat(samples or 1, 1, 1, 1), chroma, factor)
    return layout.restore(_in_gamut(luma.repeat(samples or 1, 1, 1, 1), chroma, operator), samples=samples)


# -------------------------------------------------------------------- what they share


def _deviation(noise: Any) -> Any:
    """A standard deviation as it is: the repairs know no other noise."""
    if isinstance(noise, PoissonNoise):
        raise TypeError("a repair takes noise as a standard deviation; for photon noise, use restore.solve")
    return noise


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


def _draws(settings: dict[str, Any], layout: ImageFormat) -> tuple[int | None, dict[str, Any]]:
    """The number of draws, and the other settings, with the noise in the units that ``to_batch`` made."""
    others = {k: v for k, v in settings.items() if k != "samples"}
    if "noise" in others:
        others["noise"] = torch.as_tensor(_deviation(others["noise"]), dtype=torch.float64) / layout.scale
    return settings.get("samples"), others


def _prior(settings: dict[str, Any]) -> BasePrior:
    """The prior, loaded once for all parts of a picture."""
    prior = settings.get("prior", "photo")
    if isinstance(prior, BasePrior):
        return prior
    device = settings.get("device")
    return load_prior(prior, device=device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _seeded(settings: dict[str, Any], number: int) -> dict[str, Any]:
    """The settings for a part of a picture: each part has noise of its own, the first as if it were alone."""
    seed = settings.get("seed")
    if seed is None or number == 0:
        return settings
    own = [stream_seed(s, number) for s in seed] if isinstance(seed, Sequence) else stream_seed(seed, number)
    return {**settings, "seed": own}


def _as_colour(batch: Tensor, prior: BasePrior) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A grey picture as a colour one for a colour prior, and the way back."""
    if batch.shape[1] == 1 and prior.channels == 3:
        return batch.repeat(1, 3, 1, 1), lambda x: x.mean(1, keepdim=True)
    return batch, lambda x: x


def _consistent(x: Tensor, y: Tensor, operator: LinearOperator, settings: dict[str, Any]) -> Tensor:
    """``x`` moved by as little as makes ``A x = y``, where ``y`` has no noise; values stay in [0, 1]."""
    if float(torch.as_tensor(settings.get("noise", 0.0)).max()) > 0:
        return x
    operator = operator.to(x.device)
    y = y.to(x.device).repeat(len(x) // len(y), 1, 1, 1)
    for _ in range(10):  # Clipping undoes a little of it, and less each time.
        x = (x + operator.pinv(y - operator(x))).clamp(0, 1)
    return x


def hole_windows(kept: np.ndarray, margin: int, least: int = 1) -> list[tuple[slice, slice]]:
    """Rectangles that hold all holes of a mask, with a margin around each; rectangles do not overlap.

    Args:
        kept: ``(H, W)`` boolean, False in the holes.
        margin: Pixels around each hole, as far as the picture goes.
        least: Height and width of a rectangle are at least this, as far as the picture goes.

    Returns:
        Rows and columns of each rectangle; none if there is no hole.

    Example:
        >>> kept = np.ones((100, 100), bool)
        >>> kept[50, 20] = False
        >>> hole_windows(kept, 8)
        [(slice(42, 59, None), slice(12, 29, None))]
    """
    from skimage.measure import label, regionprops

    boxes = [
        _grown(region.bbox, margin, least, kept.shape) for region in regionprops(label(~kept, connectivity=2))
    ]
    merged = True
    while merged:  # Two rectangles that overlap become the one around both, until none do.
        merged, rest = False, boxes
        boxes = []
        for box in rest:
            for i, other in enumerate(boxes):
                if box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]:
                    (top, left), (bottom, right) = map(min, box[:2], other[:2]), map(max, box[2:], other[2:])
                    boxes[i] = (top, left, bottom, right)
                    merged = True
                    break
            else:
                boxes.append(box)
    return [(slice(top, bottom), slice(left, right)) for top, left, bottom, right in boxes]


def _grown(
    box: tuple[int, ...], margin: int, least: int, shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
    def along(start: int, end: int, size: int) -> tuple[int, int]:
        start, end = max(start - margin, 0), min(end + margin, size)
        length = min(max(end - start, least), size)
        start = min(max(start - (length - (end - start)) // 2, 0), size - length)
        return start, start + length

    (top, bottom), (left, right) = along(box[0], box[2], shape[0]), along(box[1], box[3], shape[1])
    return top, left, bottom, right


def _by_patches(y: Tensor, scale: int, samples: int, enlarge: Callable[[Tensor, int], Tensor]) -> Tensor:
    """A picture too large for the memory, put together from patches that fade into each other."""
    number, side, overlap = 0, PATCH // scale, MARGIN // scale
    height, width = y.shape[-2:]
    result = torch.zeros(samples * len(y), y.shape[1], height * scale, width * scale)
    weight = torch.zeros(height * scale, width * scale)
    for top in _starts(height, side, overlap):
        for left in _starts(width, side, overlap):
            part = y[..., top : top + side, left : left + side]
            fade = _fade(part.shape[-2] * scale, overlap * scale)[:, None] * _fade(
                part.shape[-1] * scale, overlap * scale
            )
            rows = slice(top * scale, (top + part.shape[-2]) * scale)
            columns = slice(left * scale, (left + part.shape[-1]) * scale)
            result[..., rows, columns] += enlarge(part, number).cpu() * fade
            number += 1
            weight[rows, columns] += fade
    return result.div_(weight)


def _starts(size: int, side: int, overlap: int) -> list[int]:
    return (
        [0]
        if size <= side
        else sorted({min(i, size - side) for i in range(0, size - overlap, side - overlap)})
    )


def _fade(size: int, overlap: int) -> Tensor:
    edge = torch.arange(1, size + 1)
    return torch.minimum(edge, edge.flip(0)).clamp(max=max(overlap, 1)).float()
