"""Files of guided-diffusion: what they describe is inferred, and computed exactly."""

from __future__ import annotations

import math
import warnings

import adm
import pytest
import torch

import restore
from restore.checkpoint import guided_diffusion as gd
from restore.networks import FoldedUNet
from restore.quality import QualityWarning
from restore.schedule import Schedule

CASES = {
    "as published": ({"width": 64, "multipliers": (1, 2), "blocks": 1, "attention": (2,)}, {}),
    "labels, three levels": (
        {"width": 64, "multipliers": (1, 1, 2), "blocks": 2, "attention": (2, 4), "classes": 7},
        {},
    ),
    "new order, no variance": (
        {"width": 64, "multipliers": (1, 2), "blocks": 2, "attention": (1, 2), "outputs": 3},
        {"legacy": False},
    ),
    "4 heads": ({"width": 32, "multipliers": (1, 2, 4), "blocks": 1, "attention": (2, 4)}, {"heads": 4}),
    "no attention on the way": ({"width": 64, "multipliers": (1, 2), "blocks": 1, "attention": ()}, {}),
    "single level, grey": (
        {"width": 64, "multipliers": (1,), "blocks": 2, "attention": (), "channels": 1, "outputs": 2},
        {},
    ),
    "convolutions resample, time is added": (
        {
            "width": 32,
            "multipliers": (1, 3),
            "blocks": 1,
            "attention": (2,),
            "updown": False,
            "scale_shift": False,
        },
        {"heads": 4},
    ),
}
TINY = {"width": 64, "multipliers": (1, 2), "blocks": 1, "attention": (2,)}


def build(state, heads=None, legacy=True):
    convention = gd.Convention(Schedule.linear(), heads, legacy)
    return gd.build(state, gd.layout_of(state, "file"), convention, "file").eval()


def run(network, x, t, y=None):
    with torch.no_grad():
        out = network(x, t, class_labels=y)
    return out if isinstance(out, torch.Tensor) else out.sample


def inputs(dtype, size=(16, 8), channels=3, classes=None):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, channels, *size, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.tensor([3.0, 711.0]), torch.tensor([1, 4]) if classes else None


@pytest.fixture
def quiet():
    """For files that are none of the known ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QualityWarning)
        yield


def save(state, path):
    torch.save(state, path)
    return path


# ------------------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize(("options", "convention"), CASES.values(), ids=CASES)
def test_the_network_is_the_same_function(options, convention, dtype, tolerance):
    state = {name: value.to(dtype) for name, value in adm.random_state(**options).items()}
    x, t, y = inputs(dtype, channels=options.get("channels", 3), classes=options.get("classes"))
    expected = adm.forward(state, x, t, y, **convention)
    torch.testing.assert_close(run(build(state, **convention), x, t, y), expected, rtol=0, atol=tolerance)
    assert float(expected.std()) > 0.1


def test_heads_and_order_matter():
    """Otherwise the test above would not see them."""
    state = adm.random_state(**TINY)
    x, t, _ = inputs(torch.float32)
    outputs = [
        run(build(state, **c), x, t)
        for c in ({}, {"heads": 4}, {"legacy": False}, {"heads": 4, "legacy": False})
    ]
    for i, one in enumerate(outputs):
        for other in outputs[:i]:
            assert float((one - other).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("options", "tensors", "parameters"),
    [
        (adm.FFHQ, 362, 93_563_910),
        (adm.IMAGENET, 566, 552_814_086),
        ({**adm.IMAGENET, "classes": 1000}, 567, 553_838_086),
    ],
    ids=["ffhq_10m", "256x256_diffusion_uncond", "256x256_diffusion"],
)
def test_the_published_sizes(options, tensors, parameters):
    shapes = adm.shapes(**options)
    assert (len(shapes), sum(math.prod(s) for s in shapes.values())) == (tensors, parameters)
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
        network = build(state)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.slow
@pytest.mark.parametrize("options", [adm.FFHQ, {**adm.IMAGENET, "classes": 1000}], ids=["ffhq", "imagenet"])
def test_the_published_sizes_compute_the_same_function(options):
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        state = {name: value.to(dtype) for name, value in adm.random_state(**options).items()}
        x, t, y = inputs(dtype, (32, 64), classes=options.get("classes"))
        expected = adm.forward(state, x, t, y)
        network = build(state)
        del state
        torch.testing.assert_close(run(network, x, t, y), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("options", "convention"), CASES.values(), ids=CASES)
def test_the_reference_network_agrees(options, convention, monkeypatch):
    """Guided-diffusion's own network, as the package azula carries it."""
    unet = pytest.importorskip("azula.plugins.adm._src.unet")
    reference = unet.UNetModel(
        image_size=32,
        in_channels=options.get("channels", 3),
        model_channels=options["width"],
        out_channels=options.get("outputs", 6),
        num_res_blocks=options["blocks"],
        attention_resolutions=options["attention"],
        channel_mult=options["multipliers"],
        num_classes=options.get("classes"),
        num_heads=convention.get("heads", 1),
        num_head_channels=-1 if "heads" in convention else 64,
        use_scale_shift_norm=options.get("scale_shift", True),
        resblock_updown=options.get("updown", True),
        use_new_attention_order=not convention.get("legacy", True),
    ).eval()
    state = adm.random_state(**options)
    reference.load_state_dict(state)
    x, t, y = inputs(torch.float32, channels=options.get("channels", 3), classes=options.get("classes"))
    with torch.no_grad():
        expected = reference(x, t, y)
    torch.testing.assert_close(run(build(state, **convention), x, t, y), expected, rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------- as a prior


def test_a_file_becomes_a_prior(tmp_path, quiet):
    state = adm.random_state(**TINY)
    prior = restore.load_prior(save(state, tmp_path / "mine.pt"))
    assert (prior.name, prior.prediction, prior.channels, prior.multiple) == ("mine", "epsilon", 3, 2)
    assert prior.value_range == (-1.0, 1.0)
    assert not any(p.requires_grad for p in prior.network.parameters())
    assert prior.schedule == Schedule.linear()
    x, _, _ = inputs(torch.float32)
    for k in (0, 250, 999):  # The network is told the number of the step, from 0.
        expected = adm.forward(state, x, torch.full((2,), float(k)))[:, :3]
        torch.testing.assert_close(prior.epsilon(x, (k + 1) / 1000), expected, rtol=1e-3, atol=1e-3)


def test_labels(tmp_path, quiet):
    state = adm.random_state(**TINY, classes=5)
    prior = restore.load_prior(save(state, tmp_path / "c.pt"))
    x, _, y = inputs(torch.float32, classes=5)
    expected = adm.forward(state, x, torch.full((2,), 299.0), y)[:, :3]
    torch.testing.assert_close(prior.with_labels(y).epsilon(x, 0.3), expected, rtol=1e-3, atol=1e-3)


def test_the_averaged_weights_of_a_trainers_file(tmp_path, quiet):
    ema, now = adm.random_state(1, **TINY), adm.random_state(2, **TINY)
    prior = restore.load_prior(save({"model": now, "ema": ema, "step": 3}, tmp_path / "t.pt"))
    x, t, _ = inputs(torch.float32)
    torch.testing.assert_close(run(prior.network, x, t), adm.forward(ema, x, t), rtol=0, atol=1e-5)


def test_half_precision_is_loaded_in_float32(tmp_path, quiet):
    state = {name: value.half() for name, value in adm.random_state(**TINY).items()}
    prior = restore.load_prior(save(state, tmp_path / "h.pt"))
    assert {p.dtype for p in prior.network.parameters()} == {torch.float32}


@pytest.mark.parametrize("heads", [None, 4])
def test_it_is_saved_in_our_format(tmp_path, heads):
    state = adm.random_state(**TINY)
    prior = restore.Prior(build(state, heads=heads), Schedule.cosine(), channels=3)
    assert isinstance(prior.network, FoldedUNet) == (heads is not None)
    again = restore.load_prior(prior.save(tmp_path))
    x, _, _ = inputs(torch.float32)
    assert torch.equal(again(x, 0.4), prior(x, 0.4))


def described(options):
    """The layout of a full-size file, and by what is known of it the prior that it would be."""
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in adm.shapes(**options).items()}
    return gd.layout_of(state, "file")


@pytest.mark.parametrize(
    ("options", "schedule", "heads", "legacy", "size"),
    [
        (
            {"width": 192, "multipliers": (1, 2, 3, 4), "blocks": 3, "attention": (2, 4, 8), "classes": 1000},
            Schedule.cosine(),
            None,
            False,
            64,
        ),
        (
            {
                "width": 256,
                "multipliers": (1, 1, 2, 3, 4),
                "blocks": 2,
                "attention": (4, 8, 16),
                "classes": 1000,
            },
            Schedule.linear(),
            4,
            True,
            128,
        ),
        (adm.IMAGENET, Schedule.linear(), None, True, 256),
        (adm.FFHQ, Schedule.linear(), None, True, 256),
    ],
    ids=["64x64_diffusion", "128x128_diffusion", "256x256_diffusion_uncond", "ffhq_10m"],
)
def test_what_is_known_of_the_published_models(options, schedule, heads, legacy, size):
    layout = described(options)
    assert layout == gd.Layout(
        channels=3,
        outputs=6,
        width=options["width"],
        multipliers=options["multipliers"],
        blocks=options["blocks"],
        attention=tuple(2**i in options["attention"] for i in range(len(options["multipliers"]))),
        resampling_blocks=True,
        scale_shift=True,
        classes=options.get("classes"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convention = gd.convention_of(layout, "file", None)
    assert (convention.schedule, convention.heads, convention.legacy_order) == (schedule, heads, legacy)
    assert gd.unet_config(layout)["sample_size"] == size


def test_an_unknown_model_says_what_is_assumed(tmp_path):
    path = save(adm.random_state(**TINY), tmp_path / "own.pt")
    with pytest.warns(QualityWarning, match=r"'own.pt' is none of the known models .* linear one is taken"):
        restore.load_prior(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior = restore.load_prior(path, schedule=Schedule.cosine(500))
    assert prior.schedule == Schedule.cosine(500)


# ------------------------------------------------------------------------------------------- the variance


@pytest.mark.parametrize("schedule", [Schedule.linear(), Schedule.cosine(40)], ids=repr)
def test_the_learned_variance(schedule):
    """Between the step's whole noise and what of it remains when x_0 is known, geometrically."""
    state = adm.random_state(**TINY)
    prior = restore.Prior(build(state), schedule, channels=3)
    x, _, _ = inputs(torch.float32)
    steps = schedule.steps
    bars = [1.0] + [schedule(k / steps)[0] ** 2 for k in range(1, steps + 1)]
    for k in (1, 2, steps // 2, steps):
        beta = 1 - bars[k] / bars[k - 1]
        j = max(k, 2)
        rest = (1 - bars[j] / bars[j - 1]) * (1 - bars[j - 1]) / (1 - bars[j])
        share = (adm.forward(state, x, torch.full((2,), k - 1.0))[:, 3:] + 1) / 2
        expected = torch.exp(share * math.log(beta) + (1 - share) * math.log(rest))
        torch.testing.assert_close(prior.variance(x, k / steps), expected, rtol=1e-3, atol=1e-12)
    both = prior.variance(x, torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(both[:1], prior.variance(x[:1], 0.5))
    torch.testing.assert_close(both[1:], prior.variance(x[1:], 1.0))
    assert torch.equal(prior(x, 0.5), restore.Prior(build(state), schedule, channels=3)(x, 0.5))


def test_a_variance_that_was_not_learned_is_refused():
    state = adm.random_state(**TINY, outputs=3)
    prior = restore.Prior(build(state), Schedule.linear(), config={"name": "plain"})
    x, _, _ = inputs(torch.float32)
    with pytest.raises(ValueError, match="'plain' predicts no variance"):
        prior.variance(x, 0.5)
    prior = restore.Prior(build(adm.random_state(**TINY)), Schedule.linear())
    with pytest.raises(ValueError, match="a step goes from a time t above 0 down to s"):
        prior.variance(x, 0.0)


# ------------------------------------------------------------------------------------------- damage


def broken(change):
    state = adm.random_state(**TINY)
    change(state)
    return state


DAMAGE = {
    "missing": (
        lambda s: s.pop("middle_block.1.qkv.bias"),
        r"1 missing tensors \(first: middle_block.1.qkv.bias\)",
    ),
    "no end": (lambda s: s.pop("out.2.weight"), "out.2.weight is missing"),
    "unknown": (
        lambda s: s.update({"middle_block.3.a": torch.zeros(1)}),
        r"unknown tensors \(first: middle_block.3.a",
    ),
    "other shape": (
        lambda s: s.update({"input_blocks.1.0.in_layers.2.bias": torch.zeros(7)}),
        r"input_blocks.1.0.in_layers.2.bias is \(7,\), expected \(64,\)",
    ),
    "other shape of q, k, v": (
        lambda s: s.update({"middle_block.1.qkv.weight": torch.zeros(128, 128, 1)}),
        r"middle_block.1.qkv.weight is \(128, 128, 1\), expected \(384, 128, 1\)",
    ),
    "a lost block": (
        lambda s: [s.pop(n) for n in list(s) if n.startswith("output_blocks.2.")],
        "4 input blocks and 3 output blocks",
    ),
    "text": (
        lambda s: s.update({"input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(1, 1)}),
        "conditioned on text",
    ),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(tmp_path, change, message, quiet):
    path = save(broken(change), tmp_path / "broken.pt")
    with pytest.raises(ValueError, match=message) as error:
        restore.load_prior(path)
    assert str(path) in str(error.value)


def test_the_512_model_is_refused(tmp_path):
    """Its first multiplier is a half: the time's features are of another width than the first level."""
    state = adm.random_state(width=32, multipliers=(1, 2), blocks=1, attention=())
    state["time_embed.0.weight"] = torch.zeros(128, 64)
    with pytest.raises(ValueError, match=r"model channels of 64 and levels of \[32, 64\].*512 x 512"):
        restore.load_prior(save(state, tmp_path / "512.pt"))
