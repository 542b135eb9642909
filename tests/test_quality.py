"""What a prior was trained on, and that a user hears, once, where a picture is something else."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from test_checkpoint import noise, small_prior, unet
from torch import nn

import restore
from restore.networks import photo_unet
from restore.prior import Prior
from restore.quality import QualityWarning, judge
from restore.schedule import Schedule

FAST = {"steps": 1, "seed": 0, "progress": False}


def trained_at(size, **options):
    return Prior(unet(sample_size=size), Schedule.linear(), **{"config": {"name": "p"}, **options})


def said(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [str(w.message) for w in caught if issubclass(w.category, QualityWarning)]


# ------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("network", "config", "expected"),
    [
        (lambda: unet(sample_size=16), {"trained_size": 32}, (32, 32)),
        (lambda: unet(sample_size=None), {"trained_size": [32, 64]}, (32, 64)),
        (lambda: nn.Conv2d(3, 3, 1), {"trained_size": 8}, (8, 8)),
    ],
)
def test_what_is_written_down_of_its_size_holds(network, config, expected):
    assert Prior(network(), Schedule.linear(), config=config).trained_size == expected


def test_the_size_that_was_written_down_is_saved_and_decides_the_tiles(tmp_path):
    prior = Prior(unet(sample_size=None), Schedule.linear(), config={"trained_size": 32})
    again = restore.load_prior(prior.save(tmp_path))
    assert (again.trained_size, again.tile) == ((32, 32), 32)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((16, 16), 0), ((16, 24), 0), ((11, 16), 0), ((16, 25), 1), ((10, 16), 1), ((64, 64), 1)],
)
def test_a_picture_of_quite_another_size_is_warned_of_once(size, expected):
    prior = trained_at(16)
    copies = [prior, prior.with_autocast("bfloat16"), prior.with_dtype("bfloat16")]
    messages = said(lambda: [judge(other, *size) for other in copies])
    assert len(messages) == expected
    if expected:
        assert f"trained on pictures of 16 x 16, this one is {size[0]} x {size[1]}: it sees" in messages[0]
        # Another size is another matter.
        assert len(said(lambda: [judge(prior, 5, 5), judge(prior, *size), judge(prior, 5, 5)])) == 1


def test_networks_of_convolutions_take_any_size():
    assert said(lambda: judge(small_prior(), 600, 64)) == []


def test_solve_and_sample_say_it_before_the_first_call():
    prior, sizes = trained_at(16), []
    prior.network.register_forward_pre_hook(lambda _, args: sizes.append(max(args[0].shape[-2:])))
    with pytest.warns(
        QualityWarning, match=r"'p' was trained on .*16 x 16, this one is 19 x 31: it sees tiles"
    ) as w:
        assert restore.sample(prior, (1, 3, 19, 31), **FAST).shape == (1, 3, 19, 31)
    assert [warning.filename for warning in w] == [__file__]  # Once, for all tiles, and it points here.
    assert max(sizes) == 16
    y, mask = torch.ones(1, 3, 9, 12), restore.Mask(torch.ones(9, 12))
    with pytest.warns(QualityWarning, match="this one is 9 x 12: it sees the whole at a size it does not"):
        restore.solve(y, mask, "ddnm", prior=prior, **FAST)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restore.solve(y, mask, "ddnm", prior=prior, **{**FAST, "steps": 3})
        restore.sample(prior, (1, 3, 15, 16), **FAST)
    sizes.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(QualityWarning):
            restore.sample(prior, (1, 3, 40, 40), **FAST)
    assert sizes == []


DEEP = {
    "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
}


def test_a_256_model_on_another_size(tmp_path):
    """300 x 500: in tiles of its own size, and with a warning; in one piece, padded and cropped again."""
    unet(sample_size=256, block_out_channels=(8, 8, 16), norm_num_groups=4, **DEEP).save_pretrained(tmp_path)
    prior = restore.load_prior(tmp_path)
    assert (prior.trained_size, prior.tile, prior.multiple) == ((256, 256), 256, 4)
    with pytest.warns(QualityWarning, match="256 x 256, this one is 299 x 501: it sees tiles of 256"):
        assert restore.sample(prior, (1, 3, 299, 501), **FAST).shape == (1, 3, 299, 501)
    x = noise(1, 3, 299, 501)
    out = Prior(prior.network, prior.schedule, tile=512).epsilon(x, 0.5)
    padded = nn.functional.pad(x, (0, 3, 0, 1), mode="reflect")
    with torch.no_grad():
        expected = prior.network(padded, 499).sample[..., :299, :501]
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------------- subjects


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("ffhq_10m", "faces"),
        ("ddpm-celebahq-256", "faces"),
        ("ddpm-ema-church-256", "churches"),
        ("ddpm-cat-256", "cats"),
        ("ddpm-bedroom-256", "bedrooms"),
        ("ddpm-cifar10-32", None),
        ("256x256_diffusion_uncond", None),
        ("concatenated", None),
    ],
)
def test_a_model_of_one_kind_of_picture_says_so(tmp_path, name, domain):
    unet().save_pretrained(tmp_path / name)
    prior = restore.load_prior(tmp_path / name)
    assert prior.config.get("domain") == domain
    messages = said(lambda: [restore.sample(prior, (1, 3, 8, 8), **FAST) for _ in range(2)])
    assert messages == (
        [f"the prior {name!r} knows {domain} only: what it adds to other pictures will look like {domain}"]
        if domain
        else []
    )
    again = restore.load_prior(prior.save(tmp_path / "ours"))
    assert again.config.get("domain") == domain


def test_a_domain_that_was_written_down_stays(tmp_path):
    prior = Prior(photo_unet((8, 8)), Schedule.linear(), config={"name": "cat", "domain": "lions"})
    assert restore.load_prior(prior.save(tmp_path)).config["domain"] == "lions"
    assert json.loads((tmp_path / "config.json").read_text())["domain"] == "lions"


def test_photographs_are_of_everything():
    assert said(lambda: judge(small_prior(config={"domain": "photographs"}), 64, 64)) == []


# ------------------------------------------------------------------------------------------- classes


def test_a_network_of_classes_without_labels_is_refused_before_its_first_call():
    prior = Prior(unet(num_class_embeds=4), Schedule.linear(), config={"name": "classes"})
    calls = []
    prior.network.register_forward_pre_hook(lambda *_: calls.append(1))
    y, mask = torch.ones(2, 3, 8, 8), restore.Mask(torch.ones(8, 8))
    message = r"'classes' is conditional on a class and has no labels: say prior.with_labels\(3\)"
    with pytest.raises(ValueError, match=message):
        restore.solve(y, mask, "ddnm", prior=prior, **FAST)
    with pytest.raises(ValueError, match=message):
        restore.sample(prior, (2, 3, 8, 8), **FAST)
    with pytest.raises(ValueError, match="3 class labels for 2 images"):
        restore.sample(prior, (2, 3, 8, 8), class_labels=[1, 2, 3], **FAST)
    assert calls == []
    restore.solve(y, mask, "ddnm", prior=prior.with_labels([1, 3]), **FAST)
    restore.sample(prior, (2, 3, 8, 8), class_labels=2, **FAST)
    assert calls


@pytest.mark.parametrize("run", ["solve", "sample"])
def test_more_steps_than_there_are_levels_are_warned_of_once(run):
    prior = Prior(small_prior().network, Schedule.linear(4))
    y, mask = torch.ones(1, 3, 9, 12), restore.Mask(torch.ones(9, 12))

    def take(steps):
        options = {"steps": steps, "seed": 0, "progress": False}
        if run == "sample":
            restore.sample(prior, (1, 3, 9, 12), **options)
        else:
            restore.solve(y, mask, "ddnm", prior=prior, **options)

    assert said(lambda: [take(n) for n in (3, 4)]) == []
    messages = said(lambda: [take(n) for n in (5, 5)])
    assert len(messages) == 1
    assert "trained at 4 levels of noise, and steps=5 asks for more" in messages[0]
    assert "Take at most 4" in messages[0]
