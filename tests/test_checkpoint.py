"""Priors as files: what is saved comes back, what diffusers saved is understood, and damage is named."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torch import nn

import restore
from restore.checkpoint import (
    build_network,
    describe_network,
    save_prior,
    schedule_of_diffusers,
)
from restore.checkpoint.files import fill
from restore.files import write_atomically
from restore.networks import FoldedUNet, photo_unet
from restore.prior import Prior
from restore.schedule import Schedule

SIZE = 8


def unet(seed=0, **changes):
    torch.manual_seed(seed)
    config = {
        "sample_size": SIZE,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 8,
    }
    return UNet2DModel(**{**config, **changes}).eval()


def small_prior(seed=0, **options):
    torch.manual_seed(seed)
    return Prior(photo_unet((8, 16)), Schedule.linear(), **options)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def alpha_bars(schedule):
    alphas, sigmas = schedule(torch.arange(1, schedule.steps + 1, dtype=torch.float64) / schedule.steps)
    torch.testing.assert_close(alphas**2 + sigmas**2, torch.ones_like(alphas))
    return alphas**2


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def edit(path, **changes):
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in {**config, **changes}.items() if v != "(removed)"}))


@pytest.fixture
def ours(tmp_path):
    return save_prior(small_prior(), tmp_path / "ours")


@pytest.fixture(scope="module")
def saved_pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "tiny-ddpm"
    DDPMPipeline(unet(), DDPMScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture
def pipeline(saved_pipeline, tmp_path):
    return shutil.copytree(saved_pipeline, tmp_path / "tiny-ddpm")


# ------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "flow_prediction"])
def test_what_is_saved_comes_back_bit_for_bit(tmp_path, prediction):
    prior = small_prior(
        prediction=prediction,
        value_range=(0.0, 2.0),
        tile=128,
        overlap=16,
        config={"name": "mine", "licence": "CC0", "data": {"pictures": 3}},
    )
    prior.schedule = Schedule.cosine(500)
    folder = prior.save(tmp_path / "new" / "folder")
    assert {p.name for p in folder.iterdir()} == {"config.json", "model.safetensors"}
    again = restore.load_prior(folder)
    for name, value in prior.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value), name
    assert again.schedule == prior.schedule
    assert again.name == "mine"
    for attribute in ("prediction", "value_range", "tile", "overlap", "config", "channels", "multiple"):
        assert getattr(again, attribute) == getattr(prior, attribute), attribute
    x = noise(2, 3, 12, 9)
    assert torch.equal(again(x, 0.37), prior(x, 0.37))
    assert not again.network.training
    assert not any(p.requires_grad for p in again.network.parameters())


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule.linear(10),
        Schedule.scaled_linear(),
        Schedule.cosine(33, offset=0.01),
        Schedule.flow(7),
        Schedule.from_betas([0.1, 0.3, 1 / 3]),
    ],
    ids=repr,
)
def test_every_schedule_comes_back(tmp_path, schedule):
    prior = small_prior()
    prior.schedule = schedule
    assert restore.load_prior(prior.save(tmp_path)).schedule == schedule


def test_saving_twice_is_saving_once(tmp_path):
    folder = small_prior().save(tmp_path / "a")
    assert contents(restore.load_prior(folder).save(tmp_path / "b")) == contents(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stored_in_half_the_size(tmp_path, dtype):
    prior = small_prior()
    folder = save_prior(prior, tmp_path / "half", dtype=dtype)
    full = save_prior(prior, tmp_path / "full")
    assert {v.dtype for v in load_file(folder / "model.safetensors").values()} == {dtype}
    sizes = [(f / "model.safetensors").stat().st_size for f in (folder, full)]
    assert sizes[0] < 0.7 * sizes[1]
    again = restore.load_prior(folder)
    assert {p.dtype for p in again.network.parameters()} == {torch.float32}
    assert {p.dtype for p in prior.network.parameters()} == {torch.float32}
    tolerance = torch.finfo(dtype).eps
    for name, value in prior.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], value, rtol=tolerance, atol=1e-7)
    x = noise(1, 3, 8, 8)
    difference = (again.epsilon(x, 0.5) - prior.epsilon(x, 0.5)).norm() / prior.epsilon(x, 0.5).norm()
    assert 0 < float(difference) < 10 * tolerance


def test_saving_leaves_the_prior_as_it_is(tmp_path):
    prior = small_prior()
    prior.network.to(memory_format=torch.channels_last)
    before = {k: v.clone() for k, v in prior.network.state_dict().items()}
    save_prior(prior, tmp_path, dtype=torch.float16)
    assert all(torch.equal(v, before[k]) for k, v in prior.network.state_dict().items())


def test_a_diffusers_network_is_saved_in_our_format(tmp_path):
    prior = Prior(unet(), Schedule.linear(), "v_prediction", config={"name": "u"})
    again = restore.load_prior(prior.save(tmp_path))
    x = noise(1, 3, SIZE, SIZE)
    assert isinstance(again.network, UNet2DModel)
    assert torch.equal(again(x, 0.5), prior(x, 0.5))


@pytest.mark.parametrize("network", [nn.Conv2d(3, 3, 3), nn.Sequential(nn.Identity())], ids=repr)
def test_foreign_networks_are_not_saved(tmp_path, network):
    with pytest.raises(
        TypeError,
        match=f"{type(network).__name__} cannot be saved: .* only networks of restore.*save_file.*restore.Prior",
    ):
        Prior(network, Schedule.linear()).save(tmp_path / "new")
    assert not list(tmp_path.rglob("*.*"))


def test_unknown_network():
    with pytest.raises(
        ValueError, match="unknown network 'Transformer'; known are FoldedUNet, RMSUNet and UNet2DModel"
    ):
        build_network({"class": "Transformer"})


def test_the_description_is_plain_json():
    for network in (unet(), photo_unet((8, 8))):
        described = describe_network(network)
        assert json.loads(json.dumps(described)) == described


def test_a_prior_without_a_name_is_called_by_its_folder(tmp_path):
    prior = small_prior()
    assert (prior.name, "name" in prior.config) == ("prior", False)
    folder = prior.save(tmp_path / "trained-here")
    for source in (folder, folder / "model.safetensors"):
        again = restore.load_prior(source)
        assert (again.name, again.config) == ("trained-here", prior.config)


def test_the_prior_in_the_package_and_its_name():
    assert restore.load_prior("photo").name == "photo"


# ------------------------------------------------------------------------------------------- diffusers' folders

SCHEDULERS = {
    "default": {},
    "linear": {"beta_schedule": "linear", "beta_start": 1e-3, "beta_end": 0.05, "num_train_timesteps": 200},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "squaredcos_cap_v2": {"beta_schedule": "squaredcos_cap_v2"},
    "trained_betas": {"trained_betas": [0.01, 0.02, 0.05, 0.2]},
    "zero snr": {"rescale_betas_zero_snr": True},
    "zero snr, scaled": {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
}


@pytest.mark.parametrize("options", SCHEDULERS.values(), ids=SCHEDULERS)
def test_the_schedule_is_diffusers_own(options):
    scheduler = DDPMScheduler(**options)
    schedule = schedule_of_diffusers(dict(scheduler.config))
    expected = scheduler.alphas_cumprod.double()
    assert schedule.steps == len(expected)
    # diffusers multiplies in float32.
    torch.testing.assert_close(alpha_bars(schedule), expected, rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(1 - alpha_bars(schedule), 1 - expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["sigmoid", "laplace", "sqrt"])
def test_unknown_betas_are_refused(kind):
    with pytest.raises(ValueError, match=f"unknown beta_schedule '{kind}': known are linear, scaled_linear"):
        schedule_of_diffusers({"beta_schedule": kind})


@pytest.mark.parametrize("kind", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_pipeline_gives_what_diffusers_gives(tmp_path, kind, prediction):
    scheduler = DDPMScheduler(beta_schedule=kind, prediction_type=prediction, clip_sample=False)
    network = unet()
    DDPMPipeline(network, scheduler).save_pretrained(tmp_path / "p")
    prior = restore.load_prior(tmp_path / "p")
    assert (prior.prediction, prior.name, prior.channels) == (prediction, "p", 3)
    x = noise(2, 3, SIZE, SIZE)
    for k in (0, 1, 137, 500, 900):
        with torch.no_grad():
            output = network(x, k).sample
        expected = scheduler.step(output, k, x).pred_original_sample
        torch.testing.assert_close(prior(x, (k + 1) / 1000), expected, rtol=1e-3, atol=1e-4)
        if prediction == "epsilon":
            torch.testing.assert_close(prior.epsilon(x, (k + 1) / 1000), output, rtol=1e-3, atol=1e-3)


def test_a_ddim_pipeline(tmp_path):
    DDIMPipeline(unet(), DDIMScheduler(prediction_type="v_prediction")).save_pretrained(tmp_path / "p")
    assert restore.load_prior(tmp_path / "p").prediction == "v_prediction"


def test_a_bare_network_is_taken_for_a_ddpm(tmp_path):
    network = unet()
    network.save_pretrained(tmp_path / "bare")
    prior = restore.load_prior(str(tmp_path / "bare"))
    assert (prior.prediction, prior.name) == ("epsilon", "bare")
    assert prior.schedule == Schedule.linear()
    scheduler = DDPMScheduler(clip_sample=False)
    x = noise(1, 3, SIZE, SIZE)
    for k in (3, 400, 800):
        with torch.no_grad():
            output = network(x, k).sample
        expected = scheduler.step(output, k, x).pred_original_sample
        torch.testing.assert_close(prior(x, (k + 1) / 1000), expected, rtol=1e-3, atol=1e-4)


def test_half_precision_files_are_loaded_in_float32(tmp_path):
    unet().half().save_pretrained(tmp_path)
    prior = restore.load_prior(tmp_path)
    assert {p.dtype for p in prior.network.parameters()} == {torch.float32}


def test_a_pipeline_saved_in_our_format_is_the_same_prior(pipeline, tmp_path):
    prior = restore.load_prior(pipeline)
    again = restore.load_prior(prior.save(tmp_path / "ours"))
    assert again.name == "tiny-ddpm"
    for name, value in prior.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value), name
    x = noise(1, 3, SIZE, SIZE)
    torch.testing.assert_close(again(x, 0.4), prior(x, 0.4))


def test_class_conditional_networks(tmp_path):
    network = unet(num_class_embeds=4)
    network.save_pretrained(tmp_path)
    prior = restore.load_prior(tmp_path)
    x, labels = noise(3, 3, SIZE, SIZE), torch.tensor([2, 0, 3])
    with torch.no_grad():
        expected = network(x, 299, class_labels=labels).sample
        one = network(x, 299, class_labels=torch.tensor([1, 1, 1])).sample
    torch.testing.assert_close(prior.with_labels(labels).epsilon(x, 0.3), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(prior.with_labels([2, 0, 3]).epsilon(x, 0.3), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(prior.with_labels(1).epsilon(x, 0.3), one, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(one, expected, atol=1e-2)
    assert prior.class_labels is None
    again = restore.load_prior(prior.save(tmp_path / "ours"))
    torch.testing.assert_close(again.with_labels(labels)(x, 0.3), prior.with_labels(labels)(x, 0.3))


def test_a_learned_variance_is_left_aside(tmp_path):
    network = unet(out_channels=6)
    network.save_pretrained(tmp_path)
    prior = restore.load_prior(tmp_path)
    x = noise(1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = network(x, 299).sample[:, :3]
    assert prior.channels == 3
    torch.testing.assert_close(prior.epsilon(x, 0.3), expected, rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------------- what is refused


def pretend(folder, name, **parts):
    """The index of a pipeline of another kind."""
    folder.mkdir(parents=True, exist_ok=True)
    index = {"_class_name": name, "_diffusers_version": "0.42.1", **parts}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("LDMPipeline", {"unet": ["diffusers", "UNet2DModel"], "vqvae": ["diffusers", "VQModel"]}),
        (
            "StableDiffusionPipeline",
            {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "A"]},
        ),
        ("DiTPipeline", {"transformer": ["diffusers", "DiTTransformer2DModel"], "vae": ["diffusers", "A"]}),
        ("UnCLIPPipeline", {"unet": [None, None]}),
    ],
)
def test_other_pipelines_are_refused(tmp_path, name, parts):
    folder = pretend(tmp_path / "other", name, scheduler=["diffusers", "DDPMScheduler"], **parts)
    with pytest.raises(ValueError, match=f"is a {name}: only unconditional pixel-space pipelines") as error:
        restore.load_prior(folder)
    assert str(folder) in str(error.value)


def test_networks_of_another_kind_of_noise_are_refused(pipeline):
    """A variance-exploding network in a UNet2DModel: read as a DDPM it would be nonsense."""
    config = {"_class_name": "ScoreSdeVeScheduler", "num_train_timesteps": 2000, "sigma_max": 1348.0}
    (pipeline / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="ScoreSdeVeScheduler: only priors trained with a table of betas"):
        restore.load_prior(pipeline)


def test_unknown_prediction_type_is_refused(pipeline):
    edit(pipeline / "scheduler" / "scheduler_config.json", prediction_type="riddle")
    with pytest.raises(ValueError, match="unknown prediction_type 'riddle'"):
        restore.load_prior(pipeline)


def test_nothing_of_that_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no prior 'fotos': give one of the names \['photo'"):
        restore.load_prior("fotos")
    with pytest.raises(FileNotFoundError, match=r"no prior '.*nowhere'"):
        restore.load_prior(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../priors/photo", "photo/", "photo/../photo", "Photo.", ""])
def test_only_a_name_finds_a_prior_in_the_package(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        restore.load_prior(name)


def test_a_folder_that_is_no_prior(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(FileNotFoundError, match=r"neither config\.json nor model_index\.json") as error:
        restore.load_prior(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("config", [{}, {"_class_name": "AutoencoderKL"}])
def test_a_configuration_of_something_else(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="describes no prior") as error:
        restore.load_prior(tmp_path)
    assert repr(config.get("_class_name")) in str(error.value)


# ------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_cut_off_weights(ours, share):
    path = ours / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"model\.safetensors' is damaged or no safetensors file"):
        restore.load_prior(ours)


@pytest.mark.parametrize("data", [b"\xff" * 100, b"PK\x03\x04 a zip file as torch.save writes it", b"<html>"])
def test_weights_that_are_something_else(ours, data):
    (ours / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors' is damaged or no safetensors file"):
        restore.load_prior(ours)


def test_missing_unknown_and_misshapen_tensors_are_named(ours):
    path = ours / "model.safetensors"
    weights = load_file(path)
    del weights["unet.conv_in.bias"], weights["unet.mid_block.resnets.0.conv1.weight"]
    weights["unet.conv_out.bias"] = torch.zeros(5)
    weights["extra.tensor"] = torch.zeros(1)
    save_file(weights, path)
    with pytest.raises(ValueError, match="does not fit the network of its config") as error:
        restore.load_prior(ours)
    for part in (
        str(path),
        "2 missing tensors (first: unet.conv_in.bias)",
        "1 unknown tensors (first: extra.tensor)",
        "unet.conv_out.bias is (5,), expected (12,)",
    ):
        assert part in str(error.value)


def test_a_network_that_does_not_fit_stays_as_it_is(ours):
    network = photo_unet((8, 24))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit"):
        fill(network, load_file(ours / "model.safetensors"), "ours")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("content", ["{", "", '{"format": "restore-prior-1",', "\ufeff}{"])
def test_broken_json(ours, content):
    (ours / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json' is no JSON"):
        restore.load_prior(ours)


def test_json_of_another_kind(ours):
    (ours / "config.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"config\.json' holds no configuration .*found a list"):
        restore.load_prior(ours)
    (ours / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"config\.json' is no JSON"):
        restore.load_prior(ours)


@pytest.mark.parametrize("key", ["network", "schedule", "prediction", "value_range", "tile", "overlap"])
def test_a_configuration_that_lacks_something(ours, key):
    edit(ours / "config.json", **{key: "(removed)"})
    with pytest.raises(ValueError, match=rf"config\.json' lacks {key}"):
        restore.load_prior(ours)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": {"class": "FoldedUNet", "colour": 1}},
        {"network": {"class": "UNet2DModel"}},
        {"network": {"class": "Sequential"}},
        {"network": 5},
        {"schedule": {"kind": "square"}},
        {"schedule": {"kind": "linear", "colour": 3}},
        {"value_range": [1]},
        {"prediction": "noise"},
    ],
    ids=str,
)
def test_a_configuration_that_makes_no_sense(ours, changes):
    edit(ours / "config.json", **changes)
    with pytest.raises(ValueError, match=r"config\.json' describes nothing|prediction must be one of"):
        restore.load_prior(ours)


def test_missing_files_of_ours(ours):
    (ours / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        restore.load_prior(ours)


@pytest.mark.parametrize(
    "name",
    ["scheduler/scheduler_config.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"],
)
def test_missing_and_damaged_files_of_a_pipeline(pipeline, name):
    path = pipeline / name
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=path.parent.name) as error:
        restore.load_prior(pipeline)
    assert str(path) in str(error.value)
    path.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match="copied whole") as error:
        restore.load_prior(pipeline)
    assert str(path.parent) in str(error.value)


def test_missing_and_misshapen_tensors_of_a_pipeline(pipeline):
    path = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    kept = weights.pop("conv_in.weight")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 missing tensors \(first: conv_in.weight\)"):
        restore.load_prior(pipeline)
    save_file({**weights, "conv_in.weight": kept[:4].clone()}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"conv_in\.weight"):
        restore.load_prior(pipeline)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_pickle_is_executed(pipeline, tmp_path):
    mark = tmp_path / "executed"
    (pipeline / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"conv_in.weight": Trap(mark)}, pipeline / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="unet"):
        restore.load_prior(pipeline)
    assert not mark.exists()
    torch.load(pipeline / "unet" / "diffusion_pytorch_model.bin", weights_only=False)
    assert mark.exists()  # The trap works.


# ------------------------------------------------------------------------------------------- atomic writes


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "deep" / "er" / "a.txt"
    for content in ("old", "new"):
        assert write_atomically(path, lambda p, content=content: p.write_text(content)) == path
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_seen_of_a_file_before_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("new")
        assert temporary != path
        assert temporary.parent == path.parent  # A rename is atomic within a file system only.
        assert temporary.suffix == path.suffix  # Some writers go by it.
        assert path.read_text() == "old"

    write_atomically(path, write)
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
def test_a_failure_while_writing_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("half of the n")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert contents(tmp_path) == {path.relative_to(tmp_path): b"old"}


def test_a_failure_while_moving_leaves_the_old_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no")

    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        write_atomically(path, lambda p: p.write_text("new"))
    assert contents(tmp_path) == {path.relative_to(tmp_path): b"old"}


def test_files_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "usual").touch()
    write_atomically(tmp_path / "ours", lambda p: p.write_text("x"))
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "ours")]
    assert modes[0] == modes[1]


def test_an_interrupted_save_leaves_a_prior(tmp_path, monkeypatch):
    folder = small_prior(seed=0).save(tmp_path)
    before = contents(tmp_path)

    def half(tensors, path, metadata=None):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(OSError, match="disk full"):
        small_prior(seed=1).save(tmp_path)
    assert contents(tmp_path) == before
    assert restore.load_prior(folder)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("widths", [(8, 16), (8, 24)])
def test_a_save_that_ended_between_its_two_files_is_the_new_prior(tmp_path, monkeypatch, widths, prediction):
    """As if the machine had stopped: the new weights lie beside the old configuration."""
    folder = small_prior(config={"name": "old"}).save(tmp_path)
    old = (folder / "config.json").read_text()
    torch.manual_seed(1)
    new = Prior(photo_unet(widths), Schedule.cosine(9), prediction, config={"name": "new", "licence": "CC0"})
    new.save(folder)
    (folder / "config.json").write_text(old)
    again = restore.load_prior(folder)
    assert (again.config, again.prediction, again.schedule) == (new.config, prediction, new.schedule)
    x = noise(1, 3, SIZE, SIZE)
    assert torch.equal(again(x, 0.5), new(x, 0.5))
    # What is edited by hand holds.
    new.save(folder)
    edit(folder / "config.json", name="mine")
    assert restore.load_prior(folder).config == {**new.config, "name": "mine"}


@pytest.mark.parametrize("format", ["restore", "diffusers"])
def test_a_prior_is_not_saved_onto_a_file(tmp_path, format):
    (tmp_path / "photo.png").write_text("a picture")
    prior = Prior(unet(), Schedule.linear())
    for name in ("photo.png", "photo.png/inside"):
        with pytest.raises(
            NotADirectoryError, match=r"photo.png' is a file, and a prior is saved as a folder: choose"
        ):
            prior.save(tmp_path / name, format=format)
    with pytest.raises(ValueError, match=r"the folder has no name: .* '.' for the current folder"):
        prior.save("", format=format)
    assert contents(tmp_path) == {Path("photo.png"): b"a picture"}


def test_folded_networks_keep_their_options(tmp_path):
    network = FoldedUNet(dict(photo_unet((8, 8)).config["config"]), fold=2, norm="group")
    again = restore.load_prior(Prior(network, Schedule.linear()).save(tmp_path))
    assert describe_network(again.network) == describe_network(network)
