"""The denoising networks: they see the time, fold exactly, and are the same function everywhere."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from restore import load_prior, zoo
from restore.checkpoint import build_network, describe_network
from restore.networks import FoldedUNet, PixelNorm, photo_unet, with_scales
from restore.prior import Prior
from restore.schedule import Schedule

few = settings(max_examples=15, deadline=None)


def seeded(make, seed=0):
    torch.manual_seed(seed)
    return make().eval().requires_grad_(False)


def plain_config(**changes):
    """A UNet2DModel for folded grey pictures, with diffusers' own way of adding the time."""
    return {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [8, 8],
        "layers_per_block": 1,
        "down_block_types": ["DownBlock2D"] * 2,
        "up_block_types": ["UpBlock2D"] * 2,
        "add_attention": False,
        "norm_num_groups": 4,
        **changes,
    }


def change_with_time(network, channels=3, times=(10.0, 900.0), size=32):
    """How much the output differs between two times, relative to its size."""
    x = torch.randn(1, channels, size, size, generator=torch.Generator().manual_seed(1))
    early, late = (network(x, torch.tensor([t])) for t in times)
    return float((late - early).norm() / early.norm())


@pytest.fixture(scope="module")
def photo():
    return load_prior("photo")


@pytest.fixture(scope="module")
def small():
    return seeded(lambda: photo_unet((8, 16)))


# ------------------------------------------------------------------------------------------- the time is seen


@pytest.mark.parametrize("channels", [(8, 8), (8, 16), (16, 24, 32)])
def test_photo_unet_depends_on_the_time(channels):
    assert change_with_time(seeded(lambda: photo_unet(channels))) > 1e-2


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm_depends_on_the_time_with_fewer_groups_than_channels(groups):
    config = plain_config(norm_num_groups=groups)
    assert change_with_time(seeded(lambda: FoldedUNet(config, norm="group")), channels=1) > 1e-3


def test_the_trap_is_real():
    """One channel a group and the time added before the normalisation: the network is blind to the time."""
    config = plain_config(norm_num_groups=8)
    assert change_with_time(seeded(lambda: FoldedUNet(config, norm="group")), channels=1) < 1e-4


def test_scale_and_shift_avoid_the_trap():
    config = plain_config(norm_num_groups=8, resnet_time_scale_shift="scale_shift")
    assert change_with_time(seeded(lambda: FoldedUNet(config, norm="group")), channels=1) > 1e-2


def test_the_prior_in_the_package_depends_on_the_time(photo):
    """Its network sees the noise level, also between neighbouring times; it is not blind anywhere."""
    assert photo.network.config["config"]["resnet_time_scale_shift"] == "scale_shift"
    assert not any(isinstance(m, nn.GroupNorm) for m in photo.network.modules())
    with torch.no_grad():
        for times in [(0.0, 50.0), (10.0, 900.0), (400.0, 500.0)]:
            assert change_with_time(photo.network, times=times, size=64) > 1e-2, times
        # Where all is noise, the noise is the state itself, and even a perfect answer changes by a percent at most.
        # A network that is blind changes by 1e-6.
        assert change_with_time(photo.network, times=(900.0, 999.0), size=64) > 1e-3


def test_the_prior_in_the_package_removes_noise(photo):
    """A smooth picture with noise comes back much nearer to itself, and only at the right time."""
    line = torch.linspace(-0.8, 0.8, 64)
    x_0 = (0.5 * line[:, None] + 0.4 * torch.sin(3 * line)).expand(1, 3, 64, 64)
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))

    def error(t, told):
        alpha, sigma = photo.schedule(t)
        return float(((photo((alpha * x_0 + sigma * eps).contiguous(), told) - x_0) ** 2).mean())

    for t in (0.05, 0.1, 0.3):
        alpha, sigma = photo.schedule(t)
        assert error(t, t) < 0.1 * (sigma / alpha) ** 2
    assert error(0.3, 0.3) < 0.5 * error(0.3, 0.05)


# ------------------------------------------------------------------------------------------- pixel norm


@few
@given(
    st.integers(1, 3), st.integers(2, 9), st.integers(1, 6), st.integers(1, 6), st.sampled_from([1e-5, 1e-2])
)
def test_pixel_norm_is_layer_norm_over_channels(batch, channels, height, width, eps):
    generator = torch.Generator().manual_seed(channels)
    x = 3 * torch.randn(batch, channels, height, width, generator=generator) + 1
    ours, theirs = PixelNorm(channels, eps), nn.LayerNorm(channels, eps)
    for layer in (ours, theirs):
        layer.weight.data = torch.linspace(0.5, 2, channels)
        layer.bias.data = torch.linspace(-1, 1, channels)
    expected = theirs(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(ours(x.contiguous(memory_format=layout)), expected)
    # And from the definition.
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
    column = (1, channels, 1, 1)
    by_hand = (x - mean) / (variance + eps).sqrt() * ours.weight.view(column) + ours.bias.view(column)
    torch.testing.assert_close(ours(x), by_hand, rtol=1e-4, atol=1e-4)


def test_every_group_norm_is_replaced():
    config = plain_config(norm_eps=1e-3)  # Not the default of either.
    pixel, group = (FoldedUNet(config, norm=norm) for norm in ("pixel", "group"))
    kinds = {type(m) for m in pixel.modules()}
    assert PixelNorm in kinds
    assert nn.GroupNorm not in kinds
    replaced = {n: m for n, m in pixel.named_modules() if isinstance(m, PixelNorm)}
    for name, module in group.named_modules():
        if isinstance(module, nn.GroupNorm):
            assert replaced.pop(name).weight.shape == module.weight.shape
            assert module.eps == pixel.get_submodule(name).eps
    assert not replaced


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="'pixel' or 'group', not 'batch'"):
        FoldedUNet(plain_config(), norm="batch")


# ------------------------------------------------------------------------------------------- folding


class Recorder(nn.Module):
    """In the place of the U-Net: passes its input on, and remembers it."""

    def __init__(self, config):
        super().__init__()
        self.config = config

    def forward(self, x, step, class_labels=None, return_dict=False):
        self.seen = x
        return (x,)


@pytest.mark.parametrize(("fold", "channels"), [(1, 3), (2, 3), (2, 1), (4, 3)])
def test_folding_is_exact(fold, channels):
    config = plain_config(in_channels=channels * fold**2, out_channels=channels * fold**2)
    network = FoldedUNet(config, fold=fold)
    network.unet = Recorder(network.unet.config)
    x = torch.randn(2, channels, 8, 16)
    assert torch.equal(network(x, torch.zeros(2)), x)
    folded = network.unet.seen
    assert folded.shape == (2, channels * fold**2, 8 // fold, 16 // fold)
    for c in range(channels):
        for i in range(fold):
            for j in range(fold):
                assert torch.equal(folded[:, c * fold**2 + i * fold + j], x[:, c, i::fold, j::fold])
    assert network.channels == channels
    assert network.multiple == 2 * fold


def test_no_folding_is_the_unet_itself():
    network = seeded(lambda: FoldedUNet(plain_config(), fold=1, norm="group"))
    x, step = torch.randn(1, 4, 8, 8), torch.tensor([7.0])
    assert torch.equal(network(x, step), network.unet(x, step).sample)


# ------------------------------------------------------------------------------------------- any size


@few
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
def test_any_multiple_is_a_size(small, height, width, batch):
    assert small.multiple == 4
    x = torch.randn(batch, 3, 4 * height, 4 * width)
    out = small(x, torch.full((batch,), 100.0))
    assert out.shape == x.shape
    assert bool(out.isfinite().all())


def test_what_is_no_multiple_is_refused_by_the_network_and_padded_by_the_prior(small):
    x = torch.randn(1, 3, 14, 18)
    with pytest.raises(RuntimeError):
        small(x, torch.zeros(1))
    assert Prior(small, Schedule.linear())(x, 0.5).shape == x.shape


def reach(network, size=192):
    """How many pixels from the centre's square the output there depends on, found by its gradient."""
    x = torch.randn(1, 3, size, size, requires_grad=True)
    m = network.multiple
    start = size // 2 // m * m
    network(x, torch.tensor([300.0]))[..., start : start + m, start : start + m].sum().backward()
    rows = x.grad.abs().amax((0, 1, 3)).nonzero().flatten()
    assert rows[0] > 0  # Or the picture is too small to tell.
    assert rows[-1] < size - 1
    return max(start - int(rows[0]), int(rows[-1]) - (start + m - 1))


def crop_difference(network, offset, size, margin, whole):
    """Largest relative difference, away from the crop's borders, between the whole and the crop alone."""
    x = torch.randn(1, 3, *whole, generator=torch.Generator().manual_seed(0))
    top, left = offset
    step = torch.tensor([300.0])
    part = network(x[..., top : top + size, left : left + size], step)
    same = network(x, step)[..., top : top + size, left : left + size]
    inner = (..., slice(margin, -margin), slice(margin, -margin))
    return float((part - same)[inner].abs().max() / same.abs().max())


def test_the_same_function_everywhere(small):
    """A crop gives what the same place of a larger picture gives: nothing depends on the picture's size."""
    margin = reach(small)
    # Ten 3 x 3 convolutions on squares of 4 pixels and ten on squares of 2; a few pixels for the grid.
    assert 40 <= margin <= 64
    for offset in ((0, 4), (16, 28), (40, 12)):
        assert crop_difference(small, offset, 160, margin + 1, (200, 224)) < 1e-5
    # At its border, the crop lacks what it needs.
    assert crop_difference(small, (16, 28), 160, 2, (200, 224)) > 1e-3


def test_group_norm_is_another_function_on_every_size():
    config = {**photo_unet((8, 16)).config["config"]}
    network = seeded(lambda: FoldedUNet(config, norm="group"))
    assert crop_difference(network, (16, 28), 160, 65, (200, 224)) > 1e-3


def test_the_prior_in_the_package_is_nearly_the_same_function_everywhere(photo):
    """Its attention sees the whole picture, and is to make little of that."""
    with torch.no_grad():
        assert crop_difference(photo.network, (32, 16), 192, 80, (256, 240)) < 5e-3


def test_images_of_a_batch_do_not_mix(small):
    x, step = torch.randn(3, 3, 16, 16), torch.tensor([5.0, 300.0, 900.0])
    together = small(x, step)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], small(x[i : i + 1], step[i : i + 1]))


# ------------------------------------------------------------------------------------------- shape and size


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_number_of_parameters(photo):
    assert count(photo.network) == 7_128_172
    # Four attentions have scales of queries and of keys, of 32 channels each.
    assert count(photo_unet()) == 7_128_172 + 4 * 2 * 32


def test_the_default_network_is_the_one_in_the_package_with_queries_and_keys_normalised(photo):
    now = json.loads(json.dumps(describe_network(photo_unet())))
    assert now == {**describe_network(photo.network), "qk_norm": True}
    assert describe_network(load_prior("colours").network)["qk_norm"] is True


def test_grey_pictures():
    network = photo_unet((8, 8), image_channels=1)
    assert network.channels == 1
    assert network(torch.randn(1, 1, 8, 8), torch.zeros(1)).shape == (1, 1, 8, 8)


def test_the_prior_in_the_package_is_small(photo):
    size = (zoo.path("photo") / "model.safetensors").stat().st_size
    assert size <= 16 * 2**20
    assert size > 2 * count(photo.network)  # All of it is there, in float16 at least.
    assert {p.dtype for p in photo.network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "make",
    [
        lambda: photo_unet((8, 16), layers=2, image_channels=1, fold=4),
        lambda: FoldedUNet(plain_config(), fold=2, norm="group"),
        lambda: FoldedUNet(plain_config(), fold=1),
    ],
)
def test_a_description_builds_the_same_network(make):
    network = make().eval()
    again = build_network(json.loads(json.dumps(describe_network(network)))).eval()
    assert not torch.equal(network.unet.conv_in.weight, again.unet.conv_in.weight)
    again.load_state_dict(network.state_dict())
    x = torch.randn(1, network.channels, 16, 16)
    assert torch.equal(again(x, torch.tensor([5.0])), network(x, torch.tensor([5.0])))


def test_class_labels_reach_the_network():
    config = plain_config(num_class_embeds=3, resnet_time_scale_shift="scale_shift")
    network = seeded(lambda: FoldedUNet(config))
    x, step = torch.randn(2, 1, 8, 8), torch.full((2,), 50.0)
    a, b = (network(x, step, class_labels=torch.tensor(labels)) for labels in ([0, 1], [0, 2]))
    assert torch.equal(a[0], b[0])
    assert not torch.allclose(a[1], b[1])


def test_the_gradient_is_right(small):
    """Of the output with respect to the picture, against a difference in float64."""
    network = build_network(describe_network(small)).double()
    network.load_state_dict(small.state_dict())
    step = torch.tensor([200.0], dtype=torch.float64)
    x, direction, weight = torch.randn(3, 1, 3, 8, 8, dtype=torch.float64)

    def value(x):
        return (network(x, step) * weight).sum()

    (gradient,) = torch.autograd.grad(value(x.requires_grad_()), x)
    with torch.no_grad():
        difference = (value(x + 1e-4 * direction) - value(x - 1e-4 * direction)) / 2e-4
    assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=1e-5)


def test_pixel_shuffle_convention_is_torchs():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2), x)


def test_attention_is_where_it_is_cheap_and_begins_as_nothing():
    """A sixteenth of the side has few places; a quarter of a large picture's would cost more than all else."""
    from restore.networks.about import has_attention

    assert has_attention(photo_unet((8, 8, 8, 8)))
    assert not has_attention(photo_unet((8, 8)))
    assert not has_attention(photo_unet((8, 8, 8, 8), attention=False))
    network = seeded(lambda: photo_unet((8, 8), attention=True))
    plain = photo_unet((8, 8), attention=False)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if "attentions" not in k})
    x, step = torch.randn(2, 3, 16, 24), torch.tensor([3.0, 700.0])
    torch.testing.assert_close(network(x, step), plain(x, step))
    for name, parameter in network.named_parameters():
        if name.endswith("to_out.0.weight"):
            nn.init.normal_(parameter)
    assert float((network(x, step) - plain(x, step)).abs().max()) > 1e-3


def test_gradients_are_right_however_sure_attention_is():
    """With logits of 1e7, as a training may come to: fused attention had gradients that were wrong, then infinite."""
    # Queries and keys that are not normalised are as large as they are.
    network = FoldedUNet(photo_unet((16, 16, 32, 32)).config["config"])
    for module in network.unet.modules():
        if hasattr(module, "to_q"):
            torch.nn.init.normal_(module.to_out[0].weight, std=0.2)
            for layer in (module.to_q, module.to_k):
                layer.weight.data.mul_(3e4)
    x = torch.randn(2, 3, 64, 64)
    exact = copy.deepcopy(network).double()

    def gradient(net, x):
        x = x.clone().requires_grad_(True)
        return torch.autograd.grad(net(x, torch.tensor([3.0, 700.0])).square().sum(), x)[0]

    # The weights of attention are those of the largest logit here: float64 rounds to the same ones.
    error = gradient(network, x).double() - gradient(exact, x.double())
    assert error.norm() < 1e-3 * gradient(exact, x.double()).norm()


def attentive(seed=0, **changes):
    """A network whose attention does something, and whose queries and keys are as large as is said."""
    config = photo_unet((16, 16, 32, 32)).config
    network = seeded(lambda: FoldedUNet(**{**config, **changes}), seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in attentions(network):
            nn.init.normal_(module.to_out[0].weight, std=0.2)
    return network


def attentions(network):
    return [module for module in network.modules() if hasattr(module, "to_q")]


def largest_logit(network, x):
    """The largest logit of any attention."""
    found = []

    def scores(module, query, key, mask=None):
        found.append(float((query @ key.transpose(1, 2) * module.scale).abs().max()))
        return (query @ key.transpose(1, 2) * module.scale).softmax(-1)

    for module in attentions(network):
        module.get_attention_scores = scores.__get__(module)
    network(x, torch.tensor([500.0]))
    return max(found)


def test_normalised_queries_and_keys_cannot_grow():
    """Without it, the middle of the U-Net attends to features of any size: a training had come to logits of 3e5."""
    x = torch.randn(1, 3, 64, 64)
    width = attentions(attentive())[0].inner_dim // attentions(attentive())[0].heads
    normal, free = attentive(), attentive(qk_norm=False)
    for network in (normal, free):
        for module in attentions(network):
            for layer in (module.to_q, module.to_k):
                layer.weight.data.mul_(100)
    with torch.no_grad():
        assert largest_logit(free, x) > 1e3
        assert largest_logit(normal, x) <= width**0.5 * 1.001


def test_the_size_of_queries_and_keys_is_learned_by_their_scales_alone():
    x, step = torch.randn(1, 3, 32, 48), torch.tensor([500.0])
    network = attentive()
    with torch.no_grad():
        before = network(x, step)
        for module in attentions(network):
            for layer in (module.to_q, module.to_k):
                layer.weight.mul_(30)
                layer.bias.mul_(30)
        torch.testing.assert_close(network(x, step), before, rtol=1e-4, atol=1e-5)
        for module in attentions(network):
            module.norm_q.weight.mul_(3)
        assert float((network(x, step) - before).abs().max()) > 1e-3


def test_queries_and_keys_are_not_normalised_beside_groups():
    with pytest.raises(ValueError, match="qk_norm is for networks that normalise pixels"):
        FoldedUNet(plain_config(), norm="group", qk_norm=True)


@pytest.mark.parametrize("qk_norm", [True, False])
def test_attention_is_precise_under_autocast(qk_norm):
    """With bfloat16 for the logits, a training of colours diverged: they had grown, and were rounded."""
    module = attentions(attentive(qk_norm=qk_norm))[0].requires_grad_(True)
    for layer in (module.to_q, module.to_k):
        layer.weight.data.mul_(20)
    x = torch.randn(2, module.to_q.in_features, 4, 6)

    def run(enabled):
        leaf = x.clone().requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = module(leaf)
        return out, *torch.autograd.grad(out.square().sum(), [leaf, module.to_q.weight, module.to_k.weight])

    for one, other in zip(run(True), run(False), strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("qk_norm", [True, False])
def test_attention_is_that_of_diffusers(qk_norm):
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    for module in attentions(attentive(qk_norm=qk_norm)):
        if qk_norm:
            nn.init.uniform_(module.norm_q.weight, 0.5, 2)
            nn.init.uniform_(module.norm_k.weight, 0.5, 2)
        x = torch.randn(2, module.to_q.in_features, 4, 6)
        ours = module(x)
        # Of diffusers' two processors, the plain one passes over the normalisation of queries and keys.
        module.set_processor(AttnProcessor2_0() if qk_norm else AttnProcessor())
        torch.testing.assert_close(ours, module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("qk_norm", [True, False])
def test_networks_with_the_normalisation_and_from_before_it_are_read_as_they_were(tmp_path, qk_norm):
    old = attentive(qk_norm=qk_norm)
    assert describe_network(old).get("qk_norm", False) is qk_norm  # None is said where there was none.
    for module in attentions(old) if qk_norm else []:
        nn.init.uniform_(module.norm_q.weight, 0.5, 2)
        nn.init.uniform_(module.norm_k.weight, 0.5, 2)
    Prior(old, Schedule.linear()).save(tmp_path)
    again = load_prior(tmp_path).network
    assert all((module.norm_q is not None) is qk_norm for module in attentions(again))
    x, step = torch.randn(1, 3, 32, 32), torch.tensor([500.0])
    with torch.no_grad():
        assert torch.equal(again(x, step), old(x, step))


def test_scales_are_1_where_weights_lack_them_and_are_kept_where_not():
    old, new = attentive(qk_norm=False), attentive(seed=1)
    new.load_state_dict(with_scales(old.state_dict(), new))
    for module in attentions(new):
        assert module.norm_q.weight.eq(1).all()
        assert module.norm_k.weight.eq(1).all()
        module.norm_k.weight.fill_(2)
    last = attentive(seed=2)
    last.load_state_dict(with_scales(new.state_dict(), last))
    assert all(module.norm_k.weight.eq(2).all() for module in attentions(last))
