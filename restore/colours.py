"""A prior of colours: what a picture is likely to be, given its luma.

A prior of pictures meets a luma by the guidance of a method, and sees it only through the noise of its state: where
colours are decided, at high noise, it cannot tell what the picture shows. A prior of colours is trained with the luma
in plain view, and draws from it are draws from the posterior (a conditional diffusion model, as in *Palette:
Image-to-Image Diffusion Models*, 2021, arXiv:2111.05826).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from operators import Grayscale
from restore.networks import FoldedUNet, about, with_scales
from restore.prior import Prior
from restore.schedule import Schedule, per_image
from restore.spectrum import Spectrum


def _axes() -> Tensor:
    """Two orthonormal directions ``(2, 3)`` in which colours differ at the same luma."""
    weights = Grayscale("luma").weights.double().flatten()
    along = weights / weights.norm()
    first = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)  # From green to red, made to keep the luma.
    first = first - (first @ along) * along
    first = first / first.norm()
    return torch.stack([first, torch.linalg.cross(along, first)])


_AXES = _axes()

#: The root mean square of the chroma of photographs in [-1, 1], about.
DEVIATION = 0.3

#: What the network is shown where it is not to know the luma: none in the range that priors normally have.
UNKNOWN = -2.0

#: Larger numbers are no deviation of a chroma, and no guidance.
MOST = 1e6


def luma_of(x: Tensor) -> Tensor:
    """The luma ``(B, 1, H, W)`` of pictures ``(B, 3, H, W)``, in their own range."""
    return Grayscale("luma").to(x.device)(x)


def chroma_of(x: Tensor) -> Tensor:
    """The chroma ``(B, 2, H, W)`` of pictures less their luma, ``(B, 3, H, W)``; that of grey ones is 0.

    White noise becomes white noise of the same deviation, and of its part along the luma's weights nothing is left.
    """
    # Products and sums, which autocast leaves in their precision: the luma is to be kept exactly.
    return (_AXES.to(x)[:, :, None, None] * x[:, None]).sum(2)


def picture_of(luma: Tensor, chroma: Tensor) -> Tensor:
    """The pictures ``(B, 3, H, W)`` of a luma ``(B, 1, H, W)`` and a chroma ``(B, 2, H, W)``.

    Example:
        >>> x = torch.rand(1, 3, 4, 4, dtype=torch.float64)
        >>> luma = luma_of(x)
        >>> torch.allclose(picture_of(luma, chroma_of(x - luma)), x)
        True
    """
    return luma + (_AXES.to(chroma)[:, :, None, None] * chroma[:, :, None]).sum(1)


def colour_network(network: nn.Module) -> FoldedUNet:
    """A network of pictures made one of colours, which begins with what the other has learned.

    Its first layer gets of a luma and a chroma what it got of the picture that they make, and what it returns is the
    chroma of what it returned. Edges, textures and things are known; what is left to learn is that the luma comes
    without noise, and what colours follow from it.

    Queries and keys of its attention are normalised, also where those of the other are not, as in the photo prior: what
    it returns differs a little then. In a training of colours without that, they grew until attention was of no use.

    Args:
        network: Of ``photo_unet`` for pictures of 3 channels. It stays as it is.

    Raises:
        TypeError: If it is of another kind.

    Example:
        >>> from restore.networks import photo_unet
        >>> pictures = photo_unet((16, 16))
        >>> luma, chroma, step = torch.randn(1, 1, 8, 8), torch.randn(1, 2, 8, 8), torch.tensor([300.0])
        >>> v = colour_network(pictures)(torch.cat([luma, chroma], 1), step)
        >>> torch.allclose(v, chroma_of(pictures(picture_of(luma, chroma), step)), atol=1e-5)
        True
    """
    if not isinstance(network, FoldedUNet) or (network.channels, network.outputs) != (3, 3):
        shape = about.channels_of(network), about.outputs_of(network)
        raise TypeError(
            f"colours are learned from a network of restore.networks.photo_unet() for 3 channels; this is a "
            f"{type(network).__name__} that takes {shape[0]} and returns {shape[1]}"
        )
    folded, weights = network.fold**2, dict(network.state_dict())
    config = {**network.config, "config": {**network.config["config"], "out_channels": 2 * folded}}
    if network.config["norm"] == "pixel" and about.has_attention(network):
        config["qk_norm"] = True
    made = FoldedUNet(**config)
    first, last = weights["unet.conv_in.weight"], "unet.conv_out."
    from_luma_and_chroma = torch.cat([torch.ones_like(_AXES[:1]), _AXES]).to(first)
    weights["unet.conv_in.weight"] = torch.einsum(
        "zc,ocfhw->ozfhw", from_luma_and_chroma, first.unflatten(1, (3, folded))
    ).flatten(1, 2)
    for name in (last + "weight", last + "bias"):
        turned = torch.einsum("zc,cf...->zf...", _AXES.to(first), weights[name].unflatten(0, (3, folded)))
        weights[name] = turned.flatten(0, 1)
    made.to(first).load_state_dict(with_scales(weights, made))
    return made


class ColourPrior(Prior):
    """A prior of the pictures that have a given luma: ``E[x_0 | x_t, luma]``, where there is no ``guidance``.

    Bound to a luma by :meth:`given`, it is a prior like any other: :func:`restore.sample` draws colours for that luma,
    and :func:`restore.solve` those that agree with a measurement, such as a few known colours. Of the state, it looks
    at the chroma alone, and all that it estimates has the luma that was given. (Colours that leave the range are
    clipped in the end, which changes the luma; :func:`restore.colorize` pales them instead.)

    The network is called as ``network(z, step)``, where ``z`` ``(B, 3, H, W)`` is the luma and the two numbers of the
    noisy chroma, brought to a variance of 1; it returns their ``v`` ``(B, 2, H, W)``: of a chroma ``c`` in units of
    ``deviation``, and ``z = a c + g n`` with ``a^2 + g^2 = 1``, it is ``a n - g c`` (the preconditioning of
    *Elucidating the Design Space of Diffusion-Based Generative Models*, 2022, arXiv:2206.00364).

    Args:
        network: The trained network.
        schedule: The noise schedule it was trained with; of the picture, not of the chroma.
        value_range: The interval of its pictures' channels.
        deviation: The root mean square of the chroma of pictures, in the prior's own units, as in the training; it
            need not be exact.
        size: The shorter side, in pixels, of the pictures that it was trained on: :func:`restore.colorize` finds
            colours for a picture of that size.
        guidance: How far estimates are moved away from what the network estimates without the luma, see
            :meth:`with_guidance`.
        **options: As of :class:`restore.Prior`.

    Raises:
        ValueError: If the deviation is not above 0, the guidance below 0, the network does not take 3 channels and
            return 2, or it is conditional on a class.

    Example:
        >>> from restore.networks import colour_unet
        >>> prior = ColourPrior(colour_unet((16, 16)), Schedule.linear())
        >>> luma = torch.rand(1, 1, 20, 24) * 2 - 1
        >>> x_hat = prior.given(luma)(torch.randn(1, 3, 20, 24), 0.5)
        >>> x_hat.shape, torch.allclose(luma_of(x_hat), luma, atol=1e-5)
        (torch.Size([1, 3, 20, 24]), True)
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        value_range: tuple[float, float] = (-1.0, 1.0),
        *,
        deviation: float = DEVIATION,
        size: int = 64,
        guidance: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(network, schedule, "v_prediction", value_range, **options)
        shape = self.channels, about.outputs_of(network)
        if shape[0] not in (None, 3) or shape[1] not in (None, 2):
            raise ValueError(
                f"the network of a prior of colours takes 3 channels and returns 2, as that of "
                f"restore.networks.colour_unet(); this one takes {shape[0]} and returns {shape[1]}"
            )
        if self.needs_labels:
            raise ValueError("a prior of colours is for a luma, and not for a class as well")
        self.channels = 3
        self.deviation, self.guidance = _number("deviation", deviation), _number("guidance", guidance)
        if not self.deviation:
            raise ValueError("deviation is the root mean square of a chroma, and must be above 0")
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"size is a number of pixels, not {size!r}")
        self.size = size
        self.luma: Tensor | None = None

    def given(self, luma: Tensor) -> ColourPrior:
        """The same prior for a luma.

        Args:
            luma: ``(B, 1, H, W)`` in the prior's own range (of ``y`` in [0, 1], mostly ``2 * y - 1``), one for each
                picture, or one for all. It is not saved with the prior.

        Raises:
            TypeError: If it is no tensor of floats.
            ValueError: If it is of another shape, or leaves the prior's range.
        """
        if not isinstance(luma, Tensor) or not luma.is_floating_point():
            kind = luma.dtype if isinstance(luma, Tensor) else type(luma).__name__
            raise TypeError(f"expected a luma as a tensor of floats in {list(self.value_range)}, not {kind}")
        if luma.ndim != 4 or luma.shape[1] != 1:
            raise ValueError(f"expected a luma (B, 1, H, W), got {tuple(luma.shape)}")
        low, high = self.value_range
        slack = (high - low) / 100
        if not bool(((luma >= low - slack) & (luma <= high + slack)).all()):
            raise ValueError(
                f"expected a luma in [{low:g}, {high:g}], the prior's own range; this one goes from "
                f"{float(luma.min()):.4g} to {float(luma.max()):.4g}"
            )
        other = copy.copy(self)
        other.luma = luma.to(self.device)
        return other

    def with_guidance(self, guidance: float) -> ColourPrior:
        """The same prior with another guidance, for colours that are more or less those of what the luma shows.

        Estimates are moved away from those of a picture of unknown luma, by this factor of the difference
        (*Classifier-Free Diffusion Guidance*, 2022, arXiv:2207.12598). 0 draws from the posterior. More is more
        typical of what the luma shows, more saturated, less diverse, and no posterior's; the network is asked twice a
        step.

        Args:
            guidance: At least 0.
        """
        other = copy.copy(self)
        other.guidance = _number("guidance", guidance)
        return other

    @property
    def evaluations(self) -> int:
        """How often the network is asked for one estimate."""
        return 2 if self.guidance else 1

    def told(self) -> dict[str, float]:
        """What it has beside other priors, as JSON can tell it."""
        return {"deviation": self.deviation, "size": self.size, "guidance": self.guidance}

    def _checked(self, spectrum: Spectrum | None) -> Spectrum | None:
        if spectrum is not None:
            raise ValueError("a spectrum knows of no luma, and has no place in a prior of colours")
        return None

    def __repr__(self) -> str:
        """As of any prior; its luma, and its guidance."""
        luma = "no luma yet" if self.luma is None else f"for a luma {tuple(self.luma.shape)}"
        return f"{super().__repr__()[:-1]}, {luma}, guidance {self.guidance:g}>"

    @property
    def given_luma(self) -> Tensor:
        """The luma that the prior is for.

        Raises:
            ValueError: If there is none yet.
        """
        if self.luma is None:
            raise ValueError(
                f"the prior {self.name!r} is of colours for a luma, and has none: say prior.given(luma), or have a "
                f"grey picture coloured by restore.colorize(image, prior=prior) or, in a shell, by restore colorize"
            )
        return self.luma

    @property
    def image_size(self) -> tuple[int, int] | None:  # type: ignore[override]
        """Height and width of the luma that was given."""
        return None if self.luma is None else (self.luma.shape[-2], self.luma.shape[-1])

    def select(self, index: Tensor) -> ColourPrior:
        """The prior for some images of its batch: where there is one luma per image, it follows them.

        Args:
            index: Positions of the images, ``(N,)``.
        """
        luma = self.given_luma
        return self if len(luma) == 1 else self.given(luma[index.to(luma.device)])

    def __call__(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """``E[x_0 | x_t, luma]``.

        Args:
            x_t: Noisy state ``(B, 3, H, W)``, of the height and width of the luma.
            t: Time in [0, 1]; one float, or one per image ``(B,)``.

        Returns:
            The estimate of the clean image, of the shape and dtype of ``x_t``, with the luma that was given.

        Raises:
            ValueError: If there is no luma, or one of another size.
        """
        luma = self.given_luma.to(x_t)
        if x_t.shape[1] != 3 or luma.shape[-2:] != x_t.shape[-2:] or len(luma) not in (1, len(x_t)):
            raise ValueError(
                f"the prior {self.name!r} is for a luma of shape {tuple(luma.shape)}, "
                f"which is not that of a state {tuple(x_t.shape)}"
            )
        alpha, sigma = self._at(x_t, t)
        chroma = chroma_of(x_t - alpha * luma)
        z, a, g = preconditioned(luma.expand(len(x_t), -1, -1, -1), chroma, alpha, sigma, self.deviation)
        v = self._sized(z, t)
        if self.guidance:
            blind = self._sized(torch.cat([torch.full_like(z[:, :1], UNKNOWN), z[:, 1:]], 1), t)
            v = v + self.guidance * (v - blind)
        return picture_of(luma, self.deviation * (a * z[:, 1:] - g * v))


def _number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST:
        raise ValueError(f"{name} is a number from 0 to {MOST:g}, not {value!r}")
    return float(value)


def preconditioned(
    luma: Tensor, chroma: Tensor, alpha: Any, sigma: Any, deviation: float
) -> tuple[Tensor, Any, Any]:
    """What the network of a :class:`ColourPrior` is shown.

    Args:
        luma: ``(B, 1, H, W)``.
        chroma: The noisy chroma ``(B, 2, H, W)``: ``alpha`` times the picture's, and noise times ``sigma``.
        alpha: A number, or numbers that multiply ``(B, 2, H, W)``.
        sigma: The same.
        deviation: Root mean square of the chroma of pictures.

    Returns:
        ``z`` ``(B, 3, H, W)``, the luma and the chroma with a variance of 1; and ``a`` and ``g``, how much of that is
        the picture's chroma in units of ``deviation``, and noise of variance 1.
    """
    scale = ((alpha * deviation) ** 2 + sigma**2) ** 0.5
    return torch.cat([luma, chroma / scale], 1), alpha * deviation / scale, sigma / scale


def colour_target(
    x_0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor, deviation: float
) -> tuple[Tensor, Tensor]:
    """What the network is shown of pictures in training, and the ``v`` that it is to find.

    Args:
        x_0: Clean pictures ``(B, 3, H, W)``.
        noise: Standard normal numbers ``(B, 2, H, W)``.
        alpha: Signal of each picture, ``(B,)``.
        sigma: Noise of each picture, ``(B,)``.
        deviation: Root mean square of the chroma of pictures.

    Returns:
        ``z`` ``(B, 3, H, W)`` and ``v`` ``(B, 2, H, W)``.
    """
    luma = luma_of(x_0)
    chroma, alpha, sigma = chroma_of(x_0 - luma), per_image(alpha, x_0), per_image(sigma, x_0)
    z, a, g = preconditioned(luma, alpha * chroma + sigma * noise, alpha, sigma, deviation)
    return z, a * noise - g * chroma / deviation
