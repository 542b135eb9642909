import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.schedule import Schedule

KINDS = {
    "linear": Schedule.linear,
    "scaled_linear": Schedule.scaled_linear,
    "cosine": Schedule.cosine,
    "flow": Schedule.flow,
}
PRESERVING = [Schedule.linear(), Schedule.scaled_linear(), Schedule.cosine(), Schedule.linear(steps=50)]
ALL = [*PRESERVING, Schedule.flow(), Schedule.from_betas([0.1, 0.3, 0.5])]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Schedule.linear(), {"beta_schedule": "linear"}),
        (
            Schedule.linear(1000, 0.001, 0.01),
            {"beta_schedule": "linear", "beta_start": 0.001, "beta_end": 0.01},
        ),
        (
            Schedule.scaled_linear(),
            {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        ),
        (Schedule.cosine(), {"beta_schedule": "squaredcos_cap_v2"}),
        (Schedule.linear(200), {"beta_schedule": "linear", "num_train_timesteps": 200}),
    ],
    ids=["linear", "other betas", "scaled_linear", "cosine", "200 steps"],
)
def test_trained_steps_are_those_of_diffusers(ours, theirs):
    from diffusers import DDPMScheduler

    expected = DDPMScheduler(**theirs).alphas_cumprod.double()  # computed there in float32
    alpha, sigma = ours(torch.arange(1, ours.steps + 1) / ours.steps)
    torch.testing.assert_close(alpha**2, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(sigma**2, 1 - expected, rtol=0, atol=1e-6)
    assert (
        float((alpha**2 / expected - 1).abs()[:-1].max()) < 1e-3
    )  # relative, where the last step is not clipped


def test_first_and_last_steps_of_ddpm_written_out():
    schedule = Schedule.linear()
    betas = np.linspace(1e-4, 0.02, 1000)
    assert schedule(0.001)[0] ** 2 == pytest.approx(1 - 1e-4, rel=1e-12)
    assert schedule(0.002)[0] ** 2 == pytest.approx((1 - betas[0]) * (1 - betas[1]), rel=1e-12)
    assert schedule(1.0)[0] ** 2 == pytest.approx(np.prod(1 - betas), rel=1e-9)
    assert schedule(1.0)[0] ** 2 == pytest.approx(4.0358e-5, rel=1e-4)  # a number known from DDPM


def test_cosine_follows_the_squared_cosine():
    schedule = Schedule.cosine()
    for t in (0.1, 0.25, 0.5, 0.9):
        f = [np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2 for u in (t, 0)]
        assert schedule(t)[0] ** 2 == pytest.approx(f[0] / f[1], rel=1e-9)


@pytest.mark.parametrize("as_type", [list, np.asarray, torch.tensor], ids=["list", "numpy", "torch"])
def test_from_betas_is_the_cumulative_product(as_type):
    schedule = Schedule.from_betas(as_type([0.1, 0.2, 0.5]))
    assert schedule.steps == 3
    for step, alpha_bar in ((1, 0.9), (2, 0.72), (3, 0.36)):
        alpha, sigma = schedule(step / 3)
        assert alpha == pytest.approx(alpha_bar**0.5, rel=1e-6)
        assert sigma == pytest.approx((1 - alpha_bar) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_time_zero_is_the_clean_image(schedule):
    assert schedule(0.0) == (1.0, 0.0)
    alpha, sigma = schedule(torch.zeros(2, 3))
    assert alpha.shape == (2, 3)
    assert alpha.dtype == torch.float64
    assert bool((alpha == 1).all())
    assert bool((sigma == 0).all())


@pytest.mark.parametrize("schedule", PRESERVING, ids=repr)
def test_variance_is_preserved_at_every_time(schedule):
    alpha, sigma = schedule(torch.linspace(0, 1, 4321, dtype=torch.float64))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha), rtol=0, atol=1e-12)
    assert schedule.variance_preserving


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_the_curves_are_monotonous_between_trained_steps(schedule):
    alpha, sigma = schedule(torch.linspace(0, 1, 20011, dtype=torch.float64))
    assert float(alpha.diff().max()) < 0
    assert float(sigma.diff().min()) > 0


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 999), st.floats(0.05, 0.95))
def test_between_two_trained_steps_lie_their_values(step, share):
    schedule = Schedule.linear()
    low, high = schedule(step / 1000), schedule((step + 1) / 1000)
    alpha, sigma = schedule((step + share) / 1000)
    assert high[0] < alpha < low[0]
    assert low[1] < sigma < high[1]
    assert np.log(alpha) == pytest.approx((1 - share) * np.log(low[0]) + share * np.log(high[0]), rel=1e-6)


def test_float_and_tensor_times_agree():
    schedule = Schedule.scaled_linear()
    times = [0.0, 0.0004, 0.001, 0.3217, 0.77, 1.0]
    alpha, sigma = schedule(torch.tensor(times, dtype=torch.float64))
    assert [(float(a), float(s)) for a, s in zip(alpha, sigma, strict=True)] == [schedule(t) for t in times]


@pytest.mark.parametrize("time", [-0.01, 1.01, float("nan")])
def test_a_time_outside_the_schedule_is_refused(time):
    with pytest.raises(ValueError, match=r"times must lie in \[0, 1\]"):
        Schedule.linear()(time)
    with pytest.raises(ValueError, match=r"times must lie in \[0, 1\]"):
        Schedule.linear()(torch.tensor([0.5, time]))


@pytest.mark.parametrize("steps", [1, 3, 7, 50, 1000])
def test_step_numbers_count_from_zero(steps):
    schedule = Schedule.linear(steps)
    for k in range(steps):
        assert schedule.step_of((k + 1) / steps) == float(k)
    assert schedule.step_of(0.0) == 0.0
    assert schedule.step_of(0.4 / steps) == 0.0


def test_between_trained_steps_the_number_is_fractional():
    assert Schedule.linear().step_of(0.50025) == pytest.approx(499.25)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(range(len(ALL))), st.floats(1e-4, 0.999))
def test_time_of_is_the_inverse(index, t):
    schedule = ALL[index]
    alpha, sigma = schedule(t)
    assert schedule.time_of(sigma / alpha) == pytest.approx(t, abs=1e-6)


def test_time_of_at_the_ends():
    schedule = Schedule.linear()
    assert schedule.time_of(0.0) == pytest.approx(0, abs=1e-12)
    assert schedule.time_of(1e9) == 1.0
    assert schedule.time_of(float("inf")) == 1.0
    assert Schedule.flow().time_of(float("inf")) == pytest.approx(1.0)
    for bad in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="noise level is a number of at least 0"):
            schedule.time_of(bad)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1500), st.floats(0.002, 1.0), st.sampled_from([50, 1000]))
def test_times_go_down_to_zero_in_so_many_steps(steps, start, trained):
    schedule = Schedule.linear(trained)
    times = schedule.times(steps, start)
    assert len(times) == steps + 1
    assert times[-1] == 0.0
    assert times[0] == pytest.approx(start, abs=0.5 / trained + 1e-12)  # A half rounds up or down.
    gaps = -np.diff(times)
    assert gaps.min() > 0
    if steps <= start * trained:
        numbers = np.array(times) * trained
        np.testing.assert_allclose(numbers, np.rint(numbers), atol=1e-9)
        assert gaps.max() - gaps.min() < 1.001 / trained
    else:
        np.testing.assert_allclose(gaps, start / steps, rtol=1e-9)


def test_times_written_out():
    assert Schedule.linear().times(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert Schedule.linear().times(2, 0.5) == [0.5, 0.25, 0.0]
    assert Schedule.linear(10).times(3) == [1.0, 0.7, 0.3, 0.0]


@pytest.mark.parametrize("steps", [0, -1, 2.5])
def test_a_number_of_steps_that_is_none_is_refused(steps):
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1"):
        Schedule.linear().times(steps)


@pytest.mark.parametrize("start", [0.0, -0.2, 1.2, float("nan")])
def test_a_start_that_is_no_time_is_refused(start):
    with pytest.raises(ValueError, match=r"first time must lie in \(0, 1\]"):
        Schedule.linear().times(5, start)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_configurations_survive_json(schedule):
    import json

    again = Schedule.from_config(json.loads(json.dumps(schedule.to_config())))
    assert again == schedule
    times = torch.linspace(0, 1, 77, dtype=torch.float64)
    for ours, theirs in zip(schedule(times), again(times), strict=True):
        assert torch.equal(ours, theirs)


def test_different_schedules_differ():
    assert Schedule.linear() != Schedule.scaled_linear()
    assert Schedule.linear() != Schedule.linear(beta_end=0.021)
    assert Schedule.linear() != "linear"
    assert repr(Schedule.linear(10)) == "Schedule.linear(steps=10, beta_start=0.0001, beta_end=0.02)"


def test_a_configuration_can_be_changed_without_changing_the_schedule():
    schedule = Schedule.linear()
    schedule.to_config()["beta_end"] = 0.5
    assert schedule.to_config()["beta_end"] == 0.02


def test_flow_is_a_straight_line():
    schedule = Schedule.flow(10)
    for t in (0.1, 0.25, 0.5, 0.77, 1.0):
        assert schedule(t) == pytest.approx((1 - t, t))
    assert not schedule.variance_preserving


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule.from_betas([]), "list of numbers"),
        (lambda: Schedule.from_betas([[0.1], [0.2]]), "list of numbers"),
        (lambda: Schedule.from_betas([0.1, 0.0]), r"must lie in \(0, 1\]"),
        (lambda: Schedule.from_betas([0.1, 1.5]), r"must lie in \(0, 1\].*0.1 to 1.5"),
        (lambda: Schedule.from_betas([0.1, float("nan")]), r"must lie in \(0, 1\]"),
        (lambda: Schedule.linear(0), "at least one step"),
        (
            lambda: Schedule.from_config({"kind": "cubic"}),
            "unknown schedule 'cubic'; known are betas, linear",
        ),
        (lambda: Schedule.from_config({}), "unknown schedule None"),
        (lambda: Schedule(np.array([0.5, 0.9]), np.array([0.5, 0.6]), {}), "least noisy step first"),
        (lambda: Schedule(np.array([0.9, 0.5]), np.array([0.6, 0.5]), {}), "least noisy step first"),
        (lambda: Schedule(np.array([0.9, 0.5]), np.array([0.6]), {}), "same length"),
        (lambda: Schedule(np.array([0.9]), np.array([0.0]), {}), "every sigma finite and above 0"),
        (lambda: Schedule(np.array([np.nan]), np.array([0.5]), {}), "every alpha must be finite"),
    ],
)
def test_bad_tables_are_refused_in_words(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ------------------------------------------------------------------------------ times by the logarithm of the noise


def levels_of(schedule, times):
    """``log(sigma / alpha)`` of all times but the last, which is 0; at most that of a thousandth of signal."""
    pairs = [schedule(t) for t in times[:-1]]
    return np.array([np.log(min(sigma / alpha, 1e3) if alpha else 1e3) for alpha, sigma in pairs])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.floats(0.4, 1.0), st.sampled_from(range(len(ALL))))
def test_log_times_are_even_in_the_logarithm_of_the_noise(steps, start, index):
    schedule = ALL[index]
    times = schedule.times(steps, start, spacing="log")
    assert len(times) == steps + 1
    assert times[0] == pytest.approx(start, abs=0.5 / schedule.steps if steps == 1 else 0)
    assert times[-1] == 0.0
    assert (np.diff(times) < 0).all()
    if steps > 1:
        assert times[-2] == 1 / schedule.steps
        gaps = np.diff(levels_of(schedule, times))
        np.testing.assert_allclose(gaps, gaps.mean(), rtol=0.02, atol=2e-4)


def test_log_times_written_out():
    linear, flow = Schedule.linear(), Schedule.flow()
    assert linear.times(1, spacing="log") == [1.0, 0.0]
    assert linear.times(2, spacing="log") == [1.0, 0.001, 0.0]
    assert linear.times(2, 0.5, spacing="log") == [0.5, 0.001, 0.0]
    # Below the first trained step there is nothing to space.
    assert linear.times(2, 0.001, spacing="log") == [0.001, 0.0005, 0.0]
    # A flow ends without any signal; sigma / alpha = t / (1 - t) goes from 1000 to 1/999.
    ratios = np.geomspace(1000, 1 / 999, 4)
    expected = [1.0, ratios[1] / (1 + ratios[1]), ratios[2] / (1 + ratios[2]), 0.001, 0.0]
    np.testing.assert_allclose(flow.times(4, spacing="log"), expected, atol=1e-9)


@pytest.mark.parametrize("spacing", ["karras", "", None])
def test_an_unknown_spacing_is_refused(spacing):
    with pytest.raises(ValueError, match="spacing must be 'uniform' or 'log', not"):
        Schedule.linear().times(5, spacing=spacing)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_many_levels_at_once_are_the_single_ones(schedule):
    levels = np.array([0.0, 1e-4, 0.01, 0.3, 1.0, 7.0, 150.0, 1e9, np.inf])
    assert schedule._times_of(levels).tolist() == [schedule.time_of(level) for level in levels]


@pytest.mark.parametrize("lowest", [1.0, 1 / 3, 0.1])
def test_the_lowest_of_log_spaced_levels(lowest):
    schedule = Schedule.linear()
    times = schedule.times(20, spacing="log", lowest=lowest)
    levels = [sigma / alpha for alpha, sigma in map(schedule, times[:-1])]
    alpha, sigma = schedule(1 / schedule.steps)
    assert levels[-1] == pytest.approx(lowest * sigma / alpha, rel=1e-6)
    ratios = [b / a for a, b in itertools.pairwise(levels)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-5)
    for wrong in (0.0, 1.5):
        with pytest.raises(ValueError, match="the lowest level is a share"):
            schedule.times(20, spacing="log", lowest=wrong)
