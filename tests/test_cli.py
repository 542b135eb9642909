"""The command line and the example scripts, run as a user runs them."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import restore
from restore.cli import build_parser, guarded, main
from restore.quality import QualityWarning
from restore.training import TrainingOptions

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A picture and a mask in the current folder."""
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).integers(0, 255, (40, 33, 3), dtype=np.uint8)
    Image.fromarray(values).save("img.png")
    mask = np.zeros((40, 33), np.uint8)
    mask[10:20, 5:9] = 255
    Image.fromarray(mask).save("mask.png")
    return values, mask > 0


def read(path):
    return np.asarray(Image.open(path))


def test_inpaint_writes_the_picture_and_a_sheet(pictures):
    values, hole = pictures
    assert main(["inpaint", "img.png", "mask.png", "--steps", "2", "--quiet"]) == 0
    np.testing.assert_array_equal(read("img-inpainted.png")[~hole], values[~hole])
    assert (read("img-inpainted.png")[hole] != values[hole]).any()
    assert Image.open("img-inpainted-sheet.png").size[0] > 66


def test_several_samples_are_several_files(pictures):
    assert (
        main(
            ["inpaint", "img.png", "mask.png", "--steps", "2", "--samples", "3", "-o", "out/x.png", "--quiet"]
        )
        == 0
    )
    names = sorted(p.name for p in Path("out").iterdir())
    assert names == ["x-1.png", "x-2.png", "x-3.png", "x-sheet.png"]
    assert (read("out/x-1.png") != read("out/x-2.png")).any()


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        (["super-resolve", "img.png", "--scale", "2"], (80, 66, 3)),
        (["deblur", "img.png", "--sigma", "1"], (40, 33, 3)),
        (["deblur", "img.png", "--kernel", "kernel.png", "--method", "dps"], (40, 33, 3)),
        (["colorize", "img.png"], (40, 33, 3)),
    ],
)
def test_the_other_repairs(pictures, arguments, shape):
    Image.fromarray(np.eye(5, dtype=np.uint8) * 200).save("kernel.png")
    assert main([*arguments, "--steps", "2", "-o", "out.png", "--quiet"]) == 0
    assert read("out.png").shape == shape
    assert Path("out-sheet.png").is_file()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_masks_of_any_mode(pictures, mode):
    values, hole = pictures
    mask = Image.open("mask.png")
    deep = Image.fromarray(np.asarray(mask).astype(np.uint16) * 257)
    (deep if mode == "I;16" else mask.convert(mode)).save("other.png")
    assert main(["inpaint", "img.png", "other.png", "--steps", "1", "-o", "out.png", "--quiet"]) == 0
    changed = (read("out.png") != values).any(-1)
    assert changed[hole].mean() > 0.8
    assert not changed[~hole].any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inpaint", "none.png", "mask.png"], "none.png"),
        (["inpaint", "img.png", "img.png", "--method", "foo"], "unknown method"),
        (["inpaint", "img.png", "mask.png", "--prior", "nobody"], "nobody"),
        (["deblur", "img.png", "--sigma", "1", "--method", "repaint"], "Methods that will do"),
        (["inpaint", "img.png", "mask.png", "-o", "out.xyz"], "extension '.xyz'"),
        (["train", "empty", "-o", "prior"], "empty"),
        (["inpaint", "img.png", "none.png"], "there is no file 'none.png' to read a mask from"),
        (["inpaint", "img.png", "."], "'.' is a folder; expected the file of a mask's picture"),
        (["inpaint", "img.png", "mask.png", "--device", "gpu"], "not 'gpu'"),
        (["inpaint", "img.png", "mask.png", "-o", "img.png/x.png"], "is a file, and no folder"),
        (["super-resolve", "img.png", "--noise", "25"], "noise is 25, where white is 1"),
        (["deblur", "img.png", "--sigma", "1", "--noise", "2.55"], "for 2.55 of 255 grey levels give 0.01"),
        (["deblur", "img.png", "--sigma", "1", "--noise", "-1"], "at least 0, where white is 1; not -1"),
        (["inpaint", "img.png", "mask.png", "--method", "dps:steps=3"], "give steps beside the method"),
        (["inpaint", "img.png", "mask.png", "-o", "img.png"], "'img.png' is the image itself: give another"),
        (["inpaint", "img.png", "mask.png", "-o", "./mask.png"], "'mask.png' is the mask itself"),
        (["deblur", "img.png", "--kernel", "mask.png", "-o", "mask.png"], "'mask.png' is the kernel itself"),
        (["benchmark", "img.png", "--size", "32", "--device", "gpu"], "not 'gpu'"),
        (["benchmark", "img.png", "--size", "32", "-o", "mask.png"], "the output 'mask.png' is a file"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_status(pictures, capsys, arguments, words):
    assert main([*arguments, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert "Traceback" not in error
    assert sorted(p.name for p in Path().iterdir()) == ["img.png", "mask.png"]


def test_a_method_with_options(pictures):
    common = ["inpaint", "img.png", "mask.png", "--steps", "3", "--quiet"]
    for number, name in enumerate(("dps", "dps:zeta=0", "dps:zeta=0.0,clip=true")):
        assert main([*common, "--method", name, "-o", f"{number}.png"]) == 0
    own, without, same = (read(f"{number}.png") for number in range(3))
    np.testing.assert_array_equal(without, same)
    assert (own != without).any()


def test_warnings_are_told_in_one_line_and_python_is_left_as_it_was(capsys):
    before = warnings.formatwarning
    assert guarded(lambda: print(warnings.formatwarning("too\n small", UserWarning, "file.py", 3))) == 0
    assert capsys.readouterr().out == "warning: too small\n\n"
    assert guarded(lambda: int("x")) == 2
    assert warnings.formatwarning is before


def test_a_picture_and_a_mask_that_were_swapped(pictures):
    with pytest.warns(UserWarning, match=r"% of 'img.png' is neither black nor white.*swapped\?"):
        assert main(["inpaint", "mask.png", "img.png", "--steps", "1", "-o", "out.png", "--quiet"]) == 0


def test_a_mask_of_another_size_is_refused_before_anything_is_written(pictures, capsys):
    Image.new("L", (5, 5), 255).save("small.png")
    assert main(["inpaint", "img.png", "small.png", "--quiet"]) == 2
    assert "--resize-mask" in (error := capsys.readouterr().err)
    assert "5 x 5" in error
    assert not list(Path().glob("*inpainted*"))
    mask = np.zeros((5, 5), np.uint8)
    mask[2, 2] = 255
    Image.fromarray(mask).save("small.png")
    resized = ["inpaint", "img.png", "small.png", "--resize-mask", "--steps", "1", "-o", "out.png", "--quiet"]
    assert main(resized) == 0
    rows, columns = (read("out.png") != pictures[0]).any(-1).nonzero()
    assert 16 <= rows.min() < rows.max() < 24  # The third fifth of 40 rows, and of 33 columns.
    assert 13 <= columns.min() < columns.max() < 20


def test_a_mask_with_nothing_to_fill_is_refused(pictures, capsys):
    Image.new("L", (33, 40), 0).save("empty.png")
    assert main(["inpaint", "img.png", "empty.png", "--quiet"]) == 2
    assert "nothing is white in 'empty.png'" in capsys.readouterr().err
    assert not Path("img-inpainted.png").exists()


def test_a_mask_that_keeps_nothing_is_refused(pictures, capsys):
    Image.new("L", (33, 40), 255).save("full.png")
    assert main(["inpaint", "img.png", "full.png", "--quiet"]) == 2
    assert (
        "all of 'full.png' is white, and white is filled in: nothing of 'img.png'" in capsys.readouterr().err
    )


def test_a_mask_that_is_probably_meant_the_other_way_round_is_asked_about(pictures):
    _, hole = pictures
    Image.fromarray(np.uint8(255 * ~hole)).save("inverted.png")
    with pytest.warns(QualityWarning, match=r"97% of 'img.png' is to be filled in.*--invert-mask"):
        assert main(["inpaint", "img.png", "inverted.png", "--steps", "1", "-o", "out.png", "--quiet"]) == 0
    inverted = ["inpaint", "img.png", "inverted.png", "--steps", "1", "--quiet"]
    assert main([*inverted, "--invert-mask", "-o", "right.png"]) == 0
    changed = (read("right.png") != pictures[0]).any(-1)
    assert changed[hole].mean() > 0.8
    assert not changed[~hole].any()
    # Pixels that are lost one by one are no such mask.
    lost = np.random.default_rng(1).random(hole.shape) < 0.7
    Image.fromarray(np.uint8(255 * lost)).save("lost.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error", QualityWarning)
        assert main(["inpaint", "img.png", "lost.png", "--steps", "1", "-o", "out.png", "--quiet"]) == 0


@pytest.mark.parametrize("option", ["--samples", "--steps"])
def test_numbers_below_one_are_refused_by_name(pictures, capsys, option):
    with pytest.raises(SystemExit):
        main(["inpaint", "img.png", "mask.png", option, "0"])
    assert f"argument {option}: must be at least 1, not 0" in capsys.readouterr().err


def test_a_photograph_is_no_kernel(pictures, capsys):
    assert main(["deblur", "img.png", "--kernel", "img.png"]) == 2
    assert "'img.png' is in colour: a kernel is a grey picture of a blurred point" in capsys.readouterr().err
    assert not list(Path().glob("img-*"))


@pytest.mark.parametrize(("side", "told"), [(96, True), (15, False)])
def test_a_grey_photograph_as_a_kernel_is_told_of(pictures, side, told):
    from restore.cli.repairs import read_kernel

    grey = np.random.default_rng(0).integers(60, 200, (side, side), dtype=np.uint8)
    Image.fromarray(grey).save("grey.png")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        kernel = read_kernel(Path("grey.png"))
    assert np.array_equal(kernel, grey / 255)
    assert [
        str(w.message).startswith("'grey.png' is not black at its border, as a kernel") for w in seen
    ] == [True] * told
    full = np.zeros((side, side), np.uint8)
    full[side // 2, side // 3 :] = 255  # The motion of a camera, up to the border.
    Image.fromarray(full).save("motion.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_kernel(Path("motion.png"))


def test_draws_of_one_picture_are_no_samples(pictures, capsys):
    assert main(["colorize", "img.png", "--draws", "2", "--samples", "3"]) == 2
    assert "how many draws are returned as they are: give one of the two" in capsys.readouterr().err
    assert not list(Path().glob("img-*"))


def test_methods_are_listed_with_their_papers(capsys):
    assert main(["methods"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("auto\n")
    assert "--method dps:zeta=0.5" in printed
    for method in restore.methods():
        assert f"{method.name}\n    {method.paper}" in printed


@pytest.mark.parametrize(
    ("command", "told"),
    [("train", "; it goes on with --resume"), ("methods", ""), ("zoo", "a download goes on")],
)
def test_what_is_stopped_says_how_it_goes_on(command, told, monkeypatch, capsys):
    def stopped(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"restore.cli.commands.{command}", stopped)
    assert main([command, *(["photos", "-o", "out"] if command == "train" else [])]) == 130
    said = capsys.readouterr().err
    assert said.startswith("\nstopped")
    assert told in said
    assert ("goes on" in said) == bool(told)


def test_a_reader_that_has_seen_enough_is_not_complained_about():
    """As ``restore methods | head -1``."""
    command = [sys.executable, "-m", "restore", "methods"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 1


def test_every_training_option_has_a_flag_with_a_description(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in TrainingOptions.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text
    assert "Number of weight updates (default: 100000)" in text
    args = build_parser().parse_args(
        ["train", "photos", "-o", "prior", "--dead-leaves", "0.1", "--crop", "64,96", "--per-octave", "2"]
    )
    assert (args.dead_leaves, args.crop, args.per_octave) == (0.1, "64,96", 2)


def test_train_then_sample_then_repair_with_the_new_prior(pictures, monkeypatch):
    small = [
        "--steps",
        "2",
        "--batch",
        "2",
        "--crop",
        "16",
        "--sample-every",
        "0",
        "--precision",
        "fp32",
        "--quiet",
    ]
    monkeypatch.setattr(sys, "argv", ["train_prior.py", "img.png", "-o", "prior", *small])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(EXAMPLES / "train_prior.py"), run_name="__main__")
    assert stopped.value.code == 0
    assert json.loads(Path("prior/config.json").read_text())["format"] == "restore-prior-1"
    assert (
        main(["sample", "--prior", "prior", "--count", "2", "--size", "16", "--steps", "2", "--quiet"]) == 0
    )
    assert Path("samples.png").is_file()
    assert main(["inpaint", "img.png", "mask.png", "--prior", "prior", "--steps", "2", "--quiet"]) == 0


@pytest.mark.parametrize("script", ["inpaint", "super_resolve", "deblur", "colorize", "train_prior"])
def test_scripts_help_under_their_own_name(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(EXAMPLES / f"{script}.py"), run_name="__main__")
    assert stopped.value.code == 0
    assert f"usage: {script}.py" in capsys.readouterr().out


def test_every_repair_has_the_common_options():
    parser = build_parser()
    for line in ("inpaint a b", "super-resolve a", "deblur a --sigma 1", "colorize a"):
        common = [
            "-o",
            "c",
            "--method",
            "dps",
            "--steps",
            "3",
            "--seed",
            "4",
            "--samples",
            "5",
            "--device",
            "cpu",
        ]
        args = parser.parse_args([*line.split(), *common])
        assert (args.method, args.steps, args.seed, args.samples, args.device) == ("dps", 3, 4, 5, "cpu")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["inpaint", "img.png", "mask.png", "--steps", "x"],
            "--steps: must be a whole number of at least 1, not 'x'",
        ),
        (
            ["benchmark", "img.png", "--calls", "a,5"],
            "--calls: must be whole numbers such as 20,50,100, not 'a,5'",
        ),
    ],
)
def test_words_for_numbers_are_refused_in_words(capsys, arguments, words):
    with pytest.raises(SystemExit):
        main(arguments)
    assert words in capsys.readouterr().err
