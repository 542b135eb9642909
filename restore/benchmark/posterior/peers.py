"""The same methods in other packages, with the same exact denoiser: deepinv and azula, where they are installed.

Every adapter uses a package's documented interface and leaves its options at their defaults.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from operators import Mask
from restore.benchmark.posterior.contenders import Contender
from restore.benchmark.posterior.problems import KnownProblem


def peer_contenders() -> list[Contender]:
    """The methods of all other packages that are installed."""
    found = []
    if importlib.util.find_spec("deepinv"):
        found += _deepinv()
    if importlib.util.find_spec("azula"):
        found += _azula()
    return found


def _contender(
    name: str,
    steps: int,
    draw: Callable[[KnownProblem, Tensor, int], Tensor],
    lacking: Callable[[KnownProblem], str] = lambda problem: "",
) -> Contender:
    """A peer's method: ``draw(problem, y, steps)``, with the measurement once for each draw."""

    def seeded(problem: KnownProblem, count: int, steps: int, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            torch.manual_seed(seed)
            y = problem.y.expand(count, *problem.y.shape).contiguous()
            return draw(problem, y, steps).detach()

    return Contender(name, steps, lacking, seeded)


# -------------------------------------------------------------------- deepinv


def _deepinv() -> list[Contender]:
    import deepinv
    import numpy as np
    from deepinv.optim.data_fidelity import L2
    from deepinv.sampling import (
        DDRM,
        DPS,
        DDPMSolver,
        DiffPIR,
        MomentMatchingDataFidelity,
        PiGDMDataFidelity,
        PosteriorDiffusion,
        VariancePreservingDiffusion,
    )

    class Denoiser(nn.Module):
        """``E[x_0 | x_0 + sigma e]``, deepinv's idea of a denoiser."""

        def __init__(self, problem: KnownProblem) -> None:
            super().__init__()
            self.prior = problem.prior

        def forward(self, x: Tensor, sigma: float | Tensor, *_: Any, **__: Any) -> Tensor:
            level = float(torch.as_tensor(sigma).flatten()[0])
            t = self.prior.schedule.time_of(level)
            return self.prior(self.prior.schedule(t)[0] * x, t)

    def physics(problem: KnownProblem) -> Any:
        noise = deepinv.physics.GaussianNoise(problem.noise)
        shape = problem.operator.image_shape(tuple(problem.y.shape))
        if isinstance(problem.operator, Mask):
            return deepinv.physics.Inpainting(shape, mask=problem.operator.mask[0].float(), noise_model=noise)
        return deepinv.physics.LinearPhysics(
            A=lambda x, **_: problem.operator(x),
            A_adjoint=lambda y, **_: problem.operator.adjoint(y),
            img_size=shape,
            noise_model=noise,
        )

    def pictures_only(problem: KnownProblem) -> str:
        inside = isinstance(problem.operator, Mask)
        return "" if inside else "is written for pictures in [0, 1] and operators that deepinv can decompose"

    def diffusion(fidelity: type) -> Callable[[KnownProblem, Tensor, int], Tensor]:
        def draw(problem: KnownProblem, y: Tensor, steps: int) -> Tensor:
            model = PosteriorDiffusion(
                data_fidelity=fidelity(),
                denoiser=Denoiser(problem),
                sde=VariancePreservingDiffusion(alpha=1.0),
                solver=DDPMSolver(
                    timesteps=torch.linspace(1, 0, steps, dtype=torch.float64)
                ),  # as its DPS does
            )
            return model(y, physics(problem))

        return draw

    def dps(problem: KnownProblem, y: Tensor, steps: int) -> Tensor:
        return DPS(Denoiser(problem), num_steps=steps)(y, physics(problem))

    def ddrm(problem: KnownProblem, y: Tensor, steps: int) -> Tensor:
        return DDRM(Denoiser(problem), sigmas=np.linspace(1, 0, steps))(y, physics(problem))

    def diffpir(problem: KnownProblem, y: Tensor, steps: int) -> Tensor:
        return DiffPIR(Denoiser(problem), L2(), max_iter=steps)(y, physics(problem))

    return [
        _contender("deepinv DPS", 1000, dps, pictures_only),
        _contender("deepinv PiGDM", 200, diffusion(PiGDMDataFidelity)),
        _contender("deepinv MomentMatching", 200, diffusion(MomentMatchingDataFidelity)),
        _contender("deepinv DDRM", 100, ddrm, pictures_only),
        _contender("deepinv DiffPIR", 100, diffpir, pictures_only),
    ]


# -------------------------------------------------------------------- azula


def _azula() -> list[Contender]:
    from azula.denoise import Denoiser, DiracPosterior
    from azula.guidance.diffpir import DiffPIRDenoiser
    from azula.guidance.mmps import MMPSDenoiser
    from azula.guidance.pgdm import PGDMSampler
    from azula.guidance.tmpd import TMPDenoiser
    from azula.linalg.covariance import IsotropicCovariance
    from azula.noise import Schedule
    from azula.sample import DDPMSampler

    class Levels(Schedule):
        """The prior's own schedule."""

        def __init__(self, problem: KnownProblem) -> None:
            self.schedule = problem.prior.schedule

        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            alpha, sigma = self.schedule(float(t))
            return torch.tensor(alpha), torch.tensor(sigma)

    class Exact(Denoiser):
        def __init__(self, problem: KnownProblem) -> None:
            super().__init__()
            self.prior, self.schedule = problem.prior, Levels(problem)

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> DiracPosterior:
            return DiracPosterior(mean=self.prior(x_t, float(t)))

    def run(sampler: Any, problem: KnownProblem, y: Tensor) -> Tensor:
        shape = problem.operator.image_shape(tuple(problem.y.shape))
        return sampler(sampler.init((len(y), *shape)))

    def guided(
        make: Callable[[KnownProblem, Tensor, Callable[[Tensor], Tensor]], Any],
    ) -> Callable[[KnownProblem, Tensor, int], Tensor]:
        """A corrected denoiser, which takes measurements as vectors, with the ancestral sampler."""

        def draw(problem: KnownProblem, y: Tensor, steps: int) -> Tensor:
            denoiser = make(problem, y.flatten(1), lambda x: problem.operator(x).flatten(1))
            return run(DDPMSampler(denoiser, steps=steps, silent=True), problem, y)

        return draw

    def mmps(problem: KnownProblem, y: Tensor, measure: Callable[[Tensor], Tensor]) -> Any:
        return MMPSDenoiser(Exact(problem), y, measure, IsotropicCovariance(torch.tensor(problem.noise**2)))

    def tmpd(problem: KnownProblem, y: Tensor, measure: Callable[[Tensor], Tensor]) -> Any:
        return TMPDenoiser(Exact(problem), y, measure, problem.noise**2)

    def diffpir(problem: KnownProblem, y: Tensor, measure: Callable[[Tensor], Tensor]) -> Any:
        return DiffPIRDenoiser(Exact(problem), y, measure, problem.noise**2)

    def pgdm(problem: KnownProblem, y: Tensor, steps: int) -> Tensor:
        sampler = PGDMSampler(
            Exact(problem), y, problem.operator, problem.operator.pinv, steps=steps, silent=True
        )
        return run(sampler, problem, y)

    # Its DPS is left out: it takes one norm over a whole batch, so that draws are not independent.
    return [
        _contender("azula MMPS", 64, guided(mmps)),
        _contender("azula TMPD", 64, guided(tmpd)),
        _contender("azula PGDM", 64, pgdm),
        _contender("azula DiffPIR", 64, guided(diffpir)),
    ]
