import itertools
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from toys import PixelPrior, ProbeNetwork, smooth_prior

import operators
import restore
from operators import (
    JPEG,
    Blur,
    Downsample,
    FromCallable,
    Gamma,
    Grayscale,
    Identity,
    LinearOperator,
    Mask,
    box_mask,
    gaussian_kernel,
    random_mask,
)
from restore.images import ImageFormat, read_image
from restore.methods import DDNM, DDRM, DPS, REGISTRY, DiffPIR, RePaint, SDEdit, as_method
from restore.metrics import psnr
from restore.prior import Prior
from restore.quality import QualityWarning
from restore.samplers import DDIM, DDPM, DPMSolver
from restore.schedule import Schedule
from restore.solve import checks
from restore.solve.linearity import check_linear
from restore.solve.ranges import in_range_of

restore_memory = __import__("sys").modules["restore.memory"]
restore_solve = __import__("sys").modules["restore.solve"]  # the module; `restore.solve` is the function
CAT = Path(__file__).parents[1] / "examples" / "images" / "cat.png"
MASK = Mask(torch.tensor([[1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1]]).bool())


def solve(y, operator=None, method="dps", **options):
    """``restore.solve`` with the defaults of these tests: independent Gaussian pixels, few steps, a seed, no bar."""
    options = {"prior": PixelPrior(), "steps": 5, "seed": 0, "progress": False, **options}
    return restore.solve(y, Identity() if operator is None else operator, method, **options)


def tiny_prior(seed=0, **options):
    from restore.networks import photo_unet

    torch.manual_seed(seed)
    return Prior(photo_unet((8, 8), layers=1), Schedule.linear(), **options)


# ------------------------------------------------------------------------------ what comes in decides what goes out


@pytest.mark.parametrize(
    "shape", [(3, 4), (3, 4, 1), (3, 4, 3), (2, 3, 4, 3)], ids=["grey", "one channel", "colour", "batch"]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.float16])
def test_numpy_in_numpy_out(shape, dtype):
    y = np.random.default_rng(0).random(shape)
    y = (y * np.iinfo(dtype).max).astype(dtype) if np.issubdtype(dtype, np.integer) else y.astype(dtype)
    x = solve(y, MASK, "repaint", prior=PixelPrior(bounded=True))
    assert isinstance(x, np.ndarray)
    assert x.shape == shape
    assert x.dtype == dtype
    white = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    assert x.min() >= 0
    assert x.max() <= white
    kept = np.broadcast_to(MASK.mask.numpy().reshape(3, 4, *[1] * (len(shape) > 2)).astype(bool), shape)
    np.testing.assert_allclose(x[kept] / white, y[kept] / white, atol=1e-6)
    assert np.ptp(x[~kept] / white) > 0.05


@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4), (3, 3, 4), (2, 3, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
def test_torch_in_torch_out(shape, dtype):
    y = torch.rand(shape)
    y = (255 * y).to(dtype) if dtype == torch.uint8 else y.to(dtype)
    x = solve(y, MASK, "repaint", prior=PixelPrior(bounded=True))
    assert isinstance(x, torch.Tensor)
    assert x.shape == y.shape
    assert x.dtype == dtype
    assert not x.requires_grad
    kept = MASK.mask[0, 0].bool().expand(shape)
    torch.testing.assert_close(x[kept], y[kept])


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pil_in_pil_out(mode):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    y = Image.fromarray(pixels).convert(mode)
    x = solve(y, MASK, "repaint", prior=PixelPrior(bounded=True))
    assert isinstance(x, Image.Image)
    assert (x.size, x.mode) == (y.size, mode)
    kept = MASK.mask[0, 0].numpy().astype(bool)
    np.testing.assert_array_equal(np.asarray(x)[kept], np.asarray(y)[kept])
    draws = solve(y, MASK, "repaint", samples=2)
    assert [type(d) for d in draws] == [Image.Image] * 2


def test_all_kinds_get_the_same_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    of_uint8 = solve(pixels, MASK, "repaint")
    of_float = solve(pixels.astype(np.float32) / 255, MASK, "repaint")
    of_torch = solve(torch.from_numpy(pixels).movedim(-1, 0).float() / 255, MASK, "repaint")
    of_pil = solve(Image.fromarray(pixels), MASK, "repaint")
    np.testing.assert_array_equal(of_uint8, np.asarray(of_pil))
    np.testing.assert_array_equal(of_float, of_torch.movedim(0, -1).numpy())
    np.testing.assert_array_equal(of_uint8, np.rint(of_float.clip(0, 1) * 255).astype(np.uint8))


def test_the_result_has_the_shape_of_the_picture_and_not_of_the_measurement():
    y = np.random.default_rng(0).random((3, 4, 3))
    assert solve(y, Downsample(2), "sdedit").shape == (6, 8, 3)
    grey = solve(y[..., 0], Grayscale(), "sdedit")
    assert grey.shape == (3, 4, 3)
    x = solve(y, Blur(torch.ones(2, 3) / 6, boundary="valid"), "sdedit")
    assert x.shape == (4, 6, 3)


def test_samples_are_a_leading_axis_also_for_one():
    y = torch.rand(2, 3, 3, 4)
    assert solve(y, samples=None).shape == (2, 3, 3, 4)
    assert solve(y, samples=1).shape == (1, 2, 3, 3, 4)
    assert solve(y, samples=3).shape == (3, 2, 3, 3, 4)
    assert solve(y[0], samples=3).shape == (3, 3, 3, 4)
    assert torch.equal(solve(y, samples=1)[0], solve(y))


# ------------------------------------------------------------------------------ units and ranges


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([(np.uint8, 255), (np.uint16, 65535)]), st.floats(0.001, 2.0))
def test_noise_is_in_the_units_of_the_measurement(kind, noise):
    dtype, white = kind
    y = np.random.default_rng(0).integers(0, white, (3, 4, 3)).astype(dtype)
    as_float = solve(y.astype(np.float64) / white, Identity(), "sdedit", noise=noise)
    integer = solve(y, Identity(), "sdedit", noise=noise * white)
    np.testing.assert_allclose(integer.astype(float), as_float.clip(0, 1) * white, atol=0.51 + white * 1e-6)
    if noise > 0.06:  # and it is not without effect
        assert np.abs(as_float - solve(y.astype(np.float64) / white, Identity(), "sdedit")).max() > 1e-4


class Spy(SDEdit):
    """Keeps the problem that it was given."""

    problems = []  # noqa: RUF012

    def start(self, t):
        Spy.problems.append(self.problem)
        return super().start(t)


def problem_of(y, operator, prior, **options):
    Spy.problems.clear()
    solve(y, operator, Spy(), prior=prior, steps=2, **options)
    (problem,) = Spy.problems
    return problem


def test_the_noise_level_in_the_range_of_the_prior():
    y = np.full((3, 4, 3), 51, np.uint8)
    problem = problem_of(y, Identity(), PixelPrior(value_range=(-1, 1)), noise=25.5)
    assert problem.noise.tolist() == pytest.approx([0.2])
    torch.testing.assert_close(problem.y, torch.full((1, 3, 3, 4), -0.6))
    problem = problem_of(y, Identity(), PixelPrior(), noise=25.5)
    assert problem.noise.tolist() == pytest.approx([0.1])
    torch.testing.assert_close(problem.y, torch.full((1, 3, 3, 4), 0.2))


@pytest.mark.parametrize(
    "operator",
    [
        MASK,
        Mask(torch.rand(3, 4, generator=torch.Generator().manual_seed(0))),
        Blur(torch.rand(3, 3, generator=torch.Generator().manual_seed(0)), boundary="zero"),
        Grayscale(),
        Identity(),
        FromCallable(lambda x: x**2 + 0.1),
        JPEG(50),
    ],
    ids=lambda o: type(o).__name__,
)
@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0), (-0.5, 2.0)])
def test_a_picture_in_the_range_of_the_prior_fits_its_measurement(operator, value_range):
    """Whatever x: if y = A(x), then the converted operator measures the converted y of the converted x."""
    low, high = value_range
    x = torch.rand(2, 3, 3, 4)
    y = operator(x)
    if operator.linear:
        problem = problem_of(y, operator, PixelPrior(value_range=value_range))
        physics, target, noise = problem.operator, problem.y, problem.noise
    else:
        prior = PixelPrior(value_range=value_range)
        target, physics, noise = in_range_of(prior, y, operator, torch.zeros(2), (3, 3, 4))
    torch.testing.assert_close(physics(low + (high - low) * x), target, rtol=1e-4, atol=1e-5)
    assert noise.tolist() == [0, 0]


def test_what_was_not_measured_stays_zero():
    problem = problem_of(MASK(torch.rand(1, 3, 3, 4)), MASK, PixelPrior(value_range=(-1, 1)))
    hidden = (MASK.mask == 0).expand_as(problem.y)
    assert bool((problem.y[hidden] == 0).all())
    assert bool((problem.y[~hidden] != 0).all())


def twin_priors(**options):
    """The same diffusion of the same pictures, once in [0, 1] with half the noise, once in [-1, 1].

    It starts from pure noise (alpha = 0), or the start would differ by what is left of the picture.
    """
    t = np.arange(1, 101) / 100
    alphas = np.cos(t * np.pi / 2)
    alphas[-1] = 0
    half = Schedule(alphas, np.sin(t * np.pi / 2) / 2, {"kind": "half"})
    full = Schedule(alphas, np.sin(t * np.pi / 2), {"kind": "full"})
    return PixelPrior(schedule=half, **options), PixelPrior(value_range=(-1, 1), schedule=full, **options)


@pytest.mark.parametrize(
    ("operator", "method"),
    [
        (MASK, RePaint(resamplings=2, jump=3)),
        (MASK, SDEdit(strength=0.6)),
        (MASK, "dps"),
        (Blur(gaussian_kernel(1.0, 5), boundary="zero"), "dps"),
        (Blur(gaussian_kernel(1.0, 5), boundary="zero"), SDEdit(strength=0.6)),
        (Gamma(2.0), "dps"),
        (FromCallable(lambda x: x**3 + 0.2 * x.flip(-1)), "dps"),
        (Grayscale(), "dps"),
    ],
    ids=["mask-repaint", "mask-sdedit", "mask-dps", "blur-dps", "blur-sdedit", "gamma", "cubic", "grey"],
)
@pytest.mark.parametrize("bounded", [False, True])
def test_the_range_of_the_prior_does_not_change_the_result(operator, method, bounded):
    in_unit, in_two = twin_priors(bounded=bounded)
    y = operator(torch.rand(2, 3, 3, 4))
    options = {"steps": 20, "noise": 0.0 if isinstance(method, RePaint) else 0.05}
    zeta = 60.0 if operator.linear else 3.0  # a distance in the prior's range: half as far in [0, 1]
    one = solve(y, operator, DPS(zeta=zeta / 2) if method == "dps" else method, prior=in_unit, **options)
    two = solve(y, operator, DPS(zeta=zeta) if method == "dps" else method, prior=in_two, **options)
    assert float(one.std()) > 0.05
    torch.testing.assert_close(one, two, rtol=1e-4, atol=2e-5)
    if method == "dps":  # the guidance has a part in the result
        assert float((one - solve(y, operator, DPS(zeta=0.0), prior=in_unit, **options)).abs().max()) > 0.02


# ------------------------------------------------------------------------------ batches


CASES = [
    (lambda b: Mask(random_mask((3, 4), 0.6, batch=b, seed=1)), RePaint(resamplings=2, jump=2), None),
    (lambda b: Mask(random_mask((3, 4), 0.6, batch=b, seed=1)), "dps", 0.1),
    (lambda b: Mask(random_mask((3, 4), 0.6, batch=b, seed=1)), "sdedit", [0.0, 0.3, 0.1, 0.5, 0.2]),
    (lambda b: Identity(), "sdedit", [0.0, 0.3, 0.1, 0.5, 0.2]),
    (lambda b: Gamma(2.0), "dps", [0.0, 0.3, 0.1, 0.5, 0.2]),
    *(
        (lambda b: Mask(random_mask((3, 4), 0.6, batch=b, seed=1)), name, noise)
        for name in sorted(REGISTRY.keys() - {"repaint", "dps", "sdedit"})
        for noise in (0.0, [0.0, 0.3, 0.1, 0.5, 0.2])
    ),
]


@pytest.mark.parametrize(("operator", "method", "noise"), CASES, ids=range(len(CASES)))
@pytest.mark.parametrize(
    "pixels", [None, 1, 24, 60], ids=["whole", "one by one", "two by two", "five by five"]
)
def test_an_image_does_not_depend_on_its_batch_bit_for_bit(operator, method, noise, pixels, monkeypatch):
    """Alone, in a batch of five, with three draws of each if there are draws, in parts: the same bits."""
    # A gradient keeps the network's activations: an eighth as many pixels are worked on at once.
    chosen = as_method(method)
    share = chosen.states_per_draw * (8 if chosen.gradient else 1)
    if pixels is not None:
        monkeypatch.setitem(restore_memory.PIXELS_AT_ONCE, "cpu", pixels * share)
    y, physics = torch.rand(5, 3, 3, 4), operator(5)
    y = physics(y)
    seeds, draws = [5, 6, 7, 8, 9], 3 if chosen.draws else 1
    prior = PixelPrior()
    together = solve(y, physics, method, seed=seeds, samples=draws, noise=noise or 0.0, prior=prior)
    if pixels is not None:
        own, at_once = chosen.states_per_draw, max(1, pixels * chosen.states_per_draw // 12)
        # Whole draws as long as one fits; the particles of a draw that does not are taken in parts.
        assert max(prior.batches) == (at_once // own * own or at_once)
    else:
        assert set(prior.batches) == {5 * draws * chosen.states_per_draw}
    monkeypatch.undo()
    for i in (0, 3):
        own = physics.select(torch.tensor([i]))
        level = noise[i] if isinstance(noise, list) else noise or 0.0
        alone = solve(y[i : i + 1], own, method, seed=seeds[i], samples=min(2, draws), noise=level)
        assert torch.equal(alone[:, 0], together[:2, i])


def test_images_with_one_seed_have_the_same_noise():
    y = torch.rand(3, 4).expand(2, 3, 3, 4)
    x = solve(y, MASK, "repaint", seed=4)
    assert torch.equal(x[0], x[1])
    x = solve(y, MASK, "repaint", seed=None)
    assert not torch.equal(x[0], x[1])
    assert not torch.equal(solve(y, MASK, "repaint", seed=None), x)


def test_seeds():
    y = torch.rand(3, 3, 4)
    assert torch.equal(solve(y, MASK, seed=0), solve(y, MASK, seed=0))
    assert not torch.equal(solve(y, MASK, seed=0), solve(y, MASK, seed=1))
    many = solve(y, MASK, seed=0, samples=4)
    assert torch.equal(many[0], solve(y, MASK, seed=0))
    assert not torch.equal(many[0], many[1])


@pytest.mark.parametrize("method", [RePaint(resamplings=2, jump=2), "dps", "sdedit"], ids=str)
def test_an_image_does_not_depend_on_its_batch_with_a_network(method, monkeypatch):
    prior = tiny_prior(prediction="v_prediction")  # epsilon loses digits where there is hardly any signal
    y, mask = torch.rand(5, 3, 9, 10), Mask(random_mask((9, 10), 0.5, batch=5, seed=0))
    y = mask(y)
    together = solve(y, mask, method, prior=prior, seed=[0, 1, 2, 3, 4])
    monkeypatch.setitem(restore_memory.PIXELS_AT_ONCE, "cpu", 180)
    in_parts = solve(y, mask, method, prior=prior, seed=[0, 1, 2, 3, 4])
    torch.testing.assert_close(in_parts, together, rtol=0, atol=1e-5)
    alone = solve(y[3], mask.select(torch.tensor([3])), method, prior=prior, seed=3)
    torch.testing.assert_close(alone, together[3], rtol=0, atol=1e-5)


def test_one_noise_level_for_all_and_one_per_image():
    y = torch.rand(3, 3, 3, 4)
    levels = [0.0, 0.2, 0.4]
    each = solve(y, Identity(), "sdedit", noise=levels)
    for i, level in enumerate(levels):
        assert torch.equal(each[i], solve(y, Identity(), "sdedit", noise=level)[i])
    assert torch.equal(each, solve(y, Identity(), "sdedit", noise=torch.tensor(levels)))


def test_class_labels_follow_their_images(monkeypatch):
    network = ProbeNetwork(3)
    prior = Prior(network, Schedule.linear(), "sample").with_labels([10, 20, 30])
    y = torch.rand(3, 3, 3, 4)
    monkeypatch.setitem(restore_memory.PIXELS_AT_ONCE, "cpu", 24 * 8)  # two pictures, with DPS's gradient
    solve(y, prior=prior, samples=2, steps=1)
    assert [seen.labels.tolist() for seen in network.seen] == [[10, 20], [30, 10], [20, 30]]
    solve(y[0], prior=prior.with_labels(4), samples=2, steps=1)
    assert network.seen[-1].labels.tolist() == [4, 4]
    with pytest.raises(ValueError, match="3 class labels for 2 images"):
        solve(y[:2], prior=prior)


# ------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize("method", REGISTRY)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (17, 9), (33, 5)])
def test_small_odd_and_oblong_pictures(method, size):
    x = solve(torch.rand(3, *size), Mask(random_mask(size, 0.5, seed=0)), method, prior=tiny_prior(), steps=2)
    assert x.shape == (3, *size)
    assert torch.isfinite(x).all()
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1


@pytest.mark.parametrize("method", REGISTRY)
def test_a_large_picture_of_odd_sides(method):
    y = np.full((509, 383, 3), 128, np.uint8)
    mask = np.ones((509, 383), bool)
    mask[200, 100] = False  # a hole of one pixel
    x = solve(y, Mask(mask), method, prior=tiny_prior(), steps=2)
    assert x.shape == y.shape
    assert x.dtype == np.uint8


@pytest.mark.parametrize(
    "operator",
    [
        Blur(gaussian_kernel(1.0, 5)),
        Blur(gaussian_kernel(1.0, 5), boundary="valid"),
        Downsample(3),
        Grayscale(),
        JPEG(30),
    ],
    ids=lambda o: repr(o)[:40],
)
def test_every_operator_with_an_odd_size(operator):
    x = torch.rand(1, 3, 15, 27)
    method = "sdedit" if operator.linear else "dps"
    for chosen in {method, "dps"}:
        out = solve(operator(x), operator, chosen, prior=tiny_prior(), steps=2)
        assert out.shape == x.shape
        assert torch.isfinite(out).all()


def test_the_prior_in_the_package():
    y = np.full((19, 26, 3), 100, np.uint8)
    mask = np.ones((19, 26), bool)
    mask[4:9, 4:12] = False
    x = restore.solve(y, Mask(mask), "repaint", steps=2, seed=0, progress=False)
    assert x.shape == y.shape
    np.testing.assert_array_equal(x[mask], y[mask])


# ------------------------------------------------------------------------------ callback, steps, sampler


def test_a_callback_sees_every_downward_step(monkeypatch):
    monkeypatch.setitem(restore_memory.PIXELS_AT_ONCE, "cpu", 24)
    states = []
    y = torch.rand(3, 3, 3, 4)
    prior = PixelPrior(value_range=(-1, 1))
    result = solve(
        y, MASK, RePaint(jump=2, resamplings=2), prior=prior, steps=6, samples=1, callback=states.append
    )
    expected = downward(RePaint(jump=2, resamplings=2), prior, 6)
    assert [state.draws for state in states[:: len(expected)]] == [range(0, 2), range(2, 3)]
    for part, length in ((states[: len(expected)], 2), (states[len(expected) :], 1)):
        assert [state.step for state in part] == list(range(1, len(expected) + 1))
        assert {state.steps for state in part} == {len(expected)}
        assert [(state.t, state.s) for state in part] == expected
        assert all(state.x.shape == state.x_hat.shape == (length, 3, 3, 4) for state in part)
    # The last estimate is the sampler's result, in [0, 1]; the state is in the prior's range.
    hidden = (MASK.mask == 0).expand(2, 3, 3, 4)
    last = states[len(expected) - 1]
    torch.testing.assert_close(last.x_hat[hidden], result[0, :2][hidden])
    torch.testing.assert_close((last.x + 1) / 2, result[0, :2])


def downward(method, prior, steps):
    times = method.bind(prior, None, None, steps).times()
    return [(t, s) for t, s in itertools.pairwise(times) if s < t]


@pytest.mark.parametrize("method", ["sdedit", "repaint", "dps"])
def test_steps_are_the_methods_own_unless_given(method):
    prior = PixelPrior()
    solve(torch.rand(1, 3, 4), MASK, method, prior=prior, steps=None)
    assert prior.calls == {"sdedit": 250, "repaint": 2410, "dps": 100}[method]
    prior = PixelPrior()
    solve(torch.rand(1, 3, 4), MASK, method, prior=prior, steps=4)
    assert prior.calls == {"sdedit": 2, "repaint": 4, "dps": 4}[method]


def test_the_sampler_by_name_and_as_an_object():
    y = torch.rand(3, 3, 4)
    assert torch.equal(solve(y, MASK, sampler="ddim"), solve(y, MASK, sampler=DDIM(0.0)))
    assert torch.equal(solve(y, MASK, sampler="ddpm"), solve(y, MASK, sampler=DDPM()))
    assert torch.equal(solve(y, MASK, sampler="dpm++"), solve(y, MASK, sampler=DPMSolver(0.0)))
    assert torch.equal(solve(y, MASK), solve(y, MASK, sampler="ddpm"))
    assert not torch.equal(solve(y, MASK, sampler="ddim"), solve(y, MASK, sampler="ddpm"))


def test_options_reach_the_method():
    y = torch.rand(3, 3, 4)
    assert torch.equal(solve(y, method="dps", zeta=7.0), solve(y, method=DPS(zeta=7.0)))
    assert not torch.equal(solve(y, method="dps", zeta=7.0), solve(y, method="dps"))


def test_low_precision_is_for_the_network():
    prior = tiny_prior()
    y = torch.rand(3, 8, 8)
    full = solve(y, method="sdedit", prior=prior)
    low = solve(y, method="sdedit", prior=prior, dtype="bfloat16")
    assert low.dtype == torch.float32
    assert not torch.equal(low, full)
    torch.testing.assert_close(low, full, rtol=0, atol=0.1)
    assert torch.equal(full, solve(y, method="sdedit", prior=prior, dtype=torch.float32))
    assert prior.autocast is None


def test_no_bar_without_progress(capsys):
    solve(torch.rand(3, 3, 4))
    assert capsys.readouterr().err == ""
    solve(torch.rand(3, 3, 4), progress=True)
    assert "dps" in capsys.readouterr().err


# ------------------------------------------------------------------------------ nothing of the user's is changed


@pytest.mark.parametrize(
    ("operator", "method"),
    [
        (MASK, RePaint(resamplings=2)),
        (MASK, DPS(zeta=2.0)),
        (Blur(gaussian_kernel(1.0)), SDEdit()),
        (Gamma(2.0), DPS()),
    ],
    ids=["repaint", "dps", "sdedit", "nonlinear"],
)
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_what_the_user_gave_is_as_it_was(operator, method, kind):
    prior = tiny_prior()
    y = kind(
        np.random.default_rng(0).random((3, 4, 3) if kind is np.asarray else (3, 3, 4)).astype(np.float32)
    )
    noise = torch.zeros(1)
    before_y = y.copy() if kind is np.asarray else y.clone()
    before_operator = {k: v.clone() for k, v in operator.state_dict().items()}
    before_prior = {k: v.clone() for k, v in prior.network.state_dict().items()}
    before_method, before_attributes = (
        dict(vars(method)),
        {k: v for k, v in vars(prior).items() if k != "network"},
    )
    state = torch.random.get_rng_state()
    solve(y, operator, method, prior=prior, noise=noise, steps=2, dtype="bfloat16", samples=2)
    assert bool((y == before_y).all())
    assert noise.tolist() == [0]
    assert vars(method) == before_method
    assert {k: v for k, v in vars(prior).items() if k != "network"} == before_attributes
    for now, before in (
        (operator.state_dict(), before_operator),
        (prior.network.state_dict(), before_prior),
    ):
        assert now.keys() == before.keys()
        assert all(torch.equal(now[k], before[k]) for k in now)
    assert torch.equal(torch.random.get_rng_state(), state)  # nor torch's own random numbers


def test_solving_works_inside_inference_mode_and_no_grad():
    y = torch.rand(3, 3, 4)
    free = solve(y)
    with torch.no_grad():
        assert torch.equal(solve(y), free)
    leaf = y.clone().requires_grad_(True)
    assert torch.equal(solve(leaf), free)
    assert leaf.grad is None


# ------------------------------------------------------------------------------ misuse


Y = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(0))
LINEAR = "linear operator"
MISUSE = {
    "operator of no kind": (
        {"operator": "mask"},
        TypeError,
        "operator is a str, expected one of the operators",
    ),
    "a function as operator": (
        {"operator": lambda x: x},
        TypeError,
        r"can be used as FromCallable\(function\)",
    ),
    "y of no kind": ({"y": "picture.png"}, TypeError, "y is a str; expected a numpy array.*read_image"),
    "y of integers": ({"y": Y.long()}, TypeError, "int64"),
    "y with one axis": ({"y": Y[0, 0]}, ValueError, r"shape \(4,\); expected"),
    "y with channels last": ({"y": torch.rand(20, 30, 3)}, ValueError, "permute"),
    "unknown method": ({"method": "ddnm++"}, ValueError, r"unknown method 'ddnm\+\+'; known are .*repaint"),
    "method of no kind": ({"method": 3}, TypeError, "a method is a name or an instance"),
    "unknown option": ({"guidance": 3}, TypeError, "no option 'guidance'; its options are clip"),
    "options beside an instance": ({"method": DPS(), "zeta": 3}, TypeError, "came with an instance"),
    "bad option": ({"zeta": -1.0}, ValueError, "zeta is a step size of at least 0"),
    "unknown sampler": ({"sampler": "heun9"}, ValueError, "unknown sampler 'heun9'; known are ddpm, ddim"),
    "sampler of no kind": ({"sampler": 5}, TypeError, "a sampler is a name or a Sampler"),
    "repaint without a mask": (
        {"method": "repaint", "operator": Blur(gaussian_kernel(1.0, 3))},
        ValueError,
        "repaint needs a Mask of zeros and ones; got Blur. Methods that will do: .*dps",
    ),
    "repaint with weights": (
        {"method": "repaint", "operator": Mask(torch.full((3, 4), 0.5))},
        ValueError,
        "a Mask of zeros and ones; got Mask. Methods that will do: sdedit, .*dps",
    ),
    "repaint, not linear": (
        {"method": "repaint", "operator": Gamma(2.0)},
        ValueError,
        "repaint needs a Mask of zeros and ones; got Gamma. Methods that will do: (?!.*(sdedit|repaint)).*dps",
    ),
    "sdedit, not linear": (
        {"method": "sdedit", "operator": JPEG(50)},
        ValueError,
        "sdedit needs a linear operator; got JPEG. Methods that will do: (?!.*(sdedit|repaint)).*dps",
    ),
    "ddrm, not linear, with noise that is not what it lacks": (
        {"method": "ddrm", "operator": Gamma(2.0), "noise": 0.1},
        ValueError,
        r"singular value decomposition; got Gamma\. Methods that will do: .*dps",
    ),
    "ddrm, of a blur that has a decomposition with another border": (
        {"method": "ddrm", "operator": Blur(gaussian_kernel(1.0, 3), boundary="reflect")},
        ValueError,
        r'got Blur\. Methods that will do: .*\. Blur has a decomposition with boundary="circular", for borders',
    ),
    "ddrm, of a blur without a border": (
        {"method": "ddrm", "operator": Blur(gaussian_kernel(1.0, 3), boundary="valid")},
        ValueError,
        r"got Blur\. Methods that will do: [a-z_, ]*$",
    ),
    "ddrm, of a blur and photons": (
        {
            "method": "ddrm",
            "operator": Blur(gaussian_kernel(1.0, 3), boundary="reflect"),
            "noise": restore.PoissonNoise(99.0),
        },
        ValueError,
        r"decomposition and Gaussian noise.*got Blur.*Methods that will do: [a-z_, ]*$",
    ),
    "repaint with noise": (
        {"method": "repaint", "operator": MASK, "noise": 0.1},
        ValueError,
        r"without noise \(noise=0\); got Mask with noise. Methods that will do: sdedit, .*dps",
    ),
    "repaint with one noisy image": (
        {"method": "repaint", "operator": MASK, "y": torch.rand(2, 3, 3, 4), "noise": [0.0, 0.1]},
        ValueError,
        "without noise",
    ),
    "negative noise": ({"noise": -0.1}, ValueError, "finite and at least 0, not"),
    "NaN noise": ({"noise": math.nan}, ValueError, "finite and at least 0, not"),
    "infinite noise": ({"noise": math.inf}, ValueError, "finite and at least 0, not"),
    "noise of another batch": (
        {"noise": [0.1, 0.2]},
        ValueError,
        "2 numbers for 1 images: give one, or one per",
    ),
    "mask of another size": (
        {"operator": Mask(torch.ones(5, 4))},
        ValueError,
        r"mask is 5 x 4 \(rows x columns\), but the image has shape \(3, 3, 4\)",
    ),
    "mask of another number of channels": (
        {"operator": Mask(torch.ones(2, 3, 4))},
        ValueError,
        "mask has 2 channels, the image 3",
    ),
    "masks for another batch": (
        {"operator": Mask(torch.ones(3, 1, 3, 4)), "y": torch.rand(2, 3, 3, 4)},
        ValueError,
        "parameters for 3 images, but got a batch of 2",
    ),
    "grey y for a colour prior": (
        {"y": Y[:1], "prior": {"channels": 3}},
        ValueError,
        "pictures of 3 channels.*of a picture of 1. For a grey picture, give its values three times",
    ),
    "transparency": ({"y": torch.rand(4, 3, 4), "prior": {"channels": 3}}, ValueError, "leave transparency"),
    "grayscale of a colour picture": (
        {"operator": Grayscale(), "prior": {"channels": 3}},
        ValueError,
        r"\(1, 3, 4\)",
    ),
    "NaN in y": ({"y": torch.where(Y > 0.9, torch.nan, Y)}, ValueError, "y holds .* NaN or infinite"),
    "infinity in y": ({"y": torch.where(Y > 0.9, torch.inf, Y)}, ValueError, "y holds .* NaN or infinite"),
    "values up to 255": (
        {"y": (255 * Y).round(), "prior": {"bounded": True}},
        ValueError,
        r"images are in \[0, 1\] \(divide by 255\) or of dtype uint8",
    ),
    "no steps": ({"steps": 0}, ValueError, "steps must be a whole number of at least 1, not 0"),
    "half a step": ({"steps": 2.5}, ValueError, "steps must be a whole number of at least 1, not 2.5"),
    "no samples": ({"samples": 0}, ValueError, "samples must be a whole number of at least 1, not 0"),
    "samples in words": ({"samples": "many"}, ValueError, "samples must be a whole number"),
    "negative seed": ({"seed": -1}, ValueError, "a seed is a whole number of at least 0, not -1"),
    "fractional seed": ({"seed": 0.5}, TypeError, "a seed is a whole number"),
    "too many seeds": ({"seed": [1, 2]}, ValueError, "got 2 seeds for 1 images"),
    "unknown precision": (
        {"dtype": "int8", "prior": None},
        ValueError,
        "dtype must be 'float32', 'bfloat16' or 'float16', not 'int8'",
    ),
    "precision of no network": (
        {"dtype": "bfloat16"},
        TypeError,
        "no network whose precision could be chosen",
    ),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse_is_refused_in_words_before_the_first_network_call(case):
    options, error, message = MISUSE[case]
    options = {"y": Y, "operator": Identity(), **options}
    wanted = options.pop("prior", {})
    prior = Prior(ProbeNetwork(), Schedule.linear()) if wanted is None else PixelPrior(**wanted)
    with pytest.raises(error, match=message):
        solve(options.pop("y"), options.pop("operator"), prior=prior, **options)
    assert (len(prior.network.seen) if wanted is None else prior.calls) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    prior = PixelPrior()
    for name in ("cuda", "cuda:1", torch.device("cuda")):
        with pytest.raises(
            ValueError, match="torch finds no GPU here: leave device out, or say device='cpu'"
        ):
            solve(Y, prior=prior, device=name)
    assert prior.calls == 0


def test_a_prior_for_one_size_refuses_others():
    with pytest.raises(ValueError, match=r"is for pictures of \(4, 4\) \(height, width\), not \(3, 4\)"):
        solve(torch.rand(1, 3, 4), prior=smooth_prior((4, 4)))


def test_a_prior_that_does_not_exist():
    with pytest.raises((FileNotFoundError, ValueError)):
        solve(Y, prior="no such prior")


@pytest.mark.parametrize("method", REGISTRY)
@pytest.mark.parametrize("call", [1, 3])
def test_a_network_that_breaks_down_is_stopped_at_its_step(method, call):
    prior, calls_per_step = PixelPrior(broken_from=call), as_method(method).calls_per_step
    step = -(-call // calls_per_step)
    with pytest.raises(
        FloatingPointError, match=rf"not finite after step {step} of \d+ \(t = [01]\.\d+\) of {method}"
    ):
        solve(torch.rand(2, 3, 3, 4), MASK, method, prior=prior, steps=8)
    assert prior.calls == step * calls_per_step


def test_a_guidance_that_is_too_strong_is_named():
    with pytest.raises(FloatingPointError, match="take more steps or a weaker guidance"):
        solve(Y, FromCallable(lambda x: x**4), DPS(zeta=1e30))


def test_values_that_only_look_wrong_are_taken():
    """Sums of pixels are larger than 1, and strong noise leaves the range."""
    prior = PixelPrior(bounded=True)
    bright = FromCallable(lambda x: 500 * x, linear=True)
    assert torch.isfinite(solve(bright(Y[None])[0], bright, prior=prior)).all()
    noisy = Y + 5 * torch.randn(Y.shape)
    assert torch.isfinite(solve(noisy, Identity(), prior=prior, noise=5.0)).all()


# ------------------------------------------------------------------------------ pictures without a measurement


def test_sampling_from_a_prior_has_its_moments():
    prior = PixelPrior(0.4, 0.2, (-1, 1))
    x = restore.sample(prior, (3000, 1, 1, 2), steps=300, sampler="ddim", seed=0, progress=False)
    assert float(x.mean()) == pytest.approx(0.4, abs=0.015)
    assert float(x.std()) == pytest.approx(0.2, rel=0.06)


def test_a_sample_does_not_depend_on_how_many_are_drawn():
    prior = PixelPrior(value_range=(-1, 1))
    many = restore.sample(prior, (4, 3, 2, 2), steps=5, seed=3, progress=False)
    few = restore.sample(prior, (2, 3, 2, 2), steps=5, seed=3, progress=False)
    assert torch.equal(many[:2], few)
    assert not torch.equal(many[0], many[1])
    assert not torch.equal(few, restore.sample(prior, (2, 3, 2, 2), steps=5, seed=4, progress=False))


def test_samples_of_classes():
    network = ProbeNetwork(3)
    prior = Prior(network, Schedule.linear(), "sample")
    restore.sample(prior, (2, 3, 4, 4), steps=2, seed=0, class_labels=[3, 5], progress=False)
    assert network.seen[-1].labels.tolist() == [3, 5]
    assert all(seen.inference for seen in network.seen)
    with pytest.raises(TypeError, match="takes no class labels"):
        restore.sample(PixelPrior(), (2, 3, 4, 4), steps=2, class_labels=1, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (3, 4, 4)}, r"shape is \(number, channels, height, width\)"),
        ({"shape": (1, 3, 0, 4)}, "all at least 1"),
        ({"shape": (1, 1, 4, 4), "prior": PixelPrior(channels=3)}, "makes pictures of 3 channels, not 1"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"sampler": "none"}, "unknown sampler"),
        ({"seed": -4}, "a seed is a whole number"),
    ],
)
def test_sampling_refuses_what_makes_no_picture(options, message):
    options = {"prior": PixelPrior(), "shape": (1, 3, 4, 4), "steps": 2, "progress": False, **options}
    with pytest.raises(ValueError, match=message):
        restore.sample(**options)


def test_negative_counts_are_refused_before_the_first_call():
    prior = PixelPrior(channels=1)
    y = torch.rand(1, 3, 4)
    y[0, 0, :2] = torch.tensor([-0.5, -0.25])
    y[0, 2, 0] = -0.125
    noise = restore.PoissonNoise(50.0)
    with pytest.raises(
        ValueError, match=r"3 of the 12 values of y are negative, the smallest -0\.5.*y\.clip\(0\)"
    ):
        solve(y, noise=noise, prior=prior)
    assert prior.calls == 0
    # What lies in the holes of a mask was not counted.
    assert solve(y, Mask(y[0] >= 0), noise=noise, prior=prior).shape == y.shape
    assert solve(y.clip(0), noise=noise, prior=prior).shape == y.shape


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"callback": "print"}, TypeError, "callback is a str; expected a function"),
        ({"device": 1.5}, ValueError, "device is 'cpu'.*not 1.5"),
        ({"stepz": 3}, TypeError, "no argument 'stepz': did you mean 'steps'"),
        ({"method": "auto", "sed": 3, "steps": None}, TypeError, "no argument 'sed': did you mean 'seed'"),
        (
            {"noise": 25},
            ValueError,
            "noise is 25, where white is 1 and y goes no further than 0.9.*divide by 255",
        ),
    ],
)
def test_mistakes_are_told_before_the_first_call(change, kind, words):
    prior = PixelPrior(bounded=True, channels=1)
    with pytest.raises(kind, match=words):
        solve(torch.full((1, 3, 4), 0.9), prior=prior, **change)
    assert prior.calls == 0


def test_noise_of_floats_for_whole_numbers_is_warned_of():
    y = np.full((3, 4), 128, np.uint8)
    with pytest.warns(UserWarning, match=r"0\.02 of 255, less than rounding .* give 5\.1") as said:
        solve(y, noise=0.02)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for noise in (0, 1.0, 5.1):
            solve(y, noise=noise)
        solve(y / 255, noise=0.02)


@pytest.mark.parametrize("shape", [4, (3, 16, 16), (1, 3, 16.0, 16), (0, 3, 16, 16)])
def test_the_shape_of_samples_is_four_whole_numbers(shape):
    prior = PixelPrior()
    with pytest.raises(ValueError, match=r"shape is .number, channels, height, width.*not"):
        restore.sample(prior, shape, steps=2, progress=False)
    assert prior.calls == 0


# ------------------------------------------------------------------------------------------- rounding


@pytest.mark.parametrize("method", ["diffpir", "ddnm", "ddrm", "pigdm"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "floats of 255", "float16"])
def test_a_rounded_blur_is_not_taken_for_exact(method, kind):
    """Its inverse would blow the rounding up: to 5 dB of a picture in bytes, which is sharpened to about 30."""
    image = torch.from_numpy(read_image(CAT)[96:160, 96:160]).permute(2, 0, 1)[None] / 255
    blur = Blur(gaussian_kernel(2.0))
    y = blur(image).clamp(0, 1)
    given = {
        "uint8": (y * 255).round().to(torch.uint8),
        "uint16": (y * 65535).round().to(torch.uint16),
        "floats of 255": (y * 255).round() / 255,
        "float16": y.half(),
    }[kind]
    # All noise fresh: with its default 0.3 a draw of so few steps is as far from the picture as its blur is.
    options = {"steps": 30, "zeta": 1.0} if method == "diffpir" else {"steps": 8}
    x = solve(given, blur, method, prior="photo", **options)
    x = x.float() / {"uint8": 255, "uint16": 65535}.get(kind, 1)
    assert float(psnr(x, image)) > float(psnr(y, image))


def test_rounding_is_noise_for_blurs_alone():
    """What is not rounded, what has more noise anyway, and what no inverse blows up stay as they are."""
    y, std = torch.randint(0, 256, (2, 3, 8, 8)) / 255, torch.tensor([0.0, 0.1])
    blur, method = Blur(gaussian_kernel(1.0)), DDRM()

    def with_rounding(std, y, operator, method, dtype=torch.float32):
        return checks.with_rounding(std, y, ImageFormat("torch", dtype), operator, method)

    assert with_rounding(std, y, blur, method).tolist() == pytest.approx([12**-0.5 / 255, 0.1])
    assert with_rounding(std, y.double(), blur, method).tolist() == pytest.approx([12**-0.5 / 255, 0.1])
    assert torch.equal(with_rounding(std, y + 1e-5, blur, method), std)
    fine = torch.randint(0, 65536, (2, 3, 8, 8)) / 65535
    assert with_rounding(std, fine, blur, method).tolist() == pytest.approx([12**-0.5 / 65535, 0.1])
    for operator in (Mask(box_mask(8, 2)), Downsample(2), Grayscale()):
        assert torch.equal(with_rounding(std, y, operator, method), std)
    reflected = Blur(gaussian_kernel(1.0), boundary="reflect")  # DDNM needs its closed form for noise.
    with pytest.warns(QualityWarning, match="and ddnm takes it for exact: .* Methods that do not: .*diffpir"):
        assert torch.equal(with_rounding(std, y, reflected, DDNM()), std)
    assert with_rounding(std, y, reflected, DiffPIR()).tolist() != std.tolist()
    half = with_rounding(std, y + 1e-5, blur, method, torch.float16)
    assert half.tolist() == pytest.approx([12**-0.5 / 2048, 0.1])
    mixed = torch.stack([y[0], y[1] + 1e-4])
    assert with_rounding(torch.zeros(2), mixed, blur, method)[1] == 0


def test_the_default_type_of_torch_changes_nothing():
    y = torch.rand(2, 3, 3, 4)
    expected = solve(y, MASK, "ddrm")
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(solve(y, MASK, "ddrm"), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_masks_of_pictures_that_are_taken_for_those_of_channels_are_spoken_of():
    masks = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.7
    y = torch.rand(3, 3, 6, 6)
    with pytest.warns(
        QualityWarning, match=r"3 layers for 3 pictures, .* shape \(B, 1, H, W\), mask\[:, None\]"
    ):
        solve(y, Mask(masks), "ddrm", steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(y, Mask(masks[:, None]), "ddrm", steps=1)
        solve(y, Mask(masks[:1].expand(3, 6, 6)), "ddrm", steps=1)
        solve(y[:2], Mask(masks), "ddrm", steps=1)


def test_a_mask_that_measures_nothing_is_spoken_of():
    masks = torch.ones(2, 1, 4, 4)
    masks[1] = 0
    y = torch.rand(2, 3, 4, 4)
    with pytest.warns(QualityWarning, match="mask 1 of the batch measures nothing: .* A Mask is 1 where"):
        solve(y, Mask(masks), "ddrm", steps=2)
    with pytest.warns(QualityWarning, match="the mask measures nothing"):
        solve(y[:1], Mask(masks[1]), "ddrm", steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(y[:1], Mask(masks[0]), "ddrm", steps=2)


# ------------------------------------------------------------------------------ operators of a user's own


class Limited(LinearOperator):
    def forward(self, x):
        return (2 * x).clamp(0, 1)


class Shifted(LinearOperator):
    """With an offset, which an adjoint of its own does not notice."""

    def forward(self, x):
        return x + 0.1

    def adjoint(self, y):
        return y


class Backwards(LinearOperator):
    """Differences, whose adjoint was written as differences in the same direction."""

    def forward(self, x):
        return x - x.roll(1, -1)

    def adjoint(self, y):
        return y - y.roll(1, -1)


class Halved(LinearOperator):
    def forward(self, x):
        return (x / 2).bfloat16().to(x.dtype)


class Stored(LinearOperator):
    """Of a detector that counts in 255 levels, with a gradient as if it did not."""

    def forward(self, x):
        y = Blur(gaussian_kernel(2.0))(x)
        return y + ((255 * y).round() / 255 - y).detach()


class Outside(LinearOperator):
    """Leaves torch, and has a decomposition in place of an adjoint."""

    def forward(self, x):
        return torch.from_numpy(x.detach().numpy() * 0.5)

    def svd(self, image_shape):
        same = operators.Identity().svd(image_shape)
        half = torch.full_like(same.s, 0.5)
        return operators.SVD(half, same.vt, same.v, same.ut, same.u)


class Skipped(LinearOperator):
    """Every second pixel, whose adjoint was written as an enlargement."""

    def forward(self, x):
        return x[..., ::2, ::2]

    def adjoint(self, y):
        return y.repeat_interleave(2, -1).repeat_interleave(2, -2)

    def image_shape(self, measurement_shape):
        channels, height, width = measurement_shape
        return channels, 2 * height, 2 * width


@pytest.mark.parametrize("size", [4, 16, 64, 128, 256])
def test_an_adjoint_that_is_wrong_where_nothing_is_measured_is_found(size):
    with pytest.warns(QualityWarning, match="the adjoint of Skipped is not the transpose"):
        check_linear(Skipped(), Skipped(), (3, size, size))


def test_an_operator_with_a_decomposition_needs_no_adjoint():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in ("ddnm", "ddrm"):
            solve(torch.rand(1, 3, 8, 8), Outside(), method)


@pytest.mark.parametrize(
    ("operator", "named"),
    [
        (Limited(), "Limited"),
        (Shifted(), "Shifted"),
        (FromCallable(lambda x: x**2, linear=True), r"FromCallable\(linear=True\)"),
        (FromCallable(lambda x: x + 0.4 * torch.randn_like(x), linear=True), r"FromCallable\(linear=True\)"),
        (Mask(torch.ones(8, 8)) @ Limited(), "Limited"),
        (Limited() @ FromCallable(lambda x: 2 * x, linear=True), r"Limited or FromCallable\(linear=True\)"),
    ],
)
def test_an_operator_that_is_not_linear_as_it_says_is_refused(operator, named):
    for _ in range(2):  # As often as it is asked for.
        with pytest.raises(ValueError, match=f"^{named} is declared linear, but"):
            solve(torch.rand(1, 3, 8, 8), operator)


def test_half_a_dark_frame_is_an_offset():
    class Dark(Shifted):
        def forward(self, x):
            return x + 0.004

    with pytest.raises(ValueError, match="does not measure a blank image as zero"):
        solve(torch.rand(1, 3, 8, 8), Dark())


def test_a_wrong_adjoint_is_warned_of_once_and_where_the_user_called():
    operator, y = Backwards(), torch.rand(1, 3, 8, 8)
    with pytest.warns(
        QualityWarning, match="adjoint of Backwards is not the transpose .*Leave adjoint out"
    ) as found:
        restore.solve(y, operator, "ddnm", prior=PixelPrior(), steps=2, seed=0, progress=False)
    assert [w.filename for w in found] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(y, operator, "ddnm")


@pytest.mark.parametrize(
    "operator",
    [Halved(), Stored(), FromCallable(lambda x: 0.3 * x, linear=True), Mask(torch.ones(8, 8)) @ Halved()],
)
def test_a_linear_operator_of_ones_own_is_taken_without_a_word(operator):
    before = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), operator)
    assert torch.equal(torch.random.get_rng_state(), before)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99), wrong=st.floats(0.1, 3))
def test_adjoints_that_are_off_are_found_at_any_size(height, width, seed, wrong):
    matrix = torch.randn(height, width, generator=torch.Generator().manual_seed(seed))
    gain = torch.full_like(matrix, 1 + wrong)

    class Weighted(LinearOperator):
        def forward(self, x):
            return matrix * x

        def adjoint(self, y):
            return gain * matrix * y

    with pytest.warns(QualityWarning, match="is not the transpose"):
        check_linear(Weighted(), Weighted(), (3, height, width))


def test_an_operator_that_forgot_its_image_shape_is_told_so():
    skipped = FromCallable(lambda x: x[..., ::2], linear=True)
    wanted = (
        r"measures an image of shape \(3, 8, 8\) as \(3, 8, 4\), .* says \(3, 8, 8\): override image_shape"
    )
    with pytest.raises(ValueError, match=wanted):
        solve(torch.rand(1, 3, 8, 8), skipped)
