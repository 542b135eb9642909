"""Training: the loss is L_simple, a run goes on exactly where it stopped, and what is on disk is always a prior."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import restore
from restore.checkpoint import describe_network
from restore.data import Crops
from restore.networks import photo_unet
from restore.prior import Prior
from restore.randomness import stream_seed
from restore.schedule import Schedule
from restore.training import EMA, LOG, STATE, Trainer, TrainingOptions, simple_loss

few = settings(max_examples=50, deadline=None)
QUICK = {
    "steps": 12,
    "batch": 4,
    "crop": 16,
    "warmup": 3,
    "precision": "fp32",  # "auto" depends on the machine.
    "sample_every": 0,
    "validate_every": 0,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(seed=0, **options):
    torch.manual_seed(seed)
    return photo_unet((8, 16), **options)


def pictures(seed=0, count=3, side=40, channels=3):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (side, side, channels), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def crops():
    return Crops.from_arrays(pictures(), 16)


def trainer(
    crops, out, *, network=None, resume=False, schedule=None, validation=None, config=None, **options
):
    return Trainer(
        network or tiny(),
        crops,
        out,
        TrainingOptions(**{**QUICK, **options}),
        schedule=schedule,
        validation=validation,
        resume=resume,
        progress=False,
        config=config,
    )


def entries(out, key="loss"):
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    return [(line["step"], line[key]) for line in lines if key in line]


def weights(trained):
    """All that a run consists of: the weights, their average, and the optimizer's moments."""
    state = {f"network.{k}": v for k, v in trained.network.state_dict().items()}
    state |= {f"ema.{k}": v for k, v in trained.ema.network.state_dict().items()}
    for name, parameter in trained.network.named_parameters():
        moments = trained.optimizer.state[parameter]
        state |= {f"{k}.{name}": moments[k] for k in ("exp_avg", "exp_avg_sq", "step")}
    return {k: v.detach().clone() for k, v in state.items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    different = [k for k in one if not torch.equal(one[k], other[k])]
    assert not different, f"{len(different)} of {len(one)} differ: {different[:3]}"


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@contextlib.contextmanager
def from_batch(number, action):
    """Something happens when a batch of that number (from 0) is asked for: ``action(batch) -> batch``."""
    plain, asked = Crops.batch, iter(range(10**9))

    def batch(self, *asked_for):
        x = plain(self, *asked_for)
        return action(x) if next(asked) >= number else x

    Crops.batch = batch
    try:
        yield
    finally:
        Crops.batch = plain


def interrupt(_):
    raise KeyboardInterrupt


# ------------------------------------------------------------------------------------------- the loss


class Spy:
    """A network of known answers that remembers what it was asked."""

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, x_t, step):
        self.x_t, self.step = x_t, step
        return self.answer(x_t, step)


def column(values, x):
    return values.reshape(-1, *[1] * (x.ndim - 1))


@pytest.mark.parametrize("schedule", [Schedule.linear(), Schedule.cosine(50), Schedule.flow(20)], ids=repr)
def test_the_loss_is_l_simple_with_the_same_noise(schedule):
    """Written out from the paper, in float64, with the times and the noise that the loss drew."""
    x_0 = torch.randn(24, 3, 8, 8, generator=seeded(5)).clamp(-1, 1)
    spy = Spy(lambda x_t, step: 0.4 * x_t + column(torch.sin(step), x_t))
    loss = simple_loss(spy, x_0, schedule, seeded(7))

    step = spy.step.double() - schedule.first_step
    assert torch.equal(step, step.round())
    assert step.min() >= 0
    assert step.max() <= schedule.steps - 1
    if schedule == Schedule.linear():
        bars = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[step.long().numpy()]
        alphas, sigmas = torch.tensor(np.sqrt(bars)), torch.tensor(np.sqrt(1 - bars))
    else:
        alphas, sigmas = schedule((step + 1) / schedule.steps)
    # The noise follows from the state. It is checked to be what a standard normal generator gives.
    generator = seeded(7)
    torch.rand((), generator=generator, dtype=torch.float64)
    eps = torch.randn(x_0.shape, generator=generator).double()
    x_t = column(alphas, x_0) * x_0.double() + column(sigmas, x_0) * eps
    torch.testing.assert_close(spy.x_t.double(), x_t, rtol=1e-6, atol=1e-6)
    predicted = 0.4 * x_t + column(torch.sin(spy.step.double()), x_t)
    expected = sum(((predicted[i] - eps[i]) ** 2).mean() for i in range(24)) / 24
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_a_network_that_says_nothing_has_a_loss_of_one():
    """E ||eps||^2 / n = 1, and the estimate's deviation is sqrt(2 / n)."""
    x_0 = torch.rand(64, 3, 32, 32, generator=seeded()) * 2 - 1
    loss = simple_loss(lambda x_t, step: torch.zeros_like(x_t), x_0, Schedule.linear(), seeded(1))
    assert float(loss) == pytest.approx(1, abs=5 * math.sqrt(2 / x_0.numel()))


def test_a_network_that_knows_the_noise_has_a_loss_of_zero():
    schedule = Schedule.linear()
    alphas, sigmas = schedule(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    x_0 = torch.full((16, 1, 4, 4), 0.3)

    def knowing(x_t, step):
        a, s = (column(c.float()[step.long()], x_t) for c in (alphas, sigmas))
        return (x_t - a * x_0) / s

    assert float(simple_loss(knowing, x_0, schedule, seeded())) < 1e-8


def gaussian_denoiser(variance, schedule, factor=1.0):
    """E[eps | x_t] = sigma x_t / (alpha^2 v + sigma^2) for x_0 ~ N(0, v)."""
    times = torch.arange(1, schedule.steps + 1, dtype=torch.float64) / schedule.steps
    alphas, sigmas = schedule(times)
    scale = (factor * sigmas / (alphas**2 * variance + sigmas**2)).float()
    # Its remaining error is the posterior variance of the noise, alpha^2 v / (alpha^2 v + sigma^2), over uniform times.
    best = float((alphas**2 * variance / (alphas**2 * variance + sigmas**2)).mean())
    return (lambda x_t, step: column(scale[step.long()], x_t) * x_t), best


@pytest.mark.parametrize("variance", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("schedule", [Schedule.linear(100), Schedule.cosine(40)], ids=repr)
def test_the_exact_denoiser_of_a_gaussian_has_its_closed_form_loss(variance, schedule):
    x_0 = math.sqrt(variance) * torch.randn(4 * schedule.steps, 3, 16, 16, generator=seeded(3))

    def loss(factor):
        network, best = gaussian_denoiser(variance, schedule, factor)
        return float(simple_loss(network, x_0, schedule, seeded(4))), best

    exact, best = loss(1.0)
    assert 0.02 < best < 0.98
    assert exact == pytest.approx(best, rel=0.01)
    assert exact < min(loss(0.95)[0], loss(1.05)[0])


# ------------------------------------------------------------------------------------------- the times


def steps_drawn(batch, schedule, seed):
    spy = Spy(lambda x_t, step: x_t)
    simple_loss(spy, torch.zeros(batch, 1, 1, 1), schedule, seeded(seed))
    return spy.step.long() - schedule.first_step


@few
@given(st.integers(1, 60), st.integers(1, 4), st.integers(0, 10**6))
def test_a_batch_of_all_steps_holds_each_once(steps, times, seed):
    drawn = steps_drawn(steps * times, Schedule.flow(steps), seed)
    assert torch.equal(drawn.bincount(minlength=steps), torch.full((steps,), times))


@few
@given(st.integers(1, 40), st.integers(1, 1000), st.integers(0, 10**6))
def test_the_times_of_a_batch_are_spread_evenly(batch, steps, seed):
    drawn = steps_drawn(batch, Schedule.flow(steps), seed)
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < steps
    # One in each of `batch` equal parts of the steps.
    for i, step in enumerate(drawn.tolist()):
        assert math.floor(i * steps / batch) <= step <= math.ceil((i + 1) * steps / batch)


@pytest.mark.parametrize("schedule", [Schedule.linear(30), Schedule.cosine(30), Schedule.flow(30)], ids=repr)
def test_a_network_is_trained_with_the_numbers_that_the_prior_gives_it(schedule):
    spy = Spy(lambda x_t, step: x_t)
    simple_loss(spy, torch.ones(30, 1, 1, 1), schedule, seeded())
    assert spy.step.tolist() == [schedule.step_of(k / 30) for k in range(1, 31)]


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_times_are_uniform(batch):
    steps, draws = 20, 6000 // batch
    schedule = Schedule.flow(steps)
    drawn = torch.cat([steps_drawn(batch, schedule, seed) for seed in range(draws)])
    seen, expected = drawn.bincount(minlength=steps).double(), len(drawn) / steps
    # Chi-square with 19 degrees of freedom if all were independent, above 51 once in 10,000; spreading lowers it.
    assert float(((seen - expected) ** 2 / expected).sum()) < 51


def test_spreading_takes_variance_out_of_the_loss():
    schedule, variance = Schedule.linear(), 0.3
    network, _ = gaussian_denoiser(variance, schedule)
    x_0 = math.sqrt(variance) * torch.randn(16, 3, 16, 16, generator=seeded())
    spread = [float(simple_loss(network, x_0, schedule, seeded(i))) for i in range(100)]
    single = [
        np.mean(
            [
                float(simple_loss(network, x_0[j : j + 1], schedule, seeded(1000 + 16 * i + j)))
                for j in range(16)
            ]
        )
        for i in range(100)
    ]
    assert np.mean(spread) == pytest.approx(np.mean(single), rel=0.1)
    assert np.std(spread) < 0.5 * np.std(single)


def test_the_generator_decides_alone():
    x_0, schedule = torch.zeros(4, 1, 8, 8), Schedule.linear()
    losses = []
    for seed, outer in ((1, 0), (1, 99), (2, 0)):
        torch.manual_seed(outer)
        losses.append(float(simple_loss(lambda x_t, step: 0 * x_t, x_0, schedule, seeded(seed))))
    assert losses[0] == losses[1] != losses[2]


def test_the_loss_is_computed_in_float32():
    """What a network under autocast returns is widened before the square."""
    x_0 = torch.zeros(4, 1, 8, 8)
    loss = simple_loss(lambda x_t, step: (0 * x_t).bfloat16(), x_0, Schedule.linear(), seeded())
    assert loss.dtype == torch.float32


# ------------------------------------------------------------------------------------------- the average


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_the_moving_average(decay):
    network = nn.Linear(3, 2)
    ema = EMA(network, decay)
    expected = network.weight.detach().double().clone()
    for n in range(40):
        with torch.no_grad():
            network.weight.copy_(torch.randn(2, 3, generator=seeded(n)))
        ema.update(network, n)
        d = min(decay, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * network.weight.detach().double()
        torch.testing.assert_close(ema.network.weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert not ema.network.training
    assert not any(p.requires_grad for p in ema.network.parameters())


def test_the_average_is_of_the_training(crops, tmp_path):
    """With a decay of 0 the averaged weights are the weights; the trainer updates them every step."""
    run = trainer(crops, tmp_path, ema=0.0)
    run.run(5)
    for ours, averaged in zip(run.network.parameters(), run.ema.network.parameters(), strict=True):
        torch.testing.assert_close(averaged, ours, rtol=0, atol=1e-7)
    # With another, the first updates weigh 9/10 and 9/11 (see EMA).
    other = trainer(crops, tmp_path / "other", ema=0.9)
    expected = [p.detach().clone() for p in other.network.parameters()]
    for until, decay in ((1, 1 / 10), (2, 2 / 11)):
        other.run(until)
        expected = [
            decay * e + (1 - decay) * p.detach()
            for e, p in zip(expected, other.network.parameters(), strict=True)
        ]
    for averaged, by_hand in zip(other.ema.network.parameters(), expected, strict=True):
        torch.testing.assert_close(averaged, by_hand, rtol=1e-6, atol=1e-8)
    moved = zip(other.network.parameters(), expected, strict=True)
    assert max(float((p - e).detach().abs().max()) for p, e in moved) > 1e-6


# ------------------------------------------------------------------------------------------- the learning rate


def test_the_learning_rate_rises_stays_and_falls():
    options = TrainingOptions(steps=100, learning_rate=2.0, warmup=10, decay=0.25)
    rates = [options.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10:75] == [2.0] * 65
    assert rates[75:] == pytest.approx([2.0 * (100 - i) / 25 for i in range(75, 100)])
    assert rates[-1] == pytest.approx(0.08)
    assert options.rate(100) == 0


@few
@given(st.integers(1, 300), st.integers(0, 400), st.floats(0, 1), st.floats(1e-6, 1))
def test_the_learning_rate_is_within_its_bounds(steps, warmup, decay, rate):
    options = TrainingOptions(steps=steps, warmup=warmup, decay=decay, learning_rate=rate)
    rates = [options.rate(step) for step in range(steps)]
    assert all(0 < r <= rate for r in rates)
    peak = int(np.argmax(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_the_trainer_uses_the_learning_rate(crops, tmp_path):
    run = trainer(crops, tmp_path)
    for until in (1, 2, 6, 12):
        run.run(until)
        assert run.optimizer.param_groups[0]["lr"] == run.options.rate(until - 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch": -1}, "batch must be at least 1"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"save_every": 0}, "save_every must be at least 1"),
        ({"precision": "fp16"}, "precision must be 'auto', 'fp32' or 'bf16', not 'fp16'"),
        ({"decay": 1.5}, r"decay must lie in \[0, 1\]"),
        ({"ema": 1.0}, r"ema in \[0, 1\), not 0.3 and 1.0"),
        ({"learning_rate": 0.0}, "learning_rate and clip must be above 0"),
        ({"clip": -1.0}, "learning_rate and clip must be above 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"crop": 0}, "crop must be at least 1"),
        ({"crop": "64-128"}, "several like '64,96,128', not '64-128'"),
        ({"per_octave": 0}, "per_octave must be at least 1"),
        ({"spectrum": True, "crop": 8}, "a spectrum is measured of crops of at least 16 pixels, not 8"),
        ({"dead_leaves": 1.0}, r"dead_leaves must lie in \[0, 1\)"),
        ({"dead_leaves": -0.1}, r"dead_leaves must lie in \[0, 1\)"),
        ({"whole": 1.0}, r"whole must lie in \[0, 1\), not 1.0"),
        ({"whole": math.nan}, r"whole must lie in \[0, 1\), not nan"),
        ({"whole": 0.6, "dead_leaves": 0.4}, "leave none for others: 0.6, 0.0, 0.4"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**options)


# ------------------------------------------------------------------------------------------- crops of several sides


def test_sides_of_crops():
    assert TrainingOptions().sides == (64,)
    assert TrainingOptions(crop="64,96,128").sides == (64, 96, 128)
    assert TrainingOptions(crop="64") == TrainingOptions(crop=64)


def test_batches_take_turns_among_the_sides_at_an_even_cost(folder, tmp_path):
    """Each has about as many pixels: 9 crops of 16, 4 of 24, 2 of 32."""
    seen = []
    options = {"steps": 5, "batch": 9, "crop": "16,24,32", "validate_every": 0}
    with from_batch(0, lambda x: seen.append(tuple(x.shape)) or x):
        restore.train(folder, tmp_path / "out", network=tiny(), **{**SHORT, **options})
    in_turn = [(9, 3, 16, 16), (4, 3, 24, 24), (2, 3, 32, 32)]
    assert seen == [*in_turn, *in_turn[:2]]


def test_every_side_must_suit_the_network(folder, tmp_path):
    with pytest.raises(ValueError, match="crops of 18 pixels do not suit the network"):
        restore.train(folder, tmp_path / "out", network=tiny(), **{**SHORT, "crop": "16,18"})


# ------------------------------------------------------------------------------------------- one update


def gradients(run, updates=1):
    """The gradients that the optimizer is given, after clipping."""
    seen, plain = [], run.optimizer.step

    def step(*args, **kwargs):
        seen.append([p.grad.clone() for p in run.network.parameters()])
        return plain(*args, **kwargs)

    run.optimizer.step = step
    run.run(run.step + updates)
    return seen


def test_accumulated_batches_give_the_mean_of_their_gradients(crops, tmp_path):
    """Two batches of four: the gradient, and the loss that is logged, are the means over both.

    That is the gradient of one batch of the same eight crops with the same times and noise. (A run with a batch of 8
    draws others: the times of a batch are spread over it.)
    """
    network = tiny()
    (found,) = gradients(trainer(crops, tmp_path, network=tiny(), accumulate=2, clip=1e9))
    losses = []
    for part in (0, 1):
        generator = seeded(stream_seed(0, 0, 0, part))
        losses.append(simple_loss(network, crops.batch(4, generator), Schedule.linear(), generator))
    mean = sum(losses) / 2
    expected = torch.autograd.grad(mean, list(network.parameters()))
    mean = mean.detach()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert entries(tmp_path) == [(1, pytest.approx(float(mean), rel=1e-5))]
    assert losses[0].item() != losses[1].item()


def test_gradients_are_clipped(crops, tmp_path):
    def norm(grads):
        return float(torch.cat([g.flatten() for g in grads]).norm())

    free = gradients(trainer(crops, tmp_path / "free", clip=1e9))[0]
    clipped = gradients(trainer(crops, tmp_path / "clipped", clip=0.01))[0]
    assert norm(free) > 0.05
    assert norm(clipped) == pytest.approx(0.01, rel=1e-3)
    factor = 0.01 / norm(free)
    for one, other in zip(free, clipped, strict=True):
        torch.testing.assert_close(other, one * factor, rtol=1e-3, atol=1e-8)


def test_gradients_do_not_add_up_over_updates(crops, tmp_path):
    first, second = gradients(trainer(crops, tmp_path, clip=1e9, learning_rate=1e-12, weight_decay=0.0), 2)
    generator = seeded(stream_seed(0, 1, 0, 0))
    network = tiny()
    loss = simple_loss(network, crops.batch(4, generator), Schedule.linear(), generator)
    for one, other in zip(second, torch.autograd.grad(loss, list(network.parameters())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    assert any(not torch.allclose(a, b) for a, b in zip(first, second, strict=True))


def test_the_seed_decides(crops, tmp_path):
    curves = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(1000 + number)
        run = trainer(crops, tmp_path / str(number), seed=seed)
        run.run(4)
        curves.append(entries(tmp_path / str(number)))
    assert curves[0] == curves[1] != curves[2]


def test_half_precision_autocast(crops, tmp_path):
    """The network computes in bfloat16; its weights, the loss and the prior stay in float32."""
    run = trainer(crops, tmp_path, precision="bf16")
    assert run.bf16
    seen = set()
    run.network.unet.conv_in.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    prior = run.run(3)
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in run.network.parameters()} == {torch.float32}
    assert {p.dtype for p in prior.network.parameters()} == {torch.float32}
    full = trainer(crops, tmp_path / "full", precision="fp32")
    full.run(3)
    for (_, one), (_, other) in zip(entries(tmp_path), entries(tmp_path / "full"), strict=True):
        assert one == pytest.approx(other, rel=0.05)
        assert one != other
    assert not full.bf16


# ------------------------------------------------------------------------------------------- it learns


def test_it_learns(tmp_path):
    """Flat pictures: noise is what varies. Well below 1, which is the loss of saying nothing."""
    flat = [np.full((32, 32, 3), level, np.uint8) for level in (20, 90, 160, 230)]
    torch.manual_seed(0)
    options = {"steps": 100, "batch": 8, "learning_rate": 3e-3, "warmup": 5, "ema": 0.9, "decay": 0.5}
    prior = trainer(Crops.from_arrays(flat, 16), tmp_path, network=photo_unet((32, 32)), **options).run()
    curve = [loss for _, loss in entries(tmp_path)]
    assert len(curve) == 100
    assert np.mean(curve[:3]) > 0.8
    assert np.mean(curve[-10:]) < 0.3
    # What was learned denoises.
    x_0 = torch.full((4, 3, 16, 16), 2 * 160 / 255 - 1)
    alpha, sigma = prior.schedule(0.4)
    x_t = alpha * x_0 + sigma * torch.randn(x_0.shape, generator=seeded(9))
    error = float(((prior(x_t, 0.4) - x_0) ** 2).mean())
    assert error < 0.3 * (sigma / alpha) ** 2
    # The prior that is saved is that prior.
    assert torch.equal(restore.load_prior(tmp_path)(x_t, 0.4), prior(x_t, 0.4))


# ------------------------------------------------------------------------------------------- going on


@pytest.fixture(scope="module")
def whole(crops, tmp_path_factory):
    """A run without interruption."""
    out = tmp_path_factory.mktemp("whole")
    run = trainer(crops, out)
    run.run()
    return weights(run), entries(out), contents(out)


@pytest.mark.parametrize("stops", [[6], [1, 11], [3, 4, 5]])
def test_interrupted_and_resumed_is_the_same_run(crops, tmp_path, whole, stops):
    for number, stop in enumerate(stops):
        trainer(crops, tmp_path, resume=number > 0).run(stop)
    # Resumed in a network with other weights, and another state of torch's own generator.
    run = trainer(crops, tmp_path, network=tiny(seed=5), resume=True)
    assert run.step == stops[-1]
    run.run()
    state, curve, files = whole
    assert_same(weights(run), state)
    assert entries(tmp_path) == curve
    assert [step for step, _ in curve] == list(range(1, 13))
    for name, data in contents(tmp_path).items():
        if name.name != LOG:  # It holds seconds.
            assert data == files[name], name


def test_accumulation_resumes_too(crops, tmp_path):
    one = trainer(crops, tmp_path / "one", accumulate=2, steps=6)
    one.run()
    trainer(crops, tmp_path / "two", accumulate=2, steps=6).run(3)
    two = trainer(crops, tmp_path / "two", accumulate=2, steps=6, resume=True)
    two.run()
    assert_same(weights(one), weights(two))


def test_ctrl_c_finishes_the_update_and_saves_it(crops, tmp_path, whole):
    before = signal.getsignal(signal.SIGINT)

    def ctrl_c(batch):
        signal.raise_signal(signal.SIGINT)
        return batch

    with from_batch(5, ctrl_c), pytest.raises(KeyboardInterrupt):
        trainer(crops, tmp_path).run()
    assert signal.getsignal(signal.SIGINT) is before
    run = trainer(crops, tmp_path, resume=True)
    assert 1 <= run.step < 12
    run.run()
    state, curve, _ = whole
    assert_same(weights(run), state)
    assert entries(tmp_path) == curve


@pytest.mark.parametrize("crash", [55, 58])
def test_interrupted_between_checkpoints(crops, tmp_path, crash):
    """It goes on from the last checkpoint (45), and what was logged since (up to 50) is cut from the log."""
    options = {"steps": 60, "save_every": 45, "validate_every": 7, "batch": 2}
    held = Crops.from_arrays(pictures(seed=1, count=1), 16, flip=False)

    def start(out, **more):
        run = trainer(crops, out, validation=held, **options, **more)
        run.validate = lambda: float(sum(p.sum() for p in run.ema.network.parameters()))  # Quick, and exact.
        return run

    one = start(tmp_path / "one")
    one.run()

    with from_batch(crash, interrupt), pytest.raises(KeyboardInterrupt):
        start(tmp_path / "two").run()
    log = tmp_path / "two" / LOG
    assert entries(tmp_path / "two")[-1][0] == 50
    log.write_text(log.read_text() + '{"step": 51, "lo')  # Cut off while it was written.
    two = start(tmp_path / "two", resume=True)
    assert two.step == 45
    assert entries(tmp_path / "two")[-1][0] == 45
    assert entries(tmp_path / "two", "validation")[-1][0] == 42
    two.run()

    assert_same(weights(two), weights(one))
    assert entries(tmp_path / "two") == entries(tmp_path / "one")
    assert [step for step, _ in entries(tmp_path / "two")] == list(range(1, 61))
    assert entries(tmp_path / "two", "validation") == entries(tmp_path / "one", "validation")
    assert [step for step, _ in entries(tmp_path / "two", "validation")] == list(range(7, 61, 7))


def test_the_log_is_whole_up_to_every_checkpoint(crops, tmp_path, whole):
    """Also where checkpoints are more frequent than the log is written."""
    with from_batch(8, interrupt), pytest.raises(KeyboardInterrupt):
        trainer(crops, tmp_path, save_every=3).run()
    assert [step for step, _ in entries(tmp_path)] == [1, 2, 3, 4, 5, 6]
    trainer(crops, tmp_path, save_every=3, resume=True).run()
    assert entries(tmp_path) == whole[1]


def test_a_finished_run_resumes_to_nothing(crops, tmp_path):
    trainer(crops, tmp_path, steps=3).run()
    before = contents(tmp_path)
    prior = trainer(crops, tmp_path, steps=3, resume=True).run()
    assert contents(tmp_path) == before
    assert isinstance(prior, Prior)


def test_a_run_is_not_shortened(crops, tmp_path):
    trainer(crops, tmp_path, steps=3).run()
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"has made 3 updates, more than steps=2 .* in all"):
        trainer(crops, tmp_path, steps=2, resume=True)
    assert contents(tmp_path) == before


def test_a_run_may_be_prolonged(crops, tmp_path):
    trainer(crops, tmp_path, steps=3).run()
    trainer(crops, tmp_path, steps=5, save_every=2, resume=True).run()
    assert [step for step, _ in entries(tmp_path)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 5}, "batch was 4 and is 5"),
        ({"seed": 1}, "seed was 0 and is 1"),
        (
            {"learning_rate": 1e-3, "ema": 0.5},
            "learning_rate was 0.0005 and is 0.001, ema was 0.999 and is 0.5",
        ),
        ({"accumulate": 2}, "accumulate was 1 and is 2"),
        ({"precision": "bf16"}, "precision was fp32 and is bf16"),
    ],
)
def test_resuming_with_other_options_is_refused(crops, tmp_path, changes, message):
    trainer(crops, tmp_path).run(1)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        trainer(crops, tmp_path, resume=True, **changes)
    assert contents(tmp_path) == before


def test_a_state_that_is_older_than_an_option_goes_on_with_its_default(crops, tmp_path, whole):
    """Trainings that began before there were dead leaves, or sizes between the halves."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    trainer(crops, tmp_path).run(6)
    with safe_open(tmp_path / STATE, framework="pt") as file:
        about = json.loads(file.metadata()["restore"])
    for name in ("dead_leaves", "per_octave"):
        del about["options"][name]
    save_file(load_file(tmp_path / STATE), tmp_path / STATE, metadata={"restore": json.dumps(about)})
    with pytest.raises(ValueError, match=r"per_octave was 1 and is 2, dead_leaves was 0\.0 and is 0\.1"):
        trainer(crops, tmp_path, resume=True, dead_leaves=0.1, per_octave=2)
    run = trainer(crops, tmp_path, resume=True)
    run.run()
    assert_same(weights(run), whole[0])


def test_a_state_with_an_option_that_is_no_more(crops, tmp_path):
    """It may go on where the option was off; else it would go on as something else."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    trainer(crops, tmp_path).run(1)
    with safe_open(tmp_path / STATE, framework="pt") as file:
        about = json.loads(file.metadata()["restore"])
    for value in (0.0, 0.5):
        about["options"]["coarse"] = value
        save_file(load_file(tmp_path / STATE), tmp_path / STATE, metadata={"restore": json.dumps(about)})
        if value:
            with pytest.raises(ValueError, match=r"coarse was 0\.5 and is no longer an option"):
                trainer(crops, tmp_path, resume=True)
        else:
            assert trainer(crops, tmp_path, resume=True).step == 1


def test_resuming_another_network_is_refused(crops, tmp_path):
    trainer(crops, tmp_path).run(1)
    with pytest.raises(ValueError, match="the state of another network"):
        trainer(crops, tmp_path, network=photo_unet((8, 24)), resume=True)


def test_resuming_with_another_schedule_is_refused(crops, tmp_path):
    trainer(crops, tmp_path).run(1)
    with pytest.raises(ValueError, match=r"another schedule: \{'kind': 'linear'"):
        trainer(crops, tmp_path, schedule=Schedule.cosine(), resume=True)


def test_an_existing_training_is_not_overwritten(crops, tmp_path):
    trainer(crops, tmp_path).run(1)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="holds a training already: resume it"):
        trainer(crops, tmp_path)
    assert contents(tmp_path) == before


def test_nothing_to_resume(crops, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to resume") as error:
        trainer(crops, tmp_path / "new", resume=True)
    assert "new" in str(error.value)


# ------------------------------------------------------------------------------------------- files


def test_the_folder_is_a_prior_at_any_time(crops, tmp_path):
    """From the first checkpoint on, in the middle of the training."""
    loaded = []

    def look(batch):
        loaded.append(restore.load_prior(tmp_path))
        return batch

    schedule = Schedule.cosine(100)
    run = trainer(
        crops, tmp_path, save_every=2, steps=7, schedule=schedule, config={"name": "mine", "licence": "MIT"}
    )
    run.run(2)
    first = {k: v.clone() for k, v in run.ema.network.state_dict().items()}
    with from_batch(0, look):
        prior = run.run()
    assert len(loaded) == 5
    assert_same(loaded[0].network.state_dict(), first)
    assert_same(loaded[1].network.state_dict(), first)
    assert any(not torch.equal(v, first[k]) for k, v in loaded[2].network.state_dict().items())
    last = restore.load_prior(tmp_path)
    assert_same(last.network.state_dict(), prior.network.state_dict())
    assert (last.name, last.config["licence"], last.prediction) == ("mine", "MIT", "epsilon")
    assert last.schedule == schedule
    assert restore.sample(last, (1, 3, 8, 8), steps=2, seed=0, progress=False).shape == (1, 3, 8, 8)


def test_the_prior_is_a_copy(crops, tmp_path):
    run = trainer(crops, tmp_path)
    early = run.run(2)
    before = {k: v.clone() for k, v in early.network.state_dict().items()}
    run.run(4)
    assert_same(early.network.state_dict(), before)


@pytest.mark.parametrize("which", [0, 1], ids=["state", "prior"])
def test_a_failure_while_saving_leaves_the_checkpoint(crops, tmp_path, monkeypatch, which):
    import safetensors.torch

    run = trainer(crops, tmp_path)
    run.run(2)
    before, plain, calls = contents(tmp_path), safetensors.torch.save_file, []

    def save_file(tensors, path, metadata=None):
        calls.append(path)
        if len(calls) > which:
            path.write_bytes(b"half of the file")
            raise OSError("no space left on device")
        plain(tensors, path, metadata=metadata)

    monkeypatch.setattr(safetensors.torch, "save_file", save_file)
    with pytest.raises(OSError, match="no space"):
        run.save()
    after = contents(tmp_path)
    assert after.keys() == before.keys()
    unchanged = {k: v for k, v in before.items() if k.name != STATE}
    assert {k: after[k] for k in unchanged} == unchanged
    monkeypatch.undo()
    assert restore.load_prior(tmp_path)
    assert trainer(crops, tmp_path, resume=True).step == 2


def test_a_loss_that_is_not_finite_stops_and_leaves_the_checkpoint(crops, tmp_path):
    """The checkpoints are more frequent than the looks at the loss: none may hold what is not finite."""
    trainer(crops, tmp_path, save_every=2).run(4)
    before = contents(tmp_path)
    run = trainer(crops, tmp_path, save_every=2, resume=True)
    with (
        from_batch(1, lambda x: x * math.nan),
        pytest.raises(FloatingPointError, match=r"near update 6.*learning rate"),
    ):
        run.run()
    assert contents(tmp_path) == before
    prior = restore.load_prior(tmp_path)
    assert all(bool(p.isfinite().all()) for p in prior.network.parameters())


def test_samples_are_written_and_change_nothing(crops, tmp_path, whole):
    run = trainer(crops, tmp_path, sample_every=6)
    run.run()
    names = sorted(p.name for p in (tmp_path / "samples").iterdir())
    assert names == ["0000006.png", "0000012.png"]
    with Image.open(tmp_path / "samples" / names[0]) as picture:
        assert picture.mode == "RGB"
        assert min(picture.size) >= 4 * 16  # Sixteen pictures of the size of a crop.
    assert_same(weights(run), whole[0])
    assert entries(tmp_path) == whole[1]


def test_validation_is_logged_and_changes_nothing(crops, tmp_path, whole):
    held = Crops.from_arrays(pictures(seed=8, count=2), 16, flip=False)
    run = trainer(crops, tmp_path, validation=held, validate_every=4)
    run.run()
    logged = entries(tmp_path, "validation")
    assert [step for step, _ in logged] == [4, 8, 12]
    assert logged[-1][1] == run.validate() == run.validate()  # Always the same crops and noise.
    object.__setattr__(run.options, "seed", 5)
    assert run.validate() == logged[-1][1]  # Trainings of different seeds are compared by it.
    assert entries(tmp_path) == whole[1]
    assert_same(weights(run), whole[0])
    # It is L_simple of the averaged weights.
    generator = seeded(stream_seed(0, 1))
    with torch.no_grad():
        x_0 = held.batch(64, generator)
        expected = float(simple_loss(run.ema.network, x_0, run.schedule, generator))
    assert run.validate(batches=1) == pytest.approx(expected, rel=1e-5)


def test_validation_without_pictures(crops, tmp_path):
    with pytest.raises(ValueError, match="no validation pictures: give validation="):
        trainer(crops, tmp_path).validate()


def test_every_update_is_logged(crops, tmp_path):
    """Once, in order, over the boundary of 50 at which the log is written."""
    run = trainer(crops, tmp_path, steps=53, batch=1, save_every=1000)
    run.run()
    assert [step for step, _ in entries(tmp_path)] == list(range(1, 54))
    seconds = entries(tmp_path, "seconds")
    assert [step for step, _ in seconds] == [50, 53]
    assert 0 <= seconds[0][1] <= seconds[1][1]


# ------------------------------------------------------------------------------------------- train


@pytest.fixture
def folder(tmp_path):
    for name, images in (("photos", pictures(count=3)), ("photos/held-val", pictures(seed=1, count=1))):
        (tmp_path / name).mkdir()
        for number, pixels in enumerate(images):
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def small_default(monkeypatch):
    """The default network, but small; what it was asked for is remembered."""
    asked = []

    def make(**options):
        asked.append(options)
        return photo_unet((8, 16), **options)

    monkeypatch.setattr("restore.networks.photo_unet", make)
    return asked


SHORT = {**QUICK, "steps": 4, "validate_every": 2, "device": "cpu", "progress": False}


def test_train_end_to_end(folder, tmp_path, small_default):
    out = tmp_path / "new" / "prior"
    prior = restore.train(folder, out, config={"name": "mine"}, **{**SHORT, "sample_every": 4})
    files = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert files == {"config.json", "model.safetensors", STATE, LOG, "samples/0000004.png"}
    again = restore.load_prior(out)
    assert again.name == "mine"
    x = torch.randn(1, 3, 16, 16, generator=seeded())
    assert torch.equal(again(x, 0.5), prior(x, 0.5))
    assert [step for step, _ in entries(out)] == [1, 2, 3, 4]
    assert [step for step, _ in entries(out, "validation")] == [2, 4]
    assert small_default == [{"image_channels": 3}]


def test_train_from_an_interruption(folder, tmp_path, small_default):
    whole = restore.train(folder, tmp_path / "whole", **SHORT)
    with from_batch(2, interrupt), pytest.raises(KeyboardInterrupt):
        restore.train(folder, tmp_path / "cut", **{**SHORT, "save_every": 1, "validate_every": 0})
    with pytest.raises(FileExistsError, match="holds a training already"):
        restore.train(folder, tmp_path / "cut", **SHORT)
    resumed = restore.train(folder, tmp_path / "cut", resume=True, **{**SHORT, "validate_every": 0})
    assert_same(resumed.network.state_dict(), whole.network.state_dict())
    assert entries(tmp_path / "cut") == entries(tmp_path / "whole")


def test_a_resumed_training_has_the_options_it_had(folder, tmp_path, small_default):
    options = {**SHORT, "crop": "16,32", "learning_rate": 3e-4, "flip": False, "seed": 5, "validate_every": 0}
    options["config"] = {"name": "mine", "licence": "CC0"}
    whole = restore.train(folder, tmp_path / "whole", **options)
    with from_batch(3, interrupt), pytest.raises(KeyboardInterrupt):
        restore.train(folder, tmp_path / "cut", **{**options, "save_every": 1})
    few = {"device": "cpu", "progress": False, "resume": True}
    resumed = restore.train(folder, tmp_path / "cut", **few)
    assert_same(resumed.network.state_dict(), whole.network.state_dict())
    told = [(tmp_path / name / "config.json").read_text() for name in ("cut", "whole")]
    assert told[0] == told[1]
    with pytest.warns(UserWarning, match=r"has made all its 4 updates: give a larger number of steps"):
        restore.train(folder, tmp_path / "cut", **few)
    with pytest.raises(ValueError, match=r"learning_rate was 0\.0003 and is 0\.001"):
        restore.train(folder, tmp_path / "cut", learning_rate=1e-3, **few)
    more = restore.train(folder, tmp_path / "cut", steps=5, **few)
    assert entries(tmp_path / "cut")[:4] == entries(tmp_path / "whole")
    assert any(
        not torch.equal(v, more.network.state_dict()[k]) for k, v in resumed.network.state_dict().items()
    )


def test_the_command_goes_on_without_saying_the_options_again(folder, tmp_path, small_default, capsys):
    from restore.cli import main

    run = ["train", str(folder), "-o", str(tmp_path / "out"), "--quiet", "--device", "cpu"]
    options = ["--colours", "--crop", "16", "--batch", "2", "--warmup", "1", "--validate-every", "0"]
    assert main([*run, *options, "--steps", "1"]) == 0
    assert main([*run, "--resume", "--steps", "2"]) == 0
    assert capsys.readouterr().out.count("give it to restore colorize as --prior") == 2
    assert [step for step, _ in entries(tmp_path / "out")] == [1, 2]
    assert main([*run, "--resume", "--no-colours"]) == 2
    assert "(colours was True and is False): leave them out" in capsys.readouterr().err


def test_train_with_dead_leaves_resumes_exactly(folder, tmp_path, small_default):
    options = {**SHORT, "dead_leaves": 0.3, "per_octave": 2, "crop": "16,32", "save_every": 1}
    whole = restore.train(folder, tmp_path / "whole", **options)
    with from_batch(3, interrupt), pytest.raises(KeyboardInterrupt):
        restore.train(folder, tmp_path / "cut", **{**options, "validate_every": 0})
    resumed = restore.train(folder, tmp_path / "cut", resume=True, **{**options, "validate_every": 0})
    assert_same(resumed.network.state_dict(), whole.network.state_dict())
    plain = restore.train(folder, tmp_path / "plain", **{**options, "dead_leaves": 0.0})
    assert any(
        not torch.equal(v, plain.network.state_dict()[k]) for k, v in whole.network.state_dict().items()
    )
    with pytest.raises(ValueError, match=r"dead_leaves was 0\.3 and is 0\.0"):
        restore.train(folder, tmp_path / "cut", resume=True, **{**options, "dead_leaves": 0.0})


def test_train_on_grey_pictures(folder, tmp_path, small_default):
    prior = restore.train(folder, tmp_path / "out", channels=1, **SHORT)
    assert prior.channels == 1
    assert small_default == [{"image_channels": 1}]


def test_train_from_the_weights_of_another_prior(folder, tmp_path, small_default):
    start = Prior(tiny(seed=77), Schedule.linear())
    start.save(tmp_path / "start")
    options = {**SHORT, "steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    prior = restore.train(folder, tmp_path / "out", init=tmp_path / "start", **options)
    for one, other in zip(prior.network.parameters(), start.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="does not fit the network"):
        restore.train(
            folder, tmp_path / "other", init=tmp_path / "start", network=photo_unet((8, 24)), **options
        )


def test_train_from_a_prior_of_another_width_and_schedule(folder, tmp_path, small_default):
    start = Prior(photo_unet((8, 24)), Schedule.cosine(50))
    start.save(tmp_path / "start")
    options = {**SHORT, "save_every": 1, "init": str(tmp_path / "start")}
    whole = restore.train(folder, tmp_path / "whole", **options)
    assert describe_network(whole.network) == describe_network(start.network)
    assert whole.schedule == start.schedule
    assert not small_default
    # Resumed with what it was, whether init is said again or not.
    for name in ("cut", "again"):
        with from_batch(2, interrupt), pytest.raises(KeyboardInterrupt):
            restore.train(folder, tmp_path / name, **{**options, "validate_every": 0})
    del options["init"]
    resumed = restore.train(folder, tmp_path / "cut", resume=True, **{**options, "validate_every": 0})
    assert_same(resumed.network.state_dict(), whole.network.state_dict())
    options["init"] = str(tmp_path / "gone")
    resumed = restore.train(folder, tmp_path / "again", resume=True, **{**options, "validate_every": 0})
    assert_same(resumed.network.state_dict(), whole.network.state_dict())


def test_train_from_what_is_no_such_prior(folder, tmp_path):
    Prior(tiny(), Schedule.linear(), "v_prediction").save(tmp_path / "v")
    with pytest.raises(ValueError, match=r"predicts 'v_prediction' .* predicts 'epsilon'"):
        restore.train(folder, tmp_path / "out", init=tmp_path / "v", **SHORT)
    Prior(tiny(), Schedule.linear(), "epsilon", (0.0, 1.0)).save(tmp_path / "unit")
    with pytest.raises(ValueError, match=r"pictures in \[0\.0, 1\.0\]"):
        restore.train(folder, tmp_path / "out", init=tmp_path / "unit", **SHORT)
    with pytest.raises(FileNotFoundError, match="there is no prior"):
        restore.train(folder, tmp_path / "out", init="nowhere", **SHORT)
    assert not (tmp_path / "out").exists()


def test_train_from_what_cannot_be_trained_is_refused_in_words(folder, tmp_path):
    from diffusers import UNet2DModel

    small = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 8}
    blocks = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}
    classes = Prior(UNet2DModel(num_class_embeds=3, **small, **blocks), Schedule.linear())
    with pytest.raises(ValueError, match="is conditional on a class, which cannot be trained here"):
        restore.train(folder, tmp_path / "out", init=classes, **SHORT)
    learned = Prior(UNet2DModel(out_channels=6, **small, **blocks), Schedule.linear(), channels=3)
    with pytest.raises(ValueError, match="predicts its variance, too, which"):
        restore.train(folder, tmp_path / "out", init=learned, **SHORT)
    plain = Prior(UNet2DModel(**small, **blocks), Schedule.linear())
    before = {name: value.clone() for name, value in plain.network.state_dict().items()}
    trained = restore.train(folder, tmp_path / "out", init=plain, **SHORT)
    assert_same(plain.network.state_dict(), before)
    assert any(not torch.equal(v, before[k]) for k, v in trained.network.state_dict().items())
    with pytest.raises(TypeError, match=r"colours are learned from a network of .*photo_unet"):
        restore.train(folder, tmp_path / "colours", init=plain, colours=True, **SHORT)


def test_train_from_a_grey_prior_on_grey_pictures(folder, tmp_path):
    start = Prior(photo_unet((8, 8), image_channels=1), Schedule.linear())
    prior = restore.train(folder, tmp_path / "out", init=start, **{**SHORT, "save_every": 2})
    assert prior.channels == 1
    more = restore.train(folder, tmp_path / "out", resume=True, **{**SHORT, "steps": 6})
    assert more.channels == 1


def test_train_leaves_the_callers_random_numbers_alone(folder, tmp_path):
    before = torch.random.get_rng_state()
    restore.train(folder, tmp_path / "out", init=Prior(tiny(), Schedule.linear()), **SHORT)
    torch.random.set_rng_state(before)
    restore.train(folder, tmp_path / "two", init=tmp_path / "out", **{**SHORT, "steps": 1})
    restore.train(folder, tmp_path / "two", resume=True, **{**SHORT, "steps": 2})
    assert torch.equal(torch.random.get_rng_state(), before)


def test_resume_with_an_own_network_needs_no_schedule(folder, tmp_path):
    start = Prior(tiny(), Schedule.cosine(50))
    first = restore.train(folder, tmp_path / "out", network=tiny(), init=start, **SHORT)
    again = restore.train(
        folder, tmp_path / "out", network=tiny(), init="gone", resume=True, **{**SHORT, "steps": 5}
    )
    assert again.schedule == first.schedule == start.schedule


def test_resume_where_there_is_nothing(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        restore.train(folder, tmp_path / "out", resume=True, **SHORT)


def test_train_with_an_own_network_and_schedule(folder, tmp_path):
    network, schedule = tiny(layers=2), Schedule.cosine(50)
    prior = restore.train(folder, tmp_path / "out", network=network, schedule=schedule, **SHORT)
    assert describe_network(prior.network) == describe_network(network)
    assert restore.load_prior(tmp_path / "out").schedule == schedule


def test_an_unknown_option_lists_the_known_ones(folder, tmp_path):
    with pytest.raises(TypeError, match="unknown training option 'epochs'") as error:
        restore.train(folder, tmp_path / "out", epochs=3)
    for name in ("steps", "batch", "crop", "learning_rate", "accumulate", "seed", "validate_every"):
        assert name in str(error.value)
    assert not (tmp_path / "out").exists()


def test_train_without_pictures(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        restore.train(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "photos").mkdir()
    with pytest.raises(FileNotFoundError, match="no pictures in"):
        restore.train(tmp_path / "photos", tmp_path / "out")


def test_train_with_pictures_that_are_too_small(folder, tmp_path, small_default):
    with pytest.raises(ValueError, match="none of the 3 pictures is at least 64"):
        restore.train(folder, tmp_path / "out", **{**SHORT, "crop": 64})


def test_a_folder_whose_name_ends_in_val_can_be_trained_on(folder, tmp_path, small_default):
    prior = restore.train(folder / "held-val", tmp_path / "out", **SHORT)
    assert isinstance(prior, Prior)


def test_the_bar_shows_the_loss(crops, tmp_path, capsys):
    Trainer(tiny(), crops, tmp_path, TrainingOptions(**QUICK)).run()
    shown = capsys.readouterr().err
    assert "12/12" in shown
    assert "loss=1." in shown


# ------------------------------------------------------------------------------------------- several processes

SCRIPT = """
import hashlib, json, sys
import numpy as np, torch
torch.set_num_threads(1)
from restore.data import Crops
from restore.networks import photo_unet
from restore.training import Trainer, TrainingOptions

out, resume = sys.argv[1], sys.argv[2] == "resume"
rng = np.random.default_rng(0)
crops = Crops.from_arrays([rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(3)], 16)
seen, plain = [], crops.batch

def batch(*asked_for):
    x = plain(*asked_for)
    seen.append(x.contiguous().numpy().tobytes())
    return x

crops.batch = batch
torch.manual_seed(0)
options = TrainingOptions(
    steps=6, batch=2, crop=16, warmup=2, accumulate=2, clip=1e9, precision="fp32",
    save_every=4, sample_every=0, validate_every=0,
)
trainer = Trainer(photo_unet((8, 16)), crops, out, options, progress=False, resume=resume)
if not resume:
    # The mean over both processes of the first update's gradient, to be compared with one process.
    step = trainer.optimizer.step
    grads = []
    def record(*args, **kwargs):
        grads.append(torch.cat([p.grad.flatten() for p in trainer.network.parameters()]).clone())
        return step(*args, **kwargs)
    trainer.optimizer.step = record
    trainer.run(5)
    torch.save(grads[0], f"{out}/gradient-{trainer.accelerator.process_index}.pt")
else:
    trainer.run()
digest = hashlib.sha256()
for networks in (trainer.network, trainer.ema.network):
    for p in networks.parameters():
        digest.update(p.detach().contiguous().numpy().tobytes())
rank = trainer.accelerator.process_index
about = {
    "count": trainer.accelerator.num_processes,
    "weights": digest.hexdigest(),
    "crops": [hashlib.sha256(s).hexdigest() for s in seen],
    "step": trainer.step,
}
open(f"{out}/{sys.argv[2]}-{rank}.json", "w").write(json.dumps(about))
"""


@pytest.mark.slow
def test_two_processes(crops, tmp_path):
    """They see different crops, keep the same weights, use the mean gradient, and write one folder."""
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    out.mkdir()

    def launch(word):
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            "2",
            "--master_port",
            "29577",
        ]
        done = subprocess.run(
            [*command, script, out, word], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads((out / f"{word}-{rank}.json").read_text()) for rank in (0, 1)]

    one, two = launch("start")
    assert one["count"] == two["count"] == 2
    assert one["weights"] == two["weights"]
    assert len(one["crops"]) == len(two["crops"]) == 10
    assert len({*one["crops"], *two["crops"]}) == 20
    assert [step for step, _ in entries(out)] == [1, 2, 3, 4, 5]
    assert not list(out.glob(".*"))
    assert restore.load_prior(out)

    # The gradient is the mean over the two batches of the two processes.
    network = tiny()
    losses = []
    for rank in (0, 1):
        for part in (0, 1):
            generator = seeded(stream_seed(0, 0, rank, part))
            losses.append(simple_loss(network, crops.batch(2, generator), Schedule.linear(), generator))
    mean = sum(losses) / 4
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(mean, list(network.parameters()))])
    for rank in (0, 1):
        found = torch.load(out / f"gradient-{rank}.pt", weights_only=True)
        assert float((found - expected).norm() / expected.norm()) < 1e-4
    assert entries(out)[0][1] == pytest.approx(mean.item(), rel=1e-4)

    one, two = launch("resume")
    assert one["step"] == two["step"] == 6
    assert one["weights"] == two["weights"]
    assert [step for step, _ in entries(out)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("lost", [1, 10])
def test_gradients_that_overflow_do_not_cost_the_weights(tmp_path, lost, monkeypatch):
    """One is no news, however often the log is written; where they do so again and again, a person is told, once."""
    monkeypatch.setattr("restore.training.trainer.WATCHED", 4)
    monkeypatch.setattr("restore.training.trainer.MOST_OVERFLOWS", 0.3)
    network = photo_unet((8, 8))
    weight = network.unet.conv_out.weight
    count = []

    def overflow(gradient):
        count.append(1)
        return torch.full_like(gradient, math.inf) if 1 < len(count) <= 1 + lost else gradient

    weight.register_hook(overflow)
    options = TrainingOptions(steps=12, batch=2, crop=16, save_every=2, validate_every=0, sample_every=0)
    pictures = [np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)]
    before = weight.detach().clone()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        prior = Trainer(network, Crops.from_arrays(pictures, 16), tmp_path, options, progress=False).run()
    messages = [str(w.message) for w in told if "gradients" in str(w.message)]
    assert len(messages) == (lost == 10)  # Of three fours, all of which lost some.
    if messages:
        assert "in 3 of the last 4 updates, up to number 4" in messages[0]
    assert len(count) == 12
    assert all(p.isfinite().all() for p in prior.network.parameters())
    assert not torch.equal(weight, before)
