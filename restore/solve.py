"""The main job: ``solve(y, operator, method)``, and the one sampling loop.

This file alone knows users' value ranges, devices and seeds. It turns a measurement into a :class:`Problem` in the
prior's range, runs the loop with a method's hooks, and turns the result back.
"""

from __future__ import annotations

import copy
import math
import operator as operator_
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

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
from restore.checkpoint import load_prior
from restore.images import ImageFormat, to_batch
from restore.memory import precision, states_at_once
from restore.methods import REGISTRY, as_method, choose, options_of
from restore.methods.base import Method, Problem
from restore.prior import BasePrior, Prior
from restore.quality import judge
from restore.randomness import Randomness
from restore.samplers import Sampler, as_sampler


@dataclass(frozen=True)
class State:
    """What a callback is shown after every downward step.

    Attributes:
        step: Number of the step in this part of the batch, from 1.
        steps: How many there are.
        t: Time that the step started from.
        s: Time that it went to.
        x: The state at ``s`` in the prior's range, ``(B, C, H, W)``; of TDS, all particles, picture by picture.
        x_hat: The estimate of the clean image, in [0, 1] up to the estimate's error, in the shape of ``x``.
        draws: Positions of these pictures in the flat list of all draws (draw by draw, image by image).
        details: What the method tells beside it, such as TDS's ``"effective_sample_size"``, ``(B,)`` each.
    """

    step: int
    steps: int
    t: float
    s: float
    x: Tensor
    x_hat: Tensor
    draws: range
    details: dict[str, Tensor]


Callback = Callable[[State], object]


@torch.inference_mode(False)  # Gradients are needed even if the caller's code is not to keep any.
def solve(
    y: Any,
    operator: Operator,
    method: str | Method = "dps",
    *,
    prior: str | Path | BasePrior = "photo",
    noise: float | Sequence[float] | Tensor | GaussianNoise | PoissonNoise = 0.0,
    steps: int | None = None,
    samples: int | None = None,
    sampler: str | Sampler | None = None,
    seed: int | Sequence[int] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    progress: bool = True,
    callback: Callback | None = None,
    **options: Any,
) -> Any:
    """Draws pictures that a prior finds likely and that agree with a measurement ``y = A(x) + noise``.

    Args:
        y: The measurement, with images in [0, 1] or as uint8: numpy or PIL ``(H, W)`` or ``(H, W, C)``, torch
            ``(C, H, W)``; also batches, numpy ``(B, H, W, C)`` or torch ``(B, C, H, W)``.
        operator: What made it: ``Mask``, ``Blur``, ``Downsample``, ``Grayscale``, ..., or your own.
        method: A name (see :func:`restore.methods`), or an instance such as ``restore.methods.DPS(zeta=0.5)``.
            ``"auto"`` chooses (see :func:`restore.methods.choose`), with ``steps`` as the budget of network calls.
        prior: A name, a folder (see :func:`restore.load_prior`), or a prior.
        noise: Standard deviation of the Gaussian noise in ``y``, in the units of ``y`` (of 255, if it is uint8); one
            number, or one per image. Or a ``PoissonNoise``, for the methods that take it.
        steps: Number of downward steps of the schedule; the method's own number by default.
        samples: Number of draws for each image.
        sampler: ``"ddpm"``, ``"ddim"``, ``"dpm++"`` or a sampler; the method's own by default.
        seed: A whole number, or one per image. The same seed gives the same result for an image, whatever batch
            it is in. None takes a new one every time.
        device: Where to compute. By default where ``y`` is, if it is on a GPU; else where the prior is, if you
            gave one; else a GPU if there is one.
        dtype: ``"bfloat16"`` or ``"float16"`` runs the network in that precision (autocast). The state is
            float32 always.
        progress: Show a bar.
        callback: Called with a :class:`State` after every downward step.
        **options: Options of the named method.

    Returns:
        The restored picture or batch, of the same kind, dtype and device as ``y``, in [0, 1] or 0 to 255. With
        ``samples=n``, a leading axis of ``n`` draws (for PIL, a list).

    Raises:
        TypeError: If an argument is of the wrong kind, or an option is not known.
        ValueError: If the method cannot solve this problem (the message names methods that can), or sizes, channels
            or values do not fit. All of this is found out before the first network call.
        FileNotFoundError: If there is no such prior.
        FloatingPointError: If the state stops being finite; the message names the step.

    Example:
        >>> import numpy as np
        >>> from restore import Mask
        >>> y = np.full((16, 16, 3), 0.5, np.float32)
        >>> mask = np.ones((16, 16), bool)
        >>> mask[4:8, 4:8] = False
        >>> x = solve(y * mask[..., None], Mask(mask), "repaint", steps=2, seed=0, progress=False)
        >>> x.shape, x.dtype
        ((16, 16, 3), dtype('float32'))
    """
    if not isinstance(operator, Operator):
        raise TypeError(
            f"operator is a {type(operator).__name__}, expected one of the operators (Mask, Blur, ...); "
            f"a function can be used as FromCallable(function)"
        )
    steps = _whole(steps, "steps") if steps is not None else None
    batch, layout = to_batch(y, check_range=False, name="y")
    images = len(batch)
    if isinstance(method, str) and method.lower() == "auto":
        if options or sampler is not None:
            given = ", ".join([*options, *(["sampler"] if sampler is not None else [])])
            raise TypeError(f"method='auto' chooses its settings itself: leave {given} out, or name a method")
        measured = math.prod(batch.shape[1:])
        method, steps = choose(operator, measured, gaussian=not isinstance(noise, PoissonNoise), calls=steps)
    chosen = as_method(method, **options)
    scheme = None if sampler is None else as_sampler(sampler)
    if scheme is not None and not chosen.takes_sampler:
        raise ValueError(
            f"{chosen.name} has a step of its own and takes no sampler; its options are {options_of(type(chosen))}"
        )
    count = _whole(samples, "samples") if samples is not None else 1
    poisson = noise if isinstance(noise, PoissonNoise) else None
    noise_std = _noise(noise, batch, layout)
    _check_method(chosen, operator, noise_std, poisson)
    shape = operator.image_shape(tuple(batch.shape[1:]))
    operator.check_images(torch.empty(images, *shape, device="meta"))
    fits = operator.measurement_shape(shape)
    if tuple(batch.shape[1:]) != tuple(fits):
        raise ValueError(
            f"y has shape {tuple(batch.shape[1:])}, but {type(operator).__name__} measures "
            f"{tuple(fits)} of such a picture"
        )

    if isinstance(operator, Mask):
        # What a user left in the holes (white, or noise that was added everywhere) is no measurement.
        batch = torch.where(operator.mask.to(batch.device) != 0, batch, 0)
        noise_std = _noise(noise, batch, layout)

    where = _device(device, prior, batch)
    denoiser = prior if isinstance(prior, BasePrior) else load_prior(prior)
    _check_prior(denoiser, shape, batch, operator)
    _check_labels(denoiser, images)
    if isinstance(denoiser, Prior):
        judge(denoiser, *shape[1:])
    denoiser = denoiser.to(where)
    if dtype is not None:
        denoiser = _in_precision(denoiser, dtype)
    batch, noise_std = batch.to(where), noise_std.to(where)
    poisson = (
        copy.deepcopy(poisson).to(where) if poisson is not None else None
    )  # The user's own stays where it is.
    places = {operator.device, *(tensor.device for tensor in (*operator.buffers(), *operator.parameters()))}
    if places != {where}:
        operator = copy.deepcopy(operator).to(where)
    target, physics, noise_std = _in_range_of(denoiser, batch, operator, noise_std, shape, poisson)

    randomness = Randomness.for_draws(seed, images, count, where)
    parts = _parts(images * count, shape, where, chosen, denoiser.light)
    whole = Problem(
        target,
        physics,
        noise_std,
        (images, *shape),
        randomness,
        poisson,
        denoiser.value_range[1] - denoiser.value_range[0],
    )
    times = chosen.bind(denoiser, whole, scheme, steps).times()
    results = []
    with _bar(len(parts) * _downward(times), chosen.name, progress) as bar:
        for part in parts:
            states = [draw % images for draw in part for _ in range(chosen.states_per_draw)]
            index = torch.tensor(states, device=where)
            problem = whole.select(index, randomness.part(part, chosen.states_per_draw))
            run = chosen.bind(denoiser.select(index), problem, scheme, steps)
            report = _reporter(callback, denoiser, _downward(times), part)
            results.append(_to_unit(denoiser, sampling_loop(run, bar.update, report)))
    result = torch.cat(results)
    return layout.restore(result, samples=samples)


def sample(
    prior: str | Path | BasePrior = "photo",
    shape: tuple[int, int, int, int] = (4, 3, 64, 64),
    *,
    steps: int = 250,
    sampler: str | Sampler = "ddpm",
    seed: int | None = None,
    device: str | torch.device | None = None,
    class_labels: Tensor | list[int] | int | None = None,
    progress: bool = True,
    callback: Callback | None = None,
) -> Tensor:
    """Draws pictures from a prior, without a measurement.

    Args:
        prior: A name, a folder, or a prior.
        shape: ``(B, C, H, W)``.
        steps: Number of steps, one network call each.
        sampler: ``"ddpm"``, ``"ddim"``, ``"dpm++"``, or a sampler.
        seed: A whole number; picture ``i`` is the same however many are drawn.
        device: Where to compute; where the prior is, by default, or a GPU if it is given by name.
        class_labels: For class-conditional priors, one label or one per picture.
        progress: Show a bar.
        callback: Called with a :class:`State` after every step.

    Returns:
        ``(B, C, H, W)`` float32 on the device; in [0, 1] for a bounded prior.

    Raises:
        ValueError: If the shape does not suit the prior, or the number of steps is below 1.

    Example:
        >>> sample("photo", (1, 3, 16, 16), steps=2, seed=0, progress=False).shape
        torch.Size([1, 3, 16, 16])
    """
    steps, scheme = _whole(steps, "steps"), as_sampler(sampler)
    if len(shape) != 4 or min(shape) < 1:
        raise ValueError(f"shape is (number, channels, height, width), all at least 1, not {tuple(shape)}")
    denoiser = prior if isinstance(prior, BasePrior) else load_prior(prior)
    if denoiser.channels not in (None, shape[1]):
        raise ValueError(f"{denoiser.name!r} makes pictures of {denoiser.channels} channels, not {shape[1]}")
    if class_labels is not None:
        if not isinstance(denoiser, Prior):
            raise TypeError(f"{denoiser.name!r} takes no class labels: only priors that are networks do")
        denoiser = denoiser.with_labels(class_labels)
    _check_labels(denoiser, shape[0])
    if isinstance(denoiser, Prior):
        judge(denoiser, *shape[2:])
    where = _device(device, prior, torch.empty(0))
    denoiser = denoiser.to(where)
    randomness = Randomness.for_draws(seed, 1, shape[0], where)
    parts, pictures = _parts(shape[0], shape, where, Method(), denoiser.light), []
    with _bar(len(parts) * steps, "sampling", progress) as bar:
        for part in parts:
            nothing = torch.empty(len(part), 0, device=where)
            size = (len(part), *shape[1:])
            problem = Problem(nothing, None, nothing.sum(1), size, randomness.part(part))
            run = Method().bind(denoiser.select(torch.tensor(part)), problem, scheme, steps)
            pictures.append(sampling_loop(run, bar.update, _reporter(callback, denoiser, steps, part)))
    return _to_unit(denoiser, torch.cat(pictures))


def sampling_loop(
    method: Method,
    advance: Callable[[], object],
    report: Callable[[Method, int, float, float, Tensor], object],
) -> Tensor:
    """The sampling loop: every method of the package runs through here.

    Args:
        method: A method that is bound to its problem.
        advance: Called after every downward step.
        report: Called after every downward step with the method, the step's number, ``t``, ``s`` and the state.

    Returns:
        The result in the prior's range, ``(B, C, H, W)``.

    Raises:
        FloatingPointError: If the state stops being finite.
    """
    times = method.times()
    number, total = 0, _downward(times)
    with torch.no_grad():
        x = method.start(times[0])
        for t, s in pairwise(times):
            if s > t:
                x = method.step_up(x, t, s)
                continue
            x = method.step(x, t, s)
            number += 1
            # A sum is finite only if all its terms are: one number to wait for.
            if not math.isfinite(float(x.sum())):
                raise FloatingPointError(
                    f"the state is not finite after step {number} of {total} (t = {t:.3f}) of {method.name}: "
                    f"take more steps or a weaker guidance"
                )
            advance()
            report(method, number, t, s, x)
        return method.finish(x)


# -------------------------------------------------------------------- ranges


def _in_range_of(
    prior: BasePrior,
    y: Tensor,
    operator: Operator,
    noise: Tensor,
    shape: tuple[int, ...],
    poisson: PoissonNoise | None = None,
) -> tuple[Tensor, Operator, Tensor]:
    """Measurement, operator and noise level for images in the prior's range instead of [0, 1].

    With ``x_prior = low + scale x`` a linear operator stays as it is, and ``A x_prior = low A 1 + scale y``. Any
    other operator is given its images in [0, 1], and so is one under photon noise, whose counts know no offset.
    """
    low, high = prior.value_range
    scale = high - low
    if not isinstance(operator, LinearOperator):
        return scale * y, _in_unit_range(operator, low, high), scale * noise
    with torch.no_grad():
        white = operator(torch.ones(operator.batch_size or 1, *shape, device=y.device))
    brightest, darkest = float(y.abs().max()), float(y.min())
    too_bright = brightest > 4 * max(1.0, float(white.abs().max()))
    # Strong noise may have made it so; but noise goes down as far as it goes up.
    noisy = float(noise.max()) > brightest / 20 and darkest < -brightest / 4
    # Bicubic reduction undershoots a little below black, and noise does; half the range below is another range.
    if (
        prior.bounded
        and darkest < -0.5 - 6 * float(noise.max())
        and isinstance(operator, (Mask, Grayscale, Downsample))
    ):
        raise ValueError(
            f"y goes down to {darkest:.4g}: images are in [0, 1] (for [-1, 1], give (y + 1) / 2), or of dtype uint8"
        )
    # Of an operator of one's own nobody knows how bright its measurements are.
    pictorial = isinstance(operator, (Mask, Blur, Downsample, Grayscale, Identity))
    if prior.bounded and pictorial and too_bright and not noisy:
        raise ValueError(
            f"y goes up to {brightest:.4g}, where a white picture measures {float(white.max()):.4g}: images are in "
            f"[0, 1] (divide by 255) or of dtype uint8"
        )
    if poisson is not None:
        return scale * y, _in_unit_range(operator, low, high), scale * noise
    return low * white + scale * y, operator, scale * noise


def _in_unit_range(operator: Operator, low: float, high: float) -> Operator:
    return operator if (low, high) == (0, 1) else _InUnitRange(operator, low, high)


class _InUnitRange(Operator):
    """A non-linear operator, for images in another range than [0, 1]; its measurements are scaled alike."""

    def __init__(self, operator: Operator, low: float, high: float) -> None:
        super().__init__()
        self.operator, self.low, self.scale = operator, low, high - low

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.operator((x - self.low) / self.scale)

    def image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.operator.image_shape(measurement_shape)


def _to_unit(prior: BasePrior, x: Tensor) -> Tensor:
    low, high = prior.value_range
    return (prior.clip(x) - low) / (high - low)


# -------------------------------------------------------------------- checks, all before the first network call


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
        "svd": (operator.has_svd, "an operator with a fast singular value decomposition"),
        "svd-if-noisy": (
            operator.has_svd or not noisy,
            "an operator with a fast singular value decomposition",
        ),
        "mask": (binary, "a Mask of zeros and ones"),
        "noise-free": (not noisy, "a measurement without noise (noise=0)"),
    }
    lacking = [words for need, (there, words) in held.items() if need in method.needs and not there]
    return (
        [*lacking, "Gaussian noise (this is photon noise)"]
        if poisson and not method.takes_poisson
        else lacking
    )


def _check_method(method: Method, operator: Operator, noise: Tensor, poisson: PoissonNoise | None) -> None:
    noisy = bool((noise > 0).any())
    lacking = suited(method, operator, noisy, poisson is not None)
    if lacking:
        able = [n for n, other in REGISTRY.items() if not suited(other, operator, noisy, poisson is not None)]
        given = f"{type(operator).__name__}{' with noise' if noisy else ''}"
        raise ValueError(
            f"{method.name} needs {' and '.join(lacking)}; got {given}. Methods that will do: {', '.join(able)}"
        )


def _check_prior(prior: BasePrior, shape: tuple[int, ...], y: Tensor, operator: Operator) -> None:
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


def _check_labels(prior: BasePrior, images: int) -> None:
    if not isinstance(prior, Prior):
        return
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


def _noise(noise: Any, y: Tensor, layout: ImageFormat) -> Tensor:
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
    return (std / layout.scale).float().expand(len(y)).clone()


def _whole(value: object, name: str) -> int:
    try:
        number = operator_.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if isinstance(value, bool) or number < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return number


# -------------------------------------------------------------------- where and in what parts


def _device(device: str | torch.device | None, prior: str | Path | BasePrior, y: Tensor) -> torch.device:
    if device is not None:
        try:
            where = torch.device(device)
        except RuntimeError:
            raise ValueError(
                f"device is 'cpu', 'cuda' or 'cuda:1', or whatever torch knows, not {device!r}"
            ) from None
        if where.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "device is 'cuda', but torch finds no GPU here: leave device out, or say device='cpu'"
            )
    elif y.device.type != "cpu":
        where = y.device
    elif isinstance(prior, BasePrior):
        where = prior.device
    else:
        where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if where.type == "cuda" and where.index is None:
        where = torch.device("cuda", torch.cuda.current_device())
    return where


def _in_precision(prior: BasePrior, dtype: str | torch.dtype) -> BasePrior:
    named = precision(dtype)
    if not isinstance(prior, Prior):
        raise TypeError(f"{prior.name!r} has no network whose precision could be chosen: leave dtype out")
    return prior.with_autocast(named)


def _parts(
    draws: int, shape: tuple[int, ...], device: torch.device, method: Method, light: bool
) -> list[range]:
    """All draws, in parts that fit into memory: results do not depend on the parts."""
    states = states_at_once(shape[-2] * shape[-1], device, gradient=method.gradient, light=light)
    size = max(1, states // method.states_per_draw)
    return [range(first, min(first + size, draws)) for first in range(0, draws, size)]


def _downward(times: Sequence[float]) -> int:
    return sum(s < t for t, s in pairwise(times))


def _reporter(
    callback: Callback | None, prior: BasePrior, steps: int, draws: range
) -> Callable[[Method, int, float, float, Tensor], object]:
    low, high = prior.value_range

    def report(method: Method, number: int, t: float, s: float, x: Tensor) -> None:
        if callback is not None:
            callback(
                State(number, steps, t, s, x, (method.x_hat - low) / (high - low), draws, method.report())
            )

    return report


def _bar(total: int, name: str, shown: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=name, unit="step", disable=not shown, leave=False)
