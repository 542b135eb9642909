"""The benchmark against known posteriors: distances, problems, protocols, tables."""

import csv
import math

import pytest
import torch

from operators import LinearOperator
from restore.analytic import operator_matrix
from restore.benchmark.posterior import (
    Contender,
    Table,
    correlated_gaussian,
    gaussian_protocol,
    method_contender,
    mixture,
    mixture_protocol,
    moment_errors,
    run_posterior,
    sliced_wasserstein,
)
from restore.benchmark.posterior.peers import peer_contenders
from restore.cli import main
from restore.methods import DDRM, REGISTRY


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -------------------------------------------------------------------- distances


def test_the_distance_of_a_set_to_itself_is_zero_in_any_order():
    a = draw(50, 1, 2, 3)
    assert sliced_wasserstein(a, a, 100) == 0
    assert sliced_wasserstein(a, a.flip(0), 100) == 0


@pytest.mark.parametrize("dimension", [2, 8])
def test_the_distance_of_a_shifted_set_is_the_mean_projection_of_the_shift(dimension):
    """E |<u, v>| for u uniform on the sphere: |v| Gamma(d / 2) / (sqrt(pi) Gamma((d + 1) / 2))."""
    a, shift = draw(20, dimension), torch.linspace(-1, 2, dimension, dtype=torch.float64)
    expected = float(shift.norm()) * math.gamma(dimension / 2) / math.gamma((dimension + 1) / 2)
    assert sliced_wasserstein(a, a + shift) == pytest.approx(expected / math.sqrt(math.pi), rel=0.02)


def test_the_distance_of_two_widths_is_that_of_normal_quantiles():
    """In one dimension W1(N(0, 1), N(0, 3)) = 2 E|z|."""
    a, b = draw(200_000, 1), 3 * draw(200_000, 1, seed=1)
    assert sliced_wasserstein(a, b, 2) == pytest.approx(2 * math.sqrt(2 / math.pi), rel=0.02)


def test_parts_of_the_slices_do_not_change_the_distance(monkeypatch):
    a, b = draw(30, 4), draw(30, 4, seed=1)
    whole = sliced_wasserstein(a, b, 50, seed=3)
    monkeypatch.setattr("restore.benchmark.posterior.distances.NUMBERS_AT_ONCE", 30 * 50)
    assert sliced_wasserstein(a, b, 50, seed=3) == pytest.approx(whole)
    monkeypatch.setattr("restore.benchmark.posterior.distances.NUMBERS_AT_ONCE", 30 * 7)
    assert sliced_wasserstein(a, b, 50, seed=3) == pytest.approx(whole, rel=0.3)
    assert sliced_wasserstein(a, b, 50, seed=4) != whole


def test_what_has_no_distance_is_refused():
    with pytest.raises(ValueError, match="two sets of draws of one shape"):
        sliced_wasserstein(draw(3, 2), draw(4, 2))
    with pytest.raises(ValueError, match="slices must be at least 1, not 0"):
        sliced_wasserstein(draw(3, 2), draw(3, 2), 0)


# -------------------------------------------------------------------- problems


def test_the_correlated_gaussian():
    problem = correlated_gaussian(3)
    covariance = problem.prior.distribution.covariance
    assert float(covariance[0, 0]) == pytest.approx(0.15**2 * 1.0001)
    assert float(covariance[0, 9]) == pytest.approx(0.15**2 * math.exp(-2 / (2 * 1.5**2)))
    assert int(problem.operator.mask.sum()) == 32
    missing = problem.operator.mask[0] == 0
    assert not problem.y[missing].any()
    assert torch.equal(problem.y, correlated_gaussian(3).y)
    assert not torch.equal(problem.y, correlated_gaussian(4).y)


@pytest.mark.parametrize(("dimension", "measurements"), [(8, 1), (8, 4), (80, 2)])
def test_the_mixture(dimension, measurements):
    problem = mixture(1, dimension=dimension, measurements=measurements)
    prior = problem.prior.distribution
    assert prior.means.shape == (25, 1, 1, dimension)
    assert prior.means[7].flatten()[:4].tolist() == [-8, 0, -8, 0]
    assert float(prior.weights.sum()) == pytest.approx(1)
    assert isinstance(problem.operator, LinearOperator)
    values = torch.linalg.svdvals(operator_matrix(problem.operator, (1, 1, dimension)))
    assert len(values) == measurements
    assert 0 < float(values.min()) <= float(values.max()) < 1
    assert 0 < problem.noise < float(values.max())
    assert problem.y.shape == (1, 1, measurements)


def test_flat_weights_are_even_on_the_simplex():
    """Of 25 such weights, the square of each has the mean 2 / (25 * 26); those of squared normals, 3 / (25 * 27)."""

    def second_moment(flat):
        problems = [mixture(seed, flat=flat).prior.distribution.weights for seed in range(400)]
        return float(torch.stack(problems).square().mean())

    assert second_moment(True) == pytest.approx(2 / (25 * 26), rel=0.03)
    assert second_moment(False) == pytest.approx(3 / (25 * 27), rel=0.03)
    assert torch.equal(mixture(5, flat=True).y, mixture(5, flat=True).y)


def test_a_mixture_of_odd_dimension_is_refused():
    with pytest.raises(
        ValueError, match="even dimension and at most as many measurements; got a dimension of 7 and 1 of"
    ):
        mixture(dimension=7)
    with pytest.raises(ValueError, match="got a dimension of 4 and 5 of"):
        mixture(dimension=4, measurements=5)


# -------------------------------------------------------------------- protocols

SAMPLER = Contender("oracle", 5, lambda _: "", lambda p, n, _, seed: p.posterior.sample(n, 1000 + seed))
NARROW = Contender(
    "narrow",
    5,
    lambda _: "",
    lambda p, n, _, seed: p.posterior.mean + 0.5 * (p.posterior.sample(n, 7 + seed) - p.posterior.mean),
)
REFUSING = Contender("choosy: x", 5, lambda _: "needs more", SAMPLER.draw)


def records_of(table, name, key):
    return [record[key] for record in table.records if record["method"] == name]


def test_an_exact_sampler_has_the_error_of_chance_and_the_right_variance():
    table = gaussian_protocol([SAMPLER, NARROW, REFUSING], draws=2000, problems=2)
    for key in ("mean, measured", "mean, missing"):
        floor = sum(records_of(table, "exact draws", key))
        assert sum(records_of(table, "oracle", key)) == pytest.approx(floor, rel=0.5)
        assert sum(records_of(table, "prior, ignoring y", key)) > 20 * floor
    for key in ("variance, measured", "variance, missing"):
        assert records_of(table, "oracle", key) == pytest.approx([1, 1], abs=0.03)
        assert records_of(table, "narrow", key) == pytest.approx([0.25, 0.25], abs=0.01)
    assert [row[:2] for row in table.rows][2:] == [
        ["oracle", "200"],
        ["narrow", "200"],
        ["choosy: x [1]", "200"],
    ]
    assert table.notes == ["choosy needs more"]


def test_the_errors_written_out():
    """A mean that is off by three deviations of the prior where it is measured, by one where it is not."""
    problem = correlated_gaussian(0)
    exact = problem.posterior.sample(4, 0)
    centred = exact - exact.mean(0) + problem.posterior.mean
    deviation = problem.prior.distribution.variance.sqrt()
    off = deviation * (1 + 2 * problem.operator.mask[0].double())
    errors = moment_errors(problem, centred + off)
    assert errors[:2] == pytest.approx((3, 1))


def test_an_exact_sampler_is_at_the_floor_of_the_mixture():
    table = mixture_protocol(
        [SAMPLER], dimensions=[8], measurements=[1, 2], problems=2, draws=500, slices=200
    )
    floor = sum(records_of(table, "exact draws", "distance"))
    assert sum(records_of(table, "oracle", "distance")) < 2 * floor
    assert sum(records_of(table, "prior, ignoring y", "distance")) > 10 * floor
    assert table.header[2:] == ["d = 8, d_y = 1", "d = 8, d_y = 2"]
    assert all("±" in cell for row in table.rows for cell in row[2:])


def test_draws_that_are_not_finite_get_a_note_and_no_figure():
    broken = Contender(
        "broken", 5, lambda _: "", lambda p, n, *_: torch.full((n, *p.posterior.mean.shape), torch.nan)
    )
    table = mixture_protocol([broken], dimensions=[4], measurements=[1], problems=2, draws=5, slices=2)
    assert table.rows[-1] == ["broken", "5", "- [1]"]
    assert table.notes == ["broken: its draws are not finite"]


# -------------------------------------------------------------------- methods


def test_every_method_is_measured_or_says_what_it_needs():
    """Whoever joins the registry is in the table."""
    table = gaussian_protocol([method_contender(name) for name in REGISTRY], 3, draws=2, problems=1)
    names = [row[0].partition(" ")[0] for row in table.rows[2:]]
    assert names == list(REGISTRY)
    assert "repaint needs a measurement without noise (noise=0)" in table.notes


def test_options_of_methods():
    assert method_contender("dps:zeta=0.5").steps == REGISTRY["dps"].default_steps
    problem = correlated_gaussian(0)
    one, other = (method_contender(f"ddrm:eta={eta}").draw(problem, 2, 2, 0) for eta in ("0.7", "0.1"))
    assert torch.equal(one, method_contender("ddrm").draw(problem, 2, 2, 0))
    assert not torch.equal(one, other)
    with pytest.raises(ValueError, match="option=value"):
        method_contender("dps:0.5")
    with pytest.raises(TypeError, match="no option 'beta'"):
        method_contender("dps:beta=1")
    with pytest.raises(ValueError, match="'auto' chooses a method for each problem"):
        method_contender("auto")
    with pytest.raises(ValueError, match="unknown method 'dsp'"):
        method_contender("dsp")


def test_peers_that_are_installed_draw_or_say_what_they_need():
    peers = peer_contenders()
    if not peers:
        pytest.skip("neither deepinv nor azula is installed")
    for problem in (correlated_gaussian(0), mixture(0)):
        for peer in peers:
            if not peer.lacking(problem):
                one, again = (peer.draw(problem, 3, 4, 1) for _ in range(2))
                assert one.shape == (3, *problem.posterior.mean.shape)
                assert torch.isfinite(one).all()
                assert torch.equal(one, again)


# -------------------------------------------------------------------- the command


def test_a_run_prints_its_tables_and_is_the_same_again(tmp_path, capsys):
    options = {"steps": 2, "draws": 4, "problems": 1, "dimensions": [8], "measurements": [1], "peers": False}
    first = run_posterior(["ddrm"], **options, output=tmp_path / "first", progress=False)
    again = run_posterior(["ddrm"], **options, output=tmp_path, progress=False)
    printed = capsys.readouterr().out
    assert first[0].markdown() in printed
    assert "| ddrm " in printed
    for a, b in zip(first, again, strict=True):
        drop = lambda records: [{k: v for k, v in r.items() if k != "seconds"} for r in records]  # noqa: E731
        assert drop(a.records) == drop(b.records)
    assert printed.endswith((tmp_path / "table.md").read_text())
    with (tmp_path / "mixture.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["method"] for line in lines] == ["exact draws", "prior, ignoring y", "ddrm"]
    assert float(lines[2]["distance"]) == again[1].records[2]["distance"]
    with pytest.raises(
        ValueError, match="unknown protocol 'gauss'; known are gaussian, mixture, flat-mixture"
    ):
        run_posterior(["ddrm"], protocols=["gauss"])


def test_the_command_takes_draws_problems_dimensions_and_steps(tmp_path, capsys):
    command = ["benchmark", "--posterior", "--methods", "ddrm", "--quiet", "-o", str(tmp_path)]
    numbers = ["--draws", "4", "--problems", "2", "--dimensions", "8,10", "--steps", "3"]
    assert main([*command, "--protocols", "mixture", *numbers]) == 0
    printed = capsys.readouterr().out
    assert "4 draws, 2 problems" in printed
    assert "Correlated Gaussian" not in printed
    with (tmp_path / "mixture.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["method"] == "ddrm"]
    assert {line["dimension"] for line in lines} == {"8", "10"}
    assert {line["problem"] for line in lines} == {"0", "1"}
    assert {line["steps"] for line in lines} == {"3"}


def test_a_method_of_ones_own_takes_part(capsys):
    class Mine(DDRM):
        name = "mine"

    options = {"steps": 2, "draws": 4, "problems": 1, "peers": False, "progress": False}
    (table,) = run_posterior([Mine(), "ddrm"], protocols=["gaussian"], **options)
    mine, theirs = ([r for r in table.records if r["method"] == name] for name in ("mine", "ddrm"))
    assert [r["mean, missing"] for r in mine] == [r["mean, missing"] for r in theirs]
    assert mine
    capsys.readouterr()


def test_the_mixture_of_flat_weights_is_a_protocol_of_its_own(tmp_path, capsys):
    options = {"steps": 2, "draws": 4, "problems": 1, "dimensions": [8], "measurements": [1], "peers": False}
    both = ["flat-mixture", "mixture"]
    squared, flat = run_posterior(["ddrm"], protocols=both, **options, output=tmp_path, progress=False)
    assert "Mixture of 25 Gaussians of flat weights" in flat.markdown()
    assert "Mixture of 25 Gaussians:" in squared.markdown()
    distances = [[record["distance"] for record in table.records] for table in (squared, flat)]
    expected = [mixture(0, flat=flat).noise for flat in (False, True)]
    assert [table.records[0]["noise"] for table in (squared, flat)] == expected
    assert distances[0] != distances[1]
    assert (tmp_path / "flat-mixture.csv").exists()
    assert (tmp_path / "mixture.csv").exists()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--posterior", "--draws", "1"], "draws must be at least 2, not 1"),
        (["--posterior", "--steps", "0"], "steps must be at least 1, not 0"),
        (["--posterior", "--problems", "0"], "problems must be at least 1, not 0"),
        (["--posterior", "--dimensions", "7"], "expected an even dimension"),
        (["--posterior", "--limit", "3"], "--posterior takes --methods, --protocols, --draws"),
        (["photos", "--draws", "3"], "--draws is for --posterior"),
    ],
)
def test_the_command_refuses_what_does_not_fit(arguments, message, capsys, tmp_path):
    more = ["--methods", "ddrm", "--quiet", "-o", str(tmp_path)]
    if "7" in arguments:
        more += ["--protocols", "mixture"]
    assert main(["benchmark", *arguments, *more]) == 2
    assert message in capsys.readouterr().err


def test_tables_are_aligned_and_footnotes_counted_once():
    table = Table("T", ["who", "x"], [["a", "10"]])
    assert [table.note("one"), table.note("two"), table.note("one")] == ["[1]", "[2]", "[1]"]
    assert table.markdown().splitlines() == [
        "**T**", "", "| who |  x |", "|:----|---:|", "| a   | 10 |", "", "[1] one  ", "[2] two  ",
    ]  # fmt: skip
