"""Priors for others: diffusers' own pipelines draw what we draw, and the Hub is sent what was saved."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from diffusers import DDIMPipeline, DDPMPipeline, DiffusionPipeline, UNet2DModel
from test_checkpoint import contents, noise, small_prior, unet
from toys import OneStream

import restore
from restore.methods.base import Method, Problem
from restore.networks import FoldedUNet, RMSUNet
from restore.prior import Prior
from restore.samplers import as_sampler
from restore.schedule import Schedule
from restore.solve import sampling_loop

SCHEDULES = [
    Schedule.linear(),
    Schedule.linear(200, 1e-3, 0.05),
    Schedule.scaled_linear(),
    Schedule.cosine(),
    Schedule.cosine(100, offset=0.02),
    Schedule.from_betas([0.001 * (k + 1) for k in range(50)]),
]


class FromPureNoise(Method):
    """Sampling as diffusers' pipelines begin it: we scale the first state by the schedule's last sigma."""

    def start(self, t):
        return super().start(t) / self.prior.schedule(t)[1]


def drawn(prior, sampler, steps, count, size, seed):
    """What our loop draws with the random numbers of ``torch.Generator().manual_seed(seed)``, in [0, 1]."""
    problem = Problem(
        torch.empty(count, 0), None, torch.zeros(count), (count, 3, *size), OneStream(count, seed)
    )
    run = FromPureNoise().bind(prior, problem, as_sampler(sampler), steps)
    x = sampling_loop(run, lambda: None, lambda *_: None)
    return (x / 2 + 0.5).clamp(0, 1)


def drawn_by_diffusers(kind, folder, steps, count, seed, **options):
    pipeline = kind.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    images = pipeline(
        batch_size=count, generator=generator, num_inference_steps=steps, output_type="np", **options
    ).images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def same_prior(again, prior):
    assert again.schedule == prior.schedule
    for attribute in ("prediction", "value_range", "channels", "multiple", "tile", "overlap"):
        assert getattr(again, attribute) == getattr(prior, attribute), attribute
    x = noise(2, 3, 8, 8)
    for t in (0.01, 0.4, 1.0):
        assert torch.equal(again(x, t), prior(x, t))


# ------------------------------------------------------------------------------------------- diffusers


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_diffusers_draws_what_we_draw(tmp_path, prediction, schedule):
    prior = Prior(unet(sample_size=(8, 12)), schedule, prediction)
    folder = prior.save(tmp_path / "pipeline", format="diffusers")
    # What noise leaves of a picture at the first time, alpha, divides the rounding of a network that predicts noise:
    # 1.8e-4 was measured where alpha is 5e-4, on a processor without AVX-512.
    atol = 1e-4 if prediction != "epsilon" or schedule(1.0)[0] > 2e-3 else 5e-4
    for steps in (10, 25):
        ours = drawn(prior, "ddpm", steps, 2, (8, 12), seed=3)
        theirs = drawn_by_diffusers(DDPMPipeline, folder, steps, 2, seed=3)
        torch.testing.assert_close(theirs, ours, rtol=0, atol=atol)
        for eta in (0.0, 0.7):
            ours = drawn(prior, restore.samplers.DDIM(eta), steps, 2, (8, 12), seed=3)
            theirs = drawn_by_diffusers(DDIMPipeline, folder, steps, 2, seed=3, eta=eta)
            torch.testing.assert_close(theirs, ours, rtol=0, atol=atol)
    assert float(ours.std()) > 0.05
    same_prior(restore.load_prior(folder), prior)


def test_a_flow_is_taken_by_the_scheduler_of_flows(tmp_path):
    prior = Prior(unet(), Schedule.flow(40), "flow_prediction")
    folder = prior.save(tmp_path, format="diffusers")
    ours = drawn(prior, "ddim", 40, 2, (8, 8), seed=3)
    theirs = drawn_by_diffusers(DDPMPipeline, folder, 40, 2, seed=3)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    assert float(ours.std()) > 0.05
    coarse = drawn_by_diffusers(DDPMPipeline, folder, 10, 2, seed=3)
    assert 0 < float((coarse - drawn(prior, "ddim", 10, 2, (8, 8), seed=3)).abs().mean()) < 0.05
    same_prior(restore.load_prior(folder), prior)


def test_a_learned_variance_is_used_by_diffusers(tmp_path):
    """An output of 1 for the variance means beta, the larger of DDPM's choices: at equal weights, more noise."""
    network = unet(out_channels=6)
    with torch.no_grad():
        network.conv_out.weight[3:] = 0
        network.conv_out.bias[3:] = 1
    prior = Prior(network, Schedule.linear(50, 1e-3, 0.1))
    folder = prior.save(tmp_path / "learned", format="diffusers")
    same_prior(restore.load_prior(folder), prior)
    pipeline = DDPMPipeline.from_pretrained(folder)
    pipeline.scheduler.set_timesteps(50)
    x, t = noise(1, 3, 8, 8), 0.6
    output = pipeline.unet(x, 29).sample
    (_, sigma_t), (alpha_s, sigma_s) = prior.schedule(t), prior.schedule(t - 1 / 50)
    beta = prior.schedule.betas[29]
    x_s = pipeline.scheduler.step(output, 29, x, generator=torch.Generator().manual_seed(1)).prev_sample
    mean = (
        alpha_s * beta / sigma_t**2 * prior(x, t) + (1 - beta) ** 0.5 * sigma_s**2 / sigma_t**2 * x
    )  # DDPM, equation 7
    z = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(x_s, mean + beta**0.5 * z, rtol=1e-4, atol=1e-4)


def test_what_is_saved_is_a_pipeline_of_plain_files(tmp_path):
    prior = Prior(unet(), Schedule.linear())
    prior.network.to(memory_format=torch.channels_last)
    before = {k: v.clone() for k, v in prior.network.state_dict().items()}
    folder = prior.save(tmp_path / "new" / "folder", format="diffusers")
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {
        "new/folder/model_index.json",
        "new/folder/scheduler/scheduler_config.json",
        "new/folder/unet/config.json",
        "new/folder/unet/diffusion_pytorch_model.safetensors",
    }
    assert type(DiffusionPipeline.from_pretrained(folder)) is DDPMPipeline
    assert all(torch.equal(v, before[k]) for k, v in prior.network.state_dict().items())
    # A second save replaces the first one.
    other = Prior(unet(seed=1), Schedule.cosine(10), "sample")
    same_prior(restore.load_prior(other.save(folder, format="diffusers")), other)
    described = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert described["beta_schedule"] == "squaredcos_cap_v2"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
def test_an_interrupted_second_save_leaves_the_first(tmp_path, monkeypatch, error):
    """Wherever it ends: after any number of moves."""
    first, second = (
        Prior(unet(), Schedule.linear()),
        Prior(unet(layers_per_block=2), Schedule.cosine(), "sample"),
    )
    folder = first.save(tmp_path / "folder", format="diffusers")
    (folder / "notes.txt").write_text("mine")
    before, replace = contents(tmp_path), os.replace
    for last in range(100):
        moved = []

        def move(source, target, last=last, moved=moved):
            if len(moved) == last:
                monkeypatch.setattr(os, "replace", replace)
                raise error
            moved.append(target)
            replace(source, target)

        monkeypatch.setattr(os, "replace", move)
        try:
            second.save(folder, format="diffusers")
        except type(error):
            assert contents(tmp_path) == before
            same_prior(restore.load_prior(folder), first)
        else:
            break
        finally:
            monkeypatch.setattr(os, "replace", replace)
    assert last == 8, "four old files away, four new ones to their places"
    # Should the machine stop in between, it is no pipeline: the index is the first to go, and the last to come.
    names = [Path(target).name for target in moved]
    assert names[0].startswith("model_index.json.")
    assert (names[4], names[-1]) == ("diffusion_pytorch_model.safetensors", "model_index.json")
    same_prior(restore.load_prior(folder), second)
    assert contents(tmp_path).keys() == before.keys()


def test_a_checkpointed_compiled_prior_in_half_precision_is_saved_like_any(tmp_path):
    prior = Prior(unet(), Schedule.linear()).with_dtype("bfloat16")
    changed = prior.with_checkpointing().compiled(backend="eager")
    folders = [p.save(tmp_path / n, format="diffusers") for p, n in ((prior, "a"), (changed, "b"))]
    weights = [f / "unet" / "diffusion_pytorch_model.safetensors" for f in folders]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert changed.save(tmp_path / "c").is_dir()


def test_a_folded_network_that_folds_nothing_is_a_plain_one(tmp_path):
    config = {k: v for k, v in unet().config.items() if not k.startswith("_")}
    prior = Prior(FoldedUNet(config, fold=1, norm="group"), Schedule.linear())
    again = restore.load_prior(prior.save(tmp_path, format="diffusers"))
    assert isinstance(again.network, UNet2DModel)
    same_prior(again, prior)


def folding_nothing(heads, **changes):
    config = {k: v for k, v in unet(attention_head_dim=4, **changes).config.items() if not k.startswith("_")}
    return Prior(FoldedUNet(config, fold=1, norm="group", heads=heads), Schedule.linear(50, 1e-3, 0.1))


def test_a_number_of_heads_that_is_that_of_the_width_is_kept(tmp_path):
    """Heads of 4 channels, where 16 channels attend: 4 heads."""
    prior = folding_nothing(heads=4)
    same_prior(restore.load_prior(prior.save(tmp_path, format="diffusers")), prior)


def test_a_learned_variance_inside_a_folded_network_is_told(tmp_path):
    folder = folding_nothing(heads=None, out_channels=6).save(tmp_path, format="diffusers")
    assert DDPMPipeline.from_pretrained(folder).scheduler.config.variance_type == "learned_range"


class Convolution(torch.nn.Conv2d):
    def forward(self, x, step):
        return super().forward(x)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            small_prior,
            ValueError,
            r"no network like this FoldedUNet.*folds 2 x 2.*Train a UNet2DModel.*without",
        ),
        (
            lambda: Prior(Convolution(3, 3, 1), Schedule.linear()),
            TypeError,
            "a Convolution cannot be saved: a folder holds no code",
        ),
        (lambda: folding_nothing(heads=2), ValueError, "no network like this FoldedUNet: .* has 2 heads"),
        (
            lambda: Prior(
                RMSUNet(8, (8, 8), [{"full": True, "heads": 2, "width": 4, "memory": 4}]), Schedule.linear()
            ),
            TypeError,
            "holds a UNet2DModel, not a RMSUNet; save the prior without format=",
        ),
        (
            lambda: Prior(unet(num_class_embeds=4), Schedule.linear()),
            ValueError,
            "conditional on a class.*without format=",
        ),
        (
            lambda: Prior(unet(sample_size=None), Schedule.linear()),
            ValueError,
            r"register_to_config\(sample_size=64\)",
        ),
        (
            lambda: Prior(unet(), Schedule.linear(), value_range=(0, 1)),
            ValueError,
            r"in \[-1, 1\]; this prior's are in \[0.0, 1.0\]",
        ),
        (
            lambda: Prior(unet(), Schedule.linear(), "flow_prediction"),
            ValueError,
            "no scheduler for flow_prediction with Schedule.linear",
        ),
        (
            lambda: Prior(unet(), Schedule.flow(), "epsilon"),
            ValueError,
            "no scheduler for epsilon with Schedule.flow",
        ),
    ],
)
def test_what_diffusers_cannot_hold_is_refused(tmp_path, make, error, message):
    with pytest.raises(error, match=message):
        make().save(tmp_path / "folder", format="diffusers")
    assert not list(tmp_path.iterdir())


def test_the_remedy_for_a_missing_size_is_one(tmp_path):
    prior = Prior(unet(sample_size=None), Schedule.linear())
    prior.network.register_to_config(sample_size=8)
    folder = prior.save(tmp_path, format="diffusers")
    assert drawn_by_diffusers(DDPMPipeline, folder, 2, 1, seed=0).shape == (1, 3, 8, 8)


def test_two_formats_do_not_share_a_folder(tmp_path):
    prior = Prior(unet(), Schedule.linear())
    prior.save(tmp_path / "ours")
    prior.save(tmp_path / "theirs", format="diffusers")
    with pytest.raises(ValueError, match="in the format 'restore'"):
        prior.save(tmp_path / "ours", format="diffusers")
    with pytest.raises(ValueError, match="in the format 'diffusers'"):
        prior.save(tmp_path / "theirs")
    with pytest.raises(ValueError, match="format must be one of restore, diffusers, not 'onnx'"):
        prior.save(tmp_path / "new", format="onnx")


# ------------------------------------------------------------------------------------------- the Hub


@pytest.fixture
def hub(monkeypatch):
    """A Hub that takes exactly the calls that the real client takes, and writes down what it was sent."""
    real = huggingface_hub.HfApi
    log = SimpleNamespace(calls=[], files={}, token=None, public=False)

    class FakeApi:
        def __init__(self, *args, **kwargs):
            bound = inspect.signature(real).bind(*args, **kwargs)
            log.token = bound.arguments.get("token")

        def __getattr__(self, name):
            signature = inspect.signature(getattr(real, name))

            def call(*args, **kwargs):
                arguments = signature.bind(self, *args, **kwargs).arguments
                arguments.pop("self")
                log.calls.append((name, arguments))
                if name == "upload_folder":
                    folder = Path(arguments["folder_path"])
                    log.files = {
                        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()
                    }
                if name == "create_repo":
                    return huggingface_hub.RepoUrl(f"https://huggingface.co/{arguments['repo_id']}")
                return SimpleNamespace(private=not log.public)

            return call

    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    return log


def front_matter(files):
    text = files["README.md"].decode()
    _, header, body = text.split("---\n", 2)
    return huggingface_hub.ModelCard(text).data.to_dict(), header, body


def test_the_hub_is_sent_the_saved_folder_and_a_card(hub, tmp_path):
    prior = Prior(
        unet(),
        Schedule.linear(),
        config={"name": "cells", "licence": "CC-BY-4.0", "description": "Cells: of yeast", "pictures": 12},
    )
    address = prior.push_to_hub("me/cells", token="secret")
    assert address == "https://huggingface.co/me/cells"
    assert hub.token == "secret"
    create, info, upload = hub.calls
    assert create == ("create_repo", {"repo_id": "me/cells", "private": True, "exist_ok": True})
    assert info == ("repo_info", {"repo_id": "me/cells"})
    assert upload[0] == "upload_folder"
    assert upload[1]["repo_id"] == "me/cells"
    saved = prior.save(tmp_path)
    assert hub.files.keys() == {"README.md", "config.json", "model.safetensors"}
    for name in ("config.json", "model.safetensors"):
        assert hub.files[name] == (saved / name).read_bytes()
    data, _, body = front_matter(hub.files)
    assert data["license"] == "cc-by-4.0"
    assert data["library_name"] == "restore"
    assert "# cells" in body
    assert "Cells: of yeast" in body
    assert '"pictures": 12' in body
    assert not Path(upload[1]["folder_path"]).exists()


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("Apache-2.0 (weights); see the card", {"license": "apache-2.0"}),
        ("My own: no wars", {"license": "other", "license_name": "my-own-no-wars"}),
        (None, {}),
    ],
)
def test_the_licence_is_named_as_the_hub_names_it(hub, licence, expected):
    config = {} if licence is None else {"licence": licence}
    Prior(unet(), Schedule.linear(), config=config).push_to_hub("me/prior", private=False)
    data, _, body = front_matter(hub.files)
    assert {k: v for k, v in data.items() if k.startswith("license")} == expected
    assert (licence or "none was given") in body
    assert hub.calls[0][1]["private"] is False


def test_a_pipeline_can_be_pushed(hub):
    Prior(unet(), Schedule.linear()).push_to_hub("me/prior", format="diffusers")
    assert {"README.md", "model_index.json", "unet/config.json"} < hub.files.keys()


def test_nothing_private_goes_to_a_public_repository(hub):
    hub.public = True
    prior = Prior(unet(), Schedule.linear())
    with pytest.raises(ValueError, match="'me/prior' exists and is public: choose another"):
        prior.push_to_hub("me/prior")
    assert not hub.files
    prior.push_to_hub("me/prior", private=False)
    assert hub.files


def test_what_cannot_be_saved_calls_nobody(hub):
    with pytest.raises(TypeError, match="cannot be saved"):
        Prior(Convolution(3, 3, 1), Schedule.linear()).push_to_hub("me/prior")
    with pytest.raises(ValueError, match="FoldedUNet"):
        small_prior().push_to_hub("me/prior", format="diffusers")
    assert not hub.calls
