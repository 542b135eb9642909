"""Other libraries with the same prior, the same measurement and the same operator: deepinv, where it is installed.

Its denoisers take a picture in [0, 1] and a noise level, ``D(x_0 + sigma eps, sigma) = E[x_0 | .]``, which is what a
prior is, up to scale; and its operators with a singular value decomposition are made of ours.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from restore.benchmark.standard import Measurement
from restore.prior import BasePrior
from restore.randomness import stream_seed

#: Noise that they are told of where there is none, since DiffPIR divides by it; as in that paper's own code.
LEAST_NOISE = 1e-3


def peers_installed() -> bool:
    """Whether deepinv can be imported."""
    return importlib.util.find_spec("deepinv") is not None


def deepinv_dps(
    measurement: Measurement, prior: BasePrior, draw: int, *, steps: int = 100, weight: float = 1.0
) -> Tensor:
    """Its DPS (arXiv:2209.14687), with the ancestral sampler.

    Args:
        measurement: What to restore.
        prior: The prior, on the device to compute on.
        draw: Number of the draw.
        steps: Network calls, each with a gradient.
        weight: Weight of the data.
    """
    from deepinv.sampling import DPS

    generator = torch.Generator(prior.device)
    model = DPS(_denoiser(prior), num_steps=steps + 1, weight=weight, device=prior.device, rng=generator)
    return _run(model, measurement, prior, draw, x_init=(1, *measurement.truth.shape))


def deepinv_diffpir(
    measurement: Measurement,
    prior: BasePrior,
    draw: int,
    *,
    steps: int = 100,
    zeta: float = 0.1,
    lambda_: float = 7.0,
) -> Tensor:
    """Its DiffPIR (arXiv:2305.08995).

    Args:
        measurement: What to restore.
        prior: The prior, on the device to compute on.
        draw: Number of the draw.
        steps: Network calls.
        zeta: Share of fresh noise.
        lambda_: Weight of the prior.
    """
    from deepinv.optim import L2
    from deepinv.sampling import DiffPIR

    model = DiffPIR(_denoiser(prior), L2(), max_iter=steps, zeta=zeta, lambda_=lambda_, device=prior.device)
    return _run(model, measurement, prior, draw)


def deepinv_ddrm(
    measurement: Measurement,
    prior: BasePrior,
    draw: int,
    *,
    steps: int = 100,
    eta: float = 0.85,
    etab: float = 1.0,
) -> Tensor:
    """Its DDRM (arXiv:2201.11793), at noise levels from 1 to 0.

    Args:
        measurement: What to restore.
        prior: The prior, on the device to compute on.
        draw: Number of the draw.
        steps: Network calls.
        eta: Share of fresh noise where nothing was measured.
        etab: The same where the measurement is better than the state.
    """
    import numpy as np
    from deepinv.sampling import DDRM

    model = DDRM(_denoiser(prior), np.linspace(1, 0, steps), eta, etab)
    return _run(model, measurement, prior, draw)


PEERS: dict[str, Callable[..., Tensor]] = {
    "deepinv-dps": deepinv_dps,
    "deepinv-diffpir": deepinv_diffpir,
    "deepinv-ddrm": deepinv_ddrm,
}


def _run(model: nn.Module, measurement: Measurement, prior: BasePrior, draw: int, **options: Any) -> Tensor:
    """One draw; its own seeds go by truth, so that 0 would be none."""
    seed = 1 + stream_seed(measurement.seed, draw) % 2**31
    y = measurement.y[None].to(prior.device, copy=True)  # DDRM writes into it.
    return model(y, _physics(measurement, prior.device), seed=seed, **options)[0].detach().float().cpu()


def _physics(measurement: Measurement, device: torch.device) -> Any:
    """The operator as deepinv has them, with the same singular value decomposition."""
    from deepinv.physics import DecomposablePhysics, GaussianNoise

    shape = tuple(measurement.truth.shape)
    operator = copy.deepcopy(measurement.operator).to(device)  # Others use the same one.
    svd = operator.svd(shape)
    assert svd is not None  # All standard tasks have one.
    return DecomposablePhysics(
        U=svd.u,
        U_adjoint=svd.ut,
        V=svd.v,
        V_adjoint=svd.vt,
        mask=svd.s.expand(1, *shape).clone(),
        noise_model=GaussianNoise(max(measurement.task.noise, LEAST_NOISE)),
        img_size=shape,
        device=device,
    )


def _denoiser(prior: BasePrior) -> nn.Module:
    """The prior as deepinv has them."""
    from deepinv.models.base import Denoiser

    low, high = prior.value_range

    class PriorDenoiser(Denoiser):
        def forward(self, x: Tensor, sigma: Any, **options: Any) -> Tensor:
            # One level for the picture: all of these methods denoise one picture at a time.
            level = (high - low) * float(torch.as_tensor(sigma).flatten()[0])
            t = prior.schedule.time_of(level)
            alpha, _ = prior.schedule(t)
            x_hat = prior(alpha * (low + (high - low) * x), t)
            return (x_hat - low) / (high - low)

    return PriorDenoiser(device=prior.device)
