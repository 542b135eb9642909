"""What a network costs: the same estimates and gradients from half the weights, fewer activations, compiled code."""

from __future__ import annotations

import copy
import re
import weakref
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from test_checkpoint import noise, small_prior, unet
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import restore
from restore import memory
from restore.networks import FoldedUNet, RMSUNet, photo_unet
from restore.prior import Prior
from restore.schedule import Schedule


def adm(**changes):
    """The architecture of guided-diffusion, tiny."""
    return unet(
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        layers_per_block=2,
        dropout=0.5,
        out_channels=6,
        **changes,
    )


def folded_with_attention():
    torch.manual_seed(0)
    config = {k: v for k, v in unet(in_channels=12, out_channels=12).config.items() if not k.startswith("_")}
    return FoldedUNet(config, norm="pixel")


def of_lucidrains():
    """With memory per picture that is large beside what is kept of the time."""
    level = {"full": False, "heads": 2, "width": 8, "memory": 4}
    return RMSUNet(8, (8, 8, 16), [level, {**level, "full": True}])


NETWORKS = {
    "plain": unet,
    "adm": adm,
    "photo": lambda: photo_unet((8, 16)),
    "folded": folded_with_attention,
    "lucidrains": of_lucidrains,
}


def prior_of(name):
    torch.manual_seed(0)
    return Prior(NETWORKS[name](), Schedule.linear(), tile=64)


def gradient(prior, x, t=0.4):
    """An estimate, and the gradient of a misfit, as DPS takes it."""
    leaf = x.clone().requires_grad_(True)
    x_hat = prior(leaf, t)
    (slope,) = torch.autograd.grad(torch.linalg.vector_norm(x_hat - 0.3), leaf)
    return x_hat.detach(), slope


def kept_for_gradient(prior, x):
    """Bytes that are kept between forward and backward, the weights left out: each memory counted once."""
    weights = {p.untyped_storage().data_ptr() for p in prior.network.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # Held, so that no other takes its address.
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        prior(x.clone().requires_grad_(True), 0.4)
    return sum(storage.nbytes() for storage in kept.values())


# ------------------------------------------------------------------------------------------- checkpointing


@pytest.mark.parametrize("name", NETWORKS)
def test_recomputed_activations_give_the_same_gradient(name):
    prior = prior_of(name)
    x = noise(2, 3, 24, 16)
    for t in (0.05, 0.9):
        expected, slope = gradient(prior, x, t)
        x_hat, other = gradient(prior.with_checkpointing(), x, t)
        torch.testing.assert_close(x_hat, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(other, slope, rtol=1e-6, atol=1e-6)
        assert float(slope.abs().max()) > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_less_is_kept_for_a_gradient(name):
    prior, x = prior_of(name), noise(1, 3, 32, 32)
    plain, less = (kept_for_gradient(p, x) for p in (prior, prior.with_checkpointing()))
    assert less < 0.4 * plain
    assert kept_for_gradient(prior.with_checkpointing().with_checkpointing(), x) == less
    # It is in proportion to the pictures, up to what is kept of the time.
    assert kept_for_gradient(prior, torch.cat([x, x])) == pytest.approx(2 * plain, rel=0.01)


def test_only_inputs_of_blocks_are_kept():
    """Between its blocks a network keeps what it would keep without blocks, and one input for each block."""
    prior, x = prior_of("adm"), noise(1, 3, 16, 16)
    inputs = []
    for module in prior.network.modules():
        if type(module).__name__ in ("ResnetBlock2D", "Attention"):
            module.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    less = kept_for_gradient(prior.with_checkpointing(), x)
    distinct = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in inputs}
    outside = 3 * 8 * 16 * 16 * 4  # norm, activation and convolution at the end
    assert sum(distinct.values()) < less < sum(distinct.values()) + outside + 8 * 1024


def test_less_than_diffusers_keeps():
    x = noise(1, 3, 32, 32)
    theirs = prior_of("adm")
    theirs.network.enable_gradient_checkpointing()
    assert kept_for_gradient(prior_of("adm").with_checkpointing(), x) < 0.7 * kept_for_gradient(theirs, x)


def test_checkpointing_goes_with_tiles_and_labels():
    prior = Prior(unet(num_class_embeds=4), Schedule.linear(), tile=16, overlap=4).with_labels([1, 3])
    x = noise(2, 3, 24, 20)
    expected, slope = gradient(prior, x)
    x_hat, other = gradient(prior.with_checkpointing(), x)
    torch.testing.assert_close(x_hat, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(other, slope, rtol=1e-6, atol=1e-6)


def test_nothing_is_computed_twice_without_a_gradient():
    prior = prior_of("photo").with_checkpointing()
    calls = []
    prior.network.unet.conv_in.register_forward_hook(lambda *_: calls.append("in"))
    block = prior.network.unet.mid_block.resnets[0]
    block.conv1.register_forward_hook(lambda *_: calls.append("block"))
    with torch.inference_mode():
        prior(noise(1, 3, 8, 8), 0.5)
    assert calls == ["in", "block"]
    gradient(prior, noise(1, 3, 8, 8))
    assert calls == ["in", "block", "in", "block", "block"]


def test_a_network_of_other_blocks_is_refused():
    with pytest.raises(
        TypeError,
        match=r"a Conv2d has no residual blocks of diffusers or of RMSUNet.*leave checkpointing=True",
    ):
        Prior(nn.Conv2d(3, 3, 1), Schedule.linear()).with_checkpointing()


def test_dps_on_a_checkpointed_prior():
    prior = prior_of("photo")
    kept = torch.ones(12, 12)
    kept[4:8, 4:8] = 0
    y = restore.Mask(kept)(torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)))
    draws = [
        restore.solve(y, restore.Mask(kept), "dps", prior=p, steps=4, seed=0, progress=False)
        for p in (prior, prior.with_checkpointing())
    ]
    torch.testing.assert_close(*draws, rtol=0, atol=1e-5)


class Alive(TorchDispatchMode):
    """Adds up the memory of all tensors that are alive, on any device, ``meta`` too; the weights left out."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.gone, storage.nbytes())
        return out

    def gone(self, size):
        self.now -= size


def peak_of_gradient(network, count, size):
    """Bytes alive at the worst moment of a gradient, in float32, from shapes alone."""
    with Alive() as alive:
        x = torch.zeros(count, 3, size, size, device="meta", requires_grad=True)
        out = network(x, torch.zeros(count, device="meta")).sample[:, :3]
        torch.autograd.grad(out.square().sum(), x)
    return alive.peak


def test_the_peak_of_the_imagenet_model_is_what_the_guide_says():
    """Guided-diffusion's 553 M parameters, without their values: on the device that has shapes alone."""
    with torch.device("meta"):
        network = UNet2DModel(
            in_channels=3,
            out_channels=6,
            block_out_channels=[256, 256, 512, 512, 1024, 1024],
            layers_per_block=2,
            down_block_types=["ResnetDownsampleBlock2D"] * 3 + ["AttnDownBlock2D"] * 3,
            up_block_types=["AttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"] * 3,
            downsample_type="resnet",
            upsample_type="resnet",
            resnet_time_scale_shift="scale_shift",
            attention_head_dim=64,
            attn_norm_num_groups=32,
            flip_sin_to_cos=True,
            freq_shift=0,
        )
    network.eval().requires_grad_(False)
    assert sum(p.numel() for p in network.parameters()) == 552_814_086
    less = memory.checkpointed(network)
    guide = (Path(__file__).parents[1] / "docs" / "guide" / "own-prior.rst").read_text()
    for words, count, size in (("one, 256", 1, 256), ("three, 256", 3, 256), ("one, 512", 1, 512)):
        row = guide[guide.index(f"* - {words}") :].split("\n")[1:3]
        for line, other in zip(row, (network, less), strict=True):
            assert line.strip() == f"- {peak_of_gradient(other, count, size) / 2**30:.1f} GiB"


def test_the_guide_says_which_methods_keep_activations():
    guide = (Path(__file__).parents[1] / "docs" / "guide" / "own-prior.rst").read_text()
    for words, gradient in (("yes: activations", True), ("no: little", False)):
        row = guide[guide.index(f"* - {words}") :].split("\n")[1]
        assert re.findall(r"``(\w+)``", row) == [m.name for m in restore.methods() if m.gradient == gradient]


# ------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_half_the_weights_give_nearly_the_same_estimate(name, dtype):
    prior, x = prior_of(name), noise(2, 3, 16, 16)
    half = prior.with_dtype(dtype)
    assert {p.dtype for p in half.network.parameters()} == {memory.precision(dtype)}
    assert {p.dtype for p in prior.network.parameters()} == {torch.float32}
    expected, slope = gradient(prior, x)
    x_hat, other = gradient(half, x)
    assert (x_hat.dtype, other.dtype) == (torch.float32, torch.float32)
    assert 0 < float((x_hat - expected).norm() / expected.norm()) < 0.02
    assert 0 < float((other - slope).norm() / slope.norm()) < 0.1


def test_precisions_are_one_story():
    prior, x = prior_of("photo"), noise(1, 3, 8, 8)
    half = prior.with_dtype("bfloat16")
    # Back to float32 are the rounded weights, exactly.
    again = half.with_dtype("float32")
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, prior.network.state_dict()[name].bfloat16().float())
    # Autocast of one does not change the other, and float32 ends it.
    cast = prior.with_autocast("bfloat16")
    assert {p.dtype for p in cast.network.parameters()} == {torch.float32}
    assert not torch.equal(cast(x, 0.5), prior(x, 0.5))
    assert torch.equal(cast.with_autocast(torch.float32)(x, 0.5), prior(x, 0.5))
    mask = restore.Mask(torch.ones(8, 8))
    options = {"steps": 2, "seed": 0, "progress": False}
    draws = [
        restore.solve(torch.rand(1, 3, 8, 8).round(), mask, "ddnm", prior=p, **options, **more)
        for p, more in ((cast, {}), (half, {"dtype": "bfloat16"}))
    ]
    assert all(d.dtype == torch.float32 and bool(d.isfinite().all()) for d in draws)


@pytest.mark.parametrize("dtype", ["float64", "half", torch.int8, None, 16])
def test_no_other_precision(dtype):
    prior = prior_of("photo")
    for call in (prior.with_dtype, prior.with_autocast):
        with pytest.raises(ValueError, match="dtype must be 'float32', 'bfloat16' or 'float16', not"):
            call(dtype)


# ------------------------------------------------------------------------------------------- compiled


def test_a_compiled_prior_is_the_same_function():
    prior, x = prior_of("photo"), noise(2, 3, 16, 16)
    compiled = prior.compiled(backend="aot_eager")
    for p in (compiled, compiled.with_checkpointing(), compiled.with_dtype("float32")):
        torch._dynamo.reset()  # Else it would take the code that it has for the one before.
        frames = torch._dynamo.utils.counters["stats"]["calls_captured"]
        expected, slope = gradient(prior, x)
        x_hat, other = gradient(p, x)
        assert (
            torch._dynamo.utils.counters["stats"]["calls_captured"] > frames
        )  # It did go through the compiler.
        torch.testing.assert_close(x_hat, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(other, slope, rtol=1e-4, atol=1e-5)
    frames = torch._dynamo.utils.counters["stats"]["calls_captured"]
    gradient(prior, x)
    assert torch._dynamo.utils.counters["stats"]["calls_captured"] == frames  # The prior itself did not.


# ------------------------------------------------------------------------------------------- all of them


def test_load_prior_takes_all_of_them(tmp_path):
    folder = small_prior().save(tmp_path)
    prior = restore.load_prior(folder, dtype="bfloat16", checkpointing=True, compile=True)
    assert {p.dtype for p in prior.network.parameters()} == {torch.bfloat16}
    assert prior.backend == "inductor"
    assert isinstance(prior.network, FoldedUNet)
    plain = restore.load_prior(folder)
    assert {p.dtype for p in plain.network.parameters()} == {torch.float32}
    assert plain.backend is None
    x = noise(1, 3, 32, 32)
    less = kept_for_gradient(restore.load_prior(folder, checkpointing=True), x)
    assert less < 0.4 * kept_for_gradient(plain, x)
    with pytest.raises(ValueError, match="dtype must be"):
        restore.load_prior(tmp_path / "nowhere", dtype="int8")


@pytest.mark.parametrize("change", ["with_checkpointing", "compiled"])
def test_weights_are_shared_not_copied(change):
    prior = prior_of("adm")
    before = copy.deepcopy({k: v for k, v in vars(prior).items() if k != "network"})
    other = getattr(prior, change)()
    assert other is not prior
    assert other.network is not prior.network
    shared = zip(prior.network.parameters(), other.network.parameters(), strict=True)
    assert all(a is b for a, b in shared)
    assert {k: v for k, v in vars(prior).items() if k != "network"} == before
    assert not any("forward" in vars(m) or m._compiled_call_impl for m in prior.network.modules())


def test_buffers_are_converted_and_kept():
    class Buffered(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.ones(2))
            self.register_buffer("count", torch.ones(2, dtype=torch.long))
            self.register_buffer("hidden", torch.ones(2), persistent=False)

    network = Buffered()
    half = memory.in_dtype(network, torch.float16)
    assert (half.scale.dtype, half.count.dtype, half.hidden.dtype) == (
        torch.float16,
        torch.long,
        torch.float16,
    )
    assert network.scale.dtype == torch.float32
    assert list(half.state_dict()) == ["scale", "count"]


@pytest.mark.parametrize("device", ["nonsense", "cuda:x", "", None, 3.5])
def test_a_device_that_is_none(device):
    with pytest.raises(
        ValueError, match=r"device is 'cpu', 'cuda' or 'cuda:1', or whatever torch knows, not"
    ):
        restore.load_prior("nowhere", device=device)  # Said before anything is looked for.
    with pytest.raises(ValueError, match="or whatever torch knows, not"):
        small_prior().to(device)


def test_a_device_that_is_not_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device is 'cuda:1', but torch finds no GPU here: .*device='cpu'"):
        restore.load_prior("nowhere", device="cuda:1")
    elsewhere = "xpu" if not torch.xpu.is_available() else "mps"
    with pytest.raises(
        ValueError, match=rf"device is '{elsewhere}', which torch cannot use here \(.*device='cpu'"
    ):
        restore.load_prior("nowhere", device=elsewhere)


def test_what_is_not_the_default_is_shown():
    prior = small_prior(config={"name": "toy"})
    end = "0.0 M parameters, epsilon, Schedule.linear(steps=1000, beta_start=0.0001, beta_end=0.02)"
    assert repr(prior) == f"<Prior 'toy': {end}>"
    assert repr(prior.with_dtype("float32")) == repr(prior)
    assert (
        repr(prior.with_dtype("bfloat16").with_checkpointing())
        == f"<Prior 'toy': {end}, bfloat16, checkpointing>"
    )
    assert (
        repr(prior.with_checkpointing().compiled("eager")) == f"<Prior 'toy': {end}, checkpointing, compiled>"
    )
    assert repr(prior.with_autocast("float16")) == f"<Prior 'toy': {end}, autocast to float16>"


# ------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (lambda: unet(sample_size=256), ((256, 256), 256, 32)),
        (lambda: unet(sample_size=(64, 96)), ((64, 96), 96, 12)),
        (lambda: unet(sample_size=30, block_out_channels=(8, 8)), ((30, 30), 30, 4)),
        (lambda: unet(sample_size=4), ((4, 4), 6, 2)),  # Room for two overlaps.
        (lambda: unet(sample_size=None), (None, 512, 64)),
        (folded_with_attention, ((16, 16), 16, 4)),  # 8 folded pixels.
        (lambda: photo_unet((8, 8)), (None, 512, 64)),
        (
            lambda: unet(
                sample_size=64,
                down_block_types=["DownBlock2D"] * 2,
                up_block_types=["UpBlock2D"] * 2,
                add_attention=False,
            ),
            (None, 512, 64),
        ),
        (lambda: nn.Conv2d(3, 3, 1), (None, 512, 64)),
    ],
)
def test_attention_is_given_tiles_of_the_size_it_was_trained_on(network, expected):
    prior = Prior(network(), Schedule.linear())
    assert (prior.trained_size, prior.tile, prior.overlap) == expected


def test_tiles_of_attention_are_pictures_of_their_own():
    """A picture of two tiles: away from their overlap, each is what the network makes of it alone."""
    prior = Prior(unet(sample_size=32), Schedule.linear())
    x = noise(1, 3, 32, 50)
    out = prior(x, 0.4)
    left, right = prior(x[..., :32], 0.4), prior(x[..., 18:], 0.4)
    torch.testing.assert_close(out[..., :18], left[..., :18], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out[..., 32:], right[..., 14:], rtol=1e-4, atol=1e-5)
    between, bounds = out[..., 18:32], torch.stack([left[..., 18:], right[..., :14]])
    assert bool((between >= bounds.amin(0) - 1e-5).all())
    assert bool((between <= bounds.amax(0) + 1e-5).all())
    # A tile that holds all of it is the whole.
    whole = Prior(prior.network, Schedule.linear(), tile=64)
    assert torch.equal(whole(x[..., :32], 0.4), left)
    assert float((whole(x, 0.4) - out).abs().max()) > 1e-5
