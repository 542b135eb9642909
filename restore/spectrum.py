"""What pictures have in common at any size: a mean colour, and a spectrum that falls with the frequency.

At high noise only the coarsest of a picture can be told, and there pictures are about Gaussian. The best estimate is
then known in closed form, and is better than a network's (*The Unreasonable Effectiveness of Gaussian Score
Approximation for Diffusion Models and its Applications*, 2024, arXiv:2412.09726): in the loss that networks are trained
with, the tint of a picture is one of thousands of numbers, and what they get wrong of it at high noise is multiplied by
the noise (*Easing Color Shifts in Score-Based Diffusion Models*, 2023, arXiv:2306.15832).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

#: How many frequencies along each side are estimated; at high noise, those beyond are not to be told from the mean.
FREQUENCIES = 64


@dataclass(frozen=True)
class Spectrum:
    """A Gaussian model of pictures of any size, for the estimate at high noise.

    Colours are taken in directions that vary independently (brightness and two others, in photographs). In each, the
    coefficients of the cosine transform are independent, and their deviation is a power of the frequency. It is
    counted in half periods per picture, since pictures look alike whatever their number of pixels.

    Attributes:
        mean: The mean colour, ``C`` numbers in the prior's own units.
        directions: ``C`` directions of colour, orthogonal, each of length 1.
        tint: In each direction, the standard deviation of a picture's mean.
        amplitude: In each direction, the standard deviation of what varies once, over half a period.
        slope: In each direction, the power with which it falls with the frequency.
        begin: The noise-to-signal ratio from which on it has a say.
        end: The one from which on the network is not asked.

    Example:
        >>> pictures = torch.rand(50, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 2
        >>> spectrum = Spectrum.of(pictures)
        >>> [round(value, 1) for value in spectrum.mean]
        [2.5, 2.5, 2.5]
        >>> spectrum.estimate(torch.zeros(1, 3, 8, 8), 1e6).mean().round(decimals=1)
        tensor(2.5000)
    """

    mean: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]
    tint: tuple[float, ...]
    amplitude: tuple[float, ...]
    slope: tuple[float, ...]
    begin: float = 8.0
    end: float = 24.0

    @classmethod
    def of(cls, pictures: Tensor, begin: float = 8.0, end: float = 24.0) -> Spectrum:
        """The spectrum of pictures.

        Args:
            pictures: ``(N, C, H, W)``, some hundreds, of sides of at least 16 pixels.
            begin: See the class.
            end: See the class.

        Raises:
            ValueError: If they are fewer than 2, or smaller.
        """
        if pictures.ndim != 4 or len(pictures) < 2 or min(pictures.shape[-2:]) < 16:
            raise ValueError(
                f"expected at least 2 pictures (N, C, H, W) of sides of at least 16 pixels, "
                f"got {tuple(pictures.shape)}"
            )
        x = pictures.detach().cpu().double()
        means = x.mean((-2, -1))
        mean = means.mean(0)
        centred = x - mean[:, None, None]
        _, directions = torch.linalg.eigh(torch.einsum("nchw,ndhw->cd", centred, centred))
        modes = _transform(torch.einsum("dc,nchw->ndhw", directions.mT, centred), 16)
        power = modes.square().mean(0) / (x.shape[-2] * x.shape[-1])
        frequency = _frequencies(*x.shape[-2:], 16).double()
        inside = (frequency >= 1) & (frequency < 16)
        # A line through log(deviation) over log(frequency): there are more of the high frequencies, which weigh less.
        log, weight = frequency[inside].log(), 1 / frequency[inside]
        centre = (weight * log).sum() / weight.sum()
        tint, amplitude, slope = [], [], []
        for each in power:
            value = each[inside].clamp(min=1e-12).log() / 2
            level = (weight * value).sum() / weight.sum()
            fall = -(weight * (log - centre) * value).sum() / (weight * (log - centre) ** 2).sum()
            tint.append(float(each[0, 0].sqrt()))
            amplitude.append(float((level + fall * centre).exp()))
            slope.append(float(fall))
        return cls(
            mean=_rounded(mean),
            directions=tuple(_rounded(row) for row in directions.mT),
            tint=_rounded(tint),
            amplitude=_rounded(amplitude),
            slope=_rounded(slope),
            begin=begin,
            end=end,
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Spectrum:
        """The spectrum that :meth:`to_config` told.

        Raises:
            ValueError: If a part is missing, of another kind, or of another number of channels.
        """
        try:
            parts = {f.name: config[f.name] for f in fields(cls)}
            channels = len(parts["mean"])
            rows = [*parts["directions"], *(parts[name] for name in ("tint", "amplitude", "slope"))]
            lists = {name: tuple(map(float, parts[name])) for name in ("mean", "tint", "amplitude", "slope")}
            directions = tuple(tuple(map(float, row)) for row in parts["directions"])
            begin, end = float(parts["begin"]), float(parts["end"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{config!r} describes no spectrum: {error}") from error
        numbers = [v for row in (*lists.values(), *directions) for v in row]
        if any(len(row) != channels for row in rows) or len(directions) != channels:
            raise ValueError(
                f"{config!r} describes no spectrum: its parts are of several numbers of channels"
            )
        if not all(map(math.isfinite, numbers)) or not 0 < begin < end < math.inf:
            raise ValueError(f"{config!r} describes no spectrum: expected numbers, and 0 < begin < end")
        return cls(lists["mean"], directions, lists["tint"], lists["amplitude"], lists["slope"], begin, end)

    def to_config(self) -> dict[str, Any]:
        """The spectrum as JSON can tell it."""
        told = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**told, **{k: list(v) for k, v in told.items() if isinstance(v, tuple)}}

    def estimate(self, x: Tensor, noise: float | Tensor) -> Tensor:
        """The posterior mean of a picture, given it with white noise.

        Args:
            x: The picture with noise, ``x_t / alpha``, ``(B, C, H, W)``.
            noise: Its standard deviation, ``sigma / alpha``; a number, or one per image ``(B,)``.

        Returns:
            ``(B, C, H, W)``.
        """
        height, width = x.shape[-2:]
        mean = x.new_tensor(self.mean)[:, None, None]
        directions = x.new_tensor(self.directions)
        modes = _transform(torch.einsum("dc,nchw->ndhw", directions, x - mean), FREQUENCIES)
        frequency = _frequencies(height, width, FREQUENCIES).to(x)
        tint, amplitude, slope = (
            x.new_tensor(v)[:, None, None] for v in (self.tint, self.amplitude, self.slope)
        )
        deviation = torch.where(frequency == 0, tint, amplitude * frequency.clamp(min=1e-9) ** -slope)
        variance = height * width * deviation**2
        noise = noise.to(x).reshape(-1, 1, 1, 1) if isinstance(noise, Tensor) else noise
        modes = modes * (variance / (variance + noise**2))
        return mean + torch.einsum("dc,ndhw->nchw", directions, _inverse(modes, height, width))

    def share(self, noise: float | Tensor) -> float | Tensor:
        """What share of the estimate is the spectrum's, in [0, 1], at noise-to-signal ratios."""
        reach = math.log(self.end / self.begin)
        if isinstance(noise, Tensor):
            return ((noise / self.begin).log() / reach).clamp(0, 1)
        return min(1.0, max(0.0, math.log(max(noise, 1e-30) / self.begin) / reach))

    def combined(self, x: Tensor, noise: float | Tensor, network: Callable[[], Tensor]) -> Tensor:
        """The network's estimate at low noise, the spectrum's at high, and a mean of both between.

        Args:
            x: ``x_t / alpha``, ``(B, C, H, W)``.
            noise: ``sigma / alpha``; a number, or one per image ``(B,)``.
            network: Gives the network's estimate; not called where that has no share.
        """
        share = self.share(noise)
        least, most = (share, share) if not isinstance(share, Tensor) else (share.min(), share.max())
        if most <= 0:
            return network()
        own = self.estimate(x, noise)
        if least >= 1:
            return own
        share = share.to(x).reshape(-1, 1, 1, 1) if isinstance(share, Tensor) else share
        return share * own + (1 - share) * network()


def _rounded(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)


@lru_cache(maxsize=32)
def _cosines(size: int, count: int) -> Tensor:
    """The first rows of the orthonormal cosine transform (DCT-II), ``(count, size)`` float64."""
    at = (torch.arange(size, dtype=torch.float64) + 0.5) * math.pi / size
    rows = torch.cos(torch.arange(min(count, size), dtype=torch.float64)[:, None] * at)
    rows *= math.sqrt(2 / size)
    rows[0] *= math.sqrt(0.5)
    return rows


def _transform(x: Tensor, count: int) -> Tensor:
    """The lowest coefficients ``(..., count, count)`` of pictures ``(..., H, W)``."""
    height, width = x.shape[-2:]
    return _cosines(height, count).to(x) @ x @ _cosines(width, count).to(x).mT


def _inverse(modes: Tensor, height: int, width: int) -> Tensor:
    """Pictures ``(..., H, W)`` of their lowest coefficients."""
    return _cosines(height, FREQUENCIES).to(modes).mT @ modes @ _cosines(width, FREQUENCIES).to(modes)


@lru_cache(maxsize=32)
def _frequencies(height: int, width: int, count: int) -> Tensor:
    """Half periods of each coefficient over a square of as many pixels, ``(count, count)`` float64."""
    side = math.sqrt(height * width)
    rows = torch.arange(min(count, height), dtype=torch.float64) * side / height
    columns = torch.arange(min(count, width), dtype=torch.float64) * side / width
    return torch.hypot(rows[:, None], columns)
