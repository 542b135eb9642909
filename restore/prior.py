"""A prior is one function: ``prior(x_t, t) -> E[x_0 | x_t]``.

Noise, score, velocity and flow are other names for the same quantity. Every kind of trained network becomes this
function in :class:`Prior`, and everything else in the package is written in terms of it.
"""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from restore import memory
from restore.networks import about
from restore.schedule import Schedule, per_image
from restore.spectrum import Spectrum
from restore.tiles import on_any_size

Prediction = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]
PREDICTIONS: tuple[str, ...] = ("epsilon", "sample", "v_prediction", "flow_prediction")

Self = TypeVar("Self", bound="BasePrior")


class BasePrior(abc.ABC):
    """What the methods need of a prior: its schedule, its range, and the estimate of the clean image.

    Subclasses give :meth:`__call__`. See :class:`Prior` for networks, and ``restore.analytic`` for priors
    whose estimate is known in closed form.

    Attributes:
        schedule: Signal and noise at each time.
        value_range: The interval that images lie in, in the prior's own units.
        bounded: Whether images never leave that interval, so that estimates may be clipped to it.
        channels: Number of channels of an image, or None if any will do.
        image_size: ``(H, W)`` where the prior is for one size only, else None.
        name: What messages call it.
        light: Whether it is a formula: many more of its states fit into memory than of a network's.
    """

    schedule: Schedule
    value_range: tuple[float, float] = (-1.0, 1.0)
    bounded: bool = True
    channels: int | None = None
    image_size: tuple[int, int] | None = None
    name: str = "prior"
    light: bool = False

    @property
    def evaluations(self) -> int:
        """How often a network is asked for one estimate."""
        return 1

    @property
    def pixel_variance(self) -> float:
        """How much a pixel varies, in the prior's own units, for approximations that take one number for it.

        The most that there can be: the square of half the range, which is the usual 1 for images in [-1, 1]; 1 where
        images are not confined to a range. A subclass that knows better says so.
        """
        low, high = self.value_range
        return ((high - low) / 2) ** 2 if self.bounded else 1.0

    @abc.abstractmethod
    def __call__(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """``E[x_0 | x_t]``, in the shape of ``x_t`` ``(B, C, H, W)``; ``t`` in [0, 1], a float or ``(B,)``."""

    @property
    def device(self) -> torch.device:
        """Where the prior computes."""
        return torch.device("cpu")

    def to(self: Self, device: str | torch.device) -> Self:
        """The prior on another device."""
        return self

    def select(self: Self, index: Tensor) -> Self:
        """The prior for some images of its batch; itself, where it holds nothing of single images."""
        return self

    def epsilon(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """The expected noise ``E[eps | x_t] = (x_t - alpha x_hat) / sigma``; t above 0."""
        alpha, sigma = self._at(x_t, t)
        return (x_t - alpha * self(x_t, t)) / sigma

    def score(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """The gradient of ``log p(x_t)``, which is ``-E[eps | x_t] / sigma``; t above 0."""
        _, sigma = self._at(x_t, t)
        return -self.epsilon(x_t, t) / sigma

    def velocity(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """``v = alpha E[eps | x_t] - sigma E[x_0 | x_t]`` (arXiv:2202.00512); t above 0."""
        alpha, sigma = self._at(x_t, t)
        x_hat = self(x_t, t)
        return alpha * (x_t - alpha * x_hat) / sigma - sigma * x_hat

    def flow(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """``E[eps - x_0 | x_t]``, the direction of rectified flow (arXiv:2209.03003); t above 0."""
        alpha, sigma = self._at(x_t, t)
        x_hat = self(x_t, t)
        return (x_t - alpha * x_hat) / sigma - x_hat

    def clip(self, x: Tensor) -> Tensor:
        """An image limited to the prior's range, where it has one."""
        return x.clamp(*self.value_range) if self.bounded else x

    def _at(self, x_t: Tensor, t: float | Tensor) -> tuple[Any, Any]:
        alpha, sigma = self.schedule(t)
        return per_image(alpha, x_t), per_image(sigma, x_t)


class Prior(BasePrior):
    """A trained denoising network with its schedule, as the function ``(x_t, t) -> E[x_0 | x_t]``.

    The network is called as ``network(x, step)`` with ``x`` ``(B, C, H, W)`` and float step numbers ``(B,)``, and with
    ``class_labels=`` where labels are set; it returns a tensor, or an object with ``.sample`` as diffusers'
    models do. It is put into evaluation mode, and its parameters are frozen.

    Pictures of any size work: they are padded by reflection to what the network can take and cropped
    again, and beyond ``tile`` pixels a side they go through the network in overlapping tiles, which bounds the memory.
    A network with attention is given tiles of the size that it was trained on, where it tells.

    ``prior.save`` writes a prior; ``with_dtype``, ``with_checkpointing`` and ``compiled`` say how the network runs.
    They, and all that begins with ``with``, give another prior and leave this one as it is.

    Args:
        network: The trained network.
        schedule: The noise schedule it was trained with.
        prediction: What it predicts: ``"epsilon"`` (the noise), ``"sample"`` (the clean image), ``"v_prediction"``
            or ``"flow_prediction"``. A network with twice as many output channels as ``channels`` predicts the
            variance, too (:meth:`variance`).
        value_range: The interval of its images, normally (-1, 1).
        channels: Channels of its images; found out from the network where it tells.
        multiple: Heights and widths must be multiples of this; found out from the network where it tells.
        tile: Largest side that goes through the network at once, in pixels; a multiple of ``multiple``. By default
            ``trained_size`` where there is one, else about 512.
        overlap: How far neighbouring tiles overlap, in pixels; about an eighth of a tile by default.
        config: What describes the prior in its saved folder (name, data, licence, ...). With ``domain``
            (e.g. ``"faces"``), a user is told that it knows nothing else. With ``spectrum``, the Gaussian that
            :class:`restore.spectrum.Spectrum` describes gives the estimate at high noise, see :meth:`with_spectrum`.

    Raises:
        TypeError: If the schedule is none.
        ValueError: If the prediction is not known or the range is empty.

    Example:
        >>> import torch
        >>> from restore.networks import photo_unet
        >>> prior = Prior(photo_unet((16, 16), layers=1), Schedule.linear())
        >>> prior(torch.randn(1, 3, 33, 18), 0.5).shape
        torch.Size([1, 3, 33, 18])
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: Prediction = "epsilon",
        value_range: tuple[float, float] = (-1.0, 1.0),
        *,
        channels: int | None = None,
        multiple: int | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(schedule, Schedule):
            raise TypeError(
                f"schedule is {schedule!r}; expected a Schedule, such as restore.Schedule.linear(), the one that the "
                f"network was trained with"
            )
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {', '.join(PREDICTIONS)}, not {prediction!r}")
        low, high = value_range
        if not low < high:
            raise ValueError(f"value_range must be (low, high) with low < high, not {value_range}")
        self.network = network.eval().requires_grad_(False)
        self.schedule = schedule
        self.prediction = prediction
        self.value_range = (float(low), float(high))
        self.channels = channels if channels is not None else about.channels_of(network)
        self.multiple = multiple if multiple is not None else about.multiple_of(network)
        self.config = dict(config or {})
        told = self.config.pop("spectrum", None)
        self._spectrum = self._checked(Spectrum.from_config(told) if told is not None else None)
        if tile is None:  # At least three multiples, so that there is room for two overlaps.
            tile = self.multiple * max(3, math.ceil(max(self.trained_size or (512,)) / self.multiple))
        overlap = self.multiple * math.ceil(tile / 8 / self.multiple) if overlap is None else overlap
        if tile % self.multiple or overlap % self.multiple or not 0 < 2 * overlap < tile:
            raise ValueError(
                f"tile and overlap must be multiples of {self.multiple} (what the network's sides must be), and tile "
                f"more than twice the overlap; got tile={tile}, overlap={overlap}"
            )
        self.tile, self.overlap = tile, overlap
        self.name = str(self.config.get("name", "prior"))
        self.class_labels: Tensor | None = None
        self.autocast: torch.dtype | None = None
        self.backend: str | None = None
        #: Warnings that were given (:mod:`restore.quality`), by it or by a copy that ``with_labels`` or so made.
        self.said: set[str] = set()

    # ---------------------------------------------------------------- what it was trained on

    @property
    def trained_size(self) -> tuple[int, int] | None:
        """Height and width of the pictures that it was trained on, in pixels, where that matters and is known.

        It matters to a network with attention, which sees every picture as a whole, and is at its best with that
        size. It is what ``config["trained_size"]`` says, a side or two, or else what the network tells.
        """
        size = self.config.get("trained_size", about.trained_size_of(self.network))
        if size is None:
            return None
        height, width = (size, size) if isinstance(size, int) else size
        return int(height), int(width)

    @property
    def needs_labels(self) -> bool:
        """Whether the network is conditional on a class: it cannot be called before :meth:`with_labels`."""
        return about.needs_labels(self.network)

    # ---------------------------------------------------------------- where and how it runs

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        return next(iter(self.network.parameters()), torch.empty(0)).device

    def to(self, device: str | torch.device) -> Prior:
        """Moves the network to a device; returns the prior itself."""
        self.network.to(memory.usable_device(device))
        return self

    def with_labels(self, class_labels: Tensor | list[int] | int) -> Prior:
        """The same prior for given classes, for class-conditional networks.

        Args:
            class_labels: One integer label for all images, or one per image ``(B,)``.
        """
        conditioned = copy.copy(self)
        conditioned.class_labels = torch.as_tensor(class_labels, dtype=torch.long).reshape(-1)
        return conditioned

    def select(self, index: Tensor) -> Prior:
        """The prior for some images of its batch: class labels follow them, where there is one per image.

        Args:
            index: Positions of the images, ``(N,)``.
        """
        if self.class_labels is None or len(self.class_labels) == 1:
            return self
        return self.with_labels(self.class_labels[index.cpu()])

    def with_autocast(self, dtype: str | torch.dtype) -> Prior:
        """The same prior, with the network's convolutions and products in another precision; ``float32`` ends that.

        Weights stay as they are, and normalisations in float32. This is what ``solve(..., dtype=)`` does.

        Args:
            dtype: ``"bfloat16"``, ``"float16"`` or ``"float32"``, or the type of torch.
        """
        other, named = copy.copy(self), memory.precision(dtype)
        other.autocast = None if named == torch.float32 else named
        return other

    def with_dtype(self, dtype: str | torch.dtype) -> Prior:
        """The same prior, with the network's weights and all of its arithmetic in another precision: half the memory.

        State and estimate stay in the type of the state. It is a little less exact than :meth:`with_autocast`.

        Args:
            dtype: ``"bfloat16"``, ``"float16"`` or ``"float32"``, or the type of torch.
        """
        return self._with_network(memory.in_dtype(self.network, memory.precision(dtype)))

    def with_checkpointing(self) -> Prior:
        """The same prior, with less memory for a gradient: activations are computed again instead of kept.

        Results and gradients are the same. A gradient costs one more forward pass, all else what it did.

        Raises:
            TypeError: If the network is not made of blocks of diffusers, and no :class:`restore.networks.RMSUNet`.
        """
        return self._with_network(memory.checkpointed(self.network))

    def with_spectrum(self, spectrum: Spectrum | None) -> Prior:
        """The same prior, with a Gaussian's estimate in place of the network's at high noise; None ends that.

        It is for priors of pictures of many things, in any place; it knows nothing of places and of classes.

        Args:
            spectrum: What the pictures that it was trained on have in common, ``Spectrum.of(pictures)``.

        Raises:
            TypeError: If it is no spectrum.
            ValueError: If it is of another number of channels, or the prior is conditional on a class.
        """
        other = copy.copy(self)
        other._spectrum = self._checked(spectrum)
        return other

    @property
    def spectrum(self) -> Spectrum | None:
        """The Gaussian that gives the estimate at high noise, if there is one. See :meth:`with_spectrum`."""
        return self._spectrum

    def _checked(self, spectrum: Spectrum | None) -> Spectrum | None:
        if spectrum is None:
            return None
        if not isinstance(spectrum, Spectrum):
            raise TypeError(f"expected a Spectrum, such as Spectrum.of(pictures), or None; got {spectrum!r}")
        if self.channels not in (None, len(spectrum.mean)):
            raise ValueError(
                f"the spectrum is of pictures of {len(spectrum.mean)} channels, the prior of {self.channels}"
            )
        if self.needs_labels:
            raise ValueError("the prior is conditional on a class, of which a spectrum knows nothing")
        return spectrum

    def compiled(self, backend: str = "inductor") -> Prior:
        """The same prior, with the network compiled (``torch.compile``).

        The first call takes a minute or so, and so does the first one of another size, or with a gradient. It pays on a
        GPU over many calls at one size, hardly on a CPU. PyTorch 2.13 compiles wrong gradients of such networks on a
        CPU; 2.15 is right.

        Args:
            backend: A backend of ``torch.compile``.
        """
        other = copy.copy(self)
        other.backend = backend
        return other._with_network(memory.twin(self.network))

    def _with_network(self, network: nn.Module) -> Prior:
        other = copy.copy(self)
        other.network = network
        if self.backend is not None:
            network.compile(backend=self.backend)
        return other

    def save(self, folder: str | Path, format: Literal["restore", "diffusers"] = "restore") -> Path:
        """Writes the prior as a folder, which :func:`restore.load_prior` reads.

        Args:
            folder: Made if it does not exist; files of an earlier save are replaced.
            format: ``"restore"``: ``config.json`` and ``model.safetensors``. ``"diffusers"``: a ``DDPMPipeline``, see
                :func:`restore.export.save_pipeline`.

        Raises:
            TypeError: If the network cannot be described by a configuration.
            ValueError: If the format is unknown or cannot hold the prior, or the folder holds the other one.
            NotADirectoryError: If there is a file of that name.
        """
        from restore.export import save

        return save(self, folder, format)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        token: str | None = None,
        format: Literal["restore", "diffusers"] = "restore",
    ) -> str:
        """Uploads the prior with a model card to the Hugging Face Hub. See :func:`restore.export.push_to_hub`."""
        from restore.export import push_to_hub

        return push_to_hub(self, repo_id, private=private, token=token, format=format)

    # ---------------------------------------------------------------- the function

    def __call__(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """``E[x_0 | x_t]``.

        Args:
            x_t: Noisy state ``(B, C, H, W)``.
            t: Time in [0, 1]; one float, or one per image ``(B,)``.

        Returns:
            The estimate of the clean image, of the shape and dtype of ``x_t``.
        """
        return self._combined(x_t, t, lambda: self._sized(x_t, t, slice(x_t.shape[1])))

    def _combined(self, x_t: Tensor, t: float | Tensor, output: Callable[[], Tensor]) -> Tensor:
        """``E[x_0 | x_t]`` from what the network predicts, and at high noise from the spectrum."""
        if self.spectrum is None:
            return self._estimate(x_t, t, output())
        alpha, sigma = self.schedule(t)
        return self.spectrum.combined(x_t, alpha, sigma, lambda: self._estimate(x_t, t, output()))

    def _estimate(self, x_t: Tensor, t: float | Tensor, output: Tensor) -> Tensor:
        """``E[x_0 | x_t]`` from what the network predicts."""
        alpha, sigma = self._at(x_t, t)
        if self.prediction == "sample":
            return output
        if self.prediction == "epsilon":
            return (x_t - sigma * output) / alpha
        if self.prediction == "v_prediction":
            return (alpha * x_t - sigma * output) / (alpha**2 + sigma**2)
        return (x_t - sigma * output) / (alpha + sigma)

    def _steps_of(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """The step numbers ``(B,)`` that the network is given."""
        if isinstance(t, Tensor):
            step = torch.tensor([self.schedule.step_of(float(v)) for v in t.reshape(-1)], device=x_t.device)
            return step.expand(len(x_t)) if len(step) == 1 else step
        return torch.full((len(x_t),), self.schedule.step_of(t), device=x_t.device)

    @property
    def predicts_variance(self) -> bool:
        """Whether the network was trained to predict the variance of a step, too, as a place in its range."""
        told = self.config.get("variance_type", "learned_range") == "learned_range"
        return told and self.channels is not None and about.outputs_of(self.network) == 2 * self.channels

    def variance(self, x_t: Tensor, t: float | Tensor, s: float | Tensor | None = None) -> Tensor:
        """The learned variance of the ancestral step, ``Var[x_s | x_t]``, for networks that predict it.

        :class:`restore.samplers.DDPM` makes its steps with it. See :func:`restore.variance.of_step` for the formula.

        Args:
            x_t: Noisy state ``(B, C, H, W)``.
            t: Time above 0; one float, or one per image ``(B,)``.
            s: Time that the step goes to, below ``t``; by default a trained step down, ``t - 1/T``.

        Returns:
            Variances, ``(B, C, H, W)``; numbers, without a gradient.

        Raises:
            ValueError: If the network does not predict it, or there is no such step.
        """
        from restore.variance import of_step

        return of_step(self.with_variance(x_t, t)[1], self.schedule, t, s)

    def with_variance(self, x_t: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """``E[x_0 | x_t]``, and what the network says of the variance, both ``(B, C, H, W)``, in one call.

        Raises:
            ValueError: If the network predicts no variance.
        """
        if not self.predicts_variance or self.channels != x_t.shape[1]:
            raise ValueError(f"the network of {self.name!r} predicts no variance")
        output, variance = self._sized(x_t, t).chunk(2, dim=1)
        return self._combined(x_t, t, lambda: output), variance.detach()

    def _sized(self, x: Tensor, t: float | Tensor, channels: slice | None = None) -> Tensor:
        """The network's output on a picture of any size, or some of its channels."""
        evaluate = partial(self._evaluate, step=self._steps_of(x, t), channels=channels or slice(None))
        return on_any_size(evaluate, x, multiple=self.multiple, tile=self.tile, overlap=self.overlap)

    def _evaluate(self, x: Tensor, step: Tensor, channels: slice) -> Tensor:
        options = {}
        if self.class_labels is not None:
            labels = self.class_labels.to(x.device)
            options["class_labels"] = labels.expand(len(x)) if len(labels) == 1 else labels
        dtype = next((p.dtype for p in self.network.parameters() if p.is_floating_point()), x.dtype)
        layout = (
            torch.channels_last
            if x.device.type == "cpu" or dtype != torch.float32
            else torch.contiguous_format
        )
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            out = self.network(x.to(dtype).contiguous(memory_format=layout), step.float(), **options)
        return about.estimate_of(out).to(x.dtype)[:, channels]

    def __repr__(self) -> str:
        """What it is, and how it runs where that is not the default."""
        parameters = list(self.network.parameters())
        told = [
            f"{sum(p.numel() for p in parameters) / 1e6:.1f} M parameters",
            self.prediction,
            str(self.schedule),
        ]
        told += sorted({str(p.dtype).removeprefix("torch.") for p in parameters} - {"float32"})
        told += [f"autocast to {str(self.autocast).removeprefix('torch.')}"] if self.autocast else []
        told += ["a spectrum at high noise"] if self.spectrum else []
        told += ["checkpointing"] if memory.is_checkpointed(self.network) else []
        told += ["compiled"] if self.backend else []
        return f"<Prior {self.name!r}: {', '.join(told)}>"
