"""How good a restoration is: against the truth, against the measurement, and as a distribution.

Pictures come in any layout that `restore.images.to_batch` takes, white being 1 for floats and 255 for uint8.
Every measure is taken per picture: one number for one picture, `(B,)` for a batch.

>>> truth = np.full((16, 16), 100, dtype=np.uint8)
>>> round(psnr(truth + np.uint8(5), truth), 2)
34.15
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restore.images import ImageFormat, to_batch

__all__ = [
    "Calibration",
    "calibration",
    "coverage",
    "data_misfit",
    "lpips",
    "lpips_available",
    "psnr",
    "ssim",
]

# Each backbone's file, its size, and the smallest side of a picture that its poolings leave room for.
_BACKBONES = {
    "alex": ("alexnet-owt-7be5be79.pth", "233 MB", 31),
    "vgg": ("vgg16-397923af.pth", "528 MB", 16),
    "squeeze": ("squeezenet1_1-b8a52dc0.pth", "4.7 MB", 17),
}
_SSIM_WINDOW = 11  # a Gaussian of sigma 1.5, cut at 3.5 sigma


# ----------------------------------------------------------------------------------------------------------
# Against the truth
# ----------------------------------------------------------------------------------------------------------


def psnr(image: Any, reference: Any, data_range: float | None = None) -> Any:
    """Peak signal-to-noise ratio in dB, `10 log10(data_range^2 / MSE)`, the mean over pixels and channels.

    Args:
        image: One picture or a batch.
        reference: The true picture, of the same shape; one may serve a whole batch.
        data_range: Distance from black to white in units of the reference: 1 for floats, 255 for uint8
            unless given.

    Returns:
        A float, or `(B,)` (a float32 tensor for a tensor, else an array). Infinite for identical pictures.

    Raises:
        ValueError: If shapes differ, `data_range` is not positive, or a picture is not one (see `to_batch`).

    >>> round(psnr(np.full((8, 8), 0.5), np.full((8, 8), 0.6)), 2)
    20.0
    """
    # Data in units of their own say so by their range.
    x, truth, fmt, truth_fmt = _pair(image, reference, check_range=data_range is None)
    white = 1.0 if data_range is None else data_range / truth_fmt.scale
    if not white > 0:
        raise ValueError(f"data_range is {data_range}; expected a positive number.")
    error = _mean_square(x - truth)
    with np.errstate(divide="ignore"):
        return _answer(10.0 * np.log10(white**2 / error), fmt)


def ssim(image: Any, reference: Any) -> Any:
    """Structural similarity of Wang et al. (2004): Gaussian window of sigma 1.5, mean over channels.

    The constants are the paper's (K1 = 0.01, K2 = 0.03, biased covariances), by scikit-image. 1 is identical.

    Args:
        image: One picture or a batch, sides of at least 11.
        reference: The true picture, of the same shape; one may serve a whole batch.

    Returns:
        A float, or `(B,)` (a float32 tensor for a tensor, else an array).

    Raises:
        ValueError: If shapes differ or a side is shorter than the window.

    >>> picture = np.random.default_rng(0).random((16, 16, 3))
    >>> ssim(picture, picture)
    1.0
    """
    from skimage.metrics import structural_similarity

    x, truth, fmt, _ = _pair(image, reference)
    if min(x.shape[-2:]) < _SSIM_WINDOW:
        raise ValueError(
            f"the pictures are {_size(x)}; SSIM looks through a window of {_SSIM_WINDOW} pixels a side: "
            "compare larger pictures, or use psnr."
        )
    values = [
        structural_similarity(
            a.double().cpu().numpy(),
            b.double().cpu().numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(x, truth.expand_as(x), strict=True)
    ]
    return _answer(np.array(values), fmt)


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
    x, truth, fmt, _ = _pair(image, reference)
    smallest = _BACKBONES[net][2]
    if min(x.shape[-2:]) < smallest:
        raise ValueError(
            f"the pictures are {_size(x)}; LPIPS with net={net!r} needs sides of at least {smallest}: "
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
    return _answer(np.array(values), fmt)


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


# ----------------------------------------------------------------------------------------------------------
# Against the measurement
# ----------------------------------------------------------------------------------------------------------


def data_misfit(
    image: Any,
    y: Any,
    operator: Callable[[Tensor], Tensor],
    noise: float | Sequence[float] | np.ndarray | Tensor | None = None,
) -> Any:
    """How far a picture is from explaining the measurement: the root mean square of `y - A(x)`.

    With `noise` the misfit is in standard deviations: near 1 where all that is left is noise, well above
    where the picture contradicts the measurement, well below where it has fitted the noise.

    Args:
        image: One picture, or a batch (several draws for one measurement are a batch as well).
        y: The measurement, one for each picture or one for all of them.
        operator: Takes pictures `(B, C, H, W)` in [0, 1] to measurements `(B, C', H', W')`, white being 1.
        noise: Standard deviation in units of `y` as given (0 to 255 if `y` is uint8); one number, or `(B,)`.

    Returns:
        A float, or `(B,)`, in units of `y`, or of the noise.

    Raises:
        ValueError: If the operator's result and `y` differ in shape, or noise is not positive.

    >>> y = np.full((4, 4), 0.5)
    >>> round(data_misfit(np.full((8, 8), 0.52), y, lambda x: x[..., ::2, ::2], noise=0.01), 3)
    2.0
    """
    x, fmt = to_batch(image)
    measured, y_fmt = to_batch(y, check_range=False, name="y")
    if isinstance(operator, nn.Module):
        held = next(itertools.chain(operator.parameters(), operator.buffers()), None)
        x = x if held is None else x.to(held.device)
    with torch.no_grad():
        predicted = operator(x)
    if predicted.shape[1:] != measured.shape[1:] or measured.shape[0] not in (1, predicted.shape[0]):
        raise ValueError(
            f"the operator makes measurements of shape {tuple(predicted.shape)} from pictures of shape "
            f"{tuple(x.shape)}, and y is {tuple(measured.shape)} as (B, C, H, W); expected the same."
        )
    misfit = np.sqrt(_mean_square(predicted - measured.to(predicted))) * y_fmt.scale
    if noise is not None:
        sigma = np.asarray(noise.detach().cpu() if isinstance(noise, Tensor) else noise, dtype=np.float64)
        if sigma.shape not in ((), misfit.shape) or not np.all(sigma > 0):
            raise ValueError(
                f"noise is {noise}; expected a positive number, or one for each of {len(misfit)} pictures. "
                "For a measurement without noise leave it out: the misfit is then in units of y."
            )
        misfit = misfit / sigma
    return _answer(misfit, fmt)


# ----------------------------------------------------------------------------------------------------------
# As a distribution
# ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Share of true pixels inside the central intervals of the draws, level by level.

    Attributes:
        levels: `(L,)` nominal shares.
        coverage: `(L,)` shares found, or `(B, L)` for a batch.
        draws: Number of draws.
    """

    levels: np.ndarray
    coverage: np.ndarray
    draws: int

    @property
    def error(self) -> Any:
        """Mean of `|coverage - levels|`: a float, or `(B,)`. 0 is calibrated."""
        error = np.abs(self.coverage - self.levels).mean(axis=-1)
        return float(error) if error.ndim == 0 else error

    @property
    def bias(self) -> Any:
        """Mean of `coverage - levels`: below 0 where draws are too alike (overconfident)."""
        bias = (self.coverage - self.levels).mean(axis=-1)
        return float(bias) if bias.ndim == 0 else bias


def coverage(samples: Any, truth: Any, level: float = 0.9, *, where: Any = None) -> Any:
    """Share of true pixels that lie inside the central interval of the draws, which should be `level`.

    Below `level` the draws are too much alike (overconfident); above it they spread too widely.

    How many draws there are is allowed for. A true value that is exchangeable with `n` draws lies between the
    `j`-th lowest and the `j`-th highest, ends included, with probability `1 - 2 j / (n + 1)`; the shares
    found at these levels are joined by straight lines. So the expected share equals `level` for any number of
    draws and any distribution, where the usual quantiles of few draws would look overconfident.

    Args:
        samples: The draws, one more axis in front than `truth`: what `solve(..., samples=n)` returns. A list
            of pictures will do.
        truth: The true picture, or a batch.
        level: Nominal share in (0, 1), at most `(n - 1) / (n + 1)`: 19 draws for 0.9, 39 for 0.95.
        where: Boolean picture of the pixels to count (`(H, W)`, or as large as the truth), such as the
            missing ones. Pixels that the measurement holds fixed equal in all draws count as inside.

    Returns:
        A float, or an array `(B,)` for a batch.

    Raises:
        ValueError: If there are too few draws for the level, or shapes differ.

    >>> rng = np.random.default_rng(0)
    >>> draws, truth = rng.normal(size=(19, 64, 64)), rng.normal(size=(64, 64))
    >>> round(coverage(draws, truth, 0.9), 2), round(coverage(draws / 2, truth, 0.9), 2)
    (0.9, 0.63)
    """
    share = calibration(samples, truth, [level], where=where).coverage[..., 0]
    return float(share) if share.ndim == 0 else share


def calibration(
    samples: Any, truth: Any, levels: Sequence[float] | np.ndarray | None = None, *, where: Any = None
) -> Calibration:
    """Coverage at several levels: a calibration curve, on the diagonal for draws from the true posterior.

    Args:
        samples: The draws, one more axis in front than `truth`.
        truth: The true picture, or a batch.
        levels: Nominal shares. By default 0.1 to 0.9, as far as the number of draws reaches.
        where: Boolean picture of the pixels to count.

    Returns:
        The curve. See `coverage` for how it is computed.

    Raises:
        ValueError: If there are too few draws for a level, shapes differ, or no pixel is counted.

    >>> rng = np.random.default_rng(0)
    >>> curve = calibration(rng.normal(size=(9, 64, 64)), rng.normal(size=(64, 64)), levels=[0.2, 0.8])
    >>> curve.coverage.round(1)
    array([0.2, 0.8])
    """
    x, fmt = to_batch(truth, check_range=False, name="truth")
    counted = _counted(where, tuple(x.shape))
    depth, n = _depth(samples, x.cpu())
    largest = (n - 1) / (n + 1)
    if levels is None:
        nominal = np.arange(1, 10) / 10
        nominal = nominal[nominal <= largest + 1e-9]
        if not len(nominal):
            raise ValueError(f"{n} draw(s) have no interval that can be judged; draw at least 2, better 19.")
    else:
        nominal = np.asarray(levels, dtype=np.float64).reshape(-1)
    for level in nominal:
        if not 0 < level < 1:
            raise ValueError(f"level is {level}; expected a share between 0 and 1, such as 0.9.")
        if level > largest + 1e-9:
            needed = int(np.ceil((1 + level) / (1 - level) - 1e-9))
            raise ValueError(
                f"{n} draws cannot tell an interval of {level:g}: from the lowest to the highest they span "
                f"{largest:.3g}. Take at least {needed} draws, or a level up to {largest:.3g}."
            )

    rank = np.arange(n // 2, 0, -1)  # from the narrowest interval to the widest
    exact = np.concatenate([[0.0], 1.0 - 2.0 * rank / (n + 1)])
    shares = np.empty((x.shape[0], len(nominal)))
    for b in range(x.shape[0]):
        inside = [0.0, *((depth[b][counted[b]] >= j).mean() for j in rank)]
        shares[b] = np.interp(nominal, exact, inside)
    return Calibration(nominal, shares if fmt.batched else shares[0], n)


def _depth(samples: Any, truth: Tensor) -> tuple[np.ndarray, int]:
    """How deep the truth `(B, C, H, W)` lies among the draws, and the number of draws.

    The depth is the lesser of two counts: draws not above the truth, and draws not below it. It is at least
    `j` where the truth lies between the `j`-th lowest and the `j`-th highest draw.
    """
    if not isinstance(samples, (np.ndarray, Tensor, list, tuple)):
        raise TypeError(
            f"samples is a {type(samples).__name__}; expected draws along a first axis, or a list."
        )
    not_above = torch.zeros(truth.shape, dtype=torch.int32)
    not_below = torch.zeros(truth.shape, dtype=torch.int32)
    for i, sample in enumerate(samples):
        draw = to_batch(sample, check_range=False, name=f"samples[{i}]")[0].cpu()
        if draw.shape != truth.shape:
            raise ValueError(
                f"samples[{i}] is {tuple(draw.shape)} and the truth {tuple(truth.shape)} as (B, C, H, W); "
                "expected the same. The draws lie along the first axis of samples: (n, H, W, C) in numpy, "
                "(n, C, H, W) in torch."
            )
        not_above += draw <= truth
        not_below += draw >= truth
    if len(samples) == 0:
        raise ValueError("samples is empty; expected at least 2 draws.")
    return torch.minimum(not_above, not_below).numpy(), len(samples)


def _counted(where: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The pixels to count, `(B, C, H, W)` booleans."""
    if where is None:
        return np.ones(shape, dtype=bool)
    if isinstance(where, (np.ndarray, Tensor)) and where.dtype not in (np.bool_, torch.bool):
        raise ValueError(f"where has type {where.dtype}; expected booleans, True for pixels that count.")
    chosen = to_batch(where, name="where")[0].cpu().numpy() > 0.5
    try:
        chosen = np.broadcast_to(chosen, shape)
    except ValueError:
        raise ValueError(
            f"where is {chosen.shape} and the truth {shape} as (B, C, H, W); expected the same, or (H, W)."
        ) from None
    if not chosen.any(axis=(1, 2, 3)).all():
        raise ValueError("where leaves no pixel to count in at least one picture.")
    return chosen


# ----------------------------------------------------------------------------------------------------------
# Common to all
# ----------------------------------------------------------------------------------------------------------


def _pair(
    image: Any, reference: Any, check_range: bool = True
) -> tuple[Tensor, Tensor, ImageFormat, ImageFormat]:
    x, fmt = to_batch(image, check_range=check_range)
    truth, truth_fmt = to_batch(reference, check_range=check_range, name="reference")
    if x.shape[1:] != truth.shape[1:] or truth.shape[0] not in (1, x.shape[0]):
        raise ValueError(
            f"image is {tuple(x.shape)} and reference {tuple(truth.shape)} as (B, C, H, W); expected "
            "the same. Crop or convert one of them: they are not resized, since that changes the result."
        )
    return x, truth.to(x.device), fmt, truth_fmt


def _mean_square(error: Tensor) -> np.ndarray:
    """Mean of squares per picture, `(B,)`, summed in float64."""
    return error.detach().cpu().double().square().flatten(1).mean(1).numpy()


def _answer(values: np.ndarray, fmt: ImageFormat) -> Any:
    if not fmt.batched:
        return float(values[0])
    return torch.from_numpy(values).float().to(fmt.device) if fmt.kind == "torch" else values


def _size(batch: Tensor) -> str:
    return f"{batch.shape[-2]} by {batch.shape[-1]} pixels"
