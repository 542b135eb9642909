"""``load_prior`` takes anybody's checkpoint: files, the hub's cache; and refuses the rest, executing nothing."""

from __future__ import annotations

import inspect
import os
import shutil
import socket
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler
from safetensors.torch import load_file, save_file
from test_checkpoint import Trap, edit, noise, pretend, unet

import restore
from restore.checkpoint.hub import fetch, is_hub_id
from restore.networks import photo_unet
from restore.prior import Prior
from restore.schedule import Schedule

# ------------------------------------------------------------------------------------------- files


@pytest.fixture
def bare(tmp_path):
    """A folder with the config of a network, whose weights are about to lie beside it."""
    network = unet()
    network.save_config(tmp_path)
    return tmp_path, network


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "weights.pt", "weights.pth", "weights.bin", "w.ckpt"]
)
def test_a_file_with_its_config_beside_it(bare, name):
    folder, network = bare
    (save_file if name.endswith("safetensors") else torch.save)(network.state_dict(), folder / name)
    prior = restore.load_prior(folder / name)
    x = noise(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(prior.epsilon(x, 0.3), network(x, 299).sample, rtol=1e-3, atol=1e-3)
    assert (prior.name, prior.schedule, prior.trained_size) == (name.split(".")[0], Schedule.linear(), (8, 8))


@pytest.mark.parametrize("key", ["ema", "state_dict", "model"])
def test_the_weights_in_a_trainers_file(bare, key):
    folder, network = bare
    torch.save({"epoch": 3, "optimizer": {"lr": 1.0}, key: network.state_dict()}, folder / "w.pt")
    prior = restore.load_prior(str(folder / "w.pt"))
    assert torch.equal(prior.network.conv_in.weight, network.conv_in.weight)


def test_a_scheduler_beside_it_says_how_it_was_trained(bare):
    folder, network = bare
    save_file(network.state_dict(), folder / "w.safetensors")
    DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction").save_config(folder)
    prior = restore.load_prior(folder / "w.safetensors")
    assert (prior.schedule, prior.prediction) == (Schedule.cosine(), "v_prediction")
    assert restore.load_prior(folder / "w.safetensors", schedule=Schedule.linear(7)).schedule.steps == 7


def test_a_file_of_torch_before_it_wrote_archives(bare):
    folder, network = bare
    torch.save(network.state_dict(), folder / "w.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(restore.load_prior(folder / "w.pt").network.conv_in.weight, network.conv_in.weight)


def test_the_weights_of_our_own_folder(tmp_path):
    prior = Prior(photo_unet((8, 8)), Schedule.cosine(10), config={"name": "ours"})
    again = restore.load_prior(prior.save(tmp_path) / "model.safetensors")
    assert (again.name, again.schedule) == ("ours", prior.schedule)


def test_missing_unknown_and_misshapen_tensors_of_a_file(bare):
    folder, network = bare
    state = network.state_dict()
    del state["conv_in.bias"]
    state["more"] = torch.zeros(1)
    state["conv_out.bias"] = torch.zeros(5)
    torch.save(state, folder / "w.pt")
    with pytest.raises(ValueError, match=r"does not fit the network of the config.json beside it") as error:
        restore.load_prior(folder / "w.pt")
    for part in (
        "1 missing tensors (first: conv_in.bias)",
        "(first: more)",
        "conv_out.bias is (5,), expected (3,)",
    ):
        assert part in str(error.value)


def test_unknown_tensors_of_a_folder_are_refused(tmp_path):
    unet().save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(path), "more": torch.zeros(1)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"config.json beside it: 1 unknown tensors \(first: more\)"):
        restore.load_prior(tmp_path)


def test_a_file_without_its_config(tmp_path):
    torch.save(unet().state_dict(), tmp_path / "w.pt")
    with pytest.raises(
        ValueError, match=r"no network that is known .* UNet2DModel with its config.json beside"
    ):
        restore.load_prior(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "AutoencoderKL"}, "'AutoencoderKL', expected UNet2DModel"),
        ({"block_out_channels": [8]}, "describes nothing that can be built"),
        ({"time_embedding_type": "fourier"}, "told the noise level instead of a step"),
    ],
)
def test_a_config_that_does_not_do(bare, config, message):
    folder, network = bare
    torch.save(network.state_dict(), folder / "w.pt")
    edit(folder / "config.json", **config)
    with pytest.raises(ValueError, match=message):
        restore.load_prior(folder / "w.pt")


# ------------------------------------------------------------------------------------------- what cannot be represented


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", "a latent diffusion model"),
        ("first_stage_model.encoder.conv_in.weight", "a latent diffusion model"),
        (
            "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
            "a network conditioned on text",
        ),
        ("inner_model.u_net.d_blocks.0.1.main.0.mapper.weight", r"k-diffusion \(image_v1\).*noise level"),
        ("u_net.d_blocks.0.1.main.0.mapper.weight", r"k-diffusion \(image_v1\)"),
        ("patch_in.proj.weight", "a transformer of k-diffusion"),
        ("all_modules.3.weight", r"NCSN\+\+"),
        ("model.enc.64x64_conv.weight", "a network of EDM"),
        ("final_layer.linear.weight", "a diffusion transformer"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_networks_of_other_kinds_are_named(bare, name, message, suffix):
    folder, _ = bare
    (torch.save if suffix == ".pt" else save_file)({name: torch.zeros(1)}, folder / f"w{suffix}")
    with pytest.raises(ValueError, match=f"w{suffix}' is .*{message}.*") as error:
        restore.load_prior(folder / f"w{suffix}")
    assert "cannot be loaded" in str(error.value)


# ------------------------------------------------------------------------------------------- safety and damage


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("place", ["alone", "beside weights", "in a trainer's file"])
@pytest.mark.parametrize("name", ["w.pt", "w.ckpt", "model-1.pt"])
def test_code_in_a_file_is_refused_and_not_executed(bare, archive, place, name):
    folder, network = bare
    mark = folder / "executed"
    content = {
        "alone": Trap(mark),
        "beside weights": {**network.state_dict(), "more": Trap(mark)},
        "in a trainer's file": {"ema": network.state_dict(), "callbacks": [Trap(mark)]},
    }[place]
    torch.save(content, folder / name, _use_new_zipfile_serialization=archive)
    with pytest.raises(
        ValueError, match=r"would run code while it is read .*mkdir.*nothing of it was executed"
    ):
        restore.load_prior(folder / name)
    assert not mark.exists()
    torch.load(folder / name, weights_only=False)
    assert mark.exists()  # The trap works.


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files(bare, suffix, share):
    folder, network = bare
    path = folder / f"w{suffix}"
    (torch.save if suffix == ".pt" else save_file)(network.state_dict(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"is cut off: fetch it again|is damaged,? or no") as error:
        restore.load_prior(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "data", [b"<html>not found</html>", b"version https://git-lfs.github.com/spec/v1", b"\x80"]
)
def test_files_of_something_else(tmp_path, data):
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(ValueError, match=r"w.pt' is damaged, or no file of torch.save"):
        restore.load_prior(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [[torch.zeros(1)], torch.zeros(3), 5], ids=["list", "tensor", "number"])
def test_files_without_names(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=f"holds a {type(content).__name__}, expected tensors by name"):
        restore.load_prior(tmp_path / "w.pt")


def test_files_that_are_no_weights(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(
        ValueError, match=r"photo.png' is no file of weights: expected one of .safetensors, .pt"
    ):
        restore.load_prior(tmp_path / "photo.png")
    with pytest.raises(FileNotFoundError, match=r"no prior '.*nowhere.pt'"):
        restore.load_prior(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("source", ["", "  "])
def test_an_empty_name_is_not_the_current_folder(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unet().save_pretrained(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"no prior '.*', which is no name: give one of the names \['photo'"
    ):
        restore.load_prior(source)
    assert restore.load_prior(".").channels == 3


@pytest.mark.parametrize(
    ("source", "what"), [(None, "not None"), (5, "not a int"), (unet, "not a function"), ([], "not a list")]
)
def test_what_is_no_name_and_no_path(source, what):
    with pytest.raises(
        TypeError, match=rf"a prior is a name \('photo' .* a folder, .*{what}; a network becomes"
    ):
        restore.load_prior(source)


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize(
    ("source", "meant"),
    [
        ("imagnet-256", "'imagenet-256'"),
        ("Photo", "'photo'"),
        ("my-piror", "'my-prior'"),
        ("ffhq-265", "'ffhq-256'"),
    ],
)
def test_the_nearest_name_is_suggested(tmp_path, monkeypatch, kind, source, meant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-prior").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"no prior '{source}'; did you mean {meant}\? give one of"):
        restore.load_prior(kind(source))


def test_a_path_with_the_name_of_a_prior():
    for name in ("photo", "imagenet-256", "google/ddpm-cat-256"):
        with pytest.raises(
            FileNotFoundError, match=rf"no file or folder '{name}'; .* load_prior\('{name}'\), not by"
        ):
            restore.load_prior(Path(name))


# ------------------------------------------------------------------------------------------- the hub

NAME = "someone/ddpm-things-8"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, and no connection to it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path / "hub"


def cached(hub, fill, name=NAME):
    """A snapshot, in the cache's own layout, that ``fill`` writes into."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    inside = hub / f"models--{name.replace('/', '--')}"
    (inside / "refs").mkdir(parents=True)
    (inside / "refs" / "main").write_text(commit)
    snapshot = inside / "snapshots" / commit
    snapshot.mkdir(parents=True)
    fill(snapshot)
    return snapshot


def pipeline(folder):
    DDPMPipeline(unet(), DDPMScheduler(beta_schedule="squaredcos_cap_v2")).save_pretrained(folder)


def flat(folder):
    """As the first repositories are: all in one folder."""
    pipeline(folder)
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            shutil.move(file, folder / file.name)
        (folder / part).rmdir()


def flat_without_safetensors(folder):
    flat(folder)
    path = folder / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), folder / "diffusion_pytorch_model.bin")
    path.unlink()


def bare_network(folder):
    unet().save_pretrained(folder)


@pytest.mark.parametrize("fill", [pipeline, flat, flat_without_safetensors, bare_network])
def test_a_name_of_the_hub_is_found_in_its_cache(hub, fill):
    cached(hub, fill)
    prior = restore.load_prior(NAME)
    assert prior.name == NAME
    assert prior.schedule == (Schedule.linear() if fill is bare_network else Schedule.cosine())
    for name, value in unet().state_dict().items():
        assert torch.equal(prior.network.state_dict()[name], value), name


def test_a_prior_of_ours_on_the_hub(hub):
    prior = Prior(photo_unet((8, 8)), Schedule.cosine(10), config={"name": "ours"})
    cached(hub, prior.save)
    assert restore.load_prior(NAME).schedule == prior.schedule


def test_what_is_not_in_the_cache_is_asked_for(hub):
    with pytest.raises(FileNotFoundError, match=f"no prior '{NAME}' on this machine") as error:
        restore.load_prior(NAME)
    for part in (
        str(hub / "models--someone--ddpm-things-8"),
        f"hf download {NAME} --local-dir",
        "model_index.json",
        "scheduler_config.json",
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "give its path",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("lost", ["scheduler/scheduler_config.json", "unet/config.json", "unet"])
def test_half_a_snapshot_is_none(hub, lost):
    folder = cached(hub, pipeline)
    (shutil.rmtree if lost == "unet" else os.remove)(folder / lost)
    with pytest.raises(FileNotFoundError, match="on this machine"):
        restore.load_prior(NAME)


def test_other_pipelines_of_the_hub_are_refused_before_their_weights_are_fetched(hub, monkeypatch):
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
    }
    asked = []

    def download(repo_id, *, allow_patterns, local_files_only):
        asked.append(allow_patterns)
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        return str(pretend(hub / "snapshot", "StableDiffusionPipeline", **parts))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(
        ValueError, match=rf"'{NAME}' is a StableDiffusionPipeline: .*latent .* and conditioned on text"
    ):
        restore.load_prior(NAME)
    assert len(asked) == 2
    assert not [p for patterns in asked for p in patterns if p.endswith(("safetensors", "bin"))]


def test_the_hub_is_asked_for_what_is_needed_and_only_if_the_cache_lacks_it(tmp_path, monkeypatch):
    import huggingface_hub

    calls, signature = [], inspect.signature(huggingface_hub.snapshot_download)

    def download(*args, **options):
        given = signature.bind(*args, **options).arguments  # As the real one would take it.
        calls.append((given["local_files_only"], given["allow_patterns"]))
        assert given["repo_id"] == NAME
        assert set(given) == {"repo_id", "allow_patterns", "local_files_only"}
        if given["local_files_only"]:
            raise huggingface_hub.errors.LocalEntryNotFoundError("nothing there")
        return str(folder)

    folder = tmp_path / "snapshot"
    pipeline(folder)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert fetch(NAME) == folder
    assert [local for local, _ in calls] == [True, False, False]
    assert "unet/diffusion_pytorch_model.safetensors" in calls[-1][1]
    assert not [p for _, patterns in calls for p in patterns if "*" in p or p.endswith(".bin")]


@pytest.mark.parametrize(
    "name",
    [
        "photos",
        "./a/b",
        "../a",
        "/a/b",
        "~/a",
        "a/b/c",
        "a/",
        "/a",
        "a/b.pt",
        "a/b.safetensors",
        "a b/c",
        "a/..",
        "",
    ],
)
def test_nothing_is_fetched_for_what_is_no_name_of_the_hub(name, hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    assert not is_hub_id(name)
    with pytest.raises(FileNotFoundError):
        restore.load_prior(name)


def test_a_folder_comes_before_the_hub(hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("mine/ddpm")
    unet().save_pretrained(tmp_path / "mine" / "ddpm")
    assert restore.load_prior("mine/ddpm").name == "ddpm"
    with pytest.raises(FileNotFoundError, match="no prior 'mine/dppm'"):  # A slip, in a folder that is there.
        restore.load_prior("mine/dppm")
