import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toys import GaussianNetwork, PixelPrior, ProbeNetwork, smooth_prior

import restore
from operators import Mask
from restore.analytic import GaussianPrior, smooth_covariance
from restore.networks import photo_unet
from restore.prior import PREDICTIONS, Prior
from restore.schedule import Schedule
from restore.variance import KeepsVariance


def gaussian(schedule=None):
    generator = torch.Generator().manual_seed(0)
    return GaussianPrior(
        0.3 * torch.randn(1, 4, 4, generator=generator), smooth_covariance((4, 4), 2.0, 0.5), schedule
    )


class Function(nn.Module):
    """A network without parameters, from a function of the picture."""

    def __init__(self, function, **attributes):
        super().__init__()
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x, step):
        return self.function(x)


def sample_prior(function, **options):
    return Prior(Function(function), Schedule.linear(), "sample", **options)


# ------------------------------------------------------------------------------ parametrisations


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", [Schedule.linear(), Schedule.cosine(), Schedule.flow()], ids=repr)
def test_every_parametrisation_is_the_same_prior(prediction, schedule):
    exact = gaussian(schedule)
    prior = Prior(GaussianNetwork(exact, prediction), schedule, prediction)
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    for t in (0.001, 0.02, 0.2, 0.5, 0.8):
        torch.testing.assert_close(prior(x, t), exact(x, t), rtol=1e-5, atol=1e-5)
        wide = x.double()
        torch.testing.assert_close(prior(wide, t), exact(wide, t), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["repaint", "sdedit", "dps"])
def test_every_parametrisation_gives_the_same_picture(method):
    # Beyond noise of 50 to 1, epsilon in float32 loses the digits this test asks for: end the schedule before.
    schedule = Schedule.linear(1000, 1e-4, 0.01)
    exact = gaussian(schedule)
    mask = Mask(torch.arange(16).reshape(4, 4) % 3 > 0)
    y = mask(torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(2)))
    results = [
        restore.solve(
            y,
            mask,
            method,
            prior=Prior(GaussianNetwork(exact, prediction), schedule, prediction),
            steps=20,
            seed=3,
            progress=False,
        )
        for prediction in PREDICTIONS
    ]
    assert results[0].std() > 0.05
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=1e-5)


def test_a_learned_variance_is_left_aside():
    exact = gaussian()
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    plain = Prior(GaussianNetwork(exact, "epsilon"), exact.schedule)
    learned = Prior(GaussianNetwork(exact, "epsilon", learned_variance=True), exact.schedule)
    assert learned(x, 0.3).shape == x.shape
    torch.testing.assert_close(learned(x, 0.3), plain(x, 0.3))


def test_six_channels_out_of_three():
    prior = sample_prior(lambda x: torch.cat([2 * x, torch.full_like(x, 99.0)], dim=1))
    x = torch.randn(2, 3, 5, 7)
    assert torch.equal(prior(x, 0.4), 2 * x)


# ------------------------------------------------------------------------------ other names of the same thing


def test_the_score_is_the_gradient_of_the_log_density_of_the_state():
    prior = gaussian()
    for t in (0.01, 0.3, 0.9):
        alpha, sigma = prior.schedule(t)
        x = torch.randn(2, 1, 4, 4, dtype=torch.float64).requires_grad_(True)
        eye = torch.eye(16, dtype=torch.float64)
        state = torch.distributions.MultivariateNormal(
            alpha * prior.distribution.mean.flatten(),
            alpha**2 * prior.distribution.covariance + sigma**2 * eye,
        )
        (expected,) = torch.autograd.grad(state.log_prob(x.flatten(1)).sum(), x)
        torch.testing.assert_close(prior.score(x.detach(), t), expected, rtol=1e-6, atol=1e-6)


def test_noise_velocity_and_flow_are_the_same_quantity():
    prior = gaussian()
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    for t in (0.2, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)):
        alpha, sigma = (
            v.reshape(-1, 1, 1, 1) if isinstance(v, torch.Tensor) else v for v in prior.schedule(t)
        )
        x_hat, noise = prior(x, t), prior.epsilon(x, t)
        torch.testing.assert_close(alpha * x_hat + sigma * noise, x)
        torch.testing.assert_close(prior.velocity(x, t), alpha * noise - sigma * x_hat)
        torch.testing.assert_close(alpha * x - sigma * prior.velocity(x, t), x_hat)
        torch.testing.assert_close(prior.flow(x, t), noise - x_hat)
        torch.testing.assert_close(prior.score(x, t), -noise / sigma)


def test_tweedie():
    """x_hat = (x_t + sigma^2 score) / alpha."""
    prior, t = gaussian(), 0.4
    alpha, sigma = prior.schedule(t)
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    torch.testing.assert_close((x + sigma**2 * prior.score(x, t)) / alpha, prior(x, t))


def test_how_much_a_pixel_varies_is_taken_from_the_range_or_known():
    assert sample_prior(torch.zeros_like).pixel_variance == 1
    assert sample_prior(torch.zeros_like, value_range=(0.0, 1.0)).pixel_variance == 0.25
    assert PixelPrior(value_range=(0.0, 1.0), bounded=False).pixel_variance == 1
    covariance = torch.diag(torch.tensor([0.1, 0.3, 0.5, 0.7]))
    assert GaussianPrior(torch.zeros(1, 2, 2), covariance).pixel_variance == pytest.approx(0.4)
    assert GaussianPrior(torch.zeros(1, 2, 2), 0 * covariance).pixel_variance == 1
    kept = sample_prior(torch.zeros_like, value_range=(0.0, 1.0))
    assert KeepsVariance(kept).pixel_variance == 0.25


def test_only_a_bounded_prior_clips():
    x = torch.tensor([-3.0, -1.0, 0.2, 5.0])
    assert sample_prior(lambda x: x).clip(x).tolist() == pytest.approx([-1, -1, 0.2, 1])
    assert sample_prior(lambda x: x, value_range=(0, 1)).clip(x).tolist() == pytest.approx([0, 0, 0.2, 1])
    assert torch.equal(smooth_prior().clip(x), x)


# ------------------------------------------------------------------------------ how the network is called


def test_the_network_is_given_the_number_of_the_step():
    network = ProbeNetwork()
    prior = Prior(network, Schedule.linear())
    x = torch.randn(3, 3, 4, 4)
    for t, step in ((1.0, 999), (0.5, 499), (0.001, 0), (0.0, 0), (0.00025, 0), (0.5005, 499.5)):
        prior(x, t)
        torch.testing.assert_close(network.seen[-1].step, torch.full((3,), float(step)))


def test_one_time_per_image():
    prior = Prior(ProbeNetwork(), Schedule.linear())
    x = torch.randn(3, 3, 5, 4)
    times = torch.tensor([0.1, 0.5, 0.9])
    together = prior(x, times)
    assert prior.network.seen[-1].step.tolist() == [99, 499, 899]
    for i, t in enumerate((0.1, 0.5, 0.9)):
        torch.testing.assert_close(together[i : i + 1], prior(x[i : i + 1], t), rtol=1e-5, atol=1e-5)
    for one in (torch.tensor(0.5), torch.tensor([0.5])):
        torch.testing.assert_close(prior(x, one), prior(x, 0.5), rtol=1e-5, atol=1e-5)


def test_class_labels_are_passed_through():
    network = ProbeNetwork()
    prior = Prior(network, Schedule.linear())
    x = torch.randn(3, 3, 4, 4)
    prior(x, 0.5)
    assert network.seen[-1].labels is None
    prior.with_labels(7)(x, 0.5)
    assert network.seen[-1].labels.tolist() == [7, 7, 7]
    prior.with_labels([1, 2, 3])(x, 0.5)
    assert network.seen[-1].labels.tolist() == [1, 2, 3]
    assert network.seen[-1].labels.dtype == torch.long
    assert prior.class_labels is None  # the prior itself is as it was


def test_autocast_is_for_the_network_alone():
    kinds = []
    conv = nn.Conv2d(3, 3, 1)

    def function(x):
        out = conv(x)
        kinds.append(out.dtype)
        return out

    prior = sample_prior(function)
    x = torch.randn(1, 3, 4, 4)
    low = prior.with_autocast(torch.bfloat16)(x, 0.5)
    full = prior(x, 0.5)
    assert kinds == [torch.bfloat16, torch.float32]
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, full, rtol=0.05, atol=0.05)


def test_a_network_in_half_precision_takes_a_state_in_float32():
    network = nn.Conv2d(3, 3, 1).to(torch.bfloat16)

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = network

        def forward(self, x, step):
            assert x.dtype == torch.bfloat16
            return self.conv(x)

    assert Prior(Half(), Schedule.linear(), "sample")(torch.randn(1, 3, 4, 4), 0.5).dtype == torch.float32


def test_parameters_are_frozen_and_the_input_is_not():
    network = ProbeNetwork()
    network.train()
    prior = Prior(network, Schedule.linear())
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    x = torch.randn(1, 3, 4, 4, requires_grad=True)
    prior(x, 0.5).sum().backward()
    assert float(x.grad.abs().min()) > 0


# ------------------------------------------------------------------------------ any size


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 21), st.integers(1, 21), st.sampled_from([1, 2, 8]))
def test_any_size_is_padded_and_cropped_again(height, width, multiple):
    network = ProbeNetwork(multiple=multiple)
    prior = Prior(network, Schedule.linear(), "sample", tile=64, overlap=16)
    x = torch.randn(2, 3, height, width)
    out = prior(x, 0.5)
    assert out.shape == x.shape
    assert network.seen[-1].shape[-2:] == (
        -(-height // multiple) * multiple,
        -(-width // multiple) * multiple,
    )
    if height % multiple == 0 and width % multiple == 0:
        torch.testing.assert_close(out, network(x, torch.full((2,), 499.0)).sample, rtol=1e-6, atol=1e-6)
    assert torch.equal(sample_prior(lambda x: x, multiple=multiple, tile=64, overlap=16)(x, 0.5), x)


@pytest.mark.parametrize("size", [(5, 7), (6, 8), (9, 12)])
def test_the_padding_is_a_reflection(size):
    seen = []
    prior = sample_prior(lambda x: seen.append(x) or x, multiple=4, tile=64, overlap=16)
    x = torch.randn(1, 2, *size)
    prior(x, 0.5)
    expected = F.pad(x, (0, -size[1] % 4, 0, -size[0] % 4), mode="reflect")
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 1), (2, 2), (3, 5)])
def test_tiny_pictures_are_padded_with_their_own_values(size):
    seen = []
    prior = sample_prior(lambda x: seen.append(x) or x, multiple=16, tile=64, overlap=16)
    x = torch.arange(1.0, 1 + size[0] * size[1]).reshape(1, 1, *size)
    assert torch.equal(prior(x, 0.5), x)
    assert seen[0].shape == (1, 1, 16, 16)
    assert set(seen[0].flatten().tolist()) == set(x.flatten().tolist())
    # A reflected row is periodic: 1 2 3 2 1 2 3 ...
    period = max(1, 2 * (size[1] - 1))
    torch.testing.assert_close(seen[0][..., : 16 - period], seen[0][..., period:])


def test_the_gradient_goes_through_the_padding():
    prior = sample_prior(lambda x: x**2 * torch.arange(8.0), multiple=8, tile=64, overlap=16)
    x = torch.randn(1, 1, 3, 5, requires_grad=True)
    prior(x, 0.5).sum().backward()
    torch.testing.assert_close(x.grad, (2 * x * torch.arange(5.0)).detach())


# ------------------------------------------------------------------------------ tiles


def conv_prior(tile, overlap, seed=0, multiple=1):
    network = ProbeNetwork(2, multiple, seed)
    return Prior(network, Schedule.linear(), "sample", tile=tile, overlap=overlap)


@pytest.mark.parametrize("size", [(17, 16), (40, 23), (16, 61), (33, 64)])
@pytest.mark.parametrize("multiple", [1, 4])
def test_tiles_change_nothing_for_a_network_that_sees_one_pixel(size, multiple):
    def function(x):
        assert max(x.shape[-2:]) <= 16
        return torch.tanh(3 * x) + 0.5

    x = torch.randn(2, 2, *size)
    tiled = sample_prior(function, multiple=multiple, tile=16, overlap=4)(x, 0.5)
    torch.testing.assert_close(tiled, torch.tanh(3 * x) + 0.5, rtol=1e-5, atol=1e-6)


def test_tiles_leave_no_seam_under_a_local_network():
    x = torch.randn(1, 2, 32, 76)
    tiled, whole = conv_prior(32, 8), conv_prior(128, 8)
    error = (tiled(x, 0.5) - whole(x, 0.5)).abs().amax((0, 1, 2))
    assert len(tiled.network.seen) == 3
    assert len(whole.network.seen) == 1
    # Tiles begin at 0, 24 and 44. A 3 x 3 network sees the end of a tile from its outermost pixel alone, which
    # counts for next to nothing beside the tile that goes on there.
    edges = {24, 31, 44, 55}
    inside = [i for i in range(76) if i not in edges]
    assert float(error[inside].max()) < 1e-5
    assert float(error.max()) < 1e-3 * float(whole(x, 0.5).std())


def test_every_tile_begins_on_the_grid_of_the_network():
    """A network of stride 4 gives the same pixel the same phase in every tile."""

    def function(x):
        phase = torch.arange(x.shape[-1]) % 4 + 10 * (torch.arange(x.shape[-2])[:, None] % 4)
        return phase.to(x).expand_as(x)

    x = torch.zeros(1, 1, 27, 50)
    out = sample_prior(function, multiple=4, tile=16, overlap=4)(x, 0.5)
    torch.testing.assert_close(out, function(x))


def test_the_gradient_through_tiles_is_that_of_the_whole():
    x = torch.randn(1, 2, 20, 40)
    weight = torch.randn(1, 2, 20, 40)

    def gradient(prior):
        leaf = x.clone().requires_grad_(True)
        (out,) = torch.autograd.grad((weight * prior(leaf, 0.5)).sum(), leaf)
        return out

    def pointwise(y):
        return torch.sin(2 * y)

    torch.testing.assert_close(
        gradient(sample_prior(pointwise, tile=16, overlap=4)),
        weight * 2 * torch.cos(2 * x),
        rtol=1e-4,
        atol=1e-5,
    )
    # A network of 3 x 3: exactly the derivative of what the tiles compute, by finite differences.
    prior = conv_prior(16, 4)
    direction = torch.randn(1, 2, 20, 40, dtype=torch.float64)
    wide = Prior(prior.network.double(), Schedule.linear(), "sample", tile=16, overlap=4)
    x, weight = x.double(), weight.double()
    numeric = (wide(x + 1e-5 * direction, 0.5) - wide(x - 1e-5 * direction, 0.5)) / 2e-5
    assert float((gradient(wide) * direction).sum()) == pytest.approx(
        float((weight * numeric).sum()), rel=1e-6
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([(16, 4), (16, 6), (24, 8)]))
def test_tiles_cover_every_size(height, width, tiles):
    prior = sample_prior(lambda x: x + 1, tile=tiles[0], overlap=tiles[1], multiple=2)
    x = torch.randn(1, 1, height, width)
    torch.testing.assert_close(prior(x, 0.3), x + 1, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------ what is refused, what is found out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prediction": "noise"},
            "prediction must be one of epsilon, sample, v_prediction, flow_prediction, not 'noise'",
        ),
        ({"value_range": (1, -1)}, "low < high"),
        ({"value_range": (0, 0)}, "low < high"),
        ({"multiple": 5, "tile": 64}, "multiples of 5"),
        ({"tile": 64, "overlap": 32}, "more than twice the overlap"),
        ({"tile": 64, "overlap": 0}, "more than twice the overlap"),
    ],
)
def test_what_makes_no_prior_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Prior(Function(lambda x: x), Schedule.linear(), **options)


def test_channels_and_multiple_are_found_out_from_the_network():
    from diffusers import UNet2DModel

    network = UNet2DModel(
        in_channels=3,
        out_channels=6,
        block_out_channels=(16, 16, 32),
        norm_num_groups=8,
        layers_per_block=1,
        down_block_types=["DownBlock2D"] * 3,
        up_block_types=["UpBlock2D"] * 3,
    )
    prior = Prior(network, Schedule.linear())
    assert (prior.channels, prior.multiple) == (3, 4)
    x = torch.randn(2, 3, 9, 14)
    out = prior(x, 0.5)
    assert out.shape == x.shape
    assert torch.isfinite(out).all()
    plain = Prior(Function(lambda x: x), Schedule.linear())
    assert (plain.channels, plain.multiple) == (None, 1)
    assert Prior(Function(lambda x: x), Schedule.linear(), channels=2, multiple=8).multiple == 8


def test_a_name_is_no_schedule():
    with pytest.raises(
        TypeError, match=r"schedule is 'linear'; expected a Schedule, such as restore.Schedule"
    ):
        Prior(photo_unet((8, 8)), "linear")
