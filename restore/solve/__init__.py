"""The main job: ``solve(y, operator, method)``, and ``sample`` without a measurement.

Here a measurement becomes a :class:`Problem` in the prior's range, goes through the one sampling loop, and the result
becomes a picture of the user's kind again. What is checked before is in ``checks``, the value ranges are in
``ranges``, devices and parts that fit into memory in ``parts``, the loop and what callbacks see in ``loop``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from operators import GaussianNoise, Mask, Operator, PoissonNoise
from restore.checkpoint import load_prior
from restore.images import to_batch
from restore.methods import REGISTRY, as_method, options_of
from restore.methods.base import Method, Problem
from restore.methods.naming import is_auto
from restore.prior import BasePrior, Prior
from restore.quality import judge
from restore.randomness import Randomness
from restore.samplers import Sampler, as_sampler
from restore.solve.checks import (
    check_condition,
    check_counts,
    check_method,
    check_prior,
    check_spelling,
    noise_levels,
    suited,
    warn_of_masks,
    whole_number,
    with_rounding,
)
from restore.solve.linearity import check_linear
from restore.solve.loop import Callback, State, downward, progress_bar, reporter, sampling_loop
from restore.solve.parts import Plan, device_for, in_precision, parts_of, plans_for
from restore.solve.ranges import in_range_of, to_unit

__all__ = ["Callback", "State", "sample", "sampling_loop", "solve", "suited"]


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
        method: A name (see :func:`restore.methods`), with options if need be (``"dps:zeta=0.5"``), or an instance such
            as ``restore.methods.DPS(zeta=0.5)``.
            ``"auto"`` chooses (see :func:`restore.methods.choose`), with ``steps`` as the budget of network calls.
        prior: A name, a folder (see :func:`restore.load_prior`), or a prior.
        noise: Standard deviation of the Gaussian noise in ``y``, in the units of ``y`` (of 255, if it is uint8); one
            number, or one per image. Or a ``PoissonNoise``, for the methods that take it. The rounding of a blurred
            picture in whole numbers of 255 or 65535, or in half precision, counts as noise by itself.
        steps: Number of downward steps of the schedule; the method's own number by default.
        samples: Number of draws for each image. ``"auto"`` takes a method that draws only if they are asked for.
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
        ValueError: If the method cannot solve this problem (the message names methods that can), sizes, channels
            or values do not fit, or an operator of your own is declared linear and is not. All of this is found out
            before the first network call.
        FileNotFoundError: If there is no such prior.
        FloatingPointError: If the state stops being finite; the message names the step.

    Warns:
        QualityWarning: If the result will be worse than it could be, as where an operator of your own has an adjoint
            that is not its transpose.

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
    check_spelling(options, [*inspect.signature(solve).parameters])
    if callback is not None and not callable(callback):
        raise TypeError(f"callback is a {type(callback).__name__}; expected a function that takes a State")
    if not isinstance(operator, Operator):
        raise TypeError(
            f"operator is a {type(operator).__name__}, expected one of the operators (Mask, Blur, ...); "
            f"a function can be used as FromCallable(function)"
        )
    steps = whole_number(steps, "steps") if steps is not None else None
    count = whole_number(samples, "samples") if samples is not None else 1
    batch, layout = to_batch(y, check_range=False, name="y")
    images = len(batch)
    if isinstance(method, str) and is_auto(method):
        if options or sampler is not None:
            given = ", ".join([*options, *(["sampler"] if sampler is not None else [])])
            raise TypeError(f"method='auto' chooses its settings itself: leave {given} out, or name a method")
        gaussian = not isinstance(noise, PoissonNoise)
        plans = plans_for(
            operator, tuple(batch.shape), gaussian=gaussian, calls=steps, draws=samples is not None
        )
    else:
        plans = [Plan(as_method(method, **options), steps, range(images))]
    chosen = plans[0].method  # Of several, which only "auto" makes, each suits its images.
    scheme = None if sampler is None else as_sampler(sampler)
    if scheme is not None and not chosen.takes_sampler:
        raise ValueError(
            f"{chosen.name} has a step of its own and takes no sampler; its options are {options_of(type(chosen))}"
        )
    if count > 1 and not chosen.draws:
        raise ValueError(
            f"{chosen.name} has one result and no draws, but samples={count}: leave samples out, or take a method that "
            f"draws; those are {', '.join(name for name, cls in REGISTRY.items() if cls.draws)}"
        )
    poisson = noise if isinstance(noise, PoissonNoise) else None
    noise_std = noise_levels(noise, batch, layout)
    check_method(chosen, operator, noise_std, poisson)
    noise_std = with_rounding(noise_std, batch, layout, operator, chosen)
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
        warn_of_masks(operator, images)
    if poisson is not None:
        check_counts(batch)
        noise_std = noise_levels(poisson, batch, layout)

    where = device_for(device, prior, batch)
    denoiser = prior if isinstance(prior, BasePrior) else load_prior(prior)
    check_prior(denoiser, shape, batch, operator)
    check_condition(denoiser, images)
    if isinstance(denoiser, Prior):
        judge(denoiser, *shape[1:], steps=steps)
    denoiser = denoiser.to(where)
    if dtype is not None:
        denoiser = in_precision(denoiser, dtype)
    batch, noise_std = batch.to(where), noise_std.to(where)
    poisson = (
        copy.deepcopy(poisson).to(where) if poisson is not None else None
    )  # The user's own stays where it is.
    places = {operator.device, *(tensor.device for tensor in (*operator.buffers(), *operator.parameters()))}
    users = operator
    if places != {where}:
        operator = copy.deepcopy(operator).to(where)
    check_linear(users, operator, shape)
    target, physics, noise_std = in_range_of(denoiser, batch, operator, noise_std, shape, poisson)

    randomness = Randomness.for_draws(seed, images, count, where)
    whole = Problem(
        target,
        physics,
        noise_std,
        (images, *shape),
        randomness,
        poisson,
        denoiser.value_range[1] - denoiser.value_range[0],
    )
    runs = []
    for plan in plans:
        total = downward(plan.method.bind(denoiser, whole, scheme, plan.steps).times())
        parts = parts_of(plan.draws(images, count), shape, where, plan.method, denoiser.light)
        runs += [(plan, total, part) for part in parts]
    result = torch.empty(images * count, *shape, dtype=target.dtype, device=where)
    with progress_bar(sum(total for _, total, _ in runs), chosen.name, progress) as bar:
        for plan, total, part in runs:
            states = [draw % images for draw in part for _ in range(plan.method.states_per_draw)]
            index = torch.tensor(states, device=where)
            problem = whole.select(index, randomness.part(part, plan.method.states_per_draw))
            run = plan.method.bind(denoiser.select(index), problem, scheme, plan.steps)
            report = reporter(callback, denoiser, total, part)
            result[list(part)] = to_unit(denoiser, sampling_loop(run, bar.update, report))
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
    steps, scheme = whole_number(steps, "steps"), as_sampler(sampler)
    if not (
        isinstance(shape, Sequence) and len(shape) == 4 and all(isinstance(n, int) and n >= 1 for n in shape)
    ):
        raise ValueError(
            f"shape is (number, channels, height, width), whole numbers, all at least 1, not {shape!r}"
        )
    denoiser = prior if isinstance(prior, BasePrior) else load_prior(prior)
    if denoiser.channels not in (None, shape[1]):
        raise ValueError(f"{denoiser.name!r} makes pictures of {denoiser.channels} channels, not {shape[1]}")
    if class_labels is not None:
        if not isinstance(denoiser, Prior):
            raise TypeError(f"{denoiser.name!r} takes no class labels: only priors that are networks do")
        denoiser = denoiser.with_labels(class_labels)
    check_condition(denoiser, shape[0])
    if isinstance(denoiser, Prior):
        judge(denoiser, *shape[2:], steps=steps)
    where = device_for(device, prior, torch.empty(0))
    denoiser = denoiser.to(where)
    randomness = Randomness.for_draws(seed, 1, shape[0], where)
    parts, pictures = parts_of(range(shape[0]), shape, where, Method(), denoiser.light), []
    with progress_bar(len(parts) * steps, "sampling", progress) as bar:
        for part in parts:
            nothing = torch.empty(len(part), 0, device=where)
            size = (len(part), *shape[1:])
            problem = Problem(nothing, None, nothing.sum(1), size, randomness.part(part))
            run = Method().bind(denoiser.select(torch.tensor(part)), problem, scheme, steps)
            pictures.append(sampling_loop(run, bar.update, reporter(callback, denoiser, steps, part)))
    return to_unit(denoiser, torch.cat(pictures))
