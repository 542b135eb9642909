"""What pictures have in common at any size: a mean colour, and a spectrum that falls with the frequency.

At high noise only the coarsest of a picture can be told, and there photographs are about Gaussian. The best estimate is
then known in closed form, and is better than that of a small network (*The Unreasonable Effectiveness of Gaussian Score
Approximation for Diffusion Models and its Applications*, 2024, arXiv:2412.09726): in the loss that networks are trained
with, the tint of a picture is one of thousands of numbers, and what they get wrong of it at high noise is multiplied by
the noise (*Easing Color Shifts in Score-Based Diffusion Models*, 2023, arXiv:2306.15832).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from restore.schedule import per_image

#: How many frequencies along each side are estimated. Those beyond are about the mean colour where it has its say.
FREQUENCIES = 64

#: The smallest pictures that a spectrum can be measured of, in pixels: so many frequencies are measured.
MEASURED = 16

#: Pictures are refused whose mean picture, its colour apart, has a larger share of what is coarse in them.
MOST_ALIGNED = 0.2


@dataclass(frozen=True)
class Spectrum:
    """A Gaussian model of pictures of any size, for the estimate at high noise.

    Colours are taken in directions that vary independently (brightness and two others, in photographs). In each, the
    coefficients of the cosine transform are independent, and their deviation is a power of the frequency. It is
    counted in half periods per picture, since pictures look alike whatever their number of pixels.

    It knows nothing of places and of classes: it is for random crops of pictures of many things. Of faces that are all
    in one place, or digits, a network knows much more at any noise.

    Attributes:
        mean: The mean colour, ``C`` numbers in the prior's own units.
        directions: ``C`` directions of colour, orthogonal, each of length 1.
        tint: In each direction, the standard deviation of a picture's mean.
        amplitude: In each direction, the standard deviation of what varies once, over half a period.
        slope: In each direction, the power with which it falls with the frequency.
        begin: The noise, ``sigma / alpha`` in the prior's own units, from which on it has a say.
        end: That from which on the network is not asked.

    Raises:
        ValueError: If numbers are not finite, of several numbers of channels, or negative deviations; if the directions
            are not orthogonal, or ``begin`` and ``end`` not in order.

    Example:
        >>> pictures = torch.rand(50, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 2
        >>> spectrum = Spectrum.of(pictures)
        >>> [round(value, 1) for value in spectrum.mean]
        [2.5, 2.5, 2.5]
        >>> spectrum.estimate(torch.zeros(1, 3, 8, 8), alpha=1e-6, sigma=1.0).mean().round(decimals=1)
        tensor(2.5000)
    """

    mean: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]
    tint: tuple[float, ...]
    amplitude: tuple[float, ...]
    slope: tuple[float, ...]
    begin: float = 8.0
    end: float = 24.0

    def __post_init__(self) -> None:
        for name in ("mean", "tint", "amplitude", "slope"):  # Lists will do, too.
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "directions", tuple(tuple(row) for row in self.directions))
        each = {name: getattr(self, name) for name in ("mean", "tint", "amplitude", "slope")}
        channels = len(self.mean)
        if not channels or any(
            len(row) != channels for row in (*each.values(), *self.directions, self.directions)
        ):
            raise ValueError(f"expected a spectrum of one number of channels throughout, got {self}")
        if not all(map(math.isfinite, (v for row in (*each.values(), *self.directions) for v in row))):
            raise ValueError(f"expected a spectrum of finite numbers, got {self}")
        rows = torch.tensor(self.directions, dtype=torch.float64)
        if (rows @ rows.mT - torch.eye(channels)).abs().max() > 1e-4:
            raise ValueError(f"expected orthogonal directions of length 1, got {self.directions}")
        if min(*self.tint, *self.amplitude) < 0:
            raise ValueError(f"expected deviations of at least 0, got {self.tint} and {self.amplitude}")
        if not 0 < self.begin < self.end < math.inf:
            raise ValueError(f"expected 0 < begin < end, got {self.begin} and {self.end}")

    @classmethod
    def of(cls, pictures: Tensor, begin: float = 8.0, end: float = 24.0) -> Spectrum:
        """The spectrum of pictures.

        Args:
            pictures: ``(N, C, H, W)`` in the prior's own units, some hundreds, of sides of at least 16 pixels.
            begin: See the class. The defaults are for pictures in [-1, 1].
            end: The same.

        Raises:
            ValueError: If they are fewer than 2, smaller, not finite, or so much alike in every place that a
                Gaussian without places is no model of them.
        """
        if pictures.ndim != 4 or len(pictures) < 2 or min(pictures.shape[-2:]) < MEASURED:
            raise ValueError(
                f"expected at least 2 pictures (N, C, H, W) of sides of at least {MEASURED} pixels, "
                f"got {tuple(pictures.shape)}"
            )
        if not torch.isfinite(pictures).all():
            raise ValueError("expected pictures of finite numbers; some are not")
        parts = [part.detach().cpu().double() for part in pictures.split(128)]
        count, height, width = len(pictures), *pictures.shape[-2:]
        mean = torch.stack([part.mean((-2, -1)).sum(0) for part in parts]).sum(0) / count
        colour = mean[:, None, None]
        covariance = sum(torch.einsum("nchw,ndhw->cd", part - colour, part - colour) for part in parts)
        directions = torch.linalg.eigh(covariance)[1].mT
        total = power = torch.zeros(())
        for part in parts:
            modes = _transform(torch.einsum("dc,nchw->ndhw", directions, part - colour), MEASURED)
            total, power = total + modes.sum(0), power + modes.square().sum(0)
        total, power = total / count, power / count
        aligned = float(
            (total[..., :4, :4].square().sum() / power[..., :4, :4].sum().clamp(min=1e-12)).clamp(max=1)
        )
        if aligned - 1 / count > MOST_ALIGNED:
            raise ValueError(
                f"{aligned:.0%} of what is coarse in these pictures is the same in all, as in faces that are all in "
                f"one place: a network knows them better than a spectrum at any noise; do without one"
            )
        frequency = _frequencies(height, width, MEASURED)
        inside = (frequency >= 1) & (frequency < MEASURED)
        # A line through log(deviation) over log(frequency): there are more of the high frequencies, which weigh less.
        log, weight = frequency[inside].log(), 1 / frequency[inside]
        centre = (weight * log).sum() / weight.sum()
        tint, amplitude, slope = [], [], []
        for each in power / (height * width):
            value = each[inside].clamp(min=1e-12).log() / 2
            level = (weight * value).sum() / weight.sum()
            fall = -(weight * (log - centre) * value).sum() / (weight * (log - centre) ** 2).sum()
            tint.append(each[0, 0].sqrt())
            amplitude.append((level + fall * centre).exp())
            slope.append(fall)
        return cls(
            mean=_rounded(mean),
            directions=tuple(_rounded(row) for row in directions),
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
            ValueError: If a part is missing, of another kind, or makes no sense.
        """

        def numbers(values: Any) -> tuple[float, ...]:
            if not isinstance(values, (list, tuple)) or not all(map(_is_number, values)):
                raise TypeError(f"expected a list of numbers, not {values!r}")
            return tuple(map(float, values))

        try:
            lists = {name: numbers(config[name]) for name in ("mean", "tint", "amplitude", "slope")}
            directions = tuple(numbers(row) for row in config["directions"])
            (begin, end) = numbers([config["begin"], config["end"]])
            return cls(directions=directions, begin=begin, end=end, **lists)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"spectrum describes nothing that can be built: {error}") from error

    def to_config(self) -> dict[str, Any]:
        """The spectrum as JSON can tell it."""
        return asdict(self)

    def estimate(self, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
        """``E[x_0 | x_t]`` of the Gaussian.

        Args:
            x_t: Noisy state ``(B, C, H, W)``, the picture times ``alpha`` and white noise times ``sigma``.
            alpha: A number, or one per image ``(B,)``.
            sigma: The same.

        Returns:
            ``(B, C, H, W)``.

        Raises:
            ValueError: If the state has another number of channels.
        """
        if x_t.ndim != 4 or x_t.shape[1] != len(self.mean):
            raise ValueError(
                f"expected a state (B, {len(self.mean)}, H, W): the spectrum is of pictures of {len(self.mean)} "
                f"channels; got {tuple(x_t.shape)}"
            )
        height, width = x_t.shape[-2:]
        x = x_t.to(
            torch.promote_types(x_t.dtype, torch.float32)
        )  # Powers of large pictures overflow half precision.
        a, s = per_image(alpha, x), per_image(sigma, x)
        mean, directions = x.new_tensor(self.mean)[:, None, None], x.new_tensor(self.directions)
        modes = _transform(torch.einsum("dc,nchw->ndhw", directions, x - a * mean), FREQUENCIES)
        variance = _variances(self, height, width, FREQUENCIES).to(x)
        modes = modes * (a * variance / (a**2 * variance + s**2 + 1e-30))
        estimate = mean + torch.einsum("dc,ndhw->nchw", directions, _inverse(modes, height, width))
        return estimate.to(x_t.dtype)

    def share(self, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
        """What share of the estimate is the spectrum's, in [0, 1]; of the shape of ``alpha``, float64."""
        a, s = (torch.as_tensor(v, dtype=torch.float64) for v in (alpha, sigma))
        noise = (s.clamp(min=1e-30) / a.clamp(min=1e-30)) / self.begin
        return (noise.log() / math.log(self.end / self.begin)).clamp(0, 1)

    def combined(
        self, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor, network: Callable[[], Tensor]
    ) -> Tensor:
        """The network's estimate at low noise, the spectrum's at high, and a mean of both between.

        Args:
            x_t: As in :meth:`estimate`.
            alpha: The same.
            sigma: The same.
            network: Gives the network's estimate; not called where that has no share.
        """
        share = self.share(alpha, sigma)
        if share.max() <= 0:
            return network()
        own = self.estimate(x_t, alpha, sigma)
        if share.min() >= 1:
            return own
        share = per_image(share, own)
        # Chosen, not weighed, at the ends: where one has no share, it need not be finite.
        other = torch.where(share < 1, network(), own)
        return torch.where(share > 0, share * own + (1 - share) * other, other)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _rounded(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)


@lru_cache(maxsize=32)
def _cosines(size: int, count: int) -> Tensor:
    """The first rows of the orthonormal cosine transform (DCT-II), ``(count, size)`` float64."""
    with torch.inference_mode(False):  # It is kept, and may be needed for a gradient later.
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
    with torch.inference_mode(False):
        side = math.sqrt(height * width)
        rows = torch.arange(min(count, height), dtype=torch.float64) * side / height
        columns = torch.arange(min(count, width), dtype=torch.float64) * side / width
        return torch.hypot(rows[:, None], columns)


@lru_cache(maxsize=32)
def _variances(spectrum: Spectrum, height: int, width: int, count: int) -> Tensor:
    """Of each coefficient of pictures of one size, ``(C, count, count)`` float64."""
    with torch.inference_mode(False):
        frequency = _frequencies(height, width, count)
        tint, amplitude, slope = (
            torch.tensor(v, dtype=torch.float64)[:, None, None]
            for v in (spectrum.tint, spectrum.amplitude, spectrum.slope)
        )
        deviation = torch.where(frequency == 0, tint, amplitude * frequency.clamp(min=1e-9) ** -slope)
        return height * width * deviation**2
