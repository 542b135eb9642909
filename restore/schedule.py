"""Noise schedules: how much signal and how much noise a state holds at each time.

A state at time ``t`` is ``x_t = alpha_t x_0 + sigma_t eps``. Time runs from 0 (clean) to 1 (noise).
A network trained on ``T`` discrete steps saw the noise levels of ``t = 1/T, 2/T, ..., 1``; there the
schedule returns exactly the trained values, and in between it interpolates, so that samplers may
visit any time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

#: The most steps of a schedule; the longest that anybody trained with have some thousands.
MOST_STEPS = 1_000_000


class Schedule:
    """The pair of curves ``alpha_t`` (signal) and ``sigma_t`` (noise).

    Use the constructors: :meth:`linear`, :meth:`scaled_linear`, :meth:`cosine`, :meth:`flow`, and
    :meth:`from_betas` for any discrete table of a trained network.

    Args:
        alphas: Signal scales at the trained steps, least noisy first, each in (0, 1] and not rising, ``(T,)``.
        sigmas: Noise scales at the trained steps, rising, ``(T,)``.
        config: What :meth:`from_config` needs to build the same schedule again.

    Raises:
        ValueError: If the tables differ in length, or are not monotonous, finite and positive.

    Example:
        >>> schedule = Schedule.linear()
        >>> alpha, sigma = schedule(0.5)
        >>> round(alpha**2 + sigma**2, 12)
        1.0
        >>> schedule(0.0)
        (1.0, 0.0)
    """

    def __init__(self, alphas: np.ndarray, sigmas: np.ndarray, config: dict[str, Any]) -> None:
        alphas, sigmas = np.asarray(alphas, np.float64), np.asarray(sigmas, np.float64)
        if alphas.ndim != 1 or alphas.shape != sigmas.shape or alphas.size == 0:
            raise ValueError(
                f"alphas and sigmas must be two lists of the same length, not {alphas.shape} and {sigmas.shape}"
            )
        if not (
            np.isfinite(alphas).all()
            and np.isfinite(sigmas).all()
            and (alphas >= 0).all()
            and (sigmas > 0).all()
        ):
            raise ValueError("every alpha must be finite and at least 0, every sigma finite and above 0")
        if (np.diff(alphas) > 0).any() or (np.diff(sigmas) < 0).any():
            raise ValueError(
                "alphas must fall and sigmas must rise with the step: give the least noisy step first"
            )
        self.steps = len(alphas)
        #: The number that a network is given for its least noisy step: 0, but 1 for flows, which are given ``t T``.
        self.first_step = 1 if config.get("kind") == "flow" else 0
        #: The noise added at each trained step ``(T,)``, where the schedule was made from such a table.
        self.betas: np.ndarray | None = None
        self._config = config
        # Time 0 is the clean image. Log alpha is what interpolates well: it is the integral of the drift.
        self._grid = np.arange(self.steps + 1) / self.steps
        # A schedule that ends in pure noise (alpha = 0) has no logarithm there; the floor is far below float32's reach.
        self._log_alpha = np.concatenate([[0.0], np.log(np.maximum(alphas, 1e-20))])
        self._alphas = np.concatenate([[1.0], alphas])
        self._sigmas = np.concatenate([[0.0], sigmas])
        self.variance_preserving = bool(np.allclose(alphas**2 + sigmas**2, 1.0, atol=1e-6))

    # ---------------------------------------------------------------- constructors

    @classmethod
    def from_betas(cls, betas: Sequence[float] | np.ndarray | Tensor) -> Schedule:
        """A variance-preserving schedule from the noise added at each of the ``T`` trained steps.

        ``alpha_bar_i = prod_{j <= i} (1 - beta_j)``,
        ``alpha_i = sqrt(alpha_bar_i)``, ``sigma_i = sqrt(1 - alpha_bar_i)``,
        computed in float64 (*Denoising Diffusion Probabilistic Models*, 2020, arXiv:2006.11239).

        Args:
            betas: ``(T,)`` numbers in (0, 1], least noisy step first.

        Raises:
            ValueError: If ``betas`` is empty, not one-dimensional, or has a value outside (0, 1].

        Example:
            >>> round(Schedule.from_betas([0.1, 0.2])(1.0)[0] ** 2, 6)
            0.72
        """
        table = torch.as_tensor(betas, dtype=torch.float64).cpu().numpy()
        if table.ndim != 1 or table.size == 0:
            raise ValueError(
                f"betas must be a list of numbers, one a step, not an array of shape {table.shape}"
            )
        return cls._of_betas(table, {"kind": "betas", "betas": table.tolist()})

    @classmethod
    def linear(cls, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """Betas that rise linearly: DDPM's schedule, and guided-diffusion's (arXiv:2006.11239).

        Args:
            steps: Number of trained steps.
            beta_start: First (least noisy) beta.
            beta_end: Last beta.

        Example:
            >>> Schedule.linear().steps
            1000
        """
        betas = np.linspace(beta_start, beta_end, _number_of(steps))
        return cls._of_betas(
            betas, {"kind": "linear", "steps": steps, "beta_start": beta_start, "beta_end": beta_end}
        )

    @classmethod
    def scaled_linear(
        cls, steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
    ) -> Schedule:
        """Betas whose square roots rise linearly: the schedule of latent diffusion (arXiv:2112.10752).

        Args:
            steps: Number of trained steps.
            beta_start: First (least noisy) beta.
            beta_end: Last beta.

        Example:
            >>> Schedule.scaled_linear()(1.0)[1] > 0.99
            True
        """
        betas = np.linspace(beta_start**0.5, beta_end**0.5, _number_of(steps)) ** 2
        config = {"kind": "scaled_linear", "steps": steps, "beta_start": beta_start, "beta_end": beta_end}
        return cls._of_betas(betas, config)

    @classmethod
    def cosine(cls, steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
        """Alpha-bar follows a squared cosine.

        *Improved Denoising Diffusion Probabilistic Models*, 2021, arXiv:2102.09672.

        Args:
            steps: Number of trained steps.
            offset: The small shift ``s`` that keeps the first betas above zero.
            max_beta: Betas are clipped here, which keeps the last steps from destroying all signal at once.

        Example:
            >>> round(Schedule.cosine()(0.5)[0] ** 2, 2)
            0.49
        """
        edges = np.cos((np.linspace(0, 1, _number_of(steps) + 1) + offset) / (1 + offset) * np.pi / 2) ** 2
        betas = np.minimum(1 - edges[1:] / edges[:-1], max_beta)
        return cls._of_betas(
            betas, {"kind": "cosine", "steps": steps, "offset": offset, "max_beta": max_beta}
        )

    @classmethod
    def flow(cls, steps: int = 1000) -> Schedule:
        """Straight lines from image to noise, ``alpha = 1 - t``, ``sigma = t`` (rectified flow, arXiv:2209.03003).

        Args:
            steps: Number of steps that time 1 is shown to the network as.

        Example:
            >>> Schedule.flow()(0.25)
            (0.75, 0.25)
        """
        grid = np.arange(1, _number_of(steps) + 1) / steps
        schedule = cls(1 - grid, grid, {"kind": "flow", "steps": steps})
        return schedule

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Schedule:
        """The schedule that :meth:`to_config` described.

        Args:
            config: A dictionary with ``kind`` and the arguments of the constructor of that name.

        Raises:
            ValueError: If the kind is not known.

        Example:
            >>> Schedule.from_config({"kind": "linear", "steps": 10}).steps
            10
        """
        kind, options = config.get("kind"), {k: v for k, v in config.items() if k != "kind"}
        makers: dict[Any, Callable[..., Schedule]] = {
            "betas": cls.from_betas,
            "linear": cls.linear,
            "scaled_linear": cls.scaled_linear,
            "cosine": cls.cosine,
            "flow": cls.flow,
        }
        if kind not in makers:
            raise ValueError(f"unknown schedule {kind!r}; known are {', '.join(makers)}")
        return makers[kind](**options)

    def to_config(self) -> dict[str, Any]:
        """A JSON-ready description, from which :meth:`from_config` builds the same schedule."""
        return dict(self._config)

    @classmethod
    def _of_betas(cls, betas: np.ndarray, config: dict[str, Any]) -> Schedule:
        if len(betas) == 0:
            raise ValueError("a schedule needs at least one step")
        if not (np.isfinite(betas).all() and (betas > 0).all() and (betas <= 1).all()):
            raise ValueError(
                f"every beta must lie in (0, 1]; these run from {betas.min():.3g} to {betas.max():.3g}"
            )
        alpha_bar = np.cumprod(1 - betas)
        schedule = cls(np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar), config)
        schedule.betas = betas
        return schedule

    # ---------------------------------------------------------------- the curves

    @overload
    def __call__(self, t: float) -> tuple[float, float]: ...
    @overload
    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]: ...
    def __call__(self, t: float | Tensor) -> tuple[float, float] | tuple[Tensor, Tensor]:
        """``(alpha_t, sigma_t)``, in float64.

        Args:
            t: A time in [0, 1], or a tensor of times of any shape.

        Returns:
            Two floats, or two float64 tensors of the shape of ``t`` on its device.

        Raises:
            ValueError: If a time lies outside [0, 1].
        """
        if isinstance(t, Tensor):
            alpha, sigma = self._curves(t.detach().double().cpu().numpy())
            return torch.from_numpy(alpha).to(t.device), torch.from_numpy(sigma).to(t.device)
        alpha, sigma = self._curves(np.float64(t))
        return float(alpha), float(sigma)

    def _curves(self, t: Any) -> tuple[np.ndarray, np.ndarray]:
        t = np.asarray(t)
        if not ((t >= 0) & (t <= 1)).all():
            raise ValueError(
                f"times must lie in [0, 1] (0 is clean, 1 is noise), not {t.min():.4g} to {t.max():.4g}"
            )
        nearest = np.rint(t * self.steps).astype(np.int64)
        # Rounding in k/T must not move a trained step: within a millionth of a step, the table is the answer.
        trained = np.abs(t * self.steps - nearest) < 1e-6
        if self.variance_preserving:
            alpha = np.exp(np.interp(t, self._grid, self._log_alpha))
            sigma = np.sqrt(-np.expm1(2 * np.interp(t, self._grid, self._log_alpha)))
        else:
            alpha = np.interp(t, self._grid, self._alphas)
            sigma = np.interp(t, self._grid, self._sigmas)
        return (
            np.asarray(np.where(trained, self._alphas[nearest], alpha)),
            np.asarray(np.where(trained, self._sigmas[nearest], sigma)),
        )

    def step_of(self, t: float) -> float:
        """The step number that a network trained on discrete steps is given for time ``t``.

        It runs from 0 to ``T - 1``; for :meth:`flow`, to ``T``.

        Between trained steps it is fractional; below the first one it is 0.

        Example:
            >>> Schedule.linear().step_of(1.0), Schedule.linear().step_of(0.001)
            (999.0, 0.0)
        """
        step = t * self.steps - 1 + self.first_step
        return float(max(0.0, round(step) if abs(step - round(step)) < 1e-6 else step))

    def time_of(self, noise_to_signal: float) -> float:
        """The time at which ``sigma_t / alpha_t`` has a given value: the inverse of the schedule.

        Args:
            noise_to_signal: A noise level relative to the image, at least 0; beyond the last step's it gives 1.

        Example:
            >>> schedule = Schedule.linear()
            >>> alpha, sigma = schedule(0.3)
            >>> round(schedule.time_of(sigma / alpha), 6)
            0.3
        """
        if not noise_to_signal >= 0:
            raise ValueError(f"a noise level is a number of at least 0, not {noise_to_signal}")
        return float(self._times_of(np.array([noise_to_signal]))[0])

    def _times_of(self, levels: np.ndarray) -> np.ndarray:
        levels = np.minimum(levels, 1e300)  # Infinity times an alpha of 0 would be no number.
        low, high = np.zeros(len(levels)), np.ones(len(levels))
        for _ in range(60):  # Bisection: the ratio rises with t, and 60 halvings exhaust a float64.
            middle = (low + high) / 2
            alpha, sigma = self._curves(middle)
            below = sigma < levels * alpha
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return high

    def times(
        self, steps: int, start: float = 1.0, spacing: str = "uniform", lowest: float = 1.0
    ) -> list[float]:
        """``steps + 1`` times from ``start`` down to 0.

        Args:
            steps: Number of downward steps, each of which costs one network call.
            start: The first (noisiest) time, in (0, 1].
            spacing: ``"uniform"``: evenly in time, on trained steps where there are enough of them. ``"log"``: evenly
                in ``log(sigma / alpha)`` down to the first trained step, then to 0. What is uniform in time leaves
                little for the end, and lets all detail below the last noise level but one fall into one step.

            lowest: For ``"log"``, the last noise level above 0, as a share of the first trained one.

        Raises:
            ValueError: If ``steps`` is not a positive integer, ``start`` or ``lowest`` not in (0, 1], or the spacing
                not known.

        Example:
            >>> Schedule.linear().times(4)
            [1.0, 0.75, 0.5, 0.25, 0.0]
            >>> [round(t, 3) for t in Schedule.linear().times(4, spacing="log")]
            [1.0, 0.604, 0.074, 0.001, 0.0]
        """
        if steps != int(steps) or steps < 1:
            raise ValueError(f"steps must be a whole number of at least 1, not {steps}")
        if not 0 < start <= 1:
            raise ValueError(f"the first time must lie in (0, 1], not {start}")
        if not 0 < lowest <= 1:
            raise ValueError(f"the lowest level is a share in (0, 1] of the first trained one, not {lowest}")
        if spacing not in ("uniform", "log"):
            raise ValueError(f"spacing must be 'uniform' or 'log', not {spacing!r}")
        if spacing == "log" and start > 1 / self.steps and steps > 1:
            # Pure noise has no logarithm; a thousandth of signal is where a schedule without any begins.
            (high, low) = (
                min(sigma / alpha, 1e3) if alpha else 1e3
                for alpha, sigma in map(self, (start, 1 / self.steps))
            )
            inner = [float(t) for t in self._times_of(np.geomspace(high, lowest * low, int(steps)))[1:]]
            if lowest == 1:
                inner[-1] = 1 / self.steps  # To the last bit, so that the table's own values are used.
            return [start, *inner, 0.0]
        times = np.linspace(start, 0, int(steps) + 1)
        if steps <= start * self.steps:
            times = np.rint(times * self.steps) / self.steps
        return [float(t) for t in times]

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v}" for k, v in self._config.items() if k not in ("kind", "betas"))
        return f"Schedule.{self._config['kind']}({options})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Schedule)
            and np.array_equal(self._alphas, other._alphas)
            and np.array_equal(self._sigmas, other._sigmas)
        )

    __hash__ = None  # type: ignore[assignment]


@overload
def per_image(value: float, x: Tensor) -> float: ...
@overload
def per_image(value: Tensor, x: Tensor) -> Tensor: ...
@overload
def per_image(value: float | Tensor, x: Tensor) -> float | Tensor: ...
def per_image(value: float | Tensor, x: Tensor) -> float | Tensor:
    """A number as it is, or numbers ``(B,)`` shaped to multiply ``x`` ``(B, ...)``."""
    if isinstance(value, Tensor):
        return value.to(x).reshape(-1, *[1] * (x.ndim - 1))
    return value


def _number_of(steps: int) -> int:
    """The number of steps, checked: it may be from anybody's file, and there are tables of that length."""
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or not 1 <= steps <= MOST_STEPS:
        raise ValueError(
            f"a schedule needs at least one step, and at most {MOST_STEPS:,}, as a whole number; not {steps!r}"
        )
    return int(steps)
