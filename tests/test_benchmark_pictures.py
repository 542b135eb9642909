"""The benchmark of pictures: the same numbers whatever is run, and what has been run is not run again."""

from __future__ import annotations

import csv
import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from toys import PixelPrior

import restore
from operators import Mask
from restore.benchmark import TASKS, markdown, pictures, read_results
from restore.benchmark.contenders import CountedPrior, steps_for
from restore.benchmark.names import parse
from restore.benchmark.runs import fingerprint
from restore.benchmark.standard import measure, text_mask
from restore.cli import main
from restore.images import read_image, write_image
from restore.methods import DAPS, DDNM
from restore.metrics import data_misfit, psnr, ssim

QUICK = {"size": 32, "progress": False}


@pytest.fixture
def folder(tmp_path):
    """Two photographs, one of them in a sub-folder."""
    place = tmp_path / "photos"
    (place / "more").mkdir(parents=True)
    astronaut = data.astronaut()
    write_image(place / "b.png", astronaut[40:100, 190:260])
    write_image(place / "more" / "a.png", astronaut[300:340, 100:150])
    return place


@pytest.fixture
def prior():
    return PixelPrior(value_range=(-1, 1), bounded=True, channels=3)


def numbers(results):
    """Everything but the time."""
    return {(r.picture, r.task, r.method): (r.psnr, r.ssim, r.misfit, r.calls) for r in results}


def test_the_same_numbers_whatever_is_run_beside(folder, prior):
    methods = ["ddrm:steps=3", "telea", "diffpir:steps=2"]
    everything = numbers(pictures(folder, prior, methods, seed=5, **QUICK))
    alone = numbers(pictures(folder, prior, methods[:1], ["blur", "random"], seed=5, **QUICK))
    assert alone
    assert alone.items() <= everything.items()
    one = folder / "more" / "a.png"
    (folder / "b.png").unlink()
    fewer = numbers(pictures(folder, prior, methods[::-1], ["random"], seed=5, **QUICK))
    assert {picture for picture, *_ in fewer} == {"more/a.png"}
    assert fewer.items() <= everything.items()
    other = numbers(pictures(folder, prior, methods[:1], ["random"], seed=6, **QUICK))
    assert other.keys() <= fewer.keys()
    assert not other.items() <= fewer.items()
    assert pictures(one, prior, ["telea"], ["box"], **QUICK)[0].picture == "a.png"


def test_measures_are_those_of_the_metrics(folder, prior, tmp_path):
    out = tmp_path / "out"
    (result,) = pictures(folder, prior, ["ddnm:steps=4"], ["blur"], limit=1, seed=1, output=out, **QUICK)
    image = read_image(folder / "b.png")[14:46, 19:51]
    truth = torch.from_numpy(image).permute(2, 0, 1) / 255
    measured = measure(TASKS["blur"], truth, "b.png", 1)
    x = restore.solve(
        measured.y,
        measured.operator,
        "ddnm",
        prior=prior,
        noise=0.01,
        steps=4,
        seed=measured.seed,
        progress=False,
    )
    assert result.psnr == pytest.approx(psnr(x, truth), abs=1e-4)
    assert result.ssim == pytest.approx(ssim(x, truth), abs=1e-5)
    assert result.misfit == pytest.approx(data_misfit(x, measured.y, measured.operator, noise=0.01), rel=1e-4)
    assert result.calls == 4
    written = read_image(out / result.file)
    np.testing.assert_allclose(written, 255 * x.permute(1, 2, 0).numpy(), atol=0.51)


def test_one_call_is_the_posterior_mean(folder, prior):
    """Independent Gaussian pixels: the mean is known."""
    (result,) = pictures(folder, prior, ["default"], ["denoise"], limit=1, **QUICK)
    truth = torch.from_numpy(read_image(folder / "b.png")[14:46, 19:51]).permute(2, 0, 1) / 255
    measured = measure(TASKS["denoise"], truth, "b.png", 0)
    gain = 0.25**2 / (0.25**2 + (25 / 255) ** 2)
    assert (result.method, result.calls) == ("one-call", 1)
    assert result.psnr == pytest.approx(psnr((0.4 + gain * (measured.y - 0.4)).clamp(0, 1), truth), abs=1e-3)


def test_it_goes_on_from_what_is_there(folder, prior, tmp_path):
    out = tmp_path / "out"
    run = lambda **more: pictures(folder, prior, ["ddrm:steps=2", "telea"], ["box", "random"], output=out, **QUICK, **more)  # noqa: E731, E501  # fmt: skip
    first = run()
    calls = prior.calls
    table = out / "results.csv"
    assert read_results(table) == first
    assert run() == first  # The seconds, too: nothing was run again.
    assert prior.calls == calls
    # Stopped in the middle of the last row, and a picture that was deleted.
    text = table.read_text()
    table.write_text(text[:-9])
    (out / first[0].file).unlink()
    again = run()
    assert numbers(again) == numbers(first)
    assert again[1:-1] == first[1:-1]
    assert prior.calls == calls + 2
    assert {result.run for result in read_results(table)} == {result.run for result in first}
    # Another seed, another number of draws or another prior is another run.
    run(seed=1)
    run(samples=2)
    other = PixelPrior(value_range=(-1, 1), channels=3)
    other.name = "other"
    pictures(folder, other, ["ddrm:steps=2"], ["box"], output=out, **QUICK)
    assert other.calls > 0
    table.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has the columns a,b"):
        run()


def test_the_mean_of_draws(folder, prior):
    one, mean = (pictures(folder, prior, ["ddnm:steps=10"], ["random"], samples=n, **QUICK) for n in (1, 8))
    assert [r.calls for r in one] == [10, 10]
    assert [r.calls for r in mean] == [80, 80]
    assert all(b.psnr > a.psnr + 0.5 for a, b in zip(one, mean, strict=True))
    assert "mean of 8" in markdown(mean)


def test_runs_at_given_numbers_of_calls(folder, prior):
    methods = ["ddnm:jump=2,repeats=2", "sdedit:strength=0.5", "telea"]
    results = pictures(folder, prior, methods, ["box"], calls=[6, 12], limit=1, **QUICK)
    told = {r.method: r.calls for r in results}
    assert told.pop("telea") == 0
    assert len(told) == 4
    assert all(calls <= 12 for calls in told.values())
    truth = torch.zeros(3, 32, 32)
    example = measure(TASKS["box"], truth, "zeros", 0)
    for wanted in (5, 20, 31):
        method = DDNM(jump=2, repeats=2)
        steps = steps_for(wanted, method, example, prior)
        counted = CountedPrior.of(prior)
        for n in (steps, steps + 1):
            before = counted.calls
            restore.solve(
                truth, Mask(torch.ones(32, 32)), method, prior=counted, steps=n, seed=0, progress=False
            )
            assert (counted.calls - before <= wanted) == (n == steps)
    with pytest.raises(ValueError, match="makes 7 network calls at least"):
        steps_for(5, DAPS(ode_steps=7), example, prior)


def test_the_default_is_what_auto_chooses(folder, prior):
    results = pictures(folder, prior, ["default", "auto:steps=4"], ["x4", "blur"], limit=1, **QUICK)
    assert [result.method for result in results] == 2 * [
        "dpir:steps=20",
        "dpir:steps=4",
    ]
    with pytest.raises(TypeError, match="auto has no option 'zeta'; its options are steps"):
        pictures(folder, prior, ["auto:zeta=1"], ["x4"], **QUICK)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("telea:radius=x", "telea: radius is a number, not 'x'"),
        ("nlm:patch_size=2.5", "nlm: patch_size is a whole number, not 2.5"),
        ("wiener:balance=True", "wiener: balance is a number, not True"),
        ("deepinv-dps:steps=x", "deepinv-dps: steps is a whole number, not 'x'"),
    ],
)
def test_options_that_are_no_numbers_are_refused_by_name(folder, prior, method, message):
    with pytest.raises(TypeError, match=message):
        pictures(folder, prior, [method], **QUICK)
    assert pictures(folder, prior, ["wiener:balance=none"], ["blur"], limit=1, **QUICK)


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_a_seed_is_a_whole_number(folder, prior, seed, error):
    with pytest.raises(error, match=f"a seed is a whole number of at least 0, not {seed}"):
        pictures(folder, prior, ["telea"], ["box"], seed=seed, **QUICK)


def test_two_priors_in_a_task_are_told_apart_and_one_is_not_named(folder, prior, tmp_path):
    """A task that is done by a prior of its own, as colours are, says nothing new of the others."""
    (one,) = pictures(folder, prior, ["ddnm:steps=2"], ["box"], limit=1, **QUICK)
    (colour,) = pictures(folder, prior, ["ddnm:steps=2"], ["colour"], limit=1, **QUICK)
    other = dataclasses.replace(colour, prior="other")
    assert "(" not in markdown([one, other]).partition("\n")[2]
    table = markdown([one, dataclasses.replace(one, prior="other", method="ddnm:steps=3"), other])
    assert f"| ddnm:steps=2 ({one.prior}) |" in table
    assert "| ddnm:steps=3 (other) |" in table
    assert "| colourisation | ddnm:steps=2 |" in table


def test_the_default_for_colours_is_the_repair(folder, prior):
    named = ["colorize:draws=2,steps=3", "colorize:draws=2,method=auto"]
    results = pictures(folder, prior, ["default", *named], ["colour"], limit=1, **QUICK)
    assert [r.method for r in results] == ["colorize", *named]
    assert [r.calls for r in results] == [320, 6, 40]
    (one,) = pictures(folder, prior, ["default"], ["colour"], limit=1, samples=2, **QUICK)
    assert one.method.startswith("diffpir")  # The mean of two draws is asked for.
    for asked in ({"samples": 2}, {"calls": [20]}):
        with pytest.raises(ValueError, match="nothing to run: colorize on colour: it makes one picture"):
            pictures(folder, prior, ["colorize"], ["colour"], limit=1, **QUICK, **asked)
    with pytest.raises(ValueError, match="unknown method 'nope'"):
        pictures(folder, prior, ["colorize:method=nope"], ["colour"], limit=1, **QUICK)


def test_colours_are_from_the_prior_that_the_package_has_for_them(folder):
    named = ["nothing", "colorize:draws=2,steps=2", "colorize:draws=2,steps=2,method=ddnm", "ddnm:steps=2"]
    results = pictures(folder, "photo", named, ["colour"], limit=1, **QUICK)
    assert [r.prior.partition("-")[0] for r in results] == ["", "colours", "photo", "photo"]
    assert [r.calls for r in results] == [0, 4, 4, 2]
    auto = pictures(folder, "photo", ["colorize:draws=2,steps=2,method=auto"], ["colour"], limit=1, **QUICK)
    assert (auto[0].prior, auto[0].psnr) == (results[1].prior, results[1].psnr)
    given = pictures(folder, restore.load_prior("photo"), named[1:2], ["colour"], limit=1, **QUICK)
    assert given[0].prior == results[2].prior
    assert given[0].psnr != results[1].psnr


def test_colorize_is_for_colours(folder, prior):
    results = pictures(folder, prior, ["colorize", "default"], ["x4"], limit=1, **QUICK)
    assert len(results) == 1


def test_classical_tools_beat_nothing(folder):
    results = pictures(folder, PixelPrior(), ["nothing", "classical"], limit=1, size=40, progress=False)
    for task in ("denoise", "blur", "blur-noisy"):
        of_task = {r.method: r.psnr for r in results if r.task == task}
        assert len(of_task) >= 2
        assert all(value > of_task["nothing"] for name, value in of_task.items() if name != "nothing")
    # A hole left black, and the picture enlarged pixel by pixel.
    truth = torch.from_numpy(read_image(folder / "b.png")[10:50, 15:55]).permute(2, 0, 1) / 255
    for task in ("random", "text", "box", "x4"):
        measured = measure(TASKS[task], truth, "b.png", 0)
        y = measured.y.repeat_interleave(4, 1).repeat_interleave(4, 2) if task == "x4" else measured.y
        values = [r.psnr for r in results if r.task == task]
        assert len(values) == 2
        assert min(values) > psnr(y.clamp(0, 1), truth)
    assert {r.task for r in results} == set(TASKS)


def test_tools_take_options(folder):
    results = pictures(folder, PixelPrior(), ["wiener", "wiener:balance=0.3"], ["blur"], limit=1, **QUICK)
    assert [r.method for r in results] == ["wiener", "wiener:balance=0.3"]
    assert results[0].psnr > results[1].psnr


@pytest.mark.parametrize("task", TASKS)
def test_peers_get_the_same_prior_and_operator(task):
    pytest.importorskip("deepinv")
    from restore.benchmark import peers

    prior = PixelPrior(value_range=(-1, 1), channels=3)
    truth = torch.rand(3, 32, 32)
    measured = measure(TASKS[task], truth, "random", 0)
    physics = peers._physics(measured, torch.device("cpu"))
    clean = measured.operator(truth[None])
    torch.testing.assert_close(physics.A(truth[None]), clean, atol=1e-5, rtol=0)
    torch.testing.assert_close(physics.A_adjoint(clean), measured.operator.adjoint(clean), atol=1e-5, rtol=0)
    gain = 0.25**2 / (0.25**2 + 0.1**2)
    estimate = peers._denoiser(prior)(truth[None], 0.1)[0]
    torch.testing.assert_close(estimate, 0.4 + gain * (truth - 0.4), atol=2e-3, rtol=0)
    for run in peers.PEERS.values():
        x = run(measured, prior, 0, steps=5)
        assert x.shape == truth.shape
        assert torch.equal(x, run(measured, prior, 0, steps=5))
        assert not torch.equal(x, run(measured, prior, 1, steps=5))


@pytest.mark.parametrize("size", [96, 256])
def test_the_writing_covers_what_it_says(size):
    covered = ~text_mask(size)
    assert float(covered.float().mean()) == pytest.approx(0.15, abs=0.02)


def test_a_method_that_diverges_does_not_stop_the_table(folder):
    broken = PixelPrior(channels=3, broken_from=3)
    results = pictures(folder, broken, ["ddrm:steps=4", "telea"], ["box"], limit=1, **QUICK)
    assert math.isnan(results[0].psnr)
    assert results[1].psnr > 10


def test_a_prior_is_known_by_its_weights():
    prior = restore.load_prior("photo")
    before = fingerprint(prior)
    assert fingerprint(restore.load_prior("photo")) == before
    with torch.no_grad():
        next(prior.network.parameters()).flatten()[0] += 1e-3
    assert fingerprint(prior) != before
    assert isinstance(CountedPrior.of(prior), restore.Prior)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"methods": ["ddmn"]}, ValueError, "unknown method 'ddmn'; known are default, classical"),
        ({"methods": ["ddnm:zeta=1"]}, TypeError, "ddnm has no option 'zeta'"),
        ({"methods": ["ddnm:eta"]}, ValueError, "option=value"),
        ({"methods": ["telea:h=1"]}, TypeError, "telea has no option 'h'; its options are radius"),
        ({"methods": ["ddnm:steps=3"], "calls": [5]}, ValueError, "leave out either"),
        ({"tasks": ["x3"]}, ValueError, "unknown task 'x3'; known are denoise"),
        ({"size": 30}, ValueError, "multiple of 4"),
        ({"size": 64}, ValueError, "60 x 70 pixels, and 64 x 64 are wanted"),
        ({"samples": 0}, ValueError, "samples must be at least 1"),
    ],
)
def test_mistakes_are_told(folder, prior, change, kind, words):
    with pytest.raises(kind, match=words):
        pictures(folder, prior, **{**QUICK, **change})
    assert prior.calls == 0


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no pictures in"):
        pictures(tmp_path, PixelPrior())


def test_instances_and_methods_that_do_not_suit(folder, prior, capsys):
    results = pictures(
        folder, prior, [DDNM(eta=0.5), "repaint:steps=2"], ["x4"], limit=1, size=32, progress=True
    )
    assert [r.method.partition(":")[0] for r in results] == ["ddnm"]
    assert "eta=0.5" in results[0].method
    assert "repaint on x4: it needs a Mask" in capsys.readouterr().err
    assert parse("ddrm:steps=2").options == {"steps": 2}


def test_the_command(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["benchmark", str(folder), "--size", "32", "--tasks", "x4", "random", "--quiet", "--methods"]
    assert main([*command, "ddnm:steps=1", "bicubic", "-o", "out"]) == 0
    printed = capsys.readouterr().out
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert printed.splitlines()[:-1] == lines
    assert lines[0].startswith("| task | method | PSNR | SSIM |")
    assert len(lines) == 2 + 3
    assert len({line.count("|") for line in lines}) == 1
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3
    bicubic = [float(row["psnr"]) for row in rows if row["method"] == "bicubic"]
    assert f"| bicubic | {np.mean(bicubic):.2f} |" in printed
    assert {p.name for p in (tmp_path / "out" / "sheets").iterdir()} == {"x4.png", "random.png"}
    assert Image.open(tmp_path / "out" / "sheets" / "x4.png").size[0] > 4 * 32
    assert main([*command, "nonsense"]) == 2
    assert "unknown method 'nonsense'" in capsys.readouterr().err


def test_captions_have_room_beside_small_pictures(folder, prior, tmp_path):
    pictures(folder, prior, ["bicubic"], ["x4"], limit=1, output=tmp_path / "out", **QUICK)
    # Truth, measurement, result, by a whole factor to at least 192, in a row below their captions.
    assert Image.open(tmp_path / "out" / "sheets" / "x4.png").size[0] > 3 * 192


def test_exact_pictures_are_counted_beside_the_mean(tmp_path, prior):
    place = tmp_path / "photos"
    write_image(place / "grey.png", np.full((32, 32, 3), 128, np.uint8))
    results = pictures(place, prior, ["telea"], ["box"], **QUICK)
    assert results[0].psnr == math.inf
    assert "| exact | 1.000 |" in markdown(results)
    write_image(place / "a.png", data.astronaut()[40:72, 190:222])
    results = pictures(place, prior, ["telea"], ["box"], **QUICK)
    finite = [r.psnr for r in results if r.psnr != math.inf]
    assert len(finite) == 1
    assert f"| {finite[0]:.2f} (1 exact) |" in markdown(results)


def test_another_version_of_the_code_runs_again_and_is_not_mixed_in(folder, prior, tmp_path, monkeypatch):
    from restore.benchmark import runs

    options = {"output": tmp_path / "out", "limit": 1, **QUICK}
    first = pictures(folder, prior, ["ddrm:steps=2"], ["x4"], **options)
    assert first[0].code == runs.code_version()
    before = prior.calls
    assert pictures(folder, prior, ["ddrm:steps=2"], ["x4"], **options) == first
    assert prior.calls == before
    monkeypatch.setattr(restore, "__version__", "9.9")
    second = pictures(folder, prior, ["ddrm:steps=2"], ["x4"], **options)
    assert prior.calls > before
    assert [r.code.partition("-")[0] for r in second] == ["9.9"]
    assert read_results(tmp_path / "out" / "results.csv") == [*first, *second]


def test_the_fingerprint_of_the_code_changes_with_its_files(tmp_path, monkeypatch):
    from restore.benchmark import runs

    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.py").write_text("x = 1")
    monkeypatch.setattr(restore, "__path__", [str(tmp_path)])
    one = runs.code_version()
    assert runs.code_version() == one
    (tmp_path / "part" / "a.py").write_text("x = 2")
    two = runs.code_version()
    (tmp_path / "part" / "a.py").rename(tmp_path / "part" / "b.py")
    assert len({one, two, runs.code_version()}) == 3
