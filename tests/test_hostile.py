"""Files that ask for more than they are: refused with a message, before the memory is asked for."""

from __future__ import annotations

import json
import re
import resource
import zipfile
from pathlib import Path

import adm
import pytest
import safetensors
import torch
from diffusers import DDPMPipeline, DDPMScheduler
from safetensors.torch import load_file, save_file
from test_checkpoint import edit, small_prior, unet
from test_lucidrains import diffusion, tiny

import restore
from restore.networks import RMSUNet
from restore.prior import Prior
from restore.quality import QualityWarning
from restore.schedule import MOST_STEPS, Schedule

ADM = {"width": 64, "multipliers": (1, 2), "blocks": 1, "attention": (2,)}


@pytest.fixture(autouse=True)
def _little_memory():
    """No test here may take 1.5 GiB more than it has: what is refused too late ends in a MemoryError."""
    state = Path("/proc/self/statm")
    if not state.exists():  # Not on every system.
        yield
        return
    before, now = resource.getrlimit(resource.RLIMIT_AS), int(state.read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (now * resource.getpagesize() + 3 * 2**29, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def repeated(*shape):
    """A tensor of any size, of one number."""
    return torch.zeros(1).expand(*shape)


def guided(path, **changes):
    torch.save({**adm.random_state(**ADM), **changes}, path)
    return path


# ------------------------------------------------------------------------------------------- tensors


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("name", ["input_blocks.1.0.in_layers.2.weight", "time_embed.0.weight", "more"])
def test_a_tensor_that_repeats_itself_is_refused(tmp_path, name, archive):
    state = {**adm.random_state(**ADM), name: repeated(2**16, 2**16)}
    torch.save(state, tmp_path / "w.pt", _use_new_zipfile_serialization=archive)
    assert (tmp_path / "w.pt").stat().st_size < 20_000_000
    with pytest.raises(ValueError, match=rf"{name} is \(65536, 65536\), which takes 17,179,869,184 bytes"):
        restore.load_prior(tmp_path / "w.pt")


@pytest.mark.parametrize("key", ["ema", "model", None])
def test_and_in_a_trainers_file(tmp_path, key):
    prefix = "ema_model." if key == "ema" else ""
    content = {f"{prefix}{n}": v for n, v in diffusion(tiny()).items()}
    content[f"{prefix}model.init_conv.bias"] = repeated(2**34)
    torch.save({key: content} if key else content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"model.init_conv.bias is \(17179869184,\)"):
        restore.load_prior(tmp_path / "w.pt")


def test_and_beside_a_config(tmp_path):
    network = unet()
    network.save_config(tmp_path)
    torch.save({**network.state_dict(), "conv_in.bias": repeated(2**34)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"conv_in.bias is \(17179869184,\)"):
        restore.load_prior(tmp_path / "w.pt")


def test_many_tensors_of_the_same_values_are_refused(tmp_path):
    """Each is a view of all that there is, so that none is too large by itself."""
    network = unet()
    network.save_config(tmp_path)
    values = torch.zeros(250_000)
    torch.save({**network.state_dict(), **{f"more.{i}": values for i in range(50)}}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"tensors take .* the same values over and over"):
        restore.load_prior(tmp_path / "w.pt")


def test_two_names_may_share_a_tensor(tmp_path):
    network = unet()
    network.save_config(tmp_path)
    state = network.state_dict()
    first = next(n for n in state if n.endswith("resnets.0.norm1.weight"))
    other = next(n for n in state if n != first and state[n].shape == state[first].shape)
    state[other] = state[first]
    torch.save(state, tmp_path / "w.pt")
    loaded = restore.load_prior(tmp_path / "w.pt").network.state_dict()
    assert torch.equal(loaded[other], loaded[first])
    assert loaded[other].data_ptr() != loaded[first].data_ptr()


def test_tensors_without_values_are_refused(tmp_path):
    sparse = torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (2**20, 2**20))
    with pytest.raises(ValueError, match=r"out.0.bias is no plain tensor \(a torch.sparse_coo"):
        restore.load_prior(guided(tmp_path / "sparse.pt", **{"out.0.bias": sparse}))
    meta = torch.empty(2**40, device="meta")
    with pytest.raises(ValueError, match=r"out.0.bias is no plain tensor \(.* on meta"):
        restore.load_prior(guided(tmp_path / "meta.pt", **{"out.0.bias": meta}))


def test_an_archive_that_unpacks_to_more_is_refused(tmp_path):
    torch.save(unet().state_dict(), tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as old, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        new.writestr("archive/data/9999", b"\0" * 2**28, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"bomb.pt' has .* bytes and says that it unpacks to 26\d,\d+,\d+"):
        restore.load_prior(tmp_path / "bomb.pt")


class Hoard:
    """Pickled, it asks whoever reads it for two trillion bytes."""

    def __reduce__(self):
        return bytearray, (2 * 10**12,)


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])
def test_memory_that_instructions_ask_for_is_refused(tmp_path, archive):
    torch.save(
        {"w": torch.zeros(3), "more": Hoard()},
        tmp_path / "hoard.pt",
        _use_new_zipfile_serialization=archive,
    )
    assert (tmp_path / "hoard.pt").stat().st_size < 5000
    with pytest.raises(ValueError, match=r"hoard.pt' would make a bytearray, .* nothing of it was read"):
        restore.load_prior(tmp_path / "hoard.pt")


@pytest.mark.parametrize("name", ["data.pkl", "DATA.PKL"])
def test_names_of_entries_are_read_as_torch_reads_them(tmp_path, name):
    """It does not care for capitals."""
    torch.save({"w": torch.zeros(3), "more": Hoard()}, tmp_path / "saved.pt")
    with zipfile.ZipFile(tmp_path / "saved.pt") as old, zipfile.ZipFile(tmp_path / "new.pt", "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename.replace("data.pkl", name), old.read(entry))
    with pytest.raises(ValueError, match=r"new.pt' would make a bytearray"):
        restore.load_prior(tmp_path / "new.pt")


def test_a_compressed_archive_is_not_unpacked(tmp_path):
    """What it says of its sizes may be less than what it unpacks to."""
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w") as archive:
        archive.writestr("x/version", "3\n")
        archive.writestr("x/data.pkl", b"garbage", compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"bomb.pt' is compressed: torch.save writes no such file"):
        restore.load_prior(tmp_path / "bomb.pt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tile": "x"}, "tile is 'x'; expected a whole number of pixels"),
        ({"tile": True}, "tile is True; expected"),
        ({"overlap": 1.5}, "overlap is 1.5; expected a whole number"),
        ({"network": None}, "network is None; expected an object"),
        ({"schedule": []}, r"schedule is \[\]; expected an object"),
        ({"value_range": "ab"}, r"value_range is 'ab'; expected two numbers, \[low, high\]"),
        ({"value_range": [0]}, r"value_range is \[0\]; expected two numbers"),
        ({"trained_size": "x"}, "trained_size is 'x'; expected a side in pixels, or two"),
        ({"name": 7}, "name is 7; expected a word"),
    ],
    ids=str,
)
def test_values_of_the_wrong_kind_are_named(tmp_path, change, words):
    folder = small_prior().save(tmp_path)
    edit(folder / "config.json", **change)
    with pytest.raises(ValueError, match=f"config.json' describes nothing that can be built: {words}"):
        restore.load_prior(folder)


# ------------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine", "flow"])
@pytest.mark.parametrize("steps", [10**12, MOST_STEPS + 1, 0, -5, 1e3, "many", None, True])
def test_a_number_of_steps_is_bounded(kind, steps):
    with pytest.raises(ValueError, match=r"at least one step, and at most 1,000,000, as a whole number; not"):
        Schedule.from_config({"kind": kind, "steps": steps})


def test_a_folder_of_ours_with_a_huge_schedule(tmp_path):
    folder = small_prior().save(tmp_path)
    edit(folder / "config.json", schedule={"kind": "cosine", "steps": 10**12})
    with pytest.raises(ValueError, match=r"config.json' describes nothing .* not 1000000000000"):
        restore.load_prior(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_train_timesteps": 10**12},
        {"num_train_timesteps": 10**12, "rescale_betas_zero_snr": True},
        {"num_train_timesteps": 10**12, "_class_name": "FlowMatchEulerDiscreteScheduler"},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 10**12},
    ],
    ids=str,
)
def test_a_pipeline_with_a_huge_schedule(tmp_path, changes):
    DDPMPipeline(unet(), DDPMScheduler()).save_pretrained(tmp_path)
    edit(tmp_path / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(ValueError, match=r"configuration of '.*' makes no schedule: .* not 1000000000000"):
        restore.load_prior(tmp_path)


# ------------------------------------------------------------------------------------------- networks


HUGE = {
    "channels": {"block_out_channels": [2**20, 2**20]},
    "channels beyond counting": {"block_out_channels": [2**40, 2**40]},
    "classes": {"num_class_embeds": 10**12},
    "blocks": {"layers_per_block": 10**9},
    "levels": {
        "block_out_channels": [8] * 10**5,
        "down_block_types": ["DownBlock2D"] * 10**5,
        "up_block_types": ["UpBlock2D"] * 10**5,
    },
}
SAID = r"does not fit the network|describes nothing that can be built|they do not belong together"


@pytest.mark.parametrize("changes", HUGE.values(), ids=HUGE)
def test_a_network_is_compared_with_its_weights_before_it_is_made(tmp_path, changes):
    DDPMPipeline(unet(), DDPMScheduler()).save_pretrained(tmp_path / "pipeline")
    edit(tmp_path / "pipeline" / "unet" / "config.json", **changes)
    with pytest.raises(ValueError, match=SAID):
        restore.load_prior(tmp_path / "pipeline")
    torch.save(unet().state_dict(), tmp_path / "pipeline" / "unet" / "w.pt")
    with pytest.raises(ValueError, match=SAID):
        restore.load_prior(tmp_path / "pipeline" / "unet" / "w.pt")


@pytest.mark.parametrize("changes", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize(
    "make", [small_prior, lambda: Prior(unet(), Schedule.linear())], ids=["photo", "unet"]
)
def test_so_is_one_of_ours(tmp_path, make, changes):
    folder = make().save(tmp_path)
    network = json.loads((folder / "config.json").read_text())["network"]
    network["config"] |= changes
    edit(folder / "config.json", network=network)
    with pytest.raises(ValueError, match=SAID):
        restore.load_prior(folder)


LEVEL = {"full": False, "heads": 2, "width": 4, "memory": 4}


@pytest.mark.parametrize(
    "changes",
    [
        {"widths": [2**20, 2**20]},
        {"dim": 2**40},
        {"attention": [{**LEVEL, "memory": 2**40}]},
        {"attention": [LEVEL] * 10**5, "widths": [8] * (10**5 + 1)},
    ],
    ids=["widths", "dim", "memory", "levels"],
)
def test_so_is_one_of_lucidrains(tmp_path, changes):
    folder = Prior(RMSUNet(8, (8, 8), [LEVEL]), Schedule.linear()).save(tmp_path)
    network = json.loads((folder / "config.json").read_text())["network"]
    edit(folder / "config.json", network={**network, **changes})
    with pytest.raises(ValueError, match=SAID):
        restore.load_prior(folder)


def test_nothing_is_inferred_that_the_file_has_not(tmp_path):
    """Shapes without values, and numbers in names."""
    with pytest.warns(QualityWarning), pytest.raises(ValueError, match=SAID):
        restore.load_prior(guided(tmp_path / "a.pt", **{"label_emb.weight": torch.zeros(2**40, 0)}))
    upsampler = {"output_blocks.999999999.1.conv.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"5 output blocks, of which .* upsample"):
        restore.load_prior(guided(tmp_path / "b.pt", **upsampler))
    content = diffusion(tiny())
    content["model.init_conv.weight"] = torch.zeros(2**40, 3, 7, 0)
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=SAID):
        restore.load_prior(tmp_path / "c.pt")


@pytest.mark.parametrize("lengths", [(200, 3), (3, 200)])
def test_weights_of_the_loss_that_fit_no_schedule(tmp_path, lengths):
    content = diffusion(tiny())
    content["betas"], content["loss_weight"] = (torch.full((n,), 0.1) for n in lengths)
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(
        ValueError, match=r"betas are \(\d+,\) and loss_weight is \(\d+,\), expected one number"
    ):
        restore.load_prior(tmp_path / "w.pt")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}"], ids=["deep", "digits"])
def test_json_without_end(tmp_path, text):
    folder = small_prior().save(tmp_path)
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config.json' is no JSON"):
        restore.load_prior(folder)


@pytest.mark.parametrize("changes", [{"tile": "large"}, {"overlap": "small"}, {"tile": [1]}], ids=str)
def test_tiles_that_are_no_numbers(tmp_path, changes):
    folder = small_prior().save(tmp_path)
    edit(folder / "config.json", **changes)
    with pytest.raises(ValueError, match=r"config.json' describes nothing"):
        restore.load_prior(folder)


# ------------------------------------------------------------------------------------------- what is loaded


def test_what_is_loaded_does_not_change_with_its_file(tmp_path):
    network = unet()
    network.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    prior = restore.load_prior(tmp_path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * (path.stat().st_size // 2))
    for name, value in network.state_dict().items():
        assert torch.equal(prior.network.state_dict()[name], value), name


def test_weights_in_several_files(tmp_path):
    network = unet()
    network.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    prior = restore.load_prior(tmp_path)
    for name, value in network.state_dict().items():
        assert torch.equal(prior.network.state_dict()[name], value), name
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    for wrong in ({"a": "../elsewhere.safetensors"}, {"a": "code.bin"}, {}, 5):
        edit(index, weight_map=wrong)
        with pytest.raises(ValueError, match="does not say in which files of this folder"):
            restore.load_prior(tmp_path)


def test_the_check_does_not_refuse_what_is_a_part_of_a_larger_tensor(tmp_path):
    """Slices that were saved without a copy have more stored than they take."""
    network = unet()
    network.save_config(tmp_path)
    big = torch.arange(1000.0)
    torch.save({**network.state_dict(), "conv_in.bias": big[8:24:2]}, tmp_path / "w.pt")
    assert restore.load_prior(tmp_path / "w.pt").network.conv_in.bias.tolist() == list(range(8, 24, 2))
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    assert len(load_file(tmp_path / "w.safetensors")) == len(network.state_dict())
    assert restore.load_prior(tmp_path / "w.safetensors").channels == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    folder = small_prior().save(tmp_path / "prior")
    weights = folder / "model.safetensors"
    with safetensors.safe_open(weights, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(weights)
    name = sorted(tensors)[3]
    tensors[name].view(-1)[0] = value
    save_file(tensors, weights, metadata)
    with pytest.raises(ValueError, match=rf"not finite in 1 tensors \(first: {re.escape(name)}\)"):
        restore.load_prior(folder)
