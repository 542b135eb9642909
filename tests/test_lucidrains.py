"""Files of the trainer of denoising-diffusion-pytorch."""

from __future__ import annotations

import math

import pytest
import torch

import restore
from restore.networks import RMSUNet
from restore.schedule import Schedule

LINEAR = {"full": False, "heads": 2, "width": 8, "memory": 4}
FULL = {**LINEAR, "full": True}
OPTIONS = {"dim": 8, "widths": (12, 8, 16), "attention": [LINEAR, FULL]}

# What the package's own Unet(8, init_dim=12, dim_mults=(1, 2), attn_dim_head=8, attn_heads=2), version 2.3.4, gives
# with the weights of `randomise` in float64 for `picture()` at steps 3 and 700: every 31st value.
GOLDEN = [
    0.247931303985941,
    1.1907762171643,
    -0.38036419968195,
    -0.62516943978885,
    -0.481530033288182,
    1.33612533069015,
    2.49601067905284,
    3.05049957634439,
    0.973232166911916,
    -1.15401661475036,
    -0.250603344996481,
    -1.15871716183804,
    -2.8364761986857,
    0.482709796176325,
    -0.508727920562676,
    -1.94223941551518,
    -0.598564084070267,
    2.17817460899925,
    1.46903672816808,
    1.70600860798259,
    0.857838019478866,
    -0.81347911947641,
    0.418529710150972,
    -0.704628850847073,
    -1.83109329103118,
]


def randomise(network, seed=0):
    """Weights that do not depend on the order in which a network makes its tensors."""
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for name in sorted(dict(network.named_parameters())):
        shape = state[name].shape
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        if name.endswith(".g"):
            values = 1 + 0.3 * values
        elif name.endswith("bias"):
            values *= 0.3
        else:
            values /= math.sqrt(math.prod(shape[1:]))
        state[name].copy_(values)
    return network


def picture(dtype=torch.float64):
    ramp = torch.arange(2 * 3 * 16 * 8, dtype=torch.float64).reshape(2, 3, 16, 8)
    return torch.sin(1.7 * ramp + 0.001 * ramp**2).to(dtype)


def tiny(seed=0, dtype=torch.float32, **changes):
    return randomise(RMSUNet(**{**OPTIONS, **changes}).to(dtype), seed).eval()


def diffusion(network, objective="v_prediction", schedule=None):
    """The state_dict of a GaussianDiffusion: its schedule, the weights of the loss, and the network."""
    schedule = schedule or Schedule.cosine(200)
    alpha, sigma = schedule(torch.arange(1, schedule.steps + 1, dtype=torch.float64) / schedule.steps)
    bars = torch.cat([torch.ones(1, dtype=torch.float64), alpha**2])
    snr = (alpha / sigma) ** 2
    weight = {"epsilon": torch.ones_like(snr), "sample": snr, "v_prediction": snr / (snr + 1)}[objective]
    buffers = {"betas": 1 - bars[1:] / bars[:-1], "alphas_cumprod": bars[1:], "loss_weight": weight}
    inside = {f"model.{name}": value for name, value in network.state_dict().items()}
    return {**{name: value.float() for name, value in buffers.items()}, **inside}


def trainers_file(path, ema, now, **options):
    averaged = {f"ema_model.{name}": value for name, value in diffusion(ema, **options).items()}
    online = {f"online_model.{name}": value for name, value in diffusion(now, **options).items()}
    content = {
        "step": 700,
        "model": diffusion(now, **options),
        "opt": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "ema": {"initted": torch.tensor(True), "step": torch.tensor(700), **averaged, **online},
        "scaler": None,
        "version": "2.3.4",
    }
    torch.save(content, path)
    return path


# ------------------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_the_network_gives_what_the_packages_gave(dtype, tolerance):
    with torch.no_grad():
        out = tiny(dtype=dtype)(picture(dtype), torch.tensor([3.0, 700.0], dtype=dtype))
    expected = torch.tensor(GOLDEN, dtype=dtype)
    torch.testing.assert_close(out.flatten()[::31], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("objective", ["pred_noise", "pred_x0", "pred_v"])
@pytest.mark.parametrize("schedule", ["sigmoid", "cosine", "linear"])
def test_the_packages_own_files(tmp_path, objective, schedule):
    package = pytest.importorskip("denoising_diffusion_pytorch")
    network = package.Unet(
        8, dim_mults=(1, 2, 3), attn_dim_head=8, attn_heads=2, full_attn=(False, True, True)
    )
    theirs = package.GaussianDiffusion(
        randomise(network), image_size=16, objective=objective, beta_schedule=schedule, timesteps=300
    ).eval()
    torch.save({"model": theirs.state_dict()}, tmp_path / "m.pt")
    prior = restore.load_prior(tmp_path / "m.pt")
    x = picture(torch.float32)
    for k in (0, 7, 150, 298):
        with torch.no_grad():
            expected = theirs.model_predictions(x, torch.full((2,), k)).pred_x_start
        # Where there is hardly any signal, the estimate is a small difference divided by it.
        atol = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(prior(x, (k + 1) / 300), expected, rtol=0, atol=atol)


# ------------------------------------------------------------------------------------------- as a prior


@pytest.mark.parametrize("objective", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("schedule", [Schedule.linear(), Schedule.cosine(150)], ids=repr)
def test_a_trainers_file_becomes_a_prior(tmp_path, objective, schedule):
    ema, now = tiny(1), tiny(2)
    path = trainers_file(tmp_path / "model-7.pt", ema, now, objective=objective, schedule=schedule)
    prior = restore.load_prior(path)
    assert (prior.name, prior.prediction, prior.channels, prior.multiple) == ("model-7", objective, 3, 2)
    for ours, theirs in zip(
        prior.schedule(torch.linspace(0, 1, 31)), schedule(torch.linspace(0, 1, 31)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)  # Their table is in float32.
    same = restore.Prior(ema, schedule, objective)
    x = picture(torch.float32)
    torch.testing.assert_close(prior(x, 0.3), same(x, 0.3), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(prior(x, 0.3), restore.Prior(now, schedule, objective)(x, 0.3), atol=1e-2)


def test_an_average_is_not_needed(tmp_path):
    network = tiny(3)
    for content in ({"model": diffusion(network)}, diffusion(network)):
        torch.save(content, tmp_path / "m.pt")
        prior = restore.load_prior(tmp_path / "m.pt")
        assert torch.equal(prior.network.final_conv.weight, network.final_conv.weight)


def test_it_is_saved_in_our_format(tmp_path):
    prior = restore.Prior(tiny(channels=1), Schedule.cosine(), "v_prediction")
    again = restore.load_prior(prior.save(tmp_path))
    x = picture(torch.float32)[:, :1]
    assert torch.equal(again(x, 0.4), prior(x, 0.4))
    assert again.channels == 1


def test_it_restores_pictures_of_any_size():
    prior = restore.Prior(tiny(), Schedule.linear(), "v_prediction")
    assert prior(torch.randn(1, 3, 13, 7), 0.5).shape == (1, 3, 13, 7)


def test_the_network_depends_on_the_time():
    x = picture(torch.float32)
    with torch.no_grad():
        early, late = (tiny()(x, torch.full((2,), t)) for t in (3.0, 700.0))
    assert float((early - late).abs().max()) > 0.1


# ------------------------------------------------------------------------------------------- what is refused


def old(state):
    for name in [n for n in state if n.endswith("block1.norm.g")]:
        size = state.pop(name).numel()
        state[name.replace("norm.g", "norm.weight")] = torch.ones(size)


REFUSED = {
    "missing": (
        lambda s: s.pop("model.mid_block1.mlp.1.weight"),
        r"missing tensors \(first: mid_block1.mlp.1.weight",
    ),
    "unknown": (lambda s: s.update({"model.more": torch.zeros(1)}), r"unknown tensors \(first: more\)"),
    "other shape": (
        lambda s: s.update({"model.final_conv.bias": torch.zeros(5)}),
        r"final_conv.bias is \(5,\), expected \(3,\)",
    ),
    "no levels": (lambda s: s.pop("model.downs.1.3.weight"), "lacks 'downs.1.3.weight'"),
    "no schedule": (lambda s: s.pop("betas"), "lacks betas"),
    "weights of no objective": (lambda s: s["loss_weight"].fill_(0.7), "its loss_weight is 0.7 at step"),
    "an old version": (old, "before version 2"),
    "learned sinusoids": (
        lambda s: s.update({"model.time_mlp.0.weights": torch.zeros(8)}),
        "random or learned sinusoids",
    ),
    "conditioned on itself": (
        lambda s: s.update({"model.init_conv.weight": torch.zeros(12, 6, 7, 7)}),
        "takes 6 channels and returns 3",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    state = diffusion(tiny())
    change(state)
    torch.save({"model": state}, tmp_path / "m.pt")
    with pytest.raises(ValueError, match=message) as error:
        restore.load_prior(tmp_path / "m.pt")
    assert str(tmp_path / "m.pt") in str(error.value)


def test_levels_and_widths_must_fit():
    with pytest.raises(ValueError, match="2 widths need 1 levels of attention, not 2"):
        RMSUNet(8, (8, 16), [LINEAR, FULL])
