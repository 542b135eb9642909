"""Who restores the measurements: the methods with a prior, the classical tools, and other libraries.

A contender is named as on the command line: ``ddnm``, ``ddnm:steps=50,eta=0.85``, ``wiener:balance=0.05``. Two names
stand for others: ``default`` for what the repair of the task does, ``classical`` for all classical tools of the task.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from restore.benchmark.classical import CLASSICAL, installed
from restore.benchmark.names import COLORIZE, ONE_CALL, Spec, complete, label
from restore.benchmark.peers import PEERS, peers_installed
from restore.benchmark.standard import TASKS, Measurement, Task
from restore.colours import ColourPrior
from restore.methods import REGISTRY, Method, Problem, as_method, choose, options_of
from restore.methods.naming import is_auto
from restore.prior import BasePrior
from restore.randomness import Randomness
from restore.solve import solve, suited
from restore.tasks import colorize


@dataclass(frozen=True)
class Contender:
    """One that can run.

    Attributes:
        label: What tables call it.
        settings: Everything that its results depend on beside the measurement.
        restore: From a measurement to the picture, ``(3, H, W)``.
        samples: How many draws it is the mean of.
        prior: The prior that it uses, if it does.
    """

    label: str
    settings: str
    restore: Callable[[Measurement], Tensor]
    samples: int = 1
    prior: CountedPrior | None = None

    @property
    def calls(self) -> int:
        """How many network calls its prior has had so far."""
        return 0 if self.prior is None else self.prior.calls


@dataclass(frozen=True)
class Resources:
    """What contenders with a prior run on.

    Attributes:
        prior: The prior; what it is asked is counted.
        colours: The prior that colours grey pictures, which may be the same.
        samples: How many draws to take the mean of.
        calls: Numbers of network calls to run every method at; none for the methods' own.
        device: Where to compute.
    """

    prior: CountedPrior
    colours: CountedPrior
    samples: int
    calls: tuple[int, ...]
    device: torch.device


def contenders(
    specs: Sequence[Spec], example: Measurement, resources: Resources
) -> tuple[list[Contender], list[str]]:
    """Those that can run a task, and why others cannot.

    Args:
        specs: Whom the user named.
        example: Any measurement of the task.
        resources: What those with a prior run on.

    Returns:
        The contenders, each once, in the order of the specs; and a sentence for each that was left out.
    """
    task = example.task
    able: dict[tuple[str, int], Contender] = {}
    left_out = []
    for spec in specs:
        for one in _meant(spec, task, resources):
            lacking = _lacking(one, example, resources)
            if lacking:
                left_out.append(f"{one.name} on {task.name}: {lacking}")
                continue
            for contender in _contenders(one, example, resources):
                able.setdefault((contender.settings, contender.samples), contender)
    return list(able.values()), left_out


class CountedPrior(BasePrior):
    """A prior that counts the pictures that go through it; else the same.

    Where a spectrum answers, at high noise, its network is not asked, and the call counts all the same.
    """

    _count: list[int]  # Shared by all copies, such as those on another device.

    @classmethod
    def of(cls, prior: BasePrior) -> CountedPrior:
        """A counted twin, of the prior's own class as well, so that all who ask for that still know it."""
        twin = copy.copy(prior)
        twin.__class__ = type("CountedPrior", (cls, type(prior)), {})
        assert isinstance(twin, CountedPrior)
        twin._count = [0]
        return twin

    @property
    def calls(self) -> int:
        """How many so far."""
        return self._count[0]

    def __call__(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """The prior's estimate, counted."""
        self._count[0] += len(x_t) * self.evaluations
        return super().__call__(x_t, t)  # type: ignore[safe-super]

    def with_variance(self, x_t: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """The prior's estimate and variance, counted as the one call that they are."""
        self._count[0] += len(x_t)
        found: tuple[Tensor, Tensor] = super().with_variance(x_t, t)  # type: ignore[misc]
        return found


def steps_for(calls: int, method: Method, example: Measurement, prior: BasePrior) -> int:
    """The most steps with which a method makes no more than so many network calls; at least one.

    Raises:
        ValueError: If a single step takes more.
    """
    shape = tuple(example.truth.shape)
    noise = torch.tensor([example.task.noise])
    problem = Problem(example.y[None], example.operator, noise, (1, *shape), Randomness([0]))

    def cost(steps: int) -> int:
        times = method.bind(prior, problem, None, steps).times()
        down = sum(s < t for t, s in pairwise(times))
        return down * method.calls_per_step * method.states_per_draw

    steps = bisect_right(range(1, calls + 1), calls, key=cost)
    if steps < 1:
        raise ValueError(
            f"{method.name} makes {cost(1)} network calls at least, and calls={calls} is asked for"
        )
    return steps


def _meant(spec: Spec, task: Task, resources: Resources) -> list[Spec]:
    """What ``default`` and ``classical`` stand for; any other spec is itself."""
    if spec.name == "classical":
        return [Spec(name) for name in task.classical]
    if spec.name != "default":
        return [spec]
    if task.repair is None:
        return [Spec(ONE_CALL)]
    # The repair of colours makes one picture of several draws; where calls or samples are given, they are for one.
    alone = resources.samples == 1 and not resources.calls
    return [Spec(COLORIZE if task.repair == COLORIZE and alone else "auto")]


def _lacking(spec: Spec, example: Measurement, resources: Resources) -> str:
    """Why it cannot run a task, in words; nothing if it can."""
    task = example.task
    if spec.name in CLASSICAL and spec.name not in task.classical:
        return f"it is for {', '.join(name for name, t in TASKS.items() if spec.name in t.classical)}"
    if spec.name in CLASSICAL and not installed(spec.name):
        return f'the package {spec.name} is not installed (pip install ".[bench]")'
    if isinstance(resources.prior, ColourPrior) and spec.name not in CLASSICAL:
        if spec.name != COLORIZE:
            return "the prior is of colours for a luma"
        if not is_auto(spec.options.get("method")):
            return "the prior is of colours for a luma, whose draws need no method"
    if spec.name in PEERS and not peers_installed():
        return 'the package deepinv is not installed (pip install ".[bench]")'
    if spec.name == ONE_CALL and task.repair is not None:
        return "one call of the prior undoes noise alone"
    if spec.name == COLORIZE and task.repair != COLORIZE:
        return "it is for colours"
    if spec.name == COLORIZE and (resources.samples > 1 or resources.calls):
        return "it makes one picture of draws of its own, and cannot follow --samples or --calls"
    if spec.name in REGISTRY:
        needs = suited(spec.method or REGISTRY[spec.name], example.operator, bool(task.noise))
        return f"it needs {' and '.join(needs)}" if needs else ""
    return ""


def _contenders(spec: Spec, example: Measurement, resources: Resources) -> list[Contender]:
    """What a spec stands for: one contender, or one for each number of calls."""
    if spec.name in CLASSICAL:
        tool = CLASSICAL[spec.name]
        return [
            Contender(
                label(spec.name, spec.options),
                label(spec.name, complete(tool, spec.options)),
                lambda measurement: tool(measurement, **spec.options),
            )
        ]
    if spec.name == ONE_CALL:
        return [
            Contender(
                ONE_CALL,
                ONE_CALL,
                lambda measurement: one_call(measurement, resources),
                prior=resources.prior,
            )
        ]
    if spec.name == COLORIZE:
        options = complete(colorize, spec.options)
        # A method is for a prior of pictures, in colorize as well.
        prior = resources.colours if is_auto(spec.options.get("method")) else resources.prior
        settings: dict[str, Any] = {"prior": prior, "device": resources.device, "progress": False}
        return [
            Contender(
                label(COLORIZE, spec.options),
                label(COLORIZE, options),
                lambda measurement: colorize(measurement.y, seed=measurement.seed, **options, **settings),
                prior=prior,
            )
        ]
    if spec.name in PEERS:
        counts: list[dict[str, Any]] = [{"steps": calls} for calls in resources.calls] or [{}]
        return [_peer(Spec(spec.name, {**spec.options, **count}), resources) for count in counts]
    return _methods(spec, example, resources)


def _methods(spec: Spec, example: Measurement, resources: Resources) -> list[Contender]:
    options = {k: v for k, v in spec.options.items() if k not in ("steps", "sampler")}
    sampler, wanted = spec.options.get("sampler"), spec.options.get("steps")
    if spec.name == "auto":
        measured = example.y.numel()
        runs = [
            choose(example.operator, measured, calls=calls, draws=resources.samples > 1)
            for calls in resources.calls or (wanted,)
        ]
    else:
        method = spec.method or as_method(spec.name, **options)
        counts = [steps_for(calls, method, example, resources.prior) for calls in resources.calls]
        runs = [(method, count) for count in counts or [wanted or method.default_steps]]
    made = []
    for method, count in runs:
        shown = {"steps": count, **options}
        if spec.method is not None or spec.name == "auto":
            shown |= {
                k: getattr(method, k) for k, v in options_of(type(method)).items() if getattr(method, k) != v
            }
        if sampler is not None:
            shown["sampler"] = sampler

        samples = resources.samples if method.draws else 1

        def run(
            measurement: Measurement, method: Method = method, count: int = count, samples: int = samples
        ) -> Tensor:
            draws: Tensor = solve(
                measurement.y,
                measurement.operator,
                method,
                prior=resources.prior,
                noise=measurement.task.noise,
                steps=count,
                samples=samples,
                sampler=sampler,
                seed=measurement.seed,
                device=resources.device,
                progress=False,
            )
            return draws.mean(0)

        settings = f"{method!r}, steps={shown['steps']}, sampler={sampler}"
        made.append(Contender(label(method.name, shown), settings, run, samples, resources.prior))
    return made


def _peer(spec: Spec, resources: Resources) -> Contender:
    run, options = PEERS[spec.name], complete(PEERS[spec.name], spec.options)

    def restore(measurement: Measurement) -> Tensor:
        draws = [
            run(measurement, resources.prior.to(resources.device), draw, **options)
            for draw in range(resources.samples)
        ]
        return torch.stack(draws).mean(0)

    shown = label(spec.name, {"steps": options["steps"], **spec.options})
    return Contender(shown, label(spec.name, options), restore, resources.samples, resources.prior)


def one_call(measurement: Measurement, resources: Resources) -> Tensor:
    """The prior's estimate of a noisy picture, ``E[x_0 | y]``."""
    prior = resources.prior.to(resources.device)
    return denoised(prior, measurement.y[None].to(resources.device), measurement.task.noise)[0].cpu()


@torch.inference_mode()
def denoised(prior: BasePrior, y: Tensor, noise: float) -> Tensor:
    """``E[x_0 | y]`` of pictures ``(B, C, H, W)`` in [0, 1] with noise of a standard deviation, by one call."""
    low, high = prior.value_range
    t = prior.schedule.time_of((high - low) * noise)
    alpha, _ = prior.schedule(t)
    return (prior(alpha * (low + (high - low) * y), t) - low) / (high - low)
